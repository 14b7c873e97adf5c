"""Every key that can be configured: what it takes, and what is said when it is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, get_args

import pydantic
import pytest

from twistedsock.addresses import Address
from twistedsock.errors import ConfigError
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import ServicePlan, make_plans
from twistedsock.host.settings import Config, LimitsConfig, ListenConfig, ServiceConfig
from twistedsock.policy.limits import Limits
from twistedsock.units import Rate

MAIN = {"service": "echo", "listen": ["tcp:9000"]}


def raw_with(path: tuple[str | int, ...], value: object) -> RawConfig:
    """Return a configuration that is right but for *value* at *path* of its one service."""
    main: dict[str, Any] = {**MAIN}
    at: Any = main
    for part, after in itertools.pairwise(path):
        if part == "listen":
            at["listen"] = [{"address": "tcp:9000"}]
        at = at[part] if isinstance(part, int) else at.setdefault(part, [] if after == 0 else {})
    if isinstance(at, list):
        at[:] = [value]
    else:
        at[path[-1]] = value
    raw = RawConfig()
    raw.merge({"services": {"main": main}}, "f.toml")
    return raw


def plan_with(path: tuple[str | int, ...], value: object) -> ServicePlan:
    """Return the plan of a configuration with *value* at *path*."""
    [plan] = make_plans(raw_with(path, value))
    return plan


DURATION = 'must be a duration such as "500ms", "30s" or "5m", got'
SIZE = 'must be a size such as 65536, "64KiB" or "1MB", got'
NETWORK = 'must be an IP address or prefix such as "10.0.0.0/8" or "::1", got'
ADDRESS = (
    'must be an address such as "tcp:127.0.0.1:8888", starting with one of tcp, udp, unix,'
    " unixgram, seqpacket, raw, packet; got"
)

# key path below the service, a wrong value, what is said of it
WRONG: list[tuple[tuple[str | int, ...], object, str]] = [
    (("service",), 3, "must be a text, got 3"),
    (("service",), "ecko", "no service is called 'ecko'; did you mean 'echo'?"),
    (("listen",), "tcp:9000", "must be a list, got 'tcp:9000'"),
    (("listen",), [], "must not be empty"),
    (("listen", 0), "nope", f"{ADDRESS} 'nope'"),
    (("listen", 0), "tcp:99999", "port must be 0 to 65535, got '99999' in 'tcp:99999'"),
    (
        ("listen", 0),
        "tcp:::1:9",
        "an IPv6 address goes in brackets, such as [::1]; got 'tcp:::1:9'",
    ),
    (("listen", 0, "address"), "nope", f"{ADDRESS} 'nope'"),
    (
        ("listen", 0, "address"),
        3,
        'must be an address such as "tcp:127.0.0.1:8888", got 3',
    ),
    (("listen", 0, "backlog"), 0, "must be at least 1, got 0"),
    (("listen", 0, "mode"), 0o660, 'must be permissions such as "0660", got 432'),
    (("listen", 0, "mode"), "0999", "must be permissions such as \"0660\", got '0999'"),
    (("listen", 0, "groups"), "239.1.1.1", "must be a list, got '239.1.1.1'"),
    (("listen", 0, "groups", 0), 5, "must be a text, got 5"),
    (("listen", 0, "filter"), 5, "must be a text, got 5"),
    (("listen", 0, "backlog"), 65536, "must be at most 65535, got 65536"),
    (("listen", 0, "backlog"), "1", "must be a whole number, got '1'"),
    (("listen", 0, "socket"), 3, "must be a table, got 3"),
    (("listen", 0, "bakclog"), 1, "unknown key; did you mean 'backlog'?"),
    (
        ("framing",),
        "lines",
        "must be one of chunk, line, netstring, uint8, uint16, uint32, got 'lines'",
    ),
    (("framing",), 3, "must be a text, got 3"),
    (("codec",), 3, "must be a text, got 3"),
    (("codec",), "xml", "must be one of bytes, text, json, literal, got 'xml'"),
    (("udp_source_ports",), "all", "must be 'guarded' or 'any', got 'all'"),
    (("settings",), 3, "must be a table, got 3"),
    (("limits",), 3, "must be a table, got 3"),
    (("limits", "max_connections"), 0, "must be at least 1, got 0"),
    (("limits", "max_connections"), "none", "must be a whole number, got 'none'"),
    (("limits", "max_connections_per_source"), 0, "must be at least 1, got 0"),
    (("limits", "max_connections_per_source"), "3", "must be a whole number, got '3'"),
    (("limits", "accept_rate"), "50", 'must be a rate such as "50/s" or "100/m", got \'50\''),
    (("limits", "accept_rate"), "0/s", 'must be a rate such as "50/s" or "100/m", got \'0/s\''),
    (("limits", "first_byte_timeout"), 5, f"{DURATION} 5"),
    (("limits", "idle_timeout"), "0s", "must be above zero, got '0s'"),
    (("limits", "idle_timeout"), "5 minutes", f"{DURATION} '5 minutes'"),
    (("limits", "session_timeout"), "366d", "must be at most 365d, got '366d'"),
    (("limits", "max_message"), "64QiB", f"{SIZE} '64QiB'"),
    (("limits", "max_message"), 0, "must be above zero, got 0"),
    (("limits", "write_high_water"), -1, "must be 0 to 1024GiB, got -1"),
    (("limits", "write_high_water"), "0B", "must be above zero, got '0B'"),
    (("limits", "write_timeout"), "none", f"{DURATION} 'none'"),
    (("limits", "write_timeout"), "0s", "must be above zero, got '0s'"),
    (("limits", "drain_timeout"), "-1s", f"{DURATION} '-1s'"),
    (("limits", "idle_timout"), "5m", "unknown key; did you mean 'idle_timeout'?"),
    (("access",), 3, "must be a table, got 3"),
    (("access", "allow"), "::1", "must be a list, got '::1'"),
    (("access", "allow", 0), "10.0.0", f"{NETWORK} '10.0.0'"),
    (
        ("access", "allow", 0),
        "10.0.0.1/8",
        "has bits set behind its prefix; did you mean '10.0.0.0/8'? got '10.0.0.1/8'",
    ),
    (("access", "deny", 0), 3, "must be a text, got 3"),
    (("access", "denny"), [], "unknown key; did you mean 'deny'?"),
    (("socket",), 3, "must be a table, got 3"),
    (("socket", "SO_KEEPALIVE"), 1, "must be true or false, got 1"),
    (
        ("socket", "TCP_KEPIDLE"),
        "60s",
        "no socket option has this name; did you mean TCP_KEEPIDLE?",
    ),
    (("refused_options",), "lenient", "must be 'strict', 'warn' or 'ignore', got 'lenient'"),
    (("framng",), "line", "unknown key; did you mean 'framing'?"),
    (
        ("zzz",),
        1,
        "unknown key; known here: service, listen, framing, codec, udp_source_ports, settings,"
        " limits, access, socket, refused_options",
    ),
]


def dotted(path: tuple[str | int, ...]) -> str:
    """Return *path* as the operator reads it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


