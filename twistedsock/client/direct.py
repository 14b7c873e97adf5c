"""A connected socket whose calls are made directly, so that each can be timed.

Between a program and the kernel there is no buffer here: what ``send`` returns has left, and what
``receive`` returns has just been taken. An epoll of its own watches the socket, itself the one
descriptor that the reactor knows: Twisted's pollers take a lone EPOLLERR, which is how an ICMP
error comes, for the end of a socket. Owns the socket until ``close``; retries nothing.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.addresses import Address, is_numeric
from twistedsock.client.conversation import Conversation
from twistedsock.client.dialling import dial_first, in_turns
from twistedsock.client.failures import too_late
from twistedsock.client.links import StreamLink
from twistedsock.client.local import RETRY_S, is_local, open_local, reader_of
from twistedsock.client.options import Options, finish
from twistedsock.client.racing import Race
from twistedsock.client.resolving import raiser, resolve
from twistedsock.transports.ancillary import SO_TIMESTAMPNS, TIMESPEC

READ_BYTES = 256 * 1024  # above any datagram
BUFFER_BYTES = 4 * 1024 * 1024  # asked for; the kernel gives net.core.rmem_max at most
SO_RXQ_OVFL = 40  # of socket(7), which Python does not name
_DROPS = struct.Struct("=I")
_STAMP_BYTES = socket.CMSG_SPACE(TIMESPEC.size) + socket.CMSG_SPACE(_DROPS.size)


async def open_direct(
    reactor: Any, address: Address, timeout_s: float, options: Options
) -> DirectSocket:
    """Return a socket connected to *address*, whose *options* are checked already.

    Raises:
        CannotResolve, Refused, Unreachable, TimedOut: There is no connection.
        PeerClosed: It was reset at once.
        OptionError: The kernel refused an option.
    """
    started = reactor.seconds()
    if is_local(address) and (not address.host or is_numeric(address.host)):
        sock = await _open_local(reactor, address, timeout_s, options)
        finish(sock, options)
        return DirectSocket(reactor, address, sock)
    names = in_turns(await resolve(reactor, address, timeout_s), lambda name: ":" in name[0])
    if is_local(address):  # a raw peer, by its name
        wants_v6 = address.path == "icmpv6"
        hosts = [host for host, _ in names if (":" in host) == wants_v6] or [names[0][0]]
        numeric = Address(address.scheme, hosts[0], 0, address.path)
        return await open_direct(reactor, numeric, timeout_s, options)
    if address.kind == "datagram":
        sock = dial_first(address, names, options)
        finish(sock, options)
        if "SO_RCVBUF" not in options and "SO_RCVBUFFORCE" not in options:
            with suppress(OSError):  # what it has does as well
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        return DirectSocket(reactor, address, sock)
    done = Race(reactor, address, names, lambda: Conversation(address), options).start()
    late = raiser(too_late(address, "no connection", timeout_s))
    left_s = max(started + timeout_s - reactor.seconds(), 0)
    link = await done.addTimeout(left_s, reactor, onTimeoutCancel=late)
    if "TCP_NODELAY" not in options:
        link.transport.setTcpNoDelay(True)  # a request waits for no answer (RFC 896)
    return DirectSocket(reactor, address, link.transport.getHandle(), link)


async def _open_local(
    reactor: Any, address: Address, timeout_s: float, options: Options
) -> socket.socket:
    started = reactor.seconds()
    while True:
        try:
            return open_local(address, options)
        except BlockingIOError:  # a UNIX listener's queue is full, and no event tells when not
            if reactor.seconds() - started >= timeout_s:
                raise too_late(address, "no connection", timeout_s) from None
            await deferLater(reactor, RETRY_S)


@implementer(IReadWriteDescriptor)
class DirectSocket:
    """A connected, non-blocking socket.

    Args:
        reactor: Runs it.
        address: The peer.
        sock: The socket.
        link: Twisted's connection that *sock* belongs to, where it made it: it rests until
            ``close`` gives it the socket back.

    Attributes:
        send: send(2) of the socket.
        receive: Returns what one recv(2) brings, None at the end, and for how many seconds the
            kernel has had it (0 where it does not tell). Raises OSError as recv(2) does.
        dropped: How many datagrams found the socket's own buffer full, as far as those that came
            after them tell.
    """

    def __init__(
        self, reactor: Any, address: Address, sock: socket.socket, link: StreamLink | None = None
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._link = link
        self._epoll: Any = None  # select.epoll, which a platform may lack
        self._on_ready: Callable[[], object] = _nothing
        self._wants_writing = False
        if link is not None:
            link.transport.pauseProducing()
        self.send: Callable[[bytes], int] = sock.send
        self.dropped = 0
        self._read = reader_of(address, sock)
        self.receive: Callable[[], tuple[bytes | None, float]] = self._receive_untold
        if address.kind == "datagram":
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                self.receive = self._receive_stamped
                sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)

    def _receive_untold(self) -> tuple[bytes | None, float]:
        return self._read(), 0.0

    def _receive_stamped(self) -> tuple[bytes | None, float]:
        data, ancillary, _, _ = self._sock.recvmsg(READ_BYTES, _STAMP_BYTES)
        age_s = 0.0
        for level, kind, content in ancillary:
            if level != socket.SOL_SOCKET:  # an option of the caller's asked for it
                continue
            if kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = TIMESPEC.unpack_from(content)
                # The kernel's stamp is of the wall clock: only the difference is of use, so that
                # a clock that is set meanwhile spoils one answer at most.
                age_s = max(time.time() - seconds - nanoseconds / 1e9, 0.0)
            elif kind == SO_RXQ_OVFL:
                (self.dropped,) = _DROPS.unpack_from(content)
        return data, age_s

    # -- being watched --

    def watch(self, on_ready: Callable[[], object]) -> None:
        """Call *on_ready* whenever there is something to receive, or room to send if wanted."""
        self._on_ready = on_ready
        if hasattr(select, "epoll"):
            self._epoll = select.epoll()
            self._epoll.register(self._sock, select.EPOLLIN)
        self._reactor.addReader(self)

    def want_writing(self, wants: bool) -> None:
        """Say whether room to send is of interest."""
        if wants == self._wants_writing:
            return
        self._wants_writing = wants
        if self._epoll is not None:
            self._epoll.modify(self._sock, select.EPOLLIN | (select.EPOLLOUT if wants else 0))
        elif wants:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def fileno(self) -> int:
        """Return what the reactor watches."""
        return int((self._epoll or self._sock).fileno())

    def logPrefix(self) -> str:
        """Name the log context of what is served here."""
        return "twistedsock"

    def doRead(self) -> None:
        """Tell of what has come."""
        self._on_ready()

    def doWrite(self) -> None:
        """Tell of room, where there is no epoll."""
        self._on_ready()

    def connectionLost(self, reason: Failure) -> None:
        """Be watched no more: the reactor has stopped."""
        self._unwatch()

    def _unwatch(self) -> None:
        self._on_ready = _nothing
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        if self._epoll is not None:
            epoll, self._epoll = self._epoll, None
            epoll.close()

    def close(self) -> Deferred[None]:
        """Close it; fire once that is done: a connection of TCP ends in order, within a second."""
        self._unwatch()
        if self._link is None:
            self._sock.close()
            return succeed(None)
        link, self._link = self._link, None
        link.talk.close()  # what still comes is read, and left
        link.transport.resumeProducing()
        return link.close(self._reactor)


def _nothing() -> None:
    """Stand in until somebody listens."""
