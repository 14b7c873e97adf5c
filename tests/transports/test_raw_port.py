"""Raw IP listeners on real sockets, between two machines on a wire."""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    HERE,
    LINK_LOCAL,
    THERE,
    Network,
    checksum,
    echo_request,
    echo_request_6,
    igmp,
    index_on,
    ip4,
    ip6,
    network,
    open_on,
)
from twisted.internet.error import InvalidAddressError, MessageLengthError

from twistedsock.addresses import parse_address
from twistedsock.errors import AddressError, BindError
from twistedsock.service import Metadata
from twistedsock.transports import ancillary, raw
from twistedsock.transports.binding import open_listener, resolve
from twistedsock.transports.raw import RawPort
from twistedsock.wire.ipv4 import header_bytes

__all__ = ["network"]
EXPERIMENT = 253  # RFC 3692
RAW4 = (socket.AF_INET, socket.SOCK_RAW)
RAW6 = (socket.AF_INET6, socket.SOCK_RAW)
IPV6_HDRINCL = 36


class Keeper:
    """Keeps what a port tells."""

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, Any, Metadata]] = []
        self.refused: list[Any] = []
        self.dropped = 0

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def doStop(self) -> None:
        pass

    def packetReceived(self, data: bytes, addr: Any, metadata: Metadata) -> None:
        self.packets.append((data, addr, metadata))
        if data == b"raise":
            raise ZeroDivisionError

    def connectionRefused(self) -> None:
        self.refused.append("connection")

    def datagramRefused(self, number: int, host: str) -> None:
        self.refused.append((errno.errorcode[number], host))

    def datagramDropped(self) -> None:
        self.dropped += 1


class Listening:
    """A RawPort on a machine, as an async context."""

    def __init__(
        self, network: Network, address: str, *options: tuple[int, int, int], connect: str = ""
    ) -> None:
        from twisted.internet import reactor

        def make() -> socket.socket:
            [one] = resolve(parse_address(address))
            sock = open_listener(one)
            for option in options:
                sock.setsockopt(*option)
            if connect:
                sock.connect((connect, 0))
            return sock

        self.protocol = Keeper()
        self.socket = network.here.inside(make)
        self.port = RawPort.adopt(self.socket, self.protocol, reactor)

    async def packet(self, count: int = 1) -> tuple[bytes, Any, Metadata]:
        await until(lambda: len(self.protocol.packets) >= count)
        return self.protocol.packets[count - 1]

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        await within(self.port.stopListening())


