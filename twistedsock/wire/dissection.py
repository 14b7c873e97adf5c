"""A captured packet taken apart into its layers, and the one line that people read of it.

Knows which codec comes behind which number; nothing of what came before the packet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from twistedsock.errors import PacketError
from twistedsock.wire import (
    arp,
    cooked,
    ethernet,
    icmp,
    icmpv6,
    igmp,
    ipv4,
    ipv6,
    numbers,
    tcp,
    udp,
)
from twistedsock.wire.captured import (
    LINKTYPE_ETHERNET,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_RAW,
)
from twistedsock.wire.cooked import Cooked, Loopback
from twistedsock.wire.ethernet import Ethernet
from twistedsock.wire.fields import printable
from twistedsock.wire.ipv4 import IPv4
from twistedsock.wire.ipv6 import IPv6
from twistedsock.wire.ipv6_extensions import EXTENSION_NAMES, FRAGMENT
from twistedsock.wire.tcp import TCP
from twistedsock.wire.udp import UDP

NAME = "dissection"
# https://www.tcpdump.org/linktypes.html
ETHERNET, RAW = LINKTYPE_ETHERNET, LINKTYPE_RAW
NULL, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 113, LINKTYPE_IPV4, LINKTYPE_IPV6, 276
MAX_LAYERS = 16  # packets in packets in packets may not keep us
MAX_LINE = 500  # characters

Reader: TypeAlias = Callable[[bytes], Any]
Link: TypeAlias = Ethernet | Cooked | Loopback
Packet: TypeAlias = IPv4 | IPv6


def dissect(data: bytes, link_type: int = ETHERNET) -> tuple[object, ...]:
    """Return the layers of a packet, the outermost first; never raise, whatever the bytes.

    Each is a value of the codec that read it. The last one is the bytes that no codec reads, such
    as the payload (empty where nothing is left), or the ``PacketError`` that says why a layer
    could not be read. What a fragment that is not the first carries is not read, nor is what lies
    behind ``MAX_LAYERS``. The checksums in fragments and in packets that were cut off are not
    judged.

    Args:
        data: As it was captured, from the link's header on.
        link_type: A LINKTYPE number; behind one that is not known here all is bytes.
    """
    layers: list[object] = []
    rest, read, is_partial = bytes(data), _BY_LINK_TYPE.get(link_type), False
    while read is not None and len(layers) < MAX_LAYERS:
        try:
            layer = read(rest)
        except PacketError as error:
            # A new one: what was raised holds on to the frames that it passed.
            return (*layers, PacketError(error.protocol, error.text))
        if isinstance(layer, (IPv4, IPv6)):
            is_partial = is_partial or _is_fragment(layer) or layer.missing_bytes > 0
        elif is_partial and getattr(layer, "is_intact", None) is not None:
            layer = replace(layer, is_intact=None)
        layers.append(layer)
        find = _FINDERS.get(type(layer))
        rest, read = getattr(layer, "payload", b""), find(layer) if find else None
    return (*layers, rest)


def describe(layers: tuple[object, ...], checksums_known: bool = True) -> str:
    """Return one line of printable ASCII for people, in the spirit of tcpdump.

    Addresses, ports and what the innermost header says; the payload never.

    Args:
        layers: What ``dissect`` returned.
        checksums_known: False for what this machine itself sends and has not summed yet, as it is
            seen on loopback and before a network card: nothing behind the IP header is called bad.
    """
    words: list[str] = []
    marks: list[str] = []
    outer: Packet | None = None
    missing = 0
    for layer, inner in zip(layers, (*layers[1:], b""), strict=True):
        if isinstance(layer, bytes):
            continue
        if isinstance(layer, PacketError):
            marks.append(f"[{layer}]")
            continue
        words.append(_WORDS.get(type(layer), _plain_words)(layer, inner, outer))
        if isinstance(layer, (IPv4, IPv6)):
            outer = layer
            marks += _packet_marks(layer)
        elif getattr(layer, "is_intact", None) is False and checksums_known:
            marks.append("[bad checksum]")
        # What a fragment's datagram lacks is in the other fragments, not cut off.
        if type(layer) in _ANNOUNCING and (layer is outer or not _is_fragment(outer)):
            missing = max(missing, layer.missing_bytes)  # type: ignore[attr-defined]
    if len(layers) == 1 and isinstance(layers[0], bytes):
        words.append(f"{len(layers[0])} bytes of a link that is not read")
    if missing:
        marks.append(f"[cut off: {missing} bytes missing]")
    return printable(" ".join([*filter(None, words), *marks]), MAX_LINE)


# -- which codec is next --


def _in_frame(frame: Ethernet) -> Reader | None:
    return None if frame.ethertype is None else _BY_ETHERTYPE.get(frame.ethertype)


def _in_cooked(packet: Cooked) -> Reader | None:
    return _BY_ETHERTYPE.get(packet.protocol)


def _in_loopback(packet: Loopback) -> Reader | None:
    return _BY_FAMILY.get(packet.family)


def _in_packet(packet: Packet) -> Reader | None:
    if packet.fragment_offset:
        return None
    version = 4 if type(packet) is IPv4 else 6
    if reader := _BY_PROTOCOL[version].get(packet.protocol):
        return reader
    if summed := _SUMMED[version].get(packet.protocol):
        return partial(summed, source=packet.source, destination=packet.destination)
    return None


def _parse_raw(data: bytes) -> Packet:
    """Return the packet of either version that *data* is."""
    version = data[0] >> 4 if data else 0
    if version not in (4, 6):
        raise PacketError(NAME, f"IP of version 4 or 6 was expected, got {version}")
    return ipv4.parse(data) if version == 4 else ipv6.parse(data)


_FINDERS: dict[type, Callable[[Any], Reader | None]] = {
    Ethernet: _in_frame,
    Cooked: _in_cooked,
    Loopback: _in_loopback,
    IPv4: _in_packet,
    IPv6: _in_packet,
}
_BY_LINK_TYPE: dict[int, Reader] = {
    NULL: cooked.parse_loopback,
    ETHERNET: ethernet.parse,
    RAW: _parse_raw,
    LINUX_SLL: cooked.parse_sll,
    IPV4: ipv4.parse,
    IPV6: ipv6.parse,
    LINUX_SLL2: cooked.parse_sll2,
}
_BY_ETHERTYPE: dict[int, Reader] = {
    numbers.ETHERTYPE_IPV4: ipv4.parse,
    numbers.ETHERTYPE_ARP: arp.parse,
    numbers.ETHERTYPE_IPV6: ipv6.parse,
}
# AF_INET, and AF_INET6 of NetBSD and OpenBSD, of FreeBSD, and of macOS
_BY_FAMILY: dict[int, Reader] = {2: ipv4.parse, 24: ipv6.parse, 28: ipv6.parse, 30: ipv6.parse}
_TUNNELS: dict[int, Reader] = {numbers.IPV4_INSIDE: ipv4.parse, numbers.IPV6_INSIDE: ipv6.parse}
_BY_PROTOCOL: dict[int, dict[int, Reader]] = {
    4: {**_TUNNELS, numbers.ICMP: icmp.parse, numbers.IGMP: igmp.parse},
    6: _TUNNELS,
}
_PORTED: dict[int, Callable[..., Any]] = {numbers.TCP: tcp.parse, numbers.UDP: udp.parse}
# whose checksum counts the addresses of the packet
_SUMMED: dict[int, dict[int, Callable[..., Any]]] = {
    4: _PORTED,
    6: {**_PORTED, numbers.ICMPV6: icmpv6.parse},
}
_ANNOUNCING = (Ethernet, IPv4, IPv6, TCP, UDP)  # whose headers tell a length


# -- the words of each layer --


def _plain_words(layer: Any, _: object, __: Packet | None) -> str:
    text: str = layer.describe()
    return text


def _link_words(link: Link, inner: object, _: Packet | None) -> str:
    if isinstance(inner, bytes):
        return link.describe()
    return " ".join(f"vlan {tag.vlan}" for tag in link.tags) if isinstance(link, Ethernet) else ""


def _packet_words(packet: Packet, inner: object, _: Packet | None) -> str:
    source, destination, name = packet.source, packet.destination, "IP"
    if type(inner) is TCP or type(inner) is UDP:
        first, second = inner.source_port, inner.destination_port
        if type(packet) is IPv4:
            return f"IP {source}:{first} > {destination}:{second}"
        return f"IP6 [{source}]:{first} > [{destination}]:{second}"
    protocol = numbers.protocol_name(packet.protocol)
    if type(packet) is IPv6:
        name, protocol = "IP6", EXTENSION_NAMES.get(packet.protocol, protocol)
    text = f"{name} {source} > {destination}"
    if isinstance(inner, PacketError):
        return f"{text} {protocol}"
    if not isinstance(inner, bytes):
        return text
    place = ""
    if packet.fragment_offset:
        place = f" fragment at {packet.fragment_offset} of id {packet.identification}"
    return f"{text} {protocol}{place} length {len(packet.payload) + packet.missing_bytes}"


def _tcp_words(segment: TCP, _: object, outer: Packet | None) -> str:
    return f"TCP {segment.details(outer.missing_bytes if outer else 0)}"


def _udp_words(datagram: UDP, _: object, __: Packet | None) -> str:
    return f"UDP {datagram.details()}"


_WORDS: dict[type, Callable[[Any, object, Packet | None], str]] = {
    Ethernet: _link_words,
    Cooked: _link_words,
    Loopback: _link_words,
    IPv4: _packet_words,
    IPv6: _packet_words,
    TCP: _tcp_words,
    UDP: _udp_words,
}


def _packet_marks(packet: Packet) -> list[str]:
    marks = []
    if type(packet) is IPv4:
        if packet.is_intact is False:
            marks.append("[bad checksum of the IP header]")
    elif type(packet) is IPv6 and packet.extensions:
        names = [EXTENSION_NAMES[each.number] for each in packet.extensions]
        if shown := [name for name in names if name != EXTENSION_NAMES[FRAGMENT]]:
            marks.append(f"[{', '.join(shown)}]")
    if packet.more_fragments and not packet.fragment_offset:
        marks.append(f"[first fragment of id {packet.identification}]")
    return marks


def _is_fragment(packet: Packet | None) -> bool:
    return packet is not None and (packet.more_fragments or packet.fragment_offset > 0)
