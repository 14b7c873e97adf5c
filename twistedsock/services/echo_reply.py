"""echo-reply: a greeting, then ``OK...`` and what was sent. The socket tutorial's demo."""

from __future__ import annotations

from typing import Any, ClassVar

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
        """Encode the texts once; under a codec they stay texts."""
        greeting, prefix = self.settings.greeting, self.settings.prefix
        in_bytes = self.codec == "bytes"
        self._greeting = greeting.encode() if in_bytes else greeting
        self._prefix = prefix.encode() if in_bytes else prefix
        self._joins = self.codec in ("bytes", "text")

    def opened(self, session: Session) -> None:
        """Greet a connection."""
        if self._greeting and session.transport != "datagram":
            session.send(self._greeting)

    def received(self, session: Session, message: Any) -> None:
        """Answer *message*; a value that is no text by its ``repr``."""
        session.send(self._prefix + message if self._joins else f"{self._prefix}{message!r}")
