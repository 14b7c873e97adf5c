"""Streams: the Twisted Protocol and Factory that carry a service.

They serve under any transport that Twisted knows: ours, which can make newcomers wait and tell
more, and stock ones (``reactor.listenTCP(8888, ServiceFactory(EchoReply()))``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IFileDescriptorReceiver,
    IHalfCloseableProtocol,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.errors import PeerProtocolError, PluginError
from twistedsock.policy.access import AccessList
from twistedsock.policy.limits import Limits
from twistedsock.protocols.carrier import Carrier, as_carrier
from twistedsock.protocols.foreign import ForeignConnection
from twistedsock.protocols.stream_session import SeqpacketSession, StreamSession
from twistedsock.protocols.twisted_names import close_reason, five_tuple_of, source_of
from twistedsock.service import NO_METADATA, Accompanied, SocketService
from twistedsock.wire.framing import (
    MAX_MESSAGE_BYTES,
    ChunkFramer,
    Framer,
    RecordFramer,
    make_framer,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol


MAX_HELD_DESCRIPTORS = 253  # of one peer, of messages that its service has not handled yet


class _BrokenFramer(ChunkFramer):
    """Stands in for the framer of a stream that is broken: ignores the rest."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[bytes]:
        """Return nothing."""
        return []


_BROKEN = _BrokenFramer()


@implementer(IHalfCloseableProtocol, IPushProducer)
class ServiceProtocol(Protocol):
    """Carries one connection: bytes in, messages to the service, frames out."""

    def __init__(
        self,
        carrier: Carrier,
        host: str,
        framer: Framer,
        session_type: type[StreamSession] = StreamSession,
    ) -> None:
        self._carrier = carrier
        self._session_type = session_type
        self._host = host  # as admitted: its place is given back under this key
        self._framer = framer
        self.session: StreamSession | None = None

    def connectionMade(self) -> None:
        """Open the session."""
        transport: Any = self.transport
        if hasattr(transport, "setHighWater"):  # ours; stock transports have their own mark
            transport.setHighWater(self._carrier.limits.write_high_water)
        session = self._session_type(
            self._carrier, self._host, five_tuple_of(transport), transport, self._framer
        )
        self.session = session
        transport.registerProducer(self, True)
        self._carrier.time(session, session.deadline(session.opened_at))
        session._begin()

    def dataReceived(self, data: bytes) -> None:
        """Cut *data* into messages and hand them to the session."""
        session: Any = self.session  # None only before the connection and after it
        session.bytes_in += len(data)
        try:
            messages = self._framer.feed(data)
        except PeerProtocolError as error:
            self._framer = _BROKEN
            session.violated(error, data)
            return
        if session._held or len(messages) != 1:
            session._take(messages, NO_METADATA)
            return
        # What most reads bring: one message, to a session that waits for it. The same as _take,
        # in place: this is the shortest way from a read to the service.
        session.messages_in += 1
        received = session._carrier.received
        try:
            result = received(session, messages[0])
            if result is not None:
                session._await(result, session._resume)
        except BaseException:  # a plug-in is called, and sys.exit() ends its session alone too
            session._failed(Failure())

    def readConnectionLost(self) -> None:
        """The peer has finished sending."""
        if self.session is not None:
            self.session.peer_ended(self._framer)

    def writeConnectionLost(self) -> None:
        """Our half is closed."""
        if self.session is not None:
            self.session.write_ended()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the session, for the reason that it has or the one that the transport tells."""
        session, self.session = self.session, None
        if session is not None:
            session.lost(close_reason(reason), self._framer)
        else:
            self._carrier.left(self._host)

    def pauseProducing(self) -> None:
        """The transport holds more than the high-water mark."""
        if self.session is not None:
            self.session.congest()

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        if self.session is not None:
            self.session.decongest()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""


@implementer(IFileDescriptorReceiver)
class DescriptorProtocol(ServiceProtocol):
    """Carries one UNIX connection of a service that takes descriptors.

    On a stream they belong to the messages completed by the read that they came with, or by the
    next one that completes any.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._came: list[int] = []  # with bytes that are yet to be read
        self._held: WeakSet[Accompanied] = WeakSet()

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Keep *descriptor* for the message that it came with, within bounds."""
        held = len(self._came) + sum(len(each.descriptors) for each in self._held)
        if held >= MAX_HELD_DESCRIPTORS or self.session is None:
            os.close(descriptor)
            self._carrier.note("descriptors_dropped", self.session.peer if self.session else "")
        else:
            self._came.append(descriptor)

    def dataReceived(self, data: bytes) -> None:
        """Cut *data* into messages and hand them to the session, with their descriptors."""
        if not self._came:
            super().dataReceived(data)
            return
        session: Any = self.session
        session.bytes_in += len(data)
        try:
            messages = self._framer.feed(data)
        except PeerProtocolError as error:
            self._framer = _BROKEN
            session.violated(error, data)
            return
        if not messages:
            return
        metadata = Accompanied(tuple(self._came))
        self._came.clear()
        self._held.add(metadata)
        session._take(messages, metadata)
        if not session._held:  # all are handled
            metadata.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the session, and close what came with no whole message."""
        for descriptor in self._came:
            os.close(descriptor)
        self._came.clear()
        super().connectionLost(reason)


