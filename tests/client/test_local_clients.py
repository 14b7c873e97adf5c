"""Clients of UNIX, raw and packet peers, and of groups, against the standard library's sockets."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from twistedsock import ClientError, PeerClosed, Refused, TimedOut, connect, connect_blocking
from twistedsock.errors import AddressError, CannotSend, Unreachable

DEADLINE_S = 10.0
TYPES = {
    "unix": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "unixgram": socket.SOCK_DGRAM,
}


class Peer:
    """A peer made of the standard library alone: answers each piece with ``OK...`` and it."""

    def __init__(self, scheme: str, name: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, TYPES[scheme])
        self.sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self.sock.settimeout(DEADLINE_S)
        self.seen: list[Any] = []
        self.scheme = scheme
        if scheme != "unixgram":
            self.sock.listen(5)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            if self.scheme == "unixgram":
                while True:
                    data, sender = self.sock.recvfrom(300_000)
                    self.seen.append((data, sender))
                    self.sock.sendto(b"OK..." + data, sender)
            accepted, _ = self.sock.accept()
            with accepted:
                accepted.settimeout(DEADLINE_S)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                while True:
                    data, ancillary, _, _ = accepted.recvmsg(300_000, 100)
                    if not data and (self.scheme == "unix" or not ancillary):
                        break
                    self.seen.append(data)
                    accepted.send(b"OK..." + data)

    def close(self) -> None:
        """End it."""
        self.sock.close()
        self.thread.join(DEADLINE_S)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[Peer, str]]]:
    """Start a peer; return it and its address."""
    peers: list[Peer] = []

    def start(scheme: str, *, abstract: bool = False) -> tuple[Peer, str]:
        name = f"@test-{os.getpid()}-{len(peers)}" if abstract else str(tmp_path / f"{len(peers)}")
        peers.append(Peer(scheme, name))
        return peers[-1], f"{scheme}:{name}"

    yield start
    for peer in peers:
        with suppress(OSError):
            peer.sock.shutdown(socket.SHUT_RDWR)
        peer.close()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
@pytest.mark.parametrize("scheme", TYPES)
def test_a_blocking_client_talks(serve: Any, scheme: str, abstract: bool) -> None:
    """What is sent comes back, and the ends and the five-tuple are those of the kind."""
    _, address = serve(scheme, abstract=abstract)
    with connect_blocking(address, timeout_s=DEADLINE_S) as peer:
        peer.send(b"hello")
        assert peer.receive() == b"OK...hello"
        assert peer.five_tuple.protocol == scheme
        assert peer.five_tuple.peer_host == address.partition(":")[2]
        peer.half_close()
        if scheme != "unixgram":
            assert list(peer) == []


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
@pytest.mark.parametrize("scheme", TYPES)
@pytest_twisted.ensureDeferred
async def test_a_reactor_client_talks(serve: Any, scheme: str, abstract: bool) -> None:
    """The same with a reactor."""
    _, address = serve(scheme, abstract=abstract)
    async with await connect(reactor, address, timeout_s=DEADLINE_S) as peer:
        peer.send(b"hello")
        assert await peer.receive() == b"OK...hello"
        assert peer.five_tuple.protocol == scheme
        assert peer.five_tuple.peer_host == address.partition(":")[2]
        peer.half_close()
        if scheme != "unixgram":
            with pytest.raises(PeerClosed) as caught:
                await peer.receive()
            assert caught.value.code == ""


RECORDS = [b"a", b"", b"b" * 60_000, b"", b"c\nd"]


def test_records_stay_apart_without_a_reactor(serve: Any) -> None:
    """Records of any size, empty ones too, go and come one by one."""
    server, address = serve("seqpacket")
    with connect_blocking(address, timeout_s=DEADLINE_S) as peer:
        for record in RECORDS:
            peer.send(record)
            assert peer.receive() == b"OK..." + record
    assert server.seen == RECORDS


@pytest_twisted.ensureDeferred
async def test_records_stay_apart_with_a_reactor(serve: Any) -> None:
    """The same with a reactor."""
    server, address = serve("seqpacket")
    async with await connect(reactor, address, timeout_s=DEADLINE_S) as peer:
        for record in RECORDS:
            peer.send(record)
        for record in RECORDS:
            assert await peer.receive() == b"OK..." + record
    assert server.seen == RECORDS


@pytest.mark.parametrize("scheme", TYPES)
def test_an_empty_answer_is_no_end(tmp_path: Path, scheme: str) -> None:
    """An empty record or datagram is a message; the end of a connection is the end."""
    if scheme == "unix":
        pytest.skip("a stream has no empty messages")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, TYPES[scheme]) as server:
        server.bind(path)
        if scheme == "seqpacket":
            server.listen()
        with connect_blocking(f"{scheme}:{path}", timeout_s=DEADLINE_S) as peer:
            peer.send(b"?")
            if scheme == "seqpacket":
                accepted, _ = server.accept()
                with accepted:
                    assert accepted.recv(10) == b"?"
                    accepted.send(b"")
                    accepted.send(b"x")
            else:
                _, sender = server.recvfrom(10)
                server.sendto(b"", sender)
                server.sendto(b"x", sender)
            assert (peer.receive(), peer.receive()) == (b"", b"x")
            if scheme == "seqpacket":
                assert list(peer) == []


# -- failures --


@pytest.mark.parametrize("scheme", TYPES)
def test_nobody_is_there(tmp_path: Path, scheme: str) -> None:
    """A path without a file, and a file whose socket is dead, are refused."""
    for_none = f"{scheme}:{tmp_path / 'none'}"
    with pytest.raises(Refused) as caught:
        connect_blocking(for_none)
    assert caught.value.code == "ECONNREFUSED"
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX, TYPES[scheme]) as sock:
        sock.bind(str(dead))
    with pytest.raises(Refused):
        connect_blocking(f"{scheme}:{dead}")
    with pytest.raises(Refused):
        connect_blocking(f"{scheme}:@nobody-{os.getpid()}")


@pytest_twisted.ensureDeferred
async def test_nobody_is_there_for_a_reactor(tmp_path: Path) -> None:
    """The same with a reactor."""
    for scheme in TYPES:
        with pytest.raises(Refused):
            await connect(reactor, f"{scheme}:{tmp_path / 'none'}")


def test_a_socket_of_another_kind_is_told(serve: Any) -> None:
    """A path that serves another type is unreachable, by its code."""
    _, address = serve("unix")
    with pytest.raises(Unreachable) as caught:
        connect_blocking(address.replace("unix:", "seqpacket:"))
    assert caught.value.code == "EPROTOTYPE"


def test_no_right_is_told(tmp_path: Path) -> None:
    """A path that may not be written to is unreachable, by its code."""
    if os.geteuid() == 0:
        pytest.skip("root may connect to any path")
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        with pytest.raises(Unreachable) as caught:
            connect_blocking(f"unix:{path}")
        assert caught.value.code == "EACCES"


def full_listener(path: Path) -> tuple[socket.socket, list[socket.socket]]:
    """Return a listener that nobody accepts from, and the connections that fill its queue."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(0)
    waiting = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        waiting.append(sock)
        if sock.connect_ex(str(path)) == errno.EAGAIN:
            return server, waiting


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """While a listener's queue is full a client waits, and gets in once there is room."""
    path = tmp_path / "s"
    server, waiting = full_listener(path)
    try:
        with pytest.raises(TimedOut):
            connect_blocking(f"unix:{path}", timeout_s=0.1)
        accepted: list[socket.socket] = []
        timer = threading.Timer(0.2, lambda: accepted.append(server.accept()[0]))
        timer.start()
        connect_blocking(f"unix:{path}", timeout_s=DEADLINE_S).close()
        timer.join()
        accepted[0].close()
    finally:
        for sock in (server, *waiting):
            sock.close()


