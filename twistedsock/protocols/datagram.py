"""Datagrams: the Twisted DatagramProtocol that carries a service.

It serves under our transports, which tell where each datagram was sent to, and under stock ones
(``reactor.listenUDP(8888, ServiceDatagramProtocol(EchoReply()))``).
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from twistedsock.addresses import Credentials, FiveTuple, Kind, unmap
from twistedsock.errors import CloseReason, CodecError, PluginError
from twistedsock.policy.access import AccessList
from twistedsock.policy.guard import AMPLIFICATION, is_unicast
from twistedsock.policy.limits import Limits
from twistedsock.policy.peers import PeerTable
from twistedsock.protocols.carrier import Carrier, as_carrier
from twistedsock.protocols.delivery import INBOX_BYTES, ServedSession
from twistedsock.protocols.origins import (
    Origin,
    Origins,
    PacketOrigins,
    RawOrigins,
    UdpOrigins,
    UnixOrigins,
)
from twistedsock.protocols.twisted_names import host_and_port, scheme_of
from twistedsock.service import NO_METADATA, Metadata, SocketService

MAX_DATAGRAM_BYTES = 65_535  # above any UDP payload, so that nothing is cut
Peer = tuple[str, int]  # numeric host and port; longer with the scope of a link-local peer
# The word for what became of a datagram that was sent; others are "unreachable".
REFUSALS = {
    errno.ECONNREFUSED: "refused_by_peer",
    errno.EMSGSIZE: "send_too_long",
    errno.ENETDOWN: "interface_down",
    errno.ENODEV: "interface_down",
    errno.ENOBUFS: "receive_failed",
    errno.ENOMEM: "receive_failed",
}
NEVER = -(2**62)  # the credit of a session that may not send, whatever it receives


class DatagramSession(ServedSession):
    """A datagram peer that is remembered for a while. Services see it as a Session."""

    __slots__ = (
        "_addr",
        "_answer",
        "_credit",
        "_headers",
        "_is_late",
        "_key",
        "_muted",
        "_protocol",
        "_reply_from",
        "_source",
    )

    transport: ClassVar[Kind] = "datagram"

    def __init__(
        self,
        protocol: ServiceDatagramProtocol,
        five_tuple: FiveTuple,
        addr: Peer,
        key: object,
        reply_from: str | None,
        origin: Origin,
    ) -> None:
        super().__init__(protocol.carrier, five_tuple)
        self._protocol = protocol
        self._is_late = False
        self._addr = addr
        self._key = key
        self._reply_from = reply_from if protocol.answer_from is not None else None
        self._answer: Any = protocol.answer if self._reply_from is None else protocol.answer_from
        self._source = origin.source
        self._headers = origin.overhead
        self._muted = origin.muted
        # Bytes, headers counted, that may be sent; None: proven.
        self._credit: int | None = None if origin.is_known else 0
        if origin.muted is not None:
            self._credit = NEVER

    @property
    def credentials(self) -> Credentials | None:
        """Who sent the message last handed over, over a UNIX socket; None for others."""
        return self.metadata.credentials

    @property
    def budget(self) -> int | None:
        """The largest message, in bytes, that may be sent now; None once the peer is proven."""
        return None if self._credit is None else max(0, self._credit - self._headers)

    def prove(self) -> None:
        """Lift the budget: the protocol knows that the peer is really there."""
        if self._muted is None:
            self._credit = None
            self._protocol.peers.prove(self._key)

    def send(self, message: Any) -> bool:
        """Send *message* as one datagram; False, counted, where it is dropped."""
        if self._held and (self._closing or self._lost):
            self.dropped += 1
            return False
        encode = self._carrier.encode
        if encode is not None:
            message = encode(message)
        size = len(message)
        credit = self._credit
        if credit is not None:
            credit -= size + self._headers
            if credit < 0:
                self.dropped += 1
                self._carrier.note(
                    self._muted if self._muted is not None else "over_budget", self.peer
                )
                return False
            self._credit = credit
        answer = self._answer
        try:
            if self._reply_from is None:
                answer(message, self._addr)
            else:
                answer(message, self._addr, self._reply_from)
        except (OSError, MessageLengthError) as error:
            if self._reply_from is None and self._protocol.again(error, message, self._addr):
                self.bytes_out += size
                self.messages_out += 1
                return True
            # A full buffer, no route, a firewall: datagrams may be lost, and the peer asks again.
            is_long = isinstance(error, MessageLengthError) or error.errno == errno.EMSGSIZE
            self._carrier.note("send_too_long" if is_long else "send_failed", self.peer)
            self.dropped += 1
            return False
        self.bytes_out += size
        self.messages_out += 1
        return True

    def send_with_descriptors(self, message: Any, descriptors: Sequence[int]) -> bool:
        """Send *message* with copies of *descriptors*; see ``Session``."""
        carry = getattr(self._protocol.transport, "writeWithDescriptors", None)
        if carry is None:
            return super().send_with_descriptors(message, descriptors)
        plain, self._answer = self._answer, partial(carry, descriptors)
        try:
            return self.send(message)
        finally:
            self._answer = plain

    def abort(self) -> None:
        """Forget the peer."""
        self.close()

    def _finish(self, reason: CloseReason) -> None:
        if self._closing or self._lost:
            return
        self._stop_delivery(reason)
        self._protocol.peers.remove(self._key, self._source)
        # closed() is never called from inside a call on the session.
        self._carrier.reactor.callLater(0, self._transport_lost, reason)

    def _transport_lost(self, reason: CloseReason) -> None:
        super()._transport_lost(reason)
        if not self._over:  # forgotten, but its service is still at work
            self._is_late = True
            self._protocol.late += 1

    def _conclude(self) -> None:
        if self._is_late and not self._over:
            self._protocol.late -= 1
        super()._conclude()

    def garbled(self, error: CodecError) -> None:
        """Count, and log at most once a second: anybody may send anything, from anywhere."""
        self._carrier.note("garbled", self.peer)
        self._finish(CloseReason.PROTOCOL_ERROR)

    def _keep(self, messages: Iterable[bytes], metadata: Metadata) -> None:
        for message in messages:
            if self._inbox_bytes > INBOX_BYTES and not self._closing:
                self.dropped += 1
                self._carrier.note("inbox_full", self.peer)
            else:
                super()._keep((message,), metadata)

    def deadline(self, now: float) -> float | None:
        """Return when to look at this session's time-outs again, or None."""
        idle, limit = self._idle_deadline(now), self._carrier.limits.session_timeout
        if limit is None:
            return idle
        end = self.opened_at + limit
        return end if idle is None else min(idle, end)

    def expired(self, now: float) -> float | None:
        """Act on the time-out that has struck at *now*; return when to look again."""
        if self._closing:
            return None
        deadline = self.deadline(now)
        if deadline is None or deadline > now:
            return deadline
        limit = self._carrier.limits.session_timeout
        over = limit is not None and now >= self.opened_at + limit
        self._finish(CloseReason.SESSION_TIMEOUT if over else CloseReason.IDLE_TIMEOUT)
        return None


