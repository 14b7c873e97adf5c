"""What all listeners of one service share: limits, access, counters, deadlines, sessions.

Knows the contract and the policies; never a socket, and never how a session moves its bytes.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from twistedsock.addresses import Credentials
from twistedsock.errors import CloseReason, CodecError, PluginError, SessionClosed
from twistedsock.policy.access import AccessList
from twistedsock.policy.deadlines import DeadlineWheel, tick_for
from twistedsock.policy.limits import AcceptRate, Limits, SourceLimit
from twistedsock.protocols.awaiting import as_deferred
from twistedsock.protocols.ledger import Ledger
from twistedsock.service import Session, SocketService
from twistedsock.wire.codecs import find_codec

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

LINGER_S = 5.0  # after our half-close, how long the peer may take to end its side


class LiveSession(Session):
    """A session as the house sees it, beyond what its service may do with it."""

    __slots__ = ()

    @abc.abstractmethod
    def expired(self, now: float) -> float | None:
        """Act on a time-out that has struck at *now*; return the next deadline, or None."""

    @abc.abstractmethod
    def finish_when_handled(self, reason: CloseReason) -> None:
        """End the session for *reason* once what was accepted before is handled."""

    @abc.abstractmethod
    def cut_off(self) -> None:
        """End the session at once, and cancel what its service awaits: the daemon stops now."""


class Gate(Protocol):
    """A listener that can be told to let newcomers wait in the kernel's queue."""

    def pauseAccepting(self) -> None:
        """Stop accepting."""

    def resumeAccepting(self) -> None:
        """Accept again."""


