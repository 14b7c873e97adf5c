"""Who is to be pinged when, and what became of it.

Pure: clock and socket are the caller's. Requests to many targets are spread evenly over the
interval, each target in its turn, so that nothing leaves or returns in bursts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twistedsock.client.round_trips import RoundTrips, Summary

# Requests whose answers are still known: more than that many a second and the slowest are missed.
MAX_IN_FLIGHT = 65_536
PLACES = MAX_IN_FLIGHT - 1
MAX_SAMPLES = 10_000  # of one target: there may be thousands of them
AWAITED, ANSWERED, FAILED = 1, 2, 3


class Target:
    """One host that is pinged.

    Attributes:
        host: As the caller wrote it.
        name: Its socket address; None where it has none.
        version: 4 or 6, as the address.
        trips: Its figures.
        errors: What the network said of it, and how often.
        fault: Why it cannot be pinged at all; empty where it can.
    """

    __slots__ = ("errors", "fault", "host", "name", "trips", "ttl_hops", "version")

    def __init__(self, host: str, name: Any = None, fault: str = "") -> None:
        self.host = host
        self.name = name
        self.version = 6 if ":" in self.address else 4
        self.fault = fault
        self.trips = RoundTrips(MAX_SAMPLES)
        self.errors: Counter[Told] = Counter()
        self.ttl_hops: int | None = None

    @property
    def address(self) -> str:
        """Its numeric address; empty where it has none."""
        return str(self.name[0]) if self.name else ""


@dataclass(frozen=True, slots=True)
class Told:
    """What the network answered instead.

    Attributes:
        source: The router, or the host itself, that said so; empty: this machine.
        text: Such as ``host unreachable``.
        mtu: Of the link that the packet was too big for, in bytes; 0 in all other cases.
    """

    source: str
    text: str
    mtu: int = 0

    def __str__(self) -> str:
        size = f" (mtu {self.mtu})" if self.mtu else ""
        return f"{self.text}{size}, says {self.source or 'this machine'}"


def errors_as_json(errors: Mapping[Told, int]) -> list[dict[str, object]]:
    """Return what the network said, and how often, as ``--json`` prints it."""
    return [
        {"source": told.source, "text": told.text, "mtu": told.mtu or None, "count": count}
        for told, count in errors.items()
    ]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, as it came.

    Attributes:
        host: As the caller wrote it.
        source: The address that answered.
        sequence: Of the request that is answered, among those to this host, from 1.
        rtt_s: How long it took, in seconds.
        ttl_hops: What was left of its time to live.
        is_duplicate: Whether that request had been answered before.
    """

    host: str
    source: str
    sequence: int
    rtt_s: float
    ttl_hops: int
    is_duplicate: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that the network answered otherwise; see ``Told``."""

    host: str
    sequence: int
    told: Told


@dataclass(frozen=True, slots=True)
class PingResult:
    """What became of one host.

    Attributes:
        host: As the caller wrote it.
        address: Its numeric address; empty where the name has none.
        summary: The figures.
        errors: What the network answered instead, and how often.
        fault: Why it could not be pinged at all; empty where it could.
        ttl_hops: What was left of the time to live of its last answer.
    """

    host: str
    address: str
    summary: Summary
    errors: dict[Told, int]
    fault: str
    ttl_hops: int | None

    def as_json(self) -> dict[str, object]:
        """Return it as ``twistedsock ping --json`` prints it."""
        return {
            "host": self.host,
            "address": self.address or None,
            **self.summary.as_json(),
            "ttl_hops": self.ttl_hops,
            "errors": errors_as_json(self.errors),
            "fault": self.fault or None,
        }


class Pinging:
    """Decides, and counts.

    Args:
        targets: Each has a name.
        count: Requests to each; None for no end.
        interval_s: Between two requests to one target, in seconds.
        started_s: The clock's time of the first request.
        told: Is called with each ``Reply`` and ``Failure``; None: nobody asks for each.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        count: int | None,
        interval_s: float,
        started_s: float,
        told: Callable[[Reply | Failure], object] | None = None,
    ) -> None:
        self._targets = targets
        self._total = math.inf if count is None else count * len(targets)
        self._gap_s = interval_s / max(len(targets), 1)
        self._started_s = started_s
        self._told = told
        self._next = 0
        # Of each request, at the place that its number has in a circle: the number while it is
        # known, when it was sent, when it left, and whether anything came back.
        self._numbers = [1] + [0] * PLACES  # at first, one that belongs elsewhere
        self._sent_ns = [0] * MAX_IN_FLIGHT
        self._left_ns = [0] * MAX_IN_FLIGHT
        self._states = bytearray(MAX_IN_FLIGHT)
        self.awaited = 0  # requests that nothing has come back for

    def due(self, now_s: float, limit: int) -> list[tuple[int, Target]]:
        """Return the requests that are to be sent by *now_s*, at most *limit*, by their numbers."""
        last = min(self._total, math.floor((now_s - self._started_s) / self._gap_s) + 1)
        targets, width = self._targets, len(self._targets)
        numbers = range(self._next, int(min(last, self._next + limit)))
        return [(number, targets[number % width]) for number in numbers]

    def sent(self, number: int, target: Target, sent_ns: int) -> None:
        """Count the request *number*, which left: the first of those that were due."""
        self._next = number + 1
        target.trips.sent += 1
        place = number & PLACES
        if self._states[place] != AWAITED:
            self.awaited += 1
        self._states[place] = AWAITED
        self._numbers[place] = number
        self._sent_ns[place] = sent_ns
        self._left_ns[place] = 0

    def left(self, number: int, left_ns: int) -> None:
        """Note that the request *number* left the machine at *left_ns*."""
        place = number & PLACES
        # A stamp of before it was handed over is another request's.
        if self._numbers[place] == number and left_ns >= self._sent_ns[place]:
            self._left_ns[place] = left_ns

    @property
    def next_due_s(self) -> float | None:
        """When the next request is due, by the clock; None: there is none left."""
        if self._next >= self._total:
            return None
        return self._started_s + self._next * self._gap_s

    def answered(self, number: int, received_ns: int, ttl_hops: int, source: str) -> None:
        """Count an answer to the request *number*."""
        place = number & PLACES
        if self._numbers[place] != number:
            return
        sequence, position = divmod(number, len(self._targets))
        target = self._targets[position]
        rtt_s = (received_ns - (self._left_ns[place] or self._sent_ns[place])) / 1e9
        if rtt_s < 0:  # that stamp is of another request, or the clock was set back
            rtt_s = max(received_ns - self._sent_ns[place], 0) / 1e9
        state = self._states[place]
        if state != ANSWERED:
            if state == AWAITED:
                self.awaited -= 1
            self._states[place] = ANSWERED
            target.trips.answered(sequence, rtt_s)
            target.ttl_hops = ttl_hops
        else:
            target.trips.duplicates += 1
        if self._told is not None:
            is_duplicate = state == ANSWERED
            self._told(Reply(target.host, source, sequence + 1, rtt_s, ttl_hops, is_duplicate))

    def failed(self, number: int, told: Told) -> None:
        """Count an error that came back for the request *number*."""
        place = number & PLACES
        if self._numbers[place] != number:
            return
        sequence, position = divmod(number, len(self._targets))
        target = self._targets[position]
        target.errors[told] += 1
        if self._states[place] == AWAITED:
            self._states[place] = FAILED
            self.awaited -= 1
        if self._told is not None:
            self._told(Failure(target.host, sequence + 1, told))

    def pending(self, since_ns: int) -> Counter[Target]:
        """Return how many requests to each target left after *since_ns* and are awaited."""
        found: Counter[Target] = Counter()
        for number in range(self._next - 1, max(self._next - MAX_IN_FLIGHT, 0) - 1, -1):
            place = number & PLACES
            if self._sent_ns[place] < since_ns:
                break
            if self._states[place] == AWAITED:
                found[self._targets[number % len(self._targets)]] += 1
        return found


def less_pending(summary: Summary, pending: int) -> Summary:
    """Return *summary* but for *pending* requests that are awaited."""
    if not pending:
        return summary
    return replace(summary, sent=summary.sent - pending, lost=summary.lost - pending)


def result_of(target: Target, pending: int = 0) -> PingResult:
    """Return what became of *target* so far, but for *pending* requests that are awaited."""
    summary = less_pending(target.trips.summary(), pending)
    errors = dict(target.errors)
    return PingResult(target.host, target.address, summary, errors, target.fault, target.ttl_hops)
