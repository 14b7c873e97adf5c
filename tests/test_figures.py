"""What the daemon promises under load, held with real sockets. Counts and bytes, never times."""

from __future__ import annotations

import resource
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import DEADLINE_S
from daemons import GREETING, Daemon, Start, ask, eventually, fill, read_all

ECHO = ("--service", "echo", "--listen", "tcp:127.0.0.1:0")


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    return float(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["socat", "-t10", "-", "TCP:127.0.0.1:{port}"], ["ncat", "127.0.0.1", "{port}"]],
    ids=["socat", "ncat"],
)
def test_half_closing_clients_get_every_byte(start: Start, command: list[str]) -> None:
    """500 of 500 clients that half-close at once after sending read their whole answer."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs the Debian package {command[0]}")
    daemon = start("--port", "0").ready()
    words = [word.format(port=daemon.port()) for word in command]

    def client(number: int) -> bool:
        message = b"%d\n" % number
        done = subprocess.run(words, input=message, capture_output=True, timeout=60, check=False)
        return done.stdout == GREETING + b"OK..." + message

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(client, range(500))) == 500
    assert daemon.stop() == 0


@pytest.mark.parametrize(("piece", "total"), [(1, 2**18), (7, 2**20), (2**20, 2**26)])
def test_a_stream_comes_back_identical(start: Start, piece: int, total: int) -> None:
    """Megabytes through echo, in small and large writes, come back as they were."""
    daemon = start(*ECHO).ready()
    pattern = bytes(range(256)) * 4096 + b"odd"
    payload = (pattern * (total // len(pattern) + 1))[:total]
    with daemon.connect() as client:
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(read_all(client)))
        reader.start()
        for position in range(0, total, piece):
            client.sendall(payload[position : position + piece])
        client.shutdown(socket.SHUT_WR)
        reader.join(120)
        assert received[0] == payload
    assert daemon.stop() == 0


def test_a_full_service_serves_exactly_its_limit(start: Start) -> None:
    """With 1,000 clients at once and max_connections = 100, 100 are served at any time.

    The others wait in the kernel's queue and are served as places fall free; nobody who is
    served is dropped.
    """
    daemon = start("--port", "0", "--set", "services.main.limits.max_connections=100").ready()
    clients = [daemon.connect() for _ in range(1000)]
    try:
        waiting, most, done = list(clients), 0, 0
        while waiting:
            served = []
            deadline = time.monotonic() + DEADLINE_S
            while len(served) < min(100, len(waiting)):
                served = [client for client in waiting if has_greeting(client)]
                assert time.monotonic() < deadline
            time.sleep(0.05)
            served = [client for client in waiting if has_greeting(client)]
            most = max(most, len(served))
            for client in served:
                client.recv(len(GREETING), socket.MSG_WAITALL)
                client.sendall(b"x")
                assert client.recv(6, socket.MSG_WAITALL) == b"OK...x"
                client.close()
                done += 1
            waiting = [client for client in waiting if client not in served]
        assert (most, done) == (100, 1000)
    finally:
        for client in clients:
            client.close()
    assert daemon.stop() == 0


def has_greeting(client: socket.socket) -> bool:
    """Return whether *client* has been greeted, leaving the greeting to be read."""
    poller = select.poll()
    poller.register(client, select.POLLIN)
    return bool(poller.poll(0)) and len(client.recv(1, socket.MSG_PEEK)) == 1


def test_a_client_that_never_reads_costs_little(start: Start) -> None:
    """Whatever a client sends without reading, the daemon holds at most 4 MiB for it."""
    daemon = start(*ECHO).ready()
    ask(daemon.port(), b"x" * 100_000)
    before = rss_bytes(daemon.process.pid)
    with daemon.connect() as client:
        client.setblocking(False)
        sent = fill(client)
        assert sent < 200 * 2**20  # it was held back
        assert rss_bytes(daemon.process.pid) - before <= 4 * 2**20
    assert daemon.stop() == 0


def test_amplified_answers_are_held_back_too(start: Start) -> None:
    """Many small messages with large answers do not pile up answers for who does not read."""
    daemon = start(
        "--listen", "tcp:127.0.0.1:0", "--framing", "line",
        "--set", f"services.main.settings.prefix={'p' * 20_000}",
    ).ready()  # fmt: skip
    ask(daemon.port(), b"x\n")
    before = rss_bytes(daemon.process.pid)
    with daemon.connect() as client:
        client.setblocking(False)
        full = 0
        while full < 20:
            try:
                client.send(b"\n" * 65536)
            except BlockingIOError:
                full += 1
                time.sleep(0.01)
        assert rss_bytes(daemon.process.pid) - before <= 8 * 2**20
    assert daemon.stop() == 0


def test_few_descriptors_are_enough(start: Start) -> None:
    """With 64 descriptors and 500 clients the CPU stays low and the served stay served."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    daemon = start("--port", "0", preexec=few).ready()
    assert "max_connections lowered from 10000" in daemon.text
    clients = [daemon.connect() for _ in range(500)]
    try:
        served = [client for client in clients if eventually_greeted(client, 0.02)]
        assert 20 <= len(served) <= 60
        before = cpu_seconds(daemon.process.pid)
        time.sleep(1)
        assert cpu_seconds(daemon.process.pid) - before < 0.2
        for client in served:
            client.recv(len(GREETING), socket.MSG_WAITALL)
            client.sendall(b"x")
            assert client.recv(6, socket.MSG_WAITALL) == b"OK...x"
    finally:
        for client in clients:
            client.close()
    assert eventually(lambda: ask(daemon.port(), b"x") == GREETING + b"OK...x", 5)
    assert daemon.stop() == 0


