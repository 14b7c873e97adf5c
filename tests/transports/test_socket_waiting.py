"""``Socket`` alone: cancellation, several waiters, close while waiting, turns, ends and leaks."""

from __future__ import annotations

import errno
import gc
import os
import socket
import time
import warnings
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted
from conftest import pause, until, within
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock

from twistedsock import Socket
from twistedsock.transports.awaited import attempts, waiting
from twistedsock.transports.awaited.readiness import loop_of
from twistedsock.transports.awaited.waiting import Deadlines, Wait
from twistedsock.transports.socket import create_connection, create_server, fromfd, socketpair

ensure = pytest_twisted.ensureDeferred
TYPES = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM]


def kind_of(done: Deferred[Any]) -> Any:
    """Return a failed Deferred's exception, or its result."""
    found: list[Any] = []
    done.addBoth(found.append)
    assert found, "it has not fired"
    return getattr(found[0], "value", found[0])


def full(sock: Socket) -> None:
    """Fill what *sock* sends into."""
    sock.settimeout(0)
    while not isinstance(kind_of(sock.send(bytes(4096))), BlockingIOError):
        pass
    sock.settimeout(None)


WAITS: dict[str, Callable[[Socket], Deferred[Any]]] = {
    "recv": lambda s: s.recv(10),
    "recv_into": lambda s: s.recv_into(bytearray(10)),
    "recvfrom": lambda s: s.recvfrom(10),
    "recvfrom_into": lambda s: s.recvfrom_into(bytearray(10)),
    "recvmsg": lambda s: s.recvmsg(10),
    "recvmsg_into": lambda s: s.recvmsg_into([bytearray(10)]),
    "peek": lambda s: s.recv(10, socket.MSG_PEEK),
    "send": lambda s: s.send(b"x"),
    "sendall": lambda s: s.sendall(bytes(1000)),
    "sendmsg": lambda s: s.sendmsg([b"x"]),
}


@pytest.mark.parametrize("name", WAITS)
@ensure
async def test_what_waits_can_be_cancelled(name: str) -> None:
    """A cancelled call fails with CancelledError, and leaves data and order to the others."""
    for kind in TYPES:
        a, b = socketpair(socket.AF_UNIX, kind)
        with a, b:
            if "send" in name:
                full(a)
            first, second, third = (WAITS[name](a) for _ in range(3))
            second.cancel()
            assert isinstance(kind_of(second), CancelledError)
            first.cancel()
            assert isinstance(kind_of(first), CancelledError)
            assert not third.called
            if "send" in name:
                b.settimeout(5)
                while not third.called:
                    await b.recv(100000)
                    await pause()
            else:
                await b.send(b"data")
                await within(third)
                if name == "peek":
                    assert await within(a.recv(10)) == b"data"


@ensure
async def test_accept_and_connect_can_be_cancelled() -> None:
    """A cancelled accept takes no connection; a cancelled connect can be done again."""
    with Socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        cancelled, kept = listener.accept(), listener.accept()
        cancelled.cancel()
        assert isinstance(kind_of(cancelled), CancelledError)
        async with Socket() as client:
            connecting = client.connect(listener.getsockname())
            if not connecting.called:
                connecting.cancel()
                connecting.addErrback(lambda failure: failure.trap(CancelledError))
                assert await within(client.connect_ex(listener.getsockname())) in (0, errno.EISCONN)
            peer, _ = await within(kept)
            peer.close()


