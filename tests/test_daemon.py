"""The daemon as a process: real clients, signals, exit codes, files."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import DEADLINE_S, free_port, run
from daemons import GREETING, TWISTD, Start, ask, ask_udp, eventually, fill, read_all

# -- serving --


def test_it_serves_tcp_and_udp_and_stops_in_order(start: Start) -> None:
    """The two lines of the sixty seconds work; SIGTERM ends it with 0."""
    daemon = start("--port", "0").ready()
    assert ask(daemon.port(), b"hello") == GREETING + b"OK...hello"
    assert ask_udp(daemon.port("udp"), b"hi") == b"OK...hi"
    assert daemon.stop() == 0
    assert "session ended: main tcp" in daemon.text


def test_the_star_is_every_address(start: Start) -> None:
    """--host '*' serves IPv4 and IPv6, over TCP and UDP, each from the address that was hit."""
    daemon = start("--host", "*", "--port", "0").ready()
    for host in ("127.0.0.1", "127.0.0.5", "::1"):
        assert ask(daemon.port(), b"x", host) == GREETING + b"OK...x"
        assert ask_udp(daemon.port("udp"), b"x", host) == b"OK...x"
    assert "only this machine" not in daemon.text
    assert daemon.text.count("accepting on tcp:*:") == 1
    assert daemon.stop() == 0


def test_loopback_is_announced(start: Start) -> None:
    """The start tells that only this machine can connect, and how to open it."""
    daemon = start("--port", "0").ready()
    eventually(lambda: "only this machine can connect; for others use --host '*'" in daemon.text)
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("command", "package"),
    [
        (["socat", "-t5", "-", "TCP:127.0.0.1:{port}"], "socat"),
        (["socat", "-t5", "-", "TCP6:[::1]:{port}"], "socat"),
        (["ncat", "127.0.0.1", "{port}"], "ncat"),
        (["nc", "-N", "-w5", "127.0.0.1", "{port}"], "netcat-openbsd"),
        (["nc", "-N", "-w5", "::1", "{port}"], "netcat-openbsd"),
    ],
)
def test_real_clients_get_every_byte(start: Start, command: list[str], package: str) -> None:
    """The clients that people have in a shell get the whole answer when they half-close."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs the Debian package {package}")
    daemon = start("--host", "*", "--port", "0", "--framing", "line").ready()
    words = [word.format(port=daemon.port()) for word in command]
    done = subprocess.run(words, input=b"one\ntwo", capture_output=True, timeout=DEADLINE_S)
    assert done.stdout == GREETING + b"OK...one\nOK...two\n"
    assert daemon.stop() == 0


def test_a_scan_of_versions_does_no_harm(start: Start) -> None:
    """nmap -sV sends what it likes; the daemon goes on serving and logs no error."""
    if shutil.which("nmap") is None:
        pytest.skip("needs the Debian package nmap")
    daemon = start("--port", "0", "--framing", "netstring").ready()
    done = run("nmap", "-sV", "--version-light", "-p", str(daemon.port()), "127.0.0.1")
    assert "open" in done.stdout
    assert ask(daemon.port(), b"2:hi,").endswith(b"7:OK...hi,")
    assert "Traceback" not in daemon.text
    assert daemon.stop() == 0


# -- failing to start --


def test_a_taken_port_is_69_and_leaves_nothing(tmp_path: Path) -> None:
    """A failed bind ends with 69, one line, no pidfile; what was bound before is let go."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other, port = free_port(), taken.getsockname()[1]
        done = run(
            TWISTD, "-n", "sockservice",
            "--listen", f"tcp:127.0.0.1:{other}", "--listen", f"tcp:127.0.0.1:{port}",
            cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 69
        assert done.stderr == (
            f"twistd sockservice: cannot listen on tcp:127.0.0.1:{port}: Address already in use"
            " (EADDRINUSE); another listener has it\n"
        )
        assert not (tmp_path / "twistd.pid").exists()
        socket.create_server(("127.0.0.1", other)).close()


def without_privileged_ports() -> None:
    """Take CAP_NET_BIND_SERVICE from what this process will execute, root or not."""
    pr_capbset_drop, cap_net_bind_service = 24, 10
    ctypes.CDLL(None).prctl(pr_capbset_drop, cap_net_bind_service)


def test_a_missing_right_is_77(tmp_path: Path) -> None:
    """A privileged port without the right ends with 77 and says what would allow it."""
    command = (TWISTD, "-n", "--pidfile=", "sockservice", "--port", "80")
    done = run(*command, cwd=tmp_path, preexec_fn=without_privileged_ports)
    assert done.returncode == 77, done.stderr
    assert done.stderr == (
        "twistd sockservice: cannot listen on tcp:127.0.0.1:80: Permission denied (EACCES);"
        " ports below 1024 need CAP_NET_BIND_SERVICE or root\n"
    )


def test_a_daemon_that_cannot_bind_tells_its_parent(tmp_path: Path) -> None:
    """Daemonising, the parent returns with 1 and the address; the log has the whole line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        done = run(TWISTD, "sockservice", "--listen", address, cwd=tmp_path)
    assert done.returncode == 1
    assert address in done.stderr
    assert (
        f"cannot listen on {address}: Address already in use"
        in (tmp_path / "twistd.log").read_text()
    )
    assert not (tmp_path / "twistd.pid").exists()


