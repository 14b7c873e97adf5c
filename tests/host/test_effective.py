"""The settings in force: what a plug-in's own settings may be, and what can be shown of them."""

from __future__ import annotations

import datetime
import enum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest

from twistedsock.host import registry
from twistedsock.host.effective import Setting, effective_services
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.service import ServiceSettings, Session, SocketService


class Colour(enum.Enum):  # noqa: D101
    RED = "red"


class Inner(ServiceSettings):  # noqa: D101
    a: int = 1
    b: Path = Path("/b")
    password: pydantic.SecretStr = pydantic.SecretStr("")


def parse_half(value: object) -> float:
    """Read what is written twice as large, and only from texts."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return float(value) / 2


class Odd(SocketService):  # noqa: D101
    class Settings(ServiceSettings):  # noqa: D106
        file: Path = Path("/etc/x")
        when: datetime.datetime = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        colour: Colour = Colour.RED
        names: frozenset[str] = frozenset({"b", "a"})
        data: bytes = b"abc"
        raw: bytes = b"\xff"
        ratio: float = 1e300
        many: int = 2**70
        table: dict[str, int] = pydantic.Field(default={"x y": 1})
        nothing: int | None = None
        half: Annotated[float, pydantic.BeforeValidator(parse_half)] = 2.5
        secret: pydantic.SecretStr = pydantic.SecretStr("x")
        secrets: list[pydantic.SecretStr] = pydantic.Field(default=[])
        kind: str = pydantic.Field(default="k", alias="type")
        inner: Inner = Inner()
        inners: list[Inner] = pydantic.Field(default=[])
        anything: Any = pydantic.Field(default_factory=object)

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


class Extra(SocketService):  # noqa: D101
    class Settings(pydantic.BaseModel, extra="allow"):  # noqa: D106
        a: int = 1

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


class Root(SocketService):  # noqa: D101
    class Settings(pydantic.RootModel[dict[str, int]]):  # noqa: D106
        pass

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def odd_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the plug-ins of this file."""
    names = {"odd": "Odd", "extra": "Extra", "root": "Root"}
    own = [EntryPoint(name, f"{__name__}:{each}", registry.GROUP) for name, each in names.items()]
    installed = list(entry_points(group=registry.GROUP))
    monkeypatch.setattr(registry, "entry_points", lambda group: [*installed, *own])


def raw_with(service: str, settings: dict[str, Any]) -> RawConfig:
    """Return a configuration of one *service* with *settings*."""
    raw = RawConfig()
    main = {"service": service, "listen": ["tcp:1"], "settings": settings}
    raw.merge({"services": {"main": main}}, "f.toml")
    return raw


def shown(service: str, **settings: Any) -> dict[str, Any]:
    """Return what is shown of the settings of *service*."""
    table = effective_services(raw_with(service, settings))["main"]["settings"]
    assert isinstance(table, dict)
    return table


def plain(item: Any) -> Any:
    """Return what is written of *item*, without origins and what is only noted."""
    if isinstance(item, Setting):
        return item.value
    if isinstance(item, list):
        return [plain(each) for each in item]
    written = {key: each for key, each in item.items() if not getattr(each, "note", "")}
    return {key: plain(each) for key, each in written.items()}


def test_what_toml_can_hold_is_shown() -> None:
    """Paths, dates, enums, sets, bytes, large numbers and tables are shown as they are read."""
    assert plain(shown("odd")) == {
        "file": "/etc/x",
        "when": datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "colour": "red",
        "names": ["a", "b"],
        "data": "abc",
        "ratio": 1e300,
        "many": 2**70,
        "table": {"x y": 1},
        "secrets": [],
        "type": "k",
        "inner": {"a": 1, "b": "/b"},
        "inners": [],
    }


@pytest.mark.parametrize(
    ("key", "note"),
    [
        ("nothing", "not set"),
        ("half", "its default is read as another value, or not at all"),
        ("secret", "a secret is not shown"),
        ("raw", "'utf-8' codec can't decode byte 0xff"),
        ("anything", "Unable to serialize unknown type"),
    ],
)
def test_what_toml_cannot_hold_is_told(key: str, note: str) -> None:
    """A default that cannot be written is None, with the reason."""
    setting = shown("odd")[key]
    assert (setting.value, setting.origin) == (None, "default")
    assert setting.note.startswith(note)
    assert "\n" not in setting.note


def test_what_was_written_is_shown_as_written() -> None:
    """A plug-in's own notation is kept, and its origin is told key by key."""
    found = shown("odd", half="7", table={"a": 2}, type="t", file="/x")
    assert found["half"] == Setting("7", "f.toml")
    assert found["table"] == {"a": Setting(2, "f.toml")}
    assert found["type"] == Setting("t", "f.toml")
    assert found["file"] == Setting("/x", "f.toml")


def test_secrets_are_not_shown() -> None:
    """What the plug-in declares secret is printed nowhere, however deep it is."""
    found = shown(
        "odd",
        secret="s3cret",
        secrets=["s3cret"],
        inner={"password": "s3cret"},
        inners=[{"password": "s3cret"}],
    )
    assert "s3cret" not in repr(found)
    assert found["secret"] == Setting(None, "f.toml", "a secret is not shown")


def test_models_inside_are_filled_in() -> None:
    """A table, or each of a list of tables, has its own defaults behind what was written."""
    found = shown("odd", inner={"a": 2}, inners=[{"a": 3}])
    assert found["inner"]["a"] == Setting(2, "f.toml")
    assert found["inner"]["b"] == Setting("/b", "default")
    assert found["inners"][0]["a"] == Setting(3, "f.toml")
    assert found["inners"][0]["b"] == Setting("/b", "default")


def test_keys_that_no_field_knows_are_shown_as_written() -> None:
    """A model that takes any key, or is one table, loses none of them."""
    assert plain(shown("extra", b=[1])) == {"a": 1, "b": [1]}
    assert plain(shown("root", x=1)) == {"x": 1}


@pytest.mark.parametrize("service", ["extra", "root"])
def test_what_is_shown_gives_the_same_settings(service: str) -> None:
    """Written back, the settings are equal, and are shown the same."""
    first = raw_with(service, {"b": 3})
    second = raw_with(service, plain(shown(service, b=3)))
    [before], [after] = make_plans(first), make_plans(second)
    assert before.settings == after.settings
    assert plain(effective_services(second)["main"]) == plain(effective_services(first)["main"])
