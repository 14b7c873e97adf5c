"""The figures of a probe for people: live on a terminal, and in plain lines at the end.

Knows results and counts; never a socket. Rich is imported only for the live view.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from twistedsock.client.probe import Settings
from twistedsock.client.probing import ProbeResult, Probing
from twistedsock.client.round_trips import percentiles

if TYPE_CHECKING:
    import rich.console

REFRESH_S = 0.25
LIVE_PERCENTILES = (50, 90, 99)
GAP = "  "

Pair = tuple[str, str]


def milliseconds(seconds: float | None) -> str:
    """Return *seconds* in milliseconds, to a microsecond; a dash where there are none."""
    return "-" if seconds is None else f"{seconds * 1e3:.3f} ms"


def title_of(settings: Settings) -> str:
    """Return what is probed, and how."""
    pace = "one after the other" if settings.rate is None else f"at {settings.rate}"
    return f"{settings.address}: {settings.size_bytes} bytes {pace}"


def summary_lines(settings: Settings, result: ProbeResult) -> list[str]:
    """Return the lines of *result*, each a name and its value."""
    summary = result.summary
    shares = summary.percentiles_s or {}
    times = [
        ("min", summary.min_s),
        ("mean", summary.mean_s),
        *((f"p{each}", seconds) for each, seconds in shares.items()),
        ("max", summary.max_s),
        ("stddev", summary.deviation_s),
        ("jitter", summary.jitter_s),
    ]
    behind = _counted(result.behind, f"by at most {milliseconds(result.behind_s)}")
    if result.unsent:
        behind += f", {result.unsent} never sent"
    pairs = [
        ("sent", str(summary.sent)),
        ("received", str(summary.received)),
        ("lost", f"{summary.lost} ({_share(summary.lost, summary.sent)})"),
        ("late", str(result.late)),
        ("duplicates", str(summary.duplicates)),
        ("reordered", str(summary.reordered)),
        ("corrupt", str(result.corrupt)),
        ("stray", _counted(result.stray, f"{result.stray_bytes} bytes")),
        ("behind", behind),
    ]
    if result.dropped:
        pairs.append(("dropped", f"{result.dropped} here, for want of a larger SO_RCVBUF"))
    if result.errors:
        told = (f"{code} {count} times" for code, count in result.errors.items())
        pairs.append(("errors", ", ".join(told)))
    if summary.received:
        pairs += [(name, milliseconds(seconds)) for name, seconds in times]
    return [f"{title_of(settings)}, {result.duration_s:.1f} s", *_aligned(pairs)]


def _counted(count: int, more: str) -> str:
    return f"{count} ({more})" if count else "0"


def _share(part: int, whole: int) -> str:
    """Return the share that is told as none, or as all, only where it is."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.01:
        return "below 0.01 %"
    if 99.99 < percent < 100:
        return "above 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def _aligned(pairs: Sequence[Pair]) -> list[str]:
    width = max(len(name) for name, _ in pairs)
    return [f"{name:{width}}{GAP}{value}" for name, value in pairs]


class LiveView:
    """A table on the terminal, drawn anew by ``refresh``; gone once it is stopped.

    Times are of the latest answers (``probing.RECENT``): sorting all would delay requests.
    """

    def __init__(self, settings: Settings, core: Probing) -> None:
        import rich.live

        from twistedsock.cli.tables import console

        self._settings = settings
        self._core = core
        self._began_at = time.monotonic()
        self._live = rich.live.Live(
            console=console(), auto_refresh=False, transient=True, redirect_stderr=False
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Draw the figures as they are now."""
        lasted = time.monotonic() - self._began_at
        self._live.update(live_table(self._settings, self._core, lasted), refresh=True)


def live_table(settings: Settings, core: Probing, lasted_s: float) -> rich.console.Group:
    """Return what is probed above the table of the figures so far."""
    import rich.console
    import rich.table
    import rich.text

    recent = list(core.recent_s)
    times: list[tuple[str, float | None]] = [("last", recent[-1] if recent else None)]
    if recent:
        steps = [abs(after - before) for before, after in pairwise(recent)]
        times += [
            ("min", min(recent)),
            ("mean", sum(recent) / len(recent)),
            *((f"p{each}", seconds) for each, seconds in _live_shares(recent)),
            ("max", max(recent)),
            ("jitter", sum(steps) / len(steps) if steps else 0.0),
        ]
    counts = core.round_trips
    settled = counts.sent - len(core.in_flight)
    left = [
        ("sent", str(counts.sent)),
        ("received", str(counts.received)),
        ("lost", f"{core.lost} ({_share(core.lost, settled)})"),
        ("duplicates", str(counts.duplicates)),
        ("reordered", str(counts.reordered)),
        ("late", str(core.late)),
        ("corrupt, stray", f"{core.corrupt}, {core.stray}"),
        ("behind", str(core.behind)),
    ]
    right = [(name, milliseconds(seconds)) for name, seconds in times]
    right += [("", "")] * (len(left) - len(right))
    title = f"{title_of(settings)}, {lasted_s:.0f} s; Ctrl-C ends it"
    if core.errors:
        title += "\n" + ", ".join(f"{code} {count} times" for code, count in core.errors.items())
    table = rich.table.Table(box=None, show_header=False, pad_edge=False)
    for _ in range(2):
        table.add_column(style="bold", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
    for ours, theirs in zip(left, right, strict=True):
        table.add_row(ours[0], ours[1], f"   {theirs[0]}", theirs[1])
    return rich.console.Group(rich.text.Text(title), table)


def _live_shares(recent: Sequence[float]) -> list[tuple[int, float]]:
    return list(percentiles(recent, LIVE_PERCENTILES).items())
