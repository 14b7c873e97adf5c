"""``twistedsock ping`` as a process: exit statuses, tables, JSON, terminals, signals and pipes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.console
from conftest import DEADLINE_S, ROOT
from paths import Route, far, filtering, route
from test_option_pages import LIBC, PR_SET_PDEATHSIG

from twistedsock.cli.ping_tables import PING_COLUMNS, SPARE, ping_rows
from twistedsock.cli.tables import table_of
from twistedsock.client.pinging import Target, Told, result_of

__all__ = ["route"]  # the fixture
COMMAND = [sys.executable, "-m", "twistedsock", "ping"]
HEADING = ["host", "sent", "lost", "min", "ms", "mean", "ms", "p50", "ms", "p99", "ms", "max", "ms"]
FAST = ("-i", "10ms", "--timeout", "300ms")
NOBODY = 65534


def started(*arguments: str, route: Route | None = None, **more: Any) -> subprocess.Popen[str]:
    """Start the command with pipes, on the first machine of *route* where there is one."""

    def enter() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # however this process ends
        if route is not None:
            route.here.join()

    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [*more.pop("before", ()), *COMMAND, *arguments]
    return subprocess.Popen(words, cwd=ROOT, text=True, preexec_fn=enter, **pipes | more)


def ended(process: subprocess.Popen[str], given: str | None = None) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors."""
    try:
        out, err = process.communicate(given, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in (err or ""), err
    return process.returncode, out, err


def ping(*arguments: str, **more: Any) -> tuple[int, str, str]:
    """Run the command to its end."""
    return ended(started(*arguments, **more))


@pytest.fixture
def unfiltered(route: Route) -> Iterator[None]:
    """Machines that pass everything again after the test."""
    yield
    for machine in (*route.routers, route.there):
        filtering(machine)


# -- in a pipe --


def test_a_host_a_line_and_the_total() -> None:
    """Without a count five requests each; every line has the same columns."""
    code, out, err = ping("127.0.0.1", "::1", *FAST)
    assert (code, err) == (0, "")
    heading, first, second, total = out.splitlines()
    assert heading.split() == [*HEADING, "jitter", "ms", "notes"]
    for line, host in ((first, "127.0.0.1"), (second, "::1")):
        words = line.split()
        assert words[:3] == [host, "5", "0"]
        assert all(re.fullmatch(r"\d+\.\d{3}", word) for word in words[3:])
        assert len(words) == 9
        assert line.index("5", 11) == heading.index("sent")
    assert total == "2 hosts, 0 without an answer; 10 sent, 10 answered, 0.00% lost"


def test_one_host_needs_no_total() -> None:
    """A heading and its line."""
    code, out, _ = ping("127.0.0.1", "-c", "1")
    assert (code, len(out.splitlines())) == (0, 2)


def test_json_is_one_object_a_host_in_their_order() -> None:
    """Also of a host that has no address."""
    code, out, err = ping("::1", "1.2.3", "127.0.0.1", "-c", "3", "--json", *FAST)
    assert (code, err) == (68, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert [each["host"] for each in told] == ["::1", "1.2.3", "127.0.0.1"]
    assert [(each["sent"], each["received"]) for each in told] == [(3, 3), (0, 0), (3, 3)]
    assert [each["address"] for each in told] == ["::1", None, "127.0.0.1"]
    assert told[1]["fault"] == "is neither an IP address nor a host name"
    assert 0 < told[0]["min_ms"] <= told[0]["p50_ms"] <= told[0]["max_ms"]


def test_verbose_prints_each_answer() -> None:
    """By its sequence, with its TTL and time."""
    code, out, _ = ping("127.0.0.1", "-c", "3", "-v", *FAST)
    assert code == 0
    for number, line in enumerate(out.splitlines()[:3], 1):
        assert re.fullmatch(rf"127\.0\.0\.1: seq {number} ttl 64 time \d+\.\d\d\d ms", line)
    assert out.splitlines()[3].startswith("host ")


def test_verbose_prints_each_error(route: Route, unfiltered: None) -> None:
    """With who said so; the table has it as well, with how often."""
    rule = f"forward ip daddr {far(3, 4)} reject with icmp admin-prohibited"
    filtering(route.routers[1], rule)
    code, out, err = ping(far(3, 4), "-c", "2", "-v", *FAST, route=route)
    assert (code, err) == (69, "")
    said = f"communication administratively prohibited, says {far(1, 4)}"
    assert out.splitlines()[:2] == [f"{far(3, 4)}: seq {each}: {said}" for each in (1, 2)]
    assert out.splitlines()[-1].endswith(f"{said} (2 times)")


# -- hosts --


def test_networks_are_their_hosts() -> None:
    """Of a /28 fourteen, of a /31 both, of a /32 the one, of IPv6 likewise."""
    code, out, _ = ping("127.0.0.0/28", "127.0.1.0/31", "::1/128", "-c", "1", "--json", *FAST)
    expected = [*(f"127.0.0.{each}" for each in range(1, 15)), "127.0.1.0", "127.0.1.1", "::1"]
    assert code == 0
    assert [json.loads(line)["host"] for line in out.splitlines()] == expected


def test_hosts_are_read_from_a_file_and_from_the_input(tmp_path: Path) -> None:
    """One a line; comments and empty lines are none; behind those of the command line."""
    path = tmp_path / "hosts"
    path.write_text("# ours\n\n127.0.0.2  # two\n  127.0.0.4/31\n")
    code, out, _ = ping("::1", "-f", str(path), "-c", "1", "--json", *FAST)
    expected = ["::1", "127.0.0.2", "127.0.0.4", "127.0.0.5"]
    assert (code, [json.loads(line)["host"] for line in out.splitlines()]) == (0, expected)
    process = started("-f", "-", "-c", "1", "--json", stdin=subprocess.PIPE)
    code, out, _ = ended(process, path.read_text())
    assert (code, [json.loads(line)["host"] for line in out.splitlines()]) == (0, expected[1:])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "no HOST is given"),
        (("0.0.0.0/0",), "at most 65536 hosts, and 0.0.0.0/0 makes them more"),
        (("::/0",), "at most 65536 hosts, and ::/0 makes them more"),
        (("10.0.0.1/24",), "10.0.0.1/24 has host bits set"),
        (("name/24",), "'name/24' does not appear to be an IPv4 or IPv6 network"),
        (("::1", "-c", "0"), "'--count': 0 is not in the range 1<=x<=2147483648"),
        (("::1", "-c", "9999999999"), "'--count': 9999999999 is not in the range"),
        (("::1", "-i", "0"), "'--interval': must be above zero, got '0'"),
        (("::1", "-i", "0.1ms"), "--interval must be 1ms to 1d, got 0.0001s"),
        (("::1", "-i", "2d"), "--interval must be 1ms to 1d, got 172800s"),
        (("::1", "-i", "soon"), "'--interval'"),
        (("::1", "--timeout", "2d"), "--timeout must be at most 1d, got 172800s"),
        (("::1", "-s", "65508"), "'--size': 65508 is not in the range 0<=x<=65507"),
        (("::1", "-s", "-1"), "'--size': -1 is not in the range"),
        (("::1", "::1", "--trace"), "--trace shows the path to one host, got 2"),
        (("::1", "--trace", "-c", "101"), "--count must be at most 100 with --trace, got 101"),
        (("::1", "--trace", "--max-hops", "256"), "'--max-hops': 256 is not in the range"),
        (("::1", "-o", "IP_TTL"), "--option must be NAME=VALUE"),
        (("-f", "/nonexistent/hosts"), "'/nonexistent/hosts': No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_64(arguments: tuple[str, ...], text: str) -> None:
    """Before anything is sent, with what would be right."""
    code, out, err = ping(*arguments)
    assert (code, out) == (64, "")
    assert text in err


def test_a_file_of_bytes_is_64(tmp_path: Path) -> None:
    """What is no text is no list of hosts."""
    path = tmp_path / "hosts"
    path.write_bytes(b"\xff\xfe\x00")
    code, _, err = ping("-f", str(path))
    assert code == 64
    assert "can't decode" in err


# -- exit statuses --


def test_a_host_that_does_not_answer_is_69(route: Route) -> None:
    """Its losses are in the table, and the total counts it."""
    code, out, _ = ping(far(3, 4), "10.0.3.77", "-c", "2", *FAST, route=route)
    assert code == 69
    assert "100.0%" in out.splitlines()[2]
    assert out.splitlines()[-1] == ("2 hosts, 1 without an answer; 4 sent, 2 answered, 50.00% lost")


def test_a_name_without_an_address_is_68() -> None:
    """Also where others answer; why is in the table."""
    code, out, _ = ping("127.0.0.1", "1.2.3", "-c", "1", *FAST)
    assert code == 68
    assert "is neither an IP address nor a host name" in out
    code, _, err = ping("1.2.3", "--trace")
    assert code == 68
    assert err == "twistedsock ping: 1.2.3: is neither an IP address nor a host name\n"


def test_a_refused_option_is_71() -> None:
    """It is named."""
    code, out, err = ping("127.0.0.1", "-o", "SO_BINDTODEVICE=none0")
    assert (code, out) == (71, "")
    assert "twistedsock ping: SO_BINDTODEVICE" in err


def test_options_are_set() -> None:
    """What more the kernel tells by such an option is passed over."""
    code, out, _ = ping("127.0.0.1", "-c", "1", "--json", "-o", "IP_RECVTOS=1")
    assert (code, json.loads(out)["ttl_hops"]) == (0, 64)


@pytest.mark.parametrize("more", [(), ("--trace",)])
def test_no_right_is_77(route: Route, more: tuple[str, ...]) -> None:
    """What would allow it is named: the capability, and the groups with one's own."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs the Debian package util-linux")
    before = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    code, out, err = ping("127.0.0.1", *more, route=route, before=before)
    assert (code, out) == (77, "")
    assert err == (
        "twistedsock ping: icmp: needs CAP_NET_RAW (EPERM): run it as root or with that capability,"
        " or have a group within net.ipv4.ping_group_range"
        f" (now nobody's; yours is {os.getegid()})\n"
    ) or re.search(r"CAP_NET_RAW \(EPERM\).*ping_group_range \(now nobody's; yours is", err)


def test_a_group_of_the_range_needs_no_right(route: Route) -> None:
    """Nobody pings and traces where ping_group_range has its group, and not elsewhere."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs the Debian package util-linux")
    before = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    route.here.setup("echo '0 100' > /proc/sys/net/ipv4/ping_group_range")
    try:
        code, out, _ = ping(far(3, 4), far(3, 6), *FAST, route=route, before=before)
        assert code == 0, out
        code, out, _ = ping(far(3, 4), "--trace", route=route, before=before)
        assert (code, len(out.splitlines())) == (0, 5)
    finally:
        route.here.setup("echo '1 0' > /proc/sys/net/ipv4/ping_group_range")


# -- paths --


def test_the_path_in_a_pipe(route: Route) -> None:
    """A line for each hop, by its number and who it is."""
    code, out, err = ping(far(3, 4), "--trace", "-c", "1", route=route)
    assert (code, err) == (0, "")
    lines = out.splitlines()[1:]
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        (str(link + 1), far(link, 4)) for link in range(4)
    ]


