"""What every client shares: bytes into messages, messages into bytes, and how it ended.

Sans-I/O: knows framing and codec, never a socket, a clock or a reactor. The shells around it
(``blocking``, ``peer``, ``pipe``) move the bytes and do the waiting.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twistedsock.addresses import Address, parse_address
from twistedsock.errors import (
    AddressError,
    CannotSend,
    ClientError,
    CodecError,
    PeerClosed,
    PeerProtocolError,
)
from twistedsock.wire.codecs import Codec, find_codec
from twistedsock.wire.framing import MAX_MESSAGE_BYTES, Framer, make_framer

INBOX_BYTES = 64 * 1024  # above it nothing more is read until messages are taken
MESSAGE_OVERHEAD_BYTES = 64  # what a message costs beside its bytes: empty ones are not free


class Conversation:
    """One peer, as its client sees it.

    Args:
        address: The peer, as the caller wrote it.
        framing: How messages are cut from a stream: a key of ``wire.framing.FRAMINGS``. A
            datagram is a message already.
        codec: What messages say: a key of ``wire.codecs.CODECS``.
        max_message: The largest message, in bytes, that the peer may send.

    Raises:
        AddressError: *address* is not of the grammar, or nothing that can be connected to.
        ValueError: No framing, or no codec, has that name.
    """

    def __init__(
        self,
        address: str | Address,
        framing: str = "chunk",
        codec: str = "bytes",
        max_message: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.address = _connectable(address)
        framer = make_framer(framing, max_message)
        self._framer: Framer | None = framer if self.address.kind == "stream" else None
        self._has_end = has_end(self.address)
        self._codec: Codec = find_codec(codec)
        self._inbox: deque[bytes | ClientError] = deque()
        self._inbox_bytes = 0
        self._end: Exception | None = None
        self._unsendable = ""

    # -- sending --

    def encode(self, message: Any) -> bytes:
        """Return the bytes that carry *message*.

        Raises:
            CannotSend: Our side is over.
            CodecError, FrameError: *message* cannot be written.
        """
        if self._unsendable:
            raise CannotSend(self.address, self._unsendable)
        data = self._codec.encode(message)
        return data if self._framer is None else self._framer.encode(data)

    def stop_sending(self, why: str) -> None:
        """Note that nothing more can be sent: the first *why* stays."""
        self._unsendable = self._unsendable or why

    @property
    def sends(self) -> bool:
        """Whether our side is open."""
        return not self._unsendable

    # -- receiving --

    def feed(self, data: bytes) -> None:
        """Take what was read: any piece of a stream, or one datagram."""
        if self._end is not None:
            return
        if self._framer is None:
            self._keep([data])
            return
        try:
            self._keep(self._framer.feed(data))
        except PeerProtocolError as error:
            self._keep(error.completed)
            self.fail(error)

    def end(self) -> None:
        """Note that the peer has finished sending."""
        if self._end is not None:
            return
        try:
            if self._framer is not None:
                self._keep(self._framer.end())
        except PeerProtocolError as error:
            self.fail(error)
        self.fail(PeerClosed(self.address, "the peer has finished sending"))

    def fail(self, error: Exception) -> None:
        """Note that nothing more will come; the first *error* stays."""
        self._end = self._end or error

    def close(self) -> None:
        """Note that we have closed: nothing more is sent, or handed over."""
        self.stop_sending("the connection is closed")
        self._inbox.clear()
        self._inbox_bytes = 0
        self.fail(PeerClosed(self.address, "the connection is closed", "EBADF"))

    def met(self, error: ClientError) -> None:
        """Note what a read has met: the end of a stream, or what came of an earlier datagram."""
        if self._has_end:
            self.fail(error)
            return
        if not self.wants_input:  # nobody takes any
            return
        self._inbox.append(error)
        self._inbox_bytes += MESSAGE_OVERHEAD_BYTES

    def _keep(self, messages: list[bytes]) -> None:
        for message in messages:
            self._inbox.append(message)
            self._inbox_bytes += len(message) + MESSAGE_OVERHEAD_BYTES

    @property
    def ready(self) -> bool:
        """Whether ``take`` has an answer: a message, or how it ended."""
        return bool(self._inbox) or self._end is not None

    @property
    def wants_input(self) -> bool:
        """Whether more should be read; a peer may not make us hold any amount."""
        return self._end is None and self._inbox_bytes <= INBOX_BYTES

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be read; messages may still be waiting."""
        return self._end is not None

    def take(self) -> Any:
        """Return the next message; only where ``ready``.

        Raises:
            PeerClosed: The peer has finished sending (``code`` is empty), or reset.
            PeerProtocolError, CodecError: It sent what cannot be read; nothing more of a stream is.
            ClientError: What ended it, or what came of an earlier datagram.
        """
        if not self._inbox:
            assert self._end is not None
            raise self._end.with_traceback(None)
        message = self._inbox.popleft()
        self._inbox_bytes -= MESSAGE_OVERHEAD_BYTES
        if isinstance(message, ClientError):
            raise message
        self._inbox_bytes -= len(message)
        try:
            return self._codec.decode(message)
        except CodecError as error:
            if self._framer is not None:  # datagrams do not hang together
                self._inbox.clear()
                self._inbox_bytes = 0
                self._end = error
            raise


def has_end(address: Address) -> bool:
    """Return whether a peer at *address* is connected: can finish, and be gone."""
    return address.kind in ("stream", "seqpacket")


def is_end(error: Exception) -> bool:
    """Return whether *error* is the peer's orderly end, where an iteration stops."""
    return isinstance(error, PeerClosed) and not error.code


def _connectable(address: str | Address) -> Address:
    found = parse_address(address) if isinstance(address, str) else address
    if found.scheme in ("tcp", "udp") and (found.host == "*" or not found.port):
        raise AddressError(f"{found}: a peer has one host and a port of its own")
    if found.scheme == "raw" and not found.host:
        raise AddressError(f"{found}: a peer has a host, as in raw:{found.path}:192.0.2.1")
    return found
