"""Classic capture files. The oracles are scapy, tcpdump and bytes by hand."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.errors import PacketError
from twistedsock.wire import capture_files, pcap
from twistedsock.wire.captured import LINKTYPE_RAW, Captured

quick = settings(max_examples=300, deadline=None)
AT_NS = 1_700_000_000_123_456_789
FRAME = bytes.fromhex("000000000000 000000000000 0800") + b"payload"


def read(data: bytes, reader: Any = None) -> tuple[list[Captured], str | None]:
    """Return the packets of a whole file, and its fault."""
    return read_pieces([data], reader)


def read_pieces(pieces: Iterable[bytes], reader: Any = None) -> tuple[list[Captured], str | None]:
    """Return the packets of a file that comes in pieces, and its fault."""
    reader = pcap.Reader() if reader is None else reader
    found: list[Captured] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        reader.end()
    except PacketError as error:
        return found, str(error)
    return found, None


def chopped(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return *data* in pieces."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def by_hand(order: str, magic: int, fraction: int, link_type: int = 1) -> bytes:
    """Return a file of one packet of nine bytes, of which four were kept."""
    head = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 65535, link_type)
    return head + struct.pack(f"{order}IIII", 1_700_000_000, fraction, 4, 9) + b"abcd"


def tcpdump() -> str:
    found = shutil.which("tcpdump")
    if found is None:
        pytest.skip("needs the Debian package tcpdump")
    return found


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("magic", "fraction", "at_ns"),
    [
        (0xA1B2C3D4, 123_456, 1_700_000_000_123_456_000),
        (0xA1B23C4D, 123_456_789, 1_700_000_000_123_456_789),
    ],
)
def test_every_variant_is_read(order: str, magic: int, fraction: int, at_ns: int) -> None:
    """Both byte orders, micro- and nanoseconds: by the first bytes of the file."""
    expected = Captured(at_ns, b"abcd", 9, LINKTYPE_RAW)
    assert read(by_hand(order, magic, fraction, LINKTYPE_RAW)) == ([expected], None)


def test_scapy_reads_what_is_written(tmp_path: Path) -> None:
    """scapy finds the packet, its time to the nanosecond, and its length before it was cut."""
    scapy = pytest.importorskip("scapy.utils")
    path = tmp_path / "file.pcap"
    path.write_bytes(pcap.header() + pcap.record(AT_NS, FRAME, 1500))
    [(data, told)] = list(scapy.RawPcapReader(str(path)))
    assert data == FRAME
    assert (told.sec * 10**9 + told.usec, told.wirelen) == (AT_NS, 1500)


@pytest.mark.parametrize("is_nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_scapy_writes_is_read(tmp_path: Path, is_nano: bool, order: str) -> None:
    """Files of scapy, of either byte order and precision, give the packet and its time."""
    scapy = pytest.importorskip("scapy.utils")
    path = tmp_path / "file.pcap"
    writer = scapy.RawPcapWriter(str(path), linktype=1, endianness=order, nano=is_nano, sync=True)
    writer.write_header(None)
    fraction = 123_456_789 if is_nano else 123_456
    writer.write_packet(FRAME, sec=1_700_000_000, usec=fraction, wirelen=99)
    writer.close()
    at_ns = AT_NS if is_nano else AT_NS // 1000 * 1000
    assert read(path.read_bytes()) == ([Captured(at_ns, FRAME, 99)], None)


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    """tcpdump tells the same nanoseconds, and that the packet was cut."""
    path = tmp_path / "file.pcap"
    frame = bytes(12) + bytes.fromhex("88b5") + b"experiment"
    path.write_bytes(pcap.header() + pcap.record(AT_NS, frame) + pcap.record(AT_NS + 1, frame, 99))
    done = run(tcpdump(), "-r", path, "-tt", "--nano", "-n", "-e")
    assert done.returncode == 0
    first, second = (line for line in done.stdout.splitlines() if line.startswith("1700"))
    assert first.startswith("1700000000.123456789 ")
    assert second.startswith("1700000000.123456790 ")
    assert "length 99" in second


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=40), st.integers(0, 99)),
        max_size=6,
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_any_chopping_gives_the_same(
    packets: list[tuple[int, bytes, int]], cuts: list[int]
) -> None:
    """What is written is read again, however the file is cut into pieces."""
    whole = pcap.header(7) + b"".join(pcap.record(at, data, size) for at, data, size in packets)
    expected = [Captured(at, data, size, 7) for at, data, size in packets]
    assert read_pieces(chopped(whole, cuts)) == (expected, None)
    assert read_pieces(chopped(whole, range(len(whole)))) == (expected, None)


def test_a_file_that_ends_early_gives_its_whole_packets() -> None:
    """Wherever a file was cut, each whole record is returned and the end tells what is left."""
    head, one = pcap.header(), pcap.record(AT_NS, FRAME)
    whole = head + one * 2
    for end in range(len(whole)):
        found, fault = read(whole[:end])
        assert len(found) == max(0, end - len(head)) // len(one)
        if end < len(head):
            assert fault == f"pcap: header at byte 0: cut short, {end} of 24 bytes are there"
        elif rest := (end - len(head)) % len(one):
            text = f"cut short, {rest} bytes of it are there"
            assert fault == f"pcap: record at byte {end - rest}: {text}"
        else:
            assert fault is None


def test_faults_say_what_would_be_right() -> None:
    """A wrong beginning, version or length is told with its place."""
    magic = "a1b2c3d4 or a1b23c4d was expected, in either byte order, got 30313233"
    assert read(b"0123456789") == ([], f"pcap: header at byte 0: {magic}")
    odd = bytearray(by_hand("<", 0xA1B2C3D4, 0))
    odd[4] = 3
    assert read(bytes(odd)) == ([], "pcap: header at byte 0: version 2.4 was expected, got 3.4")
    huge = struct.pack("<IIII", 0, 0, 2**24 + 1, 0)
    found, fault = read(by_hand("<", 0xA1B2C3D4, 0) + huge)
    assert len(found) == 1
    assert fault == "pcap: record at byte 44: at most 16777216 bytes, got 16777217"


def test_a_fault_comes_after_what_was_whole_and_again() -> None:
    """The call that has packets returns them; each one after it tells the fault."""
    reader = pcap.Reader()
    assert len(reader.feed(by_hand("<", 0xA1B2C3D4, 0) + b"\xff" * 16)) == 1
    for call in (lambda: reader.feed(b""), reader.end):
        with pytest.raises(PacketError, match="record at byte 44"):
            call()


def test_what_does_not_fit_is_refused() -> None:
    """A time before 1970 or after 2106, and a length beyond 32 bits, have no place in a file."""
    for at_ns in (-1, 2**32 * 10**9):
        with pytest.raises(PacketError, match="pcap: "):
            pcap.record(at_ns, b"")
    with pytest.raises(PacketError, match="pcap: "):
        pcap.record(0, b"", 2**32)
    with pytest.raises(PacketError, match="pcap: "):
        pcap.header(-1)


def no_other_error(data: bytes) -> None:
    for reader in (pcap.Reader(), capture_files.Reader()):
        found, _ = read(data, reader)
        assert sum(len(packet.data) for packet in found) <= len(data)


@quick
@given(st.sampled_from(list(pcap.VARIANTS)), st.binary(max_size=120))
def test_random_bytes_raise_only_packet_errors(magic: bytes, rest: bytes) -> None:
    """Whatever follows the first bytes, nothing is invented and no other error comes out."""
    no_other_error(magic + rest)
    no_other_error(magic + b"\2\0\4\0" + rest)
    no_other_error(rest)


def test_the_kind_of_file_is_told_by_its_first_bytes() -> None:
    """pcap is known however it comes in; what is neither is refused with its beginning."""
    whole = by_hand(">", 0xA1B2C3D4, 0)
    pieces = chopped(whole, range(len(whole)))
    assert read_pieces(pieces, capture_files.Reader()) == read(whole)
    text = "neither pcap nor pcapng begins with the bytes 89504e47"
    assert read(b"\x89PNG\r\n", capture_files.Reader()) == ([], f"capture file: {text}")
    text = "2 bytes are too few to begin a pcap or pcapng file"
    assert read(b"\xa1\xb2", capture_files.Reader()) == ([], f"capture file: {text}")
