"""The reactor's client on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from conftest import free_port, pause, until, within
from servers import (
    GREETING,
    Deaf,
    Server,
    black_hole,
    echo,
    flood,
    greet_and_reset,
    reset,
    says,
    silent,
    udp_socket,
)
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IHostnameResolver
from zope.interface import implementer

from twistedsock import connect
from twistedsock.client import links
from twistedsock.client import peer as peer_module
from twistedsock.client.dialling import ATTEMPT_DELAY_S
from twistedsock.client.peer import Peer
from twistedsock.errors import (
    AddressError,
    CannotResolve,
    CannotSend,
    CodecError,
    PeerClosed,
    PeerProtocolError,
    Refused,
    TimedOut,
    Unreachable,
)


async def connected(address: str, **more: Any) -> Peer:
    """Return the peer, within the deadline."""
    from twisted.internet import reactor

    return await within(connect(reactor, address, **more))


async def received(peer: Peer) -> list[Any]:
    """Return every message up to the end."""
    return [message async for message in peer]


def to_end(peer: Peer) -> Deferred[list[Any]]:
    """Fire with every message up to the end, within the deadline."""
    return within(Deferred.fromCoroutine(received(peer)))


async def failure_of(work: Deferred[Any], kind: type[Exception]) -> Any:
    """Return the error that *work* fails with."""
    with pytest.raises(kind) as caught:
        await within(work)
    return caught.value


@implementer(IHostnameResolver)
class MadeUpNames:
    """Resolves every name to what it is told, after a while or never."""

    def __init__(self, *found: tuple[str, int], delay_s: float | None = 0.0) -> None:
        self.found = found
        self.delay_s = delay_s
        self.asked: list[str] = []

    def resolveHostName(self, receiver: Any, name: str, *_: object, **__: object) -> Any:
        from twisted.internet import reactor as _reactor

        reactor: Any = _reactor
        self.asked.append(name)
        receiver.resolutionBegan(self)
        if self.delay_s is not None:
            reactor.callLater(self.delay_s, self._answer, receiver)
        return self

    def _answer(self, receiver: Any) -> None:
        for host, port in self.found:
            receiver.addressResolved(
                (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)
            )
        receiver.resolutionComplete()


@pytest.fixture
def names() -> Iterator[Callable[..., MadeUpNames]]:
    """Call to have every name resolve to the hosts and ports given."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    before = reactor.nameResolver

    def names(*found: tuple[str, int], **more: Any) -> MadeUpNames:
        resolver = MadeUpNames(*found, **more)
        reactor.installNameResolver(resolver)
        return resolver

    yield names
    reactor.installNameResolver(before)


# -- talking --


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_messages_go_and_come(host: str) -> None:
    """A conversation over either family, closed by ``async with``."""
    with Server(echo, host) as server:
        async with await connected(server.address, framing="line", codec="text") as peer:
            for message in ("one", "", "dréi"):
                peer.send(message)
                assert await within(peer.receive()) == message
            local = server.accepted[0].getpeername()[1]
            assert peer.five_tuple == ("tcp", host, local, host, server.port)
            peer.half_close()
            assert await to_end(peer) == []
        assert str(peer.address) == server.address


@pytest_twisted.ensureDeferred
async def test_the_documented_form_works() -> None:
    """``await connect(...)`` in a coroutine, then iterate: the end of input ends the loop."""
    with Server(says(b"1\n[2]\n")) as server:
        peer = await connected(server.address, framing="line", codec="json", timeout_s=10)
        assert await to_end(peer) == [1, [2]]
        for _ in range(2):
            error = await failure_of(peer.receive(), PeerClosed)
            assert (error.code, error.text) == ("", "the peer has finished sending")
        await within(peer.close())


@pytest_twisted.ensureDeferred
async def test_a_large_message_goes_and_comes_at_once() -> None:
    """Ten megabytes through an echo, while both sides are busy: no deadlock, nothing lost."""
    data = bytes(range(256)) * 40_000
    with Server(echo) as server:
        async with await connected(server.address) as peer:
            peer.send(data)
            peer.half_close()
            assert b"".join(await to_end(peer)) == data


