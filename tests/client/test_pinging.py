"""The core of ping: no socket and no clock; what is due when, and what became of each request."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.client.pinging import (
    MAX_IN_FLIGHT,
    Failure,
    Pinging,
    Reply,
    Target,
    Told,
    less_pending,
    result_of,
)

MS = 1_000_000  # in nanoseconds
START_S = 1000.0
SECOND_NS = 1_000_000_000
UNREACHABLE = Told("192.0.2.1", "host unreachable")


def targets_of(count: int) -> list[Target]:
    """Return *count* targets, each with a name."""
    return [Target(f"host{each}", (f"192.0.2.{each + 1}", 0)) for each in range(count)]


def begun(
    width: int = 1, count: int | None = 3, interval_s: float = 1.0
) -> tuple[Pinging, list[Target], list[Reply | Failure]]:
    """Return what decides for *width* targets, those, and what is told."""
    targets, events = targets_of(width), list[Reply | Failure]()
    return Pinging(targets, count, interval_s, START_S, events.append), targets, events


def send_due(pinging: Pinging, now_s: float, limit: int = 1 << 20) -> list[int]:
    """Send what is due by *now_s*; return the numbers."""
    numbers = []
    for number, target in pinging.due(now_s, limit):
        pinging.sent(number, target, round(now_s * 1e9))
        numbers.append(number)
    return numbers


# -- who is due when --


def test_requests_are_spread_evenly_over_the_interval() -> None:
    """Four targets and a second: one each quarter, every target in its turn."""
    pinging, targets, _ = begun(width=4, count=2)
    left = []
    for step in range(40):
        now_s = START_S + step * 0.0625
        for number, target in pinging.due(now_s, 99):
            pinging.sent(number, target, 1)
            left.append((number, target.host, now_s - START_S))
    assert left == [(number, f"host{number % 4}", number * 0.25) for number in range(8)]
    assert [target.trips.sent for target in targets] == [2, 2, 2, 2]


@given(
    st.integers(1, 50),
    st.none() | st.integers(1, 5),
    st.sampled_from([0.001, 0.01, 0.25, 1.0, 7.0]),
    st.lists(st.floats(0, 3), max_size=30),
    st.integers(1, 20),
)
def test_whenever_it_is_asked_it_gives_the_next_in_order(
    width: int, count: int | None, interval_s: float, waits_s: list[float], limit: int
) -> None:
    """However late: never before its time, never over the limit, none twice and none left out."""
    pinging, targets, _ = begun(width, count, interval_s)
    now_s, expected = START_S, 0
    for wait_s in waits_s:
        now_s += wait_s
        due = pinging.due(now_s, limit)
        assert len(due) <= limit
        assert [number for number, _ in due] == list(range(expected, expected + len(due)))
        for number, target in due:
            assert target is targets[number % width]
            assert START_S + number * interval_s / width <= now_s + 1e-6
            pinging.sent(number, target, 1)
        expected += len(due)
        if len(due) < limit:  # nothing is left that is due
            assert pinging.next_due_s is None or pinging.next_due_s > now_s - 1e-6
    if count is not None:
        assert expected <= count * width


def test_it_ends_after_the_count() -> None:
    """Nothing is due any more once each target has had its requests."""
    pinging, targets, _ = begun(width=3, count=2)
    assert send_due(pinging, START_S + 1e6) == [0, 1, 2, 3, 4, 5]
    assert (pinging.due(START_S + 2e6, 9), pinging.next_due_s) == ([], None)
    assert [target.trips.sent for target in targets] == [2, 2, 2]


def test_without_a_count_it_goes_on() -> None:
    """There is always a next one."""
    pinging, _, _ = begun(width=2, count=None)
    assert len(send_due(pinging, START_S + 1e5)) == 200_001
    assert pinging.next_due_s == START_S + 200_001 * 0.5


def test_the_first_is_due_at_once_and_none_before() -> None:
    """The run begins with a request; a clock that is set back asks for none."""
    pinging, targets, _ = begun()
    assert pinging.due(START_S - 5, 9) == []
    assert pinging.due(START_S, 9) == [(0, targets[0])]


def test_what_is_late_is_caught_up_with_in_bounded_batches() -> None:
    """After a pause of ten intervals the ten requests leave, as many at a time as is allowed."""
    pinging, _, _ = begun(width=1, count=None)
    assert send_due(pinging, START_S) == [0]
    assert send_due(pinging, START_S + 10, limit=4) == [1, 2, 3, 4]
    assert send_due(pinging, START_S + 10, limit=4) == [5, 6, 7, 8]
    assert send_due(pinging, START_S + 10, limit=4) == [9, 10]
    assert send_due(pinging, START_S + 10, limit=4) == []


def test_what_did_not_leave_is_due_again() -> None:
    """A full buffer delays requests, and loses none."""
    pinging, targets, _ = begun(width=3, count=1)
    due = pinging.due(START_S + 1, 9)
    pinging.sent(*due[0], 1)  # then the kernel took no more
    assert [number for number, _ in pinging.due(START_S + 1, 9)] == [1, 2]
    assert [target.trips.sent for target in targets] == [1, 0, 0]
    assert pinging.awaited == 1


def test_no_target_is_no_request() -> None:
    """A run of nothing is over at once."""
    pinging = Pinging([], 3, 1.0, START_S)
    assert (pinging.due(START_S + 9, 9), pinging.next_due_s) == ([], None)


# -- answers --


def test_an_answer_is_counted_and_told() -> None:
    """By its request's number, with the sequence of that target from 1."""
    pinging, targets, events = begun(width=2)
    send_due(pinging, START_S + 1)  # numbers 0, 1, 2
    assert pinging.awaited == 3
    sent_ns = round((START_S + 1) * SECOND_NS)
    pinging.answered(2, sent_ns + 3 * MS, 61, "192.0.2.1")
    assert events == [Reply("host0", "192.0.2.1", 2, 0.003, 61, False)]
    assert (pinging.awaited, targets[0].ttl_hops, targets[1].ttl_hops) == (2, 61, None)
    assert (targets[0].trips.received, targets[1].trips.received) == (1, 0)
    assert targets[0].trips.last_s == 0.003


