"""Multicast listener discovery: IGMP's counterpart in ICMPv6 (RFC 2710, RFC 9777).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Maximum Response Code     |           Reserved            |  of a version 2 report: flags,
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+    and the number of records
    |                  Multicast Address, 16 bytes                  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | Flags |S| QRV |     QQIC      |     Number of Sources (N)     |  version 2 queries
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |              Source Address [1..N], 16 bytes each             |

Knows bytes; never a socket, nor ICMPv6's other messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire import membership
from twistedsock.wire.control import HEADER_BYTES, Ipv6Message, rest_of, stamped_6
from twistedsock.wire.fields import address_bytes, ipv6_text, printable
from twistedsock.wire.membership import Querying, Record, Reporting, floating

NAME = "mld"
# https://www.iana.org/assignments/icmpv6-parameters
QUERY, REPORT_1, DONE, REPORT_2 = 130, 131, 132, 143
TYPES: dict[int, str] = {
    QUERY: "multicast listener query",
    REPORT_1: "multicast listener report",
    DONE: "multicast listener done",
    REPORT_2: "multicast listener report v2",
}
ANY = "::"  # the group of a general query
V1_BYTES = 24
V2_QUERY_BYTES = 28
REPORT_2_BYTES = 8  # without records


@dataclass(frozen=True, slots=True)
class Mld(Ipv6Message):
    """What every message has: code (zero), checksum, is_intact."""

    protocol: ClassVar[str] = NAME

    def describe(self) -> str:
        """Return what people want to know of it, in one short line."""
        return printable(f"MLD{self._details()}")

    def _details(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Query(Mld, Querying):
    """A router asks who listens to a group, or to any.

    Attributes:
        group: ``::`` in a general query.
        max_response_code: Of 16 bits; ``max_response_s`` is what it stands for, and the
            function ``max_response_code`` the way back.
        version: 1 or 2; the fields from here on are version 2's.
        suppress: Other routers shall not restart their timers (the S flag).
        robustness: The querier's robustness variable, 0 to 7.
        qqic: The Querier's Query Interval Code; ``interval_s`` is what it stands for.
        sources: Those of a query of a group and sources.
        flags: The four bits before S; bit 3 says that extensions follow (RFC 9279).
        additional_data: What follows the sources.
        missing_sources: Announced, and cut off.
    """

    group: str = ANY
    max_response_code: int = 0
    version: int = 2
    suppress: bool = False
    robustness: int = 0
    qqic: int = 0
    sources: tuple[str, ...] = ()
    flags: int = 0
    additional_data: bytes = b""
    missing_sources: int = 0
    number: ClassVar[int] = QUERY
    widths: ClassVar[dict[str, int]] = {"max_response_code": 16}

    @property
    def max_response_s(self) -> float:
        """How long a host may wait with its answer."""
        code = self.max_response_code
        return (code if self.version == 1 else floating(code, 16)) / 1000

    @property
    def missing_bytes(self) -> int:
        """What the number of sources announces beyond the data."""
        return 16 * self.missing_sources

    def _rest(self) -> bytes:
        group = address_bytes(NAME, "group", self.group, 6)
        head = self.max_response_code.to_bytes(2, "big") + bytes(2) + group
        if self.version == 2:
            return head + self._end_to_bytes(6)
        if self.version != 1:
            self._refuse(f"version must be 1 or 2, got {self.version}")
        if self._has_end():
            self._refuse("a query of version 1 has a group and a code alone")
        return head

    def _details(self) -> str:
        return self._told(self.group == ANY, f"{self.max_response_s:g}s")


@dataclass(frozen=True, slots=True)
class _Group(Mld):
    group: str

    def _rest(self) -> bytes:
        return bytes(4) + address_bytes(NAME, "group", self.group, 6)


@dataclass(frozen=True, slots=True)
class Report1(_Group):
    """A host of version 1 listens to *group*."""

    number: ClassVar[int] = REPORT_1

    def _details(self) -> str:
        return f"v1 report of {self.group}"


@dataclass(frozen=True, slots=True)
class Done(_Group):
    """A host of version 1 no longer listens to *group*."""

    number: ClassVar[int] = DONE

    def _details(self) -> str:
        return f"v1 done with {self.group}"


@dataclass(frozen=True, slots=True)
class Report2(Mld, Reporting):
    """What a host of version 2 says of its groups.

    Attributes:
        records: In their order; the last may be cut off, and then says so.
        flags: The 16 bits before the number of records (RFC 9279).
        additional_data: What follows the records.
        missing_records: Announced, and not begun in the data.
    """

    records: tuple[Record, ...] = ()
    flags: int = 0
    additional_data: bytes = b""
    missing_records: int = 0
    number: ClassVar[int] = REPORT_2

    @property
    def missing_bytes(self) -> int:
        """What the numbers announce beyond the data, at least."""
        return self._missing_bytes(16)

    def _rest(self) -> bytes:
        return self._records_to_bytes(6)

    def _details(self) -> str:
        return f"v2 report {self._told()}"


Value: TypeAlias = Query | Report1 | Done | Report2


def max_response_code(seconds: float, version: int = 2) -> int:
    """Return the code for thousandths of *seconds*; in version 2 for the next below that has one.

    Raises:
        PacketError: There is none so large: at most 65.535 s in version 1, 8387.584 s in 2.
    """
    thousandths = round(seconds * 1000)
    if version == 2:
        return membership.floating_code(NAME, "thousandths of a second", thousandths, 16)
    if version != 1 or not 0 <= thousandths <= 0xFFFF:
        text = f"version 1 has 0s..65.535s; got {seconds}s in version {version}"
        raise PacketError(NAME, text)
    return thousandths


def parse(data: bytes, source: str = "", destination: str = "") -> Value:
    """Return the message in *data*, what follows the IPv6 headers.

    The version of a query is told by its length (RFC 9777 section 8.1). What follows the group in
    version 1 is left out, though the checksum counts it.

    Args:
        data: From the type on.
        source: The address in the IPv6 header; without both, ``is_intact`` is None.
        destination: Likewise.

    Raises:
        PacketError: It is of another type, too short for its type, or a query of a length that
            every version ignores.
    """
    data = bytes(data)
    kind = data[0] if data else -1
    if data and kind not in TYPES:
        raise PacketError(NAME, f"type must be one of 130, 131, 132, 143, got {kind}")
    least = REPORT_2_BYTES if kind == REPORT_2 else V1_BYTES
    rest = rest_of(NAME, TYPES.get(kind, "a message"), data, least - HEADER_BYTES)
    return stamped_6(_read(kind, rest), data, source, destination)


def _read(kind: int, rest: bytes) -> Value:
    if kind == REPORT_2:
        return Report2(*membership.read_report(rest, 6))
    group = ipv6_text(rest[4:20])
    if kind != QUERY:
        return Report1(group) if kind == REPORT_1 else Done(group)
    code = int.from_bytes(rest[:2], "big")
    length = HEADER_BYTES + len(rest)
    if length == V1_BYTES:
        return Query(group, code, 1)
    if length < V2_QUERY_BYTES:
        text = f"a query has {V1_BYTES} bytes, or {V2_QUERY_BYTES} at least, got {length}"
        raise PacketError(NAME, text)
    return Query(group, code, 2, *membership.read_query_end(rest[20:], 6))
