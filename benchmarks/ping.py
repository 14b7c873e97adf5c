"""Ping beside fping: 2,000 loopback addresses, five requests to each.

``python -m benchmarks.ping`` tells the CPU time of a ping and the median round trip that each
reports, in medians, and whether the goals are reached. Each figure is of a fresh process, and the
two take turns. There are two loads: *paced*, each host once a second and all of them evenly spread
(our default; ``fping -i 0.5 -p 1000``), and *burst*, as fast as it goes (``-i 1ms``;
``fping -i 0``).

The CPU time is from the first address that is looked at to the last result. That Python starts and
imports Twisted first is told apart: fping does so in a millisecond. Needs root, or CAP_NET_RAW.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_GOAL, MEDIAN_GOAL = 1.1, 1.5  # at most so many times fping's
OURS, THEIRS = "twistedsock", "fping"
INTERVALS_S = {"paced": 1.0, "burst": 0.001}
DEADLINE_S = 120


@dataclass(frozen=True)
class Sample:
    """What one process did: CPU time of a ping and median round trip in us, requests lost."""

    cpu_us: float
    median_us: float
    lost: int
    start_s: float = 0.0


def addresses(count: int) -> list[str]:
    """Return *count* addresses of the loopback."""
    return [f"127.0.{number // 250}.{number % 250 + 1}" for number in range(count)]


def ping_here(load: str, targets: int, count: int) -> None:
    """Ping by our own library, and print a sample as JSON."""
    from twisted.internet import reactor as _reactor

    from twistedsock.client.ping import Ping

    reactor: Any = _reactor
    begin = time.process_time()
    run = Ping(reactor, addresses(targets), count=count, interval_s=INTERVALS_S[load])
    found: list[Any] = []

    def finish(results: Any) -> None:
        found.extend([results, time.process_time()])
        reactor.stop()

    reactor.callWhenRunning(lambda: run.start().addBoth(finish))
    reactor.run()
    results, end = found
    times = [each for target in run.targets for each in target.trips.samples_s]
    lost = sum(result.summary.lost for result in results)
    cpu_us = (end - begin) / (targets * count) * 1e6
    print(json.dumps([cpu_us, statistics.median(times) * 1e6, lost, begin]))


def ping_by_fping(load: str, hosts: str, targets: int, count: int) -> Sample:
    """Return what fping needs, and says."""
    gap_ms = 0 if load == "burst" else 1000 * INTERVALS_S[load] / targets
    command = ["fping", "-q", "-C", str(count), "-i", f"{gap_ms:g}", "-p", "1000", "-f", hosts]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    words = [word for line in done.stderr.splitlines() for word in line.partition(" : ")[2].split()]
    times = [float(word) for word in words if word != "-"]
    lost = targets * count - len(times)
    return Sample(cpu_s / (targets * count) * 1e6, statistics.median(times) * 1e3, lost)


def ping_by_us(load: str, targets: int, count: int) -> Sample:
    """Return what we need, and say, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--here", load]
    command += ["--targets", str(targets), "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    return Sample(*json.loads(done.stdout))


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of what one is of the other, round by round."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def tell(load: str, ours: list[Sample], theirs: list[Sample]) -> None:
    """Print the table of one load, and the verdicts."""
    print(f"\n{load}\n| | CPU us a ping | median round trip us | lost |\n|---|---|---|---|")
    for name, samples in ((OURS, ours), (THEIRS, theirs)):
        cpu = statistics.median(each.cpu_us for each in samples)
        median = statistics.median(each.median_us for each in samples)
        print(f"| {name} | {cpu:.1f} | {median:.1f} | {sum(each.lost for each in samples)} |")
    cpu = ratio([each.cpu_us for each in ours], [each.cpu_us for each in theirs])
    median = ratio([each.median_us for each in ours], [each.median_us for each in theirs])
    for what, found, goal in (("CPU", cpu, CPU_GOAL), ("median", median, MEDIAN_GOAL)):
        verdict = "reached" if found <= goal else "MISSED"
        print(f"{what}: {found:.2f} x {THEIRS}, at most {goal}: {verdict}")
    lost = sum(each.lost for each in ours)
    print(f"lost: {lost}: {'MISSED' if lost else 'reached'}")


def main() -> None:
    """Measure, and tell what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ping")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--targets", type=int, default=2000)
    parser.add_argument("--count", type=int, default=5, help="requests to each target")
    parser.add_argument("--here", choices=INTERVALS_S, help="ping here, and print the figures")
    options = parser.parse_args()
    if options.here:
        ping_here(options.here, options.targets, options.count)
        return
    if shutil.which(THEIRS) is None:
        sys.exit("fping is not here: apt-get install fping")
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder, "hosts")
        hosts.write_text("\n".join(addresses(options.targets)) + "\n")
        size = (options.targets, options.count)
        print(f"{options.targets} hosts x {options.count}, median of {options.rounds} rounds")
        starts = []
        for load in INTERVALS_S:
            ours, theirs = [], []
            for _ in range(options.rounds):
                ours.append(ping_by_us(load, *size))
                theirs.append(ping_by_fping(load, str(hosts), *size))
            tell(load, ours, theirs)
            starts += [each.start_s for each in ours]
    print(f"\nCPU of starting Python and importing Twisted: {statistics.median(starts):.2f} s")


if __name__ == "__main__":
    main()
