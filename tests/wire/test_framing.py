"""Framers. The oracles are Twisted's own receivers, the standard library and bytes by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import (
    Int8StringReceiver,
    Int16StringReceiver,
    Int32StringReceiver,
    NetstringReceiver,
)

from twistedsock.errors import FrameError, PeerProtocolError
from twistedsock.wire.framing import (
    FRAMINGS,
    MAX_MESSAGE_BYTES,
    ChunkFramer,
    Framer,
    LineFramer,
    NetstringFramer,
    Uint8Framer,
    Uint16Framer,
    Uint32Framer,
    make_framer,
)

# The framing is drawn, not parametrized: pytest-twisted runs a property once for each of its
# parameters inside the one before, which it then refuses.
quick = settings(max_examples=300, deadline=None)

CUT = sorted(set(FRAMINGS) - {"chunk"})  # the framings whose messages do not depend on the reads
PREFIXED = sorted(set(CUT) - {"line"})
WIDTHS = {"uint8": 1, "uint16": 2, "uint32": 4}
Outcome = tuple[list[bytes], str | None]

# Bytes that come near to frames of every framing, so that faults and edges are met often.
TOKENS = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"a",
        b"ab",
        b"0:,",
        b"1:a,",
        b"3:a\n,,",
        b"2:ab",
        b":",
        b",",
        b"0",
        b"00",
        b"01:a,",
        b"9",
        b"10",
        b"12:",
        b"99999",
        b"\0",
        b"\0\0\0",
        b"\1a",
        b"\0\1a",
        b"\0\0\0\2ab",
        b"\0\0\1\0",
        b"\xff",
        b"abcdefghij",
    ]
)
STREAMS = st.lists(TOKENS, max_size=12).map(b"".join) | st.binary(max_size=40)
LIMITS = st.integers(1, 12)
MESSAGES = st.lists(st.binary(max_size=20), max_size=8)
CUTS = st.lists(st.integers(0, 200), max_size=10)


def chop(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return *stream* in pieces, cut at each of *cuts*."""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def outcome(framer: Framer, pieces: Iterable[bytes]) -> Outcome:
    """Return every message that *pieces* and the end give, and the fault if there is one."""
    messages: list[bytes] = []
    try:
        for piece in pieces:
            messages += framer.feed(piece)
        messages += framer.end()
    except PeerProtocolError as error:
        return messages + error.completed, str(error)
    return messages, None


def frame(framing: str, message: bytes) -> bytes:
    """Return *message* in its frame, made by hand."""
    if framing == "line":
        return message + b"\n"
    if framing == "netstring":
        return str(len(message)).encode() + b":" + message + b","
    return len(message).to_bytes(WIDTHS[framing], "big") + message


# What holds for every framing


@quick
@given(st.sampled_from(CUT), STREAMS, CUTS, LIMITS)
@example("line", b"abc\r\n", [4], 3)
@example("line", b"abc\r\r\n", [4], 3)
@example("line", b"a\n" * 3 + b"abcd\n", [1, 7], 3)
@example("netstring", b"100:", [2], 9)
def test_any_chopping_gives_the_same(
    framing: str, stream: bytes, cuts: list[int], limit: int
) -> None:
    """However a stream is cut, its messages are the same, and so are a fault and its words."""
    whole = outcome(make_framer(framing, limit), [stream])
    assert outcome(make_framer(framing, limit), chop(stream, cuts)) == whole
    assert outcome(make_framer(framing, limit), chop(stream, range(len(stream)))) == whole


@quick
@given(st.sampled_from(sorted(FRAMINGS)), STREAMS, LIMITS)
def test_any_bytes_raise_only_peer_protocol_error(framing: str, stream: bytes, limit: int) -> None:
    """Whatever a peer sends, no message is above the limit and no other error comes out."""
    messages, _ = outcome(make_framer(framing, limit), [stream])
    assert all(len(message) <= limit for message in messages)


@quick
@given(st.sampled_from(CUT), MESSAGES, CUTS)
def test_what_is_framed_is_cut_out_again(
    framing: str, messages: list[bytes], cuts: list[int]
) -> None:
    """Messages come out of the stream as they went in, and in their order."""
    if framing == "line":
        messages = [message.replace(b"\n", b"").rstrip(b"\r") for message in messages]
    framer = make_framer(framing)
    stream = b"".join(map(framer.encode, messages))
    assert stream == b"".join(frame(framing, message) for message in messages)
    assert outcome(framer, chop(stream, cuts)) == (messages, None)


