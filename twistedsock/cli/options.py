"""``twistedsock options``: the catalogue of socket options, and what this kernel does with them."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import click
import rich.console
import rich.table
import rich.text

from twistedsock import sockopts
from twistedsock.addresses import parse_address
from twistedsock.errors import AddressError, OptionError
from twistedsock.sockopts.catalogue import LEVELS, PHASES, Option
from twistedsock.sockopts.kernel import get_value, with_sysctls
from twistedsock.sockopts.kinds import (
    GROUPS,
    SOCKETS,
    carriers,
    describe,
    expand,
    kinds_of_address,
    open_kind,
)
from twistedsock.sockopts.trying import Trial, try_option

EX_USAGE, EX_UNAVAILABLE, EX_NOPERM = 64, 69, 77  # sysexits.h
PIPE_WIDTH = 1000  # of a table in a pipe: a line an option


def _level(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Return the level that *text* means: ``IPPROTO_TCP``, or ``tcp`` for short."""
    if text is None:
        return None
    short = {name.split("_", 1)[1].lower(): name for name in LEVELS}
    name = short.get(text.lower(), text.upper())
    if name not in LEVELS:
        raise click.BadParameter(f"must be one of {', '.join(short)}; got {text!r}")
    return name


def _family(_: click.Context, __: click.Parameter, text: str | None) -> frozenset[str]:
    """Return the kinds of sockets that *text* means."""
    if text is None:
        return frozenset()
    try:
        return expand(text)
    except ValueError:
        known = ", ".join(dict.fromkeys((*GROUPS, *SOCKETS)))
        raise click.BadParameter(f"must be one of {known}; got {text!r}") from None


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME | WORD...]")
@click.option("--level", callback=_level, help="Only this level: socket, ip, ipv6, tcp, udp...")
@click.option("--family", callback=_family, help="Only what fits this: tcp, udp6, unix, packet...")
@click.option("--phase", type=click.Choice(PHASES), help="Only what is set in this phase.")
@click.option("--of", "address", metavar="ADDRESS", help="Show what a new socket there would have.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_context
def command(
    context: click.Context,
    words: tuple[str, ...],
    level: str | None,
    family: frozenset[str],
    phase: str | None,
    address: str | None,
    as_json: bool,
) -> None:
    """List socket options; explain the one called NAME; or find those with each WORD.

    With --of, open one socket of the kind that ADDRESS needs, and show the values that it has.
    """
    named = sockopts.SPELLINGS.get(words[0], ()) if len(words) == 1 else ()
    chosen = [
        option
        for option in (named or sockopts.CATALOGUE.values())
        if (level is None or option.level_name == level)
        and (not family or option.fits & family)
        and (phase is None or option.phase == phase)
        and (named or all(_has(option, word) for word in words))
    ]
    if not chosen:
        hint = ""
        if len(words) == 1:
            try:
                sockopts.find_options(words[0])
            except OptionError as error:
                hint = str(error).removeprefix("no socket option has this name")
        raise click.UsageError(f"no socket option is like that{hint}")
    if address is not None:
        _show_values(context, chosen, address, as_json)
    elif as_json:
        click.echo(json.dumps([_described(option, bool(named)) for option in chosen], indent=2))
    elif named:
        for option in chosen:
            _explain(option)
    else:
        _list(chosen)


def _has(option: Option, word: str) -> bool:
    text = " ".join((option.name, option.meaning, *option.aliases)).lower()
    return word.lower() in text


def _console() -> rich.console.Console:
    console = rich.console.Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _table(*columns: str) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    return table


# -- a list --


def _list(options: list[Option]) -> None:
    table = _table("NAME", "VALUE", "PHASE", "FITS", "MEANING")
    table.columns[3].no_wrap = False
    for option in options:
        how = option.value if option.is_writable else f"({option.value})"
        fits = describe(option.fits)
        table.add_row(option.name, how, option.phase, fits, rich.text.Text(option.meaning))
    console = _console()
    console.print(table)
    count = f"{len(options)} options; in brackets: read only, or part of messages"
    console.print(count, style="dim")


def _described(option: Option, with_trial: bool) -> dict[str, Any]:
    """Return what JSON says of *option*."""
    told: dict[str, Any] = {
        "name": option.name,
        "level": option.level_name,
        "level_number": option.level,
        "number": option.number,
        "value": option.value,
        "access": option.access,
        "fits": carriers(option.fits),
        "phase": option.phase,
        "inherited": carriers(option.inherited or ()),
        "since": option.since or None,
        "capabilities": list(option.capabilities),
        "capabilities_if": option.condition or None,
        "aliases": list(option.aliases),
        "read_as": option.read_as or None,
        "meaning": option.meaning,
        "differs": with_sysctls(option.differs) or None,
    }
    if with_trial:
        trial = try_option(option)
        told |= {
            "tried_on": trial.kind or None,
            "default": trial.default,
            "accepts": trial.accepts,
            "becomes": trial.becomes,
        }
    return told


# -- one option --

_PHASE_WORDS = {
    "socket": "at any time",
    "prebind": "before bind or connect",
    "bound": "once it is bound",
    "listening": "once it listens",
    "connected": "on each connection",
}
_ACCESS_WORDS = {
    "rw": "set and read",
    "r": "read only",
    "w": "set only",
    "cmsg": "in the ancillary data of messages only",
}


def _explain(option: Option) -> None:
    trial = try_option(option)
    rows = [
        ("number", f"{option.level_name} ({option.level}), {option.number}"),
        ("access", _ACCESS_WORDS[option.access]),
        ("value", option.form.wanted if option.is_writable else option.value),
        ("fits", describe(option.fits)),
    ]
    if option.is_writable:
        rows.append(("when", _when(option)))
        rows.append(("rights", _rights(option)))
    rows.append(("since", f"Linux {option.since}" if option.since else "the first versions"))
    if option.aliases:
        rows.append(("aliases", ", ".join(option.aliases)))
    if option.read_as:
        rows.append(("read as", option.read_as))
    if option.differs:
        rows.append(("read back", with_sysctls(option.differs)))
    rows += _trial_rows(trial)
    console = _console()
    console.print(rich.text.Text(option.name, "bold"))
    console.print(rich.text.Text(f"  {option.meaning}."))
    table = rich.table.Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, rich.text.Text(text))
    console.print(table)


