"""A bounded table of datagram peers: who is forgotten when it is full.

Knows keys and values; never a socket or a clock. A sender of forged addresses fills the table
with peers that never prove themselves, so those go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class PeerTable(Generic[K, V]):
    """Keeps at most *capacity* peers; the least recently used unproven one goes first.

    Args:
        capacity: Peers at once.
        share: Peers of one source at once; None for no limit. Over it the source's own oldest
            peer goes, so that one source cannot push out the others.
    """

    __slots__ = ("_capacity", "_find", "_proven", "_share", "_sources", "_touch", "_unproven")

    def __init__(self, capacity: int, share: int | None = None) -> None:
        self._capacity = capacity
        self._share = share
        self._unproven: OrderedDict[K, V] = OrderedDict()
        # Asked for each datagram: Python 3.11 looks up methods of an OrderedDict slowly.
        self._find, self._touch = self._unproven.get, self._unproven.move_to_end
        self._proven: OrderedDict[K, V] = OrderedDict()
        self._sources: dict[str, dict[K, None]] = {}

    def use(self, key: K) -> V | None:
        """Return the peer at *key* and mark it as the most recently used; None if unknown."""
        find = self._find
        peer = find(key)
        if peer is not None:
            touch = self._touch
            touch(key)
            return peer
        peer = self._proven.get(key)
        if peer is not None:
            self._proven.move_to_end(key)
        return peer

    def victims(self, source: str, *, shared: bool) -> list[V]:
        """Return who must go before one more peer of *source* is added.

        Args:
            source: What counts as one source.
            shared: Whether the share of a source applies to it.
        """
        victims: list[V] = []
        if shared and self._share is not None:
            keys = self._sources.get(source, {})
            if len(keys) >= self._share:
                victims.append(self._at(next(iter(keys))))
        if not victims and len(self) >= self._capacity:
            table = self._unproven or self._proven
            victims.append(next(iter(table.values())))
        return victims

    def add(self, key: K, peer: V, source: str) -> None:
        """Keep *peer* as unproven; the caller has removed the victims."""
        self._unproven[key] = peer
        self._sources.setdefault(source, {})[key] = None

    def prove(self, key: K) -> None:
        """Note that the peer at *key* is real."""
        peer = self._unproven.pop(key, None)
        if peer is not None:
            self._proven[key] = peer

    def remove(self, key: K, source: str) -> None:
        """Forget the peer at *key*."""
        if self._unproven.pop(key, None) is None:
            self._proven.pop(key, None)
        keys = self._sources.get(source)
        if keys is not None:
            keys.pop(key, None)
            if not keys:
                del self._sources[source]

    def _at(self, key: K) -> V:
        peer = self._unproven.get(key)
        return peer if peer is not None else self._proven[key]

    def __iter__(self) -> Iterator[V]:
        yield from list(self._unproven.values())
        yield from list(self._proven.values())

    def __len__(self) -> int:
        return len(self._unproven) + len(self._proven)
