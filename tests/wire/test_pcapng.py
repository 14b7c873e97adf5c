"""pcapng files. The oracles are tcpdump, tshark, dumpcap, scapy and bytes by hand."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

import pytest
from conftest import run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pcap import AT_NS, FRAME, chopped, read_pieces

from twistedsock.errors import PacketError
from twistedsock.wire import capture_files, pcapng
from twistedsock.wire.captured import LINKTYPE_RAW, Captured

quick = settings(max_examples=300, deadline=None)
SECTION = pcapng.section_header("program", "machine", "system")


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs the Debian package {package}")
    return found


def read(data: bytes) -> tuple[list[Captured], str | None]:
    return read_pieces([data], pcapng.Reader())


def block(order: str, kind: int, body: bytes) -> bytes:
    """Return a block, by hand."""
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def option(order: str, code: int, value: bytes) -> bytes:
    """Return an option, by hand."""
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str) -> bytes:
    """Return a section header, by hand."""
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, options: bytes = b"", link_type: int = 1, snap_bytes: int = 0) -> bytes:
    """Return an interface, by hand."""
    head = struct.pack(f"{order}HHI", link_type, 0, snap_bytes)
    return block(order, 1, head + options)


def enhanced(
    order: str, number: int, stamp: int, data: bytes, whole: int, options: bytes = b""
) -> bytes:
    """Return an enhanced packet, by hand."""
    head = struct.pack(f"{order}5I", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), whole)
    return block(order, 6, head + data + bytes(-len(data) % 4) + options)


def written() -> bytes:
    """Return a file of ours: two interfaces, three packets and statistics."""
    return b"".join(
        [
            SECTION,
            pcapng.interface("eth0", 1, 65_535, "udp port 53"),
            pcapng.interface("tun0", LINKTYPE_RAW),
            pcapng.packet(0, AT_NS, FRAME, 1500, outgoing=True),
            pcapng.packet(1, AT_NS + 1, b"\x45", outgoing=False),
            pcapng.packet(0, AT_NS + 2, FRAME),
            pcapng.statistics(0, AT_NS, AT_NS + 3, 7, 5),
        ]
    )


# -- writing --


def test_what_is_written_is_read_again() -> None:
    """Packets, interfaces and statistics of ours come back as they were."""
    reader = pcapng.Reader()
    expected = [
        Captured(AT_NS, FRAME, 1500, 1, "eth0", True),
        Captured(AT_NS + 1, b"\x45", 1, LINKTYPE_RAW, "tun0", False),
        Captured(AT_NS + 2, FRAME, len(FRAME), 1, "eth0", None),
    ]
    assert reader.feed(written()) == expected
    reader.end()
    assert reader.statistics == {0: pcapng.Statistics(0, 7, 5, AT_NS + 3)}
    assert [(each.name, each.snap_bytes) for each in reader.interfaces] == [
        ("eth0", 65_535),
        ("tun0", 262_144),
    ]


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    """tcpdump tells the same nanoseconds, for data of every length modulo four."""
    path = tmp_path / "file.pcapng"
    frames = [bytes(12) + bytes.fromhex("88b5") + bytes(size) for size in range(46, 50)]
    packets = [pcapng.packet(0, AT_NS + each, frame) for each, frame in enumerate(frames)]
    path.write_bytes(SECTION + pcapng.interface("lo") + b"".join(packets))
    done = run(tool("tcpdump", "tcpdump"), "-r", path, "-tt", "--nano", "-n", "-e")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("1700")]
    assert [line.split()[0] for line in lines] == [
        f"1700000000.{123_456_789 + each}" for each in range(4)
    ]
    for frame, line in zip(frames, lines, strict=True):
        assert f"length {len(frame)}" in line


def test_tshark_reads_what_is_written(tmp_path: Path) -> None:
    """tshark tells nanoseconds, interfaces, lengths and directions as they were written."""
    path = tmp_path / "file.pcapng"
    path.write_bytes(written())
    names = [
        "frame.time_epoch",
        "frame.interface_name",
        "frame.len",
        "frame.packet_flags_direction",
    ]
    fields = [word for name in names for word in ("-e", name)]
    done = run(tool("tshark", "tshark"), "-r", path, "-T", "fields", *fields)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["1700000000.123456789", "eth0", "1500"],
        ["1700000000.123456790", "tun0", "1"],
        ["1700000000.123456791", "eth0", str(len(FRAME))],
    ]
    assert [int(row[3], 0) if row[3] else None for row in rows] == [2, 1, None]


def test_capinfos_reads_what_is_written(tmp_path: Path) -> None:
    """capinfos tells the program, the filter and the counters that were written."""
    path = tmp_path / "file.pcapng"
    path.write_bytes(written())
    done = run(tool("capinfos", "wireshark-common"), path)
    assert done.returncode == 0, done.stderr
    for text in ("program", "machine", "system", "Filter string = udp port 53", "Name = eth0"):
        assert text in done.stdout
    assert "Number of stat entries = 1" in done.stdout


def test_scapy_reads_what_is_written(tmp_path: Path) -> None:
    """scapy finds the packets, and their time to the nanosecond."""
    scapy = pytest.importorskip("scapy.utils")
    path = tmp_path / "file.pcapng"
    path.write_bytes(SECTION + pcapng.interface("lo") + pcapng.packet(0, AT_NS, FRAME, 1500))
    [(data, told)] = list(scapy.RawPcapNgReader(str(path)))
    assert data == FRAME
    assert (told.tshigh << 32 | told.tslow, told.wirelen) == (AT_NS, 1500)


def test_what_does_not_fit_is_refused() -> None:
    """Numbers beyond their bits and texts beyond an option are errors of ours."""
    for make in (
        lambda: pcapng.packet(0, -1, b""),
        lambda: pcapng.packet(0, 2**64, b""),
        lambda: pcapng.packet(2**32, 0, b""),
        lambda: pcapng.packet(0, 0, b"", -1),
        lambda: pcapng.interface("x" * 65_536),
        lambda: pcapng.interface(link_type=65_536),
        lambda: pcapng.statistics(0, 0, 0, -1, 0),
        lambda: pcapng.section_header("x" * 70_000),
    ):
        with pytest.raises(PacketError, match="pcapng: "):
            make()


def test_checksums_that_were_not_ready_are_told() -> None:
    """Bit 9 of the flags says so, beside a direction and alone; both are written and read."""
    for bits, outgoing in ((0x200, None), (0x201, False), (0x202, True)):
        flags = option("<", 2, struct.pack("<I", bits)) + option("<", 0, b"")
        block = enhanced("<", 0, AT_NS, FRAME, len(FRAME), flags)
        assert pcapng.packet(0, AT_NS, FRAME, None, outgoing, checksums_known=False) == block
        [packet], _ = read(section("<") + interface("<") + block)
        assert (packet.outgoing, packet.checksums_known) == (outgoing, False)


# -- reading --


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "stamp", "at_ns"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (b"\x09", 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (b"\x03", 1_700_000_000_123, 1_700_000_000_123_000_000),
        (b"\x0c", 5_000_000_000_123_456, 5_000_000_000_123),
        (b"\x94", 3 << 19, 1_500_000_000),  # 2^-20
        (b"\x80", 7, 7_000_000_000),
        (b"\xff", 1 << 63, 0),  # 2^-127
        (b"\x7f", 1 << 63, 0),  # 10^-127
    ],
)
def test_every_resolution_is_read(
    order: str, resolution: bytes | None, stamp: int, at_ns: int
) -> None:
    """if_tsresol is a power of ten or of two, and microseconds where it is missing."""
    options = b"" if resolution is None else option(order, 9, resolution)
    file = section(order) + interface(order, options) + enhanced(order, 0, stamp, b"abc", 9)
    assert read(file) == ([Captured(at_ns, b"abc", 9)], None)


@pytest.mark.parametrize("order", ["<", ">"])
def test_offset_name_and_direction_are_read(order: str) -> None:
    """if_tsoffset is added in seconds, if_name names, and epb_flags tells the direction."""
    options = option(order, 2, b"eth7") + option(order, 14, struct.pack(f"{order}q", -5))
    options += option(order, 0, b"")
    file = section(order) + interface(order, options, LINKTYPE_RAW)
    directions = {0: None, 1: False, 2: True, 3: None}
    for bits in directions:
        flags = option(order, 2, struct.pack(f"{order}I", bits | 0x1F0))
        file += enhanced(order, 0, 6_000_001, b"abcde", 5, option(order, 1, b"comment") + flags)
    found, fault = read(file)
    assert fault is None
    assert found == [
        Captured(1_000_001_000, b"abcde", 5, LINKTYPE_RAW, "eth7", told)
        for told in directions.values()
    ]


@pytest.mark.parametrize("order", ["<", ">"])
def test_simple_and_obsolete_packets_are_read(order: str) -> None:
    """A simple packet has no time and is cut at the snap length; an obsolete one has its time."""
    simple = block(order, 3, struct.pack(f"{order}I", 9) + b"abcd")
    old = block(order, 2, struct.pack(f"{order}HHIIII", 0, 3, 0, 8, 2, 9) + b"ab")
    file = section(order) + interface(order, snap_bytes=4) + simple + old
    assert read(file) == ([Captured(None, b"abcd", 9), Captured(8000, b"ab", 9)], None)


def test_sections_of_both_byte_orders_follow_each_other() -> None:
    """Each section has its own byte order and its own interfaces."""
    parts = [
        section(order) + interface(order, link_type=link_type) + enhanced(order, 0, 1, b"x", 1)
        for order, link_type in (("<", 1), (">", 101), ("<", 228))
    ]
    found, fault = read(b"".join(parts))
    assert fault is None
    assert [packet.link_type for packet in found] == [1, 101, 228]
    _, fault = read(parts[0] + section("<") + enhanced("<", 0, 1, b"x", 1))
    assert fault is not None
    assert fault.endswith("the section has 0 interfaces so far, got number 0")


def test_unknown_blocks_and_names_are_skipped() -> None:
    """Name resolution, custom and unknown blocks are passed over."""
    others = block("<", 4, bytes(12)) + block("<", 0xBAD, bytes(8)) + block("<", 0x80000001, b"")
    file = section("<") + others + interface("<") + others + enhanced("<", 0, 0, b"x", 1) + others
    assert read(file) == ([Captured(0, b"x", 1)], None)


@pytest.mark.parametrize(
    ("after", "fault"),
    [
        (struct.pack("<II", 6, 30) + bytes(22), "a length of 32 to 16777216, a multiple of 4,"
         " was expected, got 30"),
        (struct.pack("<II", 6, 28) + bytes(20), "a length of 32 to 16777216, a multiple of 4,"
         " was expected, got 28"),
        (struct.pack("<II", 99, 2**24 + 4) + bytes(4), "a length of 12 to 16777216, a multiple"
         " of 4, was expected, got 16777220"),
        (struct.pack("<III", 99, 12, 16), "the length 12 was expected once more at its end,"
         " got 16"),
        (block("<", 6, struct.pack("<5I", 0, 0, 0, 5, 5) + b"abcd"), "a captured length of 5, of"
         " 4 bytes that the block has"),
        (block("<", 3, struct.pack("<I", 9) + b"abcd"), "a captured length of 9, of 4 bytes that"
         " the block has"),
        (enhanced("<", 1, 0, b"", 0), "the section has 1 interfaces so far, got number 1"),
        (interface("<", struct.pack("<HH", 2, 9)), "option 2 has a length of 9, of 0 bytes that"
         " are left"),
        (block("<", 5, struct.pack("<III", 3, 0, 0)), "the section has 1 interfaces so far, got"
         " number 3"),
        (block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "version 1 was"
         " expected, got 2.0"),
        (pcapng.MAGIC + struct.pack("<II", 28, 0x1A2B3C4E), "the byte order magic 1a2b3c4d was"
         " expected, got 4e3c2b1a"),
    ],
)  # fmt: skip
def test_faults_say_where_and_what_would_be_right(after: bytes, fault: str) -> None:
    """A broken block is told with its place in the file, after what was whole before it."""
    before = section("<") + interface("<") + enhanced("<", 0, 7, b"abc", 3)
    where = f"pcapng: block at byte {len(before)}: "
    assert read(before + after) == ([Captured(7000, b"abc", 3)], where + fault)


def test_a_file_begins_with_a_section() -> None:
    """Anything else first is told, and so is nothing at all."""
    where = "pcapng: block at byte 0: "
    text = "a section header (0a0d0d0a) was expected first, got 01000000"
    assert read(interface("<")) == ([], where + text)
    assert read(b"") == ([], where + "cut short, 0 bytes of it are there")


def test_a_file_that_ends_early_gives_its_whole_packets() -> None:
    """Wherever a file was cut, as by kill -9, whole blocks count and the end tells the rest."""
    head, one = section("<") + interface("<"), enhanced("<", 0, 7, b"abc", 3)
    whole = head + one * 2
    for end in range(len(head), len(whole)):
        found, fault = read(whole[:end])
        rest = (end - len(head)) % len(one)
        assert len(found) == (end - len(head)) // len(one)
        text = f"block at byte {end - rest}: cut short, {rest} bytes of it are there"
        assert fault == (f"pcapng: {text}" if rest else None)


def test_interfaces_are_bounded() -> None:
    """A file cannot make us remember interfaces without end."""
    file = section("<") + interface("<") * (pcapng.MAX_INTERFACES + 1)
    _, fault = read(file)
    assert fault is not None
    assert fault.endswith("a section has at most 65536 interfaces")


def test_what_scapy_writes_is_read(tmp_path: Path) -> None:
    """Files of scapy give the packet and its time."""
    scapy = pytest.importorskip("scapy.utils")
    path = tmp_path / "file.pcapng"
    writer = scapy.RawPcapNgWriter(str(path))
    writer.linktype = 1
    writer.write_header(None)
    writer._write_packet(FRAME, linktype=1, sec=1_700_000_000.25, wirelen=99)
    writer.close()
    [packet], fault = read(path.read_bytes())
    assert fault is None
    assert (packet.data, packet.original_bytes) == (FRAME, 99)
    assert packet.received_at_ns == 1_700_000_000_250_000_000


@pytest.mark.parametrize(
    ("format", "is_exact"), [("pcapng", True), ("nsecpcap", True), ("pcap", False)]
)
def test_what_editcap_writes_is_read(tmp_path: Path, format: str, is_exact: bool) -> None:
    """Files in every format of Wireshark's give the packets and their times."""
    source, target = tmp_path / "source", tmp_path / "target"
    packets = [pcapng.packet(0, AT_NS + each * 1000, FRAME, 99) for each in range(3)]
    source.write_bytes(SECTION + pcapng.interface("eth0") + b"".join(packets))
    done = run(tool("editcap", "wireshark-common"), "-F", format, source, target)
    assert done.returncode == 0, done.stderr
    found, fault = read_pieces([target.read_bytes()], capture_files.Reader())
    assert fault is None
    at_ns = AT_NS if is_exact else AT_NS // 1000 * 1000
    assert [packet.received_at_ns for packet in found] == [at_ns + each * 1000 for each in range(3)]
    assert {(packet.data, packet.original_bytes) for packet in found} == {(FRAME, 99)}


