"""Packets of an interface by a ring of memory that the kernel fills: TPACKET_V3 (packet(7)).

The ring is a row of blocks. The kernel puts packets into one after the other, and hands a block
over when it is full or RETIRE_MS old; ``take`` gets it, ``give_back`` returns it. While all are
ours packets are dropped, which the kernel counts. Nothing is copied, and no system call is made
for a packet.

    block   version 4 | private 4 | status 4 | packets 4 | offset of the first 4 | ...
    packet  offset of the next 4 | s 4 | ns 4 | captured length 4 | length 4 | status 4
            | offset of the data 2 | ... | VLAN tag | ... | sockaddr_ll | ... | data

Whoever opens a ring closes it. Needs Linux 4.20.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from twistedsock.addresses import Address
from twistedsock.errors import BindError, OptionError, TwistedsockError
from twistedsock.transports.binding import ETH_P_ALL, raw_grant
from twistedsock.transports.filtering import attach
from twistedsock.wire import bpf
from twistedsock.wire.bpf import Program
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, Captured
from twistedsock.wire.link_types import ARPHRD_LOOPBACK, LINK_TYPES
from twistedsock.wire.numbers import ETHERTYPE_VLAN

BLOCK_BYTES = 1024 * 1024  # takes the longest packet; a power of two, as the kernel wants
RING_BYTES = 32 * 1024 * 1024  # half a second of 200,000 short packets a second
RETIRE_MS = 40  # so long a packet may lie in a block that is not full
LINGER_S = 5 * RETIRE_MS / 1000  # after the end, for the kernel to hand over what is in already

# linux/if_packet.h and asm-generic/socket.h; Python lacks them
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 1, 5, 6, 10
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_PROMISC, PACKET_OUTGOING, TPACKET_V3 = 1, 4, 2
SIOCGIFHWADDR = 0x8927  # linux/sockios.h
TP_STATUS_USER, TP_STATUS_CSUMNOTREADY = 1, 1 << 3
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6

# Offset of the next, seconds, nanoseconds, captured length, length, status, offset of the data,
# and the kind of packet (of sockaddr_ll)
FRAME = struct.Struct("=6IH32xB")
QUICK_FRAME = struct.Struct("=3IQIH32xB")  # the same with both lengths in one number
_FRAME_TAG = struct.Struct("=20xIH6xIH")  # status, offset of the data, VLAN tag, its EtherType
_FRAME_BYTES = 2048  # has no meaning in version 3, but must fit into a block
_BLOCK = struct.Struct("=8x3I")  # status, packets, offset of the first
_WORD, _STATUS_AT, _PACKETS_AT = struct.Struct("=I"), 8, 12
_REQUEST = struct.Struct("=7I")
_IFREQ = struct.Struct("=16sH22x")  # ifr_name, ifr_hwaddr.sa_family (netdevice(7))
_MEMBERSHIP = struct.Struct("=iHH8x")
_COUNTERS = struct.Struct("=III")
TAG_BYTES = 4
_TAG = struct.Struct("!HH")
_ADDRESSES_BYTES = 12  # of an Ethernet frame, before its tag
_NOTHING = (bpf.Instruction(bpf.RET | bpf.K, 0, 0, 0),)  # a filter that takes no packet


class InterfaceLost(TwistedsockError):
    """The interface that was captured on went down, or away.

    Attributes:
        errno: The system's error number.
    """

    def __init__(self, address: Address, number: int) -> None:
        self.errno = number
        code = errno.errorcode.get(number, str(number))
        text = "the interface went down or away" if number == errno.ENETDOWN else "capture ended"
        super().__init__(f"{address}: {text}: {os.strerror(number)} ({code})")


class Interface(NamedTuple):
    """What is captured on: its address, its link type, and whether it is the loopback."""

    address: Address
    link_type: int
    is_loopback: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.address.path


@dataclass(slots=True)
class Counters:
    """What the kernel has counted since the ring was opened.

    Attributes:
        received: Packets that the filter took, with those that were then dropped.
        dropped: Packets for which the ring had no room.
        freezes: How often every block was ours.
    """

    received: int = 0
    dropped: int = 0
    freezes: int = 0


class Block(NamedTuple):
    """Packets in the ring: where the first one is in its memory, and how many they are."""

    start: int
    packets: int


def find_interface(address: Address) -> Interface:
    """Return the interface of *address*, which needs no right.

    Raises:
        BindError: There is none, or its link layer is not one that can be captured.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            told = fcntl.ioctl(sock, SIOCGIFHWADDR, _IFREQ.pack(os.fsencode(address.path), 0))
        except OSError as error:
            raise BindError.from_os_error(address, error) from error
    kind = _IFREQ.unpack(told)[1]
    if kind not in LINK_TYPES:
        text = f"its link layer (ARPHRD {kind}) is neither Ethernet nor bare IP"
        raise BindError(address, text, errno.EOPNOTSUPP)
    return Interface(address, LINK_TYPES[kind], kind == ARPHRD_LOOPBACK)


