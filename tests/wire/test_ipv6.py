"""IPv6 packets and their extension headers. The oracle is scapy, both ways."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.inet6 import (
    HBHOptUnknown,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    RouterAlert,
)
from scapy.layers.inet6 import IPv6 as Theirs
from scapy.layers.ipsec import AH
from scapy.packet import Raw

from twistedsock.errors import PacketError
from twistedsock.wire import ipv6
from twistedsock.wire.ipv6 import IPv6
from twistedsock.wire.ipv6_extensions import (
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    JUMBO_PAYLOAD,
    MOBILITY,
    PAD_1,
    PAD_N,
    ROUTER_ALERT,
    Extension,
    Fragment,
    Opaque,
    Option,
    Options,
    Routing,
)

A, B = "2001:db8::1", "ff02::16"
ALERT = Options(HOP_BY_HOP, (Option(ROUTER_ALERT, b"\0\0"),))
ROUTE = Routing(4, 1, bytes(4) + bytes(range(16)))
CHAIN = (
    ALERT,
    ROUTE,
    Opaque(AUTHENTICATION, bytes(22)),
    Options(DESTINATION_OPTIONS, (Option(30, b"abc"),)),
)
PLAIN = IPv6(A, B, 17, b"payload").to_bytes()
CHAINED = IPv6(A, B, 17, b"payload", extensions=CHAIN).to_bytes()
LATER = IPv6(A, B, 60, b"\x11\0\1\4", extensions=(Fragment(1480, True, 7),)).to_bytes()
ADDRESSES = st.integers(0, 2**128 - 1).map(lambda n: str(ipaddress.IPv6Address(n)))
BYTE = st.integers(0, 255)
NOT_PADDING = st.integers(6, 255).filter(lambda kind: kind != JUMBO_PAYLOAD)
OPTIONS = st.lists(st.builds(Option, NOT_PADDING, st.binary(max_size=12)), max_size=3)


def their_options(options: list[Option]) -> list[Any]:
    return [HBHOptUnknown(otype=each.kind, optdata=each.data) for each in options]


# ours, and scapy's
EXTENSIONS = st.one_of(
    OPTIONS.map(
        lambda found: (
            Options(HOP_BY_HOP, tuple(found)),
            IPv6ExtHdrHopByHop(options=their_options(found)),
        )
    ),
    OPTIONS.map(
        lambda found: (
            Options(DESTINATION_OPTIONS, tuple(found)),
            IPv6ExtHdrDestOpt(options=their_options(found)),
        )
    ),
    st.tuples(st.lists(ADDRESSES, max_size=3), BYTE).map(
        lambda two: (
            Routing(
                0,
                two[1],
                bytes(4) + b"".join(ipaddress.IPv6Address(each).packed for each in two[0]),
            ),
            IPv6ExtHdrRouting(type=0, addresses=two[0], segleft=two[1]),
        )
    ),
    st.tuples(st.booleans(), st.integers(0, 0xFFFFFFFF)).map(
        lambda two: (Fragment(0, *two), IPv6ExtHdrFragment(offset=0, m=two[0], id=two[1]))
    ),
)


@given(
    st.tuples(ADDRESSES, ADDRESSES, st.sampled_from([6, 17, 58, 59, 253])),
    st.binary(max_size=40),
    st.tuples(BYTE, st.integers(0, 63), st.integers(0, 3), st.integers(0, 0xFFFFF)),
    st.lists(EXTENSIONS, max_size=4),
)
@quick
def test_it_is_written_and_read_as_by_scapy(
    head: tuple[str, str, int],
    payload: bytes,
    more: tuple[int, int, int, int],
    pairs: list[tuple[Extension, Any]],
) -> None:
    """Any packet, with any chain of headers, has the bytes of scapy's and is read from them."""
    hop_limit, dscp, ecn, flow = more
    packet = Theirs(src=head[0], dst=head[1], hlim=hop_limit, tc=dscp << 2 | ecn, fl=flow)
    for ours, extension in pairs:
        packet.lastlayer().nh = ours.number
        packet /= extension.copy()
    packet.lastlayer().nh = head[2]
    expected = bytes(packet / Raw(payload))
    made = IPv6(*head, payload, *more, tuple(ours for ours, _ in pairs))
    assert made.to_bytes() == expected
    assert ipv6.parse(expected) == made
    assert ipv6.parse(expected + bytes(9)) == made