def test_datagram_peers_need_no_descriptors(start: Start) -> None:
    """A service without streams keeps its bound on peers, however few descriptors there are."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    daemon = start("--listen", "udp:127.0.0.1:0", preexec=few).ready()
    assert "lowered" not in daemon.text
    assert daemon.stop() == 0


def eventually_greeted(client: socket.socket, seconds: float) -> bool:
    """Return whether *client* is greeted within a moment."""
    end = time.monotonic() + seconds
    while not has_greeting(client):
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.parametrize("error", ["ECONNABORTED", "ENFILE", "ENOMEM", "EPERM"])
def test_failing_accepts_neither_spin_nor_flood(start: Start, error: str) -> None:
    """With every accept failing, the CPU stays low and the log gets at most two lines a second."""
    if shutil.which("strace") is None:
        pytest.skip("needs the Debian package strace")
    daemon = start("--port", "0").ready()
    tracer = subprocess.Popen(
        ["strace", "-q", "-f", "-o", "/dev/null", "-e", f"inject=accept4:error={error}",
         "-e", "trace=accept4", "-p", str(daemon.process.pid)],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        time.sleep(0.5)
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"strace cannot attach here: {tracer.stderr.read().decode().strip()}")
        with daemon.connect():
            before, lines = cpu_seconds(daemon.process.pid), daemon.text.count("\n")
            time.sleep(2)
            assert cpu_seconds(daemon.process.pid) - before < 0.3
            assert 1 <= daemon.text.count(f": {error};") <= 5
            assert daemon.text.count("\n") - lines <= 5
    finally:
        tracer.terminate()
        tracer.communicate()
    assert ask(daemon.port(), b"x") == GREETING + b"OK...x"
    assert daemon.stop() == 0


@pytest.mark.parametrize("size", [0, 1, 511, 8193, 40_000, 65_507])
def test_datagrams_come_back_whole(start: Start, size: int) -> None:
    """Every size of datagram that UDP can carry comes back through echo."""
    daemon = start("--service", "echo", "--listen", "udp:127.0.0.1:0").ready()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect(("127.0.0.1", daemon.port("udp")))
        payload = bytes(number % 251 for number in range(size))
        client.send(payload)
        assert client.recv(65_536) == payload
    assert daemon.stop() == 0


def udp_datagram(source: int, destination: int, payload: bytes) -> bytes:
    """Return a UDP datagram from and to loopback ports, without a checksum (RFC 768)."""
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def test_two_echo_services_are_not_made_to_talk(start: Start) -> None:
    """Forged datagrams between two echo services of a daemon are not answered endlessly."""
    daemon: Daemon = start(
        "--listen", "udp:127.0.0.1:0", "--service", "echo",
        "--set", 'services.other={service="echo", listen=["udp:127.0.0.1:0"]}',
    ).ready()  # fmt: skip
    eventually(lambda: daemon.text.count("accepting on udp") == 2)
    first, second = (int(line.rpartition(":")[2]) for line in daemon.text.splitlines()
                     if "accepting on udp" in line)  # fmt: skip
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW, to forge a source")
    with raw:
        # The raw socket hears every UDP datagram of the machine: count those between the two.
        raw.setblocking(False)
        raw.sendto(udp_datagram(first, second, b"loop"), ("127.0.0.1", 0))
        raw.sendto(udp_datagram(second, first, b"loop"), ("127.0.0.1", 0))
        time.sleep(1)
        between = 0
        while True:
            try:
                packet = raw.recv(65_536)
            except BlockingIOError:
                break
            ports = struct.unpack_from("!HH", packet, 4 * (packet[0] & 15))
            between += set(ports) == {first, second}
    assert 1 <= between <= 10
    eventually(lambda: "own_service" in daemon.text)
    assert daemon.stop() == 0
