"""Numbers, texts and times: from what an operator writes to what setsockopt(2) takes, and back.

What holds for every form, those of the other three modules among them, is here, too.
"""

from __future__ import annotations

import enum
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.catalogue import FORMS, make_form
from twistedsock.sockopts.kernel import get_value, set_value
from twistedsock.sockopts.memberships import NETWORK
from twistedsock.sockopts.names import NAMED
from twistedsock.sockopts.structures import STRUCTURES
from twistedsock.sockopts.values import (
    MAX_SHOWN,
    SCALARS,
    as_int,
    fitted,
    octets,
    read_text,
    show_octets,
    shown,
)

quick = settings(max_examples=300, deadline=None)

CELLS = sorted({option.value for option in CATALOGUE.values()})
A_CELL_OF_EACH_KIND = sorted({cell.partition(" ")[0]: cell for cell in CELLS}.values())


class Port(enum.IntEnum):
    """A whole number that is not quite an int."""

    ECHO = 7


def refusal(cell: str, value: object) -> str:
    """Return the words with which the form of *cell* refuses *value*."""
    with pytest.raises(ValueError, match=r".") as caught:
        make_form(cell).encode(value)
    return str(caught.value)


def encode_or_refuse(cell: str, value: object) -> tuple[object, str]:
    """Return what *value* becomes, or None and the words with which it is refused."""
    try:
        return make_form(cell).encode(value), ""
    except ValueError as error:
        return None, str(error)


# A cell of the table, what is written, and what setsockopt(2) is given.
WRITTEN: list[tuple[str, object, int | bytes]] = [
    ("bool", True, 1),
    ("bool", False, 0),
    ("none", True, 0),
    ("int", 0, 0),
    ("int", 2**31 - 1, 2**31 - 1),
    ("int", -(2**31), -(2**31)),
    ("int", Port.ECHO, 7),
    ("int -1..255", -1, -1),
    ("int 1..255 or -1", -1, -1),
    ("fd", 3, 3),
    ("uint", 0, 0),
    ("uint", 2**31 - 1, 2**31 - 1),
    ("uint", 2**31, -(2**31)),
    ("uint", 2**32 - 1, -1),
    ("uint64", 0, bytes(8)),
    ("uint64", 2**64 - 1, b"\xff" * 8),
    ("uint64", 1, struct.pack("=Q", 1)),
    ("size", 4096, 4096),
    ("size", "64KiB", 65536),
    ("size", "1kB", 1000),
    ("size", "1.5 MiB", 1572864),
    ("size", " 7 ", 7),
    ("size", 2**31 - 1, 2**31 - 1),
    ("size64", "none", b"\xff" * 8),
    ("size64", 0, bytes(8)),
    ("size64", "8GiB", struct.pack("=Q", 8 * 2**30)),
    ("size64", 2**40, struct.pack("=Q", 2**40)),
    ("seconds 1..32767", "1s", 1),
    ("seconds 1..32767", "1000ms", 1),
    ("seconds 1..32767", "4.1m", 246),
    ("seconds 1..32767", "32767s", 32767),
    ("seconds -1..2147483647", "none", -1),
    ("seconds -1..2147483647", "0s", 0),
    ("milliseconds 0..2147483647", "1.001s", 1001),
    ("milliseconds 0..2147483647", "1ms", 1),
    ("microseconds 1001..200000", "1.001ms", 1001),
    ("microseconds 0..2147483647", "35m47s483ms647us", 2147483647),
    ("text 15", "reno", b"reno\0"),
    ("text 15", "a" * 15, b"a" * 15 + b"\0"),
    ("text 15", "\u00e9" * 7, b"\xc3\xa9" * 7 + b"\0"),
    ("interface", "", b"\0"),
    ("interface", "eth0.100", b"eth0.100\0"),
    ("interface", "a" * 15, b"a" * 15 + b"\0"),
    ("interface", "\u00e9" * 7, b"\xc3\xa9" * 7 + b"\0"),
    ("timeval", "0s", struct.pack("@ll", 0, 0)),
    ("timeval", "1500ms", struct.pack("@ll", 1, 500_000)),
    ("timeval", "1us", struct.pack("@ll", 0, 1)),
    ("timeval64", "365d", struct.pack("@qq", 365 * 86400, 0)),
    ("linger", False, struct.pack("ii", 0, 0)),
    ("linger", "0s", struct.pack("ii", 1, 0)),
    ("linger", "5s", struct.pack("ii", 1, 5)),
]


