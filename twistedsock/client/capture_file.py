"""The file of a capture: what is written to it is whole blocks, or it is said why not.

Whoever opens it closes it.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from twistedsock.errors import TwistedsockError

STANDARD_OUTPUT = "-"
PATIENCE_S = 0.2  # between two looks at whether a pipe's reader is still waited for


class FileError(TwistedsockError):
    """A capture's file cannot be opened or written.

    Attributes:
        errno: The system's error number.
    """

    def __init__(self, name: str, cause: OSError) -> None:
        self.errno = cause.errno or 0
        code = errno.errorcode.get(self.errno, str(self.errno))
        super().__init__(f"{name}: {os.strerror(self.errno)} ({code})")


class CaptureFile:
    """A file, pipe or device that a capture goes to; ``open_capture_file`` makes it.

    A pipe that nobody reads holds up whoever writes, but no signal: none is waited for longer
    than *is_wanted* allows.

    Args:
        descriptor: Is closed with it.
        name: What it is called in errors.
        is_own: Whether it was opened for the capture alone, so that it may be cut.
        is_wanted: Asked while a pipe takes nothing; once it says no, the rest is dropped.
        made: Its path where it was not there before; then it goes again if nothing is written.

    Attributes:
        written_bytes: All but what was dropped.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        is_own: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
        made: str | bytes = "",
    ) -> None:
        self._fd = descriptor
        self._made = made
        self._name = name
        self._is_wanted = is_wanted
        self._is_own = is_own
        self._is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._is_abandoned = False
        self.written_bytes = 0

    def empty(self) -> None:
        """Drop what it had before; what is not our own file is left as it is.

        Raises:
            FileError: The system refuses it.
        """
        if self._is_own and self._is_regular:
            try:
                os.ftruncate(self._fd, 0)
            except OSError as error:
                raise FileError(self._name, error) from error

    def write(self, pieces: Sequence[memoryview | bytes]) -> None:
        """Write all of *pieces*, at most IOV_MAX.

        What a full disk leaves of the last ones is taken back, where the file is one.

        Raises:
            FileError: The system refuses it. Write nothing more.
        """
        size = sum(map(len, pieces))
        try:
            if not self._is_regular:
                self._write_slowly(b"".join(pieces))
            elif (done := os.writev(self._fd, pieces)) < size:
                left = memoryview(b"".join(pieces))[done:]
                while left:  # why it wrote less, the next call tells
                    left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._take_back()
            raise FileError(self._name, error) from error
        self.written_bytes += size

    def _write_slowly(self, data: bytes) -> None:
        """Write to a pipe or a device, so much at a time as surely does not block (pipe(7))."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        left = memoryview(data)
        while left and not self._is_abandoned:
            if poll.poll(PATIENCE_S * 1000):
                with suppress(BlockingIOError):  # whoever shares it has made it non-blocking
                    left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
            else:
                self._is_abandoned = not self._is_wanted()

    def _take_back(self) -> None:
        if self._is_own and self._is_regular:
            with suppress(OSError):
                os.ftruncate(self._fd, self.written_bytes)

    def close(self) -> None:
        """Close it; an empty file, which is no capture, is left behind by nobody."""
        os.close(self._fd)
        if self._made and not self.written_bytes:
            with suppress(OSError):
                os.unlink(self._made)


def open_capture_file(
    name: str | os.PathLike[str], is_wanted: Callable[[], bool] = lambda: True
) -> CaptureFile:
    """Return the file *name*, not emptied yet; ``-`` is standard output. The caller closes it.

    A FIFO is waited for until somebody reads it.

    Raises:
        FileError: It cannot be opened.
    """
    path = os.fspath(name)
    try:
        if path == STANDARD_OUTPUT:
            return CaptureFile(os.dup(1), "standard output", False, is_wanted)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            made = os.open(path, flags | os.O_EXCL, 0o644)
        except FileExistsError:
            return CaptureFile(os.open(path, flags, 0o644), path, True, is_wanted)
        return CaptureFile(made, path, True, is_wanted, path)
    except OSError as error:
        raise FileError(path, error) from error
