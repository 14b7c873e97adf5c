"""The options of neighbour discovery (RFC 4861 section 4.6, RFC 8106 section 5.1).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |    Length     |  by type; the length counts   |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  all of it in 8 bytes         |

Knows bytes; never the message that they stand in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire.fields import address_bytes, ipv6_text, octets, require_bits
from twistedsock.wire.quotation import Quoting

NAME = "neighbour_discovery"
# https://www.iana.org/assignments/icmpv6-parameters, "IPv6 Neighbor Discovery Option Formats"
SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS, PREFIX_INFORMATION, REDIRECTED_HEADER, MTU = 1, 2, 3, 4, 5
RECURSIVE_DNS_SERVERS = 25
UNIT_BYTES = 8
MAX_OPTION_BYTES = 255 * UNIT_BYTES
_PREFIX = struct.Struct("!BBII4x16s")
_ON_LINK, _AUTONOMOUS, _ROUTER_ADDRESS = 0x80, 0x40, 0x20  # RFC 4861 and, the third, RFC 6275


@dataclass(frozen=True, slots=True)
class Option:
    """One of a kind that has no class here, or that was cut off.

    Attributes:
        kind: Its type.
        data: What follows the length; padded, so that all of it is a multiple of 8 bytes.
        missing_bytes: What the length announces beyond the data; of the last option alone.
    """

    kind: int
    data: bytes
    missing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceLinkAddress:
    """The sender's link address, such as ``aa:bb:cc:dd:ee:ff``."""

    address: str


@dataclass(frozen=True, slots=True)
class TargetLinkAddress:
    """The target's link address, such as ``aa:bb:cc:dd:ee:ff``."""

    address: str


@dataclass(frozen=True, slots=True)
class PrefixInformation:
    """A prefix that is on the link, or that addresses are made of, or both.

    Attributes:
        prefix: An address, of which *prefix_length* bits count.
        prefix_length: 0 to 128 in what makes sense; kept as it was found.
        is_on_link: The L flag.
        is_autonomous: The A flag: hosts may make addresses of it.
        is_router_address: The R flag: *prefix* is the router's whole address (RFC 6275).
        valid_lifetime_s: 0xFFFFFFFF for ever.
        preferred_lifetime_s: Likewise.
    """

    prefix: str
    prefix_length: int = 64
    is_on_link: bool = True
    is_autonomous: bool = True
    is_router_address: bool = False
    valid_lifetime_s: int = 0xFFFFFFFF
    preferred_lifetime_s: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class RedirectedHeader(Quoting):
    """As much of the packet that is redirected as fits; a multiple of 8 bytes."""

    quoted: bytes


@dataclass(frozen=True, slots=True)
class LinkMtu:
    """The MTU that all on the link shall use, in bytes."""

    mtu: int


@dataclass(frozen=True, slots=True)
class RecursiveDnsServers:
    """Servers that answer for all names, for a time; 0xFFFFFFFF for ever, 0 no longer."""

    servers: tuple[str, ...]
    lifetime_s: int = 0xFFFFFFFF


AnyOption: TypeAlias = (
    Option
    | SourceLinkAddress
    | TargetLinkAddress
    | PrefixInformation
    | RedirectedHeader
    | LinkMtu
    | RecursiveDnsServers
)


def parse_options(data: bytes) -> tuple[AnyOption, ...]:
    """Return the options in *data*. The last may be cut off; a lone byte at the end is left out.

    Raises:
        PacketError: One has no length, for which a node drops the whole packet (RFC 4861 4.6).
    """
    found: list[AnyOption] = []
    position = 0
    while position + 2 <= len(data):
        kind, length = data[position], data[position + 1] * UNIT_BYTES
        if not length:
            raise PacketError(NAME, f"option {kind} at byte {position} has a length of 0")
        body = data[position + 2 : position + length]
        missing = max(position + length - len(data), 0)
        found.append(Option(kind, body, missing) if missing else _read(kind, body))
        position += length
    return tuple(found)


def options_to_bytes(options: Sequence[AnyOption]) -> bytes:
    """Return *options* one after the other.

    Raises:
        PacketError: A field does not fit, or an option before the last is cut off.
    """
    parts = []
    for index, option in enumerate(options):
        kind, body, missing = _write(option)
        units, more = divmod(2 + len(body) + missing, UNIT_BYTES)
        if more or not 0 < units <= 255 or not 0 <= kind <= 255:
            text = (
                f"an option has a type of 0..255 and {UNIT_BYTES}..{MAX_OPTION_BYTES} bytes, in"
                f" words of {UNIT_BYTES}; got type {kind} and {2 + len(body) + missing} bytes"
            )
            raise PacketError(NAME, text)
        if missing < 0 or (missing and index < len(options) - 1):
            raise PacketError(NAME, "only the last option can be cut off")
        parts.append(b"%c%c%b" % (kind, units, body))
    return b"".join(parts)


