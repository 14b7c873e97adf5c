"""UNIX datagram listeners on real sockets: who sent, who can be answered, who is full."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until
from locals import Local, heard, open_descriptors, say
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from twistedsock.service import Metadata
from twistedsock.transports.unsent import MAX_PEER_BYTES


class Keeper(DatagramProtocol):
    """Keeps what it is told."""

    noisy = False

    def __init__(self) -> None:
        self.got: list[tuple[bytes, str, Metadata]] = []
        self.dropped = 0

    def packetReceived(self, data: bytes, addr: tuple[str, int], metadata: Metadata) -> None:
        self.got.append((data, addr[0], metadata))

    def datagramDropped(self) -> None:
        self.dropped += 1


class Plain(DatagramProtocol):
    """Knows Twisted alone, and echoes."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram, addr)  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_each_datagram_tells_its_sender_and_its_time(tmp_path: Path) -> None:
    """Path, abstract name or none; process, user, group; and when the kernel received it."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        abstract = f"twistedsock-{os.getpid()}-dg"
        for name in (f"{tmp_path}/c", f"\0{abstract}"):
            local.client(name).send(b"x")
        local.client().send(b"")
        await until(lambda: len(keeper.got) == 3)
        peers = [peer for _, peer, _ in keeper.got]
        # SO_PASSCRED of the receiver gives no name to the sender.
        assert peers == [f"{tmp_path}/c", f"@{abstract}", f"pid:{os.getpid()}"]
        for _, _, metadata in keeper.got:
            assert metadata.credentials is not None
            assert metadata.credentials[:3] == (os.getpid(), os.geteuid(), os.getegid())
            assert metadata.received_at is not None
            assert abs(metadata.received_at - time.time()) < 1
            assert metadata.truncated is False
        assert local.port.getHost().name == os.fsencode(f"{tmp_path}/s")
    assert not (tmp_path / "s").exists()


@pytest_twisted.ensureDeferred
async def test_a_plain_protocol_is_served(tmp_path: Path) -> None:
    """A Twisted DatagramProtocol echoes, empty datagrams and long ones too."""
    async with Local(f"unixgram:{tmp_path}/s", Plain()) as local:
        client = local.client(f"{tmp_path}/c")
        for data in (b"", b"x", b"y" * 100_000):
            await say(client, data)
            assert await heard(client, 1 << 18) == data


@pytest_twisted.ensureDeferred
async def test_a_relative_name_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer bound in its own folder is not taken for an abstract name, nor for another's file."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        monkeypatch.chdir(tmp_path)
        for name in ("@victim", "c", "pid:1"):
            local.client(name).send(b"x")
        await until(lambda: len(keeper.got) == 3)
        assert {peer for _, peer, _ in keeper.got} == {f"pid:{os.getpid()}"}


@pytest_twisted.ensureDeferred
async def test_who_cannot_be_answered_is_an_error_of_that_answer(tmp_path: Path) -> None:
    """No name, no such name, a socket of another type, too long: errors, and it serves on."""
    async with Local(f"unixgram:{tmp_path}/s", Keeper()) as local, Local(f"unix:{tmp_path}/t"):
        write = local.port.write
        client = local.client(f"{tmp_path}/c")
        for name, kind in (
            ("pid:1", OSError),
            (f"{tmp_path}/nobody", FileNotFoundError),
            (f"@twistedsock-nobody-{os.getpid()}", ConnectionRefusedError),
            (f"{tmp_path}/t", OSError),
        ):
            with pytest.raises(kind):
                write(b"x", (name, 0))
        with pytest.raises(MessageLengthError):
            write(b"x" * (1 << 20), (f"{tmp_path}/c", 0))
        write(b"still here", (f"{tmp_path}/c", 0))
        assert await heard(client) == b"still here"


@pytest_twisted.ensureDeferred
async def test_a_full_peer_gets_everything_in_order_and_holds_up_nobody(tmp_path: Path) -> None:
    """What a full queue does not take is kept, in order, while another peer is answered."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        # Not connected: a connected peer's queue is as long as our send buffer (af_unix.c).
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        local.clients.append(slow)
        slow.bind(f"{tmp_path}/slow")
        slow.setblocking(False)
        quick = local.client(f"{tmp_path}/quick")
        numbers = [b"%d" % number for number in range(300)]
        for number in numbers:
            local.port.write(number, (f"{tmp_path}/slow", 0))
        assert local.port.unsent.holds(f"{tmp_path}/slow")
        local.port.write(b"at once", (f"{tmp_path}/quick", 0))
        assert quick.recv(100) == b"at once"
        assert [await heard(slow) for _ in numbers] == numbers
        assert not local.port.unsent.holds(f"{tmp_path}/slow")
        assert keeper.dropped == 0


