"""Running a command's work in the reactor, until it is done or somebody interrupts it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

T = TypeVar("T")


def run(start: Callable[[Any], Deferred[T]], stop: Callable[[], object]) -> T:
    """Return what *start* fires with, or raise what it fails with.

    Args:
        start: Is called with the reactor, which runs then.
        stop: Is called at SIGINT and SIGTERM; *start* is to fire soon after. A second signal
            ends the program at once.
    """
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    outcome: list[T | Failure] = []

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        reactor.callFromThread(stop)  # which wakes the reactor

    def finish(result: T | Failure) -> None:
        outcome.append(result)
        reactor.crash()  # stop() would wait for names that are being looked up

    def begin() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        maybeDeferred(start, reactor).addBoth(finish)

    # So does Python wait at its end for all threads but such ones.
    reactor.getThreadPool().threadFactory = partial(Thread, daemon=True)
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    (result,) = outcome
    if isinstance(result, Failure):
        result.raiseException()
    return result
