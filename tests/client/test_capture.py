"""Captures for programs, in networks of their own; tcpdump reads what is recorded."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from captures import held, send_to, sink
from conftest import Failures, pause, run, until, within
from networks import THERE, Network, network, open_on
from twisted.internet.defer import Deferred, ensureDeferred

from twistedsock.client.capture import Capture, Captured, FileError, InterfaceLost, capture
from twistedsock.client.capture_file import CaptureFile, open_capture_file
from twistedsock.client.capture_source import parse_interface
from twistedsock.errors import AddressError, BindError, FilterError
from twistedsock.wire import pcapng
from twistedsock.wire.bpf import Instruction

__all__ = ["network", "sink"]
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments


def begun(network: Network, where: str = "packet:lo", **more: Any) -> Capture:
    """Return a capture on the daemon's machine."""
    from twisted.internet import reactor

    made: Capture = network.here.inside(lambda: capture(reactor, where, **more))
    return made


async def payloads(capturing: Capture, count: int) -> list[bytes]:
    """Return what the next *count* datagrams carry."""

    async def take() -> list[bytes]:
        found: list[bytes] = []
        async for packet in capturing:
            found.append(packet.data[42:])
            if len(found) == count:
                break
        return found

    return await within(ensureDeferred(take()))


def read_file(path: Path) -> list[Captured]:
    """Return the packets of a file, which must be whole."""
    reader = pcapng.Reader()
    found = reader.feed(path.read_bytes())
    reader.end()
    return found


# -- one by one --


@pytest_twisted.ensureDeferred
async def test_packets_come_one_by_one(network: Network, sink: socket.socket) -> None:
    """An async for sees each packet in order, also those that come while it waits."""
    with begun(network) as capturing:
        assert (capturing.interface, capturing.link_type) == ("lo", 1)
        send_to(sink, b"one", b"two")
        assert await payloads(capturing, 2) == [b"one", b"two"]
        waiting = ensureDeferred(payloads(capturing, 2))
        await pause(0.1)
        assert not waiting.called
        send_to(sink, b"three")
        await pause(0.1)
        send_to(sink, b"four")
        assert await within(waiting) == [b"three", b"four"]
        assert capturing.statistics.delivered == 4
        assert capturing.statistics.received == 4


@pytest_twisted.ensureDeferred
async def test_the_count_ends_it(network: Network, sink: socket.socket) -> None:
    """After so many packets the loop ends, everything is closed and the figures are told."""
    before = held()
    capturing = begun(network, count=2)
    send_to(sink, b"one", b"two", b"three")

    async def take() -> list[bytes]:
        return [packet.data[42:] async for packet in capturing]

    assert await within(ensureDeferred(take())) == [b"one", b"two"]
    assert held() == before
    figures = await within(capturing.finished())
    assert (figures.delivered, figures.dropped, figures.received) == (2, 0, 3)


@pytest_twisted.ensureDeferred
async def test_a_stop_hands_out_what_has_come(network: Network, sink: socket.socket) -> None:
    """After a stop nothing new is taken, and the loop ends behind what was there."""
    capturing = begun(network)
    send_to(sink, b"before")
    capturing.stop()
    send_to(sink, b"after")

    async def take() -> list[bytes]:
        return [packet.data[42:] async for packet in capturing]

    assert await within(ensureDeferred(take())) == [b"before"]


@pytest_twisted.ensureDeferred
async def test_a_close_ends_whoever_waits(network: Network) -> None:
    """A close ends the loop that waits, leaves nothing open and may be repeated."""
    before = held()
    capturing = begun(network)
    waiting = ensureDeferred(payloads(capturing, 1))
    await pause(0.05)
    capturing.close()
    assert await within(waiting) == []
    assert held() == before
    capturing.close()
    assert (await within(capturing.finished())).delivered == 0


@pytest_twisted.ensureDeferred
async def test_a_cancelled_wait_loses_nothing(network: Network, sink: socket.socket) -> None:
    """Whoever gives up waiting, as by a time-out, may wait again."""
    with begun(network) as capturing:
        waiting = ensureDeferred(capturing.__anext__())
        await pause(0.05)
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        send_to(sink, b"late")
        assert await payloads(capturing, 1) == [b"late"]


@pytest_twisted.ensureDeferred
async def test_only_one_may_wait(network: Network) -> None:
    """A second reader is an error rather than a riddle."""
    with begun(network) as capturing:
        waiting = ensureDeferred(payloads(capturing, 1))
        with pytest.raises(RuntimeError, match="waits for this capture's next packet already"):
            await capturing.__anext__()
        capturing.close()
        assert await within(waiting) == []