@pytest.mark.parametrize("framing", CUT)
def test_a_fault_carries_the_messages_before_it(framing: str) -> None:
    """Messages that were whole before a fault come with it, and only those of the same read."""
    good, too_long = frame(framing, b"good"), frame(framing, b"x" * 5)
    framer = make_framer(framing, 4)
    assert framer.feed(good) == [b"good"]
    with pytest.raises(PeerProtocolError) as caught:
        framer.feed(good + good + too_long + good)
    assert caught.value.completed == [b"good", b"good"]


@pytest.mark.parametrize("framing", CUT)
def test_a_message_of_the_limit_passes_and_one_more_byte_does_not(framing: str) -> None:
    """The limit is the largest message that passes, whole or byte by byte."""
    for size in (0, 1, 99, 100):
        stream = frame(framing, b"x" * size)
        assert outcome(make_framer(framing, 100), chop(stream, range(size + 9))) == (
            [b"x" * size],
            None,
        )
    stream = frame(framing, b"x" * 101)
    for pieces in ([stream], chop(stream, range(200))):
        assert outcome(make_framer(framing, 100), pieces)[1] is not None


@pytest.mark.parametrize("framing", sorted(FRAMINGS))
def test_nothing_gives_nothing(framing: str) -> None:
    """An empty read is no message, and a stream that ends between frames ends well."""
    framer = make_framer(framing)
    assert framer.feed(b"") == []
    assert framer.feed(b"") == []
    assert framer.end() == []


