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
# Of one target: what a long run may hold. Beyond it a random choice of all is kept, so that the
# percentiles stay those of the whole run; all else is exact in any case.
MAX_SAMPLES = 100_000


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

    Args:
        choice: Chooses the samples that are kept of a very long run; None for a source of its own.
    """

    __slots__ = (
        "_choice",
        "_jitter_s",
        "_last_s",
        "_max_s",
        "_mean_s",
        "_min_s",
        "_next",
        "_squares",
        "duplicates",
        "received",
        "reordered",
        "samples_s",
        "sent",
    )

    def __init__(self, choice: random.Random | None = None) -> None:
        self._choice = choice or random.Random()
        self.sent = 0
        self.received = 0
        self.duplicates = 0
        self.reordered = 0
        self.samples_s = array("d")
        self._next = 0
        self._min_s, self._max_s = math.inf, 0.0
        self._mean_s = self._squares = self._jitter_s = 0.0
        self._last_s = -1.0

    def answered(self, sequence: int, rtt_s: float) -> None:
        """Count the first answer to the request number *sequence*, which took *rtt_s*."""
        self.received = count = self.received + 1
        if sequence < self._next:
            self.reordered += 1
        else:
            self._next = sequence + 1
        if rtt_s < self._min_s:
            self._min_s = rtt_s
        if rtt_s > self._max_s:
            self._max_s = rtt_s
        distance = rtt_s - self._mean_s  # Welford's way: no sum grows out of its precision
        self._mean_s += distance / count
        self._squares += distance * (rtt_s - self._mean_s)
        if self._last_s >= 0:
            self._jitter_s += abs(rtt_s - self._last_s)
        self._last_s = rtt_s
        if count <= MAX_SAMPLES:
            self.samples_s.append(rtt_s)
        elif (place := self._choice.randrange(count)) < MAX_SAMPLES:
            self.samples_s[place] = rtt_s

    def summary(self) -> Summary:
        """Return the figures so far."""
        received = self.received
        counts = (self.sent, received, self.sent - received, self.duplicates, self.reordered)
        if not received:
            return Summary(*counts)
        return Summary(
            *counts,
            self._min_s,
            self._mean_s,
            self._max_s,
            math.sqrt(self._squares / received),
            self._jitter_s / (received - 1) if received > 1 else 0.0,
            percentiles(self.samples_s),
        )


def percentiles(samples: Iterable[float], wanted: Sequence[int] = PERCENTILES) -> dict[int, float]:
    """Return the nearest-rank percentiles of *samples*, of which there is one at least."""
    ordered = sorted(samples)
    return {each: ordered[max(math.ceil(len(ordered) * each / 100) - 1, 0)] for each in wanted}
