"""Sessions over UNIX sockets: who the peer is, its limits, its records, its descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_twisted
from conftest import Failures, pause, until
from locals import Local, heard, open_descriptors, say
from rigs import Rig
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent
from zope.interface import implementer

from twistedsock.errors import CloseReason
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.protocols.origins import SERVED_PORTS, UnixOrigins
from twistedsock.protocols.stream import MAX_HELD_DESCRIPTORS
from twistedsock.service import NO_METADATA, Accompanied, Session, SocketService
from twistedsock.services.echo import Echo

SCHEMES = ("unix", "seqpacket", "unixgram")
ME = (os.getpid(), os.geteuid(), os.getegid())


class Recorder(SocketService):
    """Writes down what it is told, and answers as it is asked to."""

    def start(self) -> None:
        self.got: list[bytes] = []
        self.ends: list[CloseReason] = []
        self.seen: list[Session] = []
        self.work: Deferred[None] | None = None
        self.sent: list[bool] = []

    def opened(self, session: Session) -> None:
        self.seen.append(session)

    def received(self, session: Session, message: bytes) -> Deferred[None] | None:
        self.got.append(message)
        if message.startswith(b"want "):
            self.sent.append(session.send(b"x" * int(message[5:])))
        return self.work

    def closed(self, session: Session, reason: CloseReason) -> None:
        self.ends.append(reason)


class Taker(Recorder):
    """Takes descriptors: writes a word to the first of a message that says so."""

    takes_descriptors = True

    def start(self) -> None:
        super().start()
        self.counts: list[int] = []

    def received(self, session: Session, message: bytes) -> Deferred[None] | None:
        self.counts.append(len(session.metadata.descriptors))
        if message == b"write\n" or message == b"write":
            for fd in session.metadata.take_descriptors():
                os.write(fd, b"written")
                os.close(fd)
        return super().received(session, message)


@asynccontextmanager
async def serving(
    tmp_path: Path, scheme: str, service: SocketService, **more: Any
) -> AsyncIterator[Local]:
    async with Local(f"{scheme}:{tmp_path}/s", service, **more) as local:
        yield local


def of(local: Local) -> Any:
    return local.carrier.service


# -- who it is --


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest_twisted.ensureDeferred
async def test_a_session_knows_its_peer(
    tmp_path: Path, scheme: str, logged: list[LogEvent]
) -> None:
    """Credentials, five-tuple and log lines tell who is at the other end."""
    async with serving(tmp_path, scheme, Recorder()) as local:
        nameless, named = local.client(), local.client(f"{tmp_path}/c")
        nameless.send(b"a")
        named.send(b"b")
        await until(lambda: len(of(local).got) == 2)
        first, second = of(local).seen
        assert first.credentials[:3] == second.credentials[:3] == ME
        assert first.five_tuple == (scheme, f"{tmp_path}/s", 0, f"pid:{ME[0]}", 0)
        assert second.five_tuple == (scheme, f"{tmp_path}/s", 0, f"{tmp_path}/c", 0)
        assert (first.peer, first.local) == (f"pid:{ME[0]}", f"{tmp_path}/s")
        kind = {"unix": "stream", "unixgram": "datagram"}.get(scheme, scheme)
        assert first.transport == kind
        if scheme != "unixgram":
            assert first.metadata is NO_METADATA
    ended = [event for event in logged if event.get("event") == "session_ended"]
    assert {(e["peer"], e["local"], e["protocol"], e["transport"]) for e in ended} == {
        (f"pid:{ME[0]}", f"{tmp_path}/s", scheme, kind),
        (f"{tmp_path}/c", f"{tmp_path}/s", scheme, kind),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("allow", "deny", "served"),
    [
        (["uid:{uid}"], [], True),
        (["gid:{gid}"], [], True),
        (["uid:4000000000"], [], False),
        ([], ["uid:{uid}"], False),
        ([], ["gid:{gid}"], False),
        (["10.0.0.0/8"], [], True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_access_is_by_user_and_group(
    tmp_path: Path, scheme: str, allow: list[str], deny: list[str], served: bool
) -> None:
    """Peers are admitted and refused by who the kernel says they are, and refusals are counted."""
    numbers = {"uid": ME[1], "gid": ME[2]}
    access = AccessList(
        [text.format(**numbers) for text in allow], [text.format(**numbers) for text in deny]
    )
    async with serving(tmp_path, scheme, Recorder(), access=access) as local:
        client = local.client()
        try:
            client.send(b"x")
        except BrokenPipeError:
            assert not served
        counters = local.carrier.counters
        await until(lambda: of(local).got if served else counters["refused"])
        assert (of(local).got, counters["refused"]) == (([b"x"], 0) if served else ([], 1))


@pytest.mark.parametrize("scheme", ["unix", "seqpacket"])
@pytest.mark.parametrize("bound", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_limit_per_source_is_by_user(tmp_path: Path, scheme: str, bound: bool) -> None:
    """One user's sessions are exempt from the limit unless it was written down."""
    limits = Limits(max_connections_per_source=2, limit_loopback=bound)
    async with serving(tmp_path, scheme, Recorder(), limits=limits) as local:
        for _ in range(5):
            local.client()
        counters = local.carrier.counters
        await until(lambda: counters["accepted"] + counters["limit_per_source"] == 5)
        assert counters["accepted"] == (2 if bound else 5)