# -- a function --


@pytest_twisted.ensureDeferred
async def test_a_function_sees_each_packet(network: Network, sink: socket.socket) -> None:
    """on_packet is called with each packet, in order, until the count is reached."""
    seen: list[Captured] = []
    capturing = begun(network, on_packet=seen.append, count=3)
    send_to(sink, b"one", b"two", b"three", b"four")
    figures = await within(capturing.finished())
    assert [packet.data[42:] for packet in seen] == [b"one", b"two", b"three"]
    assert figures.delivered == 3


@pytest_twisted.ensureDeferred
async def test_a_function_may_close_its_capture(network: Network, sink: socket.socket) -> None:
    """A close from inside the function is the last that it hears."""
    seen: list[Captured] = []

    def hear(packet: Captured) -> None:
        seen.append(packet)
        capturing.close()

    capturing = begun(network, on_packet=hear)
    send_to(sink, b"one", b"two")
    await within(capturing.finished())
    assert len(seen) == 1


@pytest_twisted.ensureDeferred
async def test_what_a_function_raises_ends_the_capture(
    network: Network, sink: socket.socket
) -> None:
    """Its exception is what finished() fails with, and nothing is left open."""
    before = held()

    def fail(_: Captured) -> None:
        raise LookupError("the program's own fault")

    capturing = begun(network, on_packet=fail)
    send_to(sink, b"one")
    with pytest.raises(LookupError, match="own fault"):
        await within(capturing.finished())
    assert held() == before


@pytest_twisted.ensureDeferred
async def test_a_failure_that_nobody_waits_for_is_logged(
    network: Network, sink: socket.socket, logged_failures: Failures
) -> None:
    """What a function raises does not vanish where nobody has called finished()."""

    def fail(_: Captured) -> None:
        raise LookupError("the program's own fault")

    capturing = begun(network, on_packet=fail)
    send_to(sink, b"one")
    await until(lambda: logged_failures)
    logged_failures.take(LookupError)
    with pytest.raises(LookupError, match="own fault"):
        await capturing.finished()


@pytest_twisted.ensureDeferred
async def test_a_failure_behind_a_close_is_logged(
    network: Network, sink: socket.socket, logged_failures: Failures
) -> None:
    """A function that closes its capture and then raises ends it in order, and is told of."""

    def fail(_: Captured) -> None:
        capturing.close()
        raise LookupError("the program's own fault")

    capturing = begun(network, on_packet=fail)
    send_to(sink, b"one")
    assert (await within(capturing.finished())).delivered == 1
    await until(lambda: logged_failures)
    logged_failures.take(LookupError)


# -- a file --


@pytest_twisted.ensureDeferred
async def test_a_file_is_recorded(network: Network, sink: socket.socket, tmp_path: Path) -> None:
    """Data of every length modulo four is recorded as it was; the file ends with the figures."""
    path = tmp_path / "file.pcapng"
    path.write_bytes(b"what was there before" * 1000)
    sent = [os.urandom(size) for size in (1, 2, 3, 4, 1000, 65_507)]
    before = time.time_ns()
    capturing = begun(network, file=path)
    send_to(sink, *sent)
    capturing.stop()
    figures = await within(capturing.finished())
    packets = read_file(path)
    assert [packet.data[42:] for packet in packets] == sent
    assert all(before < (packet.received_at_ns or 0) < time.time_ns() for packet in packets)
    assert figures.delivered == len(sent)
    assert figures.written_bytes == path.stat().st_size
    reader = pcapng.Reader()
    reader.feed(path.read_bytes())
    assert reader.interfaces[0].name == "lo"
    assert (reader.statistics[0].received, reader.statistics[0].dropped) == (len(sent), 0)


