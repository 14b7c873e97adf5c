"""Packets of an interface for a program: handed out one by one, or recorded in a file.

    async for packet in capture(reactor, "eth0", filter="udp port 53"):
        print(packet.received_at_ns, packet.data.hex())

Packets wait in the kernel's ring, and what finds no room there is dropped and counted: a program
that is slow loses packets, but is never buried in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python import log
from twisted.python.failure import Failure

from twistedsock.addresses import Address
from twistedsock.client.capture_file import CaptureFile, FileError, open_capture_file
from twistedsock.client.capture_source import Filter, open_source
from twistedsock.client.recording import Recorder
from twistedsock.transports.hotloop import Listener
from twistedsock.transports.packet_ring import LINGER_S, RING_BYTES, Block, InterfaceLost, Ring
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, Captured

__all__ = ["Capture", "CaptureStatistics", "Captured", "FileError", "InterfaceLost", "capture"]

BLOCKS_A_TURN = 4  # dealt with before the reactor's other descriptors have their turn
OnPacket = Callable[[Captured], object]


@dataclass(frozen=True, slots=True)
class CaptureStatistics:
    """What became of the packets that the filter took.

    Attributes:
        received: All of them, as the kernel counts.
        dropped: Those of them for which there was no room.
        delivered: Those that were handed out, or recorded.
        written_bytes: Of the file; 0 where there is none.
    """

    received: int
    dropped: int
    delivered: int
    written_bytes: int


def capture(
    reactor: Any,
    where: str | Address,
    *,
    filter: Filter = "",
    count: int | None = None,
    snap_bytes: int = DEFAULT_SNAP_BYTES,
    promiscuous: bool = False,
    on_packet: OnPacket | None = None,
    file: str | os.PathLike[str] | None = None,
    ring_bytes: int = RING_BYTES,
) -> Capture:
    """Return a capture that has begun. Needs CAP_NET_RAW.

    Without *on_packet* and *file* its packets are read by ``async for``.

    Args:
        reactor: Tells when packets are there.
        where: An interface, such as ``packet:lo`` or ``lo``.
        filter: An expression such as ``udp port 53``, or a program; nothing takes all.
        count: To end after so many packets; None for no end.
        snap_bytes: At most so many bytes of a packet are kept.
        promiscuous: Whether to take what is not for this machine, too.
        on_packet: Is called with each packet; what it raises ends the capture.
        file: Is written as pcapng, from its beginning; much cheaper than to see each packet. It is
            written while the reactor waits, as is all that goes to disks; a pipe that nobody
            reads would hold up the whole program.
        ring_bytes: Of memory, for packets that are not yet dealt with.

    Raises:
        AddressError: *where* is no interface.
        FilterError: The filter is none.
        BindError: There is no such interface, or no right.
        FileError: The file cannot be opened or written. Nothing is left open in any case.
        ValueError: *on_packet* and *file* are both given, or *count* is not above zero.
    """
    if on_packet is not None and file is not None:
        raise ValueError("a capture has on_packet or a file, not both")
    if count is not None and count < 1:
        raise ValueError(f"count must be above zero, got {count}")
    sink = None if file is None else open_capture_file(file)
    ring: Ring | None = None
    try:
        ring = open_source(
            where, filter, snap_bytes=snap_bytes, promiscuous=promiscuous, ring_bytes=ring_bytes
        )
        made = Capture(reactor, ring, count, on_packet, sink)
        if sink is not None:
            sink.empty()
            text = filter if isinstance(filter, str) else ""
            made.recorder.begin(text)
        made.begin()
    except BaseException:
        if ring is not None:
            ring.close()
        if sink is not None:
            sink.close()
        raise
    return made


class Capture(Listener):
    """A capture on its way, made by ``capture``; an async iterator of ``Captured``.

    It is over when its count is reached, when it is stopped or closed, when the interface goes, or
    when its file cannot be written: then all that it had open is closed. Whoever leaves its loop
    before that closes it; ``with`` does so, too.
    """

    def __init__(
        self,
        reactor: Any,
        ring: Ring,
        count: int | None,
        on_packet: OnPacket | None,
        sink: CaptureFile | None,
    ) -> None:
        self.reactor = reactor
        self._ring = ring
        self._left = count
        self._on_packet = on_packet
        self._sink = sink
        self._delivered = 0
        self._written_bytes = 0
        self._current: Iterator[Captured] | None = None  # of the block that is being iterated
        self._reader: Deferred[None] | None = None
        self._finished: list[Deferred[CaptureStatistics]] = []
        self._failure: BaseException | None = None  # what it ends with
        self._linger: Any = None  # runs while what is in the ring already is awaited
        self._is_last = False  # nothing more comes into the ring
        self._is_over = False
        self._began_at_ns = time.time_ns()
        self._is_recorded = sink is not None
        if sink is not None:
            self.recorder = Recorder(sink.write, ring.interface, ring.snap_bytes)

    @property
    def _is_pulled(self) -> bool:
        return self._on_packet is None and not self._is_recorded

    @property
    def interface(self) -> str:
        """The name of the interface."""
        return self._ring.interface.name

    @property
    def link_type(self) -> int:
        """What the packets begin with: a LINKTYPE number."""
        return self._ring.interface.link_type

    @property
    def statistics(self) -> CaptureStatistics:
        """The figures as of now, or as of the end."""
        counters = self._ring.counters if self._is_over else self._ring.count()
        written = self._written_bytes if self._sink is None else self._sink.written_bytes
        return CaptureStatistics(counters.received, counters.dropped, self._delivered, written)

    # -- the ways to its end --

    def begin(self) -> None:
        """Watch the ring, where nobody waits for it."""
        if not self._is_pulled:
            self.startReading()

    def finished(self) -> Deferred[CaptureStatistics]:
        """Return a Deferred of the figures at the end; it fails with what the capture failed of.

        Where nobody has asked for it, and nobody iterates, a failure is logged.
        """
        done: Deferred[CaptureStatistics] = Deferred()
        if self._is_over:
            self._tell(done)
        else:
            self._finished.append(done)
        return done

    def stop(self) -> None:
        """Let nothing more in; what has come until now is still handed out, or recorded."""
        if not (self._is_over or self._linger or self._is_last):
            self._ring.stop()
            self._linger = self.reactor.callLater(LINGER_S, self._lingered)

    def close(self) -> None:
        """End it now. What was not handed out yet is lost; a file is finished in order."""
        self._end(None)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lingered(self) -> None:
        self._linger, self._is_last = None, True
        if self._is_pulled:
            self._wake()
        else:
            self.doRead()

    def _end(self, failure: BaseException | None) -> None:
        """Close everything, once, and tell everyone."""
        if self._is_over:
            return
        self._failure = failure or self._failure
        self.stopReading()
        self._current = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        counters = self._ring.count()
        self._is_over = True
        self._ring.close()
        if self._sink is not None:
            try:
                if not isinstance(self._failure, FileError):
                    self.recorder.end(self._began_at_ns, time.time_ns(), counters)
            except FileError as error:
                self._failure = self._failure or error
            finally:
                sink, self._sink = self._sink, None
                self._written_bytes = sink.written_bytes
                sink.close()
        self._wake()
        waiting, self._finished = self._finished, []
        if self._failure is not None and not (waiting or self._is_pulled):
            log.err(Failure(self._failure), f"{self.logPrefix()} has ended")
        for done in waiting:
            self._tell(done)

    def _tell(self, done: Deferred[CaptureStatistics]) -> None:
        if self._failure is None:
            done.callback(self.statistics)
        else:
            done.errback(Failure(self._failure))

    # -- called by the loop --

    def fileno(self) -> int:
        """Return the ring's descriptor."""
        return self._ring.fileno()

    def logPrefix(self) -> str:
        """Return what the log calls it."""
        return f"capture {self.interface}"

    def doRead(self) -> None:
        """Deal with the blocks that are there, or tell whoever waits for them."""
        if self._is_pulled:
            self.stopReading()
            self._wake()
            return
        blocks = 0
        while not self._is_over and (block := self._ring.take()) is not None:
            self._deal(block)
            blocks += 1
            if blocks == BLOCKS_A_TURN and not self._is_last:
                return
        if self._is_last:
            self._end(None)

    def hungUp(self) -> None:
        """The interface is gone; what it brought until then is still dealt with."""
        self._failure = self._ring.fault() or self._failure
        if self._failure is not None:
            self.stop()

    def connectionLost(self, reason: Failure) -> None:
        """End: the reactor has stopped."""
        self._end(None)

    def _deal(self, block: Block) -> None:
        """Record *block*, or hand out its packets."""
        most = block.packets if self._left is None else min(block.packets, self._left)
        try:
            if self._on_packet is None:
                self.recorder.record(self._ring, block, most)
                self._count(most)
            else:
                for _, packet in zip(range(most), self._ring.packets(block), strict=False):
                    self._count(1)
                    self._on_packet(packet)
                    if self._is_over:  # it has closed us
                        return
        except Exception as error:  # a full disk, or whatever a program's function raises
            if self._is_over:  # it has closed us before that
                log.err(None, f"{self.logPrefix()} has ended")
            self._end(error)
            return
        self._ring.give_back()
        if self._left == 0:
            self._end(None)

    def _count(self, packets: int) -> None:
        self._delivered += packets
        if self._left is not None:
            self._left -= packets

    # -- one by one --

    def __aiter__(self) -> Capture:
        if not self._is_pulled:
            raise TypeError("a capture with on_packet or a file is not iterated")
        return self

    async def __anext__(self) -> Captured:
        """Return the next packet.

        Raises:
            InterfaceLost: It went down or away, and what it had brought was handed out.
        """
        while True:
            if self._is_over:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            if self._current is not None:
                for packet in self._current:
                    self._count(1)
                    if self._left == 0:
                        self._end(None)
                    return packet
                self._current = None
                self._ring.give_back()
            if (block := self._ring.take()) is not None:
                self._current = self._ring.packets(block)
            elif self._is_last:
                self._end(None)
            else:
                await self._readable()

    async def _readable(self) -> None:
        if self._reader is not None:
            raise RuntimeError("somebody waits for this capture's next packet already")
        self._reader = Deferred()
        self.startReading()
        try:
            await self._reader
        finally:  # or whoever waited was cancelled
            self._reader = None
            if not self._is_over:
                self.stopReading()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.called:
            reader.callback(None)
