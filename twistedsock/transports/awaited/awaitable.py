"""An awaitable socket: the calls of Python's own ``socket.socket`` that may have to wait.

Each returns a Deferred, to be awaited or given callbacks, that fires with what the original
returns or fails with what it raises; it never raises itself. Calls in one direction are made in
the order of asking. What does not wait is in ``held``.
"""

from __future__ import annotations

import errno
import io
import operator
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from twistedsock.transports.awaited.attempts import (
    Connect,
    ReceiveAll,
    SendAll,
    SendFile,
    SendWhole,
)
from twistedsock.transports.awaited.buffered import BinaryFile
from twistedsock.transports.awaited.files import RawFile
from twistedsock.transports.awaited.held import HeldSocket
from twistedsock.transports.awaited.lookups import needs_resolving, resolve
from twistedsock.transports.awaited.text import TextFile
from twistedsock.transports.awaited.waiting import Unfinished

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined]  # Python 3.12

_OOB = socket.MSG_OOB
_ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0)
_HAVE_ERRQUEUE = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_PACKET", -1))
_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)
_WAITALL = getattr(socket, "MSG_WAITALL", 0)


class Socket(HeldSocket):
    """A socket as Python's own, on any reactor: what blocks there is awaited here.

    Time-outs, cancellation and ``close`` end what waits: with ``TimeoutError``, with
    ``CancelledError`` (leaving the data to whoever asks next), and with ``OSError`` (EBADF).
    """

    __slots__ = ()

    def accept(self) -> Deferred[tuple[Socket, Any]]:
        """Fire with the socket of the next connection, and the peer's address (accept(2))."""
        return self._lines.reads.run(self, self._timeout, self._accept, ())

    def _accept(self) -> tuple[Socket, Any]:
        listener: Any = self._sock  # whose accept() makes a socket of its own, only to be undone
        fd, peer = listener._accept()
        kind = int(listener.family), int(listener.type), listener.proto
        try:
            return Socket(*kind, fileno=fd, reactor=self._reactor), peer
        except BaseException:
            os.close(fd)
            raise

    def recv(self, bufsize: int, flags: int = 0, /) -> Deferred[bytes]:
        """Fire with at most *bufsize* bytes; ``b""``: the peer has finished (recv(2))."""
        if flags:
            if self._fills(flags, bufsize):
                buffer = bytearray(bufsize)
                whole = ReceiveAll(self._sock, memoryview(buffer), flags)
                return self._read(flags, lambda: bytes(memoryview(buffer)[: whole()]))
            return self._read(flags, self._sock.recv, bufsize, flags)
        return self._lines.reads.run(self, self._timeout, self._sock.recv, (bufsize,))

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> Deferred[int]:
        """Receive into *buffer*, at most *nbytes* if not 0; fire with how many bytes came."""
        if flags and isinstance(buffer, bytearray | memoryview):
            view = memoryview(buffer).cast("B")
            size = nbytes or len(view)
            if self._fills(flags, size, len(view)):
                return self._read(flags, ReceiveAll(self._sock, view[:size], flags))
        return self._read(flags, self._sock.recv_into, buffer, nbytes, flags)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Deferred[tuple[bytes, Any]]:
        """Fire with a datagram, cut at *bufsize*, and the sender's address (recv(2))."""
        return self._read(flags, self._sock.recvfrom, bufsize, flags)

    def recvfrom_into(
        self, buffer: Buffer, nbytes: int = 0, flags: int = 0
    ) -> Deferred[tuple[int, Any]]:
        """Receive a datagram into *buffer*; fire with its length and the sender's address."""
        return self._read(flags, self._sock.recvfrom_into, buffer, nbytes, flags)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> Deferred[tuple[bytes, list[tuple[int, int, bytes]], int, Any]]:
        """Fire with data, ancillary data, flags and the sender's address (recv(2), cmsg(3))."""
        return self._read(flags, self._sock.recvmsg, bufsize, ancbufsize, flags)

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> Deferred[tuple[int, list[tuple[int, int, bytes]], int, Any]]:
        """As ``recvmsg``, into *buffers*; fire with how many bytes came, and the rest."""
        return self._read(flags, self._sock.recvmsg_into, buffers, ancbufsize, flags)

    def _read(self, flags: int, call: Callable[..., Any], *args: Any) -> Deferred[Any]:
        line, timeout = self._lines.reads, self._timeout
        if flags:
            number = _as_int(flags)
            if number & _OOB and self._is_stream:
                line = self._lines.urgent
            if number & _ERRQUEUE and self._sock.family in _HAVE_ERRQUEUE:
                line = self._lines.urgent
                number |= _DONTWAIT
            # With it a blocking socket does not wait (recv(2)); one with a time-out does in Python.
            if number & _DONTWAIT and timeout is None:
                timeout = 0
        return line.run(self, timeout, call, args)

    def _fills(self, flags: int, size: int, room: int = sys.maxsize) -> bool:
        """Return whether a call with *flags* goes on until *size* bytes have come."""
        flags = _as_int(flags)
        others = _OOB | _ERRQUEUE | _DONTWAIT | socket.MSG_PEEK
        if not flags & _WAITALL or flags & others or not 0 < _as_int(size) <= room:
            return False
        return self._timeout is None and self._is_stream

    def send(self, data: Buffer, flags: int = 0, /) -> Deferred[int]:
        """Fire with how many bytes were sent: all, unless there is a time-out (send(2))."""
        return self._write(flags, (data,), self._sock.send, data, flags)

    def sendall(self, data: Buffer, flags: int = 0, /) -> Deferred[None]:
        """Send all of *data*; the time-out is for the whole of it.

        After a failure, a time-out or a cancellation it is unknown how much was sent.
        """
        timeout = self._timeout
        if flags and timeout is None and _as_int(flags) & _DONTWAIT:
            timeout = 0
        return self._lines.writes.run(self, timeout, self._send_all, (data, flags))

    def _send_all(self, data: Any, flags: int) -> None:
        sent = self._sock.send(data, flags)
        if sent != (len(data) if data.__class__ is bytes else memoryview(data).nbytes):
            _go_on(SendAll(self._sock, memoryview(data).cast("B")[sent:], flags))

    def sendto(self, data: Buffer, *flags_and_address: Any) -> Deferred[int]:
        """Send a datagram: ``data, address`` or ``data, flags, address``; names resolve."""
        flags = flags_and_address[0] if len(flags_and_address) == 2 else 0
        if not flags_and_address:
            return self._write(0, (), self._sock.sendto, data)  # which says what is missing
        *others, address = flags_and_address

        def send(address: Any) -> Deferred[int]:
            call: Callable[..., int] = self._sock.sendto
            return self._write(flags, (data,), call, data, *others, address)

        return self._resolved(address, send)

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> Deferred[int]:
        """Send *buffers* as one, with ancillary data (send(2), cmsg(3)); names resolve."""
        try:
            kept, ancillary = list(buffers), list(ancdata)  # for they may be tried again
        except Exception:
            return self._write(0, (), self._sock.sendmsg, buffers, ancdata, flags)

        def send(address: Any) -> Deferred[int]:
            args = (kept, ancillary, flags) + (() if address is None else (address,))
            return self._write(flags, kept, self._sock.sendmsg, *args)

        return self._resolved(address, send)

    def sendmsg_afalg(self, msg: Iterable[Buffer] = (), **options: Any) -> Deferred[int]:
        """Send to an AF_ALG socket: ``op, iv, assoclen, flags``, as the original."""
        kept = list(msg)
        call: Any = self._sock.sendmsg_afalg
        return self._lines.writes.run(self, self._timeout, lambda: call(kept, **options), ())

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> Deferred[int]:
        """Send a binary file; fire with how many bytes were sent.

        Args:
            file: Is left positioned behind what was sent, also after a failure. It is read here,
                in the reactor's thread.
            offset: Where to begin.
            count: How many bytes at most; None: to its end.
        """
        try:
            check: Any = self._sock
            check._check_sendfile_params(file, offset, count)
            if self._timeout == 0:
                raise ValueError("non-blocking sockets are not supported")
            whole = SendFile(self._sock, file, offset, count)
        except Exception:
            return fail()

        def finish(result: Any) -> Any:
            whole.finish()
            return result

        line = self._lines.writes
        return line.run(self, self._timeout, whole, (), renews=True).addBoth(finish)

    def _write(
        self, flags: int, buffers: Sequence[Any], call: Callable[..., int], *args: Any
    ) -> Deferred[int]:
        timeout = self._timeout
        # A full receiver tells of room only the senders connected to it.
        retries = self._is_unix and not self._is_stream and len(args) > 2
        if timeout is None:
            if flags and _as_int(flags) & _DONTWAIT:
                timeout = 0
            elif self._is_stream:
                args = (flags, buffers, call, args)
                call = self._send_whole
        return self._lines.writes.run(self, timeout, call, args, retries=retries)

    def _send_whole(
        self, flags: int, buffers: Sequence[Any], call: Callable[..., int], args: tuple[Any, ...]
    ) -> int:
        sent = call(*args)
        size = sum(memoryview(each).nbytes for each in buffers)
        if sent < size:
            sent = _go_on(SendWhole(self._sock, flags, buffers, sent))
        return sent

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file whose methods return Deferreds: text, or bytes with ``b`` in *mode*.

        The socket stays open until it and its files are closed. Arguments as of ``open``.
        """
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        is_binary = "b" in mode
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        if not size and not is_binary:
            raise ValueError("unbuffered streams must be binary")
        writes = "w" in mode
        raw = RawFile(self, ("r" if "r" in mode or not writes else "") + ("w" if writes else ""))
        if not size:
            return raw
        buffer = BinaryFile(raw, size)
        if is_binary:
            return buffer
        return TextFile(buffer, mode, io.text_encoding(encoding), errors, newline)

    def bind(self, address: Any, /) -> Deferred[None]:
        """Take *address* as the own one (bind(2)); names resolve."""
        return self._resolved(address, lambda address: _at_once(self._sock.bind, address))

    def connect(self, address: Any, /) -> Deferred[None]:
        """Connect to *address* (connect(2)); names resolve, which the time-out is not for."""
        return self._connect(address, "connect")

    def connect_ex(self, address: Any, /) -> Deferred[int]:
        """As ``connect``; fires with 0, or the number of the error that the system has.

        What is no system's error fails: a name that does not resolve, a wrong type.
        """

        def number(failure: Failure) -> Any:
            error = failure.value
            if isinstance(error, TimeoutError) and error.errno is None:
                return errno.EAGAIN  # as the original tells a time-out
            if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
                return failure
            return error.errno

        return self._connect(address, "connect_ex").addCallbacks(lambda _: 0, number)

    def _connect(self, address: Any, name: str) -> Deferred[None]:
        def connect(address: Any) -> Deferred[None]:
            call = Connect(self._sock, address, name)
            line = self._lines.writes
            return line.run(self, self._timeout, call, (), retries=self._is_unix)

        return self._resolved(address, connect)

    def _resolved(self, address: Any, use: Callable[[Any], Deferred[Any]]) -> Deferred[Any]:
        if needs_resolving(self._sock.family, address) and self._sock.fileno() != -1:
            return resolve(self._reactor, self._sock.family, address).addCallback(use)
        return use(address)


def _as_int(flags: Any) -> int:
    """Return *flags* as a number; 0 for what is none, which the call itself refuses."""
    try:
        return operator.index(flags)
    except TypeError:
        return 0


def _at_once(call: Callable[..., Any], *args: Any) -> Deferred[Any]:
    try:
        return succeed(call(*args))
    except Exception:
        return fail()


def _go_on(rest: Callable[[], Any]) -> Any:
    """Do the *rest* of a call, or say that it is to be done later."""
    try:
        return rest()
    except BlockingIOError:
        raise Unfinished(rest) from None
