"""IPv4 packets (RFC 791 section 3.1).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |Version|  IHL  |   DSCP    |ECN|          Total Length         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         Identification        |Flags|      Fragment Offset    |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Time to Live |    Protocol   |         Header Checksum       |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                       Source Address                          |
    |                    Destination Address                        |
    |                    Options                    |    Padding    |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Know bytes; never a socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from twistedsock.errors import PacketError
from twistedsock.wire.checksum import checksum, is_intact
from twistedsock.wire.fields import address_bytes, ipv4_text, printable, require_bits
from twistedsock.wire.header_options import NO_OPERATION as NO_OPERATION
from twistedsock.wire.header_options import options_to_bytes, parse_options
from twistedsock.wire.numbers import protocol_name

NAME = "ipv4"
IPV4_HEADER_BYTES = 20  # without options
MAX_PACKET_BYTES = 0xFFFF
_HEADER = struct.Struct("!BBHHHBBH4s4s")
_RESERVED, _DONT_FRAGMENT, _MORE_FRAGMENTS = 0x8000, 0x4000, 0x2000
_WIDTHS = {
    "protocol": 8,
    "ttl_hops": 8,
    "dscp": 6,
    "ecn": 2,
    "identification": 16,
    "fragment_offset": 16,
    "missing_bytes": 16,
}

# https://www.iana.org/assignments/ip-parameters; the copied bit (0x80) is part of the number
RECORD_ROUTE, TIMESTAMP, LOOSE_ROUTE, STRICT_ROUTE, ROUTER_ALERT = 7, 0x44, 0x83, 0x89, 0x94


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its number, and what follows its length byte.

    ``NO_OPERATION`` has no length and no data; the end of options is none of the values.
    """

    kind: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class IPv4:
    """One packet, or the beginning of one.

    Attributes:
        source: Such as ``192.0.2.1``.
        destination: Likewise.
        protocol: The number of the protocol in the payload, such as 17 for UDP.
        payload: What follows the header.
        ttl_hops: Routers that it may still pass, 0 to 255.
        dscp: 0 to 63 (RFC 2474).
        ecn: 0 to 3 (RFC 3168).
        identification: Of the datagram that fragments belong to.
        dont_fragment: Whether routers may not cut it.
        more_fragments: Whether it is a fragment and not the last.
        fragment_offset: Where in the datagram its payload begins, in bytes; a multiple of 8.
        reserved_flag: The bit that is always 0.
        options: In their order.
        missing_bytes: Payload that the header announces and that was not captured or quoted.
        checksum: As it was found; None for one that was made here. ``to_bytes`` makes its own.
        is_intact: Whether the checksum is right; None for one that was made here.
    """

    source: str
    destination: str
    protocol: int
    payload: bytes = b""
    ttl_hops: int = 64
    dscp: int = 0
    ecn: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    reserved_flag: bool = False
    options: tuple[Option, ...] = ()
    missing_bytes: int = 0
    checksum: int | None = field(default=None, compare=False)
    is_intact: bool | None = field(default=None, compare=False)

    def to_bytes(self) -> bytes:
        """Return the packet, with its length and a right header checksum.

        Raises:
            PacketError: A field does not fit into its bits.
        """
        require_bits(NAME, self, _WIDTHS)
        options = options_to_bytes(NAME, self.options)
        length = IPV4_HEADER_BYTES + len(options) + len(self.payload) + self.missing_bytes
        if length > MAX_PACKET_BYTES:
            raise PacketError(NAME, f"at most {MAX_PACKET_BYTES} bytes in all, got {length}")
        if self.fragment_offset % 8:
            text = f"the fragment offset is a multiple of 8, got {self.fragment_offset}"
            raise PacketError(NAME, text)
        flags = (
            self.reserved_flag * _RESERVED
            | self.dont_fragment * _DONT_FRAGMENT
            | self.more_fragments * _MORE_FRAGMENTS
        )
        header = _HEADER.pack(
            0x40 | (IPV4_HEADER_BYTES + len(options)) // 4,
            self.dscp << 2 | self.ecn,
            length,
            self.identification,
            flags | self.fragment_offset >> 3,
            self.ttl_hops,
            self.protocol,
            0,
            address_bytes(NAME, "source", self.source, 4),
            address_bytes(NAME, "destination", self.destination, 4),
        )
        header += options
        found = checksum(header)
        return b"%b%b%b%b" % (header[:10], found.to_bytes(2, "big"), header[12:], self.payload)

    def describe(self) -> str:
        """Return such as ``IP 192.0.2.1 > 192.0.2.2 UDP length 33``."""
        name, length = protocol_name(self.protocol), len(self.payload) + self.missing_bytes
        return printable(f"IP {self.source} > {self.destination} {name} length {length}")


def parse(data: bytes) -> IPv4:
    """Return the packet at the beginning of *data*.

    What follows it, such as padding of the link, is left out. A payload that was cut off is what
    is there, with the rest as ``missing_bytes``. A total length of 0, as offloading network cards
    leave it, is all of *data*; of more than 65,535 bytes that is a packet that cannot be written.

    Raises:
        PacketError: There is no whole header, or it contradicts itself.
    """
    header = header_bytes(data)
    if not header:
        raise PacketError(NAME, _fault(data))
    (first, tos, length, identification, fragment, ttl, protocol, found, source, destination) = (
        _HEADER.unpack_from(data)
    )
    if first >> 4 != 4:
        raise PacketError(NAME, f"version 4 was expected, got {first >> 4}")
    length = length or len(data)
    if length < header:
        raise PacketError(NAME, f"a total length of {length}, below the header's {header}")
    in_header = bytes(data[IPV4_HEADER_BYTES:header])
    options, _ = parse_options(NAME, Option, in_header, len(in_header))
    return IPv4(
        ipv4_text(source),
        ipv4_text(destination),
        protocol,
        bytes(data[header:length]),
        ttl,
        tos >> 2,
        tos & 3,
        identification,
        bool(fragment & _DONT_FRAGMENT),
        bool(fragment & _MORE_FRAGMENTS),
        (fragment & 0x1FFF) << 3,
        bool(fragment & _RESERVED),
        options,
        max(length - len(data), 0),
        found,
        is_intact(data[:header]),
    )


def header_bytes(packet: bytes) -> int:
    """Return the length of the IPv4 header at the front of *packet*; 0 where there is none."""
    length = (packet[0] & 0x0F) * 4 if packet else 0
    return length if IPV4_HEADER_BYTES <= length <= len(packet) else 0


def _fault(data: bytes) -> str:
    if len(data) < IPV4_HEADER_BYTES:
        return f"a header has {IPV4_HEADER_BYTES} bytes at least, got {len(data)}"
    return f"a header of {(data[0] & 0x0F) * 4} bytes, of {len(data)} that are there"
