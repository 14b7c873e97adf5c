"""Multicast groups of UDP and raw listeners: who hears what, and what is refused."""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from typing import Any

import pytest
from networks import (
    HERE,
    LINK_LOCAL,
    THERE,
    Network,
    Serve,
    events,
    heard,
    index_on,
    network,
    open_on,
    serve,
    wait_for,
)

from twistedsock.errors import ConfigError
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.sockopts.memberships import group_of, membership_options

__all__ = ["network", "serve"]
PORT = 5000
UDP4, UDP6 = (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM)


def config(*groups: str, address: str = f"udp:*:{PORT}", service: str = "echo") -> str:
    """Return a file with one service on *address* that joins *groups*."""
    listen = f'{{ address = "{address}", groups = {list(groups)} }}'
    return f'[services.main]\nservice = "{service}"\nlisten = [{listen}]\n'


def sender(network: Network, source: str = "", interface: str = "wire") -> socket.socket:
    """Return a socket of the other machine that sends to groups by *interface*."""
    if ":" in source or source == "6":
        sock = open_on(network.there, *UDP6)
        index = struct.pack("@i", index_on(network.there, interface))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        return sock
    sock = open_on(network.there, *UDP4, 0, (source, 0) if source else None)
    mreqn = struct.pack("=4s4si", bytes(4), bytes(4), index_on(network.there, interface))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn)
    return sock


def test_joined_groups_are_served_from_a_unicast_address(network: Network, serve: Serve) -> None:
    """Two groups are heard by the interface, and the answer comes from the listener's address."""
    daemon = serve(config("239.1.1.1%wire", "239.1.1.2%wire")).ready()
    with sender(network) as peer:
        for group in ("239.1.1.1", "239.1.1.2"):
            peer.sendto(group.encode(), (group, PORT))
            assert peer.recvfrom(100) == (group.encode(), (HERE[0], PORT))
        peer.sendto(b"alone", (HERE[0], PORT))
        assert peer.recv(100) == b"alone"
    assert daemon.stop() == 0


def test_groups_that_others_joined_are_not_served(network: Network, serve: Serve) -> None:
    """A group that another program of the machine has joined does not reach the listener."""
    daemon = serve(config("239.1.1.1%wire", address=f"udp:0.0.0.0:{PORT}")).ready()
    with open_on(network.here, *UDP4, 0, ("", 5001)) as other, sender(network) as peer:
        mreqn = struct.pack(
            "=4s4si", socket.inet_aton("239.1.1.3"), bytes(4), index_on(network.here)
        )
        other.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
        peer.sendto(b"there", ("239.1.1.3", 5001))
        assert other.recv(100) == b"there"
        peer.sendto(b"here", ("239.1.1.3", PORT))
        assert heard(peer) == []
    assert daemon.stop() == 0
    # The kernel has kept it back, as IP_MULTICAST_ALL is off; else it would be counted.
    assert not events(daemon, "multicast")


def test_a_listener_without_groups_drops_them(network: Network, serve: Serve) -> None:
    """Where nothing is joined, what reaches a wildcard for a group is counted and dropped."""
    # Of IPv4 alone: a dual-stack socket hears no IPv4 group that it has not joined.
    daemon = serve(f'[services.main]\nservice = "echo"\nlisten = ["udp:0.0.0.0:{PORT}"]\n').ready()
    with open_on(network.here, *UDP4) as other, sender(network) as peer:
        mreqn = struct.pack(
            "=4s4si", socket.inet_aton("239.1.1.3"), bytes(4), index_on(network.here)
        )
        other.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, mreqn)
        peer.sendto(b"here", ("239.1.1.3", PORT))
        wait_for(daemon, "multicast")
        assert heard(peer, 0.1) == []
    assert daemon.stop() == 0


def test_one_source_of_a_group_may_be_chosen(network: Network, serve: Serve) -> None:
    """A source-specific group is heard from that source, and from no other."""
    network.there.setup("ip address add 192.0.2.10/24 dev wire")
    try:
        daemon = serve(config("192.0.2.10@232.1.1.1%wire")).ready()
        with sender(network, "192.0.2.10") as right, sender(network, THERE[0]) as wrong:
            for peer in (wrong, right):
                peer.sendto(b"x", ("232.1.1.1", PORT))
            assert right.recvfrom(100) == (b"x", (HERE[0], PORT))
            assert heard(wrong, 0.2) == []
        assert daemon.stop() == 0
    finally:
        network.there.setup("ip address del 192.0.2.10/24 dev wire")


@pytest.mark.parametrize(
    ("written", "group"),
    [("FF15:0:0::1%wire", "ff15::1"), ("ff02::1234%wire", "ff02::1234")],
)
def test_groups_of_ipv6_are_served(
    network: Network, serve: Serve, written: str, group: str
) -> None:
    """An IPv6 group by its interface, however it is written, of any scope."""
    daemon = serve(config(written, "239.1.1.1%wire")).ready()
    with sender(network, "6") as peer:
        peer.sendto(b"six", (group, PORT))
        data, name = peer.recvfrom(100)
        assert (data, name[1]) == (b"six", PORT)
        assert name[0] in (HERE[1], LINK_LOCAL[0], *network_addresses(network))
        peer.sendto(b"not joined", ("ff15::99", PORT))
        assert heard(peer, 0.2) == []
    with sender(network) as peer:  # the same socket hears groups of both
        peer.sendto(b"four", ("239.1.1.1", PORT))
        assert peer.recvfrom(100) == (b"four", (HERE[0], PORT))
    assert daemon.stop() == 0


