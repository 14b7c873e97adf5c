"""Ports and clients that open their own sockets, with options.

For those that Twisted itself opens; a listener that is handed its socket needs none of this. Each
is given its plan by ``optioned``, and says what became of it as ``report``.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import udp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock import sockopts
from twistedsock.errors import OptionError
from twistedsock.sockopts import Phase, Report, SocketPlan
from twistedsock.sockopts.kinds import kinds_of_socket
from twistedsock.transports.binding import DEFAULT_BACKLOG, Refused
from twistedsock.transports.connection import StreamClient, StreamConnector
from twistedsock.transports.stream import StreamPort

_log = Logger(namespace="twistedsock")


def set_phases(
    sock: socket.socket, plan: SocketPlan, phases: tuple[Phase, ...], refused: Refused
) -> None:
    """Set what *plan* has for each of *phases*, as ``sockopts.set_phase`` does."""
    for phase in phases:
        sockopts.set_phase(sock, plan, phase, refused)


def tell(port: Any, report: Report) -> None:
    """Keep *report* on *port*, and log what is not as it was requested."""
    port.report = report
    for outcome in report.differing:
        _log.info("{outcome}", event="option_differs", outcome=str(outcome), option=outcome.name)


# -- clients --


class _Optioned:
    """What opens a client's socket with options, whatever the family."""

    connector: Any
    socket: Any
    report = Report()
    failIfNotConnected: Any
    _fault: OptionError | None = None

    def createInternetSocket(self) -> socket.socket:
        """Open the socket, and set what comes before it is connected."""
        sock: socket.socket = super().createInternetSocket()  # type: ignore[misc]
        self._refused: Refused = {}
        self._options: SocketPlan = self.connector.plan(kinds_of_socket(sock), "connect")
        try:
            set_phases(sock, self._options, ("socket", "prebind", "bound"), self._refused)
        except OptionError as fault:
            self._fault = fault  # told as a connection that failed
        except BaseException:
            sock.close()
            raise
        return sock

    def _finishInit(self, when_done: Any, skt: Any, error: Any, reactor: Any) -> None:
        if self._fault is not None:
            skt.close()
            when_done, error = None, self._fault
        super()._finishInit(when_done, skt, error, reactor)  # type: ignore[misc]

    def _connectDone(self) -> None:
        try:
            set_phases(self.socket, self._options, ("connected",), self._refused)
        except OptionError as error:
            self.failIfNotConnected(error)
            return
        tell(self, sockopts.read_back(self.socket, self._options, self._refused))
        super()._connectDone()  # type: ignore[misc]


class _Client(_Optioned, StreamClient):
    """A TCP connection that is opened with options."""


class Connector(StreamConnector):
    """Makes and remakes a TCP connection with options."""

    plan: Any

    def _makeTransport(self) -> _Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


class _UnixClient(_Optioned, unix.Client):
    """A UNIX connection that is opened with options."""


class UnixConnector(unix.Connector):
    """Makes and remakes a UNIX connection with options."""

    plan: Any

    def _makeTransport(self) -> Any:  # Twisted declares a TCP client
        return _UnixClient(self.address, self, self.reactor, self.checkPID)


# -- ports --


class _OptionedPort:
    """What opens a port's socket with options, whatever the family."""

    options: SocketPlan
    refused: Refused
    opened: socket.socket | None = None

    def createInternetSocket(self) -> socket.socket:
        """Open the socket, and set what comes before it is bound."""
        self.opened = super().createInternetSocket()  # type: ignore[misc]
        assert self.opened is not None
        set_phases(self.opened, self.options, ("socket", "prebind"), self.refused)
        return self.opened


class MulticastPort(_OptionedPort, udp.MulticastPort):
    """A multicast port that is opened with options."""


class UnixDatagramPort(_OptionedPort, unix.DatagramPort):
    """A UNIX datagram port that is opened with options."""


class UnixPort(_OptionedPort, StreamPort, unix.Port):
    """A UNIX listener that is opened with options, and whose connections have theirs."""

    transport: Any = unix.Server
    getHost = unix.Port.getHost

    @property
    def _place(self) -> str:
        return os.fsdecode(self._bindPath)

    def __init__(
        self,
        fileName: Any,
        factory: Any,
        backlog: int = DEFAULT_BACKLOG,
        mode: int = 0o666,
        reactor: Any = None,
        wantPID: bool = False,
    ) -> None:
        super().__init__(fileName, factory, backlog, mode, reactor)  # type: ignore[arg-type]
        self.wantPID = wantPID

    def _welcome(self, sock: socket.socket, peer: Any) -> None:
        protocol = self.factory.buildProtocol(self._buildAddr(peer))  # type: ignore[union-attr]
        if protocol is None:
            sock.close()
            return
        self.sessionno += 1
        connection = self.transport(sock, protocol, peer, self, self.sessionno - 1, self.reactor)
        self._begin(protocol, connection)


def started(port: Any, plan: SocketPlan, refused: Refused | None = None) -> IListeningPort:
    """Return *port*, listening with the options of *plan*; or raise, and leave nothing of it.

    Args:
        port: Has not listened yet.
        plan: What it gets.
        refused: What the kernel has refused already, where the port is handed its socket.

    Raises:
        CannotListenError: The socket could not be bound, or an option was refused.
    """
    port.options, port.refused = plan, refused or {}
    if isinstance(port, StreamPort):
        port.set_connection_options(plan)
    try:
        port.startListening()
        if port.opened is not None:  # else it was adopted, with the options
            set_phases(port.socket, plan, ("bound", "listening"), port.refused)
    except BaseException as fault:
        _discard(port)
        if isinstance(fault, OptionError):
            raise CannotListenError(None, getattr(port, "_bindPath", port.port), fault) from fault
        raise
    tell(port, sockopts.read_back(port.socket, plan, port.refused))
    return port  # type: ignore[no-any-return]


def _discard(port: Any) -> None:
    """Undo what *port* has done of listening."""
    if port.connected:
        port.stopReading()
        port.connectionLost(Failure(OptionError("a socket option was refused")))
        return
    if port.opened is not None:
        port.opened.close()
        if isinstance(port, StreamPort):
            port.factory.doStop()  # type: ignore[union-attr]
    lock = getattr(port, "lockFile", None)
    if lock is not None and lock.locked:
        lock.unlock()
