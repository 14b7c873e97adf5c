"""A reactor whose sockets have options, for any code that asks a reactor for its sockets.

Twisted's endpoints open their sockets by ``reactor.listenTCP``, ``connectTCP`` and their like.
Given this instead of the reactor, they get sockets that have the options before bind(2) and
connect(2). Everything else of the reactor is the reactor's own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python import log
from zope.interface import directlyProvides, providedBy

from twistedsock import sockopts
from twistedsock.addresses import WILDCARD, Address, is_numeric, unmap
from twistedsock.errors import BindError, OptionError
from twistedsock.sockopts import Refusal, Role, SocketPlan
from twistedsock.sockopts.kinds import GROUPS, kinds_of_address, kinds_of_socket
from twistedsock.transports.binding import DEFAULT_BACKLOG, Refused, open_listener
from twistedsock.transports.datagram import DatagramPort
from twistedsock.transports.opening import (
    Connector,
    MulticastPort,
    UnixConnector,
    UnixDatagramPort,
    UnixPort,
    set_phases,
    started,
    tell,
)
from twistedsock.transports.stream import StreamPort

TCP_IP4 = frozenset({"tcp4"})
UNIX_STREAM, UNIX_DATAGRAM = frozenset({"unix-stream"}), frozenset({"unix-dgram"})


def with_options(
    reactor: Any, options: Mapping[str, object], *, refusal: Refusal = "strict"
) -> Any:
    """Return *reactor* as it is, but that the sockets it opens have *options*.

    Its listeners and connections are this package's, which serve faster than Twisted's own. What
    the kernel made of the options is ``report`` on each port and on each client's transport, and is
    logged where it differs.

    Args:
        reactor: Any Twisted reactor with sockets; where it came from here, *options* are set over
            those that it has.
        options: Values by the option's name, as in a configuration file.
        refusal: What follows when the kernel refuses one; ``strict`` is an error.

    Raises:
        OptionError: An option is unknown or has a wrong value. One that does not fit a socket is
            told when that is opened.
    """
    for name, fault in sockopts.check_options(options).items():
        raise OptionError(f"{name}: {fault}", name)
    if isinstance(reactor, _OptionedReactor):
        return reactor.with_more(options, refusal)
    return _OptionedReactor(reactor, options, refusal)


class _OptionedReactor:
    """Stands before a reactor; camelCase because Twisted calls it."""

    def __init__(
        self,
        reactor: Any,
        options: Mapping[str, object],
        refusal: Refusal,
        beneath: _OptionedReactor | None = None,
    ) -> None:
        self.wrapped = reactor
        self.sockets_opened = 0
        self._options, self._refusal, self._beneath = dict(options), refusal, beneath
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def with_more(self, options: Mapping[str, object], refusal: Refusal) -> _OptionedReactor:
        """Return the same reactor with *options* over its own; its own refusal if that is all."""
        meant = {option.name for name in options for option in _meant_by(name)}
        kept = {
            name: value
            for name, value in self._options.items()
            if name not in options and not meant & {each.name for each in _meant_by(name)}
        }
        refusal = refusal if options else self._refusal
        return _OptionedReactor(self.wrapped, {**kept, **options}, refusal, self)

    def _count_socket(self) -> None:
        self.sockets_opened += 1
        if self._beneath is not None:
            self._beneath._count_socket()

    def _checked_plan(self, kinds: frozenset[str], role: Role) -> SocketPlan:
        """Return what a socket of *kinds* gets.

        Raises:
            OptionError: One of the options fits no such socket.
        """
        self._count_socket()
        for name, fault in sockopts.check_for_kinds(self._options, kinds, role).items():
            raise OptionError(f"{name}: {fault}", name)
        return self._plan(kinds, role)

    def _plan(self, kinds: frozenset[str], role: Role) -> SocketPlan:
        return sockopts.plan_for_kinds(self._options, kinds, refusal=self._refusal, role=role)

    # -- listening --

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = DEFAULT_BACKLOG, interface: str = ""
    ) -> IListeningPort:
        """Listen as ``reactor.listenTCP`` does."""
        if not isinstance(port, int):
            return self._listen_bound(port, factory, backlog, interface)
        address = _address("tcp", port, interface)
        plan = self._checked_plan(kinds_of_address(address), "listen")
        refused: Refused = {}
        sock = _open(address, plan, backlog, refused, interface)
        return self._serve(sock, factory, plan, refused)

    def _listen_bound(
        self, binding: Any, factory: Any, backlog: int, interface: str
    ) -> IListeningPort:
        """Listen by what ``makeBinding`` of Twisted gave, which asks for options of its own."""
        if interface not in ("", binding._address):
            raise ValueError("Inconsistent interface vs Binding specifiers")
        asked = {"SO_REUSEADDR": binding._reuseAddress, "SO_REUSEPORT": binding._reusePort}
        reactor = _OptionedReactor(self.wrapped, asked, self._refusal, self)
        reactor = reactor.with_more(self._options, self._refusal)
        return reactor.listenTCP(binding._port, factory, backlog, binding._address or "")

    def _serve(
        self, sock: socket.socket, factory: Any, plan: SocketPlan, refused: Refused
    ) -> IListeningPort:
        listening = StreamPort.adopt(sock, factory, self.wrapped, plan, quiet=False)
        try:
            listening.startListening()
        except BaseException:  # a factory is called
            sock.close()
            raise
        tell(listening, sockopts.read_back(sock, plan, refused))
        return listening

    def listenSSL(
        self,
        port: Any,
        factory: Any,
        contextFactory: Any,
        backlog: int = DEFAULT_BACKLOG,
        interface: str = "",
    ) -> IListeningPort:
        """Listen as ``reactor.listenSSL`` does."""
        from twisted.protocols.tls import TLSMemoryBIOFactory  # it needs pyOpenSSL

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
        port = UnixPort(address, factory, backlog, mode, self.wrapped, wantPID)
        return started(port, plan)

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 65_535
    ) -> IListeningPort:
        """Listen as ``reactor.listenUDP`` does; datagrams come whole, whatever their size."""
        address = _address("udp", port, interface)
        plan = self._checked_plan(kinds_of_address(address), "listen")
        refused: Refused = {}
        sock = _open(address, plan, 0, refused, interface)
        listening = DatagramPort.adopt(sock, protocol, self.wrapped)
        number = sock.getsockname()[1]
        log.msg(f"{listening._getLogPrefix(protocol)} starting on {number}")
        listening.startListening()
        listening._quiet = False  # about its end
        tell(listening, sockopts.read_back(sock, plan, refused))
        return listening

    def listenMulticast(
        self, port: int, protocol: Any, interface: str = "", *rest: Any, **more: Any
    ) -> IListeningPort:
        """Listen as ``reactor.listenMulticast`` does."""
        plan = self._checked_plan(kinds_of_address(_address("udp", port, interface)), "listen")
        more.setdefault("reactor", self.wrapped)
        names = ("maxPacketSize", "listenMultiple")
        given = {**dict(zip(names, rest, strict=False)), **more}
        return started(MulticastPort(port, protocol, interface, **given), plan)

    def listenUNIXDatagram(
        self, address: Any, protocol: Any, maxPacketSize: int = 8192, mode: int = 0o666
    ) -> IListeningPort:
        """Listen as ``reactor.listenUNIXDatagram`` does."""
        plan = self._checked_plan(UNIX_DATAGRAM, "listen")
        port = UnixDatagramPort(address, protocol, maxPacketSize, mode, self.wrapped)
        return started(port, plan)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> IListeningPort:
        """Adopt as ``reactor.adoptStreamPort`` does; the socket is bound, and listens, already."""
        sock = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        refused: Refused = {}
        try:
            plan = self._checked_plan(kinds_of_socket(sock), "listen")
            for setting in plan.at("prebind"):
                raise OptionError(
                    f"{setting.name}: must be set before bind, and this socket is bound",
                    setting.name,
                )
            set_phases(sock, plan, ("socket", "bound", "listening"), refused)
        except BaseException:
            sock.close()
            raise
        if addressFamily != socket.AF_UNIX:
            return self._serve(sock, factory, plan, refused)
        port = UnixPort(sock.getsockname(), factory, reactor=self.wrapped)
        port._preexistingSocket = sock
        return started(port, plan, refused)

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """Adopt as ``reactor.adoptStreamConnection`` does."""
        self._apply(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        return self.wrapped.adoptStreamConnection(fileDescriptor, addressFamily, factory)

    def adoptDatagramPort(
        self, fileDescriptor: int, addressFamily: int, protocol: Any, maxPacketSize: int = 8192
    ) -> Any:
        """Adopt as ``reactor.adoptDatagramPort`` does."""
        self._apply(fileDescriptor, addressFamily, socket.SOCK_DGRAM)
        return self.wrapped.adoptDatagramPort(
            fileDescriptor, addressFamily, protocol, maxPacketSize
        )

    def _apply(self, fileDescriptor: int, addressFamily: int, kind: int) -> None:
        self._count_socket()
        with socket.fromfd(fileDescriptor, addressFamily, kind) as sock:
            sockopts.apply(sock, self._options, refusal=self._refusal)

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
        connector = Connector(host, port, factory, timeout, bindAddress, self.wrapped)
        # Of a name Twisted takes an IPv4 address; HostnameEndpoint comes with its addresses one
        # by one, of either version, and each gets those of the options that fit it.
        return self._connect(connector, GROUPS["tcp"] if is_numeric(host) else TCP_IP4)

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
        from twisted.protocols.tls import TLSMemoryBIOFactory

        secure = TLSMemoryBIOFactory(contextFactory, True, factory)
        return self.connectTCP(host, port, secure, timeout, bindAddress)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> Any:
        """Connect as ``reactor.connectUNIX`` does."""
        connector = UnixConnector(address, factory, timeout, self.wrapped, checkPID)
        return self._connect(connector, UNIX_STREAM)

    def connectUNIXDatagram(self, *_: Any, **__: Any) -> Any:
        """Refuse it: Twisted's port would drop the options without a word."""
        raise OptionError("connectUNIXDatagram takes no socket options")

    def _connect(self, connector: Any, kinds: frozenset[str]) -> Any:
        self._checked_plan(kinds, "connect")
        connector.plan = self._plan  # of each socket: a name's may be of either IP version
        connector.connect()
        return connector


def _address(scheme: str, port: int, interface: str) -> Address:
    """Return what Twisted means by *interface*: nothing is IPv4, ``::`` is both versions."""
    if isIPv6Address(interface) and ip_address(interface).is_unspecified:
        return Address(scheme, WILDCARD, port)
    return Address(scheme, unmap(interface) or "0.0.0.0", port)


def _open(
    address: Address, plan: SocketPlan, backlog: int, refused: Refused, interface: str
) -> socket.socket:
    try:
        return open_listener(address, plan, backlog, refused)
    except BindError as error:
        cause = error.__cause__ or error
        raise CannotListenError(interface, address.port, cause) from error


def _meant_by(name: str) -> tuple[Any, ...]:
    return sockopts.SPELLINGS.get(name, ())