def test_the_path_for_machines_and_to_nobody(route: Route) -> None:
    """One object; 69 and a word where the host did not answer."""
    arguments = ("10.0.3.77", "--trace", "-c", "1", "--max-hops", "5", "--timeout", "200ms")
    code, out, _ = ping(*arguments, "--json", route=route)
    told = json.loads(out)
    assert (code, told["has_arrived"], len(told["hops"])) == (69, False, 5)
    code, out, _ = ping(*arguments, route=route)
    assert (code, out.splitlines()[-1]) == (69, "10.0.3.77: did not answer")


# -- the end --


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_tells_its_figures(route: Route, number: signal.Signals) -> None:
    """At once; requests that may still be answered are neither sent nor lost."""
    process = started(
        *(far(3, 4), "10.0.3.77", "-i", "50ms", "--timeout", "60s", "-c", "9999", "-v"), route=route
    )
    assert process.stdout is not None
    for _ in range(3):
        assert "seq" in process.stdout.readline()
    begin_s = time.monotonic()
    process.send_signal(number)
    code, out, err = ended(process)
    assert time.monotonic() - begin_s < 5
    assert (code, err) == (69, "")
    answers, silent, total = out.splitlines()[-3:]
    assert int(answers.split()[1]) >= 3
    assert (answers.split()[2], silent.split()[1:3]) == ("0", ["0", "0"])
    assert total.startswith("2 hosts, 1 without an answer; ")


