"""What ``makefile`` returns for bytes: a raw file with a buffer for each direction.

As ``io.BufferedReader``, ``io.BufferedWriter`` and ``io.BufferedRWPair``, awaitable. What was read
and not yet asked for, and what was written and not yet sent, survives a cancellation.
"""

from __future__ import annotations

import errno
import io
import warnings
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twistedsock.transports.awaited.files import File, RawFile

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]  # Python 3.12


class BinaryFile(File[bytes]):
    """A socket's bytes, buffered.

    Args:
        raw: Is read and written, and closed with this.
        size: Bytes that are asked for at once, and that are kept before they are sent.
    """

    _no_seek = "File or stream is not seekable."

    def __init__(self, raw: RawFile, size: int) -> None:
        super().__init__(raw.mode)
        self.raw = raw
        self._size = size
        self._pending = bytearray()  # read, and not yet asked for
        self._unsent = bytearray()
        self._readable, self._writable = raw.readable(), raw.writable()

    def __del__(self) -> None:
        if getattr(self, "_unsent", None):
            text = f"{self!r} was not closed: {len(self._unsent)} bytes are lost"
            warnings.warn(text, ResourceWarning, 2, source=self)

    def __repr__(self) -> str:
        return f"<twistedsock.BinaryFile mode={self.mode!r}>"

    @property
    def name(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self.raw.name

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.raw.fileno()

    def readable(self) -> bool:
        """Return whether it is for reading."""
        return self.raw.readable()

    def writable(self) -> bool:
        """Return whether it is for writing."""
        return self.raw.writable()

    def _check_readable(self, operation: str) -> None:
        if not self._readable:
            raise io.UnsupportedOperation(operation)
        self._check_open()

    def _check_writable(self, operation: str) -> None:
        if not self._writable:
            raise io.UnsupportedOperation(operation)
        if self.closed:
            raise ValueError(f"{operation} to closed file")

    def read(self, size: int | None = -1, /) -> Deferred[bytes | None]:
        """Fire with *size* bytes, or fewer if the input ends before; -1: all of it."""
        return self._reading(self._read, size)

    def read1(self, size: int = -1, /) -> Deferred[bytes]:
        """Fire with what is buffered, else with what one ``recv`` brings; at most *size*."""
        return self._reading(self.take_some, size)

    def peek(self, size: int = 0, /) -> Deferred[bytes]:
        """Fire with what comes next, without taking it; at least one byte but at the end."""
        return self._reading(self._peek)

    def readinto(self, buffer: Buffer, /) -> Deferred[int | None]:
        """Fill *buffer*; fire with how many bytes there were before the end of input."""
        return self._reading(self._readinto, buffer, self._read)

    def readinto1(self, buffer: Buffer, /) -> Deferred[int | None]:
        """As ``readinto``, with at most one ``recv``."""
        return self._reading(self._readinto, buffer, self.take_some)

    def write(self, data: Buffer, /) -> Deferred[int]:
        """Keep or send *data*; fire with its length once it is one or the other."""
        return self._writing(self.put, data)

    def flush(self) -> Deferred[None]:
        """Send what is kept."""
        return self._writing(self.flush_now)

    async def _fill(self, size: int = 0) -> bytes | None:
        """Read once; return what came: ``b""`` at the end, None if it may not wait."""
        data = await self.raw.receive(max(self._size, size))
        if data:
            self._pending += data
        return data

    def _take(self, size: int) -> bytes:
        data = bytes(memoryview(self._pending)[:size])
        del self._pending[:size]
        return data

    async def _read(self, size: int | None) -> bytes | None:
        self._check_readable("read")
        if size is not None and size < -1:
            raise ValueError("read length must be non-negative or -1")
        if size is None or size == -1:
            while came := await self._fill():
                pass
            size = len(self._pending)
        else:
            came = b""
            while len(self._pending) < size:
                came = await self._fill(size - len(self._pending))
                if not came:
                    break
        return None if came is None and not self._pending else self._take(size)

    async def take_some(self, size: int = -1) -> bytes:
        """Return what ``read1`` fires with, in nobody's turn: for a text file's own turn."""
        self._check_readable("read1")
        if size < 0:
            size = self._size
        if size and not self._pending:
            await self._fill()
        return self._take(size)

    async def _peek(self) -> bytes:
        self._check_readable("peek")
        if not self._pending:
            await self._fill()
        return bytes(self._pending)

    async def _readinto(self, buffer: Any, read: Any) -> int | None:
        view = memoryview(buffer).cast("B")
        data = await read(len(view))
        if data is None:
            return None
        view[: len(data)] = data
        return len(data)

    async def _readline(self, size: int | None) -> bytes:
        self._check_readable("read")
        limit = -1 if size is None else size
        searched = 0
        while True:
            end = self._pending.find(b"\n", searched) + 1
            if not end and (limit < 0 or len(self._pending) < limit):
                searched = len(self._pending)
                if await self._fill():
                    continue
            end = end or len(self._pending)
            return self._take(end if limit < 0 else min(end, limit))

    async def put(self, data: Any) -> int:
        """Do what ``write`` does, in nobody's turn."""
        try:
            view = memoryview(data).cast("B")
        except TypeError:
            kind = type(data).__name__
            raise TypeError(f"a bytes-like object is required, not {kind!r}") from None
        self._check_writable("write")
        if len(self._unsent) + len(view) > self._size:
            await self.flush_now()
            rest = memoryview(bytes(view))
            while len(rest) > self._size:
                rest = rest[await self._send(rest) :]
            self._unsent += rest
        else:
            self._unsent += view
        return len(view)

    _write = put

    async def _send(self, data: Any) -> int:
        sent = await self.raw.send(data)
        if sent is None:
            text = "write could not complete without blocking"
            raise BlockingIOError(errno.EAGAIN, text, 0)
        return sent

    async def flush_now(self) -> None:
        """Do what ``flush`` does, in nobody's turn."""
        if self.closed:
            raise ValueError("flush of closed file")
        while self._unsent:
            del self._unsent[: await self._send(bytes(self._unsent))]

    async def _close(self) -> None:
        if self.closed:
            return
        try:
            await self.flush_now()
        finally:
            self.closed = True
            self._unsent.clear()
            self.raw._let_go()
