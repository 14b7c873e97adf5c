"""The daemon on raw and packet sockets, beside a second machine on one wire."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, run
from daemons import eventually
from networks import (
    HERE,
    LINK_LOCAL,
    THERE,
    Network,
    Serve,
    echo_request,
    events,
    heard,
    igmp,
    index_on,
    install,
    ip4,
    network,
    open_on,
    serve,
    wait_for,
)

__all__ = ["network", "serve"]
RAW4 = (socket.AF_INET, socket.SOCK_RAW)
RAW6 = (socket.AF_INET6, socket.SOCK_RAW)
ICMP, ICMPV6, IGMP, EXPERIMENT = 1, 58, 2, 253
# What queries, leaves and version 3 reports are sent to (RFC 9776).
IGMP_GROUPS = ("224.0.0.1", "224.0.0.2", "224.0.0.22")
OWN = """
from twistedsock import SocketService


class Shout(SocketService):
    kinds = ("raw",)

    def received(self, session, message):
        session.send(message.upper())


class Flood(SocketService):
    kinds = ("raw",)

    def received(self, session, message):
        while session.send(b"x" * 100):
            pass


class Frames(SocketService):
    kinds = ("packet",)

    def received(self, session, message):
        if message[12:14] == b"\\x88\\xb5" and not session.metadata.outgoing:
            session.send(message[6:12] + message[:6] + message[12:].upper())


class Told(SocketService):
    kinds = ("datagram",)
    metadata = True

    def received(self, session, message):
        told = session.metadata
        session.prove()
        session.send(repr(
            (told.destination, told.interface, told.ttl_hops, told.dscp, told.received_at)
        ).encode())
"""


@pytest.fixture(autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon finds OWN's services."""
    folder = tmp_path_factory.mktemp("site") / "own"
    path = install(folder, OWN, shout="Shout", flood="Flood", frames="Frames", told="Told")
    monkeypatch.setenv("PYTHONPATH", str(path))


def service(name: str, listen: str, kind: str = "", more: str = "") -> str:
    """Return a service's table."""
    return f'[services.{name}]\nservice = "{kind or name}"\nlisten = [{listen}]\n{more}\n'


def test_a_service_on_an_own_protocol_answers_both_versions(network: Network, serve: Serve) -> None:
    """Protocol 253 is answered over IPv4, IPv6 and link-local, from the address that was hit."""
    daemon = serve(service("shout", '"raw:253"')).ready()
    with open_on(network.there, *RAW4, EXPERIMENT) as peer:
        peer.sendto(b"hello", (HERE[0], 0))
        packet, name = peer.recvfrom(100)
        assert (packet[20:], name[0]) == (b"HELLO", HERE[0])
    with open_on(network.there, *RAW6, EXPERIMENT) as peer:
        scope = index_on(network.there)
        for host in ((HERE[1], 0), (LINK_LOCAL[0], 0, 0, scope)):
            peer.sendto(b"hello", host)
            assert peer.recvfrom(100) == (b"HELLO", (host[0], 0, 0, scope if len(host) > 2 else 0))
    assert daemon.stop() == 0
    ended = events(daemon, "session_ended")
    link_local = f"[{LINK_LOCAL[1]}%{index_on(network.here)}]:0"
    assert sorted(each["peer"] for each in ended) == sorted(
        [f"{THERE[0]}:0", f"[{THERE[1]}]:0", link_local]
    )
    assert {each["transport"] for each in ended} == {"raw"}


def test_what_this_machine_sends_is_never_answered(network: Network, serve: Serve) -> None:
    """A packet to ourselves, over any of our addresses, stays one packet: no loop."""
    daemon = serve(service("shout", '"raw:253"')).ready()
    for family, hosts in ((RAW4, ("127.0.0.1", HERE[0])), (RAW6, ("::1", HERE[1]))):
        with open_on(network.here, *family, EXPERIMENT) as sock:
            for host in hosts:
                sock.sendto(b"to myself", (host, 0))
            found = heard(sock)
            assert len(found) == len(hosts), "each is heard once, as it was sent"
    assert daemon.stop() == 0
    assert [each["messages_out"] for each in events(daemon, "session_ended")] == [0] * 4
    assert events(daemon, "own_service")