@pytest.mark.parametrize(("cell", "value", "raw"), WRITTEN)
def test_a_value_becomes_what_the_kernel_takes(cell: str, value: object, raw: int | bytes) -> None:
    """What is written becomes a C int or the bytes of the kernel's structure, to the bounds."""
    assert make_form(cell).encode(value) == raw


REFUSED: list[tuple[str, object, str]] = [
    *[("bool", wrong, f"must be true or false, got {wrong!r}") for wrong in (1, 0, "true", None)],
    *[
        ("none", wrong, f"must be true: it has no value of its own, got {wrong!r}")
        for wrong in (False, 1, "true", None)
    ],
    *[
        ("int", wrong, f"must be within 32 bits, got {wrong}")
        for wrong in (2**31, -(2**31) - 1, 10**30)
    ],
    *[("int", wrong, f"must be a whole number, got {wrong!r}") for wrong in (True, 1.0, "1", None)],
    *[
        ("int -1..255", wrong, f"must be a whole number from -1 to 255, got {wrong!r}")
        for wrong in (-2, 256, True, "64", 64.0)
    ],
    *[
        ("int 1..255 or -1", wrong, f"must be a whole number from 1 to 255, or -1, got {wrong}")
        for wrong in (0, -2, 256)
    ],
    *[("fd", wrong, f"must be a whole number, got {wrong!r}") for wrong in (True, "3", None)],
    *[
        ("uint", wrong, f"must be a whole number from 0 to 4294967295, got {wrong!r}")
        for wrong in (-1, 2**32, True, "1", 1.0)
    ],
    *[
        ("uint64", wrong, f"must be a whole number from 0 to {2**64 - 1}, got {wrong!r}")
        for wrong in (-1, 2**64, False, "1")
    ],
    *[
        ("size", wrong, f"must be 0 to 2147483647 bytes, got {wrong!r}")
        for wrong in (-1, 2**31, "2GiB", 10**30)
    ],
    *[
        ("size", wrong, f'must be a size such as 65536, "64KiB" or "1MB", got {wrong!r}')
        for wrong in ("1TB", "", "-1", "0x10", "\u0661", "1e3", True, 1.5, None, [], b"1")
    ],
    ("size 88..32767", 87, "must be 88 to 32767 bytes, got 87"),
    ("size 88..32767", "32KiB", "must be 88 to 32767 bytes, got '32KiB'"),
    *[
        ("size64", wrong, f'must be 0 to 1024GiB, or "none", got {wrong!r}')
        for wrong in (-1, 2**40 + 1, 2**64)
    ],
    ("size64", 2**64 - 1, f'must be 0 to 1024GiB, or "none", got {2**64 - 1}'),
    *[
        ("size64", wrong, f'must be a size such as 65536, "64KiB" or "1MB", or "none", got {wrong}')
        for wrong in (None, True, 1.5)
    ],
    *[
        (
            "seconds 1..32767",
            wrong,
            f'must be a duration such as "500ms", "30s" or "5m", got {wrong!r}',
        )
        for wrong in (60, "60", "", "1e9s", "\u0661s", "-1s", "1s ago", "none", None, True, b"1s")
    ],
    *[
        ("seconds 1..32767", wrong, f"must be 1s to 32767s, got {wrong!r}")
        for wrong in ("0s", "32768s")
    ],
    *[
        ("seconds 1..32767", wrong, f"must be a whole number of seconds, got {wrong!r}")
        for wrong in ("1500ms", "1.000001s", "1us")
    ],
    ("seconds 0..2147483647", "9us", "must be a whole number of seconds, got '9us'"),
    ("seconds 0..2147483647", "366d", "must be at most 365d, got '366d'"),
    (
        "seconds -1..2147483647",
        -1,
        'must be a duration such as "500ms", "30s" or "5m", or "none", got -1',
    ),
    *[
        ("milliseconds 0..2147483647", wrong, f"must be a whole number of milliseconds, got {it}")
        for wrong, it in (("400us", "'400us'"), ("1.5ms", "'1.5ms'"), ("0.001us", "'0.001us'"))
    ],
    ("milliseconds 0..2147483647", "25d", "must be 0s to 2147483647ms, got '25d'"),
    ("microseconds 1001..200000", "1ms", "must be 1.001ms to 200ms, got '1ms'"),
    ("microseconds 1001..200000", "200001us", "must be 1.001ms to 200ms, got '200001us'"),
    ("microseconds 0..2147483647", "0.1us", "must be a whole number of microseconds, got '0.1us'"),
    *[
        ("text 15", wrong, f"must be a text of 1 to 15 bytes, got {wrong!r}")
        for wrong in ("", "a" * 16, "\u00e9" * 8, "a\0b", "\ud800", b"reno", 1, None)
    ],
    *[
        (
            "interface",
            wrong,
            f"must be a text of 0 to 15 bytes, the name of an interface, got {wrong!r}",
        )
        for wrong in (
            *("a" * 16, "\u00e9" * 8, "a b", "a/b", "a:b", "a\0", "\0", ".", "..", "\udc80"),
            *(None, 1, b"lo"),
        )
    ],
    ("timeval", 5, 'must be a duration such as "500ms", or "0s" for no limit, got 5'),
    ("timeval", "0.4us", "must be a whole number of microseconds, got '0.4us'"),
    ("timeval64", "5", 'must be a duration such as "500ms", "30s" or "5m", got \'5\''),
    ("timeval64", "366d", "must be at most 365d, got '366d'"),
    *[
        ("linger", wrong, f'must be false or a duration such as "5s", got {wrong!r}')
        for wrong in (True, None, 5, 0, 0.0)
    ],
    ("linger", "1500ms", "must be a whole number of seconds, got '1500ms'"),
    ("linger", "none", 'must be a duration such as "500ms", "30s" or "5m", got \'none\''),
]


