"""Between a datagram client's shells and its core: addresses, values and failures.

Sans-I/O: knows addresses and codecs, and the words for what went wrong.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from twistedsock.addresses import Address, parse_address
from twistedsock.client.exchanges import Outcome
from twistedsock.client.failures import too_late
from twistedsock.errors import AddressError, FrameError, PeerClosed, Refused
from twistedsock.wire.codecs import Codec
from twistedsock.wire.exchange import MAX_PAYLOAD_BYTES

# What send(2) tells of a datagram that another try may get through: it counts as lost.
DROPPED: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM})


def datagram_address(address: str | Address) -> Address:
    """Return the address of a datagram server.

    Raises:
        AddressError: *address* is not of the grammar, or no host and port over UDP.
    """
    found = parse_address(address) if isinstance(address, str) else address
    if found.scheme != "udp" or found.host == "*" or not found.port:
        raise AddressError(f"{found}: a datagram server is one host and port over udp")
    return found


def payload_of(message: Any, codec: Codec) -> bytes:
    """Return the payload that carries *message*.

    Raises:
        CodecError: *codec* cannot write it.
        FrameError: It does not fit a datagram.
    """
    payload = codec.encode(message)
    if len(payload) > MAX_PAYLOAD_BYTES:
        size, limit = len(payload), MAX_PAYLOAD_BYTES
        raise FrameError(f"a request of {size} bytes does not fit a datagram; the limit is {limit}")
    return payload


def value_of(outcome: Outcome, address: Address, codec: Codec) -> Any:
    """Return the answer, as the value that it says.

    Raises:
        TimedOut: None came in time.
        Refused: The server said that it will not answer.
        CodecError: *codec* cannot read it.
    """
    if outcome.kind == "timed_out":
        raise too_late(address, "no answer", float(f"{outcome.waited_s:.3g}"))
    if outcome.kind == "refused":
        raise Refused(address, "the service could not answer the request")
    return codec.decode(outcome.payload)


def closed(address: Address) -> PeerClosed:
    """Return the error for a request whose client is closed."""
    return PeerClosed(address, "the client is closed", "EBADF")
