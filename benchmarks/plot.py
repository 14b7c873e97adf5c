"""Results as a picture. The one module that needs matplotlib, and imports it only when called."""

from collections.abc import Sequence
from pathlib import Path

from .peer_table import Peer
from .results import Results

PANELS = (  # load, figure, title
    ("echo-1KiB-50", "cpu_us", "echo 1 KiB, 50 connections: CPU us/message"),
    ("echo-1KiB-50", "rate", "echo 1 KiB, 50 connections: messages/s"),
    ("echo-1KiB-50", "p99_us", "echo 1 KiB, 50 connections: p99 us"),
    ("udp-64B", "cpu_us", "UDP 64 B: CPU us/datagram"),
    ("bulk", "cpu_us", "bulk: CPU us/MiB"),
    ("churn", "cpu_us", "connect-echo-close: CPU us/connection"),
    ("idle", "idle_bytes", "bytes per idle connection"),
    ("idle", "idle_cost", "busy beside idle / alone (CPU)"),
)
COLUMNS = 4


class PlotError(Exception):
    """There is no picture; says why."""


def save_plot(path: Path, peers: Sequence[Peer], results: Results) -> None:
    """Save the picture of *results* to *path*.

    Raises:
        PlotError: matplotlib is missing, or nothing that is drawn was measured.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError("matplotlib is not installed") from None
    panels = {
        title: bars for load, name, title in PANELS if (bars := _bars(load, name, peers, results))
    }
    if not panels:
        raise PlotError("it has no panel for these loads")
    figure = Figure(figsize=(20, 9), layout="constrained")
    for at, (title, bars) in enumerate(panels.items()):
        axes = figure.add_subplot(-(-len(panels) // COLUMNS), COLUMNS, at + 1)
        ours = [bar.startswith("twistedsock") for bar in bars]
        colours = ["tab:orange" if is_ours else "tab:gray" for is_ours in ours]
        drawn = axes.barh(list(bars), list(bars.values()), color=colours)
        labels = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in bars.values()]
        axes.bar_label(drawn, labels, padding=3)
        axes.margins(x=0.2)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=100)


def _bars(load: str, name: str, peers: Sequence[Peer], results: Results) -> dict[str, float]:
    """Return each peer's median of a figure, the last peer first, as bars are drawn upwards."""
    return {
        peer.name: medians[name]
        for peer in reversed(peers)
        if name in (medians := results.medians(load, peer.name))
    }
