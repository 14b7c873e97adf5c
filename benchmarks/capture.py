"""Recording a burst: ``twistedsock capture -w`` beside ``tcpdump -w``.

``python -m benchmarks.capture`` sends bursts over a wire between two networks of its own, and
tells the CPU time of a packet, the drops, and whether the goals are reached. What a run costs
without a single packet is taken off, so that starting up does not count. The two take turns, so
that what is compared was measured within seconds. Needs root, two cores, gcc, iproute2, util-linux
and tcpdump.
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .build import BuildError, build
from .peer_table import BUILD

SOURCE = Path(__file__).with_name("burst.c")
BURST = BUILD / "burst"
RATE, SECONDS, SIZE_BYTES = 200_000, 2, 200  # datagrams a second, for so long
HERE, THERE, PORT = "10.99.0.1", "10.99.0.9", 9999
RING_KIB, SNAP_BYTES = 32 * 1024, 262_144  # the same for both
READY_S, SETTLE_S, ENDED_S = 20, 0.3, 30
GOAL_RATIO = 3.5  # at most so many times tcpdump's CPU
OURS, OTHER = "twistedsock capture -w", "tcpdump -w"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run has cost: CPU seconds, packets in the file, and packets dropped."""

    cpu_s: float
    captured: int
    dropped: int


def _commands(file: Path) -> dict[str, list[str]]:
    """Return how each program records what comes to PORT."""
    words = ["udp", "port", str(PORT)]
    snap = str(SNAP_BYTES)
    ours = [sys.executable, "-m", "twistedsock", "capture", "wire", "-w", str(file)]
    other = ["tcpdump", "-i", "wire", "-w", str(file), "-B", str(RING_KIB), "-p", "-n"]
    return {
        OURS: [*ours, "--snap", snap, *words],
        OTHER: [*other, "-Z", "root", "-s", snap, *words],
    }


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Start what is started within on *core*."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not ready within {READY_S} s")
        time.sleep(0.02)


def _sample(command: list[str], packets: int, send: Callable[[int], None], core: int) -> Sample:
    with _pinned(core):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    maps = Path(f"/proc/{process.pid}/maps")
    try:
        _until(lambda: process.poll() is not None or "socket:" in maps.read_text())
        time.sleep(SETTLE_S)  # the ring is there; so is all else in a moment
        send(packets)
        time.sleep(SETTLE_S)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read().decode()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    finally:
        if process.returncode is None:
            process.kill()
            process.wait(ENDED_S)
    captured = re.search(r"(\d+) packets? captured", told)
    dropped = re.search(r"(\d+) (?:packets? )?dropped by (?:the )?kernel", told)
    if captured is None or dropped is None:
        raise SystemExit(f"{command[0]}: {told.strip()}")
    return Sample(usage.ru_utime + usage.ru_stime, int(captured[1]), int(dropped[1]))


@contextmanager
def _wire() -> Iterator[int]:
    """A wire to a network of its own; yields the process that holds it."""
    words = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdout.readline()
        enter = f"nsenter --net=/proc/{holder.pid}/ns/net"
        for line in (
            f"ip link add wire type veth peer name wire netns {holder.pid}",
            f"ip address add {HERE}/24 dev wire",
            "ip link set wire up",
            f"{enter} ip address add {THERE}/24 dev wire",
            f"{enter} ip link set wire up",
        ):
            subprocess.run(line.split(), check=True)
        yield holder.pid
    finally:
        holder.stdin.close()
        holder.wait(ENDED_S)


def _measure(rounds: int, packets: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("needs two cores: one that sends, and one that captures")
    figures: dict[str, list[float]] = {OURS: [], OTHER: []}
    lost = {OURS: 0, OTHER: 0}
    with (
        tempfile.TemporaryDirectory() as folder,
        _wire() as holder,
        # Is never read: so there are no ICMP errors.
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.bind((HERE, PORT))

        def send(count: int) -> None:
            where = ["nsenter", f"--net=/proc/{holder}/ns/net", str(BURST), HERE, str(PORT)]
            numbers = [str(each) for each in (RATE, count, SIZE_BYTES)]
            with _pinned(cores[0]):
                subprocess.run([*where, *numbers], check=True, stdout=subprocess.DEVNULL)

        send(1)  # the peer's address is known from here on
        for _ in range(rounds):
            for kind, command in _commands(Path(folder, "file")).items():
                idle = _sample(command, 0, send, cores[-1])
                busy = _sample(command, packets, send, cores[-1])
                figures[kind].append((busy.cpu_s - idle.cpu_s) / packets * 1e6)
                lost[kind] += packets - busy.captured
    _tell(figures, lost, rounds, packets)


def _tell(figures: dict[str, list[float]], lost: dict[str, int], rounds: int, packets: int) -> None:
    pairs = list(zip(figures[OURS], figures[OTHER], strict=True))
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    print(f"{packets} packets of {SIZE_BYTES} bytes, {RATE} a second, median of {rounds} rounds")
    print(f"| | CPU us a packet | / {OTHER} | lost, all rounds |")
    print("|---|---|---|---|")
    for kind, times in figures.items():
        beside = ratio if kind == OURS else 1.0
        print(f"| {kind} | {statistics.median(times):.2f} | {beside:.2f} | {lost[kind]} |")
    reached = "reached" if ratio <= GOAL_RATIO else "MISSED"
    print(f"at most {GOAL_RATIO} x {OTHER}: {ratio:.2f}, {reached}")
    print(f"no drops: {lost[OURS]}, {'reached' if not lost[OURS] else 'MISSED'}")


def main() -> None:
    """Measure, and tell what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--packets", type=int, default=RATE * SECONDS, help="of each burst")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _measure(options.rounds, options.packets)
        return
    try:
        build(SOURCE, BURST)
    except BuildError as error:
        raise SystemExit(str(error)) from None
    command = [sys.executable, "-m", "benchmarks.capture", "--inside"]
    command += ["--rounds", str(options.rounds), "--packets", str(options.packets)]
    raise SystemExit(subprocess.run(["unshare", "--net", *command], check=False).returncode)


if __name__ == "__main__":
    main()
