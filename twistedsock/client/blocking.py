"""The blocking client: no reactor, no thread; each call waits until it is done."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from twistedsock.addresses import Address
from twistedsock.client.conversation import Conversation, has_end, is_end
from twistedsock.client.dialling import LONGEST_WAIT_S, dial, five_tuple_of
from twistedsock.client.failures import not_received, not_sent, too_late
from twistedsock.client.local import reader_of
from twistedsock.client.options import check, finish
from twistedsock.errors import ClientError
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.wire.framing import MAX_MESSAGE_BYTES

MAX_READS_AT_CLOSE = 100  # of a peer that sends without end
READ_BYTES = 64 * 1024  # also above any UDP payload


def connect_blocking(
    address: str | Address,
    *,
    framing: str = "chunk",
    codec: str = "bytes",
    timeout_s: float | None = None,
    max_message: int = MAX_MESSAGE_BYTES,
    options: Mapping[str, object] | None = None,
) -> BlockingPeer:
    """Connect to *address* and return the peer; close it, or use it in a ``with``.

    Args:
        address: Such as ``tcp:localhost:8888`` or ``udp:[::1]:8888``. The addresses of a name
            are tried after RFC 8305.
        framing: How messages are cut from a stream: a key of ``wire.framing.FRAMINGS``.
        codec: What messages say: a key of ``wire.codecs.CODECS``.
        timeout_s: How long to wait, in seconds: for the connection, and later for each message
            to come or to go. None waits without end.
        max_message: The largest message, in bytes, that the peer may send.
        options: Socket options by name, such as ``{"TCP_USER_TIMEOUT": "10s"}``, set before the
            socket is connected.

    Raises:
        AddressError: *address* is not of the grammar, or nothing that can be connected to.
        CannotResolve, Refused, Unreachable, TimedOut: There is no connection.
        PeerClosed: It was reset at once.
        ValueError: No framing, or no codec, has that name.
        OptionError: An option is wrong, or the kernel refused it.
    """
    talk = Conversation(address, framing, codec, max_message)
    checked = check(talk.address, options)
    sock = dial(talk.address, timeout_s, checked)
    report = finish(sock, checked)
    return BlockingPeer(sock, talk, timeout_s, report)


class BlockingPeer:
    """A connected peer. Iterate over it for its messages, until it has finished sending.

    Attributes:
        address: Who it is, as the caller wrote it.
        five_tuple: Protocol, local and peer address and port.
        timeout_s: How long each call waits that is given no time of its own.
        options: What became of the socket's options.
    """

    def __init__(
        self,
        sock: socket.socket,
        talk: Conversation,
        timeout_s: float | None = None,
        options: Report = NOTHING_SET,
    ) -> None:
        self._sock = sock
        self._read = reader_of(talk.address, sock)
        self._talk = talk
        self.address = talk.address
        self.timeout_s = timeout_s
        self.options = options
        self.five_tuple = five_tuple_of(talk.address, sock)

    def send(self, message: Any, timeout_s: float | None = None) -> None:
        """Send *message*; return once the kernel has all of it.

        Raises:
            CannotSend: Our side is over, or the connection is gone.
            Refused: What came of an earlier datagram; this one was not sent.
            TimedOut: The peer does not read; nothing more can be sent.
            CodecError, FrameError: *message* cannot be written; nothing was sent.
        """
        data = self._talk.encode(message)
        limit = self._limit(timeout_s)
        self._sock.settimeout(_bounded(limit))
        try:
            self._sock.sendall(data)
        except (TimeoutError, BlockingIOError):  # the latter where there is no time at all
            # Part of it may have gone: whatever followed would be taken for the rest.
            self._talk.stop_sending("a message was sent in part only")
            raise too_late(self.address, "not sent", limit or 0) from None
        except OSError as error:
            raise not_sent(self.address, error.errno or 0) from None

    def receive(self, timeout_s: float | None = None) -> Any:
        """Return the next message.

        Raises:
            PeerClosed: The peer has finished sending (``code`` is empty), or reset.
            TimedOut: It sent nothing in time; try again as you like.
            PeerProtocolError, CodecError: It sent what cannot be read; nothing more is.
        """
        limit = self._limit(timeout_s)
        deadline = None if limit is None else time.monotonic() + limit
        while not self._talk.ready:
            self.read(None if deadline is None else max(deadline - time.monotonic(), 0))
            if deadline is not None and not self._talk.ready and time.monotonic() >= deadline:
                assert limit is not None
                raise too_late(self.address, "nothing received", limit)
        return self._talk.take()

    def read(self, timeout_s: float | None) -> None:
        """Read once, if anything comes in *timeout_s* seconds; ``receive`` takes it apart."""
        self._sock.settimeout(_bounded(timeout_s))
        try:
            data = self._read()
        except (TimeoutError, BlockingIOError):
            return
        except OSError as error:
            self._talk.met(not_received(self.address, error.errno or 0))
            return
        if data is None:
            self._talk.end()
        else:
            self._talk.feed(data)

    def half_close(self) -> None:
        """Tell the peer that we have finished sending; go on receiving."""
        if not self._talk.sends:
            return
        self._talk.stop_sending("our side has finished sending")
        if has_end(self.address):
            with suppress(OSError):  # the peer is gone, which reading will tell
                self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; nothing can be sent or received any more."""
        self._talk.close()
        if self._sock.fileno() >= 0 and has_end(self.address):
            self._finish()
        self._sock.close()

    def _finish(self) -> None:
        """End our side, and read what has come: unread, it would turn the close into a reset."""
        with suppress(OSError):  # such as BlockingIOError, once there is nothing more
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.setblocking(False)
            for _ in range(MAX_READS_AT_CLOSE):
                if not self._sock.recv(READ_BYTES):
                    break

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait on with ``select``; -1 once closed."""
        return self._sock.fileno()

    def _limit(self, timeout_s: float | None) -> float | None:
        return self.timeout_s if timeout_s is None else timeout_s

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.receive()
        except ClientError as error:
            if is_end(error):
                raise StopIteration from None
            raise

    def __enter__(self) -> BlockingPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BlockingPeer {self.five_tuple}>"


def _bounded(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else min(max(timeout_s, 0), LONGEST_WAIT_S)
