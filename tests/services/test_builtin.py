"""The built-in services against their RFCs, served over TCP and UDP by one daemon."""

from __future__ import annotations

import calendar
import re
import socket
import struct
import time
from pathlib import Path

import pytest
from daemons import Daemon, ask, ask_udp

from twistedsock.errors import ConfigError
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.services.chargen import PATTERN
from twistedsock.services.qotd import QUOTES

NAMES = ["echo", "discard", "chargen", "qotd", "daytime", "time"]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Serve every RFC service and return {(name, scheme): port}."""
    folder = tmp_path_factory.mktemp("builtin")
    tables = "\n".join(
        f'[services.{name}]\nservice = "{name}"\nlisten = ["tcp:127.0.0.1:0", "udp:127.0.0.1:0"]'
        for name in NAMES
    )
    (folder / "all.toml").write_text(tables)
    daemon = Daemon(folder, "--config", "all.toml").ready()
    time.sleep(0.1)
    found = re.findall(r"(\w+): accepting on (\w+):127\.0\.0\.1:(\d+)", daemon.text)
    yield {(name, scheme): int(port) for name, scheme, port in found}
    assert daemon.stop() == 0


Ports = dict[tuple[str, str], int]


def test_echo(ports: Ports) -> None:
    """RFC 862: what is sent comes back, over both."""
    assert ask(ports["echo", "tcp"], b"abc\0def") == b"abc\0def"
    assert ask_udp(ports["echo", "udp"], b"abc\0def") == b"abc\0def"


def test_discard(ports: Ports) -> None:
    """RFC 863: nothing comes back, over either."""
    assert ask(ports["discard", "tcp"], b"abc" * 10_000) == b""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect(("127.0.0.1", ports["discard", "udp"]))
        client.send(b"abc")
        with pytest.raises(TimeoutError):
            client.recv(10)


def test_chargen_streams_the_pattern(ports: Ports) -> None:
    """RFC 864: lines of 72 characters, each shifted by one, until the caller has enough."""
    with socket.create_connection(("127.0.0.1", ports["chargen", "tcp"]), timeout=10) as client:
        client.sendall(b"thrown away")
        data = b""
        while len(data) < 3 * len(PATTERN):
            data += client.recv(65_536)
    lines = data.split(b"\r\n")
    assert lines[0] == bytes(range(32, 104))
    assert lines[1] == bytes(range(33, 105))
    assert lines[94] == b"~" + bytes(range(32, 103))
    assert lines[95] == lines[0]
    assert all(len(line) == 72 for line in lines[:200])


def test_chargen_answers_a_datagram_with_0_to_512(ports: Ports) -> None:
    """RFC 864: a datagram is answered by one of 0 to 512 characters."""
    sizes = {len(ask_udp(ports["chargen", "udp"], b"x" * 512)) for _ in range(100)}
    assert max(sizes) <= 512
    assert len(sizes) > 20


def test_qotd(ports: Ports) -> None:
    """RFC 865: a quotation and the end; an empty datagram is enough to get one."""
    quotes = {f"{quote}\r\n".encode() for quote in QUOTES}
    assert ask(ports["qotd", "tcp"], b"") in quotes
    assert ask_udp(ports["qotd", "udp"], b"") in quotes


def test_daytime(ports: Ports) -> None:
    """RFC 867: one line with the date and time."""
    for line in (ask(ports["daytime", "tcp"], b""), ask_udp(ports["daytime", "udp"], b"")):
        told = time.strptime(line.decode(), "%A, %B %d, %Y %H:%M:%S-%Z\r\n")
        assert abs(calendar.timegm(told) - time.time()) < 60


def test_time(ports: Ports) -> None:
    """RFC 868: 32 bits of seconds since 1900; its own example dates hold."""
    unix_epoch = 2_208_988_800  # "corresponds to 00:00 1 Jan 1970 GMT"
    for data in (ask(ports["time", "tcp"], b""), ask_udp(ports["time", "udp"], b"")):
        (seconds,) = struct.unpack("!I", data)
        assert abs(seconds - unix_epoch - time.time()) < 60


@pytest.mark.parametrize(
    ("service", "settings", "problem"),
    [
        ("qotd", {"quotes": []}, "services.x.settings.quotes: must hold at least one quotation"),
        ("qotd", {"quotes": ["q" * 600]}, "must be shorter than 512 bytes each"),
        ("echo-reply", {"greting": ""}, "unknown key; did you mean 'greeting'?"),
        ("echo", {"greeting": ""}, "unknown key; known here: none"),
    ],
)
def test_settings_are_checked(service: str, settings: dict[str, object], problem: str) -> None:
    """A service's own settings are checked before anything is opened."""
    raw = RawConfig()
    table = {"service": service, "listen": ["tcp:0"], "settings": settings}
    raw.merge({"services": {"x": table}}, "file.toml")
    with pytest.raises(ConfigError) as caught:
        make_plans(raw)
    assert problem in str(caught.value)


def test_the_examples_of_the_house_are_where_they_are_said_to_be() -> None:
    """Each built-in service is one file, with its RFC at its top."""
    folder = Path(__file__).parents[2] / "twistedsock" / "services"
    for name, rfc in zip(NAMES, (862, 863, 864, 865, 867, 868), strict=True):
        assert f"(RFC {rfc})" in (folder / f"{name}.py").read_text().splitlines()[0]
