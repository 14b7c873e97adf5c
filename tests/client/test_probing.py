"""The core of a probe: which bytes are an answer, what is due when, and what everything counts as.

Bytes and times in, counts out; the oracles are a regular expression and what the test put in.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.client import probing
from twistedsock.client.markers import MIN_SIZE_BYTES, Finder, MessageFinder, Pattern
from twistedsock.client.probing import BEHIND_S, RECENT, Probing

PATTERN = Pattern(40, Random(1))
OTHER = Pattern(40, Random(2))  # of another run
sizes = st.integers(MIN_SIZE_BYTES, 300)


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def fed(pieces: list[bytes], pattern: Pattern = PATTERN) -> tuple[list[int], Finder]:
    finder = Finder(pattern)
    found = [number for piece in pieces for number in finder.feed(piece)]
    finder.end()
    return found, finder


def probe_of(*, sent: int = 0, at: float = 0.0, **more: object) -> Probing:
    """Return a probe that has begun at 0 and sent so many requests at *at*."""
    finder = more.pop("finder", None) or Finder(PATTERN)
    made = Probing(PATTERN, finder, **more)  # type: ignore[arg-type]
    made.begin(0.0)
    for _ in range(sent):
        made.sent(at)
    return made


# -- requests --


@given(sizes, st.integers(0, 16**10 - 1))
def test_a_request_is_one_printable_line_of_its_size(size: int, number: int) -> None:
    """Whatever the size, it is ASCII that can be printed, and its only line feed is the last."""
    request = Pattern(size).request(number)
    assert len(request) == size
    assert request.endswith(b"\n")
    assert request[:-1].decode("ascii").isprintable()
    assert b"%010x" % number in request


def test_runs_differ() -> None:
    """The answers of one run are none of another's."""
    assert Pattern(64).request(0) != Pattern(64).request(0)
    assert fed([OTHER.request(3)])[0] == []


# -- finding --

pieces = st.one_of(
    st.integers(0, 99).map(PATTERN.request),
    st.integers(0, 99).map(lambda number: b"OK..." + PATTERN.request(number)),
    st.builds(lambda number, cut: PATTERN.request(number)[:cut], st.integers(0, 99), sizes),
    st.builds(
        lambda number, place: PATTERN.request(number)[:place] + b"!" + b"0" * (39 - place),
        st.integers(0, 99),
        st.integers(11, 38),
    ),
    st.sampled_from([b"hello\n", b"\n", b"<", PATTERN.prefix[:-1], OTHER.request(1), b"\r\n"]),
    st.binary(max_size=30),
)


@given(st.lists(pieces, max_size=12).map(b"".join), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chopping_finds_what_a_regular_expression_finds(data: bytes, cuts: list[int]) -> None:
    """Whole answers are found, broken ones counted, however the stream is cut."""
    whole = re.compile(
        re.escape(PATTERN.prefix) + rb"([0-9a-f]{10})" + re.escape(PATTERN.suffix), re.S
    )
    expected = [int(match[1], 16) for match in whole.finditer(data)]
    broken = whole.sub(b"\0", data).count(PATTERN.prefix)  # what was apart stays apart
    found, finder = fed(chopped(data, cuts))
    assert found == expected
    assert finder.corrupt == broken


@given(st.lists(pieces, max_size=8).map(b"".join), st.lists(st.integers(0, 10_000), max_size=30))
def test_stray_lines_are_those_without_any_part_of_an_answer(data: bytes, cuts: list[int]) -> None:
    """Lines that hold a request's beginning are none of them; nor are empty lines."""
    lines = [line for line in data.split(b"\n") if line and PATTERN.prefix not in line]
    _, finder = fed(chopped(data, cuts))
    assert (finder.stray, finder.stray_bytes) == (len(lines), sum(map(len, lines)))


def test_a_greeting_is_stray_and_words_before_an_answer_are_not() -> None:
    """The services' own answers: echo-reply greets, then says OK... and the request."""
    found, finder = fed([b"Welcome\n", b"OK..." + PATTERN.request(0)])
    assert (found, finder.stray, finder.stray_bytes, finder.corrupt) == ([0], 1, 7, 0)


def test_no_more_than_one_answer_is_held() -> None:
    """A flood without any line, and one of beginnings, leave nothing behind."""
    finder = Finder(PATTERN)
    for data in (b"x" * 100_000, PATTERN.prefix * 10_000, b"<" * 100_000):
        finder.feed(data)
        assert len(finder._held) < 40
    finder.end()
    assert (finder.corrupt, finder.stray) == (10_000, 0)  # one line, with beginnings in it


def test_messages_are_whole() -> None:
    """In a datagram what is cut is corrupt, and what holds no answer is stray, lines or not."""
    finder = MessageFinder(PATTERN)
    request = PATTERN.request(7)
    assert finder.feed(request) == [7]
    assert finder.feed(b"OK..." + request.rstrip()) == [7]
    assert finder.feed(request[:-2]) == []
    assert finder.feed(request[-2:]) == []
    assert finder.feed(b"a\nb\nc") == []
    assert finder.feed(b"") == []
    assert (finder.corrupt, finder.stray, finder.stray_bytes) == (1, 3, 7)


@pytest.mark.parametrize("digits", [b"00000000_1", b" 000000001", b"00000000A1", b"+000000001"])
def test_a_number_is_written_as_requests_write_it(digits: bytes) -> None:
    """What only reads like a number is an altered answer."""
    found, finder = fed([PATTERN.prefix + digits + PATTERN.suffix + b"\n"])
    assert (found, finder.corrupt) == ([], 1)


# -- counting --


@given(
    st.integers(1, 40).flatmap(
        lambda count: st.tuples(
            st.just(count),
            st.lists(st.tuples(st.integers(0, count - 1), st.booleans()), max_size=80),
        )
    ),
    st.lists(st.integers(0, 10_000), max_size=40),
)
def test_any_loss_duplication_and_order_gives_the_model_s_counts(
    case: tuple[int, list[tuple[int, bool]]], cuts: list[int]
) -> None:
    """A list of answers, each whole or altered, counts as a reading of that list says."""
    count, answers = case
    probe = probe_of(sent=count)
    stream = b"".join(
        PATTERN.request(number) if whole else PATTERN.request(number)[:-3] + b"!\n"
        for number, whole in answers
    )
    for piece in chopped(stream, cuts):
        probe.heard(piece, 0.25)
    firsts = list(dict.fromkeys(number for number, whole in answers if whole))
    result = probe.result(0.25, "tcp:h:1", "tcp", "10/s")
    figures = result.summary
    assert (figures.sent, figures.received, figures.lost) == (
        count,
        len(firsts),
        count - len(firsts),
    )
    assert figures.duplicates == sum(whole for _, whole in answers) - len(firsts)
    assert figures.reordered == sum(
        number < max(firsts[: place + 1]) for place, number in enumerate(firsts)
    )
    assert result.corrupt == sum(not whole for _, whole in answers)
    assert list(result.samples_s) == [0.25] * len(firsts)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.0, 3.0)), max_size=40))
