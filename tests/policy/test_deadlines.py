"""The wheel of deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.deadlines import COARSEST_TICK_S, FINEST_TICK_S, DeadlineWheel, tick_for

quick = settings(max_examples=150, deadline=None)

TICK_S = 0.25
TIMES = st.integers(0, 160).map(lambda sixteenths: sixteenths / 16)  # exact in binary


@pytest.mark.parametrize(
    ("timeouts", "tick"),
    [
        ((), 1.0),
        ((None, None), 1.0),
        ((300.0,), 1.0),
        ((8.0,), 1.0),
        ((4.0,), 0.5),
        ((300.0, None, 2.0), 0.25),
        ((0.16,), FINEST_TICK_S),
        ((0.001,), FINEST_TICK_S),
        ((0.0, 4.0), 0.5),
    ],
)
def test_the_tick_suits_the_shortest_timeout(
    timeouts: tuple[float | None, ...], tick: float
) -> None:
    """The tick is an eighth of the shortest timeout, between 20 ms and a second."""
    assert tick_for(*timeouts) == pytest.approx(tick)
    assert FINEST_TICK_S <= tick_for(*timeouts) <= COARSEST_TICK_S


def test_an_item_is_due_at_its_deadline() -> None:
    """An item is held to the tick before its deadline, given once, and then forgotten."""
    wheel: DeadlineWheel[str] = DeadlineWheel(TICK_S)
    wheel.put("a", 1.0)
    assert len(wheel) == 1
    assert wheel.expire(0.99) == []
    assert wheel.expire(1.0) == ["a"]
    assert len(wheel) == 0
    assert wheel.expire(100.0) == []


def test_items_are_due_in_the_order_of_their_ticks() -> None:
    """After a long pause everything that is due comes at once, the oldest first."""
    wheel: DeadlineWheel[str] = DeadlineWheel(TICK_S)
    for item, when in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("d", 4.0)):
        wheel.put(item, when)
    assert wheel.expire(3.5) == ["a", "b", "c"]
    assert len(wheel) == 1


def test_a_later_deadline_takes_the_place_of_the_earlier() -> None:
    """An item has one deadline: the last that it was given, later or earlier."""
    wheel: DeadlineWheel[str] = DeadlineWheel(TICK_S)
    wheel.put("a", 1.0)
    wheel.put("a", 2.0)
    wheel.put("b", 9.0)
    wheel.put("b", 2.0)
    assert len(wheel) == 2
    assert wheel.expire(1.75) == []
    assert sorted(wheel.expire(2.0)) == ["a", "b"]


def test_a_forgotten_item_is_never_due() -> None:
    """What was discarded does not come back, and discarding a stranger is nothing."""
    wheel: DeadlineWheel[str] = DeadlineWheel(TICK_S)
    wheel.put("a", 1.0)
    wheel.discard("a")
    wheel.discard("a")
    wheel.discard("b")
    assert len(wheel) == 0
    assert wheel.expire(2.0) == []


def test_a_deadline_in_the_past_is_due_at_the_next_tick() -> None:
    """A deadline that is over when it is put is due at the next tick, not again in this one."""
    wheel: DeadlineWheel[str] = DeadlineWheel(TICK_S)
    assert wheel.expire(10.0) == []
    wheel.put("a", 1.0)
    wheel.put("b", 10.0)
    assert wheel.expire(10.0) == []
    assert sorted(wheel.expire(10.25)) == ["a", "b"]


STEPS = st.lists(
    st.tuples(st.just("put"), st.integers(0, 4), TIMES)
    | st.tuples(st.just("discard"), st.integers(0, 4), st.just(0.0))
    | st.tuples(st.just("expire"), st.just(0), TIMES.map(lambda time: time / 8)),
    max_size=40,
)


@quick
@given(STEPS)
def test_an_item_is_never_early_and_never_a_tick_late(steps: list[tuple[str, int, float]]) -> None:
    """Whatever happened before, an item is due from its deadline on, at most one tick later."""
    wheel: DeadlineWheel[int] = DeadlineWheel(TICK_S)
    held: dict[int, float] = {}
    now = 0.0
    for what, item, time in [*steps, ("expire", 0, 100.0)]:
        if what == "put":
            wheel.put(item, time)
            held[item] = max(time, now)
        elif what == "discard":
            wheel.discard(item)
            held.pop(item, None)
        else:
            now += time
            due = wheel.expire(now)
            assert len(due) == len(set(due))
            assert all(held.pop(item) <= now for item in due)
            assert all(when > now - TICK_S for when in held.values())
        assert len(wheel) == len(held)
    assert not held
