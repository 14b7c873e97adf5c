"""Ping-pong over AF_UNIX pairs: ``Socket`` beside asyncio's and trio's awaitable sockets.

``python -m benchmarks.pingpong`` tells the CPU time of a round trip (64 bytes there and back, both
ends in one process, 50 pairs at once) in medians, and whether the goals are reached. Each figure
is of a fresh process, and the kinds take turns, so that what is compared was measured within
seconds. trio is left out where it is not installed.
"""

import argparse
import asyncio
import importlib.util
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

SIZE = 64
WARM_UP = 20  # round trips of each pair, before the clock is read
GOALS = {"asyncio": 0.6, "trio": 1.0}  # at most so many times their CPU
OURS = "twistedsock"

# Pairs and round trips of each, to microseconds of CPU a round trip.
Kind = Callable[[int, int], float]
Run = Callable[[int], Awaitable[object]]


async def _measure(run: Run, pairs: int, trips: int) -> float:
    await run(WARM_UP)
    begin = time.process_time()
    await run(trips)
    return (time.process_time() - begin) / (pairs * trips) * 1e6


def _with_twistedsock(pairs: int, trips: int, timeout: float | None = None) -> float:
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor as _reactor
    from twisted.internet.defer import Deferred, gatherResults

    from twistedsock import Socket
    from twistedsock.transports.socket import socketpair

    reactor: Any = _reactor
    ends = [socketpair() for _ in range(pairs)]
    for sock in (each for pair in ends for each in pair):
        sock.settimeout(timeout)
    message = bytes(SIZE)

    async def ping(sock: Socket, trips: int) -> None:
        for _ in range(trips):
            await sock.sendall(message)
            await sock.recv(SIZE)

    async def pong(sock: Socket, trips: int) -> None:
        for _ in range(trips):
            await sock.sendall(await sock.recv(SIZE))

    def run(trips: int) -> Awaitable[object]:
        works = [work for a, b in ends for work in (ping(a, trips), pong(b, trips))]
        return gatherResults([Deferred.fromCoroutine(work) for work in works])

    figures: list[float] = []
    done = Deferred.fromCoroutine(_measure(run, pairs, trips))
    done.addCallback(figures.append).addBoth(lambda _: reactor.stop())
    reactor.run()
    for sock in (each for pair in ends for each in pair):
        sock.close()
    return figures[0]


def _with_timeout(pairs: int, trips: int) -> float:
    return _with_twistedsock(pairs, trips, timeout=30.0)


def _plain_pairs(pairs: int) -> list[tuple[socket.socket, socket.socket]]:
    ends = [socket.socketpair() for _ in range(pairs)]
    for sock in (each for pair in ends for each in pair):
        sock.setblocking(False)
    return ends


def _with_asyncio(pairs: int, trips: int) -> float:
    ends = _plain_pairs(pairs)
    message = bytes(SIZE)

    async def ping(sock: socket.socket, trips: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(trips):
            await loop.sock_sendall(sock, message)
            await loop.sock_recv(sock, SIZE)

    async def pong(sock: socket.socket, trips: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(trips):
            await loop.sock_sendall(sock, await loop.sock_recv(sock, SIZE))

    async def run(trips: int) -> None:
        await asyncio.gather(*(work for a, b in ends for work in (ping(a, trips), pong(b, trips))))

    return asyncio.run(_measure(run, pairs, trips))


def _with_trio(pairs: int, trips: int) -> float:
    import trio  # type: ignore[import-not-found,unused-ignore]  # not everywhere installed

    message = bytes(SIZE)

    async def ping(sock: Any, trips: int) -> None:
        for _ in range(trips):
            await sock.send(message)  # which has no sendall; 64 bytes go at once
            await sock.recv(SIZE)

    async def pong(sock: Any, trips: int) -> None:
        for _ in range(trips):
            await sock.send(await sock.recv(SIZE))

    async def main() -> float:
        ends = [trio.socket.socketpair() for _ in range(pairs)]

        async def run(trips: int) -> None:
            async with trio.open_nursery() as nursery:
                for a, b in ends:
                    nursery.start_soon(ping, a, trips)
                    nursery.start_soon(pong, b, trips)

        return await _measure(run, pairs, trips)

    return float(trio.run(main))


KINDS: dict[str, Kind] = {
    OURS: _with_twistedsock,
    f"{OURS}, settimeout(30)": _with_timeout,
    "asyncio": _with_asyncio,
    "trio": _with_trio,
}


def _sample(kind: str, pairs: int, trips: int) -> float:
    """Return the figure of a fresh process."""
    command = [sys.executable, "-m", __spec__.name, "--kind", kind]
    command += ["--pairs", str(pairs), "--trips", str(trips)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure, and tell what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pingpong")
    parser.add_argument("--rounds", type=int, default=7, help="how often each kind is measured")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--trips", type=int, default=1000, help="round trips of each pair")
    parser.add_argument("--kind", choices=KINDS, help="measure this one here, and print the figure")
    options = parser.parse_args()
    if options.kind:
        print(KINDS[options.kind](options.pairs, options.trips))
        return
    kinds = [kind for kind in KINDS if kind != "trio" or importlib.util.find_spec("trio")]
    figures: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            figures[kind].append(_sample(kind, options.pairs, options.trips))

    def ratio(kind: str, other: str) -> float:
        pairs = zip(figures[kind], figures[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    others = [kind for kind in GOALS if kind in kinds]
    print(f"{options.pairs} pairs, {SIZE} bytes, median of {options.rounds} rounds")
    print("| | CPU us a round trip |" + "".join(f" / {other} |" for other in others))
    print("|---|---|" + "---|" * len(others))
    for kind in kinds:
        cells = "".join(f" {ratio(kind, other):.2f} |" for other in others)
        print(f"| {kind} | {statistics.median(figures[kind]):.1f} |{cells}")
    for other in others:
        reached = "reached" if ratio(OURS, other) <= GOALS[other] else "MISSED"
        print(f"at most {GOALS[other]} x {other}: {ratio(OURS, other):.2f}, {reached}")
    if "trio" not in kinds:
        print("trio is not installed: left out")


if __name__ == "__main__":
    main()
