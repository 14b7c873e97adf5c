"""``twistedsock check``: whether the daemon would accept these files."""

from __future__ import annotations

import click

from twistedsock.errors import ConfigError
from twistedsock.host.loader import read_files, set_key
from twistedsock.host.plan import make_plans

EX_CONFIG = 78


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set one key.")
@click.pass_context
def command(context: click.Context, files: tuple[str, ...], assignments: tuple[str, ...]) -> None:
    """Check FILEs together, as `twistd sockservice --config` would read them.

    Binds nothing. Exits 0, or 78 with every error, each with its file and key.
    """
    raw = read_files(files)
    for assignment in assignments:
        set_key(raw, assignment)
    try:
        plans = make_plans(raw)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} error{'s' if count > 1 else ''}", err=True)
        context.exit(EX_CONFIG)
    for plan in plans:
        addresses = ", ".join(str(listener.address) for listener in plan.listeners)
        click.echo(f"{plan.name}: {plan.service_class.__name__} on {addresses}")
    click.echo("ok")