def test_what_is_later_than_the_timeout_is_lost_whenever_it_is_noticed(
    events: list[tuple[int, float]],
) -> None:
    """In time, late or again: told by the times alone, though nothing expired in between."""
    eager, lazy = (probe_of(sent=10, timeout_s=1.0) for _ in range(2))
    seen: set[int] = set()
    received = late = again = 0
    for number, at in sorted(events, key=lambda event: event[1]):
        eager.expire(at)
        for each in (eager, lazy):
            each.heard(PATTERN.request(number), at)
        received += number not in seen and at <= 1.0
        late += number not in seen and at > 1.0
        again += number in seen
        seen.add(number)
    for each in (eager, lazy):
        trips = each.round_trips
        assert (trips.received, each.late, trips.duplicates) == (received, late, again)
        each.expire(10.0)
        assert (each.lost, each.in_flight) == (10 - received, {})


def test_an_answer_to_what_was_never_asked_is_corrupt() -> None:
    """Its number was altered: it is no duplicate, and no request's answer."""
    probe = probe_of(sent=2)
    probe.heard(PATTERN.request(2), 0.1)
    assert (probe.corrupt, probe.round_trips.received, len(probe.in_flight)) == (1, 0, 2)


def test_memory_of_the_lost_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest are forgotten; what comes for them is late, not in time."""
    monkeypatch.setattr(probing, "MAX_REMEMBERED", 5)
    probe = probe_of(sent=20)
    probe.expire(5.0)
    assert len(probe._lost) == 5
    for number in (0, 0, 19, 19):
        probe.heard(PATTERN.request(number), 6.0)
    assert (probe.late, probe.round_trips.duplicates, probe.lost) == (3, 1, 20)
    assert probe.recent_s.maxlen == RECENT


# -- the schedule --


def test_requests_are_due_at_fixed_times() -> None:
    """What was not sent in time stays due: a slow moment hides nothing."""
    probe = probe_of(rate=10.0, count=5)
    assert [probe.due(at) for at in (0.0, 0.05, 0.1, 0.39, 10.0)] == [1, 1, 2, 4, 5]
    probe.sent(0.0)
    assert probe.due(0.05) == 0
    assert probe.wake_at(0.05) == pytest.approx(0.1)
    probe.sent(0.4)
    assert (probe.due(0.4), probe.behind) == (3, 1)
    assert probe.wake_at(0.4) == 0.4  # at once
    result = probe.result(0.4, "udp:h:1", "udp", "10/s")
    assert (result.behind, result.unsent) == (4, 3)
    assert result.behind_s == pytest.approx(0.3)


def test_a_timer_s_own_lateness_is_not_behind() -> None:
    """Only what is later than any sound timer is told."""
    probe = probe_of(rate=10.0, count=5)
    probe.sent(BEHIND_S * 0.9)
    probe.sent(0.1 + BEHIND_S * 1.1)
    assert probe.behind == 1
    assert probe.result(0.2, "", "udp", "").behind_s == pytest.approx(BEHIND_S * 1.1)


def test_without_a_rate_each_waits_for_the_one_before() -> None:
    """Closed-loop: the next is due once the last is answered, or given up."""
    probe = probe_of(rate=None, count=3)
    assert probe.due(0.0) == 1
    probe.sent(0.0)
    assert probe.due(0.5) == 0
    assert probe.wake_at(0.5) == 1.0
    probe.heard(PATTERN.request(0), 0.6)
    assert probe.due(0.6) == 1
    probe.sent(0.6)
    probe.expire(1.5)
    assert probe.due(1.5) == 0
    probe.expire(1.7)
    assert probe.due(1.7) == 1
    assert probe.wake_at(1.7) == 1.7  # at once: no answer will come to wake it
    assert probe.wake_at(1.7, is_blocked=True) == math.inf
    probe.sent(1.7)
    probe.heard(PATTERN.request(2), 1.8)
    assert probe.due(1.8) == 0
    assert probe.is_over(1.8)
    result = probe.result(1.8, "", "udp", "max")
    assert (result.summary.lost, result.behind, result.unsent) == (1, 0, 0)


@pytest.mark.parametrize(
    ("duration_s", "rate", "expected"),
    [(1.0, 10.0, 10), (0.95, 10.0, 10), (0.01, 10.0, 1), (2.0, 0.1, 1), (0.3, 10.0, 3)],
)
def test_a_duration_and_a_rate_are_a_count(duration_s: float, rate: float, expected: int) -> None:
    """Those that are due before the end; one at least."""
    probe = probe_of(rate=rate, duration_s=duration_s)
    assert probe.due(duration_s + 0.5) == expected


def test_after_a_duration_nothing_is_caught_up_without_end() -> None:
    """What could not be sent within the time-out after it is told as unsent."""
    probe = probe_of(rate=100.0, duration_s=1.0, timeout_s=0.5)
    probe.sent(0.0)
    probe.heard(PATTERN.request(0), 0.1)
    assert probe.due(1.4) == 99
    assert not probe.is_over(1.4)
    assert probe.due(1.6) == 0
    assert probe.is_over(1.6)
    assert probe.result(1.6, "", "tcp", "").unsent == 99


def test_a_peer_that_takes_nothing_does_not_keep_a_probe_from_its_end() -> None:
    """Once all would have been sent and nothing is in flight, it is over."""
    probe = probe_of(rate=10.0, count=5)
    probe.sent(0.0)
    assert not probe.is_over(0.2, is_blocked=True)
    probe.expire(1.5)
    assert not probe.is_over(1.5)
    assert probe.is_over(1.5, is_blocked=True)
    endless = probe_of(rate=10.0, sent=1)
    endless.expire(2.0)
    assert not endless.is_over(2.0, is_blocked=True)


def test_a_blocked_probe_does_not_wake_for_nothing() -> None:
    """It sleeps to the next expiry, or to the time that its last request is due."""
    probe = probe_of(rate=10.0, count=50, sent=1)
    assert probe.wake_at(0.5, is_blocked=True) == 1.0
    probe.expire(1.1)
    assert probe.wake_at(1.1, is_blocked=True) == pytest.approx(4.9)


def test_stopping_waits_for_what_is_in_flight() -> None:
    """Nothing more is due; it is over once all are answered or lost."""
    probe = probe_of(rate=10.0, sent=2, at=0.1)
    probe.stop()
    assert probe.due(5.0) == 0
    assert not probe.is_over(0.2)
    probe.heard(PATTERN.request(0) + PATTERN.request(1), 0.3)
    assert probe.is_over(0.3)
    result = probe.result(0.3, "", "tcp", "")
    assert (result.unsent, result.summary.lost) == (0, 0)


def test_the_json_names_tell_their_units() -> None:
    """Every figure is there; times in milliseconds, and null where there is none."""
    probe = probe_of(sent=2)
    probe.failed("ECONNREFUSED")
    probe.failed("ECONNREFUSED")
    probe.heard(b"hi\n" + PATTERN.request(1), 0.002)
    told = probe.result(2.0, "udp:h:7", "udp", "10/s").as_json()
    assert told["address"] == "udp:h:7"
    assert told["size_bytes"] == 40
    assert told["duration_s"] == 2.0
    assert (told["sent"], told["received"], told["loss_percent"]) == (2, 1, 50.0)
    assert told["p50_ms"] == told["max_ms"] == 2.0
    assert told["errors"] == {"ECONNREFUSED": 2}
    assert (told["stray"], told["stray_bytes"], told["late"], told["corrupt"]) == (1, 2, 0, 0)
    assert told["ended_by"] is None
    assert probe_of().result(0.0, "", "udp", "").as_json()["p99_ms"] is None
