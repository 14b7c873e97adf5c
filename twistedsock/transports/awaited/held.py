"""A socket held so that it never blocks: what of Python's ``socket.socket`` need not wait.

The life of the socket (opened, duplicated, given away, closed, forgotten), its options, names and
time-out. What waits is in ``awaitable``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import warnings
from types import TracebackType
from typing import Any, Self, SupportsIndex

from twistedsock.transports.awaited.readiness import loop_of
from twistedsock.transports.awaited.waiting import Lines

_LINGER = struct.Struct("ii")  # struct linger: on or off, seconds (socket(7))


class HeldSocket:
    """A socket whose descriptor is non-blocking, whatever its time-out.

    It is closed by ``close``, at the end of ``with`` or ``async with``, or when it is collected,
    with a ``ResourceWarning``. ``detach`` gives the descriptor away instead.

    Args:
        family: As of ``socket.socket``; -1 is AF_INET, or what *fileno* is.
        type: -1 is SOCK_STREAM, or what *fileno* is.
        proto: -1 is 0, or what *fileno* is.
        fileno: A descriptor to take over; by default a socket is opened.
        reactor: Tells when it is ready; by default the global one.

    Raises:
        OSError: It cannot be opened, or *fileno* is no open descriptor of a socket.
    """

    __slots__ = (
        "__weakref__", "_closed", "_io_refs", "_is_stream", "_is_unix", "_lines", "_reactor",
        "_sock", "_timeout",
    )  # fmt: skip

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
        *,
        reactor: Any = None,
    ) -> None:
        self._closed = True  # until there is something to close
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._sock = socket.socket(family, type, proto, fileno)
        # The module's default, or 0 with SOCK_NONBLOCK.
        self._timeout = self._sock.gettimeout()
        try:
            self._sock.setblocking(False)
        except BaseException:
            if fileno is not None:
                self._sock.detach()  # it stays the caller's
            self._sock.close()
            raise
        plain: Any = super(socket.socket, self._sock)  # whose numbers are no enumerations yet
        self._is_stream = plain.type == socket.SOCK_STREAM
        self._is_unix = plain.family == getattr(socket, "AF_UNIX", -1)
        self._lines = Lines(loop_of(reactor), self._sock.fileno())
        self._io_refs = 0  # files made of it; the last one closed closes it
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self.close()

    def __repr__(self) -> str:
        told = repr(self._sock).partition(" ")[2]
        return f"<twistedsock.Socket {told}"

    def __getstate__(self) -> object:
        raise TypeError(f"cannot pickle {self.__class__.__name__!r} object")

    def __del__(self) -> None:
        if getattr(self, "_sock", None) is not None and self._sock.fileno() != -1:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, 2, source=self)
            finally:  # it may be an error
                self._really_close()

    @property
    def family(self) -> socket.AddressFamily:
        """The address family."""
        return self._sock.family

    @property
    def type(self) -> socket.SocketKind:
        """The socket type."""
        return self._sock.type

    @property
    def proto(self) -> int:
        """The protocol."""
        return self._sock.proto

    @property
    def timeout(self) -> float | None:
        """The time-out in seconds; None: waits for ever."""
        return self._timeout

    def fileno(self) -> int:
        """Return the descriptor, or -1 after ``close`` or ``detach``. It is non-blocking."""
        return self._sock.fileno()

    def gettimeout(self) -> float | None:
        """Return the time-out in seconds; None: waits for ever; 0: never waits."""
        return self._timeout

    def settimeout(self, value: float | None, /) -> None:
        """Let what is asked from now on wait for *value* seconds.

        Args:
            value: None: for ever. 0: not at all; what would have to wait fails with
                ``BlockingIOError``. Else it fails with ``TimeoutError`` when so long has passed.
        """
        if value is None:
            if self._sock.fileno() == -1:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._timeout = None
            return
        try:
            self._sock.settimeout(value)  # which knows what may be one
            self._timeout = self._sock.gettimeout()
        finally:
            if self._sock.fileno() != -1:
                self._sock.settimeout(0)

    def setblocking(self, flag: bool, /) -> None:
        """Wait for ever, or not at all: ``settimeout(None)`` or ``settimeout(0)``."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Return whether anything waits here."""
        return self._timeout != 0

    def setsockopt(self, *args: Any) -> None:
        """Set an option: ``level, name, value``, or ``level, name, None, length``."""
        self._sock.setsockopt(*args)

    def getsockopt(self, *args: int) -> Any:
        """Return an option: ``level, name``, and the length where it is not a number."""
        return self._sock.getsockopt(*args)

    def getsockname(self) -> Any:
        """Return the own address."""
        return self._sock.getsockname()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return self._sock.getpeername()

    def listen(self, backlog: SupportsIndex | None = None, /) -> None:
        """Let connections come; *backlog* of them may wait to be accepted (listen(2))."""
        if backlog is None:
            self._sock.listen()
        else:
            self._sock.listen(backlog)  # type: ignore[arg-type]  # typeshed asks for an int

    def shutdown(self, how: int, /) -> None:
        """End input (SHUT_RD), output (SHUT_WR) or both (SHUT_RDWR); who waits is told."""
        self._sock.shutdown(how)

    def get_inheritable(self) -> bool:
        """Return whether child processes inherit the descriptor."""
        return self._sock.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Let child processes inherit the descriptor, or not."""
        self._sock.set_inheritable(inheritable)

    def dup(self) -> Self:
        """Return another socket on a duplicate of the descriptor, with the same time-out."""
        copy = self._sock.dup()
        twin = self.__class__(
            int(copy.family), int(copy.type), copy.proto, copy.detach(), reactor=self._reactor
        )
        twin._timeout = self._timeout
        return twin

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from here on; who waits fails (EBADF).

        It blocks again if this socket waited for ever, as one of ``socket.socket`` would.
        """
        self._closed = True
        if self._sock.fileno() == -1:
            return -1
        self._lines.loop.forget(self._lines)
        if self._timeout is None:
            self._sock.setblocking(True)
        fd = self._sock.detach()
        self._lines.end()
        return fd

    def close(self) -> None:
        """Close the socket, once every file made of it is closed too; who waits fails (EBADF)."""
        self._closed = True
        if self._io_refs <= 0:
            self._really_close()

    def _drop_file(self) -> None:
        """Take note that a file made of this socket is closed."""
        self._io_refs -= 1
        if self._closed:
            self.close()

    def _really_close(self) -> None:
        sock = self._sock
        if sock.fileno() == -1:
            return
        self._lines.loop.forget(self._lines)
        if self._lingers() and self._reactor.running:
            # close(2) waits then, non-blocking or not (socket(7), SO_LINGER).
            self._reactor.callInThread(os.close, sock.detach())
        else:
            sock.close()
        self._lines.end()

    def _lingers(self) -> bool:
        try:
            told = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
            on, seconds = _LINGER.unpack(told)
        except (OSError, struct.error):  # no socket at all, or not one with that option
            return False
        return bool(on and seconds)
