"""Services under a codec: values in, values out, and what a wrong message does to whom."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from conftest import Failures
from rigs import Rig, Wire, lose
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.wire import Echo as StockEcho

from twistedsock.errors import CloseReason, CodecError, PluginError, SessionClosed
from twistedsock.policy.limits import Limits
from twistedsock.protocols.carrier import Carrier
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.delivery import INBOX_BYTES
from twistedsock.protocols.stream import ServiceFactory
from twistedsock.protocols.stream_session import OVERRUN
from twistedsock.service import Session, SocketService
from twistedsock.services.chargen import Chargen
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply

GREETING = "Welcome to the server. Type something and hit enter\n"
CUT = ["line", "netstring", "uint8", "uint16", "uint32"]
# For each codec: a message, its value, the value as the codec writes it, and what it refuses.
SAID: dict[str, tuple[bytes, Any, bytes, bytes]] = {
    "text": ("\u00e4".encode(), "\u00e4", "\u00e4".encode(), b"\xff"),
    "json": (b'{"a": [1, null]}', {"a": [1, None]}, b'{"a":[1,null]}', b"{"),
    "literal": (b"(1,{'b':2j})", (1, {"b": 2j}), b"(1, {'b': 2j})", b"os.exit()"),
}


class Recorder(SocketService):
    """Writes down each hook, and does with each message what the test says."""

    def start(self) -> None:
        self.events: list[Any] = []
        self.answer: Callable[[Session, Any], Any] = lambda session, message: None

    def opened(self, session: Session) -> None:
        session.data = session.peer

    def received(self, session: Session, message: Any) -> Any:
        self.events.append(message)
        return self.answer(session, message)

    def ended(self, session: Session) -> None:
        self.events.append("ended")
        session.close()

    def closed(self, session: Session, reason: CloseReason) -> None:
        self.events.append(f"closed {reason}")


class Hooks(Recorder):
    """Sends each value back."""

    def received(self, session: Session, message: Any) -> Any:
        self.events.append(message)
        session.send(message)


class AsyncHooks(Recorder):
    """Sends each value back, once it may."""

    def start(self) -> None:
        super().start()
        self.gate: Deferred[None] | None = None

    async def received(self, session: Session, message: Any) -> None:
        self.events.append(message)
        if self.gate is not None:
            await self.gate
        session.send(message)


class Talk(Recorder):
    """Sends each value back, in a conversation."""

    received = SocketService.received

    def start(self) -> None:
        super().start()
        self.gate: Deferred[None] | None = None

    async def converse(self, session: Session) -> None:
        try:
            async for message in session:
                self.events.append(message)
                if self.gate is not None:
                    await self.gate
                session.send(message)
        except SessionClosed as error:
            self.events.append(f"raised {error.reason}")
            raise


WAYS: list[type[Recorder]] = [Hooks, AsyncHooks, Talk]


def told(service: type[Recorder], *, reason: str = "protocol_error") -> list[Any]:
    """Return what a service of *service*'s way hears of an end for *reason*."""
    return [*([f"raised {reason}"] if service is Talk else []), f"closed {reason}"]


def framed(framing: str, *messages: bytes) -> bytes:
    """Return *messages* in frames made by hand."""
    if framing == "line":
        return b"".join(message + b"\n" for message in messages)
    if framing == "netstring":
        return b"".join(b"%d:%b," % (len(message), message) for message in messages)
    width = int(framing.removeprefix("uint")) // 8
    return b"".join(len(message).to_bytes(width, "big") + message for message in messages)


# -- values in, values out --


@pytest.mark.parametrize("framing", CUT)
@pytest.mark.parametrize("codec", SAID)
@pytest.mark.parametrize("way", WAYS)
def test_services_are_handed_values_and_send_values(
    way: type[Recorder], codec: str, framing: str
) -> None:
    """Each way of writing a service gets values and sends them, in any framing, in any pieces."""
    message, value, written, _ = SAID[codec]
    data = framed(framing, message, message)
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        rig = Rig(way(), framing, codec=codec)
        protocol, wire = rig.connect()
        for piece in pieces:
            protocol.dataReceived(piece)
        session: Any = protocol.session
        assert wire.value() == framed(framing, written, written)
        assert (session.messages_in, session.messages_out) == (2, 2)
        assert (session.bytes_in, session.bytes_out) == (len(data), len(wire.value()))
        lose(protocol, ConnectionLost)
        assert rig.service.events == [value, value, *told(way, reason="peer_reset")]
        assert rig.service.codec == codec