class RawSession(DatagramSession):
    """A host that sends packets of a raw listener's protocol."""

    __slots__ = ()
    transport: ClassVar[Kind] = "raw"


class PacketSession(DatagramSession):
    """A link-layer address whose frames a packet listener has seen."""

    __slots__ = ()
    transport: ClassVar[Kind] = "packet"


SESSIONS: dict[Kind, type[DatagramSession]] = {
    "datagram": DatagramSession,
    "raw": RawSession,
    "packet": PacketSession,
}


class ServiceDatagramProtocol(DatagramProtocol):
    """Serves a service on one datagram, raw or packet listener.

    Args:
        service: The service, or the carrier that its other listeners already share.
        codec: What messages say: a key of ``wire.codecs.CODECS``.
        limits, access: What peers may use, and who may come; the defaults of Limits and
            everyone. Neither these nor a codec with a carrier, which has its own.
        any_source_port: True lifts the guard's rules on source ports; also lifted by the
            service's ``symmetric``.
        groups: The multicast groups that the listener has joined: what comes to others is
            dropped.
        reactor: Runs the timers; the service's by default.
        kind: What the listener carries: ``datagram``, ``raw`` or ``packet``.

    Raises:
        PluginError: The service breaks the contract or cannot serve that kind.
        ValueError: No codec has that name.
    """

    noisy = False

    def __init__(
        self,
        service: SocketService | Carrier,
        *,
        codec: str = "bytes",
        limits: Limits | None = None,
        access: AccessList | None = None,
        any_source_port: bool = False,
        groups: Collection[str] = frozenset(),
        reactor: Any = None,
        kind: Kind = "datagram",
    ) -> None:
        self.carrier = as_carrier(service, limits, access, codec, reactor)
        served = self.carrier.service
        if kind not in served.served_kinds():
            raise PluginError(f"{type(served).__name__} does not serve {kind}s")
        self._session_type = SESSIONS[kind]
        self._groups = frozenset(groups)
        self._any_source_port = any_source_port or served.symmetric
        self.wants_metadata = served.metadata
        limits = self.carrier.limits
        self.late = 0  # sessions that left the table while their service was at work
        self._max_message = limits.max_message or float("inf")  # transports have a bound
        self.peers: PeerTable[object, DatagramSession] = PeerTable(
            limits.max_connections, limits.max_connections_per_source
        )

    def startProtocol(self) -> None:
        """The listener is open."""
        transport: Any = self.transport
        transport.maxPacketSize = MAX_DATAGRAM_BYTES  # stock ports cut at 8192
        host = transport.getHost()
        scheme = self._scheme = scheme_of(host)
        self._host, self._port = host_and_port(host)
        # Ours need not check an address that they have told, and can choose the source.
        self.answer = getattr(transport, "answer", transport.write)
        self.answer_from = getattr(transport, "writeFrom", None)
        # Ours can do more about what it could not send.
        self.again = getattr(transport, "answerAgain", _never)
        self._origins = self._origins_of(scheme)
        self._origins.open()
        self.carrier.listener_started()

    def stopProtocol(self) -> None:
        """The listener is closed: its sessions end."""
        self._origins.close()
        for session in self.peers:
            session._finish(CloseReason.SHUTDOWN)
        self.carrier.listener_stopped()

    def _origins_of(self, scheme: str) -> Origins:
        if scheme == "udp":
            return UdpOrigins(
                self._port, any_source_port=self._any_source_port, groups=self._groups
            )
        if scheme == "raw":
            return RawOrigins()
        return PacketOrigins() if scheme == "packet" else UnixOrigins(self._host)

    def datagramDropped(self) -> None:
        """Count an answer that the transport kept, and could not send after all."""
        self.carrier.note("send_failed")

    def datagramRefused(self, number: int, host: str) -> None:
        """Count what became of an answer: *number* is the errno that ICMP, or a device, told."""
        self.carrier.note(REFUSALS.get(number, "unreachable"), host)

    def datagramReceived(self, datagram: bytes, addr: Peer) -> None:
        """Serve a datagram of which only the sender is known."""
        self.packetReceived(datagram, addr, NO_METADATA)

    def packetReceived(self, data: bytes, addr: Peer, metadata: Metadata) -> None:
        """Serve a datagram with what the kernel told of it.

        Args:
            data: The payload.
            addr: The sender's numeric host and port.
            metadata: Its destination is what is answered from, where it is known.
        """
        if len(data) > self._max_message:
            self.carrier.note("too_long", addr[0])
            return
        destination = metadata.destination
        key = addr if destination is None else (addr, destination)
        session = self.peers.use(key) or self._open(key, addr, metadata)
        if session is None:
            return
        size = len(data)
        session.bytes_in += size
        if session._credit is not None:
            session._credit += AMPLIFICATION * (size + session._headers)
        if session._held:
            session._keep((data,), metadata)
            return
        # The same as _take for one message, in place: the shortest way to the service.
        session.metadata = metadata
        session.messages_in += 1
        received = session._carrier.received
        try:
            result = received(session, data)
            if result is not None:
                session._await(result, session._resume)
        except BaseException:  # a plug-in is called, and sys.exit() ends its session alone too
            session._failed(Failure())

    def _open(self, key: object, addr: Peer, metadata: Metadata) -> DatagramSession | None:
        """Return a new session, or None where the guard or a limit says no."""
        origin = self._origins.judge(addr[0], addr[1], metadata)
        carrier, peer = self.carrier, origin.host or addr[0]
        if origin.drop is not None:
            carrier.note(origin.drop, peer)
            return None
        if self.late >= carrier.limits.max_connections:
            # Forged sources may not make the service work for any number of peers at once.
            carrier.note("limit_connections", peer)
            return None
        if carrier.admit(origin.host, counted=False, credentials=metadata.credentials) is not None:
            return None
        source = origin.source
        shared = carrier.limits.limit_loopback or not origin.is_exempt
        for victim in self.peers.victims(source, shared=shared):
            carrier.note("evicted", victim.peer)
            victim._finish(CloseReason.EVICTED)
        destination = metadata.destination
        local = destination if destination is not None else self._host
        five_tuple = FiveTuple(self._scheme, local, self._port, unmap(addr[0]), addr[1])
        # A group is no address to answer from.
        reply_from = destination if destination is not None and is_unicast(destination) else None
        session = self._session_type(self, five_tuple, addr, key, reply_from, origin)
        self.peers.add(key, session, source)
        carrier.time(session, session.deadline(session.opened_at))
        session._begin()
        return session if not session._closing else None

    def connectionRefused(self) -> None:
        """Count that a connected peer's host has nobody on that port."""
        self.carrier.note("refused_by_peer")


def _never(cause: Exception, datagram: bytes, addr: Peer) -> bool:
    """Return False: a stock transport has tried all it can."""
    return False
