"""TCP segments. The oracle is scapy, both ways, with all options."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, keeps_the_laws, many, quick, thorough
from scapy.layers.inet import IP
from scapy.layers.inet import TCP as THEIRS
from scapy.layers.inet6 import IPv6

from twistedsock.errors import PacketError
from twistedsock.wire import tcp
from twistedsock.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, TCP, URG, flag_letters
from twistedsock.wire.tcp_options import (
    FAST_OPEN_COOKIE,
    MD5_SIGNATURE,
    NO_OPERATION,
    SACK_PERMITTED,
    Option,
    maximum_segment_size,
    sack,
    timestamps,
    window_scale,
)

FOUR, SIX = ("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "fe80::2")
NOP = Option(NO_OPERATION)
OPTIONS = (
    maximum_segment_size(1460),
    Option(SACK_PERMITTED),
    timestamps(7, 9),
    NOP,
    window_scale(7),
)
OPENING = TCP(40_112, 8888, 123, 0, SYN, 65_495, 0, OPTIONS)
WHOLE = OPENING.to_bytes(*FOUR)
SENDING = TCP(1, 2, 5, 6, PSH | ACK, 9, 0, (NOP, NOP, timestamps(1, 2)), b"data").to_bytes(*FOUR)
SACKING = TCP(1, 2, 5, 6, ACK, 9, 0, (NOP, NOP, sack((1, 2), (3, 4), (5, 6)))).to_bytes(*FOUR)
WORDS, LONGS = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
PAIRS = st.lists(LONGS, min_size=2, max_size=2).map(tuple)

# ours, and scapy's
OPTION_PAIRS = st.one_of(
    st.just((NOP, ("NOP", None))),
    st.just((Option(SACK_PERMITTED), ("SAckOK", b""))),
    WORDS.map(lambda n: (maximum_segment_size(n), ("MSS", n))),
    st.integers(0, 255).map(lambda n: (window_scale(n), ("WScale", n))),
    PAIRS.map(lambda two: (timestamps(*two), ("Timestamp", two))),
    PAIRS.map(lambda two: (sack(two), ("SAck", two))),
    st.binary(min_size=4, max_size=12).map(lambda b: (Option(254, b), (254, b))),
    st.binary(min_size=16, max_size=16).map(lambda b: (Option(MD5_SIGNATURE, b), (19, b))),
    PAIRS.map(
        lambda two: (Option(FAST_OPEN_COOKIE, struct.pack("!II", *two)), ("TFO", two)),
    ),
)


def theirs(source: str, destination: str, segment: THEIRS) -> bytes:
    """Return the bytes that scapy makes of a segment between two addresses."""
    head = IPv6 if ":" in source else IP
    return bytes(head(bytes(head(src=source, dst=destination) / segment))[THEIRS])


def octets(option: Option) -> int:
    return 1 if option == NOP else 2 + len(option.data)


@given(
    st.tuples(WORDS, WORDS, LONGS, LONGS, st.integers(0, 0x1FF), WORDS, WORDS),
    st.lists(OPTION_PAIRS, max_size=6),
    st.binary(max_size=40),
    st.sampled_from([FOUR, SIX]),
)
@quick
def test_it_is_written_and_read_as_by_scapy(
    fields: tuple[int, ...],
    pairs: list[tuple[Option, tuple[Any, Any]]],
    payload: bytes,
    addresses: tuple[str, str],
) -> None:
    """Any segment has the same bytes as scapy's, checksum included, and is read from them."""
    while sum(octets(ours) for ours, _ in pairs) > 40:
        pairs.pop()
    first, second, sequence, acknowledgment, flags, window, urgent = fields
    options = [option for _, option in pairs]
    segment = THEIRS(
        sport=first, dport=second, seq=sequence, ack=acknowledgment, flags=flags, window=window,
        urgptr=urgent, options=options,
    )  # fmt: skip
    expected = theirs(*addresses, segment / payload)
    made = TCP(*fields, tuple(ours for ours, _ in pairs), payload)
    assert made.to_bytes(*addresses) == expected
    found = tcp.parse(expected, *addresses)
    assert found == made
    assert found.is_intact is True
    assert found.checksum == THEIRS(expected).chksum


@given(anything(WHOLE, SENDING, SACKING, front=WHOLE[:12]))
@quick
def test_any_bytes_are_a_segment_or_a_packet_error(data: bytes) -> None:
    """Whatever comes in is a value that survives a round trip, or a PacketError."""
    keeps_the_laws(tcp.parse, data)
    keeps_the_laws(lambda each: tcp.parse(each, *SIX), data)


