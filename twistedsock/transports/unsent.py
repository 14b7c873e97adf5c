"""Datagrams that the kernel does not take now: kept for a moment, in order, within bounds.

A buffer that is full is empty again in milliseconds, and no event tells when a UNIX peer's queue
has room; so what waits is tried again by the clock. One slow peer holds up nobody else.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

FIRST_RETRY_S, LAST_RETRY_S = 0.002, 0.128  # doubling while nothing goes
MAX_BYTES = 1024 * 1024  # of all peers together
MAX_PEER_BYTES = 256 * 1024  # of one peer
OVERHEAD_BYTES = 64  # of each datagram: empty ones are not free
# What passes: a full buffer, a full queue of the device or of a UNIX peer (send(2)).
PASSING = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EINTR, errno.ENOMEM})

Send = Callable[[], object]


class Unsent:
    """What one port has not sent yet.

    Args:
        reactor: Runs the timer.
        dropped: Called for each datagram that was given up after all.
    """

    def __init__(self, reactor: Any, dropped: Callable[[], None]) -> None:
        self._reactor = reactor
        self._dropped = dropped
        self._queues: dict[Hashable, deque[tuple[int, Send]]] = {}
        self._sizes: dict[Hashable, int] = {}
        self._bytes = 0
        self._retry_s = FIRST_RETRY_S
        self._timer: Any = None

    def holds(self, peer: Hashable) -> bool:
        """Return whether something waits for *peer*, which a newer datagram may not overtake."""
        return peer in self._queues

    def keep(self, peer: Hashable, size: int, send: Send) -> bool:
        """Keep a datagram, to be sent by calling *send*; return whether there was room."""
        size += OVERHEAD_BYTES
        waiting = self._sizes.get(peer, 0)
        if self._bytes + size > MAX_BYTES or waiting + size > MAX_PEER_BYTES:
            return False
        self._queues.setdefault(peer, deque()).append((size, send))
        self._sizes[peer] = waiting + size
        self._bytes += size
        if self._timer is None:
            self._timer = self._reactor.callLater(self._retry_s, self._try)
        return True

    def clear(self) -> None:
        """Give up everything: the port closes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for queue in self._queues.values():
            for _ in queue:
                self._dropped()
        self._queues.clear()
        self._sizes.clear()
        self._bytes = 0

    def _try(self) -> None:
        self._timer = None
        went = [self._flush(peer) for peer in list(self._queues)]
        self._retry_s = FIRST_RETRY_S if any(went) else min(2 * self._retry_s, LAST_RETRY_S)
        if self._queues and self._timer is None:
            self._timer = self._reactor.callLater(self._retry_s, self._try)

    def _flush(self, peer: Hashable) -> bool:
        """Send what *peer* takes; return whether anything went."""
        queue, went = self._queues[peer], False
        while queue:
            size, send = queue[0]
            try:
                send()
            except OSError as error:
                if error.errno in PASSING:
                    return went
                self._dropped()  # the peer is gone, or there is no way to it any more
            queue.popleft()
            self._sizes[peer] -= size
            self._bytes -= size
            went = True
        del self._queues[peer], self._sizes[peer]
        return went
