"""The ring, in networks of its own: what comes out is compared with what plain sockets sent."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from captures import held, send_to, sink
from networks import HERE, THERE, Network, network, open_on

from twistedsock.addresses import parse_address
from twistedsock.errors import BindError
from twistedsock.transports import packet_ring
from twistedsock.transports.packet_ring import Interface, Ring, find_interface, open_ring
from twistedsock.wire import bpf
from twistedsock.wire.bpf import Program
from twistedsock.wire.captured import LINKTYPE_ETHERNET, LINKTYPE_RAW, Captured

__all__ = ["network", "sink"]
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments
TAKE_ALL, TAKE_20, TAKE_NOTHING = (
    (bpf.Instruction(bpf.RET | bpf.K, 0, 0, length),) for length in (262_144, 20, 0)
)
# Memory that was never written, which the kernel alone checks.
REFUSED = (bpf.Instruction(bpf.LD | bpf.MEM, 0, 0, 3), bpf.Instruction(bpf.RET | bpf.A, 0, 0, 0))
PAGE = 4096
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


def find(name: str) -> Interface:
    return find_interface(parse_address(f"packet:{name}"))


def opened(machine: Any, name: str, program: Program = TAKE_ALL, **more: Any) -> Any:
    """Return a ring of *machine*, which is closed when its context is left."""
    ring: Ring = machine.inside(lambda: open_ring(find(name), program, **more))
    return closing(ring)


def taken(ring: Ring, wanted: Callable[[Captured], bool], count: int) -> list[Captured]:
    """Return the packets that are *wanted*, of which *count* come in time."""
    found: list[Captured] = []
    end = time.monotonic() + 10
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    while len(found) < count and time.monotonic() < end:
        poll.poll(100)
        while (block := ring.take()) is not None:
            found += [packet for packet in ring.packets(block) if wanted(packet)]
            ring.give_back()
    assert len(found) >= count, found
    return found


def everything(ring: Ring, seconds: float = 0.3) -> list[Captured]:
    """Return what is there after a while."""
    time.sleep(seconds)
    found: list[Captured] = []
    while (block := ring.take()) is not None:
        found += ring.packets(block)
        ring.give_back()
    return found


def has(payload: bytes) -> Callable[[Captured], bool]:
    return lambda packet: payload in packet.data


def send_udp(machine: Any, host: str, *payloads: bytes) -> None:
    """Send datagrams to a port of *host* where nobody listens but a socket that is not read."""
    with open_on(machine, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for payload in payloads:
            sock.sendto(payload, (host, 9))
            with suppress(OSError):  # the ICMP error that came back to the one before
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# -- what comes out --


def test_the_loopback_shows_each_packet_once(network: Network, sink: socket.socket) -> None:
    """Each datagram is there once, whole, in order, with its time; its checksum is not filled."""
    with opened(network.here, "lo") as ring:
        before = time.time_ns()
        send_to(sink, b"one", b"two", b"three")
        packets = everything(ring)
        assert before < packets[0].received_at_ns < time.time_ns()
    assert [packet.data[42:] for packet in packets] == [b"one", b"two", b"three"]
    for packet in packets:
        assert packet.data[12:14] == b"\x08\x00"
        assert packet.original_bytes == len(packet.data)
        assert (packet.interface, packet.link_type) == ("lo", LINKTYPE_ETHERNET)
        assert packet.outgoing is None
        assert not packet.checksums_known


def test_other_interfaces_show_both_directions(network: Network) -> None:
    """What this machine sends is outgoing, what comes is not: as whole frames."""
    with opened(network.here, "wire") as ring:
        send_udp(network.here, THERE[0], b"from here")
        send_udp(network.there, HERE[0], b"from there")
        packets = taken(ring, has(b"from "), 2)
    # The ICMP errors quote both.
    told = {packet.data[42:]: packet.outgoing for packet in packets if packet.data[23] == 17}
    assert told == {b"from here": True, b"from there": False}


def test_a_vlan_tag_is_put_back(network: Network) -> None:
    """A frame with a tag comes out as it was on the wire, in both directions."""
    addresses = bytes.fromhex("ffffffffffff 020000000009")
    inner = struct.pack("!H", ETHERTYPE) + b"tagged".ljust(46, b"\0")
    tagged = {
        tpid: addresses + struct.pack("!HH", tpid, 0x6007) + inner for tpid in (0x8100, 0x88A8)
    }
    with (
        opened(network.here, "wire") as ring,
        open_on(network.there, socket.AF_PACKET, socket.SOCK_RAW, 0, ("wire", 3)) as there,
        open_on(network.here, socket.AF_PACKET, socket.SOCK_RAW, 0, ("wire", 3)) as here,
    ):
        for frame in tagged.values():
            there.send(frame)
        incoming = taken(ring, has(b"tagged"), 2)
        here.send(tagged[0x8100])
        [outgoing] = taken(ring, has(b"tagged"), 1)
    assert [packet.data for packet in incoming] == list(tagged.values())
    assert {packet.original_bytes for packet in incoming} == {len(tagged[0x8100])}
    assert outgoing.data == tagged[0x8100]
    assert outgoing.outgoing


def test_a_tag_that_the_card_shall_insert_is_put_back(network: Network) -> None:
    """What leaves by a VLAN interface has its tag on the interface below."""
    if network.here.run("ip link add link wire name wire.7 type vlan id 7").returncode != 0:
        pytest.skip("needs VLAN interfaces (CONFIG_VLAN_8021Q)")
    network.here.setup(
        "ip address add 10.7.7.1/24 dev wire.7",
        "ip link set wire.7 up",
        "ip neigh add 10.7.7.2 lladdr 02:00:00:00:00:77 dev wire.7",
    )
    try:
        with opened(network.here, "wire") as ring:
            send_udp(network.here, "10.7.7.2", b"by the VLAN")
            [packet] = taken(ring, has(b"by the VLAN"), 1)
    finally:
        network.here.setup("ip link del wire.7")
    assert packet.data[:6].hex() == "020000000077"
    assert packet.data[12:18].hex() == "810000070800"


def test_packets_are_cut_at_the_filter_s_length_and_at_ours(
    network: Network, sink: socket.socket
) -> None:
    """A cut packet tells how long it was, whoever cut it."""
    for program, snap_bytes in ((TAKE_20, 262_144), (TAKE_ALL, 20)):
        with opened(network.here, "lo", program, snap_bytes=snap_bytes) as ring:
            send_to(sink, bytes(100))
            [packet] = everything(ring)
        assert (len(packet.data), packet.original_bytes) == (20, 142)


def test_the_longest_packet_fits(network: Network, sink: socket.socket) -> None:
    """A datagram of 65,507 bytes comes out whole."""
    payload = os.urandom(65_507)
    with opened(network.here, "lo") as ring:
        send_to(sink, payload)
        [packet] = everything(ring)
    assert packet.data[42:] == payload


def test_the_filter_is_there_before_the_first_packet(network: Network, sink: socket.socket) -> None:
    """A program that takes nothing lets nothing in."""
    with opened(network.here, "lo", TAKE_NOTHING) as ring:
        send_to(sink, b"unseen")
        assert everything(ring) == []
        assert ring.count().received == 0


def test_a_lone_packet_is_there_at_once(network: Network, sink: socket.socket) -> None:
    """A packet does not wait for others to fill its block."""
    with opened(network.here, "lo") as ring:
        began = time.monotonic()
        send_to(sink, b"lone")
        taken(ring, has(b"lone"), 1)
        assert time.monotonic() - began < 1.0


def test_the_ring_goes_round(network: Network, sink: socket.socket) -> None:
    """Far more packets than the ring holds pass through it, in order, and none is lost."""
    numbers: list[int] = []
    with opened(network.here, "lo", ring_bytes=4 * PAGE, block_bytes=PAGE) as ring:
        for start in range(0, 400, 20):
            send_to(sink, *(struct.pack("!I", start + each) + bytes(200) for each in range(20)))
            packets = taken(ring, lambda _: True, 20)
            numbers += [struct.unpack_from("!I", packet.data, 42)[0] for packet in packets]
        counters = ring.count()
    assert numbers == list(range(400))
    assert (counters.received, counters.dropped) == (400, 0)


def test_bare_ip_has_no_link_header(network: Network) -> None:
    """On a TUN interface a packet begins with its IP header."""

    def make() -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR)
        asked = struct.pack("16sH22x", b"tun7", IFF_TUN | IFF_NO_PI)
        try:
            fcntl.ioctl(tun, TUNSETIFF, asked)
        except BaseException:
            os.close(tun)
            raise
        return tun

    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    tun = network.here.inside(make)
    try:
        network.here.setup("ip address add 10.8.8.1/24 dev tun7", "ip link set tun7 up")
        with opened(network.here, "tun7") as ring:
            assert ring.interface.link_type == LINKTYPE_RAW
            send_udp(network.here, "10.8.8.2", b"by the tunnel")
            [packet] = taken(ring, has(b"by the tunnel"), 1)
    finally:
        os.close(tun)
    assert packet.data[0] == 0x45
    assert packet.data[28:] == b"by the tunnel"
    assert (packet.link_type, packet.outgoing) == (LINKTYPE_RAW, True)


def test_promiscuity_lasts_as_long_as_the_ring(network: Network) -> None:
    """The interface takes everything while the ring is open, where that was asked for."""

    def promiscuity() -> int:
        words = network.here.run("ip -d link show wire").stdout.split()
        return int(words[words.index("promiscuity") + 1])

    with opened(network.here, "wire"):
        assert promiscuity() == 0
    with opened(network.here, "wire", promiscuous=True):
        assert promiscuity() == 1
    assert promiscuity() == 0


# -- what is lost --


def test_drops_are_counted(network: Network, sink: socket.socket) -> None:
    """What finds no room is counted, over several readings; all else is handed out."""
    with opened(network.here, "lo", ring_bytes=2 * PAGE, block_bytes=PAGE) as ring:
        send_to(sink, *[bytes(200)] * 300)
        first = ring.count().dropped
        assert first > 0
        found = len(everything(ring))
        assert ring.count().dropped == first
        send_to(sink, *[bytes(200)] * 300)
        counters = ring.count()
        assert counters.dropped > first
        found += len(everything(ring))
    assert counters.received == 600
    assert found + counters.dropped == 600
    assert counters.freezes > 0


def test_after_a_stop_nothing_comes_in(network: Network, sink: socket.socket) -> None:
    """What was there before a stop is handed out, what comes after is not taken."""
    with opened(network.here, "lo") as ring:
        assert ring.is_empty
        send_to(sink, b"before")
        assert not ring.is_empty
        ring.stop()
        send_to(sink, b"after")
        assert [packet.data[42:] for packet in everything(ring)] == [b"before"]
        assert ring.is_empty


@pytest.mark.parametrize("command", ["ip link set gone down", "ip link del gone"])
def test_an_interface_that_goes_is_told(network: Network, command: str) -> None:
    """What came before is there, and then the fault, once."""
    network.here.setup(
        "ip link add gone type veth peer name gone2", "ip link set gone up", "ip link set gone2 up"
    )
    try:
        with opened(network.here, "gone") as ring:
            assert ring.fault() is None
            with open_on(network.here, socket.AF_PACKET, socket.SOCK_RAW, 0, ("gone2", 3)) as sock:
                sock.send(bytes(12) + struct.pack("!H", ETHERTYPE) + b"last words".ljust(46))
            network.here.setup(command)
            poll = select.poll()
            poll.register(ring.fileno(), select.POLLIN)
            taken(ring, has(b"last words"), 1)
            assert poll.poll(2000)[0][1] & select.POLLERR
            fault = ring.fault()
            text = "packet:gone: the interface went down or away: Network is down (ENETDOWN)"
            assert str(fault) == text
            assert ring.fault() is None
    finally:
        network.here.run("ip link del gone")


# -- what is refused --


def test_an_interface_that_is_not_there_is_refused() -> None:
    """The error names the address and the system's word."""
    with pytest.raises(BindError, match=r"^packet:nosuch: No such device \(ENODEV\)$"):
        find("nosuch")


