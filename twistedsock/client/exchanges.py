"""Requests and answers over datagrams that get lost, repeated and reordered: the client's core.

Sans-I/O: knows bytes and times that it is told; never a socket, a clock or a codec. Its shells
are ``datagram`` (reactor) and ``datagram_blocking``. Back-off is that of RFC 7252 section 4.2.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from twistedsock.client.transmission import ExchangeCounts, TransmissionParameters
from twistedsock.errors import PeerProtocolError
from twistedsock.wire.exchange import (
    ID_MASK,
    MAX_SPAN,
    ExchangeDatagram,
    ExchangeType,
    parse_exchange,
)

ROUND_TRIP_GAIN = 1 / 8  # RFC 6298 section 2: alpha
MIN_STALE_EVENTS = 256  # the agenda is not swept for fewer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    Attributes:
        id: What ``request`` returned.
        kind: Whether it was answered, refused by the server, or timed out.
        payload: The answer; empty where there is none.
        waited_s: From the call of ``request`` on.
    """

    id: int
    kind: Literal["answered", "refused", "timed_out"]
    payload: bytes
    waited_s: float


class Due(NamedTuple):
    """What is to be done now: datagrams to send, each with its request's id, and who to tell."""

    datagrams: list[tuple[int, bytes]]
    timed_out: list[Outcome]


class _Exchange:
    """One request, until it has ended."""

    __slots__ = ("asked_at", "deadline", "interval_s", "next_at", "payload", "sent")

    def __init__(self, payload: bytes, asked_at: float, deadline: float) -> None:
        self.payload = payload
        self.asked_at = asked_at
        self.deadline = deadline
        self.next_at = deadline  # when something is next to be done for it
        self.interval_s = 0.0
        self.sent: list[tuple[float, int]] = []  # for each transmission: when, and its number


