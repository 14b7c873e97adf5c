"""chargen: a stream of characters until the peer has had enough (RFC 864)."""

from __future__ import annotations

import random
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twistedsock.errors import SessionClosed
from twistedsock.service import Session, SocketService

PRINTABLE = bytes(range(32, 127))  # the 95 printable ASCII characters
LINE_CHARACTERS = 72
MAX_DATAGRAM_CHARACTERS = 512  # RFC 864: "a random number (between 0 and 512)"


def _pattern() -> bytes:
    """Return the "one popular pattern" of RFC 864: 95 lines, each one character on."""
    ring = PRINTABLE * 2
    lines = (ring[start : start + LINE_CHARACTERS] for start in range(len(PRINTABLE)))
    return b"".join(line + b"\r\n" for line in lines)


PATTERN = _pattern()


class Chargen(SocketService):
    """Sends printable characters: to a connection without end, to a datagram one datagram."""

    codecs: ClassVar[tuple[str, ...]] = ("bytes",)

    def opened(self, session: Session) -> None:
        """Begin to send; not awaited, so that what the peer sends is read and thrown away."""
        if session.transport == "stream":
            Deferred.fromCoroutine(self._stream(session)).addErrback(
                lambda failure: self.log.failure("chargen failed", failure)
            )

    async def _stream(self, session: Session) -> None:
        """Send the pattern over and over, as fast as the peer reads and others allow."""
        try:
            while session.send(PATTERN):
                await deferLater(self.reactor, 0)
                await session.drained()
        except SessionClosed:
            pass

    def received(self, session: Session, message: bytes) -> None:
        """Answer a datagram with some characters; what a connection sends is thrown away."""
        if session.transport != "stream":
            most = MAX_DATAGRAM_CHARACTERS
            if session.budget is not None:
                most = min(most, session.budget)
            session.send(PATTERN[: random.randint(0, most)])

    def ended(self, session: Session) -> None:
        """Go on: RFC 864 sends until the caller terminates the connection."""