# -- any bytes --

PARTS = st.sampled_from(
    [
        *(section(order) for order in "<>"),
        *(interface(order, option(order, 9, b"\x09")) for order in "<>"),
        *(enhanced(order, 0, 77, b"abcde", 9) for order in "<>"),
        block("<", 3, struct.pack("<I", 4) + b"abcd"),
        block("<", 2, struct.pack("<HHIIII", 0, 3, 0, 8, 2, 9) + b"ab"),
        block("<", 5, struct.pack("<III", 0, 0, 0)),
        block("<", 99, b"abcd"),
    ]
)


@quick
@given(st.lists(PARTS, max_size=8), st.lists(st.integers(0, 500), max_size=8))
def test_any_chopping_gives_the_same(parts: list[bytes], cuts: list[int]) -> None:
    """However a file is cut into pieces, right or wrong, its packets and its fault are the same."""
    file = section("<") + b"".join(parts)
    whole = read(file)
    assert read_pieces(chopped(file, cuts), pcapng.Reader()) == whole
    assert read_pieces(chopped(file, range(len(file))), pcapng.Reader()) == whole


def no_other_error(data: bytes) -> None:
    for reader in (pcapng.Reader(), capture_files.Reader()):
        found, _ = read_pieces([data], reader)
        assert sum(len(packet.data) for packet in found) <= len(data)


