"""The types of configured values: how each is read, written and described.

Each carries a parser, the format that writes its value as the parser reads it, and a JSON Schema
for editors. Know units and grammars; never a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from twistedsock.addresses import Address, parse_address
from twistedsock.host.draft07 import Schema
from twistedsock.policy.access import parse_account, parse_network
from twistedsock.transports.filtering import port_of
from twistedsock.units import (
    MAX_SIZE_BYTES,
    Rate,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)
from twistedsock.wire.codecs import CODECS
from twistedsock.wire.filters import compile_filter
from twistedsock.wire.framing import FRAMINGS

NONE = "none"  # TOML has no null: this switches a limit off


def _text(pattern: str, *examples: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)}


def _or_none(schema: Schema) -> Schema:
    return {"anyOf": [{"const": NONE}, schema]}


# The patterns let through all that the parsers do, and a little more: editors help, `check` judges.
_NUMBER = r"\s*[0-9]+(\.[0-9]+)?\s*"
_TIMES = rf"({_NUMBER}(us|ms|s|m|h|d))+\s*"
DURATION_SCHEMA = _text(_TIMES, "500ms", "30s", "5m", "1h30m")
_POSITIVE_SCHEMA = _text(rf"(?=.*[1-9]){_TIMES}", "500ms", "30s", "5m", "1h30m")
SIZE_SCHEMA: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_SIZE_BYTES},
        _text(rf"(?=.*[1-9]){_NUMBER}(|[kMG]?B|[KMG]iB)\s*", "64KiB", "1MB"),
    ]
}
_RATE_SCHEMA = _text(
    rf"(?=.*[1-9].*/){_NUMBER}/\s*({_TIMES}|(us|ms|s|m|h|d)({_TIMES})?\s*)",
    *("50/s", "100/m", "5/10s"),
)
_NETWORK_SCHEMA = _text(r"[0-9A-Fa-f:.]+(%[^/]+)?(/[0-9.]+)?", "10.0.0.0/8", "::1")
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+"
ADDRESS_SCHEMA = _text(
    rf"((tcp|udp):((\*|{_HOST}):)?[0-9]{{1,5}}|(unix|unixgram|seqpacket):[/@].+"
    rf"|raw:(icmp|icmpv6|igmp|[0-9]{{1,3}})(:({_HOST}))?|packet:[^\s/:]+)",
    *("tcp:127.0.0.1:8888", "udp:[::1]:8888", "tcp:*:8888", "unix:/run/x.sock"),
    *("unixgram:@x", "seqpacket:/run/x.sock", "raw:icmp", "raw:253", "packet:eth0"),
)
_MODE_SCHEMA = _text(r"0?[0-7]{3}", "0600", "0660", "0666")
_GROUP_SCHEMA = _text(r"([^@%]+@)?[0-9A-Fa-f:.]+(%.+)?", "239.1.1.1", "10.0.0.1@232.1.1.1%eth0")
_FILTER_SCHEMA: Schema = {"type": "string", "examples": ["udp port 53", "arp or icmp"]}
_ACCESS_SCHEMA = {"anyOf": [_NETWORK_SCHEMA, _text(r"[ug]id:.+", "uid:0", "gid:adm")]}


def _unless_none(parse: Callable[[object], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value in (None, NONE) else parse(value))


def _write_or_none(write: Callable[[Any], Any]) -> PlainSerializer:
    return PlainSerializer(lambda value: NONE if value is None else write(value))


def _positive(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    def check(value: object) -> Any:
        number = parse(value)
        if number <= 0:
            raise ValueError(f"must be above zero, got {value!r}")
        return number

    return check


def _one_of(names: Collection[str]) -> BeforeValidator:
    def check(name: object) -> object:
        if isinstance(name, str) and name not in names:
            raise ValueError(f"must be one of {', '.join(names)}, got {name!r}")
        return name

    return BeforeValidator(check)


def _network(text: object) -> object:
    if isinstance(text, str) and parse_account(text) is None:
        parse_network(text)
    return text


def _mode(text: object) -> object:
    """Return the permissions in an octal text such as ``0660``."""
    if isinstance(text, str) and re.fullmatch(r"0?[0-7]{3}", text):
        return int(text, 8)
    raise ValueError(f'must be permissions such as "0660", got {text!r}')


def _filter(text: object) -> object:
    if isinstance(text, str):
        compile_filter(text, port_of=port_of)  # the link layer that it must fit is not known yet
    return text


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema(DURATION_SCHEMA),
]
PositiveDuration = Annotated[
    float,
    BeforeValidator(_positive(parse_duration)),
    PlainSerializer(format_duration),
    WithJsonSchema(_POSITIVE_SCHEMA),
]
OptionalDuration = Annotated[
    float | None,
    _unless_none(_positive(parse_duration)),
    _write_or_none(format_duration),
    WithJsonSchema(_or_none(_POSITIVE_SCHEMA)),
]
Size = Annotated[
    int,
    BeforeValidator(_positive(parse_size)),
    PlainSerializer(format_size),
    WithJsonSchema(SIZE_SCHEMA),
]
OptionalRate = Annotated[
    Rate | None,
    _unless_none(parse_rate),
    _write_or_none(str),
    WithJsonSchema(_or_none(_RATE_SCHEMA)),
]
OptionalCount = Annotated[
    Annotated[int, Field(ge=1)] | None,
    _unless_none(lambda value: value),
    _write_or_none(int),
    WithJsonSchema(_or_none({"type": "integer", "minimum": 1})),
]
Network = Annotated[str, BeforeValidator(_network), WithJsonSchema(_ACCESS_SCHEMA)]
Mode = Annotated[
    int,
    BeforeValidator(_mode),
    PlainSerializer(lambda mode: f"{mode:04o}"),
    WithJsonSchema(_MODE_SCHEMA),
]
Group = Annotated[str, WithJsonSchema(_GROUP_SCHEMA)]
Filter = Annotated[str, BeforeValidator(_filter), WithJsonSchema(_FILTER_SCHEMA)]
AddressText = Annotated[
    Address,
    BeforeValidator(parse_address),
    PlainSerializer(str),
    WithJsonSchema(ADDRESS_SCHEMA),
]
Framing = Annotated[str, _one_of(FRAMINGS), WithJsonSchema({"enum": list(FRAMINGS)})]
Codec = Annotated[str, _one_of(CODECS), WithJsonSchema({"enum": list(CODECS)})]
