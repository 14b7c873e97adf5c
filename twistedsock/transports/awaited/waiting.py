"""Waiting for one's turn at a descriptor: lines of waits, served in the order of asking.

Knows calls that may block, deadlines and cancellation; never a poller (``readiness`` has those),
an address or a socket's life. The rules:

1. A call is tried first. Only one that would block becomes a ``Wait``, at the end of its line.
2. A line is served until a call would block again or nobody is left in it. So the kernel has to
   tell of changes only (edge-triggered, epoll(7)), and nothing is lost when a wait is cancelled:
   a wait holds no data, it is a call that has not been made yet.
3. Each line is served alone: input does not wait for output, nor the error queue for input.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

# epoll(7)'s event bits, which select lacks where epoll is missing.
READABLE, URGENT, WRITABLE, ERROR, HANG_UP, PEER_ENDED = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000

# So many calls may succeed at once before the reactor has its turn: else a peer that is quicker
# than we are would starve timers, and with them the time-outs of everybody else.
CALLS_A_TURN = 256
# An AF_UNIX peer whose queue is full tells only those connected to it when there is room.
RETRY_S = 0.01
# Looking for who is late takes some time for each different time-out; so it is done no more often
# than this for each, which bounds its share of the CPU. A thousand of them may be 2 ms late.
LOOK_S = 2e-6


class Loop(Protocol):
    """Tells when a descriptor may be ready. One for each reactor."""

    reactor: Any
    deadlines: Deadlines
    calls_left: int  # of CALLS_A_TURN

    def watch(self, lines: Lines, event: int) -> None:
        """Serve *lines* from now on, when *event* (READABLE, WRITABLE, URGENT) comes too.

        Raises:
            OSError: The descriptor cannot be watched, or there are too many.
        """

    def forget(self, lines: Lines) -> None:
        """Serve *lines* no more; the descriptor is closed next, or given away."""

    def serve_soon(self, line: Line) -> None:
        """Serve *line* after the reactor's next turn."""

    def rest(self) -> None:
        """Let go of what nobody needs now that some have ended."""


class Wait(Deferred[Any]):
    """A call that could not be made yet; fires with its result."""

    line: Line
    call: Callable[..., Any]
    args: tuple[Any, ...]
    owner: object  # lives as long as somebody waits at it
    timed_among: dict[Wait, float] | None = None
    patience: float | None = None  # how long it may take from each step to the next
    retries = False  # whether it has to be tried from time to time, for nothing tells us

    def be_untimed(self) -> None:
        """Have no deadline any more."""
        among = self.timed_among
        if among is not None:
            del among[self]
            self.timed_among = None

    def end(self, result: object) -> None:
        """Leave the line with *result*; those behind may have their turn now."""
        line = self.line
        was_first = line[0] is self
        line.remove(self)
        self.owner = None
        if self.timed_among is not None:
            self.be_untimed()
        self.callback(result)
        if was_first and line:
            line.serve()
        elif not line:
            line.rest()


class Done(Deferred[Any]):
    """A Deferred that has fired: ``succeed`` at half the price.

    It sets what ``Deferred.__init__`` and ``succeed`` set (Twisted 26.10), and no more.
    """

    called = True
    _canceller = None

    def __init__(self, result: object) -> None:
        self.result = result
        self._callbacks = []