@pytest.mark.slow
@given(many(anything(WHOLE, SENDING, SACKING, front=WHOLE[:12])))
@thorough
def test_very_many_bytes_are_a_segment_or_a_packet_error(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        keeps_the_laws(lambda each: tcp.parse(each, *FOUR), data)


def test_every_truncation_tells_what_is_missing() -> None:
    """Cut anywhere behind the fixed header, the whole options are there and the rest is counted."""
    for end in range(20, len(WHOLE)):
        found = keeps_the_laws(lambda each: tcp.parse(each, *FOUR), WHOLE[:end])
        assert found.options == OPTIONS[: len(found.options)]
        assert found.missing_bytes == len(WHOLE) - 20 - sum(map(octets, found.options))
        assert (found.payload, found.is_intact) == (b"", None)
        assert "length" not in found.describe()
    assert tcp.parse(WHOLE).missing_bytes == 0


def test_a_changed_byte_is_found() -> None:
    """A segment with one bit turned is not intact; without the addresses nobody knows."""
    assert tcp.parse(SENDING, *FOUR).is_intact is True
    assert tcp.parse(SENDING[:-1] + b"b", *FOUR).is_intact is False
    assert tcp.parse(SENDING).is_intact is None


def test_without_the_addresses_the_checksum_is_zero() -> None:
    """The checksum is made with the addresses alone; parsing them finds a wrong one."""
    data = OPENING.to_bytes()
    assert data[16:18] == b"\0\0"
    assert tcp.parse(data, *FOUR).is_intact is False
    assert tcp.parse(data) == OPENING


def test_padding_behind_the_end_of_options_is_left_out() -> None:
    """What follows the end of options is no option, and is not written again."""
    head = bytes.fromhex("0001000200000000000000007000000000000000")
    found = tcp.parse(head + b"\1\0\2\4\5\6\7\x08")
    assert found.options == (NOP,)
    assert tcp.parse(found.to_bytes()) == found


def test_options_of_an_odd_length_are_kept() -> None:
    """An option whose length is not its own is kept as it came and told as a number."""
    odd = (Option(2, b"\1"), Option(8, b""), Option(5, b"1234"), Option(3, b""), Option(4, b"x"))
    found = tcp.parse(TCP(1, 2, options=odd).to_bytes())
    assert found.options == odd
    assert all(option.numbers is None for option in odd)
    assert "[option 2 of 1 bytes, option 8 of 0 bytes, option 5 of 4 bytes, " in found.describe()


def test_numbers_say_what_an_option_tells() -> None:
    """The numbers of each option are those it was made of."""
    assert maximum_segment_size(1460).numbers == (1460,)
    assert window_scale(14).numbers == (14,)
    assert timestamps(1, 4_294_967_295).numbers == (1, 4_294_967_295)
    assert sack((1, 2), (3, 4)).numbers == (1, 2, 3, 4)
    assert Option(253, b"1234").numbers is None


def test_flags_are_written_as_by_tcpdump() -> None:
    """The letters of the control bits are those of tcpdump, in its order."""
    assert [flag_letters(each) for each in (SYN, SYN | ACK, ACK, FIN | PSH | ACK, RST, 0)] == [
        "S", "S.", ".", "FP.", "R", "none",
    ]  # fmt: skip
    assert flag_letters(URG | ECE | CWR | AE) == "UEWe"


def test_people_read_one_line() -> None:
    """The line has ports, flags, numbers and options; never the payload."""
    assert OPENING.describe() == (
        "TCP 40112 > 8888 S seq 123 win 65495 [mss 1460, sackOK, TS val 7 ecr 9, wscale 7] length 0"
    )
    assert (
        tcp.parse(SENDING).describe() == "TCP 1 > 2 P. seq 5 ack 6 win 9 [TS val 1 ecr 2] length 4"
    )
    more = (sack((1, 2), (3, 4)), Option(FAST_OPEN_COOKIE), Option(34, b"\1\xff"))
    assert TCP(1, 2, 0, 0, URG, 0, 8, more).describe() == (
        "TCP 1 > 2 U seq 0 win 0 urg 8 "
        "[sack 1:2 3:4, tfo cookie asked for, tfo cookie 01ff] length 0"
    )
    assert "[md5]" in TCP(1, 2, options=(Option(MD5_SIGNATURE, bytes(16)),)).describe()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a header has 20 bytes at least, got 0"),
        (WHOLE[:19], "a header has 20 bytes at least, got 19"),
        (WHOLE[:12] + b"\x40" + WHOLE[13:], "a data offset of 16 bytes, below 20"),
        (WHOLE[:20] + b"\2\1" + WHOLE[22:], "option 2 has a length of 1; 20 bytes are left"),
        (WHOLE[:20] + b"\2\x15" + WHOLE[22:], "option 2 has a length of 21; 20 bytes are left"),
        (WHOLE[:36] + b"\1\1\1\2", "option 2 has a length of 0; 1 bytes are left"),
    ],
)
def test_what_is_no_segment_is_told(data: bytes, text: str) -> None:
    """Each fault of the bytes is told with what was found."""
    with pytest.raises(PacketError) as caught:
        tcp.parse(data)
    assert str(caught.value) == f"tcp: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (TCP(65_536, 2), "source_port must be 0..65535, got 65536"),
        (TCP(1, 2, 1 << 32), "sequence_number must be 0..4294967295, got 4294967296"),
        (TCP(1, 2, flags=1 << 12), "flags must be 0..4095, got 4096"),
        (TCP(1, 2, options=(NOP,) * 41), "at most 40 bytes of options, got 41"),
        (TCP(1, 2, options=(Option(0),)), "this cannot be an option: Option(kind=0, data=b'')"),
        (
            TCP(1, 2, missing_bytes=3),
            "options and missing_bytes must be a multiple of 4, at most 40, got 0 and 3",
        ),
        (TCP(1, 2, payload=b"x", missing_bytes=4), "where options are missing there is no payload"),
    ],
)
def test_a_field_that_does_not_fit_is_told(value: TCP, text: str) -> None:
    """Each field that has no place in a segment is refused by its name."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"tcp: {text}"


def test_an_option_that_does_not_fit_is_told() -> None:
    """An option's numbers have their bits, and SACK has one to four blocks."""
    with pytest.raises(PacketError, match="tcp: option 2 has no place for \\(65536,\\)"):
        maximum_segment_size(65_536)
    with pytest.raises(PacketError, match=r"tcp: SACK has 1\.\.4 blocks, got 5"):
        sack(*[(1, 2)] * 5)
