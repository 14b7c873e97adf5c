"""``twistedsock check``: whether the daemon would accept these files."""

from __future__ import annotations

import click

from twistedsock.cli.reading import config_arguments, read_config, telling_problems
from twistedsock.host.plan import make_plans


@click.command()
@config_arguments
def command(files: tuple[str, ...], assignments: tuple[str, ...]) -> None:
    """Check FILEs together, as `twistd sockservice --config` would read them.

    Binds nothing. Exits 0, or 78 with every error, each with its file and key.
    """
    with telling_problems():
        plans = make_plans(read_config(files, assignments))
    for plan in plans:
        addresses = ", ".join(str(listener.address) for listener in plan.listeners)
        click.echo(f"{plan.name}: {plan.service_class.__name__} on {addresses}")
    click.echo("ok")
