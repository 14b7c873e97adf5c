"""``--option NAME=VALUE`` of the daemon and of ``connect``: short for a key, and as strict."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from servers import Server, echo

from twistedsock.tap import Options, make_server_plans, makeService

COMMAND = Path(sys.executable).with_name("twistedsock")
HELLO = '[services.hello]\nservice = "discard"\nlisten = ["tcp:7"]\n'
MAIN = '[services.main]\nservice = "discard"\nlisten = ["tcp:7"]\n'
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options")


def parsed(*flags: str) -> Options:
    """Return what the daemon reads in *flags*."""
    options = Options()
    options.parseOptions(flags)
    options.parent = {"nodaemon": True}
    return options


def settings(*flags: str) -> dict[str, dict[str, object]]:
    """Return the options of each listener, by its address."""
    return {
        str(one.address): {each.name: each.value for each in one.options.settings}
        for plan in make_server_plans(parsed(*flags))
        for one in plan.listeners
    }


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Return how the daemon refuses flags: its code, and its lines."""

    def refused(*flags: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as caught:
            makeService(parsed(*flags))
        lines = capfd.readouterr().err.splitlines()
        assert all(line.startswith("twistd sockservice: ") for line in lines)
        return int(caught.value.code or 0), [line.partition(": ")[2] for line in lines]

    return refused


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Return the path of a file that holds a text."""

    def config(text: str) -> str:
        path = tmp_path / "file.toml"
        path.write_text(text)
        return str(path)

    return config


# -- the daemon's --


def test_an_option_goes_to_each_listener_that_it_fits() -> None:
    """--option, or -o, is a key of services.main.socket."""
    found = settings("--port", "9", "--option", "TCP_KEEPIDLE=60s", "-o", "IP_TOS=0x10")
    assert found == {
        "tcp:127.0.0.1:9": {"TCP_KEEPIDLE": 60, "IP_TOS": 16},
        "udp:127.0.0.1:9": {"IP_TOS": 16},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("SO_KEEPALIVE=on", 1),
        ("SO_KEEPALIVE=FALSE", 0),
        ("TCP_KEEPIDLE=1m", 60),
        ("KeepAliveTimeSec=60s", 60),
        ("SO_RCVBUF=64KiB", 65536),
        ("SO_PRIORITY=6", 6),
        ("IP_TOS=EF", 0xB8),
        ("TCP_CONGESTION=a=b", b"a=b\0"),
        ("x={level=6, number=4, value=60}", 60),
        ('x={level="IPPROTO_TCP", number=4, value="hex:3c00"}', b"\x3c\0"),
        ("KeepAliveTimeSec=60", 60),
    ],
)
def test_a_text_is_read_in_the_option_s_own_form(text: str, value: object) -> None:
    """A flag says what a file says, without its quotes."""
    found = settings("--listen", "tcp:9", "-o", text)
    assert found == {"tcp:127.0.0.1:9": {text.partition("=")[0]: value}}


def test_the_later_of_two_flags_counts() -> None:
    """The same option twice is the later one; by two names it is an error."""
    assert settings("-l", "tcp:9", "-o", "IP_TTL=3", "-o", "IP_TTL=4") == {
        "tcp:127.0.0.1:9": {"IP_TTL": 4}
    }


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("=", "--option must be NAME=VALUE, such as TCP_KEEPIDLE=60s; got '='"),
        ("=x", "--option must be NAME=VALUE"),
        ("", "--option must be NAME=VALUE"),
        ("NAME", "--option must be NAME=VALUE, such as TCP_KEEPIDLE=60s; got 'NAME'"),
        ("\n", "--option must be NAME=VALUE"),
        ("X={level=6", "services.main.socket.X: no socket option has this name"),
        ("TCP_KEEPIDLE={level=6", "TCP_KEEPIDLE: must be a duration"),
        ("TCP_KEEPIDLE=", "TCP_KEEPIDLE: must be a duration"),
        ("TCP_KEEPIDLE=٦s", "TCP_KEEPIDLE: must be a duration"),
        ("SO_PRIORITY=٦", "SO_PRIORITY: must be a whole number"),
        ("SO_PRIORITY=" + "9" * 100_000, "SO_PRIORITY: must be a whole number"),
        ("TCP_CONGESTION=" + "x" * 100_000, "TCP_CONGESTION: must be a text of 1 to 15 bytes"),
        ("TCP_CONGESTION=x\0", "TCP_CONGESTION: must be a text of 1 to 15 bytes"),
        ("TCP_KEEPIDLE=1\n2", "TCP_KEEPIDLE: must be a duration"),
        ("TCP_KEEPIDEL=60s", "no socket option has this name; did you mean TCP_KEEPIDLE?"),
        ("PACKET_LOSS=on", "PACKET_LOSS: fits only packet, and no listener here is one"),
        ("TCP_INFO=1", "TCP_INFO: can only be read"),
        ('x={level=6, number=4, value=1, phase="late"}', "x: phase must be one of socket,"),
        ("x={level=6, number=4, value=1979-05-27}", "x: value must be a whole number"),
        ("TCP_NODELAY={level=6, number=4, value=60}", "TCP_NODELAY: has a name here: write"),
        ("x=" + "[" * 10_000, "x: no socket option has this name"),
        ("IP_TOS=" + "[" * 10_000, "IP_TOS: must be one of CS0"),
    ],
)
def test_a_wrong_option_ends_with_64_and_a_line(refused: Any, assignment: str, told: str) -> None:
    """Whatever is typed, one line says what is wrong with it, and the code is that of usage."""
    code, [line] = refused("--port", "0", "--option", assignment)
    assert code == 64
    assert told in line


# -- flags that change a service, and there is none --


def test_a_flag_that_changes_main_makes_none_beside_a_file(refused: Any, config: Any) -> None:
    """--option, --framing and --codec open no port 8888 that nobody asked for."""
    code, lines = refused(
        *("--config", config(HELLO), "-o", "TCP_KEEPIDLE=60s"),
        *("--framing", "line", "--codec", "text"),
    )
    assert code == 64
    assert lines == [
        "--framing: there is no services.main for it; write --set services.hello.framing=line",
        "--codec: there is no services.main for it; write --set services.hello.codec=text",
        "--option TCP_KEEPIDLE=60s: there is no services.main for it;"
        " write --set services.hello.socket.TCP_KEEPIDLE=60s",
    ]


def test_what_it_says_instead_is_right(config: Any) -> None:
    """The way that the line names sets the option on the file's service."""
    flags = ("--config", config(HELLO), "--set", "services.hello.socket.TCP_KEEPIDLE=60s")
    assert settings(*flags) == {"tcp:127.0.0.1:7": {"TCP_KEEPIDLE": 60}}


def test_of_several_services_none_is_guessed(refused: Any, config: Any) -> None:
    """Which of several is meant is left to whoever types."""
    text = HELLO + HELLO.replace("hello", "other").replace("7", "8")
    assert refused("--config", config(text), "--framing", "line") == (
        64,
        ["--framing: there is no services.main for it; write --set services.NAME.framing=line"],
    )


def test_beside_a_service_of_set_it_is_the_same(refused: Any) -> None:
    """A service that --set makes is one, too."""
    sets = ["--set", "services.s.service=echo", "--set", 'services.s.listen=["tcp:9"]']
    assert refused(*sets, "-o", "IP_TTL=3") == (
        64,
        [
            "--option IP_TTL=3: there is no services.main for it;"
            " write --set services.s.socket.IP_TTL=3"
        ],
    )


@pytest.mark.parametrize(
    "making", [["--port", "9"], ["--host", "::1"], ["--service", "echo"], ["--listen", "tcp:9"]]
)
def test_with_a_flag_that_makes_main_they_are_its_own(config: Any, making: list[str]) -> None:
    """Beside a flag that makes services.main, an option is of that one alone."""
    found = settings("--config", config(HELLO), *making, "-o", "SO_KEEPALIVE=on")
    assert found.pop("tcp:127.0.0.1:7") == {}
    assert {"SO_KEEPALIVE": 1} in found.values()


def test_where_there_is_a_main_they_change_it(config: Any) -> None:
    """A file, or --set, may make services.main; without either there is the default one."""
    assert settings("-c", config(MAIN), "-o", "IP_TTL=3") == {"tcp:127.0.0.1:7": {"IP_TTL": 3}}
    found = settings(
        *("-c", config(HELLO), "-o", "IP_TTL=3"),
        *("--set", "services.main.service=echo", "--set", 'services.main.listen=["tcp:9"]'),
    )
    assert found == {"tcp:127.0.0.1:7": {}, "tcp:127.0.0.1:9": {"IP_TTL": 3}}
    assert settings("-o", "IP_TTL=3")["tcp:127.0.0.1:8888"] == {"IP_TTL": 3}


def test_a_file_that_cannot_be_read_is_told_alone(refused: Any) -> None:
    """Whether the file has a services.main nobody knows: only the file is at fault."""
    assert refused("--config", "/none.toml", "-o", "IP_TTL=3") == (
        78,
        ["/none.toml: cannot be read: No such file or directory"],
    )


def test_help_tells_whose_options_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """--help says which service --option is about, and that it may be repeated."""
    with pytest.raises(SystemExit):
        parsed("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "-o, --option= Set a socket option of services.main, as in TCP_KEEPIDLE=60s" in told


# -- those of connect --


@pytest.fixture(scope="module")
def echoing() -> Iterator[str]:
    """The address of an echo server for the whole module."""
    with Server(echo) as server:
        yield server.address


def test_connect_tells_what_became_of_its_options(echoing: str) -> None:
    """With --verbose each option is told on standard error, in the order it was given."""
    words = ("-o", "TCP_USER_TIMEOUT=10s", "--option", "SO_RCVBUF=32KiB")
    done = run(COMMAND, "connect", "-v", echoing, *words)
    assert (done.returncode, done.stdout) == (0, "")
    told = done.stderr.splitlines()[1:3]
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        effective = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert told[0] == "TCP_USER_TIMEOUT: requested 10s, effective 10s"
    assert told[1].startswith(f"SO_RCVBUF: requested 32KiB, effective {effective}: the kernel")


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("=", "--option must be NAME=VALUE, such as TCP_KEEPIDLE=60s; got '='"),
        ("NAME", "--option must be NAME=VALUE, such as TCP_KEEPIDLE=60s; got 'NAME'"),
        ("X={level=6", "X: no socket option has this name"),
        ("TCP_KEEPIDEL=1s", "TCP_KEEPIDEL: no socket option has this name; did you mean"),
        ("UDP_SEGMENT=100", "UDP_SEGMENT: fits only udp, and no peer here is one"),
        ('x={level=6,number=4,value=1,phase="listening"}', "x: fits only a listening socket"),
        ("TCP_CONGESTION=" + "x" * 100_000, "TCP_CONGESTION: must be a text of 1 to 15 bytes"),
    ],
)
def test_connect_refuses_a_wrong_option_with_64(echoing: str, assignment: str, told: str) -> None:
    """A wrong option is one of usage, told before anything is connected."""
    done = run(COMMAND, "connect", echoing, "--option", assignment)
    assert (done.returncode, done.stdout) == (64, "")
    assert told in done.stderr.splitlines()[-1]


def test_connect_ends_with_71_where_the_kernel_refuses(echoing: str) -> None:
    """An option that the kernel refuses is told by name with its reason."""
    done = run(COMMAND, "connect", echoing, "--option", "SO_BINDTODEVICE=nope0")
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr.startswith("twistedsock connect: SO_BINDTODEVICE: No such device (ENODEV)")


def test_connect_without_a_right_names_it(echoing: str) -> None:
    """Where a right is lacking, it is told with what grants it."""
    if not os.geteuid() and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = run(*drop, COMMAND, "connect", echoing, "-o", "SO_RCVBUFFORCE=1MiB")
    assert done.returncode == 77
    assert "SO_RCVBUFFORCE: Operation not permitted (EPERM); needs CAP_NET_ADMIN" in done.stderr
