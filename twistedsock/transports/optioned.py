"""A reactor whose sockets have options, for any code that asks a reactor for its sockets.

Twisted's endpoints open their sockets by ``reactor.listenTCP``, ``connectTCP`` and their like.
Given this instead of the reactor, they get sockets that have the options before bind(2) and
connect(2). Everything else of the reactor is the reactor's own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet import unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import directlyProvides, providedBy

from twistedsock import sockopts
from twistedsock.addresses import WILDCARD, Address
from twistedsock.errors import BindError, OptionError
from twistedsock.sockopts import Phase, Refusal, Report, Role, SocketPlan
from twistedsock.sockopts.kinds import kinds_of_address, kinds_of_socket
from twistedsock.transports.binding import DEFAULT_BACKLOG, Refused, open_listener
from twistedsock.transports.connection import StreamClient, StreamConnector
from twistedsock.transports.datagram import DatagramPort
from twistedsock.transports.stream import StreamPort

UNIX_STREAM = frozenset({"unix-stream"})

_log = Logger(namespace="twistedsock")


def with_options(
    reactor: Any, options: Mapping[str, object], *, refusal: Refusal = "strict"
) -> Any:
    """Return *reactor* as it is, but that the sockets it opens have *options*.

    Its listeners and connections are this package's, which serve faster than Twisted's own. What
    the kernel made of the options is ``report`` on each port and on each client's transport, and is
    logged where it differs.

    Args:
        reactor: Any Twisted reactor with sockets.
        options: Values by the option's name, as in a configuration file.
        refusal: What follows when the kernel refuses one; ``strict`` is an error.

    Raises:
        OptionError: An option is unknown or has a wrong value. One that does not fit a socket is
            told when that is opened.
    """
    for name, fault in sockopts.check_options(options).items():
        raise OptionError(f"{name}: {fault}", name)
    return _OptionedReactor(reactor, options, refusal)


class _OptionedReactor:
    """Stands before a reactor; camelCase because Twisted calls it."""

    def __init__(self, reactor: Any, options: Mapping[str, object], refusal: Refusal) -> None:
        self.wrapped = reactor
        self.sockets_opened = 0
        self._options, self._refusal = dict(options), refusal
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def _checked_plan(self, address: Address | frozenset[str], role: Role) -> SocketPlan:
        """Return what a socket for *address*, or of these kinds, gets.

        Raises:
            OptionError: One of the options fits no such socket.
        """
        self.sockets_opened += 1
        kinds = kinds_of_address(address) if isinstance(address, Address) else address
        for name, fault in sockopts.check_for_kinds(self._options, kinds, role).items():
            raise OptionError(f"{name}: {fault}", name)
        return self._plan(kinds, role)

    def _plan(self, kinds: frozenset[str], role: Role) -> SocketPlan:
        return sockopts.plan_for_kinds(self._options, kinds, refusal=self._refusal, role=role)

    # -- listening --

    def listenTCP(
        self, port: int, factory: Any, backlog: int = DEFAULT_BACKLOG, interface: str = ""
    ) -> IListeningPort:
        """Listen as ``reactor.listenTCP`` does."""
        address = _address("tcp", port, interface)
        plan = self._checked_plan(address, "listen")
        refused: Refused = {}
        sock = _open(address, plan, backlog, refused, interface)
        listening = StreamPort.adopt(sock, factory, self.wrapped, plan, quiet=False)
        listening.startListening()
        _tell(listening, sockopts.read_back(sock, plan, refused))
        return listening

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = DEFAULT_BACKLOG,
        interface: str = "",
    ) -> IListeningPort:
        """Listen as ``reactor.listenSSL`` does."""
        secure = TLSMemoryBIOFactory(contextFactory, False, factory)
        listening: Any = self.listenTCP(port, secure, backlog, interface)
        listening._type = "TLS"
        return listening  # type: ignore[no-any-return]

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = DEFAULT_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """Listen as ``reactor.listenUNIX`` does."""
        plan = self._checked_plan(UNIX_STREAM, "listen")
        port = _UnixPort(address, factory, backlog, mode, self.wrapped, wantPID)
        port.options = plan
        port.startListening()
        return port

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 65_535
    ) -> IListeningPort:
        """Listen as ``reactor.listenUDP`` does; datagrams come whole, whatever their size."""
        address = _address("udp", port, interface)
        plan = self._checked_plan(address, "listen")
        refused: Refused = {}
        sock = _open(address, plan, 0, refused, interface)
        listening = DatagramPort.adopt(sock, protocol, self.wrapped)
        listening.startListening()
        _tell(listening, sockopts.read_back(sock, plan, refused))
        return listening

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> IListeningPort:
        """Adopt as ``reactor.adoptStreamPort`` does; the socket is bound, and listens, already."""
        listening: Any = self.wrapped.adoptStreamPort(fileDescriptor, addressFamily, factory)
        self.sockets_opened += 1
        try:
            report = sockopts.apply(listening, self._options, refusal=self._refusal)
        except OptionError:
            listening.stopListening()
            raise
        _tell(listening, report)
        return listening  # type: ignore[no-any-return]

    # -- connecting --

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        """Connect as ``reactor.connectTCP`` does."""
        connector = _Connector(host, port, factory, timeout, bindAddress, self.wrapped)
        return self._connect(connector, Address("tcp", host, port))

    def connectSSL(
        self,
        host: str,
        port: int,
        factory: Any,
        contextFactory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        """Connect as ``reactor.connectSSL`` does."""
        secure = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, secure, timeout, bindAddress)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> Any:
        """Connect as ``reactor.connectUNIX`` does."""
        connector = _UnixConnector(address, factory, timeout, self.wrapped, checkPID)
        return self._connect(connector, UNIX_STREAM)

    def _connect(self, connector: Any, address: Address | frozenset[str]) -> Any:
        self._checked_plan(address, "connect")
        connector.plan = self._plan  # of each socket: a name's may be of either IP version
        connector.connect()
        return connector


def _address(scheme: str, port: int, interface: str) -> Address:
    """Return what Twisted means by *interface*: nothing is IPv4, ``::`` is both versions."""
    if interface == "::":
        return Address(scheme, WILDCARD, port)
    return Address(scheme, interface or "0.0.0.0", port)


def _open(
    address: Address, plan: SocketPlan, backlog: int, refused: Refused, interface: str
) -> socket.socket:
    try:
        return open_listener(address, plan, backlog, refused)
    except BindError as error:
        cause = error.__cause__ or error
        raise CannotListenError(interface, address.port, cause) from error


def _tell(port: Any, report: Report) -> None:
    """Keep *report* on *port*, and log what is not as it was requested."""
    port.report = report
    for outcome in report.differing:
        _log.info("{outcome}", event="option_differs", outcome=str(outcome), option=outcome.name)


# -- the sockets that Twisted opens by itself --


class _Optioned:
    """What opens a client's socket with options, whatever the family."""

    connector: Any
    socket: Any
    report = Report()
    failIfNotConnected: Any

    def createInternetSocket(self) -> socket.socket:
        """Open the socket, and set what comes before it is connected."""
        sock: socket.socket = super().createInternetSocket()  # type: ignore[misc]
        self._refused: Refused = {}
        self._options: SocketPlan = self.connector.plan(kinds_of_socket(sock), "connect")
        try:
            _set_phases(sock, self._options, ("socket", "prebind", "bound"), self._refused)
        except OptionError:
            sock.close()
            raise
        return sock

    def _connectDone(self) -> None:
        try:
            _set_phases(self.socket, self._options, ("connected",), self._refused)
        except OptionError as error:
            self.failIfNotConnected(error)
            return
        _tell(self, sockopts.read_back(self.socket, self._options, self._refused))
        super()._connectDone()  # type: ignore[misc]