def test_broadcasts_and_groups_are_never_answered(network: Network, serve: Serve) -> None:
    """What was for many is served, and answered by silence."""
    daemon = serve(service("shout", '"raw:253"')).ready()
    with open_on(network.there, *RAW4, EXPERIMENT) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for host in ("192.0.2.255", "224.0.0.1"):
            peer.sendto(b"all of you", (host, 0))
        # Its own broadcasts it may well hear.
        assert [each for each in heard(peer) if each[12:16] != socket.inet_aton(THERE[0])] == []
        peer.sendto(b"you", (HERE[0], 0))
        answers = [each[20:] for each in heard(peer)]
        assert answers == [b"YOU"]
    assert daemon.stop() == 0
    assert events(daemon, "broadcast")
    assert events(daemon, "multicast")


def test_nobody_is_sent_more_than_three_times_what_came(network: Network, serve: Serve) -> None:
    """The budget of an unproven peer holds on raw sockets, IP headers counted."""
    daemon = serve(service("flood", '"raw:253:0.0.0.0"')).ready()
    with open_on(network.there, *RAW4, EXPERIMENT) as peer:
        peer.sendto(b"y" * 500, (HERE[0], 0))
        found = heard(peer)
    assert sum(map(len, found)) == 13 * 120  # of 3 * 520 bytes
    assert daemon.stop() == 0


def test_several_services_hear_the_same_protocol(network: Network, serve: Serve) -> None:
    """Each raw socket has its own copy of every packet."""
    text = "".join(
        service(f"watch{number}", '"raw:icmp", "raw:icmpv6"', "icmp-monitor") for number in "ab"
    )
    daemon = serve(text).ready()
    for family, number, host in ((RAW4, ICMP, HERE[0]), (RAW6, ICMPV6, HERE[1])):
        with open_on(network.there, *family, number) as peer:
            request = struct.pack("!BBHHH", 128, 0, 0, 7, 9) if number == ICMPV6 else echo_request()
            peer.sendto(request, (host, 0))

    def requests() -> Any:
        found = [each for each in events(daemon, "packet") if each["name"] == "echo request"]
        return {(each["service"], each["peer"]) for each in found}

    peers = {(f"watch{name}", host) for name in "ab" for host in THERE}
    eventually(lambda: requests() == peers)
    assert daemon.stop() == 0


@pytest.mark.skipif(shutil.which("ping") is None, reason="needs the Debian package iputils-ping")
def test_pings_are_logged_and_answered_by_the_kernel_alone(network: Network, serve: Serve) -> None:
    """Each ping is one event with its sequence and TTL, and gets the kernel's one answer."""
    daemon = serve(service("watch", '"raw:icmp"', "icmp-monitor")).ready()
    done = network.there.run(f"ping -c 3 -i 0.05 -t 33 {HERE[0]}")
    assert " 3 received" in done.stdout, done.stdout
    assert "DUP" not in done.stdout
    found = wait_for(daemon, "packet", 3)
    assert [each["sequence"] for each in found] == [1, 2, 3]
    assert {(each["ttl_hops"], each["destination"]) for each in found} == {(33, HERE[0])}
    assert all(abs(each["received_at"] - time.time()) < 60 for each in found)
    assert daemon.stop() == 0


def test_a_flood_of_pings_does_not_flood_the_log(network: Network, serve: Serve) -> None:
    """So many events a second are logged, and every other packet is counted."""
    more = "[services.watch.settings]\nevents_per_second = 5"
    daemon = serve(service("watch", '"raw:icmp"', "icmp-monitor", more)).ready()
    sent = 3000
    with open_on(network.there, *RAW4, ICMP) as peer:
        began = time.monotonic()
        for number in range(sent):
            peer.sendto(echo_request(sequence=number), (HERE[0], 0))
            if number % 50 == 0:
                time.sleep(0.005)  # within the receive buffer
        peer.sendto(echo_request(), (HERE[0], 0))
    assert daemon.stop() == 0
    seconds = int(time.monotonic() - began) + 2
    packets = events(daemon, "packet")
    assert 5 <= len(packets) <= 5 * seconds
    [left] = events(daemon, "packets_left_out")
    counted = len(packets) + sum(each["suppressed"] for each in [*packets, left])
    [ended] = events(daemon, "session_ended")
    assert counted == ended["messages_in"] > sent * 0.5


