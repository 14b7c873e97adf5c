"""``twistedsock connect`` as a process: in pipes and on a terminal, with every exit status."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, ROOT, free_port
from daemons import GREETING as DAEMON_GREETING
from daemons import Start, eventually
from servers import (
    GREETING,
    Deaf,
    Server,
    black_hole,
    echo,
    flood,
    greet_and_reset,
    reset,
    says,
    silent,
    udp_socket,
)

COMMAND = [sys.executable, "-m", "twistedsock", "connect"]
EVERY_BYTE = bytes(range(256))


class Done:
    """What a finished command has left."""

    def __init__(self, code: int, out: bytes, err: str, took_s: float) -> None:
        self.code, self.out, self.err, self.took_s = code, out, err, took_s
        assert "Traceback" not in err, err

    @property
    def told(self) -> tuple[int, bytes, str]:
        """Exit status, output and errors."""
        return self.code, self.out, self.err


def started(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    """Start the command with pipes, where nothing else is said."""
    for name in ("stdin", "stdout", "stderr"):
        more.setdefault(name, subprocess.PIPE)
    return subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, **more)


def ended(process: subprocess.Popen[bytes], text: bytes | None = None) -> Done:
    """Give it *text*, and return what it left."""
    began = time.monotonic()
    try:
        out, err = process.communicate(text, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    took_s = time.monotonic() - began
    return Done(process.returncode, out or b"", (err or b"").decode(), took_s)


def connect(*arguments: str, text: bytes = b"", **more: Any) -> Done:
    """Run the command to its end."""
    return ended(started(*arguments, **more), None if "stdin" in more else text)


def shell(line: str) -> Done:
    """Run *line* in a shell, where ``connect`` is the command."""
    process = subprocess.Popen(
        ["bash", "-c", line.replace("connect ", " ".join(COMMAND) + " ")],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return ended(process)


@pytest.fixture(scope="module")
def echoing() -> Iterator[Server]:
    """An echo server for the whole module."""
    with Server(echo) as server:
        yield server


# -- a pipe --


def test_every_byte_passes_as_it_is(echoing: Server) -> None:
    """Binary data is untouched; at the end of the input our half is closed; the status is 0."""
    assert connect(echoing.address, text=EVERY_BYTE).told == (0, EVERY_BYTE, "")


def test_ten_megabytes_both_ways_at_once(echoing: Server) -> None:
    """An echo sends while it still receives: neither side waits for the other."""
    data = EVERY_BYTE * 40_000
    done = connect(echoing.address, text=data)
    assert (done.code, done.err) == (0, "")
    assert done.out == data


def test_the_answer_after_half_close_is_read() -> None:
    """A server that answers at the end of input is heard, as nc -N hears it."""

    def count(sock: socket.socket) -> None:
        size = 0
        while data := sock.recv(65536):
            size += len(data)
        sock.sendall(b"%d\n" % size)

    with Server(count) as server:
        ours = connect(server.address, text=b"x" * 100_000)
        theirs = subprocess.run(
            ["nc", "-N", "127.0.0.1", str(server.port)],
            input=b"x" * 100_000,
            stdout=subprocess.PIPE,
            timeout=DEADLINE_S,
            check=False,
        )
    assert ours.told == (theirs.returncode, theirs.stdout, "") == (0, b"100000\n", "")


def test_a_listening_nc_hears_and_answers() -> None:
    """Between our command and nc bytes go both ways."""
    port = free_port()
    nc = subprocess.Popen(
        ["nc", "-l", "127.0.0.1", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def attempt() -> subprocess.Popen[bytes] | None:
        process = started(f"tcp:127.0.0.1:{port}")
        eventually(lambda: process.poll() is not None or is_at_rest(process.pid))
        if process.poll() is None:
            return process
        ended(process)  # nc does not listen yet
        return None

    ours: Any = eventually(attempt)
    assert ours.stdin
    assert ours.stdout
    assert nc.stdin
    assert nc.stdout
    ours.stdin.write(b"to nc\n")
    ours.stdin.flush()
    assert nc.stdout.readline() == b"to nc\n"
    nc.stdin.write(b"from nc\n")
    nc.stdin.flush()
    assert ours.stdout.readline() == b"from nc\n"
    assert ended(ours).told == (0, b"", "")
    nc.communicate(timeout=DEADLINE_S)
    assert nc.returncode == 0


@pytest.mark.parametrize(
    "source", ["<&-", "</dev/null", "< {file}", "0<>/dev/null", "< <(sleep 0.1; cat {file})"]
)
def test_any_standard_input(echoing: Server, tmp_path: Path, source: str) -> None:
    """Closed, empty, a file or late: what is there is sent, and its end is the end."""
    file = tmp_path / "input"
    file.write_bytes(b"from a file")
    done = shell(f"connect {echoing.address} {source.format(file=file)}")
    assert done.told == (0, b"from a file" if "{file}" in source else b"", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_do_no_harm(echoing: Server, closed: str) -> None:
    """The connection is never mistaken for the input or output whose number it would get."""
    done = shell(f"connect -v {echoing.address} {closed}")
    assert (done.code, done.out) == (0, b"")
    heard: list[bytes] = []

    def listens(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        while data := sock.recv(100):
            heard.append(data)

    with Server(listens) as server:
        done = shell(
            f"connect -v {server.address} {closed}",
        )
        server.served()
    assert done.code == 0
    assert heard == []


def test_the_peer_s_end_is_ours_though_input_is_open() -> None:
    """Nothing has to be typed for the end to be seen."""
    with Server(says(GREETING)) as server:
        process = started(server.address)
        assert process.stdout
        assert process.stdout.read() == GREETING  # to its end: the input is open still
        assert process.wait(DEADLINE_S) == 0
        assert ended(process).told == (0, b"", "")


def test_what_a_peer_says_last_is_read_though_it_takes_nothing(tmp_path: Path) -> None:
    """A server that refuses us with a word and ends is heard, however much we had to say."""

    def refuses(sock: socket.socket) -> None:
        sock.sendall(b"too many\n")

    with Server(refuses) as server:
        for _ in range(5):
            done = shell(f"head -c 3000000 /dev/zero | connect {server.address}")
            assert done.out == b"too many\n"
            assert done.code in (0, 72)  # in order, or with the reset that our bytes brought


def test_who_reads_no_more_ends_it() -> None:
    """As in any pipe: the reader has had enough, which is no failure."""
    with Server(flood) as server:
        done = shell(f"set -o pipefail; connect {server.address} | head -c 10")
    assert done.told == (0, b"xxxxxxxxxx", "")


def test_a_reader_who_is_slow_is_waited_for() -> None:
    """Though the output is non-blocking, as a shell's other children may make it."""
    size = 3_000_000
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with Server(says(b"x" * size)) as server, open(reading, "rb") as output:
        process = started(server.address, stdout=writing)
        os.close(writing)
        time.sleep(0.4)
        assert len(output.read()) == size
        assert ended(process).told == (0, b"", "")


