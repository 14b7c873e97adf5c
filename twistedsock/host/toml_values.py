"""Values of Python as TOML holds them.

Know types; never a key.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping, Set
from typing import Any

import pydantic
from pydantic_core import to_jsonable_python

_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


def toml_value(value: object) -> Any:
    """Return *value* as TOML holds it: what it has no type for as pydantic writes it in JSON.

    A key whose value is None is left out of its table, because TOML has no null.

    Raises:
        ValueError: TOML cannot hold it; the message says why.
    """
    if isinstance(value, enum.Enum):
        return toml_value(value.value)
    if isinstance(value, bool | datetime.date | datetime.time):  # a datetime is a date too
        return value
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is no text
        return str(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        held = {key: each for key, each in value.items() if each is not None}
        return {str(toml_value(key)): toml_value(each) for key, each in held.items()}
    if isinstance(value, list | tuple):
        return [toml_value(each) for each in value]
    if isinstance(value, Set):
        return sorted(
            (toml_value(each) for each in value), key=lambda each: (str(type(each)), each)
        )
    if value is None:
        raise ValueError("TOML has no null")
    if isinstance(value, _SECRETS):
        raise ValueError("a secret is not shown")
    return toml_value(to_jsonable_python(value))


def holds_secret(value: object) -> bool:
    """Return whether *value* is, or has inside, one of pydantic's secrets."""
    if isinstance(value, pydantic.BaseModel):
        return any(map(holds_secret, dict(value).values()))
    if dataclasses.is_dataclass(value):
        return any(holds_secret(getattr(value, each.name)) for each in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return any(map(holds_secret, value.values()))
    if isinstance(value, list | tuple | Set):
        return any(map(holds_secret, value))
    return isinstance(value, _SECRETS)