def network_addresses(network: Network) -> list[str]:
    """Return the IPv6 addresses of the daemon's end of the wire."""
    shown = network.here.run("ip -6 -o address show dev wire").stdout
    return [line.split()[3].partition("/")[0] for line in shown.splitlines()]


def test_a_group_is_joined_by_one_interface_alone(network: Network, serve: Serve) -> None:
    """What comes to the group by another wire is not served."""
    peer_ns = network.there.process.pid
    network.here.setup(
        f"ip link add wire2 type veth peer name wire2 netns {peer_ns}",
        "ip address add 198.51.100.1/24 dev wire2",
        "ip link set wire2 up",
    )
    try:
        network.there.setup("ip address add 198.51.100.9/24 dev wire2", "ip link set wire2 up")
        daemon = serve(config("239.1.1.1%wire2")).ready()
        with closing(sender(network)) as wrong, closing(sender(network, "", "wire2")) as right:
            wrong.sendto(b"wrong", ("239.1.1.1", PORT))
            right.sendto(b"right", ("239.1.1.1", PORT))
            assert right.recvfrom(100) == (b"right", ("198.51.100.1", PORT))
            assert heard(wrong, 0.2) == []
        assert daemon.stop() == 0
    finally:
        network.here.run("ip link del wire2")


def test_a_listener_on_the_group_itself_is_served(network: Network, serve: Serve) -> None:
    """Bound to the group's address it hears nothing else, and answers from its own."""
    daemon = serve(config("239.1.1.1%wire", address=f"udp:239.1.1.1:{PORT}")).ready()
    with sender(network) as peer:
        peer.sendto(b"x", ("239.1.1.1", PORT))
        assert peer.recvfrom(100) == (b"x", (HERE[0], PORT))
        peer.sendto(b"x", (HERE[0], PORT))
        assert heard(peer, 0.2) == []
    assert daemon.stop() == 0


# -- what is refused --

WILD = "hears no group; listen on"


@pytest.mark.parametrize(
    ("address", "groups", "told"),
    [
        ("tcp:*:5000", ["239.1.1.1"], "are for udp and raw listeners only"),
        ("unixgram:/run/x", ["239.1.1.1"], "are for udp and raw listeners only"),
        ("udp:5000", ["239.1.1.1"], f"a listener on 127.0.0.1 {WILD} udp:*:5000, or on the group"),
        ("udp:[::1]:1", ["ff15::1"], f"a listener on ::1 {WILD} udp:*:1, or on the group"),
        ("udp:*:1", ["10.0.0.1"], "10.0.0.1 is no multicast group (224.0.0.0/4, ff00::/8)"),
        ("udp:*:1", ["fe80::1"], "fe80::1 is no multicast group (224.0.0.0/4, ff00::/8)"),
        ("udp:*:1", ["me"], "must be a group such as \"239.1.1.1%eth0\", got 'me'"),
        ("udp:*:1", ["239.1.1.1%none"], "no interface 'none', in '239.1.1.1%none'"),
        ("udp:0.0.0.0:1", ["ff15::1"], "fits only udp, udplite, raw and ping over IPv6"),
        ("udp:[::]:1", ["239.1.1.1"], "fits only udp, udplite, raw and ping over IPv4"),
    ],
)
def test_groups_that_do_not_fit_are_refused(address: str, groups: list[str], told: str) -> None:
    """The error has the key path and says what would be right."""
    table: dict[str, Any] = {
        "service": "echo", "listen": [{"address": address, "groups": groups}]
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        make_plans(RawConfig({"services": {"main": table}}))
    [problem] = [each for each in caught.value.problems if told in str(each)]
    assert "services.main.listen[0].groups" in str(problem)


def test_too_many_groups_are_told(network: Network, serve: Serve) -> None:
    """What the kernel refuses ends the daemon with 69, and names the option."""
    daemon = serve(config(*[f"239.1.2.{number}%wire" for number in range(30)]))
    assert daemon.wait() == 69
    assert "IP_ADD_MEMBERSHIP" in daemon.text


def test_a_group_is_joined_once() -> None:
    """A group that is written twice is one membership: the kernel would refuse the second."""
    options = membership_options(["239.1.1.1%lo", "239.1.1.1%lo", "1.2.3.4@232.1.1.1"])
    assert options == {
        "IP_MULTICAST_ALL": False,
        "IP_ADD_MEMBERSHIP": ["239.1.1.1%lo"],
        "MCAST_JOIN_SOURCE_GROUP": ["1.2.3.4@232.1.1.1"],
    }


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("239.1.1.1", "239.1.1.1"),
        ("FF02:0:0::1%eth0", "ff02::1"),
        ("2001:db8::1@ff3e::8000:1%eth0", "ff3e::8000:1"),
        ("nothing", "nothing"),
    ],
)
def test_a_group_is_known_as_the_kernel_writes_it(text: str, group: str) -> None:
    """Source and interface are left out, and the address is in its shortest form."""
    assert group_of(text) == group
