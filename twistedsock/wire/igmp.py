"""IGMP messages of every version (RFC 9776; RFC 2236 and 1112 before it).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      | Max Resp Code |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Group Address; of a version 3 report: flags, number of records |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | Flags |S| QRV |     QQIC      |     Number of Sources (N)     |  version 3 queries
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                     Source Address [1..N]                     |

Knows bytes; never a socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire import membership
from twistedsock.wire.control import HEADER_BYTES, PlainMessage, rest_of, stamped
from twistedsock.wire.fields import address_bytes, ipv4_text, printable
from twistedsock.wire.membership import Querying, Record, Reporting, floating

NAME = "igmp"
# https://www.iana.org/assignments/igmp-type-numbers
QUERY, REPORT_1, REPORT_2, LEAVE, REPORT_3 = 0x11, 0x12, 0x16, 0x17, 0x22
TYPES: dict[int, str] = {
    QUERY: "membership query",
    REPORT_1: "v1 membership report",
    REPORT_2: "v2 membership report",
    LEAVE: "leave group",
    REPORT_3: "v3 membership report",
}
ANY = "0.0.0.0"  # the group of a general query
MIN_BYTES = 8
V3_QUERY_BYTES = 12
V1_RESPONSE_S = 10.0  # what a version 1 query, which tells none, stands for (RFC 2236 section 4)
_LEAST = MIN_BYTES - HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Igmp(PlainMessage):
    """What every IGMP message has: code (zero but in queries), checksum, is_intact."""

    protocol: ClassVar[str] = NAME

    def describe(self) -> str:
        """Return what people want to know of it, in one short line."""
        return printable(f"IGMP{self._details()}")

    def _details(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Query(Igmp, Querying):
    """A router asks who is in a group, or in any.

    ``code`` is the Max Resp Code, with ``max_resp_s`` and ``max_resp_code`` to and fro: zero in
    version 1, and never in version 2, which nothing else tells apart.

    Attributes:
        group: ``0.0.0.0`` in a general query.
        version: 1, 2 or 3; the fields from here on are version 3's.
        suppress: Other routers shall not restart their timers (the S flag).
        robustness: The querier's robustness variable, 0 to 7.
        qqic: The Querier's Query Interval Code; ``interval_s`` is what it stands for.
        sources: Those of a group-and-source-specific query.
        flags: The four bits before S; bit 3 says that extensions follow (RFC 9279).
        additional_data: What follows the sources.
        missing_sources: Announced, and cut off.
    """

    group: str = ANY
    version: int = 3
    suppress: bool = False
    robustness: int = 0
    qqic: int = 0
    sources: tuple[str, ...] = ()
    flags: int = 0
    additional_data: bytes = b""
    missing_sources: int = 0
    number: ClassVar[int] = QUERY

    @property
    def max_resp_s(self) -> float:
        """How long a host may wait with its answer."""
        if self.version == 1:
            return V1_RESPONSE_S
        return (self.code if self.version == 2 else floating(self.code, 8)) / 10

    @property
    def missing_bytes(self) -> int:
        """What the number of sources announces beyond the data."""
        return 4 * self.missing_sources

    def _rest(self) -> bytes:
        group = address_bytes(NAME, "group", self.group, 4)
        if self.version == 3:
            return group + self._end_to_bytes(4)
        if self.version not in (1, 2):
            self._refuse(f"version must be 1, 2 or 3, got {self.version}")
        if self._has_end():
            self._refuse(f"a query of version {self.version} has a group and a code alone")
        if (self.version == 2) != bool(self.code):
            right = "0" if self.version == 1 else "1..255"
            text = f"the code of a version {self.version} query must be {right}, got {self.code}"
            self._refuse(text)
        return group

    def _details(self) -> str:
        return self._told(self.group == ANY, f"{self.max_resp_s:g}s")


@dataclass(frozen=True, slots=True)
class _Group(Igmp):
    group: str

    def _rest(self) -> bytes:
        return address_bytes(NAME, "group", self.group, 4)


@dataclass(frozen=True, slots=True)
class Report1(_Group):
    """A host of version 1 is in *group*."""

    number: ClassVar[int] = REPORT_1

    def _details(self) -> str:
        return f"v1 report of {self.group}"


@dataclass(frozen=True, slots=True)
class Report2(_Group):
    """A host of version 2 is in *group*."""

    number: ClassVar[int] = REPORT_2

    def _details(self) -> str:
        return f"v2 report of {self.group}"


@dataclass(frozen=True, slots=True)
class Leave(_Group):
    """A host of version 2 has left *group*."""

    number: ClassVar[int] = LEAVE

    def _details(self) -> str:
        return f"v2 leave of {self.group}"


@dataclass(frozen=True, slots=True)
class Report3(Igmp, Reporting):
    """What a host of version 3 says of its groups.

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
    number: ClassVar[int] = REPORT_3

    @property
    def missing_bytes(self) -> int:
        """What the numbers announce beyond the data, at least."""
        return self._missing_bytes(4)

    def _rest(self) -> bytes:
        return self._records_to_bytes(4)

    def _details(self) -> str:
        return f"v3 report {self._told()}"