def test_an_input_that_is_non_blocking(echoing: Server) -> None:
    """Nothing to read yet is not the end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    process = started(echoing.address, stdin=reading)
    os.close(reading)
    with open(writing, "wb", buffering=0) as text:
        for _ in range(3):
            time.sleep(0.1)
            text.write(b"x")
    assert ended(process).told == (0, b"xxx", "")


def test_a_flood_is_not_held_in_memory() -> None:
    """While nobody reads our output the peer is not read: memory stays small."""
    with Server(flood) as server:
        process = started(server.address)
        assert process.stdout
        process.stdout.read(1)
        peak = []
        for _ in range(5):
            time.sleep(0.05)
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak.append(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]))
        process.kill()
        ended(process)
    assert max(peak) - min(peak) < 2000
    assert max(peak) < 100_000


def test_under_a_c_locale(echoing: Server) -> None:
    """Bytes and text pass whatever the locale."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = "dréi ☃\n".encode()
    for framing in (["--framing", "line", "--codec", "text"], []):
        done = connect(echoing.address, *framing, text=text, env=environment)
        assert done.told == (0, text, "")
    done = connect("tcp:n\xe9:1", env=environment)
    assert done.code == 64


# -- messages --


@pytest.mark.parametrize(
    ("options", "text", "on_the_wire"),
    [
        ("--framing line", b"one\r\ntwo", b"one\ntwo\n"),
        ("--framing netstring", b"one\n\ntwo\n", b"3:one,0:,3:two,"),
        ("--framing uint8", b"one\n", b"\x03one"),
        ("--framing uint16 --codec text", b"one\n", b"\0\x03one"),
        ("--framing uint32", b"one", b"\0\0\0\x03one"),
        ("--framing line --codec json", b'{ "a" : [1, null] }\n', b'{"a":[1,null]}\n'),
        ("--framing netstring --codec literal", b"( 1,'a' )\n", b"8:(1, 'a'),"),
    ],
)
def test_lines_are_messages(options: str, text: bytes, on_the_wire: bytes) -> None:
    """Each line goes in its frame, as its codec writes it, and comes back as a line."""
    heard: list[bytes] = []

    def listens(sock: socket.socket) -> None:
        while data := sock.recv(100):
            heard.append(data)
            sock.sendall(data)

    with Server(listens) as server:
        done = connect(*options.split(), server.address, text=text)
    assert b"".join(heard) == on_the_wire
    assert (done.code, done.err) == (0, "")
    tidied = {b'{ "a" : [1, null] }\n': b'{"a":[1,null]}\n', b"( 1,'a' )\n": b"(1, 'a')\n"}
    expected = tidied.get(text, text.replace(b"\r", b""))
    assert done.out == (expected if expected.endswith(b"\n") else expected + b"\n")


