"""A service carried over streams, in memory: no socket, and a clock that the test turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import Failures
from rigs import Rig, Wire, lose
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from twistedsock.errors import CloseReason, PluginError, SessionClosed
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.protocols.delivery import INBOX_BYTES
from twistedsock.protocols.stream import ServiceFactory
from twistedsock.service import Session, SocketService
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply
from twistedsock.units import Rate


class Recorder(SocketService):
    """Writes down each hook."""

    def start(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.answer: Callable[[Session, bytes], Any] = lambda session, message: None

    def opened(self, session: Session) -> None:
        self.events.append(("opened", session.peer))

    def received(self, session: Session, message: bytes) -> Awaitable[None] | None:
        self.events.append(("received", message))
        result: Awaitable[None] | None = self.answer(session, message)
        return result

    def ended(self, session: Session) -> None:
        self.events.append(("ended",))
        session.close()

    def closed(self, session: Session, reason: CloseReason) -> None:
        self.events.append(("closed", str(reason)))


def test_echo_reply_greets_and_answers() -> None:
    """A client of echo-reply reads the greeting, then OK... and each message."""
    rig = Rig(EchoReply())
    protocol, wire = rig.connect()
    assert wire.value() == b"Welcome to the server. Type something and hit enter\n"
    wire.clear()
    protocol.dataReceived(b"hello")
    assert wire.value() == b"OK...hello"
    lose(protocol)


def test_hooks_come_in_order() -> None:
    """opened, received, ended, closed: each once and in this order."""
    rig = Rig(Recorder())
    protocol, wire = rig.connect()
    protocol.dataReceived(b"a")
    protocol.dataReceived(b"b")
    protocol.readConnectionLost()
    assert wire.closed
    lose(protocol)
    assert rig.service.events == [
        ("opened", "127.0.0.1:50000"),
        ("received", b"a"),
        ("received", b"b"),
        ("ended",),
        ("closed", "peer_closed"),
    ]
    assert rig.service.sessions == set()


@pytest.mark.parametrize(
    ("framing", "sent", "answer"),
    [
        ("line", b"a\r\nbc\n", b"a\nbc\n"),
        ("netstring", b"1:a,2:bc,", b"1:a,2:bc,"),
        ("uint8", b"\1a\2bc", b"\1a\2bc"),
        ("uint16", b"\0\1a\0\2bc", b"\0\1a\0\2bc"),
        ("uint32", b"\0\0\0\1a\0\0\0\2bc", b"\0\0\0\1a\0\0\0\2bc"),
    ],
)
def test_framing_works_in_both_directions(framing: str, sent: bytes, answer: bytes) -> None:
    """Messages are cut from the stream, and answers are framed likewise, byte by byte too."""
    for pieces in ([sent], [sent[i : i + 1] for i in range(len(sent))]):
        rig = Rig(Echo(), framing)
        protocol, wire = rig.connect()
        for piece in pieces:
            protocol.dataReceived(piece)
        assert wire.value() == answer
        lose(protocol)


def test_a_session_is_counted_and_logged_once(logged: list[Any]) -> None:
    """At its end a session is one structured event with all of the fields."""
    rig = Rig(Echo(name="hello"), "line")
    protocol, _ = rig.connect("192.0.2.7")
    protocol.dataReceived(b"abc\n")
    rig.advance(2)
    lose(protocol, ConnectionLost)
    (event,) = [event for event in logged if event.get("event") == "session_ended"]
    told = {key: event[key] for key in ("service", "protocol", "transport", "peer", "local")}
    assert told == {
        "service": "hello",
        "protocol": "tcp",
        "transport": "stream",
        "peer": "192.0.2.7:50000",
        "local": "127.0.0.1:8888",
    }
    assert (event["bytes_in"], event["bytes_out"]) == (4, 4)
    assert (event["messages_in"], event["messages_out"]) == (1, 1)
    assert event["reason"] == "peer_reset"
    assert event["duration_s"] == pytest.approx(2)


def test_messages_wait_for_what_a_hook_awaits() -> None:
    """While one message is awaited, the next ones wait, in order; then all are handled."""
    rig = Rig(Recorder(), "line")
    first: Deferred[None] = Deferred()
    protocol, _ = rig.connect()
    rig.service.answer = lambda session, message: first if message == b"1" else None
    protocol.dataReceived(b"1\n2\n")
    protocol.dataReceived(b"3\n")
    protocol.readConnectionLost()
    assert rig.service.events[1:] == [("received", b"1")]
    first.callback(None)
    received = [("received", b"1"), ("received", b"2"), ("received", b"3")]
    assert rig.service.events[1:] == [*received, ("ended",)]
    lose(protocol)


def test_the_inbox_is_bounded() -> None:
    """A peer is not read beyond the inbox while its service awaits, and is read again after."""
    rig = Rig(Recorder())
    first: Deferred[None] = Deferred()
    protocol, wire = rig.connect()
    rig.service.answer = lambda session, message: first if not first.called else None
    protocol.dataReceived(b"x")
    assert wire.producerState == "producing"
    protocol.dataReceived(b"y" * (INBOX_BYTES + 1))
    assert wire.producerState == "paused"
    first.callback(None)
    assert wire.producerState == "producing"
    lose(protocol)


def test_many_ready_awaitables_do_not_recurse() -> None:
    """Thousands of queued messages whose hooks finish at once are handled one after the other."""

    class Soon(Recorder):
        async def received(self, session: Session, message: bytes) -> None:  # type: ignore[override]
            self.events.append(message)
            if message == b"0":
                await gate

    gate: Deferred[None] = Deferred()
    rig = Rig(Soon(), "line")
    protocol, _ = rig.connect()
    protocol.dataReceived(b"".join(b"%d\n" % number for number in range(5000)))
    gate.callback(None)
    assert rig.service.events[1:] == [b"%d" % number for number in range(5000)]
    lose(protocol)


def test_a_raising_service_ends_its_session_alone(logged_failures: Failures) -> None:
    """A hook that raises ends its session with service_error; the other goes on."""
    rig = Rig(Recorder())
    protocol, wire = rig.connect()
    other, other_wire = rig.connect()

    def answer(session: Session, message: bytes) -> None:
        if message == b"bad":
            raise ZeroDivisionError("on purpose")
        session.send(message)

    rig.service.answer = answer
    protocol.dataReceived(b"bad")
    assert wire.ended
    other.dataReceived(b"good")
    assert other_wire.value() == b"good"
    lose(protocol)
    lose(other)
    logged_failures.take(ZeroDivisionError)
    assert [event for event in rig.service.events if event[0] == "closed"] == [
        ("closed", "service_error"),
        ("closed", "peer_closed"),
    ]


def test_an_awaitable_that_fails_ends_the_session(logged_failures: Failures) -> None:
    """What a hook awaits may fail later; that too is service_error."""
    rig = Rig(Recorder())
    work: Deferred[None] = Deferred()
    protocol, wire = rig.connect()
    rig.service.answer = lambda session, message: work
    protocol.dataReceived(b"x")
    work.errback(KeyError("later"))
    assert wire.ended
    lose(protocol)
    logged_failures.take(KeyError)
    assert rig.service.events[-1] == ("closed", "service_error")


def test_a_broken_frame_ends_the_session_after_what_was_whole() -> None:
    """Messages before a protocol error are answered; then the session closes in good order."""
    rig = Rig(Recorder(), "netstring")
    rig.service.answer = lambda session, message: session.send(message)
    protocol, wire = rig.connect()
    protocol.dataReceived(b"2:ok,nonsense")
    assert wire.value() == b"2:ok,"
    assert wire.ended
    protocol.dataReceived(b"2:no,")
    assert wire.value() == b"2:ok,"
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "protocol_error")


def test_a_broken_frame_waits_for_what_is_awaited() -> None:
    """A protocol error does not overtake messages that were accepted before it."""
    rig = Rig(Recorder(), "netstring")
    work: Deferred[None] = Deferred()
    rig.service.answer = lambda session, message: work if message == b"1" else None
    protocol, wire = rig.connect()
    protocol.dataReceived(b"1:1,1:2,nonsense")
    assert not wire.ended
    work.callback(None)
    assert ("received", b"2") in rig.service.events
    assert wire.ended
    lose(protocol)


def test_a_partial_frame_at_the_end_is_an_error() -> None:
    """The stream may not end inside a netstring."""
    rig = Rig(Recorder(), "netstring")
    protocol, _ = rig.connect()
    protocol.dataReceived(b"5:ab")
    protocol.readConnectionLost()
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "protocol_error")
    assert ("ended",) not in rig.service.events


def test_an_unterminated_last_line_is_delivered() -> None:
    """`printf abc` without a line feed gets its answer."""
    rig = Rig(Echo(), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"abc")
    protocol.readConnectionLost()
    assert wire.value() == b"abc\n"
    assert wire.closed
    lose(protocol)


def test_close_half_closes_and_reads_on() -> None:
    """close() ends our side; what the peer still sends is read and thrown away."""
    rig = Rig(Recorder())
    rig.service.answer = lambda session, message: session.close()
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    assert wire.ended
    assert not wire.closed
    protocol.dataReceived(b"ignored")
    protocol.writeConnectionLost()
    protocol.readConnectionLost()
    assert wire.closed
    lose(protocol)
    assert rig.service.events[1:] == [("received", b"x"), ("closed", "closed")]


def test_a_peer_that_lingers_is_aborted() -> None:
    """After our half-close a peer has five seconds to close its own side."""
    rig = Rig(Recorder())
    protocol, wire = rig.connect()
    protocol.session.close()
    protocol.writeConnectionLost()
    rig.advance(4)
    assert not wire.aborted
    rig.advance(3)
    assert wire.aborted
    lose(protocol)


def test_send_after_close_is_a_counted_no_op() -> None:
    """What is sent after the end goes nowhere and is counted."""
    rig = Rig(Recorder())
    protocol, wire = rig.connect()
    session = protocol.session
    session.close()
    session.close()
    assert session.send(b"x") is False
    assert (session.dropped, wire.value()) == (1, b"")
    lose(protocol)
    assert session.send(b"x") is False
    assert session.dropped == 2


def test_closed_is_told_once_and_never_inside_a_call() -> None:
    """abort() from a hook returns before closed() is called, and closed() comes once."""
    rig = Rig(Recorder())

    def answer(session: Session, message: bytes) -> None:
        session.abort()
        session.abort()
        rig.service.events.append(("after abort",))

    rig.service.answer = answer
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    assert wire.aborted
    lose(protocol)
    assert rig.service.events[1:] == [("received", b"x"), ("after abort",), ("closed", "closed")]


def test_a_slow_reader_is_not_read() -> None:
    """Above the high-water mark the peer is not read, and messages that came are kept."""
    rig = Rig(Recorder(), "line")
    protocol, wire = rig.connect()
    session = protocol.session

    def answer(session: Session, message: bytes) -> None:
        session.send(message)
        if message == b"1":
            protocol.pauseProducing()  # as the transport does above its mark

    rig.service.answer = answer
    protocol.dataReceived(b"1\n2\n3\n")
    assert session.congested
    assert wire.producerState == "paused"
    assert wire.value() == b"1\n"
    drained = session.drained()
    assert not drained.called
    protocol.resumeProducing()
    assert drained.called
    assert wire.value() == b"1\n2\n3\n"
    assert wire.producerState == "producing"
    lose(protocol)


def test_a_reader_that_never_drains_is_aborted() -> None:
    """write_timeout ends a peer that does not read; drained() tells its waiter."""
    rig = Rig(Recorder(), limits=Limits(write_timeout=3.0))
    protocol, wire = rig.connect()
    protocol.pauseProducing()
    waiter = protocol.session.drained()
    rig.advance(2)
    assert not wire.aborted
    rig.advance(2)
    assert wire.aborted
    failures: list[Any] = []
    waiter.addErrback(failures.append)
    assert failures[0].check(SessionClosed)
    assert failures[0].value.reason == "write_timeout"
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "write_timeout")


def test_a_service_that_sends_on_and_on_is_stopped() -> None:
    """send() does not grow without bound: a service that ignores congestion loses the session."""
    rig = Rig(Recorder(), limits=Limits(write_high_water=1000))
    protocol, wire = rig.connect()
    protocol.pauseProducing()
    sent = 0
    while protocol.session.send(b"x" * 1000):
        sent += 1
        assert sent < 100
    assert sent <= 10
    assert wire.aborted
    assert rig.carrier.counters["overrun"] == 1
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "limit")


@pytest.mark.parametrize(
    ("limits", "reason", "at"),
    [
        (Limits(idle_timeout=8.0), "idle_timeout", 8),
        (Limits(session_timeout=16.0), "session_timeout", 16),
    ],
)
def test_time_outs_end_a_session(limits: Limits, reason: str, at: float) -> None:
    """Each time-out strikes when it is due, not before, and names itself."""
    rig = Rig(Recorder(), limits=limits)
    protocol, wire = rig.connect()
    rig.advance(at - 0.5)
    assert not wire.ended
    rig.advance(at / 8 + 1)
    assert wire.ended
    lose(protocol)
    assert rig.service.events[-1] == ("closed", reason)


def test_activity_puts_idleness_off() -> None:
    """A session that moves bytes in either direction is not idle."""
    rig = Rig(Recorder(), limits=Limits(idle_timeout=8.0, session_timeout=None))
    protocol, wire = rig.connect()
    for _ in range(5):
        rig.advance(5)
        protocol.dataReceived(b"x")
    for _ in range(5):
        rig.advance(5)
        protocol.session.send(b"x")
    assert not wire.ended
    rig.advance(10)
    assert wire.ended
    lose(protocol)


def test_a_working_service_is_not_idle() -> None:
    """While a hook is awaited, it is not the peer that is idle."""
    rig = Rig(Recorder(), limits=Limits(idle_timeout=8.0))
    work: Deferred[None] = Deferred()
    rig.service.answer = lambda session, message: work
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    rig.advance(60)
    assert not wire.ended
    work.callback(None)
    rig.advance(20)
    assert wire.ended
    lose(protocol)


def test_the_first_byte_has_a_deadline_where_the_client_speaks_first() -> None:
    """A client that says nothing is closed, unless the service speaks first."""

    class Asked(Recorder):
        client_speaks_first = True

    for service, ends in ((Asked(), True), (Recorder(), False)):
        rig = Rig(service, limits=Limits(first_byte_timeout=4.0))
        protocol, wire = rig.connect()
        rig.advance(6)
        assert wire.ended is ends
        lose(protocol)
        assert rig.service.events[-1] == ("closed", "first_byte_timeout" if ends else "peer_closed")


def test_no_timer_outlives_the_listener() -> None:
    """Once the last listener and the last session are gone, no timer is left."""
    rig = Rig(Echo())
    protocol, _ = rig.connect()
    assert rig.clock.getDelayedCalls()
    lose(protocol)
    rig.factory.doStop()
    assert not rig.clock.getDelayedCalls()


def test_limits_turn_newcomers_away_and_give_places_back() -> None:
    """max_connections and the limit per source hold exactly, and count what they refuse."""
    rig = Rig(Echo(), limits=Limits(max_connections=3, max_connections_per_source=2))
    first, _ = rig.connect("192.0.2.1")
    rig.connect("192.0.2.1")
    assert rig.refused("192.0.2.1")
    rig.connect("192.0.2.2")
    assert rig.refused("192.0.2.3")
    assert rig.carrier.counters["limit_per_source"] == 1
    assert rig.carrier.counters["limit_connections"] == 1
    lose(first)
    rig.connect("192.0.2.1")
    assert rig.carrier.connections == 3
    for session in list(rig.service.sessions):
        session.abort()


def test_loopback_is_exempt_from_the_limit_per_source_unless_it_is_set() -> None:
    """Loopback peers are counted but not refused by default."""
    rig = Rig(Echo(), limits=Limits(max_connections_per_source=1))
    rig.connect()
    assert not rig.refused()
    rig = Rig(Echo(), limits=Limits(max_connections_per_source=1, limit_loopback=True))
    rig.connect()
    assert rig.refused()


def test_an_ipv6_source_is_its_64() -> None:
    """The limit per source counts an IPv6 /64 as one."""
    rig = Rig(Echo(), limits=Limits(max_connections_per_source=1))
    assert not rig.refused("2001:db8::1")
    assert rig.refused("2001:db8::2")
    assert not rig.refused("2001:db8:0:1::1")


def test_accept_rate_is_a_bucket() -> None:
    """A source may open a burst, then as many as the rate refills."""
    rig = Rig(Echo(), limits=Limits(accept_rate=Rate(2, 1.0)))
    assert [rig.refused("192.0.2.1") for _ in range(3)] == [False, False, True]
    rig.clock.advance(0.5)
    assert [rig.refused("192.0.2.1") for _ in range(2)] == [False, True]
    assert not rig.refused("192.0.2.2")


def test_access_is_judged_before_anything_else() -> None:
    """A refused source takes no place."""
    rig = Rig(Echo(), access=AccessList(allow=["192.0.2.0/24"], deny=["192.0.2.66"]))
    assert not rig.refused("192.0.2.1")
    assert rig.refused("192.0.2.66")
    assert rig.refused("198.51.100.1")
    assert rig.carrier.connections == 1


def test_sessions_wait_for_an_async_start() -> None:
    """A newcomer under a stock listener is greeted once start() is done."""
    ready: Deferred[None] = Deferred()

    class Slow(EchoReply):
        async def start(self) -> None:  # type: ignore[override]
            await ready
            super().start()

    rig = Rig(Slow())
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    assert wire.value() == b""
    ready.callback(None)
    assert wire.value().endswith(b"OK...x")
    lose(protocol)


def test_a_failed_start_turns_sessions_away(logged_failures: Failures) -> None:
    """Where start() raised, newcomers are turned away."""

    class Bad(Recorder):
        def start(self) -> None:
            self.events = []
            raise ZeroDivisionError

    rig = Rig(Bad())
    assert rig.refused()
    logged_failures.take(ZeroDivisionError)


def test_a_start_that_fails_late_ends_who_waits_for_it(logged_failures: Failures) -> None:
    """Sessions that waited for start() end with service_error, and no hook hears of them."""
    ready: Deferred[None] = Deferred()

    class Bad(Recorder):
        async def start(self) -> None:  # type: ignore[override]
            self.events = []
            await ready

    rig = Rig(Bad())
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    ready.errback(ZeroDivisionError())
    assert wire.ended
    lose(protocol)
    logged_failures.take(ZeroDivisionError)
    assert rig.service.events == []


def test_shutdown_lets_accepted_messages_finish() -> None:
    """At the daemon's stop a session ends once what it accepted is handled."""
    rig = Rig(Recorder())
    work: Deferred[None] = Deferred()
    rig.service.answer = lambda session, message: work
    busy, busy_wire = rig.connect()
    idle, idle_wire = rig.connect()
    busy.dataReceived(b"x")
    rig.carrier.shut_down()
    assert idle_wire.ended
    assert not busy_wire.ended
    work.callback(None)
    assert busy_wire.ended
    lose(busy)
    lose(idle)
    assert rig.service.events[-1] == ("closed", "shutdown")


