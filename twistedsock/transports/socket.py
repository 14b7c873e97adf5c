"""Awaitable sockets under the names of Python's own ``socket`` module.

``Socket`` and the module's functions that open sockets or look names up. Those that neither block
nor open anything (``inet_pton``, ``htons``, the constants) are the original's.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence
from socket import has_dualstack_ipv6 as has_dualstack_ipv6
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

from twistedsock.transports.awaited.awaitable import Socket as Socket
from twistedsock.transports.awaited.lookups import getaddrinfo as getaddrinfo
from twistedsock.transports.awaited.lookups import getfqdn as getfqdn
from twistedsock.transports.awaited.lookups import gethostbyaddr as gethostbyaddr
from twistedsock.transports.awaited.lookups import gethostbyname as gethostbyname
from twistedsock.transports.awaited.lookups import gethostbyname_ex as gethostbyname_ex
from twistedsock.transports.awaited.lookups import getnameinfo as getnameinfo

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]  # Python 3.12
    from types import EllipsisType

_T = TypeVar("_T")


def fromfd(fd: int, family: int, type: int, proto: int = 0, *, reactor: Any = None) -> Socket:
    """Return a socket on a duplicate of *fd*; which becomes non-blocking with it."""
    own = os.dup(fd)
    try:
        return Socket(family, type, proto, own, reactor=reactor)
    except BaseException:
        os.close(own)
        raise


def socketpair(
    family: int | None = None,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
    *,
    reactor: Any = None,
) -> tuple[Socket, Socket]:
    """Return two sockets that are connected to each other (socketpair(2))."""
    left, right = socket.socketpair(family, type, proto)
    with left, right:
        kind = int(left.family), int(left.type), left.proto
        first = Socket(*kind, left.detach(), reactor=reactor)
        return first, Socket(*kind, right.detach(), reactor=reactor)


def create_server(
    address: Any,
    *,
    family: int = socket.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    reactor: Any = None,
) -> Deferred[Socket]:
    """Fire with a stream socket that listens on *address*; names resolve.

    Args:
        address: Host and port.
        family: AF_INET or AF_INET6.
        backlog: Connections that may wait to be accepted; None: what Python thinks reasonable.
        reuse_port: Whether other sockets may listen there too (SO_REUSEPORT).
        dualstack_ipv6: Whether IPv4 clients are served as well; AF_INET6 only.
        reactor: As of ``Socket``.

    Raises:
        ValueError: What is asked for, the platform or the family does not have.
        OSError: The address cannot be had. Nothing is left open.
    """

    async def create() -> Socket:
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("SO_REUSEPORT not supported on this platform")
        if dualstack_ipv6:
            if not has_dualstack_ipv6():
                raise ValueError("dualstack_ipv6 not supported on this platform")
            if family != socket.AF_INET6:
                raise ValueError("dualstack_ipv6 requires AF_INET6 family")
        sock = Socket(family, socket.SOCK_STREAM, reactor=reactor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                v6only = 0 if dualstack_ipv6 else 1
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
            try:
                await sock.bind(address)
            except OSError as error:
                text = f"{error.strerror} (while attempting to bind on address {address!r})"
                raise OSError(error.errno, text) from None
            sock.listen(*(() if backlog is None else (backlog,)))
            return sock
        except BaseException:
            sock.close()
            raise

    return Deferred.fromCoroutine(create())


def create_connection(
    address: tuple[str | None, Any],
    timeout: float | EllipsisType | None = ...,
    source_address: Any = None,
    *,
    all_errors: bool = False,
    reactor: Any = None,
) -> Deferred[Socket]:
    """Fire with a stream socket connected to the first address of *address* that answers.

    Args:
        address: Host and port.
        timeout: Seconds for each attempt, and the socket's time-out afterwards; None: for ever;
            by default the module's (``socket.setdefaulttimeout``).
        source_address: Is bound before connecting.
        all_errors: Whether to fail with an ``ExceptionGroup`` of every attempt's error, rather
            than with the last.
        reactor: As of ``Socket``.
    """

    async def create() -> Socket:
        host, port = address
        errors: list[OSError] = []
        found = await getaddrinfo(host, port, 0, socket.SOCK_STREAM, reactor=reactor)
        for family, kind, proto, _, numeric in found:
            sock = None
            try:
                sock = Socket(family, kind, proto, reactor=reactor)
                if timeout is not ...:
                    sock.settimeout(timeout)
                if source_address:
                    await sock.bind(source_address)
                await sock.connect(numeric)
                return sock
            except OSError as error:
                if not all_errors:
                    errors.clear()
                errors.append(error)
                if sock is not None:
                    sock.close()
            except BaseException:  # such as CancelledError
                if sock is not None:
                    sock.close()
                raise
        try:
            if not errors:
                raise OSError("getaddrinfo returns an empty list")
            if all_errors:
                raise ExceptionGroup("create_connection failed", errors)
            raise errors[0]
        finally:
            errors = []  # an error, its traceback and this frame are a circle otherwise

    return Deferred.fromCoroutine(create())


def send_fds(
    sock: Socket, buffers: Iterable[Buffer], fds: Sequence[int], flags: int = 0, address: Any = None
) -> Deferred[int]:
    """Send *buffers* and descriptors over an AF_UNIX socket; fire with how many bytes went."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg(buffers, [rights], flags, address)


def recv_fds(
    sock: Socket, bufsize: int, maxfds: int, flags: int = 0
) -> Deferred[tuple[bytes, list[int], int, Any]]:
    """Fire with data, descriptors (the caller's to close), flags and the sender's address."""

    def unpack(
        told: tuple[bytes, list[tuple[int, int, bytes]], int, Any],
    ) -> tuple[bytes, list[int], int, Any]:
        data, ancillary, told_flags, sender = told
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        return data, list(fds), told_flags, sender

    size = socket.CMSG_LEN(maxfds * array.array("i").itemsize)
    return sock.recvmsg(bufsize, size, flags).addCallback(unpack)
