"""``twistedsock options``: what it tells is what the kernel says to the standard library."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import DEADLINE_S, run

from twistedsock.cli import main
from twistedsock.cli import options as module
from twistedsock.sockopts import CATALOGUE, SPELLINGS

COMMAND = Path(sys.executable).with_name("twistedsock")
LINUX = sys.platform == "linux"
pytestmark = pytest.mark.skipif(not LINUX, reason="needs Linux's options")


def options(*arguments: str) -> Result:
    """Run the subcommand in this process."""
    return CliRunner().invoke(main, ["options", *arguments], prog_name="twistedsock")


def told(*arguments: str) -> list[dict[str, Any]]:
    """Return what the subcommand says in JSON."""
    result = options("--json", *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, list)
    return found


def names(*arguments: str) -> list[str]:
    """Return the names of the options that the subcommand finds."""
    return [each["name"] for each in told(*arguments)]


def refused(*arguments: str) -> str:
    """Return the last line of a wrong command line's answer."""
    result = options(*arguments)
    assert (result.exit_code, result.stdout) == (64, "")
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def on_terminal(columns: int, *arguments: str) -> list[str]:
    """Return the lines that the command shows on a terminal of so many *columns*."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: os.environ[key] for key in os.environ if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [COMMAND, "options", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # EIO: the terminal's other side is closed
    os.close(ours)
    assert process.wait(DEADLINE_S) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


# -- the list --


def test_the_list_is_one_line_an_option_in_a_pipe() -> None:
    """Each option is one line, however long, with no blanks at its end."""
    lines = options().stdout.splitlines()
    assert lines[0].split() == ["NAME", "VALUE", "PHASE", "FITS", "MEANING"]
    assert [line.split()[0] for line in lines[1:-1]] == list(CATALOGUE)
    assert lines[-1] == f"{len(CATALOGUE)} options; in brackets: read only, or part of messages"
    assert not [line for line in lines if line != line.rstrip()]
    assert all(
        option.meaning in line for option, line in zip(CATALOGUE.values(), lines[1:-1], strict=True)
    )


def test_one_option_is_counted_in_the_singular() -> None:
    """One option is one option."""
    [_, line, count] = options("save", "syn", "keeps", "headers").stdout.splitlines()
    assert line.startswith("TCP_SAVE_SYN ")
    assert count.startswith("1 option;")


def test_the_json_is_an_array_of_every_option() -> None:
    """--json has all options, each with all keys, and their numbers are Python's."""
    found = told()
    assert [each["name"] for each in found] == list(CATALOGUE)
    assert len({tuple(each) for each in found}) == 1
    known = [each for each in found if isinstance(getattr(socket, each["name"], None), int)]
    assert len(known) > 80
    for each in known:
        assert each["number"] == getattr(socket, each["name"]), each["name"]


def test_the_json_is_the_same_each_time() -> None:
    """Two processes with other hashes print the same bytes, so that a difference is one."""
    first, second = (
        run(COMMAND, "options", "--json", env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    )
    assert (first.returncode, first.stdout) == (0, second.stdout)


@pytest.mark.parametrize("shell", ["options | head -1", "options --json | head -1"])
def test_a_closed_pipe_ends_quietly(shell: str) -> None:
    """Whoever reads one line of many is shown no traceback."""
    done = run("bash", "-c", f"{COMMAND} {shell}")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_a_narrow_terminal_cuts_no_name_and_no_word(columns: int) -> None:
    """However narrow the terminal is, each name stands whole and every meaning to its end."""
    lines = on_terminal(columns, "keep")
    assert max(map(len, lines)) <= columns
    assert "…" not in "".join(lines)
    words = {line.split()[0] for line in lines if line.strip()}
    assert {"TCP_USER_TIMEOUT", "TCP_KEEPINTVL", "SO_KEEPALIVE"} <= words
    shown = "".join("".join(lines).split())
    if columns != 80:  # there, the column of values stands between the lines of a meaning
        assert "".join(CATALOGUE["TCP_KEEPINTVL"].meaning.split()) in shown
    assert ("VALUE" in lines[0], "FITS" in lines[0]) == (columns > 40, columns > 80)


def test_a_very_narrow_terminal_has_a_paragraph_an_option() -> None:
    """Where a name takes the whole width, what is told of it stands below it."""
    lines = [line.rstrip() for line in on_terminal(30, "notsent")]
    assert lines[0] == "TCP_NOTSENT_LOWAT"
    assert all(line.startswith("  ") for line in lines[1:-2])
    assert " ".join("".join(lines[1:-2]).split()).startswith("Counts the socket as")


# -- filters --


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--level", "tcp"], "level", "IPPROTO_TCP"),
        (["--level", "TCP"], "level", "IPPROTO_TCP"),
        (["--level", "sol_Socket"], "level", "SOL_SOCKET"),
        (["--level", "ipv6"], "level", "IPPROTO_IPV6"),
        (["--phase", "connected"], "phase", "connected"),
        (["--phase", "PreBind"], "phase", "prebind"),
    ],
)
def test_a_filter_finds_all_that_are_so_and_no_other(
    arguments: list[str], key: str, value: str
) -> None:
    """A filter takes its word in any case, and leaves exactly those that have it."""
    wanted = [each["name"] for each in told() if each[key] == value]
    assert names(*arguments) == wanted != []


