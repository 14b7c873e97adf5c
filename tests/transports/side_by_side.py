"""One script, two kinds of sockets: the standard library's, blocking in a thread, and ours.

A script is an ``async`` function of a ``Net``. What it tells (results, and each exception's type,
number and text) must be the same on both.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine
from itertools import zip_longest
from typing import Any

from conftest import DEADLINE_S, within
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

import twistedsock.transports.socket as ours
from twistedsock import Socket

# What our socket awaits; its other methods are plain.
AWAITED = {
    "accept", "bind", "connect", "connect_ex", "recv", "recv_into", "recvfrom", "recvfrom_into",
    "recvmsg", "recvmsg_into", "send", "sendall", "sendto", "sendmsg", "sendfile",
}  # fmt: skip
FILE_AWAITED = {
    "read", "read1", "readline", "readlines", "readinto", "readinto1", "readall", "peek",
    "write", "writelines", "flush", "close",
}  # fmt: skip

Script = Callable[["Net"], Awaitable[None]]


class Plain:
    """A blocking socket or file whose waiting methods look awaitable."""

    def __init__(self, real: Any, awaited: set[str]) -> None:
        self.real, self.awaited = real, awaited

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if name == "makefile":
            return lambda *args, **more: Plain(found(*args, **more), FILE_AWAITED)
        if name == "dup":
            return lambda: Plain(found(), AWAITED)
        if name not in self.awaited:
            return found

        async def call(*args: Any, **more: Any) -> Any:
            result = found(*args, **more)
            if name == "accept":
                return Plain(result[0], AWAITED), result[1]
            return result

        return call

    def __repr__(self) -> str:
        return repr(self.real)

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *exc: object) -> None:
        self.real.__exit__(*exc)


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


class Net:
    """What a script is given: sockets of one kind, and a place to tell."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.opened: list[Any] = []
        self.folder = tempfile.mkdtemp(prefix="h8-")

    def path(self, name: str) -> str:
        """Return a path for an AF_UNIX socket, told by its name alone."""
        return os.path.join(self.folder, name)

    def tell(self, *what: Any) -> None:
        self.told.append(self.shown(what))

    def shown(self, what: Any) -> Any:
        """Return *what* such that both kinds show alike: no sockets, ports or folders."""
        if isinstance(what, Plain | Socket):
            return "a socket"
        if isinstance(what, tuple | list):
            return type(what)(map(self.shown, what))
        if isinstance(what, str | bytes) and type(what) is str:
            return re.sub(r"\b[3-6]\d{4}\b", "PORT", what.replace(self.folder, "FOLDER"))
        if isinstance(what, int) and 30000 < what < 65536:
            return "a port"
        return what

    async def outcome(self, call: Callable[[], Any]) -> Any:
        """Tell, and return, what *call* returns; or tell what it raises."""
        try:
            result = call()
            if inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            if type(error) is AssertionError:
                raise
            text = str(error)
            if isinstance(error, TypeError) and re.search(r"argument.*(missing|given|:)", text):
                text = "wrong number of arguments"
            self.tell(type(error).__name__, getattr(error, "errno", None), text)
            return None
        self.tell(result)
        return result

    def keep(self, sock: Any) -> Any:
        self.opened.append(sock)
        return sock

    async def pair(self, kind: str) -> tuple[Any, Any]:
        """Return two connected sockets of *kind*: tcp4, tcp6, unix, seqpacket, unixgram, udp4..."""
        if kind in UNIX_TYPES:
            left, right = self.socketpair(socket.AF_UNIX, UNIX_TYPES[kind])
        elif kind.startswith("tcp"):
            listener = self.listener(kind)
            left = self.socket(FAMILIES[kind[-1]], socket.SOCK_STREAM)
            await left.connect(listener.getsockname())
            right, _ = await listener.accept()
            listener.close()
        else:
            left, right = (self.socket(FAMILIES[kind[-1]], socket.SOCK_DGRAM) for _ in range(2))
            for sock in left, right:
                await sock.bind((HOSTS[kind[-1]], 0))
            await left.connect(right.getsockname())
            await right.connect(left.getsockname())
        return self.keep(left), self.keep(right)

    def listener(self, kind: str, backlog: int = 5) -> Any:
        sock = self.socket(FAMILIES[kind[-1]], socket.SOCK_STREAM)
        drive(wait_for_nothing(sock.bind((HOSTS[kind[-1]], 0))))
        sock.listen(backlog)
        return sock

    def clear(self) -> None:
        for sock in self.opened:
            sock.close()
        shutil.rmtree(self.folder)

    socket: Any
    socketpair: Any
    spawn: Any
    gather: Any
    module: Any


