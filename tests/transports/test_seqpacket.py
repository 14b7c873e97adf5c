"""SEQPACKET listeners on real sockets: records stay apart, whatever their length."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until
from hypothesis import given, settings
from hypothesis import strategies as st
from locals import Keeper, Local, heard, open_descriptors, say
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IFileDescriptorReceiver, IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from zope.interface import implementer

from twistedsock.errors import CloseReason
from twistedsock.transports.seqpacket import MAX_RECORD_BYTES, RECORD_OVERHEAD_BYTES

SO_TIMESTAMP = 29  # Python has no constant
LENGTHS = (0, 1, 0, 1024, 65536, 0, 0, 100_000, 0)


@implementer(IHalfCloseableProtocol)
class Patient(Keeper):
    """Goes on after its peer has finished sending."""

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


@implementer(IFileDescriptorReceiver)
class Taker(Keeper):
    """Keeps descriptors, and when each came."""

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self.descriptors.append(descriptor)
        self.data.append(b"<descriptor>")


def of(protocol: type[Keeper]) -> Factory:
    return Factory.forProtocol(protocol)


def force_send_buffer(sock: socket.socket, size: int) -> None:
    """Let *sock* send longer records than net.core.wmem_max allows."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, 32, size)  # SO_SNDBUFFORCE
    except PermissionError:
        pytest.skip("needs CAP_NET_ADMIN")


@pytest_twisted.ensureDeferred
async def test_records_stay_apart(tmp_path: Path) -> None:
    """Records arrive one by one, empty ones too, and the end is told from those."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client()
        for number, length in enumerate(LENGTHS):
            await say(client, b"%d" % number * length)
        client.close()
        await until(lambda: local.protocols and local.protocols[0].lost)
        assert [len(record) for record in local.protocols[0].data] == list(LENGTHS)
        assert local.protocols[0].lost.type.__name__ == "ConnectionDone"


@pytest_twisted.ensureDeferred
async def test_records_go_out_one_by_one(tmp_path: Path) -> None:
    """Each write is a record, also an empty one, also behind those that wait, then the end."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        transport = local.protocols[0].transport
        transport.writeSequence([b"%d" % index * length for index, length in enumerate(LENGTHS)])
        for number in range(200):
            transport.write(b"%d" % number)
            transport.write(b"")
            transport.write(b"y" * 4000)
        assert transport._tempDataBuffer  # some had to wait
        transport.loseConnection()
        for index, length in enumerate(LENGTHS):
            assert await heard(client, 1 << 18) == b"%d" % index * length
        for number in range(200):
            assert await heard(client) == b"%d" % number
            assert await heard(client) == b""
            assert await heard(client) == b"y" * 4000
        await until(lambda: local.protocols[0].lost)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=30))
@pytest_twisted.ensureDeferred
async def test_any_records_come_as_they_went(lengths: list[int]) -> None:
    """Whatever the records' lengths, the same records arrive in the same order."""
    async with Local(f"seqpacket:@twistedsock-{os.getpid()}-any") as local:
        client = local.client()
        records = [bytes([index % 256]) * length for index, length in enumerate(lengths)]
        for record in records:
            await say(client, record)
        client.close()
        await until(lambda: local.protocols and local.protocols[0].lost)
        assert local.protocols[0].data == records


@pytest_twisted.ensureDeferred
async def test_a_half_close_is_no_record_and_no_end(tmp_path: Path) -> None:
    """After an empty record and a half-close the peer is still answered."""
    async with Local(f"seqpacket:{tmp_path}/s", of(Patient)) as local:
        client = local.client()
        client.send(b"")
        client.shutdown(socket.SHUT_WR)
        await until(lambda: local.protocols and local.protocols[0].ended)
        protocol = local.protocols[0]
        assert protocol.data == [b""]
        protocol.transport.write(b"")
        protocol.transport.write(b"answer")
        assert [await heard(client), await heard(client)] == [b"", b"answer"]
        protocol.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_a_record_longer_than_the_send_buffer_is_an_error(tmp_path: Path) -> None:
    """Such a record is refused, at once or behind others, and the connection goes on."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        transport = local.protocols[0].transport
        room = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        longest = room - RECORD_OVERHEAD_BYTES
        with pytest.raises(MessageLengthError):
            transport.write(b"x" * (longest + 1))
        transport.write(b"x" * longest)
        transport.write(b"waits")
        with pytest.raises(MessageLengthError):
            transport.write(b"x" * (longest + 1))
        assert len(await heard(client, 1 << 20)) == longest
        assert await heard(client) == b"waits"


@pytest_twisted.ensureDeferred
async def test_no_part_of_a_record_passes_for_the_whole(tmp_path: Path) -> None:
    """A record longer than the receive buffer ends its connection; one that fits is whole."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client(blocking=True)
        force_send_buffer(client, 4 * MAX_RECORD_BYTES)
        client.send(b"x" * MAX_RECORD_BYTES)
        client.send(b"x" * (MAX_RECORD_BYTES + 1))
        await until(lambda: local.protocols and local.protocols[0].lost)
        protocol = local.protocols[0]
        assert [len(record) for record in protocol.data] == [MAX_RECORD_BYTES]
        assert protocol.lost.value.close_reason is CloseReason.PROTOCOL_ERROR


