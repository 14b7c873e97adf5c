"""The Internet checksum. The oracles are scapy's, the RFCs' examples, and counting anew."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packet_laws import many, quick, thorough
from scapy.layers.inet import IP, in4_pseudoheader
from scapy.utils import checksum as scapys

from twistedsock.errors import PacketError
from twistedsock.wire.checksum import checksum, is_intact, ones_sum, pseudo_header, updated

WORDS = st.integers(0, 0xFFFF)


def agrees_with_scapy(data: bytes) -> None:
    assert checksum(data) == scapys(data)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\0")
@example(bytes(40))
@example(b"\xff" * 40)
@example(b"\xff" * 41)
@quick
def test_it_is_what_scapy_makes(data: bytes) -> None:
    """The checksum of any bytes, odd lengths and zeros too, is the one of scapy."""
    agrees_with_scapy(data)


@pytest.mark.slow
@given(many(st.binary(max_size=200)))
@thorough
def test_it_is_what_scapy_makes_of_very_many(packets: list[bytes]) -> None:
    """The checksum of any bytes is the one of scapy, a hundred thousand times."""
    for data in packets:
        agrees_with_scapy(data)


def test_a_long_message_is_summed_whole() -> None:
    """The sum of the greatest packet carries no error to its end."""
    data = bytes(range(256)) * 256
    assert checksum(data[:-1]) == scapys(data[:-1])


def test_the_example_of_the_rfc() -> None:
    """RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ones_sum(data) == 0xDDF2
    assert checksum(data) == 0x220D
    assert is_intact(data + b"\x22\x0d")
    assert not is_intact(data + b"\x22\x0e")


def test_zeros_alone_sum_to_zero() -> None:
    """Only zeros have the sum 0; ffff is the zero of everything else."""
    assert ones_sum(bytes(20)) == 0
    assert ones_sum(b"\xff\xff") == 0xFFFF
    assert ones_sum(b"\0\1\xff\xfe") == 0xFFFF
    assert not is_intact(bytes(20))


@given(st.lists(WORDS, min_size=1, max_size=20), st.data(), WORDS)
@quick
def test_an_update_is_counting_anew(words: list[int], data: st.DataObject, new: int) -> None:
    """RFC 1624: after a change of one word the updated checksum holds, as one counted anew."""
    place = data.draw(st.integers(0, len(words) - 1))
    before = checksum(struct.pack(f"!{len(words)}H", *words))
    after = [*words[:place], new, *words[place + 1 :]]
    found = updated(before, words[place], new)
    if any(after) and any(words):  # of zeros alone the two zeros of the sum differ
        assert found == checksum(struct.pack(f"!{len(after)}H", *after))


def test_the_example_of_the_update() -> None:
    """RFC 1624 section 4: dd2f, of a word that goes from 5555 to 3285, becomes 0000."""
    assert updated(0xDD2F, 0x5555, 0x3285) == 0x0000


@given(st.binary(max_size=40), st.integers(0, 255))
@quick
def test_the_pseudo_header_of_ipv4_is_scapys(data: bytes, protocol: int) -> None:
    """What is counted before an IPv4 payload is what scapy counts."""
    theirs = in4_pseudoheader(protocol, IP(src="192.0.2.1", dst="198.51.100.7"), len(data))
    assert pseudo_header("192.0.2.1", "198.51.100.7", protocol, len(data)) == theirs


def test_the_pseudo_header_of_ipv6_is_the_rfcs_picture() -> None:
    """RFC 8200 section 8.1: both addresses, 32 bits of length, three zeros, the next header."""
    expected = bytes.fromhex("fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "02" + "00012345")
    assert pseudo_header("fe80::1%eth0", "ff02::2", 58, 0x12345) == expected + b"\0\0\0\x3a"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a", "::1", 6, 0), "two numeric addresses were expected, got 'a' and '::1'"),
        (("::1", "", 6, 0), "two numeric addresses were expected, got '::1' and ''"),
        (("::1", "1.2.3.4", 6, 0), "two versions of IP: from ::1 to 1.2.3.4"),
        (
            ("1.2.3.4", "1.2.3.4", 6, 65_536),
            "a pseudo-header has no place for protocol 6, length 65536",
        ),
        (("::1", "::1", 256, 1), "a pseudo-header has no place for protocol 256, length 1"),
    ],
)
def test_what_is_no_pseudo_header_is_refused(
    arguments: tuple[str, str, int, int], text: str
) -> None:
    """Addresses that are none, of two versions, and numbers that do not fit are told."""
    with pytest.raises(PacketError) as caught:
        pseudo_header(*arguments)
    assert str(caught.value) == f"checksum: {text}"