class Unfinished(BlockingIOError):
    """Part of the call is done, and it would block now. ``rest`` does what is left of it."""

    def __init__(self, rest: Callable[[], Any]) -> None:
        super().__init__(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.rest = rest


def _would_block() -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _cancel(wait: Deferred[Any]) -> None:
    assert isinstance(wait, Wait)
    if wait in wait.line:
        wait.end(Failure(CancelledError()))


class Line(deque[Wait]):
    """The waits for one kind of event at one descriptor, first come, first served."""

    __slots__ = ("event", "lines", "retry")

    def __init__(self, lines: Lines, event: int) -> None:
        super().__init__()
        self.lines = lines
        self.event = event
        self.retry: IDelayedCall | None = None

    def run(
        self,
        owner: object,
        timeout: float | None,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        retries: bool = False,
        renews: bool = False,
    ) -> Deferred[Any]:
        """Return a Deferred of what *call* returns or raises, made in its turn.

        Args:
            owner: Is kept alive meanwhile.
            timeout: Seconds until it fails with ``TimeoutError``; None: never; 0: it may not
                wait at all, and fails with ``BlockingIOError`` instead.
            call: Raises ``BlockingIOError`` as often as it would block, and is called again.
            args: Its arguments.
            retries: Whether the kernel may not tell when it is worth trying again.
            renews: Whether its time begins anew each time that it goes on.
        """
        loop = self.lines.loop
        if not self:
            if loop.calls_left > 0 or timeout == 0 or self.lines.ended:
                loop.calls_left -= 1
                try:
                    return Done(call(*args))
                except BlockingIOError as error:
                    if error.__class__ is Unfinished:
                        call, args = error.rest, ()
                        error = _would_block()
                    if timeout == 0:
                        return fail(error)
                except Exception:
                    return fail()
            else:
                loop.serve_soon(self)
        elif timeout == 0:  # those who wait come first
            return fail(_would_block())
        wait = Wait(_cancel)
        wait.line, wait.call, wait.args, wait.owner = self, call, args, owner
        self.append(wait)
        if timeout is not None:
            loop.deadlines.add(wait, timeout)
            if renews:
                wait.patience = timeout
        if retries:
            wait.retries = True
            self.retry_later()
        if not self.lines.events & self.event:
            self._watch()
        return wait

    def serve(self) -> None:
        """Make the calls in turn until one would block."""
        while self:
            wait = self[0]
            try:
                result = wait.call(*wait.args)
            except BlockingIOError as error:
                if error.__class__ is Unfinished:
                    wait.call, wait.args = error.rest, ()
                if wait.patience is not None:
                    wait.be_untimed()
                    self.lines.loop.deadlines.add(wait, wait.patience)
                if wait.retries:
                    self.retry_later()
                if not self.lines.events & self.event:
                    self._watch()
                return
            except BaseException:  # a program's own file may be read: it ends this wait alone
                result = Failure()
            if not self or self[0] is not wait:
                continue  # the call reads a file of the program's own, which has cancelled it
            self.popleft()
            wait.owner = None
            if wait.timed_among is not None:
                wait.be_untimed()
            if not self:
                if self.retry is not None:
                    self.rest()
                wait.callback(result)
                return  # who is in line now has just tried
            wait.callback(result)

    def _watch(self) -> None:
        try:
            self.lines.loop.watch(self.lines, self.event)
        except (OSError, ValueError):
            failure = Failure()
            while self:
                self[0].end(failure)

    def retry_later(self) -> None:
        """Serve the line in a while, whether or not the kernel tells of anything."""
        if self.retry is None:
            self.retry = self.lines.loop.reactor.callLater(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self.retry = None
        self.serve()

    def rest(self) -> None:
        """Nobody waits: try no more."""
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class Lines:
    """Who waits at one descriptor.

    Args:
        loop: Tells when it may be ready.
        fd: The descriptor.
    """

    __slots__ = ("ended", "events", "fd", "loop", "reads", "urgent", "writes")

    def __init__(self, loop: Loop, fd: int) -> None:
        self.loop = loop
        self.fd = fd
        self.events = 0  # what is watched for
        self.ended = False  # the number may be another's by now: it must not be watched any more
        self.reads = Line(self, READABLE)
        self.writes = Line(self, WRITABLE)
        self.urgent = Line(self, URGENT)  # the error queue and out-of-band data

    def serve(self, events: int) -> None:
        """Serve whoever waits for *events*; an error concerns everybody."""
        if events & (READABLE | ERROR | HANG_UP | PEER_ENDED) and self.reads:
            self.reads.serve()
        if events & (WRITABLE | ERROR | HANG_UP) and self.writes:
            self.writes.serve()
        if events & (URGENT | ERROR | HANG_UP) and self.urgent:
            self.urgent.serve()

    def end(self) -> None:
        """Fail everybody with EBADF: the descriptor is closed, or another's now."""
        self.ended = True
        for line in self.reads, self.writes, self.urgent:
            line.rest()
            waiting = list(line)
            line.clear()
            for wait in waiting:
                wait.owner = None
                if wait.timed_among is not None:
                    wait.be_untimed()
                wait.callback(Failure(OSError(errno.EBADF, os.strerror(errno.EBADF))))
        self.loop.rest()


class Deadlines:
    """The time-outs of a reactor's waits, by one timer for all of them.

    A timer of the reactor costs more than the call it guards, and most waits end in time. Waits of
    one time-out expire in the order of asking, so a dictionary of each is always sorted.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waits: dict[float, dict[Wait, float]] = {}  # by time-out: the deadlines
        self._timer: IDelayedCall | None = None
        self._timer_due = 0.0

    def add(self, wait: Wait, timeout: float) -> None:
        """Fail *wait* with ``TimeoutError`` in *timeout* seconds, unless it is done before."""
        due = self._reactor.seconds() + timeout
        try:
            among = self._waits[timeout]
        except KeyError:
            among = self._waits[timeout] = {}
        among[wait] = due
        wait.timed_among = among
        if self._timer is None:
            self._start(due)
        elif due < self._timer_due:
            self._timer.cancel()
            self._start(due)

    def rest(self) -> None:
        """Let the timer go if nobody needs it."""
        if self._timer is not None and not any(self._waits.values()):
            self._waits.clear()
            self._timer.cancel()
            self._timer = None

    def _start(self, due: float) -> None:
        seconds = max(due - self._reactor.seconds(), LOOK_S * len(self._waits))
        self._timer_due = due
        self._timer = self._reactor.callLater(seconds, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        late = []
        self._waits = {timeout: among for timeout, among in self._waits.items() if among}
        for among in self._waits.values():
            for wait, due in among.items():
                if due > now:
                    break
                late.append((due, wait))
        for _, wait in sorted(late, key=itemgetter(0)):
            if wait.timed_among is not None:  # the end of another may have ended it
                wait.end(Failure(TimeoutError("timed out")))
        # Whoever ended may have made new waits, and those a timer.
        dues = [next(iter(among.values())) for among in self._waits.values() if among]
        if dues and (self._timer is None or min(dues) < self._timer_due):
            if self._timer is not None:
                self._timer.cancel()
            self._start(min(dues))
