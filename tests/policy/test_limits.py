"""Limits on sessions."""

from __future__ import annotations

import ipaddress
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.limits import MAX_BUCKETS, AcceptRate, Limits, SourceLimit, source_key
from twistedsock.units import Rate

quick = settings(max_examples=150, deadline=None)


def test_the_defaults_are_the_documented_ones() -> None:
    """Limits are on by default, at the numbers that the design promises."""
    limits = Limits()
    assert (limits.max_connections, limits.max_connections_per_source) == (10_000, 64)
    assert (limits.limit_loopback, limits.accept_rate) == (False, None)
    assert (limits.first_byte_timeout, limits.idle_timeout) == (10, 300)
    assert (limits.session_timeout, limits.max_message) == (None, None)
    assert (limits.write_high_water, limits.write_timeout) == (1 << 20, 30)
    assert limits.drain_timeout == 10
    with pytest.raises(FrozenInstanceError):
        limits.max_connections = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_source", "max_message"])
def test_a_number_that_lets_nobody_in_is_refused(name: str) -> None:
    """A limit is at least 1: 0 would be a service that serves nobody."""
    assert getattr(replace(Limits(), **{name: 1}), name) == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {wrong}$"):
            replace(Limits(), **{name: wrong})


@pytest.mark.parametrize("name", ["write_high_water", "write_timeout"])
def test_a_number_that_lets_nothing_out_is_refused(name: str) -> None:
    """What bounds writing is above 0."""
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be above 0, got {wrong}$"):
            replace(Limits(), **{name: wrong})


def test_none_means_no_limit() -> None:
    """The limits that may be lifted take None."""
    lifted = Limits(max_connections_per_source=None, max_message=None, idle_timeout=None)
    assert lifted.max_connections_per_source is None


@quick
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_one_source(address: ipaddress.IPv4Address) -> None:
    """Every IPv4 address is a source of its own."""
    assert source_key(str(address)) == str(address)


@quick
@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_ipv6_addresses_of_one_64_are_one_source(
    one: ipaddress.IPv6Address, other: ipaddress.IPv6Address
) -> None:
    """IPv6 addresses are one source exactly where their first 64 bits agree."""
    near = ipaddress.IPv6Address(one.packed[:8] + other.packed[8:])
    assert source_key(str(one)) == source_key(str(near))
    same = one.packed[:8] == other.packed[:8]
    assert (source_key(str(one)) == source_key(str(other))) is same


def test_a_scope_is_no_part_of_the_source() -> None:
    """A link-local address counts as its prefix, with or without its interface."""
    assert source_key("fe80::1%eth0") == source_key("fe80::2") == "fe80::/64"


def test_a_source_is_full_at_its_limit() -> None:
    """The limit's own number of sessions fits; one more is too many until one ends."""
    limit = SourceLimit(2)
    limit.opened("192.0.2.1")
    assert not limit.is_full("192.0.2.1")
    limit.opened("192.0.2.1")
    assert limit.is_full("192.0.2.1")
    assert not limit.is_full("192.0.2.2")
    limit.closed("192.0.2.1")
    assert not limit.is_full("192.0.2.1")
    limit.opened("192.0.2.1")
    assert limit.is_full("192.0.2.1")


def test_a_64_is_full_together() -> None:
    """A site cannot get round the limit with other addresses of its /64."""
    limit = SourceLimit(1)
    limit.opened("2001:db8::1")
    assert limit.is_full("2001:db8::ffff")
    assert not limit.is_full("2001:db8:0:1::1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_counted_and_exempt(host: str) -> None:
    """A loopback peer is counted, and refused only where the limit binds loopback too."""
    for limit_loopback in (False, True):
        limit = SourceLimit(1, limit_loopback=limit_loopback)
        limit.opened(host)
        assert len(limit) == 1
        assert limit.is_full(host) is limit_loopback


def test_no_limit_is_never_full() -> None:
    """Without a limit no source is full."""
    limit = SourceLimit(None, limit_loopback=True)
    for _ in range(1000):
        limit.opened("192.0.2.1")
    assert not limit.is_full("192.0.2.1")


@quick
@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1"])))
def test_sources_whose_sessions_ended_are_forgotten(hosts: list[str]) -> None:
    """When every session has ended nothing is remembered, and asking leaves no trace."""
    limit = SourceLimit(3)
    for host in hosts:
        limit.opened(host)
    assert len(limit) == len(set(hosts))
    for host in reversed(hosts):
        limit.closed(host)
        limit.is_full("198.51.100.1")
    assert len(limit) == 0


def test_a_burst_passes_and_then_the_rate() -> None:
    """As many as the count pass at once, then one for each part of the time."""
    bucket = AcceptRate(Rate(2, 8.0))
    assert [bucket.take("192.0.2.1", 0) for _ in range(3)] == [True, True, False]
    assert not bucket.take("192.0.2.1", 3.75)
    assert bucket.take("192.0.2.1", 4)
    assert not bucket.take("192.0.2.1", 4)
    assert [bucket.take("192.0.2.1", 1000) for _ in range(3)] == [True, True, False]


def test_a_rate_below_one_still_lets_one_through() -> None:
    """Half a session a second is one in two seconds, not none."""
    bucket = AcceptRate(Rate(0.5))
    assert [bucket.take("192.0.2.1", now) for now in (0, 1, 2, 3, 4)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_sources_have_buckets_of_their_own() -> None:
    """One source's haste costs no other, but a /64 shares one bucket."""
    bucket = AcceptRate(Rate(1))
    assert bucket.take("2001:db8::1", 0)
    assert not bucket.take("2001:db8::2", 0)
    assert bucket.take("2001:db8:0:1::1", 0)
    assert bucket.take("192.0.2.1", 0)


def test_no_rate_lets_everything_through() -> None:
    """Without a rate nothing is refused."""
    bucket = AcceptRate(None)
    assert all(bucket.take("192.0.2.1", 0) for _ in range(1000))


def test_the_least_recent_source_is_forgotten() -> None:
    """Above the bound the source that asked longest ago is forgotten, and no other."""
    bucket = AcceptRate(Rate(1, 3600))
    hosts = [str(ipaddress.IPv4Address(0x0A000000 + number)) for number in range(MAX_BUCKETS)]
    assert all(bucket.take(host, 0) for host in hosts)
    assert not bucket.take(hosts[0], 0)  # full, and now the most recent
    assert bucket.take("192.0.2.1", 0)  # pushes out hosts[1]
    assert not bucket.take(hosts[0], 0)
    assert not bucket.take(hosts[2], 0)
    assert bucket.take(hosts[1], 0)


@quick
@given(
    st.integers(1, 5),
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(0, 16), max_size=40),
)
def test_the_rate_is_the_exact_token_bucket(count: int, per_s: int, sixteenths: list[int]) -> None:
    """Every verdict is that of a token bucket reckoned in fractions."""
    bucket = AcceptRate(Rate(count, per_s))
    tokens, now = Fraction(count), Fraction(0)
    for gap in sixteenths:
        now += Fraction(gap, 16)
        tokens = min(Fraction(count), tokens + Fraction(gap, 16) * Fraction(count, per_s))
        expected = tokens >= 1
        tokens -= expected
        assert bucket.take("192.0.2.1", float(now)) is expected