def test_nothing_that_a_peer_sends_ends_a_monitor(network: Network, serve: Serve) -> None:
    """Messages of every length and type are logged; the daemon goes on."""
    text = service("pings", '"raw:icmp"', "icmp-monitor") + service(
        "groups", '"raw:igmp"', "igmp-monitor"
    )
    daemon = serve(text).ready()
    expected = 0
    with open_on(network.there, *RAW4, socket.IPPROTO_RAW) as peer:
        for number in (ICMP, IGMP):
            for length in (0, 1, 7, 8, 9, 11, 12, 1400):
                for kind in (3, 11, 0x11, 0x22):
                    message = (bytes([kind]) + os.urandom(1400))[:length]
                    peer.sendto(ip4(THERE[0], HERE[0], number, message), (HERE[0], 0))
                    # The kernel itself keeps back what is no whole ICMP header.
                    expected += number == IGMP or length >= 8
    wait_for(daemon, "packet", expected)
    assert daemon.process.poll() is None
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.text


def test_igmp_of_every_version_is_heard(network: Network, serve: Serve) -> None:
    """With IGMP's own groups joined, the kernel's v3 reports of a join, v1 and v2 are heard."""
    groups = [f"{group}%wire" for group in (*IGMP_GROUPS, "239.9.9.9")]
    listen = f'{{ address = "raw:igmp", groups = {groups} }}'
    daemon = serve(service("watch", listen, "igmp-monitor")).ready()
    with open_on(network.there, socket.AF_INET, socket.SOCK_DGRAM) as member:
        member.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
            socket.inet_aton("239.7.7.7") + socket.inet_aton(THERE[0]),
        )  # fmt: skip

        def reports() -> Any:
            found = [each for each in events(daemon, "packet") if each["type"] == 0x22]
            return [each for each in found if "239.7.7.7 to exclude" in str(each["groups"])]

        eventually(reports)
        assert reports()[0]["peer"] == THERE[0]
        assert reports()[0]["ttl_hops"] == 1
        assert reports()[0]["destination"] == "224.0.0.22"
    with open_on(network.there, *RAW4, IGMP) as peer:
        peer.sendto(igmp(0x12, 0, "239.9.9.9"), ("239.9.9.9", 0))
        peer.sendto(igmp(0x16, 0, "239.9.9.9"), ("239.9.9.9", 0))
        peer.sendto(igmp(0x17, 0, "239.9.9.9"), ("224.0.0.2", 0))
        peer.sendto(igmp(0x11, 100, "0.0.0.0", struct.pack("!BBH", 2, 125, 0)), ("224.0.0.1", 0))

    def kinds() -> set[int]:
        return {each["type"] for each in events(daemon, "packet") if each["peer"] == THERE[0]}

    eventually(lambda: kinds() >= {0x11, 0x12, 0x16, 0x17, 0x22})
    assert daemon.stop() == 0


def test_frames_are_answered(network: Network, serve: Serve) -> None:
    """A service on a packet socket answers a frame by a frame; our own are no message to answer."""
    daemon = serve(service("frames", '"packet:wire"')).ready()
    with open_on(network.there, socket.AF_PACKET, socket.SOCK_RAW, 0, ("wire", 0x88B5)) as peer:
        mac = peer.getsockname()[4]
        peer.send(b"\xff" * 6 + mac + b"\x88\xb5" + b"hello".ljust(46))
        eventually(lambda: events(daemon, "listening"))
        found = peer.recv(100)
        assert (found[:6], found[14:19]) == (mac, b"HELLO")
        assert heard(peer, 0.1) == []
    assert daemon.stop() == 0


