"""Round trips: the figures are those of the standard library's statistics and of plain lists."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.client import round_trips
from twistedsock.client.round_trips import (
    FOLDED_AT_ONCE,
    MAX_SAMPLES,
    PERCENTILES,
    RoundTrips,
    Summary,
    percentiles,
)

times = st.floats(0, 10, allow_subnormal=False)


def gathered(
    samples: list[float], most: int = MAX_SAMPLES, choice: random.Random | None = None
) -> RoundTrips:
    """Return what gathered *samples*, answered in their order."""
    trips = RoundTrips(most, choice)
    for sequence, rtt_s in enumerate(samples):
        trips.sent += 1
        trips.answered(sequence, rtt_s)
    return trips


def nearest_rank(samples: list[float], percent: int) -> float:
    """Return the least sample that *percent* of all do not exceed, by counting."""
    least = (len(samples) * percent + 99) // 100  # whole numbers: no rounding
    return next(x for x in sorted(samples) if sum(y <= x for y in samples) >= least)


@given(st.lists(times, min_size=1, max_size=80), st.integers(0, 20))
def test_the_figures_are_those_of_the_statistics_module(samples: list[float], lost: int) -> None:
    """Least, mean, greatest, deviation, jitter and percentiles of any samples."""
    trips = gathered(samples)
    trips.sent += lost
    summary = trips.summary()
    assert (summary.sent, summary.received, summary.lost) == (
        len(samples) + lost,
        len(samples),
        lost,
    )
    assert summary.loss == lost / (len(samples) + lost)
    assert (summary.min_s, summary.max_s) == (min(samples), max(samples))
    assert summary.mean_s == pytest.approx(statistics.fmean(samples), rel=1e-9, abs=1e-12)
    assert summary.deviation_s == pytest.approx(statistics.pstdev(samples), rel=1e-6, abs=1e-6)
    steps = [abs(a - b) for a, b in pairwise(samples)]
    mean_step = statistics.fmean(steps) if steps else 0.0
    assert summary.jitter_s == pytest.approx(mean_step, rel=1e-9, abs=1e-12)
    assert summary.percentiles_s == {each: nearest_rank(samples, each) for each in PERCENTILES}
    assert trips.last_s == samples[-1]


@given(st.lists(times, min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_to_look_in_between_changes_nothing(samples: list[float], looks: set[int]) -> None:
    """A live table may ask at any time: the figures of the end are the same."""
    trips = RoundTrips()
    for sequence, rtt_s in enumerate(samples):
        trips.sent += 1
        trips.answered(sequence, rtt_s)
        if sequence in looks:
            assert trips.summary().received == trips.received == sequence + 1
            assert list(trips.samples_s) == samples[: sequence + 1]
    assert trips.summary() == gathered(samples).summary()


def test_more_than_are_folded_at_once() -> None:
    """Nothing is lost or counted twice where the figures are made of several heaps."""
    source = random.Random(7)
    for size in (FOLDED_AT_ONCE - 1, FOLDED_AT_ONCE, FOLDED_AT_ONCE + 1, 3 * FOLDED_AT_ONCE + 5):
        samples = [source.expovariate(1000) for _ in range(size)]
        trips = gathered(samples)
        assert trips.received == size
        summary = trips.summary()
        assert list(trips.samples_s) == samples
        assert (summary.received, summary.lost) == (size, 0)
        assert (summary.min_s, summary.max_s) == (min(samples), max(samples))
        assert summary.mean_s == pytest.approx(statistics.fmean(samples))
        assert summary.deviation_s == pytest.approx(statistics.pstdev(samples))
        steps = [abs(a - b) for a, b in pairwise(samples)]
        assert summary.jitter_s == pytest.approx(statistics.fmean(steps))
        assert summary.percentiles_s is not None
        assert summary.percentiles_s[99] == sorted(samples)[math.ceil(size * 99 / 100) - 1]


def test_a_very_long_run_keeps_a_choice_with_even_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most samples each has the same chance to be kept, and all else stays exact."""
    monkeypatch.setattr(round_trips, "FOLDED_AT_ONCE", 7)
    size, runs = 1000, 40
    kept = [0] * 10  # by tenth of the run
    for seed in range(runs):
        samples = [float(each) for each in range(1, size + 1)]
        trips = gathered(samples, 100, random.Random(seed))
        assert len(trips.samples_s) == 100
        assert len(set(trips.samples_s)) == 100  # none twice
        assert set(trips.samples_s) <= set(samples)
        for each in trips.samples_s:
            kept[int(each - 1) // 100] += 1
        summary = trips.summary()
        assert (summary.received, summary.min_s, summary.max_s) == (size, 1.0, size)
        assert summary.mean_s == pytest.approx((size + 1) / 2)
        assert summary.deviation_s == pytest.approx(statistics.pstdev(samples))
        assert summary.jitter_s == pytest.approx(1.0)
    # 400 of each tenth are expected; the deviation of that is 19.
    assert all(300 < each < 500 for each in kept), kept


def test_a_choice_needs_no_source_of_ones_own() -> None:
    """Without a source of randomness it has one once it needs it."""
    trips = gathered([0.5] * 10, 3)
    assert list(trips.samples_s) == [0.5] * 3
    assert trips.summary().received == 10


def test_two_targets_share_no_samples() -> None:
    """What one target's figures are made of is its own."""
    first, second = gathered([1.0]), gathered([2.0])
    assert list(first.samples_s) == [1.0]
    assert list(second.samples_s) == [2.0]
    assert list(RoundTrips().samples_s) == []


@given(st.permutations(range(12)))
def test_reordering_is_that_of_rfc_4737(order: list[int]) -> None:
    """An answer is reordered when a later request has been answered before it (section 3.3)."""
    trips = RoundTrips()
    for sequence in order:
        trips.answered(sequence, 0.001)
    expected = sum(
        any(earlier > sequence for earlier in order[:place]) for place, sequence in enumerate(order)
    )
    assert trips.reordered == trips.summary().reordered == expected


def test_lost_requests_are_no_reordering() -> None:
    """A gap in the sequence is a loss."""
    trips = RoundTrips()
    trips.sent = 9
    for sequence in (0, 3, 8):
        trips.answered(sequence, 0.001)
    assert (trips.reordered, trips.summary().lost) == (0, 6)


def test_nothing_answered_is_no_time_at_all() -> None:
    """Without an answer there are counts and no times."""
    trips = RoundTrips()
    assert (trips.last_s, trips.summary(), trips.summary().loss) == (None, Summary(*[0] * 5), 0.0)
    trips.sent, trips.duplicates = 4, 2
    summary = trips.summary()
    assert (summary.sent, summary.lost, summary.loss, summary.duplicates) == (4, 4, 1.0, 2)
    assert (summary.min_s, summary.mean_s, summary.max_s, summary.percentiles_s) == (None,) * 4
    assert (summary.deviation_s, summary.jitter_s) == (None, None)


def test_a_round_trip_of_no_time_is_one() -> None:
    """Zero is a time, as a coarse clock may have it."""
    trips = gathered([0.0, 0.0])
    assert trips.last_s == 0.0
    summary = trips.summary()
    assert (summary.min_s, summary.max_s, summary.jitter_s, summary.deviation_s) == (0, 0, 0, 0)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=200).map(
        lambda each: [float(x) for x in each]
    ),
    st.integers(0, 100),
)
def test_percentiles_are_by_nearest_rank(samples: list[float], percent: int) -> None:
    """Each is a sample: the least that so many do not exceed; 0 is the least and 100 the most."""
    assert percentiles(samples, [percent]) == {percent: nearest_rank(samples, percent)}
    assert percentiles(iter(samples), [0, 100]) == {0: min(samples), 100: max(samples)}


def test_for_machines_the_names_tell_the_units() -> None:
    """The names are fixed, times are milliseconds, and what there is none of is null."""
    trips = gathered([0.001, 0.002, 0.004])
    trips.sent, trips.duplicates = 9, 1
    assert trips.summary().as_json() == {
        "sent": 9,
        "received": 3,
        "lost": 6,
        "loss_percent": 66.667,
        "duplicates": 1,
        "reordered": 0,
        "min_ms": 1.0,
        "mean_ms": 2.333333,
        "p50_ms": 2.0,
        "p90_ms": 4.0,
        "p95_ms": 4.0,
        "p99_ms": 4.0,
        "max_ms": 4.0,
        "stddev_ms": 1.247219,
        "jitter_ms": 1.5,
    }
    none = RoundTrips().summary().as_json()
    assert list(none) == list(trips.summary().as_json())
    assert {name for name, value in none.items() if value is None} == {
        name for name in none if name.endswith("_ms")
    }
