"""What is told of a service's sessions: counters, and log events that no peer can multiply."""

from __future__ import annotations

from collections import Counter

from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.errors import CloseReason
from twistedsock.policy.throttle import LogThrottle
from twistedsock.service import Session, SocketService


class Ledger:
    """Counts and logs for one service.

    Attributes:
        counters: Totals by word: accepted, ended, every refusal and every drop.
        log: The house's own logger.
    """

    def __init__(self, service: SocketService) -> None:
        self._service = service
        self.counters: Counter[str] = Counter()
        self.log = Logger(namespace="twistedsock")
        self._throttle = LogThrottle()

    def ended(self, session: Session, reason: CloseReason, now: float) -> None:
        """Log the end of *session* at *now*."""
        five = session.five_tuple
        self.log.info(
            "session ended: {service} {protocol} {peer} {reason}"
            " in={bytes_in} out={bytes_out} after {duration_s:.3f}s",
            event="session_ended",
            service=self._service.name,
            protocol=five.protocol,
            transport=session.transport,
            session=session.id,
            peer=session.peer,
            local=session.local,
            bytes_in=session.bytes_in,
            bytes_out=session.bytes_out,
            messages_in=session.messages_in,
            messages_out=session.messages_out,
            duration_s=now - session.opened_at,
            reason=str(reason),
        )

    def failed(self, failure: Failure) -> None:
        """Log what a plug-in raised, with its traceback."""
        self.log.failure(
            "{service}: the service raised",
            failure,
            event="service_error",
            service=self._service.name,
        )

    def note(self, word: str, peer: str, now: float) -> bool:
        """Count *word*; log it at most once a second, with the number suppressed.

        Returns:
            Whether it was logged, so that ``catch_up`` has to be called later.
        """
        self.counters[word] += 1
        suppressed = self._throttle.admit(word, now)
        if suppressed is None:
            return False
        self._log_note(word, peer, suppressed)
        return True

    def catch_up(self, now: float) -> bool:
        """Log what was suppressed and is due; return whether there may be more."""
        for word, suppressed in self._throttle.overdue(now):
            self._log_note(word, "", suppressed)
        return len(self._throttle) > 0

    def _log_note(self, word: str, peer: str, suppressed: int) -> None:
        whom = " {peer}" if peer else ""  # a sum is nobody's
        self.log.warn(
            "{service}: {event}" + whom + " ({total} in all, {suppressed} not logged)",
            event=word,
            service=self._service.name,
            peer=peer,
            total=self.counters[word],
            suppressed=suppressed,
        )
