"""``twistedsock capture`` as a process, with every exit status; tcpdump is the oracle."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from captures import send_to, sink
from conftest import DEADLINE_S, ROOT, run
from daemons import eventually
from networks import HERE, THERE, Network, ip4, network

from twistedsock.wire import pcap, pcapng

__all__ = ["network", "sink"]
COMMAND = [sys.executable, "-m", "twistedsock", "capture"]
FIGURES = "{} packets captured, 0 dropped by the kernel\n"
AT_NS = 1_700_000_000_123_456_789
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{6} ")
UDP = ip4("192.0.2.1", "192.0.2.2", 17, bytes.fromhex("0035 1000 000c 0000") + b"data")
FRAME = bytes(12) + b"\x08\x00" + UDP
ICMP = bytes(12) + b"\x08\x00" + ip4("192.0.2.1", "192.0.2.2", 1, bytes.fromhex("0800f7ff00000000"))


class Running:
    """The command on a machine of the network, capturing when this is made."""

    def __init__(self, network: Network, *words: str, is_waited_for: bool = True, **more: Any):
        for name in ("stdin", "stdout", "stderr"):
            more.setdefault(name, subprocess.PIPE)
        self.process = subprocess.Popen(
            [*COMMAND, *words], cwd=ROOT, preexec_fn=network.here.join, **more
        )
        if is_waited_for:
            eventually(self._has_ring)

    def _has_ring(self) -> bool:
        """Return whether its ring is mapped, and all else ready: signals are caught last."""
        assert self.process.poll() is None, self.end()
        folder = Path(f"/proc/{self.process.pid}")
        caught = re.search(r"^SigCgt:\s*(\w+)", (folder / "status").read_text(), re.M)
        is_caught = caught is not None and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1
        return bool(is_caught) and "socket:" in (folder / "maps").read_text()

    def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Send it a signal; return its exit status, output and errors."""
        if number is not None:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        assert b"Traceback" not in (err or b""), err
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()


def capture(*words: str | Path, **more: Any) -> tuple[int, str, str]:
    """Run the command to its end."""
    done = run(*COMMAND, *words, **more)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def payloads(path: Path) -> list[bytes]:
    """Return what the datagrams of a file carry."""
    return [packet.data[42:] for packet in pcapng.Reader().feed(path.read_bytes())]


def tcpdump_lines(path: Path, *words: str) -> list[str]:
    """Return what tcpdump tells of a file."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("needs the Debian package tcpdump")
    return run(tcpdump, "-n", "-r", path, *words).stdout.splitlines()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a datagram and an echo request."""
    path = tmp_path / "file.pcapng"
    packets = [pcapng.packet(0, AT_NS, FRAME, outgoing=True), pcapng.packet(0, AT_NS, ICMP)]
    path.write_bytes(pcapng.section_header() + pcapng.interface("eth0") + b"".join(packets))
    return path


# -- lines --


def test_each_packet_is_a_line_at_once(network: Network, sink: socket.socket) -> None:
    """A line comes while the capture goes on, into a pipe too; SIGINT ends it in order."""
    running = Running(network, "packet:lo", "udp")
    assert running.process.stdout is not None
    for payload in (b"one", b"three"):
        send_to(sink, payload)
        line = running.process.stdout.readline().decode()
        assert LINE.match(line)
        assert "127.0.0.1" in line
        assert "UDP" in line
        assert f"length {len(payload)}" in line
    assert running.end(signal.SIGINT) == (0, "", FIGURES.format(2))


def test_directions_are_told_where_there_are_two(network: Network) -> None:
    """On a wire each line tells whether the packet came in or went out."""
    running = Running(network, "wire", "icmp", "--count", "4")
    assert network.here.run(f"ping -c 1 {THERE[0]}").returncode == 0
    assert network.there.run(f"ping -c 1 {HERE[0]}").returncode == 0
    code, out, err = running.end()
    words = [line.split()[1:3] for line in out.splitlines()]
    assert words == [["out", "IP"], ["in", "IP"], ["in", "IP"], ["out", "IP"]]
    assert (code, err) == (0, FIGURES.format(4))


def test_the_count_ends_it(network: Network, sink: socket.socket) -> None:
    """After N packets it ends by itself, in order."""
    running = Running(network, "lo", "-c", "2")
    send_to(sink, b"one", b"two", b"three")
    code, out, err = running.end()
    assert (code, len(out.splitlines()), err) == (0, 2, FIGURES.format(2))