@pytest.mark.parametrize(
    ("address", "number", "message"),
    [
        ("raw:icmp", 1, echo_request()),
        ("raw:igmp", 2, igmp(0x16, 0, "239.1.1.1")),
        ("raw:253:0.0.0.0", EXPERIMENT, b"own"),
        ("raw:253:192.0.2.1", EXPERIMENT, b""),
        ("raw:99:0.0.0.0", 99, b"x" * 1400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ipv4_metadata_is_what_was_sent(
    network: Network, address: str, number: int, message: bytes
) -> None:
    """The payload is the message, and the metadata is what the peer wrote into the header."""
    async with Listening(network, address) as listening:
        with open_on(network.there, *RAW4, number) as peer:
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 42)
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
            before = time.time()
            peer.sendto(message, (HERE[0], 0))
        data, addr, metadata = await listening.packet()
        assert (data, addr) == (message, (THERE[0], 0))
        assert (metadata.ttl_hops, metadata.dscp) == (42, 46)
        assert (metadata.destination, metadata.broadcast) == (HERE[0], False)
        assert metadata.interface == index_on(network.here)
        assert metadata.truncated is False
        assert metadata.received_at is not None
        assert before - 0.01 <= metadata.received_at <= time.time()
        assert metadata.header is not None
        assert len(metadata.header) == 20
        assert checksum(metadata.header) == 0
        assert listening.port.getHost().port == number


@pytest.mark.parametrize(
    ("address", "number", "message"),
    [
        ("raw:icmpv6", 58, echo_request_6()),
        ("raw:253:[::]", EXPERIMENT, b"own"),
        ("raw:253:[2001:db8:1::1]", EXPERIMENT, b""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ipv6_metadata_is_what_was_sent(
    network: Network, address: str, number: int, message: bytes
) -> None:
    """Hop limit, traffic class, destination, interface and time come beside an IPv6 packet."""
    async with Listening(network, address) as listening:
        with open_on(network.there, *RAW6, number) as peer:
            peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 42)
            peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 46 << 2)
            before = time.time()
            peer.sendto(message, (HERE[1], 0))

        def ours() -> list[Any]:  # neighbours are asked for by ICMPv6 as well
            return [each for each in listening.protocol.packets if each[2].ttl_hops == 42]

        await until(ours)
        data, addr, metadata = ours()[0]
        assert data[4:] == message[4:]  # but for the checksum
        assert addr == (THERE[1], 0)
        assert (metadata.dscp, metadata.destination) == (46, HERE[1])
        assert metadata.interface == index_on(network.here)
        assert metadata.header is None
        assert metadata.received_at is not None
        assert before - 0.01 <= metadata.received_at <= time.time()


@pytest_twisted.ensureDeferred
async def test_broadcasts_and_groups_are_told(network: Network) -> None:
    """A broadcast is marked, and a group is the destination."""
    async with Listening(network, "raw:253:0.0.0.0") as listening:
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for place, host in enumerate(("192.0.2.255", "224.0.0.1", "255.255.255.255")):
                if host.startswith("255"):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire")
                peer.sendto(b"x", (host, 0))
                _, _, metadata = await listening.packet(place + 1)
                assert metadata.destination == host
                assert metadata.broadcast is (host != "224.0.0.1")


@pytest_twisted.ensureDeferred
async def test_link_local_peers_keep_their_scope(network: Network) -> None:
    """A link-local peer comes with its interface, and is answered from the address it hit."""
    async with Listening(network, "raw:253:[::]") as listening:
        scope = index_on(network.there)
        with open_on(network.there, *RAW6, EXPERIMENT) as peer:
            peer.sendto(b"x", (LINK_LOCAL[0], 0, 0, scope))
            _, addr, metadata = await listening.packet()
            assert addr == (f"{LINK_LOCAL[1]}%{index_on(network.here)}", 0)
            assert metadata.destination is not None
            listening.port.writeFrom(b"from", addr, metadata.destination)
            assert peer.recvfrom(10) == (b"from", (LINK_LOCAL[0], 0, 0, scope))
            listening.port.write(b"plain", addr)
            assert peer.recv(10) == b"plain"


@pytest_twisted.ensureDeferred
async def test_answers_leave_from_the_address_that_was_hit(network: Network) -> None:
    """Of several addresses the one that the peer sent to is the source of the answer."""
    network.here.setup("ip address add 192.0.2.77/32 dev wire")
    try:
        async with Listening(network, "raw:253:0.0.0.0") as listening:
            with open_on(network.there, *RAW4, EXPERIMENT) as peer:
                peer.sendto(b"x", ("192.0.2.77", 0))
                _, addr, metadata = await listening.packet()
                assert metadata.destination is not None
                listening.port.writeFrom(b"y", addr, metadata.destination)
                assert peer.recvfrom(100)[1][0] == "192.0.2.77"
    finally:
        network.here.setup("ip address del 192.0.2.77/32 dev wire")


@pytest_twisted.ensureDeferred
async def test_a_program_may_bring_its_own_header(network: Network) -> None:
    """With IP_HDRINCL what is sent begins with the header that the program wrote."""
    option = (socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    async with Listening(network, "raw:253:0.0.0.0", option) as listening:
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            packet = ip4("192.0.2.200", THERE[0], EXPERIMENT, b"own header", ttl=9, tos=8)
            listening.port.write(packet, (THERE[0], 0))
            listening.port.writeFrom(packet, (THERE[0], 0), HERE[0])
            assert [peer.recv(100) for _ in range(2)] == [packet, packet]
            with pytest.raises(OSError, match="Invalid argument"):
                listening.port.write(b"no header", (THERE[0], 0))
            listening.port.write(packet, (THERE[0], 0))
            assert peer.recv(100) == packet


@pytest_twisted.ensureDeferred
async def test_a_program_may_bring_its_own_header_over_ipv6(network: Network) -> None:
    """With IPV6_HDRINCL the kernel fills in nothing: the source is the program's."""
    option = (socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
    async with Listening(network, "raw:253:[::]", option) as listening:
        with open_on(network.there, *RAW6, EXPERIMENT) as peer:
            peer.setsockopt(socket.IPPROTO_IPV6, ancillary.IPV6_RECVHOPLIMIT, 1)
            packet = ip6("2001:db8:1::77", THERE[1], EXPERIMENT, b"own", hops=9)
            for write in (
                lambda: listening.port.write(packet, (THERE[1], 0)),
                lambda: listening.port.writeFrom(packet, (THERE[1], 0), HERE[1]),
            ):
                write()
                data, told, _, name = peer.recvmsg(100, 100)
                assert (data, name[0]) == (b"own", "2001:db8:1::77")
                assert told[0][2] == struct.pack("@i", 9)


@pytest_twisted.ensureDeferred
async def test_a_packet_of_the_largest_size_comes_whole(network: Network) -> None:
    """65,535 bytes with the header are received and sent, though the wire takes 1500."""
    async with Listening(network, "raw:253:0.0.0.0") as listening:
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            for sock in (peer, listening.socket):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            peer.sendto(b"p" * 65_515, (HERE[0], 0))
            data, addr, _ = await listening.packet()
            assert data == b"p" * 65_515
            listening.port.write(data, addr)
            assert peer.recv(70_000)[20:] == data
            with pytest.raises(MessageLengthError):
                listening.port.write(b"p" * 65_516, addr)


@pytest.mark.parametrize("connect", ["", "192.0.2.9"])
@pytest_twisted.ensureDeferred
async def test_an_icmp_error_is_told_and_ends_nothing(network: Network, connect: str) -> None:
    """With IP_RECVERR "protocol unreachable" is told once; the port neither closes nor spins."""
    option = (socket.IPPROTO_IP, ancillary.IP_RECVERR, 1)
    async with Listening(network, "raw:253:0.0.0.0", option, connect=connect) as listening:
        for count in (1, 2):
            listening.port.write(b"nobody is there", (THERE[0], 0))
            await until(lambda count=count: len(listening.protocol.refused) >= count)
            await pause(1.05)  # the kernel sends such errors once a second
        assert listening.protocol.refused == [("ENOPROTOOPT", THERE[0])] * 2
        turns = time.process_time()
        await pause(0.2)
        assert time.process_time() - turns < 0.15
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            peer.sendto(b"x", (HERE[0], 0))
            await listening.packet()
            listening.port.write(b"y", (THERE[0], 0))
            assert peer.recv(100)[20:] == b"y"


@pytest_twisted.ensureDeferred
async def test_a_full_buffer_keeps_packets_in_their_order(network: Network) -> None:
    """What a full send buffer does not take is sent later and in order; over the bound it raises,
    and what is given up when the port closes is counted."""
    async with Listening(network, "raw:253:0.0.0.0") as listening:
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            real, port = listening.port.socket, listening.port

            class Full:
                is_full = True

                def __getattr__(self, name: str) -> Any:
                    return getattr(real, name)

                def sendto(self, *words: Any) -> Any:
                    if self.is_full:
                        raise OSError(errno.ENOBUFS, "full")
                    return real.sendto(*words)

            port.socket = full = Full()
            for number in range(5):
                port.write(bytes([number]), (THERE[0], 0))
            full.is_full = False
            port.write(b"\5", (THERE[0], 0))  # may not overtake
            await until(lambda: not port.unsent.holds(THERE[0]))
            assert b"".join(peer.recv(100)[20:] for _ in range(6)) == bytes(range(6))
            full.is_full = True
            for _ in range(25):
                port.write(bytes(10_000), (THERE[0], 0))
            with pytest.raises(OSError, match="full"):
                port.write(bytes(20_000), (THERE[0], 0))
            kept = sum(map(len, port.unsent._queues.values()))
            assert kept == 25
    assert listening.protocol.dropped == kept


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_raises_loses_that_packet_alone(
    network: Network, logged_failures: Any
) -> None:
    """The next packet is served as if nothing had been."""
    async with Listening(network, "raw:253:0.0.0.0") as listening:
        with open_on(network.there, *RAW4, EXPERIMENT) as peer:
            peer.sendto(b"raise", (HERE[0], 0))
            peer.sendto(b"next", (HERE[0], 0))
            assert (await listening.packet(2))[0] == b"next"
    logged_failures.take(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_a_name_is_never_looked_up(network: Network) -> None:
    """What is no address of the listener's version is refused; a look-up would block."""
    async with Listening(network, "raw:253:0.0.0.0") as listening:
        for host in ("example.invalid", "::1", ""):
            with pytest.raises(InvalidAddressError):
                listening.port.write(b"x", (host, 0))


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_split_without_an_error(packet: bytes) -> None:
    """What is no IPv4 header is left with the payload; nothing is lost, whatever came."""
    told: dict[str, Any] = {}
    payload = raw._split(told, packet)
    assert told.get("header", b"") + payload == packet
    assert header_bytes(packet) == len(told.get("header", b""))
    assert len(told.get("header", bytes(20))) >= 20


def test_options_lengthen_the_header() -> None:
    """The payload begins where the header's own length says (RFC 791, IHL)."""
    packet = ip4(THERE[0], HERE[0], EXPERIMENT, b"payload")
    told: dict[str, Any] = {}
    longer = bytes([0x46]) + packet[1:20] + b"\x94\4\0\0" + packet[20:]
    assert raw._split(told, longer) == b"payload"
    assert told["header"] == longer[:24]
    assert told["destination"] == HERE[0]


@pytest.mark.parametrize(
    ("address", "hosts"),
    [
        ("raw:icmp", ["0.0.0.0"]),
        ("raw:1", ["0.0.0.0"]),
        ("raw:igmp", ["0.0.0.0"]),
        ("raw:icmpv6", ["::"]),
        ("raw:58", ["::"]),
        ("raw:253", ["0.0.0.0", "::"]),
        ("raw:253:[::1]", ["::1"]),
        ("raw:icmp:localhost", ["127.0.0.1"]),
    ],
)
def test_a_protocol_is_of_the_ip_versions_that_have_it(address: str, hosts: list[str]) -> None:
    """A protocol of one IP version, by name or number, is one socket of that; others are two."""
    assert [each.host for each in resolve(parse_address(address))] == hosts


@pytest.mark.parametrize(
    "address", ["raw:icmp:[::1]", "raw:2:[::1]", "raw:icmpv6:127.0.0.1", "raw:58:127.0.0.1"]
)
def test_an_address_of_the_other_version_is_refused(address: str) -> None:
    """Nothing of that protocol would ever arrive there."""
    with pytest.raises(AddressError, match=r"is of IPv[46] only, got 'raw:"):
        parse_address(address)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("raw:253:192.0.2.222", "no interface of this machine has that address"),
        ("raw:0:0.0.0.0", "EPROTONOSUPPORT"),
    ],
)
def test_what_cannot_be_opened_leaves_nothing(network: Network, address: str, told: str) -> None:
    """The error names the address and the reason."""
    with pytest.raises(BindError, match=told) as caught:
        network.here.inside(lambda: open_listener(parse_address(address)))
    assert str(caught.value).startswith(f"{address}: ")
