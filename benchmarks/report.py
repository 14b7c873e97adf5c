"""Results as text and as JSON. Knows how they look; measures and judges nothing."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .goals import Goal
from .loads import Load
from .peer_table import Peer
from .results import Ratio, Results
from .rounds import Run

REFERENCES = ("uvloop", "c")

COLUMNS: tuple[tuple[str, str, str, bool], ...] = (  # figure, heading, format, with its ratios
    ("rate", "{unit}/s", ",.0f", True),
    ("p50_us", "p50 us", ",.0f", True),
    ("p99_us", "p99 us", ",.0f", True),
    ("cpu_us", "CPU us", ",.2f", True),
    ("busy_percent", "busy %", ".0f", False),
    ("waited_percent", "waited %", ".0f", False),
    ("lost_percent", "lost %", ".2f", False),
    ("idle_bytes", "bytes/idle", ",.0f", True),
    ("idle_cost", "x alone", ".2f", False),
)


def load_table(load: Load, peers: Sequence[Peer], results: Results) -> str:
    """Return the table of one load: a row for each peer that has figures; empty without any."""
    rows: list[list[str]] = []
    medians = {peer.name: results.medians(load.name, peer.name) for peer in peers}
    columns = [column for column in COLUMNS if any(column[0] in m for m in medians.values())]
    for name, figures in medians.items():
        if not figures:
            continue
        row = [name]
        for figure, _, form, with_ratios in columns:
            row.append(format(figures[figure], form))
            if with_ratios:
                ratios = (results.ratio(load.name, figure, name, other) for other in REFERENCES)
                row.extend("-" if ratio is None else f"{ratio.median:.2f}" for ratio in ratios)
        rows.append(row)
    if not rows:
        return ""
    heads = [load.name]
    for _, title, _, with_ratios in columns:
        heads.append(title.format(unit=load.unit))
        heads.extend(f"/{other}" for other in REFERENCES if with_ratios)
    return _table(heads, rows)


def goals_table(goals: Sequence[Goal], results: Results) -> str:
    """Return the table of the goals: the limit, what was measured, and the verdict."""
    rows = []
    for goal in goals:
        ratio = goal.measured(results)
        rows.append(
            [
                goal.title,
                f"/ {goal.against}" if goal.against else "",
                "-" if goal.limit is None else f"{goal.limit:.2f}",
                "-" if ratio is None else f"{ratio.median:.2f}",
                "-" if ratio is None else f"{ratio.low:.2f}..{ratio.high:.2f}",
                goal.verdict(ratio),
            ]
        )
    return _table(["goal", "against", "at most", "median", "spread", "verdict"], rows)


def as_json(
    run: Run,
    results: Results,
    peers: Sequence[Peer],
    loads: Sequence[Load],
    goals: Sequence[Goal],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return everything that was measured, ready for json.dump."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": _versions(),
        "settings": settings,
        "loads": {
            load.name: {
                "kind": load.kind,
                "connections": load.connections,
                "size_bytes": load.size,
                "unit": load.unit,
                "peers": {
                    peer.name: _peer_json(load.name, peer.name, results)
                    for peer in peers
                    if results.samples(load.name, peer.name)
                },
            }
            for load in loads
        },
        "goals": [_goal_json(goal, results) for goal in goals],
        "skipped": run.skipped,
        "failures": run.failures,
    }


def _peer_json(load: str, peer: str, results: Results) -> dict[str, Any]:
    medians = results.medians(load, peer)
    ratios = {
        other: {
            figure: ratio.median
            for figure, _, _, with_ratios in COLUMNS
            if with_ratios and (ratio := results.ratio(load, figure, peer, other)) is not None
        }
        for other in REFERENCES
    }
    return {"median": medians, "ratio_to": ratios, "rounds": results.samples(load, peer)}


def _goal_json(goal: Goal, results: Results) -> dict[str, Any]:
    ratio: Ratio | None = goal.measured(results)
    return {
        "title": goal.title,
        "load": goal.load,
        "figure": goal.figure,
        "peer": goal.peer,
        "against": goal.against,
        "limit": goal.limit,
        "median": ratio and ratio.median,
        "low": ratio and ratio.low,
        "high": ratio and ratio.high,
        "verdict": goal.verdict(ratio),
    }


def _machine() -> dict[str, Any]:
    about = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in about.splitlines() if "model name" in line]
    return {
        "system": platform.platform(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("twistedsock", "twisted", "uvloop", "gevent"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, command in (("gcc", ("gcc", "--version")), ("go", ("go", "version"))):
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        versions[name] = told.stdout.partition("\n")[0]
    return versions


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: words to the left, the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(width) if at and _is_number(rows[0][at]) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()
