"""One load on one server: its figures. Knows the load generator and /proc; no other peer."""

import contextlib
import json
import re
import select
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .loads import Load
from .peer_table import BUILD
from .server import Server, pinned

LOAD = BUILD / "load"
MIB = 1024 * 1024
WARMUP_S = 0.1
SLACK_S = 75  # over the window, until a load generator is given up; it gives up by itself earlier
IDLE_TURNS = 3
OPEN_TIMEOUT_S = 60  # to open the idle connections
SETTLE_S = 0.3  # before memory is read

Figures = dict[str, float]
"""The figures of one sample, by name: rate (units/s), p50_us, p90_us, p99_us, max_us, cpu_us (of
the server, per unit), busy_percent (of the server's core), waited_percent (of the window, in which
server or load was kept from its core), lost_percent (of datagrams); for idle also idle_bytes (per
connection) and idle_cost (cpu_us beside idle connections / alone)."""


class MeasureError(Exception):
    """A server did not stand a load; says why in one line."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """How to measure: the load's *core*, the window in *seconds*, the *idle_connections*."""

    core: int
    seconds: float
    idle_connections: int


def measure(server: Server, load: Load, how: Measuring) -> Figures:
    """Return the figures of *load* on *server*.

    Raises:
        MeasureError: Any byte was wrong, or any answer did not come.
    """
    return _run(server, load.kind, load, how.core, how.seconds)


def measure_idle(alone: Server, crowded: Server, load: Load, how: Measuring) -> Figures:
    """Return the figures of a busy client beside the idle connections that *crowded* gets here.

    *alone* is the same peer without them. The two take turns, for what a message costs on a
    machine drifts within seconds by more than what is looked for.

    Raises:
        MeasureError: Any byte was wrong, or any answer did not come.
    """
    time.sleep(SETTLE_S)
    before = memory_bytes(crowded.pid)
    with _idle_connections(crowded, how):
        time.sleep(SETTLE_S)
        grown = memory_bytes(crowded.pid) - before
        turns = [
            [_run(server, "echo", load, how.core, how.seconds / 2) for server in (alone, crowded)]
            for _ in range(IDLE_TURNS)
        ]
    figures = {name: median(beside[name] for _, beside in turns) for name in turns[0][1]}
    figures["idle_bytes"] = grown / how.idle_connections
    figures["idle_cost"] = median(
        beside["cpu_us"] / by_itself["cpu_us"] for by_itself, beside in turns
    )
    return figures


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of process *pid*: its pages, shared ones in part."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as exc:
        raise MeasureError(f"the server's memory cannot be read: {exc}") from exc
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.MULTILINE)
    if found is None:
        raise MeasureError("the server has ended")  # what is left of it has no memory
    return int(found[1]) * 1024


def _command(server: Server, mode: str, connections: int, size: int) -> list[str]:
    peer = server.peer
    return [
        *(str(LOAD), mode, "--port", str(server.port), "--server-pid", str(server.pid)),
        *("--connections", str(connections), "--size", str(size)),
        *("--greeting", str(server.greeting_bytes), "--reply-prefix", peer.reply_prefix),
        *(("--line",) if peer.line else ()),
    ]


def _run(server: Server, mode: str, load: Load, core: int, seconds: float) -> Figures:
    command = _command(server, mode, load.connections, load.size)
    command += ["--seconds", str(seconds), "--warmup", str(WARMUP_S)]
    try:
        with pinned(core):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + SLACK_S, check=False
            )
    except subprocess.TimeoutExpired:
        raise MeasureError("the load generator did not end") from None
    if done.returncode != 0:
        raise MeasureError(done.stderr.strip() or f"load: ended with {done.returncode}")
    return _figures(json.loads(done.stdout), load)


def _figures(told: dict[str, Any], load: Load) -> Figures:
    units = told["bytes"] / MIB if load.kind == "bulk" else told["messages"]
    if units == 0 or told["server_cpu_ns"] == 0:
        raise MeasureError("nothing was answered within the window")
    figures: Figures = {
        "rate": units / told["seconds"],
        "cpu_us": told["server_cpu_ns"] / 1000 / units,
        "busy_percent": told["server_cpu_ns"] / 1e7 / told["seconds"],
        "waited_percent": told["waited_ns"] / 1e7 / told["seconds"],
    }
    if load.kind != "bulk":
        figures |= {name: told[name] for name in ("p50_us", "p90_us", "p99_us", "max_us")}
    if load.kind == "udp":
        figures["lost_percent"] = 100 * told["lost"] / (told["lost"] + units)
    return figures


@contextlib.contextmanager
def _idle_connections(server: Server, how: Measuring) -> Iterator[None]:
    """Hold the idle connections, each of which has had one message echoed."""
    with (
        pinned(how.core),
        subprocess.Popen(
            _command(server, "idle", how.idle_connections, 64),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            ready, _, _ = select.select([holder.stdout], [], [], OPEN_TIMEOUT_S)
            if not ready:
                raise MeasureError(f"no {how.idle_connections} connections in {OPEN_TIMEOUT_S} s")
            if not holder.stdout.readline():
                raise MeasureError(holder.stderr.read().strip() or "load: ended early")
            yield
        finally:
            holder.kill()