@pytest.mark.parametrize("codec", SAID)
def test_an_unterminated_last_line_is_a_value(codec: str) -> None:
    """The last line of a stream says a value, with or without its line end."""
    message, value, written, wrong = SAID[codec]
    for last in (message, wrong):
        rig = Rig(Hooks(), "line", codec=codec)
        protocol, wire = rig.connect()
        protocol.dataReceived(message + b"\n" + last)
        protocol.readConnectionLost()
        right = last is message
        assert wire.value() == (written + b"\n") * (2 if right else 1)
        assert wire.closed
        lose(protocol)
        end = [value, "ended", "closed peer_closed"] if right else ["closed protocol_error"]
        assert rig.service.events == [value, *end]


def test_without_a_codec_messages_are_bytes() -> None:
    """The default is bytes, said or not, and costs a message nothing."""
    for more in ({}, {"codec": "bytes"}):
        rig = Rig(Hooks(), "line", **more)
        protocol, wire = rig.connect()
        protocol.dataReceived(b"\xff\n")
        assert wire.value() == b"\xff\n"
        assert rig.service.codec == "bytes"
        assert rig.carrier.received == rig.service.received
        assert rig.carrier.encode is None
        lose(protocol)


# -- what cannot be read --


@pytest.mark.parametrize("codec", SAID)
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_message_ends_its_session_alone(
    way: type[Recorder], codec: str, logged: list[Any]
) -> None:
    """What came before it is answered; what comes after it is not handed over; others go on."""
    message, value, written, wrong = SAID[codec]
    rig = Rig(way(), "line", codec=codec)
    protocol, wire = rig.connect()
    other, other_wire = rig.connect("192.0.2.9")
    protocol.dataReceived(framed("line", message, wrong, message))
    assert wire.value() == written + b"\n"
    assert wire.ended
    assert not wire.aborted
    protocol.dataReceived(framed("line", message))
    assert wire.value() == written + b"\n"
    other.dataReceived(framed("line", message))
    assert other_wire.value() == written + b"\n"
    assert not other_wire.ended
    lose(protocol)
    assert sorted(map(str, rig.service.events)) == sorted(map(str, [value, value, *told(way)]))
    (end,) = [event for event in logged if event.get("event") == "session_ended"]
    assert end["reason"] == "protocol_error"
    assert (end["messages_in"], end["messages_out"]) == (2, 1)
    lose(other)


@pytest.mark.parametrize("way", [AsyncHooks, Talk])
def test_a_wrong_message_waits_for_what_is_awaited(way: Any) -> None:
    """It ends nothing before an earlier message is answered; the one behind it is never seen."""
    rig = Rig(way(), "line", codec="json")
    rig.service.gate = gate = Deferred()
    protocol, wire = rig.connect()
    protocol.dataReceived(b"1\n2\n{\n")
    protocol.dataReceived(b"3\n")
    assert rig.service.events == [1]
    assert not wire.ended
    rig.service.gate = None
    gate.callback(None)
    assert wire.value() == b"1\n2\n"
    assert wire.ended
    lose(protocol)
    assert rig.service.events == [1, 2, *told(way)]


@pytest.mark.parametrize("way", [AsyncHooks, Talk])
def test_a_wrong_message_before_the_peer_s_end(way: Any) -> None:
    """The peer's end behind it does not make it one of good order."""
    rig = Rig(way(), "line", codec="json")
    rig.service.gate = gate = Deferred()
    protocol, wire = rig.connect()
    protocol.dataReceived(b"1\n{\n")
    protocol.readConnectionLost()
    rig.service.gate = None
    gate.callback(None)
    assert wire.value() == b"1\n"
    assert wire.closed
    lose(protocol)
    assert rig.service.events == [1, *told(way)]