@pytest.mark.parametrize("framing", ["line", "netstring", "uint32"])
def test_a_large_message_in_small_reads_comes_out_once(framing: str) -> None:
    """4 MiB in reads of 1 KiB are one message, at the read that completes it."""
    size = 4 * 1024 * 1024
    message = bytes(range(32, 96)) * (size // 64)
    stream = frame(framing, message)
    framer = make_framer(framing, size)
    per_read = [framer.feed(stream[at : at + 1024]) for at in range(0, len(stream), 1024)]
    assert per_read[-1] == [message]
    assert not any(per_read[:-1])
    assert framer.end() == []


@pytest.mark.parametrize("framing", CUT)
def test_many_messages_in_one_read_all_come_out(framing: str) -> None:
    """A read may complete thousands of messages, the first of them begun before."""
    stream = frame(framing, b"abc") * 5000
    framer = make_framer(framing)
    assert framer.feed(stream[:2]) == []
    assert framer.feed(stream[2:-1]) + framer.feed(stream[-1:]) == [b"abc"] * 5000


def test_a_framer_is_made_by_its_name() -> None:
    """The framings are these, and their default limit is 64 KiB."""
    assert list(FRAMINGS) == ["chunk", "line", "netstring", "uint8", "uint16", "uint32"]
    assert [type(make_framer(name)) for name in FRAMINGS] == [
        ChunkFramer,
        LineFramer,
        NetstringFramer,
        Uint8Framer,
        Uint16Framer,
        Uint32Framer,
    ]
    assert MAX_MESSAGE_BYTES == 65536
    assert make_framer("line").feed(b"x" * 65536 + b"\n") == [b"x" * 65536]


@pytest.mark.parametrize("name", ["", "lines", "LINE", "uint64"])
def test_an_unknown_framing_is_refused(name: str) -> None:
    """A name that no framing has is refused with those that there are."""
    with pytest.raises(ValueError, match=r"^framing must be one of ") as caught:
        make_framer(name)
    assert str(caught.value) == (
        f"framing must be one of chunk, line, netstring, uint8, uint16, uint32, got {name!r}"
    )


# chunk


@quick
@given(st.lists(st.binary(max_size=30), max_size=6), LIMITS)
def test_chunks_are_the_reads(reads: list[bytes], limit: int) -> None:
    """Chunks are the reads, in pieces of the limit, with no byte lost and none empty."""
    framer = ChunkFramer(limit)
    for read in reads:
        pieces = framer.feed(read)
        assert b"".join(pieces) == read
        assert all(len(piece) == limit for piece in pieces[:-1])
        assert all(0 < len(piece) <= limit for piece in pieces[-1:])
    assert framer.end() == []


def test_a_chunk_is_cut_only_above_the_limit() -> None:
    """A read of the limit is one message; one more byte makes another."""
    assert ChunkFramer(4).feed(b"abcd") == [b"abcd"]
    assert ChunkFramer(4).feed(b"abcde") == [b"abcd", b"e"]
    assert ChunkFramer(4).feed(b"abcdefgh") == [b"abcd", b"efgh"]


def test_a_chunk_has_no_frame() -> None:
    """A message is sent as it is."""
    assert ChunkFramer.encode(b"\0any\n") == b"\0any\n"


# line


def reference_lines(stream: bytes, limit: int) -> Outcome:
    """Return what a whole stream of lines means, by the standard library's split."""
    *lines, rest = stream.split(b"\n")
    messages: list[bytes] = []
    for line in [*lines, *([rest] if rest else [])]:
        line = line.removesuffix(b"\r")
        if len(line) > limit:
            return messages, f"line longer than {limit} bytes"
        messages.append(line)
    return messages, None


@quick
@given(st.text("ab\r\n", max_size=30).map(str.encode), CUTS, LIMITS)
def test_lines_are_what_split_says(stream: bytes, cuts: list[int], limit: int) -> None:
    """Lines end with LF, lose one CR before it, and the last needs no end."""
    assert outcome(LineFramer(limit), chop(stream, cuts)) == reference_lines(stream, limit)


@pytest.mark.parametrize(
    ("reads", "lines"),
    [
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a\r\nb\r\n"], [b"a", b"b"]),
        ([b"a\r", b"\nb"], [b"a", b"b"]),
        ([b"a", b"b", b"\n"], [b"ab"]),
        ([b"\n\r\n\n"], [b"", b"", b""]),
        ([b"a\r\r\n"], [b"a\r"]),
        ([b"a\rb\n"], [b"a\rb"]),
        ([b"a\0\xff\n"], [b"a\0\xff"]),
        ([b"last"], [b"last"]),
        ([b"last\r"], [b"last"]),
    ],
)
def test_lines_are_cut_at_lf(reads: list[bytes], lines: list[bytes]) -> None:
    """LF ends a line, one CR before it belongs to the end, and a CR elsewhere to the line."""
    assert outcome(LineFramer(), reads) == (lines, None)


@pytest.mark.parametrize(
    "reads",
    [
        [b"abcd\n"],
        [b"abcd\r\n"],
        [b"abcd", b"\r\n"],
        [b"abcd\r", b"\n"],
        [b"abcd", b"\r", b"\n"],
        [b"x\nabcd\r", b"\n"],
        [b"abcd"],
        [b"abcd\r"],
        [b"abc\r\r\n"],
    ],
)
def test_a_line_of_the_limit_passes(reads: list[bytes]) -> None:
    """A line end counts for nothing, however it is split over reads."""
    messages, fault = outcome(LineFramer(4), reads)
    assert fault is None
    assert len(messages[-1]) == 4


@pytest.mark.parametrize(
    "reads",
    [
        [b"abcde\n"],
        [b"abcde\r\n"],
        [b"abcde"],
        [b"abcd", b"e"],
        [b"abcd\r\r\n"],
        [b"abcd\r", b"\r"],
        [b"abcd\r", b"e"],
        [b"abcd\re"],
        [b"abcde\r"],
    ],
)
def test_a_line_above_the_limit_is_a_fault_at_once(reads: list[bytes]) -> None:
    """One byte too many is a fault in the read that brings it, not at the line end."""
    framer = LineFramer(4)
    for read in reads[:-1]:
        assert framer.feed(read) == []
    with pytest.raises(PeerProtocolError, match=r"^line longer than 4 bytes$") as caught:
        framer.feed(reads[-1])
    assert caught.value.completed == []


def test_the_last_line_is_given_once() -> None:
    """The end gives an open line and keeps nothing of it."""
    framer = LineFramer()
    assert framer.feed(b"a\nb") == [b"a"]
    assert framer.end() == [b"b"]
    assert framer.end() == []


@pytest.mark.parametrize(
    ("message", "framed"),
    [
        (b"", b"\n"),
        (b"\n", b"\n"),
        (b"a", b"a\n"),
        (b"a\n", b"a\n"),
        (b"a\r\n", b"a\r\n"),
        (b"a\0b", b"a\0b\n"),
    ],
)
def test_a_line_is_sent_with_one_line_end(message: bytes, framed: bytes) -> None:
    """A message gets LF unless it ends with one."""
    assert LineFramer.encode(message) == framed


@pytest.mark.parametrize("message", [b"a\nb", b"\na", b"\n\n", b"a\n\n"])
def test_a_line_cannot_carry_a_line_feed(message: bytes) -> None:
    """A message with LF before its end is refused: it would arrive as two."""
    with pytest.raises(FrameError) as caught:
        LineFramer.encode(message)
    assert str(caught.value) == "a line cannot carry a message with a line feed inside"


# netstring and the length prefixes


RECEIVERS = [
    (NetstringFramer, NetstringReceiver),
    (Uint8Framer, Int8StringReceiver),
    (Uint16Framer, Int16StringReceiver),
    (Uint32Framer, Int32StringReceiver),
]


def receive(receiver: type, stream: bytes) -> list[bytes]:
    """Return the strings that Twisted's *receiver* finds in *stream*."""
    found: list[bytes] = []
    protocol = receiver()
    protocol.stringReceived = found.append
    protocol.makeConnection(StringTransport())
    protocol.dataReceived(stream)
    return found


@quick
@given(st.sampled_from(RECEIVERS), MESSAGES, CUTS)
def test_twisted_understands_what_is_sent(
    pair: tuple[Callable[[], Framer], type], messages: list[bytes], cuts: list[int]
) -> None:
    """Twisted's receiver finds the messages in what is encoded, and ours finds the same."""
    framer, receiver = pair
    stream = b"".join(map(framer().encode, messages))
    assert receive(receiver, stream) == messages
    assert outcome(framer(), chop(stream, cuts)) == (messages, None)


@pytest.mark.parametrize("framing", PREFIXED)
@pytest.mark.parametrize("cut", range(1, 5))
def test_an_end_inside_a_frame_is_a_fault(framing: str, cut: int) -> None:
    """A stream that ends in the length or in the message is broken, and tells so."""
    framer = make_framer(framing)
    stream = frame(framing, b"whole") + frame(framing, b"message")[:cut]
    assert framer.feed(stream) == [b"whole"]
    name = "netstring" if framing == "netstring" else "message"
    with pytest.raises(PeerProtocolError, match=f"^the stream ended inside a {name}$") as caught:
        framer.end()
    assert caught.value.completed == []


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        (b"0:,", [b""]),
        (b"0:,0:,", [b"", b""]),
        (b"12:hello world!,", [b"hello world!"]),  # the example of the specification
        (b"3:a,b,2::,,", [b"a,b", b":,"]),
        (b"10:0123456789,", [b"0123456789"]),
    ],
)
def test_netstrings_are_cut_by_their_length(stream: bytes, messages: list[bytes]) -> None:
    """The length decides, whatever the message holds; an empty message is one."""
    assert outcome(NetstringFramer(), [stream]) == (messages, None)


