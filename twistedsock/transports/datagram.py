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
from functools import lru_cache, partial
from typing import Any

from twisted.internet import error, udp
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python import log

from twistedsock.addresses import is_numeric, unmap
from twistedsock.service import NO_METADATA, Metadata
from twistedsock.transports import ancillary as beside
from twistedsock.transports.ancillary import IP_PKTINFO, IPV6_PKTINFO, IPV6_RECVPKTINFO
from twistedsock.transports.connection import inet_address
from twistedsock.transports.hotloop import Listener
from twistedsock.transports.unsent import PASSING, Send, Unsent

DATAGRAMS_A_TURN = 64  # so that a flood does not starve the other descriptors
MAX_SOUND_HOSTS = 4096  # remembered as checked
MAX_DATAGRAM_BYTES = 65_535  # above any UDP payload, so that nothing is cut

_IN_PKTINFO = struct.Struct("@i4s4s")  # ipi_ifindex, ipi_spec_dst, ipi_addr (ip(7))
_IN6_PKTINFO = struct.Struct("@16sI")  # ipi6_addr, ipi6_ifindex (RFC 3542 section 6.1)
_ANCILLARY_BYTES = socket.CMSG_SPACE(_IN_PKTINFO.size) + socket.CMSG_SPACE(_IN6_PKTINFO.size)