class Carrier:
    """Runs one service object for all its listeners.

    Args:
        service: The service.
        limits: What its peers may use.
        access: Who may come.
        codec: What messages say: a key of ``wire.codecs.CODECS``.
        reactor: Runs the timers; the service's own by default.

    Attributes:
        now: The reactor's time at the last tick, in seconds: cheap, and never more than one
            tick old while anything is timed.
        counters: Totals by word: accepted, ended, every refusal and every drop.
        gates: Listeners to pause while the service is full.
        hooks: Whether the service has a hook of its own, for those asked of every session.
        received: Hands a message to the service, as the value that it says.
        encode: Makes a message of a value; None where messages are bytes.

    Raises:
        PluginError: The service cannot serve that codec.
        ValueError: No codec has that name.
    """

    def __init__(
        self,
        service: SocketService,
        *,
        limits: Limits | None = None,
        access: AccessList | None = None,
        codec: str = "bytes",
        reactor: Any = None,
    ) -> None:
        self.service = service
        self.received: Callable[[Any, bytes], Any] = service.received
        self.encode: Callable[[Any], bytes] | None = None
        self._decode: Callable[[bytes], Any] | None = None
        if codec not in service.served_codecs():
            find_codec(codec)  # a name that nobody knows is told as that
            known, name = " or ".join(service.served_codecs()), type(service).__name__
            raise PluginError(f"{name}'s messages are {known} only, got {codec!r}")
        service.codec = codec
        if codec != "bytes":  # else nothing is to be done for each message
            found = find_codec(codec)
            self.received, self.encode, self._decode = self._read, found.encode, found.decode
        self.limits = limits if limits is not None else Limits()
        self.access = access if access is not None else AccessList()
        self.ledger = Ledger(service)
        self.counters = self.ledger.counters
        self.gates: list[Gate] = []
        self.connections = 0
        self.log = self.ledger.log
        self._reactor = reactor
        per_source = self.limits.max_connections_per_source
        self._sources = SourceLimit(per_source, limit_loopback=self.limits.limit_loopback)
        # Asked for each session: which of the hooks the service has of its own.
        self.hooks = {name: service.overrides(name) for name in ("opened", "closed", "converse")}
        self._rate = AcceptRate(self.limits.accept_rate)
        first_byte = self.limits.first_byte_timeout if service.client_speaks_first else None
        self.first_byte_timeout = first_byte
        self._wheel: DeadlineWheel[LiveSession] = DeadlineWheel(
            tick_for(
                first_byte,
                self.limits.idle_timeout,
                self.limits.session_timeout,
                self.limits.write_timeout,
                LINGER_S,
            )
        )
        self._timer: IDelayedCall | None = None
        self._numbers = 0
        self._listening = 0
        self._gates_open = True
        self._state: Literal["new", "starting", "ready", "failed"] = "new"
        self._starting: list[Deferred[None]] = []
        self._start_failure: Failure | None = None
        self._empty_waiters: list[Deferred[None]] = []
        self._farewells = 0  # ``closed`` hooks that are awaited
        self.accepting = True
        self.now = 0.0

    @property
    def reactor(self) -> Any:
        """The reactor that runs the timers."""
        return self._reactor if self._reactor is not None else self.service.reactor

    # -- the service's life --

    @property
    def is_ready(self) -> bool:
        """Whether ``start`` is done, so that sessions may be handed to the service."""
        return self._state == "ready"

    def start(self) -> Deferred[None]:
        """Call the service's ``start`` once; each call fires when that is done."""
        if self._state == "ready":
            return succeed(None)
        if self._state == "failed":
            return fail(self._start_failure)
        waiter: Deferred[None] = Deferred()
        self._starting.append(waiter)
        if self._state == "new":
            self._state = "starting"
            as_deferred(self.service.start).addCallbacks(self._start_done, self._start_failed)
        return waiter

    def _start_done(self, _: object) -> None:
        self._state = "ready"
        waiting, self._starting = self._starting, []
        for waiter in waiting:
            waiter.callback(None)

    def _start_failed(self, failure: Failure) -> None:
        self._state, self._start_failure = "failed", failure
        waiting, self._starting = self._starting, []
        for waiter in waiting:
            waiter.errback(failure)

    def stop(self) -> Deferred[None]:
        """Call the service's ``stop`` if it was started; the caller has ended every session."""
        self._cancel_timer()
        was_started, self._state = self._state == "ready", "new"
        return as_deferred(self.service.stop) if was_started else succeed(None)

    def value_of(self, session: Any, message: bytes) -> Any:
        """Return what *message* says; one that says nothing ends its session.

        Raises:
            SessionClosed: It said nothing.
        """
        if self._decode is None:
            return message
        try:
            return self._decode(message)
        except CodecError as error:
            session.garbled(error)
            raise SessionClosed(CloseReason.PROTOCOL_ERROR) from None

    def _read(self, session: Any, message: bytes) -> Any:
        """Hand the value of *message* to the service."""
        try:
            value = self.value_of(session, message)
        except SessionClosed:
            return None
        return self.service.received(session, value)

    def listener_started(self) -> None:
        """Count a listener; the first one starts the service where nobody has yet."""
        self._listening += 1
        if self._state == "new":
            self.start().addErrback(self.log_failure)

    def listener_stopped(self) -> None:
        """Count a listener out; after the last one no timer outlives the sessions."""
        self._listening -= 1
        self._rest()

    # -- coming and going --

    def next_number(self) -> int:
        """Return a number that no other session of this service has."""
        self._numbers += 1
        return self._numbers

    def admit(
        self, host: str, *, counted: bool = True, credentials: Credentials | None = None
    ) -> CloseReason | None:
        """Return why a newcomer from *host* is turned away, or None and take its place.

        Args:
            host: The peer's numeric address; of a UNIX peer the user; empty where neither is
                known.
            counted: Whether the limits on sessions at once apply; datagram tables make room
                by eviction instead.
            credentials: Who a UNIX peer is.
        """
        if not self.accepting:
            return CloseReason.SHUTDOWN
        if self._state == "failed":
            self.note("start_failed", host)
            return CloseReason.SERVICE_ERROR
        if credentials is not None:
            is_allowed = self.access.allows_user(credentials)
        else:
            is_allowed = not host or self.access.allows(host)
        if not is_allowed:
            self.note("refused", host)
            return CloseReason.REFUSED
        if counted and self.connections >= self.limits.max_connections:
            self.note("limit_connections", host)
            return CloseReason.LIMIT
        if counted and host and self._sources.is_full(host):
            self.note("limit_per_source", host)
            return CloseReason.LIMIT
        has_rate = self.limits.accept_rate is not None and host
        if has_rate and not self._rate.take(host, self.reactor.seconds()):
            self.note("limit_rate", host)
            return CloseReason.LIMIT
        self.counters["accepted"] += 1
        if counted:
            self._sources.opened(host)
            self.connections += 1
            if self.connections >= self.limits.max_connections:
                self._set_gates(False)
        return None

    def left(self, host: str) -> None:
        """Give back the place that ``admit`` took."""
        self._sources.closed(host)
        self.connections -= 1
        if not self._gates_open:
            self._set_gates(True)

    def _set_gates(self, is_open: bool) -> None:
        self._gates_open = is_open
        if self.gates and not is_open:
            self.note("full")
        for gate in self.gates:
            if is_open:
                gate.resumeAccepting()
            else:
                gate.pauseAccepting()

    def end(self, session: Session, reason: CloseReason) -> None:
        """Count, log and tell the service that *session* is over, in that order."""
        self.counters["ended"] += 1
        noted = reason is CloseReason.EVICTED or (
            reason is CloseReason.PROTOCOL_ERROR and session.transport == "datagram"
        )
        if not noted:  # as often as it was worth: forged sources may not fill the log
            self.ledger.ended(session, reason, self.reactor.seconds())
        self.service.sessions.discard(session)
        if self.is_ready and self.hooks["closed"]:  # not ready: it never heard of the session
            self._farewells += 1
            farewell = as_deferred(self.service.closed, session, reason)
            farewell.addErrback(self.log_failure).addBoth(self._told)
        else:
            self._tell_empty()
        self._rest()

    def _told(self, _: object) -> None:
        self._farewells -= 1
        self._tell_empty()

    def _tell_empty(self) -> None:
        if not self._is_empty:
            return
        waiting, self._empty_waiters = self._empty_waiters, []
        for waiter in waiting:
            waiter.callback(None)

    @property
    def _is_empty(self) -> bool:
        return not self.service.sessions and not self._farewells

    def shut_down(self) -> None:
        """End every session once what it accepted is handled."""
        for session in self._live():
            session.finish_when_handled(CloseReason.SHUTDOWN)

    def cut_off(self) -> int:
        """End every session at once; return how many there were."""
        live = self._live()
        for session in live:
            session.cut_off()
        return len(live)

    def _live(self) -> list[LiveSession]:
        # The service's set is typed for plug-ins; only live sessions are ever put into it.
        return cast(list[LiveSession], list(self.service.sessions))

    def when_empty(self) -> Deferred[None]:
        """Fire once no session is open, and the service has been told of each end."""
        if self._is_empty:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._empty_waiters.remove)
        self._empty_waiters.append(waiter)
        return waiter

    def log_failure(self, failure: Failure) -> None:
        """Log what a plug-in raised, with its traceback."""
        self.ledger.failed(failure)

    def note(self, word: str, peer: str = "") -> None:
        """Count *word*; log it at most once a second, with the number suppressed."""
        if self.ledger.note(word, peer, self.reactor.seconds()):
            self._wake()

    # -- deadlines --

    def time(self, session: LiveSession, when: float | None) -> None:
        """Call the session's ``expired`` at *when*; None for never."""
        if when is None:
            self._wheel.discard(session)
        else:
            self._wheel.put(session, when)
            self._wake()

    def untime(self, session: LiveSession) -> None:
        """Forget the session's deadline."""
        self._wheel.discard(session)

    def _wake(self) -> None:
        if self._timer is None:
            self.now = self.reactor.seconds()
            self._timer = self.reactor.callLater(self._wheel.tick_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.now = self.reactor.seconds()
        for session in self._wheel.expire(now):
            try:
                self.time(session, session.expired(now))
            except Exception:  # one session's fault must not stop the others' deadlines
                self.log.failure("the deadline of {session} failed", session=session)
        if self.ledger.catch_up(now) or len(self._wheel):
            self._wake()

    def _rest(self) -> None:
        if not self._listening and not self.service.sessions and not len(self._wheel):
            self._cancel_timer()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def as_carrier(
    service: SocketService | Carrier,
    limits: Limits | None,
    access: AccessList | None,
    codec: str,
    reactor: Any,
) -> Carrier:
    """Return *service* if it is a carrier, or a new carrier for it."""
    if isinstance(service, Carrier):
        if limits is not None or access is not None or codec != "bytes":
            raise TypeError("a carrier has its own limits, access list and codec")
        return service
    return Carrier(service, limits=limits, access=access, codec=codec, reactor=reactor)