@pytest_twisted.ensureDeferred
async def test_several_waiters_are_served_in_order() -> None:
    """First come, first served; one that is cancelled or late takes no message."""
    with Server(echo) as server:
        async with await connected(server.address, framing="line") as peer:
            first, cancelled, late, last = (
                peer.receive(),
                peer.receive(),
                peer.receive(timeout_s=0.05),
                peer.receive(),
            )
            cancelled.cancel()
            await failure_of(cancelled, CancelledError)
            error = await failure_of(late, TimedOut)
            assert (error.code, error.text) == ("ETIMEDOUT", "nothing received within 0.05 s")
            peer.send(b"1")
            peer.send(b"2")
            assert await within(gatherResults([first, last])) == [b"1", b"2"]
            peer.send(b"3")
            assert await within(peer.receive()) == b"3"


@pytest_twisted.ensureDeferred
async def test_who_asks_again_from_a_callback_comes_last() -> None:
    """A waiter that is served and asks again does not overtake those who wait."""
    with Server(echo) as server:
        async with await connected(server.address, framing="line") as peer:
            order: list[Any] = []
            again: list[Deferred[Any]] = []

            def one(message: bytes) -> None:
                order.append(("first", message))
                again.append(peer.receive().addCallback(lambda m: order.append(("again", m))))

            peer.receive().addCallback(one)
            peer.receive().addCallback(lambda m: order.append(("second", m)))
            for message in (b"1", b"2", b"3"):
                peer.send(message)
            await until(lambda: len(order) == 3)
            assert order == [("first", b"1"), ("second", b"2"), ("again", b"3")]


@pytest.mark.parametrize("timeout_s", [0, -1])
@pytest_twisted.ensureDeferred
async def test_no_time_at_all_is_a_time_out(timeout_s: float) -> None:
    """A wait of nothing, or less, fails as late, and swallows no later message."""
    with Server(echo) as server:
        async with await connected(server.address) as peer:
            await failure_of(peer.receive(timeout_s=timeout_s), TimedOut)
            peer.send(b"x")
            assert await within(peer.receive()) == b"x"


@pytest_twisted.ensureDeferred
async def test_the_time_out_of_the_connection_is_that_of_each_message() -> None:
    """What connect was given counts for receive, where receive is given nothing."""
    with Server(silent) as server:
        async with await connected(server.address, timeout_s=0.1) as peer:
            started = time.monotonic()
            await failure_of(peer.receive(), TimedOut)
            assert 0.1 <= time.monotonic() - started < 1


@pytest_twisted.ensureDeferred
async def test_waiting_messages_come_before_the_end() -> None:
    """What was received before a reset is handed over; then the reset is told."""
    with Server(greet_and_reset) as server:
        async with await connected(server.address, framing="line") as peer:
            peer.send(b"x")
            await until(lambda: peer._talk.is_over)
            assert await within(peer.receive()) == GREETING.rstrip()
            for _ in range(2):
                error = await failure_of(peer.receive(), PeerClosed)
                assert error.code == "ECONNRESET"
            with pytest.raises(CannotSend):
                peer.send(b"more")
            await within(peer.drained())


@pytest_twisted.ensureDeferred
async def test_a_reset_at_once_is_peer_closed() -> None:
    """Before, while or after the connection is looked at: always the same failure."""
    from twisted.internet import reactor

    async def talk(address: str) -> None:
        async with await connect(reactor, address) as peer:
            await peer.receive()

    with Server(reset) as server:
        for _ in range(50):
            work = Deferred.fromCoroutine(talk(server.address))
            assert (await failure_of(work, PeerClosed)).code == "ECONNRESET"


@pytest_twisted.ensureDeferred
async def test_all_who_wait_are_told_the_end() -> None:
    """The end wakes every waiter."""
    with Server(greet_and_reset) as server:
        async with await connected(server.address, framing="line") as peer:
            waiting = [peer.receive() for _ in range(3)]
            peer.send(b"x")
            assert await within(waiting[0]) == GREETING.rstrip()
            for waiter in waiting[1:]:
                await failure_of(waiter, PeerClosed)


@pytest_twisted.ensureDeferred
async def test_what_a_peer_breaks_is_told() -> None:
    """Wrong framing and wrong codec are told apart, and told again."""
    with Server(says(b"1\nx\n2\n")) as server:
        async with await connected(server.address, framing="netstring") as peer:
            for _ in range(2):
                await failure_of(peer.receive(), PeerProtocolError)
        async with await connected(server.address, framing="line", codec="literal") as peer:
            assert await within(peer.receive()) == 1
            for _ in range(2):
                await failure_of(peer.receive(), CodecError)


# -- ends --