def told_options(options: Sequence[AnyOption]) -> str:
    """Return the options that people look for, each with a comma before it."""
    parts = []
    for option in options:
        match option:
            case SourceLinkAddress(address):
                parts.append(f", from {address}")
            case TargetLinkAddress(address):
                parts.append(f", at {address}")
            case PrefixInformation(prefix, length):
                parts.append(f", prefix {prefix}/{length}")
            case LinkMtu(mtu):
                parts.append(f", MTU {mtu}")
            case RecursiveDnsServers(servers):
                parts.append(f", DNS {servers[0]}" if servers else "")
    return "".join(parts)


def _read(kind: int, body: bytes) -> AnyOption:
    read = _READERS.get(kind)
    return (read(body) if read else None) or Option(kind, body)


def _read_prefix(body: bytes) -> PrefixInformation | None:
    if len(body) != _PREFIX.size:
        return None
    length, flags, valid, preferred, prefix = _PREFIX.unpack(body)
    return PrefixInformation(
        ipv6_text(prefix),
        length,
        bool(flags & _ON_LINK),
        bool(flags & _AUTONOMOUS),
        bool(flags & _ROUTER_ADDRESS),
        valid,
        preferred,
    )


def _read_mtu(body: bytes) -> LinkMtu | None:
    return LinkMtu(int.from_bytes(body[2:], "big")) if len(body) == 6 else None


def _read_servers(body: bytes) -> RecursiveDnsServers | None:
    if len(body) < 22 or (len(body) - 6) % 16:
        return None
    servers = tuple(ipv6_text(body[at : at + 16]) for at in range(6, len(body), 16))
    return RecursiveDnsServers(servers, int.from_bytes(body[2:6], "big"))


_READERS: dict[int, Callable[[bytes], AnyOption | None]] = {
    SOURCE_LINK_ADDRESS: lambda body: SourceLinkAddress(body.hex(":")),
    TARGET_LINK_ADDRESS: lambda body: TargetLinkAddress(body.hex(":")),
    PREFIX_INFORMATION: _read_prefix,
    REDIRECTED_HEADER: lambda body: RedirectedHeader(body[6:]),
    MTU: _read_mtu,
    RECURSIVE_DNS_SERVERS: _read_servers,
}


def _write(option: AnyOption) -> tuple[int, bytes, int]:
    """Return the type of *option*, what follows its length, and what is missing of that."""
    match option:
        case Option(kind, data, missing):
            if not missing and not isinstance(_read(kind, data), Option):
                text = f"option {kind} of {len(data)} bytes of data has a class of its own"
                raise PacketError(NAME, text)
            return kind, data, missing
        case SourceLinkAddress(address):
            return SOURCE_LINK_ADDRESS, octets(NAME, "address", address), 0
        case TargetLinkAddress(address):
            return TARGET_LINK_ADDRESS, octets(NAME, "address", address), 0
        case PrefixInformation():
            return PREFIX_INFORMATION, _prefix_bytes(option), 0
        case RedirectedHeader(quoted):
            return REDIRECTED_HEADER, bytes(6) + quoted, 0
        case LinkMtu(mtu):
            require_bits(NAME, option, {"mtu": 32})
            return MTU, bytes(2) + mtu.to_bytes(4, "big"), 0
        case RecursiveDnsServers(servers, lifetime_s):
            require_bits(NAME, option, {"lifetime_s": 32})
            if not servers:
                raise PacketError(NAME, "an option of DNS servers has one at least")
            addresses = b"".join(address_bytes(NAME, "servers", each, 6) for each in servers)
            return RECURSIVE_DNS_SERVERS, bytes(2) + lifetime_s.to_bytes(4, "big") + addresses, 0


def _prefix_bytes(option: PrefixInformation) -> bytes:
    widths = {"prefix_length": 8, "valid_lifetime_s": 32, "preferred_lifetime_s": 32}
    require_bits(NAME, option, widths)
    flags = (
        option.is_on_link * _ON_LINK
        | option.is_autonomous * _AUTONOMOUS
        | option.is_router_address * _ROUTER_ADDRESS
    )
    return _PREFIX.pack(
        option.prefix_length,
        flags,
        option.valid_lifetime_s,
        option.preferred_lifetime_s,
        address_bytes(NAME, "prefix", option.prefix, 6),
    )
