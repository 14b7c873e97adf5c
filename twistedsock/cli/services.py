"""``twistedsock services``: what is installed, and what of it is broken."""

from __future__ import annotations

import json
from typing import Any

import click
import pydantic.fields
import rich.console
import rich.text

from twistedsock.errors import PluginError
from twistedsock.host.registry import Plugin, find_plugins


def describe(plugin: Plugin) -> dict[str, Any]:
    """Return what can be told of *plugin*; ``error`` where it is broken."""
    told: dict[str, Any] = {"name": plugin.name, "origin": plugin.origin}
    try:
        service = plugin.load()
    except PluginError as error:
        return {**told, "error": str(error)}
    fields = service.Settings.model_fields
    settings = {name: default_of(field) for name, field in fields.items()}
    summary = (service.__doc__ or "").strip().partition("\n")[0]
    return {**told, "kinds": list(service.served_kinds()), "settings": settings, "summary": summary}


def default_of(field: pydantic.fields.FieldInfo) -> str | None:
    """Return the default of *field* as Python writes it; None where there is none."""
    if field.is_required():
        return None
    try:
        return repr(field.get_default(call_default_factory=True))
    except Exception:  # a plug-in's own factory; one that needs other keys cannot be told either
        return "(computed)"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def command(as_json: bool) -> None:
    """List the installed services with their kinds, settings and origin, the broken ones too."""
    described = [describe(plugin) for plugin in find_plugins().values()]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    # A plug-in's words are words: neither markup nor emoji.
    console = rich.console.Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    width = max((len(each["name"]) for each in described), default=0)
    for each in described:
        name = rich.text.Text(each["name"].ljust(width) + "  ", "bold")
        if "error" in each:
            console.print(name, rich.text.Text("broken: ", "red"), each["error"], sep="")
            continue
        facts = [", ".join(each["kinds"]), each["origin"]]
        if each["settings"]:
            facts.insert(1, f"settings: {', '.join(each['settings'])}")
        console.print(name, each["summary"], sep="")
        console.print(" " * len(name) + "; ".join(facts), style="dim")