@pytest.mark.parametrize(("cell", "value", "told"), REFUSED)
def test_a_wrong_value_is_told_what_is_right(cell: str, value: object, told: str) -> None:
    """A value that the kernel cannot hold is refused, never rounded or cut, with what is right."""
    assert refusal(cell, value) == told


# A cell, what the kernel tells, and how it is shown.
TOLD: list[tuple[str, int | bytes, object]] = [
    ("bool", 0, False),
    ("bool", 2, True),
    ("none", 0, True),
    ("int", -7, -7),
    ("int", struct.pack("i", -7), -7),
    ("fd", 5, 5),
    ("uint", -1, 2**32 - 1),
    ("uint64", struct.pack("=Q", 2**63 + 1), 2**63 + 1),
    ("uint64", 5, 5),
    ("size", 212992, 212992),
    ("size64", b"\xff" * 8, "none"),
    ("size64", struct.pack("=Q", 2**50), 2**50),
    ("seconds 1..32767", 7200, "2h"),
    ("seconds 0..2147483647", -1, "4294967295s"),
    ("seconds -1..2147483647", -1, "none"),
    ("milliseconds 0..2147483647", 1001, "1001ms"),
    ("microseconds 0..2147483647", 1, "0.001ms"),
    ("text 15", b"cubic\0\0\0\0garbage", "cubic"),
    ("text 15", b"\xff\xfe", "\\xff\\xfe"),
    ("interface", b"lo\0", "lo"),
    ("interface", b"", ""),
    ("timeval", struct.pack("@ll", 1, 500_000), "1500ms"),
    ("timeval", struct.pack("@ll", 31535999, 999_999), "31535999999.999ms"),
    ("timeval64", struct.pack("@qq", 0, 0), "0s"),
    ("linger", struct.pack("ii", 0, 5), False),
    ("linger", struct.pack("ii", 1, 0), "0s"),
    ("linger", struct.pack("ii", 1, 90), "90s"),
]


@pytest.mark.parametrize(("cell", "raw", "value"), TOLD)
def test_what_the_kernel_tells_is_shown_as_one_writes_it(
    cell: str, raw: int | bytes, value: object
) -> None:
    """What the kernel tells is shown in the operator's words."""
    decoded = make_form(cell).decode(raw)
    assert decoded == value
    assert type(decoded) is type(value)