def test_cut_off_aborts_and_cancels() -> None:
    """At the drain deadline sessions are aborted and what they await is cancelled."""
    cancelled: list[Any] = []
    rig = Rig(Recorder())
    work: Deferred[None] = Deferred(cancelled.append)
    rig.service.answer = lambda session, message: work
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    rig.carrier.shut_down()
    assert rig.carrier.cut_off() == 1
    assert wire.aborted
    assert cancelled
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "shutdown_aborted")


def test_what_was_accepted_is_handled_even_after_a_reset() -> None:
    """Messages read before the connection was lost are still handed over, then closed comes."""
    rig = Rig(Recorder(), "line")
    work: Deferred[None] = Deferred()
    rig.service.answer = lambda session, message: work if message == b"1" else None
    protocol, _ = rig.connect()
    protocol.dataReceived(b"1\n2\n3\n")
    lose(protocol, ConnectionLost)
    assert rig.carrier.connections == 1  # the service is still at work for it
    assert rig.service.events[1:] == [("received", b"1")]
    work.callback(None)
    assert rig.service.events[1:] == [
        ("received", b"1"),
        ("received", b"2"),
        ("received", b"3"),
        ("closed", "peer_reset"),
    ]


def test_the_same_service_class_needs_streams() -> None:
    """A service that does not serve streams is refused a stream factory."""

    class Packets(Echo):
        kinds = ("datagram",)

    with pytest.raises(PluginError, match="Packets does not serve streams"):
        ServiceFactory(Packets())


