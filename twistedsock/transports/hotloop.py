"""The hot loop: an epoll instance of our own inside whatever reactor runs.

It is registered with the reactor as one readable descriptor (an epoll descriptor is itself
pollable, epoll(7)). When the reactor finds it ready, the events are served here in a tight loop:
without a log context for each (about 2 us twice an echo), and with the kernel's true event mask,
which Twisted's pollers misread. No reactor is replaced, so this works under all of them.

Where there is no epoll, ``StockLoop`` asks the reactor itself, with the same interface.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReadDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

READ, WRITE = 0x1, 0x4  # EPOLLIN and EPOLLOUT, which select lacks where epoll is missing
GONE = 0x8 | 0x10  # EPOLLERR and EPOLLHUP: always reported, never asked for

# A turn ends after so many rounds or so long, whichever comes first: a flood may not starve
# timers and the reactor's own descriptors. Each event reads at most connection.LARGEST_READ_BYTES.
ROUNDS_A_TURN = 16
EVENTS_A_ROUND = 64
TURN_S = 0.005

_LOOP = "_twistedsock_hot_loop"  # the attribute of a reactor that holds its loop


class Handler(Protocol):
    """What is watched: a connection or a port, with Twisted's own method names."""

    def doRead(self) -> Any:
        """Read; return None, or an exception instance that ends it."""

    def doWrite(self) -> Any:
        """Write; return None, or an exception instance that ends it."""

    def hungUp(self) -> Any:
        """Act on an error or hang-up without input; return what ``doRead`` may return."""

    def connectionLost(self, reason: Failure) -> object:
        """It is over."""


class Loop(Protocol):
    """Watches descriptors."""

    def watch(self, handler: Any, fd: int, old: int, new: int) -> None:
        """Change what *handler* is watched for from *old* to *new* (READ, WRITE, 0: nothing)."""

    def forget(self, handler: Any, fd: int) -> None:
        """Watch *handler* no more; its descriptor is closed next."""

    def finish(self, handler: Any) -> bool:
        """Return whether *handler* will be ended once the event that is served is over."""


def loop_of(reactor: Any) -> Loop:
    """Return the loop of *reactor*, made when it is first asked for."""
    loop: Loop | None = getattr(reactor, _LOOP, None)
    if loop is None:
        loop = HotLoop(reactor) if hasattr(select, "epoll") else StockLoop(reactor)
        setattr(reactor, _LOOP, loop)
    return loop


class Listener:
    """What listeners share: they are watched for input alone. Mixed in before a Twisted port."""

    reactor: Any
    fileno: Any
    _interest = 0
    _fd = -1  # as it was when it was last watched anew

    def startReading(self) -> None:
        """Be told of input."""
        self._watch(READ)

    def stopReading(self) -> None:
        """Be told of input no more."""
        self._watch(0)

    def _watch(self, interest: int) -> None:
        if interest != self._interest:
            if not self._interest:
                self._fd = self.fileno()
            loop_of(self.reactor).watch(self, self._fd, self._interest, interest)
            self._interest = interest


