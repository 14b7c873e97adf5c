"""Round trips against an echo service, in the reactor: the shell around ``probing``.

Moves bytes between the probe and its socket, takes the time right before each send and right
after each receive, and waits. Knows neither schedule nor counts: those are ``probing``'s.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from twistedsock.addresses import Address
from twistedsock.client.conversation import Conversation, has_end
from twistedsock.client.direct import DirectSocket, open_direct
from twistedsock.client.failures import not_received, not_sent
from twistedsock.client.markers import (
    MAX_NUMBER,
    MIN_SIZE_BYTES,
    Finder,
    MessageFinder,
    Pattern,
)
from twistedsock.client.options import Options, check
from twistedsock.client.probing import ProbeResult, Probing
from twistedsock.errors import (
    AddressError,
    ClientError,
    PeerClosed,
    PeerProtocolError,
    UnitError,
)
from twistedsock.units import Rate, parse_rate
from twistedsock.wire.framing import MAX_MESSAGE_BYTES, Framer, make_framer

CLOSED_LOOP = "max"  # the rate that is none: as fast as answers come
MAX_RATE = 1_000_000.0  # a second: above it the number is a slip of the pen
MAX_DATAGRAM_BYTES = 65_507  # what UDP over IPv4 carries
MAX_SIZE_BYTES = 1024 * 1024  # of a stream's or a record's request
CONNECT_TIMEOUT_S = 10.0  # or the time-out for answers, where that is longer
SENDS_A_TURN = 64  # so that answers are read, and timers run, between the requests of a burst
READS_A_TURN = 128
STOP_PATIENCE_S = 1.0  # for what is in flight, once somebody wants the end
_GONE = (errno.ECONNRESET, errno.EPIPE)


@dataclass(frozen=True, slots=True)
class Settings:
    """What to probe, and how; right in itself. Made by ``settle``."""

    address: Address
    count: int | None
    duration_s: float | None
    rate: Rate | None
    size_bytes: int
    timeout_s: float
    framing: str
    options: Options

    @property
    def rate_text(self) -> str:
        """The rate as it is told."""
        return CLOSED_LOOP if self.rate is None else str(self.rate)


def settle(
    address: str | Address,
    *,
    count: int | None = None,
    duration_s: float | None = None,
    rate: str | Rate = "10/s",
    size_bytes: int = 64,
    timeout_s: float = 1.0,
    framing: str = "chunk",
    options: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of a probe; see ``probe`` for what they are.

    Raises:
        AddressError, OptionError, UnitError, FrameError, ValueError: One of them is wrong.
    """
    where = Conversation(address, framing).address
    if where.kind == "packet":
        raise AddressError(f"{where}: frames are not echoed; probe a host, such as udp:HOST:7")
    largest = MAX_DATAGRAM_BYTES if where.kind in ("datagram", "raw") else MAX_SIZE_BYTES
    if not MIN_SIZE_BYTES <= size_bytes <= largest:
        raise UnitError(
            f"size: must be {MIN_SIZE_BYTES} to {largest} bytes for {where.scheme},"
            f" got {size_bytes}"
        )
    if count is not None and not 1 <= count <= MAX_NUMBER:
        raise UnitError(f"count: must be 1 or more, got {count}")
    for name, seconds in (("duration", duration_s), ("timeout", timeout_s)):
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise UnitError(f"{name}: must be above zero, got {seconds}")
    if rate == CLOSED_LOOP:
        pace = None
    else:
        try:
            pace = rate if isinstance(rate, Rate) else parse_rate(rate)
        except UnitError as error:
            raise UnitError(f'rate: {error}, or "{CLOSED_LOOP}"') from None
        if pace.per_second > MAX_RATE:
            raise UnitError(f"rate: must be at most {MAX_RATE:.0f}/s, got {rate!s}")
    if where.kind == "stream":
        make_framer(framing).encode(Pattern(size_bytes).request(0))
    checked = check(where, options)
    return Settings(where, count, duration_s, pace, size_bytes, timeout_s, framing, checked)