async def wait_for_nothing(what: Any) -> Any:
    return await what


FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}
HOSTS = {"4": "127.0.0.1", "6": "::1"}
UNIX_TYPES = {
    "unix": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "unixgram": socket.SOCK_DGRAM,
}


class PlainNet(Net):
    """The standard library's."""

    def socket(self, *args: Any, **more: Any) -> Any:
        return self.keep(Plain(socket.socket(*args, **more), AWAITED))

    def socketpair(self, *args: Any) -> Any:
        return tuple(self.keep(Plain(each, AWAITED)) for each in socket.socketpair(*args))

    async def create_server(self, *args: Any, **more: Any) -> Any:
        return self.keep(Plain(socket.create_server(*args, **more), AWAITED))

    async def create_connection(self, *args: Any, **more: Any) -> Any:
        return self.keep(Plain(socket.create_connection(*args, **more), AWAITED))

    def fromfd(self, *args: Any) -> Any:
        return self.keep(Plain(socket.fromfd(*args), AWAITED))

    async def send_fds(self, sock: Any, *args: Any) -> Any:
        return socket.send_fds(sock.real, *args)

    async def recv_fds(self, sock: Any, *args: Any) -> Any:
        return socket.recv_fds(sock.real, *args)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* beside the script; return what waits for it."""
        result: list[Any] = []
        thread = threading.Thread(target=lambda: result.append(drive(work)), daemon=True)
        thread.start()

        async def join() -> Any:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "it hangs"
            return result[0] if result else None

        return join


class OurNet(Net):
    """Ours."""

    def socket(self, *args: Any, **more: Any) -> Any:
        return self.keep(Socket(*args, **more))

    def socketpair(self, *args: Any) -> Any:
        return tuple(map(self.keep, ours.socketpair(*args)))

    async def create_server(self, *args: Any, **more: Any) -> Any:
        return self.keep(await ours.create_server(*args, **more))

    async def create_connection(self, *args: Any, **more: Any) -> Any:
        return self.keep(await ours.create_connection(*args, **more))

    def fromfd(self, *args: Any) -> Any:
        return self.keep(ours.fromfd(*args))

    def send_fds(self, *args: Any) -> Any:
        return ours.send_fds(*args)

    def recv_fds(self, *args: Any) -> Any:
        return ours.recv_fds(*args)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> Any:
        running = Deferred.fromCoroutine(work)

        async def join() -> Any:
            return await running

        return join


async def side_by_side(script: Script) -> list[Any]:
    """Return what *script* tells, which is the same on both kinds of sockets."""

    async def run(net: Net) -> list[Any]:
        try:
            await script(net)
        finally:
            net.clear()
        return net.told

    plain, mine = await within(
        gatherResults(
            [
                deferToThread(lambda: drive(run(PlainNet()))),
                Deferred.fromCoroutine(run(OurNet())),
            ],
            consumeErrors=True,
        )
    )
    pairs = enumerate(zip_longest(plain, mine))
    different = {at: both for at, both in pairs if both[0] != both[1]}
    assert not different, f"(plain, ours): {different}"
    assert plain, "it tells nothing"
    return plain