@pytest_twisted.ensureDeferred
async def test_beyond_the_bound_it_is_an_error_and_a_peer_that_goes_is_counted(
    tmp_path: Path,
) -> None:
    """More than is kept is refused; what was kept for a peer that has gone is told as dropped."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        client = local.client(f"{tmp_path}/c")
        sent = 0

        def write_on() -> None:
            nonlocal sent
            for _ in range(100):
                local.port.write(b"x" * 16_384, (f"{tmp_path}/c", 0))
                sent += 1

        with pytest.raises(OSError, match="too much waits"):
            write_on()
        assert sent >= MAX_PEER_BYTES // 17_000
        client.close()
        await until(lambda: keeper.dropped)
        assert 0 < keeper.dropped <= sent
        assert not local.port.unsent.holds(f"{tmp_path}/c")


@pytest_twisted.ensureDeferred
async def test_what_waits_at_the_end_is_given_up(tmp_path: Path) -> None:
    """A listener that closes leaves no timer, and counts what it did not send."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        local.client(f"{tmp_path}/c")
        for _ in range(300):
            local.port.write(b"x", (f"{tmp_path}/c", 0))
        await pause()
    assert keeper.dropped > 0


@pytest_twisted.ensureDeferred
async def test_a_flood_closes_nothing_and_a_long_one_is_marked(tmp_path: Path) -> None:
    """Any datagrams are received; one longer than the buffer says that it was cut."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        client = local.client()
        for number in range(500):
            await say(client, os.urandom(number % 50))
        await until(lambda: len(keeper.got) == 500)
        client.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)
        if client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 1 << 20:
            await say(client, b"x" * 300_000)
            await until(lambda: len(keeper.got) == 501)
            assert keeper.got[-1][2].truncated
        assert local.port.connected


@pytest_twisted.ensureDeferred
async def test_descriptors_are_received_only_where_asked_for(tmp_path: Path) -> None:
    """Without takeDescriptors none is left open; with it they are in the metadata."""
    keeper = Keeper()
    async with Local(f"unixgram:{tmp_path}/s", keeper) as local:
        client = local.client()
        await pause()
        before = open_descriptors()
        with ExitStack() as stack:
            file = stack.enter_context(open("/dev/null"))
            for _ in range(5):
                socket.send_fds(client, [b"x"], [file.fileno()] * 100)
            await until(lambda: len(keeper.got) == 5)
            assert keeper.got[-1][2].descriptors == keeper.got[-1][2].take_descriptors() == ()
            local.port.takeDescriptors()
            socket.send_fds(client, [b"x"], [file.fileno()] * 3)
            socket.send_fds(client, [b"y"], [file.fileno()] * 200)
            await until(lambda: len(keeper.got) == 7)
        assert open_descriptors() == before + 203
        metadata = keeper.got[5][2]
        assert metadata.credentials is not None
        assert metadata.received_at is not None
        taken = metadata.take_descriptors()
        assert (len(taken), metadata.descriptors) == (3, ())
        assert not any(map(os.get_inheritable, taken))
        del metadata
        keeper.got.clear()
        assert open_descriptors() == before + 3
        for fd in taken:
            os.close(fd)


@pytest_twisted.ensureDeferred
async def test_descriptors_are_sent_with_a_datagram(tmp_path: Path) -> None:
    """They go with their datagram or not at all, and the sender's own stay open."""
    async with Local(f"unixgram:{tmp_path}/s", Keeper()) as local:
        client, to = local.client(f"{tmp_path}/c"), (f"{tmp_path}/c", 0)
        send = local.port.writeWithDescriptors
        before = open_descriptors()
        with open("/dev/null") as file:
            fd = file.fileno()
            send([fd, fd], b"two", to)
            data, found, _, _ = socket.recv_fds(client, 100, 10)
            assert (data, len(found)) == (b"two", 2)
            for each in found:
                os.close(each)
            with pytest.raises(ValueError, match="more than 253"):
                send([fd] * 254, b"x", to)
            with pytest.raises(OSError, match="Bad file descriptor"):
                send([99999], b"x", to)
            with pytest.raises(OSError, match="no name"):
                send([fd], b"x", ("pid:1", 0))
            with pytest.raises(MessageLengthError):
                send([fd], b"x" * (1 << 20), to)
            for _ in range(300):
                local.port.write(b"x", to)
            with pytest.raises(OSError, match="more waits"):
                send([fd], b"x", to)
        assert open_descriptors() == before