def test_a_wrong_framing_is_refused_at_once() -> None:
    """A framing that does not exist is an error of the programmer, before any client."""
    with pytest.raises(ValueError, match="framing must be one of chunk, line"):
        ServiceFactory(Echo(), framing="lines")


class Full(Wire):
    """Tells of a full buffer at every write, as Twisted's transports do."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None:
            self.producer.pauseProducing()


def test_a_full_transport_tells_it_at_every_write() -> None:
    """Neither the overrun nor write_timeout starts anew with each further send."""
    rig = Rig(Recorder(), limits=Limits(write_high_water=1000, write_timeout=3.0))
    protocol, wire = rig.connect(wire=Full())
    sent = 0
    while protocol.session.send(b"x" * 1000):
        sent += 1
        assert sent < 100
    assert wire.aborted
    lose(protocol)
    protocol, wire = rig.connect(wire=Full())
    for _ in range(4):
        protocol.session.send(b"x")
        rig.advance(1)
    assert wire.aborted
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "write_timeout")


def test_who_leaves_work_behind_still_holds_a_place() -> None:
    """max_connections bounds the sessions whose peer is gone and whose service is at work."""
    rig = Rig(Recorder(), limits=Limits(max_connections=2))
    works: list[Deferred[None]] = []

    def work(session: Session, message: bytes) -> Deferred[None]:
        works.append(Deferred())
        return works[-1]

    rig.service.answer = work
    for _ in range(2):
        protocol, _ = rig.connect()
        protocol.dataReceived(b"x")
        lose(protocol, ConnectionLost)
    assert rig.refused()
    for each in works:
        each.callback(None)
    assert rig.carrier.connections == 0
    assert not rig.service.sessions


def test_an_end_inside_a_frame_closes_at_once() -> None:
    """Who has finished inside a frame is not waited for."""
    rig = Rig(Recorder(), "netstring")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"5:he")
    protocol.readConnectionLost()
    assert wire.closed
    lose(protocol)
    assert rig.service.events[-1] == ("closed", "protocol_error")


@pytest.mark.parametrize("hook", ["opened", "received", "ended", "closed"])
def test_a_hook_that_exits_ends_that_session_alone(hook: str, logged_failures: Failures) -> None:
    """sys.exit() in a hook is a failure of that session, not the end of a listener."""

    class Exit(Recorder):
        """Exits in one hook."""

    def leave(*_: object) -> None:
        raise SystemExit(3)

    setattr(Exit, hook, leave)
    rig = Rig(Exit())
    protocol, _ = rig.connect()
    protocol.dataReceived(b"x")
    protocol.readConnectionLost()
    lose(protocol)
    assert rig.carrier.connections == 0
    assert not rig.service.sessions
    logged_failures.take(SystemExit)


def test_a_stop_waits_for_the_farewells() -> None:
    """when_empty fires once every closed() is done, a coroutine's too."""
    work: Deferred[None] = Deferred()

    class Slow(Recorder):
        """Takes its time to say goodbye."""

        def closed(self, session: Session, reason: CloseReason) -> Any:
            return work

    rig = Rig(Slow())
    protocol, _ = rig.connect()
    lose(protocol)
    empty = rig.carrier.when_empty()
    assert not empty.called
    work.callback(None)
    assert empty.called


