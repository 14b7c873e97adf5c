"""The extension headers of IPv6 (RFC 8200 section 4), one after the other.

    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Next Header  |  Hdr Ext Len  |  options, or what the header  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  says otherwise  . . .        |

The length counts units of 8 bytes beyond the first, but in the authentication header units of 4
bytes beyond the first two. Know bytes; never the packet before them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire.fields import require_bits

NAME = "ipv6"  # whose headers they are
MAX_EXTENSIONS = 32  # a packet may not make us walk through a chain without end

# https://www.iana.org/assignments/ipv6-parameters: extension header types
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
MOBILITY, HOST_IDENTITY, SHIM6 = 135, 139, 140
EXTENSION_NAMES = {
    HOP_BY_HOP: "hop-by-hop",
    ROUTING: "routing",
    FRAGMENT: "fragment",
    AUTHENTICATION: "AH",
    DESTINATION_OPTIONS: "destination options",
    MOBILITY: "mobility",
    HOST_IDENTITY: "HIP",
    SHIM6: "shim6",
}
_OPTION_HEADERS = (HOP_BY_HOP, DESTINATION_OPTIONS)
_OPAQUE = (AUTHENTICATION, MOBILITY, HOST_IDENTITY, SHIM6)

# https://www.iana.org/assignments/ipv6-parameters: destination and hop-by-hop options
PAD_1, PAD_N, ROUTER_ALERT, JUMBO_PAYLOAD = 0, 1, 5, 0xC2
_FRAGMENT = struct.Struct("!BxHI")
_LEAST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its number, and what follows its length byte.

    ``PAD_1`` has no length and no data. Padding at the end of a header is none of the values.
    """

    kind: int
    data: bytes = b""


_PAD = Option(PAD_1)  # one for all: a header may consist of them


@dataclass(frozen=True, slots=True)
class Options:
    """Options for every hop or for the destination.

    Attributes:
        number: ``HOP_BY_HOP`` or ``DESTINATION_OPTIONS``.
        options: In their order, with the padding between them, not with that at the end.
    """

    number: int
    options: tuple[Option, ...] = ()

    def to_bytes(self, following: int) -> bytes:
        """Return the header, with padding at its end, before one with the number *following*."""
        if self.number not in _OPTION_HEADERS:
            raise PacketError(NAME, f"options are headers 0 and 60, got {self.number}")
        if self.options and self.options[-1].kind in (PAD_1, PAD_N):
            raise PacketError(NAME, "padding at the end is added of itself")
        body = b"".join(map(_option_bytes, self.options))
        gap = -(2 + len(body)) % 8
        padding = bytes([PAD_N, gap - 2]) + bytes(gap - 2) if gap > 1 else bytes(gap)
        return _framed(self.number, following, body + padding)


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the packet is to pass by.

    Attributes:
        routing_type: Such as 4 for segment routing (RFC 8754).
        segments_left: 0 to 255.
        data: What depends on the type, with all its padding: 4 bytes, or 12, or 20...
    """

    routing_type: int
    segments_left: int
    data: bytes = bytes(4)
    number: ClassVar[int] = ROUTING

    def to_bytes(self, following: int) -> bytes:
        """Return the header before one with the number *following*."""
        require_bits(NAME, self, {"routing_type": 8, "segments_left": 8})
        head = bytes([self.routing_type, self.segments_left])
        return _framed(self.number, following, head + self.data)


@dataclass(frozen=True, slots=True)
class Fragment:
    """Which part of a packet this is. Its reserved bits are neither read nor written.

    Attributes:
        offset: Where in the packet's fragmentable part it begins, in bytes; a multiple of 8.
        more_fragments: Whether it is not the last.
        identification: Of the packet that fragments belong to, 32 bits.
    """

    offset: int
    more_fragments: bool
    identification: int
    number: ClassVar[int] = FRAGMENT

    def to_bytes(self, following: int) -> bytes:
        """Return the header before one with the number *following*."""
        require_bits(NAME, self, {"offset": 16, "identification": 32})
        if self.offset % 8:
            raise PacketError(NAME, f"the fragment offset is a multiple of 8, got {self.offset}")
        return _FRAGMENT.pack(following, self.offset | self.more_fragments, self.identification)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A header that is not taken apart.

    Attributes:
        number: ``AUTHENTICATION``, ``MOBILITY``, ``HOST_IDENTITY`` or ``SHIM6``.
        data: What follows the length; with those two bytes a multiple of 8, of the
            authentication header of 4.
    """

    number: int
    data: bytes

    def to_bytes(self, following: int) -> bytes:
        """Return the header before one with the number *following*."""
        if self.number not in _OPAQUE:
            raise PacketError(NAME, f"opaque headers are {_OPAQUE}, got {self.number}")
        return _framed(self.number, following, self.data)


Extension: TypeAlias = Options | Routing | Fragment | Opaque