class Exchanges:
    """Every request of one client to one server.

    Each request ends at most once: by ``received``, by ``due`` or by ``forget``.

    Args:
        parameters: How often and how patiently to ask.
        random: Draws the first id and the waits.
    """

    def __init__(self, parameters: TransmissionParameters, random: Random) -> None:
        self.parameters = parameters
        self.round_trip_s: float | None = None  # smoothed (RFC 6298); None until known
        self._random = random
        self._next_id = random.getrandbits(32)
        self._issued = 0
        self._open: OrderedDict[int, _Exchange] = OrderedDict()  # sent; the oldest first
        self._queued: OrderedDict[int, _Exchange] = OrderedDict()
        self._abandoned: OrderedDict[int, None] = OrderedDict()  # sent, but never answered
        self._agenda: list[tuple[float, int]] = []  # a heap; some entries are of what has ended
        self._replies: list[tuple[int, bytes]] = []
        self._transmissions = 0
        self._newest_answered = -1  # the number of a transmission
        self._tally = dict.fromkeys(ExchangeCounts.__dataclass_fields__, 0)

    def request(self, payload: bytes, now: float, timeout_s: float | None = None) -> int:
        """Take a request and return its id; ``due`` sends it once the window has room.

        Args:
            payload: At most ``wire.exchange.MAX_PAYLOAD_BYTES``.
            now: The time in seconds, of any clock that does not go back.
            timeout_s: How long it may take in all, waiting for room in the window included;
                None for as long as it takes to transmit it as often as the parameters say.
        """
        number = self._next_id
        self._next_id = (number + 1) & ID_MASK
        self._issued += 1
        self._tally["requests"] += 1
        deadline = math.inf if timeout_s is None else now + timeout_s
        exchange = self._queued[number] = _Exchange(payload, now, deadline)
        self._plan(number, exchange, deadline)
        return number

    def due(self, now: float) -> Due:
        """Return what is to be sent by *now*, and the requests whose time is over.

        A datagram that cannot be sent may be dropped: it counts as lost on the way.
        """
        todo = Due(self._replies, [])
        self._replies = []
        while (when := self.next_due) is not None and when <= now:
            _, number = heapq.heappop(self._agenda)
            exchange = self._open.get(number) or self._queued[number]
            if exchange.sent:
                self._tally["lost"] += 1
            if now >= exchange.deadline or len(exchange.sent) > self.parameters.max_retransmit:
                self.forget(number)
                self._tally["timed_out"] += 1
                waited_s = now - exchange.asked_at
                todo.timed_out.append(Outcome(number, "timed_out", b"", waited_s))
                continue
            self._tally["retransmitted"] += 1
            doubled = min(exchange.interval_s * 2, self.parameters.max_backoff_s)
            exchange.interval_s = max(doubled, exchange.interval_s)
            todo.datagrams.append(self._transmit(number, exchange, now))
        while self._queued and self._has_room(number := next(iter(self._queued))):
            exchange = self._open[number] = self._queued.pop(number)
            timeout_s = self.parameters.ack_timeout_s
            longest_s = timeout_s * self.parameters.ack_random_factor
            exchange.interval_s = self._random.uniform(timeout_s, longest_s)
            todo.datagrams.append(self._transmit(number, exchange, now))
        return todo

    @property
    def next_due(self) -> float | None:
        """When ``due`` has something to do, if nothing else is called before; None for never."""
        while self._agenda:
            when, number = self._agenda[0]
            if number in self._open or number in self._queued:
                return when
            heapq.heappop(self._agenda)
        return None

    def received(self, datagram: bytes, now: float) -> Outcome | None:
        """Take what came; return how a request ended by it. Call ``due`` after it."""
        try:
            heard = parse_exchange(datagram)
        except PeerProtocolError:
            self._tally["unreadable"] += 1
            return None
        number = heard.id
        exchange = self._open.get(number)
        if exchange is None:
            self._count_stray(heard)
            return None
        if heard.type is ExchangeType.CHALLENGE:
            kind, token = ExchangeType.PROOF, heard.payload
            proof = ExchangeDatagram(kind, number, heard.attempt, payload=token)
            self._replies.append((number, proof.to_bytes()))
            return None
        known = heard.type in (ExchangeType.ANSWER, ExchangeType.REFUSAL)
        if not known or heard.attempt > len(exchange.sent):
            self._tally["unreadable"] += 1
            return None
        self._measure(exchange, heard.attempt, now)
        del self._open[number]
        waited_s = now - exchange.asked_at
        if heard.type is ExchangeType.REFUSAL:
            self._tally["refused"] += 1
            return Outcome(number, "refused", b"", waited_s)
        self._tally["answered"] += 1
        return Outcome(number, "answered", heard.payload, waited_s)

    def forget(self, number: int) -> None:
        """Give up the request of that id, if it has not ended; its answer will count as late."""
        if self._queued.pop(number, None) is None and self._open.pop(number, None) is not None:
            self._abandoned[number] = None
            if len(self._abandoned) > MAX_SPAN:
                self._abandoned.popitem(last=False)

    @property
    def outstanding(self) -> tuple[int, ...]:
        """The ids of the requests that were sent and have not ended, the oldest first."""
        return tuple(self._open)

    @property
    def counts(self) -> ExchangeCounts:
        """What has happened so far."""
        return ExchangeCounts(**self._tally)

    def _has_room(self, number: int) -> bool:
        """Whether the request of that id may go out beside those that are open."""
        if not self._open:
            return True
        return len(self._open) < self.parameters.window and self._behind(number) < MAX_SPAN

    def _behind(self, number: int) -> int:
        return (number - next(iter(self._open))) & ID_MASK

    def _transmit(self, number: int, exchange: _Exchange, now: float) -> tuple[int, bytes]:
        exchange.sent.append((now, self._transmissions))
        self._transmissions += 1
        self._plan(number, exchange, min(now + exchange.interval_s, exchange.deadline))
        attempt, behind = len(exchange.sent), self._behind(number)
        request = ExchangeDatagram(ExchangeType.REQUEST, number, attempt, behind, exchange.payload)
        return number, request.to_bytes()

    def _plan(self, number: int, exchange: _Exchange, when: float) -> None:
        exchange.next_at = when
        if when < math.inf:
            heapq.heappush(self._agenda, (when, number))
        alive = len(self._open) + len(self._queued)
        if len(self._agenda) > 2 * alive + MIN_STALE_EVENTS:  # most are of requests that ended
            everything = {**self._open, **self._queued}.items()
            self._agenda = [(e.next_at, n) for n, e in everything if e.next_at < math.inf]
            heapq.heapify(self._agenda)

    def _measure(self, exchange: _Exchange, attempt: int, now: float) -> None:
        """Note the round trip of the transmission that was answered, and its place in order."""
        sent_at, transmission = exchange.sent[attempt - 1]
        if transmission < self._newest_answered:
            self._tally["reordered"] += 1
        else:
            self._newest_answered = transmission
        sample, known = now - sent_at, self.round_trip_s
        self.round_trip_s = sample if known is None else known + ROUND_TRIP_GAIN * (sample - known)

    def _count_stray(self, heard: ExchangeDatagram) -> None:
        """Count what concerns no open request."""
        age = (self._next_id - 1 - heard.id) & ID_MASK
        from_client = heard.type in (ExchangeType.REQUEST, ExchangeType.PROOF)
        if from_client or age >= self._issued or heard.id in self._queued:
            self._tally["unreadable"] += 1
        elif heard.id in self._abandoned:
            self._tally["late"] += 1
        else:
            self._tally["repeated"] += 1