def test_json_tells_the_same(network: Network, sink: socket.socket) -> None:
    """With --json each line is an object."""
    before = time.time()
    running = Running(network, "lo", "--json", "-c", "1", "--snap", "50")
    send_to(sink, b"payload of a datagram")
    code, out, _ = running.end()
    told = json.loads(out)
    assert code == 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", told["time"])
    assert told["time"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before))
    assert (told["interface"], told["direction"]) == ("lo", None)
    assert (told["length"], told["captured"]) == (63, 50)
    assert told["layers"][:3] == ["ethernet", "ipv4", "udp"]
    assert "UDP" in told["summary"]


def test_a_reader_that_goes_ends_it_in_order(network: Network, sink: socket.socket) -> None:
    """When nobody reads the output any more, as behind head, the status is 0."""
    running = Running(network, "lo")
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.process.stdout = None
    send_to(sink, b"one")
    assert running.end() == (0, "", FIGURES.format(0))


def test_a_reader_that_sleeps_does_not_hold_it_up(network: Network, sink: socket.socket) -> None:
    """A full pipe is waited for, but not once a signal has come."""
    running = Running(network, "lo")
    send_to(sink, *[b"x"] * 3000)
    time.sleep(0.5)
    began = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(DEADLINE_S) == 0
    assert time.monotonic() - began < 5
    running.end()


# -- recording --


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_whole_file(
    network: Network, sink: socket.socket, tmp_path: Path, number: int
) -> None:
    """All that came before a signal is in the file, which ends in order; the status is 0."""
    path = tmp_path / "file.pcapng"
    running = Running(network, "lo", "-w", str(path), "udp")
    send_to(sink, b"one", b"two")
    assert running.end(number) == (0, "", FIGURES.format(2))
    reader = pcapng.Reader()
    assert len(reader.feed(path.read_bytes())) == 2
    reader.end()
    assert reader.statistics[0].received == 2
    assert len(tcpdump_lines(path)) == 2


def test_kill_leaves_a_file_that_can_be_read(
    network: Network, sink: socket.socket, tmp_path: Path
) -> None:
    """What was captured a moment before kill -9 is in the file, readable by tcpdump."""
    path = tmp_path / "file.pcapng"
    running = Running(network, "lo", "-w", str(path))
    send_to(sink, b"one", b"two")
    eventually(lambda: len(payloads(path)) == 2)
    assert running.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert payloads(path) == [b"one", b"two"]
    assert len(tcpdump_lines(path)) == 2


def test_tcpdump_records_the_same(network: Network, sink: socket.socket, tmp_path: Path) -> None:
    """tcpdump, beside it, has the same packets at about the same times."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("needs the Debian package tcpdump")
    mine, other = tmp_path / "mine", tmp_path / "other"
    words = [tcpdump, "-i", "lo", "-w", str(other), "-Z", "root", "--nano", "-U", "-c", "30"]
    beside = subprocess.Popen(words, preexec_fn=network.here.join, stderr=subprocess.PIPE)
    assert beside.stderr is not None
    assert b"listening" in beside.stderr.readline()
    running = Running(network, "lo", "-w", str(mine), "-c", "30")
    send_to(sink, *(os.urandom(each * 7) for each in range(30)))
    assert running.end() == (0, "", FIGURES.format(30))
    beside.communicate(timeout=DEADLINE_S)
    ours = pcapng.Reader().feed(mine.read_bytes())
    theirs = pcap.Reader().feed(other.read_bytes())
    assert [each.data for each in ours] == [each.data for each in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert abs((one.received_at_ns or 0) - (another.received_at_ns or 0)) < 10**9


@pytest.mark.parametrize("format", ["-n", "-P"], ids=["pcapng", "pcap"])
def test_what_dumpcap_records_is_shown(
    network: Network, sink: socket.socket, tmp_path: Path, format: str
) -> None:
    """A file of dumpcap's, in either format, is shown as what was sent."""
    dumpcap = shutil.which("dumpcap")
    if dumpcap is None:
        pytest.skip("needs the Debian package wireshark-common")
    path = tmp_path / "file"
    words = [dumpcap, format, "-q", "-i", "lo", "-c", "2", "-w", str(path)]
    recording = subprocess.Popen(words, preexec_fn=network.here.join, stderr=subprocess.PIPE)
    assert recording.stderr is not None
    while b"File:" not in (line := recording.stderr.readline()):
        assert line, "dumpcap has ended"
    send_to(sink, b"one", b"three")
    recording.communicate(timeout=DEADLINE_S)
    code, out, _ = capture("-r", path)
    assert code == 0
    assert [line.rsplit(None, 1)[1] for line in out.splitlines()] == ["3", "5"]


