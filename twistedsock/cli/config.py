"""``twistedsock config``: the settings in force, with every default, as a file."""

from __future__ import annotations

import click
import tomlkit
from tomlkit.items import AoT
from tomlkit.items import Table as TomlTable

from twistedsock.cli.reading import config_arguments, read_config, telling_problems
from twistedsock.host.effective import Setting, Table, effective_services


@click.command()
@config_arguments
@click.option("--origin", is_flag=True, help="Tell where each key comes from.")
def command(files: tuple[str, ...], assignments: tuple[str, ...], origin: bool) -> None:
    """Print the settings of FILEs together, with every default, as one file.

    The daemon would read the same settings from it again. A key is commented out where writing
    it down would change its meaning, or where TOML cannot hold it; so is a plug-in's secret.
    """
    with telling_problems():
        services = effective_services(read_config(files, assignments))
    document = tomlkit.document()
    document["services"] = tables = tomlkit.table(is_super_table=True)
    for name, table in services.items():
        tables.append(name, _toml_table(table, origin))
    # TOML is UTF-8 whatever the locale; a command line's bytes that are not stay what they were.
    click.echo(tomlkit.dumps(document).encode("utf-8", "surrogateescape"), nl=False)


def _toml_table(table: Table, with_origin: bool) -> TomlTable:
    """Return *table* as TOML, its plain keys before its tables."""
    toml = tomlkit.table()
    for key, item in table.items():
        if isinstance(item, Setting):
            _add_setting(toml, key, item, with_origin)
    for key, item in table.items():
        if isinstance(item, dict):
            toml.append(key, _toml_table(item, with_origin))
        elif isinstance(item, list):
            toml.append(key, AoT([_toml_table(each, with_origin) for each in item]))
    return toml


def _add_setting(toml: TomlTable, key: str, setting: Setting, with_origin: bool) -> None:
    """Add the line of one key to *toml*, commented out where the key must not be written."""
    told = [setting.origin] * with_origin + [setting.note] * bool(setting.note)
    comment = _printable("; ".join(told))
    value = tomlkit.inline_table() if setting.value == {} else tomlkit.item(setting.value)
    if not setting.note:
        if comment:
            value.comment(comment)
        toml.append(key, value)
    elif setting.value is None:
        toml.add(tomlkit.comment(f"{tomlkit.key(key).as_string()}: {comment}"))
    else:
        written = f"{tomlkit.key(key).as_string()} = {value.as_string()}"
        toml.add(tomlkit.comment(f"{written} # {comment}"))


def _printable(text: str) -> str:
    """Return *text* with escapes for what a TOML comment, or a terminal, must not be given."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
