"""echo: what was sent comes back (RFC 862)."""

from __future__ import annotations

from typing import Any

from twistedsock.service import Session, SocketService


class Echo(SocketService):
    """Sends every message back as it came (RFC 862)."""

    def received(self, session: Session, message: Any) -> None:
        """Send *message* back."""
        session.send(message)
