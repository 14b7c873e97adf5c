"""User datagrams. The oracle is scapy, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.inet import IP
from scapy.layers.inet import UDP as THEIRS
from scapy.layers.inet6 import IPv6

from twistedsock.errors import PacketError
from twistedsock.wire import udp
from twistedsock.wire.udp import UDP

FOUR, SIX = ("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "fe80::2")
WHOLE = UDP(53, 5353, b"question").to_bytes(*FOUR)
PORTS = st.integers(0, 0xFFFF)


def theirs(source: str, destination: str, datagram: THEIRS) -> bytes:
    """Return the bytes that scapy makes of a datagram between two addresses."""
    head = IPv6 if ":" in source else IP
    return bytes(head(bytes(head(src=source, dst=destination) / datagram))[THEIRS])


@given(PORTS, PORTS, st.binary(max_size=60), st.sampled_from([FOUR, SIX]))
@quick
def test_it_is_written_and_read_as_by_scapy(
    first: int, second: int, payload: bytes, addresses: tuple[str, str]
) -> None:
    """Any datagram has the same bytes as scapy's, checksum included, and is read from them."""
    expected = theirs(*addresses, THEIRS(sport=first, dport=second) / payload)
    made = UDP(first, second, payload)
    assert made.to_bytes(*addresses) == expected
    found = udp.parse(expected, *addresses)
    assert found == made
    assert found.is_intact is True
    assert found.checksum == THEIRS(expected).chksum


@given(anything(WHOLE))
@quick
def test_any_bytes_are_a_datagram_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(udp.parse, data)
    keeps_the_laws(lambda each: udp.parse(each, *SIX), data)


@pytest.mark.slow
@given(many(anything(WHOLE)))
@thorough
def test_very_many_bytes_are_a_datagram_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(lambda each: udp.parse(each, *FOUR), data)


def test_a_changed_byte_is_found() -> None:
    """A datagram with one bit turned, or between other addresses, is not intact."""
    assert udp.parse(WHOLE, *FOUR).is_intact is True
    assert udp.parse(WHOLE[:-1] + b"N", *FOUR).is_intact is False
    assert udp.parse(WHOLE, "192.0.2.9", FOUR[1]).is_intact is False


def test_without_the_addresses_nobody_knows() -> None:
    """The checksum is not judged without the addresses, and is not made without them."""
    assert udp.parse(WHOLE).is_intact is None
    assert udp.parse(WHOLE, FOUR[0]).is_intact is None
    assert UDP(1, 2, b"x").to_bytes() == bytes.fromhex("0001 0002 0009 0000 78")


def test_no_checksum_is_allowed_over_ipv4_alone() -> None:
    """A checksum of 0 says that there is none, which IPv6 does not allow (RFC 8200, 8.1)."""
    data = UDP(1, 2, b"x").to_bytes()
    assert udp.parse(data, *FOUR).is_intact is None
    assert udp.parse(data, *SIX).is_intact is False
    assert udp.parse(data, *SIX).checksum == 0


def test_a_sum_of_zero_is_sent_as_ffff() -> None:
    """RFC 768: a checksum that comes out as 0 is sent as all ones."""
    empty = UDP(0, 0, b"\0\0").to_bytes(*FOUR)
    made = UDP(0, 0, empty[6:8]).to_bytes(*FOUR)
    assert made[6:8] == b"\xff\xff"
    assert made == theirs(*FOUR, THEIRS(sport=0, dport=0) / empty[6:8])
    assert udp.parse(made, *FOUR).is_intact is True


def test_what_was_cut_off_is_counted() -> None:
    """A datagram that is cut short parses, tells what is missing, and judges no checksum."""
    found = udp.parse(WHOLE[:11], *FOUR)
    assert (found.payload, found.missing_bytes, found.is_intact) == (b"que", 5, None)
    assert found.to_bytes(*FOUR) == WHOLE[:6] + b"\0\0que"
    assert found.describe() == "UDP 53 > 5353 length 8"


def test_what_follows_the_length_is_left_out() -> None:
    """Bytes behind the announced length are none of the datagram."""
    assert udp.parse(WHOLE + b"padding", *FOUR) == udp.parse(WHOLE)
    assert udp.parse(WHOLE + b"padding", *FOUR).is_intact is True


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header has 8 bytes, got 0"),
        (WHOLE[:7], "a header has 8 bytes, got 7"),
        (bytes.fromhex("0001 0002 0007 0000 78"), "a length of 7, below the header's 8"),
    ],
)
def test_what_is_no_datagram_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        udp.parse(data)
    assert str(caught.value) == f"udp: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UDP(65_536, 2), "udp: source_port must be 0..65535, got 65536"),
        (UDP(1, -1), "udp: destination_port must be 0..65535, got -1"),
        (UDP(1, 2, bytes(65_528)), "udp: at most 65535 bytes in all, got 65536"),
        (UDP(1, 2, missing_bytes=-1), "udp: missing_bytes must be 0..65535, got -1"),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: UDP, text: str) -> None:
    """Each field that has no place in a datagram is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == text


def test_addresses_that_are_none_are_told() -> None:
    """A PacketError says that the addresses for the checksum are none, both ways."""
    with pytest.raises(PacketError, match="two numeric addresses were expected, got 'here'"):
        udp.parse(WHOLE, "here", "there")
    with pytest.raises(PacketError, match=r"two versions of IP: from ::1 to 192\.0\.2\.1"):
        UDP(1, 2).to_bytes("::1", "192.0.2.1")