def test_every_form_is_tested() -> None:
    """A form that joins is written, refused and told in these tables, or this fails."""
    for examples in (WRITTEN, REFUSED, TOLD):
        assert {example[0].partition(" ")[0] for example in examples} == set(SCALARS)


def test_every_cell_of_the_table_names_a_form() -> None:
    """The catalogue uses every form by the name that it bears itself, and no name is made twice."""
    assert {cell.partition(" ")[0] for cell in CELLS} == set(FORMS)
    assert len(FORMS) == len(SCALARS) + len(NAMED) + len(NETWORK) + len(STRUCTURES)
    assert {cell: make_form(cell).kind for cell in CELLS} == {
        cell: cell.partition(" ")[0] for cell in CELLS
    }


UNITS = {"seconds": "s", "milliseconds": "ms", "microseconds": "us"}
MAX_DURATION_S = 365 * 86400
BOUNDED = [
    (cell, *map(int, found.groups()))
    for cell in CELLS
    if (found := re.fullmatch(r"(?:int|uint|size|\w*seconds) (-?\d+)\.\.(-?\d+)", cell))
]


@pytest.mark.parametrize(("cell", "low", "high"), BOUNDED)
def test_bounds_are_kept_to_the_edge(cell: str, low: int, high: int) -> None:
    """Of a form with bounds the least and the greatest pass, and what lies next is refused."""
    form, kind = make_form(cell), cell.partition(" ")[0]

    def written(number: int) -> object:
        return f"{number}{UNITS[kind]}" if kind in UNITS else number

    assert (form.low, form.high) == (low, high)
    if kind == "seconds":
        high = min(high, MAX_DURATION_S)  # what units calls a slip of the pen
    least = "none" if kind in UNITS and low < 0 else written(low)
    assert (form.encode(least), form.encode(written(high))) == (low, high)
    for wrong in (low - 1, high + 1):
        assert "must be" in refusal(cell, written(wrong))


@quick
@given(st.sampled_from(["seconds", "milliseconds", "microseconds"]), st.integers(0, 2**31 - 1))
def test_every_count_is_kept(kind: str, count: int) -> None:
    """No whole number of the kernel's units is changed on its way there and back."""
    form = make_form(f"{kind} 0..2147483647")
    if kind == "seconds":
        count %= MAX_DURATION_S + 1
    assert form.encode(f"{count}{UNITS[kind]}") == count
    assert form.encode(form.decode(count)) == count


@quick
@given(st.integers(0, MAX_DURATION_S * 10**6 - 1))
def test_every_microsecond_of_a_timeval_is_kept(microseconds: int) -> None:
    """Up to a year, no microsecond of struct timeval is lost on its way there and back."""
    form = make_form("timeval64")
    raw = struct.pack("@qq", *divmod(microseconds, 10**6))
    assert form.encode(f"{microseconds}us" if microseconds < 10**15 else "0s") == raw
    assert form.encode(form.decode(raw)) == raw


@quick
@given(
    st.sampled_from(["int", "fd", "uint", "uint64", "size", "size64"]), st.integers(0, 2**31 - 1)
)
def test_every_number_is_told_as_it_was_written(cell: str, number: int) -> None:
    """A number within 31 bits comes back as itself from every form of numbers."""
    form = make_form(cell)
    assert form.decode(form.encode(number)) == number


@quick
@given(st.text(min_size=1, max_size=20))
def test_a_text_is_told_as_it_was_written(text: str) -> None:
    """What passes as a text or as the name of an interface comes back as itself."""
    for cell in ("text 15", "interface"):
        form = make_form(cell)
        with suppress(ValueError):
            raw = form.encode(text)
            assert raw == text.encode() + b"\0"
            assert form.decode(raw) == text


# -- texts of a command line --


