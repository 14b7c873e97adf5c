"""A probe without I/O: what is to be sent when, and what became of each request.

Is told what has happened, with the times; never a socket, a reactor or a clock. The schedule is
open-loop: request n is due at n / rate, whatever became of those before it, so that a slow answer
delays no other request and hides nothing (coordinated omission). Without a rate it is closed-loop:
the next request goes when the one before it is answered or lost.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from twistedsock.client.markers import MAX_NUMBER, Finder, Pattern
from twistedsock.client.round_trips import RoundTrips, Summary
from twistedsock.errors import ClientError

BEHIND_S = 0.01  # later than a reactor's timer ever is on a machine that is not overloaded
# Lost requests whose answers may still come late: beyond it the oldest are forgotten, and what
# comes for them counts as late, whether it is the first answer or not.
MAX_REMEMBERED = 100_000
RECENT = 4096


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe has found.

    Attributes:
        address: Who was asked, as the caller wrote it.
        transport: The address's scheme.
        size_bytes: Of each request.
        rate: As text, such as ``10/s``; ``max`` for closed-loop.
        duration_s: From the first request to the end.
        summary: Counts and round trips; what was answered too late is lost in it.
        corrupt: Answers that were cut or altered. Their requests are lost, unless answered again.
        late: Lost requests that were answered after all, later than the time-out.
        stray: Lines, or messages, that were no answer at all; likewise their bytes.
        behind: Requests that left more than BEHIND_S after they were due, or not at all.
        behind_s: By how much the latest one did.
        unsent: Requests that were due and never left.
        dropped: Datagrams that found our own socket's buffer full, and so are lost by our doing.
        errors: How often each error was met that did not end the probe, such as
            ``{"ECONNREFUSED": 3}`` of UDP.
        ended_by: What ended the probe before its time; None where nothing did.
        samples_s: The round trips; a random choice of MAX_SAMPLES of very many.
    """

    address: str
    transport: str
    size_bytes: int
    rate: str
    duration_s: float
    summary: Summary
    corrupt: int
    late: int
    stray: int
    stray_bytes: int
    behind: int
    behind_s: float
    unsent: int
    dropped: int
    errors: Mapping[str, int]
    ended_by: ClientError | None = None
    samples_s: Sequence[float] = field(default=(), repr=False)

    def as_json(self) -> dict[str, object]:
        """Return everything but the samples, under names that tell their units."""
        return {
            "address": self.address,
            "transport": self.transport,
            "size_bytes": self.size_bytes,
            "rate": self.rate,
            "duration_s": round(self.duration_s, 6),
            **self.summary.as_json(),
            "corrupt": self.corrupt,
            "late": self.late,
            "stray": self.stray,
            "stray_bytes": self.stray_bytes,
            "behind": self.behind,
            "behind_max_ms": round(self.behind_s * 1e3, 6),
            "unsent": self.unsent,
            "dropped": self.dropped,
            "errors": dict(self.errors),
            "ended_by": None if self.ended_by is None else str(self.ended_by),
        }


