"""The figures to reach. One row each; a ratio in one run, and at most the limit."""

from dataclasses import dataclass

from .results import Ratio, Results

MIN_ROUNDS = 5  # fewer, and a figure is shown but nothing is called reached


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure to reach.

    Attributes:
        title: As it is told.
        load: Under which load.
        figure: Of which figure, see measure.Figures.
        peer: Whose.
        against: Over the same figure of that peer; None where the figure is a ratio itself.
        limit: The greatest ratio that reaches the goal; None while no limit is set.
    """

    title: str
    load: str
    figure: str
    peer: str
    against: str | None
    limit: float | None

    def measured(self, results: Results) -> Ratio | None:
        """Return what was measured, or None if it was not."""
        if self.against is None:
            return results.spread(self.load, self.figure, self.peer)
        return results.ratio(self.load, self.figure, self.peer, self.against)

    def verdict(self, ratio: Ratio | None) -> str:
        """Return in a word or two whether *ratio* reaches the goal."""
        if ratio is None:
            return "not measured"
        if self.limit is None:
            return "no limit set"
        if ratio.rounds < MIN_ROUNDS:
            return "too few rounds"
        return "reached" if ratio.median <= self.limit else "MISSED"


OURS = "twistedsock"
OPTIONED = "twistedsock-options"
LINES, STREAMS = "twistedsock-line", "uvloop-streams"

GOALS: tuple[Goal, ...] = (
    Goal("TCP echo 1 KiB, 50 conns, CPU/message", "echo-1KiB-50", "cpu_us", OURS, "uvloop", 1.1),
    Goal("TCP echo 1 KiB, 50 conns, CPU/message", "echo-1KiB-50", "cpu_us", OURS, "c", 1.45),
    Goal("TCP echo 1 KiB, 50 conns, CPU/message", "echo-1KiB-50", "cpu_us", OURS, "twisted", 0.35),
    Goal("TCP echo 1 KiB, 10 conns, CPU/message", "echo-1KiB-10", "cpu_us", OURS, "uvloop", 1.2),
    Goal("TCP echo 1 KiB, 50 conns, p99 latency", "echo-1KiB-50", "p99_us", OURS, "uvloop", 1.1),
    Goal("lines 1 KiB, 50 conns, CPU/message", "echo-1KiB-50", "cpu_us", LINES, STREAMS, 0.6),
    Goal("UDP echo 64 B, CPU/datagram", "udp-64B", "cpu_us", OURS, "uvloop", 0.95),
    Goal("UDP echo 64 B, CPU/datagram", "udp-64B", "cpu_us", OURS, "c", 1.9),
    Goal("bulk stream, CPU/MiB", "bulk", "cpu_us", OURS, "uvloop", 1.1),
    Goal("connect-echo-close, CPU/connection", "churn", "cpu_us", OURS, "uvloop", 1.2),
    Goal("the same, ten options on the listener", "churn", "cpu_us", OPTIONED, OURS, 1.05),
    Goal("memory per idle connection", "idle", "idle_bytes", OURS, "uvloop", 1.5),
    Goal("a busy client beside idle ones/alone", "idle", "idle_cost", OURS, None, 1.1),
)
