"""What follows when the kernel refuses an option, and what the daemon's sockets really have.

The sockets are the daemon's own, fetched by pidfd_getfd(2) and read by the standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, free_port, run
from daemons import TWISTD, Daemon, Start, ask

from twistedsock.errors import ConfigError
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import ServicePlan, make_plans

PIDFD_GETFD = 438
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options")
NEEDS = "SO_RCVBUFFORCE needs CAP_NET_ADMIN (in the unit, AmbientCapabilities=CAP_NET_ADMIN)"


@contextmanager
def sockets_of(daemon: Daemon) -> Iterator[list[socket.socket]]:
    """Yield the daemon's own IP sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        pidfd = os.pidfd_open(daemon.process.pid)
        stack.callback(os.close, pidfd)
        found = []
        folder = f"/proc/{daemon.process.pid}/fd"
        for name in os.listdir(folder):
            if not os.readlink(f"{folder}/{name}").startswith("socket:"):
                continue
            number = libc.syscall(PIDFD_GETFD, pidfd, int(name), 0)
            if number < 0:
                pytest.skip(f"needs CAP_SYS_PTRACE: {os.strerror(ctypes.get_errno())}")
            sock = stack.enter_context(socket.socket(fileno=number))
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                found.append(sock)
        yield found


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Any]:
    """Run the daemon without capabilities until it ends by itself, perhaps under strace."""
    if not os.geteuid() and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")

    def bare(
        *flags: str, before: tuple[str | Path, ...] = (), twistd: tuple[str, ...] = ("-n",)
    ) -> Any:
        drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        words = [*before, *drop, TWISTD, "--pidfile=", *twistd, "sockservice", *flags]
        return run(*words, cwd=tmp_path)

    return bare


def drop_rights() -> None:
    """Drop every capability of a process that is about to be the daemon."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(64):
        libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    # capset(2): version 3 with two empty sets
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())


# -- what a right is lacking for --


def test_a_lacking_right_ends_the_start_with_77(bare: Callable[..., Any]) -> None:
    """The line names the option, its right and the unit's way to it."""
    done = bare("--port", "0", "--option", "SO_RCVBUFFORCE=1MiB")
    assert done.returncode == 77
    assert done.stderr == f"twistd sockservice: cannot listen on tcp:127.0.0.1:0: {NEEDS}\n"
    assert "accepting" not in done.stdout


