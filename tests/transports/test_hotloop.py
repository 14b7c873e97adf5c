"""The hot loop: what is served, in which order, within which bounds."""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Any, ClassVar

import pytest
import pytest_twisted
from conftest import pause, until, within
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from twistedsock.addresses import parse_address
from twistedsock.transports import hotloop
from twistedsock.transports.binding import open_listener
from twistedsock.transports.connection import StreamConnector
from twistedsock.transports.hotloop import HotLoop, StockLoop, loop_of
from twistedsock.transports.stream import StreamPort


class Echo(Protocol):
    """Echoes, or does what a message asks for."""

    def connectionMade(self) -> None:
        self.lost: Failure | None = None
        self.data = b""
        self.factory.protocols.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        transport: Any = self.transport
        if data == b"raise":
            raise ZeroDivisionError
        if data == b"close":
            transport.loseConnection()
        elif data == b"abort":
            transport.abortConnection()
            transport.write(b"never sent")
        else:
            transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Listening:
    """A StreamPort with echoing protocols, as an async context."""

    def __init__(self, reactor: Any = None) -> None:
        from twisted.internet import reactor as _reactor

        self.factory: Any = Factory.forProtocol(Echo)
        self.factory.noisy, self.factory.protocols = False, []
        self.socket = open_listener(parse_address("tcp:127.0.0.1:0"))
        self.port = StreamPort.adopt(self.socket, self.factory, reactor or _reactor)
        self.clients: list[socket.socket] = []
        self.address = self.socket.getsockname()

    @property
    def protocols(self) -> list[Any]:
        protocols: list[Any] = self.factory.protocols
        return protocols

    async def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        client.setblocking(False)
        self.clients.append(client)
        await until(lambda: len(self.protocols) == len(self.clients))
        return client

    async def __aenter__(self) -> Listening:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        await until(lambda: all(protocol.lost for protocol in self.protocols))
        await within(self.port.stopListening())


async def received(client: socket.socket, size: int) -> bytes:
    """Return *size* bytes that *client* receives, or less at the end."""
    data = b""

    def ready() -> bool:
        nonlocal data
        try:
            part = client.recv(size - len(data))
        except BlockingIOError:
            return False
        data += part
        return not part or len(data) == size

    await until(ready)
    return data


def loop() -> HotLoop:
    """Return the hot loop of the reactor that runs the tests."""
    from twisted.internet import reactor

    found = loop_of(reactor)
    assert isinstance(found, HotLoop)
    return found


@pytest_twisted.ensureDeferred
async def test_it_is_open_only_while_it_watches() -> None:
    """The loop costs a descriptor while something is watched, and nothing after."""
    assert loop().fileno() == -1
    async with Listening() as listening:
        await listening.connect()
        assert loop().fileno() >= 0
    assert loop().fileno() == -1


@pytest_twisted.ensureDeferred
async def test_who_comes_after_remove_all_is_served() -> None:
    """Where the reactor has forgotten everything, as after an unclean trial test, it asks again."""
    from twisted.internet import reactor

    async with Listening():
        loop: Any = loop_of(reactor)
        reactor.removeReader(loop)  # type: ignore[attr-defined]
        async with Listening() as after:
            assert loop in reactor.getReaders()  # type: ignore[attr-defined]
            client = await after.connect()
            client.send(b"x")
            assert await received(client, 1) == b"x"


