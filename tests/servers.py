"""Small servers for clients to meet: plain sockets and threads, each wrong in its own way."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from conftest import DEADLINE_S
from daemons import eventually

GREETING = b"hello, who is there?\n"


class Server:
    """Listens on loopback, and serves each connection by *serve* in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> None:
        self._serve = serve
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.address = f"tcp:[{host}]:{self.port}" if ":" in host else f"tcp:{host}:{self.port}"
        self.accepted: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE_S)
            self.accepted.append(sock)
            thread = threading.Thread(target=self._one, args=(sock,))
            thread.start()
            self._threads.append(thread)  # started: ``served`` may join it

    def _one(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):  # the client is gone
            self._serve(sock)

    def served(self, connections: int = 1) -> None:
        """Wait until so many connections have been served to their end."""
        eventually(lambda: len(self._threads) > connections)
        for thread in self._threads[1:]:
            thread.join(DEADLINE_S)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._threads[0].join()
        self._listener.close()
        for sock in self.accepted:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def echo(sock: socket.socket) -> None:
    """Send back what comes, to the end."""
    while data := sock.recv(65536):
        sock.sendall(data)


def reset(sock: socket.socket) -> None:
    """Reset the connection at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def greet_and_reset(sock: socket.socket) -> None:
    """Say something; reset once the client has answered."""
    sock.sendall(GREETING)
    sock.recv(1)
    reset(sock)


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Return what sends *data* and ends."""
    return lambda sock: sock.sendall(data)


def flood(sock: socket.socket) -> None:
    """Send for ever."""
    while True:
        sock.sendall(b"x" * 65536)


def silent(sock: socket.socket) -> None:
    """Say nothing, but take what comes until the end."""
    while sock.recv(65536):
        pass


class Deaf:
    """Reads nothing until it is told to; then everything, and counts it."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.received = 0

    def __call__(self, sock: socket.socket) -> None:
        self.may_read.wait(DEADLINE_S)
        while data := sock.recv(65536):
            self.received += len(data)


@contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """Give a port that answers no SYN: its queue is full (listen(2))."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=0) as listener:
        fillers = [socket.socket(family) for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def udp_socket(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """Give a bound datagram socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.settimeout(DEADLINE_S)
        yield sock
