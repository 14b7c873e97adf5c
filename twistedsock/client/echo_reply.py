"""The tutorial's demo client: connect, send, receive, each failure told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.errors import CodecError, PeerProtocolError
from twistedsock.wire.codecs import find_codec
from twistedsock.wire.framing import MAX_MESSAGE_BYTES, make_framer

OnReply = Callable[["EchoReplyClient", Any], object]


class EchoReplyClient(Protocol):
    """One connection to an echo-reply server: ``send`` messages, get each reply called back."""

    transport: Any  # ITransport, from connectionMade on; Twisted declares it optional
    factory: EchoReplyClientFactory

    def __init__(self, factory: EchoReplyClientFactory) -> None:
        self.factory = factory
        self._framer = make_framer(factory.framing, factory.max_message)
        self._codec = find_codec(factory.codec)
        self._gave_up = False

    def send(self, message: Any) -> None:
        """Send *message* in the factory's framing and codec.

        Raises:
            CodecError, FrameError: *message* cannot be written.
        """
        self.transport.write(self._framer.encode(self._codec.encode(message)))

    def close(self) -> None:
        """Send what is unsent, then close."""
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        """Tell the factory's owner."""
        if self.factory.on_connect is not None:
            self.factory.on_connect(self)

    def dataReceived(self, data: bytes) -> None:
        """Call back for each message that *data* completes."""
        if self._gave_up:
            return  # the connection is being closed
        try:
            messages = self._framer.feed(data)
        except PeerProtocolError as error:
            messages = error.completed
            self._give_up(error)
        for message in messages:
            try:
                reply = self._codec.decode(message)
            except CodecError as error:
                self._give_up(error)
                return
            self.factory.on_reply(self, reply)

    def _give_up(self, error: Exception) -> None:
        self._gave_up = True
        self.factory.log.warn("the server broke the protocol: {error}", error=str(error))
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the factory's owner."""
        if self.factory.on_close is not None:
            self.factory.on_close(self, reason)


class EchoReplyClientFactory(ClientFactory):
    """Makes clients for ``reactor.connectTCP(host, port, factory)`` or an endpoint's connect.

    Args:
        on_reply: Called with the client and each message that the server sends; the first one
            is its greeting.
        framing: How messages are cut: a key of ``wire.framing.FRAMINGS``; the server's.
        codec: What messages say: a key of ``wire.codecs.CODECS``; the server's.
        on_connect: Called with the client once it is connected.
        on_close: Called with the client and the Failure once its connection is gone.
        on_fail: Called with the Failure where no connection came about (DNSLookupError,
            ConnectionRefusedError, TimeoutError and the like); by default it is logged.
        max_message: The largest message, in bytes, that the server may send.

    Raises:
        ValueError: No framing, or no codec, has that name.
    """

    noisy = False
    log = Logger(namespace="twistedsock.client")

    def __init__(
        self,
        on_reply: OnReply,
        framing: str = "chunk",
        *,
        codec: str = "bytes",
        on_connect: Callable[[EchoReplyClient], object] | None = None,
        on_close: Callable[[EchoReplyClient, Failure], object] | None = None,
        on_fail: Callable[[Failure], object] | None = None,
        max_message: int = MAX_MESSAGE_BYTES,
    ) -> None:
        make_framer(framing, max_message)  # a wrong name fails here, not once connected
        find_codec(codec)
        self.on_reply = on_reply
        self.framing = framing
        self.codec = codec
        self.on_connect = on_connect
        self.on_close = on_close
        self.on_fail = on_fail
        self.max_message = max_message

    def buildProtocol(self, addr: IAddress | None) -> EchoReplyClient:  # type: ignore[override]
        """Return a client."""
        return EchoReplyClient(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Tell the owner why there is no connection."""
        if self.on_fail is not None:
            self.on_fail(reason)
        else:
            self.log.error("cannot connect: {error}", error=reason.getErrorMessage())
