"""A service carried over datagrams, in memory."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from conftest import Failures
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.task import Clock

from twistedsock.errors import CloseReason, PluginError
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.delivery import INBOX_BYTES
from twistedsock.protocols.origins import SERVED_PORTS
from twistedsock.service import Metadata, Session, SocketService
from twistedsock.services.chargen import Chargen
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply

PORT = 20007
CLIENT = ("192.0.2.1", 40000)


class Wire:
    """A datagram transport in memory."""

    maxPacketSize = 8192

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", PORT)

    def write(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((data, addr))

    def writeFrom(self, data: bytes, addr: tuple[str, int], source: str) -> None:
        self.sent.append((data, addr, source))


class Rig:
    """A service behind a datagram protocol."""

    def __init__(self, service: SocketService, **more: Any) -> None:
        self.clock = Clock()
        service._reactor = self.clock
        self.service = service
        self.protocol = ServiceDatagramProtocol(service, **more)
        self.carrier = self.protocol.carrier
        self.wire = Wire()
        self.protocol.makeConnection(self.wire)

    def hear(self, data: bytes, addr: tuple[str, int] = CLIENT, **metadata: Any) -> None:
        if metadata:
            self.protocol.packetReceived(data, addr, Metadata(**metadata))
        else:
            self.protocol.datagramReceived(data, addr)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def stop(self) -> None:
        self.protocol.doStop()
        self.clock.advance(0)


class Recorder(SocketService):
    """Echoes, and writes down each hook."""

    def start(self) -> None:
        self.events: list[Any] = []
        self.work: Deferred[None] | None = None

    def opened(self, session: Session) -> None:
        self.events.append(f"opened {session.peer}")

    def received(self, session: Session, message: bytes) -> Deferred[None] | None:
        self.events.append(message)
        session.send(message)
        return self.work

    def closed(self, session: Session, reason: CloseReason) -> None:
        self.events.append(f"closed {session.peer} {reason}")


def test_a_datagram_is_answered_without_a_greeting() -> None:
    """echo-reply over UDP answers OK... and greets nobody."""
    rig = Rig(EchoReply())
    rig.hear(b"hi")
    assert rig.wire.sent == [(b"OK...hi", CLIENT)]
    rig.stop()


def test_a_peer_is_one_session_until_it_is_idle() -> None:
    """Datagrams of one peer share a session, which expires when idle."""
    rig = Rig(Recorder(), limits=Limits(idle_timeout=8.0))
    rig.hear(b"a")
    rig.advance(5)
    rig.hear(b"b")
    rig.advance(5)
    assert rig.service.events == ["opened 192.0.2.1:40000", b"a", b"b"]
    rig.advance(6)
    assert rig.service.events[-1] == "closed 192.0.2.1:40000 idle_timeout"
    rig.hear(b"c")
    assert rig.service.events[-2:] == ["opened 192.0.2.1:40000", b"c"]
    rig.stop()
    assert rig.service.events[-1] == "closed 192.0.2.1:40000 shutdown"
    assert not rig.clock.getDelayedCalls()


def test_the_stock_port_is_told_to_read_whole_datagrams() -> None:
    """A stock port cuts at 8192 bytes unless it is told."""
    rig = Rig(Echo())
    assert rig.wire.maxPacketSize >= 65507
    rig.stop()


@pytest.mark.parametrize(
    ("addr", "word"),
    [
        (("192.0.2.1", PORT), "same_port"),
        (("192.0.2.1", 53), "privileged_port"),
        (("192.0.2.1", 1023), "privileged_port"),
        (("224.0.0.1", 40000), "not_unicast"),
        (("255.255.255.255", 40000), "not_unicast"),
        (("0.0.0.0", 40000), "not_unicast"),
    ],
)
def test_the_guard_drops_what_looks_like_a_service(addr: tuple[str, int], word: str) -> None:
    """Such a datagram is dropped and counted, and nothing is sent."""
    rig = Rig(Echo())
    rig.hear(b"x", addr)
    assert rig.wire.sent == []
    assert rig.carrier.counters[word] == 1
    rig.stop()


def test_our_own_services_are_never_answered() -> None:
    """A datagram from an address of this machine with a port served here is dropped."""
    rig = Rig(Echo())
    SERVED_PORTS.add(20008)
    try:
        rig.hear(b"x", ("127.0.0.1", 20008))
        rig.hear(b"x", ("192.0.2.1", 20008))
    finally:
        SERVED_PORTS.remove(20008)
    assert rig.wire.sent == [(b"x", ("192.0.2.1", 20008))]
    assert rig.carrier.counters["own_service"] == 1
    rig.stop()


def test_symmetric_protocols_lift_the_port_rules() -> None:
    """A symmetric service, or any_source_port, answers any source port but our own."""

    class Symmetric(Echo):
        symmetric = True

    for rig in (Rig(Symmetric()), Rig(Echo(), any_source_port=True)):
        rig.hear(b"x", ("192.0.2.1", 53))
        rig.hear(b"x", ("192.0.2.1", PORT))
        rig.hear(b"x", ("127.0.0.1", PORT))
        assert len(rig.wire.sent) == 2
        rig.stop()


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"destination": "224.0.0.251"}, "multicast"),
        ({"destination": "ff02::1"}, "multicast"),
        ({"destination": "192.0.2.255", "broadcast": True}, "broadcast"),
    ],
)
def test_groups_and_broadcasts_are_not_answered(told: dict[str, Any], word: str) -> None:
    """What was sent to many is answered by none."""
    rig = Rig(Echo())
    rig.hear(b"x", **told)
    assert rig.wire.sent == []
    assert rig.carrier.counters[word] == 1
    rig.stop()


def test_the_answer_comes_from_the_address_that_was_hit() -> None:
    """A wildcard listener answers from the datagram's destination; each is its own session."""
    rig = Rig(Recorder())
    rig.hear(b"x", destination="127.0.0.2")
    rig.hear(b"y", destination="127.0.0.3")
    assert rig.wire.sent == [(b"x", CLIENT, "127.0.0.2"), (b"y", CLIENT, "127.0.0.3")]
    assert {session.local for session in rig.service.sessions} == {
        f"127.0.0.2:{PORT}",
        f"127.0.0.3:{PORT}",
    }
    rig.stop()


