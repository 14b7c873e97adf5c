"""``twistedsock ping``: ping hosts, thousands at once; show the path to one."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import click
from twisted.internet.defer import Deferred

from twistedsock.cli.exits import EX_NOHOST, EX_UNAVAILABLE, exit_of
from twistedsock.cli.ping_tables import Live, print_results, print_trace, trace_rows
from twistedsock.cli.reading import read_assignments, read_duration, socket_options
from twistedsock.cli.running import run
from twistedsock.cli.tables import console
from twistedsock.client.ping import (
    DEFAULT_SIZE_BYTES,
    LEAST_INTERVAL_S,
    MAX_COUNT,
    MAX_WAIT_S,
    Ping,
)
from twistedsock.client.pinging import Failure, PingResult, Reply
from twistedsock.client.trace import MAX_COUNT as MOST_A_HOP
from twistedsock.client.trace import MAX_HOPS, Trace, TraceResult
from twistedsock.errors import BindError, CannotResolve, OptionError
from twistedsock.transports.echo_socket import MAX_SIZE_BYTES

DEFAULT_COUNT = 5  # where nobody watches, and could interrupt it
MAX_HOSTS = 65_536
REFRESH_S = 0.25
DRAWING_SHARE = 20  # of the time goes into the table of very many hosts: one part in as many


@click.command()
@click.argument("hosts", nargs=-1, metavar="HOST...")
@click.option("-c", "--count", type=click.IntRange(1, MAX_COUNT), help="Requests to each host.")
@click.option(
    "-i",
    "--interval",
    "interval_s",
    callback=read_duration,
    default="1s",
    metavar="DURATION",
    help="Between two requests to one host, 1ms or more. [1s]",
)
@click.option(
    "--timeout",
    "timeout_s",
    callback=read_duration,
    default="1s",
    metavar="DURATION",
    help="How long to wait for the last answers. [1s]",
)
@click.option(
    "-s",
    "--size",
    type=click.IntRange(0, MAX_SIZE_BYTES),
    default=DEFAULT_SIZE_BYTES,
    help=f"Bytes of a request behind its ICMP header. [{DEFAULT_SIZE_BYTES}]",
)
@click.option("-4", "version", flag_value=4, type=int, help="Ping names at their IPv4 address.")
@click.option("-6", "version", flag_value=6, type=int, help="Ping names at their IPv6 address.")
@click.option(
    "-f", "--file", "file", type=click.File(), help="Read more hosts, one a line; - is the input."
)
@click.option("--trace", is_flag=True, help="Show the path to one host.")
@click.option(
    "--max-hops", type=click.IntRange(1, 255), default=MAX_HOPS, help=f"Of a path. [{MAX_HOPS}]"
)
@socket_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a host, at the end.")
@click.option("-v", "--verbose", is_flag=True, help="Print each answer and error, as it comes.")
@click.pass_context
def command(
    context: click.Context,
    hosts: tuple[str, ...],
    count: int | None,
    interval_s: float,
    timeout_s: float,
    size: int,
    version: int | None,
    file: Any,
    trace: bool,
    max_hops: int,
    assignments: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Ping each HOST: a name, an address, or a network such as 192.0.2.0/24, any number of them.

    All are pinged at once, their requests spread evenly over the interval. On a terminal the
    figures are live, and without --count it goes on until Ctrl-C; else each host is sent 5
    requests. Times are the kernel's, from when a request left to when its answer came.

    \b
    Exit status:
       0  every host answered
      64  wrong command line
      68  a name has no address
      69  a host did not answer
      71  a socket, or an option, refused
      77  no right to a ping socket nor to a raw one
    """
    try:
        options = read_assignments(assignments)
        names = list(_expanded([*hosts, *_lines(file)]))
    except (OptionError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if not names:
        raise click.UsageError("no HOST is given")
    if trace and len(names) > 1:
        raise click.UsageError(f"--trace shows the path to one host, got {len(names)}")
    if trace and count is not None and count > MOST_A_HOP:
        raise click.UsageError(f"--count must be at most {MOST_A_HOP} with --trace, got {count}")
    if not LEAST_INTERVAL_S <= interval_s <= MAX_WAIT_S:
        raise click.UsageError(f"--interval must be 1ms to 1d, got {interval_s:g}s")
    if timeout_s > MAX_WAIT_S:
        raise click.UsageError(f"--timeout must be at most 1d, got {timeout_s:g}s")
    common = {"timeout_s": timeout_s, "size_bytes": size, "version": version, "options": options}
    try:
        if trace:
            code = _trace(names[0], count or 3, max_hops, common, as_json)
        else:
            code = _ping(names, count, interval_s, common, as_json, verbose)
    except (BindError, OptionError, CannotResolve) as error:
        click.echo(f"twistedsock ping: {error}", err=True)
        code = exit_of(error)
    except BrokenPipeError:  # whoever read our output has had enough
        # What Python would still write at its end goes nowhere.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it is closed by that end
        code = 0
    context.exit(code)


def _lines(file: Any) -> Iterator[str]:
    for line in file or ():
        word = line.partition("#")[0].strip()
        if word:
            yield word


def _expanded(names: list[str]) -> Iterator[str]:
    """Yield *names*, and the hosts of each that is a network.

    Raises:
        ValueError: One is no network, or there are too many hosts.
    """
    count = 0
    for name in names:
        found = ipaddress.ip_network(name).hosts() if "/" in name else [name]
        for host in found:
            count += 1
            if count > MAX_HOSTS:
                raise ValueError(f"at most {MAX_HOSTS} hosts, and {name} makes them more")
            yield str(host)


def _ping(
    hosts: list[str],
    count: int | None,
    interval_s: float,
    common: dict[str, Any],
    as_json: bool,
    verbose: bool,
) -> int:
    is_live = console().is_terminal and not as_json and not verbose
    if count is None and not console().is_terminal:
        count = DEFAULT_COUNT
    runs: list[Ping] = []
    live = Live() if is_live else None

    def draw(reactor: Any, live: Live, begin_s: float) -> None:
        now_s = reactor.seconds()
        live.show(runs[0].results(), now_s - begin_s)
        wait_s = max(REFRESH_S, DRAWING_SHARE * (reactor.seconds() - now_s))
        reactor.callLater(wait_s, draw, reactor, live, begin_s)

    def start(reactor: Any) -> Deferred[list[PingResult]]:
        told = _print_one if verbose and not as_json else None
        runs.append(Ping(reactor, hosts, count=count, interval_s=interval_s, told=told, **common))
        if live is not None:
            reactor.callLater(REFRESH_S, draw, reactor, live, reactor.seconds())
        return runs[0].start()

    with live or nullcontext():
        results = run(start, lambda: runs[0].stop())
    if as_json:
        for result in results:
            click.echo(json.dumps(result.as_json()))
    else:
        print_results(results)
    if any(result.fault for result in results):
        return EX_NOHOST
    return 0 if all(result.summary.received for result in results) else EX_UNAVAILABLE


def _print_one(event: Reply | Failure) -> None:
    if isinstance(event, Failure):
        click.echo(f"{event.host}: seq {event.sequence}: {event.told}")
        return
    again = ", again" if event.is_duplicate else ""
    source = "" if event.source == event.host else f" ({event.source})"
    click.echo(
        f"{event.host}{source}: seq {event.sequence} ttl {event.ttl_hops}"
        f" time {event.rtt_s * 1e3:.3f} ms{again}"
    )


def _trace(host: str, count: int, max_hops: int, common: dict[str, Any], as_json: bool) -> int:
    is_live = console().is_terminal and not as_json
    runs: list[Trace] = []
    live = Live() if is_live else None

    def start(reactor: Any) -> Deferred[TraceResult]:
        def show(result: TraceResult) -> None:
            assert live is not None
            live.show_rows(trace_rows(result))

        told = show if live is not None else None
        runs.append(Trace(reactor, host, count=count, max_hops=max_hops, told=told, **common))
        return runs[0].start()

    with live or nullcontext():
        result = run(start, lambda: runs[0].stop())
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        print_trace(result)
    return 0 if result.has_arrived else EX_UNAVAILABLE
