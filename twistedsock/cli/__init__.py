"""The ``twistedsock`` command: one file a subcommand, each imported only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import click

EX_USAGE = 64  # sysexits.h

# name of the subcommand: what `twistedsock --help` says of it
COMMANDS = {
    "check": "Check configuration files; all errors at once.",
    "config": "Print the settings in force, with every default.",
    "schema": "Print the JSON Schema of the configuration file.",
    "options": "Explain socket options, and show those of a new socket.",
    "connect": "Talk to a peer, by hand or in a pipe.",
    "ping": "Ping hosts, thousands at once; show the path to one.",
    "probe": "Measure round trips against an echo service.",
    "capture": "Show or record the packets of an interface.",
    "services": "List the installed services.",
}


@contextmanager
def _usage_code() -> Iterator[None]:
    """Make a wrong command line end with 64, as the daemon's does, rather than click's 2."""
    try:
        yield
    except click.UsageError as error:
        # click declares it for the class, but reads it from the error.
        error.exit_code = EX_USAGE  # type: ignore[misc]
        raise


class _Lazy(click.Group):
    """Imports a subcommand's module when it is asked for, so that each starts fast."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _usage_code():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        with _usage_code():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"twistedsock.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twistedsock")
def main() -> None:
    """Tools for twistedsock, the application server for socket protocols.

    The server itself is `twistd sockservice`.
    """
