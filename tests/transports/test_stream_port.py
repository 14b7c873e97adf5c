"""Stream listeners on real sockets, and binding."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from twistedsock.addresses import parse_address
from twistedsock.errors import BindError
from twistedsock.sockopts import plan_options
from twistedsock.transports.binding import bound_address, open_listener, resolve
from twistedsock.transports.stream import StreamPort


class Keeper(Protocol):
    """Keeps what it is told."""

    def connectionMade(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.factory.protocols.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Listening:
    """A StreamPort on a free port, as an async context."""

    def __init__(self, address: str = "tcp:127.0.0.1:0", **options: Any) -> None:
        from twisted.internet import reactor

        parsed = parse_address(address)
        self.socket = open_listener(parsed, plan_options(options, parsed))
        self.factory = Factory.forProtocol(Keeper)
        self.factory.noisy = False
        self.factory.protocols = []  # type: ignore[attr-defined]
        self.protocols: list[Any] = self.factory.protocols  # type: ignore[attr-defined]
        self.port = StreamPort.adopt(self.socket, self.factory, reactor)
        self.number = self.socket.getsockname()[1]
        self.clients: list[socket.socket] = []

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection((host, self.number), timeout=5)
        self.clients.append(client)
        return client

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        for protocol in self.protocols:
            if protocol.lost is None:
                protocol.transport.abortConnection()
        await until(lambda: all(protocol.lost for protocol in self.protocols))
        await within(self.port.stopListening())


@pytest_twisted.ensureDeferred
async def test_it_accepts_and_tells_addresses() -> None:
    """An accepted connection reads, and knows both of its ends."""
    async with Listening() as listening:
        client = listening.connect()
        client.sendall(b"hello")
        await until(lambda: listening.protocols and listening.protocols[0].data == b"hello")
        transport = listening.protocols[0].transport
        assert transport.getPeer().port == client.getsockname()[1]
        assert (transport.getHost().host, transport.getHost().port) == (
            "127.0.0.1",
            listening.number,
        )


@pytest_twisted.ensureDeferred
async def test_a_wildcard_is_one_dual_stack_socket() -> None:
    """tcp:* serves IPv4 and IPv6 on one socket, and IPv4 peers look like IPv4."""
    async with Listening("tcp:*:0") as listening:
        listening.connect("127.0.0.1")
        listening.connect("::1")
        await until(lambda: len(listening.protocols) == 2)
        hosts = {protocol.transport.getPeer().host for protocol in listening.protocols}
        assert hosts == {"127.0.0.1", "::1"}
        local = {protocol.transport.getHost().host for protocol in listening.protocols}
        assert local == {"127.0.0.1", "::1"}


@pytest_twisted.ensureDeferred
async def test_an_ipv6_listener_is_ipv6_only() -> None:
    """tcp:[::] leaves the IPv4 port to others."""
    async with Listening("tcp:[::]:0") as listening:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listening.number), timeout=5)


@pytest_twisted.ensureDeferred
async def test_newcomers_wait_while_accepting_is_paused() -> None:
    """A paused listener leaves newcomers in the kernel's queue and serves them later."""
    async with Listening() as listening:
        listening.port.pauseAccepting()
        listening.connect().sendall(b"patient")
        await pause(0.05)
        assert listening.protocols == []
        listening.port.resumeAccepting()
        await until(lambda: listening.protocols and listening.protocols[0].data == b"patient")


@pytest_twisted.ensureDeferred
async def test_a_reset_is_told_from_a_close() -> None:
    """The reason of a lost connection names what happened."""
    async with Listening() as listening:
        client = listening.connect()
        await until(lambda: listening.protocols)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: listening.protocols[0].lost)
        assert listening.protocols[0].lost.value.close_reason == "peer_reset"