def test_rights_are_checked_before_any_socket_is_opened(
    bare: Callable[..., Any], tmp_path: Path
) -> None:
    """Not one of several services binds or opens anything, though only the last lacks a right."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    port = free_port()
    log = tmp_path / "strace"
    before = ("strace", "-f", "-e", "trace=socket,bind,listen", "-o", log)
    table = f'services.z.listen=["tcp:*:{port}"]'
    done = bare(
        *("--port", str(port + 1), "--set", "services.z.service=echo", "--set", table),
        *("--set", "services.z.socket.SO_RCVBUFFORCE=1000000"),
        before=before,
    )
    if "ptrace" in done.stderr:
        pytest.skip("needs CAP_SYS_PTRACE")
    assert (done.returncode, NEEDS in done.stderr) == (77, True), done.stderr
    trace = log.read_text()
    assert not [line for line in trace.splitlines() if "bind(" in line or "listen(" in line]
    assert "AF_INET" not in trace


def test_the_waiting_parent_of_a_daemon_is_told(bare: Callable[..., Any], tmp_path: Path) -> None:
    """When daemonising, too, it is told in brief and in the log in full, and is no success."""
    done = bare("--port", "0", "--option", "SO_RCVBUFFORCE=1MiB", twistd=())
    assert done.returncode == 1  # twistd's own
    assert "SO_RCVBUFFORCE needs CAP_NET_ADMIN" in done.stderr
    assert NEEDS in (tmp_path / "twistd.log").read_text()
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.parametrize("refusal", ["warn", "ignore"])
def test_a_tolerant_service_starts_without_it(start: Start, refusal: str) -> None:
    """With warn the log has a line a listener; with ignore there is none; both serve."""
    if os.geteuid():
        pytest.skip("needs root, to drop its rights")
    daemon = start(
        *("--port", "0", "--option", "SO_RCVBUFFORCE=1MiB", "--log-format", "json"),
        *("--set", f"services.main.refused_options={refusal}"),
        preexec=drop_rights,
    )
    daemon.ready()
    events = [json.loads(line) for line in daemon.text.splitlines()]
    refused = [each for each in events if each.get("event") == "option_refused"]
    addresses = [each["address"] for each in events if each.get("event") == "listening"]
    if refusal == "ignore":
        assert "SO_RCVBUFFORCE" not in daemon.text
    else:
        assert [each["address"] for each in refused] == addresses
        assert {each["level"] for each in refused} == {"warn"}
        assert {each["option"] for each in refused} == {"SO_RCVBUFFORCE"}
        assert "refused with EPERM" in refused[0]["message"]
    port = int(addresses[0].rpartition(":")[2])
    assert ask(port, b"hi").endswith(b"OK...hi")
    assert daemon.stop() == 0


# -- what the kernel refuses --


def test_a_strict_service_does_not_start(start: Start) -> None:
    """What the kernel refuses ends the start with 69, and the line says what would be right."""
    daemon = start("--port", "0", "--option", "TCP_CONGESTION=nope")
    assert daemon.wait() == 69
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    assert (
        "cannot listen on tcp:127.0.0.1:0: TCP_CONGESTION: No such file or directory (ENOENT);"
        " this machine has net.ipv4.tcp_available_congestion_control = " + " ".join(known)
    ) in daemon.text
    assert "accepting" not in daemon.text


def test_one_service_s_policy_is_not_another_s(start: Start) -> None:
    """A tolerant service beside a strict one does not soften it."""
    daemon = start(
        *("--port", "0", "--option", "TCP_CONGESTION=nope"),
        *("--set", "services.main.refused_options=ignore"),
        *("--set", "services.z.service=echo", "--set", 'services.z.listen=["tcp:0"]'),
        *("--set", "services.z.socket.TCP_CONGESTION=nope"),
    )
    assert daemon.wait() == 69
    assert "accepting" not in daemon.text


# -- what the sockets have --

SERVICE = """
[services.a]
service = "echo"
listen = [
    "tcp:127.0.0.1:0",
    "udp:[::1]:0",
    { address = "tcp:[::1]:0", backlog = 65535, socket = { TCP_KEEPIDLE = "70s", raw = RAW } },
    { address = "udp:*:0", socket = { IPV6_TCLASS = "CS1" } },
]
[services.a.socket]
KeepAliveTimeSec = "60s"
SO_KEEPALIVE = true
SO_RCVBUF = "32KiB"
SO_SNDBUF = "32KiB"
raw = { level = "IPPROTO_IP", number = 1, value = 0x28, phase = "prebind" }
"""


def test_each_socket_has_what_is_written(start: Start, tmp_path: Path) -> None:
    """A service's options are on each listener that they fit, a listener's own over them."""
    path = tmp_path / "file.toml"
    raw = '{ level = 6, number = 5, value = 33, phase = "listening" }'
    path.write_text(SERVICE.replace("RAW", raw))
    daemon = start("--config", str(path)).ready()
    with sockets_of(daemon) as found:
        by_kind = {(sock.type, sock.getsockname()[0]): sock for sock in found}
        tcp4 = by_kind[socket.SOCK_STREAM, "127.0.0.1"]
        tcp6 = by_kind[socket.SOCK_STREAM, "::1"]
        udp6 = by_kind[socket.SOCK_DGRAM, "::1"]
        wild = by_kind[socket.SOCK_DGRAM, "::"]
        assert len(found) == 4
        for sock in found:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 65536
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 65536
        idle = [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) for sock in (tcp4, tcp6)]
        assert idle == [60, 70]
        assert tcp6.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 33
        assert tcp4.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) != 33
        assert tcp4.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x28
        assert wild.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x20
        assert udp6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0
    most = int(SOMAXCONN.read_text())
    if most < 65535:
        assert (
            "a: backlog: requested 65535, effective"
            f" {most}: the kernel clamps it at net.core.somaxconn = {most} on tcp:[::1]:"
        ) in daemon.text
        if shutil.which("ss"):
            lines = run("ss", "-ltnH").stdout.splitlines()
            [line] = [each for each in lines if f"[::1]:{tcp6_port(daemon)} " in each]
            assert line.split()[2] == str(most)
    differing = re.findall(r"a: (\S+): requested 32KiB, effective 65536", daemon.text)
    assert differing == ["SO_RCVBUF", "SO_SNDBUF"] * 4
    assert daemon.stop() == 0


def tcp6_port(daemon: Daemon) -> int:
    """Return the port of its IPv6 stream listener."""
    found = re.search(r"accepting on tcp:\[::1\]:(\d+)", daemon.text)
    assert found
    return int(found[1])


def test_what_is_as_it_was_requested_is_not_told(start: Start) -> None:
    """The log has no line for an option that the kernel took as it is."""
    daemon = start("--port", "0", "-o", "SO_KEEPALIVE=on", "-o", "TCP_KEEPIDLE=60s").ready()
    assert "KEEP" not in daemon.text
    assert daemon.stop() == 0


@pytest.mark.parametrize("host", ["localhost", "*", "0.0.0.0", "[::]"])
def test_options_of_both_ip_versions(start: Start, host: str) -> None:
    """A name, or a wildcard, takes options of both versions, each socket those of its own."""
    service = f'services.a.listen=["tcp:{host}:0", "udp:{host}:0"]'
    options = ["IP_TOS=CS1"] if host == "0.0.0.0" else ["IPV6_TCLASS=CS1"]
    if host in ("*", "localhost"):
        options.append("IP_TOS=CS1")
    sets = [f"services.a.socket.{option}" for option in options]
    flags = [
        word for each in ("services.a.service=echo", service, *sets) for word in ("--set", each)
    ]
    daemon = start(*flags).ready()
    with sockets_of(daemon) as found:
        assert len(found) >= 2
        for sock in found:
            if sock.family == socket.AF_INET6:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0x20
            if sock.family == socket.AF_INET or host == "*":
                assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0x20
    assert daemon.stop() == 0


def test_the_same_when_daemonising(tmp_path: Path) -> None:
    """A daemon in the background has the options, and its log file tells those that differ."""
    port = free_port()
    words = [TWISTD, "--pidfile=d.pid", "sockservice", "-p", str(port), "-o", "SO_RCVBUF=32KiB"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    pid = int((tmp_path / "d.pid").read_text())
    try:
        assert ask(port, b"hi").endswith(b"OK...hi")
        log = (tmp_path / "twistd.log").read_text()
        assert log.count("SO_RCVBUF: requested 32KiB, effective 65536") == 2
    finally:
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        assert select.select([pidfd], [], [], DEADLINE_S)[0]
        os.close(pidfd)


# -- what a file may say --


def plans(options: str, own: str = "{}", more: str = "") -> tuple[ServicePlan, ...]:
    """Return the plans for a service with *options*, and a listener with its *own*."""
    raw = RawConfig()
    text = (
        f'[services.a]\nservice = "echo"\n{more}\n'
        f'listen = ["udp:1", {{ address = "tcp:1", socket = {own} }}]\n'
        f"[services.a.socket]\n{options}\n"
    )
    raw.merge(tomllib.loads(text), "f")
    return make_plans(raw)


def faults(options: str, own: str = "{}", more: str = "") -> list[str]:
    """Return what is wrong with them, which must be something."""
    with pytest.raises(ConfigError) as caught:
        plans(options, own, more)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "value",
    [
        "1979-05-27",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "1.5",
        "inf",
        "-inf",
        "nan",
        "[]",
        "[[1]]",
        "{}",
        "{ a = { b = [{ c = 1 }] } }",
        '""',
        '"\\u0000"',
        '"\\u0663"',
        '"sixty"',
        "-7",
        "18446744073709551616",
        "{ level = 6 }",
        "{ number = 6 }",
        "{ level = 6, number = 4, value = 1.5 }",
        "{ level = 6, number = 4, value = 1979-05-27 }",
        "{ level = 6, number = 4, value = 1, phase = 1 }",
        '{ level = 6, number = 4, value = 1, phase = "late" }',
        '{ level = "tcp", number = 4, value = 1 }',
        "{ level = 6, number = 4, value = 1, more = 1 }",
        "{ level = inf, number = 4, value = 1 }",
    ],
)
@pytest.mark.parametrize("name", ["TCP_KEEPIDLE", "SO_RCVBUF", "IP_TOS", "SO_LINGER"])
def test_a_value_from_hell_is_told_with_its_key(name: str, value: str) -> None:
    """Whatever TOML can say, a wrong value is one problem with its key, in its own table."""
    [problem] = faults(f"{name} = {value}")
    assert problem.startswith(f"f: services.a.socket.{name}: ")
    [problem] = faults("", f"{{ {name} = {value} }}")
    assert problem.startswith(f"f: services.a.listen[1].socket.{name}: ")


def test_every_wrong_option_is_told_at_once() -> None:
    """Faults of the service's table, of a listener's and of the policy are told together."""
    told = faults(
        "TCP_KEEPIDEL = 1\nSO_KEEPALIVE = 1",
        "{ UDP_SEGMENT = 100, TCP_INFO = 1 }",
        'refused_options = "never"',
    )
    assert told == [
        "f: services.a.refused_options: must be 'strict', 'warn' or 'ignore', got 'never'",
        "f: services.a.socket.TCP_KEEPIDEL: no socket option has this name;"
        " did you mean TCP_KEEPIDLE?",
        "f: services.a.socket.SO_KEEPALIVE: must be true or false, got 1",
        "f: services.a.listen[1].socket.UDP_SEGMENT: fits only udp, and no listener here is one",
        "f: services.a.listen[1].socket.TCP_INFO: can only be read",
    ]


def test_a_service_s_option_must_fit_one_listener() -> None:
    """A service-wide option is an error only where it fits none; a listener's own must fit it."""
    [plan] = plans("TCP_NODELAY = false\nUDP_SEGMENT = 100")
    names = [[each.name for each in one.options.settings] for one in plan.listeners]
    assert names == [["UDP_SEGMENT"], ["TCP_NODELAY"]]
    [problem] = faults("PACKET_LOSS = true")
    assert problem == (
        "f: services.a.socket.PACKET_LOSS: fits only packet, and no listener here is one"
    )


def test_one_option_by_two_names_is_an_error_in_one_table() -> None:
    """Which of the two would count nobody could tell; over two tables the listener's counts."""
    told = faults('KeepAliveTimeSec = "60s"\nTCP_KEEPIDLE = "70s"')
    assert told == ["f: services.a.socket.TCP_KEEPIDLE: KeepAliveTimeSec sets the same option"]
    [plan] = plans('TCP_KEEPIDLE = "70s"', '{ KeepAliveTimeSec = "60s" }')
    assert [(each.name, each.value) for each in plan.listeners[1].options.settings] == [
        ("KeepAliveTimeSec", 60)
    ]


def test_hundreds_of_options_are_planned_in_order() -> None:
    """Three hundred options of one service are set in the order they were written."""
    lines = [f"raw{n} = {{ level = 6, number = {n}, value = {n} }}" for n in range(300)]
    [plan] = plans("\n".join(lines))
    assert [each.name for each in plan.listeners[1].options.settings] == [
        f"raw{n}" for n in range(300)
    ]
