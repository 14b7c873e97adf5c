"""Forms of values that name interfaces, addresses and multicast groups.

A group is written ``GROUP%INTERFACE``, and ``SOURCE@GROUP%INTERFACE`` where it is joined for one
source; the interface may be left out, and the routing table then chooses it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final

from twistedsock.sockopts.values import (
    MAX_INT,
    Form,
    Raw,
    as_int,
    fitted,
    show_octets,
    shown,
    wrong,
)

STORAGE_BYTES = 128  # struct sockaddr_storage

_IP4 = 'an IPv4 address such as "10.0.0.1"'


def interface_index(name: str, value: object) -> int:
    """Return the number of the interface *name*: its name, its number, or nothing for 0."""
    if re.fullmatch(r"[0-9]{0,10}", name) and int(name or 0) <= MAX_INT:
        return int(name or 0)
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):  # no text for a name: a zero byte, a lone surrogate
        fault = f"this machine has no interface {shown(name)}, in {shown(value)}"
        raise ValueError(fault) from None


def interface_name(index: int) -> str | int:
    """Return the name of the interface *index*; the number where it has none."""
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return index


def _ip4(text: str, value: object, wanted: str) -> bytes:
    try:
        return ipaddress.IPv4Address(text).packed
    except ValueError:
        raise wrong(wanted, value) from None


def _ip6(text: str, value: object, wanted: str) -> bytes:
    try:
        return ipaddress.IPv6Address(text).packed
    except ValueError:
        raise wrong(wanted, value) from None


def storage(text: str, value: object, wanted: str) -> bytes:
    """Return *text* as a ``struct sockaddr_storage`` with port 0."""
    try:
        host = ipaddress.ip_address(text)
    except ValueError:
        raise wrong(wanted, value) from None
    if "%" in text:  # an interface has its own place
        raise wrong(wanted, value)
    if host.version == 4:
        name = struct.pack("=HH4s", socket.AF_INET, 0, host.packed)
    else:
        name = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, host.packed, 0)
    return name.ljust(STORAGE_BYTES, b"\0")


def text_of(value: object, wanted: str) -> str:
    """Return *value*, which must be a text."""
    if not isinstance(value, str):
        raise wrong(wanted, value)
    return value


# -- interfaces --


def _ifindex(kind: str, is_network_order: bool) -> Callable[[str], Form]:
    wanted = 'an interface such as "eth0", or its number'

    def build(_: str) -> Form:
        def encode(value: object) -> int:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise wrong(wanted, value)
            index = value if isinstance(value, int) else interface_index(value, value)
            if not 0 <= index <= MAX_INT:
                raise wrong(wanted, value)
            return _swapped(index) if is_network_order else index

        def decode(raw: Raw) -> object:
            index = _swapped(as_int(raw)) if is_network_order else as_int(raw)
            return interface_name(index) if index else 0

        return Form(kind, wanted, encode, decode, takes_numbers=True)

    return build


def _swapped(number: int) -> int:
    """Return *number* with its octets the other way round where this machine needs it."""
    swapped: int = struct.unpack("=i", struct.pack("!i", number))[0]
    return swapped


def _multicast_interface(_: str) -> Form:
    """``struct ip_mreqn``, of which the kernel tells only the address back (ip(7))."""
    wanted = 'an interface such as "eth0", or one of its IPv4 addresses'

    def encode(value: object) -> bytes:
        text = text_of(value, wanted)
        if _is_dotted(text):
            return struct.pack("=4s4si", bytes(4), _ip4(text, value, wanted), 0)
        return struct.pack("=4s4si", bytes(4), bytes(4), interface_index(text, value))

    def decode(raw: Raw) -> object:
        if isinstance(raw, bytes) and len(raw) == 12:  # what was set
            address, index = struct.unpack("=4x4si", raw)
            return interface_name(index) if index else str(ipaddress.IPv4Address(address))
        return str(ipaddress.IPv4Address(fitted(raw, 4)))

    return Form("mcast-if", wanted, encode, decode, 4)


# -- multicast membership: GROUP%INTERFACE, and SOURCE@GROUP%INTERFACE --


def _is_dotted(text: str) -> bool:
    """Return whether *text* is meant as an IPv4 address, unlike a VLAN such as ``eth0.100``."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text) is not None


def _at_interface(text: str, value: object, wanted: str) -> tuple[str, str]:
    """Return what is before the percent sign and the interface behind it; empty without a sign."""
    what, percent, interface = text.partition("%")
    if percent and not interface:  # a template whose variable was not set
        raise wrong(wanted, value)
    return what, interface


def _membership(
    kind: str, example: str, pack: Callable[[str, str, str, object, str], bytes]
) -> Callable[[str], Form]:
    wanted = f'a group such as "{example}"'

    def encode(value: object) -> bytes:
        text = text_of(value, wanted)
        source, at, rest = text.rpartition("@")
        if bool(at) != ("@" in example):
            raise wrong(wanted, value)
        group, interface = _at_interface(rest, value, wanted)
        return pack(source, group, interface, value, wanted)

    return lambda _: Form(kind, wanted, encode, show_octets, 0)


def _pack_mreqn(_: str, group: str, interface: str, value: object, wanted: str) -> bytes:
    """``struct ip_mreqn { in_addr imr_multiaddr, imr_address; int imr_ifindex; }`` (ip(7))."""
    multicast = _ip4(group, value, wanted)
    if _is_dotted(interface):
        return struct.pack("=4s4si", multicast, _ip4(interface, value, _IP4), 0)
    return struct.pack("=4s4si", multicast, bytes(4), interface_index(interface, value))


