"""The throttle of log lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.throttle import LogThrottle

quick = settings(max_examples=150, deadline=None)


def test_one_event_passes_in_an_interval() -> None:
    """The first passes, others are counted, and the first after the interval tells how many."""
    throttle = LogThrottle(1.0)
    assert throttle.admit("refused", 0.0) == 0
    assert throttle.admit("refused", 0.5) is None
    assert throttle.admit("refused", 0.999) is None
    assert throttle.admit("refused", 1.0) == 2
    assert throttle.admit("refused", 1.5) is None
    assert throttle.admit("refused", 9.0) == 1


def test_words_do_not_hinder_each_other() -> None:
    """Each word has an interval of its own."""
    throttle = LogThrottle()
    assert throttle.admit("refused", 0.0) == 0
    assert throttle.admit("limit", 0.5) == 0
    assert throttle.admit("refused", 0.5) is None
    assert len(throttle) == 2


def test_what_is_overdue_is_told_once_and_forgotten() -> None:
    """A word whose interval is over is told where events were suppressed, else forgotten."""
    throttle = LogThrottle(1.0)
    throttle.admit("quiet", 0.0)
    throttle.admit("loud", 0.0)
    throttle.admit("loud", 0.1)
    throttle.admit("young", 0.5)
    throttle.admit("young", 0.6)
    assert list(throttle.overdue(0.999)) == []
    assert list(throttle.overdue(1.0)) == [("loud", 1)]
    assert list(throttle.overdue(1.0)) == []
    assert len(throttle) == 2
    assert throttle.admit("loud", 1.9) is None  # its line at 1.0 was one, too
    assert list(throttle.overdue(2.0)) == [("loud", 1), ("young", 1)]
    assert list(throttle.overdue(3.0)) == []
    assert len(throttle) == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", ""]), st.integers(0, 8).map(lambda eighths: eighths / 8)),
    max_size=40,
)


@quick
@given(EVENTS)
def test_no_event_is_lost_from_the_count(events: list[tuple[str, float]]) -> None:
    """Lines and the numbers on them add up to the events, and no word has two in an interval."""
    throttle, now, told = LogThrottle(1.0), 0.0, 0
    lines: dict[str, float] = {}

    def line(word: str) -> None:
        assert now - lines.get(word, -1.0) >= 1.0
        lines[word] = now

    happened = 0
    for word, gap in [*events, ("", 1.0), ("", 1.0)]:
        now += gap
        if not word:
            for late, count in throttle.overdue(now):
                line(late)
                told += count
            continue
        happened += 1
        suppressed = throttle.admit(word, now)
        if suppressed is not None:
            line(word)
            told += 1 + suppressed
    assert told == happened
    assert len(throttle) == 0
