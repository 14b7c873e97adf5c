"""Datagram listeners.

A Twisted UDP port, with what the stock one lacks: whole datagrams, the address each was sent to,
answers from that address, bounded batches, and errors that end nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from contextlib import suppress
from functools import lru_cache
from typing import Any

from twisted.internet import error, udp
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python import log

from twistedsock.addresses import is_numeric, unmap
from twistedsock.service import NO_METADATA, Metadata
from twistedsock.transports.connection import inet_address
from twistedsock.transports.hotloop import Listener

DATAGRAMS_A_TURN = 64  # so that a flood does not starve the other descriptors
MAX_SOUND_HOSTS = 4096  # remembered as checked
MAX_DATAGRAM_BYTES = 65_535  # above any UDP payload, so that nothing is cut

IP_PKTINFO = 8  # Python has the constants from 3.12 and 3.13 on
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50
_IN_PKTINFO = struct.Struct("@i4s4s")  # ipi_ifindex, ipi_spec_dst, ipi_addr (ip(7))
_IN6_PKTINFO = struct.Struct("@16sI")  # ipi6_addr, ipi6_ifindex (RFC 3542 section 6.1)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_IN_PKTINFO.size) + socket.CMSG_SPACE(_IN6_PKTINFO.size)


class DatagramPort(Listener, udp.Port):
    """A listener on a socket that is bound already; owns and closes it.

    The protocol gets ``packetReceived(data, addr, metadata)`` where it has that, else
    ``datagramReceived(data, addr)``. IPv4 peers of a dual-stack socket appear as plain IPv4.

    Made like Twisted's own, or by ``adopt`` on a socket that is bound already.
    """

    _is_v6 = False
    _tells_destination = False
    _quiet = False  # whether the owner says who listens, rather than this

    def __init__(
        self,
        port: Any,
        proto: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        reactor: Any = None,
    ) -> None:
        super().__init__(port, proto, interface, maxPacketSize, reactor)
        self.reactor: Any = self.reactor  # Twisted declares too little of it
        self._deliver: Any = self._deliver_plain
        self._sound: set[str] = set()  # hosts that have been checked
        self.answer: Any = self.write
        self._log = Logger(namespace="twistedsock")

    @classmethod
    def adopt(cls, sock: socket.socket, protocol: Any, reactor: Any) -> DatagramPort:
        """Return a port on *sock*, which is bound and non-blocking, and may be connected.

        The port owns the socket from here on. Call ``startListening`` to read.
        """
        host = sock.getsockname()[0]
        port = cls(None, protocol, host, MAX_DATAGRAM_BYTES, reactor)
        port._preexistingSocket = sock  # type: ignore[assignment]  # Twisted declares None
        port._quiet = True
        with suppress(OSError):  # most are not connected
            port._connectedAddr = sock.getpeername()
        # Only a wildcard socket hears datagrams to several addresses, or to none of ours.
        port._tells_destination = host in ("::", "0.0.0.0") and hasattr(sock, "recvmsg")
        return port

    def startListening(self) -> None:
        """Connect the protocol and begin to read."""
        packet_received = getattr(self.protocol, "packetReceived", None)
        self._deliver = packet_received if callable(packet_received) else self._deliver_plain
        if not self._quiet:
            super().startListening()  # makes and binds a socket if need be; tells who listens
            return
        sock: Any = self._preexistingSocket
        self._preexistingSocket = None
        self._is_v6 = sock.family == socket.AF_INET6
        if self._tells_destination:
            if self._is_v6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            # Also on a dual-stack socket: only this tells a broadcast.
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.socket = sock
        self.fileno = sock.fileno
        self._realPortNumber = sock.getsockname()[1]
        # Sends to an address that a datagram came from, which need not be checked: without a
        # detour where addresses are the kernel's own.
        self.answer = self._answer_unmapped if self._is_v6 else sock.sendto
        self.connected = 1
        self._connectToProtocol()

    def _deliver_plain(self, data: bytes, addr: tuple[str, int], _: Metadata) -> None:
        # Protocols that know only Twisted get its log context with each datagram, too.
        log.callWithLogger(self, self.protocol.datagramReceived, data, addr)

    def doRead(self) -> None:
        """Read what has come, within bounds."""
        receive, size, deliver = self.socket.recvfrom, self.maxPacketSize, self._deliver
        is_plain = not self._tells_destination
        metadata = NO_METADATA
        for _ in range(DATAGRAMS_A_TURN):
            try:
                if is_plain:
                    data, addr = receive(size)
                    if len(addr) != 2:
                        addr = _peer(addr)
                else:
                    data, addr, metadata = self._receive_with_destination()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as cause:
                # An ICMP error, or memory is short: told where it concerns a connected peer,
                # and never the end of the listener.
                if self._connectedAddr and cause.errno == errno.ECONNREFUSED:
                    self.protocol.connectionRefused()
                continue
            try:
                deliver(data, addr, metadata)
            except BaseException:  # a protocol is called: this datagram alone is lost
                self._log.failure("a datagram could not be served")
            if not self.connected:
                return

    hungUp = doRead  # reading takes the error from the socket

    def _receive_with_destination(self) -> tuple[bytes, tuple[str, int], Metadata]:
        data, ancillary, flags, name = self.socket.recvmsg(self.maxPacketSize, _ANCILLARY_BYTES)
        return data, _peer(name), _metadata(ancillary, bool(flags & socket.MSG_TRUNC))

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send *datagram* to *addr*, or to the connected peer.

        Raises:
            InvalidAddressError: The host is a name, or of the other IP version.
            MessageLengthError: It is too long.
            OSError: The kernel refused it, for one because its buffer is full.
        """
        try:
            if addr is None or self._connectedAddr:
                self.socket.send(datagram)
            else:
                if addr[0] not in self._sound:
                    self._check_host(addr[0])
                self.socket.sendto(datagram, self._name(addr))
        except ConnectionRefusedError:
            # What an ICMP error told of an earlier datagram; this one may fare better.
            if self._connectedAddr:
                self.protocol.connectionRefused()
        except OSError as cause:
            raise _translated(cause) from cause

    def _answer_unmapped(self, datagram: bytes, addr: tuple[str, int]) -> int:
        return int(self.socket.sendto(datagram, self._name(addr)))

    def writeFrom(self, datagram: bytes, addr: tuple[str, int], source: str) -> None:
        """Send *datagram* to *addr* from the local address *source*.

        Raises:
            MessageLengthError: It is too long.
            OSError: The kernel refused it.
        """
        try:
            self.socket.sendmsg(
                [datagram], [_from(source, addr[0].partition("%")[2])], 0, self._name(addr)
            )
        except OSError as cause:
            raise _translated(cause) from cause

    def _check_host(self, host: str) -> None:
        """Refuse what is no address for this socket: a name would block while it resolves."""
        if host != "<broadcast>":
            if not is_numeric(host):
                raise error.InvalidAddressError(host, "must be an IP address, not a name")
            if ":" in host and self.addressFamily == socket.AF_INET:
                raise error.InvalidAddressError(host, "is IPv6, and the listener is IPv4")
        if ":" not in host and self.addressFamily == socket.AF_INET6 and not self._is_v6:
            raise error.InvalidAddressError(host, "is IPv4, and the listener is IPv6")
        if len(self._sound) >= MAX_SOUND_HOSTS:
            self._sound.clear()
        self._sound.add(host)

    def _name(self, addr: tuple[str, int]) -> tuple[str, int]:
        if self._is_v6 and ":" not in addr[0]:
            return (f"::ffff:{addr[0]}", addr[1])
        return addr

    def getHost(self) -> IAddress:
        """Return the address that is listened on."""
        return inet_address("UDP", self.socket.getsockname())

    def connectionLost(self, reason: object = None) -> None:
        """Close the socket and fire what ``stopListening`` returned."""
        if not self._quiet:
            log.msg(f"(UDP Port {self._realPortNumber} Closed)")
        self.connected = 0
        self.disconnected = 1
        self.stopReading()
        self._realPortNumber = None
        self.protocol.doStop()
        self.socket.close()
        del self.socket
        del self.fileno
        self.answer = self.write
        waiting = self.__dict__.pop("d", None)  # set by udp.Port.stopListening
        if waiting is not None:
            waiting.callback(None)


