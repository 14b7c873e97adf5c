"""Connections of a Twisted factory that a plug-in handed over: our limits, deadlines and logs.

The inner protocol sees a transport as ever, wrapped by Twisted's own ProtocolWrapper. Messages
are its own affair, so only bytes are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from twistedsock.addresses import FiveTuple
from twistedsock.errors import CloseReason
from twistedsock.protocols.carrier import Carrier, LiveSession
from twistedsock.protocols.twisted_names import close_reason, five_tuple_of


class ForeignSession(LiveSession):
    """What listings and logs show of a foreign connection."""

    __slots__ = ("_carrier", "_congested_at", "_finishing", "_lost", "_transport", "last_active")

    transport = "stream"

    def __init__(
        self, carrier: Carrier, five_tuple: FiveTuple, transport: ForeignConnection
    ) -> None:
        now = carrier.reactor.seconds()
        super().__init__(carrier.next_number(), five_tuple, now)
        self._carrier = carrier
        self._transport: Any = transport  # it proxies the real one's methods, such as abort
        self._congested_at: float | None = None
        self._finishing = self._lost = False
        self.last_active = now

    budget = None

    @property
    def congested(self) -> bool:
        """True while the peer is not read, because it does not read."""
        return self._congested_at is not None

    def send(self, message: bytes) -> bool:
        """Write *message* as it is, beside the inner protocol; False, counted, after the end."""
        if self.reason is not None:
            self.dropped += 1
            return False
        self._transport.write(message)
        return True

    def close(self) -> None:
        """Ask the transport to flush and close."""
        self.finish(CloseReason.CLOSED)

    def abort(self) -> None:
        """Drop the connection at once."""
        if not self._lost:
            self.reason = self.reason or CloseReason.CLOSED
            self._transport.abortConnection()

    def drained(self) -> Deferred[None]:
        """Fire at once: back-pressure is between the inner protocol and its transport."""
        return succeed(None)

    def prove(self) -> None:
        """Do nothing: a connected peer has proved itself."""

    def __anext__(self) -> Awaitable[bytes]:
        """Refuse: the messages are the inner protocol's."""
        raise TypeError("a session of a Twisted factory has no messages of its own")

    def finish(self, reason: CloseReason) -> None:
        """Close for *reason*, with a deadline for flushing."""
        if self._finishing or self._lost:
            return
        self._finishing = True
        if self.reason is None:
            self.reason = reason
        self._transport.loseConnection()
        carrier = self._carrier
        carrier.time(self, carrier.reactor.seconds() + carrier.limits.write_timeout)

    def finish_when_handled(self, reason: CloseReason) -> None:
        """Close for *reason*: nothing of it is kept here."""
        self.finish(reason)

    def cut_off(self) -> None:
        """Drop the connection at once: the daemon stops now."""
        if not self._lost:
            self.reason = CloseReason.SHUTDOWN_ABORTED
            self._transport.abortConnection()

    def congest(self, *, is_congested: bool) -> None:
        """Note that more than the high-water mark waits to be sent, or that all of it is sent."""
        self._congested_at = self._carrier.reactor.seconds() if is_congested else None
        if not (self._finishing or self._lost):
            self._carrier.time(self, self.deadline())

    def lost(self, reason: CloseReason) -> None:
        """The connection is gone."""
        self._lost = True
        if self.reason is None:
            self.reason = reason
        self._carrier.untime(self)
        self._carrier.end(self, self.reason)

    def deadline(self) -> float | None:
        """Return when the next time-out would strike, or None."""
        limits = self._carrier.limits
        times = []
        if limits.idle_timeout is not None:
            times.append(self.last_active + limits.idle_timeout)
        if limits.session_timeout is not None:
            times.append(self.opened_at + limits.session_timeout)
        if self._congested_at is not None:
            times.append(self._congested_at + limits.write_timeout)
        return min(times, default=None)

    def expired(self, now: float) -> float | None:
        """Act on the time-out that has struck at *now*; return the next deadline."""
        if self._finishing:  # it had its time to flush
            self._transport.abortConnection()
            return None
        deadline = self.deadline()
        if deadline is None or deadline > now:
            return deadline
        limits = self._carrier.limits
        if self._congested_at is not None and now >= self._congested_at + limits.write_timeout:
            self.reason = CloseReason.WRITE_TIMEOUT
            self._transport.abortConnection()
            return None
        limit = limits.session_timeout
        over = limit is not None and now >= self.opened_at + limit
        self.finish(CloseReason.SESSION_TIMEOUT if over else CloseReason.IDLE_TIMEOUT)
        return now + limits.write_timeout