@pytest_twisted.ensureDeferred
async def test_a_recording_is_what_the_function_sees(network: Network, tmp_path: Path) -> None:
    """Recorded and handed out at once, packets are the same: cut ones, tagged ones, and ways."""
    path = tmp_path / "file.pcapng"
    seen: list[Captured] = []
    more: dict[str, Any] = {"snap_bytes": 61, "filter": "ether proto 0x88b5 or vlan"}
    recording = begun(network, "wire", file=path, **more)
    showing = begun(network, "wire", on_packet=seen.append, **more)
    addresses = bytes.fromhex("ffffffffffff 020000000009")
    with (
        open_on(network.there, socket.AF_PACKET, socket.SOCK_RAW, 0, ("wire", 3)) as there,
        open_on(network.here, socket.AF_PACKET, socket.SOCK_RAW, 0, ("wire", 3)) as here,
    ):
        for size in range(46, 54):
            tail = struct.pack("!H", ETHERTYPE) + os.urandom(size)
            there.send(addresses + struct.pack("!HH", 0x8100, 7) + tail)
            here.send(addresses + tail)
    for capturing in (recording, showing):
        capturing.stop()
        assert (await within(capturing.finished())).delivered == 16
    recorded = read_file(path)
    # Each socket looks at the clock for itself.
    assert [replace(each, received_at_ns=0) for each in recorded] == [
        replace(each, received_at_ns=0) for each in seen
    ]
    for one, other in zip(recorded, seen, strict=True):
        assert abs((one.received_at_ns or 0) - (other.received_at_ns or 0)) < 10**8
    assert [packet.outgoing for packet in seen] == [False, True] * 8
    assert {len(packet.data) for packet in seen} == {60, 61}
    assert seen[0].data[12:16] == struct.pack("!HH", 0x8100, 7)


@pytest_twisted.ensureDeferred
async def test_many_packets_are_recorded_in_order(
    network: Network, sink: socket.socket, tmp_path: Path
) -> None:
    """Thousands of packets of all lengths, over many blocks and writes, are there in order."""
    path = tmp_path / "file.pcapng"
    count = 6000
    capturing = begun(network, file=path, count=count)
    for start in range(0, count, 100):
        numbers = range(start, start + 100)
        send_to(sink, *(struct.pack("!I", each) + bytes(each % 7) for each in numbers))
        await pause()
    await within(capturing.finished())
    packets = read_file(path)
    told = [packet.data[42:] for packet in packets]
    assert told == [struct.pack("!I", each) + bytes(each % 7) for each in range(count)]
    assert packets == sorted(packets, key=lambda packet: packet.received_at_ns or 0)


@pytest_twisted.ensureDeferred
async def test_tcpdump_reads_a_recording(network: Network, tmp_path: Path) -> None:
    """tcpdump finds as many packets as were recorded, with a filter's text among the rest."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("needs the Debian package tcpdump")
    path = tmp_path / "file.pcapng"
    capturing = begun(network, "wire", file=path, filter="icmp")
    assert network.here.run(f"ping -c 2 -i 0.2 {THERE[0]}").returncode == 0
    capturing.stop()
    assert (await within(capturing.finished())).delivered == 4
    done = run(tcpdump, "-n", "-r", path)
    assert done.returncode == 0, done.stderr
    assert [word in done.stdout for word in ("echo request", "echo reply")] == [True, True]
    assert len(done.stdout.splitlines()) == 4


@pytest_twisted.ensureDeferred
async def test_a_full_disk_ends_it(network: Network, sink: socket.socket) -> None:
    """What cannot be written ends the capture with the system's word; nothing is left open."""
    before = held()
    with pytest.raises(FileError, match=r"^/dev/full: No space left on device \(ENOSPC\)$"):
        begun(network, file="/dev/full")
    assert held() == before


