"""Deadlines of many things at the price of few: a wheel of ticks.

Knows times and opaque items; never a clock or a timer. Activity costs nothing here: an item
that was active simply gets a later deadline when its tick comes round.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

FINEST_TICK_S: Final = 0.02  # a finer tick would cost more than it could matter
COARSEST_TICK_S: Final = 1.0


def tick_for(*timeouts_s: float | None) -> float:
    """Return the tick, in seconds, that keeps every one of *timeouts_s* within an eighth."""
    shortest = min((value for value in timeouts_s if value), default=8 * COARSEST_TICK_S)
    return max(FINEST_TICK_S, min(COARSEST_TICK_S, shortest / 8))


class DeadlineWheel(Generic[T]):
    """Holds items until their deadline, to the precision of one tick.

    Args:
        tick_s: The length of a tick, in seconds.
    """

    __slots__ = ("_last", "_slots", "_where", "tick_s")

    def __init__(self, tick_s: float) -> None:
        self.tick_s = tick_s
        self._slots: dict[int, set[T]] = {}
        self._where: dict[T, int] = {}
        self._last: int | None = None  # the newest tick that was expired

    def put(self, item: T, when: float) -> None:
        """Hold *item* until *when*, in place of any earlier deadline of its."""
        slot = math.ceil(when / self.tick_s)
        if self._last is not None and slot <= self._last:
            slot = self._last + 1
        old = self._where.get(item)
        if old == slot:
            return
        if old is not None:
            self._leave(item, old)
        self._where[item] = slot
        self._slots.setdefault(slot, set()).add(item)

    def discard(self, item: T) -> None:
        """Forget *item*, if it is here."""
        slot = self._where.pop(item, None)
        if slot is not None:
            self._leave(item, slot)

    def _leave(self, item: T, slot: int) -> None:
        members = self._slots[slot]
        members.discard(item)
        if not members:
            del self._slots[slot]

    def expire(self, now: float) -> list[T]:
        """Take out and return every item whose deadline is at or before *now*."""
        current = math.floor(now / self.tick_s)
        self._last = current
        due: list[T] = []
        for slot in sorted(slot for slot in self._slots if slot <= current):
            due.extend(self._slots.pop(slot))
        for item in due:
            del self._where[item]
        return due

    def __len__(self) -> int:
        return len(self._where)