@pytest_twisted.ensureDeferred
async def test_datagram_peers_of_a_user_share_its_places(tmp_path: Path) -> None:
    """A limit per source that was written down evicts the user's own oldest peer."""
    limits = Limits(max_connections_per_source=2, limit_loopback=True)
    async with serving(tmp_path, "unixgram", Recorder(), limits=limits) as local:
        for number in range(4):
            local.client(f"{tmp_path}/{number}").send(b"x")
        await until(lambda: len(of(local).got) == 4)
        assert len(of(local).sessions) == 2
        assert local.carrier.counters["evicted"] == 2


# -- records and lengths --


@pytest.mark.parametrize("size", [0, 1, 65536])
@pytest_twisted.ensureDeferred
async def test_records_of_any_length_are_echoed(tmp_path: Path, size: int) -> None:
    """An empty record, one byte and 64 KiB come back as one record each."""
    async with serving(tmp_path, "seqpacket", Echo()) as local:
        client = local.client()
        for _ in range(3):
            await say(client, b"x" * size)
            assert await heard(client, 1 << 18) == b"x" * size


@pytest.mark.parametrize("size", [65537, 100_000])
@pytest_twisted.ensureDeferred
async def test_a_record_over_max_message_is_a_protocol_error(tmp_path: Path, size: int) -> None:
    """It ends its session after what came before was answered, and no other."""
    async with serving(tmp_path, "seqpacket", Recorder()) as local:
        client, other = local.client(), local.client()
        await say(client, b"want 3")
        await say(client, b"x" * size)
        assert await heard(client) == b"xxx"
        assert await heard(client) == b""
        client.close()
        await until(lambda: of(local).ends)
        assert of(local).ends == [CloseReason.PROTOCOL_ERROR]
        await say(other, b"want 1")
        assert await heard(other) == b"x"


@pytest_twisted.ensureDeferred
async def test_an_answer_longer_than_the_send_buffer_is_counted(tmp_path: Path) -> None:
    """Such a send returns False, also for messages that had to wait, and the session goes on."""
    async with serving(tmp_path, "seqpacket", Recorder()) as local:
        client = local.client()
        work: Deferred[None] = Deferred()
        of(local).work = work
        for size in (1, 1_000_000, 2, 1_000_000, 3):
            await say(client, b"want %d" % size)
        await until(lambda: of(local).sent)
        await pause(0.02)
        of(local).work = None
        work.callback(None)
        assert [await heard(client) for _ in range(3)] == [b"x", b"xx", b"xxx"]
        assert of(local).sent == [True, False, True, False, True]
        (session,) = of(local).seen
        assert (session.dropped, local.carrier.counters["send_too_long"]) == (2, 2)


@pytest.mark.parametrize("scheme", ["unix", "seqpacket"])
@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_is_not_read(tmp_path: Path, scheme: str) -> None:
    """Above the high water a flooding peer waits; one that never reads is aborted in time."""
    limits = Limits(write_high_water=64 * 1024, write_timeout=0.3)
    async with serving(tmp_path, scheme, Echo(), limits=limits) as local:
        client = local.client()

        def blocked() -> bool:
            try:
                while True:
                    client.send(b"x" * 8192)
            except BlockingIOError:
                return any(session.congested for session in local.carrier.service.sessions)
            except OSError:
                return True

        await until(blocked)
        (session,) = local.carrier.service.sessions
        assert session._transport._isSendBufferFull()
        await until(lambda: not local.carrier.service.sessions)
        assert session.reason is CloseReason.WRITE_TIMEOUT


