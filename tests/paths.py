"""A path of machines in networks of their own: here, three routers, and there.

Each link is a veth pair. Link *n*, from 0 at here, has the addresses 10.0.n.1 and 10.0.n.2 and
fd00:n+1::1 and fd00:n+1::2, the lower on the side of here.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path

import pytest
from daemons import eventually
from networks import echo_request_6, heard, open_on
from test_option_pages import Namespace

ROUTERS = 3
ALL_GROUPS = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range"
NO_GROUPS = "echo '1 0' > /proc/sys/net/ipv4/ping_group_range"
UNLIMITED = (
    "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit",
    "echo 100000 > /proc/sys/net/ipv4/icmp_msgs_per_sec",
    "echo 100000 > /proc/sys/net/ipv4/icmp_msgs_burst",
    "echo 0 > /proc/sys/net/ipv6/icmp/ratelimit",
)
NODE_LAST = ROUTERS + 1
ECHO_REPLY_6 = 129


def far(link: int, version: int) -> str:
    """Return the address of the far side of *link*: of router *link* + 1, or of there."""
    return f"10.0.{link}.2" if version == 4 else f"fd00:{link + 1}::2"


class Route:
    """The machines in a row."""

    def __init__(self, open: ExitStack) -> None:
        self.machines = [open.enter_context(closing(Namespace())) for _ in range(ROUTERS + 2)]
        self.here, *self.routers, self.there = self.machines
        for machine in self.machines:  # addresses are there at once
            machine.setup("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        for link, (near, next_one) in enumerate(pairwise(self.machines)):
            peer = next_one.process.pid
            near.setup(f"ip link add out type veth peer name in netns {peer}")
            for machine, name, end in ((near, "out", 1), (next_one, "in", 2)):
                machine.setup(
                    f"ip address add 10.0.{link}.{end}/24 dev {name}",
                    f"ip address add fd00:{link + 1}::{end}/64 dev {name} nodad",
                    f"ip link set {name} up",
                )
        for place, machine in enumerate(self.machines):
            machine.setup(
                "echo 1 > /proc/sys/net/ipv4/ip_forward",
                "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
                *UNLIMITED,
            )
            if place < NODE_LAST:
                machine.setup(
                    f"ip route add default via 10.0.{place}.2",
                    f"ip -6 route add default via fd00:{place + 1}::2",
                )
            if place > 1:
                for link in range(place - 1):
                    machine.setup(
                        f"ip route add 10.0.{link}.0/24 via 10.0.{place - 1}.1",
                        f"ip -6 route add fd00:{link + 1}::/64 via fd00:{place}::1",
                    )


def filtering(machine: Namespace, *rules: str) -> None:
    """Have *machine* do what nft's *rules* say, of what passes it or comes to it; none: all."""
    machine.setup(
        "nft flush ruleset",
        *(
            f"nft add table inet t && nft 'add chain inet t c{number}"
            f" {{ type filter hook {rule.split()[0]} priority 0; }}'"
            f" && nft 'add rule inet t c{number} {rule.split(None, 1)[1]}'"
            for number, rule in enumerate(rules)
        ),
    )


@pytest.fixture(scope="module")
def route() -> Iterator[Route]:
    """Five machines in a row, or what is missing for them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for networks of its own")
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    for command, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nft", "nftables")):
        if shutil.which(command) is None:
            pytest.skip(f"needs the Debian package {package}")
    with ExitStack() as stack:
        route = Route(stack)
        with open_on(route.here, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:

            def is_there() -> bool:
                sock.sendto(echo_request_6(), (far(ROUTERS, 6), 0))
                return any(each[0] == ECHO_REPLY_6 for each in heard(sock, 0.1))

            eventually(is_there)  # the neighbours have found each other
        yield route
