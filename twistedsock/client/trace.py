"""The path to a host: echo requests that may pass one router, two, three, and who says what.

One socket; each request has its own time to live, and the error queue tells where it ended.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twistedsock.client.ping import (
    DEFAULT_SIZE_BYTES,
    check_common,
    check_number,
    targets_of,
    told_by,
)
from twistedsock.client.pinging import Target, Told, errors_as_json, less_pending
from twistedsock.client.round_trips import RoundTrips, Summary
from twistedsock.errors import CannotResolve
from twistedsock.transports.ancillary import ICMP, ICMP6, NetworkError
from twistedsock.transports.echo_socket import EchoSocket

MAX_HOPS = 30  # as traceroute(8) has it
MAX_COUNT = 100
# Time to live exceeded in transit (RFC 792), hop limit likewise (RFC 4443 section 3.3).
EXPECTED = {(ICMP, 11, 0), (ICMP6, 3, 0)}
GAP_S = 0.05  # between two requests: routers limit how many errors they send


@dataclass(frozen=True, slots=True)
class Hop:
    """What is known of one place on the path.

    Attributes:
        number: How many routers away it is, from 1.
        summary: The figures of the requests that ended there.
        sources: Who answered, by address, and how often: several where paths differ.
        errors: What was said other than that the time to live was used up, and how often.
    """

    number: int
    summary: Summary
    sources: dict[str, int]
    errors: dict[Told, int]

    def as_json(self) -> dict[str, object]:
        """Return it as ``twistedsock ping --trace --json`` prints it."""
        return {
            "hop": self.number,
            "sources": self.sources,
            **self.summary.as_json(),
            "errors": errors_as_json(self.errors),
        }


@dataclass(frozen=True, slots=True)
class TraceResult:
    """The path to a host.

    Attributes:
        host: As the caller wrote it.
        address: Its numeric address.
        has_arrived: Whether the host itself answered.
        hops: From the nearest on, as far as requests were sent.
    """

    host: str
    address: str
    has_arrived: bool
    hops: tuple[Hop, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as ``twistedsock ping --trace --json`` prints it."""
        return {
            "host": self.host,
            "address": self.address,
            "has_arrived": self.has_arrived,
            "hops": [hop.as_json() for hop in self.hops],
        }


def trace(
    reactor: Any,
    host: str,
    *,
    count: int = 3,
    max_hops: int = MAX_HOPS,
    timeout_s: float = 1.0,
    size_bytes: int = DEFAULT_SIZE_BYTES,
    version: int | None = None,
    options: Mapping[str, object] | None = None,
    told: Callable[[TraceResult], object] | None = None,
) -> Deferred[TraceResult]:
    """Find the path to *host*; fire with it. To cancel the Deferred stops, and closes everything.

    Args:
        reactor: Runs it.
        host: A name or numeric address.
        count: Requests for each hop, 1 to 100.
        max_hops: How far to look, 1 to 255.
        timeout_s: How long to wait for the last answers, in seconds.
        size_bytes: Of a request behind its ICMP header, 0 to 65,507.
        version: As of ``ping``; likewise *options*.
        told: Is called with what is known so far, after each request.

    Raises:
        CannotResolve: The host has no address.
        BindError, OptionError, ValueError: As of ``ping``.
    """
    run = Trace(
        reactor,
        host,
        count=count,
        max_hops=max_hops,
        timeout_s=timeout_s,
        size_bytes=size_bytes,
        version=version,
        options=options,
        told=told,
    )
    return run.start()


class _Place:
    """One hop while it is found out."""

    def __init__(self) -> None:
        self.trips = RoundTrips()
        self.sources: Counter[str] = Counter()
        self.errors: Counter[Told] = Counter()