class DatagramPort(Listener, udp.Port):
    """A listener on a socket that is bound already; owns and closes it.

    The protocol gets ``packetReceived(data, addr, metadata)`` where it has that, else
    ``datagramReceived(data, addr)``. IPv4 peers of a dual-stack socket appear as plain IPv4. One
    that has ``wants_metadata`` true is told all of the metadata; others where each was sent to,
    and that only of a wildcard. ``datagramRefused(errno, host)`` is called, where it has that,
    for what became of datagrams that were sent, and ``datagramDropped()`` for each that was kept
    while a buffer was full and could not be sent after all.

    Made like Twisted's own, or by ``adopt`` on a socket that is bound already.
    """

    _is_v6 = False
    _tells_destination = False
    _wants_metadata = False
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
        self._receive: Any = self._receive_with_destination
        self._sound: set[str] = set()  # hosts that have been checked
        self.answer: Any = self.write
        self.unsent = Unsent(self.reactor, self._tell_dropped)
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
        if getattr(self.protocol, "wants_metadata", False):
            self._wants_metadata = True
        sock: Any = self._preexistingSocket
        self._preexistingSocket = None
        self.socket = sock
        self.fileno = sock.fileno
        self._opened(sock)
        self.connected = 1
        self._connectToProtocol()

    def _opened(self, sock: Any) -> None:
        """Learn what *sock* is, and ask it for what is to be told of each datagram."""
        self._is_v6 = sock.family == socket.AF_INET6
        if self._wants_metadata:
            beside.ask(sock)
            self._tells_destination = True
            self._receive = self._receive_with_metadata
        elif self._tells_destination:
            if self._is_v6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            # Also on a dual-stack socket: only this tells a broadcast.
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._realPortNumber = sock.getsockname()[1]
        # Sends to an address that a datagram came from, which need not be checked: without a
        # detour where addresses are the kernel's own.
        self.answer = self._answer_unmapped if self._is_v6 else sock.sendto

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
                    data, addr, metadata = self._receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as cause:
                # An ICMP error, or memory is short, or the interface is down: never the end of
                # the listener.
                self._tell_errors(cause)
                if not self.connected:
                    return
                continue
            try:
                deliver(data, addr, metadata)
            except BaseException:  # a protocol is called: this datagram alone is lost
                self._log.failure("a datagram could not be served")
            if not self.connected:
                return

    def hungUp(self) -> None:
        """Take the errors of what was sent; reading takes the socket's own."""
        self._tell_errors(None)
        if self.connected:
            self.doRead()

    def _tell_errors(self, cause: OSError | None) -> None:
        """Tell the protocol what is in the queue of errors; if nothing is, of *cause*."""
        errors = list(beside.queued_errors(self.socket))
        if not errors and cause is not None:
            errors = [(cause.errno or 0, "")]
        for number, host in errors:
            try:
                if self._connectedAddr and number == errno.ECONNREFUSED:
                    self.protocol.connectionRefused()
                elif (tell := getattr(self.protocol, "datagramRefused", None)) is not None:
                    tell(number, host)
            except BaseException:  # a protocol is called
                self._log.failure("an error could not be told")

    def _tell_dropped(self) -> None:
        tell = getattr(self.protocol, "datagramDropped", None)
        if tell is not None:
            tell()

    def _receive_with_metadata(self) -> tuple[bytes, tuple[str, int], Metadata]:
        data, ancillary, flags, name = self.socket.recvmsg(
            self.maxPacketSize, beside.ANCILLARY_BYTES
        )
        return data, _peer(name), Metadata(**beside.told_by(ancillary, flags))

    def _receive_with_destination(self) -> tuple[bytes, tuple[str, int], Metadata]:
        data, ancillary, flags, name = self.socket.recvmsg(self.maxPacketSize, _ANCILLARY_BYTES)
        return data, _peer(name), _metadata(ancillary, bool(flags & socket.MSG_TRUNC))

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send *datagram* to *addr*, or to the connected peer.

        Raises:
            InvalidAddressError: The host is a name, or of the other IP version.
            MessageLengthError: It is too long.
            OSError: The kernel refused it, or more than is kept waits for room in its buffer.
        """
        try:
            if addr is None or self._connectedAddr:
                self.socket.send(datagram)
            else:
                if addr[0] not in self._sound:
                    self._check_host(addr[0])
                self.socket.sendto(datagram, self._name(addr))
        except OSError as cause:
            if cause.errno == errno.ECONNREFUSED:
                self._tell_errors(cause)
                if not self.connected:
                    return
            if addr is None or self._connectedAddr:
                send: Send = partial(self.socket.send, bytes(datagram))
            else:
                send = partial(self.socket.sendto, bytes(datagram), self._name(addr))
            self._rescue(cause, send, addr, len(datagram))

    def _answer_unmapped(self, datagram: bytes, addr: tuple[str, int]) -> int:
        return int(self.socket.sendto(datagram, self._name(addr)))

    def answerAgain(self, cause: Exception, datagram: bytes, addr: tuple[str, int]) -> bool:
        """Return whether what ``answer`` raised *cause* for was sent, or kept, after all."""
        if self.answer not in (self.socket.sendto, self._answer_unmapped):
            return False  # has tried it already
        if not isinstance(cause, OSError):
            return False
        send = partial(self.socket.sendto, bytes(datagram), self._name(addr))
        try:
            self._rescue(cause, send, addr, len(datagram))
        except (OSError, error.MessageLengthError):
            return False
        return True

    def _rescue(self, cause: OSError, send: Send, peer: Any, size: int) -> None:
        """Keep a datagram that a full buffer does not take; try others once more.

        An ICMP error of an earlier datagram, to whomever, is told by the next call; and that one
        sends nothing.
        """
        if cause.errno in PASSING:
            if not self.unsent.keep(peer, size, send):
                raise cause
            return
        if cause.errno == errno.EMSGSIZE:
            raise translated(cause) from cause
        try:
            send()
        except OSError as again:
            raise translated(again) from cause

    def writeFrom(self, datagram: bytes, addr: tuple[str, int], source: str) -> None:
        """Send *datagram* to *addr* from the local address *source*.

        Raises:
            MessageLengthError: It is too long.
            OSError: The kernel refused it, or more than is kept waits for room in its buffer.
        """
        control = [_from(source, addr[0].partition("%")[2])]
        try:
            self.socket.sendmsg([datagram], control, 0, self._name(addr))
        except OSError as cause:
            send = partial(self.socket.sendmsg, [bytes(datagram)], control, 0, self._name(addr))
            self._rescue(cause, send, addr, len(datagram))

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
        self.unsent.clear()
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


def translated(cause: OSError) -> Exception:
    """Return Twisted's error for a datagram that is too long; else *cause* itself."""
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