@pytest.mark.parametrize("takes", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_reset_comes_after_what_was_sent_before(tmp_path: Path, takes: bool) -> None:
    """A peer that goes with answers unread is heard to its last record, then it is a reset."""
    async with Local(f"seqpacket:{tmp_path}/s", of(Taker if takes else Keeper)) as local:
        client = local.client()
        await until(lambda: local.protocols)
        protocol = local.protocols[0]
        protocol.transport.pauseProducing()
        protocol.transport.write(b"unread")
        for number in range(10):
            client.send(b"%d" % number)
        client.close()
        await pause(0.01)
        protocol.transport.resumeProducing()
        await until(lambda: protocol.lost)
        assert protocol.data == [b"%d" % number for number in range(10)]
        assert protocol.lost.value.close_reason is CloseReason.PEER_RESET


@pytest_twisted.ensureDeferred
async def test_a_flood_starves_nobody(tmp_path: Path) -> None:
    """While one peer floods, another's record is served in its turn."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        flood, other = local.client(), local.client()
        await until(lambda: len(local.protocols) == 2)
        for _ in range(50):
            with suppress(BlockingIOError):
                while True:
                    flood.send(b"")
            await pause()
        other.send(b"me too")
        await until(lambda: local.protocols[1].data == [b"me too"])


@pytest_twisted.ensureDeferred
async def test_descriptors_come_with_their_record(tmp_path: Path) -> None:
    """Each record's descriptors come before it, and an empty record may carry them."""
    async with Local(f"seqpacket:{tmp_path}/s", of(Taker)) as local:
        client = local.client()
        with open("/dev/null") as file:
            for record, count in ((b"one", 1), (b"", 1), (b"none", 0)):
                if count:
                    socket.send_fds(client, [record], [file.fileno()] * count)
                else:
                    client.send(record)
        client.close()
        await until(lambda: local.protocols and local.protocols[0].lost)
        mark = b"<descriptor>"
        assert local.protocols[0].data == [mark, b"one", mark, b"", b"none"]


@pytest_twisted.ensureDeferred
async def test_descriptors_nobody_wants_are_dropped(tmp_path: Path) -> None:
    """Descriptors to a protocol that takes none leave none open."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        before = open_descriptors()
        with open("/dev/null") as file:
            for _ in range(30):
                socket.send_fds(client, [b""], [file.fileno()] * 200)
                await pause()
        await until(lambda: len(local.protocols[0].data) == 30)
        assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_each_record_keeps_its_descriptors(tmp_path: Path) -> None:
    """Records that wait are sent each with its own descriptors; those that never go are closed."""
    async with Local(f"seqpacket:{tmp_path}/s") as local:
        client = local.client()
        await until(lambda: local.protocols)
        transport: Any = local.protocols[0].transport
        before = open_descriptors()
        with open("/dev/null") as file:
            transport.writeWithDescriptors([file.fileno()] * 2, b"two")
            transport.sendFileDescriptor(file.fileno())
            transport.write(b"")
            transport.write(b"none")
            with pytest.raises(MessageLengthError):
                transport.writeWithDescriptors([file.fileno()], b"x" * (1 << 20))
        await until(lambda: transport._direct)
        for record, count in ((b"two", 2), (b"", 1), (b"none", 0)):
            data, found, _, _ = socket.recv_fds(client, 100, 10)
            for fd in found:
                os.close(fd)
            assert (data, len(found)) == (record, count)
        assert open_descriptors() == before
        with open("/dev/null") as file:
            transport.writeWithDescriptors([file.fileno()] * 9, b"lost")
        transport.abortConnection()
        await until(lambda: local.protocols[0].lost)
        assert open_descriptors() == before - 1


@pytest_twisted.ensureDeferred
async def test_a_time_stamp_beside_the_record_is_no_fault(tmp_path: Path) -> None:
    """Options that add ancillary data do not change what a record or an end is."""
    for protocol_type in (Keeper, Taker):
        async with Local(f"seqpacket:{tmp_path}/s", of(protocol_type)) as local:
            client = local.client()
            await until(lambda local=local: local.protocols)
            protocol = local.protocols[0]
            protocol.transport.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
            client.send(b"")
            client.send(b"x")
            client.close()
            await until(lambda protocol=protocol: protocol.lost)
            assert protocol.data == [b"", b"x"]
