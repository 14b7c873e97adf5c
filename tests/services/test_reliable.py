"""Any datagram service, made to answer each request once; in memory."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from conftest import Failures
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twistedsock.errors import FrameError, PluginError
from twistedsock.host.registry import GROUP, Plugin
from twistedsock.policy.limits import Limits
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.service import ServiceSettings, Session, SocketService
from twistedsock.services.answers import MAX_KEPT_BYTES, AnswerMemory, Fate
from twistedsock.services.discard import Discard
from twistedsock.services.echo import Echo
from twistedsock.services.echo_reply import EchoReply
from twistedsock.services.reliable import ReliableAnswers, reliable
from twistedsock.wire.exchange import (
    ID_MASK,
    MAX_SPAN,
    ExchangeDatagram,
    ExchangeType,
    parse_exchange,
)

ReliableEcho = reliable(Echo)

CLIENT = ("192.0.2.1", 40000)
ANSWER, REFUSAL = ExchangeType.ANSWER, ExchangeType.REFUSAL
REQUEST, CHALLENGE = ExchangeType.REQUEST, ExchangeType.CHALLENGE


class Rig:
    """A reliable service behind a datagram protocol, and what it sends."""

    def __init__(self, service: SocketService, **more: Any) -> None:
        self.clock = Clock()
        service._reactor = self.clock
        self.service: Any = service
        self.protocol = ServiceDatagramProtocol(service, **more)
        self.sent: list[tuple[bytes, Any]] = []
        self.protocol.makeConnection(self)  # type: ignore[arg-type]

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", 20017)

    def write(self, data: bytes, addr: Any) -> None:
        self.sent.append((data, addr))

    def hear(self, data: bytes, addr: tuple[str, int] = CLIENT) -> None:
        self.protocol.datagramReceived(data, addr)

    def ask(self, number: int, payload: bytes = b"", attempt: int = 1, behind: int = 0) -> None:
        self.hear(ExchangeDatagram(REQUEST, number, attempt, behind, payload).to_bytes())

    def take(self) -> list[ExchangeDatagram]:
        """Return what was sent since it was last asked."""
        taken, self.sent = self.sent, []
        return [parse_exchange(data) for data, _ in taken]

    def stop(self) -> None:
        self.protocol.doStop()
        self.clock.advance(0)


class Recorder(SocketService):
    """Writes down each request, and does what the test says."""

    def start(self) -> None:
        self.heard: list[bytes] = []
        self.views: list[Session] = []
        self.act: Any = lambda session, message: session.send(message)

    def received(self, session: Session, message: bytes) -> Any:
        self.heard.append(message)
        self.views.append(session)
        return self.act(session, message) if self.act is not None else None


def recorder(**more: Any) -> Rig:
    """Return a reliable Recorder."""
    return Rig(reliable(Recorder)(), **more)


def test_a_request_is_answered_once_and_a_repeat_gets_the_answer_again() -> None:
    """The service hears each request once; the answer tells which attempt it is to."""
    rig = Rig(reliable(EchoReply)())
    rig.ask(7, b"hi")
    rig.ask(7, b"hi", attempt=2)
    assert rig.take() == [
        ExchangeDatagram(ANSWER, 7, 1, payload=b"OK...hi"),
        ExchangeDatagram(ANSWER, 7, 2, payload=b"OK...hi"),
    ]
    assert rig.service.counters == {"requests": 1, "repeated": 1}
    rig.stop()
    assert not rig.service._memories


def test_peers_do_not_share_ids() -> None:
    """The same id of another peer is another request."""
    rig = recorder()
    request = ExchangeDatagram(REQUEST, 7, payload=b"x").to_bytes()
    rig.hear(request)
    rig.hear(request, ("192.0.2.1", 40001))
    assert [addr for _, addr in rig.sent] == [CLIENT, ("192.0.2.1", 40001)]
    assert rig.service.heard == [b"x", b"x"]
    rig.stop()


def test_settings_and_hooks_are_the_services_own() -> None:
    """The wrapped service keeps its settings, its name and its opened, closed, start and stop."""
    told = []

    class Hooked(Echo):
        class Settings(ServiceSettings):
            depth: int = 3

        def start(self) -> None:
            told.append(("start", self.settings.depth))

        def opened(self, session: Session) -> None:
            told.append(("opened", session.send(b"greeting"), session.peer))
            session.data = "mine"
            self.seen = {session: 1}

        def received(self, session: Session, message: bytes) -> None:
            assert self.seen[session] == 1
            assert session in self.sessions
            assert isinstance(session, Session)
            told.append((session.data, session.five_tuple.peer_port, session.metadata.truncated))

        def closed(self, session: Session, reason: object) -> None:
            told.append(("closed", self.seen[session], str(reason)))

    made = reliable(Hooked)
    assert made.__name__ == "ReliableHooked"
    rig = Rig(made(made.Settings(depth=4), name="deep"))
    rig.ask(1)
    rig.stop()
    assert rig.service.name == "deep"
    assert told == [
        ("start", 4),
        ("opened", False, "192.0.2.1:40000"),
        ("mine", 40000, None),
        ("closed", 1, "shutdown"),
    ]


def test_the_first_answer_counts() -> None:
    """A second send to one request is dropped, counted and False."""
    rig = recorder()
    results: list[bool] = []

    def twice(session: Session, message: bytes) -> None:
        results.extend([session.send(b"one"), session.send(b"two")])

    rig.service.act = twice
    rig.ask(1)
    assert [found.payload for found in rig.take()] == [b"one"]
    assert results == [True, False]
    (session,) = rig.service.sessions
    assert session.dropped == 1
    rig.stop()


def test_no_answer_is_an_empty_answer() -> None:
    """A service that answers nothing has its requests acknowledged."""
    rig = Rig(reliable(Discard)())
    rig.ask(1, b"gone")
    assert rig.take() == [ExchangeDatagram(ANSWER, 1)]
    rig.stop()


def test_async_work_is_waited_for() -> None:
    """The answer may be sent after an await; a repeat meanwhile is answered after it."""
    rig = recorder()
    work: Deferred[None] = Deferred()

    async def slow(session: Session, message: bytes) -> None:
        await work
        session.send(message.upper())

    rig.service.act = slow
    rig.ask(1, b"a")
    rig.ask(1, b"a", attempt=2)
    assert rig.take() == []
    work.callback(None)
    assert [(found.attempt, found.payload) for found in rig.take()] == [(1, b"A"), (2, b"A")]
    assert rig.service.heard == [b"a"]
    rig.stop()


def test_async_work_without_an_answer_is_acknowledged_at_its_end() -> None:
    """Not before: the service may still send."""
    rig = recorder()
    work: Deferred[None] = Deferred()
    rig.service.act = lambda session, message: work
    rig.ask(1)
    assert rig.take() == []
    work.callback(None)
    assert rig.take() == [ExchangeDatagram(ANSWER, 1)]
    rig.stop()


def test_answers_may_come_later_and_in_any_order() -> None:
    """With answers_later each request's session answers it; repeats meanwhile are ignored."""

    class Later(ReliableAnswers, Recorder):
        answers_later = True

    rig = Rig(Later())
    rig.service.act = None
    rig.ask(1, b"a")
    rig.ask(2, b"b", behind=1)
    rig.ask(1, b"a", attempt=2)
    assert rig.take() == []
    assert rig.service.counters["working"] == 1
    first, second = rig.service.views
    assert first == second
    assert second.send(b"B")
    assert first.send(b"A")
    assert [(found.id, found.payload) for found in rig.take()] == [(2, b"B"), (1, b"A")]
    rig.stop()