@pytest.mark.parametrize("way", [AsyncHooks, Talk])
def test_a_wrong_message_is_the_last_after_a_reset_too(way: Any) -> None:
    """What was accepted before a reset is handled up to the wrong message, and no further."""
    rig = Rig(way(), "line", codec="json")
    rig.service.gate = gate = Deferred()
    if way is Talk:

        async def converse(session: Session) -> None:
            for _ in range(5):  # one that does not take the first no for an answer
                try:
                    async for message in session:
                        rig.service.events.append(message)
                        await gate
                except SessionClosed:
                    continue

        rig.service.converse = converse
    protocol, _ = rig.connect()
    protocol.dataReceived(b"1\n2\n{\n3\n")
    lose(protocol, ConnectionLost)
    assert rig.service.events == [1]
    gate.callback(None)
    assert rig.service.events == [1, 2, "closed peer_reset"]


def test_a_conversation_that_goes_on_learns_nothing_more() -> None:
    """Whoever catches the end and asks on gets it again, and no message; the reason stays."""

    class Stubborn(Talk):
        async def converse(self, session: Session) -> None:
            for _ in range(3):
                try:
                    async for message in session:
                        self.events.append(message)
                except SessionClosed as error:
                    self.events.append(str(error.reason))
                    assert not session.send("more")

    rig = Rig(Stubborn(), "line", codec="json")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"1\n{\n2\n")
    protocol.dataReceived(b"3\n")
    lose(protocol)
    assert rig.service.events == [1, *["protocol_error"] * 3, "closed protocol_error"]
    assert wire.value() == b""


def test_a_broken_frame_behind_a_wrong_message_changes_nothing() -> None:
    """Both faults in one read: the first counts, and it is told once."""
    rig = Rig(Hooks(), "netstring", codec="json")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"1:1,1:{,1:2,x")
    assert wire.value() == b"1:1,"
    assert wire.ended
    lose(protocol)
    assert rig.service.events == [1, "closed protocol_error"]


def test_what_is_wrong_is_told_to_who_debugs(logged: list[Any]) -> None:
    """One debug line says what was wrong, in one line, with nothing that the peer can style."""
    rig = Rig(Hooks(name="hello"), "line", codec="json")
    protocol, _ = rig.connect()
    protocol.dataReceived(b"\x1b[31m\n")
    (event,) = [event for event in logged if "broke the protocol" in event["log_format"]]
    assert event["log_level"].name == "debug"
    assert event["error"] == "is not JSON: Expecting value: line 1 column 1 (char 0)"
    lose(protocol)


# -- what cannot be written --


@pytest.mark.parametrize("way", ["hook", "later", "opened", "converse"])
@pytest.mark.parametrize(
    ("codec", "value"),
    [("text", b"a"), ("json", {1, 2}), ("literal", object()), ("json", "\ud800")],
)
def test_a_service_that_sends_what_cannot_be_written_fails(
    codec: str, value: Any, way: str, logged_failures: Failures
) -> None:
    """send() raises CodecError to the service: its session ends as service_error, alone."""
    message, _, written, _ = SAID[codec]

    class Wrong(Recorder):
        def opened(self, session: Session) -> None:
            if way == "opened":
                session.send(value)

        def received(self, session: Session, message: Any) -> Any:
            session.send(message)
            return self.later(session) if way == "later" else session.send(value) and None

        async def later(self, session: Session) -> None:
            session.send(value)

    class WrongTalk(Talk):
        async def converse(self, session: Session) -> None:
            async for each in session:
                session.send(each)
                session.send(value)

    service = WrongTalk() if way == "converse" else Wrong()
    rig = Rig(service, "line", codec=codec)
    protocol, wire = rig.connect()
    protocol.dataReceived(message + b"\n" + message + b"\n")
    assert wire.value() == (b"" if way == "opened" else written + b"\n")
    assert wire.ended
    lose(protocol)
    assert service.events == ["closed service_error"]
    logged_failures.take(CodecError)