def test_an_unproven_source_gets_three_times_what_it_sent() -> None:
    """Headers counted, to the byte; prove() lifts it; send() over it drops and returns False."""

    class Amplifier(SocketService):
        def received(self, session: Session, message: bytes) -> None:
            self.session = session

    rig = Rig(Amplifier())
    rig.hear(b"x" * 10)
    session = rig.service.session
    assert session.budget == 3 * 38 - 28
    assert session.send(b"y" * 86) is True
    assert session.send(b"") is False
    assert session.dropped == 1
    assert rig.carrier.counters["over_budget"] == 1
    rig.hear(b"")
    assert session.budget == 3 * 28 - 28
    session.prove()
    assert session.budget is None
    assert session.send(b"y" * 9000) is True
    rig.stop()


def test_chargen_keeps_to_the_budget() -> None:
    """An empty datagram to chargen is never answered with more than thrice its size."""
    rig = Rig(Chargen())
    for number in range(200):
        rig.hear(b"", ("192.0.2.1", 40000 + number))
    assert all(len(data) + 28 <= 3 * 28 for data, _ in rig.wire.sent)
    assert len(rig.wire.sent) == 200
    assert rig.carrier.counters["over_budget"] == 0
    rig.stop()


def test_the_table_is_bounded_and_the_proven_stay() -> None:
    """A full table forgets the least recently used unproven peer first."""
    rig = Rig(Recorder(), limits=Limits(max_connections=3))
    for number in range(3):
        rig.hear(b"x", ("192.0.2.1", 40000 + number))
    for session in rig.service.sessions:
        if session.peer.endswith(":40000"):
            session.prove()
    rig.hear(b"x", ("192.0.2.1", 40001))
    rig.hear(b"x", ("192.0.2.1", 40003))
    rig.clock.advance(0)
    assert rig.service.events[-1] == "closed 192.0.2.1:40002 evicted"
    assert len(rig.protocol.peers) == 3
    rig.stop()


def test_forged_sources_do_not_fill_the_log(logged: list[Any]) -> None:
    """Evictions are noted at most once a second; the evicted have no line of their own."""
    rig = Rig(Recorder(), limits=Limits(max_connections=3))
    for number in range(1000):
        rig.hear(b"x", ("192.0.2.1", 40000 + number))
        rig.clock.advance(0)
    assert rig.carrier.counters["evicted"] == 997
    assert rig.service.events.count("closed 192.0.2.1:40000 evicted") == 1
    assert [event["event"] for event in logged if "event" in event] == ["evicted"]
    rig.stop()


def test_a_source_has_its_share_of_the_table() -> None:
    """Over the limit per source, the source's own oldest peer goes; others are untouched."""
    rig = Rig(Recorder(), limits=Limits(max_connections_per_source=2))
    rig.hear(b"x", ("192.0.2.9", 40000))
    for number in range(3):
        rig.hear(b"x", ("192.0.2.1", 40000 + number))
    rig.clock.advance(0)
    assert rig.service.events[-1] == "closed 192.0.2.1:40000 evicted"
    assert len(rig.protocol.peers) == 3
    rig.stop()


