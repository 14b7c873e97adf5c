"""What ``makefile`` returns without a buffer: a socket's bytes as an awaitable raw file.

As ``socket.SocketIO``. Each method that may wait returns a Deferred. Reads are done one after the
other, and so are writes. One ``recv`` that is cancelled takes nothing out of the socket; what
takes several here (lines, and all of the input) loses what came, for there is no buffer.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from twisted.internet.defer import Deferred, DeferredLock

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]  # Python 3.12

    from twistedsock.transports.awaited.awaitable import Socket

_T = TypeVar("_T")
_Line = TypeVar("_Line", bytes, str)
_Work = Callable[..., Coroutine[Any, Any, _T]]


class File(Generic[_Line]):
    """What all files have: turns, lines, and an end.

    Args:
        mode: As the file tells it.
    """

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.closed = False
        self._reads, self._writes = DeferredLock(), DeferredLock()

    def _reading(self, work: _Work[_T], *args: Any) -> Deferred[_T]:
        return self._reads.run(lambda: Deferred.fromCoroutine(work(*args)))

    def _writing(self, work: _Work[_T], *args: Any) -> Deferred[_T]:
        return self._writes.run(lambda: Deferred.fromCoroutine(work(*args)))

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    async def _readline(self, size: int | None) -> Any:
        raise NotImplementedError

    async def _write(self, data: Any) -> int | None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def readline(self, size: int | None = -1, /) -> Deferred[_Line]:
        """Fire with a line and its end, or at most *size* of it; empty at the end of input."""
        return self._reading(self._readline, size)

    def readlines(self, hint: int | None = -1, /) -> Deferred[list[_Line]]:
        """Fire with the lines up to the end of input, or until they have *hint* characters."""
        return self._reading(self._readlines, hint)

    async def _readlines(self, hint: int | None) -> list[Any]:
        lines: list[Any] = []
        size = 0
        while line := await self._readline(-1):
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint < size:
                break
        return lines

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Line:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def writelines(self, lines: Iterable[Any], /) -> Deferred[None]:
        """Write each of *lines*; their ends are not added."""
        return self._writing(self._writelines, lines)

    async def _writelines(self, lines: Iterable[Any]) -> None:
        self._check_open()
        for line in lines:
            await self._write(line)

    def close(self) -> Deferred[None]:
        """Write what is buffered, and let go of the socket; also if writing fails."""
        return self._writing(self._close)

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def seekable(self) -> bool:
        """Return False: a socket has no positions."""
        self._check_open()
        return False

    def isatty(self) -> bool:
        """Return False."""
        self._check_open()
        return False

    _no_seek = _no_tell = "seek"  # what is told of it

    def seek(self, *_: object) -> NoReturn:
        """Refuse: a socket has no positions."""
        raise io.UnsupportedOperation(self._no_seek)

    def tell(self) -> NoReturn:
        """Refuse, likewise."""
        raise io.UnsupportedOperation(self._no_tell)


class RawFile(File[bytes]):
    """A socket's bytes, unbuffered: each read is one ``recv``, each write one ``send``.

    Args:
        sock: Stays open as long as the file is.
        mode: Made of ``r`` and ``w``.
    """

    def __init__(self, sock: Socket, mode: str) -> None:
        super().__init__(mode if "b" in mode else mode + "b")
        self._sock: Socket | None = sock
        self._timed_out = False
        sock._io_refs += 1

    def __del__(self) -> None:
        self._let_go()

    def __repr__(self) -> str:
        return f"<twistedsock.RawFile mode={self.mode!r}>"

    def _let_go(self) -> None:
        sock, self._sock, self.closed = getattr(self, "_sock", None), None, True
        if sock is not None:
            sock._drop_file()

    async def _close(self) -> None:
        self._let_go()

    @property
    def name(self) -> int:
        """The descriptor; -1 once it is closed."""
        return -1 if self._sock is None else self._sock.fileno()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._open_socket().fileno()

    def readable(self) -> bool:
        """Return whether it is for reading."""
        self._open_socket("socket")
        return "r" in self.mode

    def writable(self) -> bool:
        """Return whether it is for writing."""
        self._open_socket("socket")
        return "w" in self.mode

    def _open_socket(self, what: str = "file") -> Socket:
        if self._sock is None:
            raise ValueError(f"I/O operation on closed {what}.")
        return self._sock

    def read(self, size: int | None = -1, /) -> Deferred[bytes | None]:
        """Fire with at most *size* bytes, or all up to the end; None if it may not wait."""
        return self._reading(self._read, size)

    def readall(self) -> Deferred[bytes | None]:
        """Fire with all bytes up to the end of input."""
        return self._reading(self._read, -1)

    def readinto(self, buffer: Buffer, /) -> Deferred[int | None]:
        """Receive into *buffer*; fire with how many bytes came; None if it may not wait."""
        return self._reading(self.receive_into, buffer)

    def write(self, data: Buffer, /) -> Deferred[int | None]:
        """Send *data*; fire with how many bytes were sent; None if it may not wait."""
        return self._writing(self._write, data)

    def flush(self) -> Deferred[None]:
        """Fire at once: nothing is buffered."""
        return self._writing(self._flush)

    async def _flush(self) -> None:
        self._check_open()

    async def receive_into(self, buffer: Any) -> int | None:
        """Receive into *buffer* in nobody's turn: what the buffers above do in their own."""
        sock = self._open_socket()
        if "r" not in self.mode:
            raise io.UnsupportedOperation("File or stream is not readable.")
        if self._timed_out:
            raise OSError("cannot read from timed out object")
        try:
            return await sock.recv_into(buffer)
        except TimeoutError:
            self._timed_out = True
            raise
        except BlockingIOError:
            return None

    async def receive(self, size: int) -> bytes | None:
        """Return what one ``recv`` of *size* has."""
        buffer = bytearray(size)
        count = await self.receive_into(buffer)
        return None if count is None else bytes(memoryview(buffer)[:count])

    async def _read(self, size: int | None) -> bytes | None:
        if size is not None and size >= 0:
            return await self.receive(size)
        chunks: list[bytes] = []
        while chunk := await self.receive(io.DEFAULT_BUFFER_SIZE):
            chunks.append(chunk)
        return chunk if chunk is None and not chunks else b"".join(chunks)

    async def _readline(self, size: int | None) -> bytes:
        self._check_open()
        line = bytearray()
        limit = -1 if size is None else size
        while (limit < 0 or len(line) < limit) and not line.endswith(b"\n"):
            byte = await self.receive(1)  # for what is after the line must stay in the socket
            if not byte:
                break
            line += byte
        return bytes(line)

    async def _write(self, data: Any) -> int | None:
        sock = self._open_socket()
        if "w" not in self.mode:
            raise io.UnsupportedOperation("File or stream is not writable.")
        try:
            return await sock.send(data)
        except BlockingIOError:
            return None

    send = _write
