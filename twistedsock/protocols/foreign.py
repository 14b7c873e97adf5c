"""Connections of a Twisted factory that a plug-in handed over: our limits, deadlines and logs.

The inner protocol sees a transport as ever, wrapped by Twisted's own ProtocolWrapper. Messages
are its own affair, so only bytes are counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from twistedsock.addresses import FiveTuple
from twistedsock.errors import CloseReason
from twistedsock.protocols.carrier import Carrier, LiveSession
from twistedsock.protocols.twisted_names import close_reason, five_tuple_of


class ForeignSession(LiveSession):
    """What listings and logs show of a foreign connection."""

    __slots__ = ("_carrier", "_transport", "last_active")

    transport = "stream"

    def __init__(self, carrier: Carrier, five_tuple: FiveTuple, transport: Any) -> None:
        now = carrier.reactor.seconds()
        super().__init__(carrier.next_number(), five_tuple, now)
        self._carrier = carrier
        self._transport = transport
        self.last_active = now

    congested = False
    budget = None

    def send(self, message: bytes) -> bool:
        """Write *message* as it is, past the inner protocol."""
        self._transport.write(message)
        return True

    def close(self) -> None:
        """Ask the transport to flush and close."""
        self.finish(CloseReason.CLOSED)

    def abort(self) -> None:
        """Drop the connection at once."""
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
        self.reason = CloseReason.SHUTDOWN_ABORTED
        self._transport.abortConnection()

    def deadline(self) -> float | None:
        """Return when the next time-out would strike, or None."""
        limits = self._carrier.limits
        times = []
        if limits.idle_timeout is not None:
            times.append(self.last_active + limits.idle_timeout)
        if limits.session_timeout is not None:
            times.append(self.opened_at + limits.session_timeout)
        return min(times, default=None)

    def expired(self, now: float) -> float | None:
        """Act on the time-out that has struck at *now*; return the next deadline."""
        if self.reason is not None:  # it had its time to flush
            self._transport.abortConnection()
            return None
        deadline = self.deadline()
        if deadline is None or deadline > now:
            return deadline
        limit = self._carrier.limits.session_timeout
        over = limit is not None and now >= self.opened_at + limit
        self.finish(CloseReason.SESSION_TIMEOUT if over else CloseReason.IDLE_TIMEOUT)
        return now + self._carrier.limits.write_timeout


class ForeignConnection(ProtocolWrapper):
    """Carries one connection of a foreign protocol."""

    def __init__(self, carrier: Carrier, host: str, inner: Any) -> None:
        super().__init__(self, inner)  # type: ignore[arg-type]
        self.wrappedProtocol: Any = inner
        self._carrier = carrier
        self._host = host
        self.session: ForeignSession | None = None
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
        session = self.session = ForeignSession(carrier, five_tuple_of(transport), transport)
        carrier.service.sessions.add(session)
        carrier.time(session, session.deadline())
        super().makeConnection(transport)
        if half_close:  # makeConnection replaced what this object provides
            alsoProvides(self, IHalfCloseableProtocol)

    def dataReceived(self, data: bytes) -> None:
        """Count and pass on."""
        self._moved(incoming=len(data))
        try:
            super().dataReceived(data)
        except Exception:  # a plug-in is called: its failure ends this connection alone
            self._carrier.log_failure(Failure())
            if self.session is not None:
                self.session.reason = CloseReason.SERVICE_ERROR
                self.session.abort()

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
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Pass on."""
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the inner protocol, then end the session."""
        carrier = self._carrier
        carrier.left(self._host)
        try:
            super().connectionLost(reason)
        except Exception:  # a plug-in is called: the daemon goes on
            carrier.log_failure(Failure())
        session, self.session = self.session, None
        if session is not None:
            carrier.untime(session)
            carrier.end(session, session.reason or close_reason(reason))