def test_what_the_service_raises_is_a_refusal(logged_failures: Failures) -> None:
    """At once or awaited: logged, refused, not tried again; the session goes on."""
    rig = recorder()

    def fail(session: Session, message: bytes) -> None:
        raise ZeroDivisionError

    async def fail_later(session: Session, message: bytes) -> None:
        fail(session, message)

    for number, act in ((1, fail), (2, fail_later)):
        rig.service.act = act
        rig.ask(number)
        rig.ask(number, attempt=2)
        assert rig.take() == [
            ExchangeDatagram(REFUSAL, number, 1),
            ExchangeDatagram(REFUSAL, number, 2),
        ]
        logged_failures.take(ZeroDivisionError)
    assert len(rig.service.heard) == 2
    assert rig.service.counters["failed"] == 2
    assert len(rig.service.sessions) == 1
    rig.stop()


def test_a_cut_off_is_no_failure_of_the_service() -> None:
    """Work that the daemon's stop cancels is neither logged nor refused."""
    rig = recorder()

    async def endless(session: Session, message: bytes) -> None:
        await Deferred()

    rig.service.act = endless
    rig.ask(1)
    rig.protocol.carrier.cut_off()
    rig.clock.advance(0)
    assert rig.service.counters["failed"] == 0
    assert rig.take() == []
    rig.stop()