@pytest.mark.parametrize("family", ["unix", "UNIX", "udp6", "Packet", "all"])
def test_the_family_filters_by_what_an_option_fits(family: str) -> None:
    """--family takes a kind of sockets, or a group of them, in any case."""
    kinds = {
        "unix": {"unix-stream", "unix-dgram", "unix-seqpacket"},
        "udp6": {"udp6"},
        "packet": {"packet"},
    }
    everything = told()
    wanted = kinds.get(family.lower(), {kind for each in everything for kind in each["fits"]})
    assert names("--family", family) == [
        each["name"] for each in everything if wanted & set(each["fits"])
    ]


def test_words_and_filters_narrow_each_other() -> None:
    """Each word must be there, in any case, and each filter hold."""
    assert names("KEEP-ALIVE", "probes") == ["SO_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"]
    assert names("KEEP-ALIVE", "probes", "--level", "tcp", "--phase", "socket") == [
        "TCP_KEEPINTVL",
        "TCP_KEEPCNT",
    ]
    assert "no socket option is like that" in refused("KEEP-ALIVE", "--family", "udp")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--level", "tcpp"], "must be one of socket, ip,"),
        (["--family", "tcp5"], "must be one of all, inet4,"),
        (["--family", ""], "must be one of all, inet4,"),
        (["--phase", "late"], "'late'"),
        (["--levle", "tcp"], "--levle"),
        (["TCP_KEEPIDEL"], "no socket option is like that; did you mean TCP_KEEPIDLE?"),
        (["tcp_nodelya"], "did you mean TCP_NODELAY?"),
        (["KeepAliveTimeSek"], "did you mean SO_KEEPALIVE?"),
        (["TCP_KEEPIDLE", "--level", "udp"], "no socket option is like that"),
        (["nothing", "whatever"], "no socket option is like that"),
        (["\0\n\x1b[31m"], "no socket option is like that"),
        (["٣" * 100_000], "no socket option is like that"),
    ],
)
def test_what_is_typed_wrongly_ends_with_64(arguments: list[str], culprit: str) -> None:
    """A wrong flag, filter or name is told with what is right, or comes near."""
    assert culprit in refused(*arguments)


def test_help_tells_what_it_does_and_how_it_ends() -> None:
    """--help names the flags, their words and the exit codes."""
    result = options("--help")
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0
    for word in (
        "--level",
        "--family",
        "--phase",
        "--of ADDRESS",
        "--json",
        "explain the one called",
    ):
        assert word in text
    assert "Exits 64 where" in text


# -- one option --


@pytest.mark.parametrize(
    "name", ["TCP_KEEPIDLE", "tcp_keepidle", "Tcp_KeepIdle", "KeepAliveTimeSec"]
)
def test_an_option_is_explained_by_any_of_its_names(name: str) -> None:
    """A name in any case, or an alias as it is spelled, explains the option in full."""
    lines = options(name).stdout.splitlines()
    assert lines[0] == "TCP_KEEPIDLE"
    facts = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines[2:])
    with socket.socket() as sock:
        default_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    seconds = {"h": 3600, "m": 60, "s": 1}
    number, unit = re.match(r'"(\d+)([hms])" \(tcp4, on Linux', facts["default"]).groups()  # type: ignore[union-attr]
    assert int(number) * seconds[unit] == default_s
    assert facts["number"] == f"IPPROTO_TCP ({socket.IPPROTO_TCP}), {socket.TCP_KEEPIDLE}"
    assert facts["range"] == '"1s" to "32767s" accepted'
    assert facts["rights"] == "none"
    assert facts["aliases"] == "KeepAliveTimeSec"


def test_an_alias_of_two_explains_both() -> None:
    """An alias that means an option for each IP version explains the two."""
    both = [option.name for option in SPELLINGS["Transparent"]]
    assert both == ["IP_TRANSPARENT", "IPV6_TRANSPARENT"]
    lines = options("Transparent").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == both
    assert [each["name"] for each in told("Transparent")] == both


