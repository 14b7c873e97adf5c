"""The client's core: bytes in, messages out; no socket and no clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.addresses import Address
from twistedsock.client.conversation import (
    INBOX_BYTES,
    MESSAGE_OVERHEAD_BYTES,
    Conversation,
    is_end,
)
from twistedsock.client.failures import not_connected, not_received, not_resolved, not_sent
from twistedsock.errors import (
    AddressError,
    CannotResolve,
    CannotSend,
    ClientError,
    CodecError,
    FrameError,
    PeerClosed,
    PeerProtocolError,
    Refused,
    TimedOut,
    Unreachable,
)
from twistedsock.wire.codecs import CODECS
from twistedsock.wire.framing import FRAMINGS, make_framer

TCP, UDP = "tcp:127.0.0.1:8888", "udp:127.0.0.1:8888"
ADDRESS = Address("tcp", "127.0.0.1", 8888)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=200),
    "text": st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("aé\n☃", max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner),
        max_leaves=6,
    ),
    "literal": st.recursive(
        st.integers() | st.binary(max_size=9) | st.text("aé\n☃", max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner),
        max_leaves=6,
    ),
}


def taken(talk: Conversation) -> list[Any]:
    """Return all messages that are ready, and at last how it ended, if it has."""
    told: list[Any] = []
    while talk.ready:
        try:
            told.append(talk.take())
        except Exception as error:
            told.append(error)
            if talk.is_over:
                break
    return told


@given(
    data=st.data(),
    framing=st.sampled_from([name for name in FRAMINGS if name != "chunk"]),
    codec=st.sampled_from(list(CODECS)),
)
def test_any_chopping_gives_the_same_messages(
    data: st.DataObject, framing: str, codec: str
) -> None:
    """Whatever the reads bring, the messages are those that were sent, in order, then the end."""
    ours, theirs = Conversation(TCP, framing, codec), Conversation(TCP, framing, codec)
    sent, stream = [], b""
    for value in data.draw(st.lists(VALUES[codec], max_size=6)):
        try:
            stream += theirs.encode(value)
        except FrameError:  # a line feed inside a line, or too long for one byte
            continue
        sent.append(value)
    if framing == "line" and codec in ("bytes", "text"):
        # A line's own ending is not part of it: one LF and one CR before it go.
        end = "\n" if codec == "text" else b"\n"
        back = "\r" if codec == "text" else b"\r"
        sent = [value.removesuffix(end).removesuffix(back) for value in sent]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    told: list[Any] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if data.draw(st.booleans()):
            told += taken(ours)
        if start < stop:
            ours.feed(stream[start:stop])
    ours.end()
    *messages, end_ = told + taken(ours)
    assert messages == sent
    assert is_end(end_)


@given(
    framing=st.sampled_from(list(FRAMINGS)),
    codec=st.sampled_from(list(CODECS)),
    pieces=st.lists(st.binary(min_size=1, max_size=40)),
)
def test_random_bytes_raise_only_our_errors(framing: str, codec: str, pieces: list[bytes]) -> None:
    """A peer that sends anything at all meets no error but those that are promised."""
    talk = Conversation(TCP, framing, codec, max_message=30)
    for piece in pieces:
        talk.feed(piece)
    talk.end()
    told = taken(talk)
    assert isinstance(told[-1], PeerClosed | PeerProtocolError | CodecError)
    # What ended it is told again, however often one asks.
    with pytest.raises(type(told[-1])):
        talk.take()
    assert talk.is_over
    assert not talk.wants_input


def test_an_integer_of_more_digits_than_python_writes_is_a_codec_error() -> None:
    """A hexadecimal literal reads as an integer that repr refuses: our error, not Python's."""
    talk = Conversation(UDP, codec="literal")
    talk.feed(b"0x" + b"f" * 5000)
    with pytest.raises(CodecError, match="literal"):
        talk.encode(talk.take())


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_inbox_is_bounded(framing: str) -> None:
    """With messages waiting no more input is wanted, until some are taken; empty ones count."""
    talk = Conversation(TCP, framing)
    frame = make_framer(framing).encode(b"x" if framing == "chunk" else b"")
    fed = 0
    while talk.wants_input:
        talk.feed(frame)
        fed += 1
    assert fed <= INBOX_BYTES // MESSAGE_OVERHEAD_BYTES + 1
    talk.take()
    assert talk.wants_input
    for _ in range(fed - 1):
        talk.take()
    assert not talk.ready