def open_ring(
    interface: Interface,
    program: Program,
    *,
    snap_bytes: int = DEFAULT_SNAP_BYTES,
    promiscuous: bool = False,
    ring_bytes: int = RING_BYTES,
    block_bytes: int = BLOCK_BYTES,
) -> Ring:
    """Return a ring into which the packets of *interface* go from now on, both directions.

    On the loopback each packet is there once, as it comes in.

    Args:
        interface: Where.
        program: What is taken. Nothing gets in before it is attached.
        snap_bytes: At most so many of a packet are handed out. A filter that says so as well
            saves the copying.
        promiscuous: Whether the interface shall take what is not for this machine, until the
            ring is closed.
        ring_bytes: Of memory, which the kernel holds; rounded down to whole blocks.
        block_bytes: A power of two, and a multiple of the page size.

    Raises:
        PacketError: *program* is none that the kernel would take.
        BindError: The right is missing, the interface is down or gone, or the kernel refuses
            the filter or the memory. Nothing is left open.
    """
    address = interface.address
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            code = errno.errorcode[error.errno]
            text = f"needs CAP_NET_RAW ({code}): {raw_grant(address)}"
            raise BindError(address, text, error.errno) from error
        raise BindError.from_os_error(address, error) from error
    memory: mmap.mmap | None = None
    try:
        sock.setblocking(False)
        attach(sock, program)
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        if interface.is_loopback:
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        blocks = max(ring_bytes // block_bytes, 1)
        frames = blocks * (block_bytes // _FRAME_BYTES)
        request = (block_bytes, blocks, _FRAME_BYTES, frames, RETIRE_MS, 0, 0)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, _REQUEST.pack(*request))
        memory = mmap.mmap(sock.fileno(), blocks * block_bytes)
        if promiscuous:
            index = socket.if_nametoindex(interface.name)
            asked = _MEMBERSHIP.pack(index, PACKET_MR_PROMISC, 0)
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, asked)
        sock.bind((interface.name, ETH_P_ALL))
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:  # binding to an interface that is down succeeds, and tells it here
            raise OSError(number, "")
    except OSError as error:
        _close(sock, memory)
        raise BindError.from_os_error(address, error) from error
    except OptionError as error:
        _close(sock, memory)
        raise BindError(address, str(error), error.errno) from error
    except BaseException:
        _close(sock, memory)
        raise
    return Ring(interface, sock, memory, block_bytes, snap_bytes)


