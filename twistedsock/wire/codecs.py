"""Codecs: what a message says. Lists, tuples and dicts must become bytes before they are sent.

Know values and bytes; never a frame or a transport. Stateless.

    codec    a value is                         in bytes
    bytes    bytes                              as they are
    text     a str                              UTF-8 (RFC 3629)
    json     what JSON knows                    JSON (RFC 8259) on one line, in UTF-8
    literal  str bytes int float complex bool   Python's ``repr`` of it, in UTF-8
             None, lists tuples dicts and sets
             of these

What is read can be written again in the same codec, so that a service may send back whatever it
was handed: a peer that says what nobody could is told so, and the service is not blamed.
"""

from __future__ import annotations

import ast
import cmath
import json
import math
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, Protocol

from twistedsock.errors import CodecError

MAX_LITERAL_BYTES: Final = 16 * 1024  # reading a literal costs many times its size
MAX_DEPTH: Final = 100  # of lists in lists: services may walk what they are handed


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
            value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
            # Most messages cannot hold either fault, and are not walked for it.
            if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
                _walk(value, _whole_text)
        except ValueError as error:
            raise CodecError(f"is not JSON: {error}") from None
        except RecursionError:
            raise CodecError("is not JSON: nested too deeply") from None
        return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _whole_text(value: object) -> None:
    if isinstance(value, str):
        _TEXT.encode(value)


def _writable(value: object) -> None:
    if value is ...:
        raise ValueError("... is no value")
    if isinstance(value, float | complex) and not cmath.isfinite(value):
        raise ValueError("a number is too large")
    if isinstance(value, int):
        repr(value)  # ValueError past the digits that Python writes


def _walk(value: object, check: Callable[[object], None]) -> None:
    """Call *check* with all that is in *value*; raise ValueError where it is too deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 2):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each
                inner += each.values()
            elif isinstance(each, list | tuple | set):
                inner += each
            else:
                check(each)
        if not inner:
            return
        level = inner
    raise ValueError("nested too deeply")


class LiteralCodec:
    """A value is what a Python literal can say; nothing is ever run to read it."""

    def encode(self, value: Any) -> bytes:
        """Return ``repr(value)``, once it is sure that it reads back as the same value."""
        try:
            text = repr(value)
            is_same = _read(text) == value
        except RecursionError:
            raise CodecError("cannot be a literal: nested too deeply") from None
        except _UNREADABLE:
            raise CodecError(f"cannot be a literal: {type(value).__name__} has none") from None
        if not is_same:
            raise CodecError(f"cannot be a literal: {type(value).__name__} reads back otherwise")
        return _TEXT.encode(text)

    def decode(self, message: bytes) -> Any:
        """Return the value of the literal *message*, of at most MAX_LITERAL_BYTES."""
        if len(message) > MAX_LITERAL_BYTES:
            fault = f"literal of {len(message)} bytes; the limit is {MAX_LITERAL_BYTES}"
            raise CodecError(fault)
        text = _TEXT.decode(message)
        try:
            value = _read(text)
            _walk(value, _writable)
        except _UNREADABLE as error:
            raise CodecError(f"is not a Python literal ({type(error).__name__})") from None
        return value


# What literal_eval raises; OverflowError where it adds an imaginary number to a huge int.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
)


_QUIET: Final = threading.Lock()  # catch_warnings is one thread's at a time


def _read(text: str) -> Any:
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes: a peer may not fill our log
        return ast.literal_eval(text)


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
