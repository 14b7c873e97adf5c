"""Stream connections: Twisted's own, on the hot loop, and writing at once.

Stock Twisted queues each write and sends it one turn of the reactor later, at the price of two
epoll_ctl(2). Here ``write`` sends at once whenever nothing is in the way. What is in the way, and
found by Twisted's own tests:

* anything buffered, or a flush, half-close or close under way: a later write must not overtake;
* a pull producer, which is resumed only by a flush: its writes are always buffered;
* TLS: bytes of ``startTLS`` come from below and pass round ``write``, and what a TLS protocol
  writes as it is aborted must not be sent, so under TLS everything is queued;
* a failing send eats the socket's error, so that a later read would see a clean end. The error
  is kept and told by the read or the flush that follows, never from inside ``write``.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet import address, error, main, tcp
from twisted.internet.interfaces import IAddress, INegotiated
from twisted.python.failure import Failure

from twistedsock.addresses import unmap
from twistedsock.errors import CloseReason
from twistedsock.transports.hotloop import READ, WRITE, Loop, loop_of

# A connection that fills its reads gets larger ones, and smaller ones when it does so no more:
# bulk costs fewer calls, and who is idle or chatty costs little memory.
FIRST_READ_BYTES = 16 * 1024
LARGEST_READ_BYTES = 112 * 1024  # from 128 KiB on, malloc maps and unmaps pages for each read


PIECES_A_SEND = 64  # of a buffer in one sendmsg(2); the kernel's own limit is 1024


class TransportFailure(error.ConnectionLost):
    """A connection was lost to a system error; ``close_reason`` is the word for it."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(os.strerror(cause.errno or 0))
        self.osError = cause
        is_reset = cause.errno in (errno.ECONNRESET, errno.EPIPE)
        self.close_reason = CloseReason.PEER_RESET if is_reset else CloseReason.TRANSPORT_ERROR


