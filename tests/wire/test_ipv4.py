"""IPv4 packets. The oracle is scapy, both ways, with options."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.inet import IP, IPOption, IPOption_Router_Alert, IPOption_RR
from scapy.packet import Raw

from twistedsock.errors import PacketError
from twistedsock.wire import ipv4
from twistedsock.wire.ipv4 import (
    NO_OPERATION,
    RECORD_ROUTE,
    ROUTER_ALERT,
    IPv4,
    Option,
    header_bytes,
)

A, B = "192.0.2.1", "198.51.100.7"
PLAIN = IPv4(A, B, 17, b"payload").to_bytes()
OPTIONED = IPv4(
    A, B, 2, b"report", options=(Option(ROUTER_ALERT, b"\0\0"), Option(NO_OPERATION))
).to_bytes()
ADDRESSES = st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
# ours, and the bytes that scapy is handed
OPTIONS = st.one_of(
    st.just(Option(NO_OPERATION)),
    st.builds(Option, st.integers(2, 255), st.binary(max_size=8)),
)


def theirs(option: Option) -> bytes:
    if option.kind == NO_OPERATION:
        return b"\1"
    return bytes([option.kind, 2 + len(option.data)]) + option.data


@given(
    st.tuples(ADDRESSES, ADDRESSES, st.integers(0, 255), st.binary(max_size=40)),
    st.tuples(st.integers(0, 255), st.integers(0, 63), st.integers(0, 3), st.integers(0, 0xFFFF)),
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 8191), st.booleans()),
    st.lists(OPTIONS, max_size=4),
)
@quick
def test_it_is_written_and_read_as_by_scapy(
    first: tuple[str, str, int, bytes],
    second: tuple[int, int, int, int],
    third: tuple[bool, bool, int, bool],
    options: list[Option],
) -> None:
    """Any packet has the same bytes as scapy's, checksum included, and is read from them."""
    source, destination, protocol, payload = first
    ttl, dscp, ecn, identification = second
    dont, more, offset, reserved = third
    raw = b"".join(map(theirs, options))
    raw += bytes(-len(raw) % 4)
    packet = IP(
        ihl=5 + len(raw) // 4, tos=dscp << 2 | ecn, len=20 + len(raw) + len(payload),
        id=identification, flags=4 * reserved + 2 * dont + more, frag=offset, ttl=ttl,
        proto=protocol, src=source, dst=destination,
    )  # fmt: skip
    # scapy sums what it has, so that the options are put in before
    head = bytearray(bytes(packet)[:20] + raw)
    head[10:12] = b"\0\0"
    summed = IP(bytes(head) + payload)
    del summed.chksum
    expected = bytes(summed)
    made = IPv4(*first, ttl, dscp, ecn, identification, dont, more, offset * 8, reserved,
                tuple(options))  # fmt: skip
    assert made.to_bytes() == expected
    found = ipv4.parse(expected)
    assert found == made
    assert found.is_intact is True
    assert found.checksum == IP(expected).chksum


def test_options_are_those_of_scapy() -> None:
    """Record route and router alert, as scapy names them, are read as they were written."""
    recorded: list[IPOption] = [IPOption_RR(routers=["192.0.2.9"]), IPOption_Router_Alert()]
    found = ipv4.parse(bytes(IP(src=A, dst=B, options=recorded) / Raw(b"x")))
    assert found.options[0] == Option(RECORD_ROUTE, b"\x04\xc0\0\2\x09")
    assert found.options[1] == Option(ROUTER_ALERT, b"\0\0")
    assert found.payload == b"x"


@given(anything(PLAIN, OPTIONED, front=b"\x46"))
@quick
def test_any_bytes_are_a_packet_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(ipv4.parse, data)
    keeps_the_laws(ipv4.parse, b"\x46" + data[1:])


@pytest.mark.slow
@given(many(anything(PLAIN, OPTIONED, front=b"\x46")))
@thorough
def test_very_many_bytes_are_a_packet_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(ipv4.parse, b"\x47" + data[1:])
        keeps_the_laws(ipv4.parse, data)


def test_what_was_cut_off_is_counted() -> None:
    """A packet that is cut short parses, and tells what is missing; its header is judged."""
    for end in range(28, len(OPTIONED)):
        found = keeps_the_laws(ipv4.parse, OPTIONED[:end])
        assert found.missing_bytes == len(OPTIONED) - end
        assert found.is_intact is True
        assert found.describe() == f"IP {A} > {B} IGMP length 6"