@pytest.mark.parametrize(
    ("cell", "text", "value"),
    [
        *[("bool", word, True) for word in ("1", "true", "YES", " on ")],
        *[("bool", word, False) for word in ("0", "False", "no", "off")],
        ("bool", "2", "2"),
        ("bool", "", ""),
        ("none", "true", True),
        ("none", "false", "false"),
        ("linger", "off", False),
        ("linger", "0", False),
        ("linger", "5s", "5s"),
        ("int", " 42 ", 42),
        ("int", "-1", -1),
        ("int", "+7", 7),
        ("int", "0x1F", 31),
        ("int", "-0x10", -16),
        ("int", "010", 10),
        ("int", "1_000", "1_000"),
        ("int", "\u0661", "\u0661"),
        ("int", "1.0", "1.0"),
        ("int", "9" * 21, "9" * 21),
        ("uint64", "18446744073709551615", 2**64 - 1),
        ("size", "4096", 4096),
        ("size", "64KiB", "64KiB"),
        ("dscp", "0x10", 16),
        ("dscp", "EF", "EF"),
        ("flags timestamping", "3", 3),
        ("text 15", "1", "1"),
        ("interface", "0x10", "0x10"),
        ("seconds 1..32767", "60", "60"),
        ("mreqn", "239.1.1.1%1", "239.1.1.1%1"),
    ],
)
def test_a_text_of_a_command_line_is_read(cell: str, text: str, value: object) -> None:
    """A text says a number, true or false where the form takes such, and else itself."""
    told = read_text(make_form(cell), text)
    assert told == value
    assert type(told) is type(value)


# -- whatever is written, whatever is told --

HUGE = st.integers(2**60, 2**70) | st.integers(-(2**70), -(2**60))
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30) | st.from_regex(
    r"(hex:)?[0-9a-f%@.:,;lo \n-]{0,30}", fullmatch=True
)
NUMBERS = st.booleans() | st.integers(-300, 70_000) | HUGE | st.floats() | st.complex_numbers()
SCALAR = st.none() | NUMBERS | TEXTS | st.binary(max_size=40) | st.sampled_from(Port)
ANYTHING = st.recursive(
    SCALAR | st.decimals() | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.sampled_from(["address", "key", "prefix"]) | TEXTS, inner, max_size=3)
    ),
    max_leaves=8,
)


def check_is_raw(value: object) -> int | bytes:
    """Return *value*, which setsockopt(2) must take."""
    if not isinstance(value, bytes):
        assert isinstance(value, int)
        assert -(2**31) <= value < 2**31
    return value


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(CELLS), ANYTHING)
def test_any_value_is_encoded_or_a_value_error(cell: str, value: object) -> None:
    """No value raises anything but ValueError, and what passes is a C int or bytes, and is told."""
    form = make_form(cell)
    if isinstance(value, str):
        value = read_text(form, value)
    raw, fault = encode_or_refuse(cell, value)
    if fault:
        assert re.match(r"((address |key |prefix )?must be|this machine|can only be) ", fault)
    else:
        assert form.decode(check_is_raw(raw)) is not None


def hostile_values() -> Iterator[object]:
    """Yield values that were made to take long, or to overflow."""
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    yield deep
    try:
        yield from (10**5000, -(10**5000), float("nan"), float("inf"), -0.0, 1e308, Decimal("NaN"))
        yield from ([10**5000], [float("inf")], [[float("inf")] * 4], [["6", 0, 0, 0]], [None])
        for text in ("1", "a", "hex:", "1 ", ","):
            yield text * 10**6
        for text in ("1s", "\0", "\ud800", "0", ".", ":", "%", "@", "\n"):
            yield text * 10**4
        yield from ([0] * 10**5, [[0] * 10**5], b"\xff" * 10**6, {"address": deep, "key": deep})
        yield from ({"address": "::1", "key": "x" * 10**6}, {"address": 10**5000, "key": "x"})
    finally:
        while isinstance(deep, list) and deep:  # else its own end would overflow the stack
            deep = deep.pop()


@pytest.mark.parametrize("cell", A_CELL_OF_EACH_KIND)
def test_a_hostile_value_is_refused_in_short(cell: str) -> None:
    """Values too long or too deep are refused at once, in no more words than fit a log line."""
    form = make_form(cell)
    for value in hostile_values():
        raw, fault = encode_or_refuse(cell, value)
        assert len(fault) < 3 * MAX_SHOWN + len(form.wanted)
        assert fault or check_is_raw(raw) is not None


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(CELLS),
    st.binary(max_size=300) | st.integers(0, 260).map(bytes) | st.sampled_from([b"\xff" * 1024]),
)
def test_any_bytes_are_told(cell: str, raw: bytes) -> None:
    """Whatever bytes the kernel tells, none, too few or too many, they are shown."""
    assert make_form(cell).decode(raw) is not None


