"""What ``twistedsock ping`` shows people: tables, live and at the end. Knows results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from twistedsock.cli.tables import console, show_table, table_of
from twistedsock.client.pinging import PingResult, Told
from twistedsock.client.round_trips import Summary
from twistedsock.client.trace import TraceResult

FIGURES = ("sent", "lost", "min ms", "mean ms", "p50 ms", "p99 ms", "max ms", "jitter ms")
SPARE = ("jitter ms", "p50 ms", "max ms", "min ms")  # what a narrow terminal goes without
PING_COLUMNS = ("host", *FIGURES, "notes")
TRACE_COLUMNS = ("hop", *FIGURES, "who")
LINES_BESIDE = 4  # of a terminal: the heading, the total, and the prompt
MOST_ERRORS = 3  # of one host that are told

Rows = list[tuple[str, ...]]


def _figures(summary: Summary) -> tuple[str, ...]:
    percentiles = summary.percentiles_s or {}
    times = (
        summary.min_s,
        summary.mean_s,
        percentiles.get(50),
        percentiles.get(99),
        summary.max_s,
        summary.jitter_s,
    )
    return (str(summary.sent), _loss(summary), *map(_milliseconds, times))


def _loss(summary: Summary) -> str:
    return f"{summary.loss:.1%}" if summary.lost else "0"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.3f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _errors(errors: Mapping[Told, int]) -> list[str]:
    told = sorted(errors.items(), key=lambda item: -item[1])
    found = [f"{each} ({count} times)" if count > 1 else str(each) for each, count in told]
    more = len(found) - MOST_ERRORS
    return [*found[:MOST_ERRORS], f"and {more} others"] if more > 0 else found


def _notes(result: PingResult) -> str:
    summary = result.summary
    notes = [result.fault] if result.fault else []
    if result.address and result.address != result.host:
        notes.append(result.address)
    for count, what in (
        (summary.duplicates, "answered again"),
        (summary.reordered, "overtaken"),
    ):
        if count:
            notes.append(f"{count} {what}")
    return "; ".join(notes + _errors(result.errors))


def ping_rows(results: Sequence[PingResult]) -> Rows:
    """Return a row for each of *results*; times in milliseconds."""
    return [(each.host, *_figures(each.summary), _notes(each)) for each in results]


def trace_rows(result: TraceResult) -> Rows:
    """Return a row for each hop of *result*; times in milliseconds."""
    rows = []
    for hop in result.hops:
        sources = [
            source if len(hop.sources) == 1 else f"{source} ({count})"
            for source, count in hop.sources.items()
        ]
        silence = "no answer" if hop.summary.sent else "awaited"
        who = "; ".join([", ".join(sources) or silence, *_errors(hop.errors)])
        rows.append((str(hop.number), *_figures(hop.summary), who))
    return rows


def total(results: Sequence[PingResult]) -> str:
    """Return the line that sums *results* up."""
    sent = sum(each.summary.sent for each in results)
    received = sum(each.summary.received for each in results)
    silent = sum(not each.summary.received for each in results)
    lost = f"{(sent - received) / sent:.2%} lost" if sent else "nothing sent"
    hosts = f"{len(results)} host{'' if len(results) == 1 else 's'}"
    return f"{hosts}, {silent} without an answer; {sent} sent, {received} answered, {lost}"


def print_results(results: Sequence[PingResult]) -> None:
    """Print what became of each host, and the total."""
    show_table(PING_COLUMNS, ping_rows(results), SPARE)
    if len(results) > 1:
        click.echo(total(results))


def print_trace(result: TraceResult) -> None:
    """Print the path."""
    show_table(TRACE_COLUMNS, trace_rows(result), SPARE)
    if not result.has_arrived:
        click.echo(f"{result.host}: did not answer")


class Live:
    """A table that is redrawn in place while it is entered, and gone afterwards."""

    def __init__(self) -> None:
        import rich.live

        self._console = console()
        self._live = rich.live.Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, results: Sequence[PingResult], lasted_s: float) -> None:
        """Show *results*: as many as there is room for, the worst first where it is too small."""
        room = max(self._console.height - LINES_BESIDE, 1)
        if len(results) > room:
            results_shown = sorted(results, key=_badness, reverse=True)[:room]
        else:
            results_shown = list(results)
        footer = f"{total(results)}; {lasted_s:.0f} s"
        self._draw(PING_COLUMNS, ping_rows(results_shown), footer)

    def show_rows(self, rows: Rows) -> None:
        """Show a path."""
        self._draw(TRACE_COLUMNS, rows, "")

    def _draw(self, columns: Sequence[str], rows: Rows, footer: str) -> None:
        import rich.console
        import rich.text

        parts: list[Any] = [table_of(self._console, columns, rows, SPARE)]
        if footer:
            parts.append(rich.text.Text(footer, "dim", no_wrap=True, overflow="ellipsis"))
        self._live.update(rich.console.Group(*parts), refresh=True)


def _badness(result: PingResult) -> tuple[bool, float, float]:
    summary = result.summary
    return bool(result.fault), summary.loss, summary.mean_s or 0.0
