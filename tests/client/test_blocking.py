"""The blocking client on real sockets."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import free_port, run
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

from twistedsock import connect_blocking
from twistedsock.errors import (
    AddressError,
    CannotSend,
    CodecError,
    FrameError,
    PeerClosed,
    PeerProtocolError,
    Refused,
    TimedOut,
)

pytestmark = pytest.mark.filterwarnings("error")  # such as of a socket that nobody closed

LIMIT_S = 10.0  # of every wait, lest a fault hang the suite


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Count threads and descriptors around each test."""
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_messages_go_and_come(host: str) -> None:
    """A conversation over either family, by address and by name."""
    with Server(echo, "127.0.0.1" if host == "localhost" else host) as server:
        address = f"tcp:localhost:{server.port}" if host == "localhost" else server.address
        with connect_blocking(address, framing="line", codec="text", timeout_s=LIMIT_S) as peer:
            for message in ("one", "", "dréi"):
                peer.send(message)
                assert peer.receive() == message
            five = peer.five_tuple
            local = server.accepted[0].getpeername()[1]
            assert five == ("tcp", server.host, local, server.host, server.port)
            assert str(peer.address) == address
            peer.half_close()
            assert list(peer) == []


def test_several_messages_in_one_read_come_one_by_one() -> None:
    """What arrived together is told apart, and the end is the end of the iteration."""
    with (
        Server(says(b"1\n[2]\n{}\n")) as server,
        connect_blocking(server.address, framing="line", codec="json", timeout_s=LIMIT_S) as peer,
    ):
        assert list(peer) == [1, [2], {}]
        for _ in range(2):
            with pytest.raises(PeerClosed) as caught:
                peer.receive()
            assert (caught.value.code, caught.value.text) == ("", "the peer has finished sending")


def test_half_close_lets_the_peer_answer() -> None:
    """Our end is told to the peer, whose answer still comes."""

    def count(sock: socket.socket) -> None:
        size = 0
        while data := sock.recv(65536):
            size += len(data)
        sock.sendall(b"%d" % size)

    with Server(count) as server, connect_blocking(server.address, timeout_s=LIMIT_S) as peer:
        peer.send(b"x" * 1_000_000)
        peer.half_close()
        peer.half_close()
        assert b"".join(peer) == b"1000000"
        with pytest.raises(CannotSend, match="our side has finished sending"):
            peer.send(b"more")


