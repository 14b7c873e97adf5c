"""``twistedsock schema``: what an editor is told is what ``twistedsock check`` takes."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from click.testing import CliRunner
from conftest import ROOT

from twistedsock.addresses import parse_address
from twistedsock.cli import main
from twistedsock.errors import ConfigError
from twistedsock.host import registry
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.host.settings import Config
from twistedsock.service import ServiceSettings, Session, SocketService

CONFIG = ROOT / "config"
PUBLISHED = CONFIG / "sockservice.schema.json"


class Strict(SocketService):
    """Has settings of every shape."""

    class Point(pydantic.BaseModel):
        """A model inside, and itself again."""

        x: int
        next: Strict.Point | None = None

    class Settings(ServiceSettings):
        """Its keys."""

        host: str
        """Where to go."""

        pair: tuple[int, str] = (1, "a")
        points: list[Strict.Point] = pydantic.Field(default=[])
        anything: object = pydantic.Field(default_factory=object)
        password: pydantic.SecretStr = pydantic.SecretStr("s3cret")

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


Strict.Settings.model_rebuild()


class Undescribed(SocketService):
    """Has settings that fail when they are described."""

    class Settings(ServiceSettings):
        """Its keys."""

        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
            raise KeyError("on purpose")

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that are there: our own; a test may add others."""
    found = [
        point
        for point in entry_points(group=registry.GROUP)
        if point.dist is not None and point.dist.name == "twistedsock"
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    return found


def offer(plugins: list[EntryPoint], name: str, value: str) -> None:
    """Add a plug-in of this file, or of nowhere."""
    plugins.append(EntryPoint(name, value, registry.GROUP))


def printed() -> tuple[dict[str, Any], str]:
    """Return the schema that is printed, which is one, and what is told beside it."""
    result = CliRunner().invoke(main, ["schema"], prog_name="twistedsock")
    assert (result.exit_code, result.exception) == (0, None)
    schema = json.loads(result.stdout)
    jsonschema.Draft7Validator.check_schema(schema)
    return schema, result.stderr


def schema_takes(schema: dict[str, Any], config: object) -> bool:
    """Return whether an editor would find nothing wrong."""
    return jsonschema.Draft7Validator(schema).is_valid(config)


def check_takes(config: dict[str, Any]) -> bool:
    """Return whether the daemon would accept *config*."""
    raw = RawConfig()
    raw.merge(config, "f.toml")
    try:
        make_plans(raw)
    except ConfigError:
        return False
    return True


def main_with(**keys: Any) -> dict[str, Any]:
    """Return a configuration of one service with *keys*."""
    return {"services": {"main": {"service": "echo-reply", "listen": ["tcp:9"], **keys}}}


@pytest.mark.usefixtures("plugins")
def test_the_published_schema_is_what_is_printed() -> None:
    """Made anew with ``twistedsock schema > config/sockservice.schema.json``, ours alone there."""
    schema, told = printed()
    assert told == ""
    assert json.loads(PUBLISHED.read_text()) == schema
    assert (CONFIG / "sockservice.toml").read_text().startswith(f"#:schema {PUBLISHED.name}\n")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.toml")), ids=lambda path: path.name)
def test_the_published_files_are_right(path: Path) -> None:
    """What we publish is right by the schema too."""
    jsonschema.Draft7Validator(printed()[0]).validate(tomllib.loads(path.read_text()))


RIGHT: list[dict[str, Any]] = [
    {"listen": ["tcp:127.0.0.1:8888", "udp:[::1]:0", "tcp:*:9", "udp:localhost:9"]},
    {"listen": [{"address": "tcp:9", "backlog": 5, "socket": {"SO_KEEPALIVE": True}}]},
    {"listen": ["unix:/run/x", {"address": "unixgram:/run/y", "mode": "0660"}, "seqpacket:@x"]},
    {"listen": [{"address": "udp:*:5000", "groups": ["239.1.1.1%lo", "10.0.0.1@232.1.1.1"]}]},
    {"access": {"allow": ["uid:0", "gid:0", "uid:root"]}},
    {"framing": "uint16", "codec": "json", "udp_source_ports": "any"},
    {"settings": {"prefix": "", "greeting": "\u2028"}},
    {"limits": {"max_connections_per_source": "none", "accept_rate": "none"}},
    {"limits": {"max_connections_per_source": 3, "accept_rate": "0.5/1h30m"}},
    {"limits": {"accept_rate": "5 / m"}},
    {"limits": {"idle_timeout": " 1h 30.5m ", "session_timeout": "none", "drain_timeout": "0s"}},
    {"limits": {"max_message": 65536, "write_high_water": "1.5MB"}},
    {"limits": {"max_message": "65536", "write_high_water": "64 KiB"}},
    {"access": {"allow": ["10.0.0.0/8", "::1", "fe80::1%eth0"], "deny": ["1.2.3.4"]}},
    {"socket": {"TCP_KEEPIDLE": "60s", "SO_RCVBUF": "256KiB", "SO_LINGER": False}},
    {"socket": {"x": {"level": "IPPROTO_TCP", "number": 4, "value": 9, "phase": "bound"}}},
    {"socket": {"KeepAliveTimeSec": 60, "IP_TOS": "EF", "IP_MTU_DISCOVER": "do"}},
    {"socket": {"TCP_LINGER2": "none"}, "refused_options": "warn"},
    {"socket": {"TCP_CONGESTION": "cubic", "TCP_USER_TIMEOUT": "30s", "SO_LINGER": "1s"}},
]
WRONG: list[dict[str, Any]] = [
    {"service": "ecko"},
    {"service": 3},
    {"service": "echo", "settings": {"prefix": "x"}},
    {"service": "time", "codec": "json"},
    {"listen": []},
    {"listen": "tcp:9"},
    {"listen": ["9"]},
    {"listen": ["tcp:::1:9"]},
    {"listen": ["unix:run/x"]},
    {"listen": [{"address": "unix:/x", "mode": "0999"}]},
    {"listen": [{"backlog": 1}]},
    {"listen": [{"address": "tcp:9", "backlog": 0}]},
    {"listen": [{"address": "tcp:9", "bakclog": 1}]},
    {"framing": "lines"},
    {"codec": "xml"},
    {"udp_source_ports": "all"},
    {"refused_options": "lenient"},
    {"socket": {"x": {"level": 6, "number": 1}}},
    {"socket": {"IP_TOS": "XX"}},
    {"settings": {"prefx": "x"}},
    {"settings": {"prefix": 3}},
    {"settings": 3},
    {"limits": {"max_connections": 0}},
    {"limits": {"max_connections": "none"}},
    {"limits": {"max_connections_per_source": 0}},
    {"limits": {"accept_rate": "50"}},
    {"limits": {"accept_rate": "0/s"}},
    {"limits": {"idle_timeout": 5}},
    {"limits": {"idle_timeout": "0s"}},
    {"limits": {"idle_timeout": "5 minutes"}},
    {"limits": {"idle_timout": "5m"}},
    {"limits": {"write_timeout": "none"}},
    {"limits": {"max_message": "64QiB"}},
    {"limits": {"max_message": "none"}},
    {"limits": {"write_high_water": 0}},
    {"access": {"allow": "::1"}},
    {"access": {"allow": ["localhost"]}},
    {"access": {"denny": []}},
    {"socket": {"SO_KEEPALIVE": 1}},
    {"socket": {"TCP_KEPIDLE": "60s"}},
    {"socket": {"TCP_KEEPIDLE": 60}},
    {"framng": "line"},
]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("keys", RIGHT, ids=str)
def test_what_is_right_is_right_by_both(keys: dict[str, Any]) -> None:
    """What the daemon accepts, the schema does not refuse."""
    config = main_with(**keys)
    assert (check_takes(config), schema_takes(printed()[0], config)) == (True, True)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("keys", WRONG, ids=str)
def test_what_is_wrong_is_wrong_by_both(keys: dict[str, Any]) -> None:
    """What the schema refuses, the daemon refuses too."""
    config = main_with(**keys)
    assert (check_takes(config), schema_takes(printed()[0], config)) == (False, False)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    "config",
    [{}, {"services": {}}, {"services": 3}, {"services": {"a": {}}}, {"nonsense": 1}],
    ids=str,
)
def test_what_is_no_configuration_is_wrong_by_both(config: dict[str, Any]) -> None:
    """A file holds services, each with its name and listeners, and nothing else."""
    assert (check_takes(config), schema_takes(printed()[0], config)) == (False, False)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    "address",
    [
        *("tcp:9", "udp:*:9", "unix:/x", "unixgram:@x", "seqpacket:/x", "raw:icmp", "raw:253"),
        *("raw:icmp:192.0.2.1", "raw:icmpv6:[::1]", "packet:lo"),
    ],
)
def test_every_address_is_in_the_schema(address: str) -> None:
    """What the grammar of addresses takes, the schema takes."""
    assert parse_address(address).scheme == address.partition(":")[0]
    assert schema_takes(printed()[0], main_with(listen=[address]))


