"""``Socket`` beside the standard library's: one script, the same results and errors."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from conftest import free_port
from side_by_side import FAMILIES, HOSTS, Net, side_by_side

ensure = pytest_twisted.ensureDeferred
STREAMS = ["tcp4", "tcp6", "unix"]
RECORDS = ["seqpacket", "unixgram", "udp4", "udp6"]
ALL = STREAMS + RECORDS
SHORT_S = 0.05


def has_net_raw() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


needs_net_raw = pytest.mark.skipif(not has_net_raw(), reason="needs CAP_NET_RAW")


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_there_and_back(kind: str) -> None:
    """Every way of sending meets every way of receiving."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        for sender, receiver in (a, b), (b, a):
            await net.outcome(lambda s=sender: s.send(b"one"))
            await net.outcome(lambda r=receiver: r.recv(100))
            await net.outcome(lambda s=sender: s.sendall(bytearray(b"two")))
            buffer = bytearray(10)
            await net.outcome(lambda r=receiver, b=buffer: r.recv_into(b))
            net.tell(bytes(buffer))
            await net.outcome(lambda s=sender: s.sendmsg([b"th", b"", memoryview(b"ree")]))
            await net.outcome(lambda r=receiver: r.recvmsg(100, 100))
            await net.outcome(lambda s=sender: s.send(memoryview(b"four")[1:]))
            data, _ = await receiver.recvfrom(100)
            net.tell(data)
            await net.outcome(lambda s=sender: s.sendall(b"five"))
            count, _ = await receiver.recvfrom_into(buffer, 3)
            net.tell(count, bytes(buffer))
            if kind in STREAMS:
                await net.outcome(lambda r=receiver: r.recv(100))
            await net.outcome(lambda s=sender: s.send(b"sixsix"))
            parts = [bytearray(2), bytearray(10)]
            await net.outcome(lambda r=receiver, p=parts: r.recvmsg_into(p))
            net.tell([bytes(part) for part in parts])
            await net.outcome(lambda s=sender: s.send(b"peek"))
            for flags in socket.MSG_PEEK, 0:
                await net.outcome(lambda r=receiver, f=flags: r.recv(100, f))
            await net.outcome(lambda s=sender: s.sendall(b"truncated"))
            await net.outcome(lambda r=receiver: r.recvmsg(5))
            await net.outcome(lambda r=receiver: r.recv(0))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_the_names_and_attributes(kind: str) -> None:
    """Addresses, family, type, protocol, options and time-outs are told alike."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        net.tell(a.family, a.type, a.proto, repr(a.family), repr(a.type))
        net.tell(a.getsockname(), a.getpeername() == b.getsockname(), b.getpeername())
        net.tell(a.gettimeout(), a.getblocking(), a.timeout, a.fileno() >= 0)
        net.tell(a.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
        await net.outcome(lambda: a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, b"\0" * 16))
        await net.outcome(lambda: a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
        await net.outcome(lambda: a.getsockopt(socket.SOL_SOCKET, 12345))
        await net.outcome(lambda: a.setsockopt(socket.SOL_SOCKET, 12345, 1))
        await net.outcome(lambda: a.setsockopt(socket.SOL_SOCKET))
        await net.outcome(lambda: a.get_inheritable())
        a.set_inheritable(True)
        net.tell(a.get_inheritable())
        for value in 1, 2.5, None, 0, 0.0, -1, -0.5, float("inf"), float("nan"), 1e300, "x", True:
            await net.outcome(lambda v=value: a.settimeout(v))
            net.tell(a.gettimeout(), a.getblocking())
        for flag in True, False, 1, 0:
            await net.outcome(lambda f=flag: a.setblocking(f))
            net.tell(a.gettimeout(), a.getblocking())

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_time_outs(kind: str) -> None:
    """Each call that waits for input ends in time, and what comes later is not lost."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        a.settimeout(SHORT_S)
        begin = time.monotonic()
        await net.outcome(lambda: a.recv(10))
        net.tell(SHORT_S <= time.monotonic() - begin < 5)
        await net.outcome(lambda: a.recv(10, socket.MSG_PEEK))
        await net.outcome(lambda: a.recv_into(bytearray(10)))
        await net.outcome(lambda: a.recvfrom(10))
        await net.outcome(lambda: a.recvfrom_into(bytearray(10)))
        await net.outcome(lambda: a.recvmsg(10))
        await net.outcome(lambda: a.recvmsg_into([bytearray(10)]))
        await net.outcome(lambda: a.recv(10, socket.MSG_DONTWAIT))
        await net.outcome(lambda: a.recv(10, socket.MSG_ERRQUEUE))
        await b.send(b"late")
        await net.outcome(lambda: a.recv(10))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_the_non_waiting_mode(kind: str) -> None:
    """Nothing waits: what would have to is a BlockingIOError."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        a.setblocking(False)
        for _ in range(2):
            await net.outcome(lambda: a.recv(10))
            await net.outcome(lambda: a.recvfrom(10))
            await net.outcome(lambda: a.recvmsg(10))
            await net.outcome(lambda: a.recv_into(bytearray(10)))
        await net.outcome(lambda: a.accept())
        await net.outcome(lambda: a.sendfile(io.BytesIO(b"x")))
        await b.send(b"now")
        await net.outcome(lambda: a.recv(10))
        if kind in STREAMS:
            await net.outcome(lambda: a.sendall(bytes(20_000_000)))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_never_waiting_flags(kind: str) -> None:
    """MSG_DONTWAIT and the error queue do not wait even on a blocking socket."""

    async def script(net: Net) -> None:
        a, _ = await net.pair(kind)
        await net.outcome(lambda: a.recv(10, socket.MSG_DONTWAIT))
        if kind[-1] in FAMILIES:  # the others wait for data then
            await net.outcome(lambda: a.recvmsg(10, 100, socket.MSG_ERRQUEUE))
        if kind in STREAMS:
            await net.outcome(lambda: a.recv(10, socket.MSG_OOB))
            await net.outcome(lambda: a.sendall(bytes(30_000_000), socket.MSG_DONTWAIT))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_wrong_arguments(kind: str) -> None:
    """Wrong types and values are refused as the original refuses them."""

    async def script(net: Net) -> None:
        a, _ = await net.pair(kind)
        wrong: list[Callable[[], Any]] = [
            lambda: a.recv(-1), lambda: a.recv("x"), lambda: a.recv(10, "x"), lambda: a.recv(None),
            lambda: a.recv(1.5), lambda: a.recv(2**70),
            lambda: a.recv_into(b"read-only"), lambda: a.recv_into(bytearray(3), 5),
            lambda: a.recv("x", socket.MSG_WAITALL), lambda: a.recv(-1, socket.MSG_WAITALL),
            lambda: a.recv_into(bytearray(3), 5, socket.MSG_WAITALL),
            lambda: a.recv_into(b"xx", 1, socket.MSG_WAITALL),
            lambda: a.recv_into(bytearray(3), -1), lambda: a.recv_into("x"),
            lambda: a.recvfrom(-1), lambda: a.recvfrom_into(bytearray(2), 9),
            lambda: a.recvfrom_into(bytearray(2), -9),
            lambda: a.recvmsg(-1), lambda: a.recvmsg(10, -1), lambda: a.recvmsg_into(b"x"),
            lambda: a.recvmsg_into([b"x"]), lambda: a.recvmsg_into(3),
            lambda: a.send("text"), lambda: a.send(b"x", "y"), lambda: a.send(None),
            lambda: a.sendall("text"), lambda: a.sendall(5), lambda: a.sendall(b"x", 1.5),
            lambda: a.sendto(b"x", 5, 6), lambda: a.sendto("x", ("127.0.0.1", 1)),
            lambda: a.sendto(b"x"), lambda: a.sendto(b"x", 1, 2, 3),
            lambda: a.sendmsg(b"x"), lambda: a.sendmsg(["x"]), lambda: a.sendmsg(5),
            lambda: a.sendmsg([b"x"], [(1, 2)]), lambda: a.sendmsg([b"x"], 5),
            lambda: a.sendmsg([b"x"], [], "f"),
            lambda: a.connect(5), lambda: a.connect(None), lambda: a.connect_ex("x\0y"),
            lambda: a.bind(5), lambda: a.bind(("h", "p", "q", "r", "s")),
            lambda: a.bind(None), lambda: a.connect_ex(3),
            lambda: a.listen("x"), lambda: a.shutdown("x"), lambda: a.shutdown(77),
            lambda: a.setblocking(), lambda: a.settimeout(),
            lambda: a.getsockopt("x", 1), lambda: a.makefile("x"), lambda: a.makefile("r", 0),
            lambda: a.sendfile(io.StringIO()), lambda: a.sendfile(io.BytesIO(), 0, -1),
            lambda: a.sendfile(io.BytesIO(), 0, "x"), lambda: a.sendfile(io.BytesIO(), 0, 0),
        ]  # fmt: skip
        for each in wrong:
            await net.outcome(each)
        if kind[-1] in FAMILIES:
            for address in (
                ("127.0.0.1",), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("127.0.0.1", "x"),
                (5, 5), ("a\0b", 1), ["127.0.0.1", 1], "127.0.0.1", ("x" * 70, 1),
                ("::1", 1, 2, 3, 4), ("::1", 1, -2), ("::1", 1, 2**21), (None, 1),
                ("\udcff", 1), ("127.0.0.1", 1.5),
            ):  # fmt: skip
                await net.outcome(lambda a=a, t=address: a.connect(t))
                await net.outcome(lambda a=a, t=address: a.bind(t))
                await net.outcome(lambda a=a, t=address: a.sendto(b"", t))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ALL)
@ensure
async def test_a_closed_socket(kind: str) -> None:
    """Every call on a closed socket fails with EBADF, as does one that was detached."""

    async def script(net: Net) -> None:
        for end in "close", "detach":
            a, _ = await net.pair(kind)
            result = getattr(a, end)()
            if end == "detach":
                os.close(result)
            net.tell(a.fileno(), a.gettimeout(), repr(a)[-30:])
            calls: list[Callable[[], Any]] = [
                lambda a=a: a.recv(1), lambda a=a: a.recv_into(bytearray(1)),
                lambda a=a: a.recv(1, socket.MSG_WAITALL),
                lambda a=a: a.recvfrom(1), lambda a=a: a.recvmsg(1), lambda a=a: a.send(b"x"),
                lambda a=a: a.sendall(b"x"), lambda a=a: a.sendall(b""), lambda a=a: a.accept(),
                lambda a=a: a.sendto(b"x", 1, "y"), lambda a=a: a.sendmsg([b"x"]),
                lambda a=a: a.listen(), lambda a=a: a.shutdown(2), lambda a=a: a.getsockname(),
                lambda a=a: a.getpeername(), lambda a=a: a.getsockopt(1, 1),
                lambda a=a: a.setsockopt(1, 1, 1), lambda a=a: a.settimeout(1),
                lambda a=a: a.settimeout(None), lambda a=a: a.setblocking(False),
                lambda a=a: a.detach(), lambda a=a: a.close(), lambda a=a: a.dup(),
                lambda a=a: a.get_inheritable(), lambda a=a: a.recv(1, socket.MSG_ERRQUEUE),
            ]  # fmt: skip
            for each in calls:
                await net.outcome(each)
            if kind[-1] in FAMILIES:
                for host in "127.0.0.1", "localhost":
                    await net.outcome(lambda a=a, h=host: a.connect((h, 1)))
                    await net.outcome(lambda a=a, h=host: a.connect_ex((h, 1)))

    await side_by_side(script)


@pytest.mark.parametrize("kind", STREAMS)
@ensure
async def test_a_large_transfer(kind: str) -> None:
    """A blocking send takes all, and sendall with a time-out in time too."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        size = 3_000_000
        data = os.urandom(1000) * (size // 1000)

        async def read() -> bool:
            got = bytearray()
            while len(got) < size:
                chunk = await b.recv(65536)
                if not chunk:
                    break
                got += chunk
            return bytes(got) == data

        for send in (
            lambda: a.send(data),
            lambda: a.sendall(data),
            lambda: a.sendmsg([data[:1000], data[1000:]]),
            lambda: a.send(memoryview(data).cast("I")),
        ):
            reader = net.spawn(read())
            await net.outcome(send)
            net.tell(await reader())
        a.settimeout(20)
        reader = net.spawn(read())
        await net.outcome(lambda: a.sendall(data))
        net.tell(await reader())

    await side_by_side(script)


@pytest.mark.parametrize("kind", STREAMS)
@ensure
async def test_a_peer_that_does_not_read(kind: str) -> None:
    """Sending to it times out; the deadline of sendall is for the whole."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        a.settimeout(0.2)
        begin = time.monotonic()
        await net.outcome(lambda: a.sendall(bytes(30_000_000)))
        net.tell(0.2 <= time.monotonic() - begin < 5)
        b.close()

    await side_by_side(script)


@pytest.mark.parametrize("kind", [*STREAMS, "seqpacket"])
@ensure
async def test_the_end(kind: str) -> None:
    """Half-close, close and what follows are the same."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        await a.send(b"last")
        a.shutdown(socket.SHUT_WR)
        for _ in range(3):
            await net.outcome(lambda: b.recv(10))
        await net.outcome(lambda: a.send(b"x"))
        await net.outcome(lambda: a.sendall(b"x"))
        await net.outcome(lambda: b.send(b"still"))
        await net.outcome(lambda: a.recv(10))
        b.close()
        await net.outcome(lambda: a.recv(10))
        await net.outcome(lambda: a.shutdown(socket.SHUT_RD))
        await net.outcome(lambda: a.recv(10))

        a, b = await net.pair(kind)
        await b.send(b"unread")
        a.close()
        time.sleep(0.01)
        await net.outcome(lambda: b.recv(10))
        await net.outcome(lambda: b.send(b"x"))
        await net.outcome(lambda: b.send(b"x"))
        await net.outcome(lambda: b.recv(10))

    await side_by_side(script)


@pytest.mark.parametrize("kind", STREAMS)
@ensure
async def test_waiting_for_all(kind: str) -> None:
    """MSG_WAITALL fills the buffer, unless the input ends, or there is a time-out."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)

        async def send(*pieces: bytes) -> None:
            for piece in pieces:
                await b.send(piece)
                time.sleep(0.01)

        for receive in (
            lambda: a.recv(6, socket.MSG_WAITALL),
            lambda: a.recv_into(bytearray(10), 6, socket.MSG_WAITALL),
            lambda: a.recv_into(bytearray(6), 0, socket.MSG_WAITALL),
        ):
            sender = net.spawn(send(b"ab", b"cd", b"ef"))
            await net.outcome(receive)
            await sender()
        a.settimeout(1)
        await b.send(b"part")
        await net.outcome(lambda: a.recv(6, socket.MSG_WAITALL))
        a.settimeout(None)
        await b.send(b"end")
        b.close()
        await net.outcome(lambda: a.recv(6, socket.MSG_WAITALL))
        await net.outcome(lambda: a.recv(6, socket.MSG_WAITALL))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
@ensure
async def test_listening_and_connecting(kind: str) -> None:
    """Bind, listen, accept, connect, with every result and error on the way."""

    async def script(net: Net) -> None:
        family, host = FAMILIES[kind[-1]], HOSTS[kind[-1]]
        listener = net.socket(family, socket.SOCK_STREAM)
        await net.outcome(lambda: listener.accept())
        await net.outcome(lambda: listener.bind((host, 0)))
        await net.outcome(lambda: listener.bind((host, 0)))
        await net.outcome(lambda: listener.listen(1))
        name = listener.getsockname()
        other = net.socket(family, socket.SOCK_STREAM)
        await net.outcome(lambda: other.bind(name))
        await net.outcome(lambda: other.getpeername())
        await net.outcome(lambda: other.recv(1))
        await net.outcome(lambda: other.send(b"x"))
        await net.outcome(lambda: other.shutdown(socket.SHUT_RDWR))
        await net.outcome(lambda: other.connect(name))
        await net.outcome(lambda: other.connect(name))
        await net.outcome(lambda: other.connect_ex(name))
        found = await listener.accept()
        net.tell(found[1] == other.getsockname(), found[0].gettimeout(), found[0].family)
        net.keep(found[0])
        await net.outcome(lambda: found[0].sendall(b"hello"))
        await net.outcome(lambda: other.recv(5))
        listener.settimeout(SHORT_S)
        await net.outcome(lambda: listener.accept())
        await net.outcome(lambda: listener.connect(name))
        net.tell(await net.socket(family, socket.SOCK_STREAM).connect_ex(name))
        accepted, _ = await listener.accept()
        net.tell(accepted.gettimeout(), accepted.getblocking())
        net.keep(accepted)
        listener.setblocking(False)
        await net.outcome(lambda: listener.accept())
        net.tell(await net.socket(family, socket.SOCK_STREAM).connect_ex(name))
        accepted, _ = await listener.accept()
        net.tell(accepted.gettimeout(), accepted.getblocking())
        net.keep(accepted)

        refused = free_port(host=host)
        for timeout in None, 5.0:
            sock = net.socket(family, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            await net.outcome(lambda s=sock: s.connect((host, refused)))
            sock = net.socket(family, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            await net.outcome(lambda s=sock: s.connect_ex((host, refused)))
        # A blocking socket can be connected anew after a failure.
        sock = net.socket(family, socket.SOCK_STREAM)
        for _ in range(3):
            await net.outcome(lambda: sock.connect((host, refused)))
        await net.outcome(lambda: sock.connect(name))

    await side_by_side(script)


@ensure
async def test_names_resolve() -> None:
    """A name stands for its first address of the socket's family, everywhere."""

    async def script(net: Net) -> None:
        for host in "localhost", b"127.0.0.1", bytearray(b"localhost"), "", "127.1", "0":
            listener = net.socket(socket.AF_INET, socket.SOCK_STREAM)
            await net.outcome(lambda s=listener, h=host: s.bind((h, 0)))
            net.tell(listener.getsockname()[0])
        listener.listen()
        port = listener.getsockname()[1]
        for connect in "connect", "connect_ex":
            sock = net.socket(socket.AF_INET, socket.SOCK_STREAM)
            await net.outcome(lambda s=sock, c=connect: getattr(s, c)(("localhost", port)))
            net.tell(sock.getpeername()[0])
        for name in "nonsense.invalid", "x" * 64 + ".invalid", "a..b", "::1", "<broadcast>":
            sock = net.socket(socket.AF_INET, socket.SOCK_STREAM)
            await net.outcome(lambda s=sock, n=name: s.connect((n, port)))
            await net.outcome(lambda s=sock, n=name: s.connect_ex((n, port)))
            await net.outcome(lambda s=sock, n=name: s.bind((n, 0)))
        udp = net.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await udp.bind(("localhost", 0))
        port = udp.getsockname()[1]
        await net.outcome(lambda: udp.sendto(b"one", ("localhost", port)))
        await net.outcome(lambda: udp.sendto(b"two", 0, ("localhost", port)))
        await net.outcome(lambda: udp.sendmsg([b"th", b"ree"], [], 0, ("localhost", port)))
        await net.outcome(lambda: udp.sendto(b"x", ("nonsense.invalid", port)))
        for _ in range(3):
            await net.outcome(lambda: udp.recvfrom(10))
        six = net.socket(socket.AF_INET6, socket.SOCK_STREAM)
        await net.outcome(lambda: six.bind(("ip6-nonsense.invalid", 0)))
        await net.outcome(lambda: six.bind(("127.0.0.1", 0)))
        await net.outcome(lambda: six.bind(("::1%lo", 0, 0, 0)))
        net.tell(six.getsockname())
        link = net.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        await net.outcome(lambda: link.connect(("fe80::1", 9)))
        await net.outcome(lambda: link.connect(("fe80::1", 9, 0, 1)))
        await net.outcome(lambda: link.connect(("fe80::1%lo", 9)))
        await net.outcome(lambda: link.connect(("fe80::1%nonsense", 9)))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
@ensure
async def test_datagrams(kind: str) -> None:
    """Unconnected datagrams, their addresses, sizes and ICMP errors."""

    async def script(net: Net) -> None:
        family, host = FAMILIES[kind[-1]], HOSTS[kind[-1]]
        a, b = (net.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        await net.outcome(lambda: a.send(b"x"))
        await net.outcome(lambda: a.sendall(b"x"))
        await net.outcome(lambda: a.sendmsg([b"x"]))
        await net.outcome(lambda: a.accept())
        await net.outcome(lambda: a.listen())
        for sock in a, b:
            await net.outcome(lambda s=sock: s.bind((host, 0)))
        name = b.getsockname()
        for data in b"", b"x", bytes(60000):
            await net.outcome(lambda d=data: a.sendto(d, name))
            got, sender = await b.recvfrom(65536)
            net.tell(got == data, sender == a.getsockname())
        await net.outcome(lambda: a.sendto(bytes(70000), name))
        await net.outcome(lambda: a.sendto(b"x", (host, 0)))
        await net.outcome(lambda: a.sendmsg([b"x", b"y"], [], 0, name))
        await net.outcome(lambda: b.recvmsg(1))
        refused = free_port(socket.SOCK_DGRAM, host)
        await net.outcome(lambda: a.connect((host, refused)))
        await net.outcome(lambda: a.send(b"x"))
        await net.outcome(lambda: a.recv(10))
        await net.outcome(lambda: a.send(b"x"))
        await net.outcome(lambda: a.send(b"x"))
        await net.outcome(lambda: a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        await net.outcome(lambda: a.connect_ex((host, name[1])))
        await net.outcome(lambda: a.sendall(b""))
        await net.outcome(lambda: b.recvfrom(10))

    await side_by_side(script)


@ensure
async def test_an_error_queue() -> None:
    """With IP_RECVERR an ICMP error is read from the queue, and waited for."""

    async def script(net: Net) -> None:
        sock = net.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        refused = free_port(socket.SOCK_DGRAM)
        await sock.sendto(b"lost", ("127.0.0.1", refused))
        sock.settimeout(5)
        data, ancillary, flags, address = await sock.recvmsg(100, 500, socket.MSG_ERRQUEUE)
        net.tell(data, flags, address[0], address[1] == refused)
        net.tell([(level, kind, content[:8]) for level, kind, content in ancillary])

    await side_by_side(script)


@ensure
async def test_unix_addresses() -> None:
    """Paths, abstract and automatic names, and what is wrong with each."""

    async def script(net: Net) -> None:
        for kind in socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM:
            path = net.path(f"socket-{int(kind)}")
            sock = net.socket(socket.AF_UNIX, kind)
            await net.outcome(lambda s=sock, p=path: s.bind(p))
            net.tell(sock.getsockname())
            await net.outcome(lambda s=sock, p=path: net.socket(socket.AF_UNIX, s.type).bind(p))
            client = net.socket(socket.AF_UNIX, kind)
            await net.outcome(lambda s=client, p=path: s.connect(p))
            await net.outcome(lambda s=client: s.connect_ex("/nowhere/at/all"))
            await net.outcome(lambda s=client: s.connect("x" * 200))
            await net.outcome(lambda s=client: s.connect(b"\0abstract nobody has"))
            if kind != socket.SOCK_DGRAM:
                sock.listen()
                await net.outcome(lambda s=client, p=path: s.connect(p.encode()))
                accepted, peer = await sock.accept()
                net.keep(accepted)
                net.tell(peer, accepted.type)
                await client.send(b"hi")
                await net.outcome(lambda a=accepted: a.recvfrom(10))
            else:
                await net.outcome(lambda s=client: s.bind(b""))
                net.tell(client.getsockname()[:1])
                await net.outcome(lambda s=client, p=path: s.sendto(b"hi", p))
                data, sender = await sock.recvfrom(10)
                net.tell(data, sender == client.getsockname())

    await side_by_side(script)


@ensure
async def test_empty_records() -> None:
    """An empty record is b"", as is the end; sendall sends one too."""

    async def script(net: Net) -> None:
        for kind in "seqpacket", "unixgram", "udp4":
            a, b = await net.pair(kind)
            for send in (
                lambda a=a: a.send(b""),
                lambda a=a: a.sendall(b""),
                lambda a=a: a.send(b"x"),
            ):
                await net.outcome(send)
                await net.outcome(lambda b=b: b.recv(10))

    await side_by_side(script)


@pytest.mark.parametrize("kind", ["unix", "seqpacket", "unixgram"])
@ensure
async def test_descriptors_and_credentials(kind: str) -> None:
    """SCM_RIGHTS and SCM_CREDENTIALS come with the data."""

    async def script(net: Net) -> None:
        a, b = await net.pair(kind)
        reading, writing = os.pipe()
        await net.outcome(lambda: net.send_fds(a, [b"a ", b"pipe"], [writing]))
        data, fds, flags, sender = await net.recv_fds(b, 100, 4)
        net.tell(data, len(fds), flags, sender)
        os.close(writing)
        os.write(fds[0], b"through")
        net.tell(os.read(reading, 100))
        os.close(reading)
        os.close(fds[0])
        await net.outcome(lambda: net.send_fds(a, [b"x"], [9999]))
        b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        await a.send(b"who")
        data, ancillary, _, _ = await b.recvmsg(100, socket.CMSG_SPACE(12))
        net.tell(data, struct.unpack("3i", ancillary[0][2])[0] == os.getpid())

    await side_by_side(script)


@ensure
async def test_out_of_band() -> None:
    """Urgent data comes by itself, and can be waited for with a time-out."""

    async def script(net: Net) -> None:
        a, b = await net.pair("tcp4")
        await net.outcome(lambda: b.recv(1, socket.MSG_OOB))
        await net.outcome(lambda: a.send(b"abc!", socket.MSG_OOB))
        time.sleep(0.02)
        await net.outcome(lambda: b.recv(1, socket.MSG_OOB))
        await net.outcome(lambda: b.recv(10))

    await side_by_side(script)


@needs_net_raw
@ensure
async def test_raw_icmp() -> None:
    """A raw socket gets whole packets, and is answered."""

    async def script(net: Net) -> None:
        sock = net.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        net.tell(sock.type, sock.proto)
        echo_reply_only = ~(1 << 0) & 0xFFFFFFFF
        sock.setsockopt(255, 1, struct.pack("=I", echo_reply_only))  # SOL_RAW, ICMP_FILTER
        number = id(net) & 0xFFFF
        packet = struct.pack("!BBHHH", 8, 0, 0, number, 7)
        checksum = -sum(struct.unpack("!4H", packet)) % 65535
        packet = struct.pack("!BBHHH", 8, 0, checksum, number, 7)
        await net.outcome(lambda: sock.sendto(packet, ("127.0.0.1", 0)))
        sock.settimeout(10)
        while True:
            data, sender = await sock.recvfrom(1000)
            if struct.unpack("!H", data[24:26])[0] == number:
                break
        net.tell(data[20:22], sender)
        await net.outcome(lambda: sock.send(b"x"))

    await side_by_side(script)


@needs_net_raw
@ensure
async def test_packets() -> None:
    """A packet socket sees what passes on an interface."""

    async def script(net: Net) -> None:
        sock = net.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        await net.outcome(lambda: sock.bind(("lo", 0x0800)))
        net.tell(sock.getsockname()[:4])
        await net.outcome(lambda: sock.bind(("nonsense0", 0)))
        sender = net.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mark = str(id(net)).encode()
        await sender.sendto(mark, ("127.0.0.1", 9))
        sock.settimeout(10)
        while True:
            data, address = await sock.recvfrom(2000)
            if data.endswith(mark):
                break
        net.tell(data[28:] == mark, address[0], hex(address[1]))

    await side_by_side(script)


@ensure
async def test_netlink() -> None:
    """A netlink dump (RTM_GETLINK) is asked for and answered."""

    async def script(net: Net) -> None:
        sock = net.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        await net.outcome(lambda: sock.bind((0, 0)))
        request = struct.pack("=IHHII", 17, 18, 0x301, 1, 0) + b"\0"
        await net.outcome(lambda: sock.sendto(request, (0, 0)))
        data, address = await sock.recvfrom(65536)
        net.tell(struct.unpack("=IHHI", data[:12])[1:], address)

    await side_by_side(script)


@ensure
async def test_opening() -> None:
    """A socket is opened, or not, as the original; flags in the type set its mode."""

    async def script(net: Net) -> None:
        for args in (
            (), (socket.AF_INET6,), (socket.AF_UNIX, socket.SOCK_DGRAM),
            (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), (12345,),
            (socket.AF_INET, 77), (socket.AF_INET, socket.SOCK_STREAM, 17), ("x",),
            (socket.AF_INET, socket.SOCK_STREAM, 0, 9999), (-1, -1, -1, 9999), (2, 1, 0, -1),
            (2, 1, 0, "x"),
        ):  # fmt: skip
            sock = await net.outcome(lambda a=args: net.socket(*a))
            if sock is not None:
                net.tell(sock.family, sock.type, sock.proto, sock.gettimeout())
        reading, writing = os.pipe()
        await net.outcome(lambda: net.socket(fileno=reading))
        os.close(reading)  # it stayed ours
        os.close(writing)
        plain = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        taken = net.socket(fileno=plain.detach())
        net.tell(taken.family, taken.type, taken.proto)
        twin = net.keep(taken.dup())
        net.tell(twin.family, twin.type, twin.fileno() != taken.fileno(), twin.gettimeout())
        third = net.fromfd(taken.fileno(), socket.AF_INET6, socket.SOCK_DGRAM)
        net.tell(third.family, third.type)
        await net.outcome(lambda: net.fromfd(9999, socket.AF_INET, socket.SOCK_STREAM))
        await net.outcome(lambda: net.socketpair(socket.AF_INET))
        await net.outcome(lambda: net.socketpair(socket.AF_UNIX, 77))
        a, _ = net.socketpair()
        net.tell(a.family, a.type)
        with a:
            pass
        net.tell(a.fileno())

    await side_by_side(script)


@ensure
async def test_create_server_and_connection() -> None:
    """The module's two makers of connections, with their errors."""

    async def script(net: Net) -> None:
        server = await net.create_server(("localhost", 0), backlog=3)
        name = server.getsockname()
        net.tell(server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
        await net.outcome(lambda: net.create_server(("127.0.0.1", name[1]), reuse_port=True))
        await net.outcome(lambda: net.create_server(("nonsense.invalid", 1)))
        await net.outcome(lambda: net.create_server(("127.0.0.1", 0), dualstack_ipv6=True))
        await net.outcome(lambda: net.create_server(("127.0.0.1", 70000)))
        await net.outcome(lambda: net.create_server("nonsense"))
        both = await net.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        net.tell(both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        client = await net.create_connection(("localhost", both.getsockname()[1]), 5)
        net.tell(client.gettimeout())
        accepted, _ = await both.accept()
        net.keep(accepted)
        client = await net.create_connection(name, source_address=("127.0.0.1", 0))
        net.tell(client.gettimeout())
        refused = free_port()
        for errors in False, True:
            await net.outcome(
                lambda e=errors: net.create_connection(("127.0.0.1", refused), 5, all_errors=e)
            )
        await net.outcome(lambda: net.create_connection(("nonsense.invalid", 1)))
        await net.outcome(lambda: net.create_connection(5))
        await net.outcome(lambda: net.create_connection(("127.0.0.1", 1), -1))

    await side_by_side(script)


@pytest.mark.parametrize("kind", STREAMS)
@ensure
async def test_sendfile(kind: str) -> None:
    """Real files and file-like ones are sent whole or in part, and positioned after it."""

    async def script(net: Net) -> None:
        size = 700_000
        path = net.path("file")
        data = os.urandom(1000) * (size // 1000)
        with open(path, "wb") as file:
            file.write(data)
        a, b = await net.pair(kind)

        async def read(count: int) -> bytes:
            got = bytearray()
            while len(got) < count:
                got += await b.recv(65536)
            return bytes(got)

        for opened in lambda: io.FileIO(path), lambda: io.BytesIO(data):
            for offset, count in (0, None), (1000, None), (5, 10), (0, size * 2), (size, None):
                expected = data[offset:][:count]
                with opened() as file:
                    reader = net.spawn(read(len(expected)))
                    await net.outcome(lambda f=file, o=offset, c=count: a.sendfile(f, o, c))
                    net.tell(await reader() == expected, file.tell())
        open(path, "wb").close()
        with open(path, "rb") as file:
            await net.outcome(lambda: a.sendfile(file))
        with open("/proc/self/stat", "rb") as file:
            await net.outcome(lambda: a.sendfile(file))  # whose size is told as 0
        b.close()
        with io.BytesIO(data) as file:
            a.settimeout(5)
            await net.outcome(lambda: a.sendfile(file))
            net.tell(file.tell())

    await side_by_side(script)


@ensure
async def test_sendfile_wants_a_stream() -> None:
    """Only streams can send files."""

    async def script(net: Net) -> None:
        a, _ = await net.pair("seqpacket")
        await net.outcome(lambda: a.sendfile(io.BytesIO(b"x")))
        a, _ = await net.pair("udp4")
        await net.outcome(lambda: a.sendfile(io.BytesIO(b"x")))

    await side_by_side(script)


@ensure
async def test_the_default_time_out() -> None:
    """A new socket has the module's, an accepted one too."""
    from twistedsock import Socket

    socket.setdefaulttimeout(3.5)
    try:
        with Socket() as sock, socket.socket() as plain:
            assert sock.gettimeout() == plain.gettimeout() == 3.5
            await sock.bind(("127.0.0.1", 0))
            sock.listen()
            plain.connect(sock.getsockname())
            accepted, _ = await sock.accept()
            with accepted:
                assert accepted.gettimeout() == 3.5
    finally:
        socket.setdefaulttimeout(None)
    with Socket() as sock:
        assert sock.gettimeout() is None
        with pytest.raises(TypeError, match="cannot pickle"):
            sock.__getstate__()
