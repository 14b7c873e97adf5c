"""Capture filters: the language of pcap-filter(7), compiled to classic BPF.

    ip ip6 arp rarp tcp udp sctp icmp icmp6 igmp esp ah     frames of that protocol
    [ip|ip6|arp|rarp] [DIRECTION] host ADDRESS              also without "host"
    [ip|ip6|arp|rarp] [DIRECTION] net PREFIX                192.0.2.0/24, 10.1, 2001:db8::/32, or
                                                            192.0.2.0 mask 255.255.255.0
    [tcp|udp|sctp] [DIRECTION] port N                       or a service's name
    [tcp|udp|sctp] [DIRECTION] portrange A-B
    ether [DIRECTION] host MAC
    ether proto N    ip proto N    ip6 proto N    proto N   or a protocol's name
    vlan [N]         and all that follows is looked for behind that tag
    [ether] broadcast    [ether|ip|ip6] multicast
    less N    greater N                                     a length of at most, of at least
    inbound    outbound

DIRECTION is src, dst, "src or dst" (the default) or "src and dst". Tests are joined by "and" and
"or", which bind alike, from left to right, and negated by "not"; parentheses group. An id after
"and" or "or" has the qualifiers of the one before: ``port 53 or 67``.

What a test means is what libpcap makes of it: ports are those of whole datagrams and of first
fragments, as others have none. Of IPv6, ports are looked for right behind the fixed header, and a
protocol there or behind one fragment header: other extension headers are not followed. A packet
that ends before what is looked at is not wanted, whether negated or not.

Differences: an address may stand alone, a protocol's name needs no backslash after "proto", a
service's name stands for its port alone, and hosts have no names: whoever calls may look them up.
Comparisons of a packet's bytes, such as ``tcp[13] & 2 != 0``, are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twistedsock.errors import FilterError
from twistedsock.wire import bpf
from twistedsock.wire.bpf import ABS, IND, LD, LDX, B, H, Instruction, Program, W
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, LINKTYPE_ETHERNET, LINKTYPE_RAW
from twistedsock.wire.filter_code import (
    FALSE,
    TRUE,
    All,
    Any,
    Code,
    Compared,
    Joined,
    Not,
    Tree,
)
from twistedsock.wire.filter_grammar import Chain, Test, parse_filter
from twistedsock.wire.filter_ids import ETHERTYPES, IP_PROTOCOLS, PortOf, Span

_LINK_TYPES: Final = (LINKTYPE_ETHERNET, LINKTYPE_RAW)
VLAN_BYTES = 4  # IEEE 802.1Q
VLAN_ETHERTYPES = (0x8100, 0x88A8, 0x9100)  # IEEE 802.1Q, 802.1ad, and what came before that
PORTED = ("sctp", "tcp", "udp")
FRAGMENT_HEADER = 44  # RFC 8200 section 4.5
FRAGMENT_OFFSET = 0x1FFF  # RFC 791 section 3.1: of flags and fragment offset


def no_ports(name: str) -> int | None:
    """Return None: no service is known by name."""
    return None


def compile_filter(
    expression: str,
    link_type: int = LINKTYPE_ETHERNET,
    snap_bytes: int = DEFAULT_SNAP_BYTES,
    port_of: PortOf = no_ports,
) -> Program:
    """Return the program that accepts what *expression* describes; everything where it is empty.

    Args:
        expression: In the language above.
        link_type: What packets begin with: LINKTYPE_ETHERNET or LINKTYPE_RAW.
        snap_bytes: How much is kept of an accepted packet, 1 to 2**32 - 1.
        port_of: Tells the port of a service's name; None where there is no such.

    Raises:
        FilterError: It is no filter, is none for packets of that link type, or is too long.
    """
    if link_type not in _LINK_TYPES:
        raise ValueError(f"link_type must be one of {_LINK_TYPES}, got {link_type}")
    if not 0 < snap_bytes <= 0xFFFFFFFF:
        raise ValueError(f"snap_bytes must be 1 to {0xFFFFFFFF}, got {snap_bytes}")
    chain = parse_filter(expression, port_of)
    code = Code(expression, snap_bytes)
    if chain is None:
        return code.program(code.accepted)
    make = _Link(expression, link_type, has_tag_beside=False)
    entry = code.emit(_joined(chain, make), code.accepted, code.refused)
    if _looks_for_vlans(chain):
        # The kernel takes the outermost tag out of a frame, and tells it beside.
        beside = _Link(expression, link_type, has_tag_beside=True)
        taken_out = code.emit(_joined(chain, beside), code.accepted, code.refused)
        present = Compared((_load(B, bpf.VLAN_TAG_PRESENT),), ((bpf.JEQ, 1),))
        entry = code.emit(present, taken_out, entry)
    return code.program(entry)


# -- what is tested: trees of comparisons --


def _load(size: int, where: int, mode: int = ABS) -> Instruction:
    return Instruction(LD | mode | size, 0, 0, where)


def _equal(size: int, where: int, *values: int, mask: int | None = None) -> Compared:
    """Return that *size* bytes at *where*, as far as in *mask*, are one of *values*."""
    loads = [_load(size, where)]
    if mask is not None:
        loads.append(Instruction(bpf.ALU | bpf.AND | bpf.K, 0, 0, mask))
    return Compared(tuple(loads), tuple((bpf.JEQ, value) for value in dict.fromkeys(values)))


def _any_of(parts: Iterable[Tree]) -> Tree:
    made = tuple(parts)
    return made[0] if len(made) == 1 else Any(made)


def _looks_for_vlans(chain: Chain) -> bool:
    return any(
        part.kind == "vlan" if isinstance(part, Test) else _looks_for_vlans(part)
        for _, _, part in chain.operands
    )


def _joined(chain: Chain, link: _Link) -> Tree:
    parts: list[tuple[str, Tree]] = []
    for joint, negated, part in chain.operands:
        tree = link.tested(part) if isinstance(part, Test) else _joined(part, link)
        parts.append((joint, Not(tree) if negated else tree))
    return Joined(tuple(parts))


class _Link:
    """Where things are in packets of one link type."""

    def __init__(self, expression: str, link_type: int, *, has_tag_beside: bool) -> None:
        self._expression = expression
        self._is_ethernet = link_type == LINKTYPE_ETHERNET
        self._has_tag_beside = has_tag_beside

    def tested(self, test: Test) -> Tree:
        """Return the comparisons of *test*."""
        make: Callable[[Test, int], Tree] = getattr(self, f"_{test.kind}")
        tags = max(0, test.vlans - self._has_tag_beside)
        return make(test, VLAN_BYTES * tags)

    # Each of these takes a test, and how many bytes of VLAN tags stand before what is tested.

    def _protocol(self, test: Test, tags: int) -> Tree:
        if test.protocol in ETHERTYPES:
            return self._of_type(tags, ETHERTYPES[test.protocol])
        number = IP_PROTOCOLS[test.protocol]
        parts = []
        if test.protocol != "icmp6":
            parts.append(self._of_ip(tags, (number,)))
        if test.protocol not in ("icmp", "igmp"):
            parts.append(self._of_ip6(tags, (number,)))
        return _any_of(parts)

    def _number(self, test: Test, tags: int) -> Tree:
        numbers = tuple(number for number, _ in test.values)
        if test.protocol == "ether":
            return self._of_type(tags, *numbers)
        parts = []
        if test.protocol != "ip6":
            parts.append(self._of_ip(tags, numbers))
        if test.protocol != "ip":
            parts.append(self._of_ip6(tags, numbers))
        return _any_of(parts)

    def _ip4(self, test: Test, tags: int) -> Tree:
        at = self._network_at(tags)
        # RFC 791 section 3.1; RFC 826 and 903 with Ethernet and IPv4 addresses
        places = {"ip": (12, 16), "arp": (14, 24), "rarp": (14, 24)}
        named = [test.protocol] if test.protocol else list(places)
        grouped: dict[tuple[int, int], list[int]] = {}
        for name in named:
            grouped.setdefault(places[name], []).append(ETHERTYPES[name])

        def one_of(where: int) -> Tree:
            return _any_of(
                _equal(W, at + where, *addresses, mask=None if mask == 0xFFFFFFFF else mask)
                if mask
                else TRUE
                for mask, addresses in _by_mask(test.values)
            )

        return _any_of(
            All((self._of_type(tags, *types), _directed(test, one_of, source, destination)))
            for (source, destination), types in grouped.items()
        )

    def _ip6(self, test: Test, tags: int) -> Tree:
        at = self._network_at(tags)

        def one_of(where: int) -> Tree:
            return _any_of(_equal_ip6(at + where, *value) for value in test.values)

        # RFC 8200 section 3
        return All((self._of_type(tags, ETHERTYPES["ip6"]), _directed(test, one_of, 8, 24)))

    def _mac(self, test: Test, tags: int) -> Tree:
        self._need_ethernet(test)

        def one_of(where: int) -> Tree:
            return _any_of(_equal_mac(where, number) for number, _ in test.values)

        return _directed(test, one_of, 6, 0)

    def _port(self, test: Test, tags: int) -> Tree:
        at = self._network_at(tags)
        names = (test.protocol,) if test.protocol else PORTED
        numbers = [IP_PROTOCOLS[name] for name in names]
        header = Instruction(LDX | bpf.MSH | B, 0, 0, at)

        def in_ip(where: int) -> Tree:
            return _any_of(_within((header, _load(H, at + where, IND)), test.values))

        def in_ip6(where: int) -> Tree:
            return _any_of(_within((_load(H, at + 40 + where),), test.values))

        later = Compared((_load(H, at + 6),), ((bpf.JSET, FRAGMENT_OFFSET),))
        return Any(
            (
                All(
                    (
                        self._of_type(tags, ETHERTYPES["ip6"]),
                        _equal(B, at + 6, *numbers),
                        _directed(test, in_ip6, 0, 2),
                    )
                ),
                All((self._of_ip(tags, numbers), Not(later), _directed(test, in_ip, 0, 2))),
            )
        )

    def _vlan(self, test: Test, tags: int) -> Tree:
        self._need_ethernet(test)
        numbers = [number for number, _ in test.values]
        if self._has_tag_beside and not test.vlans:
            return _equal(H, bpf.VLAN_TAG, *numbers, mask=0x0FFF) if numbers else TRUE
        is_tagged = self._of_type(tags, *VLAN_ETHERTYPES)
        if not numbers:
            return is_tagged
        return All((is_tagged, _equal(H, self._network_at(tags), *numbers, mask=0x0FFF)))

    def _broadcast(self, test: Test, tags: int) -> Tree:
        self._need_ethernet(test)
        return _equal_mac(0, 0xFFFFFFFFFFFF)

    def _multicast(self, test: Test, tags: int) -> Tree:
        at = self._network_at(tags)
        if test.protocol == "ip":
            first = Compared((_load(B, at + 16),), ((bpf.JGE, 224),))
            return All((self._of_type(tags, ETHERTYPES["ip"]), first))
        if test.protocol == "ip6":
            return All((self._of_type(tags, ETHERTYPES["ip6"]), _equal(B, at + 24, 0xFF)))
        self._need_ethernet(test)
        return Compared((_load(B, 0),), ((bpf.JSET, 1),))

    def _less(self, test: Test, tags: int) -> Tree:
        [(length, _)] = test.values
        return Not(Compared((Instruction(LD | bpf.LEN, 0, 0, 0),), ((bpf.JGT, length),)))

    def _greater(self, test: Test, tags: int) -> Tree:
        [(length, _)] = test.values
        return Compared((Instruction(LD | bpf.LEN, 0, 0, 0),), ((bpf.JGE, length),))

    def _outbound(self, test: Test, tags: int) -> Tree:
        return _equal(H, bpf.PACKET_TYPE, bpf.OUTGOING)

    def _inbound(self, test: Test, tags: int) -> Tree:
        return Not(self._outbound(test, tags))

    # -- layers --

    def _need_ethernet(self, test: Test) -> None:
        if not self._is_ethernet:
            text = "these packets have no Ethernet header; ask for what is in their IP header"
            raise FilterError(self._expression, test.position, text)

    def _network_at(self, tags: int) -> int:
        """Return where the network layer begins."""
        return 14 + tags if self._is_ethernet else 0

    def _of_type(self, tags: int, *types: int) -> Tree:
        """Return that the network layer is one of *types*; without Ethernet, IP tells itself."""
        if self._is_ethernet:
            return _equal(H, 12 + tags, *types)
        nibbles = {ETHERTYPES["ip"]: 0x40, ETHERTYPES["ip6"]: 0x60}
        found = [nibbles[each] for each in types if each in nibbles]
        return _equal(B, 0, *found, mask=0xF0) if found else FALSE

    def _of_ip(self, tags: int, numbers: Iterable[int]) -> Tree:
        at = self._network_at(tags)
        return All((self._of_type(tags, ETHERTYPES["ip"]), _equal(B, at + 9, *numbers)))

    def _of_ip6(self, tags: int, numbers: Iterable[int]) -> Tree:
        at = self._network_at(tags)
        numbers = tuple(numbers)
        behind = All((_equal(B, at + 6, FRAGMENT_HEADER), _equal(B, at + 40, *numbers)))
        is_one = Any((_equal(B, at + 6, *numbers), behind))
        return All((self._of_type(tags, ETHERTYPES["ip6"]), is_one))


def _directed(test: Test, one_of: Callable[[int], Tree], source: int, destination: int) -> Tree:
    """Return that *one_of* holds where the direction of *test* says."""
    if test.direction == "src":
        return one_of(source)
    if test.direction == "dst":
        return one_of(destination)
    both = (one_of(source), one_of(destination))
    return All(both) if test.direction == "src and dst" else Any(both)


def _by_mask(values: Iterable[Span]) -> list[tuple[int, list[int]]]:
    found: dict[int, list[int]] = {}
    for address, mask in values:
        found.setdefault(mask, []).append(address)
    return list(found.items())


def _equal_ip6(where: int, address: int, mask: int) -> Tree:
    """Return that the four words at *where* are those of *address*, as far as in *mask*."""
    parts = []
    for word in range(4):
        shift = 96 - 32 * word
        ones = mask >> shift & 0xFFFFFFFF
        if ones:
            value = address >> shift & 0xFFFFFFFF
            within = None if ones == 0xFFFFFFFF else ones
            parts.append(_equal(W, where + 4 * word, value, mask=within))
    return All(tuple(parts))


def _equal_mac(where: int, number: int) -> Tree:
    return All((_equal(W, where + 2, number & 0xFFFFFFFF), _equal(H, where, number >> 32)))


def _within(loads: tuple[Instruction, ...], spans: Iterable[Span]) -> Iterable[Tree]:
    """Yield what holds where the number that is loaded lies in one of *spans*."""
    single = tuple((bpf.JEQ, low) for low, high in spans if low == high)
    if single:
        yield Compared(loads, tuple(dict.fromkeys(single)))
    for low, high in spans:
        if low != high:
            below = Compared(loads, ((bpf.JGT, high),))
            yield All((Compared(loads, ((bpf.JGE, low),)), Not(below)))