class Failing:
    """A listening socket whose accept fails with each of some errors in turn."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self._real = real
        self.errors = errors
        self.tries = 0

    def _accept(self) -> Any:
        self.tries += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._real._accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EPERM],
)
@pytest_twisted.ensureDeferred
async def test_failing_accepts_pause_and_recover(number: int, logged: list[Any]) -> None:
    """An accept that fails is tried again after 5 ms, doubling; it neither spins nor floods."""
    async with Listening() as listening:
        failing = Failing(listening.socket, [number] * 4)
        listening.port.socket = failing
        listening.connect().sendall(b"x")
        await pause(0.04)
        assert failing.tries <= 4  # 0, 5, 15 and 35 ms: never a loop
        await until(lambda: listening.protocols and listening.protocols[0].data == b"x")
        assert failing.tries >= 5
        listening.port.socket = listening.socket
        lines = [event for event in logged if event.get("event") == "accept_error"]
        assert len(lines) == 1
        assert lines[0]["error"] == errno.errorcode[number]


@pytest_twisted.ensureDeferred
async def test_a_raising_factory_loses_that_newcomer_alone(logged_failures: Any) -> None:
    """An exception in buildProtocol closes that connection; the listener goes on."""
    async with Listening() as listening:
        build, calls = listening.factory.buildProtocol, []

        def raise_once(addr: Any) -> Any:
            calls.append(addr)
            if len(calls) == 1:
                raise ZeroDivisionError
            return build(addr)

        listening.factory.buildProtocol = raise_once  # type: ignore[method-assign]
        first = listening.connect()
        await until(lambda: calls)
        assert first.recv(1) == b""
        listening.connect()
        await until(lambda: listening.protocols)
        logged_failures.take(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_stopping_leaves_a_shared_socket_listening() -> None:
    """Stopping our listener does not end it for another holder of the same socket."""
    listening = Listening()
    twin = listening.socket.dup()
    async with listening:
        pass
    with socket.create_connection(twin.getsockname(), timeout=5):
        twin.settimeout(5)
        twin.accept()[0].close()
    twin.close()


def test_options_are_set_before_bind_and_inherited() -> None:
    """Options of the listener are on the accepted socket, with no call for each connection."""
    address = parse_address("tcp:127.0.0.1:0")
    options = {"SO_KEEPALIVE": True, "TCP_KEEPIDLE": "61s", "TCP_USER_TIMEOUT": "1500ms"}
    with (
        open_listener(address, plan_options(options, address)) as listener,
        socket.create_connection(listener.getsockname(), timeout=5),
    ):
        listener.settimeout(5)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 61
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tcp:192.0.2.1:0", "no interface of this machine has that address"),
        ("udp:192.0.2.1:0", "no interface of this machine has that address"),
    ],
)
def test_a_bind_that_fails_says_why_and_leaves_nothing(text: str, reason: str) -> None:
    """The error names the address and the cure, and no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BindError) as caught:
        open_listener(parse_address(text))
    assert str(caught.value).startswith(f"{text}: Cannot assign requested address")
    assert reason in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_taken_port_says_so() -> None:
    """EADDRINUSE is told with the address."""
    with open_listener(parse_address("tcp:127.0.0.1:0")) as first:
        text = f"tcp:127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(BindError, match="another listener has it") as caught:
            open_listener(parse_address(text))
        assert caught.value.address == text
        assert caught.value.errno == errno.EADDRINUSE
        assert not caught.value.is_permission


def test_a_refused_option_closes_the_socket() -> None:
    """An option that the kernel refuses is named, and nothing is left open."""
    address = parse_address("tcp:127.0.0.1:0")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BindError, match=r"TCP_CONGESTION: No such file or directory \(ENOENT\)"):
        open_listener(address, plan_options({"TCP_CONGESTION": "nonsense"}, address))
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_may_run_out_at_bind() -> None:
    """EMFILE at socket() is a BindError too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 2, hard))
    try:
        with pytest.raises(BindError, match="EMFILE"):  # noqa: PT012 - which one fails is open
            for _ in range(open_now + 4):
                taken.append(open_listener(parse_address("udp:127.0.0.1:0")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in taken:
            sock.close()


def test_names_resolve_to_every_address() -> None:
    """localhost is one listener an address; an unknown name is a BindError."""
    found = {address.host for address in resolve(parse_address("tcp:localhost:80"))}
    assert found & {"127.0.0.1", "::1"}
    with pytest.raises(BindError, match=r"cannot resolve 'nowhere\.invalid'"):
        resolve(parse_address("tcp:nowhere.invalid:80"))


def test_the_real_port_is_told() -> None:
    """bound_address() tells the port that the kernel chose, and keeps the wildcard."""
    for text in ("tcp:127.0.0.1:0", "udp:[::1]:0", "tcp:*:0"):
        address = parse_address(text)
        with open_listener(address) as sock:
            bound = bound_address(address, sock)
            assert bound.port == sock.getsockname()[1] > 0
            assert bound.host == address.host


@pytest_twisted.ensureDeferred
async def test_a_raising_protocol_is_told_of_its_end(logged_failures: Any) -> None:
    """An exception in connectionMade ends that connection in order; nothing of it is kept."""
    async with Listening() as listening:
        made, lost = Keeper.connectionMade, []

        class Raises(Keeper):
            def connectionMade(self) -> None:
                made(self)
                raise ZeroDivisionError

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                super().connectionLost(reason)
                lost.append(reason)

        listening.factory.protocol = Raises
        client = listening.connect()
        await until(lambda: lost)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        logged_failures.take(ZeroDivisionError)
