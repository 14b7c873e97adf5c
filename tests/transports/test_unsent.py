"""Datagrams that wait: in order, within bounds, nobody held up by another. Time is a Clock."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twistedsock.transports.unsent import (
    FIRST_RETRY_S,
    LAST_RETRY_S,
    MAX_BYTES,
    MAX_PEER_BYTES,
    OVERHEAD_BYTES,
    PASSING,
    Unsent,
)


class Peers:
    """What peers have taken, and how much each takes now."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.dropped = 0
        self.unsent = Unsent(self.clock, self._drop)
        self.room: Counter[str] = Counter()
        self.taken: list[tuple[str, int]] = []
        self.errors: dict[str, int] = {}

    def _drop(self) -> None:
        self.dropped += 1

    def keep(self, peer: str, number: int, size: int = 100) -> bool:
        def send() -> None:
            if peer in self.errors:
                raise OSError(self.errors[peer], "no")
            if not self.room[peer]:
                raise BlockingIOError(errno.EAGAIN, "full")
            self.room[peer] -= 1
            self.taken.append((peer, number))

        return self.unsent.keep(peer, size, send)

    def is_empty(self) -> bool:
        return not self.clock.getDelayedCalls() and not self.unsent._bytes


def test_what_waits_goes_in_order_as_soon_as_there_is_room() -> None:
    """A peer that has room again gets what waits, oldest first, and no timer is left."""
    peers = Peers()
    assert all(peers.keep("a", number) for number in range(5))
    assert peers.unsent.holds("a")
    assert not peers.unsent.holds("b")
    peers.room["a"] = 3
    peers.clock.advance(FIRST_RETRY_S)
    assert peers.taken == [("a", 0), ("a", 1), ("a", 2)]
    assert peers.unsent.holds("a")
    peers.room["a"] = 9
    peers.clock.advance(FIRST_RETRY_S)
    assert peers.taken[3:] == [("a", 3), ("a", 4)]
    assert not peers.unsent.holds("a")
    assert peers.is_empty()
    assert peers.dropped == 0


def test_a_slow_peer_holds_up_nobody() -> None:
    """What waits for another peer goes while one takes nothing."""
    peers = Peers()
    peers.keep("slow", 0)
    peers.keep("quick", 1)
    peers.room["quick"] = 1
    peers.clock.advance(FIRST_RETRY_S)
    assert peers.taken == [("quick", 1)]
    peers.unsent.clear()


def test_the_clock_slows_down_while_nothing_goes() -> None:
    """Retries double their distance to a bound, and start anew once something went."""
    peers = Peers()
    peers.keep("a", 0)
    peers.keep("a", 1)
    waits = []
    for _ in range(10):
        (call,) = peers.clock.getDelayedCalls()
        waits.append(round(call.getTime() - peers.clock.seconds(), 6))
        peers.clock.advance(waits[-1])
    assert waits[:4] == [FIRST_RETRY_S * 2**power for power in range(4)]
    assert waits[-1] == LAST_RETRY_S
    peers.room["a"] = 1
    peers.clock.advance(LAST_RETRY_S)
    (call,) = peers.clock.getDelayedCalls()
    assert call.getTime() - peers.clock.seconds() == pytest.approx(FIRST_RETRY_S)
    peers.unsent.clear()


def test_the_bounds_hold_for_one_peer_and_for_all() -> None:
    """Beyond the bound of a peer, and of all together, nothing more is kept."""
    peers = Peers()
    size = MAX_PEER_BYTES // 4 - OVERHEAD_BYTES
    assert [peers.keep("a", 0, size) for _ in range(5)] == [True] * 4 + [False]
    for peer in "bcd":
        assert all(peers.keep(peer, 0, size) for _ in range(4))
    assert MAX_BYTES == 4 * MAX_PEER_BYTES
    assert not peers.keep("e", 0, 0)
    assert not peers.unsent.holds("e")
    peers.unsent.clear()
    assert peers.dropped == 16
    assert peers.keep("e", 0)
    peers.unsent.clear()
    assert peers.is_empty()


def test_empty_datagrams_are_not_free() -> None:
    """A peer may not make us hold any number of datagrams of no bytes."""
    peers = Peers()
    kept = sum(peers.keep("a", number, 0) for number in range(10_000))
    assert kept == MAX_PEER_BYTES // OVERHEAD_BYTES
    peers.unsent.clear()


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ENOENT, errno.EPERM, errno.EMSGSIZE])
def test_a_peer_that_is_gone_is_given_up(number: int) -> None:
    """What waits for a peer that is gone is dropped and counted, each datagram."""
    peers = Peers()
    for index in range(3):
        peers.keep("gone", index)
    peers.errors["gone"] = number
    peers.clock.advance(FIRST_RETRY_S)
    assert peers.dropped == 3
    assert not peers.unsent.holds("gone")
    assert peers.is_empty()


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_passes_is_waited_for(number: int) -> None:
    """Full buffers of any sort are no reason to give up."""
    peers = Peers()
    peers.keep("a", 0)
    peers.errors["a"] = number
    peers.clock.advance(FIRST_RETRY_S)
    assert peers.unsent.holds("a")
    peers.errors.clear()
    peers.room["a"] = 1
    peers.clock.advance(LAST_RETRY_S)
    assert peers.taken == [("a", 0)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 90_000), st.booleans()), max_size=60)
)
def test_nothing_is_reordered_lost_or_kept_beyond_the_bounds(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Each peer gets what was kept for it, once, in order, whatever the others do."""
    peers = Peers()
    kept: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for number, (peer, size, has_room) in enumerate(steps):
        if peers.keep(peer, number, size):
            kept[peer].append(number)
        assert peers.unsent._bytes <= MAX_BYTES
        if has_room:
            peers.room[peer] += 2
            peers.clock.advance(LAST_RETRY_S)
    for peer in kept:
        peers.room[peer] = 100
    peers.clock.advance(LAST_RETRY_S)
    for peer, numbers in kept.items():
        assert [number for name, number in peers.taken if name == peer] == numbers
    assert peers.is_empty()
    assert peers.dropped == 0
