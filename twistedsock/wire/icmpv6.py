"""ICMPv6 messages (RFC 4443, with RFC 4884 and 8883).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  echo: identifier             |           sequence            |
    |  unreachable, time exceeded: length, 0                        |
    |  packet too big: MTU;  parameter problem: pointer             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  echo: payload; errors: the packet that they are about        |

The types of ``neighbour_discovery`` and ``mld`` are parsed here, too, into the values of these.
Bits that must be zero are neither read nor written. Knows bytes; never a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from twistedsock.wire import mld, neighbour_discovery, quotation
from twistedsock.wire.control import HEADER_BYTES, Ipv6Message, rest_of, stamped_6
from twistedsock.wire.fields import printable
from twistedsock.wire.icmp_names import TYPES_6, icmpv6_name
from twistedsock.wire.quotation import Quoting

NAME = "icmpv6"
# https://www.iana.org/assignments/icmpv6-parameters
UNREACHABLE, PACKET_TOO_BIG, TIME_EXCEEDED, PARAMETER_PROBLEM = 1, 2, 3, 4
ECHO_REQUEST, ECHO_REPLY = 128, 129
PORT_UNREACHABLE = 4  # a code of UNREACHABLE
_WORD_BYTES = 8  # what the length of a quotation counts (RFC 4884 section 4)
_TWO = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Icmpv6(Ipv6Message):
    """What every ICMPv6 message has: code, checksum, is_intact."""

    protocol: ClassVar[str] = NAME

    def describe(self) -> str:
        """Return what people want to know of it, in one short line."""
        return printable(f"ICMPv6 {icmpv6_name(self.type, self.code)}{self._details()}")

    def _details(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Echo(Icmpv6):
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
        length = HEADER_BYTES + _TWO.size + len(self.payload)
        return f" id {self.identifier} seq {self.sequence} length {length}"


@dataclass(frozen=True, slots=True)
class Icmpv6Error(Icmpv6, Quoting):
    """What quotes the packet that it is about: as much as fits into 1280 bytes in all."""

    quoted: bytes = b""

    def _details(self) -> str:
        return f" ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class _Extensible(Icmpv6Error):
    extensions: bytes = b""
    missing_bytes: int = 0

    def _rest(self) -> bytes:
        words, body = quotation.join(
            NAME, self.quoted, self.extensions, self.missing_bytes, _WORD_BYTES
        )
        return bytes((words, 0, 0, 0)) + body


@dataclass(frozen=True, slots=True)
class Unreachable(_Extensible):
    """The packet could not be delivered; *code* says why.

    Attributes:
        quoted: The packet.
        extensions: What RFC 4884 puts behind the quotation, such as MPLS labels, as it was sent;
            ``quotation.objects`` takes it apart. With it, *quoted* is a multiple of 8 bytes, and
            by the RFC padded with zeros to 128 at least.
        missing_bytes: What the told length of the quotation counts and that is not there.
    """

    number: ClassVar[int] = UNREACHABLE


@dataclass(frozen=True, slots=True)
class TimeExceeded(_Extensible):
    """The packet had no hops left (code 0), or not all of its fragments came (code 1).

    The attributes are those of ``Unreachable``.
    """

    number: ClassVar[int] = TIME_EXCEEDED


@dataclass(frozen=True, slots=True)
class PacketTooBig(Icmpv6Error):
    """The packet is larger than the *mtu* of the next link, in bytes."""

    mtu: int = 1280
    number: ClassVar[int] = PACKET_TOO_BIG
    widths: ClassVar[dict[str, int]] = {"mtu": 32}

    def _rest(self) -> bytes:
        return self.mtu.to_bytes(4, "big") + self.quoted

    def _details(self) -> str:
        return f", MTU {self.mtu} ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class ParameterProblem(Icmpv6Error):
    """The packet's header is wrong, at the byte *pointer* of the packet."""

    pointer: int = 0
    number: ClassVar[int] = PARAMETER_PROBLEM
    widths: ClassVar[dict[str, int]] = {"pointer": 32}

    def _rest(self) -> bytes:
        return self.pointer.to_bytes(4, "big") + self.quoted

    def _details(self) -> str:
        return f" at byte {self.pointer} ({quotation.tell(self.quoted)})"


@dataclass(frozen=True, slots=True)
class Other(Icmpv6):
    """A message of a type that has no class here."""

    type: int = field()  # not the property's default
    rest: bytes = b""

    def _rest(self) -> bytes:
        known = self.type in _READERS or self.type in mld.TYPES
        if known or self.type in neighbour_discovery.READERS:
            self._refuse(f"type {self.type}, {TYPES_6[self.type]}, has a class of its own")
        return self.rest

    def _details(self) -> str:
        return f" length {HEADER_BYTES + len(self.rest)}"


Value: TypeAlias = (
    Echo
    | Unreachable
    | PacketTooBig
    | TimeExceeded
    | ParameterProblem
    | Other
    | neighbour_discovery.Value
    | mld.Value
)


def parse(data: bytes, source: str = "", destination: str = "") -> Value:
    """Return the message in *data*, what follows the IPv6 headers.

    Args:
        data: From the type on.
        source: The address in the IPv6 header; without both, ``is_intact`` is None.
        destination: Likewise.

    Raises:
        PacketError: It is too short for its type, or contradicts itself; or an address is none
            of IPv6.
    """
    data = bytes(data)
    kind = data[0] if data else -1
    if kind in mld.TYPES:
        return mld.parse(data, source, destination)
    if kind in neighbour_discovery.READERS:
        return neighbour_discovery.parse(data, source, destination)
    least, read = _READERS.get(kind, (0, Other))
    rest = rest_of(NAME, TYPES_6.get(kind, "a message"), data, least)
    return stamped_6(read(kind, rest), data, source, destination)


def _echo(kind: int, rest: bytes) -> Echo:
    identifier, sequence = _TWO.unpack_from(rest)
    return Echo(identifier, sequence, rest[4:], kind == ECHO_REPLY)


def _unreachable(_: int, rest: bytes) -> Unreachable:
    return Unreachable(*quotation.split(rest[4:], rest[0] * _WORD_BYTES))


def _time_exceeded(_: int, rest: bytes) -> TimeExceeded:
    return TimeExceeded(*quotation.split(rest[4:], rest[0] * _WORD_BYTES))


def _packet_too_big(_: int, rest: bytes) -> PacketTooBig:
    return PacketTooBig(rest[4:], int.from_bytes(rest[:4], "big"))


def _parameter_problem(_: int, rest: bytes) -> ParameterProblem:
    return ParameterProblem(rest[4:], int.from_bytes(rest[:4], "big"))


# of each type, the least bytes that follow the checksum, and what reads them
_READERS: dict[int, tuple[int, Callable[[int, bytes], Value]]] = {
    UNREACHABLE: (4, _unreachable),
    PACKET_TOO_BIG: (4, _packet_too_big),
    TIME_EXCEEDED: (4, _time_exceeded),
    PARAMETER_PROBLEM: (4, _parameter_problem),
    ECHO_REQUEST: (4, _echo),
    ECHO_REPLY: (4, _echo),
}
