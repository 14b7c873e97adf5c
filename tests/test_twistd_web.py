"""A stock ``twistd web`` that listens on a ``sock:`` string.

Its own sockets are obtained by pidfd_getfd(2) and read by the standard library alone.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, run
from daemons import TWISTD, eventually

# Becomes the server, with a descriptor as systemd hands it over (sd_listen_fds(3)).
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="web", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
PAGE = b"<html>served over any socket</html>\n"
SYS_PIDFD_GETFD = 438  # on every architecture
LISTEN_QUEUE = struct.Struct("@28xI")  # tcp_info.tcpi_sacked, where a listener tells its backlog
TCP, SOL, IP = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
SO_MAX_PACING_RATE = 47

# As it is written: level, number and value as the kernel tells it, and whether a connection has it.
OPTIONS = {
    "SO_REUSEPORT=1": (SOL, socket.SO_REUSEPORT, 1, True),
    "SO_KEEPALIVE=yes": (SOL, socket.SO_KEEPALIVE, 1, True),
    "TCP_KEEPIDLE=60s": (TCP, socket.TCP_KEEPIDLE, 60, True),
    "TCP_KEEPINTVL=7s": (TCP, socket.TCP_KEEPINTVL, 7, True),
    "KeepAliveProbes=4": (TCP, socket.TCP_KEEPCNT, 4, True),
    "TCP_USER_TIMEOUT=10s": (TCP, socket.TCP_USER_TIMEOUT, 10_000, True),
    "TCP_DEFER_ACCEPT=3s": (TCP, socket.TCP_DEFER_ACCEPT, 3, False),
    "SO_PRIORITY=5": (SOL, socket.SO_PRIORITY, 5, True),
    "SO_MAX_PACING_RATE=1000000": (SOL, SO_MAX_PACING_RATE, 1_000_000, True),
    "IP_TTL=61": (IP, socket.IP_TTL, 61, True),
}


class Web:
    """A foreground ``twistd web``, and what it printed."""

    def __init__(
        self, folder: Path, listen: str, *before: str, pass_fds: tuple[int, ...] = ()
    ) -> None:
        site = folder / "site"
        site.mkdir(exist_ok=True)
        (site / "index.html").write_bytes(PAGE)
        self.output = folder / "output"
        flags = ["-n", "--pidfile=", "web", "--path", str(site), "--listen", listen]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*before, TWISTD, *flags],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                pass_fds=pass_fds,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def lines(self) -> list[str]:
        """What it logged, without times and numbers."""
        lines = [line.partition(" ")[2] for line in self.text.splitlines()]
        return [re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in lines]

    def ready(self) -> int:
        """Return its port, once it listens."""
        eventually(lambda: " starting on " in self.text or self.process.poll() is not None)
        found = re.search(r" starting on (\d+)", self.text)
        assert found, self.text
        return int(found[1])

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Start web servers that do not outlive the test."""
    started: list[Web] = []

    def start(listen: str, *before: str, **more: Any) -> Web:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Web(folder, listen, *before, **more))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(DEADLINE_S)


@contextmanager
def client(port: int, host: str = "127.0.0.1") -> Iterator[http.client.HTTPConnection]:
    """Give a plain client, connected."""
    connection = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
    try:
        yield connection
    finally:
        connection.close()