def test_a_service_may_catch_what_cannot_be_written() -> None:
    """Nothing is sent or counted of it, and the session goes on."""
    rig = Rig(Recorder(), "line", codec="json")
    protocol, wire = rig.connect()

    def answer(session: Session, message: Any) -> None:
        with pytest.raises(CodecError, match="cannot be JSON"):
            session.send(object())
        session.send(message)

    rig.service.answer = answer
    protocol.dataReceived(b"1\n2\n")
    assert wire.value() == b"1\n2\n"
    assert protocol.session.messages_out == 2
    assert protocol.session.dropped == 0
    lose(protocol)


def test_a_text_with_a_line_feed_does_not_fit_a_line(logged_failures: Failures) -> None:
    """The framing's refusal stays the framing's; JSON and literals never have a line feed."""
    for codec, written in (("json", b'"a\\nb"\n'), ("literal", b"'a\\nb'\n"), ("text", b"")):
        rig = Rig(Recorder(), "line", codec=codec)
        protocol, wire = rig.connect()
        rig.service.answer = lambda session, message: session.send("a\nb") and None
        protocol.dataReceived(b"1\n")
        assert wire.value() == written
        lose(protocol)
    logged_failures.take(ValueError)


def test_after_the_end_nothing_is_written() -> None:
    """send() after close is a counted no-op, whatever it is given."""
    rig = Rig(Recorder(), "line", codec="json")
    protocol, wire = rig.connect()
    session: Any = protocol.session
    session.close()
    assert session.send(object()) is False
    assert session.send(1) is False
    assert session.dropped == 2
    assert wire.value() == b""
    lose(protocol)


@pytest.mark.parametrize("name", ["echo", "echo-reply"])
@pytest.mark.parametrize(
    ("codec", "message"),
    [
        pytest.param("json", b"1e999", id="json-infinity"),
        pytest.param("json", rb'"\ud800"', id="json-half-a-pair"),
        pytest.param("literal", b"...", id="literal-ellipsis"),
        pytest.param("literal", b"1e999", id="literal-infinity"),
        pytest.param("literal", b"0x" + b"f" * 4000, id="literal-huge"),
        pytest.param("literal", b"1" + b"0" * 400 + b"+1j", id="literal-sum"),
        pytest.param("literal", b"'%b'" % (b"\1" * 5000), id="literal-longer"),
        pytest.param("literal", b"[" * 200 + b"1+2j" + b"]" * 200, id="literal-deeper"),
        pytest.param("literal", b"'\\\\" + b"\\\\" * 5000 + b"'", id="literal-backslashes"),
    ],
)
def test_a_peer_s_fault_is_not_the_service_s(
    name: str, codec: str, message: bytes, logged_failures: Failures
) -> None:
    """No message makes echo or echo-reply fail: it is answered, or wrong."""
    rig = Rig(Echo() if name == "echo" else EchoReply(), "netstring", codec=codec)
    protocol, wire = rig.connect()
    wire.clear()
    protocol.dataReceived(framed("netstring", message))
    reason = protocol.session.reason
    lose(protocol)
    failed = list(logged_failures)
    logged_failures.clear()
    assert reason in (None, CloseReason.PROTOCOL_ERROR)
    assert not failed
    assert bool(wire.value()) == (reason is None)


# -- limits --