class _Client(_Optioned, StreamClient):
    """A TCP connection that is opened with options."""


class _Connector(StreamConnector):
    plan: Any

    def _makeTransport(self) -> _Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


class _UnixClient(_Optioned, unix.Client):
    """A UNIX connection that is opened with options."""


class _UnixConnector(unix.Connector):
    plan: Any

    def _makeTransport(self) -> Any:  # Twisted declares a TCP client
        return _UnixClient(self.address, self, self.reactor, self.checkPID)


class _UnixServer(unix.Server):
    """An accepted UNIX connection."""

    def __init__(
        self, sock: socket.socket, protocol: Any, client: Any, server: Any, *rest: Any
    ) -> None:
        _set_phases(sock, server.options, ("connected",), {})
        super().__init__(sock, protocol, client, server, *rest)


class _UnixPort(unix.Port):
    """A UNIX listener that is opened with options."""

    transport: Any = _UnixServer
    options: SocketPlan
    report = Report()

    def startListening(self) -> None:
        """Open, bind and listen."""
        self._refused: Refused = {}
        super().startListening()
        try:
            _set_phases(self.socket, self.options, ("bound", "listening"), self._refused)
        except OptionError:
            self.stopListening()
            raise
        _tell(self, sockopts.read_back(self.socket, self.options, self._refused))

    def createInternetSocket(self) -> socket.socket:
        """Open the socket, and set what comes before it is bound."""
        sock: socket.socket = super().createInternetSocket()
        try:
            _set_phases(sock, self.options, ("socket", "prebind"), self._refused)
        except BaseException:
            sock.close()
            raise
        return sock


def _set_phases(
    sock: socket.socket, plan: SocketPlan, phases: tuple[Phase, ...], refused: Refused
) -> None:
    for phase in phases:
        sockopts.set_phase(sock, plan, phase, refused)