def fetch(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


@contextmanager
def sockets_of(pid: int) -> Iterator[list[socket.socket]]:
    """Give the TCP sockets of another process: its own, not ones like them."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        found = []
        for name in os.listdir(f"/proc/{pid}/fd"):
            if "socket:" not in os.readlink(f"/proc/{pid}/fd/{name}"):
                continue
            fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
            if fd < 0:
                reason = os.strerror(ctypes.get_errno())
                pytest.skip(f"needs CAP_SYS_PTRACE, for pidfd_getfd(2): {reason}")
            sock = stack.enter_context(socket.socket(fileno=fd))
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                found.append(sock)
        yield found


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(SOL, socket.SO_ACCEPTCONN))


def somaxconn() -> int:
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_every_option_is_on_the_sockets_of_a_stock_twistd_web(web: Callable[..., Web]) -> None:
    """twistd web on a sock: string listens and accepts on sockets that have each option."""
    server = web(f"sock:tcp:0:interface=127.0.0.1:backlog=4096:{':'.join(OPTIONS)}")
    with client(server.ready()) as connection, socket.socket() as fresh:
        assert fetch(connection) == PAGE
        with sockets_of(server.process.pid) as found:
            (listener,) = filter(listens, found)
            (accepted,) = (sock for sock in found if not listens(sock))
            assert accepted.getpeername() == connection.sock.getsockname()
            for written, (level, number, value, is_accepted_too) in OPTIONS.items():
                assert fresh.getsockopt(level, number) != value, written
                assert listener.getsockopt(level, number) == value, written
                if is_accepted_too:
                    assert accepted.getsockopt(level, number) == value, written
            (queue,) = LISTEN_QUEUE.unpack_from(listener.getsockopt(TCP, socket.TCP_INFO, 64))
            assert queue == min(4096, somaxconn())
    server.end()


def test_it_says_and_answers_what_it_does_without_sock(web: Callable[..., Web]) -> None:
    """With and without sock: the page, its headers and every log line are the same."""
    told = []
    for prefix in ("", "sock:"):
        server = web(f"{prefix}tcp:0:interface=127.0.0.1")
        with client(server.ready()) as connection:
            connection.request("GET", "/")
            answer = connection.getresponse()
            headers = [(key, value) for key, value in answer.getheaders() if key != "Date"]
            answers = (answer.status, headers, answer.read())
        ended = server.end()
        lines = [line for line in server.lines if "HTTP/" not in line]
        told.append((answers, ended, lines))
    # Headers have the file's time, which may differ by a second.
    for answers, _, _ in told:
        answers[1][:] = [pair for pair in answers[1] if pair[0] != "Last-Modified"]
    assert told[0] == told[1]
    assert any("Site starting on N" in line for line in told[1][2])


def test_two_share_a_port_and_the_backlog_is_ours(web: Callable[..., Web]) -> None:
    """SO_REUSEPORT lets a second process take the same port; unasked, 1024 may wait."""
    first = web("sock:tcp:0:interface=127.0.0.1:SO_REUSEPORT=1")
    port = first.ready()
    second = web(f"sock:tcp:{port}:interface=127.0.0.1:SO_REUSEPORT=1")
    assert second.ready() == port
    with sockets_of(second.process.pid) as (listener,):
        (queue,) = LISTEN_QUEUE.unpack_from(listener.getsockopt(TCP, socket.TCP_INFO, 64))
        assert queue == min(1024, somaxconn())
    third = web(f"sock:tcp:{port}:interface=127.0.0.1")
    assert third.process.wait(DEADLINE_S) == 1
    assert "Address already in use" in third.text
    for each in (first, second):
        each.end()


def test_inherited_options_cost_no_call_for_each_connection(
    web: Callable[..., Web], tmp_path: Path
) -> None:
    """Every setsockopt comes before bind; 50 connections later there has been no other."""
    if shutil.which("strace") is None:
        pytest.skip("needs the package strace")
    if run("strace", "-o", tmp_path / "try", "true").returncode:
        pytest.skip("needs CAP_SYS_PTRACE, to trace a process")
    options = "SO_REUSEPORT=1:SO_KEEPALIVE=1:TCP_KEEPIDLE=60s:TCP_USER_TIMEOUT=10s:IP_TTL=61"
    calls = {}
    for string in ("tcp:0", f"sock:tcp:0:{options}"):
        trace = tmp_path / f"trace{len(calls)}"
        strace = ("strace", "-D", "-f", "-o", str(trace), "-e", "trace=setsockopt,bind,listen")
        server = web(f"{string}:interface=127.0.0.1", *strace)
        port = server.ready()
        for _ in range(50):
            with client(port) as connection:
                assert fetch(connection) == PAGE
        server.end()
        eventually(lambda: "+++" in trace.read_text().splitlines()[-1])  # noqa: B023
        found = re.findall(
            r"^\d+ +(setsockopt|bind|listen)\(\d+, (\w+, \w+)?", trace.read_text(), re.MULTILINE
        )
        calls[string] = [name if name != "setsockopt" else what for name, what in found]
    stock, ours = ((each, each.index("listen") + 1) for each in calls.values())
    # twisted.web itself sets one on each connection.
    assert ours[0][ours[1] :] == stock[0][stock[1] :] == ["SOL_TCP, TCP_NODELAY"] * 50
    before = ours[0][: ours[0].index("bind")]
    for name in ("SO_REUSEPORT", "SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_USER_TIMEOUT", "IP_TTL"):
        assert any(call.endswith(name) for call in before), name


def test_tls_ipv6_and_escapes(web: Callable[..., Web], certificate: Path) -> None:
    """An ssl: string with an escaped IPv6 interface serves HTTPS, with its options."""
    server = web(
        rf"sock:ssl:0:interface=\:\:1:privateKey={certificate}:TCP_USER_TIMEOUT=5s:SO_PRIORITY=3"
    )
    port = server.ready()
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("::1", port, timeout=DEADLINE_S, context=context)
    assert fetch(connection) == PAGE
    with sockets_of(server.process.pid) as found:
        assert {sock.family for sock in found} == {socket.AF_INET6}
        assert len(found) == 2
        for sock in found:
            assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 5000
            assert sock.getsockopt(SOL, socket.SO_PRIORITY) == 3
    connection.close()
    server.end()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate with its key, for this machine."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the package openssl")
    pytest.importorskip("OpenSSL", reason="needs pyOpenSSL")
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
    made = run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", names),
        *("-keyout", path, "-out", path.with_suffix(".crt")),
    )
    assert made.returncode == 0, made.stderr
    with path.open("a") as both:
        both.write(path.with_suffix(".crt").read_text())
    return path


def test_an_adopted_socket_gets_what_can_still_be_set(web: Callable[..., Web]) -> None:
    """A systemd: string sets options on the socket it was handed, and on each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        string = "sock:systemd:domain=INET:name=web:TCP_USER_TIMEOUT=9s:SO_PRIORITY=4"
        server = web(string, sys.executable, "-c", AS_SYSTEMD, str(fd), pass_fds=(fd,))
        server.ready()
        with client(listener.getsockname()[1]) as connection:
            assert fetch(connection) == PAGE
            assert listener.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 9000
            with sockets_of(server.process.pid) as found:
                accepted = [sock for sock in found if not listens(sock)]
                assert len(accepted) == 1
                assert accepted[0].getsockopt(SOL, socket.SO_PRIORITY) == 4
                assert accepted[0].getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 9000
        server.end()


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("TCP_CONGESTION=nonsense", "TCP_CONGESTION: No such file or directory (ENOENT)"),
        ("TCP_KEEPIDEL=1", "TCP_KEEPIDEL: no socket option has this name; did you mean"),
    ],
)
def test_a_wrong_option_stops_it_with_the_reason(
    web: Callable[..., Web], listen: str, reason: str
) -> None:
    """What is refused ends twistd with 1, as a port that is taken does, and says why."""
    server = web(f"sock:tcp:0:interface=127.0.0.1:{listen}")
    assert server.process.wait(DEADLINE_S) == 1
    assert reason in server.text