@pytest.mark.parametrize("scheme", ["unix", "seqpacket"])
@pytest_twisted.ensureDeferred
async def test_what_was_sent_before_a_close_is_served(tmp_path: Path, scheme: str) -> None:
    """A peer that logs and goes loses nothing, also while the service is at work on the first."""
    async with serving(tmp_path, scheme, Recorder()) as local:
        client = local.client()
        work: Deferred[None] = Deferred()
        of(local).work = work
        await say(client, b"1")
        await until(lambda: of(local).got)
        sent = 0
        try:
            while sent < 150_000:
                sent += client.send(b"x" * 10_000)
                await pause()
        except BlockingIOError:
            pass
        client.close()
        await pause(0.02)
        of(local).work = None
        work.callback(None)
        await until(lambda: of(local).ends)
        assert sum(map(len, of(local).got)) == sent + 1


# -- datagrams --


@pytest_twisted.ensureDeferred
async def test_a_nameless_peer_is_served_and_not_answered(tmp_path: Path) -> None:
    """A datagram from nobody in particular reaches the service; the answer is counted as failed."""
    async with serving(tmp_path, "unixgram", Recorder()) as local:
        local.client().send(b"want 1")
        await until(lambda: of(local).sent)
        assert of(local).sent == [False]
        assert local.carrier.counters["send_failed"] == 1


@pytest_twisted.ensureDeferred
async def test_a_peer_that_vanished_is_counted(tmp_path: Path) -> None:
    """Between question and answer a peer may go: False, counted, and the listener lives."""
    async with serving(tmp_path, "unixgram", Recorder()) as local:
        client = local.client(f"{tmp_path}/c")
        client.send(b"want 1")
        client.close()
        await until(lambda: of(local).sent)
        assert of(local).sent == [False]
        other = local.client(f"{tmp_path}/d")
        other.send(b"want 1000")
        assert len(await heard(other)) == 1000


@pytest_twisted.ensureDeferred
async def test_a_known_sender_has_no_budget(tmp_path: Path) -> None:
    """The kernel tells who sent, so one byte may be answered with many."""
    async with serving(tmp_path, "unixgram", Recorder()) as local:
        client = local.client(f"{tmp_path}/c")
        client.send(b"want 60000")
        assert len(await heard(client)) == 60000
        assert next(iter(of(local).sessions)).budget is None


@pytest_twisted.ensureDeferred
async def test_two_services_never_talk_to_each_other(tmp_path: Path) -> None:
    """A datagram from a name that is served here is dropped and counted, never answered."""
    async with (
        Local(f"unixgram:{tmp_path}/a", Echo()) as one,
        Local(f"unixgram:{tmp_path}/b", Echo()) as two,
    ):
        one.port.write(b"ping", (f"{tmp_path}/b", 0))
        one.port.write(b"ping", (f"{tmp_path}/a", 0))
        await until(lambda: two.carrier.counters["own_service"])
        await until(lambda: one.carrier.counters["own_service"])
        await pause(0.05)
        assert one.carrier.counters["accepted"] == two.carrier.counters["accepted"] == 0
    assert f"{tmp_path}/a" not in SERVED_PORTS


def test_a_sender_without_credentials_is_not_known() -> None:
    """Where the kernel told nothing the sender is counted as nobody, and has to prove itself."""
    origin = UnixOrigins("/x").judge("/y", 0, NO_METADATA)
    assert (origin.drop, origin.source, origin.is_known) == (None, "uid:", False)


# -- descriptors --


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest_twisted.ensureDeferred
async def test_descriptors_are_the_services_to_take(tmp_path: Path, scheme: str) -> None:
    """Those that are taken are the service's; the others are closed when it is done with them."""
    async with serving(tmp_path, scheme, Taker()) as local:
        client = local.client()
        await until(lambda: scheme == "unixgram" or of(local).seen)
        before = open_descriptors()
        read, write = os.pipe()
        socket.send_fds(client, [b"write"], [write])
        await until(lambda: of(local).counts == [1])
        assert os.read(read, 100) == b"written"
        socket.send_fds(client, [b"leave"], [write] * 5)
        await until(lambda: of(local).counts == [1, 5])
        client.send(b"plain")
        await until(lambda: of(local).counts == [1, 5, 0])
        os.close(write)
        assert os.read(read, 1) == b""  # nobody has the other end any more
        os.close(read)
        assert open_descriptors() == before


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest_twisted.ensureDeferred
async def test_a_service_that_takes_none_is_handed_none(tmp_path: Path, scheme: str) -> None:
    """Without takes_descriptors the kernel drops them, however many come."""
    async with serving(tmp_path, scheme, Recorder()) as local:
        client = local.client()
        await until(lambda: scheme == "unixgram" or of(local).seen)
        before = open_descriptors()
        with open("/dev/null") as file:
            for _ in range(20):
                socket.send_fds(client, [b"x"], [file.fileno()] * 200)
                await pause()
        await until(lambda: sum(map(len, of(local).got)) == 20)
        assert open_descriptors() == before
        assert of(local).seen[0].metadata.descriptors == ()


