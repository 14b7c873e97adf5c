"""When a descriptor may be ready: the two ways of asking.

``EpollLoop`` has an epoll instance of its own, itself the one descriptor that the reactor watches,
so that no wait costs a system call: a descriptor is registered when it is first waited at, stays
so, and only changes are reported (EPOLLET, epoll(7)). It also sees the true events, which
Twisted's pollers misread (a lone EPOLLERR is a lost connection to them).

Where there is no epoll, ``StockLoop`` asks the reactor itself.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.transports.awaited.waiting import (
    CALLS_A_TURN,
    ERROR,
    PEER_ENDED,
    READABLE,
    URGENT,
    WRITABLE,
    Deadlines,
    Line,
    Lines,
    Loop,
)
from twistedsock.transports.hotloop import EVENTS_A_ROUND, ROUNDS_A_TURN, TURN_S

_LOOP = "_twistedsock_waiting"  # the attribute of a reactor that holds its loop
EDGE = 1 << 31  # EPOLLET


def loop_of(reactor: Any) -> Loop:
    """Return the loop of *reactor*, made when it is first asked for."""
    loop: Loop | None = getattr(reactor, _LOOP, None)
    if loop is None:
        loop = EpollLoop(reactor) if hasattr(select, "epoll") else StockLoop(reactor)
        setattr(reactor, _LOOP, loop)
    return loop


class _Turns:
    """What both have: deadlines, and the reactor's turns."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.deadlines = Deadlines(reactor)
        self.calls_left = CALLS_A_TURN
        self._soon: list[Line] = []
        self._thread = threading.get_ident()

    def serve_soon(self, line: Line) -> None:
        """Serve *line* after the reactor's next turn."""
        if not self._soon:
            self.reactor.callLater(0, self._serve_now)
        self._soon.append(line)

    def _serve_now(self) -> None:
        soon, self._soon = self._soon, []
        self.calls_left = CALLS_A_TURN
        for line in soon:
            line.serve()

    def forget(self, lines: Lines) -> None:
        """Serve *lines* no more."""
        # A socket that nobody closed may be collected in any thread.
        if threading.get_ident() == self._thread:
            self._unregister(lines)
            self._forget(lines)
        else:
            self.reactor.callFromThread(self._forget, lines)

    def rest(self) -> None:
        """Let go of the timer if nobody waits."""
        if threading.get_ident() == self._thread:
            self.deadlines.rest()

    def _unregister(self, lines: Lines) -> None:
        """Have the kernel watch it no more, where closing it does not do so in any case."""

    def _forget(self, lines: Lines) -> None:
        raise NotImplementedError


