"""Exchanges: the header by which a request and its answer find each other over datagrams.

Knows bytes and numbers modulo 2**32; never a socket, a clock or a policy.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------+-------+---------------+-------------------------------+
    |Version| Type  |    Attempt    |            Behind             |
    +-------+-------+---------------+-------------------------------+
    |                          Message id                           |
    +---------------------------------------------------------------+
    |  Payload ...

Version is 1. Attempt counts the transmissions of a request, from 1 to 255; what comes
back repeats it, so that a round trip is measured without guessing which transmission was
answered (the ambiguity of RFC 6298 section 3). Behind, 0 in all but requests, tells how many
ids before this one the client's oldest open request lies, below MAX_SPAN: what is older will
never be asked again, so a server need remember no more than MAX_SPAN answers a client.

The id is of 32 bits where CoAP's (RFC 7252 section 3) is of 16: an id must not come again
within EXCHANGE_LIFETIME (247 s), which allows 265 requests a second with 16 bits and 17 million
with 32. It starts at random and goes up by one, so that a client which starts anew at the same
port is not taken for the one before.

    type       from    payload     means
    REQUEST    client  the request
    ANSWER     server  the answer
    REFUSAL    server  empty       there will be no answer: the service failed, or has forgotten it
    CHALLENGE  server  8 bytes     the answer is too large for an address that may be forged
    PROOF      client  the same 8  the address is real
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from twistedsock.errors import PeerProtocolError

VERSION: Final = 1
HEADER_BYTES: Final = 8
MAX_SPAN: Final = 1024  # ids from a client's oldest open request to its newest
MAX_ATTEMPTS: Final = 255  # transmissions of one request
TOKEN_BYTES: Final = 8  # of a challenge; RFC 9175 section 2 allows 1 to 40
MAX_PAYLOAD_BYTES: Final = 65_507 - HEADER_BYTES  # what a UDP datagram carries over IPv4
ID_MASK: Final = 0xFFFF_FFFF

_HEADER: Final = struct.Struct("!BBHI")


class ExchangeType(enum.IntEnum):
    """What a datagram of an exchange is."""

    REQUEST = 0
    ANSWER = 1
    REFUSAL = 2
    CHALLENGE = 3
    PROOF = 4


_TYPES: Final = {int(kind): kind for kind in ExchangeType}
_PAYLOAD_BYTES: Final = {
    ExchangeType.REFUSAL: 0,
    ExchangeType.CHALLENGE: TOKEN_BYTES,
    ExchangeType.PROOF: TOKEN_BYTES,
}


@dataclass(frozen=True, slots=True)
class ExchangeDatagram:
    """One datagram of an exchange.

    Args:
        type: What it is.
        id: The message id, 0 to 2**32 - 1.
        attempt: Which transmission of the request it is, or answers: 1 to 255.
        behind: How many ids before this one the oldest open request lies: below MAX_SPAN.
        payload: What it carries.
    """

    type: ExchangeType
    id: int
    attempt: int = 1
    behind: int = 0
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """Return the header and the payload."""
        first = VERSION << 4 | self.type
        return _HEADER.pack(first, self.attempt, self.behind, self.id) + self.payload


def parse_exchange(data: bytes) -> ExchangeDatagram:
    """Return what *data*, one whole datagram, says.

    Raises:
        PeerProtocolError: It is none of ours.
    """
    if len(data) < HEADER_BYTES:
        raise PeerProtocolError(f"{len(data)} bytes are no exchange; the header has {HEADER_BYTES}")
    first, attempt, behind, number = _HEADER.unpack_from(data)
    if first >> 4 != VERSION:
        raise PeerProtocolError(f"exchange of version {first >> 4}; this is version {VERSION}")
    kind = _TYPES.get(first & 0x0F)
    if kind is None:
        raise PeerProtocolError(f"no exchange has the type {first & 0x0F}")
    if not attempt:
        raise PeerProtocolError("attempts count from 1")
    if behind >= (MAX_SPAN if kind is ExchangeType.REQUEST else 1):
        raise PeerProtocolError(f"{kind.name} is {behind} behind")
    size = len(data) - HEADER_BYTES
    if size != _PAYLOAD_BYTES.get(kind, size):
        raise PeerProtocolError(f"{kind.name} with a payload of {size} bytes")
    return ExchangeDatagram(kind, number, attempt, behind, data[HEADER_BYTES:])