def test_standard_output_takes_a_recording(network: Network, sink: socket.socket) -> None:
    """With -w - the recording goes to the output, and nothing but it."""
    running = Running(network, "lo", "-w", "-", "-c", "2", stdout=subprocess.PIPE)
    send_to(sink, b"one", b"two")
    out, err = running.process.communicate(timeout=DEADLINE_S)
    assert [packet.data[42:] for packet in pcapng.Reader().feed(out)] == [b"one", b"two"]
    assert (running.process.returncode, err.decode()) == (0, FIGURES.format(2))


def test_a_fifo_takes_a_recording(network: Network, sink: socket.socket, tmp_path: Path) -> None:
    """A FIFO is waited for, and then written."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    running = Running(network, "lo", "-w", str(path), "-c", "1", is_waited_for=False)
    with path.open("rb") as reading:
        eventually(running._has_ring)
        send_to(sink, b"one")
        data = reading.read()
    assert [packet.data[42:] for packet in pcapng.Reader().feed(data)] == [b"one"]
    assert running.end() == (0, "", FIGURES.format(1))


def test_a_terminal_shows_a_count(network: Network, sink: socket.socket, tmp_path: Path) -> None:
    """While it records, a terminal shows how many packets there are; the line goes at the end."""
    master, slave = pty.openpty()
    running = Running(network, "lo", "-w", str(tmp_path / "file"), stderr=slave)
    os.close(slave)
    send_to(sink, b"one", b"two")
    text = b""
    end = time.monotonic() + DEADLINE_S
    while b"2 packets" not in text and time.monotonic() < end:
        text += os.read(master, 1000)
    running.process.send_signal(signal.SIGINT)
    while b"captured" not in text and time.monotonic() < end:
        text += os.read(master, 1000)
    os.close(master)
    running.end()
    assert text.endswith(b"\r\x1b[K2 packets captured, 0 dropped by the kernel\r\n")


def test_an_old_file_is_overwritten(network: Network, sink: socket.socket, tmp_path: Path) -> None:
    """What was in the file before is gone, however long it was."""
    path = tmp_path / "file.pcapng"
    path.write_bytes(b"old" * 100_000)
    running = Running(network, "lo", "-w", str(path), "-c", "1")
    send_to(sink, b"new")
    assert running.end()[0] == 0
    assert payloads(path) == [b"new"]


def test_a_full_disk_is_told(network: Network) -> None:
    """A file that cannot be written ends it with one line and 73."""
    code, out, err = Running(network, "lo", "-w", "/dev/full", is_waited_for=False).end()
    text = "twistedsock capture: /dev/full: No space left on device (ENOSPC)\n"
    assert (code, out, err) == (73, "", FIGURES.format(0) + text)


# -- reading --


def test_a_file_is_shown(file: Path) -> None:
    """-r shows each packet of a pcapng or pcap file, with its time."""
    code, out, err = capture("-r", file, env={**os.environ, "TZ": "UTC"})
    first, second = out.splitlines()
    assert (code, err) == (0, "")
    assert first.startswith("22:13:20.123456 out IP 192.0.2.1")
    assert "UDP" in first
    assert second.startswith("22:13:20.123456 IP 192.0.2.1")
    assert "ICMP echo request" in second
    old = file.with_suffix(".pcap")
    old.write_bytes(pcap.header() + pcap.record(AT_NS, ICMP))
    assert capture("-r", old, env={**os.environ, "TZ": "UTC"})[1] == second + "\n"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["udp"], 1),
        (["host", "192.0.2.1"], 2),
        (["outbound"], 1),
        (["tcp"], 0),
        (["-c", "1"], 1),
        (["port", "domain"], 1),
    ],
)
def test_a_file_is_filtered(file: Path, words: list[str], lines: int) -> None:
    """A filter and a count choose among a file's packets."""
    code, out, _ = capture("-r", file, *words)
    assert (code, len(out.splitlines())) == (0, lines)


def test_a_file_of_another_link_is_filtered_or_it_is_told_why_not(tmp_path: Path) -> None:
    """Bare IP of one version is filtered like all bare IP; no other link type is."""
    path = tmp_path / "other.pcap"
    path.write_bytes(pcap.header(228) + pcap.record(AT_NS, UDP))  # LINKTYPE_IPV4
    for words, lines in ((["udp", "port", "53"], 1), (["tcp"], 0)):
        code, out, _ = capture("-r", path, *words)
        assert (code, len(out.splitlines())) == (0, lines)
    path.write_bytes(pcap.header(113) + pcap.record(AT_NS, bytes(16) + UDP))  # LINKTYPE_LINUX_SLL
    assert capture("-r", path)[0] == 0
    code, out, err = capture("-r", path, "udp")
    assert (code, out) == (64, "")
    fault = "packets of link type 113 cannot be filtered, only Ethernet and bare IP"
    assert err.endswith(f"Error: 'udp', character 1: {fault}\n")


