"""The JSON Schema of the configuration file, with the settings of the services that are installed.

For editors: a schema sees one file, key by key, so ``plan`` may still refuse what it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from twistedsock.errors import PluginError
from twistedsock.host.draft07 import Schema, model_schema
from twistedsock.host.registry import Plugin
from twistedsock.host.settings import DEFAULT_CODEC, Config, LimitsConfig
from twistedsock.host.values import DURATION_SCHEMA, SIZE_SCHEMA
from twistedsock.service import SocketService
from twistedsock.sockopts import SPELLINGS, Option
from twistedsock.sockopts.catalogue import LEVELS, PHASES
from twistedsock.sockopts.kinds import describe
from twistedsock.sockopts.values import MAX_INT
from twistedsock.wire.codecs import CODECS


def config_schema(plugins: Iterable[Plugin]) -> tuple[Schema, list[str]]:
    """Return the schema of a configuration whose services are among *plugins*.

    Returns:
        The schema, and what is wrong with the plug-ins that it leaves out.
    """
    schema = model_schema(Config, "#")
    definitions = schema["definitions"]
    summaries: dict[str, str] = {}
    cases, faults = [], []
    for plugin in plugins:
        try:
            service = plugin.load()
            settings = _settings_schema(plugin.name, service)
        except PluginError as error:
            faults.append(str(error))
            continue
        definitions[_settings_of(plugin.name)] = settings
        summaries[plugin.name] = (service.__doc__ or "").strip().partition("\n")[0]
        cases.append(_case(plugin.name, service, settings))

    table = definitions["ServiceConfig"]
    table["properties"]["service"] |= {
        "enum": list(summaries),
        "x-taplo": {"docs": {"enumValues": list(summaries.values())}},
    }
    table["allOf"] = cases
    for key, value in LimitsConfig().model_dump().items():
        if value is not None:
            definitions["LimitsConfig"]["properties"][key]["default"] = value  # as a file has it
    definitions["SocketOptions"] = _socket_schema()
    for each in (table, definitions["ListenConfig"]["anyOf"][1]):
        each["properties"]["socket"] = {"$ref": _place("SocketOptions")}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}, faults


def _settings_of(name: str) -> str:
    return f"{name}.settings"


def _place(definition: str) -> str:
    """Return the reference to *definition*: a JSON Pointer (RFC 6901) as a URI fragment."""
    return "#/definitions/" + quote(definition.replace("~", "~0").replace("/", "~1"), safe="~")


def _settings_schema(name: str, service: type[SocketService]) -> Schema:
    """Return the schema of the settings of *service*.

    Raises:
        PluginError: The plug-in's own types could not be described.
    """
    try:
        return model_schema(service.Settings, _place(_settings_of(name)))
    except Exception as error:  # the plug-in's own types and defaults are called
        told = f"{type(error).__name__}: {error}"
        raise PluginError(f"the settings of {name!r} cannot be described: {told}") from error


def _case(name: str, service: type[SocketService], settings: Schema) -> Schema:
    """Return what holds for a table whose ``service`` is *name*."""
    then: Schema = {"properties": {"settings": {"$ref": _place(_settings_of(name))}}}
    codecs = service.served_codecs()
    if set(codecs) < set(CODECS):
        then["properties"]["codec"] = {"enum": list(codecs)}
    needed = {"settings": "required" in settings, "codec": DEFAULT_CODEC not in codecs}
    then["required"] = [key for key in needed if needed[key]]
    return {
        "if": {"properties": {"service": {"const": name}}, "required": ["service"]},
        "then": then,
    }


def _socket_schema() -> Schema:
    """Return the schema of a table of socket options."""
    options: dict[str, Schema] = {}
    for spelling, meant in SPELLINGS.items():
        settable = [option for option in meant if option.is_writable]
        if settable and "@" not in spelling:
            names = " and ".join(option.name for option in settable)
            alias = "" if spelling == settable[0].name else f"{names}: "
            fits = describe(frozenset().union(*(option.fits for option in settable)))
            told = f"{alias}{settable[0].meaning}. For {fits}."
            options[spelling] = {"description": told, **_value_schema(settable[0], spelling)}
    raw = {
        "description": "An option that has no name here.",
        "type": "object",
        "additionalProperties": False,
        "required": ["level", "number", "value"],
        "properties": {
            "level": {"anyOf": [{"enum": list(LEVELS)}, {"type": "integer", "minimum": 0}]},
            "number": {"type": "integer", "minimum": 0, "maximum": MAX_INT},
            "value": {"type": ["integer", "boolean", "string"]},
            "phase": {"enum": list(PHASES)},
        },
    }
    return {
        "description": "Socket options by the kernel's own names.",
        "type": "object",
        "additionalProperties": raw,
        "properties": options,
    }


def _value_schema(option: Option, spelling: str) -> Schema:
    """Return the schema of the value of *option*; ``check`` judges what it leaves open."""
    form = option.form
    schema: Schema = {}
    if form.kind in ("bool", "none"):
        schema = {"type": "boolean"}
    elif form.kind in _DURATIONS:
        schema = DURATION_SCHEMA
        if form.low is not None and form.low < 0:
            schema = {"anyOf": [{"const": "none"}, schema]}
        if spelling.endswith("Sec"):
            schema = {"anyOf": [{"type": "integer", "minimum": 0}, schema]}
    elif form.kind == "size":
        schema = SIZE_SCHEMA
    elif form.kind == "linger":
        schema = {"anyOf": [{"const": False}, DURATION_SCHEMA]}
    elif form.kind in ("text", "interface"):
        schema = {"type": "string"}
    elif form.kind in ("int", "uint", "fd"):
        schema = {"type": "integer", "minimum": form.low, "maximum": form.high}
    elif form.kind in ("enum", "dscp"):
        schema = {"anyOf": [{"enum": list(form.choices)}, {"type": "integer"}]}
    elif form.kind == "flags":
        names = {"type": "array", "items": {"enum": list(form.choices)}}
        schema = {"anyOf": [names, {"type": "string"}, {"type": "integer"}]}
    return schema


_DURATIONS = ("seconds", "milliseconds", "microseconds", "timeval", "timeval64")