@quick
@given(
    st.sampled_from([o for o in CATALOGUE.values() if o.is_readable and not o.form.size]),
    st.integers(-(2**31), 2**31 - 1),
)
def test_any_number_is_told(option: object, raw: int) -> None:
    """Whatever C int the kernel tells of an option that is read as one, it is shown."""
    assert option.form.decode(raw) is not None  # type: ignore[attr-defined]


# -- the pieces --


def test_a_wrong_value_is_cut() -> None:
    """A value in a message is cut behind 200 characters; one without a text is told as such."""
    assert shown("a") == "'a'"
    assert shown("a" * 198) == repr("a" * 198)
    assert shown("a" * 199) == "'" + "a" * 199 + "..."
    assert shown(10**5000) == "a value too long to show"


def test_octets_are_bytes_or_hexadecimal() -> None:
    """Octets are bytes, or digits behind ``hex:``, which spaces may part."""
    assert octets(b"\x0a") == octets("hex:0a") == octets("hex: 0A ") == b"\x0a"
    assert octets("hex:") == b""
    for wrong in ("0a", "hex:0", "hex:0g", "hex:\u0661\u0661", "HEX:0a", 10, None, bytearray(b"a")):
        with pytest.raises(ValueError, match=r"^must be bytes") as caught:
            octets(wrong)
        assert str(caught.value) == f'must be bytes, as in "hex:0a0b", got {wrong!r}'


@quick
@given(st.binary(max_size=40))
def test_octets_are_told_as_they_were_written(data: bytes) -> None:
    """Octets that are shown are read back as the same."""
    assert octets(show_octets(data)) == data


@quick
@given(st.binary(max_size=12), st.integers(0, 12))
def test_a_buffer_is_fitted(data: bytes, size: int) -> None:
    """A buffer becomes as long as its structure, zeros at its end, or cut."""
    assert fitted(data, size) == bytes(data[i] if i < len(data) else 0 for i in range(size))


@quick
@given(st.integers(-(2**31), 2**31 - 1))
def test_a_c_int_is_read_in_the_order_of_this_machine(number: int) -> None:
    """A C int is the same as a number and as its bytes, here as on a big-endian machine."""
    assert as_int(number) == as_int(struct.pack("i", number)) == number
    assert fitted(number, 4) == number.to_bytes(4, sys.byteorder, signed=True)


# -- the kernel as the judge --


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SO_KEEPALIVE", True),
        ("IP_TTL", 255),
        ("SO_PRIORITY", 6),
        ("SO_MAX_PACING_RATE", "none"),
        ("SO_MAX_PACING_RATE", 5 * 2**30),
        ("TCP_MAXSEG", 1400),
        ("TCP_KEEPIDLE", "32767s"),
        ("TCP_USER_TIMEOUT", "2147483647ms"),
        ("TCP_LINGER2", "none"),
        ("TCP_CONGESTION", "reno"),
        ("SO_RCVTIMEO", "1500ms"),
        ("SO_SNDTIMEO_NEW", "365d"),
        ("SO_LINGER", "90s"),
        ("SO_LINGER", False),
        ("SO_BINDTODEVICE", "lo"),
        ("SO_BINDTODEVICE", ""),
    ],
)
def test_the_kernel_takes_and_tells_a_value(name: str, value: object) -> None:
    """A value that the kernel was given is told by it as it was written."""
    option = CATALOGUE[name]
    with socket.socket() as sock:
        set_value(sock, option, option.form.encode(value))
        told = option.form.decode(get_value(sock, option))
    assert told == option.form.decode(option.form.encode(value))


def test_a_time_that_was_set_is_pythons_own() -> None:
    """The standard library reads from the socket the times that were set."""
    with socket.socket() as sock:
        for name, value in (("TCP_KEEPIDLE", "2h"), ("SO_LINGER", "5s"), ("SO_RCVTIMEO", "1500ms")):
            set_value(sock, CATALOGUE[name], CATALOGUE[name].form.encode(value))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7200
        assert struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (
            1,
            5,
        )
        assert struct.unpack("@ll", sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)) == (
            1,
            500_000,
        )
