"""What captures have in place of a link's header where there is no Ethernet.

Linux "cooked" (LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2), as of the interface ``any``:

    +-------------+---------------+---------------+-----------+----------+
    | Packet type | Hardware type | Address bytes | Address   | Protocol |  SLL, 16 bytes
    |  2 bytes    |       2       |       2       |     8     |     2    |
    +----------+--+-------+-------+---------+-----+-------+---+----------+
    | Protocol | Reserved | Interface index | Hardware    | Packet| Address | Address |  SLL2,
    |    2     |    2     |        4        |   type, 2   |type, 1| bytes, 1|    8    |  20 bytes

and BSD's loopback (LINKTYPE_NULL): the address family, 4 bytes in the order of the machine that
captured it. https://www.tcpdump.org/linktypes.html. Know bytes; never an interface.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from twistedsock.errors import PacketError
from twistedsock.wire.fields import octets, printable, require_bits

NAME = "cooked"
TO_US, BROADCAST, MULTICAST, TO_OTHERS, FROM_US = range(5)  # packet types
ADDRESS_ROOM = 8
_SLL = struct.Struct("!HHH8sH")
_SLL2 = struct.Struct("!HxxIHBB8s")
_LOOPBACK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cooked:
    """One packet behind a Linux cooked header.

    Attributes:
        protocol: The ethertype of the payload, for most kinds of hardware.
        payload: What follows.
        packet_type: ``TO_US`` to ``FROM_US``.
        hardware_type: Linux's ARPHRD number, 1 for Ethernet, 772 for loopback.
        address: The sender's hardware address, of which there are at most 8 bytes.
        address_length: How long it is, which may be more than 8.
        interface_index: In SLL2 alone; None makes it SLL.
    """

    protocol: int
    payload: bytes = b""
    packet_type: int = TO_US
    hardware_type: int = 1
    address: str = ""
    address_length: int = 0
    interface_index: int | None = None

    def to_bytes(self) -> bytes:
        """Return the packet with its header, SLL2 where it has an interface's index.

        Raises:
            PacketError: A field does not fit.
        """
        is_old = self.interface_index is None
        small = 16 if is_old else 8
        widths = {"protocol": 16, "packet_type": small, "hardware_type": 16}
        widths["address_length"] = small
        require_bits(NAME, self, widths if is_old else widths | {"interface_index": 32})
        address = octets(NAME, "address", self.address)
        if len(address) != min(self.address_length, ADDRESS_ROOM):
            text = f"address must have {self.address_length} bytes, 8 at most, got {len(address)}"
            raise PacketError(NAME, text)
        kind, hardware, length = self.packet_type, self.hardware_type, self.address_length
        if is_old:
            header = _SLL.pack(kind, hardware, length, address, self.protocol)
        else:
            index = self.interface_index
            header = _SLL2.pack(self.protocol, index, hardware, kind, length, address)
        return header + self.payload

    def describe(self) -> str:
        """Return such as ``cooked protocol 0x88cc length 46``."""
        return printable(f"cooked protocol 0x{self.protocol:04x} length {len(self.payload)}")


@dataclass(frozen=True, slots=True)
class Loopback:
    """One packet behind the header of BSD's loopback.

    Attributes:
        family: The address family: 2 is IPv4; 24, 28 and 30 are IPv6, by the system.
        payload: What follows.
        order: The byte order of the machine that captured it: as far as it can be told, the one
            in which the family is below 65536.
    """

    family: int
    payload: bytes = b""
    order: Literal["little", "big"] = "little"

    def to_bytes(self) -> bytes:
        """Return the packet with its header.

        Raises:
            PacketError: The family does not fit, or would be read in the other order.
        """
        require_bits(NAME, self, {"family": 32})
        header = self.family.to_bytes(_LOOPBACK_BYTES, self.order)
        if _order(header) != self.order:
            raise PacketError(NAME, f"family {self.family} would be read in the other byte order")
        return header + self.payload

    def describe(self) -> str:
        """Return such as ``loopback family 7 length 46``."""
        return printable(f"loopback family {self.family} length {len(self.payload)}")


def parse_sll(data: bytes) -> Cooked:
    """Return the packet that *data* is, behind a header of LINKTYPE_LINUX_SLL.

    Raises:
        PacketError: There is no whole header.
    """
    _require(data, _SLL.size)
    kind, hardware, length, address, protocol = _SLL.unpack_from(data)
    payload = bytes(data[_SLL.size :])
    return Cooked(protocol, payload, kind, hardware, address[:length].hex(":"), length)


def parse_sll2(data: bytes) -> Cooked:
    """Return the packet that *data* is, behind a header of LINKTYPE_LINUX_SLL2.

    Raises:
        PacketError: There is no whole header.
    """
    _require(data, _SLL2.size)
    protocol, index, hardware, kind, length, address = _SLL2.unpack_from(data)
    payload = bytes(data[_SLL2.size :])
    return Cooked(protocol, payload, kind, hardware, address[:length].hex(":"), length, index)


def parse_loopback(data: bytes) -> Loopback:
    """Return the packet that *data* is, behind a header of LINKTYPE_NULL.

    Raises:
        PacketError: There is no whole header.
    """
    _require(data, _LOOPBACK_BYTES)
    header = bytes(data[:_LOOPBACK_BYTES])
    order = _order(header)
    return Loopback(int.from_bytes(header, order), bytes(data[_LOOPBACK_BYTES:]), order)


def _order(header: bytes) -> Literal["little", "big"]:
    return "little" if int.from_bytes(header, "little") <= 0xFFFF else "big"


def _require(data: bytes, size: int) -> None:
    if len(data) < size:
        raise PacketError(NAME, f"a header has {size} bytes, got {len(data)}")
