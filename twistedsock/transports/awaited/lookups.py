"""Names and addresses by the system's resolver, in the reactor's threads.

The functions of the ``socket`` module under their own names. Each returns a Deferred that fires
with what the original returns, or fails with what it raises. A lookup cannot be stopped: one that
is cancelled goes on in its thread, and nobody hears of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

_T = TypeVar("_T")
AddressInfo = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]


def in_thread(reactor: Any, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """Fire with what *function* returns, called in one of *reactor*'s threads."""
    if reactor is None:
        from twisted.internet import reactor
    done: Deferred[_T] = deferToThreadPool(reactor, reactor.getThreadPool(), function, *args)
    return done


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
    *,
    reactor: Any = None,
) -> Deferred[AddressInfo]:
    """Fire with the addresses of *host* and *port*."""
    return in_thread(reactor, socket.getaddrinfo, host, port, family, type, proto, flags)  # type: ignore[arg-type]


def getnameinfo(sockaddr: Any, flags: int, /, *, reactor: Any = None) -> Deferred[tuple[str, str]]:
    """Fire with the names of a host and a port."""
    return in_thread(reactor, socket.getnameinfo, sockaddr, flags)


def gethostbyname(hostname: str, /, *, reactor: Any = None) -> Deferred[str]:
    """Fire with an IPv4 address of *hostname*."""
    return in_thread(reactor, socket.gethostbyname, hostname)


def gethostbyname_ex(
    hostname: str, /, *, reactor: Any = None
) -> Deferred[tuple[str, list[str], list[str]]]:
    """Fire with the name, aliases and IPv4 addresses of *hostname*."""
    return in_thread(reactor, socket.gethostbyname_ex, hostname)


def gethostbyaddr(
    ip_address: str, /, *, reactor: Any = None
) -> Deferred[tuple[str, list[str], list[str]]]:
    """Fire with the name, aliases and addresses of *ip_address*."""
    return in_thread(reactor, socket.gethostbyaddr, ip_address)


def getfqdn(name: str = "", *, reactor: Any = None) -> Deferred[str]:
    """Fire with the fully qualified name of *name*; by default of this host."""
    return in_thread(reactor, socket.getfqdn, name)


_LENGTHS = {socket.AF_INET: (2,), socket.AF_INET6: (2, 3, 4)}


def needs_resolving(family: int, address: Any) -> bool:
    """Return whether *address* has a name for a host, which a system call would have resolved."""
    if family not in _LENGTHS or not isinstance(address, tuple):
        return False
    if len(address) not in _LENGTHS[socket.AddressFamily(family)]:
        return False  # which the call itself refuses
    return _name(address[0]) is not None


def _name(host: Any) -> bytes | None:
    """Return *host* as the resolver takes it; None where it needs none, or refuses it."""
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("latin-1")
    if not isinstance(host, str) or host in ("", "<broadcast>") or "\0" in host:
        return None
    for kind in socket.AF_INET, socket.AF_INET6:
        with suppress(OSError, ValueError):  # ValueError: no text that can be encoded
            socket.inet_pton(kind, host)
            return None
    try:
        return host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError:
        return None


def resolve(reactor: Any, family: int, address: Any) -> Deferred[Any]:
    """Fire with *address* of *family*, a number for its host.

    As in ``socket.socket`` it is the first that the resolver has, and the scope of an IPv6
    address is what the tuple says.

    Raises:
        socket.gaierror: It has none.
    """
    if not needs_resolving(family, address):
        return succeed(address)
    host, *rest = address

    def first(found: AddressInfo) -> Any:
        number = str(found[0][4][0]).partition("%")[0]
        return (number, *rest)

    found = getaddrinfo(_name(host), None, family, reactor=reactor)
    resolved: Deferred[Any] = found.addCallback(first)
    return resolved
