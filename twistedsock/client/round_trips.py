"""What became of the requests to one target: losses, duplicates, and how long answers took.

Pure: is told what happened, with the times; never a socket or a clock.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PERCENTILES = (50, 90, 95, 99)
MAX_SAMPLES = 100_000  # of one target: what a long run may hold
FOLDED_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one target. Times are in seconds, and None where no answer came.

    Attributes:
        sent: Requests that left.
        received: Requests that were answered in time.
        lost: Requests that were not, or not yet.
        duplicates: Answers beyond the first.
        reordered: Answers that a later request's answer overtook (RFC 4737).
        mean_s: The mean; likewise the least and the greatest.
        jitter_s: The mean difference of an answer's time from that of the one before it.
        deviation_s: The standard deviation.
        percentiles_s: By number, such as ``{50: 0.001, 99: 0.004}``.
    """

    sent: int
    received: int
    lost: int
    duplicates: int
    reordered: int
    min_s: float | None = None
    mean_s: float | None = None
    max_s: float | None = None
    deviation_s: float | None = None
    jitter_s: float | None = None
    percentiles_s: dict[int, float] | None = None

    @property
    def loss(self) -> float:
        """The part of the requests that was lost, 0 to 1."""
        return self.lost / self.sent if self.sent else 0.0

    def as_json(self) -> dict[str, float | int | None]:
        """Return the figures under names that tell their units; times in milliseconds."""
        percentiles = self.percentiles_s or {}
        times = {
            "min": self.min_s,
            "mean": self.mean_s,
            **{f"p{each}": percentiles.get(each) for each in PERCENTILES},
            "max": self.max_s,
            "stddev": self.deviation_s,
            "jitter": self.jitter_s,
        }
        told: dict[str, float | int | None] = {
            "sent": self.sent,
            "received": self.received,
            "lost": self.lost,
            "loss_percent": round(self.loss * 100, 3),
            "duplicates": self.duplicates,
            "reordered": self.reordered,
        }
        for name, seconds in times.items():
            told[f"{name}_ms"] = None if seconds is None else round(seconds * 1e3, 6)
        return told


class RoundTrips:
    """Gathers the figures of one target.

    What is called for each answer only notes it; the figures are made of many at once.

    Args:
        most_samples: How many are kept. Of a very long run it is a random choice of all, so that
            the percentiles stay those of the whole run; all else is exact in any case.
        choice: Chooses the samples that are kept of a very long run; None for a source of its own.
    """

    __slots__ = (
        "_choice",
        "_folded",
        "_fresh_s",
        "_jitter_s",
        "_last_s",
        "_max_s",
        "_min_s",
        "_most",
        "_next",
        "_samples_s",
        "_squares",
        "_total_s",
        "duplicates",
        "reordered",
        "sent",
    )

    def __init__(
        self, most_samples: int = MAX_SAMPLES, choice: random.Random | None = None
    ) -> None:
        self.sent = self.duplicates = self.reordered = 0
        self._next = self._folded = 0
        self._most = most_samples
        self._choice = choice
        self._fresh_s: list[float] = []  # answers that the figures below do not know of yet
        self._samples_s = array("d")
        self._min_s, self._max_s, self._last_s = math.inf, 0.0, -1.0
        self._total_s = self._squares = self._jitter_s = 0.0

    @property
    def received(self) -> int:
        """Requests that were answered."""
        return self._folded + len(self._fresh_s)

    @property
    def last_s(self) -> float | None:
        """How long the last answer took; None where none came."""
        last_s = self._fresh_s[-1] if self._fresh_s else self._last_s
        return None if last_s < 0 else last_s

    def answered(self, sequence: int, rtt_s: float) -> None:
        """Count the first answer to the request number *sequence*, which took *rtt_s*."""
        if sequence < self._next:
            self.reordered += 1
        else:
            self._next = sequence + 1
        self._fresh_s.append(rtt_s)
        if len(self._fresh_s) >= FOLDED_AT_ONCE:
            self._fold()

    @property
    def samples_s(self) -> Sequence[float]:
        """How long answers took: all of them, or a choice of a very long run."""
        self._fold()
        return self._samples_s

    def _fold(self) -> None:
        """Take what is fresh into the figures."""
        fresh = self._fresh_s
        if not fresh:
            return
        self._min_s, self._max_s = min(self._min_s, min(fresh)), max(self._max_s, max(fresh))
        total_s, squares, jitter_s = self._total_s, self._squares, self._jitter_s
        before = fresh[0] if self._last_s < 0 else self._last_s
        for rtt_s in fresh:
            total_s += rtt_s
            squares += rtt_s * rtt_s
            jitter_s += abs(rtt_s - before)
            before = rtt_s
        self._total_s, self._squares, self._jitter_s = total_s, squares, jitter_s
        self._last_s = before
        room = self._most - len(self._samples_s)
        self._samples_s.extend(fresh[:room])
        self._folded += min(room, len(fresh))
        for rtt_s in fresh[room:]:
            self._keep_some(rtt_s)
        self._fresh_s = []

    def _keep_some(self, rtt_s: float) -> None:
        """Keep *rtt_s* with the chance that every sample has (Vitter's algorithm R)."""
        if self._choice is None:
            self._choice = random.Random()  # not before: thousands of targets need none
        self._folded += 1
        place = self._choice.randrange(self._folded)
        if place < self._most:
            self._samples_s[place] = rtt_s

    def summary(self) -> Summary:
        """Return the figures so far."""
        self._fold()
        received = self._folded
        counts = (self.sent, received, self.sent - received, self.duplicates, self.reordered)
        if not received:
            return Summary(*counts)
        mean_s = self._total_s / received
        return Summary(
            *counts,
            self._min_s,
            mean_s,
            self._max_s,
            math.sqrt(max(self._squares / received - mean_s * mean_s, 0.0)),
            self._jitter_s / (received - 1) if received > 1 else 0.0,
            percentiles(self._samples_s),
        )


def percentiles(samples: Iterable[float], wanted: Sequence[int] = PERCENTILES) -> dict[int, float]:
    """Return the nearest-rank percentiles of *samples*, of which there is one at least."""
    ordered = sorted(samples)
    count = len(ordered)
    return {each: ordered[max(-(-count * each // 100) - 1, 0)] for each in wanted}
