"""A service carried over streams in memory: no socket, and a clock that the test turns."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twistedsock.protocols.stream import ServiceFactory
from twistedsock.service import SocketService

LOCAL = IPv4Address("TCP", "127.0.0.1", 8888)


class Wire(StringTransport):
    """A transport in memory that does what TCP does at half-close and abort."""

    def __init__(self, host: str = "127.0.0.1", port: int = 50000) -> None:
        super().__init__(LOCAL, IPv4Address("TCP", host, port))
        self.ended = self.aborted = self.closed = False

    def loseWriteConnection(self) -> None:
        self.ended = True

    def loseConnection(self) -> None:
        self.closed = True

    def abortConnection(self) -> None:
        self.aborted = True


class Rig:
    """A service behind a factory, and clients of it."""

    def __init__(self, service: SocketService, framing: str = "chunk", **more: Any) -> None:
        self.clock = Clock()
        service._reactor = self.clock
        self.service = service
        self.factory = ServiceFactory(service, framing=framing, **more)
        self.carrier = self.factory.carrier
        self.factory.doStart()

    def connect(self, host: str = "127.0.0.1", wire: Wire | None = None) -> tuple[Any, Wire]:
        wire = wire or Wire(host)
        protocol = self.factory.buildProtocol(wire.getPeer())
        assert protocol is not None
        protocol.makeConnection(wire)
        return protocol, wire

    def refused(self, host: str = "127.0.0.1") -> bool:
        return self.factory.buildProtocol(IPv4Address("TCP", host, 1)) is None

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)


def lose(protocol: Any, reason: type[Exception] = ConnectionDone) -> None:
    protocol.connectionLost(Failure(reason()))
