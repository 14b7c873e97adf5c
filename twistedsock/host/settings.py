"""What can be configured: the shape of the TOML file, with its defaults.

Frozen and strict: a key that is not here is an error, and nothing is silently converted. Checks
that need plug-ins or several keys at once are in ``plan``. What stands below a key is what an
editor shows for it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from twistedsock.host.draft07 import Schema
from twistedsock.host.values import (
    ADDRESS_SCHEMA,
    AddressText,
    Codec,
    Duration,
    Filter,
    Framing,
    Group,
    Mode,
    Network,
    OptionalCount,
    OptionalDuration,
    OptionalRate,
    PositiveDuration,
    Size,
)
from twistedsock.policy.limits import Limits
from twistedsock.sockopts import Refusal
from twistedsock.transports.binding import DEFAULT_BACKLOG
from twistedsock.transports.unix_paths import DEFAULT_MODE
from twistedsock.units import format_size
from twistedsock.wire.framing import MAX_MESSAGE_BYTES

DEFAULT_SERVICE = "echo-reply"
DEFAULT_PORT = 8888
DEFAULT_CODEC = "bytes"
_DEFAULTS = Limits()


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )


class ListenConfig(_Table):
    """An address, and what is special about this listener."""

    address: AddressText
    """Where to listen. Anything but loopback is open to whoever can reach this machine."""

    backlog: int = Field(default=DEFAULT_BACKLOG, ge=1, le=65535)
    """Connections that may wait to be accepted; the kernel clamps it at net.core.somaxconn."""

    mode: Mode = DEFAULT_MODE
    """Who may use the file of a UNIX socket: its permissions."""

    groups: list[Group] = Field(default_factory=list)
    """Multicast groups that a UDP or raw listener joins: GROUP, GROUP%INTERFACE, or
    SOURCE@GROUP%INTERFACE to hear one source alone."""

    filter: Filter = ""
    """Which frames a packet listener receives, as pcap-filter(7) has it; all where it is empty."""

    socket: dict[str, Any] = Field(default_factory=dict)
    """Socket options of this listener, over those of the service."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"address": value}
        if not isinstance(value, dict | ListenConfig):
            wanted = 'an address such as "tcp:127.0.0.1:8888", or a table with one'
            raise ValueError(f"must be {wanted}, got {value!r}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Schema:
        """Describe both ways of writing a listener."""
        return {"anyOf": [ADDRESS_SCHEMA, handler(core_schema)]}


class LimitsConfig(_Table):
    """What the service allows its peers."""

    UNSET: ClassVar[dict[str, tuple[object, str]]] = {
        "max_connections_per_source": (
            _DEFAULTS.max_connections_per_source,
            "loopback is exempt until this is set",
        ),
        "max_message": (format_size(MAX_MESSAGE_BYTES), "datagrams are whole until this is set"),
    }
    """Keys that mean more once they are written down: the default, and what it leaves open."""

    max_connections: int = Field(default=_DEFAULTS.max_connections, ge=1)
    """Stream sessions at once; the next newcomer waits in the kernel's queue. Also the datagram
    peers remembered at once by each listener."""

    max_connections_per_source: OptionalCount = _DEFAULTS.max_connections_per_source
    """Sessions of one IPv4 address, one IPv6 /64 or one UNIX user; the next one is closed at once.
    Loopback and UNIX peers are exempt as long as this is not set."""

    accept_rate: OptionalRate = _DEFAULTS.accept_rate
    """New sessions of one source in a time, with bursts up to the count."""

    first_byte_timeout: OptionalDuration = _DEFAULTS.first_byte_timeout
    """Where the client speaks first: how long until it does."""

    idle_timeout: OptionalDuration = _DEFAULTS.idle_timeout
    """Without a byte in either direction."""

    session_timeout: OptionalDuration = _DEFAULTS.session_timeout
    """From opening to the end, whatever happens."""

    max_message: Size | None = _DEFAULTS.max_message
    """The longest message: 64KiB on streams, and any whole datagram, as long as this is not
    set."""

    write_high_water: Size = _DEFAULTS.write_high_water
    """Unsent bytes above which a peer is not read until it has read its answers."""

    write_timeout: PositiveDuration = _DEFAULTS.write_timeout
    """How long a peer above ``write_high_water`` may take to read everything."""

    drain_timeout: Duration = _DEFAULTS.drain_timeout
    """At stop: how long sessions may take to end by themselves."""

    def to_limits(self) -> Limits:
        """Return the plain values; a limit per source that was written down binds loopback."""
        explicit = "max_connections_per_source" in self.model_fields_set
        # Not model_dump, which would write them as the file does.
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Limits(**values, limit_loopback=explicit)


class AccessConfig(_Table):
    """Who may open a session; the longest matching prefix decides, and of a UNIX peer its user
    before its groups.

    Where nothing of its sort matches, a list with any ``allow`` of that sort refuses, and others
    admit.
    """

    allow: list[Network] = Field(default_factory=list)
    """Who is admitted: IP addresses and prefixes; of UNIX peers users and groups, ``uid:0``."""

    deny: list[Network] = Field(default_factory=list)
    """Who is refused, likewise."""


class ServiceConfig(_Table):
    """One service and its listeners."""

    service: str
    """Which service: a name that ``twistedsock services`` lists."""

    listen: list[ListenConfig] = Field(min_length=1)
    """Where to listen: addresses, or tables with an address."""

    framing: Framing = "chunk"
    """How messages are cut from a stream, in both directions."""

    codec: Codec = DEFAULT_CODEC
    """What a message says, in both directions."""

    udp_source_ports: Literal["guarded", "any"] = "guarded"
    """Which UDP source ports are answered: none below 1024 and not our own, or any."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """The service's own keys."""

    limits: LimitsConfig = LimitsConfig()
    """What the service allows its peers."""

    access: AccessConfig = AccessConfig()
    """Who may open a session."""

    socket: dict[str, Any] = Field(default_factory=dict)
    """Socket options by the kernel's own names, for each listener that they fit."""

    refused_options: Refusal = "strict"
    """What follows when the kernel refuses one of them: the daemon does not start, or it serves
    without that option, with a warning or without. A connection that an option of its own is
    refused for is closed, or served likewise."""


class Config(_Table):
    """Services that ``twistd sockservice`` runs."""

    services: dict[str, ServiceConfig] = Field(min_length=1)
    """Each service by a name of your own, which is in every log line."""
