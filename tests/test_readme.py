"""The README is run: its commands give the answers that it shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, free_port, run
from daemons import GREETING, Start, ask, ask_udp, eventually
from rigs import Rig, lose

from twistedsock.sockopts import CATALOGUE

TEXT = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """Return the README's blocks of *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def answers() -> dict[str, str]:
    """Return the answer that the README shows for each command."""
    found = {}
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, answer = part.partition("\n")
            found[command] = answer
    return found


ANSWERS = answers()


def test_it_is_short_and_in_order() -> None:
    """At most 250 lines, its headings in the order that readers need."""
    assert len(TEXT.splitlines()) <= 250
    assert re.findall(r"^## (.*)", TEXT, re.M) == [
        "Sixty seconds",
        "What it is, and what it is not",
        "Clients",
        "Troubleshooting",
        "Configuration",
        "Socket options",
        "A plug-in in ten lines",
        "Deployment",
        "The map of the house",
        "Contributing",
        "Licence",
    ]


def test_the_links_lead_somewhere() -> None:
    """Every relative link is a file of the project."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("command", [each for each in ANSWERS if each.startswith("printf")])
def test_the_clients_get_the_answers(start: Start, command: str) -> None:
    """socat, nc and our own client print what the README says that they print."""
    command = command.replace(".venv/bin", str(BIN))
    program = re.search(r"\| (\S+)", command)
    assert program
    if shutil.which(program[1]) is None:
        pytest.skip(f"needs the Debian package of {program[1]}")
    daemon = start("--port", "0").ready()
    port = daemon.port("udp" if "udp:" in command else "tcp")
    done = subprocess.run(
        command.replace("8888", str(port)), shell=True, capture_output=True, text=True, timeout=30
    )
    shown = ANSWERS[command.replace(str(BIN), ".venv/bin")]
    assert done.stdout.rstrip("\n") == shown.rstrip("\n")
    assert daemon.stop() == 0


def test_the_client_that_is_shown_works(start: Start) -> None:
    """The program says hello to the daemon, and prints its answer."""
    (source,) = [block for block in blocks("python") if "connect_blocking" in block]
    daemon = start("--port", "0", "--framing", "line").ready()
    done = run(sys.executable, "-c", source.replace("8888", str(daemon.port("tcp"))))
    greeting, answer = done.stdout.splitlines()
    assert "Welcome to the server" in greeting
    assert "OK...hello" in answer
    assert done.stderr == ""
    assert daemon.stop() == 0


def test_the_options_can_be_looked_up() -> None:
    """There are as many options as it says, and each command that shows some does."""
    assert f"Every option of the kernel, {len(CATALOGUE)} of them" in TEXT
    [shown] = [block for block in blocks("console") if "twistedsock options" in block]
    commands = re.findall(r"twistedsock (options.*)", shown)
    assert len(commands) == 3
    for command in commands:
        assert "TCP_KEEPIDLE" in run(BIN / "twistedsock", *command.split()).stdout


def test_check_answers_as_shown(tmp_path: Path) -> None:
    """The errors of a wrong file are those that the README shows."""
    (tmp_path / "wrong.toml").write_text(
        '[services.hello]\nservice = "ecko"\nlistne = ["tcp:8888"]\n'
        "[services.hello.limits]\nidle_timeout = 5\n"
    )
    done = run(BIN / "twistedsock", "check", "wrong.toml", cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr == ANSWERS[".venv/bin/twistedsock check wrong.toml"]
    done = run(BIN / "twistedsock", "check", "config/minimal.toml")
    assert done.returncode == 0
    assert done.stdout == ANSWERS[".venv/bin/twistedsock check config/minimal.toml"]


def test_services_answers_as_shown() -> None:
    """The listing has the lines that the README shows of it."""
    shown = ANSWERS[".venv/bin/twistedsock services"].rstrip("\n").splitlines()
    printed = run(BIN / "twistedsock", "services").stdout.splitlines()
    for line in shown:
        assert line.rstrip() in [each.rstrip() for each in printed] or line == "..."


def test_the_minimal_file_is_the_one_shown() -> None:
    """The file in the README is the file in config/."""
    lines = (ROOT / "config" / "minimal.toml").read_text().splitlines(keepends=True)
    assert "".join(lines[1:]) in blocks("toml")


def test_the_program_serves(tmp_path: Path) -> None:
    """The program without the daemon serves TCP and UDP as it stands."""
    port = free_port()
    (source,) = [block for block in blocks("python") if "reactor.run()" in block]
    process = subprocess.Popen([sys.executable, "-c", source.replace("8888", str(port))])
    try:

        def answered() -> bool:
            try:
                return ask(port, b"hi") == GREETING + b"OK...hi\n"
            except ConnectionRefusedError:
                return False

        eventually(answered)
        assert ask_udp(port, b"hi") == b"OK...hi"
    finally:
        process.kill()
        process.wait()


def test_the_plugin_works() -> None:
    """The plug-in in ten lines answers in capitals."""
    (shout,) = [block for block in blocks("python") if "SocketService" in block]
    scope: dict[str, Any] = {}
    exec(shout, scope)
    assert len([line for line in shout.splitlines() if line.strip()]) <= 10
    rig = Rig(scope["Shout"](), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"hello\n")
    assert wire.value() == b"HELLO\n"
    lose(protocol)


def test_every_flag_is_in_the_table() -> None:
    """The table of flags has every flag of `twistd sockservice`, and no other."""
    help_text = run(BIN / "twistd", "sockservice", "--help").stdout
    real = set(re.findall(r"--([a-z-]+)", help_text)) - {"help", "version"}
    shown = set(re.findall(r"^\| `--([a-z-]+)", TEXT, re.M))
    assert shown == real
