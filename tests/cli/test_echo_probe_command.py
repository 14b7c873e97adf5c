"""``twistedsock probe`` as a process: its figures, its picture, Ctrl-C and every exit status."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import DEADLINE_S, ROOT, free_port
from daemons import eventually
from networks import HERE, Network, network
from servers import Server, black_hole, echo, reset, says, silent

from twistedsock.cli.histogram import draw
from twistedsock.client.probing import ProbeResult
from twistedsock.client.round_trips import RoundTrips

__all__ = ["network"]  # the fixture
COMMAND = [sys.executable, "-m", "twistedsock", "probe"]
NAMES = [
    *("sent", "received", "lost", "late", "duplicates", "reordered", "corrupt", "stray"),
    *("behind", "min", "mean", "p50", "p90", "p95", "p99", "max", "stddev", "jitter"),
]
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None,
    reason="needs matplotlib: pip install 'twistedsock[plot]'",
)


def started(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start the command with pipes."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in err, err
    return process.returncode, out, err


def probe(*arguments: str, **more: Any) -> tuple[int, str, str]:
    """Run the command to its end."""
    return ended(started(*arguments, **more))


@pytest.fixture(scope="module")
def echoing() -> Iterator[Server]:
    """An echo server for the whole module."""
    with Server(echo) as server:
        yield server


# -- figures --


def test_in_a_pipe_ten_requests_and_a_line_for_each_figure(echoing: Server) -> None:
    """Without a count it still ends, and every line is a name and a value, in columns."""
    code, out, err = probe(echoing.address, "--rate", "100/s")
    assert (code, err) == (0, "")
    title, *lines = out.splitlines()
    assert re.fullmatch(rf"{echoing.address}: 64 bytes at 100/s, \d+\.\d s", title)
    told = dict(line.split(None, 1) for line in lines)
    assert list(told) == NAMES
    assert (told["sent"], told["received"], told["lost"]) == ("10", "10", "0 (0 %)")
    assert len({line.index(told[line.split()[0]], 6) for line in lines}) == 1
    for name in NAMES[9:]:
        assert re.fullmatch(r"\d+\.\d{3} ms", told[name])


def test_json_is_one_object_on_one_line(echoing: Server) -> None:
    """For machines: everything that is known, under names with units."""
    code, out, err = probe(
        *(echoing.address, "--json", "--count", "20", "--rate", "200/s", "--size", "1KiB")
    )
    assert (code, err, out.count("\n")) == (0, "", 1)
    told = json.loads(out)
    assert (told["address"], told["transport"]) == (echoing.address, "tcp")
    assert (told["size_bytes"], told["rate"], told["sent"], told["received"]) == (
        *(1024, "200/s", 20, 20),
    )
    for name in ("lost", "corrupt", "late", "stray", "duplicates", "reordered"):
        assert told[name] == 0, name
    assert 0 < told["min_ms"] <= told["p50_ms"] <= told["p99_ms"] <= told["max_ms"]
    assert 0.09 < told["duration_s"] < 5


def test_one_after_the_other_for_a_while(echoing: Server) -> None:
    """--rate max with --duration: as many as the peer answers."""
    code, out, _ = probe(echoing.address, "--json", "--rate", "max", "--duration", "0.2")
    told = json.loads(out)
    assert (code, told["rate"]) == (0, "max")
    assert told["sent"] == told["received"] > 20


def test_what_went_wrong_is_told_beside_its_figure() -> None:
    """Stray lines with their bytes, and the share that was lost."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hello\nwho is there?\n")
        sock.sendall(sock.recv(64))
        silent(sock)

    with Server(serve) as server:
        code, out, err = probe(server.address, "--rate", "100/s", "-c", "3", "--timeout", "0.2")
    assert (code, err) == (0, "")
    assert "stray       2 (18 bytes)" in out
    assert "lost        2 (66.67 %)" in out


