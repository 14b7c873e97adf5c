"""Stream listeners and connections.

A Twisted port and server transport, with what stock ones lack: newcomers can be left waiting in
the kernel's queue, failing accepts do not spin, endings are told apart, and a listening socket
shared with another process is not shut down for it too.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import address, error, tcp
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.addresses import unmap
from twistedsock.errors import CloseReason
from twistedsock.policy.throttle import LogThrottle

ACCEPTS_A_TURN = 64  # so that a flood of newcomers does not starve who is served
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0  # after an accept that failed; doubles in between


class TransportFailure(error.ConnectionLost):
    """A connection was lost to a system error; ``close_reason`` is the word for it."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(os.strerror(cause.errno or 0))
        self.osError = cause
        resets = (errno.ECONNRESET, errno.EPIPE)
        is_reset = cause.errno in resets
        self.close_reason = CloseReason.PEER_RESET if is_reset else CloseReason.TRANSPORT_ERROR


class StreamServer(tcp.Server):
    """An accepted connection."""

    _high_water = tcp.Server.bufferSize

    def setHighWater(self, size: int) -> None:
        """Pause a registered streaming producer above *size* unsent bytes."""
        self._high_water = size

    def _isSendBufferFull(self) -> bool:
        return len(self.dataBuffer) - self.offset + self._tempDataLen > self._high_water

    def doRead(self) -> Any:
        """Read once; tell a reset from other failures."""
        try:
            data = self.socket.recv(self.bufferSize)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as cause:
            return TransportFailure(cause)
        return self._dataReceived(data)

    def getHost(self) -> IAddress:
        """Return the local address; an IPv4-mapped one as IPv4."""
        return inet_address("TCP", self.socket.getsockname())


class StreamPort(tcp.Port):
    """A listener on a socket that is bound and listening already; owns and closes it.

    Args:
        sock: The listening socket, non-blocking.
        factory: Any Twisted factory. One that returns None turns the newcomer away.
        reactor: Accepts.
    """

    transport = StreamServer
    _shouldShutdown = False  # shutdown(2) would end the listener for every process that has it

    def __init__(self, sock: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(None, factory, None, sock.getsockname()[0], reactor)  # type: ignore[arg-type]
        self.reactor: Any = reactor
        self._preexistingSocket = sock
        self._log = Logger(namespace="twistedsock")
        self._throttle = LogThrottle()
        self._waits = False
        self._pause_s = FIRST_PAUSE_S
        self._retry: IDelayedCall | None = None

    def startListening(self) -> None:
        """Begin to accept."""
        sock, self._preexistingSocket = self._preexistingSocket, None
        assert sock is not None
        self.socket = sock
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self._realPortNumber = sock.getsockname()[1]
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self._adjust()

    def pauseAccepting(self) -> None:
        """Leave newcomers in the kernel's queue."""
        self._waits = True
        self._adjust()

    def resumeAccepting(self) -> None:
        """Accept again."""
        self._waits = False
        self._adjust()

    def _adjust(self) -> None:
        if not self.connected or self.disconnecting:
            return
        if self._waits or self._retry is not None:
            self.stopReading()
        else:
            self.startReading()

    def doRead(self) -> None:
        """Accept who is waiting, within bounds."""
        for _ in range(ACCEPTS_A_TURN):
            if self._waits or not self.connected or self.disconnecting:
                return
            try:
                sock, peer = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as cause:
                self._back_off(cause)
                return
            self._pause_s = FIRST_PAUSE_S
            try:
                self._welcome(sock, peer)
            except Exception:  # a factory is called: this newcomer alone is lost
                self._log.failure("a newcomer could not be served")
                sock.close()

    def _welcome(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        peer_address = inet_address("TCP", peer)
        protocol = self.factory.buildProtocol(peer_address)  # type: ignore[union-attr]
        if protocol is None:
            sock.close()
            return
        client: tuple[Any, ...] = (peer_address.host, *peer[1:])
        if isinstance(peer_address, address.IPv4Address):
            client = client[:2]
        self.sessionno += 1
        connection = self.transport(sock, protocol, client, self, self.sessionno, self.reactor)
        protocol.makeConnection(connection)

    def _back_off(self, cause: OSError) -> None:
        """Pause accepting: the error would come again at once, as long as its cause lasts.

        Descriptors or memory have run out, or a firewall or the peer undid the connection
        (accept(2)); either way the others who wait lose a moment, not their place.
        """
        suppressed = self._throttle.admit("accept", self.reactor.seconds())
        if suppressed is not None:
            self._log.warn(
                "accept on port {port}: {error}; trying again in {pause_s}s"
                " ({suppressed} not logged)",
                event="accept_error",
                port=self._realPortNumber,
                error=errno.errorcode.get(cause.errno or 0, str(cause)),
                pause_s=self._pause_s,
                suppressed=suppressed,
            )
        self._retry = self.reactor.callLater(self._pause_s, self._try_again)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._adjust()

    def _try_again(self) -> None:
        self._retry = None
        self._adjust()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket."""
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()
        super().connectionLost(reason)

    def getHost(self) -> IAddress:
        """Return the address that is listened on."""
        return inet_address("TCP", self.socket.getsockname())

    def _logConnectionLostMsg(self) -> None:
        """Say nothing: whoever stops the listener says so."""


def inet_address(kind: str, name: tuple[Any, ...]) -> address.IPv4Address | address.IPv6Address:
    """Return Twisted's address for a socket name, with IPv4-mapped addresses unmapped.

    Args:
        kind: ``TCP`` or ``UDP``.
        name: What getsockname, getpeername, accept or recvfrom gave.
    """
    host = unmap(name[0])
    if ":" not in host:
        return address.IPv4Address(kind, host, name[1])  # type: ignore[arg-type]
    if name[3] and "%" not in host:
        host = f"{host}%{name[3]}"  # a link-local address means nothing without its scope
    return address.IPv6Address(kind, host, *name[1:])  # type: ignore[arg-type]
