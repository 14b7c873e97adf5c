"""Which port and which protocol serve which kind of address: where transports meet services."""

from __future__ import annotations

import socket
from typing import Any

from twistedsock.addresses import Address
from twistedsock.host.plan import ListenerPlan, ServicePlan
from twistedsock.protocols.carrier import Carrier
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.descriptor_datagrams import DescriptorDatagramProtocol
from twistedsock.protocols.stream import ServiceFactory
from twistedsock.transports.datagram import DatagramPort
from twistedsock.transports.packet import PacketPort
from twistedsock.transports.raw import RawPort
from twistedsock.transports.seqpacket import SeqpacketPort
from twistedsock.transports.stream import StreamPort
from twistedsock.transports.unix import UnixPort
from twistedsock.transports.unix_datagram import UnixDatagramPort

ACCEPTING: dict[str, type[StreamPort]] = {
    "tcp": StreamPort,
    "unix": UnixPort,
    "seqpacket": SeqpacketPort,
}
RECEIVING: dict[str, Any] = {
    "udp": DatagramPort,
    "unixgram": UnixDatagramPort,
    "raw": RawPort,
    "packet": PacketPort,
}


class Ports:
    """Makes the ports of one service; those that accept share a factory for each kind."""

    def __init__(self, plan: ServicePlan, carrier: Carrier, reactor: Any) -> None:
        self._plan, self._carrier, self._reactor = plan, carrier, reactor
        self._factories: dict[str, ServiceFactory] = {}

    def adopt(self, address: Address, sock: socket.socket, plan: ListenerPlan) -> Any:
        """Return a port that serves on *sock*, which is bound to *address*; it is yet to start."""
        scheme, kind = address.scheme, address.kind
        if scheme in RECEIVING:
            takes = scheme == "unixgram" and self._carrier.service.takes_descriptors
            made = DescriptorDatagramProtocol if takes else ServiceDatagramProtocol
            protocol = made(
                self._carrier,
                any_source_port=self._plan.any_source_port,
                groups=plan.groups,
                kind=kind,
            )
            return RECEIVING[scheme].adopt(sock, protocol, self._reactor)
        factory = self._factories.get(kind)
        if factory is None:
            is_stream = kind == "stream"
            factory = self._factories[kind] = ServiceFactory(
                self._carrier,
                framing=self._plan.framing,
                kind="stream" if is_stream else "seqpacket",
            )
        port = ACCEPTING[scheme].adopt(sock, factory, self._reactor, plan.options)
        self._carrier.gates.append(port)
        return port