def _translated(cause: OSError) -> Exception:
    if cause.errno == errno.EMSGSIZE:
        return error.MessageLengthError("message too long")
    return cause


def _peer(name: tuple[Any, ...]) -> tuple[str, int]:
    if len(name) == 2:
        return name
    if name[3]:  # a link-local peer means nothing without its scope
        return (f"{name[0]}%{name[3]}", name[1])
    return (unmap(name[0]), name[1])


def _metadata(ancillary: list[tuple[int, int, bytes]], truncated: bool) -> Metadata:
    destination, interface, broadcast = None, None, None
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            interface, specific, header = _IN_PKTINFO.unpack_from(data)
            destination = socket.inet_ntoa(header)
            # The kernel's own choice of address to answer from differs from the one in the
            # header only where that is a group or a broadcast.
            # It has chosen none for what came before the option was set.
            broadcast = specific not in (header, bytes(4)) and not 224 <= header[0] <= 239
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO and destination is None:
            raw, interface = _IN6_PKTINFO.unpack_from(data)
            destination = unmap(socket.inet_ntop(socket.AF_INET6, raw))
    return Metadata(
        destination=destination, interface=interface, broadcast=broadcast, truncated=truncated
    )


@lru_cache(maxsize=256)
def _from(source: str, scope: str = "") -> tuple[int, int, bytes]:
    """Return the control message that makes the kernel send from *source*.

    Args:
        source: A numeric address of ours.
        scope: The index of the interface that a link-local peer is behind: a link-local
            *source* is none without it.
    """
    if ":" in source:
        packed = ipaddress.IPv6Address(source.partition("%")[0]).packed
        interface = int(scope) if scope.isdigit() else 0
        return (socket.IPPROTO_IPV6, IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, interface))
    packed = socket.inet_aton(source)
    return (socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, packed, bytes(4)))
