"""``twistedsock check --probe``: what the kernel would make of a file, and nothing is opened."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rich.console
from click.testing import CliRunner, Result
from conftest import free_port, run

from twistedsock.cli import main, tables

COMMAND = Path(sys.executable).with_name("twistedsock")
SYSCTL = Path("/proc/sys/net")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options")


def without_rights(*command: object) -> list[str]:
    """Return *command* as a process without capabilities."""
    if os.geteuid():
        return list(map(str, command))
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *map(str, command)]


def written(
    folder: Path, options: str, listen: str = '["tcp:127.0.0.1:0"]', more: str = ""
) -> Path:
    """Return the path of a file with one service and *options*."""
    path = folder / "file.toml"
    path.write_text(
        f'[services.a]\nservice = "echo"\nlisten = {listen}\n{more}\n'
        f"[services.a.socket]\n{options}\n"
    )
    return path


def probed(path: Path, *more: str) -> Result:
    """Run the subcommand in this process."""
    arguments = ["check", "--probe", str(path), *more]
    result = CliRunner().invoke(main, arguments, prog_name="twistedsock")
    assert "Traceback" not in result.stderr
    return result


def table(text: str, title: str) -> dict[str, list[str]]:
    """Return the rows below *title* by their first cell."""
    lines = text.splitlines()
    start = lines.index(title) + 1
    cells = [re.split(r"\s{2,}", line) for line in lines[start:]]
    assert cells[0] == ["OPTION", "REQUESTED", "APPLIED", "EFFECTIVE", "REASON"]
    found = {}
    for row in cells[1:]:
        if len(row) < 2:
            break
        found[row[0]] = row[1:]
    return found


def number(*names: str) -> int:
    """Return the value of a sysctl below net."""
    return int(SYSCTL.joinpath(*names).read_text())


# -- what it tells --


def test_each_option_is_told_with_what_it_has_become(tmp_path: Path) -> None:
    """Requested, applied and effective value stand side by side, with why they differ."""
    most = number("core", "rmem_max")
    path = written(
        tmp_path,
        f'TCP_KEEPIDLE = "61s"\nSO_RCVBUF = {most + 1}\n',
        '["tcp:127.0.0.1:0", "udp:[::1]:0"]',
    )
    result = probed(path)
    assert (result.exit_code, result.stderr) == (0, "")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, most + 1)
        effective = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    tcp = table(result.stdout, "a on tcp:127.0.0.1:0")
    assert tcp["TCP_KEEPIDLE"] == ["61s", "61s", "61s"]
    assert tcp["SO_RCVBUF"][:3] == [str(most + 1), str(most + 1), str(effective)]
    assert f"net.core.rmem_max = {most}" in tcp["SO_RCVBUF"][3]
    udp = table(result.stdout, "a on udp:[::1]:0")
    assert udp["SO_RCVBUF"] == tcp["SO_RCVBUF"]
    assert set(udp) == {"SO_RCVBUF"}  # a keep-alive is a stream's, and so is a backlog
    assert result.stdout.splitlines()[-1] == "ok"


def test_the_backlog_is_told_as_it_is_clamped(tmp_path: Path) -> None:
    """A backlog above net.core.somaxconn is shown with what it becomes."""
    most = number("core", "somaxconn")
    if most >= 65535:
        pytest.skip("this machine clamps no backlog")
    path = written(tmp_path, "", '[{ address = "tcp:*:0", backlog = 65535 }, "tcp:[::1]:0"]')
    text = probed(path).stdout
    reason = f"the kernel clamps it at net.core.somaxconn = {most}"
    assert table(text, "a on tcp:*:0")["backlog"] == ["65535", "65535", str(most), reason]
    assert table(text, "a on tcp:[::1]:0")["backlog"][2] == str(min(1024, most))


def test_a_row_is_a_line_whatever_is_in_it(tmp_path: Path) -> None:
    """Values of a file break no line and paint no terminal, and long reasons are not cut."""
    path = written(
        tmp_path,
        '"a\\nb" = { level = 6, number = 13, value = "x\\n\\u001b[31mred" }\n',
        more='refused_options = "ignore"',
    )
    result = probed(path)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "…" not in result.stdout
    rows = table(result.stdout, "a on tcp:127.0.0.1:0")
    assert rows[r"a\nb"][0] == r"x\n\x1b[31mred"
    assert len(result.stdout.splitlines()) == 6  # service, listener, header, two rows, ok


@pytest.mark.parametrize("columns", ["30", "80"])
def test_columns_change_nothing_in_a_pipe(tmp_path: Path, columns: str) -> None:
    """A script reads the same lines whatever the terminal it was started from."""
    path = written(tmp_path, 'SO_RCVBUF = "1MiB"\n')
    done = run(COMMAND, "check", "--probe", path, env={**os.environ, "COLUMNS": columns})
    assert done.stdout == probed(path).stdout


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_a_terminal_of_any_width_cuts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """On a terminal each value and the whole reason are there, within its width."""
    screen = io.StringIO()
    monkeypatch.setattr(
        tables,
        "console",
        lambda: rich.console.Console(
            file=screen, force_terminal=True, width=columns, color_system=None, markup=False
        ),
    )
    most = number("core", "rmem_max")
    path = written(tmp_path, f"SO_RCVBUF = {most + 1}\nIP_BIND_ADDRESS_NO_PORT = true\n")
    assert probed(path).exit_code == 0
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    text = "".join(screen.getvalue().split())
    assert "…" not in text
    assert "IP_BIND_ADDRESS_NO_PORT"[:20] in text
    assert str(most + 1) in text
    if columns != 60 and columns != 80:  # there, other cells stand between the lines of a reason
        assert f"net.core.rmem_max={most},andkeepsatleast2304" in text


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """Whoever reads one line of many is shown no traceback."""
    path = written(tmp_path, 'SO_RCVBUF = "1MiB"\n')
    done = run("bash", "-c", f"{COMMAND} check --probe {path} | head -1")
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


# -- what the kernel refuses --


def test_a_refused_option_ends_with_69_and_all_are_shown(tmp_path: Path) -> None:
    """Strict is the default: the first refusal is an error, and the table has every one."""
    options = 'TCP_CONGESTION = "nope"\nTCP_ULP = "nopes"\nSO_KEEPALIVE = true\n'
    result = probed(written(tmp_path, options))
    assert result.exit_code == 69
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "a: tcp:127.0.0.1:0: TCP_CONGESTION: No such file or directory (ENOENT);"
    )
    rows = table(result.stdout, "a on tcp:127.0.0.1:0")
    assert rows["TCP_CONGESTION"][:3] == ["nope", "-", "refused (ENOENT)"]
    assert rows["TCP_ULP"][2].startswith("refused (")
    assert rows["SO_KEEPALIVE"] == ["true", "true", "true"]
    assert "ok" not in result.stdout.splitlines()


@pytest.mark.parametrize("refusal", ["warn", "ignore"])
def test_a_service_that_goes_on_without_it_is_ok(tmp_path: Path, refusal: str) -> None:
    """Where the daemon would start without the option, the code is 0 and the table tells it."""
    path = written(tmp_path, 'TCP_CONGESTION = "nope"\n', more=f'refused_options = "{refusal}"')
    result = probed(path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert table(result.stdout, "a on tcp:127.0.0.1:0")["TCP_CONGESTION"][2] == "refused (ENOENT)"


def test_a_lacking_right_ends_with_77(tmp_path: Path) -> None:
    """An option that needs a capability is told with it, and how a unit grants it."""
    path = written(tmp_path, 'SO_RCVBUFFORCE = "1MiB"\n')
    done = run(*without_rights(COMMAND, "check", "--probe", path))
    assert (done.returncode, done.stderr) == (
        77,
        "a: tcp:127.0.0.1:0: SO_RCVBUFFORCE needs CAP_NET_ADMIN"
        " (in the unit, AmbientCapabilities=CAP_NET_ADMIN)\n",
    )
    assert table(done.stdout, "a on tcp:127.0.0.1:0")["SO_RCVBUFFORCE"][2] == "refused (EPERM)"
    done = run(
        *without_rights(COMMAND, "check", "--probe", path),
        *("--set", "services.a.refused_options=warn"),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_option_of_connections_is_tried_on_one(tmp_path: Path) -> None:
    """What only a connection takes is tried on a connection to ourselves."""
    raw = 'late = { level = 6, number = 13, value = "nope", phase = "connected" }\n'
    result = probed(written(tmp_path, raw, '["tcp:*:0"]'))
    assert result.exit_code == 69
    assert "a: tcp:*:0: late: No such file or directory (ENOENT)" in result.stderr


@pytest.mark.parametrize(
    "deaf",
    ["IP_MINTTL = 255", 'SO_ATTACH_FILTER = "1,6 0 0 0"', "TCP_DEFER_ACCEPT = '1s'"],
)
def test_a_listener_that_does_not_hear_us_is_not_at_fault(tmp_path: Path, deaf: str) -> None:
    """Where a connection to ourselves cannot succeed, the daemon would start all the same."""
    result = probed(written(tmp_path, f"{deaf}\nSO_PRIORITY = 3\n"))
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_wrong_file_is_told_before_anything_is_tried(tmp_path: Path) -> None:
    """What is wrong without asking the kernel ends with 78, and no table is shown."""
    result = probed(written(tmp_path, "TCP_KEEPIDEL = 3\n"))
    assert (result.exit_code, result.stdout) == (78, "")
    assert "did you mean TCP_KEEPIDLE?" in result.stderr


# -- names --


def test_a_name_is_tried_as_each_address_that_it_has(tmp_path: Path) -> None:
    """localhost may be IPv4 and IPv6: each socket gets the options of its own version."""
    result = probed(
        written(tmp_path, 'IPV6_TCLASS = "EF"\nIP_TOS = "AF11"\n', '["tcp:localhost:0"]')
    )
    assert (result.exit_code, result.stderr) == (0, "")
    found = {
        str(each[4][0]) for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    }
    if "127.0.0.1" in found:
        assert set(table(result.stdout, "a on tcp:127.0.0.1:0")) == {"IP_TOS", "backlog"}
    if "::1" in found:
        assert set(table(result.stdout, "a on tcp:[::1]:0")) == {"IPV6_TCLASS", "backlog"}


def test_a_name_that_has_no_address_ends_with_69(tmp_path: Path) -> None:
    """Where the daemon could not resolve a name, the probe says so."""
    result = probed(written(tmp_path, "", '["tcp:nobody.invalid:1"]'))
    assert result.exit_code == 69
    assert result.stderr.startswith("a: tcp:nobody.invalid:1: cannot resolve 'nobody.invalid'")


# -- it opens nothing that is configured --


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "*", "0.0.0.0"])
def test_a_port_in_use_is_no_matter(tmp_path: Path, host: str) -> None:
    """The daemon may be running: its port is not asked for."""
    name = {"*": "", "[::1]": "::1"}.get(host, host)
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.create_server((name, 0), family=family) as taken:
        listen = f'["tcp:{host}:{taken.getsockname()[1]}"]'
        result = probed(written(tmp_path, "SO_KEEPALIVE = true\nSO_PRIORITY = 3\n", listen))
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_configured_address_is_never_bound(tmp_path: Path) -> None:
    """The system calls show only port 0 on loopback or everywhere, for each family and kind."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    port = free_port()
    listen = (
        f'["tcp:192.0.2.1:{port}", "udp:192.0.2.1:{port}", "tcp:[2001:db8::1]:{port}",'
        f' "tcp:*:{port + 1}", "udp:127.0.0.1:{port}"]'
    )
    path = written(tmp_path, "SO_PRIORITY = 3\n", listen)
    log = tmp_path / "strace"
    command = ["strace", "-f", "-e", "trace=bind,connect,listen", "-o", log]
    done = run(*command, COMMAND, "check", "--probe", path)
    if "Operation not permitted" in done.stderr and done.returncode not in (0, 69):
        pytest.skip("needs CAP_SYS_PTRACE")
    assert (done.returncode, done.stderr) == (0, "")
    trace = log.read_text()
    bound = [line for line in trace.splitlines() if "bind(" in line and "AF_INET" in line]
    assert len(bound) == 5
    assert all("htons(0)" in line for line in bound)
    assert trace.count("listen(") == 3
    assert "192.0.2.1" not in trace
    assert "2001:db8" not in trace
    assert f"htons({port})" not in trace


def test_nothing_is_left_listening(tmp_path: Path) -> None:
    """Once it has ended, no socket of it is there."""
    if shutil.which("ss") is None:
        pytest.skip("needs ss (iproute2)")
    path = written(tmp_path, "SO_PRIORITY = 3\n", '["tcp:*:0", "udp:*:0"]')
    process = subprocess.Popen([COMMAND, "check", "--probe", path], stdout=subprocess.DEVNULL)
    assert process.wait(20) == 0
    assert f"pid={process.pid}," not in run("ss", "-tuanpH").stdout
