"""How values are written, handed to setsockopt(2) and read back: a form for each kind of value.

A form is named as in the catalogue, a kind and perhaps a parameter: ``seconds 1..32767``. Here
are those of one number, text or time.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from twistedsock.units import MAX_SIZE_BYTES, format_duration, parse_duration, parse_size

MAX_INT, MIN_INT = 2**31 - 1, -(2**31)  # most options are C ints
MAX_UINT, MAX_UINT64 = 2**32 - 1, 2**64 - 1
MAX_BYTES = 4096  # of one value; no option but a filter takes as many
MAX_NAME_BYTES = 15  # of an interface: netdevice(7)'s IFNAMSIZ is 16 with the final zero
MAX_SHOWN = 200  # characters of a wrong value in a message: enough to find it by

HEX = "hex:"

Raw = int | bytes  # the third argument of socket.setsockopt


@dataclass(frozen=True, slots=True)
class Form:
    """How the values of an option are written.

    Attributes:
        kind: Such as ``seconds``.
        wanted: What is right, to follow "must be".
        encode: From what was written to what the kernel takes; raises ValueError.
        decode: From what the kernel tells to what one would write.
        size: Bytes to read; 0 where the value is a C int.
        low, high: Least and greatest number, in the kernel's unit, where there are such.
        choices: The names of values.
        takes_numbers: Whether a text of digits stands for a number.
        is_secret: Whether the value may not be shown.
    """

    kind: str
    wanted: str
    encode: Callable[[object], Raw]
    decode: Callable[[Raw], object]
    size: int = 0
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    takes_numbers: bool = False
    is_secret: bool = False


TRUE_WORDS, FALSE_WORDS = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def read_text(form: Form, text: str) -> object:
    """Return what *text*, of a command line or an endpoint string, says in *form*."""
    word = text.strip().lower()
    if form.kind == "bool" and word in TRUE_WORDS + FALSE_WORDS:
        return word in TRUE_WORDS
    if form.kind == "none" and word in TRUE_WORDS:
        return True
    if form.kind == "linger" and word in FALSE_WORDS:
        return False
    if form.takes_numbers and re.fullmatch(r"[+-]?(0x[0-9a-f]{1,16}|[0-9]{1,20})", word):
        return int(word, 16 if "x" in word else 10)
    return text


def wrong(form: str, value: object) -> ValueError:
    """Return the error for a *value* that is not what *form* wants."""
    return ValueError(f"must be {form}, got {shown(value)}")


def shown(value: object) -> str:
    """Return *value* as one would write it, cut where it is too long for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4300 digits; lists in lists in lists
        return "a value too long to show"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def as_int(raw: Raw) -> int:
    """Return *raw* as a C int."""
    if isinstance(raw, int):
        return raw
    return int.from_bytes(fitted(raw, 4), sys.byteorder, signed=True)


def fitted(raw: Raw, size: int) -> bytes:
    """Return *size* bytes of *raw*, of which a kernel may tell fewer or more than ours knows."""
    data = raw if isinstance(raw, bytes) else struct.pack("i", raw)
    return data[:size].ljust(size, b"\0")


def text_bytes(value: object) -> bytes:
    """Return the UTF-8 of a text; nothing where *value* is none, or has a lone surrogate."""
    try:
        return value.encode() if isinstance(value, str) else b""
    except UnicodeEncodeError:  # bytes of a command line that were no UTF-8
        return b""


