"""Services and Twisted factories on UNIX sockets of this process, and plain sockets as peers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from conftest import DEADLINE_S, until, within
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from twistedsock.addresses import Address, parse_address
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.descriptor_datagrams import DescriptorDatagramProtocol
from twistedsock.protocols.stream import ServiceFactory
from twistedsock.service import SocketService
from twistedsock.transports.binding import open_listener
from twistedsock.transports.seqpacket import SeqpacketPort
from twistedsock.transports.unix import UnixPort
from twistedsock.transports.unix_datagram import UnixDatagramPort

PORTS: dict[str, Any] = {
    "unix": UnixPort,
    "seqpacket": SeqpacketPort,
    "unixgram": UnixDatagramPort,
}
TYPES = {
    "unix": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "unixgram": socket.SOCK_DGRAM,
}


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Keeper(Protocol):
    """Keeps what it is told."""

    def connectionMade(self) -> None:
        self.data: list[bytes] = []
        self.descriptors: list[int] = []
        self.lost: Failure | None = None
        self.factory.protocols.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.data.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        for fd in self.descriptors:
            os.close(fd)


class Local:
    """A UNIX listener, as an async context: of a service, of a Twisted factory or a protocol."""

    def __init__(self, address: str | Path, what: Any = None, **more: Any) -> None:
        from twisted.internet import reactor

        self.address: Address = parse_address(str(address))
        self.socket = open_listener(self.address)
        if what is None:
            what = Factory.forProtocol(Keeper)
        if isinstance(what, Factory):
            what.noisy = False
            self.protocols: list[Any] = []
            what.protocols = self.protocols  # type: ignore[attr-defined]
        self.carrier: Any = None
        if isinstance(what, SocketService):
            what._reactor = reactor
            kind: Any = self.address.kind
            if kind == "datagram":
                takes = what.takes_descriptors
                made = DescriptorDatagramProtocol if takes else ServiceDatagramProtocol
                what = made(what, **more)
            else:
                what = ServiceFactory(what, kind=kind, **more)
            self.carrier = what.carrier
        self.what = what
        self.port = PORTS[self.address.scheme].adopt(self.socket, what, reactor)
        self.clients: list[socket.socket] = []

    def client(self, name: str | bytes | None = None, *, blocking: bool = False) -> socket.socket:
        """Return a connected client, bound to *name* where that is given."""
        client = socket.socket(socket.AF_UNIX, TYPES[self.address.scheme])
        self.clients.append(client)
        if name is not None:
            client.bind(name)
        path = self.address.path
        client.connect("\0" + path[1:] if path.startswith("@") else path)
        client.setblocking(blocking)
        if blocking:
            client.settimeout(DEADLINE_S)
        return client

    async def __aenter__(self) -> Local:
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        if self.carrier is not None:
            await within(self.port.stopListening())
            self.carrier.cut_off()
            await within(self.carrier.when_empty())
        elif self.address.scheme != "unixgram":
            for protocol in self.protocols:
                if protocol.lost is None:
                    protocol.transport.abortConnection()
            await until(lambda: all(protocol.lost for protocol in self.protocols))
            await within(self.port.stopListening())
        else:
            await within(self.port.stopListening())


async def heard(client: socket.socket, size: int = 65536) -> bytes:
    """Return what *client*, which does not block, receives next."""
    found: list[bytes] = []

    def has_come() -> bool:
        try:
            found.append(client.recv(size))
        except BlockingIOError:
            return False
        return True

    await until(has_come)
    return found[0]


async def say(client: socket.socket, data: bytes) -> None:
    """Send *data* whole by *client*, which does not block, as soon as there is room."""

    def has_gone() -> bool:
        try:
            client.send(data)
        except BlockingIOError:
            return False
        return True

    await until(has_gone)
