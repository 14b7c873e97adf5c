"""The system's errors, in the words of a client: the tutorial's failures told apart."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from twistedsock.addresses import Address
from twistedsock.errors import (
    CannotResolve,
    CannotSend,
    ClientError,
    PeerClosed,
    Refused,
    TimedOut,
    Unreachable,
)

_RESETS = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
_GAI_CODES = {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}


def not_resolved(address: Address, error: OSError | UnicodeError | None = None) -> CannotResolve:
    """Return the error for a name that getaddrinfo(3), or a resolver in its place, did not find."""
    if not isinstance(error, OSError):
        return CannotResolve(address, "no address for this name", "EAI_NONAME")
    code = _GAI_CODES.get(error.errno or 0, "")
    return CannotResolve(address, error.strerror or str(error), code)


def not_connected(address: Address, number: int) -> ClientError:
    """Return the error for a connect(2) that failed with the errno *number*."""
    if number == errno.ECONNREFUSED:
        return Refused(address, *_told(number))
    if number == errno.ETIMEDOUT:
        return TimedOut(address, *_told(number))
    if number in _RESETS:  # it was there for a moment
        return PeerClosed(address, *_told(errno.ECONNRESET))
    return Unreachable(address, *_told(number))


def not_sent(address: Address, number: int) -> ClientError:
    """Return the error for a send(2) that failed with the errno *number*."""
    if number == errno.ECONNREFUSED:  # what came back to an earlier datagram
        return Refused(address, *_told(number))
    return CannotSend(address, *_told(number))


def not_received(address: Address, number: int) -> ClientError:
    """Return the error for a recv(2) that failed with the errno *number*."""
    return not_connected(address, number)


def best_of(failures: Sequence[ClientError]) -> ClientError:
    """Return what says most: that a host is there, rather than that there is no way."""
    for kind in (PeerClosed, Refused, TimedOut):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return failures[0]


def too_late(address: Address, what: str, timeout_s: float) -> TimedOut:
    """Return the error for *what*, such as ``no connection``, not having come in time."""
    return TimedOut(address, f"{what} within {timeout_s:g} s", "ETIMEDOUT")


def _told(number: int) -> tuple[str, str]:
    return os.strerror(number), errno.errorcode.get(number, str(number))