class Full(Wire):
    """A transport whose peer reads nothing."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > 1000 and self.producer is not None:
            self.producer.pauseProducing()


@pytest.mark.parametrize("value", [7, None, "a\u00e4", [1, 2], {"a": 1.5}])
def test_a_service_that_sends_on_and_on_is_stopped_by_bytes(value: Any) -> None:
    """While congested, what is counted is bytes in frames, whatever the values are."""
    rig = Rig(Recorder(), "line", codec="json", limits=Limits(write_high_water=1000))
    protocol, wire = rig.connect(wire=Full())
    session: Any = protocol.session
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) + 1
    while not session.congested:
        assert session.send(value)
    sent = 0
    while session.send(value):
        sent += 1
        assert sent < 10_000
    assert wire.aborted
    assert sent == OVERRUN * 1000 // size
    assert rig.carrier.counters["overrun"] == 1
    assert session.bytes_out == len(wire.value())
    lose(protocol)
    assert rig.service.events == ["closed limit"]


def test_a_congested_session_says_what_cannot_be_written(logged_failures: Failures) -> None:
    """CodecError reaches the service in that state too."""
    rig = Rig(Recorder(), "line", codec="json", limits=Limits(write_high_water=1000))
    protocol, _ = rig.connect(wire=Full())
    while not protocol.session.congested:
        protocol.session.send("x" * 100)
    with pytest.raises(CodecError):
        protocol.session.send(object())
    lose(protocol)


@pytest.mark.parametrize("way", [AsyncHooks, Talk])
def test_the_inbox_is_bounded_by_bytes(way: Any) -> None:
    """Messages are kept as they came, and a peer is not read beyond 64 KiB of them."""
    rig = Rig(way(), "line", codec="json")
    rig.service.gate = gate = Deferred()
    protocol, wire = rig.connect()
    protocol.dataReceived(b"0\n")
    reads = 0
    while wire.producerState == "producing":
        protocol.dataReceived(b"1\n" * 100)
        reads += 1
        assert reads < 100
    assert reads * 100 * 65 > INBOX_BYTES >= (reads - 1) * 100 * 65
    rig.service.gate = None
    gate.callback(None)
    assert wire.producerState == "producing"
    assert wire.value() == b"0\n" + b"1\n" * 100 * reads
    assert protocol.session._inbox_bytes == 0
    lose(protocol)


# -- carriers --


def test_a_wrong_codec_is_refused_at_once() -> None:
    """A codec that nobody knows fails where it is named, not at a client."""
    for make in (ServiceFactory, ServiceDatagramProtocol, Carrier):
        with pytest.raises(ValueError, match=r"^codec must be one of bytes, text, json, literal"):
            make(Hooks(), codec="xml")


def test_a_carrier_has_its_own_codec() -> None:
    """A codec beside a carrier is refused; all its listeners share the carrier's."""
    carrier = Carrier(Hooks(), codec="json", reactor=Clock())
    for make in (ServiceFactory, ServiceDatagramProtocol):
        with pytest.raises(TypeError, match=r"a carrier has its own limits, access list and codec"):
            make(carrier, codec="text")
        assert make(carrier).carrier is carrier
    assert carrier.service.codec == "json"


@pytest.mark.parametrize("make", [ServiceFactory, Carrier])
def test_a_service_that_knows_bytes_alone_refuses_a_codec(make: Any) -> None:
    """A program is told as a configuration is: before the first client."""

    class Foreign(SocketService):
        def stream_factory(self) -> Factory:
            return Factory.forProtocol(StockEcho)

    for service in (Chargen(), Foreign()):
        with pytest.raises(PluginError, match="bytes"):
            make(service, codec="json")


# -- datagrams --

PORT = 20017
CLIENT = ("192.0.2.1", 40000)


class DatagramWire:
    """A datagram transport in memory."""

    maxPacketSize = 8192

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Any]] = []

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", PORT)

    def write(self, data: bytes, addr: Any) -> None:
        self.sent.append((data, addr))


class DatagramRig:
    """A service behind a datagram protocol."""

    def __init__(self, service: SocketService, **more: Any) -> None:
        self.clock = Clock()
        service._reactor = self.clock
        self.service: Any = service
        self.protocol = ServiceDatagramProtocol(service, **more)
        self.carrier = self.protocol.carrier
        self.wire = DatagramWire()
        self.protocol.makeConnection(self.wire)

    def hear(self, data: bytes, addr: tuple[str, int] = CLIENT) -> None:
        self.protocol.datagramReceived(data, addr)

    def stop(self) -> None:
        self.protocol.doStop()
        self.clock.advance(0)


@pytest.mark.parametrize("codec", SAID)
@pytest.mark.parametrize("way", WAYS)
def test_datagrams_are_values(way: type[Recorder], codec: str) -> None:
    """A datagram says a value, and a value is one datagram."""
    message, value, written, _ = SAID[codec]
    rig = DatagramRig(way(), codec=codec)
    rig.hear(message)
    rig.hear(message)
    assert rig.wire.sent == [(written, CLIENT)] * 2
    assert rig.service.events == [value, value]
    (session,) = rig.service.sessions
    assert session.bytes_out == 2 * len(written)
    rig.stop()