def test_the_peer_may_end_first() -> None:
    """After the peer's end we may still send."""
    heard: list[bytes] = []

    def listens(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(100):
            heard.append(data)

    with Server(listens) as server:
        with connect_blocking(server.address, timeout_s=LIMIT_S) as peer:
            assert list(peer) == []
            peer.send(b"still")
            peer.send(b" here")
        server.served()
    assert b"".join(heard) == b"still here"


def test_what_was_sent_before_close_arrives_though_the_peer_had_spoken() -> None:
    """An unread greeting does not turn close into a reset, which would drop what we sent."""
    deaf = Deaf()

    def greets(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        deaf(sock)

    with Server(greets) as server:
        with connect_blocking(server.address, timeout_s=LIMIT_S) as peer:
            time.sleep(0.05)
            peer.send(b"x" * 200_000)
        deaf.may_read.set()
        server.served()
    assert deaf.received == 200_000


def test_nothing_received_in_time_can_be_tried_again() -> None:
    """A time-out of a call counts over the peer's; no message is lost by it."""
    go = threading.Event()

    def waits(sock: socket.socket) -> None:
        sock.sendall(b"3:ab")
        go.wait(LIMIT_S)
        sock.sendall(b"c,")

    with (
        Server(waits) as server,
        connect_blocking(server.address, framing="netstring", timeout_s=LIMIT_S) as peer,
    ):
        started = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            peer.receive(timeout_s=0.1)
        assert 0.1 <= time.monotonic() - started < 1
        assert (caught.value.code, caught.value.text) == (
            "ETIMEDOUT",
            "nothing received within 0.1 s",
        )
        for at_once in (0, -1):
            with pytest.raises(TimedOut):
                peer.receive(timeout_s=at_once)
        go.set()
        assert peer.receive() == b"abc"


def test_a_trickle_does_not_extend_the_time() -> None:
    """A peer that sends a byte now and then, but no message, does not hold us."""

    def trickles(sock: socket.socket) -> None:
        while True:
            sock.sendall(b"x")
            time.sleep(0.02)

    with (
        Server(trickles) as server,
        connect_blocking(server.address, framing="line", timeout_s=0.2) as peer,
    ):
        started = time.monotonic()
        with pytest.raises(TimedOut):
            peer.receive()
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("timeout_s", [0.2, 0])
def test_a_peer_that_does_not_read_is_told(timeout_s: float) -> None:
    """After a message that went in part only nothing more is sent, but we may receive."""
    deaf = Deaf()
    with Server(deaf) as server, connect_blocking(server.address, timeout_s=LIMIT_S) as peer:
        with pytest.raises(TimedOut) as caught:
            peer.send(b"x" * 20_000_000, timeout_s=timeout_s)
        assert caught.value.text == f"not sent within {timeout_s:g} s"
        with pytest.raises(CannotSend, match="a message was sent in part only"):
            peer.send(b"more")
        deaf.may_read.set()


def test_a_flood_is_held_back_by_not_reading() -> None:
    """Nothing is read that nobody receives: the kernel's own buffers are the bound."""
    with Server(flood) as server, connect_blocking(server.address, timeout_s=LIMIT_S) as peer:
        time.sleep(0.1)
        assert not peer._talk.ready
        for _ in range(5):
            assert peer.receive().strip(b"x") == b""
        assert peer._talk._inbox_bytes < 1_000_000


@pytest.mark.parametrize("serve", [reset, greet_and_reset])
def test_a_reset_is_the_peer_s_end_with_a_code(serve: Any) -> None:
    """Whenever it comes, it is PeerClosed with ECONNRESET, and told again."""
    with Server(serve) as server:
        for _ in range(20):
            with pytest.raises(PeerClosed) as caught:
                provoked(server, greeting=serve is greet_and_reset)
            assert caught.value.code == "ECONNRESET"


def provoked(server: Server, greeting: bool) -> None:
    """Talk to a server that resets."""
    with connect_blocking(server.address, framing="line", timeout_s=LIMIT_S) as peer:
        if greeting:
            assert peer.receive() == GREETING.rstrip()
            peer.send(b"x")
        peer.receive()


def test_an_iteration_does_not_hide_a_reset() -> None:
    """Only the orderly end ends a loop."""
    with (
        Server(greet_and_reset) as server,
        connect_blocking(server.address, framing="line", timeout_s=LIMIT_S) as peer,
    ):
        assert next(peer) == GREETING.rstrip()
        peer.send(b"x")
        with pytest.raises(PeerClosed, match="ECONNRESET"):
            next(peer)


def test_a_peer_that_is_gone_cannot_be_sent_to() -> None:
    """Sending after a reset tells so."""
    with Server(reset) as server:
        try:
            peer = connect_blocking(server.address, timeout_s=LIMIT_S)
        except PeerClosed:
            pytest.skip("the reset was faster")
        with peer:
            time.sleep(0.05)
            with pytest.raises(CannotSend) as caught:
                peer.send(b"x")
            assert caught.value.code in ("ECONNRESET", "EPIPE")


def test_what_a_peer_breaks_is_told() -> None:
    """Wrong framing and wrong codec are told apart, and nothing more is read."""
    with Server(says(b"1\nx\n2\n")) as server:
        with connect_blocking(server.address, framing="netstring", timeout_s=LIMIT_S) as peer:
            for _ in range(2):
                with pytest.raises(PeerProtocolError, match="netstring length"):
                    peer.receive()
        with connect_blocking(
            server.address, framing="line", codec="literal", timeout_s=LIMIT_S
        ) as peer:
            assert peer.receive() == 1
            for _ in range(2):
                with pytest.raises(CodecError, match="is not a Python literal"):
                    peer.receive()


def test_max_message_bounds_what_a_peer_may_send() -> None:
    """A longer one is a fault of the peer."""
    with (
        Server(says(b"x" * 101 + b"\n")) as server,
        connect_blocking(
            server.address, framing="line", timeout_s=LIMIT_S, max_message=100
        ) as peer,
        pytest.raises(PeerProtocolError, match="100"),
    ):
        peer.receive()


def test_what_cannot_be_written_sends_nothing() -> None:
    """A wrong message is the caller's error; the next one goes whole."""
    with (
        Server(echo) as server,
        connect_blocking(server.address, framing="line", codec="text", timeout_s=LIMIT_S) as peer,
    ):
        with pytest.raises(CodecError):
            peer.send(b"bytes")
        with pytest.raises(FrameError):
            peer.send("a\nb")
        peer.send("ok")
        assert peer.receive() == "ok"


def test_after_close_everything_says_so() -> None:
    """Close twice, send, receive, iterate: each an answer, none an OSError."""
    with Server(says(b"unread")) as server:
        peer = connect_blocking(server.address, timeout_s=LIMIT_S)
        assert peer.fileno() >= 0
        peer.read(LIMIT_S)
        peer.close()
        peer.close()
        peer.half_close()
        assert peer.fileno() == -1
        with pytest.raises(PeerClosed, match="the connection is closed"):
            peer.receive()
        with pytest.raises(PeerClosed):
            next(peer)
        with pytest.raises(CannotSend, match="the connection is closed"):
            peer.send(b"x")


def test_failures_to_connect() -> None:
    """Each has its class, at once, and leaves nothing open."""
    with pytest.raises(Refused) as caught:
        connect_blocking(f"tcp:127.0.0.1:{free_port()}")
    assert caught.value.code == "ECONNREFUSED"
    with black_hole() as hole, pytest.raises(TimedOut, match=r"no connection within 0\.1 s"):
        connect_blocking(f"tcp:127.0.0.1:{hole}", timeout_s=0.1)
    with pytest.raises(AddressError):
        connect_blocking("tcp:*:80")
    with pytest.raises(ValueError, match="framing must be one of"):
        connect_blocking("tcp:127.0.0.1:9", framing="none")


def test_a_time_of_months_is_one() -> None:
    """No time-out is too long for the system's calls."""
    with (
        Server(echo) as server,
        connect_blocking(server.address, timeout_s=1e9) as peer,
    ):
        peer.send(b"x")
        assert peer.receive() == b"x"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams(host: str) -> None:
    """Each datagram is a message, empty ones too, and no end comes of them."""
    with udp_socket(host) as server:
        port = server.getsockname()[1]
        address = f"udp:[{host}]:{port}" if ":" in host else f"udp:{host}:{port}"
        with connect_blocking(address, timeout_s=LIMIT_S) as peer:
            for message in (b"", b"x", b"y" * 65_000):
                peer.send(message)
                data, client = server.recvfrom(65536)
                assert data == message
                server.sendto(data, client)
                assert peer.receive() == message
            assert peer.five_tuple == ("udp", host, client[1], host, port)
            with pytest.raises(CannotSend) as caught:
                peer.send(b"z" * 65_536)
            assert caught.value.code == "EMSGSIZE"
            peer.half_close()
            server.sendto(b"late", client)
            assert peer.receive() == b"late"


def test_a_mapped_address_is_told_as_ipv4() -> None:
    """An IPv4-mapped IPv6 address is not seen above the socket."""
    with (
        Server(silent) as server,
        connect_blocking(f"tcp:[::ffff:127.0.0.1]:{server.port}", timeout_s=LIMIT_S) as peer,
    ):
        assert peer.five_tuple.peer_host == peer.five_tuple.local_host == "127.0.0.1"


def test_a_refused_datagram_is_told_and_the_next_one_may_arrive() -> None:
    """Nobody at the port is told at the next call; once somebody is there, all is well."""
    port = free_port(socket.SOCK_DGRAM)
    with connect_blocking(f"udp:127.0.0.1:{port}", timeout_s=LIMIT_S) as peer:
        peer.send(b"lost")
        with pytest.raises(Refused) as caught:
            peer.receive()
        assert caught.value.code == "ECONNREFUSED"
        with udp_socket(port=port) as server:
            peer.send(b"found")
            data, client = server.recvfrom(100)
            server.sendto(data, client)
            assert peer.receive() == b"found"


def test_datagrams_from_others_are_not_heard() -> None:
    """Only the peer that was named is."""
    with (
        udp_socket() as server,
        udp_socket() as other,
        connect_blocking(f"udp:127.0.0.1:{server.getsockname()[1]}", timeout_s=0.1) as peer,
    ):
        other.sendto(b"intruder", ("127.0.0.1", peer.five_tuple.local_port))
        with pytest.raises(TimedOut):
            peer.receive()


def test_neither_reactor_nor_thread_is_needed() -> None:
    """Importing and using the blocking client does not import Twisted."""
    with Server(echo) as server:
        code = f"""
import sys, threading, twistedsock
with twistedsock.connect_blocking({server.address!r}, timeout_s=10) as peer:
    peer.send(b"x"); print(peer.receive(), threading.active_count())
print("twisted" in sys.modules)
"""
        done = run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("b'x' 1\nFalse\n", "")


def test_the_standard_library_hears_what_was_sent() -> None:
    """The frame on the wire is what struct says."""
    heard: list[bytes] = []

    def listens(sock: socket.socket) -> None:
        heard.append(sock.recv(100, socket.MSG_WAITALL))

    with (
        Server(listens) as server,
        connect_blocking(server.address, framing="uint16", codec="json", timeout_s=LIMIT_S) as peer,
    ):
        peer.send({"a": [1]})
        server.served()
    assert heard == [struct.pack("!H", 9) + b'{"a":[1]}']
