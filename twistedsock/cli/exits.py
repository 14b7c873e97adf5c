"""What the subcommands end with: sysexits.h, as far as it has a word. The helps say what for."""

from __future__ import annotations

import errno

from twistedsock.client.pipe import InputError, OutputError
from twistedsock.errors import (
    BindError,
    CannotResolve,
    CannotSend,
    CodecError,
    OptionError,
    PeerClosed,
    PeerProtocolError,
    Refused,
    TimedOut,
    TwistedsockError,
    Unreachable,
)

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_NOHOST, EX_UNAVAILABLE, EX_OSERR = 64, 65, 66, 68, 69, 71
EX_CANTCREAT, EX_NOPERM, EX_CONFIG = 73, 77, 78
EX_INTERRUPTED = 128 + 2  # by SIGINT, as shells tell it

EXITS: dict[type[TwistedsockError], int] = {
    InputError: EX_DATAERR,
    CannotResolve: EX_NOHOST,
    Refused: EX_UNAVAILABLE,
    Unreachable: EX_OSERR,
    OptionError: EX_OSERR,
    BindError: EX_OSERR,
    PeerClosed: 72,
    OutputError: EX_CANTCREAT,
    CannotSend: 74,
    TimedOut: 75,
    PeerProtocolError: 76,
    CodecError: 76,
}


def exit_of(error: TwistedsockError) -> int:
    """Return the exit status for *error*, one of ``EXITS``: another where a right is missing."""
    return EX_NOPERM if is_right_missing(error) else EXITS[type(error)]


def is_right_missing(error: TwistedsockError) -> bool:
    """Return whether a socket, or a socket option, was refused for want of a right."""
    if isinstance(error, OptionError | BindError):
        return error.errno in (errno.EPERM, errno.EACCES)
    return isinstance(error, Unreachable) and "CAP_NET_RAW" in error.text
