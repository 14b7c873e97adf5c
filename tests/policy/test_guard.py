"""The datagram guard."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.guard import (
    AMPLIFICATION,
    DatagramGuard,
    Drop,
    ServedPorts,
    headers_bytes,
    is_unicast,
)

quick = settings(max_examples=150, deadline=None)

OWN = {"127.0.0.1", "::1", "192.0.2.1"}


def make_guard(port: int = 5000, any_source_port: bool = False, *served: int) -> DatagramGuard:
    """Return a guard of a machine with the addresses in OWN."""
    ports = ServedPorts()
    for number in served:
        ports.add(number)
    return DatagramGuard(
        port, any_source_port=any_source_port, served=ports, is_own_address=OWN.__contains__
    )


@pytest.mark.parametrize(
    ("host", "port", "strict", "lenient"),
    [
        ("198.51.100.1", 40000, None, None),
        ("2001:db8::9", 40000, None, None),
        ("fe80::1%eth0", 40000, None, None),
        ("198.51.100.1", 5000, Drop.SAME_PORT, None),
        ("198.51.100.1", 1023, Drop.PRIVILEGED_PORT, None),
        ("198.51.100.1", 1024, None, None),
        ("198.51.100.1", 7, Drop.PRIVILEGED_PORT, None),
        ("198.51.100.1", 0, Drop.PRIVILEGED_PORT, Drop.NOT_UNICAST),
        ("198.51.100.1", 65535, None, None),
        ("198.51.100.1", 6000, None, None),
        ("127.0.0.1", 6000, Drop.OWN_SERVICE, Drop.OWN_SERVICE),
        ("127.0.0.1", 5000, Drop.OWN_SERVICE, Drop.OWN_SERVICE),
        ("::1", 6000, Drop.OWN_SERVICE, Drop.OWN_SERVICE),
        ("192.0.2.1", 6000, Drop.OWN_SERVICE, Drop.OWN_SERVICE),
        ("127.0.0.1", 6001, None, None),
        ("224.0.0.1", 40000, Drop.NOT_UNICAST, Drop.NOT_UNICAST),
        ("0.0.0.0", 40000, Drop.NOT_UNICAST, Drop.NOT_UNICAST),
        ("255.255.255.255", 40000, Drop.NOT_UNICAST, Drop.NOT_UNICAST),
        ("ff02::1%eth0", 40000, Drop.NOT_UNICAST, Drop.NOT_UNICAST),
        ("::", 40000, Drop.NOT_UNICAST, Drop.NOT_UNICAST),
    ],
)
def test_a_source_is_judged(
    host: str, port: int, strict: Drop | None, lenient: Drop | None
) -> None:
    """What looks like a service, or is no single peer, is not answered; ports may be lifted."""
    assert make_guard(5000, False, 5000, 6000).judge(host, port) is strict
    assert make_guard(5000, True, 5000, 6000).judge(host, port) is lenient


@quick
@given(st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["198.51.100.1", "::1"]))
def test_two_services_never_talk(port: int, source: int, host: str) -> None:
    """Whoever answers from the port of a service, ours or a well-known one, is not answered."""
    guard = make_guard(port, False, port)
    answered = guard.judge(host, source) is None
    assert answered is (source != port and source >= 1024)


def test_ports_are_served_while_any_listener_has_them() -> None:
    """A port that two listeners have is served until both are gone."""
    ports = ServedPorts()
    assert 53 not in ports
    ports.add(53)
    ports.add(53)
    ports.remove(53)
    assert 53 in ports
    ports.remove(53)
    assert 53 not in ports


def test_the_guard_follows_the_ports_that_are_served() -> None:
    """A port that comes to be served later is guarded from then on."""
    ports = ServedPorts()
    guard = DatagramGuard(
        5000, any_source_port=False, served=ports, is_own_address=OWN.__contains__
    )
    assert guard.judge("127.0.0.1", 6000) is None
    ports.add(6000)
    assert guard.judge("127.0.0.1", 6000) is Drop.OWN_SERVICE


@quick
@given(st.ip_addresses())
def test_groups_and_any_are_not_unicast(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Unicast is all but 224/4, ff00::/8, the limited broadcast and the unspecified address."""
    groups = ["224.0.0.0/4", "ff00::/8", "255.255.255.255/32", "0.0.0.0/32", "::/128"]
    expected = not any(address in ipaddress.ip_network(group) for group in groups)
    assert is_unicast(str(address)) is expected


@pytest.mark.parametrize(
    ("host", "unicast"),
    [
        ("223.255.255.255", True),
        ("224.0.0.0", False),
        ("239.255.255.255", False),
        ("240.0.0.1", True),
        ("255.255.255.254", True),
        ("ff00::", False),
        ("feff::1", True),
    ],
)
def test_the_edges_of_unicast(host: str, unicast: bool) -> None:
    """The groups begin and end where the RFCs say."""
    assert is_unicast(host) is unicast


def test_headers_are_counted_by_their_size_on_the_wire() -> None:
    """IP and UDP headers are 20 + 8 bytes over IPv4 (RFC 791, 768), 40 + 8 over IPv6 (RFC 8200)."""
    assert headers_bytes("192.0.2.1") == 20 + 8
    assert headers_bytes("2001:db8::1") == 40 + 8
    assert AMPLIFICATION == 3


def test_a_drop_is_its_word() -> None:
    """The reasons are words fit for counters and logs."""
    assert [str(drop) for drop in Drop] == [
        "own_service",
        "same_port",
        "privileged_port",
        "not_unicast",
        "broadcast",
        "multicast",
    ]