@pytest.mark.parametrize(
    ("framing", "half"),
    [("netstring", b"3:ab"), ("uint8", b"\x03ab"), ("uint16", b"\0"), ("uint32", b"\0\0\0\x01")],
)
def test_a_half_read_frame_at_the_end_is_an_error(framing: str, half: bytes) -> None:
    """A stream that ends inside a frame was cut: told once the whole messages are taken."""
    talk = Conversation(TCP, framing)
    talk.feed(make_framer(framing).encode(b"whole") + half)
    talk.end()
    assert talk.take() == b"whole"
    for _ in range(2):
        with pytest.raises(PeerProtocolError, match="the stream ended inside a"):
            talk.take()


def test_an_unterminated_last_line_is_a_message() -> None:
    """A line needs no line feed at the very end."""
    talk = Conversation(TCP, "line", "text")
    talk.feed(b"one\r\ntw")
    talk.feed(b"o")
    talk.end()
    *messages, end = taken(talk)
    assert messages == ["one", "two"]
    assert is_end(end)


def test_messages_before_a_fault_are_delivered() -> None:
    """What was whole before the framing broke is handed over; what follows is not read."""
    talk = Conversation(TCP, "netstring")
    talk.feed(b"2:ab,nonsense")
    talk.feed(b"2:cd,")
    assert talk.take() == b"ab"
    for _ in range(2):
        with pytest.raises(PeerProtocolError):
            talk.take()


def test_what_cannot_be_read_ends_a_stream() -> None:
    """After a message that says nothing a stream is over, whatever waits behind it."""
    talk = Conversation(TCP, "line", "json")
    talk.feed(b'{"a":1}\nnonsense\n{"b":2}\n')
    assert talk.take() == {"a": 1}
    for _ in range(2):
        with pytest.raises(CodecError, match="is not JSON"):
            talk.take()
    assert not talk.wants_input


def test_what_cannot_be_read_is_one_datagram() -> None:
    """Datagrams do not hang together: the next one may be read."""
    talk = Conversation(UDP, codec="json")
    for datagram in (b"nonsense", b"2"):
        talk.feed(datagram)
    with pytest.raises(CodecError):
        talk.take()
    assert talk.take() == 2
    assert talk.wants_input


def test_a_datagram_is_a_message_whatever_the_framing() -> None:
    """Empty datagrams too; a framing neither cuts nor joins them, nor dresses ours."""
    talk = Conversation(UDP, "netstring")
    for datagram in (b"", b"a,b", b""):
        talk.feed(datagram)
    assert taken(talk) == [b"", b"a,b", b""]
    assert talk.encode(b"as it is") == b"as it is"


