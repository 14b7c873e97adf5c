"""The tutorial's demo client: connect, send, receive, each failure told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.errors import PeerProtocolError
from twistedsock.wire.framing import MAX_MESSAGE_BYTES, make_framer

OnReply = Callable[["EchoReplyClient", bytes], object]


class EchoReplyClient(Protocol):
    """One connection to an echo-reply server: ``send`` messages, get each reply called back."""

    transport: Any  # ITransport, from connectionMade on; Twisted declares it optional
    factory: EchoReplyClientFactory

    def __init__(self, factory: EchoReplyClientFactory) -> None:
        self.factory = factory
        self._framer = make_framer(factory.framing, factory.max_message)

    def send(self, message: bytes) -> None:
        """Send *message* in the factory's framing.

        Raises:
            FrameError: The framing cannot carry *message*.
        """
        self.transport.write(self._framer.encode(message))

    def close(self) -> None:
        """Send what is unsent, then close."""
        self.transport.loseConnection()

    def connectionMade(self) -> None:
        """Tell the factory's owner."""
        if self.factory.on_connect is not None:
            self.factory.on_connect(self)

    def dataReceived(self, data: bytes) -> None:
        """Call back for each message that *data* completes."""
        try:
            messages = self._framer.feed(data)
        except PeerProtocolError as error:
            messages = error.completed
            self.factory.log.warn("the server broke the framing: {error}", error=str(error))
            self.transport.loseConnection()
        for message in messages:
            self.factory.on_reply(self, message)

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
        on_connect: Called with the client once it is connected.
        on_close: Called with the client and the Failure once its connection is gone.
        on_fail: Called with the Failure where no connection came about (DNSLookupError,
            ConnectionRefusedError, TimeoutError and the like); by default it is logged.
        max_message: The largest message, in bytes, that the server may send.

    Raises:
        ValueError: No framing has that name.
    """

    noisy = False
    log = Logger(namespace="twistedsock.client")

    def __init__(
        self,
        on_reply: OnReply,
        framing: str = "chunk",
        *,
        on_connect: Callable[[EchoReplyClient], object] | None = None,
        on_close: Callable[[EchoReplyClient, Failure], object] | None = None,
        on_fail: Callable[[Failure], object] | None = None,
        max_message: int = MAX_MESSAGE_BYTES,
    ) -> None:
        make_framer(framing, max_message)  # a wrong name fails here, not once connected
        self.on_reply = on_reply
        self.framing = framing
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