def octets(value: object) -> bytes:
    """Return the bytes of *value*: bytes, or a text such as ``hex:0a0b``."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith(HEX):
        try:
            return bytes.fromhex(value[len(HEX) :])
        except ValueError:
            pass
    raise wrong('bytes, as in "hex:0a0b"', value)


def show_octets(raw: Raw) -> str:
    """Return *raw* as one would write it."""
    return HEX + (raw if isinstance(raw, bytes) else struct.pack("i", raw)).hex()


# -- numbers --


def _bounds(parameter: str, low: int, high: int) -> tuple[int, int, int | None]:
    """Return least, greatest and one more value of a parameter such as ``1..255 or -1``."""
    range_, _, extra = parameter.partition(" or ")
    if range_:
        written = range_.split("..")
        low, high = int(written[0]), int(written[1])
    return low, high, int(extra) if extra else None


def _int(parameter: str) -> Form:
    low, high, extra = _bounds(parameter, MIN_INT, MAX_INT)
    wanted = f"a whole number from {low} to {high}" if parameter else "a whole number"
    if extra is not None:
        wanted += f", or {extra}"

    def encode(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(wanted, value)
        if value != extra and not low <= value <= high:
            raise wrong(wanted if parameter else "within 32 bits", value)
        return value

    low_shown = low if extra is None else min(low, extra)
    return Form("int", wanted, encode, as_int, low=low_shown, high=high, takes_numbers=True)


def _fd(parameter: str) -> Form:
    return replace(_int(parameter), kind="fd")  # to read one may open a descriptor


def _uint(parameter: str) -> Form:
    low, high, _ = _bounds(parameter, 0, MAX_UINT)
    wanted = f"a whole number from {low} to {high}"

    def encode(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(wanted, value)
        return value if value <= MAX_INT else value - 2**32  # setsockopt takes a C int

    return Form(
        "uint",
        wanted,
        encode,
        lambda raw: as_int(raw) & MAX_UINT,
        low=low,
        high=high,
        takes_numbers=True,
    )


def _uint64(parameter: str) -> Form:
    low, high, _ = _bounds(parameter, 0, MAX_UINT64)
    wanted = f"a whole number from {low} to {high}"

    def encode(value: object) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(wanted, value)
        return struct.pack("=Q", value)

    return Form("uint64", wanted, encode, _decode_uint64, 8, low=low, high=high, takes_numbers=True)


def _decode_uint64(raw: Raw) -> int:
    return raw if isinstance(raw, int) else int.from_bytes(raw[:8], sys.byteorder)


def _size(parameter: str) -> Form:
    low, high, _ = _bounds(parameter, 0, MAX_INT)
    wanted = 'a size such as 65536, "64KiB" or "1MB"'

    def encode(value: object) -> int:
        size = _size_of(value, wanted)
        if not low <= size <= high:
            raise wrong(f"{low} to {high} bytes", value)
        return size

    return Form("size", wanted, encode, as_int, low=low, high=high, takes_numbers=True)


def _size64(_: str) -> Form:
    wanted = 'a size such as 65536, "64KiB" or "1MB", or "none"'

    def encode(value: object) -> bytes:
        if value == "none":
            return struct.pack("=Q", MAX_UINT64)
        size = _size_of(value, wanted)
        if not 0 <= size <= MAX_SIZE_BYTES:
            raise wrong('0 to 1024GiB, or "none"', value)
        return struct.pack("=Q", size)

    def decode(raw: Raw) -> object:
        size = _decode_uint64(raw)
        return "none" if size == MAX_UINT64 else size

    return Form("size64", wanted, encode, decode, 8, low=0, takes_numbers=True)


def _size_of(value: object, wanted: str) -> int:
    """Return the bytes that a number or a text says; a number may be out of bounds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) > MAX_SHOWN:
        raise wrong(wanted, value)
    return parse_size(value)


def _count(value: object, kind: str, a_second: int, wanted: str) -> int:
    """Return how many *kind*, so many to a second, the duration *value* is."""
    if not isinstance(value, str) or len(value) > MAX_SHOWN:
        raise wrong(wanted, value)
    exact = Decimal(repr(parse_duration(value))) * a_second
    if exact % 1:  # rounding would make 400us a 0, which means the default or no limit
        raise wrong(f"a whole number of {kind}", value)
    return int(exact)


def _duration(kind: str, a_second: int) -> Callable[[str], Form]:
    """Return the builder of a duration that the kernel counts so many to a second."""

    def build(parameter: str) -> Form:
        low, high, _ = _bounds(parameter, 0, MAX_INT)
        least, most = max(low, 0), high
        wanted = 'a duration such as "500ms", "30s" or "5m"'
        if low < 0:  # the kernel's way to say never
            wanted += ', or "none"'

        def encode(value: object) -> int:
            if low < 0 and value == "none":
                return -1
            count = _count(value, kind, a_second, wanted)
            if not least <= count <= most:
                shortest, longest = (
                    format_duration(least / a_second),
                    format_duration(most / a_second),
                )
                raise wrong(f"{shortest} to {longest}", value)
            return count

        def decode(raw: Raw) -> object:
            count = as_int(raw) if low < 0 else as_int(raw) & MAX_UINT
            return "none" if count < 0 else format_duration(count / a_second)

        return Form(kind, wanted, encode, decode, low=low, high=high)

    return build


