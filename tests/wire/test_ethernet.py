"""Ethernet frames. The oracle is scapy, both ways, with tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.l2 import LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Raw

from twistedsock.errors import PacketError
from twistedsock.wire import ethernet
from twistedsock.wire.ethernet import BROADCAST, Ethernet, VlanTag
from twistedsock.wire.numbers import ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN

ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
TAG, SERVICE_TAG = VlanTag(7, 5, True), VlanTag(4095, tag_type=ETHERTYPE_SERVICE_VLAN)
PLAIN = Ethernet(ONE, TWO, 0x88CC, b"payload").to_bytes()
TAGGED = Ethernet(ONE, TWO, 0x88CC, b"payload", (SERVICE_TAG, TAG)).to_bytes()
OLD = Ethernet(ONE, TWO, None, b"\x42\x42\x03payload").to_bytes()
TAG_TYPES = (ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN)
ADDRESSES = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
TAGS = st.builds(
    VlanTag,
    st.integers(0, 4095),
    st.integers(0, 7),
    st.booleans(),
    st.sampled_from(TAG_TYPES),
)
TYPES = st.integers(1536, 0xFFFF).filter(lambda number: number not in TAG_TYPES)


@given(ADDRESSES, ADDRESSES, TYPES, st.binary(max_size=40), st.lists(TAGS, max_size=4))
@quick
def test_it_is_written_and_read_as_by_scapy(
    destination: str, source: str, kind: int, payload: bytes, tags: list[VlanTag]
) -> None:
    """Any frame of Ethernet II has the same bytes as scapy's, tags too, and is read from them."""
    packet = Ether(dst=destination, src=source, type=tags[0].tag_type if tags else kind)
    for place, tag in enumerate(tags):
        layer = Dot1Q if tag.tag_type == ETHERTYPE_VLAN else Dot1AD
        following = tags[place + 1].tag_type if place + 1 < len(tags) else kind
        packet /= layer(vlan=tag.vlan, prio=tag.priority, dei=tag.drop_eligible, type=following)
    expected = bytes(packet / Raw(payload))
    made = Ethernet(destination, source, kind, payload, tuple(tags))
    assert made.to_bytes() == expected
    assert ethernet.parse(expected) == made


@given(ADDRESSES, ADDRESSES, st.binary(max_size=40))
@quick
def test_frames_with_a_length_are_those_of_scapy(first: str, second: str, rest: bytes) -> None:
    """A frame of IEEE 802.3 has its length and LLC as scapy writes them; padding is left out."""
    expected = bytes(Dot3(dst=first, src=second) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(rest))
    made = Ethernet(first, second, None, b"\x42\x42\x03" + rest)
    assert made.to_bytes() == expected
    assert ethernet.parse(expected) == made
    assert ethernet.parse(expected + bytes(20)) == made


@given(anything(PLAIN, TAGGED, OLD, front=PLAIN[:12] + b"\x81\0"))
@quick
def test_any_bytes_are_a_frame_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(ethernet.parse, data)
    keeps_the_laws(ethernet.parse, data[:12] + b"\x81\0" + data[12:])


@pytest.mark.slow
@given(many(anything(PLAIN, TAGGED, OLD, front=PLAIN[:12] + b"\x81\0")))
@thorough
def test_very_many_bytes_are_a_frame_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(ethernet.parse, data)


def test_a_length_beyond_the_data_is_counted() -> None:
    """A frame of IEEE 802.3 that is cut short tells what is missing."""
    found = ethernet.parse(OLD[:-3])
    assert (found.ethertype, found.missing_bytes) == (None, 3)
    assert found.to_bytes() == OLD[:-3]


def test_people_read_one_line() -> None:
    """The line has tags, addresses, the type and the length."""
    assert ethernet.parse(TAGGED).describe() == (
        f"vlan 4095 vlan 7 Ethernet {TWO} > {ONE} type 0x88cc length 7"
    )
    assert ethernet.parse(OLD).describe() == f"Ethernet {TWO} > {ONE} 802.3 length 10"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header has 14 bytes, got 0"),
        (PLAIN[:13], "a header has 14 bytes, got 13"),
        (TAGGED[:17], "a tag has 4 bytes, 3 are left"),
        (TAGGED[:18], "a tag has 4 bytes, 0 are left"),
        (PLAIN[:12] + b"\x81\0\0\1" * 9 + b"\x88\xcc", "at most 8 tags are read, there are more"),
    ],
)
def test_what_is_no_frame_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        ethernet.parse(data)
    assert str(caught.value) == f"ethernet: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Ethernet("02:00", TWO, 0x800), "destination must have 6 bytes, got '02:00'"),
        (Ethernet(BROADCAST, "me", 0x800), "source must be bytes like aa:bb:cc, got 'me'"),
        (Ethernet(ONE, TWO, 1500), "ethertype must be 1501..65535 and no tag's, got 1500"),
        (Ethernet(ONE, TWO, 0x8100), "ethertype must be 1501..65535 and no tag's, got 33024"),
        (Ethernet(ONE, TWO, None, bytes(1501)), "802.3 carries at most 1500 bytes, got 1501"),
        (
            Ethernet(ONE, TWO, 0x800, missing_bytes=1),
            "only 802.3 announces a length, so nothing can be missing",
        ),
        (Ethernet(ONE, TWO, 0x800, tags=(TAG,) * 9), "at most 8 tags, got 9"),
        (Ethernet(ONE, TWO, 0x800, tags=(VlanTag(4096),)), "vlan must be 0..4095, got 4096"),
        (Ethernet(ONE, TWO, 0x800, tags=(VlanTag(1, 8),)), "priority must be 0..7, got 8"),
        (
            Ethernet(ONE, TWO, 0x800, tags=(VlanTag(1, tag_type=0x9100),)),
            "tag_type must be 0x8100 or 0x88a8, got 0x9100",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: Ethernet, text: str) -> None:
    """Each field that has no place in a frame is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"ethernet: {text}"