def test_the_kernels_time_of_leaving_counts() -> None:
    """From when it left, where that is known, rather than from when it was handed over."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 100 * MS)
    pinging.left(0, 101 * MS)
    pinging.answered(0, 104 * MS, 64, "x")
    assert targets[0].trips.last_s == 0.003


@pytest.mark.parametrize("left_ns", [5, 99 * MS, 105 * MS, 10**18])
def test_another_requests_time_of_leaving_is_passed_over(left_ns: int) -> None:
    """No round trip is negative: the time at which it was handed over is taken instead."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 100 * MS)
    pinging.left(0, left_ns)
    pinging.answered(0, 104 * MS, 64, "x")
    assert targets[0].trips.last_s == 0.004


def test_a_clock_that_is_set_back_makes_no_negative_time() -> None:
    """An answer that came before its request left took no time."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 100 * MS)
    pinging.answered(0, 50 * MS, 64, "x")
    assert targets[0].trips.last_s == 0.0


def test_the_second_answer_is_a_duplicate() -> None:
    """It is told and counted as one, and changes no other figure."""
    pinging, targets, events = begun()
    pinging.sent(0, targets[0], 0)
    for received_ns in (2 * MS, 9 * MS, 9 * MS):
        pinging.answered(0, received_ns, 64, "x")
    summary = targets[0].trips.summary()
    assert (summary.received, summary.duplicates, summary.max_s) == (1, 2, 0.002)
    assert [event.is_duplicate for event in events if isinstance(event, Reply)] == [
        *(False, True, True),
    ]
    assert pinging.awaited == 0


def test_a_late_answer_is_an_answer() -> None:
    """Also when later requests have been answered: it is told as overtaken."""
    pinging, targets, _ = begun()
    for number in range(3):
        pinging.sent(number, targets[0], number * SECOND_NS)
    pinging.answered(2, 2 * SECOND_NS + MS, 64, "x")
    pinging.answered(0, 2 * SECOND_NS + 5 * MS, 64, "x")
    summary = targets[0].trips.summary()
    assert (summary.received, summary.reordered, summary.max_s) == (2, 1, 2.005)


@pytest.mark.parametrize("number", [1, 65_535, 65_536, 1 << 40, -1, -65_536])
def test_a_number_that_was_not_sent_is_nobodys(number: int) -> None:
    """Answers, errors and times of other requests change nothing."""
    pinging, targets, events = begun()
    pinging.sent(0, targets[0], 0)
    pinging.left(number, 7)
    pinging.answered(number, 5, 64, "x")
    pinging.failed(number, UNREACHABLE)
    assert (events, pinging.awaited, targets[0].errors) == ([], 1, Counter())
    assert targets[0].trips.received == 0


def test_sixty_five_thousand_requests_are_known_and_the_one_before_is_not() -> None:
    """A place that is taken again belongs to the new request alone."""
    pinging, targets, events = begun(count=None)
    for number in range(MAX_IN_FLIGHT + 1):
        pinging.sent(number, targets[0], 1)
    assert pinging.awaited == MAX_IN_FLIGHT  # the first is given up
    pinging.answered(0, 2, 64, "x")
    pinging.left(0, 999)
    assert events == []
    pinging.answered(1, 2, 64, "x")
    pinging.answered(MAX_IN_FLIGHT, 2, 64, "x")
    assert [event.sequence for event in events] == [2, MAX_IN_FLIGHT + 1]
    assert pinging.awaited == MAX_IN_FLIGHT - 2
    pinging.sent(MAX_IN_FLIGHT + 1, targets[0], 3)  # at a place whose request was answered
    assert pinging.awaited == MAX_IN_FLIGHT - 1


# -- errors --


def test_a_failure_ends_the_waiting_and_is_told() -> None:
    """By its target, its sequence, and how often it was said."""
    pinging, targets, events = begun(width=2, count=2)
    for number, target in pinging.due(START_S + 9, 9):
        pinging.sent(number, target, 0)
    for number in (0, 2):
        pinging.failed(number, UNREACHABLE)
    assert pinging.awaited == 2
    assert events == [Failure("host0", 1, UNREACHABLE), Failure("host0", 2, UNREACHABLE)]
    assert (targets[0].errors, targets[1].errors) == (Counter({UNREACHABLE: 2}), Counter())
    assert targets[0].trips.summary().lost == 2


def test_an_answer_after_a_failure_counts_once() -> None:
    """Whoever said that it is unreachable was wrong; nothing is counted off twice."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 0)
    pinging.failed(0, UNREACHABLE)
    pinging.failed(0, UNREACHABLE)
    assert pinging.awaited == 0
    pinging.answered(0, MS, 64, "x")
    pinging.answered(0, MS, 64, "x")
    assert pinging.awaited == 0
    summary = targets[0].trips.summary()
    assert (summary.received, summary.duplicates, summary.lost) == (1, 1, 0)


