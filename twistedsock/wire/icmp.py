"""ICMP messages over IPv4 (RFC 792, with RFC 950, 1191, 1256 and 4884).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  echo, timestamp: identifier  |           sequence            |
    |  unreachable:  0      length  |         next-hop MTU          |
    |  redirect:                 gateway address                    |
    |  parameter: pointer   length  |               0               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  echo: payload; errors: the packet that they are about        |

Bits that must be zero are neither read nor written. Knows bytes; never a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire import quotation
from twistedsock.wire.control import PlainMessage, rest_of, stamped
from twistedsock.wire.fields import address_bytes, ipv4_text, printable
from twistedsock.wire.icmp_names import TYPES, icmp_name
from twistedsock.wire.quotation import Quoting

NAME = "icmp"
# https://www.iana.org/assignments/icmp-parameters
ECHO_REPLY, UNREACHABLE, SOURCE_QUENCH, REDIRECT, ECHO_REQUEST = 0, 3, 4, 5, 8
ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, TIME_EXCEEDED, PARAMETER_PROBLEM = 9, 10, 11, 12
TIMESTAMP_REQUEST, TIMESTAMP_REPLY = 13, 14
PORT_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4  # codes of UNREACHABLE
_WORD_BYTES = 4  # what the length of a quotation counts (RFC 4884 section 4)
_ROUTER_WORDS, _ROUTER_BYTES = 2, 8  # of one in an advertisement (RFC 1256 section 3)
_TWO, _TIMES = struct.Struct("!HH"), struct.Struct("!HH3I")


@dataclass(frozen=True, slots=True)
class Icmp(PlainMessage):
    """What every ICMP message has: code, checksum, is_intact."""

    protocol: ClassVar[str] = NAME

    def describe(self) -> str:
        """Return what people want to know of it, in one short line."""
        return printable(f"ICMP {icmp_name(self.type, self.code)}{self._details()}")

    def _details(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Echo(Icmp):
    """An echo request, or the reply, which repeats identifier, sequence and payload."""

    identifier: int
    sequence: int
    payload: bytes = b""
    is_reply: bool = False
    widths: ClassVar[dict[str, int]] = {"identifier": 16, "sequence": 16}

    @property
    def type(self) -> int:
        """The type."""
        return ECHO_REPLY if self.is_reply else ECHO_REQUEST

    def _rest(self) -> bytes:
        return _TWO.pack(self.identifier, self.sequence) + self.payload

    def _details(self) -> str:
        length = 8 + len(self.payload)
        return f" id {self.identifier} seq {self.sequence} length {length}"


@dataclass(frozen=True, slots=True)
class IcmpError(Icmp, Quoting):
    """What quotes the packet that it is about.

    Attributes:
        quoted: The packet: its header, and 8 bytes or more.
        extensions: What RFC 4884 puts behind the quotation, such as MPLS labels, as it was sent;
            ``quotation.objects`` takes it apart. With it, *quoted* is a multiple of 4 bytes, and
            by the RFC padded with zeros to 128 at least.
        missing_bytes: What the told length of the quotation counts and that is not there.
    """

    quoted: bytes = b""
    extensions: bytes = b""
    missing_bytes: int = 0

    def _body(self) -> tuple[int, bytes]:
        return quotation.join(
            self.protocol, self.quoted, self.extensions, self.missing_bytes, _WORD_BYTES
        )

    def _details(self) -> str:
        return f" ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class Unreachable(IcmpError):
    """The packet could not be delivered; *code* says why.

    Attributes:
        next_hop_mtu: In bytes, of ``FRAGMENTATION_NEEDED`` (RFC 1191 section 4); else 0.
    """

    next_hop_mtu: int = 0
    number: ClassVar[int] = UNREACHABLE
    widths: ClassVar[dict[str, int]] = {"next_hop_mtu": 16}

    def _rest(self) -> bytes:
        words, body = self._body()
        return struct.pack("!xBH", words, self.next_hop_mtu) + body

    def _details(self) -> str:
        mtu = f", next-hop MTU {self.next_hop_mtu}" if self.next_hop_mtu else ""
        return f"{mtu} ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class TimeExceeded(IcmpError):
    """The packet had no hops left (code 0), or not all of its fragments came (code 1)."""

    number: ClassVar[int] = TIME_EXCEEDED

    def _rest(self) -> bytes:
        words, body = self._body()
        return struct.pack("!xBxx", words) + body


@dataclass(frozen=True, slots=True)
class ParameterProblem(IcmpError):
    """The packet's header is wrong.

    Attributes:
        pointer: The byte of the quoted packet that is.
    """

    pointer: int = 0
    number: ClassVar[int] = PARAMETER_PROBLEM
    widths: ClassVar[dict[str, int]] = {"pointer": 8}

    def _rest(self) -> bytes:
        words, body = self._body()
        return struct.pack("!BBxx", self.pointer, words) + body

    def _details(self) -> str:
        return f" at byte {self.pointer} ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class Redirect(Icmp, Quoting):
    """A better first hop for the packet: *gateway*."""

    gateway: str
    quoted: bytes = b""
    number: ClassVar[int] = REDIRECT

    def _rest(self) -> bytes:
        return address_bytes(self.protocol, "gateway", self.gateway, 4) + self.quoted

    def _details(self) -> str:
        return f" to {self.gateway} ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class SourceQuench(Icmp, Quoting):
    """A plea to send less: deprecated, and to be ignored (RFC 6633)."""

    quoted: bytes = b""
    number: ClassVar[int] = SOURCE_QUENCH

    def _rest(self) -> bytes:
        return bytes(4) + self.quoted

    def _details(self) -> str:
        return f" ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class Timestamp(Icmp):
    """A timestamp request, or the reply.

    The times are milliseconds since midnight UT; with the highest bit set, something else.
    """

    identifier: int
    sequence: int
    originate_ms: int = 0
    receive_ms: int = 0
    transmit_ms: int = 0
    is_reply: bool = False
    widths: ClassVar[dict[str, int]] = {
        "identifier": 16, "sequence": 16, "originate_ms": 32, "receive_ms": 32, "transmit_ms": 32,
    }  # fmt: skip

    @property
    def type(self) -> int:
        """The type."""
        return TIMESTAMP_REPLY if self.is_reply else TIMESTAMP_REQUEST

    def _rest(self) -> bytes:
        numbers = (self.originate_ms, self.receive_ms, self.transmit_ms)
        return _TIMES.pack(self.identifier, self.sequence, *numbers)

    def _details(self) -> str:
        times = f"{self.originate_ms} {self.receive_ms} {self.transmit_ms}"
        return f" id {self.identifier} seq {self.sequence} ms {times}"


@dataclass(frozen=True, slots=True)
class RouterSolicitation(Icmp):
    """Asks for router advertisements (RFC 1256 section 3)."""

    number: ClassVar[int] = ROUTER_SOLICITATION

    def _rest(self) -> bytes:
        return bytes(4)


@dataclass(frozen=True, slots=True)
class RouterAdvertisement(Icmp):
    """Tells a router's addresses (RFC 1256 section 3).

    Attributes:
        routers: Each address with its preference, -2**31 to 2**31 - 1, the higher the better.
        lifetime_s: How long they hold.
        missing_bytes: Of the addresses that are announced and are not there.
    """

    routers: tuple[tuple[str, int], ...] = ()
    lifetime_s: int = 1800
    missing_bytes: int = 0
    number: ClassVar[int] = ROUTER_ADVERTISEMENT
    widths: ClassVar[dict[str, int]] = {"lifetime_s": 16}

    def _rest(self) -> bytes:
        missing, more = divmod(self.missing_bytes, _ROUTER_BYTES)
        count = len(self.routers) + missing
        if more or missing < 0 or count > 255:
            self._refuse(f"at most 255 addresses of 8 bytes, missing ones too, got {count}")
        parts = [struct.pack("!BBH", count, _ROUTER_WORDS, self.lifetime_s)]
        for address, preference in self.routers:
            if not -(1 << 31) <= preference < 1 << 31:
                self._refuse(f"a preference must be -2**31..2**31-1, got {preference}")
            parts.append(address_bytes(self.protocol, "routers", address, 4))
            parts.append(preference.to_bytes(4, "big", signed=True))
        return b"".join(parts)

    def _details(self) -> str:
        first = f", {self.routers[0][0]} first" if self.routers else ""
        return f" of {len(self.routers)} addresses{first} for {self.lifetime_s}s"


@dataclass(frozen=True, slots=True)
class Other(Icmp):
    """A message of a type that has no class here."""

    type: int = field()  # not the property's default
    rest: bytes = b""

    def _rest(self) -> bytes:
        if self.type in _READERS:
            self._refuse(f"type {self.type}, {TYPES[self.type]}, has a class of its own")
        return self.rest

    def describe(self) -> str:
        """Return its numbers, and its name where it has one."""
        length = 4 + len(self.rest)
        return printable(f"ICMP {icmp_name(self.type, self.code)} length {length}")


Value: TypeAlias = (
    Echo
    | Unreachable
    | TimeExceeded
    | ParameterProblem
    | Redirect
    | SourceQuench
    | Timestamp
    | RouterSolicitation
    | RouterAdvertisement
    | Other
)


def parse(data: bytes) -> Value:
    """Return the message in *data*, what follows the IPv4 header.

    What follows a message of a fixed length is left out, though its checksum counts it.

    Raises:
        PacketError: It is too short for its type, or contradicts itself.
    """
    data = bytes(data)
    kind = data[0] if data else -1
    least, read = _READERS.get(kind, (0, Other))
    rest = rest_of(NAME, TYPES.get(kind, "a message"), data, least)
    return stamped(read(kind, rest), data)


def _echo(kind: int, rest: bytes) -> Echo:
    identifier, sequence = _TWO.unpack_from(rest)
    return Echo(identifier, sequence, rest[4:], kind == ECHO_REPLY)


def _unreachable(_: int, rest: bytes) -> Unreachable:
    mtu = int.from_bytes(rest[2:4], "big")
    return Unreachable(*quotation.split(rest[4:], rest[1] * _WORD_BYTES), mtu)


def _time_exceeded(_: int, rest: bytes) -> TimeExceeded:
    return TimeExceeded(*quotation.split(rest[4:], rest[1] * _WORD_BYTES))


def _parameter_problem(_: int, rest: bytes) -> ParameterProblem:
    return ParameterProblem(*quotation.split(rest[4:], rest[1] * _WORD_BYTES), rest[0])


def _redirect(_: int, rest: bytes) -> Redirect:
    return Redirect(ipv4_text(rest[:4]), rest[4:])


def _timestamp(kind: int, rest: bytes) -> Timestamp:
    identifier, sequence, originate, receive, transmit = _TIMES.unpack_from(rest)
    is_reply = kind == TIMESTAMP_REPLY
    return Timestamp(identifier, sequence, originate, receive, transmit, is_reply)


def _router_advertisement(_: int, rest: bytes) -> RouterAdvertisement:
    count, words, lifetime_s = rest[0], rest[1], int.from_bytes(rest[2:4], "big")
    if words < _ROUTER_WORDS:
        text = f"a router's entry has {_ROUTER_WORDS} words at least, got {words}"
        raise PacketError(NAME, text)
    starts = range(4, min(len(rest) - 7, 4 + count * words * 4), words * 4)
    routers = tuple(
        (ipv4_text(rest[at : at + 4]), int.from_bytes(rest[at + 4 : at + 8], "big", signed=True))
        for at in starts
    )
    return RouterAdvertisement(routers, lifetime_s, (count - len(routers)) * _ROUTER_BYTES)


# of each type, the least bytes that follow the checksum, and what reads them
_READERS: dict[int, tuple[int, Callable[[int, bytes], Value]]] = {
    ECHO_REPLY: (4, _echo),
    UNREACHABLE: (4, _unreachable),
    SOURCE_QUENCH: (4, lambda _, rest: SourceQuench(rest[4:])),
    REDIRECT: (4, _redirect),
    ECHO_REQUEST: (4, _echo),
    ROUTER_ADVERTISEMENT: (4, _router_advertisement),
    ROUTER_SOLICITATION: (4, lambda _, rest: RouterSolicitation()),
    TIME_EXCEEDED: (4, _time_exceeded),
    PARAMETER_PROBLEM: (4, _parameter_problem),
    TIMESTAMP_REQUEST: (_TIMES.size, _timestamp),
    TIMESTAMP_REPLY: (_TIMES.size, _timestamp),
}
