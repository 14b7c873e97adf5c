"""What subcommands share: arguments, how they are read, and the verdict on files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from twistedsock.cli.exits import EX_CONFIG
from twistedsock.errors import ConfigError, OptionError, UnitError
from twistedsock.host.loader import RawConfig, read_files, set_key
from twistedsock.sockopts import read_value
from twistedsock.units import parse_duration


def config_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the arguments ``files`` and ``assignments``, for ``read_config``."""
    files = click.argument("files", nargs=-1, required=True, metavar="FILE...")
    assignments = click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set one key."
    )
    return files(assignments(command))


def read_config(files: tuple[str, ...], assignments: tuple[str, ...]) -> RawConfig:
    """Return the files with the assignments laid over them, as the daemon reads them."""
    raw = read_files(files)
    for assignment in assignments:
        set_key(raw, assignment)
    return raw


def read_duration(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Return *text*, such as ``500ms`` or a number of seconds, in seconds."""
    if text is None:
        return None
    try:
        seconds = parse_duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text)
    except UnitError as error:
        raise click.BadParameter(str(error)) from None
    if seconds <= 0:
        raise click.BadParameter(f"must be above zero, got {text!r}")
    return seconds


socket_options = click.option(
    "-o",
    "--option",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a socket option first, such as IP_TOS=0x10; may be repeated.",
)


def read_assignments(assignments: tuple[str, ...]) -> dict[str, object]:
    """Return the socket options in texts such as ``TCP_KEEPIDLE=60s``.

    Raises:
        OptionError: One is no assignment.
    """
    options: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals):
            raise OptionError(
                f"--option must be NAME=VALUE, such as TCP_KEEPIDLE=60s; got {assignment!r}"
            )
        options[name] = read_value(name, value)
    return options


@contextmanager
def telling_problems() -> Iterator[None]:
    """Tell every problem of a ConfigError on standard error, and end with 78."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} error{'s' if count > 1 else ''}", err=True)
        click.get_current_context().exit(EX_CONFIG)
