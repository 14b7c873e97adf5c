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
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    widths[1:-1] = [min(width, MOST_WRAPPED) for width in widths[1:-1]]
    kept = list(range(len(columns)))

    def left() -> int:
        return screen.width - sum(widths[each] + GAP for each in kept[:-1])

    for position in reversed(kept[1:-1]):
        if columns[position] in spare and left() < EASY_LAST:
            kept.remove(position)
    if left() < LEAST_LAST:
        _show_paragraphs(screen, columns, rows, kept)
        return
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for position in kept:
        is_last = position == kept[-1]
        width = None if is_last else widths[position]
        table.add_column(columns[position], overflow="fold", width=width)
    for row in rows:
        table.add_row(*(rich.text.Text(row[each]) for each in kept))
    screen.print(table)


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