@pytest.mark.parametrize("codec", SAID)
@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_datagram_ends_its_peer_s_session_alone(way: type[Recorder], codec: str) -> None:
    """Another peer goes on, and the same one begins anew with its next datagram."""
    message, value, written, wrong = SAID[codec]
    rig = DatagramRig(way(), codec=codec)
    other = ("192.0.2.2", 40000)
    rig.hear(message)
    rig.hear(message, other)
    rig.hear(wrong)
    rig.clock.advance(0)
    assert rig.service.events == [value, value, *told(way)]
    assert rig.carrier.counters["garbled"] == 1
    assert [session.peer for session in rig.service.sessions] == ["192.0.2.2:40000"]
    rig.hear(message, other)
    rig.hear(message)
    assert rig.wire.sent[2:] == [(written, other), (written, CLIENT)]
    assert len({session.id for session in rig.service.sessions}) == 2
    rig.stop()


@pytest.mark.parametrize("way", [AsyncHooks, Talk])
def test_a_wrong_datagram_waits_for_what_is_awaited(way: Any) -> None:
    """It ends nothing before an earlier datagram is answered."""
    rig = DatagramRig(way(), codec="json")
    rig.service.gate = gate = Deferred()
    for datagram in (b"1", b"2", b"{", b"3"):
        rig.hear(datagram)
    assert rig.service.events == [1]
    rig.service.gate = None
    gate.callback(None)
    rig.clock.advance(0)
    assert [data for data, _ in rig.wire.sent] == [b"1", b"2"]
    assert rig.service.events == [1, 2, *told(way)]
    rig.stop()


def test_wrong_datagrams_from_everywhere_fill_neither_log_nor_memory(logged: list[Any]) -> None:
    """Forged sources cost a line or two a second, and leave nothing behind."""
    rig = DatagramRig(Hooks(), codec="json", limits=Limits(max_connections=100))
    rig.hear(b"1")  # one that is right, so that what is made once is there

    def flood(count: int) -> None:
        for number in range(count):
            rig.hear(b"{", (f"198.51.{number // 250 % 250}.{number % 250 + 1}", 40000))
            if number % 100 == 99:
                rig.clock.advance(0.1)
        rig.service.events.clear()

    tracemalloc.start()
    flood(6000)  # the caches of addresses are full from now on
    gc.collect()
    logged.clear()
    before = tracemalloc.get_traced_memory()[0]
    flood(6000)
    lines = len(logged)
    logged.clear()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 1 <= lines <= 12  # in six seconds
    assert grown < 128 * 1024
    assert rig.carrier.counters["garbled"] == 12_000
    assert rig.carrier.counters["ended"] == 12_000
    assert len(rig.service.sessions) == 1
    assert rig.protocol.late == 0
    rig.stop()
    assert not rig.clock.getDelayedCalls()


def test_wrong_datagrams_cost_one_line_a_second(logged: list[Any]) -> None:
    """Two lines of one word are never less than a second apart."""
    rig = DatagramRig(Hooks(), codec="json")
    times: list[float] = []
    for number in range(7000):
        rig.hear(b"{", (f"198.51.{number // 250}.{number % 250 + 1}", 40000))
        if number % 100 == 99:
            rig.clock.advance(0.1)
        times += [rig.clock.seconds() for event in logged if event.get("event") == "garbled"]
        logged.clear()
    rig.stop()
    assert len(times) > 4
    assert all(later - earlier > 0.999 for earlier, later in pairwise(times))


def test_datagrams_that_cannot_be_sent_back_do_not_fill_the_log(
    logged: list[Any], logged_failures: Failures
) -> None:
    """What no codec writes is wrong where it comes in, and told as seldom."""
    rig = DatagramRig(Echo(), codec="json")
    for number in range(200):
        rig.hear(b"1e999", (f"198.51.100.{number + 1}", 40000))
        rig.clock.advance(0.001)
    lines = len(logged)
    logged_failures.clear()
    rig.stop()
    assert lines <= 2


