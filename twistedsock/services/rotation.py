"""A file that is set aside when it is full: FILE becomes FILE.1, that FILE.2, and so on."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

MODE = 0o600  # what passes on a wire is nobody else's affair


class RotatedFile:
    """A file that only whole pieces are written to.

    Whatever stands there when it is opened is set aside, never written to.

    Args:
        path: Of the file; those that were set aside stand beside it.
        keep: How many of these there are at most; the oldest goes.

    Attributes:
        size: Bytes that are in it; 0 while it is not open.
    """

    def __init__(self, path: str, keep: int) -> None:
        self.path = path
        self.keep = keep
        self.size = 0
        self._fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether what is written next goes into the same file as before."""
        return self._fd is not None

    def open(self) -> None:
        """Begin a new file; raise OSError where that cannot be."""
        self.close()
        self._set_aside()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)

    def write(self, data: bytes) -> None:
        """Append all of *data*, and open the file where it is not; or raise OSError.

        What a full disk took of it is cut off again, so that the file ends with a whole piece.
        """
        if self._fd is None:
            self.open()
        assert self._fd is not None
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._cut()
            raise
        self.size += len(data)

    def close(self) -> None:
        """End the file; what is written next goes into a new one."""
        if self._fd is not None:
            fd, self._fd, self.size = self._fd, None, 0
            with suppress(OSError):  # it has taken all that was written
                os.close(fd)

    def _cut(self) -> None:
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        except OSError:  # it now ends within a piece, and nothing can follow that
            self.close()

    def _set_aside(self) -> None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", self.path)
        if not found.st_size:
            os.unlink(self.path)
            return
        for number in range(self.keep, 0, -1):
            newer = f"{self.path}.{number - 1}" if number > 1 else self.path
            with suppress(FileNotFoundError):
                os.replace(newer, f"{self.path}.{number}")