def _bool(_: str) -> Form:
    def encode(value: object) -> int:
        if not isinstance(value, bool):
            raise wrong("true or false", value)
        return int(value)

    return Form("bool", "true or false", encode, lambda raw: bool(as_int(raw)), low=0, high=1)


def _none(_: str) -> Form:
    def encode(value: object) -> int:
        if value is not True:
            raise wrong("true: it has no value of its own", value)
        return 0

    return Form("none", "true", encode, lambda raw: True)


# -- texts and times --


def _text(parameter: str) -> Form:
    most = int(parameter)

    def encode(value: object) -> bytes:
        data = text_bytes(value)
        if not 0 < len(data) <= most or b"\0" in data:
            raise wrong(f"a text of 1 to {most} bytes", value)
        return data + b"\0"

    return Form("text", f"a text of 1 to {most} bytes", encode, decode_text, most + 1, high=most)


def _interface(_: str) -> Form:
    def encode(value: object) -> bytes:
        name = text_bytes(value)  # of a longer one the kernel would take the beginning
        is_name = 0 < len(name) <= MAX_NAME_BYTES and re.fullmatch(rb"[^\s/:\0]+", name)
        if value != "" and (not is_name or name in (b".", b"..")):  # the empty one unbinds
            raise wrong("a text of 0 to 15 bytes, the name of an interface", value)
        return name + b"\0"

    wanted = 'the name of an interface such as "eth0"'
    return Form("interface", wanted, encode, decode_text, 16)


def decode_text(raw: Raw) -> str:
    """Return the text before the first zero byte."""
    assert isinstance(raw, bytes)
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _timeval(kind: str, layout: str) -> Callable[[str], Form]:
    """Return the builder of ``struct timeval`` (socket(7)): seconds and microseconds."""
    shape = struct.Struct(layout)
    wanted = 'a duration such as "500ms", or "0s" for no limit'

    def build(_: str) -> Form:
        def encode(value: object) -> bytes:
            microseconds = _count(value, "microseconds", 1_000_000, wanted)
            return shape.pack(*divmod(microseconds, 1_000_000))

        def decode(raw: Raw) -> object:
            seconds, microseconds = shape.unpack(fitted(raw, shape.size))
            return format_duration((seconds * 1_000_000 + microseconds) / 1_000_000)

        return Form(kind, wanted, encode, decode, shape.size)

    return build


def _linger(_: str) -> Form:
    """``struct linger { int l_onoff; int l_linger; }`` (socket(7))."""
    wanted = 'false or a duration such as "5s"'
    seconds = _duration("seconds", 1)("")

    def encode(value: object) -> bytes:
        if value is False:
            return struct.pack("ii", 0, 0)
        if not isinstance(value, str):
            raise wrong(wanted, value)
        return struct.pack("ii", 1, seconds.encode(value))

    def decode(raw: Raw) -> object:
        is_on, linger_s = struct.unpack("ii", fitted(raw, 8))
        return format_duration(linger_s) if is_on else False

    return Form("linger", wanted, encode, decode, 8)


SCALARS: Final[dict[str, Callable[[str], Form]]] = {
    "bool": _bool,
    "none": _none,
    "int": _int,
    "fd": _fd,
    "uint": _uint,
    "uint64": _uint64,
    "size": _size,
    "size64": _size64,
    "seconds": _duration("seconds", 1),
    "milliseconds": _duration("milliseconds", 1000),
    "microseconds": _duration("microseconds", 1_000_000),
    "text": _text,
    "interface": _interface,
    "timeval": _timeval("timeval", "@ll"),
    "timeval64": _timeval("timeval64", "@qq"),
    "linger": _linger,
}
