"""Calls that take several steps, each of which may have to wait.

Each is called until it does not raise ``BlockingIOError``; what it has done so far it keeps.
Knows a non-blocking socket; never a reactor.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

LARGEST_SENDFILE_BYTES = 2**30  # os.sendfile takes no more on some platforms (bpo-38319)
FILE_BLOCK_BYTES = 8192  # as socket.sendfile reads where the kernel cannot
_FAILED = 0x8 | 0x10  # EPOLLERR and EPOLLHUP, and so POLLERR and POLLHUP


def has_news(sock: socket.socket, events: int) -> int:
    """Return which of *events* (poll(2)) are there, and POLLERR and POLLHUP in any case."""
    poll = select.poll()
    poll.register(sock, events)
    return sum(told for _, told in poll.poll(0))


class Connect:
    """Connects, and tells how it went.

    TCP is asked by connecting again, as Linux wants it: that also takes the socket out of its
    connecting state, so that it can be connected anew after a failure, as a blocking one can.
    """

    def __init__(self, sock: socket.socket, address: Any, name: str) -> None:
        self._sock = sock
        self._address = address
        self._is_ex = name == "connect_ex"  # which a wrong address is told of by its name
        self._asked = False
        self._again = sock.family in (socket.AF_INET, socket.AF_INET6)

    def __call__(self) -> None:
        """Connect, or go on with it."""
        if not self._asked or self._again:
            number = self._connect()
            if self._asked and number == errno.EISCONN:
                return
        elif has_news(self._sock, select.POLLOUT):
            number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            number = errno.EALREADY
        if number:
            error = OSError(number, os.strerror(number))
            self._asked = isinstance(error, BlockingIOError) and number != errno.EAGAIN
            raise error

    def _connect(self) -> int:
        try:
            if self._is_ex:
                return self._sock.connect_ex(self._address)
            self._sock.connect(self._address)
        except OSError as error:
            if error.errno is None or isinstance(error, socket.gaierror):
                raise
            return error.errno
        return 0


class SendAll:
    """Sends all of *data*, as ``socket.sendall``: once at least, for an empty datagram counts."""

    def __init__(self, sock: socket.socket, data: Any, flags: int) -> None:
        self._send = sock.send
        self._rest = memoryview(data).cast("B")
        self._flags = flags

    def __call__(self) -> None:
        """Send as much as goes."""
        while True:
            self._rest = self._rest[self._send(self._rest, self._flags) :]
            if not self._rest:
                return


class SendWhole:
    """Sends the rest as a blocking stream socket does: all, or as much as goes before an error.

    The error stays in the kernel for the next call to meet.

    Args:
        sock: The socket.
        flags: Of send(2).
        buffers: What is sent.
        sent: How many bytes of it were sent already.
    """

    def __init__(self, sock: socket.socket, flags: int, buffers: Sequence[Any], sent: int) -> None:
        self._sock, self._flags, self._sent = sock, flags, sent
        whole = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        self._rest = memoryview(whole).cast("B")[sent:]

    def __call__(self) -> int:
        """Send as much as goes; return how many bytes were sent in all."""
        while self._rest:
            if has_news(self._sock, 0) & _FAILED:
                break
            count = self._sock.send(self._rest, self._flags)
            self._sent += count
            self._rest = self._rest[count:]
        return self._sent


class ReceiveAll:
    """Receives until *buffer* is full, the peer has finished or an error comes (MSG_WAITALL).

    A non-blocking socket does not heed that flag (recv(2)).
    """

    def __init__(self, sock: socket.socket, buffer: memoryview, flags: int) -> None:
        self._sock, self._flags = sock, flags & ~socket.MSG_WAITALL
        self._buffer = buffer
        self.received = 0

    def __call__(self) -> int:
        """Receive as much as there is; return how many bytes there are."""
        while self.received < len(self._buffer):
            if self.received and has_news(self._sock, 0) & select.POLLERR:
                break  # the next call meets the error
            count = self._sock.recv_into(self._buffer[self.received :], 0, self._flags)
            if not count:
                break
            self.received += count
        return self.received


class SendFile:
    """Sends a file as ``socket.sendfile``: by os.sendfile, else by reading and sending.

    Leaves the file's position behind what was sent, also where it fails: ``finish`` does that.
    """

    def __init__(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> None:
        self._sock, self._file = sock, file
        self._start, self._count = offset, count
        self._sent = 0
        self._block: memoryview | None = None
        self._fd = -1  # sent by the kernel while there is one
        try:
            self._fd = file.fileno()
            size = os.fstat(self._fd).st_size
        except (AttributeError, io.UnsupportedOperation, OSError):
            self._read_instead()
            return
        self._empty = not size
        self._largest = min(count or size, LARGEST_SENDFILE_BYTES)

    def _read_instead(self) -> None:
        self._fd = -1
        self._empty = False
        if self._start:
            self._file.seek(self._start)

    def __call__(self) -> int:
        """Send as much as goes."""
        while not self._empty and self._fd >= 0:
            left = self._largest if self._count is None else self._count - self._sent
            if left <= 0:
                return self._sent
            try:
                offset = self._start + self._sent
                sent = os.sendfile(self._sock.fileno(), self._fd, offset, left)
            except BlockingIOError:
                raise
            except OSError:
                if self._sent:
                    raise
                self._read_instead()  # which the kernel cannot do with this kind of file
                break
            if not sent:
                return self._sent
            self._sent += sent
        while not self._empty:
            if not self._block:
                size = FILE_BLOCK_BYTES
                if self._count is not None:
                    size = min(size, self._count - self._sent)
                self._block = memoryview(self._file.read(size)) if size > 0 else None
                if not self._block:
                    break
            sent = self._sock.send(self._block)
            self._sent += sent
            self._block = self._block[sent:]
        return self._sent

    def finish(self) -> None:
        """Set the file's position."""
        if self._sent and hasattr(self._file, "seek"):
            self._file.seek(self._start + self._sent)
