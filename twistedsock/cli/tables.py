"""Tables for people on a terminal, however narrow; in a pipe each row is one line.

Knows texts; never what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click
import rich.console
import rich.padding
import rich.table
import rich.text
from rich.cells import cell_len

GAP = 2  # between columns
EASY_LAST, LEAST_LAST = 30, 20  # columns that the last cell needs to be read with ease, or at all
LEAST_FIRST, LEAST_CUT = 15, 8  # of what is cut: the first cell, and the last
MOST_WRAPPED = 30  # of a cell between the first and the last: the rest goes below
MOST_ALIGNED = 60  # in a pipe: one huge value does not push out the ends of all other lines

Rows = Sequence[Sequence[str]]


def console() -> rich.console.Console:
    """Return the console of standard output; words are words: neither markup nor emoji."""
    return rich.console.Console(markup=False, emoji=False, highlight=False)


def show_line(text: str, style: str) -> None:
    """Print *text*; in a pipe it is one line, whatever COLUMNS says."""
    screen = console()
    if screen.is_terminal:
        screen.print(rich.text.Text(_printable(text), style))
    else:
        click.echo(_printable(text))


def show_table(columns: Sequence[str], rows: Rows, spare: Collection[str] = ()) -> None:
    """Print *rows* under *columns*.

    Args:
        columns: Their names; the first says what a row is about and the last is wrapped.
        rows: A text for each column. What cannot be printed in it is escaped.
        spare: Columns that a narrow terminal goes without, the rightmost first.
    """
    rows = [[_printable(cell) for cell in row] for row in rows]
    screen = console()
    if not screen.is_terminal:
        _show_lines([columns, *rows])
        return
    fitting = _Fitting(screen.width, columns, rows, spare)
    if fitting.last < LEAST_LAST:
        _show_paragraphs(screen, columns, rows, fitting.kept)
    else:
        screen.print(fitting.table(columns, rows))


def table_of(
    screen: rich.console.Console, columns: Sequence[str], rows: Rows, spare: Collection[str] = ()
) -> rich.table.Table:
    """Return *rows* under *columns* for *screen*, to be drawn again and again: a line each.

    What has no room is cut: columns of *spare*, further ones, and the ends of the cells.
    """
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    widths[0] = min(widths[0], max(screen.width // 3, LEAST_FIRST))
    between = range(len(columns) - 2, 0, -1)
    dropped: set[int] = set()

    def left() -> int:
        kept = (each for place, each in enumerate(widths[:-1]) if place not in dropped)
        return screen.width - sum(each + GAP for each in kept)

    for least, positions in (
        (EASY_LAST, [each for each in between if columns[each] in spare]),
        (LEAST_CUT, [each for each in between if columns[each] not in spare]),
    ):
        for position in positions:
            if left() < min(least, widths[-1]):
                dropped.add(position)
    widths[-1] = max(min(left(), widths[-1]), 1)
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    kept = [each for each in range(len(columns)) if each not in dropped]
    for position in kept:
        table.add_column(
            columns[position], overflow="ellipsis", no_wrap=True, width=widths[position]
        )
    for row in rows:
        table.add_row(*(rich.text.Text(row[each]) for each in kept))
    return table


class _Fitting:
    """Which columns are kept in a width, and how wide they are; what is left is the last one's."""

    def __init__(
        self, width: int, columns: Sequence[str], rows: Rows, spare: Collection[str]
    ) -> None:
        widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
        widths[1:-1] = [min(width, MOST_WRAPPED) for width in widths[1:-1]]
        self._width, self._widths = width, widths
        self.kept = list(range(len(columns)))
        for position in reversed(self.kept[1:-1]):
            if columns[position] in spare and self.last < EASY_LAST:
                self.kept.remove(position)

    @property
    def last(self) -> int:
        """What is left for the last column."""
        return self._width - sum(self._widths[each] + GAP for each in self.kept[:-1])

    def table(self, columns: Sequence[str], rows: Rows) -> rich.table.Table:
        """Return *rows* as far as they are kept."""
        table = rich.table.Table(
            box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0)
        )
        for position in self.kept:
            width = None if position == self.kept[-1] else self._widths[position]
            table.add_column(columns[position], overflow="fold", width=width)
        for row in rows:
            table.add_row(*(rich.text.Text(row[each]) for each in self.kept))
        return table


def _show_lines(lines: Rows) -> None:
    widths = [min(max(map(cell_len, cells)), MOST_ALIGNED) for cells in zip(*lines, strict=True)]
    for line in lines:
        pairs = zip(line, widths, strict=True)
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in pairs]
        click.echo((" " * GAP).join(padded).rstrip())


def _show_paragraphs(
    screen: rich.console.Console, columns: Sequence[str], rows: Rows, kept: Sequence[int]
) -> None:
    """Print each row as its first cell with the others below it."""
    for row in rows:
        screen.print(rich.text.Text(row[kept[0]], "bold", overflow="fold"))
        for position in kept[1:]:
            label = "" if position == kept[-1] else f"{columns[position].lower()} "
            if row[position]:
                text = rich.text.Text(overflow="fold").append(label, "dim").append(row[position])
                screen.print(rich.padding.Padding(text, (0, 0, 0, GAP)))


def _printable(text: str) -> str:
    """Return *text* with what would break its line, or paint the terminal, as escapes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
