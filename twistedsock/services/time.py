"""time: the time as a number (RFC 868)."""

from __future__ import annotations

import struct
import time

from twistedsock.service import Session
from twistedsock.services.once import AnswerOnce

UNIX_EPOCH_S = 2_208_988_800  # 1970-01-01 in seconds since 1900-01-01 (RFC 868)


class Time(AnswerOnce):
    """Sends the seconds since 1900-01-01 00:00 UTC as 32 bits, big-endian (RFC 868)."""

    def answer(self, session: Session) -> bytes:
        """Return the four bytes; the count wraps round in 2036, as the RFC's does."""
        return struct.pack("!I", (int(time.time()) + UNIX_EPOCH_S) & 0xFFFFFFFF)