class HotConnection(tcp.Connection):
    """What server and client connections share."""

    _loop: Loop | None = None
    _interest = 0  # what the loop watches this for
    _fd = -1  # as it was when it was last watched anew
    _direct = False  # whether a write may be sent at once
    _queues = False  # whether every write is queued: an abort may not send what TLS says last
    _failed: TransportFailure | None = None  # what a send has met
    _read_bytes = FIRST_READ_BYTES
    _high_water = 0  # bytes; 0: Twisted's own mark, bufferSize

    # -- the loop --

    def _watch(self, interest: int) -> None:
        old = self._interest
        if interest != old:
            loop = self._loop
            if loop is None:
                loop = self._loop = loop_of(self.reactor)
            if not old:
                self._fd = self.fileno()
            loop.watch(self, self._fd, old, interest)
            self._interest = interest

    def startReading(self) -> None:
        """Be told of input."""
        self._watch(self._interest | READ)

    def stopReading(self) -> None:
        """Be told of input no more."""
        self._watch(self._interest & ~READ)

    def startWriting(self) -> None:
        """Be told when there is room to send."""
        self._direct = False
        self._watch(self._interest | WRITE)

    def stopWriting(self) -> None:
        """Be told of room no more; writes may be sent at once again."""
        if self._interest & WRITE:
            self._watch(self._interest & ~WRITE)
            self._decide()

    def _decide(self) -> None:
        """Decide whether the next write may be sent at once."""
        self._direct = bool(
            self.connected
            and not self.disconnecting
            and not self._interest & WRITE
            and not self._aborting
            and not self._writeDisconnecting
            and not self._writeDisconnected
            and not self._queues
            and not self.TLS
            and self._failed is None
            and (self.producer is None or self.streamingProducer)
        )

    # -- input --

    def doRead(self) -> Any:
        """Read once and hand it to the protocol; larger next time if there was more."""
        size = self._read_bytes
        try:
            data = self.socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as cause:
            return TransportFailure(cause)
        if not data:
            return self._failed or main.CONNECTION_DONE
        got = len(data)
        if got == size:
            if size < LARGEST_READ_BYTES:
                self._read_bytes = min(4 * size, LARGEST_READ_BYTES)
        elif size > FIRST_READ_BYTES and 4 * got < size:
            self._read_bytes = size // 4
        self.protocol.dataReceived(data)
        return None

    def hungUp(self) -> Any:
        """The connection is over without anything to read."""
        if self._interest & READ:
            return self._failed or main.CONNECTION_DONE
        return self._failed or main.CONNECTION_LOST

    # -- output --

    def setHighWater(self, size: int) -> None:
        """Pause a registered streaming producer above *size* unsent bytes."""
        self._high_water = size

    def _isSendBufferFull(self) -> bool:
        unsent = len(self.dataBuffer) - self.offset + self._tempDataLen
        return unsent > (self._high_water or self.bufferSize)

    def write(self, data: bytes) -> None:
        """Send *data* at once as far as the kernel takes it; keep the rest in order."""
        if not self._direct:
            if self._failed is None:  # else nobody is there any more; the end is yet to be read
                super().write(data)
            return
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as cause:
            if cause.errno != errno.ENOBUFS:  # else there is no memory now, but there will be
                self._send_failed(cause)
                return
            sent = 0
        if sent != len(data):
            self.dataBuffer = bytes(data)  # the caller's own buffer may change
            self.offset = sent
            self.startWriting()
            self._maybePauseProducer()

    def _send_failed(self, cause: OSError) -> None:
        self._failed = TransportFailure(cause)
        self._direct = False
        # What the peer sent before it went can still be read; after it comes the end, which
        # tells the failure. Where nothing is read, the flush tells it.
        if not self._interest & READ:
            self.startWriting()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the pieces of *iovec* in order, as ``write`` does, in one call where they fit."""
        pieces = list(iovec)
        if not self._direct or not all(piece.__class__ is bytes for piece in pieces):
            if self._failed is None:
                super().writeSequence(pieces)
            return
        try:
            sent = self.socket.sendmsg(pieces[:PIECES_A_SEND])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as cause:
            if cause.errno != errno.ENOBUFS:
                self._send_failed(cause)
                return
            sent = 0
        total = sum(map(len, pieces))
        if sent != total:
            self._tempDataBuffer, self._tempDataLen = pieces, total
            self._advance(sent)
            self.startWriting()
            self._maybePauseProducer()

    def doWrite(self) -> Any:
        """Send what is kept, without joining it first; tell what a send has met."""
        if self._failed is not None:
            return self._failed
        pieces = self._tempDataBuffer
        if pieces:
            batch: list[bytes | memoryview] = [*pieces[:PIECES_A_SEND]]
            if self.offset < len(self.dataBuffer):
                batch.insert(0, memoryview(self.dataBuffer)[self.offset :])
            try:
                sent = self.socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as cause:
                return None if cause.errno == errno.ENOBUFS else TransportFailure(cause)
            self._advance(sent)
            if self._tempDataLen or self.offset < len(self.dataBuffer):
                return None
        return super().doWrite()  # which also knows what comes after the last byte

    def _advance(self, sent: int) -> None:
        """Take *sent* bytes from the front of what is kept."""
        first = len(self.dataBuffer) - self.offset
        if sent < first:
            self.offset += sent
            return
        sent -= first
        self.dataBuffer, self.offset = b"", 0
        pieces = self._tempDataBuffer
        for position, piece in enumerate(pieces):
            self._tempDataLen -= len(piece)
            if sent < len(piece):
                self.dataBuffer, self.offset = piece, sent
                del pieces[: position + 1]
                return
            sent -= len(piece)
        pieces.clear()

    def writeSomeData(self, data: bytes) -> Any:
        """Send *data* as far as the kernel takes it; nothing costs nothing."""
        return super().writeSomeData(data) if data else 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let *producer* fill the buffer; a pull producer does so by flushes alone."""
        if streaming:
            super().registerProducer(producer, streaming)
            return
        self._direct = False
        super().registerProducer(producer, streaming)
        if self.producer is not None and not self.TLS:
            self.startWriting()  # it is resumed when this finds the buffer empty

    def unregisterProducer(self) -> None:
        """Let the producer go."""
        was_pulled = self.producer is not None and not self.streamingProducer
        super().unregisterProducer()
        if was_pulled:
            self._decide()

    # -- ends --

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Begin TLS; its bytes are queued, in order behind what is unsent."""
        self._direct = False
        super().startTLS(ctx, normal)
        self._decide()

    def loseConnection(self) -> bool:
        """Close once everything is sent; where it is already, without waiting for room to send.

        Returns:
            Whether the end is certain to come at once, without any more from the peer.
        """
        direct, self._direct = self._direct, False
        if direct and self.producer is None and self._loop is not None and self._loop.finish(self):
            self.disconnecting = 1
            return True
        super().loseConnection()
        return False

    def loseWriteConnection(self) -> None:
        """End our side once everything is sent."""
        self._direct = False
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        """Drop the connection at once."""
        self._direct = False
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol."""
        self._direct = False
        if self._interest and self._loop is not None:
            self._loop.forget(self, self._fd)
            self._interest = 0
        super().connectionLost(reason)


