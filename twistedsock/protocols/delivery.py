"""Handing messages to a service: in order, one at a time, never faster than it takes them.

Serves both ways of writing a service (hooks and ``converse``) on every kind of transport.
Knows the contract; never how bytes move: subclasses say what sending and closing mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from twistedsock.addresses import FiveTuple
from twistedsock.errors import CloseReason, SessionClosed
from twistedsock.protocols.awaiting import to_deferred
from twistedsock.protocols.carrier import Carrier, LiveSession
from twistedsock.service import Metadata

INBOX_BYTES = 64 * 1024  # while a service awaits, a peer may not make us hold more than this
IDLE_LOOKS = 8  # in an idle time-out
MESSAGE_OVERHEAD_BYTES = 64  # what a message costs beside its bytes: empty ones are not free


class ServedSession(LiveSession):
    """A session that hands messages to the service of a carrier.

    The states, each a flag: *awaiting* a hook's awaitable; *closing* once the service or the
    carrier ended it (nothing more is handed over or sent); *final*, the reason to end for once
    all that was accepted is handled (nothing more is read); *peer_ended* once the peer has
    finished sending; *lost* once the transport is gone.
    """

    __slots__ = (
        "_awaiting",
        "_carrier",
        "_closing",
        "_congested",
        "_conversing",
        "_drain_waiters",
        "_end_pending",
        "_final",
        "_held",
        "_inbox",
        "_inbox_bytes",
        "_lost",
        "_message_waiter",
        "_over",
        "_peer_ended",
        "_pumping",
        "_seen_bytes",
        "_work",
        "last_active",
    )

    def __init__(self, carrier: Carrier, five_tuple: FiveTuple) -> None:
        now = carrier.reactor.seconds()
        super().__init__(carrier.next_number(), five_tuple, now)
        self.last_active: float = now
        self._seen_bytes = 0
        self._held = False
        self._carrier = carrier
        # None while empty: most sessions never need one, and it is large.
        self._inbox: deque[tuple[bytes, Metadata]] | None = None
        self._inbox_bytes = 0
        self._awaiting = self._closing = self._congested = self._conversing = False
        self._end_pending = self._lost = self._over = self._peer_ended = self._pumping = False
        self._final: CloseReason | None = None
        self._message_waiter: Deferred[None] | None = None
        self._drain_waiters: list[Deferred[None]] | None = None
        self._work: Deferred[Any] | None = None

    # -- what subclasses supply --

    def _adjust_reading(self) -> None:
        """Read from the peer, or stop reading, as ``_wants_input`` says."""

    def _cork(self) -> None:
        """Hold back what is sent, where that saves calls, until ``_uncork``: once, in order."""

    def _uncork(self) -> None:
        """Send what was held back."""

    def _finish(self, reason: CloseReason) -> None:
        """End the session in good order for *reason*, unless it is ending already."""
        raise NotImplementedError

    # -- the contract --

    @property
    def congested(self) -> bool:
        """True while more than ``write_high_water`` bytes wait for the peer to read them."""
        return self._congested

    def close(self) -> None:
        """End the session: flush, half-close, read on to a deadline, then abort."""
        self._finish(CloseReason.PEER_CLOSED if self._peer_ended else CloseReason.CLOSED)

    def drained(self) -> Deferred[None]:
        """Wait until the session is not congested; raise SessionClosed if it ends first."""
        if self._closing or self._lost:
            return fail(SessionClosed(self.reason or CloseReason.CLOSED))
        if not self._congested:
            return succeed(None)
        waiters = self._drain_waiters
        if waiters is None:
            waiters = self._drain_waiters = []
        waiter: Deferred[None] = Deferred(waiters.remove)
        waiters.append(waiter)
        return waiter

    async def __anext__(self) -> Any:
        """Return the next message, for ``converse``."""
        while not self._inbox:
            if self._end_pending:
                raise StopAsyncIteration
            if self._final is not None:
                self._finish(self._final)
            if self._lost or self._closing:
                raise SessionClosed(self.reason or CloseReason.CLOSED)
            self._message_waiter = Deferred()
            try:
                await self._message_waiter
            finally:
                self._message_waiter = None
        message = self._take_from_inbox()
        self._adjust_reading()
        return self._carrier.value_of(self, message)

    # -- the flow of messages --

    def _begin(self) -> None:
        """Tell the service of this session, once the service is ready."""
        self._carrier.service.sessions.add(self)
        if self._carrier.is_ready:
            self._welcome()
            return
        self._awaiting = self._held = True
        self._carrier.start().addCallbacks(lambda _: self._welcome(), self._not_started)

    def _not_started(self, _: object) -> None:
        self._awaiting = False
        self._finish(CloseReason.SERVICE_ERROR)
        if self._lost:
            self._conclude()

    def _welcome(self) -> None:
        self._awaiting = False
        hooks = self._carrier.hooks
        if hooks["converse"]:
            self._conversing = True
            self._await(self._converse(), self._conversation_over)
            return
        if hooks["opened"]:
            self._run(self._carrier.service.opened)
        if self._held:
            self._pump()

    async def _converse(self) -> None:
        service = self._carrier.service
        await to_deferred(service.opened(self))
        await service.converse(self)

    def _take(self, messages: Iterable[bytes], metadata: Metadata) -> None:
        """Hand *messages* over now, or keep them in order until their turn comes."""
        if self._held:
            self._keep(messages, metadata)
            return
        received = self._carrier.received
        self.metadata = metadata
        rest = iter(messages)
        self._cork()
        try:
            for message in rest:
                self.messages_in += 1
                result = received(self, message)
                if result is not None:
                    self._await(result, self._resume)
                if self._held:
                    self._keep(rest, metadata)
                    return
        except BaseException:  # a plug-in is called, and sys.exit() ends its session alone too
            self._failed(Failure())
        finally:
            self._uncork()

    def _keep(self, messages: Iterable[bytes], metadata: Metadata) -> None:
        if self._closing and not self._lost:
            return
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = deque()
        for message in messages:
            inbox.append((message, metadata))
            self._inbox_bytes += len(message) + MESSAGE_OVERHEAD_BYTES
        self._held = True
        if self._conversing:
            self._wake_reader()
        self._adjust_reading()

    def _take_from_inbox(self) -> bytes:
        assert self._inbox
        message, self.metadata = self._inbox.popleft()
        self._inbox_bytes -= len(message) + MESSAGE_OVERHEAD_BYTES
        self.messages_in += 1
        return message

    def _pump(self) -> None:
        """Hand over what is kept, as far as the service takes it now."""
        if self._conversing:
            self._wake_reader()
            return
        if self._pumping:
            return
        self._pumping = self._held = True
        self._cork()
        try:
            while self._inbox and not self._awaiting and not self._congested:
                result = self._carrier.received(self, self._take_from_inbox())
                if result is not None:
                    self._await(result, self._resume)
        except BaseException:  # a plug-in is called, and sys.exit() ends its session alone too
            self._failed(Failure())
        finally:
            self._pumping = False
            self._uncork()
            self._release()
        if not self._inbox and not self._awaiting:
            if self._end_pending:
                self._end_pending = False
                if not self._closing:
                    self._run(self._carrier.service.ended)
            if self._lost and not self._awaiting:
                self._conclude()
                return
            if self._final is not None and not self._awaiting:
                self._finish(self._final)
                return
        self._adjust_reading()

    def _release(self) -> None:
        """Decide whether the next message may be handed over as it comes."""
        self._held = bool(
            self._inbox or self._awaiting or self._congested or self._closing or self._lost
        )

    def _run(self, hook: Any) -> None:
        """Call a hook of this session; what it awaits holds back the messages."""
        try:
            result = hook(self)
        except BaseException:  # a plug-in is called, and sys.exit() ends its session alone too
            self._failed(Failure())
            return
        if result is not None:
            self._await(result, self._resume)

    def _await(self, awaitable: Any, then: Any) -> None:
        self._awaiting = self._held = True
        self._work = to_deferred(awaitable)
        self._work.addCallbacks(then, self._failed)

    def _resume(self, _: object) -> None:
        self._awaiting = False
        self._work = None
        self._pump()

    def _failed(self, failure: Failure) -> None:
        """End the session for what its service raised."""
        self._awaiting = self._conversing = False
        self._work = None
        self._drop_inbox()
        # A conversation that meets the end of its session, or is cut off at the daemon's stop,
        # has done nothing wrong.
        expected = failure.check(SessionClosed, CancelledError) and (self._lost or self._closing)
        if not expected:
            self._carrier.log_failure(failure)
            self._finish(CloseReason.SERVICE_ERROR)
        if self._lost:
            self._conclude()

    def _conversation_over(self, _: object) -> None:
        self._awaiting = self._conversing = False
        self._work = None
        self._drop_inbox()
        self.close()
        if self._lost:
            self._conclude()

    def _wake_reader(self) -> None:
        waiter = self._message_waiter
        if waiter is not None:
            self._message_waiter = None
            waiter.callback(None)

    @property
    def _wants_input(self) -> bool:
        return not self._congested and self._inbox_bytes <= INBOX_BYTES and self._final is None

    @property
    def _is_working(self) -> bool:
        """Whether the service, not the peer, is what the session waits for."""
        return self._awaiting and self._message_waiter is None

    # -- idleness --

    def _idle_deadline(self, now: float) -> float | None:
        """Return when to look again whether the session is idle; None where it may be for ever.

        Nothing is done for each message: whether bytes have moved is looked at eight times in
        an idle time-out. With the wheel's tick it strikes at most a quarter late.
        """
        timeout = self._carrier.limits.idle_timeout
        if timeout is None:
            return None
        moved = self.bytes_in + self.bytes_out
        if moved != self._seen_bytes or self._is_working:
            self._seen_bytes = moved
            self.last_active = now
        return min(self.last_active + timeout, now + timeout / IDLE_LOOKS)

    # -- the ends --

    def finish_when_handled(self, reason: CloseReason) -> None:
        """End the session for *reason* once what was accepted before is handled."""
        if self._final is None:
            self._final = reason
        self._pump()

    def _input_over(self) -> None:
        """The peer has finished sending: ``ended`` follows the last message."""
        self._peer_ended = self._end_pending = True
        self._pump()

    def _set_congested(self, congested: bool) -> None:
        self._congested = congested
        if congested:
            self._held = True
            self._adjust_reading()
            return
        waiters, self._drain_waiters = self._drain_waiters, None
        for waiter in waiters or ():
            waiter.callback(None)
        self._pump()

    def _stop_delivery(self, reason: CloseReason) -> None:
        """Note that the session is ending for *reason*; nothing more is handed over."""
        self._closing = self._held = True
        if self.reason is None:
            self.reason = reason
        self._drop_inbox()
        self._fail_waiters()

    def _transport_lost(self, reason: CloseReason) -> None:
        """The transport is gone. What was accepted before is still handed over, then it ends."""
        self._lost = self._held = True
        self._congested = False
        if self.reason is None:
            self.reason = reason
        self._carrier.untime(self)
        self._fail_waiters()
        if self._inbox or self._end_pending or self._conversing:
            self._pump()
        if not self._awaiting and not self._pumping:
            self._conclude()

    def _fail_waiters(self) -> None:
        waiters = self._drain_waiters
        if waiters is not None:
            self._drain_waiters = None
            for waiter in waiters:
                waiter.errback(SessionClosed(self.reason or CloseReason.CLOSED))
        if self._message_waiter is not None:
            self._wake_reader()

    def _drop_inbox(self) -> None:
        self._inbox = None
        self._inbox_bytes = 0

    def cut_off(self) -> None:
        """End the session at once, and cancel what its service awaits: the daemon stops now."""
        if not self._lost:
            self.reason = CloseReason.SHUTDOWN_ABORTED
            self.abort()
        self._drop_inbox()
        if self._work is not None:
            try:
                self._work.cancel()
            except BaseException:  # a plug-in's canceller is called
                self._carrier.log_failure(Failure())

    def _conclude(self) -> None:
        if self._over:
            return
        self._over = True
        self._carrier.end(self, self.reason or CloseReason.TRANSPORT_ERROR)
