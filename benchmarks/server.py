"""A peer as a running process, alone on its core. Knows how to start, prove and end it."""

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .peer_table import Peer

START_TIMEOUT_S = 15  # from the program's start to its first right answer
PROBE_TIMEOUT_S = 3
STOP_TIMEOUT_S = 5  # after SIGTERM; then it is killed
PORTS = range(21000, 32000)  # below the kernel's ephemeral ports, so that no client has it
PROBE = b"a line to be echoed\n"


class ServerUnavailable(Exception):
    """A peer could not be started; says why in one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """A peer that serves on 127.0.0.1:*port*, and greets with *greeting_bytes* bytes."""

    peer: Peer
    port: int
    pid: int
    greeting_bytes: int


def raise_descriptor_limit() -> int:
    """Raise the limit on open files as far as it goes, for our children too; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Have processes that are started inside run on *core* alone, from their first instruction."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(peer: Peer, core: int, directory: Path) -> Iterator[Server]:
    """Run *peer* on *core* until the block ends; its output goes to a file in *directory*.

    Raises:
        ServerUnavailable: It is not there, ended at once, or did not echo in time.
    """
    port = _free_port()
    log = directory / f"{peer.name}-{port}.log"
    command = [word.format(port=port) for word in peer.command]
    with log.open("wb") as output:
        try:
            with pinned(core):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    process_group=0,  # Ctrl-C is for us; we end it
                )
        except FileNotFoundError:
            raise ServerUnavailable(f"{Path(command[0]).name} is not installed") from None
    try:
        yield Server(peer, port, process.pid, _wait_until_ready(peer, process, port, log))
    finally:
        _stop(process)


def _free_port() -> int:
    """Return a port that is free for TCP and UDP."""
    for port in PORTS:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                stream.bind(("127.0.0.1", port))
                datagram.bind(("127.0.0.1", port))
                return port
    raise ServerUnavailable(f"no free port in {PORTS.start}..{PORTS.stop - 1}")


def _wait_until_ready(peer: Peer, process: subprocess.Popen[bytes], port: int, log: Path) -> int:
    """Return the size of the greeting, once *peer* has echoed."""
    probe = _probe_datagram if peer.kinds == {"udp"} else _probe_stream
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            told = _last_line(log).replace(peer.command[0], Path(peer.command[0]).name)
            raise ServerUnavailable(told or f"ended with {process.returncode}")
        try:
            return probe(peer, port)
        except OSError as exc:
            if time.monotonic() > deadline:
                raise ServerUnavailable(f"no echo within {START_TIMEOUT_S} s: {exc}") from exc
            time.sleep(0.05)


def _probe_stream(peer: Peer, port: int) -> int:
    with (
        socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as connection,
        connection.makefile("rb") as replies,
    ):
        greeting = replies.readline() if peer.greets else b""
        connection.sendall(PROBE)
        _check(replies.read(len(peer.reply_prefix) + len(PROBE)), peer)
        return len(greeting)


def _probe_datagram(peer: Peer, port: int) -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        datagram.settimeout(PROBE_TIMEOUT_S)
        datagram.connect(("127.0.0.1", port))
        datagram.send(PROBE)
        _check(datagram.recv(65536), peer)
        return 0


def _check(answer: bytes, peer: Peer) -> None:
    if answer != peer.reply_prefix.encode() + PROBE:
        raise ServerUnavailable(f"answered {PROBE!r} with {answer!r}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
