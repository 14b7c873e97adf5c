"""discard: what was sent is thrown away (RFC 863)."""

from __future__ import annotations

from twistedsock.service import Session, SocketService


class Discard(SocketService):
    """Throws away what it receives and never answers (RFC 863)."""

    def received(self, session: Session, message: bytes) -> None:
        """Do nothing."""
