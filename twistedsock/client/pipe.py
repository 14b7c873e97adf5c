"""A descriptor to a peer, and its answers to a file, as ``nc`` does it: the third shell.

One poll(2) loop, no reactor and no thread, so that a pipe and a terminal are served alike.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from contextlib import suppress
from typing import Any

from twistedsock.client.conversation import Conversation, has_end, is_end
from twistedsock.client.dialling import LONGEST_WAIT_S
from twistedsock.client.failures import not_received, not_sent, too_late
from twistedsock.client.local import reader_of
from twistedsock.errors import ClientError, CodecError, FrameError, PeerClosed, TwistedsockError
from twistedsock.wire.codecs import find_codec

READ_BYTES = 64 * 1024
PIECE_BYTES = 16 * 1024  # of raw input: one datagram, where the peer is one
SILENCE_S = 1.0  # nothing tells the end of datagrams; after our input, so much silence does
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


class InputError(TwistedsockError):
    """A line of our own input is no message."""


class OutputError(TwistedsockError):
    """What the peer sent cannot be written where it should go."""


class Pipe:
    """Joins *source* and *sink* to a connected peer.

    With framing ``chunk`` and codec ``bytes`` bytes pass as they are. Otherwise each line of the
    source is a message, written as the codec writes it, and each message is a line of the sink.

    Args:
        sock: The connected socket; the pipe closes it.
        talk: Its conversation.
        source: The descriptor to read from, to its end.
        sink: The descriptor to write messages to; it may be non-blocking, as the source.
        codec: The conversation's codec: a key of ``wire.codecs.CODECS``.
        in_lines: Whether lines are messages.
        timeout_s: How long the peer may leave us waiting, in seconds, while it takes nothing
            or once our input has ended; None for ever, and for datagrams SILENCE_S.

    Attributes:
        bytes_in, bytes_out: What came from the peer, and what the kernel took for it.
    """

    def __init__(
        self,
        sock: socket.socket,
        talk: Conversation,
        source: int,
        sink: int,
        *,
        codec: str = "bytes",
        in_lines: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._sock = sock
        self._talk = talk
        self._source = source
        self._sink = sink
        self._codec = find_codec(codec)
        self._in_lines = in_lines
        self._read = reader_of(talk.address, sock)
        self._is_datagram = not has_end(talk.address)
        self._timeout_s = SILENCE_S if timeout_s is None and self._is_datagram else timeout_s
        self._unsent: deque[bytes] = deque()
        self._line = b""  # what has come of the next one
        self._line_number = 0
        self._source_open = True
        self._fault: InputError | PeerClosed | None = None
        self._has_answered = False
        self.bytes_in = self.bytes_out = 0

    def run(self) -> None:
        """Go on until the peer has ended; for datagrams, until it is silent after our input.

        Raises:
            InputError: A line of the source is no message. What came before it was sent.
            ClientError: TimedOut, CannotSend, Refused, or PeerClosed where it reset.
            PeerProtocolError, CodecError: The peer sent what cannot be read.
            BrokenPipeError: Nobody reads the sink any more.
            OutputError: The sink takes nothing for another reason.
        """
        self._sock.setblocking(False)
        with self._sock:
            moved_at = time.monotonic()
            while self._hand_over():
                left = self._patience(moved_at)
                if left is not None and left <= 0:
                    self._give_up()
                    break
                if self._step(left):
                    moved_at = time.monotonic()
        if self._fault is not None:
            raise self._fault

    def _patience(self, moved_at: float) -> float | None:
        """Return for how many seconds more to wait; None where there is no limit."""
        limit = self._timeout_s
        if limit is None and self._fault is not None:
            limit = SILENCE_S  # for the answers to what came before
        waits = self._unsent or not self._source_open
        if limit is None or not waits:
            return None
        return moved_at + limit - time.monotonic()

    def _give_up(self) -> None:
        if self._fault is not None or (self._is_datagram and self._has_answered):
            return
        what = "nothing taken" if self._unsent else "nothing received"
        raise too_late(self._talk.address, what, self._timeout_s or 0.0)

    def _step(self, left: float | None) -> bool:
        """Wait for one event and serve it; return whether anything moved."""
        poll = select.poll()
        mask = (select.POLLIN if self._talk.wants_input else 0) | (
            select.POLLOUT if self._unsent else 0
        )
        poll.register(self._sock, mask)
        if self._source_open and not self._unsent:
            poll.register(self._source, select.POLLIN)
        ready = dict(poll.poll(None if left is None else min(left, LONGEST_WAIT_S) * 1000))
        on_socket = ready.pop(self._sock.fileno(), 0)
        if on_socket & (select.POLLIN | _GONE):
            self._receive()
        if on_socket & select.POLLOUT and not self._talk.is_over:
            self._send()
        if ready:
            self._read_source()
        return bool(ready or on_socket)

    # -- to the peer --

    def _read_source(self) -> None:
        try:
            data = os.read(self._source, PIECE_BYTES)
        except BlockingIOError:  # another process was faster
            return
        except OSError:  # such as a standard input that was never opened
            data = b""
        try:
            self._put(data)
        except InputError as fault:
            self._fault = fault
        if data and self._fault is None:
            return
        self._source_open = False
        if not self._unsent:
            self._end_our_side()

    def _put(self, data: bytes) -> None:
        """Queue what *data* says; nothing is the end, which ends the last line, too."""
        if not self._in_lines:
            if data:
                self._queue(data, "all")
            return
        end = b"\n" if self._line and not data else b""
        *lines, self._line = (self._line + data + end).split(b"\n")
        for line in lines:
            self._line_number += 1
            self._queue(line.removesuffix(b"\r"), f"line {self._line_number}")
        if len(self._line) > READ_BYTES:
            number = self._line_number + 1
            raise InputError(f"line {number} of the input is longer than {READ_BYTES} bytes")

    def _queue(self, text: bytes, where: str) -> None:
        try:
            self._unsent.append(self._talk.encode(self._codec.decode(text)))
        except (CodecError, FrameError) as error:
            raise InputError(f"{where} of the input: {error}") from None

    def _send(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent[0])
                self.bytes_out += sent
                rest = self._unsent.popleft()[sent:]
                if rest:
                    self._unsent.appendleft(rest)
        except BlockingIOError:
            return
        except OSError as error:
            self._cannot_send(error.errno or 0)
            return
        if not self._source_open:
            self._end_our_side()

    def _cannot_send(self, number: int) -> None:
        if self._is_datagram or number not in (errno.ECONNRESET, errno.EPIPE):
            raise not_sent(self._talk.address, number)
        # What the peer said before is still to be read. EPIPE tells that it had finished first.
        self._unsent.clear()
        self._source_open = False
        self._talk.stop_sending("the connection is gone")
        if number == errno.ECONNRESET:
            self._fault = PeerClosed(self._talk.address, os.strerror(number), "ECONNRESET")

    def _end_our_side(self) -> None:
        self._talk.stop_sending("the input has ended")
        if not self._is_datagram:
            with suppress(OSError):  # the peer is gone, which reading will tell
                self._sock.shutdown(socket.SHUT_WR)

    # -- from the peer --

    def _receive(self) -> None:
        try:
            data = self._read()
        except BlockingIOError:
            return
        except OSError as error:
            self._talk.met(not_received(self._talk.address, error.errno or 0))
            return
        self._has_answered = True
        if data is None:
            self._talk.end()
        else:
            self.bytes_in += len(data)
            self._talk.feed(data)

    def _hand_over(self) -> bool:
        """Write every message that is whole; return False once there will be no more."""
        while self._talk.ready:
            try:
                message = self._talk.take()
            except ClientError as error:
                if is_end(error):
                    return False
                raise
            self._write(message)
        return True

    def _write(self, message: Any) -> None:
        data = self._codec.encode(message)
        left = memoryview(data + b"\n" if self._in_lines else data)
        while left:
            try:
                left = left[os.write(self._sink, left) :]
            except BlockingIOError:  # a descriptor that another process made non-blocking
                select.select([], [self._sink], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "")
                raise OutputError(f"output: {error.strerror} ({name})") from None
