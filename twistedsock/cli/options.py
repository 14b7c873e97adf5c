"""``twistedsock options``: the catalogue of socket options, and what this kernel does with them."""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Any

import click
import rich.padding
import rich.table
import rich.text

from twistedsock import sockopts
from twistedsock.addresses import Address, parse_address, raw_protocol
from twistedsock.cli.exits import EX_NOPERM, EX_UNAVAILABLE
from twistedsock.cli.tables import console, show_line, show_table
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
        if kinds := expand(text.lower()):
            return kinds
    except ValueError:
        pass
    known = ", ".join(dict.fromkeys((*GROUPS, *SOCKETS)))
    raise click.BadParameter(f"must be one of {known}; got {text!r}")


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME | WORD...]")
@click.option("--level", callback=_level, help="Only this level: socket, ip, ipv6, tcp, udp...")
@click.option("--family", callback=_family, help="Only what fits this: tcp, udp6, unix, packet...")
@click.option(
    "--phase",
    type=click.Choice(PHASES, case_sensitive=False),
    help="Only what is set in this phase.",
)
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
    Upper or lower case is all one. Exits 64 where no option is like that; with --of 69 where there
    is no such socket, or 77 where a right is lacking.
    """
    named = _named(words[0]) if len(words) == 1 else ()
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


def _named(word: str) -> tuple[Option, ...]:
    """Return the options called *word*; an alias is one only as it is spelled: else a word."""
    return sockopts.SPELLINGS.get(word) or sockopts.SPELLINGS.get(word.upper(), ())


def _has(option: Option, word: str) -> bool:
    text = " ".join((option.name, option.meaning, *option.aliases)).lower()
    return word.lower() in text


# -- a list --


def _list(options: list[Option]) -> None:
    rows = []
    for option in options:
        how = option.value if option.is_writable else f"({option.value})"
        rows.append((option.name, how, option.phase, describe(option.fits), option.meaning))
    columns = ("NAME", "VALUE", "PHASE", "FITS", "MEANING")
    show_table(columns, rows, spare=columns[1:-1])
    count = f"{len(options)} option{'s' if len(options) > 1 else ''}"
    show_line(f"{count}; in brackets: read only, or part of messages", "dim")


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
    screen = console()
    if not screen.is_terminal:
        label_width = max(len(name) for name, _ in rows)
        click.echo(f"{option.name}\n  {option.meaning}.")
        for name, text in rows:
            click.echo(f"  {name:{label_width}}  {text}")
        return
    screen.print(rich.text.Text(option.name, "bold"))
    screen.print(rich.padding.Padding(rich.text.Text(f"{option.meaning}."), (0, 0, 0, 2)))
    table = rich.table.Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, rich.text.Text(text))
    screen.print(table)


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
    try:
        sock, kinds = _open(address)
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
    if not values:
        which = f"{options[0].name} cannot" if len(options) == 1 else "none of them can"
        raise click.UsageError(f"{which} be read on a socket for {address}: {describe(kinds)}")
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    rows = []
    for each in values:
        value = f"({each['error']})" if "error" in each else _shown(each["value"])
        rows.append((each["name"], value, sockopts.CATALOGUE[each["name"]].meaning))
    show_table(("NAME", "VALUE", "MEANING"), rows)


def _open(address: Address) -> tuple[socket.socket, frozenset[str]]:
    """Return a new socket for *address*, which the caller closes, and the kinds that it is of.

    Where it may be of either IP version it is a dual-stack one; without IPv6, one of IPv4.

    Raises:
        OSError: The system has no such socket, or the process no right to it.
    """
    protocol = raw_protocol(address) if address.scheme == "raw" else None
    kinds = kinds_of_address(address)
    if address.scheme == "raw":  # one socket is of one version
        kinds = frozenset(carriers(kinds)[:1])
    *others, last = carriers(kinds)
    try:
        return open_kind(last, protocol), kinds
    except OSError as error:
        if not others or error.errno != errno.EAFNOSUPPORT:
            raise
        return open_kind(others[0], protocol), frozenset(others)


def _value_of(sock: socket.socket, option: Option) -> dict[str, Any]:
    told = {"name": option.name, "level": option.level_name}
    try:
        return {**told, "value": option.form.decode(get_value(sock, option))}
    except OSError as error:
        return {**told, "error": errno.errorcode.get(error.errno or 0, str(error.errno))}
