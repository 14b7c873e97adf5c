"""The codec of a service: in the plan where it fits, and one clear problem where it does not."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pytest
from daemons import Start, ask, ask_udp
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo as StockEcho

from twistedsock.errors import ConfigError
from twistedsock.host import registry
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import ServicePlan, make_plans
from twistedsock.service import Session, SocketService
from twistedsock.wire.codecs import CODECS


class HandsOver(SocketService):
    """Knows a Twisted factory alone: no message of it passes a codec."""

    def stream_factory(self) -> Factory:
        return Factory.forProtocol(StockEcho)


class Both(HandsOver):
    """Hands over its streams, and takes datagrams as values."""

    def received(self, session: Session, message: Any) -> None:
        session.send(message)


class Talks(SocketService):
    """Takes any codec, in a conversation."""

    async def converse(self, session: Session) -> None:
        pass


class Picky(Talks):
    """Takes values alone."""

    codecs = ("json", "literal")


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [
        EntryPoint(name, f"{__name__}:{value}", registry.GROUP)
        for name, value in [
            ("hands-over", "HandsOver"),
            ("both", "Both"),
            ("talks", "Talks"),
            ("picky", "Picky"),
        ]
    ]
    installed = list(entry_points(group=registry.GROUP))
    monkeypatch.setattr(registry, "entry_points", lambda group: [*installed, *own])


def plan(service: str, codec: str | None, *more: str) -> ServicePlan:
    """Return the plan of *service* with *codec*, a piece of TOML, or without one."""
    lines = [f'[services.a]\nservice = "{service}"\nlisten = ["tcp:9"]', *more]
    if codec is not None:
        lines.append(f"codec = {codec}")
    raw = RawConfig()
    raw.merge(tomllib.loads("\n".join(lines)), "f.toml")
    [made] = make_plans(raw)
    return made


def problems(service: str, codec: str | None, *more: str) -> list[str]:
    """Return what is wrong with *service* and *codec*, as the operator reads it."""
    with pytest.raises(ConfigError) as caught:
        plan(service, codec, *more)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("service", ["echo", "echo-reply", "discard", "talks", "both"])
def test_a_codec_is_planned_as_it_is_written(service: str, codec: str) -> None:
    """Services with messages of any kind take every codec; without one they get bytes."""
    assert plan(service, f'"{codec}"').codec == codec
    assert plan(service, None).codec == "bytes"


@pytest.mark.parametrize("codec", ["text", "json", "literal"])
@pytest.mark.parametrize("service", ["chargen", "daytime", "qotd", "time", "hands-over"])
def test_a_service_that_knows_bytes_alone_refuses_a_codec(service: str, codec: str) -> None:
    """It is one problem, at the key, with what would be right."""
    assert problems(service, f'"{codec}"') == [
        f"f.toml: services.a.codec: the service's messages are bytes only, got '{codec}'"
    ]
    assert plan(service, '"bytes"').codec == plan(service, None).codec == "bytes"


def test_a_service_tells_which_codecs_it_takes() -> None:
    """Where it names several, the operator reads them all."""
    assert plan("picky", '"literal"').codec == "literal"
    told = "f.toml: services.a.codec: the service's messages are json or literal only, got"
    assert problems("picky", '"text"') == [f"{told} 'text'"]
    assert problems("picky", '"bytes"') == [f"{told} 'bytes'"]


def test_the_default_has_to_fit_too() -> None:
    """A service without bytes needs its codec in the configuration."""
    (told,) = problems("picky", None)
    assert told.startswith("f.toml: services.a.codec: the service's messages are json or literal")


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        ('"xml"', "must be one of bytes, text, json, literal, got 'xml'"),
        ('"JSON"', "must be one of bytes, text, json, literal, got 'JSON'"),
        ('""', "must be one of bytes, text, json, literal, got ''"),
        ("3", "must be a text, got 3"),
        ("true", "must be a text, got True"),
    ],
)
@pytest.mark.parametrize("service", ["echo", "chargen"])
def test_a_wrong_codec_is_told_once(service: str, codec: str, told: str) -> None:
    """A word that is no codec is one problem, whatever the service takes."""
    assert problems(service, codec) == [f"f.toml: services.a.codec: {told}"]


@pytest.mark.parametrize("codec", ['["json"]', '{ name = "json" }'])
def test_a_codec_that_is_no_text_is_told(codec: str) -> None:
    """A list or a table in its place is a problem like any other, not a traceback."""
    (told,) = problems("echo", codec)
    assert told.startswith("f.toml: services.a.codec: must be a text, got ")


def test_it_hides_no_other_fault() -> None:
    """Every problem is told at once."""
    found = problems("chargen", '"json"', 'framing = "lines"', 'udp_source_ports = "some"')
    assert [problem.split(": ")[1] for problem in found] == [
        "services.a.framing",
        "services.a.udp_source_ports",
        "services.a.codec",
    ]


# -- the daemon --


def test_the_daemon_serves_values(start: Start) -> None:
    """--codec json: values come back as the codec writes them; a wrong one ends its session."""
    daemon = start(
        "--service", "echo", "--framing", "line", "--codec", "json", "--port", "0"
    ).ready()  # fmt: skip
    port = daemon.port()
    assert ask(port, b' {"a" : [1, 2.50, "\\u00e4"]}\r\nnull') == (
        '{"a":[1,2.5,"\u00e4"]}\nnull\n'.encode()
    )
    with daemon.connect() as other:
        other.sendall(b"1\n")
        assert other.recv(10) == b"1\n"
        assert ask(port, b"1\n{\n2\n") == b"1\n"
        other.sendall(b"2\n")
        assert other.recv(10) == b"2\n"
    assert ask_udp(daemon.port("udp"), b"[ 1 ]") == b"[1]"
    assert daemon.stop() == 0
    assert daemon.text.count("protocol_error") == 1
    assert "Traceback" not in daemon.text


def test_the_daemon_refuses_a_codec_that_does_not_fit(start: Start) -> None:
    """A wrong flag ends it with 64 and one line that names the flag."""
    for flags, told in [
        (
            ("--service", "chargen", "--codec", "json"),
            "the service's messages are bytes only, got 'json'",
        ),
        (("--codec", "xml"), "must be one of bytes, text, json, literal, got 'xml'"),
    ]:
        daemon = start("--port", "0", *flags)
        assert daemon.wait() == 64
        assert daemon.text == f"twistd sockservice: --codec: services.main.codec: {told}\n"
