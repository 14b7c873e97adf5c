"""The exception tree, and the closed set of words for how a session ends.

Knows nothing else: every other room may import this one.

    TwistedsockError
    ├── ConfigError          the settings are wrong; carries every problem found
    ├── PluginError          a service plug-in is missing, broken or breaks the contract
    ├── AddressError         an address string is not of the grammar (also a ValueError)
    ├── UnitError            a duration, size or rate is malformed (also a ValueError)
    ├── OptionError          a socket option is unknown, does not fit or was refused
    ├── BindError            a listener could not be opened
    ├── FrameError           a message cannot be put into a frame (also a ValueError)
    ├── CodecError           a value cannot be a message, or a message says none (also a ValueError)
    ├── PacketError          bytes are no packet of a protocol (also a ValueError)
    ├── FilterError          a text is no capture filter (also a ValueError)
    ├── PeerProtocolError    the peer broke the framing
    ├── SessionClosed        the session ended while something waited on it
    └── ClientError          a client could not reach, tell or hear its peer
        ├── CannotResolve    no address for that name
        ├── Refused          nobody listens there
        ├── Unreachable      no way to that address
        ├── TimedOut         no answer in time
        ├── CannotSend       what was sent could not go out
        └── PeerClosed       the peer has finished, or reset the connection
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

MAX_TOLD_CHARACTERS = 200  # of a text that may be very long, in the line that says what is wrong


class CloseReason(enum.StrEnum):
    """Why a session ended: the same word in logs, hooks and metrics."""

    PEER_CLOSED = "peer_closed"
    PEER_RESET = "peer_reset"
    CLOSED = "closed"
    IDLE_TIMEOUT = "idle_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    SESSION_TIMEOUT = "session_timeout"
    WRITE_TIMEOUT = "write_timeout"
    LIMIT = "limit"
    REFUSED = "refused"
    PROTOCOL_ERROR = "protocol_error"
    SERVICE_ERROR = "service_error"
    EVICTED = "evicted"
    SHUTDOWN = "shutdown"
    SHUTDOWN_ABORTED = "shutdown_aborted"
    TRANSPORT_ERROR = "transport_error"


class TwistedsockError(Exception):
    """Everything that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings: where it stands, and what would be right.

    Args:
        source: The file or flag that it came from; empty when made by a program.
        path: The key path, such as ``services.echo.limits.idle_timeout``; may be empty.
        message: What is wrong and what would be right, in one line.
    """

    source: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.path, self.message) if part)


class ConfigError(TwistedsockError):
    """The settings are wrong. ``problems`` holds all of it, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PluginError(TwistedsockError):
    """A service plug-in is missing, cannot be imported or breaks the contract."""


class AddressError(TwistedsockError, ValueError):
    """A text is not an address of the grammar."""


class UnitError(TwistedsockError, ValueError):
    """A text is not a duration, size or rate."""


class OptionError(TwistedsockError):
    """A socket option is unknown, does not fit its socket, or the kernel refused it.

    Attributes:
        option: Its name as it was written; empty where the text does not begin with it.
        errno: The kernel's error number; None where it was not asked.
        report: What became of the options that were set before it; None where none was.
    """

    def __init__(self, text: str, option: str = "", number: int | None = None) -> None:
        self.option = option
        self.errno = number
        self.report: object = None  # a sockopts.Report, of a floor above
        super().__init__(text)


class BindError(TwistedsockError):
    """A listener could not be opened; nothing of it is left behind.

    Attributes:
        address: The address as the operator wrote it.
        errno: The system's error number, or None where a name did not resolve.
    """

    def __init__(self, address: object, reason: str, number: int | None = None) -> None:
        self.address = str(address)
        self.errno = number
        super().__init__(f"{self.address}: {reason}")

    @classmethod
    def from_os_error(cls, address: object, error: OSError) -> BindError:
        """Return the error for *address* that tells *error* with its code and its cure."""
        number = error.errno
        if number is None or number < 0:  # a resolver's numbers are negative and not errno's
            return cls(address, error.strerror or str(error))
        code = errno.errorcode.get(number, str(number))
        hint = _BIND_HINTS.get(number)
        reason = f"{os.strerror(number)} ({code})"
        return cls(address, f"{reason}; {hint}" if hint else reason, number)

    @property
    def is_permission(self) -> bool:
        """True where the process lacks the right, rather than the address being unavailable."""
        return self.errno in (errno.EACCES, errno.EPERM)


_BIND_HINTS = {
    errno.EADDRINUSE: "another listener has it",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE or root",
}


class FrameError(TwistedsockError, ValueError):
    """A message cannot be put into a frame, such as one with a line feed into a line."""


class CodecError(TwistedsockError, ValueError):
    """A value cannot be written in its codec, or a message cannot be read in it."""


class PacketError(TwistedsockError, ValueError):
    """Bytes are no packet of a protocol, or a value has no place in one.

    Attributes:
        protocol: Whose: the name of the module of ``wire`` that says so.
        text: What is wrong and what would be right, without the protocol.
    """

    def __init__(self, protocol: str, text: str) -> None:
        self.protocol = protocol
        self.text = text
        super().__init__(f"{protocol}: {text}")


class FilterError(TwistedsockError, ValueError):
    """A text is no capture filter.

    Attributes:
        expression: The text as it was written.
        position: Where in it the fault is, in characters from its start.
    """

    def __init__(self, expression: str, position: int, text: str) -> None:
        self.expression = expression
        self.position = position
        told = repr(expression)
        if len(expression) > MAX_TOLD_CHARACTERS:  # what is around the fault
            start = max(0, position - MAX_TOLD_CHARACTERS // 2)
            part = expression[start : start + MAX_TOLD_CHARACTERS]
            before, behind = start > 0, start + len(part) < len(expression)
            told = f"{'...' * before}{part!r}{'...' * behind}"
        super().__init__(f"{told}, character {position + 1}: {text}")


class PeerProtocolError(TwistedsockError):
    """The peer broke the framing.

    Attributes:
        completed: The messages that were whole before the fault; they are still to be handled.
    """

    def __init__(self, message: str, completed: Sequence[bytes] = ()) -> None:
        super().__init__(message)
        self.completed = list(completed)


class SessionClosed(TwistedsockError):
    """The session ended while something waited on it. ``reason`` tells why."""

    def __init__(self, reason: CloseReason) -> None:
        self.reason = reason
        super().__init__(f"the session ended: {reason}")


class ClientError(TwistedsockError):
    """A client could not reach, tell or hear its peer.

    Attributes:
        address: The peer, as the caller wrote it.
        code: The name of the system's error, such as ``ECONNREFUSED`` or ``EAI_NONAME``; empty
            where no system call failed.
        text: What the system says of it.
    """

    def __init__(self, address: object, text: str, code: str = "") -> None:
        self.address = str(address)
        self.text = text
        self.code = code
        super().__init__(f"{self.address}: {text} ({code})" if code else f"{self.address}: {text}")


class CannotResolve(ClientError):
    """The name has no address."""


class Refused(ClientError):
    """The host is there and nobody listens at that port or path, or the service refuses."""


class Unreachable(ClientError):
    """There is no way to that address, or no right to use it."""


class TimedOut(ClientError):
    """What was waited for did not come in time."""


class CannotSend(ClientError):
    """What was sent could not go out: our side is closed, or the kernel refused it."""


class PeerClosed(ClientError):
    """The peer has finished sending, or reset the connection; nothing more will come."""
