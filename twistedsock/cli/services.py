"""``twistedsock services``: what is installed, and what of it is broken."""

from __future__ import annotations

import json
from typing import Any

import click
import rich.console
import rich.markup
import rich.table

from twistedsock.errors import PluginError
from twistedsock.host.registry import Plugin, find_plugins


def describe(plugin: Plugin) -> dict[str, Any]:
    """Return what can be told of *plugin*; ``error`` where it is broken."""
    told: dict[str, Any] = {"name": plugin.name, "origin": plugin.origin}
    try:
        service = plugin.load()
    except PluginError as error:
        return {**told, "error": str(error)}
    settings = {
        name: repr(field.get_default(call_default_factory=True))
        if not field.is_required()
        else None
        for name, field in service.Settings.model_fields.items()
    }
    summary = (service.__doc__ or "").strip().partition("\n")[0]
    return {**told, "kinds": list(service.served_kinds()), "settings": settings, "summary": summary}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def command(as_json: bool) -> None:
    """List the installed services with their kinds, settings and origin, the broken ones too."""
    described = [describe(plugin) for plugin in find_plugins().values()]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    console = rich.console.Console()
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for title in ("service", "kinds", "settings", "origin", "what it does"):
        table.add_column(title, overflow="fold")
    for each in described:
        if "error" in each:
            error = rich.markup.escape(each["error"])
            table.add_row(each["name"], "[red]broken[/red]", "", each["origin"], error)
            continue
        settings = ", ".join(each["settings"]) or "-"
        table.add_row(
            each["name"], ", ".join(each["kinds"]), settings, each["origin"], each["summary"]
        )
    console.print(table)