class Probing:
    """One run of requests. Times are seconds of any one clock that never goes back.

    Args:
        pattern: Of the requests.
        finder: Finds the answers to them.
        timeout_s: An answer later than that is lost.
        rate: Requests a second; None for closed-loop.
        count: How many requests; None for no end.
        duration_s: How long to send; None for no end. With a rate it is as good as a count, but
            what cannot be sent within *timeout_s* after it is not sent.

    Attributes:
        round_trips: Counts and times; what is in flight is already sent, and not received.
        in_flight: When each request left that is neither answered nor lost, the oldest first.
        late, errors: As in ``ProbeResult``.
        recent_s: The latest RECENT round trips: what a live view can afford to sort.
    """

    def __init__(
        self,
        pattern: Pattern,
        finder: Finder,
        *,
        timeout_s: float = 1.0,
        rate: float | None = 10.0,
        count: int | None = None,
        duration_s: float | None = None,
    ) -> None:
        self._pattern = pattern
        self._finder = finder
        self._timeout_s = timeout_s
        self._rate = rate
        self._total = MAX_NUMBER if count is None else count
        self._stop_after_s = math.inf
        if duration_s is not None:
            self._stop_after_s = duration_s
            if rate is not None:
                due = math.ceil(round(duration_s * rate, 6))
                self._total = min(self._total, max(due, 1))
                self._stop_after_s += timeout_s
        self._lost: dict[int, None] = {}
        self._forgotten = 0  # requests below this are not known one by one any more
        self._began_at = 0.0
        self._behind = 0
        self._behind_s = 0.0
        self._foreign = 0  # answers to what was never asked: their number was altered
        self.round_trips = RoundTrips()
        self.in_flight: dict[int, float] = {}
        self.late = 0
        self.errors: dict[str, int] = {}
        self.recent_s: deque[float] = deque(maxlen=RECENT)

    @property
    def lost(self) -> int:
        """Requests so far that were not answered in time."""
        return self.round_trips.sent - self.round_trips.received - len(self.in_flight)

    @property
    def corrupt(self) -> int:
        """Answers that were cut or altered."""
        return self._finder.corrupt + self._foreign

    @property
    def behind(self) -> int:
        """Requests so far that left too late."""
        return self._behind

    @property
    def stray(self) -> int:
        """Lines, or messages, so far that were no answer."""
        return self._finder.stray

    # -- asking --

    def begin(self, now: float) -> None:
        """Note that the first request is due *now*."""
        self._began_at = now

    def due(self, now: float) -> int:
        """Return how many requests are to be sent *now*, each to be told of by ``sent``."""
        if now - self._began_at > self._stop_after_s:
            return 0
        if self._rate is None:
            return int(not self.in_flight and self.round_trips.sent < self._total)
        return self._due_in_all(now) - self.round_trips.sent

    def _due_in_all(self, now: float) -> int:
        if self._rate is None:
            return self.round_trips.sent
        # A timer that is early by a rounding error would only be set again.
        passed = int((now - self._began_at) * self._rate + 1e-6)
        return max(min(passed + 1, self._total), self.round_trips.sent)

    def request(self) -> bytes:
        """Return the next request."""
        return self._pattern.request(self.round_trips.sent)

    def sent(self, now: float) -> None:
        """Note that the next request left at *now*."""
        number = self.round_trips.sent
        self.round_trips.sent = number + 1
        self.in_flight[number] = now
        if self._rate is not None:
            late_s = now - self._began_at - number / self._rate
            if late_s > BEHIND_S:
                self._behind += 1
            if late_s > self._behind_s:
                self._behind_s = late_s

    def failed(self, code: str) -> None:
        """Count an error, such as ECONNREFUSED, that does not end the probe."""
        self.errors[code] = self.errors.get(code, 0) + 1

    # -- answers --

    def heard(self, data: bytes, now: float) -> None:
        """Take what came at *now*: a piece of a stream, or one message."""
        for number in self._finder.feed(data):
            self._answered(number, now)

    def _answered(self, number: int, now: float) -> None:
        left_at = self.in_flight.pop(number, None)
        if left_at is not None:
            took_s = max(now - left_at, 0.0)
            if took_s <= self._timeout_s:
                self.recent_s.append(took_s)
                self.round_trips.answered(number, took_s)
            else:
                self.late += 1
        elif number >= self.round_trips.sent:
            self._foreign += 1
        elif number in self._lost:
            del self._lost[number]
            self.late += 1
        elif number < self._forgotten:
            self.late += 1
        else:
            self.round_trips.duplicates += 1

    def expire(self, now: float) -> None:
        """Give up the requests whose time is over *now*."""
        while self.in_flight:
            number, left_at = next(iter(self.in_flight.items()))
            if now - left_at <= self._timeout_s:
                return
            del self.in_flight[number]
            self._lost[number] = None
            if len(self._lost) > MAX_REMEMBERED:
                oldest = next(iter(self._lost))
                del self._lost[oldest]
                self._forgotten = oldest + 1

    # -- its end --

    def wake_at(self, now: float, *, is_blocked: bool = False) -> float:
        """Return when there is next something to send, to expire or to end; ``math.inf`` if never.

        Args:
            now: The time.
            is_blocked: Whether nothing can be sent before the peer takes something.
        """
        moments = []
        if now <= self._began_at + self._stop_after_s:
            moments.append(self._began_at + self._stop_after_s)
            if self._rate is not None and self.round_trips.sent < self._total:
                next_one = self._total - 1 if is_blocked else self.round_trips.sent
                moments.append(max(self._began_at + next_one / self._rate, now))
            elif not self.in_flight and not is_blocked and self.round_trips.sent < self._total:
                moments.append(now)  # closed-loop, and the last one is lost: no answer wakes us
        if self.in_flight:
            moments.append(next(iter(self.in_flight.values())) + self._timeout_s)
        return min(moments, default=math.inf)

    def stop(self) -> None:
        """Send nothing more; what is in flight may still be answered."""
        self._total = self.round_trips.sent

    def is_over(self, now: float, *, is_blocked: bool = False) -> bool:
        """Return whether nothing is in flight and nothing more will be sent.

        Args:
            now: The time.
            is_blocked: Whether the peer takes nothing: then what is due is not waited for.
        """
        if self.in_flight:
            return False
        sent = self.round_trips.sent
        if sent >= self._total or now - self._began_at > self._stop_after_s:
            return True
        return is_blocked and self._due_in_all(now) in (self._total, sent)

    def result(
        self,
        now: float,
        address: str,
        transport: str,
        rate: str,
        *,
        dropped: int = 0,
        ended_by: ClientError | None = None,
    ) -> ProbeResult:
        """Return what was found up to *now*; what is in flight is lost.

        Args:
            now: The time.
            address, transport, rate: For people and machines, as in ``ProbeResult``.
            dropped: What the socket has told, as in ``ProbeResult``.
            ended_by: What ended it before its time.
        """
        self._finder.end()
        unsent = self._due_in_all(now) - self.round_trips.sent
        behind_s = self._behind_s
        if unsent and self._rate is not None:
            first_due_at = self._began_at + self.round_trips.sent / self._rate
            behind_s = max(behind_s, now - first_due_at)
        return ProbeResult(
            address=address,
            transport=transport,
            size_bytes=self._pattern.body_bytes + 1,
            rate=rate,
            duration_s=now - self._began_at,
            summary=self.round_trips.summary(),
            corrupt=self.corrupt,
            late=self.late,
            stray=self._finder.stray,
            stray_bytes=self._finder.stray_bytes,
            behind=self._behind + unsent,
            behind_s=behind_s,
            unsent=unsent,
            dropped=dropped,
            errors=self.errors,
            ended_by=ended_by,
            samples_s=self.round_trips.samples_s,
        )