def test_the_authentication_header_is_as_long_as_scapys() -> None:
    """AH counts its length in words of 4 bytes: what scapy writes is skipped to its end."""
    header = AH(nh=17, payloadlen=4, spi=5, seq=6, icv=bytes(12), padding=b"")
    packet = Theirs(src=A, dst=B) / header / Raw(b"x")
    found = ipv6.parse(bytes(packet))
    inside = bytes(2) + b"\0\0\0\5" + b"\0\0\0\6" + bytes(12)
    assert found.extensions == (Opaque(AUTHENTICATION, inside),)
    assert (found.next_header, found.payload) == (17, b"x")
    assert found.to_bytes() == bytes(packet)


def test_the_router_alert_is_scapys() -> None:
    """A multicast listener's router alert is the option with its value; padding is none."""
    packet = Theirs(src=A, dst=B, nh=0) / IPv6ExtHdrHopByHop(nh=58, options=[RouterAlert()])
    assert ipv6.parse(bytes(packet)).extensions == (ALERT,)


@given(anything(PLAIN, CHAINED, LATER, front=b"\x60"))
@quick
def test_any_bytes_are_a_packet_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(ipv6.parse, data)
    keeps_the_laws(ipv6.parse, b"\x60" + data[1:])


NUMBERS = (0, 43, 44, 51, 60, 135, 139, 140, 17)


def chain_in(data: bytes) -> bytes:
    """Return a packet whose header leads into extension headers, which mostly lie."""
    body = bytearray(data[2:])
    for start in range(0, len(body), 8):
        body[start] = NUMBERS[body[start] % len(NUMBERS)]
        body[start + 1 : start + 2] = bytes(each % 4 for each in body[start + 1 : start + 2])
    length = len(body) if data[:1] < b"\x80" else data[0] - 0x80
    first = NUMBERS[data[1] % len(NUMBERS)] if len(data) > 1 else 60
    return b"\x60\0\0\0" + length.to_bytes(2, "big") + bytes([first, 64]) + bytes(32) + body


CHAINS = st.binary(max_size=64).map(chain_in)


@given(CHAINS)
@quick
def test_any_chain_is_a_packet_or_a_packet_error(data: bytes) -> None:
    """Extension headers that lie about their length, or lead nowhere, do no harm."""
    keeps_the_laws(ipv6.parse, data)


@pytest.mark.slow
@given(many(CHAINS | anything(PLAIN, CHAINED, LATER, front=b"\x60")))
@thorough
def test_very_many_bytes_are_a_packet_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(ipv6.parse, data)


def test_every_truncation_tells_what_is_missing() -> None:
    """Cut anywhere behind the fixed header, whole headers are there and the rest is counted."""
    seen = set()
    for end in range(40, len(CHAINED)):
        found = keeps_the_laws(ipv6.parse, CHAINED[:end])
        assert found.missing_bytes == len(CHAINED) - end
        assert found.extensions == CHAIN[: len(found.extensions)]
        chain = (*(each.number for each in CHAIN), 17)
        assert found.next_header == chain[len(found.extensions)]
        seen.add(len(found.extensions))
    assert seen == {0, 1, 2, 3, 4}


def test_behind_a_later_fragment_nothing_is_read() -> None:
    """The payload of a fragment that is not the first is no header, though a number names one."""
    found = ipv6.parse(LATER)
    assert (found.next_header, found.payload) == (60, b"\x11\0\1\4")
    assert (found.fragment_offset, found.more_fragments, found.identification) == (1480, True, 7)
    assert found.to_bytes() == LATER
    whole = ipv6.parse(PLAIN)
    assert (whole.fragment, whole.fragment_offset, whole.more_fragments) == (None, 0, False)


def test_padding_between_options_is_kept_and_at_the_end_is_not() -> None:
    """Padding that places an option is a value; that which fills the header is made anew."""
    options = (Option(PAD_1), Option(PAD_N, b"\0"), Option(30, b"x"))
    made = IPv6(A, B, 59, extensions=(Options(DESTINATION_OPTIONS, options),))
    data = made.to_bytes()
    assert data[40:] == b"\x3b\x01" + b"\0" + b"\x01\x01\0" + b"\x1e\x01x" + b"\x01\x05" + bytes(5)
    assert ipv6.parse(data) == made


def test_a_jumbogram_is_read_and_written() -> None:
    """With a jumbo payload option (RFC 2675) a packet is as long as the option tells."""
    expected = bytes(
        Theirs(src=A, dst=B, nh=0, plen=0)
        / IPv6ExtHdrHopByHop(nh=17, options=[Jumbo(jumboplen=70_008)])
        / Raw(bytes(70_000))
    )
    found = ipv6.parse(expected)
    assert len(found.payload) == 70_000
    assert found.to_bytes() == expected
    assert ipv6.parse(expected[:100]).missing_bytes == len(expected) - 100


def jumbo(length: int, payload_length: int) -> bytes:
    option = bytes([17, 0, JUMBO_PAYLOAD, 4]) + length.to_bytes(4, "big")
    return PLAIN[:4] + payload_length.to_bytes(2, "big") + b"\0" + PLAIN[7:40] + option


