"""``twistedsock check``: whether the daemon would accept these files."""

from __future__ import annotations

from collections.abc import Iterable

import click

from twistedsock.cli.exits import EX_NOPERM, EX_UNAVAILABLE
from twistedsock.cli.reading import config_arguments, read_config, telling_problems
from twistedsock.host.plan import ServicePlan, make_plans
from twistedsock.sockopts import Outcome


@click.command()
@config_arguments
@click.option(
    "--probe",
    "probes",
    is_flag=True,
    help="Try the socket options on throw-away sockets, never on the configured addresses, and"
    " show what the kernel makes of each.",
)
@click.pass_context
def command(
    context: click.Context, files: tuple[str, ...], assignments: tuple[str, ...], probes: bool
) -> None:
    """Check FILEs together, as `twistd sockservice --config` would read them.

    Binds nothing. Exits 0, or 78 with every error, each with its file and key; with --probe 69
    where the kernel refuses a socket option, or 77 where a right is lacking.
    """
    with telling_problems():
        plans = make_plans(read_config(files, assignments))
    for plan in plans:
        addresses = ", ".join(str(listener.address) for listener in plan.listeners)
        click.echo(f"{plan.name}: {plan.service_class.__name__} on {addresses}")
    code = _probe(plans) if probes else 0
    if not code:
        click.echo("ok")
    context.exit(code)


def _probe(plans: Iterable[ServicePlan]) -> int:
    """Show what the kernel makes of the options; return the exit code."""
    from twistedsock.cli.tables import show_line, show_table  # the verdict alone needs no tables
    from twistedsock.host.probe import probe

    code = 0
    for each in probe(plans):
        if each.error is not None:
            click.echo(f"{each.service}: {each.error}", err=True)
            code = code or (EX_NOPERM if each.error.is_permission else EX_UNAVAILABLE)
        if each.report:
            show_line(f"{each.service} on {each.address}", "bold")
            columns = ("OPTION", "REQUESTED", "APPLIED", "EFFECTIVE", "REASON")
            show_table(columns, [_row(outcome) for outcome in each.report])
    return code


def _row(outcome: Outcome) -> tuple[str, ...]:
    effective = f"refused ({outcome.code})" if outcome.code else _shown(outcome.effective)
    values = map(_shown, (outcome.requested, outcome.applied))
    return (outcome.name, *values, effective, outcome.reason)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
