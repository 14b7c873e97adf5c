"""The address resolution protocol. The oracle is scapy, both ways."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.l2 import ARP as THEIRS

from twistedsock.errors import PacketError
from twistedsock.wire import arp
from twistedsock.wire.arp import ARP, REPLY, REQUEST, UNKNOWN_LINK_ADDRESS

ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
ASKING = ARP(REQUEST, ONE, "10.0.0.1", UNKNOWN_LINK_ADDRESS, "10.0.0.2")
WHOLE = ASKING.to_bytes()
LONG = ARP(9, "01:02", "aa:bb:cc", "03:04", "dd:ee:ff", 32, 0x86DD).to_bytes()
LINKS = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
ADDRESSES = st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
WORDS = st.integers(0, 0xFFFF)


@given(WORDS, LINKS, ADDRESSES, LINKS, ADDRESSES)
@quick
def test_it_is_written_and_read_as_by_scapy(
    operation: int, one: str, first: str, two: str, second: str
) -> None:
    """Any packet of Ethernet and IPv4 has the same bytes as scapy's, and is read from them."""
    packet = THEIRS(op=operation, hwsrc=one, psrc=first, hwdst=two, pdst=second, hwlen=6, plen=4)
    made = ARP(operation, one, first, two, second)
    assert made.to_bytes() == bytes(packet)
    assert arp.parse(bytes(packet)) == made
    assert arp.parse(bytes(packet) + bytes(18)) == made


@given(WORDS, st.integers(0, 9), st.integers(0, 9), st.binary(min_size=36, max_size=36))
@quick
def test_other_lengths_are_kept_as_bytes(
    kind: int, hardware: int, protocol: int, data: bytes
) -> None:
    """Addresses of any lengths are cut out as the RFC's picture says, and written as bytes."""
    head = kind.to_bytes(2, "big") + b"\x86\xdd" + bytes([hardware, protocol]) + b"\0\1"
    found = arp.parse(head + data)
    parts, position = [], 0
    for size in (hardware, protocol, hardware, protocol):
        parts.append(data[position : position + size].hex(":"))
        position += size
    assert [
        found.sender_hardware,
        found.sender_protocol,
        found.target_hardware,
        found.target_protocol,
    ] == parts
    assert found.to_bytes() == head + data[:position]


@given(anything(WHOLE, LONG, front=WHOLE[:4]))
@quick
def test_any_bytes_are_a_packet_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(arp.parse, data)
    keeps_the_laws(arp.parse, WHOLE[:4] + data)


@pytest.mark.slow
@given(many(anything(WHOLE, LONG, front=WHOLE[:4])))
@thorough
def test_very_many_bytes_are_a_packet_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(arp.parse, data)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ASKING, "ARP who has 10.0.0.2 tell 10.0.0.1"),
        (ARP(REPLY, TWO, "10.0.0.2", ONE, "10.0.0.1"), f"ARP 10.0.0.2 is at {TWO}"),
        (ARP(3, ONE, "0.0.0.0", TWO, "0.0.0.0"), f"RARP who is {TWO} tell {ONE}"),
        (ARP(4, ONE, "10.0.0.1", TWO, "10.0.0.2"), f"RARP {TWO} is 10.0.0.2"),
        (ARP(9, "01:02", "", "03:04", ""), "ARP operation 9 from 01:02"),
    ],
)
def test_people_read_one_line(value: ARP, text: str) -> None:
    """Each operation is told in words."""
    assert arp.parse(value.to_bytes()).describe() == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a packet has 8 bytes at least, got 0"),
        (WHOLE[:27], "addresses of 6 and 4 bytes end at 28, got 27 bytes"),
        (
            WHOLE[:4] + b"\xff\xff" + WHOLE[6:],
            "addresses of 255 and 255 bytes end at 1028, got 28 bytes",
        ),
    ],
)
def test_what_is_no_packet_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        arp.parse(data)
    assert str(caught.value) == f"arp: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ARP(65_536, ONE, "", TWO, ""), "operation must be 0..65535, got 65536"),
        (ARP(1, "x", "", TWO, ""), "sender_hardware must be bytes like aa:bb:cc, got 'x'"),
        (ARP(1, ONE, "10.0.1", TWO, ""), "sender_protocol must be an IPv4 address, got '10.0.1'"),
        (
            ARP(1, ONE, "10.0.0.1", TWO, "10.0.0.2", 1, 0x86DD),
            "sender_protocol must be bytes like aa:bb:cc, got '10.0.0.1'",
        ),
        (
            ARP(1, ONE, "10.0.0.1", TWO, ""),
            "both protocol addresses must be equally long, at most 255 bytes, got 4 and 0",
        ),
        (
            ARP(1, ONE, "", "01", ""),
            "both hardware addresses must be equally long, at most 255 bytes, got 6 and 1",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: ARP, text: str) -> None:
    """Each field that has no place in a packet is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"arp: {text}"