@pytest.mark.parametrize(
    "stream",
    [
        b":,",
        b"a",
        b"-1:,",
        b"+1:a,",
        b" 1:a,",
        b"1 :a,",
        b"00:,",
        b"01:a,",
        b"1a:",
        b"1.0:a,",
        b"\n1:a,",
        b"\xd9\xa3:abc,",
        b"\xb2:ab,",
        b"1_0:",
        b"00000000:",
        b"\0",
        b"0x1:a,",
    ],
)
def test_a_netstring_length_is_a_plain_decimal_number(stream: bytes) -> None:
    """A sign, a space, a leading zero or any other byte in the length is a fault."""
    for pieces in ([stream], chop(stream, range(len(stream)))):
        assert outcome(NetstringFramer(99999), pieces) == (
            [],
            "netstring length is not a decimal number",
        )


@pytest.mark.parametrize("stream", [b"0:x", b"3:abcd,", b"1:a;", b"1:a1:b,", b"0:0:,"])
def test_a_netstring_ends_with_a_comma(stream: bytes) -> None:
    """Any other byte where the comma belongs is a fault."""
    assert outcome(NetstringFramer(), [b"1:x," + stream]) == (
        [b"x"],
        "netstring does not end with a comma",
    )


@pytest.mark.parametrize(
    ("limit", "size"), [(1, 1), (9, 9), (9, 8), (10, 10), (99, 99), (100, 100), (65536, 65536)]
)
def test_a_netstring_of_the_limit_passes(limit: int, size: int) -> None:
    """A message of exactly the limit passes, also where the limit has one digit more."""
    stream = str(size).encode() + b":" + b"x" * size + b","
    assert outcome(NetstringFramer(limit), [stream]) == ([b"x" * size], None)


