"""What ``makefile`` returns for text: a buffered file, its encoding and its line ends.

As ``io.TextIOWrapper``, awaitable. Decoded text that was not yet asked for survives a
cancellation.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred

from twistedsock.transports.awaited.buffered import BinaryFile
from twistedsock.transports.awaited.files import File

CHUNK_BYTES = 8192  # decoded, or kept before they are written, at once
_WITHOUT_MARK = {
    name: f"{name}-{'le' if sys.byteorder == 'little' else 'be'}" for name in ("utf-16", "utf-32")
}


class TextFile(File[str]):
    """A socket's text.

    Args:
        buffer: Is read and written, and closed with this.
        mode: As the file tells it.
        encoding: None: the locale's.
        errors: What is done with bytes or text that cannot be translated; None: ``strict``.
        newline: As of ``open``: None: any line end is read as ``"\\n"``; ``""``: any, as it is;
            else this one alone. Written lines end as it says; None and ``""``: as the text does.
    """

    _no_seek = _no_tell = "underlying stream is not seekable"

    def __init__(
        self,
        buffer: BinaryFile,
        mode: str,
        encoding: str | None,
        errors: str | None,
        newline: str | None,
    ) -> None:
        super().__init__(mode)
        self.buffer = buffer
        # The original judges the arguments, and says what the locale's encoding is.
        with io.TextIOWrapper(io.BytesIO(), encoding, errors, newline) as judge:
            self.encoding, self.errors = judge.encoding, judge.errors or "strict"
        self.line_buffering = self.write_through = False
        self._newline = newline
        self._universal = not newline
        decoder = codecs.getincrementaldecoder(self.encoding)(self.errors)
        self._decoder: Any = decoder
        if self._universal:
            self._decoder = io.IncrementalNewlineDecoder(decoder, newline is None)
        # Nothing says that this is where the stream begins, so the original writes no mark there.
        encoding = codecs.lookup(self.encoding).name
        written = _WITHOUT_MARK.get(encoding, encoding)
        self._encoder = codecs.getincrementalencoder(written)(self.errors)
        self._written_newline = os.linesep if newline is None else newline or "\n"
        self._text = ""  # decoded, and not yet asked for
        self._unwritten = bytearray()  # encoded
        self._readable, self._writable = buffer.readable(), buffer.writable()

    def __del__(self) -> None:
        if getattr(self, "_unwritten", None):
            self.buffer._unsent += self._unwritten  # which warns of it

    def __repr__(self) -> str:
        return f"<twistedsock.TextFile mode={self.mode!r} encoding={self.encoding!r}>"

    @property
    def name(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self.buffer.name

    @property
    def newlines(self) -> Any:
        """The line ends that were met so far, where any is one."""
        return getattr(self._decoder, "newlines", None)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.buffer.fileno()

    def readable(self) -> bool:
        """Return whether it is for reading."""
        return self.buffer.readable()

    def writable(self) -> bool:
        """Return whether it is for writing."""
        return self.buffer.writable()

    def read(self, size: int | None = -1, /) -> Deferred[str]:
        """Fire with *size* characters, or fewer if the input ends before; -1: all of it."""
        return self._reading(self._read, size)

    def write(self, text: str, /) -> Deferred[int]:
        """Keep or send *text*; fire with its length once it is one or the other."""
        return self._writing(self._write, text)

    def flush(self) -> Deferred[None]:
        """Send what is kept."""
        return self._writing(self._flush)

    async def _prepare_to_read(self) -> None:
        self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation("not readable")
        if self._unwritten:
            await self._pass_on()

    async def _fill(self) -> bool:
        """Decode what one read brings; return False at the end of input."""
        data = await self.buffer.take_some(CHUNK_BYTES)
        self._text += self._decoder.decode(data, final=not data)
        return bool(data)

    def _take(self, size: int) -> str:
        taken, self._text = self._text[:size], self._text[size:]
        return taken

    async def _read(self, size: int | None) -> str:
        await self._prepare_to_read()
        whole = size is None or size < 0
        parts, length = [self._text], len(self._text)
        try:
            while whole or length < size:  # type: ignore[operator]  # it is a number then
                self._text = ""
                more = await self._fill()
                parts.append(self._text)
                length += len(self._text)
                if not more:
                    break
        finally:
            self._text = "".join(parts)  # also if it is cancelled
        return self._take(length if whole else size)  # type: ignore[arg-type]

    def _line_end(self, start: int) -> int:
        """Return where the first line ends that ends after *start*, or -1."""
        if self._newline == "":
            found = [self._text.find(end, start) for end in ("\r", "\n")]
            ends = [at for at in found if at >= 0]
            if not ends:
                return -1
            return min(ends) + (2 if self._text.startswith("\r\n", min(ends)) else 1)
        newline = self._newline or "\n"
        at = self._text.find(newline, max(0, start - len(newline) + 1))
        return at + len(newline) if at >= 0 else -1

    async def _readline(self, size: int | None) -> str:
        await self._prepare_to_read()
        limit = -1 if size is None else size
        searched = 0
        while (end := self._line_end(searched)) < 0:
            searched = len(self._text)
            if 0 <= limit <= searched or not await self._fill():
                end = self._line_end(searched)  # the last decoding may have brought one
                break
        if end < 0:
            end = len(self._text)
        return self._take(end if limit < 0 else min(end, limit))

    async def _write(self, text: Any) -> int:
        self._check_open()
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"write() argument must be str, not {kind}")
        if not self._writable:
            raise io.UnsupportedOperation("not writable")
        told = text
        if self._written_newline != "\n":
            told = text.replace("\n", self._written_newline)
        self._unwritten += self._encoder.encode(told)
        if len(self._unwritten) > CHUNK_BYTES:
            await self._pass_on()
        return len(text)

    async def _pass_on(self) -> None:
        data = bytes(self._unwritten)
        self._unwritten.clear()
        await self.buffer.put(data)

    async def _flush(self) -> None:
        self._check_open()
        if self._unwritten:
            await self._pass_on()
        await self.buffer.flush_now()

    async def _close(self) -> None:
        if self.closed:
            return
        try:
            if self._unwritten:
                await self._pass_on()
        finally:
            self.closed = True
            await self.buffer._close()