@pytest.mark.parametrize("scheme", ["unix", "seqpacket"])
@pytest_twisted.ensureDeferred
async def test_a_flood_of_descriptors_is_bounded(tmp_path: Path, scheme: str) -> None:
    """While the service is at work a peer may not make us hold more than so many."""
    async with serving(tmp_path, scheme, Taker()) as local:
        client = local.client()
        await until(lambda: of(local).seen)
        before = open_descriptors()
        work: Deferred[None] = Deferred()
        of(local).work = work
        with open("/dev/null") as file:
            for _ in range(10):
                socket.send_fds(client, [b"x"], [file.fileno()] * 100)
                await pause(0.005)
        await until(lambda: local.carrier.counters["descriptors_dropped"])
        assert open_descriptors() <= before + MAX_HELD_DESCRIPTORS
        of(local).work = None
        work.callback(None)
        client.close()
        await until(lambda: of(local).ends)
        of(local).seen.clear()
        await until(lambda: open_descriptors() <= before)


@pytest_twisted.ensureDeferred
async def test_datagrams_descriptors_are_bounded_too(tmp_path: Path) -> None:
    """Peers with names of their own, of whose datagrams none is handled, hold so many in all."""
    async with serving(tmp_path, "unixgram", Taker()) as local:
        work: Deferred[None] = Deferred()
        clients = [local.client(f"{tmp_path}/{number}") for number in range(8)]
        clients[0].send(b"first")
        await until(lambda: of(local).got)
        before = open_descriptors()
        of(local).work = work
        with open("/dev/null") as file:
            for client in clients:
                for _ in range(2):
                    socket.send_fds(client, [b"x"], [file.fileno()] * 200)
                    await pause(0.005)
        await until(lambda: local.carrier.counters["descriptors_dropped"])
        assert open_descriptors() <= before + 1024
        of(local).work = None
        await until(lambda: len(of(local).got) >= 9)
        work.callback(None)
        await until(lambda: len(of(local).got) == 17)
        for client in clients:
            client.send(b"next")
        await until(lambda: len(of(local).got) == 25)
        assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_descriptors_wait_for_a_whole_message(tmp_path: Path) -> None:
    """On a stream they belong to the message that their read, or the next, completes."""
    async with serving(tmp_path, "unix", Taker(), framing="line") as local:
        client = local.client()
        await until(lambda: of(local).seen)
        before = open_descriptors()
        with open("/dev/null") as file:
            socket.send_fds(client, [b"fir"], [file.fileno()])
            await pause(0.02)
            socket.send_fds(client, [b"st\nsecond\n"], [file.fileno()])
            client.send(b"third\n")
            await until(lambda: len(of(local).got) == 3)
            assert of(local).counts[0] == 2
            assert of(local).counts[-1] == 0 or len(set(of(local).counts)) == 1
            socket.send_fds(client, [b"never ends"], [file.fileno()] * 3)
            await pause(0.02)
        client.close()
        await until(lambda: of(local).ends)
        await until(lambda: open_descriptors() <= before)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest_twisted.ensureDeferred
async def test_a_session_sends_descriptors(tmp_path: Path, scheme: str) -> None:
    """They arrive with their message, also among others, and the sender keeps its own."""

    class Giver(SocketService):
        def received(self, session: Session, message: bytes) -> None:
            with open("/dev/null") as file:
                session.send(b"before ")
                assert session.send_with_descriptors(message, [file.fileno()] * 2)
                session.send(b" after")

    async with serving(tmp_path, scheme, Giver()) as local:
        client = local.client(f"{tmp_path}/c")
        await pause(0.01)
        before = open_descriptors()
        await say(client, b"message")
        data: list[bytes] = []
        found: list[int] = []

        def is_all_there() -> bool:
            try:
                part, more, _, _ = socket.recv_fds(client, 100, 10)
            except BlockingIOError:
                return False
            data.append(part)
            found.extend(more)
            return part.endswith(b"after")

        await until(is_all_there)
        assert b"".join(data) == b"before message after"
        if scheme != "unix":
            assert data == [b"before ", b"message", b" after"]
        assert len(found) == 2
        for fd in found:
            os.close(fd)
        assert open_descriptors() == before


