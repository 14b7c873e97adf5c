"""``twistedsock probe``: measure round trips against an echo service."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from twistedsock.cli import figures, histogram
from twistedsock.cli.exits import EX_INTERRUPTED, EX_UNAVAILABLE, EXITS, exit_of
from twistedsock.cli.reading import read_assignments, read_duration, socket_options
from twistedsock.cli.running import run
from twistedsock.cli.tables import console
from twistedsock.client.pipe import OutputError
from twistedsock.client.probe import Probe, Settings, settle
from twistedsock.client.probing import ProbeResult
from twistedsock.errors import (
    AddressError,
    FrameError,
    OptionError,
    UnitError,
)
from twistedsock.units import parse_size
from twistedsock.wire.framing import FRAMINGS

FEW = 10  # requests, where nobody watches and no end was given
_T = TypeVar("_T")


def _size(_: click.Context, __: click.Parameter, text: str) -> int:
    """Return the bytes in *text*, such as ``1KiB`` or a plain number."""
    try:
        return parse_size(text)
    except UnitError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("address")
@click.option("-c", "--count", type=click.IntRange(min=1), help="How many requests to send.")
@click.option(
    "--duration",
    "duration_s",
    callback=read_duration,
    metavar="DURATION",
    help="How long to send, such as 10s.",
)
@click.option(
    "--rate",
    default="10/s",
    help="How many requests in which time, such as 100/s, whatever becomes of others; or max: the"
    " next when the one before it is answered or lost. [10/s]",
)
@click.option(
    "--size",
    "size_bytes",
    callback=_size,
    default="64",
    metavar="SIZE",
    help="Bytes of each request: 22 to 65507; on connections to 1MiB. [64]",
)
@click.option(
    "--timeout",
    "timeout_s",
    callback=read_duration,
    default="1s",
    metavar="DURATION",
    help="An answer later than that is lost. Connecting may take as long, or 10s. [1s]",
)
@click.option(
    "--framing",
    type=click.Choice(list(FRAMINGS)),
    default="chunk",
    help="How messages are cut from a stream; chunk finds answers wherever they are. [chunk]",
)
@socket_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON; times in ms.")
@click.option(
    "--plot",
    metavar="FILE.png",
    help="Draw a histogram of the round trips. Needs matplotlib.",
)
@click.pass_context
def command(
    context: click.Context,
    address: str,
    count: int | None,
    duration_s: float | None,
    rate: str,
    size_bytes: int,
    timeout_s: float,
    framing: str,
    assignments: tuple[str, ...],
    as_json: bool,
    plot: str | None,
) -> None:
    """Measure round trips, loss, duplicates and reordering against the echo service at ADDRESS,
    such as udp:localhost:7, tcp:[::1]:8888, unix:/run/x.sock, seqpacket:@name or
    raw:253:192.0.2.1.

    Each request is a line of its own kind. It is answered when it comes back whole, with whatever
    before or behind it: the services echo and echo-reply do. Requests are due at fixed times; a
    round trip counts from when its request left, and requests that left late are told as behind.

    Without --count and --duration it goes on until Ctrl-C on a terminal, which still shows the
    figures; in a pipe and with --json it sends 10 requests.

    \b
    Exit status:
       0  an answer came, and the probe ran to its end or to Ctrl-C
      64  wrong command line or address, or no matplotlib for --plot
      68  cannot resolve the name
      69  refused: nobody listens there; or no answer came
      71  unreachable: no way there, no right to, or a socket option refused
      72  closed by the peer before the end
      73  the picture or the output cannot be written
      74  cannot send, such as a request that is larger than what goes there
      75  timed out: no connection, or not any more
      76  the peer sent what cannot be read in this framing
      77  no right to a raw socket, or to a socket option
     130  interrupted before there was a connection
    """
    is_live = console().is_terminal and not as_json
    if count is None and duration_s is None and not is_live:
        count = FEW
    if plot is not None and not histogram.is_possible():
        raise click.UsageError("--plot needs matplotlib: pip install 'twistedsock[plot]'")
    try:
        settings = settle(
            address,
            count=count,
            duration_s=duration_s,
            rate=rate,
            size_bytes=size_bytes,
            timeout_s=timeout_s,
            framing=framing,
            options=read_assignments(assignments),
        )
    except (AddressError, FrameError, OptionError, UnitError) as error:
        raise click.UsageError(str(error)) from None
    try:
        _check_writable(plot)
        result = _run(settings, is_live)
        _tell(settings, result, as_json)
        if plot is not None:
            _plot(result, plot)
        code = _verdict(result)
    except CancelledError:
        code = EX_INTERRUPTED
    except tuple(EXITS) as error:
        click.echo(f"twistedsock probe: {error}", err=True)
        code = exit_of(error)
    context.exit(code)


def _run(settings: Settings, is_live: bool) -> ProbeResult:
    """Return the result of the probe, showing how it goes where *is_live*."""
    probes: list[Probe] = []

    def stop() -> None:
        probes[0].stop()

    with ExitStack() as stack:

        def start(reactor: Any) -> Deferred[ProbeResult]:
            probes.append(Probe(reactor, settings))
            done = probes[0].start()
            if is_live:
                view = stack.enter_context(figures.LiveView(settings, probes[0].core))
                drawing = LoopingCall(view.refresh)
                drawing.clock = reactor
                drawing.start(figures.REFRESH_S)
                done.addBoth(_passing, drawing.stop)
            return done

        return run(start, stop)


def _passing(result: _T, call: Callable[[], object]) -> _T:
    call()
    return result


def _tell(settings: Settings, result: ProbeResult, as_json: bool) -> None:
    lines = figures.summary_lines(settings, result)
    if as_json:
        lines = [json.dumps(result.as_json())]
    try:
        for line in lines:
            click.echo(line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _not_written("standard output", error) from None


def _verdict(result: ProbeResult) -> int:
    """Return the exit status; tell why it is not 0."""
    if result.ended_by is not None:
        click.echo(f"twistedsock probe: {result.ended_by}", err=True)
        return EXITS[type(result.ended_by)]
    if result.summary.received:
        return 0
    count = result.summary.sent
    text = f"{result.address}: no answer to {count} request{'' if count == 1 else 's'}"
    told = [f"{os.strerror(getattr(errno, code, 0))} ({code})" for code in result.errors]
    click.echo(f"twistedsock probe: {': '.join([text, *told])}", err=True)
    return EX_UNAVAILABLE


def _check_writable(path: str | None) -> None:
    """Find out before anything is sent whether there can be a picture; leave no file behind.

    Raises:
        OutputError: *path* cannot be written.
    """
    if path is None:
        return
    is_new = not os.path.lexists(path)
    try:
        # A FIFO that nobody reads is refused, rather than waited for.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise _not_written(path, error) from None
    if is_new:
        with suppress(OSError):
            os.unlink(path)


def _plot(result: ProbeResult, path: str) -> None:
    if not result.summary.received:
        click.echo("twistedsock probe: no picture: nothing was answered", err=True)
        return
    try:
        histogram.draw(result, path)
    except OSError as error:
        raise _not_written(path, error) from None


def _not_written(path: str, error: OSError) -> OutputError:
    code = errno.errorcode.get(error.errno or 0, "")
    return OutputError(f"{path}: {error.strerror} ({code})")