@pytest.mark.parametrize("level", sorted({each.level_name for each in CATALOGUE.values()}))
def test_every_option_can_be_explained(level: str) -> None:
    """No option of any access, kind or level trips the explanation."""
    for name in names("--level", level):
        result = options(name)
        assert (result.exit_code, result.stderr) == (0, ""), name
        assert result.stdout.startswith(f"{name}\n")


@pytest.mark.parametrize(
    "name",
    [
        "TCP_KEEPCNT",
        "TCP_SYNCNT",
        "SO_RCVLOWAT",
        "IP_TTL",
        "IPV6_UNICAST_HOPS",
        "IP_MINTTL",
        "SO_SNDBUF",
    ],
)
def test_the_range_is_the_kernel_s(name: str) -> None:
    """The least and the greatest value are accepted, and those beyond them are not."""
    [facts] = told(name)
    least, greatest = facts["accepts"]
    family = socket.AF_INET6 if facts["tried_on"].endswith("6") else socket.AF_INET
    type_ = socket.SOCK_STREAM if facts["tried_on"].startswith("tcp") else socket.SOCK_DGRAM

    def accepts(value: int) -> bool:
        with socket.socket(family, type_) as sock:
            try:
                sock.setsockopt(facts["level_number"], facts["number"], value)
            except OSError:
                return False
            return True

    assert accepts(least)
    assert accepts(greatest)
    assert least <= 0 or not accepts(least - 1)  # a size below nothing is no size
    assert greatest == 2**31 - 1 or not accepts(greatest + 1)
    with socket.socket(family, type_) as sock:
        assert facts["default"] == sock.getsockopt(facts["level_number"], facts["number"])


# -- the values of a new socket --