@pytest.mark.parametrize(
    ("options", "text", "fault"),
    [
        ("--codec json --framing line", b"1\n{\n2\n", "line 2 of the input: is not JSON"),
        ("--codec text", b"\xff\n", "line 1 of the input: is not UTF-8 text"),
        ("--framing uint8", b"\n" + b"x" * 256, "line 2 of the input: a message of 256 bytes"),
        ("--framing line", b"x" * 70_000, "line 1 of the input is longer than 65536 bytes"),
        ("--codec literal", b"0x" + b"f" * 5000, "line 1 of the input: is not a Python literal"),
    ],
)
def test_a_line_that_is_no_message_is_65(
    echoing: Server, options: str, text: bytes, fault: str
) -> None:
    """It is told by its number; what came before it was sent and is answered."""
    done = connect(*options.split(), echoing.address, text=text)
    assert done.code == 65
    assert done.err.startswith(f"twistedsock connect: {fault}")
    if "json" in options:
        assert done.out == b"1\n"


def test_a_wrong_line_is_told_though_the_peer_is_silent() -> None:
    """A peer that never answers and never ends does not keep the fault from being told."""
    never = Deaf()
    with Server(never) as server:
        done = connect(server.address, "--framing", "line", "--codec", "json", text=b"1\n{\n")
        never.may_read.set()
    assert (done.code, done.out) == (65, b"")
    assert "line 2 of the input" in done.err


@pytest.mark.parametrize(
    ("options", "sent", "fault"),
    [
        ("--framing netstring", b"2:ok,nonsense", "netstring length"),
        ("--framing uint8", b"\x02ok\x05cut", "the stream ended inside a"),
        ("--framing line --codec json", b'"ok"\n?\n', "is not JSON"),
        ("--framing line --codec text", b"ok\n\xff\n", "is not UTF-8 text"),
        ("--framing line --codec literal", b"'ok'\n0x" + b"f" * 5000 + b"\n", "is not a Python"),
    ],
)
def test_what_cannot_be_read_is_76(options: str, sent: bytes, fault: str) -> None:
    """Messages before the fault are printed; the fault is told in one line."""
    with Server(says(sent)) as server:
        done = connect(*options.split(), server.address)
    assert done.code == 76
    assert done.out.strip(b"'\"\n") == b"ok"
    assert f"{server.address}: " in done.err
    assert fault in done.err
    assert len(done.err.splitlines()) == 1


