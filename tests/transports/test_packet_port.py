"""Packet listeners on the end of a real wire."""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from networks import HERE, THERE, Network, index_on, ip4, network, open_on
from twisted.internet.error import MessageLengthError
from twisted.logger import globalLogPublisher

from twistedsock.addresses import parse_address
from twistedsock.errors import BindError
from twistedsock.service import Metadata
from twistedsock.transports.binding import ETH_P_ALL, open_listener
from twistedsock.transports.packet import PACKET_OUTGOING, PacketPort

__all__ = ["network"]
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments
PEER_MAC, OUR_MAC = "02:00:00:00:00:09", "02:00:00:00:00:01"


class Keeper:
    """Keeps the frames of the experiment, and what became of those that were sent."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, Any, Metadata]] = []
        self.refused: list[str] = []

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def doStop(self) -> None:
        pass

    def packetReceived(self, data: bytes, addr: Any, metadata: Metadata) -> None:
        if struct.pack("!H", ETHERTYPE) in (data[12:14], data[16:18]):  # behind a tag, too
            self.frames.append((data, addr, metadata))

    def datagramRefused(self, number: int, host: str) -> None:
        self.refused.append(errno.errorcode[number])


def frame(payload: bytes, source: str = PEER_MAC, destination: str = OUR_MAC) -> bytes:
    """Return an Ethernet frame of the experiment."""
    addresses = bytes.fromhex((destination + source).replace(":", ""))
    return addresses + struct.pack("!H", ETHERTYPE) + payload.ljust(46, b"\0")


class Listening:
    """A PacketPort on a wire of its own, as an async context."""

    def __init__(self, network: Network, interface: str = "tap") -> None:
        from twisted.internet import reactor

        self.here, self.there = network.here, network.there
        if interface == "tap":
            self.here.setup(
                f"ip link add tap address {OUR_MAC} type veth"
                f" peer name tap address {PEER_MAC} netns {self.there.process.pid}",
                "ip link set tap up",
            )
            self.there.setup("ip link set tap up")
        self.protocol = Keeper()
        address = parse_address(f"packet:{interface}")
        self.socket = self.here.inside(lambda: open_listener(address))
        self.index = index_on(self.here, interface)
        self.port = PacketPort.adopt(self.socket, self.protocol, reactor)
        # The kernel's own view of what the peer's end gets.
        self.peer = open_on(
            self.there, socket.AF_PACKET, socket.SOCK_RAW, 0, (interface, ETH_P_ALL)
        )

    async def frames(self, count: int) -> list[tuple[bytes, Any, Metadata]]:
        await until(lambda: len(self.protocol.frames) >= count)
        return self.protocol.frames

    def at_the_peer(self) -> bytes:
        while True:
            found = self.peer.recv(2000)
            if found[12:14] == struct.pack("!H", ETHERTYPE):
                return found

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.peer.close()
        await within(self.port.stopListening())
        self.here.run("ip link del tap")


@pytest_twisted.ensureDeferred
async def test_frames_come_whole_with_their_metadata(network: Network) -> None:
    """A frame is the message; its sender, interface and time are told."""
    async with Listening(network) as listening:
        before = time.time()
        sent = frame(b"one")
        listening.peer.send(sent)
        [(data, addr, metadata)] = await listening.frames(1)
        assert data == sent
        assert addr == (PEER_MAC, listening.index)
        assert metadata.interface == listening.index
        assert (metadata.outgoing, metadata.truncated) == (False, False)
        assert metadata.received_at is not None
        assert before - 0.01 <= metadata.received_at <= time.time()
        assert metadata.destination is None
        assert listening.port.getHost().host == "tap"


@pytest_twisted.ensureDeferred
async def test_what_this_machine_sends_is_told_apart(network: Network) -> None:
    """An outgoing frame is marked, and is no frame of the peer's whose address it bears."""
    async with Listening(network) as listening:
        name = ("tap", ETH_P_ALL)
        with open_on(listening.here, socket.AF_PACKET, socket.SOCK_RAW, 0, name) as other:
            other.send(frame(b"mine", source=PEER_MAC, destination=PEER_MAC))
        listening.peer.send(frame(b"theirs"))
        mine, theirs = await listening.frames(2)
        assert mine[2].outgoing is True
        assert theirs[2].outgoing is False
        assert mine[1] == (PEER_MAC, listening.index, PACKET_OUTGOING)
        assert theirs[1] == (PEER_MAC, listening.index)


@pytest_twisted.ensureDeferred
async def test_frames_are_sent_as_they_are(network: Network) -> None:
    """What is written leaves by the interface, byte for byte; it is not heard again."""
    async with Listening(network) as listening:
        sent = frame(b"out", source=OUR_MAC, destination=PEER_MAC)
        listening.port.write(sent, (PEER_MAC, listening.index))
        assert listening.at_the_peer() == sent
        with pytest.raises(MessageLengthError):
            listening.port.write(frame(b"x" * 3000))
        with pytest.raises(OSError, match="Invalid argument"):
            listening.port.write(b"short")
        await pause(0.05)
        assert listening.protocol.frames == []