@pytest_twisted.ensureDeferred
async def test_a_full_queue_is_waited_for_by_a_reactor(tmp_path: Path) -> None:
    """The same with a reactor, which goes on meanwhile."""
    path = tmp_path / "s"
    server, waiting = full_listener(path)
    try:
        with pytest.raises(TimedOut):
            await connect(reactor, f"unix:{path}", timeout_s=0.1)
    finally:
        for sock in (server, *waiting):
            sock.close()


def test_a_record_that_cannot_go_is_told(serve: Any) -> None:
    """A record longer than the send buffer is refused with its code, and the peer stays usable."""
    _, address = serve("seqpacket")
    with connect_blocking(address, options={"SO_SNDBUF": "8KiB"}, timeout_s=DEADLINE_S) as peer:
        with pytest.raises(CannotSend) as caught:
            peer.send(b"x" * 100_000)
        assert caught.value.code == "EMSGSIZE"
        peer.send(b"y")
        assert peer.receive() == b"OK...y"


@pytest_twisted.ensureDeferred
async def test_a_record_that_cannot_go_is_told_to_a_reactor(serve: Any) -> None:
    """The same with a reactor."""
    _, address = serve("seqpacket")
    options = {"SO_SNDBUF": "8KiB"}
    async with await connect(reactor, address, options=options, timeout_s=DEADLINE_S) as peer:
        with pytest.raises(CannotSend) as caught:
            peer.send(b"x" * 100_000)
        assert caught.value.code == "EMSGSIZE"
        peer.send(b"y")
        assert await peer.receive() == b"OK...y"


@pytest.mark.parametrize("address", ["raw:icmp", "raw:253"])
def test_a_raw_peer_has_a_host(address: str) -> None:
    """A raw address without a host is where to listen, and nothing to connect to."""
    with pytest.raises(AddressError, match=r"a peer has a host, as in raw:.*:192\.0\.2\.1"):
        connect_blocking(address)


# -- raw, packet, groups --


def echo_request(number: int) -> bytes:
    """Return an ICMP echo request with its checksum (RFC 792)."""
    head = struct.pack("!BBHHH", 8, 0, 0, 7, number)
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:]


