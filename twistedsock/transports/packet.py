"""Packet listeners: the frames of one interface, or of all, as the link layer has them (packet(7)).

The message is the whole frame, with the VLAN tag that the kernel took out of it. Peers are
``(link-layer address, interface index)``; frames that this machine itself sends are told by
``metadata.outgoing``, and their sender is ``(link-layer address, interface index,
PACKET_OUTGOING)``: never the same peer as one out there. An interface that goes down, or away, ends
nothing.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from twistedsock.service import Metadata
from twistedsock.transports.ancillary import SO_TIMESTAMPNS, TIMESPEC, told_by
from twistedsock.transports.packet_ring import (
    PACKET_OUTGOING,
    PACKET_STATISTICS,
    SOL_PACKET,
    TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
)
from twistedsock.transports.raw import RawPort
from twistedsock.wire.numbers import ETHERTYPE_VLAN

PACKET_AUXDATA = 8  # linux/if_packet.h
MAX_FRAME_BYTES = 256 * 1024  # offloading makes frames longer than any wire's
# struct tpacket_auxdata: status, length, captured, two offsets, VLAN tag and its EtherType
_AUXILIARY = struct.Struct("@IIIHHHH")
_TAG = struct.Struct("!HH")
_COUNTERS = struct.Struct("@II")  # struct tpacket_stats: frames, and those that were dropped
_ADDRESSES_BYTES = 12  # of an Ethernet frame, before its tag
SIOCGIFINDEX = 0x8933  # linux/sockios.h
_IFREQ = struct.Struct("@16si20x")  # ifr_name, ifr_ifindex (netdevice(7))
_ANCILLARY_BYTES = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(_AUXILIARY.size)


@implementer(IAddress)
@dataclass(frozen=True)
class InterfaceName:
    """Where a packet listener listens: its interface as host, and 0 as port."""

    host: str
    port: int = 0
    scheme: str = "packet"


class PacketPort(RawPort):
    """A listener on a packet socket that is bound to an interface."""

    def _setAddressFamily(self) -> None:
        """Do nothing: the family is known."""

    def _opened(self, sock: Any) -> None:
        self._realPortNumber = 0
        self.answer = self.write
        self._interface, self._index = sock.getsockname()[0], 0
        self._buffer = memoryview(bytearray(MAX_FRAME_BYTES))
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)

    def _receive_with_destination(self) -> tuple[bytes, Any, Metadata]:
        size, ancillary, flags, name = self.socket.recvmsg_into([self._buffer], _ANCILLARY_BYTES)
        interface, _, kind, _, address = name
        told = told_by(ancillary, flags)
        told["interface"] = index = self._index_of(interface)
        told["outgoing"] = kind == PACKET_OUTGOING
        addr = (address.hex(":"), index, kind) if told["outgoing"] else (address.hex(":"), index)
        frame = bytes(self._buffer[:size])
        for level, number, data in ancillary:
            if level == SOL_PACKET and number == PACKET_AUXDATA:
                frame = with_tag(frame, data)
        return frame, addr, Metadata(**told)

    def _index_of(self, interface: str) -> int:
        """Return the index of *interface*: asked anew only where it has another name now."""
        if interface != self._interface or not self._index:
            try:
                asked = _IFREQ.pack(interface.encode(), 0)
                # The socket's own network, which need not be this process's.
                told = fcntl.ioctl(self.socket, SIOCGIFINDEX, asked)
                _, self._index = _IFREQ.unpack(told)
                self._interface = interface
            except OSError:  # it went while its last frames were read
                return 0
        return self._index

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send *datagram*, a whole frame with its link-layer header, by the interface.

        Raises:
            MessageLengthError: It is longer than the interface takes.
            OSError: The kernel refused it.
        """
        super().write(datagram, None)

    def connectionLost(self, reason: Any = None) -> None:
        """Tell how many frames came faster than they were read, and close."""
        told = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _COUNTERS.size)
        _, dropped = _COUNTERS.unpack(told)
        if dropped:
            self._log.warn(
                "packet:{interface}: {dropped} frames were dropped by the kernel: its buffer was"
                " full",
                event="frames_dropped",
                interface=self._interface,
                dropped=dropped,
            )
        super().connectionLost(reason)

    def getHost(self) -> InterfaceName:  # type: ignore[override]
        """Return the interface that is listened on."""
        return InterfaceName(self._interface)


def with_tag(frame: bytes, auxiliary: bytes) -> bytes:
    """Return *frame* with the VLAN tag back in it, where *auxiliary* says that it had one."""
    status, _, _, _, _, tag, ethertype = _AUXILIARY.unpack_from(auxiliary)
    if not status & TP_STATUS_VLAN_VALID:
        return frame
    if not status & TP_STATUS_VLAN_TPID_VALID:
        ethertype = ETHERTYPE_VLAN
    return frame[:_ADDRESSES_BYTES] + _TAG.pack(ethertype, tag) + frame[_ADDRESSES_BYTES:]