@quick
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_packet_errors(data: bytes) -> None:
    """Whatever bytes come in, nothing is invented and no other error comes out."""
    no_other_error(data)
    no_other_error(section("<") + interface("<") + data)


def mutate(chance: random.Random, file: bytes) -> bytes:
    """Return *file* with some bytes changed, put in or taken out."""
    made = bytearray(file)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made))
        what = chance.randrange(4)
        if what == 0:
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            made[at] = chance.choice((0, 1, 4, 0x7F, 0xFF))
        elif what == 2:
            made[at:at] = chance.randbytes(4)
        else:
            del made[at : at + chance.choice((1, 4))]
    return bytes(made)


def test_mutated_files_raise_only_packet_errors() -> None:
    """A file that was damaged anywhere gives packets and perhaps a fault, never another error."""
    chance = random.Random(5)
    for _ in range(3000):
        no_other_error(mutate(chance, written()))


@pytest.mark.slow
def test_a_hundred_thousand_mutated_files_raise_only_packet_errors() -> None:
    """The same, for 100,000 files of ours and of the other byte order."""
    chance = random.Random(6)
    other = section(">") + interface(">", option(">", 9, b"\x89")) + enhanced(">", 0, 5, b"x", 1)
    for each in range(100_000):
        no_other_error(mutate(chance, written() if each % 2 else other))