@given(st.binary(max_size=60))
def test_what_is_no_request_is_dropped_and_never_answered(data: bytes) -> None:
    """Garbage, and what only servers send, is counted; nothing is reflected."""
    rig = recorder()
    rig.hear(data)
    try:
        heard = parse_exchange(data)
    except Exception:
        heard = None
    if heard is None or heard.type is not REQUEST:
        assert rig.take() == []
        assert rig.service.heard == []
    rig.stop()


def test_malformed_datagrams_are_counted() -> None:
    """Two reliable services that are made to talk to each other fall silent at once."""
    rig = recorder()
    for kind in (ANSWER, REFUSAL, CHALLENGE):
        rig.hear(
            ExchangeDatagram(kind, 1, payload=b"" if kind is not CHALLENGE else bytes(8)).to_bytes()
        )
    rig.hear(b"short")
    assert rig.service.counters == {"malformed": 4}
    rig.hear(ExchangeDatagram(ExchangeType.PROOF, 1, payload=bytes(8)).to_bytes())
    assert rig.take() == []
    rig.stop()


def test_a_large_answer_waits_for_proof() -> None:
    """An address that may be forged gets a challenge, thrice what it sent at most."""
    rig = recorder()
    rig.service.act = lambda session, message: session.send(b"x" * 5000)
    rig.ask(1, b"big")
    (challenge,) = rig.take()
    assert challenge.type is CHALLENGE
    rig.hear(ExchangeDatagram(ExchangeType.PROOF, 1, payload=bytes(8)).to_bytes())  # a guess
    assert rig.take() == []
    rig.hear(ExchangeDatagram(ExchangeType.PROOF, 1, payload=challenge.payload).to_bytes())
    assert rig.take() == [ExchangeDatagram(ANSWER, 1, payload=b"x" * 5000)]
    rig.ask(2, b"big")  # proven: no second challenge
    assert [found.type for found in rig.take()] == [ANSWER]
    assert rig.service.heard == [b"big", b"big"]
    rig.stop()


def test_a_forged_address_never_gets_more_than_thrice_what_came() -> None:
    """However often a request is repeated, headers counted."""
    rig = recorder()
    rig.service.act = lambda session, message: session.send(b"x" * 5000)
    came = 0
    for attempt in range(1, 100):
        rig.ask(1, b"big", attempt)
        came += 28 + 8 + 3
        assert sum(28 + len(data) for data, _ in rig.sent) <= 3 * came
    rig.stop()


def test_an_answer_that_fits_no_datagram_is_refused(logged_failures: Failures) -> None:
    """send() says so; where the service lets it pass, the client is refused."""
    rig = recorder()
    rig.service.act = lambda session, message: session.send(bytes(65_500))
    rig.ask(1)
    logged_failures.take(FrameError)
    assert rig.take() == [ExchangeDatagram(REFUSAL, 1)]
    rig.stop()


def test_what_the_client_waits_for_no_more_is_stale() -> None:
    """A request older than its client's oldest open one is ignored, however late it comes."""
    rig = recorder()
    rig.ask(10, b"a")
    rig.ask(12, b"b", behind=0)
    rig.take()
    rig.ask(10, b"a", attempt=2)
    rig.ask(11, b"never came before")
    assert rig.take() == []
    assert rig.service.heard == [b"a", b"b"]
    assert rig.service.counters["stale"] == 2
    rig.stop()