def test_a_failure_after_the_answer_takes_nothing_back() -> None:
    """It is told of, and the answer stays."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 0)
    pinging.answered(0, MS, 64, "x")
    pinging.failed(0, UNREACHABLE)
    assert (pinging.awaited, targets[0].trips.received) == (0, 1)
    assert targets[0].errors == {UNREACHABLE: 1}


# -- what is awaited --


@given(
    st.integers(1, 5),
    st.integers(1, 60),
    st.sets(st.integers(0, 59)),
    st.sets(st.integers(0, 59)),
    st.integers(-2, 62),
)
def test_pending_are_those_that_left_lately_and_nothing_came_back_for(
    width: int, count: int, answered: set[int], failed: set[int], since: int
) -> None:
    """Per target, against a plain count."""
    pinging, targets, _ = begun(width, None)
    for number in range(count):
        pinging.sent(number, targets[number % width], number * MS + 1)
    for number in answered:
        pinging.answered(number, number * MS + 5, 64, "x")
    for number in failed:
        pinging.failed(number, UNREACHABLE)
    expected = Counter(
        targets[number % width]
        for number in range(count)
        if number >= since and number not in answered | failed
    )
    assert pinging.pending(since * MS + 1) == expected
    assert pinging.awaited == len(set(range(count)) - answered - failed)


def test_requests_that_are_awaited_are_neither_sent_nor_lost() -> None:
    """Of a run that is interrupted, or shown while it lasts."""
    pinging, targets, _ = begun(count=None)
    for number in range(4):
        pinging.sent(number, targets[0], number * SECOND_NS)
    pinging.answered(0, MS, 64, "x")
    pending = pinging.pending(3 * SECOND_NS)[targets[0]]
    assert pending == 1
    summary = result_of(targets[0], pending).summary
    assert (summary.sent, summary.received, summary.lost) == (3, 1, 2)
    assert (summary.min_s, summary.percentiles_s) == (
        0.001,
        {50: 0.001, 90: 0.001, 95: 0.001, 99: 0.001},
    )
    whole = targets[0].trips.summary()
    assert less_pending(whole, 0) is whole


def test_pending_looks_no_further_than_the_places() -> None:
    """Also when all 65,536 and more are awaited."""
    pinging, targets, _ = begun(count=None)
    for number in range(MAX_IN_FLIGHT + 10):
        pinging.sent(number, targets[0], 5)
    assert pinging.pending(0) == {targets[0]: MAX_IN_FLIGHT}


# -- results --


def test_a_result_tells_all_for_machines() -> None:
    """Host, address, figures, the last answer's TTL, and what was said instead."""
    pinging, targets, _ = begun()
    pinging.sent(0, targets[0], 0)
    pinging.answered(0, MS, 61, "192.0.2.1")
    pinging.failed(0, Told("192.0.2.7", "fragmentation needed", 1400))
    pinging.failed(0, Told("", "Network is unreachable"))
    told = result_of(targets[0]).as_json()
    assert list(told)[:2] == ["host", "address"]
    assert (told["host"], told["address"]) == ("host0", "192.0.2.1")
    assert (told["sent"], told["received"], told["min_ms"], told["ttl_hops"]) == (1, 1, 1.0, 61)
    assert told["errors"] == [
        {"source": "192.0.2.7", "text": "fragmentation needed", "mtu": 1400, "count": 1},
        {"source": "", "text": "Network is unreachable", "mtu": None, "count": 1},
    ]
    assert told["fault"] is None


def test_a_target_without_a_name_says_why() -> None:
    """It has no address, no figures and a fault."""
    target = Target("nowhere", None, "has no IPv6 address")
    result = result_of(target)
    assert (result.address, result.fault, result.summary.sent) == ("", "has no IPv6 address", 0)
    assert result.as_json()["address"] is None
    assert math.isclose(result.summary.loss, 0)


@pytest.mark.parametrize(
    ("name", "version"), [(("192.0.2.1", 0), 4), (("2001:db8::1", 0, 0, 0), 6), (None, 4)]
)
def test_a_targets_version_is_its_addresss(name: tuple[str, int] | None, version: int) -> None:
    """By which it is given to the socket of that version."""
    assert Target("a", name).version == version


def test_what_was_told_is_a_sentence() -> None:
    """With who said it, and the size that would have passed."""
    assert str(UNREACHABLE) == "host unreachable, says 192.0.2.1"
    assert str(Told("", "Message too long")) == "Message too long, says this machine"
    big = Told("192.0.2.1", "fragmentation needed", 1400)
    assert str(big) == "fragmentation needed (mtu 1400), says 192.0.2.1"