def chain_of(*headers: bytes) -> bytes:
    body = b"".join(headers)
    return PLAIN[:4] + len(body).to_bytes(2, "big") + bytes([60]) + PLAIN[7:40] + body


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header has 40 bytes, got 0"),
        (PLAIN[:39], "a header has 40 bytes, got 39"),
        (b"\x45" + PLAIN[1:], "version 6 was expected, got 4"),
        (
            chain_of(bytes([17, 1]) + bytes(6)),
            "destination options takes 16 bytes, of 8 that are left",
        ),
        (chain_of(b"\x11"), "destination options takes 8 bytes, of 1 that are left"),
        (chain_of(), "destination options takes 8 bytes, of 0 that are left"),
        (chain_of(b"\x11\0\x1e\5abcd"), "option 30 takes 7 bytes, of 6 that are left"),
        (chain_of(b"\x11\0\1\3\0\0\0\x1e"), "option 30 takes 2 bytes, of 1 that are left"),
        (chain_of(*[b"\x3c\0\1\4\0\0\0\0"] * 33), "at most 32 extension headers are read"),
        (jumbo(65_535, 0), "a jumbo payload has 65536 bytes at least, told are 65535"),
        (jumbo(65_536, 8), "a jumbo payload option beside a payload length"),
        (jumbo(65_536, 0)[:46], "a payload length of 0, but hop-by-hop options"),
        (
            PLAIN[:4] + b"\0\0\0" + PLAIN[7:40] + b"\x11\0\1\4\0\0\0\0",
            "a payload length of 0, but hop-by-hop options",
        ),
    ],
)
def test_what_is_no_packet_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        ipv6.parse(data)
    assert str(caught.value) == f"ipv6: {text}"


def with_one(*extensions: Extension) -> IPv6:
    return IPv6(A, B, 17, extensions=extensions)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (IPv6("1.2.3.4", B, 17), "source must be an IPv6 address, got '1.2.3.4'"),
        (IPv6(A, "there", 17), "destination must be an IPv6 address, got 'there'"),
        (IPv6(A, B, 256), "next_header must be 0..255, got 256"),
        (IPv6(A, B, 17, flow_label=1 << 20), "flow_label must be 0..1048575, got 1048576"),
        (IPv6(A, B, 17, bytes(65_536)), "at most 65535 bytes of payload, got 65536"),
        (IPv6(A, B, 17, missing_bytes=-1), "missing_bytes must be 0 or more, got -1"),
        (IPv6(A, B, 60, b"\x11\0\1\4\0\0\0\0"), "destination options belongs to extensions"),
        (IPv6(A, B, 60), "destination options takes 8 bytes, of 0 that are left"),
        (with_one(*[ALERT] * 33), "at most 32 extension headers, got more"),
        (
            with_one(Fragment(8, False, 1), ALERT),
            "behind a fragment that is not the first there are no headers",
        ),
        (with_one(Fragment(9, False, 1)), "the fragment offset is a multiple of 8, got 9"),
        (with_one(Options(43)), "options are headers 0 and 60, got 43"),
        (with_one(Options(60, (Option(PAD_1),))), "padding at the end is added of itself"),
        (
            with_one(Options(60, (Option(0, b"x"), Option(9)))),
            "this cannot be an option: Option(kind=0, data=b'x')",
        ),
        (
            with_one(Options(60, (Option(9, bytes(255)),) * 8)),
            "destination options has 8..2048 bytes in units of 8, got 2064",
        ),
        (with_one(Routing(0, 0, b"")), "routing has 8..2048 bytes in units of 8, got 4"),
        (with_one(Routing(0, 256)), "segments_left must be 0..255, got 256"),
        (
            with_one(Opaque(AUTHENTICATION, bytes(7))),
            "AH has 8..1028 bytes in units of 4, got 9",
        ),
        (with_one(Opaque(MOBILITY, bytes(10))), "mobility has 8..2048 bytes in units of 8, got 12"),
        (with_one(Opaque(17, bytes(6))), "opaque headers are (51, 135, 139, 140), got 17"),
        (
            with_one(Options(0, (Option(JUMBO_PAYLOAD, b"\0\1\0\0"),))),
            "the jumbo payload option tells 65536 bytes, not 8",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: IPv6, text: str) -> None:
    """Each field that has no place in a packet is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"ipv6: {text}"


def test_people_read_one_line() -> None:
    """The line has both addresses, the protocol by its name or number, and the length."""
    assert ipv6.parse(CHAINED).describe() == f"IP6 {A} > {B} UDP length 7"
    assert ipv6.parse(PLAIN).protocol == 17