@pytest.mark.parametrize("change", ["ip link set tap down", "ip link del tap"])
def test_an_interface_may_go_while_it_is_served(
    network: Network, serve: Serve, change: str
) -> None:
    """That it went is logged once, nothing closes, and the daemon stops as always."""
    network.here.setup("ip link add tap type veth peer name tup", "ip link set tap up")
    try:
        daemon = serve(service("frames", '"packet:tap"') + service("shout", '"raw:253"')).ready()
        network.here.setup(change)
        wait_for(daemon, "interface_down")
        time.sleep(0.1)
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            peer.sendto(b"still", (HERE[0], 0))
            assert peer.recv(100)[20:] == b"STILL"
        assert len(events(daemon, "interface_down")) <= 2
        assert daemon.stop() == 0
    finally:
        network.here.run("ip link del tap")


def test_a_udp_service_may_have_all_metadata(network: Network, serve: Serve) -> None:
    """Where a service says so, a UDP listener on any address tells what a raw one does."""
    listen = f'"udp:*:5000", "udp:{HERE[0]}:5001", "udp:[{HERE[1]}]:5001"'
    daemon = serve(service("told", listen)).ready()
    index = index_on(network.here)
    for hops, port in ((42, 5000), (43, 5001)):
        for host, there in zip(HERE, THERE, strict=True):
            is_v6 = ":" in host
            family = socket.AF_INET6 if is_v6 else socket.AF_INET
            with open_on(network.there, family, socket.SOCK_DGRAM, 0, (there, 0)) as peer:
                if is_v6:
                    peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
                    peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 46 << 2)
                else:
                    peer.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                    peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
                before = time.time()
                peer.sendto(b"x", (host, port))
                told = ast.literal_eval(peer.recv(1000).decode())
            assert told[:4] == (host, index, hops, 46)
            assert before - 0.01 <= told[4] <= time.time()
    assert daemon.stop() == 0


# -- rights --

BARE = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
UNIT = "needs CAP_NET_RAW (EPERM): in the unit, AmbientCapabilities=CAP_NET_RAW"
PINGS = "; ping sockets alone need a group in net.ipv4.ping_group_range"


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as root that has no capability."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs the Debian package util-linux")
    return lambda *words: run(*BARE, *words, timeout=DEADLINE_S, cwd=tmp_path)


@pytest.mark.parametrize(
    ("listen", "kind", "told"),
    [
        ("raw:icmp", "icmp-monitor", f"raw:icmp:0.0.0.0: {UNIT}{PINGS}"),
        ("raw:58", "icmp-monitor", f"raw:58:[::]: {UNIT}{PINGS}"),
        ("raw:igmp", "igmp-monitor", f"raw:igmp:0.0.0.0: {UNIT}"),
        ("packet:lo", "frames", f"packet:lo: {UNIT}"),
    ],
)
def test_missing_rights_are_told_with_what_would_give_them(
    bare: Callable[..., Any], tmp_path: Path, listen: str, kind: str, told: str
) -> None:
    """Without CAP_NET_RAW the daemon ends with 77, and a line that says what allows it."""
    (tmp_path / "raw.toml").write_text(service("watch", f'"{listen}"', kind))
    twistd = Path(sys.executable).with_name("twistd")
    done = bare(twistd, "-n", "--pidfile=", "sockservice", "--config", "raw.toml")
    assert done.returncode == 77
    assert f"twistd sockservice: cannot listen on {told}\n" in done.stderr


def test_the_library_tells_missing_rights_too(bare: Callable[..., Any]) -> None:
    """open_listener raises BindError, which knows that it is a matter of rights."""
    program = (
        "from twistedsock.addresses import parse_address\n"
        "from twistedsock.errors import BindError\n"
        "from twistedsock.transports.binding import open_listener\n"
        "try:\n    open_listener(parse_address('raw:253:0.0.0.0'))\n"
        "except BindError as error:\n    print(error, error.is_permission)\n"
    )
    done = bare(sys.executable, "-c", program)
    assert done.stdout == f"raw:253:0.0.0.0: {UNIT} True\n"
