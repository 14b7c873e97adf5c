"""The ids of capture filters, from their texts: addresses, networks, ports and protocols.

Each function raises ValueError with what would be right; where it stands, ``filter_grammar`` adds.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

ETHERTYPES: Final = {"ip": 0x0800, "arp": 0x0806, "rarp": 0x8035, "ip6": 0x86DD}
LEAST_ETHERTYPE = 0x600  # IEEE 802.3: below it stands a length
# https://www.iana.org/assignments/protocol-numbers
IP_PROTOCOLS: Final = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58,
    "ipv6-icmp": 58, "ospf": 89, "pim": 103, "vrrp": 112, "sctp": 132,
}  # fmt: skip
MAX_LENGTH, MAX_VLAN, MAX_PORT = 0xFFFFFFFF, 4095, 0xFFFF

_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}|0[xX][0-9A-Fa-f]{1,8}")
_MAC = re.compile(r"[0-9A-Fa-f]{1,2}([:-])[0-9A-Fa-f]{1,2}(?:\1[0-9A-Fa-f]{1,2}){4}")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+){0,3}")
_BITS = {4: 32, 6: 128}

PortOf = Callable[[str], int | None]
Span = tuple[int, int]


def is_mac(text: str) -> bool:
    """Return whether *text* is an Ethernet address."""
    return _MAC.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Return whether *text* is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def number_of(text: str, most: int, what: str) -> int:
    """Return the number in *text*, decimal or in hex with 0x; *what* is it of?"""
    if not _NUMBER.fullmatch(text) or int(text, 0) > most:
        raise ValueError(f"{what} of 0 to {most} was expected")
    return int(text, 0)


def mac_of(text: str) -> Span:
    """Return the Ethernet address in *text*, twice."""
    if not is_mac(text):
        raise ValueError("an Ethernet address such as 02:00:00:00:00:01 was expected")
    octets = [int(part, 16) for part in re.split("[:-]", text)]
    number = int.from_bytes(bytes(octets), "big")
    return number, number


def host_of(text: str) -> tuple[int, Span]:
    """Return the IP version of the address in *text*; itself, and a mask of ones."""
    if is_mac(text):
        raise ValueError('an Ethernet address goes with "ether host"')
    if "/" in text:
        raise ValueError('an address with a prefix length goes with "net"')
    if not is_address(text):
        wanted = "an address such as 192.0.2.1 or 2001:db8::1 was expected"
        if text.isdigit():
            wanted += '; a port goes with "port"'
        elif not text.startswith(tuple("0123456789:")):
            wanted += "; names of hosts are not looked up here"
        raise ValueError(wanted)
    return _version_and_number(text, None)


def net_of(text: str, mask: str = "") -> tuple[int, Span]:
    """Return the IP version of the network in *text*; its address, and its mask.

    Args:
        text: With a prefix length, or IPv4 of one to four numbers, whose mask they tell.
        mask: Of IPv4, where it was written for itself.
    """
    written, slash, bits = text.partition("/")
    length = None
    if _DOTTED.fullmatch(written):
        parts = written.count(".") + 1
        written += ".0" * (4 - parts)
        length = 8 * parts
    if not is_address(written):
        wanted = "a network such as 192.0.2.0/24, 10.1 or 2001:db8::/32 was expected"
        raise ValueError(f"{wanted}; names of networks are not looked up here")
    most = _BITS[6 if ":" in written else 4]
    if slash:
        length = number_of(bits, most, "a prefix length")
    version, (number, ones) = _version_and_number(written, length)
    if mask:
        ones = _mask_of(mask, version, is_alone=not slash)
    if number & ~ones:
        made = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
        raise ValueError(f"bits are set behind the prefix; that network is {made(number & ones)}")
    return version, (number, ones)


def _version_and_number(text: str, length: int | None) -> tuple[int, Span]:
    address = ipaddress.ip_address(text)
    if getattr(address, "scope_id", None):
        raise ValueError("packets have no scope: leave out the part from % on")
    bits = _BITS[address.version]
    mask = (1 << bits) - (1 << bits - (bits if length is None else length))
    return address.version, (int(address), mask)


def _mask_of(text: str, version: int, *, is_alone: bool) -> int:
    if version == 6 or not is_alone:
        raise ValueError('"mask" goes with an IPv4 network that has no prefix length')
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("a mask such as 255.255.255.0 was expected") from None


def port_span(text: str, port_of: PortOf, *, is_range: bool) -> Span:
    """Return the least and the greatest port of *text*."""
    low, dash, high = text.partition("-")
    if is_range and dash and _NUMBER.fullmatch(low):
        ends = [
            _port(each, port_of, "ports such as 6000-6008 were expected") for each in (low, high)
        ]
        return min(ends), max(ends)
    number = _port(text, port_of, "a port of 0 to 65535, or a service's name, was expected")
    return number, number


def _port(text: str, port_of: PortOf, wanted: str) -> int:
    if _NUMBER.fullmatch(text):
        return number_of(text, MAX_PORT, "a port")
    number = port_of(text.removeprefix("\\"))
    if number is None:
        raise ValueError(wanted)
    return number


def protocol_of(text: str, *, is_ether: bool) -> Span:
    """Return the number of the protocol in *text*, twice: of IP, or of Ethernet."""
    names: Mapping[str, int] = ETHERTYPES if is_ether else IP_PROTOCOLS
    number = names.get(text.removeprefix("\\"))
    if number is None:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"a protocol's number, or one of {', '.join(names)}, was expected")
        number = number_of(text, 0xFFFF if is_ether else 0xFF, "a protocol's number")
    if is_ether and number < LEAST_ETHERTYPE:
        raise ValueError(f"below {LEAST_ETHERTYPE:#x} stands a length, no protocol")
    return number, number
