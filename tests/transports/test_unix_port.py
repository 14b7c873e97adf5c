"""UNIX stream listeners on real sockets: addresses, credentials, descriptors, ends."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import Failures, pause, until
from locals import Keeper, Local, heard, open_descriptors
from twisted.internet.interfaces import IFileDescriptorReceiver, IUNIXTransport
from twisted.internet.protocol import Factory
from zope.interface import implementer

from twistedsock.transports.descriptors import MAX_DESCRIPTORS
from twistedsock.transports.unix import UnixReceiver, UnixServer, credentials_of


@implementer(IFileDescriptorReceiver)
class Taker(Keeper):
    """Keeps descriptors too."""

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)


def of(protocol: type[Keeper]) -> Factory:
    return Factory.forProtocol(protocol)


def send_copies(client: socket.socket, data: bytes, count: int = 1) -> None:
    with open("/dev/null") as file:
        socket.send_fds(client, [data], [file.fileno()] * count)


@pytest_twisted.ensureDeferred
async def test_it_accepts_and_tells_who_came(tmp_path: Path) -> None:
    """A connection knows its path, its peer's name if it has one, and its peer's credentials."""
    async with Local(f"unix:{tmp_path}/s") as local:
        local.client().send(b"hello")
        local.client(f"{tmp_path}/c").send(b"hello")
        await until(lambda: [p.data for p in local.protocols] == [[b"hello"]] * 2)
        nameless, named = [protocol.transport for protocol in local.protocols]
        assert nameless.getHost().name == os.fsencode(f"{tmp_path}/s")
        assert nameless.getPeer().name is None
        assert named.getPeer().name == os.fsencode(f"{tmp_path}/c")
        assert IUNIXTransport.providedBy(nameless)
        told = nameless.credentials
        assert told[:3] == (os.getpid(), os.geteuid(), os.getegid())
        assert set(told.groups) == set(os.getgroups())
        assert nameless.getTcpNoDelay() is nameless.getTcpKeepAlive() is False
        nameless.setTcpNoDelay(True)
        nameless.setTcpKeepAlive(True)
    assert not (tmp_path / "s").exists()


@pytest_twisted.ensureDeferred
async def test_an_abstract_name_is_served() -> None:
    """An abstract listener serves, and knows its name."""
    name = f"twistedsock-{os.getpid()}-\udcff"
    async with Local(f"unix:@{name}") as local:
        local.client().send(b"hello")
        await until(lambda: local.protocols and local.protocols[0].data)
        assert local.port.getHost().name == b"\0" + os.fsencode(name)


def test_a_socket_of_no_peer_has_no_credentials() -> None:
    """What the system does not tell is None, never an error."""
    with socket.socket() as sock:
        credentials = credentials_of(sock)
    assert credentials is None or credentials.pid == 0


@pytest_twisted.ensureDeferred
async def test_descriptors_come_before_their_bytes(tmp_path: Path) -> None:
    """A protocol that takes descriptors gets them, and programs it starts do not inherit them."""
    async with Local(f"unix:{tmp_path}/s", of(Taker)) as local:
        client = local.client()
        send_copies(client, b"two", 2)
        await until(lambda: local.protocols and local.protocols[0].data == [b"two"])
        protocol = local.protocols[0]
        assert isinstance(protocol.transport, UnixReceiver)
        assert len(protocol.descriptors) == 2
        for fd in protocol.descriptors:
            assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
            assert not os.get_inheritable(fd)
        send_copies(client, b"many", MAX_DESCRIPTORS)
        await until(lambda: len(protocol.descriptors) == 2 + MAX_DESCRIPTORS)


@pytest_twisted.ensureDeferred
async def test_descriptors_that_nobody_wants_are_dropped(tmp_path: Path) -> None:
    """A flood of descriptors to a protocol that takes none leaves none open."""
    async with Local(f"unix:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        before = open_descriptors()
        for _ in range(50):
            send_copies(client, b"x", 100)
            await pause()
        await until(lambda: sum(map(len, local.protocols[0].data)) == 50)
        assert type(local.protocols[0].transport) is UnixServer
        assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_what_a_failing_protocol_did_not_get_is_closed(
    tmp_path: Path, logged_failures: Failures
) -> None:
    """A protocol that raises on a descriptor ends its connection, and the rest are closed."""

    @implementer(IFileDescriptorReceiver)
    class Failing(Keeper):
        def fileDescriptorReceived(self, descriptor: int) -> None:
            os.close(descriptor)
            raise RuntimeError("no more")

    async with Local(f"unix:{tmp_path}/s", of(Failing)) as local:
        client = local.client()
        await until(lambda: local.protocols)
        before = open_descriptors()
        send_copies(client, b"x", 10)
        await until(lambda: local.protocols[0].lost)
        assert open_descriptors() == before - 1  # the connection's own
        logged_failures.take(RuntimeError)


@pytest_twisted.ensureDeferred
async def test_descriptors_are_sent_with_the_next_byte(tmp_path: Path) -> None:
    """A descriptor waits for a byte, goes with it, and the sender's own copy stays open."""
    async with Local(f"unix:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        transport = local.protocols[0].transport
        before = open_descriptors()
        with open("/dev/null") as file:
            for _ in range(3):
                transport.sendFileDescriptor(file.fileno())
            await pause(0.02)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            transport.writeSequence([b"th", b"ree"])
            transport.write(b"!")
            await until(lambda: transport._direct)
            data, found, _, _ = socket.recv_fds(client, 100, 10)
            assert (data, len(found)) == (b"three!", 3)
            for fd in found:
                os.close(fd)
            os.fstat(file.fileno())
        assert open_descriptors() == before
        transport.write(b"plain")
        assert await heard(client) == b"plain"


@pytest_twisted.ensureDeferred
async def test_descriptors_behind_a_backlog_are_sent(tmp_path: Path) -> None:
    """What waits for a peer that does not read keeps its descriptors, in order."""
    async with Local(f"unix:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        transport = local.protocols[0].transport
        for _ in range(20):
            transport.write(b"x" * 65536)
        with open("/dev/null") as file:
            transport.sendFileDescriptor(file.fileno())
        transport.write(b"end")
        data, found = b"", []

        def is_all_there() -> bool:
            nonlocal data
            try:
                part, more, _, _ = socket.recv_fds(client, 65536, 10)
            except BlockingIOError:
                return False
            data += part
            found.extend(more)
            return data.endswith(b"end")

        await until(is_all_there)
        assert (len(data), len(found)) == (20 * 65536 + 3, 1)
        os.close(found[0])


@pytest_twisted.ensureDeferred
async def test_descriptors_that_never_went_are_closed(tmp_path: Path) -> None:
    """At the end of a connection no descriptor is left, and after it none is taken."""
    before = open_descriptors()
    async with Local(f"unix:{tmp_path}/s") as local:
        local.client()
        await until(lambda: local.protocols)
        transport = local.protocols[0].transport
        with open("/dev/null") as file:
            transport.sendFileDescriptor(file.fileno())
            with pytest.raises(OSError, match="Bad file descriptor"):
                transport.writeWithDescriptors([file.fileno(), 99999], b"x")
            with pytest.raises(ValueError, match="more than 253"):
                transport.writeWithDescriptors([file.fileno()] * 254, b"x")
            with pytest.raises(ValueError, match="with a byte at least"):
                transport.writeWithDescriptors([file.fileno()], b"")
            transport.abortConnection()
            await until(lambda: local.protocols[0].lost)
            transport.sendFileDescriptor(file.fileno())
    await pause()
    assert open_descriptors() <= before + 2  # the reactor's own may have come


@pytest_twisted.ensureDeferred
async def test_a_half_close_is_no_end(tmp_path: Path) -> None:
    """A peer that has finished sending still gets megabytes, whole."""

    class Answerer(Keeper):
        def connectionLost(self, reason: Any = None) -> None:
            self.lost = reason

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data * 1_000_000)  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]

    async with Local(f"unix:{tmp_path}/s", of(Answerer)) as local:
        client = local.client()
        client.send(b"abcd")
        client.shutdown(socket.SHUT_WR)
        parts = []
        while part := await heard(client, 1 << 20):
            parts.append(part)
        assert b"".join(parts) == b"abcd" * 1_000_000


@pytest_twisted.ensureDeferred
async def test_what_was_sent_before_a_close_is_read(tmp_path: Path) -> None:
    """A peer that sends and goes is heard to its last byte, also while it was not read."""
    async with Local(f"unix:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        protocol = local.protocols[0]
        protocol.transport.pauseProducing()
        client.send(b"last words")
        client.close()
        await pause(0.02)
        assert protocol.lost is None
        protocol.transport.resumeProducing()
        await until(lambda: protocol.lost)
        assert protocol.data == [b"last words"]
