"""What is published: the wheel, and a service that somebody else publishes beside it."""

from __future__ import annotations

import configparser
import json
import socket
import subprocess
import sys
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, ROOT, free_port, run

EXAMPLE = ROOT / "tests" / "exampleplugin"
DESCRIPTION = (
    "Serve socket protocols: pluggable services over TCP, UDP, UNIX and raw sockets, from a file."
)


def build_wheel(source: Path, folder: Path) -> Path:
    """Return the wheel of *source*, built into *folder* without the index."""
    done = run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", folder, source),
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The files in our wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


# -- the wheel --


def test_the_wheel_brings_the_plugin_of_twistd(names: list[str]) -> None:
    """twistd finds the command by this one file."""
    assert [name for name in names if name.startswith("twisted/")] == [
        "twisted/plugins/twistedsock_plugins.py"
    ]


def test_the_wheel_leaves_twisted_whole(names: list[str]) -> None:
    """Nothing in it could shadow Twisted, or be a cache of some other machine."""
    assert "twisted/__init__.py" not in names
    assert "twisted/plugins/__init__.py" not in names
    assert not any(name.endswith(("dropin.cache", ".pyc")) for name in names)


def test_the_wheel_holds_the_package_and_its_types(names: list[str]) -> None:
    """Every module and the marker of its types are in, and nothing else is."""
    source = ROOT / "twistedsock"
    wanted = {str(path.relative_to(ROOT)) for path in source.rglob("*.py")}
    assert {name for name in names if name.startswith("twistedsock/")} == {
        *wanted,
        "twistedsock/py.typed",
        "twistedsock/sockopts/catalogue.tsv",
    }
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"twisted", "twistedsock"}


def test_the_wheel_declares_its_commands_and_services(wheel: Path) -> None:
    """The entry points of the wheel are those of the project, each to a file that is in it."""
    declared = configparser.ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [path] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        declared.read_string(archive.read(path).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert dict(declared["console_scripts"]) == project["scripts"]
    assert (
        dict(declared["twistedsock.services"]) == (project["entry-points"]["twistedsock.services"])
    )
    for value in declared["twistedsock.services"].values():
        assert f"{value.partition(':')[0].replace('.', '/')}.py" in names


def test_building_leaves_nothing_in_the_source(wheel: Path) -> None:
    """A build writes only where it was told to."""
    assert wheel.exists()
    for folder in (ROOT, EXAMPLE):
        assert not [*folder.glob("build"), *folder.glob("dist"), *folder.glob("*.egg-info")]


# -- installed, with somebody else's plug-in --


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new environment that holds our wheel and the example plug-in's."""
    folder = tmp_path_factory.mktemp("installed")
    example = build_wheel(EXAMPLE, tmp_path_factory.mktemp("example"))
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    commands = folder / "venv" / "bin"
    install = [commands / "python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = run(*install, "--timeout=10", "--retries=1", *project["dependencies"], timeout=300)
    if done.returncode:
        last = (done.stderr.strip() or "no reason was given").splitlines()[-1]
        pytest.skip(f"the dependencies cannot be had from the index: {last}")
    done = run(*install, "--no-index", wheel, example)
    assert done.returncode == 0, done.stderr
    return commands


@contextmanager
def serving(commands: Path, folder: Path, *flags: str) -> Iterator[int]:
    """Run ``twistd sockservice`` with *flags* and yield its TCP port on loopback."""
    port = free_port()
    log = folder / "log"
    command = [commands / "twistd", "-n", "--pidfile=", "sockservice"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--listen", f"tcp:127.0.0.1:{port}", *flags],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + DEADLINE_S
        while b"accepting on" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        try:
            code = process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert code == 0, log.read_text()


def converse(port: int, *messages: bytes) -> list[bytes]:
    """Return the answers to *messages*, each sent when the last was answered."""
    answers = []
    with closing(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) as sock:
        for message in messages:
            sock.sendall(message)
            answers.append(sock.recv(4096))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(4096) == b""
    return answers


@pytest.mark.slow
def test_twistd_lists_the_command_once_installed(installed: Path, tmp_path: Path) -> None:
    """``twistd --help`` names sockservice and says what it is for."""
    done = run(installed / "twistd", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"sockservice {DESCRIPTION}" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_what_is_installed_is_what_was_built(installed: Path, tmp_path: Path) -> None:
    """The environment has all that the wheels require, and nothing of this checkout."""
    done = run(installed / "python", "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    code = "import twistedsock; print(twistedsock.__file__)"
    where = run(installed / "python", "-c", code, cwd=tmp_path).stdout
    assert where.startswith(str(installed.parent))


@pytest.mark.slow
def test_a_third_party_service_is_listed(installed: Path, tmp_path: Path) -> None:
    """Another distribution's services are listed with it, a broken one with its error."""
    done = run(installed / "twistedsock", "services", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {each["name"]: each for each in json.loads(done.stdout)}
    origin = "twistedsock-shout 1.2.3"
    assert {name for name, each in found.items() if each["origin"] == origin} == {
        "broken",
        "count",
        "shout",
        "stock-echo",
    }
    assert found["shout"] == {
        "name": "shout",
        "origin": origin,
        "kinds": ["stream", "datagram", "seqpacket"],
        "settings": {"suffix": "''"},
        "summary": "Answers every message in capitals.",
    }
    assert found["stock-echo"]["kinds"] == ["stream"]
    assert found["broken"]["error"] == (
        f"plug-in 'broken' of {origin} (twistedsock_shout_missing:Nothing) cannot be imported:"
        " ModuleNotFoundError: No module named 'twistedsock_shout_missing'"
    )
    assert "echo-reply" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "answers"),
    [
        (["--service", "shout"], [b"HELLO", b"YOU"]),
        (
            ["--service", "shout", "--set", "services.main.settings.suffix=!"],
            [b"HELLO!", b"YOU!"],
        ),
        (["--service", "count"], [b"1 hello", b"2 you"]),
        (["--service", "stock-echo"], [b"hello", b"you"]),
    ],
    ids=["hooks", "settings", "conversation", "factory"],
)
def test_a_third_party_service_answers(
    installed: Path, tmp_path: Path, flags: list[str], answers: list[bytes]
) -> None:
    """Each way to write a service answers a real client, and the daemon ends with 0."""
    with serving(installed, tmp_path, *flags) as port:
        assert converse(port, b"hello", b"you") == answers


@pytest.mark.slow
def test_a_third_party_service_answers_datagrams_unchanged(installed: Path, tmp_path: Path) -> None:
    """The class that serves connections serves datagrams with no change."""
    udp = free_port(socket.SOCK_DGRAM)
    flags = ["--service", "shout", "--listen", f"udp:127.0.0.1:{udp}"]
    with (
        serving(installed, tmp_path, *flags),
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock,
    ):
        sock.settimeout(DEADLINE_S)
        sock.connect(("127.0.0.1", udp))
        sock.send(b"hello")
        assert sock.recv(4096) == b"HELLO"


@pytest.mark.slow
def test_a_broken_service_is_refused_where_it_is_configured(
    installed: Path, tmp_path: Path
) -> None:
    """A plug-in that cannot be imported ends the daemon with 64, its fault told in one line."""
    done = run(
        *(installed / "twistd", "-n", "--pidfile=", "sockservice", "--service", "broken"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (
        64,
        "twistd sockservice: --service: services.main.service: plug-in 'broken' of"
        " twistedsock-shout 1.2.3 (twistedsock_shout_missing:Nothing) cannot be imported:"
        " ModuleNotFoundError: No module named 'twistedsock_shout_missing'\n",
    )
