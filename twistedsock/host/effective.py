"""The settings that are in force: what was written, and the default of every other key.

In the terms of the file: a value is shown as TOML holds it, and only where the daemon would read
the same from it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pydantic
from pydantic.fields import FieldInfo

from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import Path, make_plans
from twistedsock.host.settings import LimitsConfig, ServiceConfig
from twistedsock.host.toml_values import holds_secret, toml_value

DEFAULT = "default"
Origin = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one key.

    Attributes:
        value: As TOML holds it; None where it cannot be shown.
        origin: The file or flag that it came from, or ``default``.
        note: Why the key must not be written down like this; empty where it may be.
    """

    value: Any  # what TOML holds
    origin: str
    note: str = ""


Table: TypeAlias = dict[str, "Item"]
Item: TypeAlias = Setting | Table | list[Table]


def effective_services(raw: RawConfig) -> dict[str, Table]:
    """Return every key of each service of *raw*, in the order of the settings' models.

    Raises:
        ConfigError: Something is wrong; it holds every problem.
    """
    tables = {}
    for plan in make_plans(raw):
        path: Path = ("services", plan.name)
        written = raw.table["services"][plan.name]
        table = _own_table(ServiceConfig.model_validate(written), path, raw.origin)
        own = written.get("settings", {})
        keys = _plugin_table(plan.settings, own, (*path, "settings"), raw.origin)
        tables[plan.name] = table | {"settings": keys or Setting({}, DEFAULT)}
    return tables


def _own_table(model: pydantic.BaseModel, path: Path, origin: Origin) -> Table:
    """Return the keys of *model*, one of ours: its types write what they read."""
    table: Table = {}
    for key, value in model.model_dump().items():
        here, inner = (*path, key), getattr(model, key)
        if isinstance(inner, pydantic.BaseModel):
            table[key] = _own_table(inner, here, origin)
        elif key == "listen":
            table[key] = [_own_table(each, (*here, at), origin) for at, each in enumerate(inner)]
        elif key in model.model_fields_set:
            table[key] = _item(value, here, origin)
        elif isinstance(model, LimitsConfig) and key in model.UNSET:
            table[key] = Setting(model.UNSET[key][0], DEFAULT, model.UNSET[key][1])
        else:
            table[key] = Setting(value, DEFAULT)
    return table


def _plugin_table(
    model: pydantic.BaseModel, written: Mapping[str, Any], path: Path, origin: Origin
) -> Table:
    """Return the keys of *model*, a plug-in's: as written, and such defaults as read back."""
    table: Table = {}
    readable = dict(written)
    # A root model has no keys but those that are written.
    fields = {} if isinstance(model, pydantic.RootModel) else type(model).model_fields
    for name, field in fields.items():
        key = _key(name, field, written)
        here, value = (*path, key), getattr(model, name)
        if key in written:
            table[key] = _written(model, name, written[key], here, origin)
        elif isinstance(value, pydantic.BaseModel) and _reads_back(
            model, name, {**readable, key: {}}
        ):
            table[key] = _plugin_table(value, {}, here, _no_origin)
        else:
            table[key] = _default(model, name, key, readable, here)
    rest = {key: value for key, value in written.items() if key not in table}
    return table | {key: _item(value, (*path, key), origin) for key, value in rest.items()}


def _default(
    model: pydantic.BaseModel, name: str, key: str, readable: dict[str, Any], path: Path
) -> Item:
    """Return the default of *key*, and add it to *readable*: what can be written together."""
    try:
        # A field that its model leaves out is taken as it is.
        value = model.model_dump(include={name}).get(name, getattr(model, name))
        if value is None:
            return Setting(None, DEFAULT, "not set")
        value = toml_value(value)
    except Exception as error:  # the plug-in's own types are called
        return Setting(None, DEFAULT, " ".join(str(error).split()))
    if not _reads_back(model, name, {**readable, key: value}):
        return Setting(None, DEFAULT, "its default is read as another value, or not at all")
    readable[key] = value
    return _item(value, path, _no_origin)


def _reads_back(model: pydantic.BaseModel, name: str, table: Mapping[str, Any]) -> bool:
    """Return whether *table* gives the field *name* the value that it has in *model*."""
    try:
        again = type(model).model_validate(table)
        return bool(getattr(again, name) == getattr(model, name))
    except Exception:  # the plug-in's own validators are called
        return False


def _no_origin(path: Path) -> str:
    return DEFAULT


def _key(name: str, field: FieldInfo, written: Mapping[str, Any]) -> str:
    """Return the key that *field* was, or would be, written by."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    keys = [*(each for each in choices if isinstance(each, str)), name]
    return next((key for key in keys if key in written), keys[0])


def _written(
    model: pydantic.BaseModel, name: str, written: Any, path: Path, origin: Origin
) -> Item:
    """Return a plug-in's key as it was *written*, with the defaults of the models in it."""
    value = getattr(model, name)
    if isinstance(value, pydantic.BaseModel) and isinstance(written, Mapping):
        return _plugin_table(value, written, path, origin)
    if isinstance(value, list | tuple) and isinstance(written, list) and len(value) == len(written):
        pairs = list(zip(value, written, strict=True))
        if pairs and all(
            isinstance(a, pydantic.BaseModel) and isinstance(b, Mapping) for a, b in pairs
        ):
            return [
                _plugin_table(each, table, (*path, at), origin)
                for at, (each, table) in enumerate(pairs)
            ]
    if holds_secret(value):
        return Setting(None, origin(path), "a secret is not shown")
    return _item(written, path, origin)


def _item(value: Any, path: Path, origin: Origin) -> Item:
    """Return *value* with an origin for each of its keys, where it is a table or several."""
    if isinstance(value, Mapping) and value:
        return _keys(value, path, origin)
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        return [_keys(each, (*path, at), origin) for at, each in enumerate(value)]
    return Setting(value, origin(path))


def _keys(value: Mapping[str, Any], path: Path, origin: Origin) -> Table:
    return {key: _item(each, (*path, key), origin) for key, each in value.items()}
