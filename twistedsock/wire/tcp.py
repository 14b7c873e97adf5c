"""TCP segments (RFC 9293 section 3.1).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          Source Port          |       Destination Port        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                        Sequence Number                        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                    Acknowledgment Number                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Data |       |C|E|U|A|P|R|S|F|                               |
    | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
    |       |       |R|E|G|K|H|T|N|N|                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           Checksum            |         Urgent Pointer        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                    Options, up to 40 bytes                    |

Know one segment's bytes; never a connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache

from twistedsock.errors import PacketError
from twistedsock.wire.checksum import checksum, is_intact, pseudo_header
from twistedsock.wire.fields import printable, require_bits
from twistedsock.wire.header_options import MAX_OPTION_BYTES, options_to_bytes, parse_options
from twistedsock.wire.numbers import TCP as PROTOCOL
from twistedsock.wire.tcp_options import Option, describe_options

NAME = "tcp"
TCP_HEADER_BYTES = 20  # without options
_HEADER = struct.Struct("!HHIIHHHH")

# The control bits (RFC 9293), and that of accurate ECN (RFC 9768) above them
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))
_LETTERS = ((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P"), (ACK, "."), (URG, "U"), (ECE, "E"),
            (CWR, "W"), (AE, "e"))  # fmt: skip

_WIDTHS = {
    "source_port": 16,
    "destination_port": 16,
    "sequence_number": 32,
    "acknowledgment_number": 32,
    "flags": 12,
    "window": 16,
    "urgent_pointer": 16,
}


@dataclass(frozen=True, slots=True)
class TCP:
    """One segment, or the beginning of one.

    Attributes:
        source_port: 0 to 65535.
        destination_port: 0 to 65535.
        sequence_number: Of the first byte of the payload, or of SYN.
        acknowledgment_number: The next that is expected, where ``ACK`` is set.
        flags: The control bits such as ``SYN | ACK``, with the reserved bits above them: 12 bits.
        window: As it is sent, not scaled.
        urgent_pointer: Counts where ``URG`` is set.
        options: In their order, without the padding at the end.
        payload: What follows the header.
        missing_bytes: Options that the header announces and that are not there; then there is no
            payload either. The payload's own length is in the IP header alone.
        checksum: As it was found; None for one that was made here.
        is_intact: Whether the checksum is right; None where that cannot be known: of one made
            here, without the IP addresses, and with bytes missing.
    """

    source_port: int
    destination_port: int
    sequence_number: int = 0
    acknowledgment_number: int = 0
    flags: int = 0
    window: int = 0
    urgent_pointer: int = 0
    options: tuple[Option, ...] = ()
    payload: bytes = b""
    missing_bytes: int = 0
    checksum: int | None = field(default=None, compare=False)
    is_intact: bool | None = field(default=None, compare=False)

    def to_bytes(self, source: str = "", destination: str = "") -> bytes:
        """Return the segment, with a right checksum if it can have one.

        Without the addresses, or with bytes missing, the checksum is 0, and wrong.

        Args:
            source: The numeric address in the IP header; empty where it is not known.
            destination: Likewise, of the same version.

        Raises:
            PacketError: A field does not fit, or the addresses are none.
        """
        require_bits(NAME, self, _WIDTHS)
        options = options_to_bytes(NAME, self.options, pad=not self.missing_bytes)
        room = len(options) + self.missing_bytes
        if not 0 <= self.missing_bytes <= MAX_OPTION_BYTES - len(options) or room % 4:
            text = (
                f"options and missing_bytes must be a multiple of 4, at most {MAX_OPTION_BYTES}, "
                f"got {len(options)} and {self.missing_bytes}"
            )
            raise PacketError(NAME, text)
        if self.missing_bytes and self.payload:
            raise PacketError(NAME, "where options are missing there is no payload")
        header = _HEADER.pack(
            self.source_port,
            self.destination_port,
            self.sequence_number,
            self.acknowledgment_number,
            (TCP_HEADER_BYTES + room) // 4 << 12 | self.flags,
            self.window,
            0,
            self.urgent_pointer,
        )
        data = b"%b%b%b" % (header, options, self.payload)
        if not (source and destination) or self.missing_bytes:
            return data
        found = checksum(pseudo_header(source, destination, PROTOCOL, len(data)) + data)
        return b"%b%b%b" % (data[:16], found.to_bytes(2, "big"), data[18:])

    def describe(self) -> str:
        """Return such as ``TCP 40112 > 8888 S seq 123 win 65495 [mss 65495] length 0``."""
        return printable(f"TCP {self.source_port} > {self.destination_port} {self.details()}")

    def details(self, missing_payload_bytes: int = 0) -> str:
        """Return what ``describe`` says after the ports; where options are missing, no length.

        Args:
            missing_payload_bytes: What the IP header announces beyond the payload.
        """
        acknowledges = f" ack {self.acknowledgment_number}" if self.flags & ACK else ""
        urgent = f" urg {self.urgent_pointer}" if self.flags & URG else ""
        options = f" [{text}]" if (text := describe_options(self.options)) else ""
        length = f" length {len(self.payload) + missing_payload_bytes}"
        return (
            f"{flag_letters(self.flags)} seq {self.sequence_number}{acknowledges} "
            f"win {self.window}{urgent}{options}{'' if self.missing_bytes else length}"
        )


@lru_cache(512)
def flag_letters(flags: int) -> str:
    """Return the control bits as tcpdump writes them, such as ``S.`` for SYN and ACK."""
    return "".join(letter for bit, letter in _LETTERS if flags & bit) or "none"


def parse(data: bytes, source: str = "", destination: str = "") -> TCP:
    """Return the segment that *data* is.

    Args:
        data: The payload of an IP packet.
        source: The numeric address in the IP header, for the checksum; empty where it is not
            known, and where the IP packet is a fragment or was cut off.
        destination: Likewise, of the same version.

    Raises:
        PacketError: There is no whole fixed header, it contradicts itself, or the addresses are
            none.
    """
    if len(data) < TCP_HEADER_BYTES:
        raise PacketError(NAME, f"a header has {TCP_HEADER_BYTES} bytes at least, got {len(data)}")
    (from_port, to_port, sequence, acknowledgment, bits, window, found, urgent) = (
        _HEADER.unpack_from(data)
    )
    header = bits >> 12 << 2
    if header < TCP_HEADER_BYTES:
        raise PacketError(NAME, f"a data offset of {header} bytes, below {TCP_HEADER_BYTES}")
    options: tuple[Option, ...] = ()
    missing, intact = 0, None
    if header > TCP_HEADER_BYTES:
        announced = header - TCP_HEADER_BYTES
        in_header = bytes(data[TCP_HEADER_BYTES:header])
        options, whole = parse_options(NAME, Option, in_header, announced)
        missing = announced - whole if len(data) < header else 0
    if source and destination and not missing:
        intact = is_intact(pseudo_header(source, destination, PROTOCOL, len(data)) + data)
    return TCP(
        from_port,
        to_port,
        sequence,
        acknowledgment,
        bits & 0xFFF,
        window,
        urgent,
        options,
        bytes(data[header:]),
        missing,
        found,
        intact,
    )