@pytest.mark.parametrize(
    ("limit", "stream", "told"),
    [
        (8, b"9:", 9),
        (9, b"10", 10),
        (10, b"11:", 11),
        (99, b"100", 100),
        (98, b"99:", 99),
        (65536, b"65537:", 65537),
        (65536, b"99999:", 99999),
        (65536, b"100000", 100000),
    ],
)
def test_a_netstring_above_the_limit_is_a_fault_at_its_length(
    limit: int, stream: bytes, told: int
) -> None:
    """A length above the limit is a fault before a byte of the message is held."""
    framer = NetstringFramer(limit)
    assert framer.feed(stream[:-1]) == []
    with pytest.raises(PeerProtocolError) as caught:
        framer.feed(stream[-1:])
    # Without its colon a length may go on: only its being too long is known.
    whole = stream.endswith(b":")
    size = f"of {told} bytes; the limit is {limit}" if whole else f"longer than {limit} bytes"
    assert str(caught.value) == f"netstring {size}"


def test_an_endless_length_is_not_held() -> None:
    """Digits without end are a fault as soon as they exceed the limit."""
    messages, fault = outcome(NetstringFramer(100), [b"1" * 1_000_000])
    assert messages == []
    assert fault is not None


@quick
@given(st.sampled_from(sorted(WIDTHS)), STREAMS, CUTS, LIMITS)
def test_lengths_are_what_from_bytes_says(
    framing: str, stream: bytes, cuts: list[int], limit: int
) -> None:
    """Every stream is read as int.from_bytes reads its lengths."""
    width, position = WIDTHS[framing], 0
    messages: list[bytes] = []
    fault = None
    while position < len(stream):
        header = stream[position : position + width]
        size = int.from_bytes(header, "big")
        if len(header) == width and size > limit:
            fault = f"message of {size} bytes; the limit is {limit}"
            break
        end = position + width + size
        if len(header) < width or end > len(stream):
            fault = "the stream ended inside a message"
            break
        messages.append(stream[position + width : end])
        position = end
    assert outcome(make_framer(framing, limit), chop(stream, cuts)) == (messages, fault)


@pytest.mark.parametrize(
    ("framing", "largest", "header"),
    [("uint8", 255, b"\xff"), ("uint16", 65535, b"\xff\xff"), ("uint32", 65536, b"\0\1\0\0")],
)
def test_the_largest_message_fits_its_length(framing: str, largest: int, header: bytes) -> None:
    """The length is unsigned and big-endian, up to its largest number."""
    framer = make_framer(framing, 1 << 20)
    stream = framer.encode(b"x" * largest)
    assert stream == header + b"x" * largest
    assert outcome(framer, [stream]) == ([b"x" * largest], None)


@pytest.mark.parametrize(("framing", "largest"), [("uint8", 255), ("uint16", 65535)])
def test_a_message_that_its_length_cannot_tell_is_refused(framing: str, largest: int) -> None:
    """One byte more than the length can tell is refused with both numbers."""
    with pytest.raises(FrameError) as caught:
        make_framer(framing).encode(b"x" * (largest + 1))
    assert str(caught.value) == (
        f"a message of {largest + 1} bytes does not fit; the length allows {largest}"
    )


@pytest.mark.parametrize(
    ("framing", "limit", "stream", "told"),
    [
        ("uint8", 254, b"\xff", 255),
        ("uint16", 255, b"\1\0", 256),
        ("uint32", 65536, b"\0\1\0\1", 65537),
        ("uint32", 65536, b"\xff\xff\xff\xff", 2**32 - 1),
    ],
)
def test_a_length_above_the_limit_is_a_fault_at_once(
    framing: str, limit: int, stream: bytes, told: int
) -> None:
    """A length above the limit is a fault before a byte of the message is held."""
    framer = make_framer(framing, limit)
    assert framer.feed(stream[:-1]) == []
    with pytest.raises(PeerProtocolError) as caught:
        framer.feed(stream[-1:])
    assert str(caught.value) == f"message of {told} bytes; the limit is {limit}"
