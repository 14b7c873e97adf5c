r"""Endpoints with socket options, for any Twisted program: strings, classes, or a reactor.

A string is any endpoint string after ``sock:``, with options among its parameters:

    sock:tcp:8080:interface=127.0.0.1:SO_REUSEPORT=1:TCP_KEEPIDLE=60s:backlog=4096
    sock:tcp:example.org:80:TCP_USER_TIMEOUT=10s
    sock:ssl:443:privateKey=key.pem:TCP_CONGESTION=bbr
    sock:unix:/run/x.sock:SO_PASSCRED=1

What is no option belongs to the string beneath, which means what it means without ``sock:``; only
the backlog is 1024 and TCP_NODELAY on where nothing else is said.
Options are set before bind(2) or connect(2), each in its phase. A colon inside a value is written
``\:``. ``refused_options=warn`` goes on where the kernel refuses one, as in a configuration file.

Twisted imports this module in every program that uses an endpoint string, so it is light: the rest
is imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IProtocol

    from twistedsock.addresses import Address
    from twistedsock.sockopts import Refusal

PREFIX = "sock"
REFUSED_OPTIONS = "refused_options"
# Endpoints that know a backlog; where none is asked for, ours is not Twisted's 50.
WITH_BACKLOG = frozenset({"tcp", "tcp6", "ssl", "unix"})
WITH_HOST = frozenset({"tcp", "ssl"})  # client endpoints that connect to one IP address
WRAPPERS = frozenset({"haproxy"})  # that hand what they are not to the string beneath
_LIKE_AN_OPTION = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+")


def with_options(
    reactor: Any, options: Mapping[str, object], *, refusal: Refusal = "strict"
) -> Any:
    """Return *reactor* as it is, but that the sockets it opens have *options*.

    Any endpoint class takes it: ``TCP4ServerEndpoint(with_options(reactor, {...}), 8080)``. See
    ``twistedsock.transports.optioned.with_options``.
    """
    from twistedsock.transports import optioned

    return optioned.with_options(reactor, options, refusal=refusal)


# -- classes --


@implementer(IStreamServerEndpoint)
class SocketServerEndpoint:
    """Listens on an address of this package, with socket options.

    Args:
        reactor: Runs it.
        address: Such as ``tcp:127.0.0.1:8080``, ``tcp:*:8080`` or ``unix:/run/x.sock``.
        options: Values by the option's name: ``{"SO_REUSEPORT": True, "TCP_KEEPIDLE": "60s"}``.
        backlog: Connections that may wait to be accepted.
        mode: Of a UNIX socket's path.
        refusal: What follows when the kernel refuses an option: ``strict``, ``warn``, ``ignore``.

    Raises:
        AddressError: The address is not of the grammar, or no stream's.
        OptionError: An option is unknown, has a wrong value or does not fit.
    """

    def __init__(
        self,
        reactor: Any,
        address: str | Address,
        options: Mapping[str, object] | None = None,
        *,
        backlog: int = 1024,
        mode: int = 0o600,
        refusal: Refusal = "strict",
    ) -> None:
        self._address = _stream_address(address)
        self._reactor = _checked(reactor, options, self._address, "listen", refusal)
        self._backlog, self._mode = backlog, mode

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """Fire with the port; what became of the options is its ``report``.

        Fails with CannotListenError where it cannot be bound or an option is refused.
        """
        from twisted.internet.defer import execute

        address = self._address
        if address.path:
            path = _twisted_path(address.path)
            return execute(
                self._reactor.listenUNIX, path, protocolFactory, self._backlog, self._mode
            )
        host = {"*": "::"}.get(address.host, address.host)
        return execute(self._reactor.listenTCP, address.port, protocolFactory, self._backlog, host)


@implementer(IStreamClientEndpoint)
class SocketClientEndpoint:
    """Connects to an address of this package, with socket options.

    Args:
        reactor: Runs it.
        address: Such as ``tcp:example.org:80`` or ``unix:/run/x.sock``; every address of a name
            is tried, as HostnameEndpoint does.
        options: Values by the option's name: ``{"TCP_USER_TIMEOUT": "10s"}``.
        timeout_s: For each attempt.
        refusal: What follows when the kernel refuses an option: ``strict``, ``warn``, ``ignore``.

    Raises:
        AddressError: The address is not of the grammar, or no stream's.
        OptionError: An option is unknown, has a wrong value or does not fit.
    """

    def __init__(
        self,
        reactor: Any,
        address: str | Address,
        options: Mapping[str, object] | None = None,
        *,
        timeout_s: float = 30,
        refusal: Refusal = "strict",
    ) -> None:
        self._address = _stream_address(address)
        self._reactor = _checked(reactor, options, self._address, "connect", refusal)
        self._timeout_s = timeout_s

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Fire with the protocol; what became of the options is its transport's ``report``."""
        from twisted.internet import endpoints

        address, endpoint = self._address, None  # type: Any, Any
        if address.path:
            path = _twisted_path(address.path)
            endpoint = endpoints.UNIXClientEndpoint(self._reactor, path, self._timeout_s)
        else:
            endpoint = endpoints.HostnameEndpoint(
                self._reactor, address.host, address.port, self._timeout_s
            )
        return endpoint.connect(protocolFactory)  # type: ignore[no-any-return]


