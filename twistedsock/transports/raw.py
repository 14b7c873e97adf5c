"""Raw IP listeners: whole packets of one protocol, with what their headers say.

The message is what follows the IP header. The header itself is ``metadata.header`` for IPv4; IPv6
never gives it, and its fields come beside the packet (raw(7), RFC 3542 section 3). Nothing that a
peer sends closes the listener: an ICMP error concerns one packet.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from twistedsock.addresses import unmap
from twistedsock.service import Metadata
from twistedsock.transports.ancillary import ANCILLARY_BYTES, ask, told_by
from twistedsock.transports.datagram import DatagramPort
from twistedsock.transports.unsent import Send
from twistedsock.wire.ipv4 import header_bytes

MAX_PACKET_BYTES = 65_535


@implementer(IAddress)
@dataclass(frozen=True)
class RawName:
    """Where a raw listener listens: its address and its IP protocol number, as host and port."""

    host: str
    port: int
    scheme: str = "raw"


class RawPort(DatagramPort):
    """A listener on a raw socket; peers are ``(host, 0)``."""

    _buffer: memoryview

    @classmethod
    def adopt(cls, sock: socket.socket, protocol: Any, reactor: Any) -> RawPort:
        """Return a port on *sock*, which is raw and non-blocking, and may be bound or connected.

        The port owns the socket from here on. Call ``startListening`` to read.
        """
        port = cls(None, protocol, sock.getsockname()[0], MAX_PACKET_BYTES, reactor)
        port._preexistingSocket = sock  # type: ignore[assignment]  # Twisted declares None
        port._quiet = port._tells_destination = True
        try:
            port._connectedAddr = sock.getpeername()
        except OSError:
            port._connectedAddr = None
        port._buffer = memoryview(bytearray(MAX_PACKET_BYTES))
        return port

    def _opened(self, sock: Any) -> None:
        self._realPortNumber = sock.proto
        self._is_v6 = sock.family == socket.AF_INET6
        self.answer = self.write
        ask(sock)

    def _receive_with_destination(self) -> tuple[bytes, tuple[str, int], Metadata]:
        size, ancillary, flags, name = self.socket.recvmsg_into([self._buffer], ANCILLARY_BYTES)
        packet = bytes(self._buffer[:size])
        host = f"{name[0]}%{name[3]}" if self._is_v6 and name[3] else name[0]
        told = told_by(ancillary, flags)
        if not self._is_v6:
            packet = _split(told, packet)
        return packet, (unmap(host), 0), Metadata(**told)

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send *datagram* to *addr*, or to the connected peer; keep it while the buffer is full.

        Without IP_HDRINCL it follows a header of the kernel's making; with it, it brings its own.

        Raises:
            InvalidAddressError: The host is a name, or of the other IP version.
            MessageLengthError: It is too long.
            OSError: The kernel refused it, or more waits than is kept.
        """
        datagram = bytes(datagram)  # the caller's own buffer may change
        if addr is None or self._connectedAddr:
            self._send(partial(self.socket.send, datagram), None, len(datagram))
            return
        if addr[0] not in self._sound:
            self._check_host(addr[0])
        send = partial(self.socket.sendto, datagram, (addr[0], 0))
        self._send(send, addr[0], len(datagram))

    def _send(self, send: Send, peer: str | None, size: int) -> None:
        """Send, or keep what a full buffer does not take; nothing overtakes what is kept."""
        if self.unsent.holds(peer) and self.unsent.keep(peer, size, send):
            return
        try:
            send()
        except OSError as cause:
            self._rescue(cause, send, peer, size)

    def writeFrom(self, datagram: bytes, addr: tuple[str, int], source: str) -> None:
        """Send *datagram* to *addr* from the local address *source*; see ``write``."""
        if self._is_v6 or not self._brings_header:
            super().writeFrom(datagram, (addr[0], 0), source)
        else:
            self.write(datagram, addr)

    @property
    def _brings_header(self) -> bool:
        return bool(self.socket.getsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL))

    def getHost(self) -> RawName:
        """Return the address that is listened on, and the protocol's number."""
        return RawName(self.socket.getsockname()[0], self.socket.proto)


def _split(told: dict[str, Any], packet: bytes) -> bytes:
    """Take the IPv4 header off *packet*, and add to *told* what it says (RFC 791 section 3.1)."""
    length = header_bytes(packet)
    if not length:
        return packet
    told["header"] = packet[:length]
    told["dscp"], told["ttl_hops"] = packet[1] >> 2, packet[8]
    told["destination"] = socket.inet_ntoa(packet[16:20])
    return packet[length:]
