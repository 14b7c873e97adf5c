"""Datagram listeners on real sockets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from twistedsock.addresses import parse_address
from twistedsock.service import Metadata
from twistedsock.transports.binding import open_listener
from twistedsock.transports.datagram import DatagramPort

LOOPBACK_INTERFACE = socket.if_nametoindex("lo")


class Keeper(DatagramProtocol):
    """Keeps each packet."""

    noisy = False

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, Any, Metadata]] = []

    def packetReceived(self, data: bytes, addr: Any, metadata: Metadata) -> None:
        self.packets.append((data, addr, metadata))
        if data == b"raise":
            raise ZeroDivisionError


class Plain(DatagramProtocol):
    """Knows only Twisted's own callback."""

    noisy = False

    def __init__(self) -> None:
        self.packets: list[tuple[bytes, Any]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.packets.append((datagram, addr))


class Listening:
    """A DatagramPort on a free port, as an async context."""

    def __init__(self, address: str = "udp:127.0.0.1:0", protocol: Any = None) -> None:
        from twisted.internet import reactor

        self.protocol = protocol or Keeper()
        self.socket = open_listener(parse_address(address))
        self.port = DatagramPort.adopt(self.socket, self.protocol, reactor)
        self.number = self.socket.getsockname()[1]
        self.clients: list[socket.socket] = []

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect((host, self.number))
        self.clients.append(client)
        return client

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        await within(self.port.stopListening())


@pytest.mark.parametrize("size", [0, 1, 8192, 8193, 65507])
@pytest_twisted.ensureDeferred
async def test_datagrams_come_whole(size: int) -> None:
    """Any datagram that UDP can carry is received and sent whole."""
    async with Listening() as listening:
        client = listening.client()
        client.send(b"d" * size)
        await until(lambda: listening.protocol.packets)
        data, addr, _ = listening.protocol.packets[0]
        assert data == b"d" * size
        assert addr == client.getsockname()
        listening.port.write(data, addr)
        assert client.recv(65536) == data


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest_twisted.ensureDeferred
async def test_a_wildcard_tells_and_answers_from_the_destination(host: str) -> None:
    """The address that was hit is in the metadata, and is what the answer comes from."""
    async with Listening("udp:*:0") as listening:
        client = listening.client(host)
        client.send(b"x")
        await until(lambda: listening.protocol.packets)
        _, addr, metadata = listening.protocol.packets[0]
        assert metadata.destination == host
        assert metadata.interface == LOOPBACK_INTERFACE
        assert metadata.truncated is False
        assert not metadata.broadcast
        assert addr[0] == client.getsockname()[0]
        listening.port.writeFrom(b"answer", addr, metadata.destination)
        # A connected client hears only the address that it sent to.
        assert client.recv(64) == b"answer"


@pytest_twisted.ensureDeferred
async def test_an_ipv4_wildcard_tells_a_broadcast() -> None:
    """A broadcast is marked, on an IPv4 wildcard and on a dual-stack one."""
    for address in ("udp:0.0.0.0:0", "udp:*:0"):
        async with Listening(address) as listening:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                client.sendto(b"x", ("127.255.255.255", listening.number))
            await until(lambda seen=listening: seen.protocol.packets)
            assert listening.protocol.packets[0][2].broadcast is True


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_knows_only_twisted_is_served() -> None:
    """Without packetReceived, datagramReceived is called."""
    async with Listening(protocol=Plain()) as listening:
        client = listening.client()
        client.send(b"x")
        await until(lambda: listening.protocol.packets)
        assert listening.protocol.packets == [(b"x", client.getsockname())]


@pytest_twisted.ensureDeferred
async def test_an_exception_loses_that_datagram_alone(logged_failures: Any) -> None:
    """A protocol that raises goes on with the next datagram."""
    async with Listening() as listening:
        client = listening.client()
        client.send(b"raise")
        client.send(b"next")
        await until(lambda: len(listening.protocol.packets) == 2)
        logged_failures.take(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_icmp_refusals_do_not_end_the_listener() -> None:
    """Answering a client that is gone changes nothing for the others."""
    async with Listening() as listening:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            nobody = gone.getsockname()
        for _ in range(3):
            listening.port.write(b"x", nobody)
            await pause(0.01)
        client = listening.client()
        client.send(b"still there")
        await until(lambda: listening.protocol.packets)


@pytest_twisted.ensureDeferred
async def test_too_long_a_datagram_is_refused() -> None:
    """Above 65,507 bytes write() raises MessageLengthError."""
    async with Listening() as listening:
        with pytest.raises(MessageLengthError):
            listening.port.write(b"d" * 65508, ("127.0.0.1", listening.number))


@pytest_twisted.ensureDeferred
async def test_what_came_before_listening_is_no_broadcast() -> None:
    """A datagram that waited for startListening on a wildcard is told as unicast."""
    listening = Listening("udp:*:0")
    listening.client().send(b"early")
    async with listening:
        await until(lambda: listening.protocol.packets)
        assert not listening.protocol.packets[0][2].broadcast


def _link_local() -> str | None:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _, _, scope, _, name = line.split()
        if scope == "20":
            groups = [number[at : at + 4] for at in range(0, 32, 4)]
            return f"{':'.join(groups)}%{name}"
    return None


@pytest.mark.skipif(_link_local() is None, reason="needs a link-local IPv6 address")
@pytest_twisted.ensureDeferred
async def test_link_local_peers_of_a_wildcard_are_answered() -> None:
    """The answer leaves from the link-local address that was hit, by its interface."""
    async with Listening("udp:*:0") as listening:
        where = socket.getaddrinfo(_link_local(), listening.number, type=socket.SOCK_DGRAM)[0][4]
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listening.clients.append(client)
        client.settimeout(5)
        client.sendto(b"x", where)
        await until(lambda: listening.protocol.packets)
        _, addr, metadata = listening.protocol.packets[0]
        listening.port.writeFrom(b"y", addr, metadata.destination)
        assert client.recv(10) == b"y"