def test_padding_of_the_link_is_left_out() -> None:
    """Bytes behind the total length are none of the packet."""
    assert ipv4.parse(PLAIN + bytes(20)) == ipv4.parse(PLAIN)


def test_no_total_length_is_all_of_the_data() -> None:
    """Packets that a network card is to cut have a length of 0: all of the data is theirs."""
    data = PLAIN[:2] + b"\0\0" + PLAIN[4:]
    assert ipv4.parse(data).payload == b"payload"
    great = ipv4.parse(data + bytes(70_000))
    assert len(great.payload) == 70_007
    with pytest.raises(PacketError, match="at most 65535 bytes in all, got 70027"):
        great.to_bytes()


def test_a_changed_byte_is_found() -> None:
    """A header with one bit turned is not intact; the payload is not its matter."""
    assert ipv4.parse(PLAIN[:8] + b"\x41" + PLAIN[9:]).is_intact is False
    assert ipv4.parse(PLAIN[:-1] + b"Y").is_intact is True


def test_people_read_one_line() -> None:
    """The line has both addresses, the protocol by its name or number, and the length."""
    assert ipv4.parse(PLAIN).describe() == f"IP {A} > {B} UDP length 7"
    assert IPv4(A, B, 253, b"x").describe() == f"IP {A} > {B} protocol 253 length 1"
    assert IPv4("b\u00fcro\n", B, 6).describe() == rf"IP b\xfcro\n > {B} TCP length 0"


def test_the_length_of_a_header() -> None:
    """The header's length is told where it is whole, else 0."""
    assert header_bytes(OPTIONED) == 28
    assert header_bytes(OPTIONED[:27]) == 0
    assert header_bytes(b"\x44" + bytes(40)) == 0
    assert header_bytes(b"") == 0


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header has 20 bytes at least, got 0"),
        (PLAIN[:19], "a header has 20 bytes at least, got 19"),
        (b"\x65" + PLAIN[1:], "version 4 was expected, got 6"),
        (b"\x44" + PLAIN[1:], "a header of 16 bytes, of 27 that are there"),
        (b"\x47" + PLAIN[1:], "a header of 28 bytes, of 27 that are there"),
        (PLAIN[:2] + b"\0\x13" + PLAIN[4:], "a total length of 19, below the header's 20"),
        (OPTIONED[:21] + b"\1" + OPTIONED[22:], "option 148 has a length of 1; 8 bytes are left"),
        (OPTIONED[:21] + b"\x09" + OPTIONED[22:], "option 148 has a length of 9; 8 bytes are left"),
    ],
)
def test_what_is_no_packet_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        ipv4.parse(data)
    assert str(caught.value) == f"ipv4: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (IPv4("here", B, 6), "source must be an IPv4 address, got 'here'"),
        (IPv4(A, "::1", 6), "destination must be an IPv4 address, got '::1'"),
        (IPv4(A, B, 256), "protocol must be 0..255, got 256"),
        (IPv4(A, B, 6, ttl_hops=256), "ttl_hops must be 0..255, got 256"),
        (IPv4(A, B, 6, dscp=64), "dscp must be 0..63, got 64"),
        (IPv4(A, B, 6, ecn=-1), "ecn must be 0..3, got -1"),
        (IPv4(A, B, 6, identification=65_536), "identification must be 0..65535, got 65536"),
        (IPv4(A, B, 6, fragment_offset=12), "the fragment offset is a multiple of 8, got 12"),
        (IPv4(A, B, 6, fragment_offset=65_536), "fragment_offset must be 0..65535, got 65536"),
        (IPv4(A, B, 6, missing_bytes=-1), "missing_bytes must be 0..65535, got -1"),
        (IPv4(A, B, 6, bytes(65_516)), "at most 65535 bytes in all, got 65536"),
        (IPv4(A, B, 6, options=(Option(0),)), "this cannot be an option: Option(kind=0, data=b'')"),
        (IPv4(A, B, 6, options=(Option(1),) * 41), "at most 40 bytes of options, got 41"),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: IPv4, text: str) -> None:
    """Each field that has no place in a packet is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"ipv4: {text}"
