"""What an echo costs over TCP, UNIX streams and SEQPACKET: the server's CPU for each message.

One daemon serves all three, and they take turns, for what a message costs on a machine drifts by
more than what is looked for. Needs Linux and nothing but the package:

    python benchmarks/unix_load.py --connections 50 --rounds 7
"""

import argparse
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

TWISTD = Path(sys.executable).with_name("twistd")
MESSAGE = b"x" * 1024
START_S = 30.0
FAMILIES = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
}


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[int, dict[str, str | tuple[str, int]]]]:
    """Run an echo daemon; give its process and where each kind connects to."""
    flags = ["--service", "echo", "--listen", "tcp:127.0.0.1:0"]
    flags += ["--listen", f"unix:{folder}/s", "--listen", f"seqpacket:{folder}/q"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [TWISTD, "-n", "--pidfile=", "sockservice", *flags],
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        end = time.monotonic() + START_S
        while "seqpacket:" not in (text := (folder / "output").read_text()):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the daemon does not serve:\n{text}")
            time.sleep(0.05)
        port = re.search(r"tcp:127\.0\.0\.1:(\d+)", text)
        assert port is not None
        tcp = ("127.0.0.1", int(port[1]))
        yield process.pid, {"tcp": tcp, "unix": f"{folder}/s", "seqpacket": f"{folder}/q"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def cpu_us(pid: int) -> float:
    """Return the processor time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def echo(pid: int, clients: dict[int, socket.socket], seconds: float) -> float:
    """Keep one message of each client on its way; return the server's microseconds for each."""
    epoll = select.epoll()
    for fd, client in clients.items():
        epoll.register(fd, select.EPOLLIN)
        client.send(MESSAGE)
    count, before, end = 0, cpu_us(pid), time.monotonic() + seconds
    waiting = len(clients)
    while waiting:
        is_over = time.monotonic() > end
        for fd, _ in epoll.poll(5):
            client = clients[fd]
            if len(client.recv(len(MESSAGE))) != len(MESSAGE):
                raise SystemExit("an echo came back in pieces")
            count += 1
            if is_over:
                waiting -= 1
            else:
                client.send(MESSAGE)
    used = cpu_us(pid) - before
    epoll.close()
    return used / count


def main() -> None:
    """Print the median of each kind, and every round's, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    figures: dict[str, list[float]] = {kind: [] for kind in FAMILIES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pid, places = stack.enter_context(daemon(folder))
        clients: dict[str, dict[int, socket.socket]] = {}
        for kind, family in FAMILIES.items():
            opened = [stack.enter_context(socket.socket(*family)) for _ in range(given.connections)]
            for client in opened:
                client.connect(places[kind])
            clients[kind] = {client.fileno(): client for client in opened}
        if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(pid, {0})
            os.sched_setaffinity(0, {1})
        for kind in FAMILIES:
            echo(pid, clients[kind], given.seconds / 4)
        for _ in range(given.rounds):
            for kind in FAMILIES:
                figures[kind].append(round(echo(pid, clients[kind], given.seconds), 2))
    told = {kind: {"cpu_us": median(each), "rounds": each} for kind, each in figures.items()}
    print(json.dumps({"connections": given.connections, **told}, indent=1))


if __name__ == "__main__":
    main()
