"""``twistedsock schema``: the JSON Schema of the configuration file."""

from __future__ import annotations

import json

import click

from twistedsock.host.registry import find_plugins
from twistedsock.host.schema import config_schema


@click.command()
def command() -> None:
    """Print the JSON Schema of the configuration file, for editors.

    It knows every installed service. Let a file name it in its first line:

        #:schema sockservice.schema.json
    """
    schema, faults = config_schema(find_plugins().values())
    for fault in faults:
        click.echo(f"left out: {fault}", err=True)
    click.echo(json.dumps(schema, indent=2))
