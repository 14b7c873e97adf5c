"""Three services, one for each way to write one: hooks, a conversation, a Twisted factory.

Install this beside twistedsock, and ``twistd sockservice --service shout`` serves it.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

from twistedsock import ServiceSettings, Session, SocketService


class Shout(SocketService):
    """Answers every message in capitals."""

    class Settings(ServiceSettings):
        """The keys of ``[services.NAME.settings]``."""

        suffix: str = ""
        """Goes behind each answer."""

    def received(self, session: Session, message: bytes) -> None:
        """Answer *message*."""
        session.send(message.upper() + self.settings.suffix.encode())


class Count(SocketService):
    """Sends every message back with its number, from 1 for each peer."""

    async def converse(self, session: Session) -> None:
        """Hold the whole conversation with one peer."""
        number = 0
        async for message in session:
            number += 1
            session.send(b"%d %b" % (number, message))


class StockEcho(SocketService):
    """Sends every byte back: a protocol that knows Twisted alone."""

    def stream_factory(self) -> Factory:
        """Return the factory, which gets our listeners, limits and logs."""
        return Factory.forProtocol(Echo)