def test_other_sessions_refuse_descriptors() -> None:
    """Over TCP, and any transport without them, sending descriptors is a TypeError."""
    rig = Rig(Echo())
    protocol, wire = rig.connect()
    with pytest.raises(TypeError, match="over UNIX sockets alone, not tcp"):
        protocol.session.send_with_descriptors(b"x", [0])
    assert wire.value() == b""
    protocol.session.abort()


@pytest_twisted.ensureDeferred
async def test_after_the_end_descriptors_go_nowhere(tmp_path: Path) -> None:
    """A session that is over returns False, counted, and nothing is left open."""
    for scheme in ("unix", "seqpacket"):
        async with serving(tmp_path, scheme, Recorder()) as local:
            client = local.client()
            await until(lambda local=local: of(local).seen)
            (session,) = of(local).seen
            before = open_descriptors()
            client.close()
            await until(lambda local=local: of(local).ends)
            with open("/dev/null") as file:
                assert not session.send_with_descriptors(b"x", [file.fileno()])
            assert session.dropped == 1
            assert open_descriptors() < before


def test_descriptors_nobody_took_are_closed_with_their_message() -> None:
    """The metadata closes what is left when it goes, and never what was taken."""
    one, two = os.pipe()
    metadata = Accompanied((one, two), truncated=False)
    assert "truncated=False" in repr(metadata)
    del metadata
    for fd in (one, two):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    taken = Accompanied((0,)).take_descriptors()
    assert taken == (0,)
    os.fstat(0)


@pytest_twisted.ensureDeferred
async def test_a_twisted_factory_gets_descriptors(tmp_path: Path) -> None:
    """A stream_factory's protocols that receive descriptors get them, and can send some."""

    @implementer(IFileDescriptorReceiver)
    class Passer(Protocol):
        def fileDescriptorReceived(self, descriptor: int) -> None:
            self.transport.sendFileDescriptor(descriptor)  # type: ignore[union-attr]
            os.close(descriptor)

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)  # type: ignore[union-attr]

    class Handed(SocketService):
        def stream_factory(self) -> Factory:
            factory = Factory.forProtocol(Passer)
            factory.noisy = False
            return factory

    async with serving(tmp_path, "unix", Handed()) as local:
        client = local.client()
        await until(lambda: local.carrier.service.sessions)
        before = open_descriptors()
        with open("/dev/null") as file:
            socket.send_fds(client, [b"back"], [file.fileno()] * 2)
        answers: list[Any] = []

        def answered() -> bool:
            try:
                answers.append(socket.recv_fds(client, 100, 10))
            except BlockingIOError:
                return False
            return True

        await until(answered)
        data, found, _, _ = answers[0]
        assert (data, len(found)) == (b"back", 2)
        for fd in found:
            os.close(fd)
        assert open_descriptors() == before


@pytest_twisted.ensureDeferred
async def test_a_twisted_protocol_that_fails_on_one_ends_alone(
    tmp_path: Path, logged_failures: Failures
) -> None:
    """What a plug-in's protocol raises on a descriptor ends its connection, with service_error."""

    @implementer(IFileDescriptorReceiver)
    class Failing(Protocol):
        def fileDescriptorReceived(self, descriptor: int) -> None:
            os.close(descriptor)
            raise RuntimeError("no")

    class Handed(SocketService):
        ends: ClassVar[list[CloseReason]] = []

        def stream_factory(self) -> Factory:
            factory = Factory.forProtocol(Failing)
            factory.noisy = False
            return factory

        def closed(self, session: Session, reason: CloseReason) -> None:
            self.ends.append(reason)

    async with serving(tmp_path, "unix", Handed()) as local:
        client = local.client()
        await until(lambda: local.carrier.service.sessions)
        with open("/dev/null") as file:
            socket.send_fds(client, [b"x"], [file.fileno()])
        await until(lambda: Handed.ends)
        assert Handed.ends == [CloseReason.SERVICE_ERROR]
        logged_failures.take(RuntimeError)