@pytest.mark.parametrize(
    ("path", "value", "message"), WRONG, ids=[f"{dotted(path)}={value}" for path, value, _ in WRONG]
)
def test_a_wrong_value_is_told(path: tuple[str | int, ...], value: object, message: str) -> None:
    """A wrong value is told once, with its file, its key path and what would be right."""
    with pytest.raises(ConfigError) as caught:
        make_plans(raw_with(path, value))
    assert str(caught.value) == f"f.toml: services.main{dotted(path)}: {message}"


def test_an_address_of_the_wrong_type_is_told_what_it_may_be() -> None:
    """In a list of addresses, an item that is neither text nor table is told both."""
    with pytest.raises(ConfigError) as caught:
        make_plans(raw_with(("listen", 0), 3))
    assert str(caught.value) == (
        'f.toml: services.main.listen[0]: must be an address such as "tcp:127.0.0.1:8888",'
        " or a table with one, got 3"
    )


def keys(model: type[pydantic.BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of *model* and of the models inside it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
                yield from keys(inner, (*above, name))


def test_no_key_is_left_untried() -> None:
    """Every key that can be configured has a wrong value among those tried here."""
    tried = {tuple(part for part in path if isinstance(part, str)) for path, _, _ in WRONG}
    assert set(keys(ServiceConfig)) <= tried


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_connections", 1, 1),
        ("max_connections_per_source", 1, 1),
        ("max_connections_per_source", "none", None),
        ("accept_rate", "5/10s", Rate(5, 10)),
        ("accept_rate", "none", None),
        ("first_byte_timeout", "500ms", 0.5),
        ("first_byte_timeout", "none", None),
        ("idle_timeout", "1h30m", 5400.0),
        ("idle_timeout", "none", None),
        ("session_timeout", "1d", 86400.0),
        ("session_timeout", "none", None),
        ("max_message", "1KiB", 1024),
        ("max_message", 65507, 65507),
        ("write_high_water", "64kB", 64000),
        ("write_timeout", "1s", 1.0),
        ("drain_timeout", "0s", 0.0),
    ],
)
def test_a_limit_is_taken_in_its_own_unit(key: str, value: object, expected: object) -> None:
    """Durations, sizes and rates become plain numbers; "none" switches a limit off."""
    assert getattr(plan_with(("limits", key), value).limits, key) == expected


def test_what_is_not_written_has_the_default_of_the_policy() -> None:
    """A service without ``limits`` has the limits that the policies have by themselves."""
    assert LimitsConfig().to_limits() == Limits()
    assert plan_with(("limits",), {}).limits == Limits()


def test_a_limit_a_source_that_is_written_down_binds_loopback() -> None:
    """Loopback peers are exempt from the default limit a source, not from one that was set."""
    assert not plan_with(("limits", "max_connections"), 5).limits.limit_loopback
    assert plan_with(("limits", "max_connections_per_source"), 64).limits.limit_loopback


@pytest.mark.parametrize("framing", ["chunk", "line", "netstring", "uint8", "uint16", "uint32"])
def test_every_framing_can_be_configured(framing: str) -> None:
    """Each framing by its name."""
    assert plan_with(("framing",), framing).framing == framing


def test_the_rules_on_source_ports_can_be_lifted() -> None:
    """Datagrams are guarded unless the operator says otherwise."""
    assert plan_with(("udp_source_ports",), "any").any_source_port
    assert not plan_with(("udp_source_ports",), "guarded").any_source_port
    assert not plan_with(("framing",), "line").any_source_port


def test_an_address_is_a_short_way_of_writing_a_table() -> None:
    """A plain address and a table with nothing else give the same listener."""
    assert ListenConfig.model_validate("tcp:9000") == ListenConfig.model_validate(
        {"address": "tcp:9000"}
    )
    listener = plan_with(("listen", 0, "backlog"), 7).listeners[0]
    assert (listener.address, listener.backlog) == (Address("tcp", "127.0.0.1", 9000), 7)


def test_settings_cannot_be_changed_once_checked() -> None:
    """Checked settings are frozen at every level."""
    config = Config.model_validate({"services": {"main": MAIN}})
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.services = {}
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.services["main"].limits.max_connections = 1
