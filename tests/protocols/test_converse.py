"""A service written as one coroutine."""

from __future__ import annotations

from typing import Any

from conftest import Failures
from rigs import Rig, lose
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from twistedsock.errors import CloseReason, SessionClosed
from twistedsock.protocols.delivery import INBOX_BYTES
from twistedsock.service import Session, SocketService


class Talk(SocketService):
    """Answers in capitals and writes down how it ended."""

    def start(self) -> None:
        self.story: list[Any] = []
        self.gate: Deferred[None] | None = None

    async def converse(self, session: Session) -> None:
        try:
            async for message in session:
                if self.gate is not None:
                    await self.gate
                if message == b"raise":
                    raise ZeroDivisionError
                if message == b"bye":
                    session.send(b"bye")
                    return
                session.send(message.upper())
            self.story.append("peer finished")
        except SessionClosed as error:
            self.story.append(f"closed: {error.reason}")
            raise

    def closed(self, session: Session, reason: CloseReason) -> None:
        self.story.append(str(reason))


def test_a_conversation_answers_and_ends_with_its_peer() -> None:
    """The iterator gives each message and ends when the peer has finished sending."""
    rig = Rig(Talk(), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"a\nb\n")
    protocol.readConnectionLost()
    assert wire.value() == b"A\nB\n"
    assert wire.closed
    lose(protocol)
    assert rig.service.story == ["peer finished", "peer_closed"]


def test_a_conversation_that_returns_closes_the_session() -> None:
    """Returning from converse() is the service's close."""
    rig = Rig(Talk(), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"bye\nmore\n")
    assert wire.value() == b"bye\n"
    assert wire.ended
    lose(protocol)
    assert rig.service.story == ["closed"]


def test_a_lost_session_raises_in_the_iterator() -> None:
    """Any other end raises SessionClosed with its reason, and is no error of the service."""
    rig = Rig(Talk(), "line")
    protocol, _ = rig.connect()
    protocol.dataReceived(b"a\n")
    lose(protocol, ConnectionLost)
    assert rig.service.story == ["closed: peer_reset", "peer_reset"]


def test_a_raising_conversation_ends_with_service_error(logged_failures: Failures) -> None:
    """An exception out of converse() is logged and ends the session."""
    rig = Rig(Talk(), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"raise\n")
    assert wire.ended
    lose(protocol)
    logged_failures.take(ZeroDivisionError)
    assert rig.service.story == ["service_error"]


def test_a_conversation_that_works_is_not_flooded() -> None:
    """While the coroutine awaits something else, the peer is not read beyond the inbox."""
    rig = Rig(Talk())
    protocol, wire = rig.connect()
    rig.service.gate = Deferred()
    protocol.dataReceived(b"x")
    protocol.dataReceived(b"y" * (INBOX_BYTES + 1))
    assert wire.producerState == "paused"
    gate, rig.service.gate = rig.service.gate, None
    gate.callback(None)
    assert wire.producerState == "producing"
    lose(protocol)


def test_idle_conversations_time_out() -> None:
    """A conversation that waits for its peer is idle; one that works is not."""
    rig = Rig(Talk())
    protocol, wire = rig.connect()
    rig.advance(290)
    assert not wire.ended
    rig.advance(15)
    assert wire.ended
    lose(protocol)
    assert rig.service.story == ["closed: idle_timeout", "idle_timeout"]


def test_shutdown_ends_a_waiting_conversation() -> None:
    """At the daemon's stop a conversation that waits for its peer ends with `shutdown`."""
    rig = Rig(Talk(), "line")
    protocol, wire = rig.connect()
    rig.carrier.shut_down()
    assert wire.ended
    lose(protocol)
    assert rig.service.story == ["closed: shutdown", "shutdown"]


def test_shutdown_waits_for_a_working_conversation() -> None:
    """A conversation in the middle of an answer finishes it first."""
    rig = Rig(Talk(), "line")
    protocol, wire = rig.connect()
    rig.service.gate = gate = Deferred()
    protocol.dataReceived(b"a\n")
    rig.carrier.shut_down()
    assert not wire.ended
    gate.callback(None)
    assert wire.value() == b"A\n"
    assert wire.ended
    lose(protocol)
    assert rig.service.story[-1] == "shutdown"


def test_opened_comes_before_the_conversation() -> None:
    """converse() begins once an awaited opened() is done."""
    ready: Deferred[None] = Deferred()

    class Greeter(Talk):
        async def opened(self, session: Session) -> None:  # type: ignore[override]
            await ready
            session.send(b"hello")

    rig = Rig(Greeter(), "line")
    protocol, wire = rig.connect()
    protocol.dataReceived(b"a\n")
    assert wire.value() == b""
    ready.callback(None)
    assert wire.value() == b"hello\nA\n"
    lose(protocol)
