"""Following a ring without a reactor, for a command: one poll(2) loop."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from twistedsock.transports.packet_ring import LINGER_S, RETIRE_MS, Block, InterfaceLost, Ring

Deal = Callable[[Block, int], int]  # with a block, at most so many packets; returns how many
ALL = 1 << 62


def follow(
    ring: Ring,
    deal: Deal,
    *,
    count: int | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    wake: int = -1,
    tick: Callable[[int], object] | None = None,
    tick_s: float = 0.5,
) -> int:
    """Have *deal* see every packet of *ring*, block by block; return how many they were.

    When it shall stop, or the interface is gone, what is in the ring already still goes to *deal*.

    Args:
        ring: Stays the caller's to close.
        deal: Is called with a block and with how many of its packets are wanted at most.
        count: To return after so many packets; None for no end.
        is_stopping: Asked after each block and each event: whether to stop.
        wake: A descriptor that is readable when ``is_stopping`` is to be asked; -1 for none.
        tick: Is told the number of packets now and then.
        tick_s: How often.

    Raises:
        InterfaceLost: It went down or away.
    """
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    if wake >= 0:
        poll.register(wake, select.POLLIN)
    left = total = ALL if count is None else count
    wait_ms = None if tick is None else tick_s * 1000
    due = time.monotonic() + tick_s
    lost: InterfaceLost | None = None
    while True:
        left -= _deal(ring, deal, left, is_stopping)
        if tick is not None and time.monotonic() >= due:
            tick(total - left)
            due = time.monotonic() + tick_s
        if not left:
            return total
        if lost or is_stopping():
            break
        events = dict(poll.poll(wait_ms))
        if events.get(ring.fileno(), 0) & select.POLLERR:
            lost = ring.fault()
    if wake >= 0:
        poll.unregister(wake)
    ring.stop()
    end = time.monotonic() + LINGER_S
    while left and not ring.is_empty and time.monotonic() < end:
        poll.poll(RETIRE_MS / 4)
        left -= _deal(ring, deal, left, lambda: False)
    if lost:
        raise lost
    return total - left


def _deal(ring: Ring, deal: Deal, most: int, is_stopping: Callable[[], bool]) -> int:
    """Deal with the blocks that are there; return how many packets they had."""
    dealt = 0
    while dealt < most and not is_stopping() and (block := ring.take()) is not None:
        dealt += deal(block, most - dealt)
        ring.give_back()
    return dealt
