"""The datagram client's two shells, over real sockets on loopback."""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import pytest_twisted
from conftest import free_port, pause, until, within
from relays import Relay
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import MessageLengthError
from twisted.internet.threads import deferToThread

from twistedsock.client.datagram import DatagramClient, connect_datagram
from twistedsock.client.datagram_blocking import connect_datagram_blocking
from twistedsock.client.transmission import TransmissionParameters
from twistedsock.errors import (
    AddressError,
    CannotResolve,
    CannotSend,
    CodecError,
    FrameError,
    PeerClosed,
    Refused,
    TimedOut,
)
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.service import Session, SocketService
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply
from twistedsock.services.reliable import reliable

# Loopback answers in well under a millisecond; a fifth of a second at most between two tries.
QUICK = TransmissionParameters(ack_timeout_s=0.02, max_backoff_s=0.2, max_retransmit=200)
BAD = {"loss": 0.2, "repeat": 0.05, "reorder": 0.1}  # each way


class Counted(SocketService):
    """Answers in capitals, and counts how often each message reached it."""

    def start(self) -> None:
        self.heard: Counter[bytes] = Counter()

    def received(self, session: Session, message: bytes) -> None:
        self.heard[message] += 1
        session.send(message.upper())


Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a service on a loopback port, and return the port."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    ports = []

    def serve(service: SocketService, host: str = "127.0.0.1") -> int:
        port = reactor.listenUDP(0, ServiceDatagramProtocol(service), interface=host)
        ports.append(port)
        return int(port.getHost().port)

    yield serve
    for port in ports:
        pytest_twisted.blockon(within(port.stopListening()))


async def opened(port: int, host: str = "127.0.0.1", **more: Any) -> DatagramClient:
    """Return a client of that port."""
    from twisted.internet import reactor

    host = f"[{host}]" if ":" in host else host
    return await within(connect_datagram(reactor, f"udp:{host}:{port}", **more))


def mute() -> socket.socket:
    """Return a socket that takes datagrams and answers none."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest_twisted.ensureDeferred
async def test_a_request_is_answered(serve: Serve) -> None:
    """By await and by callback; counts, round trip and five-tuple tell of it."""
    port = serve(reliable(EchoReply)())
    async with await opened(port) as client:
        assert await within(client.request(b"hi")) == b"OK...hi"
        answers: list[bytes] = []
        await within(client.request(b"again").addCallback(answers.append))
        assert answers == [b"OK...again"]
        assert (client.counts.answered, client.counts.lost) == (2, 0)
        assert 0 < (client.round_trip_s or 0) < 1
        assert client.five_tuple.peer_port == port
        assert client.five_tuple.local_host == "127.0.0.1"
        assert repr(client) == f"<DatagramClient {client.five_tuple}>"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_ipv6_and_names(serve: Serve, host: str) -> None:
    """An IPv6 address in brackets, and a name by the reactor's resolver."""
    listen = "::1" if host == "::1" else socket.getaddrinfo(host, 1)[0][4][0]
    port = serve(reliable(Echo)(), str(listen))
    async with await opened(port, host) as client:
        assert await within(client.request(b"six")) == b"six"
        assert client.five_tuple.peer_host == listen

    def ask() -> bytes:
        shown = f"[{host}]" if ":" in host else host
        with connect_datagram_blocking(f"udp:{shown}:{port}", timeout_s=10) as client:
            answer: bytes = client.request(b"seven")
            return answer

    assert await within(deferToThread(ask)) == b"seven"


@pytest_twisted.ensureDeferred
async def test_values_under_a_codec(serve: Serve) -> None:
    """Values go and come by the codec; what it cannot write or read is told."""
    port = serve(reliable(EchoReply)())
    async with await opened(port, codec="text") as client:
        assert await within(client.request("ä")) == "OK...ä"
        with pytest.raises(CodecError, match="must be a str, got bytes"):
            await client.request(b"bytes")
    async with await opened(port, codec="json") as client:
        with pytest.raises(CodecError, match="is not JSON"):
            await within(client.request([1, 2]))
        assert client.counts.answered == 1


