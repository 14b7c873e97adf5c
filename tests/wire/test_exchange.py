"""The header of requests and answers over datagrams."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.errors import PeerProtocolError
from twistedsock.wire.exchange import (
    ID_MASK,
    MAX_SPAN,
    TOKEN_BYTES,
    ExchangeDatagram,
    ExchangeType,
    parse_exchange,
)

IDS = st.integers(0, ID_MASK)
ATTEMPTS = st.integers(1, 255)
TOKENS = st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES)
DATAGRAMS = st.one_of(
    st.builds(
        ExchangeDatagram,
        st.just(ExchangeType.REQUEST),
        IDS,
        ATTEMPTS,
        st.integers(0, MAX_SPAN - 1),
        st.binary(max_size=100),
    ),
    st.builds(
        ExchangeDatagram,
        st.just(ExchangeType.ANSWER),
        IDS,
        ATTEMPTS,
        st.just(0),
        st.binary(max_size=100),
    ),
    st.builds(ExchangeDatagram, st.just(ExchangeType.REFUSAL), IDS, ATTEMPTS),
    st.builds(
        ExchangeDatagram,
        st.sampled_from([ExchangeType.CHALLENGE, ExchangeType.PROOF]),
        IDS,
        ATTEMPTS,
        st.just(0),
        TOKENS,
    ),
)


@pytest.mark.parametrize(
    ("datagram", "data"),
    [
        (
            ExchangeDatagram(ExchangeType.REQUEST, 0xDEADBEEF, 2, 63, b"hi"),
            bytes.fromhex("10 02 003f deadbeef 6869"),
        ),
        (
            ExchangeDatagram(ExchangeType.ANSWER, 1, 255, 0, b"ok"),
            bytes.fromhex("11 ff 0000 00000001 6f6b"),
        ),
        (ExchangeDatagram(ExchangeType.REFUSAL, 0), bytes.fromhex("12 01 0000 00000000")),
        (
            ExchangeDatagram(ExchangeType.CHALLENGE, 7, payload=bytes(8)),
            bytes.fromhex("13 01 0000 00000007 0000000000000000"),
        ),
        (
            ExchangeDatagram(ExchangeType.PROOF, 7, payload=bytes(8)),
            bytes.fromhex("14 01 0000 00000007 0000000000000000"),
        ),
    ],
)
def test_the_layout_is_as_documented(datagram: ExchangeDatagram, data: bytes) -> None:
    """Each type has the bytes of the picture, written out by hand."""
    assert datagram.to_bytes() == data
    assert parse_exchange(data) == datagram


@given(DATAGRAMS)
def test_what_is_packed_is_parsed(datagram: ExchangeDatagram) -> None:
    """Parsing is the inverse of packing."""
    assert parse_exchange(datagram.to_bytes()) == datagram


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    """Random bytes raise only our error, and what is parsed packs to the same bytes."""
    try:
        found = parse_exchange(data)
    except PeerProtocolError:
        return
    assert found.to_bytes() == data


@given(DATAGRAMS)
def test_a_header_cut_short_is_refused(datagram: ExchangeDatagram) -> None:
    """Nothing is read past the end of the datagram."""
    for size in range(8):
        with pytest.raises(PeerProtocolError, match=f"{size} bytes are no exchange"):
            parse_exchange(datagram.to_bytes()[:size])


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ((0x00, 1, 0, 0), "exchange of version 0; this is version 1"),
        ((0x2F, 1, 0, 0), "exchange of version 2; this is version 1"),
        ((0x15, 1, 0, 0), "no exchange has the type 5"),
        ((0x10, 0, 0, 0), "attempts count from 1"),
        ((0x10, 1, 1024, 0), "REQUEST is 1024 behind"),
        ((0x11, 1, 1, 0), "ANSWER is 1 behind"),
        ((0x13, 1, 0, 0), "CHALLENGE with a payload of 0 bytes"),
    ],
)
def test_a_wrong_header_is_told(header: tuple[int, int, int, int], fault: str) -> None:
    """Each field out of its range is named."""
    with pytest.raises(PeerProtocolError) as told:
        parse_exchange(struct.pack("!BBHI", *header))
    assert str(told.value) == fault


def test_a_refusal_carries_nothing() -> None:
    """A refusal with a payload is refused."""
    with pytest.raises(PeerProtocolError, match="REFUSAL with a payload of 1 bytes"):
        parse_exchange(bytes.fromhex("12 01 0000 00000000 00"))
