"""The daemon as a process, and plain sockets as its clients."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import DEADLINE_S

TWISTD = Path(sys.executable).with_name("twistd")
GREETING = b"Welcome to the server. Type something and hit enter\n"


def eventually(condition: Callable[[], object], seconds: float = DEADLINE_S) -> object:
    """Wait until *condition* gives something true, and return that."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


class Daemon:
    """A foreground daemon on free ports, and what it printed."""

    def __init__(self, folder: Path, *flags: str, preexec: Callable[[], None] | None = None):
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", "sockservice", *flags],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                preexec_fn=preexec,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def ready(self) -> Daemon:
        """Wait until it accepts."""
        eventually(lambda: "accepting on" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.text
        # Several listeners are logged in one turn of the reactor.
        time.sleep(0.05)
        return self

    def port(self, scheme: str = "tcp") -> int:
        """Return the port of its first listener of *scheme*."""
        found = re.search(rf"accepting on {scheme}:\S*:(\d+)", self.text)
        assert found, self.text
        return int(found[1])

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.port()), timeout=DEADLINE_S)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()


Start = Callable[..., Daemon]


def read_all(sock: socket.socket) -> bytes:
    """Return what *sock* receives until the end."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(port: int, message: bytes, host: str = "127.0.0.1") -> bytes:
    """Send *message*, half-close, and return the whole answer."""
    with socket.create_connection((host, port), timeout=DEADLINE_S) as sock:
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def ask_udp(port: int, message: bytes, host: str = "127.0.0.1") -> bytes:
    """Send one datagram and return the one that answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect((host, port))
        sock.send(message)
        return sock.recv(65536)


def fill(client: socket.socket) -> int:
    """Send on a non-blocking socket until nothing more fits for a while."""
    sent, full = 0, 0
    while full < 20:
        try:
            sent += client.send(b"x" * 65536)
            full = 0
        except BlockingIOError:
            full += 1
            time.sleep(0.01)
    return sent