def test_a_file_that_can_grow_no_more_keeps_whole_blocks(tmp_path: Path) -> None:
    """Where only a part of a write finds room, that part is taken back: the file can be read."""
    path = tmp_path / "file.pcapng"
    file = open_capture_file(path)
    whole = [pcapng.section_header(), pcapng.interface("lo"), pcapng.packet(0, 1, b"one")]
    file.write(whole)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, before[1]))
    try:
        with pytest.raises(FileError, match=r"File too large \(EFBIG\)$"):
            file.write([pcapng.packet(0, 2, bytes(100)), pcapng.packet(0, 3, b"three")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.close()
    assert file.written_bytes == path.stat().st_size
    assert [packet.data for packet in read_file(path)] == [b"one"]


def test_a_pipe_that_nobody_reads_is_left(tmp_path: Path) -> None:
    """Once the rest is not wanted any more a full pipe is not waited for."""
    reading, writing = os.pipe()
    file = CaptureFile(writing, "pipe", is_wanted=lambda: False)
    began = time.monotonic()
    file.write([bytes(1 << 20)])
    file.write([bytes(1 << 20)])
    assert time.monotonic() - began < 2
    file.close()
    os.close(reading)


def test_standard_output_is_never_cut(tmp_path: Path) -> None:
    """What stands before us in a file that was redirected to stays there."""
    path = tmp_path / "output"
    path.write_bytes(b"before")
    file = CaptureFile(os.open(path, os.O_WRONLY | os.O_APPEND), "standard output")
    file.empty()
    file.write([b" and", b" after"])
    file.close()
    assert path.read_bytes() == b"before and after"
    with pytest.raises(FileError, match=r"^/nosuch/file: No such file or directory \(ENOENT\)$"):
        open_capture_file("/nosuch/file")


# -- what ends it, and what is refused --


@pytest.mark.parametrize("how", ["pulled", "pushed", "recorded"])
@pytest_twisted.ensureDeferred
async def test_an_interface_that_goes_ends_it(network: Network, how: str, tmp_path: Path) -> None:
    """What it brought is delivered first, and then it is told; nothing is left open."""
    before = held()
    network.here.setup(
        "ip link add gone type veth peer name gone2", "ip link set gone up", "ip link set gone2 up"
    )
    path, seen = tmp_path / "file.pcapng", list[Captured]()
    more: dict[str, Any] = {
        "pulled": {},
        "pushed": {"on_packet": seen.append},
        "recorded": {"file": path},
    }[how]
    capturing = begun(network, "gone", filter="ether proto 0x88b5", **more)
    done: Deferred[Any] = capturing.finished()
    try:
        with open_on(network.here, socket.AF_PACKET, socket.SOCK_RAW, 0, ("gone2", 3)) as sock:
            sock.send(bytes(12) + struct.pack("!H", ETHERTYPE) + b"last words".ljust(46))
    finally:
        network.here.setup("ip link del gone")

    async def take() -> None:
        async for packet in capturing:
            seen.append(packet)

    with pytest.raises(InterfaceLost, match=r"^packet:gone: the interface went down or away: "):
        await within(ensureDeferred(take()) if how == "pulled" else done)
    if how == "pulled":
        done.addErrback(lambda failure: failure.trap(InterfaceLost))
    assert len(read_file(path) if how == "recorded" else seen) == 1
    assert held() == before


@pytest.mark.parametrize(
    ("where", "more", "kind", "text"),
    [
        ("nosuch", {}, BindError, r"^packet:nosuch: No such device \(ENODEV\)$"),
        ("lo", {"filter": "port what"}, FilterError, "^'port what', character 6: "),
        ("tcp:80", {}, AddressError, r'^must name an interface such as "packet:lo", got "tcp:'),
        ("a b", {}, AddressError, 'must name an interface such as "packet:lo"'),
        ("lo", {"count": 0}, ValueError, "^count must be above zero, got 0$"),
        ("lo", {"on_packet": print, "file": "x"}, ValueError, "on_packet or a file, not both"),
        ("lo", {"file": "/nosuch/x"}, FileError, r"^/nosuch/x: .*\(ENOENT\)$"),
        ("lo", {"filter": (Instruction(0xFF, 0, 0, 0),)}, ValueError, "."),
    ],
)
def test_what_is_wrong_is_refused(
    network: Network, where: str, more: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """A wrong interface, filter, count or file is told at once, and nothing is left open."""
    before = held()
    with pytest.raises(kind, match=text):
        begun(network, where, **more)
    assert held() == before


def test_a_file_is_left_as_it_is_where_nothing_can_be_captured(
    network: Network, tmp_path: Path
) -> None:
    """A recording of old is not emptied for a capture that does not begin."""
    path = tmp_path / "file.pcapng"
    path.write_bytes(b"precious")
    with pytest.raises(FilterError):
        begun(network, file=path, filter="foo")
    assert path.read_bytes() == b"precious"


@pytest_twisted.ensureDeferred
async def test_a_filter_is_applied(network: Network, sink: socket.socket) -> None:
    """Only what a filter takes comes, be it a text or a program."""
    port = sink.getsockname()[1]
    accept = (Instruction(0x06, 0, 0, 50),)
    with (
        begun(network, filter=f"udp dst port {port} and greater 60") as by_text,
        begun(network, filter=accept) as by_program,
    ):
        send_to(sink, b"short", b"long enough to be seen")
        assert await payloads(by_text, 1) == [b"long enough to be seen"]
        assert await payloads(by_program, 2) == [b"short", b"long eno"]


def test_interfaces_have_two_spellings() -> None:
    """``lo`` and ``packet:lo`` are the same."""
    assert parse_interface("lo") == parse_interface("packet:lo")
    assert parse_interface(parse_interface("lo")).path == "lo"


def test_a_capture_that_never_began_leaves_no_file(tmp_path: Path) -> None:
    """A file that was made for it goes again; one that was there before stays as it was."""
    from twisted.internet import reactor

    new, old = tmp_path / "new.pcapng", tmp_path / "old.pcapng"
    old.write_bytes(b"of before")
    for path in (new, old):
        with pytest.raises(BindError, match="nosuch"):
            capture(reactor, "packet:nosuch", file=path)
    assert not new.exists()
    assert old.read_bytes() == b"of before"