def test_interrupted_json_is_whole() -> None:
    """One valid object a host."""
    process = started("127.0.0.1", "::1", "-i", "20ms", "-c", "9999", "--json")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    told = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(told)) == (0, "", 2)
    assert all(each["received"] >= each["sent"] - 1 > 0 for each in told)


def test_an_interrupted_path_is_told(route: Route) -> None:
    """As far as it is known."""
    process = started("10.0.3.77", "--trace", "-c", "100", "--json", route=route)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    told = json.loads(out)
    assert (code, err, told["has_arrived"]) == (69, "", False)
    assert [list(hop["sources"]) for hop in told["hops"][:3]] == [[far(e, 4)] for e in range(3)]


@pytest.mark.parametrize("more", [("-v", "-c", "9999"), ("-c", "1"), ("-c", "1", "--json")])
def test_a_closed_output_ends_it(more: tuple[str, ...]) -> None:
    """Whoever reads has had enough: no word and no failure."""
    process = started("127.0.0.0/26", *more, *FAST)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_in_a_pipe_nothing_of_the_terminal_is_imported() -> None:
    """It starts without rich's live display."""
    code = (
        "import sys; from twistedsock.cli import main;"
        "main(['ping', '-c', '1', '127.0.0.1'], standalone_mode=False);"
        "print('rich.live' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"


# -- on a terminal --


def on_terminal(
    *arguments: str, columns: int = 80, lines: int = 24, wait_s: float = 1.5
) -> tuple[int, str]:
    """Run the command on a terminal of a size, interrupt it; return its status and output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    out, begin_s, is_told = b"", time.monotonic(), False
    try:
        while time.monotonic() - begin_s < DEADLINE_S:
            if select.select([master], [], [], 0.05)[0]:
                try:
                    out += os.read(master, 65_536)
                except OSError:  # the terminal's last user is gone
                    break
            if not is_told and b"hosts," in out and time.monotonic() - begin_s > wait_s:
                process.send_signal(signal.SIGINT)
                is_told = True
        return process.wait(DEADLINE_S), out.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)


def shown(out: str) -> list[str]:
    """Return the lines that are left on the terminal once the live table is gone."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.rpartition("\x1b[2K")[2])
    return [line.rstrip() for line in plain.replace("\r", "").split("\n")]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_live_table_goes_on_until_it_is_interrupted(columns: int) -> None:
    """However narrow, nothing is wider than the terminal; the figures stay at the end."""
    code, out = on_terminal("127.0.0.1", "::1", "1.2.3", "-i", "50ms", columns=columns)
    assert code == 68
    assert "Traceback" not in out
    assert out.count("3 hosts, 1") >= 3  # it was drawn again and again
    lines = shown(out)
    assert max(map(len, lines[:-2])) <= columns
    left = " ".join(" ".join(lines).split())
    assert "127.0.0.1" in left
    assert "is neither" in left


def test_of_too_many_hosts_the_worst_are_shown() -> None:
    """The live table is never higher than the terminal."""
    code, out = on_terminal("127.0.0.0/24", "1.2.3", "-i", "200ms", lines=12, wait_s=3)
    assert code == 68
    live, _, _ = re.sub(r"\x1b\[[0-9;]*m", "", out).partition("\x1b[?25h")  # the cursor is back
    drawings = re.split(r"host +sent", live)[2:-1]  # the first is of when nothing was sent
    assert len(drawings) > 1
    for drawing in drawings:
        lines = drawing.partition("\r\x1b")[0].splitlines()
        assert len(lines) == 10  # a heading, the hosts that there is room for, and the total
        assert lines[1].startswith("1.2.3 ")  # what has no address is the worst
        assert lines[-1].startswith("255 hosts, ")


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120, 200])
def test_a_row_of_the_live_table_is_one_line(columns: int) -> None:
    """Whatever its texts: the host and its losses are there, and the rest as far as it fits."""
    targets = [Target("2001:db8:1234:5678:9abc:def0:1234:5678", ("2001:db8::1", 0)), Target("a")]
    targets[0].trips.sent = 40
    targets[0].errors[Told("192.0.2.1", "communication administratively prohibited")] = 40
    for number in range(20):
        targets[1].trips.sent += 1
        targets[1].trips.answered(number, number / 1000)
    screen = rich.console.Console(width=columns, height=9, file=io.StringIO())
    rows = ping_rows([result_of(target) for target in targets])
    screen.print(table_of(screen, PING_COLUMNS, rows, SPARE))
    assert isinstance(screen.file, io.StringIO)
    heading, *lines = screen.file.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, [heading, *lines])) <= columns
    assert lines[0].startswith("2001:db8:")
    if columns >= 40:
        assert heading.split()[:3] == ["host", "sent", "lost"]
        assert "100.0%" in lines[0]
    if columns >= 120:
        assert "mean ms" in heading
        assert "communication admin" in lines[0]
