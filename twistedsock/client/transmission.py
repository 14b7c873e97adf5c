"""How patiently a datagram client asks, and what it has seen of its network: two values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from twistedsock.wire.exchange import MAX_ATTEMPTS, MAX_SPAN


@dataclass(frozen=True, slots=True)
class TransmissionParameters:
    """How often and how patiently to ask: RFC 7252 section 4.8, and its defaults.

    A request is sent, and sent again each time that its wait is over: the first wait is drawn
    from ack_timeout_s to ack_timeout_s * ack_random_factor, each later one is twice as long.
    With the defaults that is 5 transmissions, given up after 62 to 93 s. Where a fifth of all
    datagrams is lost each way, so is one round trip in three, and one request in 165 is given
    up: ask more often there (``max_retransmit=20``), and let the request's time-out end it.

    Args:
        ack_timeout_s: The least wait for an answer before a request is sent again, in seconds.
        ack_random_factor: 1 or above; spreads the first wait, lest clients keep in step.
        max_retransmit: How often a request is sent again before it is given up: 0 to 254.
        max_backoff_s: No wait is doubled beyond this, in seconds (RFC 6298 section 2.5).
        window: How many requests may be open at once; others queue. 1 to 1024. RFC 7252 has 1
            (NSTART), for networks that a handful of datagrams congests: be as gentle there.

    Raises:
        ValueError: One of them is out of its range.
    """

    ack_timeout_s: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    max_backoff_s: float = 60.0
    window: int = 64

    def __post_init__(self) -> None:
        for name, low, high in (
            ("ack_timeout_s", 0.001, 3600),
            ("ack_random_factor", 1, 10),
            ("max_retransmit", 0, MAX_ATTEMPTS - 1),
            ("max_backoff_s", 0.001, 3600),
            ("window", 1, MAX_SPAN),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name}: must be {low} to {high}, got {value!r}")


@dataclass(frozen=True, slots=True)
class ExchangeCounts:
    """What a datagram client has seen.

    Attributes:
        requests: Taken from the caller.
        answered: Requests that an answer came for: each counts once.
        refused: Requests that the server said it will not answer.
        timed_out: Requests given up: out of transmissions or out of time.
        retransmitted: Transmissions beyond the first of each request.
        lost: Transmissions that were not answered in time: the request, its answer or both
            went missing, or were slow.
        repeated: Answers that came again for a request that had ended by one.
        late: Answers that came for a request given up before.
        reordered: Answers to a transmission that was sent before one already answered
            (RFC 4737 section 3.3; by transmission, so that a loss is not taken for it).
        unreadable: Datagrams that were no answer to anything asked.
    """

    requests: int = 0
    answered: int = 0
    refused: int = 0
    timed_out: int = 0
    retransmitted: int = 0
    lost: int = 0
    repeated: int = 0
    late: int = 0
    reordered: int = 0
    unreadable: int = 0
