"""Framers: where one message ends and the next begins on a stream.

Know bytes; never a transport or a clock. A framer belongs to one session and one direction of
reading; encoding keeps no state. "Not enough yet" is an empty list, not an error.

    framing    frame                                          error
    chunk      what one read brought                          never
    line       message LF (one CR before it is stripped)      longer than max_message
    netstring  decimal length ":" message ","                 malformed, longer than max_message
    uint8/16/32  length, unsigned big-endian, then message    longer than max_message
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

from twistedsock.errors import FrameError, PeerProtocolError

MAX_MESSAGE_BYTES: Final = 64 * 1024  # the default: a peer may not make us hold more than this

CR: Final = 0x0D


class Framer(Protocol):
    """Cuts the bytes of one stream into messages, and puts messages into frames."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages completed by *data*, in order.

        Raises:
            PeerProtocolError: The stream is broken from here on; ``completed`` holds the
                messages that were whole before the fault. Feed nothing more.
        """

    def end(self) -> list[bytes]:
        """Return what the end of the stream completes.

        Raises:
            PeerProtocolError: The stream ended inside a frame.
        """

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return *message* in its frame.

        Raises:
            FrameError: The framing cannot carry this message.
        """


class ChunkFramer:
    """A message is what one read brought, in pieces of at most *max_message* bytes."""

    __slots__ = ("_max",)

    def __init__(self, max_message: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message

    def feed(self, data: bytes) -> list[bytes]:
        """Return *data* in pieces; never an error."""
        if data and len(data) <= self._max:
            return [data]
        return [data[start : start + self._max] for start in range(0, len(data), self._max)]

    def end(self) -> list[bytes]:
        """Return nothing: a chunk is never left open."""
        return []

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return *message* as it is."""
        return message


class RecordFramer:
    """A message is a record, which the transport keeps apart: for SEQPACKET, not for streams."""

    __slots__ = ("_max",)

    def __init__(self, max_message: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message

    def feed(self, data: bytes) -> list[bytes]:
        """Return *data* as it is, empty records too."""
        if len(data) > self._max:
            raise PeerProtocolError(f"record longer than {self._max} bytes")
        return [data]

    def end(self) -> list[bytes]:
        """Return nothing: a record is never left open."""
        return []

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return *message* as it is."""
        return message


class LineFramer:
    """A message ends with LF; one CR before it belongs to the line end (RFC 1123 manners)."""

    __slots__ = ("_buffer", "_max", "_searched")

    def __init__(self, max_message: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message
        self._buffer = bytearray()
        self._searched = 0  # the buffer holds no LF before this: each byte is searched once

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines completed by *data*, without their line ends."""
        size = len(data) - 1
        if not self._buffer and 0 < size <= self._max and data.find(b"\n") == size:
            # One whole line and nothing else: what most reads bring.
            return [data[:-2] if data[size - 1] == CR else data[:-1]]
        if self._buffer:
            self._buffer += data
            end = self._buffer.rfind(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                self._check_open_line()
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            end = data.rfind(b"\n")
        lines = data[:end].split(b"\n") if end >= 0 else []
        self._buffer += data[end + 1 :]
        self._searched = len(self._buffer)
        for index, line in enumerate(lines):
            if line.endswith(b"\r"):
                line = lines[index] = line[:-1]
            if len(line) > self._max:
                raise PeerProtocolError(self._too_long(), lines[:index])
        self._check_open_line(lines)
        return lines

    def _check_open_line(self, completed: list[bytes] | None = None) -> None:
        # One byte above the limit may still turn out to be the CR of a line end.
        size = len(self._buffer)
        if size > self._max + 1 or (size > self._max and not self._buffer.endswith(b"\r")):
            raise PeerProtocolError(self._too_long(), completed or ())

    def _too_long(self) -> str:
        return f"line longer than {self._max} bytes"

    def end(self) -> list[bytes]:
        """Return the last line where it lacks its line end."""
        line = bytes(self._buffer)
        self._buffer.clear()
        return [line.removesuffix(b"\r")] if line else []

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return *message* and LF; one LF that it already ends with is not doubled."""
        position = message.find(b"\n")
        if position < 0:
            return message + b"\n"
        if position == len(message) - 1:
            return message
        raise FrameError("a line cannot carry a message with a line feed inside")


class _PrefixedFramer:
    """What framers share whose frames begin with their length.

    Bytes of an unfinished frame are kept as they came and joined once, when the frame is whole:
    a large message in small reads costs one copy, not one a read.
    """

    __slots__ = ("_held", "_max", "_missing", "_pieces")

    NAME = "message"

    def __init__(self, max_message: int = MAX_MESSAGE_BYTES) -> None:
        self._max = max_message
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in _pieces
        self._missing = 0  # nothing can be completed by fewer bytes than this

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages completed by *data*."""
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        messages: list[bytes] = []
        position = self._cut(data, messages)
        if position < len(data):
            self._pieces.append(data[position:] if position else data)
            self._held = len(data) - position
        return messages

    def _cut(self, data: bytes, messages: list[bytes]) -> int:
        """Append the whole messages of *data*; return where the first unfinished frame begins.

        Sets ``_missing`` to how many bytes that frame still lacks at least.
        """
        raise NotImplementedError

    def _check_size(self, size: int, messages: list[bytes]) -> None:
        if size > self._max:
            fault = f"{self.NAME} of {size} bytes; the limit is {self._max}"
            raise PeerProtocolError(fault, messages)

    def end(self) -> list[bytes]:
        """Return nothing: an unfinished frame at the end is an error."""
        if self._pieces:
            raise PeerProtocolError(f"the stream ended inside a {self.NAME}")
        return []


class NetstringFramer(_PrefixedFramer):
    """A message is ``length:message,`` with a decimal length without leading zeros."""

    __slots__ = ()

    NAME = "netstring"

    def _cut(self, data: bytes, messages: list[bytes]) -> int:
        position = 0
        digits_max = len(str(self._max))
        while position < len(data):
            colon = data.find(b":", position, position + digits_max + 1)
            digits = data[position : colon if colon >= 0 else position + digits_max + 1]
            if not digits.isdigit() or (digits[:1] == b"0" and len(digits) > 1):
                raise PeerProtocolError("netstring length is not a decimal number", messages)
            if colon < 0:
                if len(digits) > digits_max:
                    fault = f"netstring longer than {self._max} bytes"
                    raise PeerProtocolError(fault, messages)
                self._missing = 1
                break
            size = int(digits)
            self._check_size(size, messages)
            comma = colon + 1 + size
            if comma >= len(data):
                self._missing = comma + 1 - len(data)
                break
            if data[comma] != 0x2C:
                raise PeerProtocolError("netstring does not end with a comma", messages)
            messages.append(data[colon + 1 : comma])
            position = comma + 1
        return position

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return ``length:message,``."""
        return b"%d:%b," % (len(message), message)


class LengthFramer(_PrefixedFramer):
    """A message follows its length, an unsigned big-endian integer of 1, 2 or 4 bytes."""

    __slots__ = ()

    HEADER: struct.Struct  # set by each subclass
    LARGEST: int

    def _cut(self, data: bytes, messages: list[bytes]) -> int:
        header_bytes, unpack = self.HEADER.size, self.HEADER.unpack_from
        position, total = 0, len(data)
        while total - position >= header_bytes:
            (size,) = unpack(data, position)
            self._check_size(size, messages)
            end = position + header_bytes + size
            if end > total:
                self._missing = end - total
                return position
            messages.append(data[position + header_bytes : end])
            position = end
        self._missing = header_bytes - (total - position)
        return position


class Uint8Framer(LengthFramer):
    """A message follows its length in one byte."""

    __slots__ = ()
    HEADER, LARGEST = struct.Struct("!B"), 0xFF

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return the length and *message*."""
        return _prefix(Uint8Framer, message)


class Uint16Framer(LengthFramer):
    """A message follows its length in two bytes, big-endian."""

    __slots__ = ()
    HEADER, LARGEST = struct.Struct("!H"), 0xFFFF

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return the length and *message*."""
        return _prefix(Uint16Framer, message)


class Uint32Framer(LengthFramer):
    """A message follows its length in four bytes, big-endian."""

    __slots__ = ()
    HEADER, LARGEST = struct.Struct("!I"), 0xFFFFFFFF

    @staticmethod
    def encode(message: bytes) -> bytes:
        """Return the length and *message*."""
        return _prefix(Uint32Framer, message)


def _prefix(framer: type[LengthFramer], message: bytes) -> bytes:
    if len(message) > framer.LARGEST:
        raise FrameError(
            f"a message of {len(message)} bytes does not fit; the length allows {framer.LARGEST}"
        )
    return framer.HEADER.pack(len(message)) + message


FRAMINGS: Final[dict[str, Callable[[int], Framer]]] = {
    "chunk": ChunkFramer,
    "line": LineFramer,
    "netstring": NetstringFramer,
    "uint8": Uint8Framer,
    "uint16": Uint16Framer,
    "uint32": Uint32Framer,
}


def make_framer(name: str, max_message: int = MAX_MESSAGE_BYTES) -> Framer:
    """Return a new framer for one stream.

    Args:
        name: A key of FRAMINGS.
        max_message: The largest message, in bytes, that a peer may send.

    Raises:
        ValueError: No framing has that name.
    """
    try:
        return FRAMINGS[name](max_message)
    except KeyError:
        known = ", ".join(FRAMINGS)
        raise ValueError(f"framing must be one of {known}, got {name!r}") from None
