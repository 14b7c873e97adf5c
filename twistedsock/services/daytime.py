"""daytime: the date and time as text (RFC 867)."""

from __future__ import annotations

import time

from twistedsock.service import Session
from twistedsock.services.once import AnswerOnce

# The RFC's own example shape; strftime's names would follow the locale.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip


class Daytime(AnswerOnce):
    """Sends the date and time in UTC as one line of text (RFC 867)."""

    def answer(self, session: Session) -> bytes:
        """Return a line such as ``Tuesday, February 22, 1982 17:37:43-UTC``."""
        now = time.gmtime()
        day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
        clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
        return f"{day}, {month} {now.tm_mday}, {now.tm_year} {clock}-UTC\r\n".encode()