@implementer(IReadDescriptor)
class EpollLoop(_Turns):
    """Watches by an epoll instance, open while it watches any descriptor."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._epoll: Any = None  # select.epoll, which a platform may lack
        self._watched: dict[int, Lines] = {}
        self._serving = False

    def watch(self, lines: Lines, event: int) -> None:
        """Serve *lines* from now on, when *event* comes too."""
        if self._epoll is None:
            self._epoll = select.epoll()
        events = lines.events | event
        if lines.events:
            self._epoll.modify(lines.fd, events | PEER_ENDED | EDGE)
        else:
            # Each time: reactor.removeAll(), as trial calls it, forgets us too.
            self.reactor.addReader(self)
            try:
                self._epoll.register(lines.fd, events | PEER_ENDED | EDGE)
            except BaseException:
                self._rest()
                raise
            self._watched[lines.fd] = lines
        lines.events = events

    def _unregister(self, lines: Lines) -> None:
        # While a duplicate of the descriptor lives, closing it would not do that (epoll(7)).
        if lines.events and self._epoll is not None:
            with suppress(OSError):  # somebody else has closed it
                self._epoll.unregister(lines.fd)

    def _forget(self, lines: Lines) -> None:
        lines.events = 0
        if self._watched.get(lines.fd) is lines:
            del self._watched[lines.fd]
        self._rest()

    def _rest(self) -> None:
        if self._epoll is not None and not self._watched and not self._serving:
            self.reactor.removeReader(self)
            epoll, self._epoll = self._epoll, None
            epoll.close()

    def fileno(self) -> int:
        """Return the epoll instance's own descriptor."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """Name the log context of everything that is served here."""
        return "twistedsock"

    def doRead(self) -> None:
        """Serve whom the kernel has news for, within bounds."""
        poll, watched = self._epoll.poll, self._watched
        due_in = self.reactor.timeout
        self._serving = True
        try:
            end = 0.0
            for _ in range(ROUNDS_A_TURN):
                events = poll(0, EVENTS_A_ROUND)
                if not events:
                    return
                self.calls_left = CALLS_A_TURN
                for fd, mask in events:
                    # A new socket may have the number of one closed in this round: then its
                    # calls are tried for nothing, which does no harm.
                    lines = watched.get(fd)
                    if lines is None:
                        continue
                    if mask == READABLE:
                        lines.reads.serve()
                    else:
                        lines.serve(mask)
                now = time.monotonic()
                if not end:
                    end = now + TURN_S
                elif now > end:
                    return
                if due_in() == 0:
                    return  # a timer is due, perhaps one that was just set
        finally:
            self._serving = False
            self._rest()

    def connectionLost(self, reason: Failure) -> None:
        """Watch nothing more: the reactor has stopped, and nothing that waits can go on."""
        for lines in self._watched.values():
            lines.events = 0
        self._watched.clear()
        self._rest()


class StockLoop(_Turns):
    """Asks the reactor to watch: for platforms without epoll."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._watched: dict[Lines, _Descriptor] = {}

    def watch(self, lines: Lines, event: int) -> None:
        """Serve *lines* from now on, when *event* comes too."""
        if event == URGENT:  # of which Twisted's reactors do not tell
            lines.urgent.retry_later()
            return
        descriptor = self._watched.get(lines)
        if descriptor is None:
            descriptor = self._watched[lines] = _Descriptor(self, lines)
        if event == READABLE:
            self.reactor.addReader(descriptor)
        else:
            self.reactor.addWriter(descriptor)
        lines.events |= event

    def _unregister(self, lines: Lines) -> None:
        descriptor = self._watched.get(lines)
        if descriptor is not None:
            self.reactor.removeReader(descriptor)
            self.reactor.removeWriter(descriptor)

    def _forget(self, lines: Lines) -> None:
        lines.events = 0
        self._unregister(lines)
        self._watched.pop(lines, None)


@implementer(IReadWriteDescriptor)
class _Descriptor:
    """A descriptor as a reactor wants it; watched while somebody waits."""

    def __init__(self, loop: StockLoop, lines: Lines) -> None:
        self._loop = loop
        self._lines = lines

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._lines.fd

    def logPrefix(self) -> str:
        """Name the log context."""
        return "twistedsock"

    def doRead(self) -> None:
        """Serve the readers."""
        self._serve(READABLE, self._lines.reads, self._loop.reactor.removeReader)

    def doWrite(self) -> None:
        """Serve the writers."""
        self._serve(WRITABLE, self._lines.writes, self._loop.reactor.removeWriter)

    def _serve(self, event: int, line: Line, remove: Callable[[object], object]) -> None:
        self._loop.calls_left = CALLS_A_TURN
        self._lines.serve(event)
        if not line and self._lines.events & event:
            self._lines.events &= ~event
            remove(self)

    def connectionLost(self, reason: Failure) -> None:
        """Serve everybody: the reactor saw an error, and has stopped watching."""
        lines = self._lines
        lines.events = 0
        lines.serve(ERROR)
        for line in lines.reads, lines.writes:
            if line and self._loop.reactor.running:  # it was no error of theirs
                line.retry_later()