# -- exit statuses --


def test_help_names_every_exit_status() -> None:
    """What scripts rely on stands in the help, each once."""
    from twistedsock.cli.exits import EX_INTERRUPTED, EX_NOPERM, EXITS

    done = connect("--help")
    told = [int(word) for word in re.findall(r"^ +(\d+)  \S", done.out.decode(), re.M)]
    assert told == sorted({0, 64, *EXITS.values(), EX_NOPERM, EX_INTERRUPTED})


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["tcp:localhost"], "port must be 0 to 65535"),
        (["tcp:*:80"], "a peer has one host"),
        (["unix:run/x"], "must be an absolute path or an @abstract name"),
        ([], "ADDRESS"),
        (["tcp:1", "tcp:2"], "tcp:2"),
        (["--framing", "lines", "tcp:1"], "lines"),
        (["--codec", "pickle", "tcp:1"], "pickle"),
        (["--timeout", "0", "tcp:1"], "above zero"),
        (["--timeout", "-1", "tcp:1"], "-1"),
        (["--timeout", "\u00b2", "tcp:1"], "must be a duration"),
        (["--timeout", "soon", "tcp:1"], "must be a duration"),
        (["--timeout", "366d", "tcp:1"], "at most 365d"),
        (["tcp:\udcff:1"], "neither an IP address nor a host name"),
    ],
)
def test_a_wrong_command_line_is_64(arguments: list[str], culprit: str) -> None:
    """What was typed wrongly is told, and no connection is tried."""
    done = connect(*arguments)
    assert (done.code, done.out) == (64, b"")
    assert culprit in done.err


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 64 + ".invalid"])
def test_a_name_that_is_not_found_is_68(name: str) -> None:
    """RFC 6761: nothing is ever called so."""
    environment = {**os.environ, "RES_OPTIONS": "attempts:1 timeout:1"}
    done = connect(f"tcp:{name}:80", env=environment)
    assert (done.code, done.out) == (68, b"")
    assert re.fullmatch(rf"twistedsock connect: tcp:{name}:80: .+ \(EAI_\w+\)\n", done.err)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_nobody_there_is_69(host: str) -> None:
    """Refused, over TCP at once and over UDP by what comes back."""
    for scheme, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        address = f"{scheme}:{host}:{free_port(kind, host.strip('[]'))}"
        done = connect(address, text=b"anybody?")
        message = f"twistedsock connect: {address}: Connection refused (ECONNREFUSED)\n"
        assert done.told == (69, b"", message)


def test_no_way_there_is_71() -> None:
    """No route, and no right."""
    done = connect("tcp:224.0.0.1:9")
    message = "twistedsock connect: tcp:224.0.0.1:9: Network is unreachable (ENETUNREACH)\n"
    assert done.told == (71, b"", message)
    done = connect("udp:255.255.255.255:9", text=b"x")
    assert (done.code, "(EACCES)" in done.err) == (71, True)


@pytest.mark.parametrize("serve", [reset, greet_and_reset])
@pytest.mark.parametrize("source", ["/dev/null", "/dev/zero"])
def test_a_reset_is_72(serve: Callable[..., None], source: str) -> None:
    """Whenever it comes, and whether or not we were sending; what was said before is printed."""
    if serve is greet_and_reset and source == "/dev/null":
        pytest.skip("it waits for us")
    with Server(serve) as server, open(source, "rb") as stdin:
        for option in ("-v", "--timeout=9"):
            done = connect(option, server.address, stdin=stdin)
            assert done.code == 72
            assert done.err.endswith(f"{server.address}: Connection reset by peer (ECONNRESET)\n")


