"""The configuration files that are published say what is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pydantic
import pytest
from conftest import ROOT

from twistedsock.host.loader import read_files
from twistedsock.host.plan import make_plans
from twistedsock.host.settings import AccessConfig, LimitsConfig, ServiceConfig
from twistedsock.services.echo_reply import EchoReply
from twistedsock.transports.binding import DEFAULT_BACKLOG
from twistedsock.wire.framing import MAX_MESSAGE_BYTES

CONFIG = ROOT / "config"
FULL = CONFIG / "sockservice.toml"
COMMENTED = re.compile(r"^#(?=[a-z_]+ = )", re.M)


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.toml")), ids=lambda path: path.name)
def test_every_file_loads(path: Path) -> None:
    """What we publish is accepted."""
    assert make_plans(read_files([str(path)]))


def test_the_minimal_file_is_minimal() -> None:
    """Five lines are enough."""
    assert len((CONFIG / "minimal.toml").read_text().splitlines()) == 5


def commented() -> dict[str, Any]:
    """Return the full file's service with every default uncommented."""
    table = tomllib.loads(COMMENTED.sub("", FULL.read_text()))
    service: dict[str, Any] = table["services"]["hello"]
    return service


def test_uncommenting_every_default_is_accepted(tmp_path: Path) -> None:
    """Each commented default is a value that the loader takes."""
    file = tmp_path / "all.toml"
    file.write_text(COMMENTED.sub("", FULL.read_text()))
    (plan,) = make_plans(read_files([str(file)]))
    (default,) = make_plans(read_files([str(CONFIG / "minimal.toml")]))
    assert plan.settings == default.settings
    # Written down, the limit per source binds loopback too, and the message limit datagrams.
    assert plan.limits.limit_loopback
    assert plan.limits.max_message == MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("limits", LimitsConfig),
        ("access", AccessConfig),
        ("settings", EchoReply.Settings),
    ],
)
def test_the_commented_defaults_are_the_code_s(
    section: str, model: type[pydantic.BaseModel]
) -> None:
    """Every key of the section is there, at the default that the code has."""
    table = commented()[section]
    assert list(table) == list(model.model_fields)
    written, default = model.model_validate(table), model()
    for name in model.model_fields:
        if name == "max_message":  # None in the code: 64 KiB on streams, whole on datagrams
            assert getattr(written, name) == MAX_MESSAGE_BYTES
        else:
            assert getattr(written, name) == getattr(default, name), name


def test_the_service_s_own_keys_are_all_there() -> None:
    """Each key of a service is explained, and its defaults are the code's."""
    table = commented()
    assert set(table) == set(ServiceConfig.model_fields)
    assert table["framing"] == ServiceConfig.model_fields["framing"].default
    default = ServiceConfig.model_fields["udp_source_ports"].default
    assert table["udp_source_ports"] == default
    assert f"default {DEFAULT_BACKLOG};" in FULL.read_text()
