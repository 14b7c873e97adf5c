"""Codecs: what a message says. Lists, tuples and dicts must become bytes before they are sent.

Know values and bytes; never a frame or a transport. Stateless.

    codec    a value is                         in bytes
    bytes    bytes                              as they are
    text     a str                              UTF-8 (RFC 3629)
    json     what JSON knows                    JSON (RFC 8259) on one line, in UTF-8
    literal  str bytes int float complex bool   Python's ``repr`` of it, in UTF-8
             None, lists tuples dicts and sets
             of these
"""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any, Final, Protocol

from twistedsock.errors import CodecError

MAX_LITERAL_BYTES: Final = 16 * 1024  # reading a literal costs many times its size


class Codec(Protocol):
    """Turns values into messages and back."""

    def encode(self, value: Any) -> bytes:
        """Return *value* as a message.

        Raises:
            CodecError: It is none that this codec can write.
        """

    def decode(self, message: bytes) -> Any:
        """Return the value that *message* says.

        Raises:
            CodecError: It says none.
        """


class BytesCodec:
    """A value is the message itself."""

    def encode(self, value: Any) -> bytes:
        """Return *value*, which is bytes."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise CodecError(f"must be bytes, got {type(value).__name__}")
        return bytes(value)

    def decode(self, message: bytes) -> bytes:
        """Return *message*."""
        return message


class TextCodec:
    """A value is a str, in UTF-8."""

    def encode(self, value: Any) -> bytes:
        """Return *value* in UTF-8."""
        if not isinstance(value, str):
            raise CodecError(f"must be a str, got {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise CodecError(f"character {error.start} is half a surrogate pair") from None

    def decode(self, message: bytes) -> str:
        """Return *message* read as UTF-8."""
        try:
            return message.decode()
        except UnicodeDecodeError as error:
            raise CodecError(f"is not UTF-8 text (byte {error.start})") from None


_TEXT: Final = TextCodec()


class JsonCodec:
    """A value is what JSON knows: dicts with str keys, lists, str, int, float, bool, None."""

    def encode(self, value: Any) -> bytes:
        """Return *value* as JSON on one line; infinities and NaN are no JSON."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise CodecError(f"cannot be JSON: {error}") from None
        except RecursionError:
            raise CodecError("cannot be JSON: nested too deeply") from None
        return _TEXT.encode(text)

    def decode(self, message: bytes) -> Any:
        """Return *message* read as JSON."""
        text = _TEXT.decode(message)
        try:
            return json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            raise CodecError(f"is not JSON: {error}") from None
        except RecursionError:
            raise CodecError("is not JSON: nested too deeply") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


class LiteralCodec:
    """A value is what a Python literal can say; nothing is ever run to read it."""

    def encode(self, value: Any) -> bytes:
        """Return ``repr(value)``, once it is sure that it reads back as the same value."""
        try:
            message = _TEXT.encode(repr(value))
        except RecursionError:
            raise CodecError("cannot be a literal: nested too deeply") from None
        if self.decode(message) != value:
            raise CodecError(f"cannot be a literal: {type(value).__name__} reads back otherwise")
        return message

    def decode(self, message: bytes) -> Any:
        """Return the value of the literal *message*, of at most MAX_LITERAL_BYTES."""
        if len(message) > MAX_LITERAL_BYTES:
            fault = f"literal of {len(message)} bytes; the limit is {MAX_LITERAL_BYTES}"
            raise CodecError(fault)
        text = _TEXT.decode(message)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes: a peer may not fill our log
                return ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise CodecError(f"is not a Python literal ({type(error).__name__})") from None


CODECS: Final[dict[str, Codec]] = {
    "bytes": BytesCodec(),
    "text": _TEXT,
    "json": JsonCodec(),
    "literal": LiteralCodec(),
}


def find_codec(name: str) -> Codec:
    """Return the codec called *name*, a key of CODECS.

    Raises:
        ValueError: No codec has that name.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise ValueError(f"codec must be one of {', '.join(CODECS)}, got {name!r}") from None