class StreamServer(HotConnection, tcp.Server):
    """An accepted connection."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
    ) -> None:
        # What tcp.Server does, less the texts that only __repr__ and the log context want.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = address.IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self._queues = INegotiated.implementedBy(protocol.__class__)
        self._read_bytes = FIRST_READ_BYTES  # an attribute of the class is found more slowly
        self.startReading()
        self.connected = 1
        self._direct = not self._queues

    @property
    def logstr(self) -> str:  # type: ignore[override]
        """The log context of what this connection does."""
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.hostname}"

    @property
    def repstr(self) -> str:
        """What ``repr`` shows."""
        if self._repstr is not None:
            return self._repstr
        name = self.protocol.__class__.__name__
        return f"<{name} #{self.sessionno} on {self.server._realPortNumber}>"

    @repstr.setter
    def repstr(self, text: str) -> None:
        self._repstr = text

    _repstr: str | None = None
    # Set by the port where it knows them; a system call each otherwise.
    _local: IAddress | None = None
    _remote: IAddress | None = None

    def getHost(self) -> IAddress:
        """Return the local address; an IPv4-mapped one as IPv4."""
        if self._local is None:
            self._local = inet_address("TCP", self.socket.getsockname())
        return self._local

    def getPeer(self) -> IAddress:
        """Return the peer's address; an IPv4-mapped one as IPv4."""
        return self._remote if self._remote is not None else super().getPeer()


class StreamClient(HotConnection, tcp.Client):
    """A connection that this side opens."""

    def _connectDone(self) -> None:
        super()._connectDone()
        self._queues = INegotiated.implementedBy(self.protocol.__class__)
        self._decide()


class StreamConnector(tcp.Connector):
    """Makes and remakes a StreamClient, as ``reactor.connectTCP`` makes stock ones."""

    def _makeTransport(self) -> tcp.Client:
        return StreamClient(self.host, self.port, self.bindAddress, self, self.reactor)


def inet_address(kind: str, name: tuple[Any, ...]) -> address.IPv4Address | address.IPv6Address:
    """Return Twisted's address for a socket name, with IPv4-mapped addresses unmapped.

    Args:
        kind: ``TCP`` or ``UDP``.
        name: What getsockname, getpeername, accept or recvfrom gave.
    """
    host = unmap(name[0])
    if ":" not in host:
        return address.IPv4Address(kind, host, name[1])  # type: ignore[arg-type]
    if name[3] and "%" not in host:  # a link-local address means nothing without its scope
        host = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return address.IPv6Address(kind, host, *name[1:])  # type: ignore[arg-type]