@pytest.mark.usefixtures("plugins")
def test_every_key_is_described() -> None:
    """An editor shows what each key means, and its default as the file writes it."""
    definitions = printed()[0]["definitions"]
    for name in ("ServiceConfig", "LimitsConfig", "AccessConfig", "echo-reply.settings"):
        for key, about in definitions[name]["properties"].items():
            about = definitions.get(about.get("$ref", "").rpartition("/")[2], about)
            assert about.get("description"), (name, key)
    limits = definitions["LimitsConfig"]["properties"]
    assert {key: limits[key].get("default") for key in limits} == {
        "max_connections": 10000,
        "max_connections_per_source": 64,
        "accept_rate": "none",
        "first_byte_timeout": "10s",
        "idle_timeout": "5m",
        "session_timeout": "none",
        "max_message": None,
        "write_high_water": "1MiB",
        "write_timeout": "30s",
        "drain_timeout": "10s",
    }


@pytest.mark.usefixtures("plugins")
def test_each_service_is_named_with_what_it_does() -> None:
    """The names to choose from are those that are installed, each with its summary."""
    schema, _ = printed()
    about = schema["definitions"]["ServiceConfig"]["properties"]["service"]
    docs = dict(zip(about["enum"], about["x-taplo"]["docs"]["enumValues"], strict=True))
    assert docs["echo"] == "Sends every message back as it came (RFC 862)."


