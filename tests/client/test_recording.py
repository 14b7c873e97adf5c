"""Recording, from a ring's memory by hand; the oracle is pcapng's plain writer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedsock.addresses import parse_address
from twistedsock.client import recording
from twistedsock.client.recording import Recorder
from twistedsock.transports.packet_ring import Block, Counters, Interface
from twistedsock.wire import pcapng

quick = settings(max_examples=200, deadline=None)
WIRE = Interface(parse_address("packet:wire"), 1, False)
LOOPBACK = Interface(parse_address("packet:lo"), 1, True)
SECOND_NS = 10**9
DATA_AT = 82  # of a frame, where the link-layer header has 14 bytes

# Nanoseconds, data, bytes that were cut off, and whether it went out
Packet = tuple[int, bytes, int, bool]
PACKETS = st.lists(
    st.tuples(
        st.integers(0, 2**32 * SECOND_NS - 1),
        st.binary(max_size=70),
        st.integers(0, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def ring_of(packets: Sequence[Packet], interface: Interface) -> tuple[Any, Block]:
    """Return a ring with one block (linux/if_packet.h: struct tpacket3_hdr, sockaddr_ll)."""
    memory = bytearray(48)
    for at_ns, data, cut, is_outgoing in packets:
        size = DATA_AT + len(data)
        size += -size % 8
        head = struct.pack(
            "=IIIIIIHHIIHH8x",
            *(size, at_ns // SECOND_NS, at_ns % SECOND_NS, len(data), len(data) + cut),
            *(9 if cut % 2 else 1, DATA_AT, DATA_AT + 14, 0, 0, 0, 0),
        )
        link = struct.pack("=HHiHBB8s", 17, 8, 1, 1, 4 if is_outgoing else 0, 6, bytes(8))
        memory += ((head + link).ljust(DATA_AT, b"\xee") + data).ljust(size, b"\xee")
    ring = SimpleNamespace(memory=memoryview(memory), interface=interface)
    return ring, Block(48, len(packets))


def recorded(
    packets: Sequence[Packet], interface: Interface, most: int = 99, snap: int = 99
) -> bytes:
    """Return what is written of *packets*."""
    written = bytearray()

    def write(pieces: Sequence[memoryview | bytes]) -> None:
        whole = b"".join(pieces)
        reader = pcapng.Reader()
        reader.feed(pcapng.section_header() + pcapng.interface("x") + whole)
        reader.end()  # each write ends with a block, whatever happens then
        written.extend(whole)

    recorder = Recorder(write, interface, snap)
    ring, block = ring_of(packets, interface)
    assert recorder.record(ring, block, most) == min(most, len(packets))
    return bytes(written)


def expected(packets: Sequence[Packet], interface: Interface, snap: int = 99) -> bytes:
    """Return the same by the plain writer."""
    parts = []
    for at_ns, data, cut, is_outgoing in packets:
        outgoing = None if interface.is_loopback else is_outgoing
        parts.append(pcapng.packet(0, at_ns, data[:snap], len(data) + cut, outgoing, not cut % 2))
    return b"".join(parts)


@quick
@given(PACKETS, st.sampled_from([WIRE, LOOPBACK]), st.sampled_from([1, 20, 99]))
@example([(2**32 - 1, b"", 0, False), (2**32, b"a", 0, True)], WIRE, 99)
@example([(SECOND_NS * 4 + each * 294_967_296, b"", 0, False) for each in range(3)], WIRE, 99)
def test_a_block_is_written_as_packet_by_packet(
    packets: list[Packet], interface: Interface, snap: int
) -> None:
    """Whatever times, lengths and directions: the bytes are those of the plain writer."""
    assert recorded(packets, interface, snap=snap) == expected(packets, interface, snap)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_long_blocks_are_written_in_parts(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """Each write holds whole blocks, in order, and no more packets than one call takes."""
    monkeypatch.setattr(recording, "PIECES", pieces)
    packets: list[Packet] = [(each, bytes(each % 5), 0, bool(each % 3)) for each in range(20)]
    assert recorded(packets, WIRE) == expected(packets, WIRE)
    assert recorded(packets, WIRE, most=9) == expected(packets[:9], WIRE)


def test_shapes_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of ever other lengths do not fill our memory, and are right all the same."""
    monkeypatch.setattr(recording, "MAX_SHAPES", 3)
    packets: list[Packet] = [(0, bytes(each % 11), each % 4, False) for each in range(60)]
    assert recorded(packets, LOOPBACK) == expected(packets, LOOPBACK)


def test_a_recording_begins_and_ends_in_order() -> None:
    """The interface, its filter and the counters frame the packets."""
    parts: list[bytes] = []
    recorder = Recorder(lambda pieces: parts.extend(map(bytes, pieces)), WIRE, 77)
    recorder.begin("udp")
    recorder.end(5, 6, Counters(received=9, dropped=2))
    reader = pcapng.Reader()
    assert reader.feed(b"".join(parts)) == []
    reader.end()
    [interface] = reader.interfaces
    assert (interface.name, interface.snap_bytes, interface.link_type) == ("wire", 77, 1)
    assert reader.statistics == {0: pcapng.Statistics(0, 9, 2, 6)}
    assert b"udp" in parts[1]


def test_nothing_holds_the_ring_after_a_failure() -> None:
    """What the failed write was given can be released, although its error is at hand."""

    def fail(_: Sequence[memoryview | bytes]) -> None:
        raise OSError(28, "full")

    ring, block = ring_of([(1, b"one", 0, False)], WIRE)
    with pytest.raises(OSError, match="full") as caught:
        Recorder(fail, WIRE, 99).record(ring, block, 1)
    ring.memory.release()
    assert caught.value.errno == 28
