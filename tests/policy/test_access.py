"""Access lists. The oracle is the standard library's ipaddress, network by network."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.policy.access import AccessList, parse_network

quick = settings(max_examples=200, deadline=None)

# Few leading bytes, so that networks nest and hosts meet them.
HOSTS4 = st.tuples(*[st.sampled_from([10, 127, 128])] * 2, st.integers(0, 3), st.integers(0, 3))
HOSTS6 = st.tuples(st.sampled_from(["2001:db8", "fe80:0"]), st.integers(0, 3), st.integers(0, 3))
HOSTS = HOSTS4.map(lambda parts: ".".join(map(str, parts))) | HOSTS6.map(
    lambda parts: f"{parts[0]}::{parts[1]}:{parts[2]}"
)


@st.composite
def networks(draw: st.DrawFn) -> str:
    """Draw a prefix around some host."""
    host = ipaddress.ip_address(draw(HOSTS))
    length = draw(st.integers(0, host.max_prefixlen))
    return str(ipaddress.ip_network((host, length), strict=False))


@quick
@given(st.sets(networks(), max_size=6), st.sets(networks(), max_size=6), st.lists(HOSTS))
def test_the_longest_matching_prefix_decides(
    allow: set[str], deny: set[str], hosts: list[str]
) -> None:
    """Of all networks that hold a peer the smallest decides; else a list with any allow refuses."""
    deny -= allow
    access = AccessList(allow, deny)
    for host in hosts:
        address = ipaddress.ip_address(host)
        rules = [(ipaddress.ip_network(text), True) for text in allow]
        rules += [(ipaddress.ip_network(text), False) for text in deny]
        matches = [(rule.prefixlen, verdict) for rule, verdict in rules if address in rule]
        expected = max(matches)[1] if matches else not allow
        assert access.allows(host) is expected


@pytest.mark.parametrize(
    ("allow", "deny", "host", "allowed"),
    [
        ([], [], "192.0.2.1", True),
        ([], [], "::1", True),
        (["127.0.0.0/8"], [], "127.0.0.1", True),
        (["127.0.0.0/8"], [], "128.0.0.0", False),
        (["127.0.0.0/8"], [], "126.255.255.255", False),
        (["127.0.0.0/8"], [], "::1", False),
        ([], ["10.0.0.0/8"], "10.255.255.255", False),
        ([], ["10.0.0.0/8"], "11.0.0.0", True),
        ([], ["10.0.0.0/8"], "2001:db8::1", True),
        (["10.1.0.0/16"], ["10.0.0.0/8"], "10.1.2.3", True),
        (["10.1.0.0/16"], ["10.0.0.0/8"], "10.2.0.0", False),
        (["10.0.0.0/8"], ["10.1.2.3"], "10.1.2.3", False),
        (["10.0.0.0/8"], ["10.1.2.3"], "10.1.2.4", True),
        (["0.0.0.0/0"], [], "255.255.255.255", True),
        (["0.0.0.0/0"], [], "::1", False),
        (["::/0"], ["::1"], "::1", False),
        (["fe80::/10"], [], "fe80::1%eth0", True),
        (["2001:db8::/64"], [], "2001:db8::ffff:ffff:ffff:ffff", True),
        (["2001:db8::/64"], [], "2001:db8:0:1::", False),
    ],
)
def test_a_peer_is_judged(allow: list[str], deny: list[str], host: str, allowed: bool) -> None:
    """Networks are judged to their very edges, and one IP version says nothing of the other."""
    assert AccessList(allow, deny).allows(host) is allowed


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
    ],
)
def test_a_network_is_read(text: str, prefix: str) -> None:
    """An address is a network of one, a prefix is itself."""
    assert str(parse_network(text)) == prefix


@pytest.mark.parametrize(
    "wrong", ["", "10", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "10.0.0.0/-1", " ::1"]
)
def test_what_is_no_network_is_refused(wrong: str) -> None:
    """A name or a malformed prefix is refused with examples, in either list."""
    told = f'must be an IP address or prefix such as "10.0.0.0/8" or "::1", got {wrong!r}'
    for make in (
        lambda: parse_network(wrong),
        lambda: AccessList(allow=[wrong]),
        lambda: AccessList(deny=[wrong]),
    ):
        with pytest.raises(ValueError, match=r"^must be an IP address") as caught:
            make()
        assert str(caught.value) == told


@pytest.mark.parametrize(
    ("wrong", "near"), [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/64", "2001:db8::/64")]
)
def test_bits_behind_the_prefix_are_refused(wrong: str, near: str) -> None:
    """A host with a prefix is refused with the network that may have been meant."""
    with pytest.raises(ValueError, match=r"^has bits set") as caught:
        parse_network(wrong)
    assert str(caught.value) == (
        f"has bits set behind its prefix; did you mean {near!r}? got {wrong!r}"
    )


def test_a_network_in_both_lists_is_refused() -> None:
    """A network that is allowed and denied, however it is written, is a contradiction."""
    with pytest.raises(ValueError, match=r"^10\.0\.0\.0/8 is both allowed and denied$"):
        AccessList(["::1", "10.0.0.0/8"], ["192.0.2.0/24", "10.0.0.0/255.0.0.0"])
