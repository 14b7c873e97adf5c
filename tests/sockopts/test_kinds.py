"""Kinds of sockets: what is opened is what is told."""

from __future__ import annotations

import socket

import pytest

from twistedsock.addresses import parse_address
from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.kinds import (
    GROUPS,
    SOCKETS,
    STREAMS,
    carriers,
    describe,
    expand,
    kinds_of_address,
    kinds_of_socket,
    open_kind,
)


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_is_of_the_kind_it_was_opened_as(kind: str) -> None:
    """A new socket of a kind is told as that kind, and perhaps its IPv4 sister."""
    try:
        sock = open_kind(kind)
    except OSError as error:
        pytest.skip(f"no {kind} sockets here: {error}")
    with sock:
        kinds = kinds_of_socket(sock)
        assert kind in kinds
        assert kinds <= {kind, f"{kind[:-1]}4"}


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_only_a_dual_stack_socket_is_of_both_versions(name: str) -> None:
    """A socket of AF_INET6 carries IPv4, too, unless that is off or its address says otherwise."""
    both = GROUPS[name]
    with open_kind(f"{name}6") as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        assert kinds_of_socket(sock) == both
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        assert kinds_of_socket(sock) == {f"{name}6"}
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::1", 0))
        assert kinds_of_socket(sock) == {f"{name}6"}
    with open_kind(f"{name}6") as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::ffff:127.0.0.1", 0))
        assert kinds_of_socket(sock) == both


def test_a_raw_socket_of_ip6_carries_no_ip4() -> None:
    """A raw socket is of one IP version, though it has no IPV6_V6ONLY."""
    try:
        sock = open_kind("raw6")
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with sock:
        assert kinds_of_socket(sock) == {"raw6"}


def test_a_closed_socket_is_of_one_version() -> None:
    """What cannot be asked any more is told by its family alone."""
    sock = socket.socket(socket.AF_INET6)
    sock.close()
    assert kinds_of_socket(sock) == {"tcp6"}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("tcp", {"tcp4", "tcp6"}),
        ("inet4 -mptcp4 -sctp4", {"tcp4", "udp4", "udplite4", "raw4", "ping4"}),
        ("unix -unix-dgram", {"unix-stream", "unix-seqpacket"}),
        ("tcp -tcp", set()),
        ("-tcp tcp4", {"tcp4"}),
        ("", set()),
    ],
)
def test_groups_are_spelled_out(text: str, kinds: set[str]) -> None:
    """Words add kinds and groups, and a minus takes away."""
    assert expand(text) == kinds


@pytest.mark.parametrize("text", ["tcp5", "tcp -nothing", "TCP", "--tcp"])
def test_an_unknown_kind_is_refused(text: str) -> None:
    """A misspelt kind is an error, not an empty set."""
    with pytest.raises(ValueError, match=r"^no kind of socket is called "):
        expand(text)


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        ("tcp:127.0.0.1:1", {"tcp4"}),
        ("tcp:[::1]:1", {"tcp6"}),
        ("tcp:*:1", {"tcp4", "tcp6"}),
        ("udp:*:1", {"udp4", "udp6"}),
        ("tcp:localhost:1", {"tcp4", "tcp6"}),
        ("unix:/p", {"unix-stream"}),
        ("unixgram:/p", {"unix-dgram"}),
        ("seqpacket:/p", {"unix-seqpacket"}),
        ("raw:icmp", {"raw4"}),
    ],
)
def test_an_address_tells_its_kinds(address: str, kinds: set[str]) -> None:
    """A number is of one IP version; a name or a wildcard may be of either."""
    assert kinds_of_address(parse_address(address)) == kinds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tcp udp", "tcp, udp"),
        ("tcp4 udp4", "tcp and udp over IPv4"),
        ("tcp4 udp4 raw4", "tcp, udp and raw over IPv4"),
        ("tcp udp6", "tcp, udp over IPv6"),
        ("unix", "unix"),
        ("unix-stream netlink", "unix-stream, netlink"),
        ("all", "any socket"),
        ("", "no socket"),
    ],
)
def test_kinds_are_told_in_words(text: str, words: str) -> None:
    """A message names protocols, and the IP version only where it is one."""
    assert describe(expand(text)) == words


def test_every_option_has_carriers_in_order() -> None:
    """The kinds that an option fits are tried in the order of the table of kinds."""
    order = list(SOCKETS)
    for option in CATALOGUE.values():
        listed = carriers(option.fits)
        assert set(listed) == option.fits
        assert listed == sorted(listed, key=order.index)
    assert SOCKETS.keys() >= STREAMS