@pytest.mark.parametrize(
    ("host", "family"), [(HERE[0], socket.AF_INET), (HERE[1], socket.AF_INET6)]
)
def test_over_raw_ip(network: Network, host: str, family: int) -> None:
    """Between two machines, over a protocol number that is nobody's; the header is left out."""
    sock = network.here.inside(lambda: socket.socket(family, socket.SOCK_RAW, 253))
    sock.settimeout(DEADLINE_S)

    def echo_packets() -> None:
        for _ in range(10):
            packet, peer = sock.recvfrom(65_535)
            header_bytes = (packet[0] & 0xF) * 4 if family == socket.AF_INET else 0
            sock.sendto(packet[header_bytes:], peer)

    thread = threading.Thread(target=echo_packets)
    thread.start()
    bracketed = f"[{host}]" if ":" in host else host
    with sock:
        code, out, err = probe(
            *(f"raw:253:{bracketed}", "--json", "--rate", "50/s", "--size", "1KiB"),
            preexec_fn=network.there.join,
        )
        thread.join()
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["transport"], told["sent"], told["received"]) == ("raw", 10, 10)
    assert (told["duplicates"], told["corrupt"], told["stray"]) == (0, 0, 0)


# -- people --


def on_terminal(*arguments: str, until: bytes, interrupt: bool = True) -> tuple[int, str]:
    """Run it on a terminal; press Ctrl-C once *until* was shown; return the status and all."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(
            sys.executable,
            [*COMMAND, *arguments],
            {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30"},
        )
    shown, pressed, end = b"", False, time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(master, 65_536)
            except OSError:  # EIO: it has ended
                break
            shown += data
            if until in shown and not pressed and interrupt:
                pressed = True
                os.write(master, b"\x03")
        else:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "\n")
    return os.waitstatus_to_exitcode(status), text


def test_on_a_terminal_it_goes_on_until_ctrl_c(echoing: Server) -> None:
    """A table shows how it goes; at the end there is the summary, and the status is 0."""
    code, text = on_terminal(echoing.address, "--rate", "100/s", until=b"jitter")
    assert code == 0, text
    live, _, summary = text.rpartition(f"{echoing.address}: 64 bytes at 100/s, ")
    assert "Ctrl-C ends it" in live
    assert re.search(r"sent +\d+ +last +\d+\.\d{3} ms", live)
    assert "Ctrl-C" not in summary
    told = dict(line.split(None, 1) for line in summary.splitlines()[1:] if line)
    assert list(told) == NAMES
    assert int(told["received"]) > 10


def test_a_count_ends_it_on_a_terminal_too(echoing: Server) -> None:
    """Nobody has to press anything."""
    code, text = on_terminal(
        echoing.address, "-c", "5", "--rate", "100/s", until=b"jitter", interrupt=False
    )
    assert code == 0
    assert "received    5" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(number: int, echoing: Server) -> None:
    """In a pipe as well."""
    before = len(echoing.accepted)
    process = started(echoing.address, "--count", "100000", "--rate", "100/s")
    eventually(lambda: len(echoing.accepted) > before)
    time.sleep(0.2)
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    assert re.search(r"^received +\d\d+$", out, re.M)
    assert "lost        0 (0 %)" in out


def test_interrupted_before_there_was_a_connection_is_130() -> None:
    """There is nothing to sum up."""
    with black_hole() as port:
        before = _attempts(port)
        process = started(f"tcp:127.0.0.1:{port}")
        eventually(lambda: _attempts(port) > before)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", "")


def _attempts(port: int) -> int:
    """Return how many connections to *port* wait to be accepted (state SYN_SENT)."""
    return Path("/proc/net/tcp").read_text().count(f":{port:04X} 02 ")


# -- exit statuses --


def test_help_names_every_exit_status() -> None:
    """What scripts rely on stands in the help, each once, and so does what is told of rates."""
    code, out, _ = probe("--help")
    told = [int(word) for word in re.findall(r"^ +(\d+)  \S", out, re.M)]
    assert code == 0
    assert told == [0, 64, 68, 69, 71, 72, 73, 74, 75, 76, 77, 130]
    assert "fixed times" in out


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "ADDRESS"),
        (["udp:localhost"], "port must be 0 to 65535"),
        (["quic:localhost:1"], "starting with one of tcp, udp"),
        (["packet:lo"], "frames are not echoed"),
        (["udp:h:1", "--rate", "often"], 'rate: must be a rate such as "50/s"'),
        (["udp:h:1", "--rate", "0/s"], 'or "max"'),
        (["udp:h:1", "--size", "21"], "size: must be 22 to 65507 bytes for udp, got 21"),
        (["udp:h:1", "--size", "64KiB"], "size: must be 22 to 65507 bytes for udp, got 65536"),
        (["tcp:h:1", "--size", "2MiB"], "22 to 1048576 bytes for tcp"),
        (["udp:h:1", "--size", "big"], "must be a size such as"),
        (["udp:h:1", "--count", "0"], "--count"),
        (["udp:h:1", "--duration", "0s"], "must be above zero, got '0s'"),
        (["udp:h:1", "--timeout", "soon"], "must be a duration"),
        (["tcp:h:1", "--framing", "lines"], "lines"),
        (["tcp:h:1", "--framing", "uint8", "--size", "300"], "the length allows 255"),
        (["tcp:h:1", "-o", "TCP_NODELAY"], "must be NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_64(arguments: list[str], culprit: str) -> None:
    """What was typed wrongly is told, and nothing is sent."""
    code, out, err = probe(*arguments)
    assert (code, out) == (64, "")
    assert culprit in err


def test_an_unknown_name_is_68() -> None:
    """As connect has it."""
    code, out, err = probe("tcp:" + "a" * 64 + ".invalid:7")
    assert (code, out) == (68, "")
    assert "EAI_NONAME" in err


def test_nobody_there_is_69() -> None:
    """A refused connection has no summary; a refused datagram is a loss like any other."""
    port = free_port()
    code, out, err = probe(f"tcp:127.0.0.1:{port}")
    assert (code, out) == (69, "")
    refused = f"tcp:127.0.0.1:{port}: Connection refused (ECONNREFUSED)"
    assert err == f"twistedsock probe: {refused}\n"
    port = free_port(socket.SOCK_DGRAM)
    code, out, err = probe(f"udp:127.0.0.1:{port}", "-c", "3", "--rate", "50/s", "--timeout", "0.1")
    assert code == 69
    assert "lost        3 (100 %)" in out
    assert "errors      ECONNREFUSED" in out
    assert err == (
        f"twistedsock probe: udp:127.0.0.1:{port}: no answer to 3 requests:"
        " Connection refused (ECONNREFUSED)\n"
    )


def test_no_answer_is_69() -> None:
    """A peer that only listens is no echo service."""
    with Server(silent) as server:
        code, out, err = probe(server.address, "-c", "1", "--timeout", "0.1")
    assert code == 69
    assert "received    0" in out
    assert err == f"twistedsock probe: {server.address}: no answer to 1 request\n"


def test_closed_before_the_end_is_72() -> None:
    """The result is shown nevertheless."""
    with Server(says(b"bye\n")) as server:
        code, out, err = probe(server.address)
    assert code == 72
    assert "lost        " in out
    # What it did not read makes a reset of its end, where it comes in time.
    assert err.startswith(f"twistedsock probe: {server.address}: ")

    def serve(sock: socket.socket) -> None:
        sock.sendall(sock.recv(64))
        sock.recv(1)
        reset(sock)

    with Server(serve) as server:
        code, out, err = probe(server.address, "--json", "--rate", "max")
    assert code == 72
    assert json.loads(out)["received"] == 1
    assert "ECONNRESET" in json.loads(out)["ended_by"]
    assert "(ECONNRESET)" in err


def test_not_of_the_framing_is_76() -> None:
    """The fault is told in one line."""
    with Server(says(b"HTTP/1.0 400\r\n")) as server:
        code, out, err = probe(server.address, "--framing", "netstring", "-c", "1")
    assert (code, out) == (76, "")
    fault = f"{server.address}: netstring length is not a decimal number"
    assert err == f"twistedsock probe: {fault}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up its rights")
def test_no_right_to_a_raw_socket_is_77() -> None:
    """What is missing is named."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs the Debian package util-linux")
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *COMMAND]
    process = subprocess.Popen(
        [*without, "raw:253:127.0.0.1"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, out, err = ended(process)
    assert (code, out) == (77, "")
    assert "CAP_NET_RAW" in err


# -- the picture --


def read_png(path: Path) -> tuple[int, int, int]:
    """Return width, height and the number of different rows, by the PNG specification alone."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(data):
        (size,) = struct.unpack_from("!I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert struct.unpack_from("!I", data, place + 8 + size)[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += size + 12
    assert (chunks[0][0], chunks[-1][0]) == (b"IHDR", b"IEND")
    width, height, depth, colour = struct.unpack_from("!IIBB", chunks[0][1])
    assert (depth, colour) == (8, 6)  # RGBA
    pixels = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    row = width * 4 + 1
    assert len(pixels) == row * height
    return width, height, len({pixels[start : start + row] for start in range(0, len(pixels), row)})


@needs_matplotlib
def test_the_picture_is_a_png(echoing: Server, tmp_path: Path) -> None:
    """Of a size to look at, with something in it, beside the figures."""
    path = tmp_path / "round trips.png"
    code, out, err = probe(echoing.address, "--rate", "200/s", "-c", "50", "--plot", str(path))
    assert (code, err) == (0, "")
    assert "received    50" in out
    width, height, rows = read_png(path)
    assert (width, height) == (1350, 750)
    assert rows > 50


@needs_matplotlib
@pytest.mark.parametrize(
    "round_trips_s",
    [
        [0.0],
        [0.012],
        [0.012] * 5,
        [1e-5 * each for each in range(1, 2000)],
        [0.001] * 5000 + [9.0],
        [0.0, 0.0, 5.0],
        [40.0, 90.0],
    ],
    ids=["zero", "one", "equal", "many", "spread", "zeros", "seconds"],
)
def test_any_round_trips_make_a_picture(round_trips_s: list[float], tmp_path: Path) -> None:
    """However few, equal or far apart; an address is no formula."""
    trips = RoundTrips(choice=Random(1))
    for number, seconds in enumerate(round_trips_s):
        trips.sent += 1
        trips.answered(number, seconds)
    result = ProbeResult(
        address="unix:/tmp/$\\frac{" + "x" * 80,
        transport="unix",
        size_bytes=64,
        rate="10/s",
        duration_s=1.0,
        summary=trips.summary(),
        corrupt=0,
        late=0,
        stray=0,
        stray_bytes=0,
        behind=0,
        behind_s=0.0,
        unsent=0,
        dropped=0,
        errors={},
        samples_s=array("d", trips.samples_s),
    )
    draw(result, str(tmp_path / "a.png"))
    assert read_png(tmp_path / "a.png")[:2] == (1350, 750)


@needs_matplotlib
def test_no_answer_no_picture(tmp_path: Path) -> None:
    """It is told, and no file is left."""
    with Server(silent) as server:
        arguments = ("-c", "1", "--timeout", "0.1", "--plot", str(tmp_path / "a.png"))
        code, _, err = probe(server.address, *arguments)
    assert code == 69
    assert "twistedsock probe: no picture: nothing was answered\n" in err
    assert list(tmp_path.iterdir()) == []


@needs_matplotlib
def test_a_picture_that_cannot_be_written_is_73(tmp_path: Path) -> None:
    """That is found out before anything is sent."""
    path = tmp_path / "none" / "a.png"
    with Server(silent) as server:
        code, out, err = probe(server.address, "--plot", str(path))
        assert server.accepted == []
    assert (code, out) == (73, "")
    assert err == f"twistedsock probe: {path}: No such file or directory (ENOENT)\n"


def test_without_matplotlib_nothing_is_sent(tmp_path: Path) -> None:
    """What to install is told."""
    code = (
        "import importlib.util as util, sys; found = util.find_spec;"
        "util.find_spec = lambda name, *more: None if name == 'matplotlib' else found(name, *more);"
        "from twistedsock.cli import main; main(prog_name='twistedsock')"
    )
    with Server(silent) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, "probe", server.address, "--plot", str(tmp_path / "a")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert server.accepted == []
    assert done.returncode == 64
    assert "--plot needs matplotlib: pip install 'twistedsock[plot]'" in done.stderr


def test_what_only_a_picture_or_a_terminal_needs_is_not_imported(echoing: Server) -> None:
    """A probe in a pipe starts without matplotlib and rich's live display."""
    code = (
        "import sys; from twistedsock.cli import main;"
        f"main(['probe', '-c', '1', {echoing.address!r}], standalone_mode=False);"
        "print([name for name in ('matplotlib', 'rich.live') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@needs_matplotlib
def test_a_fifo_that_nobody_reads_is_refused_at_once(echoing: Server, tmp_path: Path) -> None:
    """The picture's place is looked at before anything is sent, and is not waited for."""
    path = tmp_path / "a.png"
    os.mkfifo(path)
    code, out, err = probe(echoing.address, "--plot", str(path))
    assert (code, out) == (73, "")
    assert err == f"twistedsock probe: {path}: No such device or address (ENXIO)\n"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_output_that_is_full_is_told(echoing: Server, more: tuple[str, ...]) -> None:
    """One line says why, and the exit status is 73."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, echoing.address, "-c", "1", *more],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 73
    assert done.stderr == "twistedsock probe: standard output: No space left on device (ENOSPC)\n"
