"""The order of a run: A B C, A B C, ... for every load. Knows neither figures nor goals."""

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .loads import Load
from .measure import Figures, MeasureError, Measuring, measure, measure_idle
from .peer_table import Peer
from .server import Server, ServerUnavailable, running


@dataclass(frozen=True, slots=True)
class Sample:
    """The *figures* of one *peer* under one *load* in one *round* (from 0)."""

    peer: str
    load: str
    round: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Run:
    """What came out: samples, peers skipped and why, and samples that failed and why."""

    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def run_rounds(
    run: Run,
    peers: Sequence[Peer],
    loads: Sequence[Load],
    rounds: int,
    server_core: int,
    how: Measuring,
) -> None:
    """Measure every load on every peer that suits it, and add what comes out to *run*.

    Each round starts every server anew, and takes every load through all peers before the next
    load: what is compared was measured within seconds. While one server is loaded, the others
    sleep.
    """
    for number in range(rounds):
        in_round = [load for load in loads if number % load.every == 0]
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            servers: list[Server] = []
            for peer in peers:
                if peer.name in run.skipped or not any(load.suits(peer) for load in in_round):
                    continue
                try:
                    servers.append(stack.enter_context(running(peer, server_core, directory)))
                except ServerUnavailable as exc:
                    run.skipped[peer.name] = str(exc)
                    _tell(f"{peer.name}: skipped: {exc}")
            for load in in_round:
                _tell(f"round {number + 1}/{rounds}: {load.name}")
                for server in servers:
                    if load.suits(server.peer):
                        _add_sample(run, server, load, number, server_core, how, directory)


def _add_sample(
    run: Run,
    server: Server,
    load: Load,
    number: int,
    server_core: int,
    how: Measuring,
    directory: Path,
) -> None:
    peer = server.peer
    try:
        if load.kind == "idle":  # memory that a server has kept from other loads would hide it
            with (
                running(peer, server_core, directory) as alone,
                running(peer, server_core, directory) as crowded,
            ):
                figures = measure_idle(alone, crowded, load, how)
        else:
            figures = measure(server, load, how)
    except (MeasureError, ServerUnavailable) as exc:
        run.failures.append(f"{peer.name}, {load.name}, round {number + 1}: {exc}")
        _tell(run.failures[-1])
    else:
        run.samples.append(Sample(peer.name, load.name, number, figures))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
