"""From what an operator writes to what setsockopt(2) takes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.errors import OptionError
from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.values import MAX_INT, encode_value

quick = settings(max_examples=150, deadline=None)

BOOL, INT, SIZE = CATALOGUE["SO_KEEPALIVE"], CATALOGUE["IP_TTL"], CATALOGUE["SO_RCVBUF"]
SECONDS, MILLISECONDS = CATALOGUE["TCP_KEEPIDLE"], CATALOGUE["TCP_USER_TIMEOUT"]
TEXT, LINGER = CATALOGUE["TCP_CONGESTION"], CATALOGUE["SO_LINGER"]


def refusal(option: object, value: object) -> str:
    """Return the words with which *value* is refused for *option*."""
    with pytest.raises(OptionError) as caught:
        encode_value(option, value)  # type: ignore[arg-type]
    return str(caught.value)


def test_every_value_has_a_kind_that_is_tested() -> None:
    """The catalogue has no kind of value but those below."""
    kinds = {option.value for option in CATALOGUE.values()}
    tested = {option.value for option in (BOOL, INT, SIZE, SECONDS, MILLISECONDS, TEXT, LINGER)}
    assert kinds == tested


def test_a_bool_is_one_or_zero() -> None:
    """True and false are the C ints 1 and 0, and nothing else is true or false."""
    assert (encode_value(BOOL, True), encode_value(BOOL, False)) == (1, 0)
    for wrong in (1, 0, "true", "yes", None):
        assert refusal(BOOL, wrong) == f"must be true or false, got {wrong!r}"


def test_an_int_is_a_c_int() -> None:
    """A whole number within 32 bits passes, to its edge."""
    for number in (0, -1, 64, MAX_INT, -MAX_INT):
        assert encode_value(INT, number) == number
    for wrong in (2**31, -(2**31) - 1, 10**30):
        assert refusal(INT, wrong) == f"must be within 32 bits, got {wrong}"
    for other in (True, 1.0, "1", None):
        assert refusal(INT, other) == f"must be a whole number, got {other!r}"


def test_a_size_is_in_bytes() -> None:
    """A size is a number of bytes or carries a unit, up to a C int."""
    assert encode_value(SIZE, 4096) == 4096
    assert encode_value(SIZE, "64KiB") == 65536
    assert encode_value(SIZE, 2**31 - 1) == 2**31 - 1
    assert refusal(SIZE, "2GiB") == f"must be within 32 bits, got {2**31}"
    assert refusal(SIZE, "1TB") == ('must be a size such as 65536, "64KiB" or "1MB", got \'1TB\'')
    assert refusal(SIZE, -1) == "must be 0 to 1024GiB, got -1"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("1s", 1), ("1000ms", 1), ("5m", 300), ("4.1m", 246)]
)
def test_seconds_are_whole(text: str, seconds: int) -> None:
    """A duration of whole seconds passes however it is written."""
    assert encode_value(SECONDS, text) == seconds


def test_a_part_of_a_second_is_refused() -> None:
    """What the kernel cannot hold is refused, not rounded."""
    assert refusal(SECONDS, "1500ms") == "must be a whole number of seconds, got '1500ms'"
    assert refusal(SECONDS, 60) == ('must be a duration such as "500ms", "30s" or "5m", got 60')


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("0s", 0), ("1ms", 1), ("1.001s", 1001), ("30s", 30_000)]
)
def test_milliseconds_are_whole(text: str, milliseconds: int) -> None:
    """A duration of whole milliseconds passes however it is written."""
    assert encode_value(MILLISECONDS, text) == milliseconds


def test_a_part_of_a_millisecond_is_refused() -> None:
    """A fraction is refused, not rounded: rounded to 0 it would mean the system's default."""
    for wrong in ("400us", "1.5ms"):
        assert refusal(MILLISECONDS, wrong) == (
            f"must be a whole number of milliseconds, got {wrong!r}"
        )
    assert refusal(MILLISECONDS, "25d") == f"must be within 32 bits, got {25 * 86_400_000}"


@quick
@given(st.integers(0, 2**31 - 1))
def test_every_number_of_milliseconds_is_kept(number: int) -> None:
    """No whole number of milliseconds is changed on its way through floating point."""
    assert encode_value(MILLISECONDS, f"{number}ms") == number


def test_a_text_ends_with_a_zero() -> None:
    """A text of 1 to 15 bytes passes with its final zero, as IFNAMSIZ and TCP_CA_NAME_MAX allow."""
    assert encode_value(TEXT, "reno") == b"reno\0"
    assert encode_value(TEXT, "a" * 15) == b"a" * 15 + b"\0"
    for wrong in ("", "a" * 16, "\u00e9" * 8, "a\0b", b"reno", 1, None):
        assert refusal(TEXT, wrong) == f"must be a text of 1 to 15 bytes, got {wrong!r}"


def test_linger_is_a_duration_or_false() -> None:
    """False is off; a duration, also of 0, is on (struct linger of socket(7))."""
    assert encode_value(LINGER, False) == struct.pack("ii", 0, 0)
    assert encode_value(LINGER, "0s") == struct.pack("ii", 1, 0)
    assert encode_value(LINGER, "5s") == struct.pack("ii", 1, 5)
    assert refusal(LINGER, "1500ms") == "must be a whole number of seconds, got '1500ms'"


@pytest.mark.parametrize("wrong", [True, None, 5])
def test_a_wrong_linger_is_told_both_forms(wrong: object) -> None:
    """A linger of another type is refused with a duration and false as what is right."""
    assert refusal(LINGER, wrong) == f'must be false or a duration such as "5s", got {wrong!r}'


@quick
@given(
    st.sampled_from(sorted(CATALOGUE)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(),
)
def test_any_value_is_encoded_or_an_option_error(name: str, value: object) -> None:
    """No value raises anything but OptionError, and what passes is an int or bytes."""
    try:
        encoded = encode_value(CATALOGUE[name], value)
    except OptionError:
        return
    assert isinstance(encoded, bytes) or -(2**31) <= encoded < 2**31
