"""Durations, sizes, rates and quoted bytes."""

from __future__ import annotations

import ast
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.errors import TwistedsockError, UnitError
from twistedsock.units import (
    MAX_DURATION_S,
    MAX_SIZE_BYTES,
    Rate,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
    quote_bytes,
)

quick = settings(max_examples=150, deadline=None)

YEAR_US = 365 * 86400 * 10**6
TEXTS = st.text(max_size=8) | st.text("0123456789.smhdkMGiB/ -+e\u0663", max_size=12)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0s", timedelta()),
        ("250us", timedelta(microseconds=250)),
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("1.5m", timedelta(minutes=1.5)),
        ("4.1m", timedelta(minutes=4, seconds=6)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1d 2h 3m 4s 5ms", timedelta(1, 4, 0, 5, 3, 2)),
        (" 10 s ", timedelta(seconds=10)),
        ("365d", timedelta(days=365)),
    ],
)
def test_a_duration_is_read(text: str, meant: timedelta) -> None:
    """A number with a unit, or several of them, is their sum in seconds, to the last bit."""
    assert parse_duration(text) == meant.total_seconds()


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        "5",
        "s",
        "-1s",
        "+1s",
        "1e3s",
        "1.s",
        ".5s",
        "1s2",
        "1,5s",
        "1S",
        "1 week",
        "1/s",
        "1 0s",
        "\u0663s",
        "1s-",
        "0x1s",
        5,
        5.0,
        True,
        None,
        b"5s",
    ],
)
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    """A bare number, an unknown unit or another type is refused with examples that are right."""
    with pytest.raises(UnitError) as caught:
        parse_duration(wrong)
    assert str(caught.value) == (
        f'must be a duration such as "500ms", "30s" or "5m", got {wrong!r}'
    )


@pytest.mark.parametrize("long", ["366d", "365d1us", "8761h", "99999999999d"])
def test_a_duration_above_a_year_is_refused(long: str) -> None:
    """A duration longer than a year is a slip of the pen."""
    with pytest.raises(UnitError) as caught:
        parse_duration(long)
    assert str(caught.value) == f"must be at most 365d, got {long!r}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.00025, "0.25ms"),
        (1, "1s"),
        (1.5, "1500ms"),
        (60, "1m"),
        (90, "90s"),
        (3600, "1h"),
        (86400, "1d"),
        (MAX_DURATION_S, "365d"),
        (1000.5, "1000500ms"),
    ],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    """A duration is written in the largest unit that leaves no fraction, else in ms."""
    assert format_duration(seconds) == text


@quick
@given(st.integers(0, YEAR_US))
def test_a_duration_round_trips(microseconds: int) -> None:
    """What is written for a duration reads as the same duration."""
    seconds = microseconds / 10**6
    assert parse_duration(format_duration(seconds)) == seconds


NUMBERS = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,15})?|0\.0{3,12}[0-9]{1,3}", fullmatch=True)
DURATIONS = st.lists(
    st.builds("{}{}".format, NUMBERS, st.sampled_from(["us", "ms", "s", "m", "h"])),
    min_size=1,
    max_size=3,
).map("".join)


@quick
@given(DURATIONS)
def test_whatever_is_read_is_written_exactly(text: str) -> None:
    """A duration of any precision that can be read is written to the last bit."""
    try:
        seconds = parse_duration(text)
    except UnitError:
        return  # above a year
    assert parse_duration(format_duration(seconds)) == seconds


@quick
@given(NUMBERS, DURATIONS)
def test_whatever_rate_is_read_is_written_exactly(count: str, period: str) -> None:
    """A rate of any precision that can be read is written to the last bit."""
    try:
        rate = parse_rate(f"{count}/{period}")
    except UnitError:
        return  # zero, or of a period above a year
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (65536, 65536),
        ("0", 0),
        ("65536", 65536),
        ("1B", 1),
        ("1kB", 1000),
        ("1MB", 10**6),
        ("1GB", 10**9),
        ("64KiB", 64 << 10),
        ("64 KiB", 64 << 10),
        (" 1MiB ", 1 << 20),
        ("1.5KiB", 1536),
        ("1024GiB", 1 << 40),
        (MAX_SIZE_BYTES, 1 << 40),
    ],
)
def test_a_size_is_read(written: object, size: int) -> None:
    """A whole number is bytes; a text may carry a decimal or binary unit."""
    assert parse_size(written) == size


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        "KiB",
        "1KB",
        "1kb",
        "1mb",
        "1TiB",
        "1.5",
        "-1",
        "1 0",
        "1e3",
        "1KiB1B",
        "\u0663",
        "\u0663B",
        "\u00b2",
        True,
        False,
        1.0,
        None,
        b"1",
    ],
)
def test_what_is_no_size_is_refused(wrong: object) -> None:
    """An unknown unit, a fraction of a byte count or another type is refused with examples."""
    with pytest.raises(UnitError) as caught:
        parse_size(wrong)
    assert str(caught.value) == (f'must be a size such as 65536, "64KiB" or "1MB", got {wrong!r}')