def _stream_address(address: str | Address) -> Address:
    from twistedsock.addresses import Address, parse_address
    from twistedsock.errors import AddressError

    found = address if isinstance(address, Address) else parse_address(address)
    if found.scheme not in ("tcp", "unix"):
        raise AddressError(f"{found}: an endpoint is of tcp or unix")
    return found


def _checked(
    reactor: Any,
    options: Mapping[str, object] | None,
    address: Address,
    role: Any,
    refusal: Refusal,
) -> Any:
    from twistedsock import sockopts
    from twistedsock.errors import OptionError

    for name, fault in sockopts.check_options(options or {}, [address], role).items():
        raise OptionError(f"{name}: {fault}", name)
    return with_options(reactor, options or {}, refusal=refusal)


def _twisted_path(path: str) -> str:
    """Return *path* as Twisted writes it: an abstract name begins with a zero byte."""
    return "\0" + path[1:] if path.startswith("@") else path


# -- strings --


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    """Parses ``sock:`` server endpoint strings."""

    prefix = PREFIX

    # Declared with "reactor" for "self".
    def parseStreamServer(  # type: ignore[override]
        self, reactor: Any, *args: str, **kwargs: str
    ) -> _ServerEndpoint:
        """Return the endpoint; raise ValueError for what is wrong, as Twisted's parsers do."""
        from twisted.internet.endpoints import serverFromString

        options, refusal, rest = _split(kwargs)
        kind = next((arg for arg in args if arg not in WRAPPERS), None)
        if kind in WITH_BACKLOG:
            rest.setdefault("backlog", "1024")
        description = _join(args, rest)
        optioned = _reactor_with(reactor, options, refusal)
        return _ServerEndpoint(serverFromString(optioned, description), optioned)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    """Parses ``sock:`` client endpoint strings."""

    prefix = PREFIX

    def parseStreamClient(  # type: ignore[override]
        self, reactor: Any, *args: str, **kwargs: str
    ) -> _ClientEndpoint:
        """Return the endpoint; raise ValueError for what is wrong, as Twisted's parsers do."""
        from twisted.internet.endpoints import clientFromString

        options, refusal, rest = _split(kwargs)
        description = _join(args, rest)
        if args[0] in WITH_HOST:
            _check_host(options, args[1] if args[1:] else rest.get("host", ""))
        optioned = _reactor_with(reactor, options, refusal)
        return _ClientEndpoint(clientFromString(optioned, description), optioned)


