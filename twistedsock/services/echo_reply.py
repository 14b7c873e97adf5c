"""echo-reply: a greeting, then ``OK...`` and what was sent. The socket tutorial's demo."""

from __future__ import annotations

from typing import ClassVar

from twistedsock.addresses import Kind
from twistedsock.service import ServiceSettings, Session, SocketService


class EchoReply(SocketService):
    """Greets a connection, then answers every message with "OK..." and the message."""

    kinds: ClassVar[tuple[Kind, ...]] = ("stream", "datagram", "seqpacket")

    class Settings(ServiceSettings):
        """Texts, sent as UTF-8."""

        greeting: str = "Welcome to the server. Type something and hit enter\n"
        """Sent once to each connection; never to a datagram peer. Empty for none."""

        prefix: str = "OK..."
        """Goes before each message that is answered."""

    def start(self) -> None:
        """Encode the texts once."""
        self._greeting = self.settings.greeting.encode()
        self._prefix = self.settings.prefix.encode()

    def opened(self, session: Session) -> None:
        """Greet a connection."""
        if self._greeting and session.transport != "datagram":
            session.send(self._greeting)

    def received(self, session: Session, message: bytes) -> None:
        """Answer *message*."""
        session.send(self._prefix + message)