def probe(
    reactor: Any,
    address: str | Address,
    *,
    count: int | None = 10,
    duration_s: float | None = None,
    rate: str | Rate = "10/s",
    size_bytes: int = 64,
    timeout_s: float = 1.0,
    framing: str = "chunk",
    options: Mapping[str, object] | None = None,
) -> Deferred[ProbeResult]:
    """Ask the echo service at *address*; fire with what was found. Cancel it to give up.

    Args:
        reactor: Runs it.
        address: Such as ``udp:[::1]:7`` or ``unix:/run/echo.sock``.
        count: How many requests; None: until *duration_s* is over.
        duration_s: How long to send, in seconds; None: until *count* is reached.
        rate: Such as ``100/s``: when requests are due, whatever becomes of others. ``max`` sends
            the next one when the one before it is answered or lost.
        size_bytes: Of each request: 22 to 65,507, and on connections to 1 MiB.
        timeout_s: An answer later than that is lost.
        framing: How messages are cut from a stream: a key of ``wire.framing.FRAMINGS``. With
            ``chunk`` answers are found wherever they are.
        options: Socket options by name, set before the socket is connected.

    Raises:
        AddressError, OptionError, UnitError, FrameError, ValueError: An argument is wrong.
        CannotResolve, Refused, Unreachable, TimedOut, PeerClosed: There is no connection. One
            that ends later is the result's ``ended_by``.
        CannotSend: The kernel takes no such message: larger than what goes there.
        PeerProtocolError: What came is not of that framing.
    """
    if count is None and duration_s is None:
        raise ValueError("a probe needs a count or a duration_s, to end")
    settings = settle(
        address,
        count=count,
        duration_s=duration_s,
        rate=rate,
        size_bytes=size_bytes,
        timeout_s=timeout_s,
        framing=framing,
        options=options,
    )
    return Probe(reactor, settings).start()


