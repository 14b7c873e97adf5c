"""What can be configured: the shape of the TOML file, with its defaults.

Frozen and strict: a key that is not here is an error, and nothing is silently converted. Checks
that need plug-ins or several keys at once are in ``plan``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from twistedsock.addresses import Address, parse_address
from twistedsock.policy.access import parse_network
from twistedsock.policy.limits import Limits
from twistedsock.transports.binding import DEFAULT_BACKLOG
from twistedsock.units import Rate, parse_duration, parse_rate, parse_size
from twistedsock.wire.codecs import CODECS
from twistedsock.wire.framing import FRAMINGS

NONE = "none"  # TOML has no null: this switches a limit off
DEFAULT_SERVICE = "echo-reply"
DEFAULT_PORT = 8888
_DEFAULTS = Limits()


def _or_none(parse: Any) -> Any:
    return BeforeValidator(lambda value: None if value in (None, NONE) else parse(value))


def _framing(name: object) -> object:
    if isinstance(name, str) and name not in FRAMINGS:
        raise ValueError(f"must be one of {', '.join(FRAMINGS)}, got {name!r}")
    return name


def _codec(name: object) -> object:
    if isinstance(name, str) and name not in CODECS:
        raise ValueError(f"must be one of {', '.join(CODECS)}, got {name!r}")
    return name


def _network(text: object) -> object:
    if isinstance(text, str):
        parse_network(text)
    return text


def _positive(parse: Any) -> Any:
    def check(value: object) -> Any:
        number = parse(value)
        if number <= 0:
            raise ValueError(f"must be above zero, got {value!r}")
        return number

    return check


Duration = Annotated[float, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[float, BeforeValidator(_positive(parse_duration))]
OptionalDuration = Annotated[float | None, _or_none(_positive(parse_duration))]
Size = Annotated[int, BeforeValidator(_positive(parse_size))]
OptionalRate = Annotated[Rate | None, _or_none(parse_rate)]
Network = Annotated[str, BeforeValidator(_network)]
AddressText = Annotated[Address, BeforeValidator(parse_address)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )


class ListenConfig(_Table):
    """``listen``: an address, or a table with an address and what is special about it."""

    address: AddressText
    backlog: int = Field(default=DEFAULT_BACKLOG, ge=1, le=65535)
    socket: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"address": value}
        if not isinstance(value, dict | ListenConfig):
            wanted = 'an address such as "tcp:127.0.0.1:8888", or a table with one'
            raise ValueError(f"must be {wanted}, got {value!r}")
        return value


class LimitsConfig(_Table):
    """``limits``: see ``policy.limits.Limits``, which has the defaults."""

    max_connections: int = Field(default=_DEFAULTS.max_connections, ge=1)
    max_connections_per_source: int | None = Field(
        default=_DEFAULTS.max_connections_per_source, ge=1
    )
    accept_rate: OptionalRate = _DEFAULTS.accept_rate
    first_byte_timeout: OptionalDuration = _DEFAULTS.first_byte_timeout
    idle_timeout: OptionalDuration = _DEFAULTS.idle_timeout
    session_timeout: OptionalDuration = _DEFAULTS.session_timeout
    max_message: Size | None = _DEFAULTS.max_message
    write_high_water: Size = _DEFAULTS.write_high_water
    write_timeout: PositiveDuration = _DEFAULTS.write_timeout
    drain_timeout: Duration = _DEFAULTS.drain_timeout

    @model_validator(mode="before")
    @classmethod
    def _unlimited(cls, value: Any) -> Any:
        key = "max_connections_per_source"
        if isinstance(value, dict) and value.get(key) == NONE:
            return {**value, key: None}
        return value

    def to_limits(self) -> Limits:
        """Return the plain values; a limit per source that was written down binds loopback."""
        explicit = "max_connections_per_source" in self.model_fields_set
        # Not model_dump, which would take a Rate apart.
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Limits(**values, limit_loopback=explicit)


class AccessConfig(_Table):
    """``access``: who may come."""

    allow: list[Network] = Field(default_factory=list)
    deny: list[Network] = Field(default_factory=list)


class ServiceConfig(_Table):
    """``[services.NAME]``: one service and its listeners."""

    service: str
    listen: list[ListenConfig] = Field(min_length=1)
    framing: Annotated[str, BeforeValidator(_framing)] = "chunk"
    codec: Annotated[str, BeforeValidator(_codec)] = "bytes"
    udp_source_ports: Literal["guarded", "any"] = "guarded"
    settings: dict[str, Any] = Field(default_factory=dict)
    limits: LimitsConfig = LimitsConfig()
    access: AccessConfig = AccessConfig()
    socket: dict[str, Any] = Field(default_factory=dict)


class Config(_Table):
    """The whole file."""

    services: dict[str, ServiceConfig]
