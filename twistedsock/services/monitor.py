"""What services share that only tell what arrives."""

from __future__ import annotations

from typing import Any, ClassVar

import pydantic

from twistedsock.addresses import Kind
from twistedsock.service import ServiceSettings, Session, SocketService

MAX_TEXT_BYTES = 64  # of a peer's bytes in a log line


class MonitorSettings(ServiceSettings):
    """The keys of a monitor."""

    events_per_second: int = pydantic.Field(default=100, ge=1, le=100_000)
    """Events that are logged at most; the next one tells how many were left out."""


class Monitor(SocketService):
    """Logs each message that arrives on a raw listener; subclasses say what it is."""

    kinds: ClassVar[tuple[Kind, ...]] = ("raw",)
    codecs: ClassVar[tuple[str, ...]] = ("bytes",)
    Settings = MonitorSettings

    protocols: ClassVar[dict[str, int]] = {}
    """The IP protocols that it understands."""

    def describe(self, session: Session, message: bytes) -> dict[str, Any]:
        """Return what *message* says, as fields of its event."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to count."""
        self._second, self._events = 0, 0
        self._suppressed = 0

    def stop(self) -> None:
        """Tell what no later event has told."""
        if self._suppressed:
            self.log.info(
                "{service}: {suppressed} packets were left out",
                event="packets_left_out",
                service=self.name,
                suppressed=self._suppressed,
            )

    def received(self, session: Session, message: bytes) -> None:
        """Log *message*."""
        second = int(self.reactor.seconds())
        if second != self._second:
            self._second, self._events = second, 0
        if self._events >= self.settings.events_per_second:
            self._suppressed += 1
            return
        self._events += 1
        suppressed, self._suppressed = self._suppressed, 0
        told = self.describe(session, message)
        metadata = session.metadata
        words = " ".join(f"{key}={value}" for key, value in told.items())
        self.log.info(
            "{service}: {peer} -> {destination}: {words}",
            event="packet",
            service=self.name,
            peer=session.five_tuple.peer_host,
            destination=metadata.destination,
            interface=metadata.interface,
            ttl_hops=metadata.ttl_hops,
            received_at=metadata.received_at,
            bytes=len(message),
            suppressed=suppressed,
            words=words,
            **told,
        )