def _when(option: Option) -> str:
    words = _PHASE_WORDS[option.phase]
    if option.phase == "socket" and option.inherited:
        words += f"; inherited from the listener by {describe(option.inherited)}"
    return words


def _rights(option: Option) -> str:
    if not option.capabilities:
        return "none"
    condition = f", if {option.condition}" if option.condition else ""
    return " or ".join(option.capabilities) + condition


def _trial_rows(trial: Trial) -> list[tuple[str, str]]:
    here = f"on Linux {os.uname().release}" if os.uname().sysname == "Linux" else "here"
    if not trial.kind:
        return [("here", f"no such socket can be opened {here}")]
    rows = []
    if not trial.code:
        rows.append(("default", f"{_shown(trial.default)} ({trial.kind}, {here})"))
    else:
        rows.append(("default", f"not told by a new socket ({trial.kind}, {trial.code}, {here})"))
    if trial.accepts is not None:
        low, high = map(_shown, trial.accepts)
        made = ""
        if trial.becomes is not None:
            made = f"; which become {_shown(trial.becomes[0])} and {_shown(trial.becomes[1])}"
        rows.append(("range", f"{low} to {high} accepted{made}"))
    return rows


def _shown(value: object) -> str:
    """Return *value* as a configuration file has it."""
    return json.dumps(value, ensure_ascii=False)


# -- the values of a new socket --


def _show_values(context: click.Context, options: list[Option], text: str, as_json: bool) -> None:
    try:
        address = parse_address(text)
    except AddressError as error:
        raise click.UsageError(str(error)) from None
    kinds = kinds_of_address(address)
    # One socket of both kinds where the address may be of either: a dual-stack one.
    kind = carriers(kinds)[-1]
    try:
        sock = open_kind(kind, _raw_protocol(address.path) if address.scheme == "raw" else None)
    except OSError as error:
        is_right = error.errno in (errno.EPERM, errno.EACCES)
        code = errno.errorcode.get(error.errno or 0, "")
        needs = "; needs CAP_NET_RAW" if is_right else ""
        click.echo(
            f"cannot open a socket for {address}: {error.strerror} ({code}){needs}", err=True
        )
        context.exit(EX_NOPERM if is_right else EX_UNAVAILABLE)
    values = []
    with sock:
        for option in options:
            if option.fits & kinds and option.is_readable and option.form.kind != "fd":
                values.append(_value_of(sock, option))
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    table = _table("NAME", "VALUE", "MEANING")
    table.columns[1].no_wrap = False
    for each in values:
        value = f"({each['error']})" if "error" in each else _shown(each["value"])
        meaning = sockopts.CATALOGUE[each["name"]].meaning
        table.add_row(each["name"], rich.text.Text(value), rich.text.Text(meaning))
    _console().print(table)


def _raw_protocol(name: str) -> int:
    return {"icmp": 1, "igmp": 2, "icmpv6": 58}.get(name) or int(name)


def _value_of(sock: Any, option: Option) -> dict[str, Any]:
    told = {"name": option.name, "level": option.level_name}
    try:
        return {**told, "value": option.form.decode(get_value(sock, option))}
    except OSError as error:
        return {**told, "error": errno.errorcode.get(error.errno or 0, str(error.errno))}