@pytest_twisted.ensureDeferred
async def test_a_large_answer_comes_once_the_address_is_proven(serve: Serve) -> None:
    """The server's challenge is answered without the caller's noticing."""

    class Large(SocketService):
        def received(self, session: Session, message: bytes) -> None:
            session.send(message * 20_000)

    async with await opened(serve(reliable(Large)())) as client:
        assert await within(client.request(b"abc"), 1.5) == b"abc" * 20_000
        assert client.counts.retransmitted == 0


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_refused() -> None:
    """The ICMP refusal fails what is open and what is queued; the client can be used on."""
    # Every second datagram meets the refusal of the one before: the stack must not grow by it.
    two = TransmissionParameters(window=2, ack_timeout_s=0.05)
    with mute() as sock:
        client = await opened(sock.getsockname()[1], parameters=two)
        waiting = [client.request(b"x") for _ in range(3000)]
    async with client:
        for waiter in waiting:
            with pytest.raises(Refused, match=r"Connection refused \(ECONNREFUSED\)"):
                await within(waiter)
        with pytest.raises(Refused):
            await within(client.request(b"x"))


@pytest_twisted.ensureDeferred
async def test_a_server_that_comes_back_is_found(serve: Serve) -> None:
    """A refusal does not end the client."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    number = free_port(socket.SOCK_DGRAM)
    async with await opened(number) as client:
        with pytest.raises(Refused):
            await within(client.request(b"x"))
        port = reactor.listenUDP(
            number, ServiceDatagramProtocol(reliable(Echo)()), interface="127.0.0.1"
        )
        assert await within(client.request(b"y")) == b"y"
        await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_silence_times_out() -> None:
    """After the request's own time, or that of the client, or out of transmissions."""
    with mute() as sock:
        port = sock.getsockname()[1]
        async with await opened(port, timeout_s=0.1) as client:
            began = time.monotonic()
            with pytest.raises(TimedOut, match=r"no answer within \d\S* s"):
                await within(client.request(b"x"))
            assert 0.09 < time.monotonic() - began < 5
            with pytest.raises(TimedOut, match=r"no answer within \d\S* s"):
                await within(client.request(b"x", 0.02))
        tries = TransmissionParameters(ack_timeout_s=0.01, ack_random_factor=1, max_retransmit=2)
        async with await opened(port, parameters=tries) as client:
            with pytest.raises(TimedOut, match=r"no answer within 0\.\d+ s \(ETIMEDOUT\)"):
                await within(client.request(b"x"))
            assert (client.counts.lost, client.counts.timed_out) == (3, 1)


