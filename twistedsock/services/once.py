"""The shape that qotd, daytime and time share: one answer, whatever was asked."""

from __future__ import annotations

from typing import ClassVar

from twistedsock.service import Session, SocketService


class AnswerOnce(SocketService):
    """Sends one answer to a connection and closes it; to a datagram, one datagram."""

    codecs: ClassVar[tuple[str, ...]] = ("bytes",)

    def answer(self, session: Session) -> bytes:
        """Return the answer."""
        raise NotImplementedError

    def opened(self, session: Session) -> None:
        """Answer a connection; what it sends is never looked at."""
        if session.transport != "datagram":
            session.send(self.answer(session))
            session.close()

    def received(self, session: Session, message: bytes) -> None:
        """Answer a datagram."""
        session.send(self.answer(session))
