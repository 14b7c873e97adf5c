"""Values of socket options: from what an operator writes to what setsockopt(2) takes."""

from __future__ import annotations

import struct
from collections.abc import Callable

from twistedsock.errors import OptionError
from twistedsock.sockopts.catalogue import Option
from twistedsock.units import parse_duration, parse_size

MAX_INT = 2**31 - 1  # options are C ints


def encode_value(option: Option, value: object) -> int | bytes:
    """Return *value* as the third argument of ``socket.setsockopt`` for *option*.

    Raises:
        OptionError: The value is not of the option's type; the message says what is.
    """
    try:
        return _ENCODERS[option.value](value)
    except ValueError as error:
        raise OptionError(str(error)) from None


def _bool(value: object) -> int:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return int(value)


def _int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, got {value!r}")
    if not -MAX_INT <= value <= MAX_INT:
        raise ValueError(f"must be within 32 bits, got {value}")
    return value


def _size(value: object) -> int:
    return _int(parse_size(value))


def _seconds(value: object) -> int:
    seconds = parse_duration(value)
    if seconds != int(seconds):
        raise ValueError(f"must be a whole number of seconds, got {value!r}")
    return int(seconds)


def _milliseconds(value: object) -> int:
    exact = parse_duration(value) * 1000
    # Rounding would make 400us a 0, which means the system's default. The tolerance is float's.
    if abs(exact - round(exact)) > 1e-5:
        raise ValueError(f"must be a whole number of milliseconds, got {value!r}")
    return _int(round(exact))


def _text(value: object) -> bytes:
    if not isinstance(value, str) or not 0 < len(value.encode()) < 16 or "\0" in value:
        raise ValueError(f"must be a text of 1 to 15 bytes, got {value!r}")
    return value.encode() + b"\0"


def _linger(value: object) -> bytes:
    """Encode ``struct linger { int l_onoff; int l_linger; }`` (socket(7))."""
    if value is False:
        return struct.pack("ii", 0, 0)
    if not isinstance(value, str):
        raise ValueError(f'must be false or a duration such as "5s", got {value!r}')
    return struct.pack("ii", 1, _seconds(value))


_ENCODERS: dict[str, Callable[[object], int | bytes]] = {
    "bool": _bool,
    "int": _int,
    "size": _size,
    "seconds": _seconds,
    "milliseconds": _milliseconds,
    "text": _text,
    "linger": _linger,
}