@pytest_twisted.ensureDeferred
async def test_cancelling_forgets_the_request() -> None:
    """Its place in the window is free, and no timer is left."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    with mute() as sock:
        timers = set(reactor.getDelayedCalls())
        one = TransmissionParameters(window=1)
        async with await opened(sock.getsockname()[1], parameters=one) as client:
            first, second = client.request(b"1"), client.request(b"2")
            sock.settimeout(5)
            assert sock.recv(100)[8:] == b"1"
            first.cancel()
            with pytest.raises(CancelledError):
                await first
            assert sock.recv(100)[8:] == b"2"
            second.cancel()
            with pytest.raises(CancelledError):
                await second
            assert set(reactor.getDelayedCalls()) == timers


@pytest_twisted.ensureDeferred
async def test_closing_tells_who_waits() -> None:
    """Open and queued requests fail, and later ones; close() twice is one."""
    with mute() as sock:
        client = await opened(sock.getsockname()[1], parameters=TransmissionParameters(window=1))
        waiting = [client.request(b"x"), client.request(b"y")]
        await within(gatherResults([client.close(), client.close()]))
        for waiter in [*waiting, client.request(b"z")]:
            with pytest.raises(PeerClosed, match="the client is closed"):
                await within(waiter)
        assert client.counts.requests == 2


@pytest_twisted.ensureDeferred
async def test_callers_may_do_anything_on_being_told(serve: Serve) -> None:
    """Ask again, cancel another, close: from inside a callback or an errback."""
    client = await opened(serve(reliable(Echo)()))
    done: Deferred[bytes] = Deferred()

    def again(answer: bytes) -> None:
        if len(answer) < 300:
            client.request(answer + b"x").addCallback(again)
        else:
            client.close().addCallback(lambda _: done.callback(answer))

    client.request(b"").addCallback(again)
    assert len(await within(done)) == 300

    with mute() as sock:
        client = await opened(sock.getsockname()[1], timeout_s=0.05)
        first, second = client.request(b"1"), client.request(b"2")
        seen: list[Any] = []
        first.addErrback(lambda failure: (seen.append(failure.type), second.cancel()))
        second.addErrback(lambda failure: seen.append(failure.type))
        await until(lambda: len(seen) == 2)
        assert seen == [TimedOut, CancelledError]
        await within(client.close())


@pytest_twisted.ensureDeferred
async def test_what_fits_no_datagram_is_told(serve: Serve) -> None:
    """Before it is sent; the largest that fits goes and comes."""
    async with await opened(serve(reliable(Echo)())) as client:
        with pytest.raises(FrameError, match="a request of 65500 bytes does not fit a datagram"):
            await client.request(bytes(65_500))
        assert await within(client.request(bytes(65_499))) == bytes(65_499)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MessageLengthError("message too long"), "EMSGSIZE"),
        (PermissionError(errno.EPERM, "a firewall"), "EPERM"),
        (OSError(errno.ENETUNREACH, "no route"), "ENETUNREACH"),
    ],
)
async def test_what_the_kernel_refuses_to_send_fails_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    """With its code; another request is answered."""
    async with await opened(serve(reliable(Echo)())) as client:
        write = client._port.write

        def refuse(datagram: bytes) -> None:
            if datagram.endswith(b"bad"):
                raise error
            write(datagram)

        monkeypatch.setattr(client._port, "write", refuse)
        good, bad = client.request(b"good"), client.request(b"bad")
        with pytest.raises(CannotSend, match=code):
            await within(bad)
        assert await within(good) == b"good"


@pytest_twisted.ensureDeferred
async def test_what_a_full_buffer_drops_is_sent_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as good as lost on the way."""
    async with await opened(serve(reliable(Echo)()), parameters=QUICK) as client:
        write, errors = client._port.write, [errno.EAGAIN, errno.ENOBUFS]

        def drop(datagram: bytes) -> None:
            if errors:
                raise OSError(errors.pop(), "full")
            write(datagram)

        monkeypatch.setattr(client._port, "write", drop)
        assert await within(client.request(b"x")) == b"x"
        assert client.counts.lost == 2