@implementer(IPushProducer)
class _Brake:
    """Stands at the transport while the inner protocol has no producer of its own there.

    Most protocols write without looking. A peer that sends and does not read would make such a
    one hold any number of bytes, so above the high-water mark it is not read.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: ForeignConnection) -> None:
        self._connection = connection

    def pauseProducing(self) -> None:
        """The transport holds more than the high-water mark."""
        self._connection.hold(is_held=True)

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self._connection.hold(is_held=False)

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""


class ForeignConnection(ProtocolWrapper):
    """Carries one connection of a foreign protocol."""

    def __init__(self, carrier: Carrier, host: str, inner: Any) -> None:
        super().__init__(self, inner)  # type: ignore[arg-type]
        self.wrappedProtocol: Any = inner
        self._carrier = carrier
        self._host = host
        self.session: ForeignSession | None = None
        self._has_brake = self._is_held = self._is_paused = self._peer_ended = False
        if IHalfCloseableProtocol.providedBy(inner):
            alsoProvides(self, IHalfCloseableProtocol)

    # ProtocolWrapper reports to its factory; there is none here but the connection itself.
    def registerProtocol(self, protocol: object) -> None:
        """Nothing to do: the carrier keeps the sessions."""

    unregisterProtocol = registerProtocol

    def makeConnection(self, transport: Any) -> None:
        """Open the session, then connect the inner protocol."""
        carrier = self._carrier
        half_close = IHalfCloseableProtocol.providedBy(self)
        session = self.session = ForeignSession(carrier, five_tuple_of(transport), self)
        carrier.service.sessions.add(session)
        carrier.time(session, session.deadline())
        if hasattr(transport, "setHighWater"):  # ours; stock transports have their own mark
            transport.setHighWater(carrier.limits.write_high_water)
        transport.registerProducer(_Brake(self), True)
        self._has_brake = True
        try:
            super().makeConnection(transport)
        except BaseException:  # a plug-in is called: its failure ends this connection alone
            self._failed()
        if half_close:  # makeConnection replaced what this object provides
            alsoProvides(self, IHalfCloseableProtocol)

    def _failed(self) -> None:
        self._carrier.log_failure(Failure())
        if self.session is not None:
            self.session.reason = CloseReason.SERVICE_ERROR
            self.session.abort()

    # -- back-pressure --

    def hold(self, *, is_held: bool) -> None:
        """Read the peer no more, or again, whatever the inner protocol wants."""
        session = self.session
        if session is None or is_held == self._is_held:
            return
        self._is_held = is_held
        session.congest(is_congested=is_held)
        if not self._is_paused:
            transport: Any = self.transport
            if is_held:
                transport.pauseProducing()
            else:
                transport.resumeProducing()

    def pauseProducing(self) -> None:
        """Read the peer no more: the inner protocol wants it so."""
        self._is_paused = True
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read the peer again, unless it does not read itself."""
        self._is_paused = False
        transport: Any = self.transport
        if not self._is_held:
            transport.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Leave back-pressure to a producer of the inner protocol."""
        self._remove_brake()
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Take back-pressure over again."""
        if self._has_brake:
            return
        super().unregisterProducer()
        transport: Any = self.transport
        if self.session is not None and not self.disconnecting:
            transport.registerProducer(_Brake(self), True)
            self._has_brake = True

    def _remove_brake(self) -> None:
        if self._has_brake:
            self._has_brake = False
            transport: Any = self.transport
            transport.unregisterProducer()  # a transport with a producer does not close
            self.hold(is_held=False)

    def loseConnection(self) -> None:
        """Flush and close, for the inner protocol."""
        session = self.session
        if session is not None and session.reason is None:
            ended = self._peer_ended
            session.reason = CloseReason.PEER_CLOSED if ended else CloseReason.CLOSED
        self._remove_brake()
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        """Flush and half-close, for the inner protocol."""
        self._remove_brake()
        transport: Any = self.transport
        transport.loseWriteConnection()

    # -- bytes and ends --

    def dataReceived(self, data: bytes) -> None:
        """Count and pass on."""
        self._moved(incoming=len(data))
        try:
            super().dataReceived(data)
        except BaseException:  # a plug-in is called: its failure ends this connection alone
            self._failed()

    def write(self, data: bytes) -> None:
        """Count and pass on."""
        self._moved(outgoing=len(data))
        super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Count and pass on."""
        self.write(b"".join(data))

    def _moved(self, incoming: int = 0, outgoing: int = 0) -> None:
        session = self.session
        if session is not None:
            session.bytes_in += incoming
            session.bytes_out += outgoing
            session.last_active = self._carrier.now

    def readConnectionLost(self) -> None:
        """Pass on."""
        self._peer_ended = True
        try:
            self.wrappedProtocol.readConnectionLost()
        except BaseException:  # a plug-in is called: its failure ends this connection alone
            self._failed()

    def writeConnectionLost(self) -> None:
        """Pass on."""
        try:
            self.wrappedProtocol.writeConnectionLost()
        except BaseException:  # a plug-in is called: its failure ends this connection alone
            self._failed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the inner protocol, then end the session."""
        carrier = self._carrier
        carrier.left(self._host)
        try:
            super().connectionLost(reason)
        except BaseException:  # a plug-in is called: the daemon goes on
            carrier.log_failure(Failure())
        session, self.session = self.session, None
        if session is not None:
            session.lost(close_reason(reason))
