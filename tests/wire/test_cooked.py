"""What captures have in place of a link's header. The oracle is scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, quick
from scapy.layers.l2 import CookedLinux, CookedLinuxV2
from scapy.layers.l2 import Loopback as TheirLoopback
from scapy.packet import Raw

from twistedsock.errors import PacketError
from twistedsock.wire import cooked
from twistedsock.wire.cooked import FROM_US, Cooked, Loopback

OLD = Cooked(0x88CC, b"payload", FROM_US, 1, "02:00:00:00:00:01", 6)
NEW = Cooked(0x88CC, b"payload", FROM_US, 772, "", 0, 9)
WORDS = st.integers(0, 0xFFFF)


@given(WORDS, st.integers(0, 4), WORDS, st.binary(max_size=8), st.binary(max_size=20))
@quick
def test_both_are_written_and_read_as_by_scapy(
    protocol: int, kind: int, hardware: int, address: bytes, payload: bytes
) -> None:
    """Packets behind either header have the bytes of scapy's, and are read from them."""
    padded, length = address.ljust(8, b"\0"), len(address)
    old = CookedLinux(
        pkttype=kind, lladdrtype=hardware, lladdrlen=length, src=padded, proto=protocol
    )
    new = CookedLinuxV2(
        proto=protocol, ifindex=7, lladdrtype=hardware, pkttype=kind, lladdrlen=length, src=padded
    )
    fields = (protocol, payload, kind, hardware, address.hex(":"), length)
    assert Cooked(*fields).to_bytes() == bytes(old / Raw(payload))
    assert Cooked(*fields, 7).to_bytes() == bytes(new / Raw(payload))
    assert cooked.parse_sll(bytes(old / Raw(payload))) == Cooked(*fields)
    assert cooked.parse_sll2(bytes(new / Raw(payload))) == Cooked(*fields, 7)


@given(anything(OLD.to_bytes(), NEW.to_bytes()))
@quick
def test_any_bytes_are_a_packet_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    for parse in (cooked.parse_sll, cooked.parse_sll2, cooked.parse_loopback):
        keeps_the_laws(parse, data)


def test_the_family_is_read_in_either_order() -> None:
    """The order of the machine that captured is told from where the family's zeros are."""
    assert bytes(TheirLoopback(type=2) / Raw(b"x")) in (b"\2\0\0\0x", b"\0\0\0\2x")
    assert cooked.parse_loopback(b"\x02\0\0\0x") == Loopback(2, b"x", "little")
    assert cooked.parse_loopback(b"\0\0\0\x1ex") == Loopback(30, b"x", "big")
    assert Loopback(30, b"x", "big").to_bytes() == b"\0\0\0\x1ex"


def test_an_address_may_be_longer_than_its_place() -> None:
    """Of a long hardware address the first 8 bytes are there, and its length is kept."""
    data = bytes.fromhex("0000 0020 0014 0001020304050607 0800")
    found = cooked.parse_sll(data)
    assert (found.address, found.address_length) == ("00:01:02:03:04:05:06:07", 20)
    assert found.to_bytes() == data


def test_people_read_one_line() -> None:
    """The line has the protocol and the length."""
    assert OLD.describe() == "cooked protocol 0x88cc length 7"
    assert Loopback(7, b"abc").describe() == "loopback family 7 length 3"


def test_what_is_no_packet_is_told() -> None:
    """A header that is not whole is told with its length."""
    with pytest.raises(PacketError, match="cooked: a header has 16 bytes, got 15"):
        cooked.parse_sll(bytes(15))
    with pytest.raises(PacketError, match="cooked: a header has 20 bytes, got 19"):
        cooked.parse_sll2(bytes(19))
    with pytest.raises(PacketError, match="cooked: a header has 4 bytes, got 3"):
        cooked.parse_loopback(bytes(3))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Cooked(65_536), "protocol must be 0..65535, got 65536"),
        (Cooked(1, packet_type=256, interface_index=1), "packet_type must be 0..255, got 256"),
        (Cooked(1, interface_index=-1), "interface_index must be 0..4294967295, got -1"),
        (Cooked(1, address="01", address_length=2), "address must have 2 bytes, 8 at most, got 1"),
        (Loopback(-1), "family must be 0..4294967295, got -1"),
        (Loopback(65_536), "family 65536 would be read in the other byte order"),
        (Loopback(0, order="big"), "family 0 would be read in the other byte order"),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: Cooked | Loopback, text: str) -> None:
    """Each field that has no place in a header is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"cooked: {text}"
