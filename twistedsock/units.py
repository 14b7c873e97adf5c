"""Durations, sizes and rates as people write them.

Pure text to numbers and back; never a clock. A bare number is refused for a duration, because
it would leave the reader guessing between seconds and milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from twistedsock.errors import UnitError

# Decimal, because 4.1 * 60 in floating point is not 246, and options of whole seconds want it.
_SECONDS = {
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
MAX_DIGITS = 15  # on either side of the point: more than any limit needs, and a float holds them
_NUMBER = rf"[0-9]{{1,{MAX_DIGITS}}}(?:\.[0-9]{{1,{MAX_DIGITS}}})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([A-Za-z]+)\s*")

MAX_DURATION_S = 365 * 86400.0  # a longer timer is a slip of the pen
MAX_SIZE_BYTES = 2**40  # a larger buffer does not exist; the number is a slip of the pen


@dataclass(frozen=True, slots=True)
class Rate:
    """Events in a time: *count* in every *per_s* seconds."""

    count: float
    per_s: float = 1.0

    @property
    def per_second(self) -> float:
        """The rate in events a second."""
        return self.count / self.per_s

    def __str__(self) -> str:
        # "1s" is written "s", but "10s" and "15m" keep their number.
        period = re.sub(r"^1(?=[a-z])", "", format_duration(self.per_s))
        return f"{_plain(_exact(self.count))}/{period}"


def parse_duration(text: object) -> float:
    """Return the seconds in a text such as ``500ms``, ``30s`` or ``1h30m``.

    Raises:
        UnitError: It is no duration, or longer than a year.
    """
    fault = UnitError(f'must be a duration such as "500ms", "30s" or "5m", got {text!r}')
    if not isinstance(text, str):
        raise fault
    stripped, position, total = text.strip(), 0, Decimal(0)
    for match in _QUANTITY.finditer(stripped):
        if match.start() != position or match[2] not in _SECONDS:
            raise fault
        total += Decimal(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not stripped or position != len(stripped):
        raise fault
    if total > MAX_DURATION_S:
        raise UnitError(f"must be at most 365d, got {text!r}")
    return float(total)


def format_duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that leaves a whole number, else in ms.

    Exact: whatever ``parse_duration`` has returned is read back from it to the last bit.
    """
    if not seconds:
        return "0s"
    exact = _exact(seconds)
    for unit in ("d", "h", "m", "s"):
        if exact % _SECONDS[unit] == 0:
            return f"{_plain(exact / _SECONDS[unit])}{unit}"
    milliseconds = _plain(exact / _SECONDS["ms"])
    if len(milliseconds.partition(".")[2]) <= MAX_DIGITS:
        return f"{milliseconds}ms"
    return f"{_plain(exact / _SECONDS['us'])}us"


def _exact(number: float) -> Decimal:
    """Return the decimal of fewest digits that is read as *number*."""
    return Decimal(repr(float(number)))


def _plain(number: Decimal) -> str:
    """Return *number* without an exponent, which would not be read back."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_size(value: object) -> int:
    """Return the bytes in a whole number, or in a text such as ``64KiB`` or ``1MB``.

    Raises:
        UnitError: It is no size, is negative, or is above one TiB.
    """
    fault = UnitError(f'must be a size such as 65536, "64KiB" or "1MB", got {value!r}')
    if isinstance(value, bool):
        raise fault
    if isinstance(value, int):
        size = value
    elif isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if re.fullmatch(r"[0-9]{1,15}", value.strip()):
            size = int(value)
        elif match is None or match[2] not in _BYTES:
            raise fault
        else:
            size = round(float(match[1]) * _BYTES[match[2]])
    else:
        raise fault
    if not 0 <= size <= MAX_SIZE_BYTES:
        raise UnitError(f"must be 0 to 1024GiB, got {value!r}")
    return size


def format_size(size: int) -> str:
    """Return *size* bytes in the largest binary unit that leaves a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def parse_rate(text: object) -> Rate:
    """Return the rate in a text such as ``50/s``, ``100/m`` or ``5/10s``.

    Raises:
        UnitError: It is no rate, or it is not above zero.
    """
    fault = UnitError(f'must be a rate such as "50/s" or "100/m", got {text!r}')
    if not isinstance(text, str):
        raise fault
    count, slash, period = (part.strip() for part in text.partition("/"))
    if not slash or not re.fullmatch(_NUMBER, count):
        raise fault
    try:
        per_s = parse_duration(period if period[:1] in "0123456789" else f"1{period}")
    except UnitError:
        raise fault from None
    # What rounds up to a digit more could not be written down again.
    if not 0 < float(count) < 10**MAX_DIGITS or per_s <= 0:
        raise fault
    return Rate(float(count), per_s)


def quote_bytes(data: bytes, limit: int = 64) -> str:
    """Return *data* as a printable literal, cut at *limit* bytes, fit for a log line."""
    if len(data) <= limit:
        return repr(bytes(data))
    return f"{bytes(data[:limit])!r}... ({len(data)} bytes)"
