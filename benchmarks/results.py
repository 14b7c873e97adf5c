"""Samples into medians and ratios. Knows numbers; never a table's look."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .measure import Figures
from .rounds import Sample


@dataclass(frozen=True, slots=True)
class Ratio:
    """One peer's figure over another's: median, least and greatest of *rounds* rounds."""

    median: float
    low: float
    high: float
    rounds: int


class Results:
    """The samples of a run, by load and peer."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: dict[tuple[str, str], dict[int, Figures]] = {}
        for sample in samples:
            rounds = self._samples.setdefault((sample.load, sample.peer), {})
            rounds[sample.round] = sample.figures

    def samples(self, load: str, peer: str) -> list[Figures]:
        """Return the figures of *peer* under *load*, round by round; empty if it has none."""
        return list(self._samples.get((load, peer), {}).values())

    def medians(self, load: str, peer: str) -> Figures:
        """Return each figure's median over the rounds; empty if there are none."""
        samples = self.samples(load, peer)
        names = samples[0] if samples else ()
        return {name: statistics.median(sample[name] for sample in samples) for name in names}

    def ratio(self, load: str, figure: str, peer: str, other: str) -> Ratio | None:
        """Return *peer*'s figure over *other*'s, each round by itself; None if none has both."""
        ours = self._samples.get((load, peer), {})
        theirs = self._samples.get((load, other), {})
        return _ratio(
            ours[number][figure] / theirs[number][figure]
            for number in ours.keys() & theirs.keys()
            if figure in ours[number] and theirs[number].get(figure)
        )

    def spread(self, load: str, figure: str, peer: str) -> Ratio | None:
        """Return a figure that is a ratio already, as one; None if there is none."""
        return _ratio(sample[figure] for sample in self.samples(load, peer) if figure in sample)


def _ratio(values: Iterable[float]) -> Ratio | None:
    every = list(values)
    if not every:
        return None
    return Ratio(statistics.median(every), min(every), max(every), len(every))
