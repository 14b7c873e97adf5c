"""The capture service. The oracles are tcpdump and scapy, which read the files that it writes."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shutil
import socket
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pydantic
import pytest
from daemons import eventually
from networks import (
    HERE,
    THERE,
    Network,
    Serve,
    events,
    network,
    open_on,
    serve,
    wait_for,
)
from scapy.utils import PcapNgReader
from twisted.internet.task import Clock

from twistedsock.addresses import FiveTuple
from twistedsock.service import Metadata
from twistedsock.services import rotation
from twistedsock.services.capture import FLUSH_BYTES, Capture, CaptureSettings

__all__ = ["network", "serve"]
UDP4 = (socket.AF_INET, socket.SOCK_DGRAM)
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments
PCAPNG_START = bytes.fromhex("0a0d0d0a")

needs_tcpdump = pytest.mark.skipif(
    shutil.which("tcpdump") is None, reason="needs the Debian package tcpdump"
)


def frames_in(path: Path) -> list[tuple[float, bytes]]:
    """Return the time and the bytes of each frame, as scapy reads them."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    with PcapNgReader(str(path)) as reader:
        return [(float(packet.time), bytes(packet)) for packet in reader]


def tcpdump(path: Path, *more: str) -> list[str]:
    """Return the lines that tcpdump prints of the file, which it must read to its end."""
    done = subprocess.run(
        ["tcpdump", "-n", "-t", *more, "-r", str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "truncated" not in done.stderr
    return done.stdout.splitlines()


def config(path: Path, listen: str, **settings: object) -> str:
    """Return a file with the service on *listen*."""
    lines = "".join(
        f"{key} = {value if isinstance(value, int) else f'{chr(34)}{value}{chr(34)}'}\n"
        for key, value in {"file": path, **settings}.items()
    )
    head = f'[services.main]\nservice = "capture"\nlisten = [{listen}]\n'
    return f"{head}[services.main.settings]\n{lines}"


# -- the daemon --


@needs_tcpdump
def test_the_file_has_what_the_filter_lets_in(
    network: Network, serve: Serve, tmp_path: Path
) -> None:
    """On the loopback each frame is there once, and nothing else; the time is the kernel's."""
    path = tmp_path / "lo.pcapng"
    listen = '{ address = "packet:lo", filter = "udp port 5001" }'
    daemon = serve(config(path, listen)).ready()
    before = time.time()
    with open_on(network.here, *UDP4, 0, ("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        for number in range(20):
            own.sendto(b"other", ("127.0.0.1", 5000))
            own.sendto(b"%d" % number, ("127.0.0.1", 5001))
    assert daemon.stop() == 0
    expected = [
        f"IP 127.0.0.1.{port} > 127.0.0.1.5001: UDP, length {1 + (n > 9)}" for n in range(20)
    ]
    assert tcpdump(path) == expected
    found = frames_in(path)
    assert [data[42:] for _, data in found] == [b"%d" % number for number in range(20)]
    assert all(before - 0.01 <= at <= time.time() for at, _ in found)
    [ended] = events(daemon, "capture_ended")
    assert (ended["written"], ended["lost"]) == (20, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@needs_tcpdump
def test_both_directions_of_a_wire_are_kept(network: Network, serve: Serve, tmp_path: Path) -> None:
    """What this machine sends is there as well, and told apart."""
    path = tmp_path / "wire.pcapng"
    listen = '{ address = "packet:wire", filter = "udp port 5001" }'
    daemon = serve(config(path, listen)).ready()
    with open_on(network.here, *UDP4) as own, open_on(network.there, *UDP4) as peer:
        peer.sendto(b"in", (HERE[0], 5001))
        own.sendto(b"out", (THERE[0], 5001))
    # Not only at the end: in a second it is there to be read.
    eventually(lambda: path.stat().st_size and len(frames_in(path)) == 2, 5)
    assert daemon.stop() == 0
    assert [data[42:] for _, data in frames_in(path)] == [b"in", b"out"]
    assert [line.split(" > ")[0].split()[-1].rsplit(".", 1)[0] for line in tcpdump(path)] == [
        THERE[0],
        HERE[0],
    ]
    flags = [block[-12:-8] for block in blocks_of(path.read_bytes()) if block[:4] == b"\6\0\0\0"]
    assert flags == [b"\1\0\0\0", b"\2\0\0\0"]  # inbound, outbound


def blocks_of(data: bytes) -> list[bytes]:
    """Return the blocks of a file by their lengths (draft-ietf-opsawg-pcapng section 3.1)."""
    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        assert data[at + length - 4 : at + length] == struct.pack("<I", length)
        found.append(data[at : at + length])
        at += length
    return found


def test_a_thousand_senders_are_recorded_and_none_is_answered(
    network: Network, serve: Serve, tmp_path: Path
) -> None:
    """Whoever sends, under whatever address, is in the file."""
    path = tmp_path / "many.pcapng"
    listen = f'{{ address = "packet:wire", filter = "ether proto {ETHERTYPE:#x}" }}'
    daemon = serve(config(path, listen)).ready()
    sent = []
    name = ("wire", ETHERTYPE)
    with open_on(network.there, socket.AF_PACKET, socket.SOCK_RAW, 0, name) as peer:
        for number in range(1000):
            addresses = b"\xff" * 6 + b"\2" + number.to_bytes(5, "big")
            sent.append(addresses + struct.pack("!H", ETHERTYPE) + b"x" * 46)
            peer.send(sent[-1])
            if number % 50 == 49:
                time.sleep(0.02)  # what the kernel keeps for a listener is bounded
        peer.setblocking(False)
        heard = []
        while True:
            try:
                heard.append(peer.recvfrom(2000)[1][2])
            except BlockingIOError:
                break
        assert set(heard) <= {4}  # PACKET_OUTGOING: its own
    assert daemon.stop() == 0
    assert [data for _, data in frames_in(path)] == sent


@needs_tcpdump
def test_full_files_are_set_aside(network: Network, serve: Serve, tmp_path: Path) -> None:
    """Each is a file of its own, none longer than allowed, and the newest of them are kept."""
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"what stood there before")
    listen = '{ address = "packet:lo", filter = "udp port 5001" }'
    daemon = serve(config(path, listen, max_file="16KiB", keep=3)).ready()
    with open_on(network.here, *UDP4) as own:
        for number in range(100):
            own.sendto(b"%04d" % number * 200, ("127.0.0.1", 5001))
            if number % 10 == 9:
                time.sleep(0.02)
    assert daemon.stop() == 0
    found = sorted(each.name for each in tmp_path.glob("x.*"))
    assert found == ["x.pcapng", "x.pcapng.1", "x.pcapng.2", "x.pcapng.3"]
    numbers = []
    for name in reversed(found):
        assert (tmp_path / name).stat().st_size <= 16 * 1024
        assert len(tcpdump(tmp_path / name)) == len(frames_in(tmp_path / name))
        numbers += [int(data[42:46]) for _, data in frames_in(tmp_path / name)]
    assert numbers == list(range(100 - len(numbers), 100))
    assert len(numbers) > 40


@needs_tcpdump
def test_a_file_that_may_not_grow_ends_nothing(
    network: Network, serve: Serve, tmp_path: Path
) -> None:
    """What cannot be written is told once and counted; the file has whole frames."""
    path = tmp_path / "full.pcapng"
    listen = '{ address = "packet:lo", filter = "udp port 5001" }'
    limit = 64 * 1024  # the log stays below it

    def no_more() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    daemon = serve(config(path, listen), no_more).ready()
    with open_on(network.here, *UDP4) as own:
        for round_ in range(3):
            for _ in range(10):
                own.sendto(b"%d" % round_ * 4000, ("127.0.0.1", 5001))
            time.sleep(0.7)  # longer than it takes to be written
    failed = wait_for(daemon, "capture_failed")
    assert daemon.stop() == 0
    [told] = failed
    assert (told["code"], told["path"], told["lost"]) == ("EFBIG", str(path), 10)
    [ended] = events(daemon, "capture_ended")
    assert (ended["written"], ended["lost"]) == (10, 20)
    assert len(tcpdump(path)) == 10


@pytest.mark.parametrize("where", ["missing/x.pcapng", "."])
def test_a_bad_path_ends_the_start(
    network: Network, serve: Serve, tmp_path: Path, where: str
) -> None:
    """The daemon stops, says which file, and why."""
    daemon = serve(config(tmp_path / where, '"packet:lo"'))
    assert daemon.wait() == 70
    assert "services.main: start() failed: [Errno" in daemon.text
    assert str(tmp_path / where) in daemon.text


# -- in memory --


class Peer:
    """A session in memory, which nothing may be sent to."""

    def __init__(self, interface: str = "lo", **told: Any) -> None:
        self.five_tuple = FiveTuple("packet", interface, 0, "02:00:00:00:00:09", 3)
        self.metadata = Metadata(**{"received_at": 1_700_000_000.25, "outgoing": False, **told})

    def send(self, message: bytes) -> None:
        raise AssertionError("a capture answers nothing")


def frame(payload: bytes = b"") -> bytes:
    return b"\2" * 12 + struct.pack("!H", ETHERTYPE) + payload.ljust(46, b"\0")


class Started:
    """A service that has begun, and its clock."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.clock = path, Clock()
        made = CaptureSettings.model_validate({"file": str(path), **settings})
        self.service: Any = Capture(made, name="main", reactor=self.clock)
        self.service.start()

    def receive(self, *payloads: bytes, **told: Any) -> None:
        for payload in payloads:
            self.service.received(Peer(**told), frame(payload))

    def numbers(self, suffix: str = "") -> list[bytes]:
        path = self.path.with_name(self.path.name + suffix)
        return [data[14:].rstrip(b"\0") for _, data in frames_in(path)]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    return Started(tmp_path / "c.pcapng")


def test_frames_are_in_the_file_after_a_while(started: Started) -> None:
    """Half a second after the first, in one write; at the end what is left."""
    started.receive(b"one", b"two")
    assert started.path.stat().st_size == 0
    started.clock.advance(0.49)
    assert started.path.stat().st_size == 0
    started.clock.advance(0.02)
    assert started.numbers() == [b"one", b"two"]
    started.receive(b"three")
    started.service.stop()
    assert started.numbers() == [b"one", b"two", b"three"]
    assert not started.clock.getDelayedCalls()


def test_much_is_written_at_once(started: Started) -> None:
    """A burst is not held until its time has come."""
    started.receive(*[b"x" * 60_000] * (FLUSH_BYTES // 60_000 + 1))
    assert started.path.stat().st_size >= FLUSH_BYTES
    started.service.stop()


def test_stamps_are_the_kernels(started: Started) -> None:
    """To well below a microsecond; the clock's own where the kernel tells none."""
    started.receive(b"", received_at=1_700_000_000.123456)
    started.clock.advance(0.25)
    started.receive(b"", received_at=None)
    started.service.stop()
    (first, _), (second, _) = frames_in(started.path)
    assert first == pytest.approx(1_700_000_000.123456, abs=5e-7)
    assert second == 0.25


def test_long_frames_are_cut(tmp_path: Path) -> None:
    """Only so much of each is kept, and its length is told."""
    started = Started(tmp_path / "c", snap_bytes="20B")
    started.receive(b"0123456789")
    started.service.stop()
    [block] = [each for each in blocks_of(started.path.read_bytes()) if each[:4] == b"\6\0\0\0"]
    assert struct.unpack_from("<II", block, 20) == (20, 60)
    assert [data for _, data in frames_in(started.path)] == [frame(b"012345")[:20]]


def test_the_loopbacks_own_copies_are_left_out(started: Started) -> None:
    """Of an interface that is not the loopback both directions are kept."""
    started.receive(b"sent", outgoing=True)
    started.receive(b"received", outgoing=False)
    started.service.stop()
    assert started.numbers() == [b"received"]


def test_several_interfaces_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is described once in each file, before its first frame."""
    real = Capture._look_at
    monkeypatch.setattr(Capture, "_look_at", lambda self, name: real(self, "lo"))
    started = Started(tmp_path / "c", max_file=4096, keep=9)
    for number in range(6):
        for name in ("one", "two"):
            started.receive(b"%d" % number * 500, interface=name)
    started.service.stop()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for path in files:
        data = path.read_bytes()
        assert data.startswith(PCAPNG_START)
        assert data.count(b"one\0") == data.count(b"two\0") == 1
    total = [
        data[14:15] for path in (*reversed(files[1:]), files[0]) for _, data in frames_in(path)
    ]
    assert total == [b"%d" % number for number in range(6) for _ in range(2)]


def test_an_unknown_interface_is_lost_and_counted(started: Started, logged: list[Any]) -> None:
    """Its frames are left out, which is told at the end."""
    started.receive(b"x", b"y", interface="no-such-one")
    started.service.stop()
    [told] = [event for event in logged if event.get("event") == "capture_lost"]
    assert told["lost"] == 2
    assert started.path.stat().st_size == 0


def full_after(bytes_left: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the disk take so many bytes more; the list's only number may be raised."""
    left, real = [bytes_left], os.write

    def write(fd: int, data: Any) -> int:
        taken = bytes(data)[: left[0]]
        left[0] -= len(taken)
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, taken)

    monkeypatch.setattr(rotation.os, "write", write)
    return left


def test_a_full_disk_is_told_once_and_outlived(
    started: Started, monkeypatch: pytest.MonkeyPatch, logged: list[Any], logged_failures: Any
) -> None:
    """What had been written stays whole; when there is room again the capture goes on."""
    started.receive(b"before")
    started.clock.advance(1)
    left = full_after(150, monkeypatch)
    for _ in range(3):
        started.receive(b"lost", b"lost")
        started.clock.advance(1)
    assert started.numbers() == [b"before"]
    left[0] = 10_000
    started.receive(b"after")
    started.clock.advance(1)
    assert started.numbers() == [b"before", b"after"]
    started.service.stop()
    told = {event["event"]: event for event in logged if "event" in event}
    assert [event["event"] for event in logged if "event" in event] == [
        "capture_failed",
        "capture_lost",
        "capture_ended",
    ]
    assert (told["capture_failed"]["code"], told["capture_failed"]["lost"]) == ("ENOSPC", 2)
    assert told["capture_lost"]["lost"] == 6
    assert (told["capture_ended"]["written"], told["capture_ended"]["lost"]) == (2, 6)
    logged_failures.clear()


def test_a_file_that_cannot_be_cut_is_left_behind(
    started: Started, monkeypatch: pytest.MonkeyPatch, logged_failures: Any
) -> None:
    """Where a torn block would stay, what follows begins a new file."""
    started.receive(b"before")
    started.clock.advance(1)
    left = full_after(150, monkeypatch)

    def refuse(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(rotation.os, "ftruncate", refuse)
    started.receive(b"lost", b"lost")
    started.clock.advance(1)
    left[0] = 10_000
    started.receive(b"after")
    started.service.stop()
    assert started.numbers() == [b"after"]
    assert started.path.with_name("c.pcapng.1").exists()
    logged_failures.clear()


def test_an_empty_file_sets_nothing_aside(started: Started) -> None:
    """A daemon that starts again and again does not push out what was captured."""
    started.receive(b"one")
    started.service.stop()
    for _ in range(8):
        again = Started(started.path)
        again.service.stop()
    assert started.numbers(".1") == [b"one"]
    assert not started.path.with_name("c.pcapng.2").exists()


def test_only_files_are_written_to(tmp_path: Path) -> None:
    """A pipe without a reader, or a device, would hold up the daemon."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with pytest.raises(OSError, match="is no regular file") as caught:
            Started(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "Field required"),
        ({"file": ""}, "at least 1 character"),
        ({"file": "f", "max_file": "1KiB"}, "greater than or equal to 4096"),
        ({"file": "f", "snap_bytes": "1MiB"}, "less than or equal to 262144"),
        ({"file": "f", "snap_bytes": "0"}, "greater than or equal to 1"),
        ({"file": "f", "max_file": "much"}, "must be a size such as"),
        ({"file": "f", "keep": 0}, "greater than or equal to 1"),
        ({"file": "f", "files": 1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, object], said: str) -> None:
    """Each key has its limits."""
    with pytest.raises(pydantic.ValidationError, match=said):
        CaptureSettings.model_validate(settings)


def test_sizes_are_written_as_people_do() -> None:
    """The settings are read back from how they are shown."""
    shown = CaptureSettings(file="f").model_dump()
    assert shown == {"file": "f", "snap_bytes": "256KiB", "max_file": "100MiB", "keep": 5}
    assert CaptureSettings.model_validate(shown) == CaptureSettings(file="f")