def test_what_came_of_earlier_datagrams_is_told_in_order_and_bounded() -> None:
    """Each refusal is told once, between the messages; nobody who does not take piles them up."""
    talk = Conversation(UDP)
    refused = not_connected(talk.address, 111)
    talk.feed(b"one")
    talk.met(refused)
    talk.feed(b"two")
    assert taken(talk) == [b"one", refused, b"two"]
    for _ in range(10 * INBOX_BYTES // MESSAGE_OVERHEAD_BYTES):
        talk.met(refused)
    assert len(taken(talk)) <= INBOX_BYTES // MESSAGE_OVERHEAD_BYTES + 1


def test_a_stream_s_error_is_its_end() -> None:
    """A reset follows what was read before it, and stays; the first end counts."""
    talk = Conversation(TCP)
    talk.feed(b"one")
    talk.met(not_received(talk.address, 104))
    talk.end()
    talk.feed(b"two")
    *messages, error = taken(talk)
    assert messages == [b"one"]
    assert (type(error), error.code, is_end(error)) == (PeerClosed, "ECONNRESET", False)


def test_after_close_nothing_is_handed_over() -> None:
    """What waited at close is dropped, and the error says who closed."""
    talk = Conversation(TCP)
    talk.feed(b"one")
    talk.close()
    with pytest.raises(PeerClosed, match=r"the connection is closed \(EBADF\)"):
        talk.take()
    with pytest.raises(CannotSend, match="the connection is closed"):
        talk.encode(b"x")


def test_our_side_ends_once() -> None:
    """The first reason for not sending is the one that is told."""
    talk = Conversation(TCP)
    assert talk.sends
    talk.stop_sending("first")
    talk.stop_sending("second")
    assert not talk.sends
    with pytest.raises(CannotSend) as caught:
        talk.encode(b"x")
    assert (caught.value.text, caught.value.code) == ("first", "")


def test_a_wrong_message_costs_nothing() -> None:
    """What cannot be written is the caller's error; the conversation goes on."""
    talk = Conversation(TCP, "line", "text")
    with pytest.raises(CodecError, match="must be a str, got bytes"):
        talk.encode(b"bytes")
    with pytest.raises(FrameError, match="line feed inside"):
        talk.encode("a\nb")
    assert talk.encode("ok") == b"ok\n"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp:*:8888", "a peer has one host and a port of its own"),
        ("udp:127.0.0.1:0", "a peer has one host and a port of its own"),
        ("unix:run/x", "must be an absolute path"),
        ("raw:icmp", "a peer has a host, as in raw:icmp:192.0.2.1"),
        ("localhost:80", "starting with one of tcp"),
        ("tcp:::1:80", "goes in brackets"),
    ],
)
def test_what_is_no_peer_is_refused(address: str, message: str) -> None:
    """An address that cannot be connected to is told at once, and what would be right."""
    with pytest.raises(AddressError, match=message):
        Conversation(address)


def test_wrong_names_are_refused() -> None:
    """A framing or codec that does not exist is told with those that do, for datagrams too."""
    for address in (TCP, UDP):
        with pytest.raises(ValueError, match="framing must be one of chunk, line"):
            Conversation(address, "lines")
        with pytest.raises(ValueError, match="codec must be one of bytes, text"):
            Conversation(address, codec="pickle")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (not_connected(ADDRESS, 111), Refused, "ECONNREFUSED"),
        (not_connected(ADDRESS, 110), TimedOut, "ETIMEDOUT"),
        (not_connected(ADDRESS, 101), Unreachable, "ENETUNREACH"),
        (not_connected(ADDRESS, 113), Unreachable, "EHOSTUNREACH"),
        (not_connected(ADDRESS, 13), Unreachable, "EACCES"),
        (not_connected(ADDRESS, 104), PeerClosed, "ECONNRESET"),
        (not_connected(ADDRESS, 107), PeerClosed, "ECONNRESET"),
        (not_received(ADDRESS, 104), PeerClosed, "ECONNRESET"),
        (not_received(ADDRESS, 110), TimedOut, "ETIMEDOUT"),
        (not_sent(ADDRESS, 32), CannotSend, "EPIPE"),
        (not_sent(ADDRESS, 90), CannotSend, "EMSGSIZE"),
        (not_sent(ADDRESS, 111), Refused, "ECONNREFUSED"),
        (not_resolved(ADDRESS), CannotResolve, "EAI_NONAME"),
        (not_resolved(ADDRESS, UnicodeError()), CannotResolve, "EAI_NONAME"),
    ],
)
def test_failures_are_told_apart(error: ClientError, kind: type[ClientError], code: str) -> None:
    """Each errno has its class, its code and the system's own text."""
    assert (type(error), error.code, error.address) == (kind, code, str(ADDRESS))
    assert str(error) == f"{ADDRESS}: {error.text} ({code})"
    assert error.text
