"""``twistedsock services``: what is installed, and what of it is broken."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pydantic
import pytest
from click.testing import CliRunner

from twistedsock.cli import main
from twistedsock.host import registry
from twistedsock.service import ServiceSettings, Session, SocketService

BUILT_IN = ["chargen", "daytime", "discard", "echo", "echo-reply", "qotd", "time"]


class Marked(SocketService):
    """Answers [/red] and [bold]words[/bold] as they are.

    This is told to nobody.
    """

    kinds = ("stream",)

    class Settings(ServiceSettings):
        """Its keys."""

        host: str
        port: int = 3
        names: list[str] = pydantic.Field(default_factory=list)

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""


class Derived(Marked):  # noqa: D101 - it has no docstring on purpose
    class Settings(ServiceSettings):
        """Defaults that are made."""

        low: int = 1
        high: int = pydantic.Field(default_factory=lambda data: data["low"] + 1)
        never: int = pydantic.Field(default_factory=lambda: {}["never"])


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call with names and values to add entry points to those that are installed."""

    def offer(**values: str) -> None:
        own = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
        installed = list(entry_points(group=registry.GROUP))
        monkeypatch.setattr(registry, "entry_points", lambda group: [*installed, *own])

    return offer


def listed() -> dict[str, dict[str, Any]]:
    """Return what ``--json`` prints, by name."""
    result = CliRunner().invoke(main, ["services", "--json"])
    assert (result.exit_code, result.stderr) == (0, "")
    return {each["name"]: each for each in json.loads(result.stdout)}


def table() -> str:
    """Return what is printed for people, its words parted by single spaces."""
    result = CliRunner().invoke(main, ["services"], env={"COLUMNS": "300"})
    assert (result.exit_code, result.exception, result.stderr) == (0, None, "")
    return " ".join(result.stdout.split())


def test_the_built_in_services_are_listed() -> None:
    """Every built-in is there, in order, and none is broken."""
    found = listed()
    assert [name for name in found if name in BUILT_IN] == BUILT_IN
    assert not any("error" in found[name] for name in BUILT_IN)


def test_a_service_is_told_whole() -> None:
    """JSON tells name, origin, kinds, settings with their defaults, and what it does."""
    told = listed()["echo-reply"]
    assert told.pop("origin").startswith("twistedsock ")
    assert told == {
        "name": "echo-reply",
        "kinds": ["stream", "datagram", "seqpacket"],
        "settings": {
            "greeting": "'Welcome to the server. Type something and hit enter\\n'",
            "prefix": "'OK...'",
        },
        "summary": 'Greets a connection, then answers every message with "OK..." and the message.',
    }


def test_the_table_tells_the_same() -> None:
    """For people there are two lines for each service: what it does, and its facts."""
    told = table()
    assert told.startswith("capture Writes the frames that arrive")
    assert "(RFC 862). stream, datagram, seqpacket; twistedsock" in told
    assert "stream, datagram, seqpacket; settings: greeting, prefix; twistedsock" in told


def test_a_setting_without_a_default_is_told_as_such(offer: Any) -> None:
    """A key that must be written has no default to tell."""
    offer(marked=f"{__name__}:Marked")
    told = listed()["marked"]
    assert told["settings"] == {"host": None, "port": "3", "names": "[]"}
    assert told["kinds"] == ["stream"]


def test_a_summary_is_the_first_line_of_the_docstring(offer: Any) -> None:
    """One line tells what a service does; without a docstring there is none to tell."""
    offer(marked=f"{__name__}:Marked", derived=f"{__name__}:Derived")
    found = listed()
    assert found["marked"]["summary"] == "Answers [/red] and [bold]words[/bold] as they are."
    assert found["derived"]["summary"] == ""


def test_brackets_in_a_plugin_s_words_are_words(offer: Any) -> None:
    """A docstring is printed as it is: it neither colours the table nor breaks it."""
    offer(marked=f"{__name__}:Marked")
    assert "Answers [/red] and [bold]words[/bold] as they are." in table()


def test_a_broken_service_is_listed_with_its_error(offer: Any) -> None:
    """A plug-in that cannot be used is listed as broken, and the command succeeds."""
    offer(broken="twistedsock_nowhere:Thing", empty=f"{__name__}:pytest")
    found = listed()
    assert found["broken"] == {
        "name": "broken",
        "origin": "?",
        "error": "plug-in 'broken' of ? (twistedsock_nowhere:Thing) cannot be imported:"
        " ModuleNotFoundError: No module named 'twistedsock_nowhere'",
    }
    assert found["empty"]["error"].endswith(" is not a subclass of SocketService")
    assert "echo" in found
    told = table()
    assert "broken broken: plug-in 'broken' of ? (twistedsock_nowhere:Thing)" in told


def test_a_default_that_cannot_be_told_does_not_hide_the_rest(offer: Any) -> None:
    """A default that is made of other keys, or fails, costs no other service its line."""
    offer(derived=f"{__name__}:Derived")
    found = listed()
    assert set(BUILT_IN) < set(found)
    told = found["derived"]["settings"]
    assert (told["low"], list(told)) == ("1", ["low", "high", "never"])


def test_a_name_offered_twice_is_listed_as_broken(offer: Any) -> None:
    """A clash is one line that names what to uninstall."""
    offer(echo=f"{__name__}:Marked")
    told = listed()["echo"]
    assert told["error"].startswith("'echo' is offered by twistedsock ")
    assert told["error"].endswith(" and ?; uninstall one of them")