@pytest_twisted.ensureDeferred
async def test_the_service_that_fails_refuses(serve: Serve, logged_failures: Any) -> None:
    """The client hears of it at once, not at its time-out."""

    class Bad(SocketService):
        def received(self, session: Session, message: bytes) -> None:
            raise ZeroDivisionError

    async with await opened(serve(reliable(Bad)())) as client:
        with pytest.raises(Refused, match="the service could not answer the request"):
            await within(client.request(b"x"))
    logged_failures.take(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_connected_to_is_told() -> None:
    """Wrong addresses and codecs at once; a name without an address by CannotResolve."""
    from twisted.internet import reactor

    for connect in (lambda *a, **k: connect_datagram(reactor, *a, **k), connect_datagram_blocking):
        for address in ("tcp:127.0.0.1:1", "udp:*:1", "udp:127.0.0.1:0", "unixgram:/x"):
            with pytest.raises(AddressError, match="one host and port over udp"):
                connect(address)
        with pytest.raises(ValueError, match="codec must be one of"):
            connect("udp:127.0.0.1:1", codec="xml")
    with pytest.raises(CannotResolve):
        await within(connect_datagram(reactor, "udp:nobody.invalid:1"))
    with pytest.raises(CannotResolve):
        connect_datagram_blocking("udp:nobody.invalid:1")


# -- the blocking shell --


@pytest_twisted.ensureDeferred
async def test_the_blocking_client_asks_one_and_many(serve: Serve) -> None:
    """request() returns the answer; request_all() yields them in order, windows ahead."""
    port = serve(reliable(EchoReply)())

    def ask() -> None:
        with connect_datagram_blocking(f"udp:127.0.0.1:{port}", timeout_s=10) as client:
            assert client.request(b"hi") == b"OK...hi"
            found = list(client.request_all(b"%d" % number for number in range(500)))
            assert found == [b"OK...%d" % number for number in range(500)]
            assert client.counts.answered == 501
            assert 0 < (client.round_trip_s or 0) < 5
            assert client.five_tuple.peer_port == port
            some = client.request_all([b"a", b"b", b"c"])
            assert next(some) == b"OK...a"
            some.close()  # type: ignore[attr-defined]
            assert not client._exchanges.outstanding
            assert not client._ended
            assert client.request(b"on") == b"OK...on"

    await within(deferToThread(ask))


def test_the_blocking_client_tells_failures_apart() -> None:
    """Refused, timed out, closed, not to be written."""
    with connect_datagram_blocking(f"udp:127.0.0.1:{free_port(socket.SOCK_DGRAM)}") as client:
        with pytest.raises(Refused, match="ECONNREFUSED"):
            client.request(b"x")
        with pytest.raises(Refused, match="ECONNREFUSED"):
            list(client.request_all([b"x"] * 200))
        with pytest.raises(CodecError, match="must be bytes"):
            client.request("text")
    with pytest.raises(PeerClosed, match="the client is closed"):
        client.request(b"x")
    with mute() as sock:
        address = f"udp:127.0.0.1:{sock.getsockname()[1]}"
        with connect_datagram_blocking(address, parameters=QUICK, timeout_s=0.1) as client:
            began = time.process_time()
            with pytest.raises(TimedOut, match=r"no answer within \d\S* s"):
                client.request(b"x")
            assert time.process_time() - began < 0.09  # it waited, and did not spin
            assert client.counts.retransmitted > 0


@pytest_twisted.ensureDeferred
async def test_closing_a_blocking_client_ends_what_it_yields(serve: Serve) -> None:
    """Answers that had not come by then never do."""
    port = serve(reliable(Echo)())

    def ask() -> None:
        client = connect_datagram_blocking(f"udp:127.0.0.1:{port}", timeout_s=10)
        answers = client.request_all(b"%d" % number for number in range(500))
        assert next(answers) == b"0"
        client.close()
        with pytest.raises(PeerClosed, match="the client is closed"):
            list(answers)

    await within(deferToThread(ask))


# -- the figure --


async def exactly_once(serve: Serve, number: int) -> Any:
    """Ask *number* requests on the reactor through a bad network; return the counts."""
    service: Any = reliable(Counted)()
    with Relay(serve(service), **BAD) as relay:
        async with await opened(relay.port, parameters=QUICK, random=Random(1)) as client:
            messages = [b"message %d" % each for each in range(number)]
            waiting = [client.request(message) for message in messages]
            answers = await within(gatherResults(waiting), 60)
            counts = client.counts
    assert answers == [message.upper() for message in messages]
    assert service.heard == dict.fromkeys(messages, 1)
    assert (counts.answered, counts.timed_out, counts.refused) == (number, 0, 0)
    assert relay.lost > 0.15 * relay.came
    return counts


@pytest_twisted.ensureDeferred
async def test_a_bad_network_answers_each_request_exactly_once(serve: Serve) -> None:
    """20 % lost, 5 % repeated, 10 % reordered each way: 1,000 of 1,000, each handled once."""
    counts = await exactly_once(serve, 1000)
    assert counts.retransmitted > 300
    assert counts.repeated > 10
    assert counts.reordered > 10
    await pause()


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_ten_thousand_of_ten_thousand(serve: Serve) -> None:
    """The same with 10,000."""
    began = time.monotonic()
    counts = await exactly_once(serve, 10_000)
    print(f"{time.monotonic() - began:.1f} s; {counts}")


@pytest_twisted.ensureDeferred
async def test_the_blocking_client_on_a_bad_network(serve: Serve) -> None:
    """The same core, the same figure: 1,000 of 1,000, in order, each handled once."""
    service: Any = reliable(Counted)()
    messages = [b"message %d" % each for each in range(1000)]

    def ask(port: int) -> list[bytes]:
        address = f"udp:127.0.0.1:{port}"
        with connect_datagram_blocking(address, parameters=QUICK, random=Random(2)) as client:
            return list(client.request_all(messages))

    with Relay(serve(service), seed=2, **BAD) as relay:
        answers = await within(deferToThread(ask, relay.port), 60)
    assert answers == [message.upper() for message in messages]
    assert service.heard == dict.fromkeys(messages, 1)
