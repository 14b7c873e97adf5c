"""Stream listeners.

A Twisted port, with what the stock one lacks: newcomers can be left waiting in the kernel's queue,
failing accepts do not spin, and a listening socket shared with another process is not shut down
for it too.
"""

from __future__ import annotations

import errno
import socket
from functools import cached_property
from typing import Any

from twisted.internet import address, tcp
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.errors import OptionError
from twistedsock.policy.throttle import LogThrottle
from twistedsock.sockopts import NO_OPTIONS, Setting, SocketPlan, refusal_of, set_phase
from twistedsock.transports.connection import StreamServer, inet_address
from twistedsock.transports.hotloop import Listener

ACCEPTS_A_TURN = 64  # so that a flood of newcomers does not starve who is served
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0  # after an accept that failed; doubles in between


class StreamPort(Listener, tcp.Port):
    """A listener; made like Twisted's own, or by ``adopt`` on a socket that listens already."""

    transport: Any = StreamServer
    _shouldShutdown = False  # shutdown(2) would end the listener for every process that has it
    _closes_waiting = True  # where descriptors run out; else they wait until some are free
    _accepts = 1  # how often to try in a turn
    _local: IAddress | None = None  # where every connection has the listener's own address
    _quiet = False  # whether the owner says who listens, rather than this
    _connection_options = NO_OPTIONS

    def __init__(
        self,
        port: Any,
        factory: IProtocolFactory,
        backlog: int = 50,
        interface: str = "",
        reactor: Any = None,
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        self.reactor: Any = reactor
        self._log = Logger(namespace="twistedsock")
        self._throttle = LogThrottle()
        self._waits = False
        self._pause_s = FIRST_PAUSE_S
        self._retry: IDelayedCall | None = None

    @classmethod
    def adopt(
        cls,
        sock: socket.socket,
        factory: IProtocolFactory,
        reactor: Any,
        options: SocketPlan = NO_OPTIONS,
        *,
        quiet: bool = True,
    ) -> StreamPort:
        """Return a port on *sock*, which is bound, listening and non-blocking.

        The port owns the socket from here on. Call ``startListening`` to accept.

        Args:
            sock: Has its own options already.
            factory: Makes the protocol of each connection.
            reactor: Runs it.
            options: Of these, what is for connections is set on each.
            quiet: Whether the owner says who listens, and wants newcomers to wait where no
                descriptor is left; else both are as Twisted has them.
        """
        port = cls(None, factory, 0, sock.getsockname()[0], reactor)
        port._preexistingSocket = sock
        port._closes_waiting, port._quiet = not quiet, quiet
        port.set_connection_options(options)
        return port

    def set_connection_options(self, options: SocketPlan) -> None:
        """Set what *options* have for connections on each; where there are none, at no price."""
        if options.at("connected"):
            self._connection_options = options
            self._welcome = self._welcome_with_options  # type: ignore[method-assign]

    def startListening(self) -> None:
        """Begin to accept."""
        if not self._quiet:
            super().startListening()  # makes and binds a socket if need be; tells who listens
            return
        sock, self._preexistingSocket = self._preexistingSocket, None
        assert sock is not None
        self.socket = sock
        self.fileno = sock.fileno
        self._opened(sock)
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self._adjust()

    def _opened(self, sock: socket.socket) -> None:
        """Learn where *sock* listens."""
        self._realPortNumber = sock.getsockname()[1]
        local = inet_address("TCP", sock.getsockname())
        if local.host not in ("::", "0.0.0.0"):
            self._local = local

    def stopWriting(self) -> None:
        """Do nothing: a listener never writes."""

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
        for accepted in range(self._accepts):
            if self._waits or not self.connected or self.disconnecting:
                return
            try:
                sock, peer = self._accept()
            except (BlockingIOError, InterruptedError):
                self._accepts = max(1, accepted)
                return
            except OSError as cause:
                if cause.errno == errno.EMFILE and self._closes_waiting:
                    self._close_waiting()
                self._back_off(cause)
                return
            self._pause_s = FIRST_PAUSE_S
            try:
                self._welcome(sock, peer)
            except BaseException:  # a factory is called: this newcomer alone is lost
                self._log.failure("a newcomer could not be served")
                sock.close()
        # There may be more: try for more next time, up to the bound.
        self._accepts = min(2 * self._accepts, ACCEPTS_A_TURN)

    def _accept(self) -> tuple[socket.socket, tuple[Any, ...]]:
        """Return a newcomer's socket and address.

        As ``socket.accept``, at half its price: that asks for the listener's family and type
        each time, and turns them into enumerations and back.
        """
        listener: Any = self.socket
        fd, peer = listener._accept()
        return socket.socket(*self._kind, fileno=fd), peer

    @property
    def _place(self) -> object:
        """What a log line calls this."""
        return self._realPortNumber

    @cached_property
    def _kind(self) -> tuple[int, int, int]:
        """Family, type and protocol of each accepted socket."""
        return int(self.socket.family), int(self.socket.type), self.socket.proto

    hungUp = doRead  # accept tells what is wrong with the listener

    def _welcome(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        peer_address, client = self._peer_of(sock, peer)
        protocol = self.factory.buildProtocol(peer_address)  # type: ignore[union-attr]
        if protocol is None:
            sock.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        try:
            connection = self.transport(sock, protocol, client, self, number, self.reactor)
        except BaseException:
            protocol.connectionLost(Failure())  # it may hold something for the newcomer
            raise
        connection._remote = peer_address
        if self._local is not None:
            connection._local = self._local
        self._begin(protocol, connection)

    def _begin(self, protocol: Any, connection: Any) -> None:
        try:
            protocol.makeConnection(connection)
        except BaseException:  # a protocol is called: this newcomer alone is lost
            self._log.failure("a newcomer could not be served")
            # Not sock.close(): the reactor and the protocol would never learn of the end.
            connection.abortConnection()

    def _peer_of(
        self, sock: socket.socket, name: tuple[Any, ...]
    ) -> tuple[IAddress, tuple[Any, ...]]:
        """Return the address of who has come, and what Twisted's connections call it."""
        found = inet_address("TCP", name)
        client: tuple[Any, ...] = (found.host, *name[1:])
        return found, client[:2] if isinstance(found, address.IPv4Address) else client

    def _welcome_with_options(self, sock: socket.socket, peer: tuple[Any, ...]) -> None:
        options = self._connection_options
        refused: dict[Setting, OSError] = {}
        try:
            set_phase(sock, options, "connected", refused)
        except OptionError as fault:
            self._log_refusal(f"{fault}; the connection is closed")
            sock.close()
            return
        if refused and options.refusal == "warn":
            for setting, error in refused.items():
                self._log_refusal(str(refusal_of(setting.option, setting.name, error)))
        type(self)._welcome(self, sock, peer)

    def _log_refusal(self, fault: str) -> None:
        suppressed = self._throttle.admit("option", self.reactor.seconds())
        if suppressed is not None:
            self._log.warn(
                "a connection to port {port}: {fault} ({suppressed} not logged)",
                event="option_refused",
                port=self._place,
                fault=fault,
                suppressed=suppressed,
            )

    def _close_waiting(self) -> None:
        """Close who waits, by a descriptor kept for this: what Twisted does when none is left."""
        with tcp._reservedFD:
            for _ in range(ACCEPTS_A_TURN):
                try:
                    sock, _ = self.socket.accept()
                except OSError:
                    return
                sock.close()

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
                port=self._place,
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
        if not self._quiet:
            super()._logConnectionLostMsg()