@pytest_twisted.ensureDeferred
async def test_half_close_lets_the_peer_answer() -> None:
    """Our end comes after all that was sent; the answer still comes."""

    def count(sock: socket.socket) -> None:
        size = 0
        while data := sock.recv(65536):
            size += len(data)
        sock.sendall(b"%d" % size)

    with Server(count) as server:
        async with await connected(server.address) as peer:
            peer.send(b"x" * 5_000_000)
            drained = peer.drained()
            peer.half_close()
            peer.half_close()
            with pytest.raises(CannotSend, match="our side has finished sending"):
                peer.send(b"more")
            await within(drained)
            await within(peer.drained())
            assert b"".join(await to_end(peer)) == b"5000000"


@pytest_twisted.ensureDeferred
async def test_drained_fires_though_our_side_has_ended() -> None:
    """The last byte taken is the end of waiting, while the connection stays."""
    deaf = Deaf()
    with Server(deaf) as server:
        async with await connected(server.address) as peer:
            peer.send(b"x" * 8_000_000)
            drained = peer.drained()
            peer.half_close()
            await pause(0.05)
            assert not drained.called
            deaf.may_read.set()
            await within(drained, 5)
        server.served()
    assert deaf.received == 8_000_000


@pytest_twisted.ensureDeferred
async def test_the_peer_may_end_first() -> None:
    """After the peer's end we may still send, and close flushes it."""
    deaf = Deaf()

    def ends(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        deaf(sock)

    with Server(ends) as server:
        async with await connected(server.address) as peer:
            assert await to_end(peer) == []
            peer.send(b"x" * 1_000_000)
            deaf.may_read.set()
        server.served()
    assert deaf.received == 1_000_000


@pytest_twisted.ensureDeferred
async def test_close_sends_what_is_unsent() -> None:
    """A peer that reads gets all of it; waiters are told at once who closed."""
    deaf = Deaf()
    with Server(deaf) as server:
        peer = await connected(server.address)
        waiter = peer.receive()
        peer.send(b"x" * 5_000_000)
        closed = [peer.close(), peer.close()]
        error = await failure_of(waiter, PeerClosed)
        assert (error.text, error.code) == ("the connection is closed", "EBADF")
        with pytest.raises(CannotSend, match="the connection is closed"):
            peer.send(b"more")
        deaf.may_read.set()
        await within(gatherResults(closed))
        await within(peer.close())
        server.served()
    assert deaf.received == 5_000_000


@pytest_twisted.ensureDeferred
async def test_a_peer_that_does_not_read_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close waits for it as long as is promised, then leaves; no timer stays."""
    monkeypatch.setattr(links, "CLOSE_TIMEOUT_S", 0.2)
    deaf = Deaf()
    with Server(deaf) as server:
        peer = await connected(server.address)
        peer.send(b"x" * 20_000_000)
        drained = peer.drained()
        started = time.monotonic()
        await within(peer.close())
        assert 0.2 <= time.monotonic() - started < 2
        await within(drained)
        deaf.may_read.set()
    assert deaf.received < 20_000_000


@pytest_twisted.ensureDeferred
async def test_close_sends_what_is_unsent_though_the_peer_answers() -> None:
    """Answers that nobody will read do not turn the close into a reset, which would cut it."""
    size = 0

    def answers(sock: socket.socket) -> None:
        nonlocal size
        while data := sock.recv(65536):
            size += len(data)
            sock.sendall(data[:1000])

    with Server(answers) as server:
        for _ in range(5):
            size = 0
            peer = await connected(server.address)
            peer.send(b"x" * 3_000_000)
            await within(peer.close())
            await until(lambda: not any(t.is_alive() for t in server._threads[1:]))
            assert size == 3_000_000


@pytest_twisted.ensureDeferred
async def test_after_close_nothing_is_received() -> None:
    """What waited unread is dropped with the connection."""
    with Server(says(b"one\ntwo\n")) as server:
        peer = await connected(server.address, framing="line")
        assert await within(peer.receive()) == b"one"
        await until(lambda: peer._talk.is_over)
        await within(peer.close())
        error = await failure_of(peer.receive(), PeerClosed)
        assert error.text in ("the connection is closed", "the peer has finished sending")


@pytest_twisted.ensureDeferred
async def test_an_error_in_the_block_closes_too() -> None:
    """``async with`` closes whatever happens inside."""
    with Server(silent) as server:
        peer = await connected(server.address)
        with pytest.raises(ZeroDivisionError):
            async with peer:
                raise ZeroDivisionError
        await failure_of(peer.receive(), PeerClosed)


# -- bounds --


@pytest_twisted.ensureDeferred
async def test_a_flood_is_held_back() -> None:
    """Nobody takes: reading stops, and the inbox holds little; taking starts it again."""
    with Server(flood) as server:
        async with await connected(server.address) as peer:
            await until(lambda: not peer._talk.wants_input)
            held = peer._talk._inbox_bytes
            await pause(0.1)
            assert peer._talk._inbox_bytes == held < 300_000
            for _ in range(100):
                assert await within(peer.receive())
            assert peer._talk._inbox_bytes < 300_000


@pytest_twisted.ensureDeferred
async def test_a_flood_does_not_hinder_close() -> None:
    """One who never stops sending is left soon, paused or not, and is not kept in memory."""
    with Server(flood) as server:
        peer = await connected(server.address)
        await until(lambda: not peer._talk.wants_input)
        started = time.monotonic()
        await within(peer.close())
        assert time.monotonic() - started < links.LINGER_S + 1
        assert peer._talk._inbox_bytes == 0


@pytest_twisted.ensureDeferred
async def test_drained_tells_a_sender_to_wait() -> None:
    """What the peer does not read is kept, and drained fires once it is gone; cancel is safe."""
    deaf = Deaf()
    with Server(deaf) as server:
        async with await connected(server.address) as peer:
            await within(peer.drained())
            peer.send(b"x" * 20_000_000)
            waiting, cancelled = peer.drained(), peer.drained()
            cancelled.cancel()
            await failure_of(cancelled, CancelledError)
            await pause(0.05)
            assert not waiting.called
            deaf.may_read.set()
            await within(waiting)


@pytest_twisted.ensureDeferred
async def test_threads_are_not_needed() -> None:
    """A numeric address is connected to without the resolver's threads."""
    with Server(echo) as server:
        before = threading.active_count()
        async with await connected(server.address) as peer:
            peer.send(b"x")
            await within(peer.receive())
            assert threading.active_count() == before + 1  # the server's own
        server.served()


# -- connecting --


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_told_at_once() -> None:
    """Refused, with its code, and no wait for a further address that does not exist."""
    from twisted.internet import reactor

    started = time.monotonic()
    error = await failure_of(connect(reactor, f"tcp:127.0.0.1:{free_port()}"), Refused)
    assert (error.code, error.text) == ("ECONNREFUSED", "Connection refused")
    assert time.monotonic() - started < ATTEMPT_DELAY_S / 2


@pytest_twisted.ensureDeferred
async def test_no_way_is_unreachable() -> None:
    """The kernel's own refusals have their codes."""
    from twisted.internet import reactor

    error = await failure_of(connect(reactor, "tcp:224.0.0.1:9"), Unreachable)
    assert error.code == "ENETUNREACH"
    error = await failure_of(connect(reactor, "udp:255.255.255.255:9"), Unreachable)
    assert error.code == "EACCES"


@pytest_twisted.ensureDeferred
async def test_a_silent_host_is_a_time_out() -> None:
    """No answer within the time given; nothing of the attempt is left."""
    from twisted.internet import reactor

    with black_hole() as hole:
        started = time.monotonic()
        work = connect(reactor, f"tcp:127.0.0.1:{hole}", timeout_s=0.2)
        error = await failure_of(work, TimedOut)
        assert (error.code, error.text) == ("ETIMEDOUT", "no connection within 0.2 s")
        assert 0.2 <= time.monotonic() - started < 1


@pytest_twisted.ensureDeferred
async def test_a_connection_can_be_given_up() -> None:
    """Cancelling midway closes the attempt, and is told as what it is."""
    from twisted.internet import reactor

    with black_hole() as hole:
        work = connect(reactor, f"tcp:127.0.0.1:{hole}")
        await pause(0.05)
        work.cancel()
        await failure_of(work, CancelledError)


@pytest_twisted.ensureDeferred
async def test_a_refusal_delays_nothing(names: Callable[..., MadeUpNames]) -> None:
    """After an address that refuses the next is tried at once."""
    with Server(echo) as server:
        names(("::1", free_port(host="::1")), ("127.0.0.1", server.port))
        started = time.monotonic()
        async with await connected("tcp:peer.example:80") as peer:
            assert time.monotonic() - started < ATTEMPT_DELAY_S
            assert peer.five_tuple.peer_port == server.port
            assert str(peer.address) == "tcp:peer.example:80"


@pytest_twisted.ensureDeferred
async def test_a_silent_address_delays_the_next_by_a_quarter_second(
    names: Callable[..., MadeUpNames],
) -> None:
    """RFC 8305: the next one is tried beside it, and the loser is closed."""
    with Server(echo) as server, black_hole("::1") as hole:
        names(("::1", hole), ("127.0.0.1", server.port))
        started = time.monotonic()
        async with await connected("tcp:peer.example:80") as peer:
            assert ATTEMPT_DELAY_S <= time.monotonic() - started < ATTEMPT_DELAY_S + 0.2
            peer.send(b"x")
            assert await within(peer.receive()) == b"x"


@pytest_twisted.ensureDeferred
async def test_families_take_turns(names: Callable[..., MadeUpNames]) -> None:
    """Many silent addresses of one family delay the other by one attempt, not by all."""
    with Server(echo) as server, black_hole("::1") as hole:
        names(*[("::1", hole)] * 8, ("127.0.0.1", server.port))
        started = time.monotonic()
        async with await connected("tcp:peer.example:80"):
            assert time.monotonic() - started < 2 * ATTEMPT_DELAY_S


@pytest_twisted.ensureDeferred
async def test_the_failure_that_says_most_is_told(names: Callable[..., MadeUpNames]) -> None:
    """A host that refuses is there, whatever the others said."""
    from twisted.internet import reactor

    names(("127.0.0.1", free_port()), ("224.0.0.1", 9))
    await failure_of(connect(reactor, "tcp:peer.example:80"), Refused)


@pytest_twisted.ensureDeferred
async def test_the_time_out_covers_all_addresses(names: Callable[..., MadeUpNames]) -> None:
    """Name and attempts together have the time that was given."""
    from twisted.internet import reactor

    with black_hole() as hole:
        names(*[("127.0.0.1", hole)] * 4, delay_s=0.2)
        started = time.monotonic()
        await failure_of(connect(reactor, "tcp:peer.example:80", timeout_s=0.4), TimedOut)
        assert 0.4 <= time.monotonic() - started < 0.8


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_a_slow_resolver_is_a_time_out(
    scheme: str, names: Callable[..., MadeUpNames]
) -> None:
    """A name that is not answered in time is not a name that does not exist."""
    from twisted.internet import reactor

    resolver = names(delay_s=None)
    work = connect(reactor, f"{scheme}:peer.example:80", timeout_s=0.1)
    error = await failure_of(work, TimedOut)
    assert error.code == "ETIMEDOUT"
    assert resolver.asked == ["peer.example"]


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_giving_up_while_a_name_resolves(
    scheme: str, names: Callable[..., MadeUpNames]
) -> None:
    """Cancelling is told as what it is; the resolver's late answer hurts nobody."""
    from twisted.internet import reactor

    names(("127.0.0.1", 9), delay_s=0.1)
    work = connect(reactor, f"{scheme}:peer.example:80")
    work.cancel()
    await failure_of(work, CancelledError)
    await pause(0.15)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_a_name_without_an_address(scheme: str, names: Callable[..., MadeUpNames]) -> None:
    """Nothing found is CannotResolve; so is what could be no name at all."""
    from twisted.internet import reactor

    names()
    error = await failure_of(connect(reactor, f"{scheme}:peer.example:80"), CannotResolve)
    assert error.code == "EAI_NONAME"
    assert error.text


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_a_name_that_cannot_be_one(scheme: str) -> None:
    """A label of more than 63 letters is not found: no other error, and no wait for ever."""
    from twisted.internet import reactor

    work = connect(reactor, f"{scheme}:{'a' * 64}.example:80")
    error = await failure_of(within(work, 5), CannotResolve)
    assert error.code == "EAI_NONAME"


@pytest_twisted.ensureDeferred
async def test_the_system_s_own_resolver() -> None:
    """localhost is found as it is on this machine."""
    with Server(echo) as server:
        async with await connected(f"tcp:localhost:{server.port}") as peer:
            assert peer.five_tuple.peer_host == "127.0.0.1"


@pytest_twisted.ensureDeferred
async def test_a_connection_to_itself_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that the kernel gave the very port that it dials has nobody at its other end."""
    from twisted.internet import reactor

    port, make = free_port(), tcp.Client.createInternetSocket

    def bound(self: Any) -> socket.socket:
        sock = make(self)
        sock.bind(("127.0.0.1", port))
        return sock

    monkeypatch.setattr(tcp.Client, "createInternetSocket", bound)
    error = await failure_of(connect(reactor, f"tcp:127.0.0.1:{port}"), Refused)
    assert error.code == "ECONNREFUSED"


def test_wrong_arguments_are_told_at_once() -> None:
    """What cannot be connected to raises from the call itself."""
    from twisted.internet import reactor

    with pytest.raises(AddressError):
        connect(reactor, "tcp:*:80")
    with pytest.raises(ValueError, match="framing must be one of"):
        connect(reactor, "tcp:127.0.0.1:80", framing="lines")
    with pytest.raises(ValueError, match="codec must be one of"):
        connect(reactor, "udp:127.0.0.1:80", codec="pickle")
    assert peer_module.connect is connect


# -- datagrams --


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_datagrams(host: str) -> None:
    """Each datagram is a message, empty ones too; a too large one is told."""
    with udp_socket(host) as server:
        port = server.getsockname()[1]
        address = f"udp:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"
        async with await connected(address) as peer:
            for message in (b"", b"x", b"y" * 65_000):
                peer.send(message)
                data, client = server.recvfrom(65536)
                assert data == message
                server.sendto(data, client)
                assert await within(peer.receive()) == message
            assert peer.five_tuple == ("udp", host, client[1], host, port)
            with pytest.raises(CannotSend) as caught:
                peer.send(b"z" * 65_536)
            assert caught.value.code == "EMSGSIZE"
            await within(peer.drained())
            peer.half_close()
            with pytest.raises(CannotSend):
                peer.send(b"x")
            server.sendto(b"late", client)
            assert await within(peer.receive()) == b"late"
        await within(peer.close())
        await failure_of(peer.receive(), PeerClosed)
        with pytest.raises(CannotSend):
            peer.send(b"x")


@pytest_twisted.ensureDeferred
async def test_a_mapped_address_is_told_as_ipv4() -> None:
    """An IPv4-mapped IPv6 address is not seen above the socket."""
    async with await connected("udp:[::ffff:127.0.0.1]:9") as peer:
        five = peer.five_tuple
        assert (five.local_host, five.peer_host) == ("127.0.0.1", "127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_a_refused_datagram_is_told_and_the_next_one_may_arrive() -> None:
    """Nobody at the port ends nothing: once somebody is there, all is well."""
    port = free_port(socket.SOCK_DGRAM)
    async with await connected(f"udp:127.0.0.1:{port}") as peer:
        for _ in range(2):
            peer.send(b"lost")
            error = await failure_of(peer.receive(), Refused)
            assert error.code == "ECONNREFUSED"
        with udp_socket(port=port) as server:
            peer.send(b"found")
            data, client = server.recvfrom(100)
            server.sendto(data, client)
            assert await within(peer.receive()) == b"found"


@pytest_twisted.ensureDeferred
async def test_datagrams_that_nobody_takes_are_dropped_and_counted() -> None:
    """A flood fills the inbox to its bound, and no further."""
    with udp_socket() as server:
        async with await connected(f"udp:127.0.0.1:{server.getsockname()[1]}") as peer:
            client = ("127.0.0.1", peer.five_tuple.local_port)
            link: Any = peer._link
            for _ in range(50):
                server.sendto(b"x" * 10_000, client)
                await pause()
            await until(lambda: link.dropped)
            assert peer._talk._inbox_bytes < 100_000
            assert await within(peer.receive()) == b"x" * 10_000


@pytest_twisted.ensureDeferred
async def test_refusals_that_nobody_takes_do_not_pile_up() -> None:
    """One who only ever sends, to nobody, holds no error for each datagram."""
    async with await connected(f"udp:127.0.0.1:{free_port(socket.SOCK_DGRAM)}") as peer:
        for _ in range(4000):
            peer.send(b"x")
        await pause(0.05)
        assert len(peer._talk._inbox) < 1100


@pytest_twisted.ensureDeferred
async def test_datagrams_from_others_are_not_heard() -> None:
    """Only the peer that was named is."""
    with udp_socket() as server, udp_socket() as other:
        async with await connected(f"udp:127.0.0.1:{server.getsockname()[1]}") as peer:
            other.sendto(b"intruder", ("127.0.0.1", peer.five_tuple.local_port))
            await failure_of(peer.receive(timeout_s=0.1), TimedOut)


@pytest_twisted.ensureDeferred
async def test_closing_a_datagram_socket_tells_who_waits() -> None:
    """There is no end of datagrams but our own."""
    async with await connected("udp:127.0.0.1:9") as peer:
        waiter = peer.receive()
    error = await failure_of(waiter, PeerClosed)
    assert error.code == "EBADF"