@dataclass(frozen=True, slots=True)
class Other(Igmp):
    """A message of a type that has no class here, or a query of a length that none has."""

    type: int = field()  # not the property's default
    rest: bytes = b""

    def _rest(self) -> bytes:
        length = HEADER_BYTES + len(self.rest)
        if length < MIN_BYTES:
            self._refuse(f"a message has {MIN_BYTES} bytes at least, got {length}")
        if self.type in TYPES and not _is_odd_query(self.type, length):
            self._refuse(f"type {self.type}, {TYPES[self.type]}, has a class of its own")
        return self.rest

    def _details(self) -> str:
        name = TYPES.get(self.type, f"type {self.type}")
        return f" {name} code {self.code} length {HEADER_BYTES + len(self.rest)}"


Value: TypeAlias = Query | Report1 | Report2 | Leave | Report3 | Other


def max_resp_code(seconds: float, version: int = 3) -> int:
    """Return the code for tenths of *seconds*; in version 3 for the next below that has one.

    Raises:
        PacketError: There is none so large: at most 25.5 s in version 2, 3174.4 s in version 3.
    """
    tenths = round(seconds * 10)
    if version == 3:
        return membership.floating_code(NAME, "tenths of a second", tenths, 8)
    if version != 2 or not 1 <= tenths <= 0xFF:
        text = f"version 2 has 0.1s..25.5s, version 1 none; got {seconds}s in version {version}"
        raise PacketError(NAME, text)
    return tenths


def parse(data: bytes) -> Value:
    """Return the message in *data*, what follows the IPv4 header.

    The version of a query is told by its length and its code (RFC 9776 section 7.1). What follows
    the group of versions 1 and 2 is left out, though the checksum counts it.

    Raises:
        PacketError: It is shorter than every message.
    """
    data = bytes(data)
    rest = rest_of(NAME, "a message", data, _LEAST)
    return stamped(_read(data[0], data[1], rest), data)


def _read(kind: int, code: int, rest: bytes) -> Value:
    if kind == REPORT_3:
        return Report3(*membership.read_report(rest, 4))
    if kind not in TYPES or _is_odd_query(kind, HEADER_BYTES + len(rest)):
        return Other(kind, rest)
    group = ipv4_text(rest[:4])
    if kind != QUERY:
        return _OF_GROUPS[kind](group)
    if len(rest) == _LEAST:
        return Query(group, 2 if code else 1)
    return Query(group, 3, *membership.read_query_end(rest[4:], 4))


def _is_odd_query(kind: int, length: int) -> bool:
    """Return whether every version ignores it: longer than 2's and shorter than 3's."""
    return kind == QUERY and MIN_BYTES < length < V3_QUERY_BYTES


_OF_GROUPS: dict[int, type[Report1 | Report2 | Leave]] = {
    REPORT_1: Report1,
    REPORT_2: Report2,
    LEAVE: Leave,
}
