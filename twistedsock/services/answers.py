"""What a server remembers of one datagram peer's requests, so that each is handled once.

Sans-I/O: knows ids and bytes; never a session or a service.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from twistedsock.wire.exchange import ID_MASK, MAX_SPAN, ExchangeDatagram, ExchangeType

MAX_KEPT_BYTES: Final = 256 * 1024  # of answers: a peer may not make us hold more than this
STALE_SPAN: Final = 2**16  # an id further behind than this is of a client that started anew


class Fate(enum.Enum):
    """What is to be done with a request."""

    NEW = enum.auto()
    """Hand it to the service."""
    WORKING = enum.auto()
    """Ignore it: the service is at work on it."""
    ANSWERED = enum.auto()
    """Send the answer again."""
    STALE = enum.auto()
    """Ignore it: its client has told that it no longer waits."""


@dataclass(slots=True)
class _Kept:
    """One request; *answer* is None while the service is at work on it."""

    attempt: int
    answer: bytes | None = None
    kind: ExchangeType = ExchangeType.ANSWER


class AnswerMemory:
    """The requests of one peer, from its oldest open one on: at most MAX_SPAN.

    Answers are kept until the peer's requests tell that it waits for them no more. Beyond
    MAX_KEPT_BYTES the oldest go first: who asks for them again is refused, and the service is
    not asked twice.
    """

    __slots__ = ("_bytes", "_horizon", "_kept", "token")

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}  # as they came
        self._horizon: int | None = None  # the oldest id that the peer may still wait for
        self._bytes = 0
        self.token: bytes | None = None  # the challenge that this peer was sent

    def judge(self, request: ExchangeDatagram) -> Fate:
        """Return what is to be done with *request*, and remember it."""
        number = request.id
        if self._horizon is None:
            self._horizon = (number - request.behind) & ID_MASK
        elif 0 < (self._horizon - number) & ID_MASK < STALE_SPAN:
            return Fate.STALE
        else:
            self._move_horizon(self._horizon, (number - request.behind) & ID_MASK)
        kept = self._kept.get(number)
        if kept is None:
            self._kept[number] = _Kept(request.attempt)
            return Fate.NEW
        if kept.answer is None:
            return Fate.WORKING
        kept.attempt = request.attempt
        return Fate.ANSWERED

    def settle(self, number: int, kind: ExchangeType, answer: bytes) -> bool:
        """Keep the answer to the request *number*; False where nobody waits for it."""
        kept = self._kept.get(number)
        if kept is None or kept.answer is not None:
            return False
        kept.kind, kept.answer = kind, answer
        self._bytes += len(answer)
        self._forget_bytes(number)
        return True

    def is_settled(self, number: int) -> bool:
        """Whether the request *number* has its answer, or nobody waits for one."""
        kept = self._kept.get(number)
        return kept is None or kept.answer is not None

    def answer(self, number: int) -> ExchangeDatagram | None:
        """Return the answer to the request *number*; None where it has none."""
        kept = self._kept.get(number)
        if kept is None or kept.answer is None:
            return None
        return ExchangeDatagram(kept.kind, number, kept.attempt, payload=kept.answer)

    def _move_horizon(self, old: int, new: int) -> None:
        moved = (new - old) & ID_MASK
        if moved > ID_MASK - STALE_SPAN:
            return  # an older request, overtaken
        self._horizon = new
        if moved <= MAX_SPAN:
            gone = [number for n in range(moved) if (number := (old + n) & ID_MASK) in self._kept]
        else:
            gone = [number for number in self._kept if (number - new) & ID_MASK >= MAX_SPAN]
        for number in gone:
            self._bytes -= len(self._kept.pop(number).answer or b"")

    def _forget_bytes(self, newest: int) -> None:
        for number, kept in self._kept.items():
            if self._bytes <= MAX_KEPT_BYTES:
                return
            if kept.answer and number != newest:
                self._bytes -= len(kept.answer)
                kept.kind, kept.answer = ExchangeType.REFUSAL, b""