def test_a_plugin_s_settings_are_checked(plugins: list[EntryPoint]) -> None:
    """Required keys, tuples, models in models and an odd name: as the plug-in's model says."""
    name = "odd/na~me {x} %"
    offer(plugins, name, f"{__name__}:Strict")
    schema, told = printed()
    assert told == ""
    assert "s3cret" not in json.dumps(schema)
    right = [
        {"host": "h"},
        {"host": "h", "pair": [2, "b"], "anything": [1]},
        {"host": "h", "points": [{"x": 1, "next": {"x": 2}}]},
    ]
    wrong = [
        {},
        {"host": 3},
        {"host": "h", "pair": ["b", 2]},
        {"host": "h", "pair": [1, "b", 2]},
        {"host": "h", "points": [{"x": 1, "next": {"y": 2}}]},
        {"host": "h", "other": 1},
    ]
    for settings in right + wrong:
        config = main_with(service=name, settings=settings)
        verdicts = (check_takes(config), schema_takes(schema, config))
        assert verdicts == (settings in right,) * 2, settings
    without = main_with(service=name)
    assert (check_takes(without), schema_takes(schema, without)) == (False, False)


def test_what_is_broken_is_left_out_and_named(plugins: list[EntryPoint]) -> None:
    """A plug-in that cannot be used harms no other, and is told on standard error."""
    offer(plugins, "broken", "twistedsock_nowhere:Thing")
    offer(plugins, "undescribed", f"{__name__}:Undescribed")
    schema, told = printed()
    assert told.splitlines() == [
        "left out: plug-in 'broken' of ? (twistedsock_nowhere:Thing) cannot be imported:"
        " ModuleNotFoundError: No module named 'twistedsock_nowhere'",
        "left out: the settings of 'undescribed' cannot be described: KeyError: 'on purpose'",
    ]
    assert json.loads(PUBLISHED.read_text()) == schema


def test_no_key_is_missing() -> None:
    """Every key of a service is in the published schema."""
    table = json.loads(PUBLISHED.read_text())["definitions"]["ServiceConfig"]
    service = Config.model_fields["services"].annotation.__args__[1]
    assert list(table["properties"]) == list(service.model_fields)
