"""What a probe's requests look like, and finding them again in whatever comes back.

Knows bytes; never a clock, a socket or a count of what was asked. A request is printable ASCII,
the same in all but its number, and ends in a line feed, so that services of any framing take it::

    <q7mtb2xk.000000002a>0123456789abcdefghij...LF
     run      number      padding
"""

from __future__ import annotations

import string
from random import Random

RUN_LETTERS = 8
NUMBER_DIGITS = 10  # hexadecimal: a year of 10,000 a second, and three more
MIN_SIZE_BYTES = 1 + RUN_LETTERS + 1 + NUMBER_DIGITS + 1 + 1
MAX_NUMBER = 16**NUMBER_DIGITS - 1
_ALPHABET = string.digits + string.ascii_lowercase  # has no "<": a marker begins nowhere else


class Pattern:
    """The requests of one run.

    Args:
        size_bytes: Of each, with its line feed: MIN_SIZE_BYTES at least.
        random: Makes the run's name, so that the answers of another run are none of this one's.
    """

    __slots__ = ("body_bytes", "prefix", "suffix")

    def __init__(self, size_bytes: int, random: Random | None = None) -> None:
        run = "".join((random or Random()).choices(_ALPHABET, k=RUN_LETTERS))
        left = size_bytes - MIN_SIZE_BYTES
        padding = _ALPHABET * (left // len(_ALPHABET) + 1)
        self.prefix = f"<{run}.".encode()
        self.suffix = f">{padding[:left]}".encode()
        self.body_bytes = size_bytes - 1

    def request(self, number: int) -> bytes:
        """Return the request *number*, 0 to MAX_NUMBER."""
        return b"%b%010x%b\n" % (self.prefix, number, self.suffix)


class Finder:
    """Finds the requests of *pattern* in a stream, however it is cut.

    An answer holds its request whole but for the line feed, which framings take off; what stands
    around it does not matter. At most one answer's beginning is held.

    Attributes:
        corrupt: Beginnings of an answer that did not go on as the request did: cut or altered.
        stray: Lines, or messages, that hold no part of an answer, such as a greeting.
        stray_bytes: Their bytes, without line feeds.
    """

    __slots__ = (
        "_held",
        "_is_marked",
        "_line_bytes",
        "_pattern",
        "corrupt",
        "stray",
        "stray_bytes",
    )

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._held = b""
        self._line_bytes = 0  # of the line that is not at its end yet, outside of answers
        self._is_marked = False  # whether it holds part of an answer
        self.corrupt = self.stray = self.stray_bytes = 0

    def feed(self, data: bytes) -> list[int]:
        """Return the numbers of the answers that *data*, a piece of the stream, completes."""
        if self._held:
            data, self._held = self._held + data, b""
        found, position = self._find(data, is_last=False)
        self._held = data[position:]
        return found

    def end(self) -> None:
        """Note that nothing more comes: what was held becomes no answer any more."""
        held, self._held = self._held, b""
        self._find(held, is_last=True)
        self._end_line(0)

    def _find(self, data: bytes, *, is_last: bool) -> tuple[list[int], int]:
        """Return the numbers found, and from where on *data* may go on to be an answer."""
        pattern, position = self._pattern, 0
        found: list[int] = []
        prefix, suffix = pattern.prefix, pattern.suffix
        while (start := data.find(prefix, position)) >= 0:
            digits = data[start + len(prefix) : start + len(prefix) + NUMBER_DIGITS]
            behind = start + len(prefix) + NUMBER_DIGITS
            end = start + pattern.body_bytes
            self._pass(data, position, start)
            if end > len(data) and not is_last and suffix.startswith(data[behind:]):
                return found, start
            self._is_marked = True
            number = _number_in(digits)
            if number is not None and data.startswith(suffix, behind):
                found.append(number)
                position = end
            else:
                self.corrupt += 1
                position = start + len(prefix)
        rest = len(data)
        if not is_last:
            tail = data.rfind(b"<", max(position, rest - len(prefix)))
            if tail >= 0 and prefix.startswith(data[tail:]):
                rest = tail
        self._pass(data, position, rest)
        return found, rest

    def _pass(self, data: bytes, start: int, end: int) -> None:
        """Count what lies between answers, by lines."""
        while (stop := data.find(b"\n", start, end)) >= 0:
            self._end_line(stop - start)
            start = stop + 1
        self._line_bytes += end - start

    def _end_line(self, more_bytes: int) -> None:
        size = self._line_bytes + more_bytes
        if size and not self._is_marked:
            self.stray += 1
            self.stray_bytes += size
        self._line_bytes, self._is_marked = 0, False


class MessageFinder(Finder):
    """Finds the requests of *pattern* in messages that are whole: datagrams, records, frames."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[int]:
        """Return the numbers of the answers in *data*, one message."""
        self._is_marked = False
        found, _ = self._find(data, is_last=True)
        if not self._is_marked:
            self.stray += 1
            self.stray_bytes += len(data)
        return found

    def end(self) -> None:
        """Do nothing: a message is never left open."""

    def _pass(self, data: bytes, start: int, end: int) -> None:
        """Do nothing: a message is stray as a whole."""


def _number_in(digits: bytes) -> int | None:
    """Return the number that is written in *digits* as a request writes it."""
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    return number if b"%010x" % number == digits else None