def test_the_newest_is_dropped_when_the_inbox_is_full() -> None:
    """While a hook is awaited, datagrams are kept up to the inbox, then dropped and counted."""
    rig = Rig(Recorder())
    rig.hear(b"first")
    rig.service.work = work = Deferred()
    rig.hear(b"second")
    kept = 0
    while not rig.carrier.counters["inbox_full"]:
        rig.hear(b"z" * 1000)
        kept += 1
        assert kept < 100
    assert kept <= INBOX_BYTES // 1000 + 2
    rig.service.work = None
    work.callback(None)
    assert rig.service.events.count(b"z" * 1000) == kept - 1
    rig.stop()


def test_access_and_length_are_judged() -> None:
    """A refused source and a datagram over max_message are dropped and counted."""
    rig = Rig(Echo(), access=AccessList(deny=["192.0.2.0/24"]), limits=Limits(max_message=10))
    rig.hear(b"x")
    rig.hear(b"x" * 11, ("198.51.100.1", 40000))
    rig.hear(b"x" * 10, ("198.51.100.1", 40000))
    assert len(rig.wire.sent) == 1
    assert rig.carrier.counters["refused"] == 1
    assert rig.carrier.counters["too_long"] == 1
    rig.stop()


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (BlockingIOError(errno.EAGAIN, "full"), "send_failed"),
        (OSError(errno.ENETUNREACH, "no route"), "send_failed"),
        (MessageLengthError("too long"), "send_too_long"),
    ],
)
def test_what_the_kernel_refuses_is_dropped_and_counted(error: Exception, word: str) -> None:
    """A send that fails is False and counted; the session goes on."""
    rig = Rig(Recorder())
    rig.wire.error = error
    rig.hear(b"x")
    (session,) = rig.service.sessions
    assert session.dropped == 1
    assert rig.carrier.counters[word] == 1
    rig.wire.error = None
    rig.hear(b"y")
    assert rig.wire.sent == [(b"y", CLIENT)]
    rig.stop()


def test_closing_a_datagram_session_tells_later() -> None:
    """close() forgets the peer at once; closed() comes after the call; the peer may come back."""

    class Closer(Recorder):
        def received(self, session: Session, message: bytes) -> None:
            session.close()
            self.events.append("after close")

    rig = Rig(Closer())
    rig.hear(b"x")
    assert rig.service.events[-1] == "after close"
    rig.clock.advance(0)
    assert rig.service.events[-1] == "closed 192.0.2.1:40000 closed"
    rig.hear(b"x")
    assert rig.service.events[-2:] == ["opened 192.0.2.1:40000", "after close"]
    rig.stop()


def test_a_raising_service_loses_that_session_alone(logged_failures: Failures) -> None:
    """A hook that raises ends its session with service_error."""

    class Bad(Recorder):
        def received(self, session: Session, message: bytes) -> None:
            raise ZeroDivisionError

    rig = Rig(Bad())
    rig.hear(b"x")
    rig.clock.advance(0)
    logged_failures.take(ZeroDivisionError)
    assert rig.service.events[-1] == "closed 192.0.2.1:40000 service_error"
    rig.stop()


def test_a_flood_of_drops_is_logged_once_a_second(logged: list[Any]) -> None:
    """Drops are all counted, and logged at most once a second with the number left out."""
    rig = Rig(Echo())
    for _ in range(20):
        for _ in range(100):
            rig.hear(b"x", ("192.0.2.1", 53))
        rig.clock.advance(0.1)
    lines = [event for event in logged if event.get("event") == "privileged_port"]
    assert rig.carrier.counters["privileged_port"] == 2000
    assert 2 <= len(lines) <= 4
    rig.advance(3)
    lines = [event for event in logged if event.get("event") == "privileged_port"]
    assert sum(event["suppressed"] for event in lines) + 2 >= 1990
    rig.stop()


def test_a_stream_service_is_refused() -> None:
    """A service that does not serve datagrams is refused a datagram protocol."""

    class Streams(Echo):
        kinds = ("stream",)

    with pytest.raises(PluginError, match="Streams does not serve datagrams"):
        ServiceDatagramProtocol(Streams())


def test_forgotten_peers_do_not_keep_the_service_at_work_without_bound() -> None:
    """Forged sources evict each other; sessions still at work are bounded all the same."""
    rig = Rig(Recorder(), limits=Limits(max_connections=4))
    rig.service.work = Deferred()
    for port in range(2000, 2100):
        rig.hear(b"x", ("192.0.2.1", port))
        rig.clock.advance(0)
    assert len(rig.service.sessions) <= 8
    assert rig.carrier.counters["limit_connections"] > 80
    rig.service.work.callback(None)
    rig.service.work = None
    rig.hear(b"y", ("192.0.2.1", 3000))
    assert rig.service.events[-1] == b"y"
    rig.stop()
    assert not rig.service.sessions