@pytest_twisted.ensureDeferred
async def test_an_interface_may_go_down_and_come_back(network: Network) -> None:
    """That it is down is told once; when it is up again, frames come as before."""
    async with Listening(network) as listening:
        listening.here.setup("ip link set tap down")
        await until(lambda: listening.protocol.refused)
        with pytest.raises(OSError, match="Network is down"):
            listening.port.write(frame(b"down"))
        await pause(0.05)
        assert listening.protocol.refused == ["ENETDOWN"]
        listening.here.setup("ip link set tap up")
        listening.peer.send(frame(b"up"))
        assert len(await listening.frames(1)) == 1


@pytest_twisted.ensureDeferred
async def test_an_interface_may_be_removed(network: Network) -> None:
    """The port stays, tells the error once, and neither spins nor raises but for what is sent."""
    async with Listening(network) as listening:
        listening.here.setup("ip link del tap")
        await until(lambda: listening.protocol.refused)
        began = time.process_time()
        await pause(0.2)
        assert time.process_time() - began < 0.15
        assert set(listening.protocol.refused) == {"ENETDOWN"}
        assert len(listening.protocol.refused) <= 2
        with pytest.raises(OSError, match="No such device"):
            listening.port.write(frame(b"gone"))
        assert listening.port.connected


@pytest_twisted.ensureDeferred
async def test_an_interface_may_be_renamed(network: Network) -> None:
    """Frames come on, with the index that it always had."""
    async with Listening(network) as listening:
        listening.here.setup("ip link set tap name tip")
        try:
            listening.peer.send(frame(b"renamed"))
            [(_, addr, _)] = await listening.frames(1)
            assert addr[1] == listening.index
            assert listening.port.getHost().host == "tip"
        finally:
            listening.here.setup("ip link set tip down", "ip link set tip name tap")


@pytest_twisted.ensureDeferred
async def test_frames_of_every_size_are_received(network: Network) -> None:
    """From a bare header to the wire's own limit, with any content."""
    async with Listening(network) as listening:
        sizes = [14, 15, 60, 61, 1513, 1514]
        for size in sizes:
            listening.peer.send(frame(b"x" * 1600)[:size])
        found = await listening.frames(len(sizes))
        assert [len(data) for data, _, _ in found] == sizes


@pytest_twisted.ensureDeferred
async def test_a_vlan_tag_is_put_back(network: Network) -> None:
    """A tagged frame is the message as it was on the wire, whichever EtherType its tag has."""
    async with Listening(network) as listening:
        plain = frame(b"tagged".ljust(50, b"."))
        tagged = [
            plain[:12] + struct.pack("!HH", ethertype, 0x6007) + plain[12:]
            for ethertype in (0x8100, 0x88A8)
        ]
        for each in tagged:
            listening.peer.send(each)
        found = await listening.frames(2)
        assert [data for data, _, _ in found] == tagged


@pytest_twisted.ensureDeferred
async def test_the_longest_frame_of_the_loopback_is_whole(network: Network) -> None:
    """A frame longer than any IP packet, as lo has them with its header, is not cut."""
    from twisted.internet import reactor

    keeper = Keeper()
    keeper.packetReceived = lambda *told: keeper.frames.append(told)  # type: ignore[method-assign]
    network.here.setup("ip link set lo mtu 65536")
    sock = network.here.inside(lambda: open_listener(parse_address("packet:lo")))
    port = PacketPort.adopt(sock, keeper, reactor)
    port.startListening()
    try:
        with open_on(network.here, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(65_507), ("127.0.0.1", 9))
        await until(lambda: len(keeper.frames) >= 1)
        data, _, metadata = keeper.frames[0]
        assert len(data) == 65_507 + 8 + 20 + 14
        assert not metadata.truncated
    finally:
        await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_what_the_kernel_dropped_is_told_at_the_end(network: Network) -> None:
    """Frames that found its buffer full are counted, and told when the listener closes."""
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    try:
        async with Listening(network) as listening:
            listening.port.stopReading()
            listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(50):
                listening.peer.send(frame(b"x" * 1000))
            listening.port.startReading()
            await listening.frames(1)
    finally:
        globalLogPublisher.removeObserver(events.append)
    [told] = [each for each in events if each.get("event") == "frames_dropped"]
    assert told["interface"] == "tap"
    assert told["dropped"] >= 50 - len(listening.protocol.frames) > 0


@pytest_twisted.ensureDeferred
async def test_loopback_shows_each_packet_twice(network: Network) -> None:
    """On lo every packet is sent and received: one of the two is marked as outgoing."""
    from twisted.internet import reactor

    keeper = Keeper()
    keeper.packetReceived = lambda *told: keeper.frames.append(told)  # type: ignore[method-assign]
    sock = network.here.inside(lambda: open_listener(parse_address("packet:lo")))
    port = PacketPort.adopt(sock, keeper, reactor)
    port.startListening()
    try:
        raw = open_on(network.here, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            packet = ip4(HERE[0], HERE[0], 253, b"to myself")
            raw.sendto(packet, (HERE[0], 0))
        await until(lambda: sum(each[0][14 + 9] == 253 for each in keeper.frames) >= 2)
        both = [told.outgoing for data, _, told in keeper.frames if data[14 + 9] == 253]
        assert both == [True, False]
        assert THERE[0] not in str(keeper.frames)
    finally:
        await within(port.stopListening())


def test_an_interface_that_is_not_there_is_an_error(network: Network) -> None:
    """The error names the address, and nothing is left open."""
    with pytest.raises(BindError, match=r"packet:nope: No such device \(ENODEV\)"):
        network.here.inside(lambda: open_listener(parse_address("packet:nope")))