def test_an_interface_that_is_down_is_refused(network: Network) -> None:
    """It would never bring a packet; nothing is left open."""
    network.here.setup("ip link add down0 type veth peer name down1")
    before = held()
    try:
        with (
            pytest.raises(BindError, match=r"^packet:down0: Network is down \(ENETDOWN\)$"),
            opened(network.here, "down0"),
        ):
            pass
    finally:
        network.here.setup("ip link del down0")
    assert held() == before


def test_a_link_layer_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that is neither Ethernet nor bare IP is refused with its kind."""
    monkeypatch.setattr(packet_ring, "LINK_TYPES", {})
    text = r"^packet:lo: its link layer \(ARPHRD 772\) is neither Ethernet nor bare IP$"
    with pytest.raises(BindError, match=text):
        find("lo")


@pytest.mark.parametrize(
    ("program", "more", "text"),
    [
        (REFUSED, {}, r"filter: .*EINVAL"),
        (TAKE_ALL, {"block_bytes": 5000}, r"Invalid argument \(EINVAL\)"),
    ],
    ids=["instruction", "block"],
)
def test_what_the_kernel_refuses_leaves_nothing_open(
    network: Network, program: Program, more: dict[str, int], text: str
) -> None:
    """A wrong filter, or a ring that cannot be, is told; no descriptor and no memory is left."""
    before = held()
    with pytest.raises(BindError, match=f"^packet:lo: .*{text}"):
        network.here.inside(lambda: open_ring(find("lo"), program, **more))
    assert held() == before


def test_closing_gives_everything_back(network: Network) -> None:
    """After twenty rings as many descriptors and mappings are there as before."""
    before = held()
    for _ in range(20):
        with opened(network.here, "lo", ring_bytes=2 * PAGE, block_bytes=PAGE) as ring:
            assert len(held()) > len(before)
            assert ring.take() is None
    assert held() == before