@pytest_twisted.ensureDeferred
async def test_an_exception_ends_one_connection(logged_failures: Any) -> None:
    """A protocol that raises loses its connection with that failure; the others go on."""
    async with Listening() as listening:
        bad, good = await listening.connect(), await listening.connect()
        bad.send(b"raise")
        good.send(b"hello")
        assert await received(good, 5) == b"hello"
        await until(lambda: listening.protocols[0].lost)
        assert listening.protocols[0].lost.check(ZeroDivisionError)
        logged_failures.take(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_a_write_is_sent_before_it_returns() -> None:
    """With nothing in the way a write reaches the peer without another turn of the reactor."""
    async with Listening() as listening:
        client = await listening.connect()
        listening.protocols[0].transport.write(b"now")
        assert client.recv(3) == b"now"


@pytest_twisted.ensureDeferred
async def test_writes_keep_their_order_when_the_peer_is_slow() -> None:
    """What is written while something is unsent goes behind it."""
    async with Listening() as listening:
        client = await listening.connect()
        transport = listening.protocols[0].transport
        pieces = [bytes([number]) * 300_000 for number in range(40)]
        for piece in pieces:
            transport.write(piece)
        transport.writeSequence([b"the ", b"end"])
        expected = b"".join(pieces) + b"the end"
        assert await received(client, len(expected)) == expected


@pytest_twisted.ensureDeferred
async def test_closing_flushes_and_ends_once() -> None:
    """loseConnection sends what is written, then the end; connectionLost comes after it returns."""
    async with Listening() as listening:
        client = await listening.connect()
        transport = listening.protocols[0].transport
        transport.write(b"x" * 4_000_000)
        transport.loseConnection()
        assert listening.protocols[0].lost is None
        data = await received(client, 5_000_000)
        assert data == b"x" * 4_000_000


@pytest_twisted.ensureDeferred
async def test_closing_in_an_event_ends_right_after_it() -> None:
    """Nothing unsent: the connection is gone when the event is over, not an iteration later."""
    async with Listening() as listening:
        client = await listening.connect()
        client.send(b"close")
        assert await received(client, 1) == b""
        await until(lambda: listening.protocols[0].lost)
        assert listening.protocols[0].lost.check(type(connectionDone.value))


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_after_an_abort() -> None:
    """A write behind abortConnection is dropped, and the peer sees a reset."""
    async with Listening() as listening:
        client = await listening.connect()
        client.send(b"abort")
        with pytest.raises(ConnectionResetError):
            await received(client, 1)


@pytest_twisted.ensureDeferred
async def test_a_failing_send_is_told_as_a_loss() -> None:
    """A send that meets a reset does not turn into a clean end, nor calls connectionLost inside."""
    async with Listening() as listening:
        client = await listening.connect()
        protocol = listening.protocols[0]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        protocol.transport.write(b"into the void")
        protocol.transport.write(b"and more")
        assert protocol.lost is None
        await until(lambda: protocol.lost)
        assert protocol.lost.value.close_reason == "peer_reset"


@pytest_twisted.ensureDeferred
async def test_what_came_before_a_reset_is_read_though_answers_fail() -> None:
    """A peer that sends and resets: every byte that arrived is handed over, then comes the loss."""
    async with Listening() as listening:
        client = await listening.connect()
        protocol = listening.protocols[0]
        protocol.transport.pauseProducing()
        sent = 0
        while sent < 60_000:
            sent += client.send(b"s" * (60_000 - sent))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await pause(0.02)
        protocol.transport._read_bytes = 100  # so that there are several reads, each answered
        protocol.transport.resumeProducing()
        await until(lambda: protocol.lost)
        assert protocol.data == b"s" * 60_000
        assert protocol.lost.value.close_reason == "peer_reset"


@pytest_twisted.ensureDeferred
async def test_a_pull_producer_is_resumed_until_it_is_done() -> None:
    """A pull producer is asked again after each flush, though nothing else is buffered."""
    async with Listening() as listening:
        client = await listening.connect()
        transport = listening.protocols[0].transport

        class Ten:
            left = 10

            def resumeProducing(self) -> None:
                self.left -= 1
                transport.write(b"x" * 1000)
                if not self.left:
                    transport.unregisterProducer()

            def stopProducing(self) -> None: ...

        transport.registerProducer(Ten(), False)
        assert await received(client, 10_000) == b"x" * 10_000
        # After it writes are sent at once again.
        transport.write(b"direct")
        await pause()
        assert await received(client, 6) == b"direct"


@pytest_twisted.ensureDeferred
async def test_a_flood_does_not_starve_timers_and_others() -> None:
    """Beside clients that send as fast as they can, timers fire and a quiet client is served."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    async with Listening() as listening:
        floods = [await listening.connect() for _ in range(4)]
        quiet = await listening.connect()
        for protocol in listening.protocols[:4]:
            protocol.dataReceived = lambda data: None
        running = True

        def pump() -> None:
            for client in floods:
                try:
                    for _ in range(8):
                        client.send(b"f" * 65_536)
                except BlockingIOError:
                    pass
            if running:
                reactor.callLater(0, pump)

        pump()
        for _ in range(20):
            quiet.send(b"ping")
            assert await received(quiet, 4) == b"ping"
        running = False
        await pause(0.02)


@pytest_twisted.ensureDeferred
async def test_reads_grow_for_bulk_and_shrink_again() -> None:
    """A connection that fills its reads gets larger ones, up to the bound; later smaller ones."""
    async with Listening() as listening:
        client = await listening.connect()
        transport = listening.protocols[0].transport
        listening.protocols[0].dataReceived = lambda data: None
        first = transport._read_bytes
        for _ in range(40):
            try:
                while True:
                    client.send(b"b" * 262_144)
            except BlockingIOError:
                await pause()
        from twistedsock.transports.connection import LARGEST_READ_BYTES

        assert transport._read_bytes == LARGEST_READ_BYTES
        for _ in range(10):
            await pause(0.005)
            client.send(b"s")
        await pause(0.05)
        assert transport._read_bytes <= first


@pytest_twisted.ensureDeferred
async def test_a_descriptor_closed_behind_its_back_does_not_spin() -> None:
    """A socket that is closed elsewhere while a duplicate lives is not reported for ever."""
    async with Listening() as listening:
        client = await listening.connect()
        twin = listening.protocols[0].transport.socket.dup()
        other = await listening.connect()
        before = loop()._epoll
        listening.protocols[0].transport.connectionLost(Failure(connectionDone.value))
        client.send(b"for nobody")
        other.send(b"hello")
        assert await received(other, 5) == b"hello"
        await until(lambda: loop()._epoll is not before)
        twin.close()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("count", [3, 200])
@pytest.mark.parametrize("size", [10, 50_000])
async def test_pieces_go_out_whole_and_in_order(count: int, size: int) -> None:
    """``writeSequence`` sends at once what the kernel takes, and the rest behind it."""
    async with Listening() as listening:
        client = await listening.connect()
        transport = listening.protocols[0].transport
        pieces = [bytes([number]) * size for number in range(count)]
        transport.writeSequence(pieces)
        transport.write(b"last")
        expected = b"".join(pieces) + b"last"
        assert await received(client, len(expected)) == expected


@pytest_twisted.ensureDeferred
async def test_without_epoll_the_reactor_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform has no epoll, the same transports are watched by the reactor itself."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    saved = getattr(reactor, hotloop._LOOP, None)
    monkeypatch.delattr(select, "epoll")
    monkeypatch.setattr(reactor, hotloop._LOOP, None, raising=False)
    try:
        async with Listening() as listening:
            assert isinstance(loop_of(reactor), StockLoop)
            client = await listening.connect()
            client.send(b"hello")
            assert await received(client, 5) == b"hello"
            client.send(b"close")
            assert await received(client, 1) == b""
    finally:
        setattr(reactor, hotloop._LOOP, saved)


@pytest_twisted.ensureDeferred
async def test_a_client_connects_on_the_hot_loop() -> None:
    """StreamConnector makes connections as reactor.connectTCP does."""
    from twisted.internet import reactor

    async with Listening() as listening:
        heard: Deferred[bytes] = Deferred()

        class Asker(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"hello")  # type: ignore[union-attr]

            def dataReceived(self, data: bytes) -> None:
                heard.callback(data)
                self.transport.loseConnection()  # type: ignore[union-attr]

        factory = ClientFactory.forProtocol(Asker)
        factory.noisy = False
        StreamConnector(*listening.address, factory, 10, None, reactor).connect()
        assert await within(heard) == b"hello"
        await until(lambda: listening.protocols and listening.protocols[0].lost)


def test_the_stale_are_told_from_the_new() -> None:
    """An event from before a descriptor was closed is not taken for its successor's."""

    class Reactor:
        readers: ClassVar[list[Any]] = []

        def timeout(self) -> None: ...

        def addReader(self, reader: Any) -> None:
            if reader not in self.readers:
                self.readers.append(reader)

        def removeReader(self, reader: Any) -> None:
            self.readers.remove(reader)

    class Handler:
        connected, _aborting = True, False

        def __init__(self, fd: int) -> None:
            self.fd, self.reads = fd, 0
            self.act: Any = None
            self._interest = 0

        def doRead(self) -> None:
            self.reads += 1
            os.read(self.fd, 10)
            if self.act:
                self.act()

    hot = HotLoop(Reactor())
    pipes = [os.pipe() for _ in range(3)]
    handlers = [Handler(read) for read, _ in pipes]
    for handler in handlers[:2]:
        hot.watch(handler, handler.fd, 0, hotloop.READ)
    successor = Handler(handlers[1].fd)

    def replace() -> None:
        # The first handler takes the second out, and another gets its descriptor's number.
        hot.watch(handlers[1], handlers[1].fd, hotloop.READ, 0)
        hot.watch(successor, successor.fd, 0, hotloop.READ)
        os.read(successor.fd, 10)

    handlers[0].act = replace
    for _, write in pipes[:2]:
        os.write(write, b"x")
    hot.doRead()
    assert (handlers[0].reads, handlers[1].reads, successor.reads) == (1, 0, 0)
    os.write(pipes[1][1], b"y")
    hot.doRead()
    assert successor.reads == 1
    hot.watch(handlers[0], handlers[0].fd, hotloop.READ, 0)
    hot.watch(successor, successor.fd, hotloop.READ, 0)
    assert Reactor.readers == []
    for pair in pipes:
        for fd in pair:
            os.close(fd)