def test_a_client_that_starts_anew_is_served() -> None:
    """At the same port, with another first id, before or behind."""
    rig = recorder()
    for number in (5, 2**31 + 5, 70_000, ID_MASK - 3, 2):
        rig.ask(number, b"%d" % number)
        assert [found.id for found in rig.take()] == [number]
    rig.stop()


def test_an_idle_peer_is_forgotten() -> None:
    """Its memory goes with its session, which outlives RFC 7252's EXCHANGE_LIFETIME (247 s)."""
    assert (Limits().idle_timeout or 0) > 247
    rig = recorder()
    rig.ask(1)
    for _ in range(400):
        rig.clock.advance(1)
    assert not rig.service._memories
    rig.stop()


def test_the_memory_is_bounded_in_bytes() -> None:
    """The oldest answers go first; who asks for one again is refused, and nothing runs twice."""
    memory = AnswerMemory()
    big = bytes(MAX_KEPT_BYTES // 4)
    for number in range(6):
        request = ExchangeDatagram(REQUEST, number, behind=number)
        assert memory.judge(request) is Fate.NEW
        assert memory.settle(number, ANSWER, big)
    kinds = []
    for number in range(6):
        assert memory.judge(ExchangeDatagram(REQUEST, number, 2, number)) is Fate.ANSWERED
        found = memory.answer(number)
        assert found is not None
        kinds.append(found.type)
    assert kinds == [REFUSAL] * 2 + [ANSWER] * 4
    assert memory._bytes <= MAX_KEPT_BYTES


@given(st.lists(st.tuples(st.integers(0, ID_MASK), st.integers(0, MAX_SPAN - 1)), max_size=60))
def test_the_memory_is_bounded_whatever_a_peer_says(asked: list[tuple[int, int]]) -> None:
    """Any ids and spans: no more requests than the span, and its bytes are counted right."""
    memory = AnswerMemory()
    for number, behind in asked:
        if memory.judge(ExchangeDatagram(REQUEST, number, 1, behind)) is Fate.NEW:
            memory.settle(number, ANSWER, b"abc")
    assert len(memory._kept) <= MAX_SPAN
    assert memory._bytes == 3 * len(memory._kept)


def test_a_flood_of_ids_is_remembered_as_far_as_the_span() -> None:
    """A peer that never lets its oldest request end is held to the span."""
    memory = AnswerMemory()
    for number in range(5000):
        memory.judge(ExchangeDatagram(REQUEST, number, 1, min(number, MAX_SPAN - 1)))
    assert len(memory._kept) == MAX_SPAN


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    """The client gave up while the service was at work."""
    memory = AnswerMemory()
    memory.judge(ExchangeDatagram(REQUEST, 1))
    memory.judge(ExchangeDatagram(REQUEST, 2))
    assert not memory.settle(1, ANSWER, b"")
    assert memory.is_settled(1)
    assert memory.answer(1) is None
    assert not memory.is_settled(2)


def test_what_cannot_be_made_reliable_is_told() -> None:
    """Services of streams alone, conversations, and a mixin that stands behind."""

    class Streams(Echo):
        kinds = ("stream",)

    class Talks(SocketService):
        async def converse(self, session: Session) -> None:
            """Talk."""

    class Behind(Echo, ReliableAnswers):
        pass

    with pytest.raises(PluginError, match="Streams does not serve datagrams"):
        reliable(Streams)
    with pytest.raises(PluginError, match=r"a service with converse\(\) cannot be made reliable"):
        reliable(Talks)
    with pytest.raises(PluginError, match="Behind must name ReliableAnswers before its other"):
        ServiceDatagramProtocol(Behind())


def test_it_is_a_plug_in() -> None:
    """An entry point names the class that ``reliable`` made."""
    point = EntryPoint("my-thing", f"{__name__}:ReliableEcho", GROUP)
    assert Plugin("my-thing", (point,)).load() is ReliableEcho


def test_it_serves_datagrams_of_bytes_alone() -> None:
    """What the configuration may ask of it."""
    made = reliable(EchoReply)
    assert made.served_kinds() == ("datagram",)
    assert made.served_codecs() == ("bytes",)