class Trace:
    """One run. See ``trace`` for the arguments."""

    def __init__(
        self,
        reactor: Any,
        host: str,
        *,
        count: int = 3,
        max_hops: int = MAX_HOPS,
        timeout_s: float = 1.0,
        size_bytes: int = DEFAULT_SIZE_BYTES,
        version: int | None = None,
        options: Mapping[str, object] | None = None,
        told: Callable[[TraceResult], object] | None = None,
    ) -> None:
        check_number("count", count, 1, MAX_COUNT)
        check_number("max_hops", max_hops, 1, 255)
        check_common(timeout_s, size_bytes, version)
        self._reactor = reactor
        self._host, self._version = host, version
        self._count, self._timeout_s = count, timeout_s
        self._size_bytes, self._options = size_bytes, options
        self._told = told
        self._places = [_Place() for _ in range(max_hops)]
        self._sent_ns: list[int] = []  # by the request's number
        self._left_ns: dict[int, int] = {}
        self._hops: list[int] = []  # where in ``_places`` each request is to end
        self._rounds: list[int] = []
        self._over: set[int] = set()
        self._end: float = math.inf  # the place of the host itself, or of who goes no further
        self._has_arrived = self._is_complete = False
        self._address = ""
        self._timer: Any = None
        self._resolving: Deferred[list[Target]] | None = None
        self._deadline_s: float | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stop())

    def start(self) -> Deferred[TraceResult]:
        """Begin; fire with the result at the end."""
        return Deferred.fromCoroutine(self._run())

    def stop(self) -> None:
        """Wait for nothing more: the result is what is known."""
        if self._resolving is not None:
            self._resolving.cancel()
        if not self._done.called:
            self._done.callback(None)

    async def _run(self) -> TraceResult:
        self._resolving = targets_of(self._reactor, [self._host], self._version)
        (target,) = await self._resolving
        if target.name is None:
            raise CannotResolve(self._host, target.fault)
        self._address, self._name = target.address, target.name
        self._socket = EchoSocket(
            self._reactor,
            target.version,
            self._left_ns.__setitem__,
            self._answered,
            self._failed,
            self._size_bytes,
            self._options,
        )
        try:
            if not self._done.called:
                self._socket.startReading()
                self._turn()
            await self._done
        finally:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._socket.connectionLost()
        return self.result()

    def result(self) -> TraceResult:
        """Return what is known so far; requests that may still be answered are left out."""
        pending = self._pending()
        reached = max(self._hops, default=-1)
        hops = tuple(
            Hop(
                number + 1,
                less_pending(place.trips.summary(), pending[number]),
                dict(place.sources),
                dict(place.errors),
            )
            for number, place in enumerate(self._places)
            if number <= min(self._end, reached)
        )
        return TraceResult(self._host, self._address, self._has_arrived, hops)

    def _pending(self) -> Counter[int]:
        if self._is_complete:
            return Counter()
        since_ns = time.time_ns() - round(self._timeout_s * 1e9)
        return Counter(
            self._hops[number]
            for number, sent_ns in enumerate(self._sent_ns)
            if sent_ns > since_ns and number not in self._over
        )

    def _turn(self) -> None:
        """Send the next request, or end when nothing is awaited any more."""
        self._timer = None
        next_one = self._next()
        if next_one is not None:
            self._send(*next_one)
            self._socket.read()
            wait_s = GAP_S
        else:
            now_s = time.monotonic()
            if self._deadline_s is None:
                self._deadline_s = now_s + self._timeout_s
            if len(self._over) == len(self._sent_ns) or now_s >= self._deadline_s:
                self._is_complete = True
                self.stop()
                return
            wait_s = min(GAP_S, self._deadline_s - now_s)
        if self._told is not None:
            self._tell(self._told)
        if not self._done.called:
            self._timer = self._reactor.callLater(wait_s, self._turn)

    def _tell(self, told: Callable[[TraceResult], object]) -> None:
        try:
            told(self.result())
        except Exception:  # the caller's own: it is raised where the result would be
            if not self._done.called:
                self._done.errback(Failure())

    def _next(self) -> tuple[int, int] | None:
        """Return the hop and the round of the next request; None: all have been sent."""
        if not self._hops:
            return 0, 0
        hop, turn = self._hops[-1] + 1, self._rounds[-1]
        if hop > self._end or hop >= len(self._places):
            hop, turn = 0, turn + 1
        return (hop, turn) if turn < self._count else None

    def _send(self, hop: int, turn: int) -> None:
        number = len(self._sent_ns)
        place = self._places[hop]
        self._hops.append(hop)
        self._rounds.append(turn)
        place.trips.sent += 1
        try:
            self._sent_ns.append(self._socket.send(number, self._name, hop + 1))
        except OSError as error:
            self._sent_ns.append(time.time_ns())
            self._over.add(number)
            place.errors[Told("", os.strerror(error.errno or 0))] += 1

    def _answered(self, number: int, received_ns: int, _: int, source: str) -> None:
        if self._arrived(number, received_ns, source):
            self._has_arrived = True
            self._end = min(self._end, self._hops[number])

    def _failed(self, number: int, error: NetworkError, received_ns: int) -> None:
        if number >= len(self._sent_ns):
            return
        if (error.origin, error.icmp_type, error.icmp_code) not in EXPECTED:
            self._places[self._hops[number]].errors[told_by(error)] += 1
            if error.source:  # nothing goes further than who refused it
                self._end = min(self._end, self._hops[number])
        if error.source:
            self._arrived(number, received_ns, error.source)
        else:
            self._over.add(number)

    def _arrived(self, number: int, received_ns: int, source: str) -> bool:
        """Count what came back for the request *number*; return whether it is the first."""
        if number >= len(self._sent_ns):
            return False
        place = self._places[self._hops[number]]
        if number in self._over:
            place.trips.duplicates += 1
            return False
        self._over.add(number)
        place.sources[source] += 1
        begin_ns = self._left_ns.get(number) or self._sent_ns[number]
        place.trips.answered(self._rounds[number], max(received_ns - begin_ns, 0) / 1e9)
        return True
