"""UNIX datagrams of services that take descriptors, which others never pay for."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from twistedsock.protocols.datagram import Peer, ServiceDatagramProtocol
from twistedsock.service import Accompanied, Metadata

MAX_HELD_DESCRIPTORS = 1024  # of all peers, of messages that the service has not handled yet


class DescriptorDatagramProtocol(ServiceDatagramProtocol):
    """Serves a service that takes descriptors on one UNIX datagram listener."""

    def startProtocol(self) -> None:
        """The listener is open: descriptors are asked for."""
        super().startProtocol()
        self._held: WeakSet[Accompanied] = WeakSet()
        transport: Any = self.transport
        transport.takeDescriptors()

    def packetReceived(self, data: bytes, addr: Peer, metadata: Metadata) -> None:
        """Serve a datagram; close what is not taken of its descriptors once it is handled."""
        if not isinstance(metadata, Accompanied):
            super().packetReceived(data, addr, metadata)
            return
        held = sum(len(each.descriptors) for each in self._held)
        if held + len(metadata.descriptors) > MAX_HELD_DESCRIPTORS:
            self.carrier.note("descriptors_dropped", addr[0])
            metadata.close()
        self._held.add(metadata)
        super().packetReceived(data, addr, metadata)
        session = self.peers.use(addr)
        if session is None or not session._held:
            metadata.close()
