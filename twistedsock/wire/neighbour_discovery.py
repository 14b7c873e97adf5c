"""Neighbour discovery: routers, neighbours and redirects in ICMPv6 (RFC 4861 section 4).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | router advertisement: hop limit, flags, router lifetime       |
    | neighbour advertisement: flags in the first three bits        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | router advertisement: reachable time, retransmission timer    |
    | neighbours: target; redirect: target, destination             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | options                                                       |

``icmpv6.parse`` parses them with the rest of ICMPv6. Knows bytes; never a socket.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire.control import HEADER_BYTES, Ipv6Message, rest_of, stamped_6
from twistedsock.wire.fields import address_bytes, ipv6_text, printable
from twistedsock.wire.icmp_names import TYPES_6, icmpv6_name
from twistedsock.wire.neighbour_options import (
    NAME,
    AnyOption,
    Option,
    RedirectedHeader,
    options_to_bytes,
    parse_options,
    told_options,
)
from twistedsock.wire.quotation import tell

# https://www.iana.org/assignments/icmpv6-parameters
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, REDIRECT = 135, 136, 137
# RFC 4861 section 4.2, RFC 6275 section 7.1, RFC 4191 section 2.2, RFC 4389 section 4.1.3.3
_MANAGED, _OTHER, _HOME_AGENT, _PREFERENCE_AT, _PROXY = 0x80, 0x40, 0x20, 3, 0x04
_ROUTER, _SOLICITED, _OVERRIDE = 0x80, 0x40, 0x20  # RFC 4861 section 4.4
_ADVERTISED = struct.Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class Discovery(Ipv6Message):
    """What every message has: options, code (zero), checksum, is_intact.

    Attributes:
        options: In their order; the last may be cut off.
    """

    options: tuple[AnyOption, ...] = ()

    protocol: ClassVar[str] = NAME

    @property
    def missing_bytes(self) -> int:
        """What the last option announces beyond the data."""
        last = self.options[-1] if self.options else None
        return last.missing_bytes if isinstance(last, Option) else 0

    def describe(self) -> str:
        """Return what people want to know of it, in one short line."""
        told = self._details() + told_options(self.options)
        return printable(f"ICMPv6 {icmpv6_name(self.type, self.code)}{told}")

    def _details(self) -> str:
        return ""

    def _rest(self) -> bytes:
        return self._head() + options_to_bytes(self.options)

    def _head(self) -> bytes:
        """Return what stands between the checksum and the options."""
        return bytes(4)


@dataclass(frozen=True, slots=True)
class RouterSolicitation(Discovery):
    """Asks for router advertisements."""

    number: ClassVar[int] = ROUTER_SOLICITATION


@dataclass(frozen=True, slots=True)
class RouterAdvertisement(Discovery):
    """What a router tells the hosts of its link.

    Attributes:
        hop_limit: For what hosts send; 0 for unspecified.
        router_lifetime_s: How long it is a default router; 0 for not at all.
        reachable_time_ms: 0 for unspecified.
        retransmission_timer_ms: 0 for unspecified.
        is_managed: The M flag: addresses are to be had by DHCPv6.
        has_other_configuration: The O flag: other things are.
        is_home_agent: The H flag (RFC 6275).
        preference: 0 for medium, 1 for high, 3 for low (RFC 4191).
        is_proxied: The P flag (RFC 4389).
    """

    hop_limit: int = 64
    router_lifetime_s: int = 1800
    reachable_time_ms: int = 0
    retransmission_timer_ms: int = 0
    is_managed: bool = False
    has_other_configuration: bool = False
    is_home_agent: bool = False
    preference: int = 0
    is_proxied: bool = False
    number: ClassVar[int] = ROUTER_ADVERTISEMENT
    widths: ClassVar[dict[str, int]] = {
        "hop_limit": 8, "router_lifetime_s": 16, "reachable_time_ms": 32,
        "retransmission_timer_ms": 32, "preference": 2,
    }  # fmt: skip

    def _head(self) -> bytes:
        flags = (
            self.is_managed * _MANAGED
            | self.has_other_configuration * _OTHER
            | self.is_home_agent * _HOME_AGENT
            | self.preference << _PREFERENCE_AT
            | self.is_proxied * _PROXY
        )
        times = self.router_lifetime_s, self.reachable_time_ms, self.retransmission_timer_ms
        return _ADVERTISED.pack(self.hop_limit, flags, *times)

    def _details(self) -> str:
        return f" for {self.router_lifetime_s}s"


@dataclass(frozen=True, slots=True)
class _Targeted(Discovery):
    target: str = "::"

    def _details(self) -> str:
        return f" {self.target}"


@dataclass(frozen=True, slots=True)
class NeighbourSolicitation(_Targeted):
    """Asks who has *target*."""

    number: ClassVar[int] = NEIGHBOUR_SOLICITATION

    def _head(self) -> bytes:
        return bytes(4) + address_bytes(NAME, "target", self.target, 6)


@dataclass(frozen=True, slots=True)
class NeighbourAdvertisement(_Targeted):
    """The sender has *target*.

    Attributes:
        is_router: The R flag.
        is_solicited: The S flag: it answers a solicitation.
        is_override: The O flag: it replaces the link address that is known.
    """

    is_router: bool = False
    is_solicited: bool = False
    is_override: bool = False
    number: ClassVar[int] = NEIGHBOUR_ADVERTISEMENT

    def _head(self) -> bytes:
        flags = (
            self.is_router * _ROUTER | self.is_solicited * _SOLICITED | self.is_override * _OVERRIDE
        )
        return bytes((flags, 0, 0, 0)) + address_bytes(NAME, "target", self.target, 6)


@dataclass(frozen=True, slots=True)
class Redirect(_Targeted):
    """A better first hop for *destination*: *target*, which is the same for one on the link."""

    destination: str = "::"
    number: ClassVar[int] = REDIRECT

    def _head(self) -> bytes:
        target = address_bytes(NAME, "target", self.target, 6)
        return bytes(4) + target + address_bytes(NAME, "destination", self.destination, 6)

    def _details(self) -> str:
        for option in self.options:
            if isinstance(option, RedirectedHeader):
                return f" {self.destination} to {self.target} ({tell(option.quoted)})"
        return f" {self.destination} to {self.target}"


Value: TypeAlias = (
    RouterSolicitation
    | RouterAdvertisement
    | NeighbourSolicitation
    | NeighbourAdvertisement
    | Redirect
)


def parse(data: bytes, source: str = "", destination: str = "") -> Value:
    """Return the message in *data*; see ``icmpv6.parse``, which parses all of ICMPv6.

    Raises:
        PacketError: It is of another type, too short for its type, or an option has no length.
    """
    data = bytes(data)
    kind = data[0] if data else -1
    if kind not in READERS:
        got = kind if data else "no bytes"
        raise PacketError(NAME, f"type must be one of {', '.join(map(str, READERS))}, got {got}")
    least, read = READERS[kind]
    rest = rest_of(NAME, TYPES_6[kind], data, least)
    return stamped_6(read(rest, parse_options(rest[least:])), data, source, destination)


def _router_advertisement(rest: bytes, options: tuple[AnyOption, ...]) -> RouterAdvertisement:
    hop_limit, flags, lifetime_s, reachable_ms, retransmission_ms = _ADVERTISED.unpack_from(rest)
    return RouterAdvertisement(
        options,
        hop_limit,
        lifetime_s,
        reachable_ms,
        retransmission_ms,
        bool(flags & _MANAGED),
        bool(flags & _OTHER),
        bool(flags & _HOME_AGENT),
        flags >> _PREFERENCE_AT & 3,
        bool(flags & _PROXY),
    )


def _advertisement(rest: bytes, options: tuple[AnyOption, ...]) -> NeighbourAdvertisement:
    flags, target = rest[0], ipv6_text(rest[4:20])
    told = bool(flags & _ROUTER), bool(flags & _SOLICITED), bool(flags & _OVERRIDE)
    return NeighbourAdvertisement(options, target, *told)


# of each type, the bytes between the checksum and the options, and what reads them
READERS: dict[int, tuple[int, Callable[[bytes, tuple[AnyOption, ...]], Value]]] = {
    ROUTER_SOLICITATION: (8 - HEADER_BYTES, lambda _, options: RouterSolicitation(options)),
    ROUTER_ADVERTISEMENT: (16 - HEADER_BYTES, _router_advertisement),
    NEIGHBOUR_SOLICITATION: (
        24 - HEADER_BYTES,
        lambda rest, options: NeighbourSolicitation(options, ipv6_text(rest[4:20])),
    ),
    NEIGHBOUR_ADVERTISEMENT: (24 - HEADER_BYTES, _advertisement),
    REDIRECT: (
        40 - HEADER_BYTES,
        lambda rest, options: Redirect(options, ipv6_text(rest[4:20]), ipv6_text(rest[20:36])),
    ),
}