def test_an_output_that_is_full_is_73(echoing: Server) -> None:
    """What cannot be written is told, and is not the peer's fault."""
    done = shell(f"connect {echoing.address} <<<hello >/dev/full")
    message = "twistedsock connect: output: No space left on device (ENOSPC)\n"
    assert done.told == (73, b"", message)


def test_what_cannot_go_out_is_74() -> None:
    """A datagram above the largest that there is."""
    text = b"x" * 65_520
    done = connect("--codec", "text", "udp:127.0.0.1:9", text=text)
    message = "twistedsock connect: udp:127.0.0.1:9: Message too long (EMSGSIZE)\n"
    assert done.told == (74, b"", message)


def test_no_answer_in_time_is_75(echoing: Server) -> None:
    """No connection, nothing taken, nothing received: each says which."""
    with black_hole() as hole:
        done = connect("--timeout", "300ms", f"tcp:127.0.0.1:{hole}")
    assert done.code == 75
    assert "no connection within 0.3 s (ETIMEDOUT)" in done.err
    never = Deaf()

    def mute(sock: socket.socket) -> None:
        sock.sendall(GREETING)
        never(sock)

    with Server(mute) as server:
        done = connect("--timeout", "0.3", server.address, text=b"hello?")
        assert (done.code, done.out) == (75, GREETING)
        assert "nothing received within 0.3 s" in done.err
        done = connect("--timeout", "300ms", server.address, text=b"x" * 20_000_000)
        assert (done.code, done.out) == (75, GREETING)
        assert "nothing taken within 0.3 s" in done.err
        never.may_read.set()
    # However long, it is a time.
    assert connect("--timeout", "365d", echoing.address, text=b"x").told == (0, b"x", "")


def test_open_input_is_no_silence(echoing: Server) -> None:
    """The time-out does not end one who thinks before typing."""
    process = started("--timeout", "200ms", echoing.address)
    assert process.stdin
    time.sleep(0.6)
    process.stdin.write(b"at last")
    assert ended(process).told == (0, b"at last", "")


@pytest.mark.parametrize("during", ["connecting", "talking"])
def test_interrupted_is_130(during: str) -> None:
    """SIGINT ends it at any time, without a word."""
    with black_hole() as hole, Server(silent) as server:
        process = started(f"tcp:127.0.0.1:{hole}" if during == "connecting" else server.address)
        eventually(lambda: is_at_rest(process.pid))
        process.send_signal(signal.SIGINT)
        assert ended(process).told == (130, b"", "")


def is_at_rest(pid: int) -> bool:
    """Return whether *pid* waits in poll(2), where it listens to signals."""
    return "poll" in Path(f"/proc/{pid}/wchan").read_text() or "poll" in _syscall(pid)


def _syscall(pid: int) -> str:
    try:
        number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except OSError:
        return ""
    return "poll" if number in ("7", "271", "73") else ""  # x86-64 poll, ppoll; arm64 ppoll


# -- verbose --


def test_verbose_tells_who_and_how_much(echoing: Server) -> None:
    """On standard error, both ends first and the sums last; the output stays clean."""
    done = connect("--verbose", echoing.address, text=b"hello")
    assert (done.code, done.out) == (0, b"hello")
    first, last = done.err.splitlines()
    assert re.fullmatch(rf"connected: tcp 127\.0\.0\.1:\d+ -> 127\.0\.0\.1:{echoing.port}", first)
    assert re.fullmatch(r"sent 5 bytes, received 5 in \d\.\d{3} s", last)
    with Server(echo, "::1") as server:
        first = connect("-v", server.address).err.splitlines()[0]
        assert re.fullmatch(rf"connected: tcp \[::1\]:\d+ -> \[::1\]:{server.port}", first)


# -- datagrams --