def offer(folder: Path, entry_point: str) -> None:
    """Make *folder* a distribution that offers a service, for PYTHONPATH."""
    dist = folder / "bad-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text(f"[twistedsock.services]\n{entry_point}\n")


def test_a_service_that_cannot_start_is_70(start: Start, tmp_path: Path) -> None:
    """Where start() raises, the daemon stops with 70 and says which service it was."""
    offer(tmp_path, "bad = badservice:Bad")
    (tmp_path / "badservice.py").write_text(
        "from twistedsock import SocketService\n"
        "class Bad(SocketService):\n"
        "    async def start(self): raise RuntimeError('no database')\n"
        "    def received(self, session, message): pass\n"
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        daemon = start("--service", "bad", "--port", "0")
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    assert daemon.wait() == 70
    assert "services.main: start() failed: no database" in daemon.text
    assert "accepting on" not in daemon.text


def test_a_service_that_cannot_be_made_is_70(start: Start, tmp_path: Path) -> None:
    """Where a plug-in's __init__ raises, one line says so and nothing is left bound."""
    offer(tmp_path, "bad = badmade:Bad")
    (tmp_path / "badmade.py").write_text(
        "from twistedsock import SocketService\n"
        "class Bad(SocketService):\n"
        "    def __init__(self, *args, **more): raise RuntimeError('no way')\n"
        "    def received(self, session, message): pass\n"
    )
    done = run(
        TWISTD, "-n", "--pidfile=", "sockservice", "--service", "bad", "--port", "0",
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 70
    assert done.stderr == (
        "twistd sockservice: services.main: cannot be made: RuntimeError: no way\n"
    )


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (["--prot", "1"], 64, "unknown flag --prot; did you mean --port?"),
        (["--port", "x"], 64, "--port must be 0 to 65535, got 'x'"),
        (["--config", "none.toml"], 78, "none.toml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_words_end_with_one_line(
    tmp_path: Path, flags: list[str], code: int, line: str
) -> None:
    """A wrong flag is 64, a wrong file 78; one line each, no traceback."""
    done = run(TWISTD, "-n", "sockservice", *flags, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr == f"twistd sockservice: {line}\n"


# -- living as a daemon --


def test_it_daemonises_logs_and_reopens_its_log(tmp_path: Path) -> None:
    """Pidfile and log file are made; SIGHUP does not kill; SIGUSR1 reopens a renamed log."""
    port = free_port()
    done = run(TWISTD, "sockservice", "--listen", f"tcp:127.0.0.1:{port}", cwd=tmp_path)
    assert done.returncode == 0
    log = tmp_path / "twistd.log"
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        eventually(lambda: "accepting on" in log.read_text())
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "SIGHUP" in log.read_text())
        assert ask(port, b"x").endswith(b"OK...x")
        log.rename(tmp_path / "old.log")
        os.kill(pid, signal.SIGUSR1)
        eventually(log.exists)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: "Server Shut Down" in log.read_text())
        eventually(lambda: not (tmp_path / "twistd.pid").exists())
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def test_rights_are_given_up_after_binding(tmp_path: Path) -> None:
    """With --uid and --gid a privileged port is bound first, and root is left after."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    port = next((port for port in range(900, 1000) if _is_free(port)), None)
    assert port is not None
    done = run(
        TWISTD, "--uid", "65534", "--gid", "65534", "sockservice",
        "--listen", f"tcp:127.0.0.1:{port}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "twistd.pid").read_text())
    try:
        assert eventually(lambda: ask(port, b"x")) == GREETING + b"OK...x"
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\s+65534\s+65534\s+65534", status, re.M)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_stopping_flushes_says_goodbye_and_ends(start: Start) -> None:
    """At SIGTERM what is queued still reaches a slow reader, whose session ends in order."""
    daemon = start("--service", "echo", "--listen", "tcp:127.0.0.1:0").ready()
    payload = b"p" * 700_000
    with daemon.connect() as client:
        client.sendall(payload)
        time.sleep(0.2)
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        assert read_all(client) == payload
    assert daemon.wait() == 0
    assert "shutdown" in daemon.text


def test_a_second_term_stops_at_once(start: Start) -> None:
    """A peer that never reads holds the stop up to drain_timeout; a second TERM does not wait."""
    daemon = start(
        "--service", "echo", "--listen", "tcp:127.0.0.1:0",
        "--set", "services.main.limits.drain_timeout=1h",
    ).ready()  # fmt: skip
    with daemon.connect() as client:
        client.setblocking(False)
        fill(client)
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert daemon.process.poll() is None
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
    assert "shutdown_aborted" in daemon.text


def test_the_drain_deadline_holds(start: Start) -> None:
    """A peer that never reads is cut off when drain_timeout is over."""
    daemon = start(
        "--service", "chargen", "--listen", "tcp:127.0.0.1:0",
        "--set", "services.main.limits.drain_timeout=300ms",
    ).ready()  # fmt: skip
    with daemon.connect() as client:
        client.recv(1)
        assert daemon.stop() == 0
    assert "1 sessions did not end in time" in daemon.text
    assert "shutdown_aborted" in daemon.text


def test_json_logs_are_one_object_a_line(start: Start) -> None:
    """--log-format json is for machines: each line an object, the session's end in full."""
    daemon = start("--port", "0", "--log-format", "json")
    eventually(lambda: "listening" in daemon.text)
    events = [json.loads(line) for line in daemon.text.splitlines()]
    listening = [event for event in events if event.get("event") == "listening"]
    port = int(listening[0]["address"].rpartition(":")[2])
    ask(port, b"\x1b[31mred\n")
    assert daemon.stop() == 0
    events = [json.loads(line) for line in daemon.text.splitlines()]
    (ended,) = [event for event in events if event.get("event") == "session_ended"]
    assert ended["bytes_in"] == 9
    assert ended["reason"] == "peer_closed"
    assert set(ended) >= {
        "time", "level", "service", "protocol", "transport", "session", "peer", "local",
        "bytes_in", "bytes_out", "messages_in", "messages_out", "duration_s", "reason",
    }  # fmt: skip


def test_kill_9_leaves_the_port_free(start: Start) -> None:
    """After kill -9 with live connections the next daemon takes the same port at once."""
    daemon = start("--listen", "tcp:127.0.0.1:0").ready()
    port = daemon.port()
    with daemon.connect() as client:
        client.recv(10)
        daemon.process.kill()
        daemon.wait()
        again = start("--listen", f"tcp:127.0.0.1:{port}").ready()
        assert ask(port, b"x") == GREETING + b"OK...x"
        assert again.stop() == 0


@pytest.mark.parametrize("reactor", ["epoll", "poll", "select", "asyncio"])
def test_any_reactor_serves(tmp_path: Path, reactor: str) -> None:
    """The daemon is the same under every reactor that twistd offers."""
    port = free_port()
    process = subprocess.Popen(
        [TWISTD, "-n", "--pidfile=", f"--reactor={reactor}", "sockservice", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while b"accepting on udp" not in process.stdout.readline():
            assert process.poll() is None
        assert ask(port, b"x") == GREETING + b"OK...x"
        assert ask_udp(port, b"x") == b"OK...x"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_stop_that_never_returns_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    """drain_timeout bounds stop() too, and a second TERM cuts it off."""
    offer(tmp_path, "bad = badservice:Bad")
    (tmp_path / "badservice.py").write_text(
        "from twisted.internet.defer import Deferred\n"
        "from twistedsock import SocketService\n"
        "class Bad(SocketService):\n"
        "    async def stop(self): await Deferred()\n"
        "    def received(self, session, message): pass\n"
    )
    flags = ("--service", "bad", "--listen", "tcp:127.0.0.1:0", "--set")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        soon = start(*flags, "services.main.limits.drain_timeout=300ms").ready()
        late = start(*flags, "services.main.limits.drain_timeout=1h").ready()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    assert soon.stop() == 0
    assert "stop() did not end in time" in soon.text
    late.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert late.process.poll() is None
    assert late.stop() == 0
