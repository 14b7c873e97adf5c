"""Binding UNIX sockets to paths: whose the file is, who may use it, and when it goes.

A path stays behind when its process dies. So a stale one is replaced, but only if it is a socket
and nobody answers on it; and at the end only our own is removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from twistedsock.addresses import Address
from twistedsock.errors import BindError

DEFAULT_MODE = 0o600  # of the socket's file: connecting needs the right to write (unix(7))
ABSTRACT = "@"
LOCK_WAIT_S, LOCK_LOOK_S = 2.0, 0.01  # anybody may lock a folder such as /tmp, and never let go
# connect(2) to a path that a socket of another type serves, or one with a full backlog.
_ANSWERED = (0, errno.EPROTOTYPE, errno.EAGAIN, errno.EINPROGRESS)


@dataclass(frozen=True, slots=True)
class BoundPath:
    """The file of a bound socket: its path, and what tells it from another one there."""

    path: str
    device: int
    inode: int

    def remove(self) -> bool:
        """Remove the file if it is still ours; return whether nothing of ours is left."""
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the process has given up the right to
        return True


class PathSocket(socket.socket):
    """A listener's socket that takes its file with it when it is closed."""

    __slots__ = ("bound",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bound: BoundPath | None = None

    def close(self) -> None:
        """Close the socket, and remove its file if that is still ours.

        The file goes first: as long as the socket is open nobody takes it for a stale one, and
        its inode's number is given to no other file.
        """
        bound, self.bound = self.bound, None
        if bound is not None:
            bound.remove()
        super().close()


def name_of(path: str) -> str | bytes:
    """Return what bind(2) and connect(2) take for *path*: an abstract name begins with a zero."""
    return b"\0" + os.fsencode(path[1:]) if path.startswith(ABSTRACT) else path


def path_of(name: str | bytes) -> str:
    """Return the path, or ``@name``, that getsockname(2) or recvfrom(2) has told; may be empty."""
    text = os.fsdecode(name)
    return ABSTRACT + text[1:] if text.startswith("\0") else text


def bind_path(sock: socket.socket, address: Address, mode: int = DEFAULT_MODE) -> BoundPath | None:
    """Bind *sock* to the path of *address*; return its file, or None for an abstract name.

    Args:
        sock: A UNIX socket; the caller closes it, also on failure.
        address: With an absolute path or an abstract name.
        mode: The file's permissions, in force from the first moment: the umask is held around
            bind(2).

    Raises:
        BindError: The path is taken, or the system refused.
    """
    path = address.path
    if path.startswith(ABSTRACT):
        _bind(sock, address, mode)
        return None
    try:
        _bind(sock, address, mode)
    except BindError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        _remove_stale(sock, address)
        _bind(sock, address, mode)
    found = os.lstat(path)
    return BoundPath(path, found.st_dev, found.st_ino)


def _bind(sock: socket.socket, address: Address, mode: int) -> None:
    before = os.umask(~mode & 0o777)
    try:
        sock.bind(name_of(address.path))
    except OSError as error:
        raise BindError.from_os_error(address, error) from error
    finally:
        os.umask(before)


@contextmanager
def alone_at(path: str) -> Iterator[None]:
    """Keep other daemons from opening a socket in the folder of *path* at the same time.

    Between bind(2) and listen(2) a socket looks like a stale one. Where the folder cannot be
    read or locked, or somebody never lets go of it, nothing is kept.
    """
    try:
        fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # bind(2) tells, if it matters to that
        yield
        return
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    end = time.monotonic() + LOCK_WAIT_S
    while time.monotonic() < end:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_LOOK_S)
        except OSError:  # a file system without locks
            return
        else:
            return


def _remove_stale(sock: socket.socket, address: Address) -> None:
    path = address.path
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(address, "there is a file, and it is no socket", errno.EADDRINUSE)
    with socket.socket(sock.family, sock.type) as probe:
        probe.setblocking(False)
        number = probe.connect_ex(path)
    if number in _ANSWERED:
        raise BindError(address, "somebody serves it already (EADDRINUSE)", errno.EADDRINUSE)
    if number != errno.ECONNREFUSED:
        code = errno.errorcode.get(number, str(number))
        reason = f"there is a socket that cannot be tried: {os.strerror(number)} ({code})"
        raise BindError(address, reason, errno.EADDRINUSE)
    BoundPath(path, found.st_dev, found.st_ino).remove()