@ensure
async def test_lookups_can_be_cancelled() -> None:
    """A cancelled lookup fails at once; its answer is heard by nobody."""
    for call in (
        lambda: Socket().connect(("localhost", 1)),
        lambda: create_connection(("localhost", 1)),
        lambda: create_server(("localhost", 0)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            work = call()
            work.cancel()
            assert isinstance(kind_of(work), CancelledError)
            del work
            gc.collect()
    await pause(0.05)


@ensure
async def test_a_cancelled_create_connection_closes_its_socket() -> None:
    """Whether it looks up or connects: the descriptors are checked behind this test."""
    with Socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name = listener.getsockname()
        works = [create_connection(name) for _ in range(4)]  # more than it takes
        await pause(0.1)
        for work in works:
            work.cancel()
        for work in works:
            if isinstance(result := kind_of(work), Socket):
                result.close()


@ensure
async def test_waiters_are_served_in_order() -> None:
    """Each reader gets what came first of what is left; so do writers."""
    for kind in TYPES:
        a, b = socketpair(socket.AF_UNIX, kind)
        with a, b:
            reads = [a.recv(1) for _ in range(100)]
            for number in range(100):
                await b.send(bytes([number]))
            assert await within(gatherResults(reads)) == [bytes([n]) for n in range(100)]
    a, b = socketpair()
    with a, b:
        size = 300_000
        writes = [a.sendall(bytes([number]) * size) for number in range(5)]
        got = bytearray()
        while len(got) < 5 * size:
            got += await within(b.recv(100_000))
        assert got == b"".join(bytes([number]) * size for number in range(5))
        assert all(each.called for each in writes)


@ensure
async def test_one_who_asks_while_served_comes_last() -> None:
    """A callback that asks again does not overtake those who wait."""
    a, b = socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        order: list[tuple[str, bytes]] = []
        first = a.recv(10)
        first.addCallback(lambda data: order.append(("first", data)))
        first.addCallback(lambda _: a.recv(10))
        again = first.addCallback(lambda data: order.append(("again", data)))
        second = a.recv(10).addCallback(lambda data: order.append(("second", data)))
        for data in b"1", b"2", b"3":
            await b.send(data)
        await within(gatherResults([again, second]))
        assert order == [("first", b"1"), ("second", b"2"), ("again", b"3")]


@ensure
async def test_both_directions_wait_at_once() -> None:
    """A writer that waits does not hold up a reader, nor the other way round."""
    a, b = socketpair()
    with a, b:
        full(a)
        writing, reading = a.sendall(b"end"), a.recv(10)
        await b.send(b"in")
        assert await within(reading) == b"in"
        assert not writing.called
        while not writing.called:
            await b.recv(65536)
            await pause()
        await within(writing)


@pytest.mark.parametrize("end", ["close", "detach"])
@ensure
async def test_closing_ends_what_waits(end: str) -> None:
    """Whoever waits fails with EBADF, once the socket is closed, and may open new ones."""
    for kind in TYPES:
        a, b = socketpair(socket.AF_UNIX, kind)
        with b:
            full(a)
            waits = [wait(a) for wait in WAITS.values()]
            seen: list[int] = []
            waits[0].addBoth(lambda failure: (seen.append(a.fileno()), failure)[1])  # noqa: B023
            fd = getattr(a, end)()
            if end == "detach":
                assert os.get_blocking(fd)
                os.close(fd)
            assert seen == [-1]
            for wait in waits:
                error = kind_of(wait)
                assert (type(error), error.errno) == (OSError, errno.EBADF)


@ensure
async def test_a_number_may_be_had_again_at_once() -> None:
    """A socket that gets the number of one just closed is not confused with it."""
    for _ in range(50):
        a, b = socketpair()
        waits = [a.recv(1), b.recv(1)]
        numbers = {a.fileno(), b.fileno()}
        await b.send(b"x")
        a.close()
        b.close()
        assert len([kind_of(wait) for wait in waits]) == 2
        c, d = socketpair()
        assert {c.fileno(), d.fileno()} == numbers
        read = c.recv(10)
        await pause()
        assert not read.called
        await d.send(b"y")
        assert await within(read) == b"y"
        c.close()
        d.close()


@ensure
async def test_asking_a_closed_socket_never_watches() -> None:
    """Not even when the reactor should have its turn first: the number may be another's."""
    from twisted.internet import reactor

    a, b = socketpair()
    a.close()
    c, d = socketpair()
    reading = c.recv(1)
    loop_of(reactor).calls_left = 0
    assert kind_of(a.recv(1)).errno == errno.EBADF
    await d.send(b"x")
    assert await within(reading) == b"x"
    for sock in b, c, d:
        sock.close()


@ensure
async def test_a_duplicate_lives_on() -> None:
    """Closing one of two sockets on one connection leaves the other served."""
    a, b = socketpair()
    reading = a.recv(1)
    twin = a.dup()
    a.close()
    assert kind_of(reading).errno == errno.EBADF
    read = twin.recv(1)
    await b.send(b"x")
    assert await within(read) == b"x"
    other = fromfd(twin.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    read = other.recv(1)
    await b.send(b"y")
    assert await within(read) == b"y"
    for sock in b, twin, other:
        sock.close()


@ensure
async def test_time_outs_in_many_lengths() -> None:
    """Each wait has its own deadline, and they end in that order; the others wait on."""
    pairs = [socketpair() for _ in range(20)]
    begin = time.monotonic()
    ended: list[int] = []
    waits, earliest, latest = [], [], []
    for number, (a, _) in enumerate(pairs):
        a.settimeout(0.2 - number * 0.01)
        earliest.append(time.monotonic() - number * 0.01)
        wait = a.recv(1)
        latest.append(time.monotonic() - number * 0.01)
        wait.addErrback(lambda failure, n=number: (failure.trap(TimeoutError), ended.append(n)))
        waits.append(wait)
    patient = pairs[0][1].recv(1)
    await within(gatherResults(waits))
    assert sorted(ended) == list(range(20))
    # A busy machine may put any time between two of them, so that a later one is due later.
    assert all(earliest[one] <= latest[next_] for one, next_ in pairwise(ended))
    assert time.monotonic() - begin >= 0.2
    assert not patient.called
    for a, b in pairs:
        a.close()
        b.close()
    assert kind_of(patient).errno == errno.EBADF


@ensure
async def test_a_time_out_leaves_the_line_to_the_next() -> None:
    """When the first gives up, the next has its turn and its own time."""
    a, b = socketpair()
    with a, b:
        a.settimeout(0.05)
        first = a.recv(1)
        a.settimeout(None)
        second = a.recv(1)
        a.settimeout(0)
        assert isinstance(kind_of(a.recv(1)), BlockingIOError)  # those who wait come first
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            await within(first)
        await b.send(b"xy")
        assert await within(second) == b"x"
        assert await a.recv(1) == b"y"


@ensure
async def test_connect_times_out() -> None:
    """Nobody accepts: the listener's queue is full, and the kernel drops what more comes."""
    with Socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name = listener.getsockname()
        with Socket() as one, Socket() as two, Socket() as three:
            late = 0
            for sock in one, two, three:
                sock.settimeout(0.1)
                late += await within(sock.connect_ex(name)) == errno.EAGAIN
            assert late
            with pytest.raises(TimeoutError, match=r"^timed out$"):
                await within(three.connect(name))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@ensure
async def test_connecting_to_a_full_unix_listener_waits(kind: int, tmp_path: Any) -> None:
    """The kernel says EAGAIN there, and never tells when there is room."""
    with Socket(socket.AF_UNIX, kind) as listener:
        await listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        clients = [Socket(socket.AF_UNIX, kind) for _ in range(3)]
        works = [client.connect(str(tmp_path / "socket")) for client in clients]
        await pause(0.05)
        assert not works[2].called
        works[2].cancel()
        assert isinstance(kind_of(works[2]), CancelledError)
        for _ in range(2):
            peer, _ = await within(listener.accept())
            peer.close()
        await within(gatherResults(works[:2]))
        for client in clients:
            client.close()


@ensure
async def test_sending_to_a_full_unix_receiver_waits(tmp_path: Any) -> None:
    """A sender that is not connected is told by nobody that there is room again."""
    path = str(tmp_path / "socket")
    with Socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        await receiver.bind(path)
        with Socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sends = [sender.sendto(b"x", path) for _ in range(1000)]
            assert not sends[-1].called
            for _ in range(1000):
                assert await within(receiver.recv(10)) == b"x"
            await within(gatherResults(sends))


@ensure
async def test_a_quick_peer_starves_nobody() -> None:
    """A loop whose reads are always ready leaves the reactor its turns."""
    a, b = socketpair()
    with a, b:
        ticks = 0
        stop = False

        async def tick() -> None:
            nonlocal ticks
            while not stop:
                await pause()
                ticks += 1

        ticking = Deferred.fromCoroutine(tick())
        for _ in range(3000):
            await b.send(b"x")
            await a.recv(1)
        stop = True
        await within(ticking)
        assert ticks > 10


@ensure
async def test_waiting_for_all_survives_a_cancellation_of_another() -> None:
    """A line goes on when somebody in its middle leaves."""
    a, b = socketpair()
    with a, b:
        whole, middle, last = a.recv(4, socket.MSG_WAITALL), a.recv(1), a.recv(1)
        await b.send(b"ab")
        await pause(0.02)
        middle.cancel()
        await b.send(b"cdef")
        assert await within(whole) == b"abcd"
        assert await within(last) == b"e"
        assert isinstance(kind_of(middle), CancelledError)


@ensure
async def test_an_error_queue_is_waited_for() -> None:
    """Beside a reader that waits for data, whoever waits for errors is told of them."""
    with Socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        await sock.bind(("127.0.0.1", 0))
        reading = sock.recv(10)
        sock.settimeout(5)
        errors = sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            name = other.getsockname()
        await sock.sendto(b"lost", name)
        data, ancillary, _, _ = await within(errors)
        assert data == b"lost"
        assert len(ancillary) == 1
        # The pending error is for whoever reads, as of the kernel's own.
        assert isinstance(kind_of(reading), ConnectionRefusedError) or not reading.called
        reading.addErrback(lambda _: None)


@ensure
async def test_an_unclosed_socket_warns() -> None:
    """It is closed when it is collected, with a warning that shows it; a waiting one is kept."""
    a, b = socketpair()
    reading = a.recv(1)
    number = a.fileno()
    del a
    gc.collect()
    os.fstat(number)  # whoever waits keeps it
    with pytest.warns(ResourceWarning, match=r"unclosed <twistedsock\.Socket fd="):  # noqa: PT031
        await b.send(b"x")
        assert await within(reading) == b"x"
        gc.collect()
    assert await within(b.recv(1)) == b""
    b.close()


@ensure
async def test_collected_in_a_thread() -> None:
    """The garbage collector may run anywhere."""
    from twisted.internet.threads import deferToThread

    a, b = socketpair()
    reading = b.recv(1)
    waited = a.recv(1)
    waited.cancel()
    waited.addErrback(lambda failure: failure.trap(CancelledError))
    held = [a]
    del a, waited
    with pytest.warns(ResourceWarning):
        await deferToThread(held.clear)
    assert await within(reading) == b""
    b.close()
    await pause()


@ensure
async def test_a_failed_opening_leaves_the_descriptor_to_its_owner() -> None:
    """What could not be taken over stays the caller's; what was opened is closed."""
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="88"):
        Socket(fileno=reading)
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="97"):
        Socket(12345)


@ensure
async def test_what_cannot_be_watched_fails(tmp_path: Any) -> None:
    """A wait at a descriptor that epoll refuses fails, rather than never ending."""
    loop: Any = loop_of(__import__("twisted.internet.reactor", fromlist=["reactor"]))
    a, b = socketpair()
    with a, b:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "too many")

        watch, loop.watch = loop.watch, refuse
        try:
            assert kind_of(a.recv(1)).errno == errno.ENOSPC
        finally:
            loop.watch = watch
            if "watch" in vars(loop):
                del loop.watch