def test_datagrams_end_after_silence() -> None:
    """Nothing tells their end: after our input a second of silence does, or the time-out."""
    with udp_socket() as server:

        def answer() -> None:
            for _ in range(4):
                data, client = server.recvfrom(65536)
                server.sendto(data.upper(), client)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"udp:127.0.0.1:{server.getsockname()[1]}"
        done = connect(address, "--timeout", "300ms", text=b"one\ntwo\n")
        assert done.told == (0, b"ONE\nTWO\n", "")
        assert 0.3 <= done.took_s < 5
        # With a codec each line is a datagram of its own; an empty one, too.
        done = connect(address, "--timeout", "300ms", "--codec", "text", text=b"a\n\nb\n")
        assert done.told == (0, b"A\n\nB\n", "")
        thread.join()


def test_an_empty_answer_is_an_answer() -> None:
    """A datagram without bytes is no silence."""
    with udp_socket() as server:

        def answer() -> None:
            server.sendto(b"", server.recvfrom(65536)[1])

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"udp:127.0.0.1:{server.getsockname()[1]}"
        assert connect(address, "--timeout", "300ms", text=b"x").told == (0, b"", "")
        thread.join()


def test_datagrams_without_an_answer_are_75() -> None:
    """Without a time-out one second is the limit."""
    with udp_socket() as server:
        done = connect(f"udp:127.0.0.1:{server.getsockname()[1]}", text=b"x")
        assert server.recv(100) == b"x"
    assert done.code == 75
    assert "nothing received within 1 s" in done.err


# -- a terminal --


class Terminal:
    """The command on a terminal of its own, as somebody sits before it."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()

        def own_it() -> None:
            os.setsid()
            fcntl.ioctl(0, 0x540E, 0)  # TIOCSCTTY: Ctrl-C is a signal from here on

        self.process = started(
            *arguments, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_it
        )
        os.close(slave)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        """Press *keys*."""
        os.write(self.master, keys)

    def sees(self, text: bytes) -> None:
        """Wait for *text* on the screen."""
        end = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"no {text!r}, only {self.seen!r}") from None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


def upper(sock: socket.socket) -> None:
    """Answer in capitals, after a greeting."""
    sock.sendall(GREETING)
    while data := sock.recv(100):
        sock.sendall(data.upper())


@pytest.mark.parametrize("options", [[], ["--framing", "line", "--codec", "text"]])
def test_each_line_typed_is_sent_at_once(options: list[str]) -> None:
    """The answer to a line stands there before the next is typed; Ctrl-D ends our side."""
    with Server(upper) as server, Terminal(*options, server.address) as terminal:
        terminal.sees(b"who is there?")
        for word in (b"one", b"two"):
            terminal.type(word + b"\n")
            terminal.sees(word.upper())
        terminal.type(b"\x04")
        assert terminal.process.wait(DEADLINE_S) == 0


def test_ctrl_c_ends_it() -> None:
    """As a signal from the terminal, without a traceback on it."""
    with Server(upper) as server, Terminal(server.address) as terminal:
        terminal.sees(b"who is there?")
        terminal.type(b"\x03")
        assert terminal.process.wait(DEADLINE_S) == 130
        assert b"Traceback" not in terminal.seen


def test_the_peer_s_end_returns_the_terminal() -> None:
    """When the server ends, nothing has to be pressed."""
    with Server(says(GREETING)) as server, Terminal(server.address) as terminal:
        terminal.sees(b"who is there?")
        assert terminal.process.wait(DEADLINE_S) == 0


# -- the daemon --


def test_the_daemon_and_the_command(start: Start) -> None:
    """The demo of the tutorial: a greeting, and an answer to what was typed, over TCP and UDP."""
    daemon = start("--port", "0", "--framing", "line").ready()
    done = connect(f"tcp:127.0.0.1:{daemon.port()}", "--framing", "line", text=b"hello\n")
    assert done.told == (0, DAEMON_GREETING + b"OK...hello\n", "")
    done = connect(f"udp:127.0.0.1:{daemon.port('udp')}", "--timeout", "300ms", text=b"hello")
    assert done.told == (0, b"OK...hello", "")
    assert daemon.stop() == 0
