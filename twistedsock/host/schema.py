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
from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.values import MAX_INT
from twistedsock.wire.codecs import CODECS

# How a socket option's value is written, by ``Option.value``.
_OPTION_VALUES: dict[str, Schema] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -MAX_INT, "maximum": MAX_INT},
    "size": SIZE_SCHEMA,
    "seconds": DURATION_SCHEMA,
    "milliseconds": DURATION_SCHEMA,
    "text": {"type": "string", "minLength": 1, "maxLength": 15},
    "linger": {"anyOf": [{"const": False}, DURATION_SCHEMA]},
}


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
    options = {}
    for name, option in CATALOGUE.items():
        version = f" over IPv{option.family}" if option.family else ""
        fits = f"For {' and '.join(sorted(option.fits))}{version}."
        options[name] = {"description": fits, **_OPTION_VALUES[option.value]}
    return {
        "description": "Socket options by the kernel's own names.",
        "type": "object",
        "additionalProperties": False,
        "properties": options,
    }