@pytest.mark.parametrize("wrong", [-1, MAX_SIZE_BYTES + 1, "1025GiB", str(MAX_SIZE_BYTES + 1)])
def test_a_size_out_of_range_is_refused(wrong: object) -> None:
    """A negative size, or one above a TiB, is refused with the range."""
    with pytest.raises(UnitError) as caught:
        parse_size(wrong)
    assert str(caught.value) == f"must be 0 to 1024GiB, got {wrong!r}"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1000, "1000B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1536B"),
        (65536, "64KiB"),
        (1 << 20, "1MiB"),
        (3 << 30, "3GiB"),
        (1 << 40, "1024GiB"),
    ],
)
def test_a_size_is_written_in_its_largest_whole_unit(size: int, text: str) -> None:
    """A size is written in the largest binary unit that leaves no fraction."""
    assert format_size(size) == text


@quick
@given(st.integers(0, MAX_SIZE_BYTES) | st.integers(0, 1024).map(lambda gib: gib << 30))
def test_a_size_round_trips(size: int) -> None:
    """What is written for a size reads as the same size."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "rate", "per_second"),
    [
        ("50/s", Rate(50), 50),
        ("120/m", Rate(120, 60), 2),
        ("0.5/s", Rate(0.5), 0.5),
        ("5/10s", Rate(5, 10), 0.5),
        ("3/500ms", Rate(3, 0.5), 6),
        (" 50 / s ", Rate(50), 50),
        ("90/1h30m", Rate(90, 5400), 1 / 60),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate, per_second: float) -> None:
    """A rate is a count in a unit of time, or in several of them."""
    assert parse_rate(text) == rate
    assert parse_rate(text).per_second == pytest.approx(per_second)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "/",
        "50",
        "50/",
        "/s",
        "0/s",
        "0.0/s",
        "-1/s",
        "1/0s",
        "1/-1s",
        "1/week",
        "1/s/s",
        "1e3/s",
        "1/366d",
        "999999999999999.99/s",
        "s/50",
        "5 0/s",
        "\u0663/s",
        50,
        None,
        b"50/s",
    ],
)
def test_what_is_no_rate_is_refused(wrong: object) -> None:
    """A rate without a period, or not above zero, is refused with examples that are right."""
    with pytest.raises(UnitError) as caught:
        parse_rate(wrong)
    assert str(caught.value) == f'must be a rate such as "50/s" or "100/m", got {wrong!r}'


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(50), "50/s"),
        (Rate(100, 60), "100/m"),
        (Rate(0.5), "0.5/s"),
        (Rate(5, 10), "5/10s"),
        (Rate(5, 100), "5/100s"),
        (Rate(5, 15 * 60), "5/15m"),
        (Rate(3, 0.1), "3/100ms"),
        (Rate(1234567), "1234567/s"),
    ],
)
def test_a_rate_is_written(rate: Rate, text: str) -> None:
    """A rate is written as it is read; the number of its period is left out only where it is 1."""
    assert str(rate) == text


@quick
@given(
    st.integers(1, 10**7).map(float) | st.sampled_from([0.5, 0.25, 1.5]),
    st.integers(1, 10**5).map(float) | st.sampled_from([0.001, 0.1, 0.5, 1.5]),
)
def test_a_rate_round_trips(count: float, per_s: float) -> None:
    """What is written for a rate reads as the same rate."""
    assert parse_rate(str(Rate(count, per_s))) == Rate(count, per_s)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
@pytest.mark.parametrize("unit", ["s", "kB", "/s", ""])
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_of_absurd_length_is_refused(parse: object, unit: str, digits: int) -> None:
    """A number beyond any float or integer limit is a UnitError like any other."""
    assert callable(parse)
    with pytest.raises(UnitError, match=r"^must be "):
        parse("9" * digits + unit)


@quick
@given(TEXTS)
def test_any_text_is_a_value_or_a_unit_error(text: str) -> None:
    """No text raises anything but UnitError, which is also a ValueError for pydantic."""
    for parse in (parse_duration, parse_size, parse_rate):
        try:
            parse(text)
        except UnitError as error:
            assert isinstance(error, ValueError)  # noqa: PT017  the type is the promise
            assert isinstance(error, TwistedsockError)  # noqa: PT017  likewise


@quick
@given(st.binary(max_size=80), st.integers(1, 64))
def test_quoted_bytes_are_one_printable_line(data: bytes, limit: int) -> None:
    """Quoted bytes are printable ASCII, and read back as the first *limit* bytes."""
    quoted = quote_bytes(data, limit)
    assert quoted.isascii()
    assert quoted.isprintable()
    literal, dots, rest = quoted.rpartition("...")
    assert ast.literal_eval(literal if len(data) > limit else quoted) == data[:limit]
    if len(data) > limit:
        assert (dots, rest) == ("...", f" ({len(data)} bytes)")


def test_bytes_are_cut_only_above_the_limit() -> None:
    """64 bytes are quoted whole; of 65 the first 64 and the number are."""
    assert quote_bytes(b"a" * 64) == repr(b"a" * 64)
    assert quote_bytes(b"a" * 65) == repr(b"a" * 64) + "... (65 bytes)"