@pytest.mark.parametrize("conversing", [False, True])
def test_tls_tells_its_end_late_but_not_in_vain(conversing: bool) -> None:
    """Without half-close the last open line and the peer's end are handed over all the same."""
    heard: list[object] = []

    class Hooks(SocketService):
        """Notes its messages and the end."""

        def received(self, session: Session, message: bytes) -> None:
            heard.append(message)

        def ended(self, session: Session) -> None:
            heard.append("end")

    class Talk(SocketService):
        """The same as a conversation."""

        async def converse(self, session: Session) -> None:
            async for message in session:
                heard.append(message)
            heard.append("end")

    rig = Rig(Talk() if conversing else Hooks(), "line")
    wire = Wire()
    alsoProvides(wire, ISSLTransport)
    protocol, _ = rig.connect(wire=wire)
    protocol.dataReceived(b"one\ntwo")
    lose(protocol)
    assert heard == [b"one", b"two", "end"]
    assert rig.carrier.connections == 0


class Counting(Wire):
    """A wire that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))


def test_the_answers_to_one_read_go_out_together() -> None:
    """Many messages in one read cost one write, in order, whoever waits for what in between."""
    rig = Rig(Echo(), "line")
    protocol, wire = rig.connect(wire=Counting())
    protocol.dataReceived(b"one\ntwo\nthree\n")
    protocol.dataReceived(b"four\n")
    assert wire.writes == [b"one\ntwo\nthree\n", b"four\n"]
    protocol.dataReceived(b"x" * 1000 + b"\n" + b"y\n" * 40_000)
    assert len(wire.writes) == 4  # never more than CORK_BYTES is held back
    assert wire.value() == b"one\ntwo\nthree\nfour\n" + b"x" * 1000 + b"\n" + b"y\n" * 40_000


@pytest.mark.parametrize("ending", ["close", "raise", "wait"])
def test_answers_held_back_are_sent_before_the_end(ending: str, logged_failures: Failures) -> None:
    """A service that closes, fails or waits in the middle of a read has answered what it did."""
    rig = Rig(Recorder(), "line")
    waiting: Deferred[None] = Deferred()

    def answer(session: Session, message: bytes) -> Any:
        session.send(b"re " + message)
        if message == b"2":
            if ending == "close":
                session.close()
            elif ending == "raise":
                raise KeyError
            else:
                return waiting
        return None

    rig.service.answer = answer
    protocol, wire = rig.connect(wire=Counting())
    protocol.dataReceived(b"1\n2\n3\n")
    assert wire.writes == [b"re 1\nre 2\n"]
    if ending == "wait":
        waiting.callback(None)
        assert wire.writes[1:] == [b"re 3\n"]
    else:
        assert wire.ended
    if ending == "raise":
        logged_failures.take(KeyError)


def test_an_abort_drops_what_is_held_back() -> None:
    """After abort() nothing more is written."""
    rig = Rig(Recorder(), "line")

    def answer(session: Session, message: bytes) -> None:
        session.send(message)
        session.abort()

    rig.service.answer = answer
    protocol, wire = rig.connect(wire=Counting())
    protocol.dataReceived(b"1\n2\n")
    assert wire.aborted
    assert wire.writes == []