class StockLoop:
    """Asks the reactor to watch: for platforms without epoll."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def watch(self, handler: Any, fd: int, old: int, new: int) -> None:
        """Change what *handler* is watched for from *old* to *new*."""
        gained, dropped = new & ~old, old & ~new
        if gained & READ:
            self._reactor.addReader(handler)
        if gained & WRITE:
            self._reactor.addWriter(handler)
        if dropped & READ:
            self._reactor.removeReader(handler)
        if dropped & WRITE:
            self._reactor.removeWriter(handler)

    def forget(self, handler: Any, fd: int) -> None:
        """Watch *handler* no more."""
        self._reactor.removeReader(handler)
        self._reactor.removeWriter(handler)

    def finish(self, handler: Any) -> bool:
        """Return False: only a flush ends it."""
        return False


@implementer(IReadDescriptor)
class HotLoop:
    """Watches descriptors by an epoll instance of its own, open while it watches any.

    Args:
        reactor: Tells when any of them is ready.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: Any = None  # select.epoll, which a platform may lack
        self._handlers: dict[int, Any] = {}
        # Descriptors closed while a round of events is served. Their number may have been given
        # to a new connection already, which events from before it do not concern.
        self._stale: set[int] = set()
        self._finished: list[Any] = []  # to be ended once the event that is served is over
        self._serving = False

    @property
    def handlers(self) -> list[Any]:
        """What is watched now."""
        return list(self._handlers.values())

    def watch(self, handler: Any, fd: int, old: int, new: int) -> None:
        """Change what *handler* is watched for from *old* to *new*."""
        if not old:
            if self._epoll is None:
                self._open()
            else:  # reactor.removeAll(), as trial does after an unclean test, forgets us too
                self._reactor.addReader(self)
            self._epoll.register(fd, new)
            self._handlers[fd] = handler
        elif new:
            self._epoll.modify(fd, new)
        elif self._handlers.get(fd) is handler:
            with suppress(OSError):  # somebody else has closed it: then it is out already
                self._epoll.unregister(fd)
            del self._handlers[fd]
            if self._serving:
                self._stale.add(fd)
            elif not self._handlers:
                self._close()

    def forget(self, handler: Any, fd: int) -> None:
        """Watch *handler* no more; its descriptor is closed next, which takes it out of epoll."""
        if self._handlers.get(fd) is handler:
            del self._handlers[fd]
            if self._serving:
                self._stale.add(fd)
            elif not self._handlers:
                self._close()

    def finish(self, handler: Any) -> bool:
        """End *handler*, which has nothing left to send, right after the event being served.

        Returns:
            False where none is being served; the caller waits for an event then.
        """
        if self._serving:
            self._finished.append(handler)
        return self._serving

    def _end_finished(self) -> None:
        while self._finished:
            handler = self._finished.pop()
            if handler.connected and not handler._aborting:
                self._disconnect(handler, ConnectionDone(), False)

    def _open(self) -> None:
        self._epoll = select.epoll()
        self._reactor.addReader(self)

    def _close(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
            self._reactor.removeReader(self)
            epoll.close()

    def _renew(self) -> None:
        """Watch by a new epoll instance.

        A descriptor that somebody else closed while a duplicate of it lives goes on being
        reported, and cannot be taken out any more (epoll(7), first of the questions).
        """
        self._close()
        if self._handlers:
            self._open()
            for fd, handler in self._handlers.items():
                self._epoll.register(fd, handler._interest)

    def fileno(self) -> int:
        """Return the epoll instance's own descriptor."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """Name the log context of everything that is served here."""
        return "twistedsock"

    def doRead(self) -> None:
        """Serve what is ready, within bounds."""
        poll, handlers, stale = self._epoll.poll, self._handlers, self._stale
        finished = self._finished
        due_in = self._reactor.timeout
        self._serving = True
        try:
            end = 0.0
            for _ in range(ROUNDS_A_TURN):
                events = poll(0, EVENTS_A_ROUND)
                if not events:
                    return
                for fd, mask in events:
                    if stale and fd in stale:
                        continue
                    try:
                        handler = handlers[fd]
                    except KeyError:
                        self._renew()
                        return
                    try:
                        if mask != READ:
                            self._serve(handler, fd, mask)
                        elif (why := handler.doRead()) is not None:
                            self._disconnect(handler, why, True)
                    except BaseException as error:  # protocols are called: one connection's fault
                        log.err()
                        self._disconnect(handler, error, False)
                    if finished:
                        self._end_finished()
                if stale:
                    stale.clear()
                now = time.monotonic()
                if not end:
                    end = now + TURN_S
                elif now > end:
                    return
                if due_in() == 0:
                    return  # a timer is due, perhaps one that was just set
        finally:
            self._serving = False
            stale.clear()
            if not handlers:
                self._close()

    def _serve(self, handler: Any, fd: int, mask: int) -> None:
        """Serve an event that is more than input."""
        why: Any = None
        in_read = True
        if mask & READ:
            why = handler.doRead()
        elif mask & GONE:
            why = handler.hungUp()
        if why is None and mask & WRITE and fd not in self._stale:
            why, in_read = handler.doWrite(), False
        if why is not None:
            self._disconnect(handler, why, in_read)

    def _disconnect(self, handler: Any, why: BaseException, in_read: bool) -> None:
        """End *handler* as a Twisted reactor does: the end of input may be a half-close."""
        is_end = why.__class__ is ConnectionDone
        try:
            half_closes = is_end and in_read and IHalfCloseableDescriptor.providedBy(handler)
            if half_closes:
                handler.readConnectionLost(_DONE)
                if handler not in self._finished:
                    handler.stopReading()
            elif is_end:
                handler.connectionLost(_DONE)
            elif why.__class__ is ConnectionLost:
                handler.connectionLost(_LOST)
            else:
                handler.connectionLost(Failure(why))
        except Exception:  # protocols are called
            log.err()

    def connectionLost(self, reason: Failure) -> None:
        """End everything that is watched: the reactor has stopped."""
        for handler in self.handlers:
            try:
                handler.connectionLost(reason)
            except Exception:  # protocols are called
                log.err()


_DONE, _LOST = Failure(ConnectionDone()), Failure(ConnectionLost())