def _pack_mreq_source(source: str, group: str, interface: str, value: object, wanted: str) -> bytes:
    """``struct ip_mreq_source { in_addr multiaddr, interface, sourceaddr; }`` (ip(7))."""
    local = _ip4(interface, value, _IP4) if interface else bytes(4)
    return _ip4(group, value, wanted) + local + _ip4(source, value, wanted)


def _pack_mreq6(_: str, group: str, interface: str, value: object, wanted: str) -> bytes:
    """``struct ipv6_mreq { in6_addr multiaddr; unsigned interface; }`` (ipv6(7))."""
    return struct.pack("=16sI", _ip6(group, value, wanted), interface_index(interface, value))


def _pack_group(_: str, group: str, interface: str, value: object, wanted: str) -> bytes:
    """``struct group_req { u32 interface; sockaddr_storage group; }`` (RFC 3678 section 5.1)."""
    # sockaddr_storage is aligned as a pointer is.
    return struct.pack("@I0P", interface_index(interface, value)) + storage(group, value, wanted)


def _pack_group_source(
    source: str, group: str, interface: str, value: object, wanted: str
) -> bytes:
    """``struct group_source_req``: as group_req, and a sockaddr_storage of the source."""
    if (":" in source) != (":" in group):  # of one IP version
        raise wrong(wanted, value)
    return _pack_group("", group, interface, value, wanted) + storage(source, value, wanted)


def _packet_membership(_: str) -> Form:
    """``struct packet_mreq { int ifindex; u16 type, alen; u8 address[8]; }`` (packet(7))."""
    types = {"promiscuous": 1, "allmulti": 2}
    wanted = '"promiscuous%eth0", "allmulti%eth0" or a link-layer address, "01:00:5e:00:00:01%eth0"'

    def encode(value: object) -> bytes:
        what, interface = _at_interface(text_of(value, wanted), value, wanted)
        if not interface:  # here there is no routing table to choose one
            raise wrong(wanted, value)
        index = interface_index(interface, value)
        if what in types:
            return struct.pack("=iHH8s", index, types[what], 0, b"")
        if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", what):
            raise wrong(wanted, value)
        address = bytes.fromhex(what.replace(":", ""))
        is_group = address[0] & 1  # IEEE 802: the first bit on the wire
        return struct.pack("=iHH8s", index, 0 if is_group else 3, 6, address)

    return Form("packet-mreq", wanted, encode, show_octets)


def _source_address(_: str) -> Form:
    """``struct in6_pktinfo { in6_addr addr; u32 ifindex; }`` (RFC 3542 section 6.1)."""
    wanted = 'an address of ours such as "2001:db8::1%eth0"'

    def encode(value: object) -> bytes:
        address, interface = _at_interface(text_of(value, wanted), value, wanted)
        packed = _ip6(address, value, wanted)
        return struct.pack("=16sI", packed, interface_index(interface, value))

    def decode(raw: Raw) -> object:
        address, index = struct.unpack("=16sI", fitted(raw, 20))
        text = str(ipaddress.IPv6Address(address))
        return f"{text}%{interface_name(index)}" if index else text

    return Form("pktinfo6", wanted, encode, decode, 20)


NETWORK: Final[dict[str, Callable[[str], Form]]] = {
    "ifindex": _ifindex("ifindex", is_network_order=False),
    "ifindex-be": _ifindex("ifindex-be", is_network_order=True),
    "mcast-if": _multicast_interface,
    "mreqn": _membership("mreqn", "239.1.1.1%eth0", _pack_mreqn),
    "mreq-source": _membership("mreq-source", "10.0.0.1@232.1.1.1%10.0.0.9", _pack_mreq_source),
    "mreq6": _membership("mreq6", "ff02::1%eth0", _pack_mreq6),
    "group-req": _membership("group-req", "239.1.1.1%eth0", _pack_group),
    "group-source-req": _membership(
        "group-source-req", "10.0.0.1@232.1.1.1%eth0", _pack_group_source
    ),
    "packet-mreq": _packet_membership,
    "pktinfo6": _source_address,
}


def group_of(text: str) -> str:
    """Return the group in ``SOURCE@GROUP%INTERFACE``, as the kernel writes it if it is one."""
    group = text.rpartition("@")[2].partition("%")[0]
    try:
        return str(ipaddress.ip_address(group))
    except ValueError:
        return group


def membership_options(groups: Iterable[str]) -> dict[str, object]:
    """Return the socket options that join *groups*, and hear no others.

    Args:
        groups: As operators write them: ``GROUP``, ``GROUP%INTERFACE``, ``SOURCE@GROUP%INTERFACE``.
    """
    found: dict[str, list[str]] = {}
    options: dict[str, object] = {}
    for text in dict.fromkeys(groups):  # the kernel refuses to join twice
        is_v6 = ":" in group_of(text)
        if "@" in text:
            name = "MCAST_JOIN_SOURCE_GROUP@IPPROTO_IPV6" if is_v6 else "MCAST_JOIN_SOURCE_GROUP"
        else:
            name = "IPV6_ADD_MEMBERSHIP" if is_v6 else "IP_ADD_MEMBERSHIP"
        found.setdefault(name, []).append(text)
        # Linux delivers what any socket of the machine has joined, unless this is off.
        options["IPV6_MULTICAST_ALL" if is_v6 else "IP_MULTICAST_ALL"] = False
    return {**options, **found}
