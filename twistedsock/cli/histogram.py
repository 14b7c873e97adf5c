"""The picture of a probe: how often each round trip was met. Imports matplotlib when it draws."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

from twistedsock.client.probing import ProbeResult

WIDTH_IN, HEIGHT_IN, DOTS_PER_IN = 9.0, 5.0, 150
MAX_BINS = 80
LOG_SPREAD = 20.0  # greatest by median: above it a linear axis shows one bar and a long nothing
SHOWN_PERCENTILES = (50, 90, 95, 99)
INK, FAINT, BAR = "#22303c", "#6b7885", "#5b8db8"
LINES = {50: "#1b7f5c", 90: "#b8860b", 95: "#cc6b2c", 99: "#b03a48"}
_SCALES = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs"))


def is_possible() -> bool:
    """Return whether there is a matplotlib to draw with."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(result: ProbeResult, path: str) -> None:
    """Write a PNG of *result*, which has an answer, to *path*.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    summary = result.summary
    percentiles = summary.percentiles_s or {}
    factor, unit = _scale(percentiles[50])
    values = [seconds * factor for seconds in result.samples_s]
    is_log = min(values) > 0 and max(values) > LOG_SPREAD * percentiles[50] * factor
    figure: Any = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DOTS_PER_IN, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(values, bins=_edges(values, is_log), color=BAR, edgecolor="white", linewidth=0.4)
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(plain)
    if _is_uneven(values, axes):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(plain)
    for each in SHOWN_PERCENTILES:
        value = percentiles[each] * factor
        label = f"p{each}  {_number(value)} {unit}"
        axes.axvline(value, color=LINES[each], linewidth=1.6, label=label)
    _dress(axes, unit)
    _head(axes, result, factor, unit)
    canvas.print_png(path)


def _scale(seconds: float) -> tuple[float, str]:
    """Return by what to multiply seconds, and the unit that it gives."""
    return next((factor, unit) for least, factor, unit in _SCALES if seconds >= least)


def _number(value: float) -> str:
    """Return *value* with three digits that say something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _edges(values: Sequence[float], is_log: bool) -> list[float]:
    """Return the edges of the bars: as many as the number of values can fill."""
    low, high = min(values), max(values)
    if low == high:
        width = low * 0.02 or 0.1
        return [low + width * (step - 4.5) for step in range(10)]
    bins = min(MAX_BINS, max(8, math.ceil(2 * len(values) ** 0.5)))
    if not is_log:
        return [low + (high - low) * step / bins for step in range(bins)] + [high]
    ratio = (high / low) ** (1 / bins)
    return [low * ratio**step for step in range(bins)] + [high]


def _is_uneven(values: Sequence[float], axes: Any) -> bool:
    """Return whether the bars differ so much that the small ones would not be seen."""
    heights = [bar.get_height() for bar in axes.patches if bar.get_height() > 0]
    few = sum(height for height in heights if height < max(heights) / 200)
    return few > 0 and len(values) >= 1000


def _dress(axes: Any, unit: str) -> None:
    """Give the axes their names, and take away what says nothing."""
    axes.set_xlabel(f"round trip, {unit}", color=INK)
    axes.set_ylabel("answers", color=INK)
    axes.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    # In a box of their own: percentiles may lie so close that labels at the lines would overlap.
    axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", labelcolor=INK)


def _head(axes: Any, result: ProbeResult, factor: float, unit: str) -> None:
    """Say above the picture what was asked, and what came of it."""
    summary = result.summary
    pace = "one after the other" if result.rate == "max" else f"at {result.rate}"
    asked = f"{result.size_bytes:,} bytes {pace}, {summary.sent:,} sent"
    faults = [f"{summary.loss * 100:.3g} % lost"]
    faults += [
        f"{count:,} {name}"
        for name, count in (
            ("duplicates", summary.duplicates),
            ("reordered", summary.reordered),
            ("corrupt", result.corrupt),
        )
        if count
    ]
    bounds = (summary.min_s or 0.0, summary.mean_s or 0.0, summary.max_s or 0.0)
    low, mean, high = (_number(seconds * factor) for seconds in bounds)
    text = f"{asked}, {', '.join(faults)};  min {low}, mean {mean}, max {high} {unit}"
    name = result.address if len(result.address) <= 60 else result.address[:57] + "..."
    # Addresses are no mathematics, whatever dollar signs a path has.
    axes.set_title(
        f"Round trips to {name}",
        loc="left",
        pad=26,
        fontsize=13,
        color=INK,
        weight="bold",
        parse_math=False,
    )
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=9, color=FAINT)
