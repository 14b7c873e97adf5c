"""``twistedsock config``: the settings in force, as a file that gives the same settings again."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twistedsock.cli import main
from twistedsock.host.loader import read_files
from twistedsock.host.plan import make_plans

CONFIG = sorted((ROOT / "config").glob("*.toml"))
FULL = """
[services."odd. name\\u0001\\u00fc"]
service = "echo-reply"
listen = ["tcp:8888", { address = "udp:*:9", backlog = 3, socket = { SO_RCVBUF = "3KiB" } }]
framing = "line"
[services."odd. name\\u0001\\u00fc".limits]
idle_timeout = "1.5m"
drain_timeout = "0.25ms"
accept_rate = "5/10s"
first_byte_timeout = "none"
write_high_water = 65536
[services."odd. name\\u0001\\u00fc".settings]
prefix = "\\u007f\\u0000\\r\\n\\"'\\\\ \\u2028"
"""
LIMITS = '[services.main]\nservice = "echo"\nlisten = ["tcp:1"]\n[services.main.limits]\n'


def config(*arguments: str | Path) -> Result:
    """Run the subcommand in this process."""
    return CliRunner().invoke(main, ["config", *map(str, arguments)], prog_name="twistedsock")


def written(folder: Path, text: str, name: str = "a.toml") -> Path:
    """Return the path of a file that holds *text*."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def printed(*arguments: str | Path) -> str:
    """Return what the subcommand prints for what is right."""
    result = config(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def planned(*paths: str | Path) -> list[Any]:
    """Return what the daemon would make of the files, fit to be compared."""
    plans = make_plans(read_files(map(str, paths)))
    return [
        (dataclasses.replace(plan, access=None), plan.access._tables, plan.access._default)
        for plan in plans
    ]


def same_again(folder: Path, path: Path) -> str:
    """Return what is printed of *path*: it gives the same plans and is printed the same again."""
    text = printed(path)
    again = written(folder, text, "again.toml")
    assert printed(again) == text
    assert planned(again) == planned(path)
    return text


def test_the_smallest_file_is_printed_with_every_default() -> None:
    """Each key has its value, in the file's own units, and none is missing."""
    assert printed(ROOT / "config" / "minimal.toml") == (
        """\
[services.hello]
service = "echo-reply"
framing = "line"
codec = "bytes"
udp_source_ports = "guarded"
socket = {}
refused_options = "strict"

[[services.hello.listen]]
address = "tcp:127.0.0.1:8888"
backlog = 1024
mode = "0600"
groups = []
filter = ""
socket = {}

[[services.hello.listen]]
address = "udp:127.0.0.1:8888"
backlog = 1024
mode = "0600"
groups = []
filter = ""
socket = {}

[services.hello.settings]
greeting = "Welcome to the server. Type something and hit enter\\n"
prefix = "OK..."

[services.hello.limits]
max_connections = 10000
# max_connections_per_source = 64 # loopback is exempt until this is set
accept_rate = "none"
first_byte_timeout = "10s"
idle_timeout = "5m"
session_timeout = "none"
# max_message = "64KiB" # datagrams are whole until this is set
write_high_water = "1MiB"
write_timeout = "30s"
drain_timeout = "10s"

[services.hello.access]
allow = []
deny = []
"""
    )


@pytest.mark.parametrize("path", CONFIG, ids=lambda path: path.name)
def test_what_is_printed_gives_the_same_settings(path: Path, tmp_path: Path) -> None:
    """The output is a configuration: the same plans, and the same output again."""
    same_again(tmp_path, path)


def test_odd_names_and_texts_survive(tmp_path: Path) -> None:
    """Names that need quotes, control characters and other scripts are read back as they were."""
    text = same_again(tmp_path, written(tmp_path, FULL))
    [(name, table)] = tomllib.loads(text)["services"].items()
    assert name == "odd. name\x01\xfc"
    assert table["settings"]["prefix"] == "\x7f\0\r\n\"'\\ \u2028"
    assert table["listen"][1] == {
        "address": "udp:*:9",
        "backlog": 3,
        "mode": "0600",
        "groups": [],
        "filter": "",
        "socket": {"SO_RCVBUF": "3KiB"},
    }
    assert {
        key: table["limits"][key]
        for key in ("idle_timeout", "drain_timeout", "accept_rate", "write_high_water")
    } == {
        "idle_timeout": "90s",
        "drain_timeout": "0.25ms",
        "accept_rate": "5/10s",
        "write_high_water": "64KiB",
    }


@pytest.mark.parametrize("value", ["64", '"none"', "1"])
def test_a_limit_a_source_that_was_set_stays_set(value: str, tmp_path: Path) -> None:
    """It binds loopback once it is written down, so it is written only where it was."""
    text = same_again(
        tmp_path, written(tmp_path, f"{LIMITS}max_connections_per_source = {value}\n")
    )
    assert f"\nmax_connections_per_source = {value}\n" in text


_NUMBER = st.from_regex(r"[1-9][0-9]{0,2}(\.[0-9]{1,15})?", fullmatch=True)
_DURATION = st.builds("{}{}".format, _NUMBER, st.sampled_from(["us", "ms", "s", "m", "h"]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    drain=_DURATION,
    rate=st.builds("{}/{}".format, _NUMBER, _DURATION),
    size=st.integers(1, 2**40),
)
def test_every_amount_is_written_exactly(drain: str, rate: str, size: int, tmp_path: Path) -> None:
    """Durations, rates and sizes are read back to the last bit."""
    amounts = {"drain_timeout": drain, "accept_rate": rate, "write_high_water": size}
    lines = (f"{key} = {json.dumps(amount)}\n" for key, amount in amounts.items())
    same_again(tmp_path, written(tmp_path, LIMITS + "".join(lines)))


def test_origins_are_told(tmp_path: Path) -> None:
    """Each key is followed by the file or flag that it came from, or by "default"."""
    base = written(tmp_path, LIMITS + 'idle_timeout = "1m"\n')
    top = written(tmp_path, "[services.main]\nlimits.max_message = 5\n", "top.toml")
    flag = "services.main.framing=line"
    lines = printed(base, top, "--set", flag, "--origin").splitlines()
    for line in (
        f'service = "echo" # {base}',
        f'framing = "line" # --set {flag}',
        'codec = "bytes" # default',
        f'address = "tcp:127.0.0.1:1" # {base}',
        "backlog = 1024 # default",
        f'idle_timeout = "1m" # {base}',
        f'max_message = "5B" # {top}',
        "settings = {} # default",
        "# max_connections_per_source = 64 # default; loopback is exempt until this is set",
    ):
        assert line in lines
    again = written(tmp_path, "\n".join(lines), "again.toml")
    assert printed(again) == printed(base, top, "--set", flag)


def test_an_origin_cannot_break_the_file(tmp_path: Path) -> None:
    """A path with a line feed in it stays inside its comment."""
    path = written(tmp_path, LIMITS, "two\nlines\x1b[31m.toml")
    text = printed(path, "--origin")
    assert "two\\nlines\\x1b[31m.toml" in text
    assert printed(written(tmp_path, text, "again.toml")) == printed(path)


def test_errors_are_those_of_check(tmp_path: Path) -> None:
    """What is wrong is told in the same words as by check, on standard error, with 78."""
    path = written(tmp_path, LIMITS + 'idle_timout = "1m"\nmax_connections = 0\n')
    arguments = [str(path), "/none.toml", "--set", "x"]
    told = CliRunner().invoke(main, ["check", *arguments])
    result = config(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (78, "", told.stderr)
    assert result.stderr.endswith("4 errors\n")


@pytest.mark.parametrize("arguments", [[], ["--orign", "x"], ["--set", "services.main.a=1"]])
def test_a_wrong_command_line_ends_with_64(arguments: list[str]) -> None:
    """A file is required, and a flag that is not known is refused."""
    result = config(*arguments)
    assert (result.exit_code, result.stdout) == (64, "")
    assert "Usage: twistedsock config" in result.stderr


def test_the_output_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    """TOML is UTF-8, so a terminal's own encoding does not count."""
    path = written(tmp_path, LIMITS.replace("main", '"\u00fc"'))
    result = CliRunner(charset="ascii").invoke(main, ["config", str(path)])
    assert '[services."\u00fc"]'.encode() in result.stdout_bytes


def test_nothing_else_is_told(tmp_path: Path) -> None:
    """No service has a key that its model has not, and none is left out."""
    table: dict[str, Any] = tomllib.loads(printed(written(tmp_path, LIMITS)))["services"]["main"]
    assert set(table) == {
        *("service", "listen", "framing", "codec", "udp_source_ports"),
        *("settings", "limits", "access", "socket", "refused_options"),
    }