FRESH = {
    "tcp:127.0.0.1:1": (socket.AF_INET, socket.SOCK_STREAM, 0),
    "tcp:[::1]:1": (socket.AF_INET6, socket.SOCK_STREAM, 0),
    "tcp:*:1": (socket.AF_INET6, socket.SOCK_STREAM, 0),
    "tcp:localhost:1": (socket.AF_INET6, socket.SOCK_STREAM, 0),
    "udp:1": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "udp:[fe80::1]:1": (socket.AF_INET6, socket.SOCK_DGRAM, 0),
    "unix:/nowhere": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "unix:@nobody": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "unixgram:/nowhere": (socket.AF_UNIX, socket.SOCK_DGRAM, 0),
    "seqpacket:/nowhere": (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
    "raw:icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "raw:igmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP),
    "raw:icmpv6": (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "raw:253": (socket.AF_INET, socket.SOCK_RAW, 253),
    "packet:lo": (getattr(socket, "AF_PACKET", 17), socket.SOCK_RAW, 0),
}
# Each socket has its own, or it changes while one looks.
ITS_OWN = {"SO_COOKIE", "TCP_INFO", "SO_INCOMING_CPU", "TCP_TIMESTAMP"}
DURATION = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
A_SECOND = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> Iterator[tuple[str, socket.socket]]:
    """An address, and a new socket of its kind, made without our help."""
    try:
        sock = socket.socket(*FRESH[request.param])
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    except OSError as error:
        pytest.skip(f"this machine has no such socket: {error}")
    with sock:
        yield request.param, sock


def kernel_s(sock: socket.socket, name: str) -> object:
    """Return what the kernel tells the standard library, as a configuration file has it."""
    option = CATALOGUE[name]
    assert option.number is not None
    kind = option.value.split()[0]
    if kind in ("bool", "int", "uint", "size", *A_SECOND):
        number = sock.getsockopt(option.level, option.number)
        return bool(number) if kind == "bool" else number % 2**32 if kind == "uint" else number
    if kind == "timeval":
        seconds, micro = struct.unpack("@ll", sock.getsockopt(option.level, option.number, 16))
        return seconds + micro / 1e6
    if kind == "linger":
        on, seconds = struct.unpack("ii", sock.getsockopt(option.level, option.number, 8))
        return f"{seconds}s" if on else False
    size = option.form.size
    raw = sock.getsockopt(option.level, option.number, *([min(size, 1024)] if size else []))
    return option.form.decode(raw)


def plain(name: str, value: object) -> object:
    """Return a duration as a number, in the kernel's unit; all else as it is."""
    kind = CATALOGUE[name].value.split()[0]
    if kind not in (*A_SECOND, "timeval"):
        return value
    if value == "none":
        return -1
    match = re.fullmatch(r"([0-9.]+)([a-z]+)", str(value))
    assert match, (name, value)
    return round(float(match[1]) * DURATION[match[2]] / A_SECOND.get(kind, 1.0), 6)


@pytest.mark.parametrize("fresh", FRESH, indirect=True)
def test_every_value_of_a_new_socket_is_the_kernel_s(fresh: tuple[str, socket.socket]) -> None:
    """--of tells, for each option, what a socket from the standard library has, or its error."""
    address, sock = fresh
    found = told("--of", address)
    assert len(found) > 20
    known = [each for each in told() if "r" in each["access"]]
    assert [each["name"] for each in found] == [
        each["name"] for each in known if each["name"] in {one["name"] for one in found}
    ]
    for each in found:
        name = each["name"]
        if name in ITS_OWN:
            continue
        try:
            wanted = kernel_s(sock, name)
        except OSError as error:
            wanted = errno.errorcode[error.errno or 0]
        told_ = each["error"] if "error" in each else plain(name, each["value"])
        assert told_ == json.loads(json.dumps(wanted)), name


def test_the_values_are_one_line_each_in_a_pipe() -> None:
    """--of is a line an option with its value, and an error in brackets."""
    result = options("--of", "tcp:127.0.0.1:1")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names("--of", "tcp:127.0.0.1:1")
    assert re.search(r"^SO_TYPE +\"stream\" +Type", result.stdout, re.M)
    assert re.search(r"^SO_PEERNAME +\(ENOTCONN\) +Address", result.stdout, re.M)


def test_of_opens_one_socket_and_binds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """--of needs no free port: the address says only which kind of socket is meant."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        [each] = told("--of", address, "SO_ACCEPTCONN")
    assert each == {"name": "SO_ACCEPTCONN", "level": "SOL_SOCKET", "value": False}


def test_of_goes_with_names_and_filters() -> None:
    """--of shows those that were asked for, and no table of nothing."""
    assert names("--of", "udp:1", "SO_TYPE") == ["SO_TYPE"]
    assert set(names("--of", "tcp:1", "--level", "tcp")) < set(names("--of", "tcp:1"))
    told_ = refused("--of", "udp:1", "TCP_NODELAY")
    assert told_ == (
        "Error: TCP_NODELAY cannot be read on a socket for udp:127.0.0.1:1: udp over IPv4"
    )
    assert "none of them can be read" in refused("--of", "unix:/x", "--level", "tcp")


@pytest.mark.parametrize(
    ("address", "right"),
    [
        ("nope", "must be an address such as"),
        ("", "must be an address such as"),
        ("tcp:x", "port must be 0 to 65535"),
        ("tcp:127.0.0.1:٣", "port must be 0 to 65535"),
        ("raw:300", "IP protocol must be 0 to 255"),
        ("unix:relative", "must be an absolute path"),
        ("unix:/" + "x" * 200, "longer than 107 bytes"),
        ("packet:" + "x" * 16, "must name an interface"),
        ("TCP:127.0.0.1:1", "starting with one of"),
    ],
)
def test_of_a_wrong_address_ends_with_64(address: str, right: str) -> None:
    """What is no address is told with what would be."""
    assert right in refused("--of", address)


def test_of_a_socket_that_is_not_there_ends_with_69() -> None:
    """Where the system has no such socket, one line says so."""
    if shutil.which("setpriv") is None or os.geteuid():
        pytest.skip("needs CAP_NET_RAW")
    result = options("--of", "raw:0")
    assert (result.exit_code, result.stdout) == (69, "")
    assert result.stderr == (
        "cannot open a socket for raw:0: Protocol not supported (EPROTONOSUPPORT)\n"
    )


@pytest.mark.parametrize("address", ["raw:icmp", "raw:icmpv6", "packet:lo"])
def test_of_without_the_right_ends_with_77(address: str) -> None:
    """Where a right is lacking, it is named."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if not os.geteuid() else []
    done = run(*bare, COMMAND, "options", "--of", address)
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr == (
        f"cannot open a socket for {address}: Operation not permitted (EPERM); needs CAP_NET_RAW\n"
    )


def test_without_ipv6_a_wildcard_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without IPv6, --of a wildcard shows what an IPv4 socket has."""
    real = module.open_kind

    def without_ip6(kind: str, protocol: int | None = None) -> socket.socket:
        if kind.endswith("6"):
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(kind, protocol)

    monkeypatch.setattr(module, "open_kind", without_ip6)
    assert names("--of", "tcp:*:1") == names("--of", "tcp:127.0.0.1:1")
    result = options("--of", "tcp:[::1]:1")
    assert result.exit_code == 69
    assert "(EAFNOSUPPORT)" in result.stderr
