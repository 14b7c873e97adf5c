"""User datagrams (RFC 768).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          Source Port          |       Destination Port        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |            Length             |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Know bytes; never a socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from twistedsock.errors import PacketError
from twistedsock.wire.checksum import checksum, is_intact, pseudo_header
from twistedsock.wire.fields import printable, require_bits
from twistedsock.wire.numbers import UDP as PROTOCOL

NAME = "udp"
UDP_HEADER_BYTES = 8
MAX_DATAGRAM_BYTES = 0xFFFF
_HEADER = struct.Struct("!HHHH")


@dataclass(frozen=True, slots=True)
class UDP:
    """One datagram, or the beginning of one.

    Attributes:
        source_port: 0 to 65535; 0 where no answer is expected.
        destination_port: 0 to 65535.
        payload: What follows the header.
        missing_bytes: Payload that the length announces and that is not there.
        checksum: As it was found, 0 for none; None for one that was made here.
        is_intact: Whether the checksum is right; None where that cannot be known: of one made
            here, without the IP addresses, with bytes missing, and over IPv4 without a checksum.
            Over IPv6 a datagram without one is not intact (RFC 8200 section 8.1); RFC 6935
            excepts tunnels that were told so, which nobody can tell from the packet.
    """

    source_port: int
    destination_port: int
    payload: bytes = b""
    missing_bytes: int = 0
    checksum: int | None = field(default=None, compare=False)
    is_intact: bool | None = field(default=None, compare=False)

    def to_bytes(self, source: str = "", destination: str = "") -> bytes:
        """Return the datagram with its length, and with a right checksum if it can have one.

        Without the addresses, or with bytes missing, the checksum is 0: none.

        Args:
            source: The numeric address in the IP header; empty where it is not known.
            destination: Likewise, of the same version.

        Raises:
            PacketError: A field does not fit, or the addresses are none.
        """
        require_bits(NAME, self, {"source_port": 16, "destination_port": 16, "missing_bytes": 16})
        length = UDP_HEADER_BYTES + len(self.payload) + self.missing_bytes
        if length > MAX_DATAGRAM_BYTES:
            raise PacketError(NAME, f"at most {MAX_DATAGRAM_BYTES} bytes in all, got {length}")
        header = _HEADER.pack(self.source_port, self.destination_port, length, 0)
        if not (source and destination) or self.missing_bytes:
            return header + self.payload
        before = pseudo_header(source, destination, PROTOCOL, length)
        # A sum that comes out as 0 goes as its other zero, since 0 says that there is none.
        found = checksum(b"%b%b%b" % (before, header, self.payload)) or 0xFFFF
        return b"%b%b%b" % (header[:6], found.to_bytes(2, "big"), self.payload)

    def describe(self) -> str:
        """Return such as ``UDP 53123 > 53 length 33``."""
        return printable(f"UDP {self.source_port} > {self.destination_port} {self.details()}")

    def details(self) -> str:
        """Return what ``describe`` says after the ports: the announced length of the payload."""
        return f"length {len(self.payload) + self.missing_bytes}"


def parse(data: bytes, source: str = "", destination: str = "") -> UDP:
    """Return the datagram at the beginning of *data*; what follows its length is left out.

    Args:
        data: The payload of an IP packet.
        source: The numeric address in the IP header, for the checksum; empty where not known.
        destination: Likewise, of the same version.

    Raises:
        PacketError: There is no whole header, its length is below 8, or the addresses are none.
    """
    if len(data) < UDP_HEADER_BYTES:
        raise PacketError(NAME, f"a header has {UDP_HEADER_BYTES} bytes, got {len(data)}")
    source_port, destination_port, length, found = _HEADER.unpack_from(data)
    if length < UDP_HEADER_BYTES:
        raise PacketError(NAME, f"a length of {length}, below the header's {UDP_HEADER_BYTES}")
    missing, intact = max(length - len(data), 0), None
    if source and destination and not missing:
        if found:
            before = pseudo_header(source, destination, PROTOCOL, length)
            intact = is_intact(before + data[:length])
        elif ":" in source:
            intact = False
    payload = bytes(data[UDP_HEADER_BYTES:length])
    return UDP(source_port, destination_port, payload, missing, found, intact)
