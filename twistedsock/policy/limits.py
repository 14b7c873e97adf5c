"""Limits on sessions: how many in all, how many a source, and how fast they come.

Know numbers and source keys; never a socket or a clock (``now`` is passed in).
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from twistedsock.addresses import USER, is_loopback
from twistedsock.units import Rate

MAX_BUCKETS = 10_000  # sources whose rate is remembered at once; the least recent is forgotten


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service allows its peers. Times in seconds, sizes in bytes; None means no limit.

    Attributes:
        max_connections: Stream sessions at once, and datagram sessions a listener.
        max_connections_per_source: Sessions of one IPv4 address or one IPv6 /64.
        limit_loopback: Whether the limit per source binds loopback peers too.
        accept_rate: New sessions of one source in a time.
        first_byte_timeout: For services whose client speaks first: to the first byte.
        idle_timeout: Without a byte in either direction.
        session_timeout: From opening to the end, whatever happens.
        max_message: The largest message; None is 64 KiB on streams and any whole datagram.
        write_high_water: Unsent bytes above which the peer is not read.
        write_timeout: To drain once above the high-water mark.
        drain_timeout: At stop, for sessions to end by themselves.
    """

    max_connections: int = 10_000
    max_connections_per_source: int | None = 64
    limit_loopback: bool = False
    accept_rate: Rate | None = None
    first_byte_timeout: float | None = 10.0
    idle_timeout: float | None = 300.0
    session_timeout: float | None = None
    max_message: int | None = None
    write_high_water: int = 1024 * 1024
    write_timeout: float = 30.0
    drain_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_connections_per_source", "max_message"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("write_high_water", "write_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@lru_cache(maxsize=4096)
def source_key(host: str) -> str:
    """Return what counts as one source: an IPv4 address, the /64 of an IPv6 one, or a UNIX user.

    A site gets a /64 at least (RFC 6177), so counting single IPv6 addresses would limit nobody.
    """
    if ":" not in host or host.startswith(USER):
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(ipaddress.IPv6Network((address, 64), strict=False))


class SourceLimit:
    """Counts the live sessions of each source against a limit.

    Args:
        limit: Sessions of one source at once; None for no limit.
        limit_loopback: False exempts loopback and UNIX peers: they are counted, never refused.
    """

    __slots__ = ("_limit", "_limit_loopback", "_live")

    def __init__(self, limit: int | None, *, limit_loopback: bool = False) -> None:
        self._limit = limit
        self._limit_loopback = limit_loopback
        self._live: Counter[str] = Counter()

    def is_full(self, host: str) -> bool:
        """Return whether one more session of *host* would be too many."""
        if self._limit is None or self._live[source_key(host)] < self._limit:
            return False
        return self._limit_loopback or not (host.startswith(USER) or is_loopback(host))

    def opened(self, host: str) -> None:
        """Count a session of *host*."""
        self._live[source_key(host)] += 1

    def closed(self, host: str) -> None:
        """Give its place back; the caller does so exactly once for each ``opened``."""
        key = source_key(host)
        left = self._live[key] - 1
        if left > 0:
            self._live[key] = left
        else:
            del self._live[key]

    def __len__(self) -> int:
        return len(self._live)


class AcceptRate:
    """A token bucket for each source: bursts up to the rate's count, then the rate.

    Args:
        rate: New sessions in a time; None lets everything through.
    """

    __slots__ = ("_buckets", "_rate")

    def __init__(self, rate: Rate | None) -> None:
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, host: str, now: float) -> bool:
        """Return whether *host* may open a session at *now*, and take its token if so."""
        rate = self._rate
        if rate is None:
            return True
        key = source_key(host)
        burst = max(1.0, rate.count)
        tokens, then = self._buckets.pop(key, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate.per_second)
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return allowed
