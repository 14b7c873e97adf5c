"""What is captured, from the words of whoever asks: an interface, a filter, a length.

Knows no reactor; the ring that is opened here is served by ``capture`` in a reactor, and by
``capture_loop`` without one.
"""

from __future__ import annotations

from twistedsock.addresses import Address, parse_address
from twistedsock.errors import AddressError, FilterError
from twistedsock.transports.filtering import port_of
from twistedsock.transports.packet_ring import (
    RING_BYTES,
    Interface,
    Ring,
    find_interface,
    open_ring,
)
from twistedsock.wire import bpf, filters
from twistedsock.wire.bpf import Program
from twistedsock.wire.captured import (
    DEFAULT_SNAP_BYTES,
    LINKTYPE_ETHERNET,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_RAW,
    Captured,
)

Filter = str | Program
# The link type whose filters serve packets of another, which a file may have
_FILTERED_AS = {
    LINKTYPE_ETHERNET: LINKTYPE_ETHERNET,
    LINKTYPE_RAW: LINKTYPE_RAW,
    LINKTYPE_IPV4: LINKTYPE_RAW,
    LINKTYPE_IPV6: LINKTYPE_RAW,
}


def parse_interface(text: str | Address) -> Address:
    """Return the address that *text* names: ``packet:lo``, or ``lo`` alone.

    Raises:
        AddressError: It is no interface.
    """
    address = text
    if isinstance(address, str):
        address = parse_address(address if ":" in address else f"packet:{address}")
    if address.scheme != "packet":
        raise AddressError(f'must name an interface such as "packet:lo", got "{address}"')
    return address


def compile_text(
    text: str, link_type: int = LINKTYPE_ETHERNET, snap_bytes: int = DEFAULT_SNAP_BYTES
) -> Program:
    """Return the program of a filter's *text*, which may name services of this machine.

    Raises:
        FilterError: It is none, or none is for packets of that link type.
    """
    if link_type not in _FILTERED_AS:
        fault = f"packets of link type {link_type} cannot be filtered, only Ethernet and bare IP"
        raise FilterError(text, 0, fault)
    return filters.compile_filter(text, _FILTERED_AS[link_type], snap_bytes, port_of)


def is_taken(program: Program, packet: Captured) -> bool:
    """Return whether *program* takes *packet*, as the kernel would have decided."""
    told = {bpf.PACKET_TYPE: bpf.OUTGOING if packet.outgoing else 0}
    return bpf.run(program, packet.data, packet.original_bytes, told) > 0


def open_source(
    interface: Interface | Address | str,
    filter: Filter = "",
    *,
    snap_bytes: int = DEFAULT_SNAP_BYTES,
    promiscuous: bool = False,
    ring_bytes: int = RING_BYTES,
) -> Ring:
    """Return the ring into which what *filter* takes goes from now on; the caller closes it.

    Args:
        interface: Where.
        filter: An expression such as ``udp port 53``, or a program; nothing takes all.
        snap_bytes: At most so many bytes of a packet are kept.
        promiscuous: Whether to take what is not for this machine, too.
        ring_bytes: Of memory, for packets that are not yet dealt with.

    Raises:
        AddressError: It is no interface.
        FilterError: The filter is none.
        BindError: There is no such interface, or no right; nothing is left open.
    """
    if not isinstance(interface, Interface):
        interface = find_interface(parse_interface(interface))
    program = filter
    if isinstance(program, str):
        program = compile_text(program, interface.link_type, snap_bytes)
    return open_ring(
        interface,
        program,
        snap_bytes=snap_bytes,
        promiscuous=promiscuous,
        ring_bytes=ring_bytes,
    )