def test_standard_input_is_a_file_too(file: Path) -> None:
    """-r - reads the input, as from a pipe."""
    with file.open("rb") as reading:
        done = subprocess.run(
            [*COMMAND, "-r", "-"], stdin=reading, cwd=ROOT, capture_output=True, check=False
        )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


def test_a_file_that_ends_early_is_shown_and_told(file: Path) -> None:
    """The whole packets of a cut file are shown; the rest is told, with 65."""
    file.write_bytes(file.read_bytes()[:-4])
    code, out, err = capture("-r", file)
    assert (code, len(out.splitlines())) == (65, 1)
    assert re.fullmatch(
        rf"twistedsock capture: {file}: pcapng: block at byte \d+: cut short, \d+ bytes of it are"
        r" there\n",
        err,
    )


# -- what is refused --


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 64, "an interface is missing, such as packet:lo"),
        (["tcp:80"], 64, 'must name an interface such as "packet:lo"'),
        (["lo", "port", "what"], 64, "'port what', character 6: "),
        (["-r", "x", "port", "what"], 64, "'port what', character 6: "),
        (["lo", "--count", "0"], 64, "--count"),
        (["lo", "--snap", "0"], 64, "must be 1 to 262144 bytes, got '0'"),
        (["lo", "--snap", "much"], 64, "must be a size"),
        (["-r", "x", "-w", "y"], 64, "--read goes with neither --write nor --promiscuous"),
        (["lo", "-w", "x", "--json"], 64, "--json goes with lines, not with --write"),
        (["-r", __file__], 65, "neither pcap nor pcapng begins with the bytes 22222260"),
        (["-r", "/nosuch"], 66, "capture: /nosuch: No such file or directory (ENOENT)\n"),
        (["-r", "/"], 66, "capture: /: Is a directory (EISDIR)\n"),
        (["nosuch"], 69, "capture: packet:nosuch: No such device (ENODEV)\n"),
        (["lo", "-w", "/nosuch/x"], 73, "capture: /nosuch/x: No such file or directory (ENOENT)\n"),
    ],
)
def test_what_is_wrong_is_told(words: list[str], code: int, text: str) -> None:
    """Each mistake has its exit status and one line that says what and where."""
    told, out, err = capture(*words)
    assert (told, out) == (code, "")
    assert text in err


def unprivileged(*words: str) -> tuple[int, str, str]:
    """Run the command as nobody, who could not import it."""
    code = (
        "import os, shutil, sys; import click._textwrap, twistedsock.cli.capture, twistedsock.cli; "
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534); "
        "twistedsock.cli.main(['capture', *sys.argv[1:]], prog_name='twistedsock')"
    )
    done = run(sys.executable, "-c", code, *words)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_a_missing_right_is_told() -> None:
    """Without CAP_NET_RAW the status is 77 and the line says what would allow it."""
    code, out, err = unprivileged("lo")
    assert (code, out) == (77, "")
    assert re.fullmatch(
        r"twistedsock capture: packet:lo: needs CAP_NET_RAW \(EPERM\): run it as root, or give"
        r" Python the right: setcap cap_net_raw\+ep /\S+\n",
        err,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
@pytest.mark.parametrize(
    ("words", "code"),
    [(["lo", "-w", "/nosuch/x"], 73), (["lo", "foo"], 64), (["nosuch"], 69), (["-r", "/x"], 66)],
)
def test_mistakes_are_told_before_missing_rights(words: list[str], code: int) -> None:
    """Whoever lacks the right learns of every other mistake first."""
    assert unprivileged(*words)[0] == code


def test_an_interface_that_goes_is_told(network: Network, tmp_path: Path) -> None:
    """What was captured is in the file; then the status is 69 and the line says why."""
    network.here.setup(
        "ip link add gone type veth peer name gone2", "ip link set gone up", "ip link set gone2 up"
    )
    path = tmp_path / "file.pcapng"
    running = Running(network, "gone", "-w", str(path))
    network.here.setup("ip link del gone")
    code, _, err = running.end()
    assert code == 69
    text = "the interface went down or away: Network is down (ENETDOWN)"
    assert err.endswith(f"dropped by the kernel\ntwistedsock capture: packet:gone: {text}\n")
    reader = pcapng.Reader()
    reader.feed(path.read_bytes())
    reader.end()
    assert reader.statistics