@ensure
async def test_a_lingering_close_does_not_block() -> None:
    """SO_LINGER makes close(2) wait for the peer: in a thread then."""
    async with await create_server(("127.0.0.1", 0)) as listener:
        client = await create_connection(listener.getsockname())
        peer, _ = await listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (2).to_bytes(4, "little") * 2)
        full(client)
        begin = time.monotonic()
        client.close()
        assert time.monotonic() - begin < 1
        with peer:
            while await within(peer.recv(1_000_000)):
                pass


@ensure
async def test_async_with_and_callbacks() -> None:
    """A Deferred is awaited or given callbacks; a context ends in closing."""
    a, b = socketpair()
    async with a:
        got: list[bytes] = []
        a.recv(10).addCallback(got.append)
        b.sendall(b"called")
        await until(lambda: got)
        assert got == [b"called"]
    assert a.fileno() == -1
    assert "[closed]" in repr(a)
    with b:
        assert await b.recv(10) == b""


@ensure
async def test_thousands_of_connections() -> None:
    """Connections come, are answered and go, many at once; nothing is left."""
    count, at_once = 3000, 100
    async with await create_server(("127.0.0.1", 0), backlog=1024) as listener:
        name = listener.getsockname()

        async def answer(sock: Socket) -> None:
            async with sock:
                while data := await sock.recv(100):
                    await sock.sendall(data)

        async def serve() -> None:
            works = []
            for _ in range(count):
                sock, _ = await listener.accept()
                works.append(Deferred.fromCoroutine(answer(sock)))
            await gatherResults(works)

        async def ask(share: int) -> None:
            for number in range(share):
                async with Socket() as sock:
                    sock.settimeout(15)
                    await sock.connect(name)
                    text = b"%d" % number
                    await sock.sendall(text)
                    assert await sock.recv(100) == text

        works: list[Awaitable[None]] = [serve(), *(ask(count // at_once) for _ in range(at_once))]
        await within(gatherResults([Deferred.fromCoroutine(each) for each in works]))  # type: ignore[arg-type]


def wait_in(deadlines: Deadlines, timeout: float, line: Any) -> Wait:
    wait = Wait()
    wait.line = line
    line.append(wait)
    deadlines.add(wait, timeout)
    return wait


def test_deadlines_use_one_timer() -> None:
    """However many wait, the reactor has one timer, and none when nobody does."""
    clock = Clock()
    deadlines = Deadlines(clock)
    lines = waiting.Lines(None, 0)  # type: ignore[arg-type]  # no loop is asked
    line = lines.reads
    late, early, middle = (wait_in(deadlines, each, line) for each in (9, 1, 5))
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(1)
    assert isinstance(kind_of(early), TimeoutError)
    assert list(line) == [late, middle]
    clock.advance(4)
    assert isinstance(kind_of(middle), TimeoutError)
    late.be_untimed()
    deadlines.rest()
    assert not clock.getDelayedCalls()
    deadlines.rest()


def test_a_new_deadline_does_not_hide_an_earlier_one() -> None:
    """Whoever asks anew when a wait has expired does not put off the others."""
    clock = Clock()
    deadlines = Deadlines(clock)
    lines = waiting.Lines(None, 0)  # type: ignore[arg-type]  # no loop is asked
    early, later = wait_in(deadlines, 1, lines.reads), wait_in(deadlines, 2, lines.urgent)
    early.addErrback(lambda _: wait_in(deadlines, 30, lines.writes) and None)
    clock.advance(1)
    clock.advance(1)
    assert isinstance(kind_of(later), TimeoutError)
    assert len(clock.getDelayedCalls()) == 1


def test_a_step_forward_renews_the_time() -> None:
    """A call with patience has its time anew each time that it was tried."""
    clock = Clock()
    deadlines = Deadlines(clock)

    class Loop:
        calls_left = 1
        reactor = clock

        def __init__(self) -> None:
            self.deadlines = deadlines

        def watch(self, lines: Any, event: int) -> None:
            lines.events |= event

    lines = waiting.Lines(Loop(), 0)  # type: ignore[arg-type]

    def never() -> None:
        raise BlockingIOError

    work = lines.writes.run(None, 10, never, (), renews=True)
    for _ in range(3):
        clock.advance(8)
        assert not work.called
        lines.serve(waiting.WRITABLE)
    clock.advance(10)
    assert isinstance(kind_of(work), TimeoutError)


@ensure
async def test_sendfile_waits_from_step_to_step() -> None:
    """Its time-out is for each step, as the original's; a cancelled one is positioned."""
    a, b = socketpair()
    with a, b, open("/dev/zero", "rb") as zeros, open(__file__, "rb") as file:
        assert attempts.SendFile(a._sock, zeros, 0, 10)._fd >= 0
        assert await a.sendfile(file, 5, 100) == 100
        assert file.tell() == 105
        full(a)
        work = a.sendfile(file, 5, 100)
        work.cancel()
        assert isinstance(kind_of(work), CancelledError)
        a.settimeout(0.05)
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            await within(a.sendfile(file))