class _Endpoint:
    """Opens sockets by an endpoint that was given a reactor with options."""

    def __init__(self, inner: Any, optioned: Any) -> None:
        self._inner, self._optioned = inner, optioned

    def _fault(self, before: int) -> Exception | None:
        from twistedsock.errors import OptionError

        if self._optioned.sockets_opened > before:
            return None
        kind = type(self._inner).__name__
        return OptionError(f"a {kind} opens no socket here, so it takes no options")


@implementer(IStreamClientEndpoint)
class _ClientEndpoint(_Endpoint):
    """Connects by an endpoint that was given a reactor with options."""

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Fire with the protocol; fail where the endpoint opened no socket that has options."""
        before = self._optioned.sockets_opened
        connecting: Deferred[IProtocol] = self._inner.connect(protocolFactory)
        return connecting.addCallback(self._check, before)

    def _check(self, protocol: Any, before: int) -> Any:
        fault = self._fault(before)
        if fault is None:
            return protocol
        protocol.transport.loseConnection()
        raise fault


@implementer(IStreamServerEndpoint)
class _ServerEndpoint(_Endpoint):
    """Listens by an endpoint that was given a reactor with options."""

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """Fire with the port; fail where the endpoint opened no socket that could have options."""
        before = self._optioned.sockets_opened
        listening: Deferred[IListeningPort] = self._inner.listen(protocolFactory)
        return listening.addCallback(self._check, before)

    def _check(self, port: Any, before: int) -> Any:
        from twisted.internet.defer import maybeDeferred
        from twisted.python.failure import Failure

        fault = self._fault(before)
        if fault is None:
            return port
        stop = getattr(port, "stopListening", None) or port.loseConnection
        return maybeDeferred(stop).addBoth(lambda _: Failure(fault))


def _check_host(options: Mapping[str, object], host: str) -> None:
    """Raise ValueError where an option fits no connection to *host*: of a name, an IPv4 address."""
    from twistedsock.addresses import Address, is_numeric
    from twistedsock.sockopts import check_options

    peer = Address("tcp", host if is_numeric(host) else "0.0.0.0")
    for name, fault in check_options(options, [peer], "connect").items():
        raise ValueError(f"{name}: {fault}")


def _split(kwargs: Mapping[str, str]) -> tuple[dict[str, object], Any, dict[str, str]]:
    """Return the options among *kwargs*, what to do when one is refused, and the rest."""
    from twistedsock.sockopts import REFUSALS, SPELLINGS, read_value

    options: dict[str, object] = {}
    rest = dict(kwargs)
    refusal = rest.pop(REFUSED_OPTIONS, REFUSALS[0])
    if refusal not in REFUSALS:
        known = ", ".join(REFUSALS)
        raise ValueError(f"{REFUSED_OPTIONS} must be one of {known}; got {refusal!r}")
    for name in kwargs:
        is_misspelt = _LIKE_AN_OPTION.fullmatch(name) or name.upper() in SPELLINGS
        if name in SPELLINGS or is_misspelt:
            options[name] = read_value(name, rest.pop(name))
    return options, refusal, rest


def _reactor_with(reactor: Any, options: Mapping[str, object], refusal: Any) -> Any:
    from twistedsock.errors import OptionError

    try:
        return with_options(reactor, options, refusal=refusal)
    except OptionError as error:
        raise ValueError(str(error)) from error


def _join(args: tuple[str, ...], kwargs: Mapping[str, str]) -> str:
    """Return the endpoint string that says *args* and *kwargs*."""
    if not args or not args[0] or not isinstance(args[0], str):
        raise ValueError(f"{PREFIX}: an endpoint string follows, such as {PREFIX}:tcp:8080")
    parts = [_quote(arg) for arg in args]
    parts += [f"{_quote(key)}={_quote(value)}" for key, value in kwargs.items()]
    return ":".join(parts)


def _quote(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)