class Probe:
    """One probe.

    Args:
        reactor: Runs it.
        settings: What to do.
        clock: Returns seconds; never goes back.

    Attributes:
        core: The counts so far.
        has_begun: Whether there is a connection, and the first request was due.
    """

    def __init__(
        self, reactor: Any, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._clock = clock
        pattern = Pattern(settings.size_bytes)
        is_stream = settings.address.kind == "stream"
        in_chunks = is_stream and settings.framing == "chunk"
        self._framer: Framer | None = None
        if is_stream and not in_chunks:
            self._framer = make_framer(settings.framing, MAX_MESSAGE_BYTES + MAX_SIZE_BYTES)
        self._has_end = has_end(settings.address)
        self._done: Deferred[None] = Deferred()
        self._socket: Any = None  # a DirectSocket from the connection on
        self._rest = b""  # of a request that went out in part
        self._is_blocked = False
        self._stops = False
        self._timer: Any = None
        self._stop_timer: Any = None
        self._ended_by: ClientError | None = None
        self.has_begun = False
        self.core = Probing(
            pattern,
            Finder(pattern) if in_chunks else MessageFinder(pattern),
            timeout_s=settings.timeout_s,
            rate=None if settings.rate is None else settings.rate.per_second,
            count=settings.count,
            duration_s=settings.duration_s,
        )

    def start(self) -> Deferred[ProbeResult]:
        """Connect and begin; fire with the result."""
        self._running = Deferred.fromCoroutine(self._run())
        return self._running

    def stop(self) -> None:
        """End in order: ask nothing more, and wait a moment for what is in flight.

        Called again, do not wait either; before there is a connection, fail with CancelledError.
        """
        if not self.has_begun:
            self._running.cancel()
        elif self._stops:
            self._finish()
        else:
            self._stops = True
            self.core.stop()
            self._stop_timer = self._reactor.callLater(STOP_PATIENCE_S, self._finish)
            self._turn()

    async def _run(self) -> ProbeResult:
        settings = self._settings
        patience_s = max(CONNECT_TIMEOUT_S, settings.timeout_s)
        opened: DirectSocket = await open_direct(
            self._reactor, settings.address, patience_s, settings.options
        )
        self._socket = opened
        try:
            self.has_begun = True
            self.core.begin(self._clock())
            opened.watch(self._turn)
            self._turn()
            await self._done
            return self.core.result(
                self._clock(),
                str(settings.address),
                settings.address.scheme,
                settings.rate_text,
                dropped=opened.dropped,
                ended_by=self._ended_by,
            )
        finally:
            for timer in (self._timer, self._stop_timer):
                if timer is not None and timer.active():
                    timer.cancel()
            await opened.close()

    def _turn(self) -> None:
        """Take what has come, send what is due, and wait for what is next."""
        if self._done.called:
            return
        try:
            self._receive()
            self._send()
        except ClientError as error:
            if error.code == "EMSGSIZE":  # no other request will go there either
                self._done.errback(error)
                return
            if not self.core.is_over(self._clock()):
                self._ended_by = error
            self._finish()
            return
        except PeerProtocolError as error:
            self._done.errback(error)
            return
        now = self._clock()
        self.core.expire(now)
        if self.core.is_over(now, is_blocked=self._is_blocked):
            self._finish()
            return
        self._sleep(self.core.wake_at(now, is_blocked=self._is_blocked) - now)

    def _finish(self) -> None:
        if not self._done.called:
            self._done.callback(None)

    def _sleep(self, seconds: float) -> None:
        if seconds == math.inf:
            return
        seconds = max(seconds, 0.0)
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._reactor.callLater(seconds, self._turn)

    # -- to the peer --

    def _send(self) -> None:
        if self._rest and not self._send_rest():
            return
        for _ in range(SENDS_A_TURN):
            now = self._clock()
            if self.core.due(now) <= 0:
                break
            request = self.core.request()
            if self._framer is not None:
                request = self._framer.encode(request)
            now = self._clock()
            sent = self._try(request)
            if sent is None:
                break
            self.core.sent(now)
            if sent < len(request):
                self._rest = request[sent:]
                self._block(True)
                break

    def _send_rest(self) -> bool:
        sent = self._try(self._rest)
        if sent is None:
            return False
        self._rest = self._rest[sent:]
        self._block(bool(self._rest))
        return not self._rest

    def _try(self, data: bytes) -> int | None:
        """Return how much of *data* the kernel took; None where it has no room now."""
        try:
            sent: int = self._socket.send(data)
        except BlockingIOError:
            self._block(True)
            return None
        except OSError as error:
            return self._not_sent(data, error.errno or 0)
        self._block(False)
        return sent

    def _not_sent(self, data: bytes, number: int) -> int:
        if self._has_end:
            if number in _GONE:
                raise PeerClosed(
                    self._settings.address, os.strerror(number), errno.errorcode[number]
                )
            raise not_sent(self._settings.address, number)
        if number == errno.EMSGSIZE:
            raise not_sent(self._settings.address, number)
        # An error of an earlier datagram, told in place of sending this one; or of this one,
        # which may come to nothing. Either way the next may do better.
        self.core.failed(errno.errorcode.get(number, str(number)))
        if number == errno.ECONNREFUSED:
            try:
                return int(self._socket.send(data))
            except OSError:
                pass
        return len(data)

    def _block(self, is_blocked: bool) -> None:
        self._is_blocked = is_blocked
        self._socket.want_writing(is_blocked)

    # -- from the peer --

    def _receive(self) -> None:
        for _ in range(READS_A_TURN):
            try:
                data, age_s = self._socket.receive()
            except BlockingIOError:
                return
            except OSError as error:
                number = error.errno or 0
                if self._has_end:
                    raise not_received(self._settings.address, number) from None
                self.core.failed(errno.errorcode.get(number, str(number)))
                continue
            now = self._clock() - age_s
            if data is None:
                raise PeerClosed(self._settings.address, "the peer has finished sending")
            if self._framer is None:
                self.core.heard(data, now)
                continue
            for message in self._messages(data):
                self.core.heard(message, now)

    def _messages(self, data: bytes) -> list[bytes]:
        assert self._framer is not None
        try:
            return self._framer.feed(data)
        except PeerProtocolError as error:
            raise PeerProtocolError(f"{self._settings.address}: {error}") from None