def parse_chain(
    data: bytes, following: int, announced: int
) -> tuple[tuple[Extension, ...], int, int]:
    """Return the extension headers at the front, the number of what follows, and its place.

    The chain ends at a header of another kind, behind a fragment that is not the first (what
    follows it is no header), and at a header that was cut off, which then is what follows.

    Args:
        data: What is there of the packet behind the IPv6 header.
        following: The number of the first header in *data*.
        announced: How many bytes the packet has there, by its header.

    Raises:
        PacketError: A header ends behind the packet, or they are more than ``MAX_EXTENSIONS``.
    """
    found: list[Extension] = []
    position = 0
    while following in EXTENSION_NAMES:
        if len(found) == MAX_EXTENSIONS:
            raise PacketError(NAME, f"at most {MAX_EXTENSIONS} extension headers are read")
        size = _LEAST_BYTES
        if position + 2 <= len(data):
            size = _size(following, data[position + 1])
        if size > announced - position:
            name, left = EXTENSION_NAMES[following], announced - position
            raise PacketError(NAME, f"{name} takes {size} bytes, of {left} that are left")
        if size > len(data) - position:
            break
        extension = _parse(following, data[position : position + size])
        found.append(extension)
        following, position = data[position], position + size
        if isinstance(extension, Fragment) and extension.offset:
            break
    return tuple(found), following, position


def chain_bytes(extensions: Sequence[Extension], following: int) -> bytes:
    """Return the extension headers, before a header with the number *following*.

    Raises:
        PacketError: A field does not fit, or a header comes behind a fragment that is not first.
    """
    if len(extensions) > MAX_EXTENSIONS:
        raise PacketError(NAME, f"at most {MAX_EXTENSIONS} extension headers, got more")
    if any(isinstance(each, Fragment) and each.offset for each in extensions[:-1]):
        raise PacketError(NAME, "behind a fragment that is not the first there are no headers")
    numbers = [*(each.number for each in extensions[1:]), following]
    return b"".join(
        each.to_bytes(number) for each, number in zip(extensions, numbers, strict=bool(extensions))
    )


def jumbo_bytes(extensions: Sequence[Extension]) -> int | None:
    """Return the length that a jumbo payload option tells (RFC 2675); None where none is.

    Raises:
        PacketError: It is no length of a jumbogram.
    """
    for extension in extensions:
        if isinstance(extension, Options) and extension.number == HOP_BY_HOP:
            for option in extension.options:
                if option.kind == JUMBO_PAYLOAD:
                    length = int.from_bytes(option.data, "big")
                    if len(option.data) != 4 or length <= 0xFFFF:
                        text = f"a jumbo payload has 65536 bytes at least, told are {length}"
                        raise PacketError(NAME, text)
                    return length
    return None


def _size(number: int, units: int) -> int:
    if number == FRAGMENT:
        return _FRAGMENT.size  # its second byte is reserved
    return (units + 2) * 4 if number == AUTHENTICATION else (units + 1) * 8


def _framed(number: int, following: int, body: bytes) -> bytes:
    """Return the header with its length: *body* is what follows the first two bytes."""
    unit, free = (4, 2) if number == AUTHENTICATION else (8, 1)
    units, more = divmod(2 + len(body), unit)
    if more or not 0 <= units - free <= 255 or 2 + len(body) < _LEAST_BYTES:
        name, most = EXTENSION_NAMES[number], (255 + free) * unit
        text = f"{name} has {_LEAST_BYTES}..{most} bytes in units of {unit}, got {2 + len(body)}"
        raise PacketError(NAME, text)
    return bytes([following, units - free]) + body


def _parse(number: int, header: bytes) -> Extension:
    if number in _OPTION_HEADERS:
        return Options(number, _parse_options(header))
    if number == ROUTING:
        return Routing(header[2], header[3], header[4:])
    if number == FRAGMENT:
        _, bits, identification = _FRAGMENT.unpack(header)
        return Fragment(bits & 0xFFF8, bool(bits & 1), identification)
    return Opaque(number, header[2:])


def _parse_options(header: bytes) -> tuple[Option, ...]:
    found, position = [], 2
    while position < len(header):
        if (kind := header[position]) == PAD_1:
            found.append(_PAD)
            position += 1
            continue
        left = len(header) - position
        length = header[position + 1] + 2 if left > 1 else 2
        if length > left:
            text = f"option {kind} takes {length} bytes, of {left} that are left"
            raise PacketError(NAME, text)
        found.append(Option(kind, header[position + 2 : position + length]))
        position += length
    while found and found[-1].kind in (PAD_1, PAD_N):
        found.pop()
    return tuple(found)


def _option_bytes(option: Option) -> bytes:
    if option.kind == PAD_1 and not option.data:
        return b"\0"
    if not 1 <= option.kind <= 255 or len(option.data) > 255:
        raise PacketError(NAME, f"this cannot be an option: {option}")
    return bytes([option.kind, len(option.data)]) + option.data
