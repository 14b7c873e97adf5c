"""The address resolution protocol (RFC 826; RFC 5227 for probes and announcements).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         Hardware type         |         Protocol type         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |    Hlen, n    |    Plen, m    |           Operation           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Sender's hardware (n), protocol (m); target's (n), (m)  . . .

Know bytes; never a table of neighbours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from twistedsock.errors import PacketError
from twistedsock.wire.fields import address_bytes, ipv4_text, octets, printable, require_bits
from twistedsock.wire.numbers import ETHERTYPE_IPV4

NAME = "arp"
# https://www.iana.org/assignments/arp-parameters
HARDWARE_ETHERNET = 1
REQUEST, REPLY, REVERSE_REQUEST, REVERSE_REPLY = 1, 2, 3, 4
UNKNOWN_LINK_ADDRESS = "00:00:00:00:00:00"
FIXED_BYTES = 8
_FIXED = struct.Struct("!HHBBH")


@dataclass(frozen=True, slots=True)
class ARP:
    """One packet, whole.

    Hardware addresses are such as ``02:00:00:00:00:01``, of any length. Protocol addresses of IPv4
    are such as ``192.0.2.1``; those of other protocols and lengths are their bytes, written like
    hardware addresses.

    Attributes:
        operation: ``REQUEST``, ``REPLY`` or another number.
        sender_hardware: Whose packet it is.
        sender_protocol: Likewise; ``0.0.0.0`` in a probe.
        target_hardware: Whom it asks for or answers; as long as the sender's.
        target_protocol: Likewise.
        hardware_type: 1 is Ethernet.
        protocol_type: The ethertype of the protocol addresses.
    """

    operation: int
    sender_hardware: str
    sender_protocol: str
    target_hardware: str
    target_protocol: str
    hardware_type: int = HARDWARE_ETHERNET
    protocol_type: int = ETHERTYPE_IPV4

    def to_bytes(self) -> bytes:
        """Return the packet, not padded.

        Raises:
            PacketError: A field does not fit, or the addresses of a kind differ in length.
        """
        require_bits(NAME, self, {"operation": 16, "hardware_type": 16, "protocol_type": 16})
        hardware = [
            octets(NAME, name, getattr(self, name))
            for name in ("sender_hardware", "target_hardware")
        ]
        protocol = [self._protocol_bytes(name) for name in ("sender_protocol", "target_protocol")]
        for what, (first, second) in (("hardware", hardware), ("protocol", protocol)):
            if len(first) != len(second) or len(first) > 255:
                text = (
                    f"both {what} addresses must be equally long, at most 255 bytes, "
                    f"got {len(first)} and {len(second)}"
                )
                raise PacketError(NAME, text)
        fixed = _FIXED.pack(
            self.hardware_type,
            self.protocol_type,
            len(hardware[0]),
            len(protocol[0]),
            self.operation,
        )
        return b"".join((fixed, hardware[0], protocol[0], hardware[1], protocol[1]))

    def describe(self) -> str:
        """Return such as ``ARP who has 10.0.0.2 tell 10.0.0.1``."""
        if self.operation == REQUEST:
            text = f"ARP who has {self.target_protocol} tell {self.sender_protocol}"
        elif self.operation == REPLY:
            text = f"ARP {self.sender_protocol} is at {self.sender_hardware}"
        elif self.operation == REVERSE_REQUEST:
            text = f"RARP who is {self.target_hardware} tell {self.sender_hardware}"
        elif self.operation == REVERSE_REPLY:
            text = f"RARP {self.target_hardware} is {self.target_protocol}"
        else:
            text = f"ARP operation {self.operation} from {self.sender_hardware}"
        return printable(text)

    def _protocol_bytes(self, name: str) -> bytes:
        text = getattr(self, name)
        if self.protocol_type == ETHERTYPE_IPV4 and "." in text:
            return address_bytes(NAME, name, text, 4)
        return octets(NAME, name, text)


def parse(data: bytes) -> ARP:
    """Return the packet at the beginning of *data*; padding after it is left out.

    Raises:
        PacketError: It is not whole, its addresses included.
    """
    if len(data) < FIXED_BYTES:
        raise PacketError(NAME, f"a packet has {FIXED_BYTES} bytes at least, got {len(data)}")
    hardware_type, protocol_type, hardware, protocol, operation = _FIXED.unpack_from(data)
    total = FIXED_BYTES + 2 * (hardware + protocol)
    if len(data) < total:
        text = f"addresses of {hardware} and {protocol} bytes end at {total}, got {len(data)} bytes"
        raise PacketError(NAME, text)
    is_ipv4 = protocol_type == ETHERTYPE_IPV4 and protocol == 4
    position, found = FIXED_BYTES, []
    for size in (hardware, protocol, hardware, protocol):
        found.append(bytes(data[position : position + size]))
        position += size
    return ARP(
        operation,
        found[0].hex(":"),
        ipv4_text(found[1]) if is_ipv4 else found[1].hex(":"),
        found[2].hex(":"),
        ipv4_text(found[3]) if is_ipv4 else found[3].hex(":"),
        hardware_type,
        protocol_type,
    )