def test_a_datagram_that_cannot_be_written_is_the_service_s_fault(
    logged_failures: Failures,
) -> None:
    """send() raises CodecError; the session ends as service_error and spends no budget."""
    rig = DatagramRig(Recorder(), codec="json")
    budgets: list[int | None] = []

    def answer(session: Session, message: Any) -> None:
        budgets.append(session.budget)
        try:
            session.send(object())
        finally:
            budgets.append(session.budget)

    rig.service.answer = answer
    rig.hear(b"1")
    rig.clock.advance(0)
    assert rig.service.events == [1, "closed service_error"]
    assert rig.wire.sent == []
    assert budgets[0] == budgets[1]
    logged_failures.take(CodecError)
    rig.stop()


def test_the_budget_counts_what_is_written() -> None:
    """A value is as large as its datagram: what is over three times the question is dropped."""
    rig = DatagramRig(Recorder(), codec="json")
    sent: list[bool] = []
    rig.service.answer = lambda session, message: sent.extend(
        [session.send("x" * 55), session.send(["x"] * 200), session.send(1)]
    )
    rig.hear(b"1")  # (1 + 28) * 3 bytes may be sent: one of 57 + 28, and nothing more
    assert sent == [True, False, False]
    assert [data for data, _ in rig.wire.sent] == [b'"%b"' % (b"x" * 55)]
    assert rig.carrier.counters["over_budget"] == 2
    rig.stop()


def test_the_inbox_of_datagrams_is_bounded_by_bytes() -> None:
    """While the service awaits, the newest datagrams are dropped and counted."""
    rig = DatagramRig(AsyncHooks(), codec="json")
    rig.service.gate = gate = Deferred()
    for _ in range(2000):
        rig.hear(b"1")
    kept = INBOX_BYTES // 65 + 1
    assert rig.carrier.counters["inbox_full"] == 2000 - 1 - kept
    rig.service.gate = None
    gate.callback(None)
    assert rig.service.events == [1] * (1 + kept)
    rig.stop()


# -- echo-reply --


@pytest.mark.parametrize(
    ("codec", "message", "greeting", "answer"),
    [
        ("bytes", b"\xff", GREETING[:-1].encode(), b"OK...\xff"),
        ("text", "h\u00e4".encode(), GREETING[:-1].encode(), "OK...h\u00e4".encode()),
        ("json", b'"hi"', json.dumps(GREETING).encode(), b"\"OK...'hi'\""),
        ("json", b'{"a":[1,null]}', json.dumps(GREETING).encode(), b"\"OK...{'a': [1, None]}\""),
        ("literal", b"'hi'", repr(GREETING).encode(), b"\"OK...'hi'\""),
        ("literal", b"(1,)", repr(GREETING).encode(), b"'OK...(1,)'"),
    ],
)
def test_echo_reply_under_each_codec(
    codec: str, message: bytes, greeting: bytes, answer: bytes
) -> None:
    """It greets connections and answers OK... and the message, in the codec; no datagram greets."""
    rig = Rig(EchoReply(), "line", codec=codec)
    protocol, wire = rig.connect()
    protocol.dataReceived(message + b"\n")
    assert wire.value() == greeting + b"\n" + answer + b"\n"
    lose(protocol)
    datagrams = DatagramRig(EchoReply(), codec=codec)
    datagrams.hear(message)
    assert datagrams.wire.sent == [(answer, CLIENT)]
    datagrams.stop()


@pytest.mark.parametrize("codec", ["text", "json", "literal"])
def test_echo_reply_says_its_own_words_under_a_codec(codec: str) -> None:
    """Its settings count as they do without one; an empty greeting is none."""
    dump: Callable[[str], str] = lambda text: json.dumps(text, ensure_ascii=False)  # noqa: E731
    write = {"text": str, "json": dump, "literal": repr}[codec]
    for greeting, prefix in (("", ""), ("h\u00e4\n", "> ")):
        settings = EchoReply.Settings(greeting=greeting, prefix=prefix)
        rig = Rig(EchoReply(settings), "line", codec=codec)
        protocol, wire = rig.connect()
        first = (write(greeting).rstrip("\n") + "\n") if greeting else ""
        assert wire.value() == first.encode()
        wire.clear()
        protocol.dataReceived(b"1\n")
        said = "1" if codec == "text" else 1
        assert wire.value() == (write(f"{prefix}{said}") + "\n").encode()
        lose(protocol)
