"""What a UDP listener does about errors of what it sent, and about a full buffer."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from twisted.internet.protocol import DatagramProtocol

from twistedsock.addresses import parse_address
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.service import Metadata
from twistedsock.services.echo import Echo
from twistedsock.transports.ancillary import IP_RECVERR, IPV6_RECVERR
from twistedsock.transports.binding import open_listener
from twistedsock.transports.datagram import DatagramPort


class Keeper(DatagramProtocol):
    """Keeps what a port tells."""

    noisy = False
    wants_metadata = False

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, Any, Metadata]] = []
        self.refused: list[Any] = []
        self.dropped = 0

    def packetReceived(self, data: bytes, addr: Any, metadata: Metadata) -> None:
        self.packets.append((data, addr, metadata))

    def connectionRefused(self) -> None:
        self.refused.append("connection")

    def datagramRefused(self, number: int, host: str) -> None:
        self.refused.append((errno.errorcode[number], host))

    def datagramDropped(self) -> None:
        self.dropped += 1


class Listening:
    """A DatagramPort, as an async context."""

    def __init__(
        self, protocol: Any = None, host: str = "127.0.0.1", *, recverr: bool = False, to: int = 0
    ) -> None:
        from twisted.internet import reactor

        self.protocol = protocol or Keeper()
        shown = f"[{host}]" if ":" in host else host
        self.socket = open_listener(parse_address(f"udp:{shown}:0"))
        if recverr:
            is_v6 = ":" in host
            level = socket.IPPROTO_IPV6 if is_v6 else socket.IPPROTO_IP
            self.socket.setsockopt(level, IPV6_RECVERR if is_v6 else IP_RECVERR, 1)
        if to:
            self.socket.connect((host, to))
        self.port = DatagramPort.adopt(self.socket, self.protocol, reactor)
        self.name = self.socket.getsockname()

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        await within(self.port.stopListening())


def closed_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_an_icmp_error_in_the_queue_is_told_once(host: str) -> None:
    """With IP_RECVERR an unreachable port is told with its host; the listener serves on, idly."""
    async with Listening(host=host, recverr=True) as listening:
        listening.port.write(b"nobody", (host, closed_port(host)))
        await until(lambda: listening.protocol.refused)
        began = time.process_time()
        await pause(0.2)
        assert time.process_time() - began < 0.15, "the queue is not emptied"
        assert listening.protocol.refused == [("ECONNREFUSED", host)]
        with socket.socket(listening.socket.family, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", listening.name)
            await until(lambda: listening.protocol.packets)


@pytest.mark.parametrize("recverr", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_connected_port_outlives_refusals(recverr: bool) -> None:
    """Each refusal is told by connectionRefused, and what is written next goes out all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        name = peer.getsockname()
        async with Listening(recverr=recverr, to=name[1]) as listening:
            peer.close()
            for count in (1, 2):
                listening.port.write(b"nobody")
                await until(lambda count=count: len(listening.protocol.refused) >= count)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                listening.port.write(b"nobody")  # its error waits in the socket
                again.bind(name)
                again.settimeout(5)
                listening.port.write(b"back")
                assert again.recv(10) == b"back"
                again.sendto(b"x", listening.name)
                await until(lambda: listening.protocol.packets)
            assert set(listening.protocol.refused) == {"connection"}


@pytest_twisted.ensureDeferred
async def test_another_peer_s_error_loses_no_answer() -> None:
    """An error that waits in the socket is another datagram's: the answer is sent after all."""
    protocol = ServiceDatagramProtocol(Echo())
    async with Listening(protocol, recverr=True) as listening:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.bind(("127.0.0.1", 0))
            addr = client.getsockname()
            protocol.packetReceived(b"first", addr, Metadata())
            assert client.recv(10) == b"first"
            listening.socket.sendto(b"nobody", ("127.0.0.1", closed_port()))
            protocol.packetReceived(b"second", addr, Metadata())
            assert client.recv(10) == b"second"
            [session] = protocol.carrier.service.sessions
            assert (session.dropped, session.messages_out) == (0, 2)
        await until(lambda: protocol.carrier.counters["refused_by_peer"])
        assert protocol.carrier.counters["send_failed"] == 0


class Full:
    """A socket whose send buffer is full as long as it is told so."""

    def __init__(self, real: socket.socket) -> None:
        self.real, self.is_full = real, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def sendto(self, *words: Any) -> Any:
        if self.is_full:
            raise BlockingIOError(errno.EAGAIN, "full")
        return self.real.sendto(*words)

    def sendmsg(self, *words: Any) -> Any:
        if self.is_full:
            raise BlockingIOError(errno.EAGAIN, "full")
        return self.real.sendmsg(*words)


@pytest.mark.parametrize("way", ["answer", "write", "writeFrom"])
@pytest_twisted.ensureDeferred
async def test_a_full_buffer_keeps_answers(way: str) -> None:
    """Answers that find the buffer full are kept up to a bound and sent; the rest is counted."""
    protocol = ServiceDatagramProtocol(Echo())
    async with Listening(protocol) as listening:
        port = listening.port
        port.socket = full = Full(listening.socket)
        if way == "answer":
            port.answer = protocol.answer = full.sendto
        elif way == "write":
            port.answer = protocol.answer = port.write
        told = Metadata(destination="127.0.0.1" if way == "writeFrom" else None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            client.settimeout(5)
            client.bind(("127.0.0.1", 0))
            for _ in range(20):
                protocol.packetReceived(b"kept" * 1000, client.getsockname(), told)
            full.is_full = False
            for _ in range(20):
                await until(lambda: True)
                await pause(0.01)
                assert client.recv(5000) == b"kept" * 1000
            full.is_full = True
            for _ in range(200):
                protocol.packetReceived(b"x" * 4000, client.getsockname(), told)
        counters = protocol.carrier.counters
        kept = 256 * 1024 // 4064
        assert counters["send_failed"] == 200 - kept
        [session] = protocol.carrier.service.sessions
        assert session.dropped == 200 - kept
    assert counters["send_failed"] == 200, "what was kept is given up when the port closes"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("wants", [False, True])
@pytest_twisted.ensureDeferred
async def test_metadata_is_asked_for_only_where_it_is_wanted(host: str, wants: bool) -> None:
    """Without wants_metadata a listener on one address reads as fast as ever, and tells nothing."""
    keeper = Keeper()
    keeper.wants_metadata = wants
    async with Listening(keeper, host=host) as listening:
        with socket.socket(listening.socket.family, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", listening.name)
        await until(lambda: keeper.packets)
        told = keeper.packets[0][2]
        assert (told.destination == host) is wants
        assert (told.ttl_hops == 64) is wants
        assert (told.dscp == 0) is wants
        assert (told.received_at is not None) is wants
        assert (told.interface == socket.if_nametoindex("lo")) is wants
