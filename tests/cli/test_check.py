"""``twistedsock check``: the daemon's verdict without the daemon."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import run

from twistedsock.cli import main

GOOD = """
[services.hello]
service = "echo-reply"
listen = ["tcp:127.0.0.1:8888", "udp:127.0.0.1:8888"]
[services.sink]
service = "discard"
listen = [{ address = "tcp:*:9", backlog = 5 }]
"""


def check(*arguments: str | Path) -> Result:
    """Run the subcommand in this process."""
    return CliRunner().invoke(main, ["check", *map(str, arguments)], prog_name="twistedsock")


def written(folder: Path, text: str, name: str = "hello.toml") -> Path:
    """Return the path of a file that holds *text*."""
    path = folder / name
    path.write_text(text)
    return path


def test_a_good_file_is_told_as_it_was_understood(tmp_path: Path) -> None:
    """Each service is listed with its class and addresses, and the exit code is 0."""
    result = check(written(tmp_path, GOOD))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "hello: EchoReply on tcp:127.0.0.1:8888, udp:127.0.0.1:8888",
        "sink: Discard on tcp:*:9",
        "ok",
    ]


def test_every_error_is_told_at_once_with_file_and_key(tmp_path: Path) -> None:
    """All that is wrong is on standard error, one line each, and the exit code is 78."""
    path = written(
        tmp_path,
        '[services.hello]\nservice = "ecko"\nlisten = ["tcp:x"]\n'
        '[services.sink]\nservice = "discard"\nlisten = ["tcp:9"]\nlimits.max_connections = 0\n',
    )
    result = check(path, "/none.toml")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.splitlines() == [
        "/none.toml: cannot be read: No such file or directory",
        f"{path}: services.hello.listen[0]: port must be 0 to 65535, got 'x' in 'tcp:x'",
        f"{path}: services.hello.service: no service is called 'ecko'; did you mean 'echo'?",
        f"{path}: services.sink.limits.max_connections: must be at least 1, got 0",
        "4 errors",
    ]


def test_one_error_is_counted_in_the_singular(tmp_path: Path) -> None:
    """One error is one error."""
    path = written(tmp_path, "nonsense = 1\n" + GOOD)
    result = check(path)
    assert result.exit_code == 78
    assert result.stderr == f"{path}: nonsense: unknown key; known here: services\n1 error\n"


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    """A file without a service is an error, and told which file it is."""
    path = written(tmp_path, "")
    result = check(path)
    assert result.exit_code == 78
    assert result.stderr == (
        f"{path}: holds no service; add a table such as [services.main]\n1 error\n"
    )


def test_files_are_checked_together(tmp_path: Path) -> None:
    """Several files are one configuration, later ones over earlier ones."""
    base = written(tmp_path, GOOD)
    top = written(tmp_path, '[services.sink]\nlisten = ["tcp:10"]\n', "top.toml")
    assert check(top).exit_code == 78
    result = check(base, top)
    assert result.exit_code == 0
    assert "sink: Discard on tcp:127.0.0.1:10" in result.stdout


def test_set_is_checked_like_the_daemon_s(tmp_path: Path) -> None:
    """--set counts over the files, and a wrong one is told by what was typed."""
    path = written(tmp_path, GOOD)
    result = check(path, "--set", 'services.sink.listen=["udp:9"]')
    assert "sink: Discard on udp:127.0.0.1:9" in result.stdout
    result = check(path, "--set", "services.sink.framing=lines", "--set", "x")
    assert result.exit_code == 78
    assert result.stderr.splitlines() == [
        "--set x: must be KEY=VALUE, such as services.main.limits.idle_timeout=1m",
        "--set services.sink.framing=lines: services.sink.framing: must be one of chunk, line,"
        " netstring, uint8, uint16, uint32, got 'lines'",
        "2 errors",
    ]


def test_nothing_is_bound(tmp_path: Path) -> None:
    """A configuration is right though its port is taken: the daemon may be running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = written(
            tmp_path, f'[services.a]\nservice = "echo"\nlisten = ["tcp:127.0.0.1:{port}"]\n'
        )
        result = check(path)
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [(["check"], "FILE"), (["check", "--sett", "x"], "--sett"), (["chek"], "chek")],
)
def test_a_wrong_command_line_ends_with_64(arguments: list[str], culprit: str) -> None:
    """What was typed wrongly ends with 64, as with the daemon, and is named."""
    done = run(sys.executable, "-m", "twistedsock", *arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert culprit in done.stderr.splitlines()[-1]
    assert "Usage: twistedsock" in done.stderr


def test_help_tells_both_commands() -> None:
    """The command's own help names every subcommand and the server."""
    result = CliRunner().invoke(main, ["--help"], prog_name="twistedsock")
    assert result.exit_code == 0
    for words in (
        "check     Check configuration files; all errors at once.",
        "services  List the installed services.",
        "The server itself is `twistd sockservice`.",
    ):
        assert words in result.output


def test_the_command_as_a_process(tmp_path: Path) -> None:
    """The installed command ends with the code that it promises."""
    command = Path(sys.executable).with_name("twistedsock")
    good = written(tmp_path, GOOD)
    written(tmp_path, "services = 3\n", "bad.toml")
    assert run(command, "check", good).stdout.endswith("ok\n")
    done = run(command, "check", "bad.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        78,
        "bad.toml: services: must be tables [services.NAME], got 3\n1 error\n",
    )