def may_open(family: int, proto: int) -> bool:
    """Return whether this process may open raw sockets."""
    try:
        socket.socket(family, socket.SOCK_RAW, proto).close()
    except OSError:
        return False
    return True


needs_raw = pytest.mark.skipif(
    not may_open(socket.AF_INET, socket.IPPROTO_ICMP), reason="needs CAP_NET_RAW"
)


@needs_raw
def test_a_raw_client_pings() -> None:
    """An echo request goes out raw, and the reply comes in without its IP header."""
    with connect_blocking("raw:icmp:127.0.0.1", timeout_s=DEADLINE_S) as peer:
        peer.send(echo_request(9))
        answers = [peer.receive(), peer.receive()]  # on loopback the request comes in as well
        assert [each[0] for each in answers] == [8, 0]
        assert all(each[6:8] == b"\0\x09" for each in answers)


@needs_raw
@pytest_twisted.ensureDeferred
async def test_a_raw_client_pings_with_a_reactor() -> None:
    """The same with a reactor, by name."""
    async with await connect(reactor, "raw:icmp:localhost", timeout_s=DEADLINE_S) as peer:
        peer.send(echo_request(11))
        answers = [await peer.receive(), await peer.receive()]
        assert [each[0] for each in answers] == [8, 0]


@needs_raw
def test_a_packet_client_sees_frames() -> None:
    """A packet client sees the frames of its interface, link-layer header and all."""
    with (
        connect_blocking("packet:lo", timeout_s=DEADLINE_S) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        mark = os.urandom(16)
        sender.sendto(mark, ("127.0.0.1", 9))
        for _ in range(1000):
            frame = peer.receive()
            if frame.endswith(mark):
                break
        assert frame[12:14] == b"\x08\x00"


GROUP = "239.255.77.77"


def member() -> socket.socket:
    """Return a socket that has joined GROUP on loopback, on a port of its own."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 0))
    joined = struct.pack("=4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    sock.settimeout(DEADLINE_S)
    return sock


def test_a_group_answers() -> None:
    """What is sent to a group reaches its members, and their own answers come."""
    with member() as heard:
        address = f"udp:{GROUP}:{heard.getsockname()[1]}"
        options = {"IP_MULTICAST_IF": "127.0.0.1"}
        with connect_blocking(address, options=options, timeout_s=DEADLINE_S) as peer:
            peer.send(b"who?")
            data, sender = heard.recvfrom(100)
            assert data == b"who?"
            heard.sendto(b"me", sender)
            assert peer.receive() == b"me"


@pytest_twisted.ensureDeferred
async def test_a_group_answers_a_reactor() -> None:
    """The same with a reactor."""
    with member() as heard:
        address = f"udp:{GROUP}:{heard.getsockname()[1]}"
        options = {"IP_MULTICAST_IF": "127.0.0.1"}
        async with await connect(reactor, address, options=options, timeout_s=5) as peer:
            peer.send(b"who?")
            data, sender = heard.recvfrom(100)
            assert data == b"who?"
            heard.sendto(b"me", sender)
            assert await peer.receive() == b"me"


# -- the command --


@pytest.mark.parametrize("scheme", TYPES)
def test_the_command_talks(serve: Any, scheme: str) -> None:
    """`twistedsock connect` pipes to and from a UNIX peer."""
    _, address = serve(scheme)
    done = subprocess.run(
        [sys.executable, "-m", "twistedsock", "connect", address, "--timeout", "5"],
        input=b"hello",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"OK...hello", b"")


def test_the_command_tells_that_nobody_is_there(tmp_path: Path) -> None:
    """It ends with 69 where nobody serves the path."""
    command = [sys.executable, "-m", "twistedsock", "connect", f"unix:{tmp_path / 'x'}"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30, check=False)
    assert done.returncode == 69
    assert b"ECONNREFUSED" in done.stderr


def test_descriptors_are_not_leaked(serve: Any, tmp_path: Path) -> None:
    """Connections that fail, and those that end, leave no descriptor behind."""
    _, address = serve("unixgram")
    with connect_blocking(address) as peer:
        peer.send(b"warm")
        peer.receive(5)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with connect_blocking(address) as peer:
            peer.send(b"x")
            peer.receive(5)
        with pytest.raises(ClientError):
            connect_blocking(f"seqpacket:{tmp_path / 'none'}")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["raw:icmp:127.0.0.1"], "needs CAP_NET_RAW: in the unit, AmbientCapabilities=CAP_NET_RAW"),
        (["packet:lo"], "needs CAP_NET_RAW"),
        (["udp:127.0.0.1:9", "--option", "SO_MARK=1"], "SO_MARK: Operation not permitted (EPERM)"),
    ],
)
def test_a_missing_right_is_named(arguments: list[str], told: str) -> None:
    """Without the right to a socket, or an option, the command says which, and ends with 77."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if os.geteuid() or subprocess.run([*drop, "true"], check=False).returncode:
        pytest.skip("needs root and setpriv (Debian package util-linux)")
    command = [*drop, sys.executable, "-m", "twistedsock", "connect", *arguments]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert told in done.stderr
