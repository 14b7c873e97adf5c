"""From a ring's blocks to a pcapng file, without an object for a packet.

What the kernel has told of a packet lies in front of its data, and is of no more use once it is
read: so the block of the file is made there, and the file is written out of the ring. The kernel
leaves 82 bytes in front of a packet's data; what ends the block of the packet before it fits in
as well, so that a packet costs one look, one note and one slice.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twistedsock.transports.packet_ring import (
    PACKET_OUTGOING,
    QUICK_FRAME,
    TAG_BYTES,
    TP_STATUS_CSUMNOTREADY,
    TP_STATUS_VLAN_VALID,
    Block,
    Counters,
    Interface,
    Ring,
    restore_tag,
)
from twistedsock.wire import pcapng

_WORD = 0xFFFFFFFF
_HEAD = struct.Struct("<0s12sIIQ")  # of a packet's block, before the data
_FIXED_BYTES = 32  # of it, with the length at its end
_TAG_LENGTHS = TAG_BYTES << 32 | TAG_BYTES
MAX_SHAPES = 4096  # that are remembered
PIECES = 1000  # that one writev(2) takes, below its IOV_MAX of 1024

Pieces = list[memoryview | bytes]
Write = Callable[[Sequence[memoryview | bytes]], object]


class Recorder:
    """Writes the packets of one ring as pcapng.

    Args:
        write: Takes pieces that are whole blocks together, and writes them all before it returns:
            they are pieces of the ring.
        interface: What is recorded.
        snap_bytes: At most so many of a packet are.
    """

    def __init__(self, write: Write, interface: Interface, snap_bytes: int) -> None:
        self._write = write
        self._interface = interface
        self._snap_bytes = snap_bytes
        # On the loopback all come in: their direction tells nothing.
        ways = (None, None) if interface.is_loopback else (False, True)
        self._summed, self._unsummed = (
            tuple(_Shapes(snap_bytes, pcapng.packet_options(way, is_known)) for way in ways)
            for is_known in (True, False)
        )

    def begin(self, filter_text: str = "") -> None:
        """Write what comes before the packets."""
        machine, interface = os.uname(), self._interface
        system = f"{machine.sysname} {machine.release}"
        section = pcapng.section_header("twistedsock", machine.machine, system)
        told = pcapng.interface(interface.name, interface.link_type, self._snap_bytes, filter_text)
        self._write([section, told])

    def record(self, ring: Ring, block: Block, most: int) -> int:
        """Write at most *most* packets of *block*, whose memory is changed; return how many."""
        frame, left = block.start, min(block.packets, most)
        for start in range(0, left, PIECES):
            pieces: Pieces = []
            try:
                frame = self._gather(ring.memory, frame, min(left - start, PIECES), pieces)
                self._write(pieces)
            finally:
                pieces.clear()  # a traceback may hold them, and the ring could not be closed
        return left

    def _gather(self, memory: memoryview, frame: int, packets: int, pieces: Pieces) -> int:
        """Add so many packets from *frame* on to *pieces*; return the frame behind them."""
        read, add = QUICK_FRAME.unpack_from, pieces.append
        tagged, unready = TP_STATUS_VLAN_VALID, TP_STATUS_CSUMNOTREADY
        outgoing, word = PACKET_OUTGOING, _WORD
        summed, unsummed = self._summed, self._unsummed
        second = high = low = 0
        # Nothing is before the first, whose joint is only its beginning.
        end, joint_bytes, join = b"", _HEAD.size, _HEAD.pack_into
        for _ in range(packets):
            following, s, ns, lengths, status, offset, kind = read(memory, frame)
            start = frame + offset
            if status & tagged:
                start = restore_tag(memory, frame)
                lengths += _TAG_LENGTHS
            frame += following
            if s != second:
                second = s
                high, low = divmod(s * 1_000_000_000, _WORD + 1)
            ns += low
            shapes = (unsummed if status & unready else summed)[kind == outgoing]
            taken, lengths, begin, next_end, next_bytes, next_join = shapes[lengths]
            at = start - joint_bytes
            if ns <= word:
                join(memory, at, end, begin, high, ns, lengths)
            else:
                join(memory, at, end, begin, high + 1, ns - word - 1, lengths)
            add(memory[at : start + taken])
            end, joint_bytes, join = next_end, next_bytes, next_join
        add(end)
        return frame

    def end(self, started_at_ns: int, ended_at_ns: int, counters: Counters) -> None:
        """Write what comes after the packets."""
        received, dropped = counters.received, counters.dropped
        self._write([pcapng.statistics(0, started_at_ns, ended_at_ns, received, dropped)])


class _Shape(NamedTuple):
    """What the blocks of all packets of one length and kind have in common."""

    taken: int  # of the packet's bytes
    lengths: int  # taken, and 32 bits higher the packet's own
    begin: bytes  # of the block, before its time
    end: bytes  # of it, behind the data
    joint_bytes: int  # of this end and the beginning of the next block, before its data
    join: Callable[..., None]  # notes end, begin, the time's words, and lengths


def _shape(lengths: int, snap_bytes: int, options: bytes) -> _Shape:
    taken, whole = struct.unpack("=II", struct.pack("=Q", lengths))  # as the ring has them
    taken = min(taken, snap_bytes)
    padding = bytes(-taken % 4)
    block_bytes = _FIXED_BYTES + taken + len(padding) + len(options)
    begin = struct.pack("<III", pcapng.ENHANCED_PACKET, block_bytes, 0)
    end = padding + options + struct.pack("<I", block_bytes)
    joint = struct.Struct(f"<{len(end)}s{len(begin)}sIIQ")
    return _Shape(taken, whole << 32 | taken, begin, end, joint.size, joint.pack_into)


class _Shapes(dict[int, _Shape]):
    """Shapes by the two lengths as the ring has them; each is made when it is first met."""

    def __init__(self, snap_bytes: int, options: bytes) -> None:
        self._snap_bytes = snap_bytes
        self._options = options

    def __missing__(self, lengths: int) -> _Shape:
        if len(self) == MAX_SHAPES:
            self.clear()
        made = self[lengths] = _shape(lengths, self._snap_bytes, self._options)
        return made