class Ring:
    """The ring of one interface, made by ``open_ring``.

    Attributes:
        interface: What is captured on.
        snap_bytes: At most so many of a packet are handed out.
        memory: Of all blocks; offsets are into it.
        counters: As of the last ``count``.
    """

    def __init__(
        self,
        interface: Interface,
        sock: socket.socket,
        memory: mmap.mmap,
        block_bytes: int,
        snap_bytes: int,
    ) -> None:
        self.interface = interface
        self.snap_bytes = snap_bytes
        self.counters = Counters()
        self._sock = sock
        self._mmap = memory
        self.memory = memoryview(memory)
        self._block_bytes = block_bytes
        self._at = 0  # of the block that comes next, or that is ours now

    def fileno(self) -> int:
        """Return the descriptor, which is readable when a block is there, and tells faults."""
        return self._sock.fileno()

    def take(self) -> Block | None:
        """Return the next block, which is ours until ``give_back``; None while there is none."""
        status, packets, first = _BLOCK.unpack_from(self.memory, self._at)
        return Block(self._at + first, packets) if status & TP_STATUS_USER else None

    def give_back(self) -> None:
        """Let the kernel have the block taken last; nothing of it may be looked at any more."""
        _WORD.pack_into(self.memory, self._at + _PACKETS_AT, 0)
        _WORD.pack_into(self.memory, self._at + _STATUS_AT, 0)  # from here on it is the kernel's
        self._at += self._block_bytes
        if self._at == len(self.memory):
            self._at = 0

    def packets(self, block: Block) -> Iterator[Captured]:
        """Yield a copy of each packet of *block*, at most once: their tags are put back in it."""
        memory, frame, snap_bytes = self.memory, block.start, self.snap_bytes
        name, link_type = self.interface.name, self.interface.link_type
        is_loopback = self.interface.is_loopback
        for _ in range(block.packets):
            told = FRAME.unpack_from(memory, frame)
            following, s, ns, taken, whole, status, offset, kind = told
            start = frame + offset
            if status & TP_STATUS_VLAN_VALID:
                start = restore_tag(memory, frame)
                taken, whole = taken + TAG_BYTES, whole + TAG_BYTES
            yield Captured(
                s * 1_000_000_000 + ns,
                bytes(memory[start : start + min(taken, snap_bytes)]),
                whole,
                link_type,
                name,
                None if is_loopback else kind == PACKET_OUTGOING,
                not status & TP_STATUS_CSUMNOTREADY,
            )
            frame += following

    def count(self) -> Counters:
        """Return the kernel's counters, which it begins anew each time that they are read."""
        told = self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, _COUNTERS.size)
        received, dropped, freezes = _COUNTERS.unpack(told)
        self.counters.received += received
        self.counters.dropped += dropped
        self.counters.freezes += freezes
        return self.counters

    def fault(self) -> InterfaceLost | None:
        """Return what has ended the capture, once; None where nothing has."""
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return InterfaceLost(self.interface.address, number) if number else None

    def stop(self) -> None:
        """Let nothing more in. What is in already is handed over within RETIRE_MS or two."""
        attach(self._sock, _NOTHING)

    @property
    def is_empty(self) -> bool:
        """Whether no packet is in the block that comes next, be it ours or still the kernel's."""
        _, packets, _ = _BLOCK.unpack_from(self.memory, self._at)
        return not packets

    def close(self) -> None:
        """Close the socket and its memory. Nobody may hold a piece of ``memory`` any more."""
        self.memory.release()
        _close(self._sock, self._mmap)


def restore_tag(memory: memoryview, frame: int) -> int:
    """Put the VLAN tag that the kernel has taken out back into the packet at *frame*.

    Returns:
        Where its data begins now: four bytes earlier.
    """
    status, offset, tag, ethertype = _FRAME_TAG.unpack_from(memory, frame)
    if not status & TP_STATUS_VLAN_TPID_VALID:
        ethertype = ETHERTYPE_VLAN
    start = frame + offset
    begin: int = start - TAG_BYTES
    memory[begin : begin + _ADDRESSES_BYTES] = bytes(memory[start : start + _ADDRESSES_BYTES])
    _TAG.pack_into(memory, begin + _ADDRESSES_BYTES, ethertype, tag)
    return begin


def _close(sock: socket.socket, memory: mmap.mmap | None) -> None:
    if memory is not None:
        memory.close()  # which has a duplicate of the socket's descriptor
    with suppress(OSError):
        sock.close()
