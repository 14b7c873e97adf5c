"""The session of a connection: sending, closing in good order, deadlines.

Knows any stream transport that has Twisted's producers, half-close and abort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import ISSLTransport

from twistedsock.addresses import Credentials, FiveTuple, Kind
from twistedsock.errors import CloseReason, CodecError, PeerProtocolError
from twistedsock.protocols.carrier import LINGER_S, Carrier
from twistedsock.protocols.delivery import ServedSession
from twistedsock.service import NO_METADATA
from twistedsock.units import quote_bytes
from twistedsock.wire.framing import Framer

CORK_BYTES = 64 * 1024  # of answers to one read may be held back, to go out in one call
OVERRUN = 8  # a service that sends on and on while congested may hold this many high waters


class StreamSession(ServedSession):
    """A connection. Made by ServiceProtocol; services see it as a Session."""

    __slots__ = (
        "_congested_at",
        "_corked",
        "_corked_bytes",
        "_encode",
        "_host",
        "_overrun",
        "_reading",
        "_transport",
        "_write",
        "_write_ended",
    )

    transport: ClassVar[Kind] = "stream"

    def __init__(
        self, carrier: Carrier, host: str, five_tuple: FiveTuple, transport: Any, framer: Framer
    ) -> None:
        # Any: Twisted's stream transports share no one interface that has all of half-close,
        # abort, producers and addresses.
        super().__init__(carrier, five_tuple)
        self._host = host  # as admitted: its place is given back under this key
        self._transport = transport
        self._write = transport.write
        self._encode: Callable[[Any], bytes] = framer.encode
        to_bytes = carrier.encode
        if to_bytes is not None:
            self._encode = lambda value: framer.encode(to_bytes(value))
        self._reading = True
        self._write_ended = False
        self._overrun = 0
        self._congested_at = 0.0
        self._corked: list[bytes] | None = None
        self._corked_bytes = 0

    @property
    def credentials(self) -> Credentials | None:
        """Who a UNIX peer was when it connected; None for others."""
        return getattr(self._transport, "credentials", None)

    @property
    def budget(self) -> int | None:
        """None: a connected peer has proved itself by its handshake."""
        return None

    def prove(self) -> None:
        """Do nothing: a connected peer has proved itself by its handshake."""

    def send(self, message: Any) -> bool:
        """Send *message* in the session's framing; False, counted, after the end."""
        if self._held and not self._may_send(message):
            self.dropped += 1
            return False
        # By way of locals: Python 3.11 calls what a slot holds at twice the price.
        encode, write = self._encode, self._write
        frame = encode(message)
        write(frame)
        self.bytes_out += len(frame)
        self.messages_out += 1
        return True

    def send_with_descriptors(self, message: Any, descriptors: Sequence[int]) -> bool:
        """Send *message* with copies of *descriptors*; see ``Session``."""
        carry = getattr(self._transport, "writeWithDescriptors", None)
        if carry is None or self._lost:
            return self.send(message) if carry else super().send_with_descriptors(message, ())
        was_corked = self._corked is not None
        self._uncork()
        self._write = partial(carry, descriptors)
        try:
            return self.send(message)
        finally:
            if not self._lost:
                self._write = self._transport.write
            if was_corked:
                self._cork()

    def _may_send(self, message: Any) -> bool:
        """Return whether *message* may be sent by a session that is held."""
        if self._closing or self._lost:
            return False
        if self._congested:  # the service sends on and on to a peer that does not read
            self._overrun += len(self._encode(message))
            if self._overrun > OVERRUN * self._carrier.limits.write_high_water:
                self._carrier.note("overrun", self.peer)
                self._abort(CloseReason.LIMIT)
                return False
        return True

    def _cork(self) -> None:
        if self._corked is None and not self._lost:
            self._corked = []
            self._write = self._hold_back

    def _hold_back(self, frame: bytes) -> None:
        corked = self._corked
        assert corked is not None
        corked.append(bytes(memoryview(frame)))  # what is no bytes fails here, as write would
        self._corked_bytes += len(frame)
        if self._corked_bytes > CORK_BYTES:
            self._uncork()
            self._cork()

    def _uncork(self) -> None:
        corked = self._corked
        if corked is None:
            return
        self._corked, self._corked_bytes = None, 0
        if not self._lost:
            self._write = self._transport.write
            if corked:
                self._transport.writeSequence(corked)

    def abort(self) -> None:
        """End the session at once; what is unsent is lost."""
        self._abort(CloseReason.CLOSED)

    def _abort(self, reason: CloseReason) -> None:
        if not self._lost:
            self._corked = None
            self._stop_delivery(reason)
            self._transport.abortConnection()

    def _finish(self, reason: CloseReason) -> None:
        if self._closing or self._lost:
            return
        self._uncork()
        self._stop_delivery(reason)
        transport = self._transport
        transport.unregisterProducer()
        # TLS ends both ways at once, and so does a peer that has finished already. Otherwise
        # only our side ends: closing while the peer still sends would answer it with a reset,
        # which may overtake and destroy what we sent last (RFC 1122 section 4.2.2.13).
        if self._peer_ended or self._has_tls:
            if transport.loseConnection():  # ours tell when that is as good as done
                return
        else:
            self._read(True)
            transport.loseWriteConnection()
        if not self._lost:
            now = self._carrier.reactor.seconds()
            self._carrier.time(self, now + self._carrier.limits.write_timeout)

    def _adjust_reading(self) -> None:
        self._read(self._wants_input or self._closing)

    def _read(self, reading: bool) -> None:
        if reading != self._reading and not self._lost and not self._peer_ended:
            self._reading = reading
            if reading:
                self._transport.resumeProducing()
            else:
                self._transport.pauseProducing()

    # -- deadlines --

    def deadline(self, now: float) -> float | None:
        """Return when to look at this session's time-outs again, or None."""
        limits, carrier = self._carrier.limits, self._carrier
        times = [self._idle_deadline(now)]
        if limits.session_timeout is not None:
            times.append(self.opened_at + limits.session_timeout)
        if carrier.first_byte_timeout is not None and not self.bytes_in:
            times.append(self.opened_at + carrier.first_byte_timeout)
        if self._congested:
            times.append(self._congested_at + limits.write_timeout)
        return min((each for each in times if each is not None), default=None)

    def expired(self, now: float) -> float | None:
        """Act on the time-out that has struck at *now*; return when to look again."""
        if self._lost:
            return None
        if self._closing:  # it had its time to flush, or to end its side
            in_order = (CloseReason.CLOSED, CloseReason.PEER_CLOSED)
            if not self._write_ended and self.reason in in_order:
                self.reason = CloseReason.WRITE_TIMEOUT
            self._transport.abortConnection()
            return None
        deadline = self.deadline(now)
        if deadline is None or deadline > now:
            return deadline
        limits, carrier = self._carrier.limits, self._carrier
        if self._congested and now >= self._congested_at + limits.write_timeout:
            self._abort(CloseReason.WRITE_TIMEOUT)
            return None
        if limits.session_timeout is not None and now >= self.opened_at + limits.session_timeout:
            self._finish(CloseReason.SESSION_TIMEOUT)
        elif carrier.first_byte_timeout is not None and not self.bytes_in:
            waited = now >= self.opened_at + carrier.first_byte_timeout
            self._finish(CloseReason.FIRST_BYTE_TIMEOUT if waited else CloseReason.IDLE_TIMEOUT)
        else:
            self._finish(CloseReason.IDLE_TIMEOUT)
        return None if self._lost else now + limits.write_timeout

    @property
    def _has_tls(self) -> bool:
        return bool(ISSLTransport.providedBy(self._transport))

    # -- called by the protocol --

    def congest(self) -> None:
        """More than the high-water mark waits to be sent."""
        if self._congested:
            return  # Twisted's transports tell it at every write above the mark, not only once
        now = self._congested_at = self._carrier.reactor.seconds()
        self._overrun = 0
        self._set_congested(True)
        self._carrier.time(self, self.deadline(now))

    def decongest(self) -> None:
        """Everything has been sent."""
        if self._congested:
            self._set_congested(False)

    def peer_ended(self, framer: Framer) -> None:
        """The peer has finished sending."""
        if self._closing:
            self._peer_ended = True
            self._transport.loseConnection()
            return
        self._peer_ended = True
        try:
            last = framer.end()
        except PeerProtocolError as error:
            self.violated(error)
            return
        if last:
            # A conversation is resumed from inside _take, and must find the end behind it.
            self._end_pending = self._conversing
            self._take(last, NO_METADATA)
        self._input_over()

    def violated(self, error: PeerProtocolError, data: bytes = b"") -> None:
        """The peer broke the framing: what was whole before is handled, then the session ends."""
        if error.completed:
            self._take(error.completed, NO_METADATA)
        self._tell(error, data)
        self.finish_when_handled(CloseReason.PROTOCOL_ERROR)

    def garbled(self, error: CodecError) -> None:
        """End the session: what came last cannot be read. What came before is answered."""
        self._tell(error)
        self._finish(CloseReason.PROTOCOL_ERROR)
        if self._lost:  # it has ended already; what was accepted behind the fault is dropped
            self._stop_delivery(CloseReason.PROTOCOL_ERROR)

    def _tell(self, error: Exception, data: bytes = b"") -> None:
        read = "; read {data}" if data else ""  # of a message or an end there is nothing to show
        self._carrier.log.debug(
            "{service}: {peer} broke the protocol: {error}" + read,
            service=self._carrier.service.name,
            peer=self.peer,
            error=str(error),
            data=quote_bytes(data),
        )

    def write_ended(self) -> None:
        """Our half is flushed and closed; the peer has a while to close its own."""
        self._write_ended = True
        self._carrier.time(self, self._carrier.reactor.seconds() + LINGER_S)

    def lost(self, reason: CloseReason, framer: Framer) -> None:
        """The connection is gone."""
        self._lost = True
        self._write = _write_nowhere
        is_news = not self._closing and not self._peer_ended
        if is_news and reason is CloseReason.PEER_CLOSED and self._has_tls:
            # TLS has no half-close: only now is it told that the peer has finished sending.
            self._congested = False
            self.reason = reason
            self.peer_ended(framer)
        self._transport_lost(reason)

    def _conclude(self) -> None:
        # Only now: a peer that comes, makes the service work and goes would else have any number
        # of sessions at once.
        if not self._over:
            self._carrier.left(self._host)
        super()._conclude()


class SeqpacketSession(StreamSession):
    """A SEQPACKET connection: each message is a record."""

    __slots__ = ()

    transport: ClassVar[Kind] = "seqpacket"

    def send(self, message: Any) -> bool:
        """Send *message* as one record; False, counted, after the end or where it is too long."""
        try:
            return super().send(message)
        except MessageLengthError:
            self._carrier.note("send_too_long", self.peer)
            self.dropped += 1
            return False

    def _cork(self) -> None:
        """Hold nothing back: records are not joined, and each tells whether it could be sent."""


def _write_nowhere(data: bytes) -> None:
    """Stand in for the transport of a lost connection, so that it can be freed."""
