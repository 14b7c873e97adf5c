"""Twisted factories that a plug-in handed over: our limits, deadlines and words."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Failures
from rigs import Rig, Wire, lose
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo
from zope.interface import implementer

from twistedsock.errors import CloseReason
from twistedsock.policy.limits import Limits
from twistedsock.service import Session, SocketService


def rig_of(protocol: Any, **more: Any) -> Any:
    class Foreign(SocketService):
        """Hands over a factory."""

        def __init__(self) -> None:
            super().__init__()
            self.reasons: list[Any] = []

        def stream_factory(self) -> Any:
            factory = Factory.forProtocol(protocol)
            factory.noisy = False
            return factory

        def closed(self, session: Session, reason: CloseReason) -> None:
            assert session.reason == reason
            self.reasons.append(str(reason))
            session.close()
            session.abort()
            assert not session.send(b"too late")

    return Rig(Foreign(), **more)


class Raises(Protocol):
    """Fails as soon as it is connected."""

    def connectionMade(self) -> None:
        raise ZeroDivisionError


def test_one_that_raises_when_connected_gives_its_place_back(logged_failures: Failures) -> None:
    """An exception in connectionMade ends that connection, and nothing of it is kept."""
    rig = rig_of(Raises)
    protocol, wire = rig.connect()
    assert wire.aborted
    lose(protocol)
    assert rig.service.reasons == ["service_error"]
    assert rig.carrier.connections == 0
    logged_failures.take(ZeroDivisionError)


@pytest.mark.parametrize("hook", ["readConnectionLost", "writeConnectionLost"])
def test_half_close_callbacks_may_raise(hook: str, logged_failures: Failures) -> None:
    """A failure there is told as the service's."""

    @implementer(IHalfCloseableProtocol)
    class Half(Protocol):
        """Fails at a half-close."""

        def readConnectionLost(self) -> None:
            raise ZeroDivisionError

        writeConnectionLost = readConnectionLost

    rig = rig_of(Half)
    protocol, wire = rig.connect()
    getattr(protocol, hook)()
    assert wire.aborted
    lose(protocol)
    assert rig.service.reasons == ["service_error"]
    logged_failures.take(ZeroDivisionError)


def test_who_does_not_read_is_not_read_and_then_cut_off() -> None:
    """A protocol that writes without looking holds no more than the high-water mark."""
    rig = rig_of(Echo, limits=Limits(write_timeout=2.0))
    protocol, wire = rig.connect()
    protocol.dataReceived(b"x")
    wire.producer.pauseProducing()
    assert wire.producerState == "paused"
    protocol.resumeProducing()  # the inner protocol cannot lift it
    assert wire.producerState == "paused"
    wire.producer.resumeProducing()
    assert wire.producerState == "producing"
    wire.producer.pauseProducing()
    rig.advance(3)
    assert wire.aborted
    lose(protocol)
    assert rig.service.reasons == ["write_timeout"]


def test_its_own_producer_takes_the_place_of_ours() -> None:
    """registerProducer works as on any transport, and closing waits for none of ours."""
    rig = rig_of(Echo)
    protocol, wire = rig.connect()
    own = object()
    protocol.registerProducer(own, True)
    assert wire.producer is own
    protocol.unregisterProducer()
    assert wire.producer is not None
    protocol.loseConnection()
    assert wire.producer is None
    assert wire.closed
    lose(protocol)
    assert rig.service.reasons == ["closed"]


def test_nothing_is_timed_after_the_end() -> None:
    """close() in closed() leaves no timer."""
    rig = rig_of(Echo)
    protocol, _ = rig.connect()
    lose(protocol)
    rig.factory.doStop()
    assert rig.service.reasons == ["peer_closed"]
    assert not rig.clock.getDelayedCalls()


def test_wire_is_what_a_protocol_sees() -> None:
    """Bytes go through as they are, and are counted."""
    rig = rig_of(Echo)
    protocol, wire = rig.connect()
    protocol.dataReceived(b"hello")
    assert isinstance(wire, Wire)
    assert wire.value() == b"hello"
    assert (protocol.session.bytes_in, protocol.session.bytes_out) == (5, 5)
    lose(protocol)


def test_a_factory_that_exits_turns_that_newcomer_away(logged_failures: Failures) -> None:
    """sys.exit() in buildProtocol gives the place back, as any exception does."""

    def leave(addr: object) -> None:
        raise SystemExit(3)

    rig = rig_of(Echo)
    rig.factory._foreign.buildProtocol = leave
    assert rig.refused()
    assert rig.carrier.connections == 0
    logged_failures.take(SystemExit)