@implementer(IFileDescriptorReceiver)
class ForeignReceiver(ForeignConnection):
    """Carries one connection of a foreign protocol that takes descriptors."""

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Pass on; the inner protocol closes it."""
        try:
            self.wrappedProtocol.fileDescriptorReceived(descriptor)
        except BaseException:  # a plug-in is called: its failure ends this connection alone
            self._failed()


class ServiceFactory(Factory):
    """Serves a service on any number of stream listeners.

    Args:
        service: The service, or the carrier that its other listeners already share.
        framing: How messages are cut from the stream: a key of ``wire.framing.FRAMINGS``. A
            record of a SEQPACKET connection is a message already.
        codec: What messages say: a key of ``wire.codecs.CODECS``. The service is handed values,
            and sends values.
        limits, access: What peers may use, and who may come; the defaults of Limits and
            everyone. Neither these nor a codec with a carrier, which has its own.
        reactor: Runs the timers; the service's by default.
        kind: What the connections carry: ``stream`` or ``seqpacket``.

    Raises:
        PluginError: The service breaks the contract or cannot serve that kind.
        ValueError: No framing, or no codec, has that name.
    """

    noisy = False

    def __init__(
        self,
        service: SocketService | Carrier,
        *,
        framing: str = "chunk",
        codec: str = "bytes",
        limits: Limits | None = None,
        access: AccessList | None = None,
        reactor: Any = None,
        kind: Literal["stream", "seqpacket"] = "stream",
    ) -> None:
        self.carrier = as_carrier(service, limits, access, codec, reactor)
        served = self.carrier.service
        if kind not in served.served_kinds():
            raise PluginError(f"{type(served).__name__} does not serve {kind}s")
        self._framing = framing
        self._is_stream = kind == "stream"
        self._max_message = self.carrier.limits.max_message or MAX_MESSAGE_BYTES
        make_framer(framing, self._max_message)  # a wrong name fails here, not at a client
        hands_over = self._is_stream and served.overrides("stream_factory")
        foreign = served.stream_factory() if hands_over else None
        self._foreign: Any = foreign  # its doStart and doStop are no part of IProtocolFactory

    def startFactory(self) -> None:
        """The first listener opens."""
        self.carrier.listener_started()
        if self._foreign is not None:
            self._foreign.doStart()

    def stopFactory(self) -> None:
        """The last listener has closed."""
        if self._foreign is not None:
            self._foreign.doStop()
        self.carrier.listener_stopped()

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """Return the protocol for a newcomer; None turns it away, and its connection is closed."""
        host = source_of(addr)
        credentials = getattr(addr, "credentials", None)
        if self.carrier.admit(host, credentials=credentials) is not None:
            return None
        protocol_type = ServiceProtocol
        if self.carrier.service.takes_descriptors and isinstance(addr, UNIXAddress):
            protocol_type = DescriptorProtocol
        if not self._is_stream:
            record = RecordFramer(self._max_message)
            return protocol_type(self.carrier, host, record, SeqpacketSession)
        if self._foreign is None:
            framer = make_framer(self._framing, self._max_message)
            return protocol_type(self.carrier, host, framer)
        inner = None
        try:
            inner = self._foreign.buildProtocol(addr)
        except BaseException:  # a plug-in is called: this newcomer alone is turned away
            self.carrier.log_failure(Failure())
        if inner is None:
            self.carrier.left(host)
            return None
        if IFileDescriptorReceiver.providedBy(inner):
            return ForeignReceiver(self.carrier, host, inner)
        return ForeignConnection(self.carrier, host, inner)
