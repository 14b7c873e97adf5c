"""Connecting with a reactor: attempts beside each other, as RFC 8305 section 5 has them."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import error as errors
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twistedsock.addresses import Address
from twistedsock.client.conversation import Conversation
from twistedsock.client.dialling import ATTEMPT_DELAY_S
from twistedsock.client.failures import best_of, not_connected
from twistedsock.client.links import StreamLink
from twistedsock.client.options import NONE, Options
from twistedsock.client.resolving import NumericName
from twistedsock.errors import ClientError, OptionError
from twistedsock.transports.optioned import with_options

SYSTEM_TIMEOUT_S = 130.0  # Linux gives up by itself after about 127 s: tcp_syn_retries in tcp(7)


class Race:
    """Connects to the first of *names* that answers.

    An attempt starts ATTEMPT_DELAY_S after the one before it, or at once where that one failed.

    Args:
        reactor: Runs it.
        address: The peer, as the caller wrote it.
        names: What to try, in order; one at least.
        new_talk: Makes each attempt's conversation.
        options: What each attempt's socket has before it is connected.

    Attributes:
        done: Fires with the link that won; fails with what says most of why none did. Cancel it
            to give up.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        names: Sequence[NumericName],
        new_talk: Callable[[], Conversation],
        options: Options = NONE,
    ) -> None:
        self.done: Deferred[StreamLink] = Deferred(lambda _: self._stop())
        self._reactor = reactor
        # Opens the sockets; without options they are Twisted's own.
        self._opener = with_options(reactor, options) if options else reactor
        self._address = address
        self._waiting = deque(names)
        self._links = _Links(new_talk)
        self._running: list[Deferred[Any]] = []
        self._errors: list[ClientError] = []
        self._timer: Any = None
        self._is_over = False

    def start(self) -> Deferred[StreamLink]:
        """Start the first attempt; return ``done``."""
        self._start_next()
        return self.done

    def _start_next(self) -> None:
        self._stop_timer()
        host, port = self._waiting.popleft()
        kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
        attempt = kind(self._opener, host, port, SYSTEM_TIMEOUT_S).connect(self._links)
        self._running.append(attempt)
        if self._waiting:
            self._timer = self._reactor.callLater(ATTEMPT_DELAY_S, self._start_next)
        attempt.addCallbacks(self._arrived, self._failed, (attempt,), {}, (attempt,), {})

    def _arrived(self, link: Any, attempt: Deferred[Any]) -> None:
        five = link.five_tuple
        if (five.local_host, five.local_port) == (five.peer_host, five.peer_port):
            # The kernel chose the very port for our side: simultaneous open, see ``dialling``.
            link.transport.abortConnection()
            self._failed(Failure(errors.ConnectionRefusedError()), attempt)
            return
        self._running.remove(attempt)
        self._stop()
        self.done.callback(link)

    def _failed(self, failure: Failure, attempt: Deferred[Any]) -> None:
        self._running.remove(attempt)
        if self._is_over:
            return
        if failure.check(OptionError):
            self._stop()
            self.done.errback(failure)
            return
        self._errors.append(_told_by_twisted(self._address, failure.value))
        if self._waiting:
            self._start_next()
        elif not self._running:
            self.done.errback(best_of(self._errors))

    def _stop(self) -> None:
        """Give up every other attempt."""
        self._is_over = True
        self._stop_timer()
        for attempt in tuple(self._running):
            attempt.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class _Links(Factory):
    """Makes the protocol of each attempt."""

    noisy = False

    def __init__(self, new_talk: Callable[[], Conversation]) -> None:
        self._new_talk = new_talk

    def buildProtocol(self, addr: IAddress | None) -> StreamLink:
        """Return a link with a conversation of its own: an attempt may yet be given up."""
        return StreamLink(self._new_talk())


_NUMBERS: dict[object, int] = {
    errors.ConnectionRefusedError: errno.ECONNREFUSED,
    errors.TimeoutError: errno.ETIMEDOUT,
}


def _told_by_twisted(address: Address, error: object) -> ClientError:
    number = getattr(error, "osError", None)
    if not isinstance(number, int):
        number = _NUMBERS.get(type(error), errno.ENETUNREACH)
    return not_connected(address, number)
