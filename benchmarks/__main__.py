"""The command line: ``python -m benchmarks``. Joins the other modules; see README.md."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from .build import BuildError, build
from .goals import GOALS
from .loads import LOADS
from .measure import LOAD, Measuring
from .peer_table import HERE, PEERS, Peer
from .plot import PlotError, save_plot
from .report import as_json, goals_table, load_table
from .results import Results
from .rounds import Run, run_rounds
from .server import raise_descriptor_limit

DEFAULT_ROUNDS, DEFAULT_SECONDS = 9, 0.5
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.3
SPARE_DESCRIPTORS = 200  # what a server opens besides the idle connections


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def main() -> None:
    """Run the benchmarks, and tell and save what came out."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # so that every server is ended on the way out
    options = _parse_options()
    peers = _chosen(PEERS, options.peers, "peer")
    loads = _chosen(LOADS, options.loads, "load")
    run = Run()
    limit = raise_descriptor_limit()
    if limit < options.idle_connections + SPARE_DESCRIPTORS:
        loads = [load for load in loads if load.kind != "idle"]
        run.skipped["idle"] = f"the limit on open files (ulimit -Hn) is {limit}"
    try:
        build(HERE / "load.c", LOAD)
    except BuildError as exc:
        sys.exit(f"the load generator cannot be built: {exc}")
    ready = [peer for peer in peers if _is_built(peer, run)]
    how = Measuring(options.load_core, options.seconds, options.idle_connections)
    try:
        run_rounds(run, ready, loads, options.rounds, options.server_core, how)
    except KeyboardInterrupt:
        sys.exit("stopped; nothing was saved")

    results = Results(run.samples)
    for load in loads:
        if table := load_table(load, peers, results):
            print(table, end="\n\n")
    goals = [goal for goal in GOALS if any(goal.load == load.name for load in loads)]
    if goals:
        print(goals_table(goals, results))
    for name, reason in run.skipped.items():
        print(f"skipped: {name}: {reason}")
    for failure in run.failures:
        print(f"failed: {failure}")
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    _save(options.out, as_json(run, results, peers, loads, goals, settings), peers, results)
    sys.exit(1 if run.failures else 0)


def _parse_options() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog=f"python -m {HERE.name}", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, no verdicts")
    parser.add_argument("--rounds", type=int, help=f"goals need 5 ({DEFAULT_ROUNDS})")
    parser.add_argument("--seconds", type=float, help=f"each window ({DEFAULT_SECONDS})")
    parser.add_argument("--peers", default="*", help="names or patterns, with commas between")
    parser.add_argument("--loads", default="*", help="names or patterns, with commas between")
    parser.add_argument("--idle-connections", type=int, default=10_000)
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of results.*")
    options = parser.parse_args()
    if options.server_core == options.load_core:
        parser.error("the server and the load need a core each")
    if not {options.server_core, options.load_core} <= set(cores):
        parser.error(f"the cores must be among {cores}")
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else DEFAULT_ROUNDS
    if options.seconds is None:
        options.seconds = QUICK_SECONDS if options.quick else DEFAULT_SECONDS
    return options


def _chosen(every: Sequence[_N], patterns: str, what: str) -> list[_N]:
    """Return those of *every* whose name matches one of *patterns*; none is an error."""
    split = patterns.split(",")
    for pattern in split:
        if not any(fnmatch(one.name, pattern) for one in every):
            names = ", ".join(one.name for one in every)
            sys.exit(f"no {what} is named {pattern}; there are: {names}")
    return [one for one in every if any(fnmatch(one.name, pattern) for pattern in split)]


def _is_built(peer: Peer, run: Run) -> bool:
    """Compile *peer* if need be; False if that fails, which *run* is told."""
    if peer.source is None:
        return True
    try:
        build(peer.source, Path(peer.command[0]))
    except BuildError as exc:
        run.skipped[peer.name] = str(exc)
        return False
    return True


def _save(folder: Path, told: dict[str, object], peers: list[Peer], results: Results) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    print(f"saved: {folder / 'results.json'}")
    try:
        save_plot(folder / "results.png", peers, results)
    except PlotError as exc:
        print(f"no picture: {exc}")
    else:
        print(f"saved: {folder / 'results.png'}")


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
