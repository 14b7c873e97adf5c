"""Which of many like events is worth a line: one a second, with the number left out.

Knows words and times; never a log or a clock.
"""

from __future__ import annotations

from collections.abc import Iterator


class LogThrottle:
    """Lets one event of each word through in an interval and counts the others.

    Args:
        interval_s: The shortest time between two events of one word, in seconds.
    """

    __slots__ = ("_interval_s", "_seen")

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, word: str, now: float) -> int | None:
        """Return how many were suppressed since the last, or None to suppress this one too."""
        last, suppressed = self._seen.get(word, (None, 0))
        if last is not None and now - last < self._interval_s:
            self._seen[word] = (last, suppressed + 1)
            return None
        self._seen[word] = (now, 0)
        return suppressed

    def overdue(self, now: float) -> Iterator[tuple[str, int]]:
        """Take out the words whose interval is over, with how many were suppressed if any."""
        for word, (last, suppressed) in list(self._seen.items()):
            if now - last >= self._interval_s:
                if not suppressed:
                    del self._seen[word]
                else:
                    self._seen[word] = (now, 0)  # this one is a line too
                    yield word, suppressed

    def __len__(self) -> int:
        return len(self._seen)
