"""Codecs. The oracles are values by hand, the json module's own reader, and what a peer may try."""

from __future__ import annotations

import collections
import contextlib
import copy
import enum
import json
import math
import subprocess
import sys
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twistedsock.errors import CodecError, TwistedsockError
from twistedsock.wire.codecs import CODECS, MAX_LITERAL_BYTES, find_codec

BYTES, TEXT, JSON, LITERAL = (CODECS[name] for name in ("bytes", "text", "json", "literal"))
quick = settings(max_examples=200, deadline=None)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | FINITE
    | st.text(max_size=20)  # halves of surrogate pairs too: a literal can say them
    | st.binary(max_size=20)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
)
KEYS = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
LITERAL_VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=15,
)
# What comes near to JSON and to literals, so that readers are led deep before they fail.
TOKENS = st.sampled_from(
    [
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "-",
        "+",
        "~",
        ".",
        "...",
        "0",
        "1",
        "9",
        "1e999",
        "0xf",
        "1j",
        "1+1j",
        "_",
        '"',
        "'",
        "'''",
        "b'",
        "f'",
        "r'",
        "u'",
        "\\",
        "\\u",
        "d800",
        "\\ud800",
        "\\N{",
        "#",
        "\n",
        "\r",
        "\t",
        "\x00",
        "\x0c",
        "*",
        "**",
        "a",
        "a(",
        "a.",
        "set()",
        "True",
        "None",
        "NaN",
        "Infinity",
        "-Infinity",
        "null",
        "true",
        "lambda:",
        "not",
        "if",
        "else",
        "for",
        "in",
        "is",
        ":=",
        "☃",
        "\ufeff",
    ]
)
NEARLY = st.lists(TOKENS, max_size=30).map("".join).map(str.encode)


def same(a: Any, b: Any) -> bool:
    """Return whether *a* and *b* are one value: of the same types throughout, too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return bool(a == b)


def refusal(codec: Any, value: Any = None, *, message: bytes | None = None) -> str:
    """Return what is told where *value* cannot be written, or *message* cannot be read."""
    with pytest.raises(CodecError) as caught:
        codec.encode(value) if message is None else codec.decode(message)
    return str(caught.value)


# -- finding one --


def test_codecs_are_found_by_name() -> None:
    """Each name gives its codec, and a wrong one the names that are right."""
    assert [find_codec(name) for name in CODECS] == list(CODECS.values())
    assert list(CODECS) == ["bytes", "text", "json", "literal"]
    with pytest.raises(ValueError, match=r"^codec must be one of bytes, text, json, literal, got"):
        find_codec("xml")


def test_a_codec_error_is_ours_and_a_value_error() -> None:
    """Whoever catches either finds it."""
    assert issubclass(CodecError, TwistedsockError)
    assert issubclass(CodecError, ValueError)


# -- what goes out and comes back --


@quick
@given(st.binary())
def test_bytes_are_themselves(message: bytes) -> None:
    """Bytes pass in both directions as they are."""
    assert BYTES.decode(message) == BYTES.encode(message) == message
    assert BYTES.encode(bytearray(message)) == message
    assert BYTES.encode(memoryview(message + message)[::2]) == (message + message)[::2]
    assert type(BYTES.encode(bytearray(message))) is bytes


@quick
@given(TEXTS)
@example("")
@example("\0\ufeff\u2028\U0001f600\n")
def test_text_is_utf_8(text: str) -> None:
    """A text is its UTF-8, nothing stripped, nothing added."""
    assert TEXT.encode(text) == text.encode("utf-8")
    assert TEXT.decode(text.encode("utf-8")) == text


@quick
@given(JSON_VALUES)
def test_json_comes_back(value: Any) -> None:
    """What JSON knows is written on one line, as others read it, and is read as it was."""
    message = JSON.encode(value)
    assert b"\n" not in message
    assert b"\r" not in message
    assert same(json.loads(message.decode("utf-8")), value)
    assert same(JSON.decode(message), value)
    # Others write it in other ways: with blanks, with escapes.
    assert same(JSON.decode(json.dumps(value, indent=1).encode()), value)


@quick
@given(LITERAL_VALUES)
def test_literals_come_back(value: Any) -> None:
    """What a literal can say is written as its repr on one line, and is read as it was."""
    if any(part.imag and not part.real for part in _complexes(value)):
        return  # -0.0 as a real part has no literal; see below
    message = LITERAL.encode(value)
    assert message == repr(value).encode("utf-8")
    assert b"\n" not in message
    assert same(LITERAL.decode(message), value)


def _complexes(value: Any) -> list[complex]:
    if isinstance(value, complex):
        return [value]
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set):
        return [found for each in value for found in _complexes(each)]
    return []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"b": [1, 2.5, None, True]}, b'{"b":[1,2.5,null,true]}'),
        ((1, (2,)), b"[1,[2]]"),
        ("\u00e4\u2028\n", '"\u00e4\u2028\\n"'.encode()),
        (-0.0, b"-0.0"),
        ("", b'""'),
    ],
)
def test_json_by_hand(value: Any, message: bytes) -> None:
    """It is compact, in UTF-8, and a tuple is written as a list."""
    assert JSON.encode(value) == message


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (b' \t\r\n{"a" : 1}\n', {"a": 1}),
        (b'{"a":1,"a":2}', {"a": 2}),  # RFC 8259 section 4 leaves it open; the last counts
        (b'"\\ud83d\\ude00\\u0000"', "\U0001f600\0"),
        (b"-0", 0),
        (b"1E2", 100.0),
        (b"1e-999", 0.0),
        pytest.param(b"9" * 4300, int("9" * 4300), id="4300 digits"),
    ],
)
def test_json_is_read_by_hand(message: bytes, value: Any) -> None:
    """Blanks around it do not count; the last of equal keys does."""
    assert same(JSON.decode(message), value)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (b"set()", set()),
        (b"[set(), {1}]", [set(), {1}]),
        (b"{}", {}),
        (b"()", ()),
        (b"1,", (1,)),
        (b"-0.0", -0.0),
        (b"+1", 1),
        (b"0xff", 255),
        (b"1_000", 1000),
        (b"1-2j", 1 - 2j),
        (b"1e308+1e308j", 1e308 + 1e308j),
        (b"-1+2j", -1 + 2j),
        (b"(1)", 1),
        (b"'a' 'b'", "ab"),
        (b"b'a' b'b'", b"ab"),
        (b"'''a\r\nb'''", "a\nb"),
        (rb"r'\d'", "\\d"),
        (rb"'\ud800'", "\ud800"),
        (rb"'\N{SNOWMAN}'", "\u2603"),
        (b"{1: 'a', 1: 'b'}", {1: "b"}),
        (b"1 # a comment", 1),
        (b" \t1 \t", 1),
        (b"\n1\n\n", 1),
        (b"[1,\r2]\r\n", [1, 2]),
        (b"# coding: utf-7\n'+AGE-'", "+AGE-"),
    ],
)
def test_literals_are_read_by_hand(message: bytes, value: Any) -> None:
    """Whatever way Python has to write a value is read; blanks and lines around it do not count."""
    assert same(LITERAL.decode(message), value)


def test_true_is_not_one() -> None:
    """Values that are equal in Python and of different kinds stay apart."""
    for value in (True, 1, 1.0, 1 + 0j, False, 0, 0.0, -0.0):
        assert same(LITERAL.decode(LITERAL.encode(value)), value)
    assert JSON.encode([True, 1, 1.0]) == b"[true,1,1.0]"


def test_values_of_derived_types_are_written_as_what_they_are() -> None:
    """A derived str or int without a repr of its own is written as str or int."""

    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    for codec in (JSON, LITERAL):
        assert type(codec.decode(codec.encode(Name("a")))) is str
        assert type(codec.decode(codec.encode(Number(3)))) is int


def test_a_value_is_not_changed_by_writing_it() -> None:
    """Writing leaves the value as it was."""
    value = {"a": [1, {"b": None}]}
    before = copy.deepcopy(value)
    for codec in (JSON, LITERAL):
        codec.encode(value)
        assert value == before


# -- what cannot be written --


@pytest.mark.parametrize("value", ["a", 1, None, [1], {1: 2}])
def test_only_bytes_are_bytes(value: Any) -> None:
    """Anything else is refused by its type."""
    assert refusal(BYTES, value) == f"must be bytes, got {type(value).__name__}"


@pytest.mark.parametrize("value", [b"a", 1, None, ["a"]])
def test_only_a_str_is_text(value: Any) -> None:
    """Anything else is refused by its type; half a surrogate pair by its place."""
    assert refusal(TEXT, value) == f"must be a str, got {type(value).__name__}"
    assert refusal(TEXT, "ab\ud800") == "character 2 is half a surrogate pair"


class Colour(enum.IntEnum):
    """A number with a repr of its own."""

    RED = 1


Point = collections.namedtuple("Point", "x")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"a", "cannot be JSON: Object of type bytes is not JSON serializable"),
        ({1, 2}, "cannot be JSON: Object of type set is not JSON serializable"),
        (1j, "cannot be JSON: Object of type complex is not JSON serializable"),
        (..., "cannot be JSON: Object of type ellipsis is not JSON serializable"),
        ({(1, 2): 3}, "cannot be JSON: keys must be str, int, float, bool or None, not tuple"),
        ("\ud800", "half a surrogate pair"),
        ({"\udfff": 1}, "half a surrogate pair"),
        (math.nan, "cannot be JSON: Out of range float values are not JSON compliant"),
        ([math.inf], "cannot be JSON: Out of range float values are not JSON compliant"),
        ({-math.inf: 1}, "cannot be JSON: Out of range float values are not JSON compliant"),
        pytest.param(10**5000, "cannot be JSON: Exceeds the limit (4300 digits)", id="huge"),
    ],
)
def test_what_json_does_not_know_is_refused(value: Any, told: str) -> None:
    """No value is written in a way that others would read otherwise or not at all."""
    assert told in refusal(JSON, value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {-math.inf},
        complex(math.nan, 1),
        ...,
        bytearray(b"a"),
        frozenset({1}),
        collections.OrderedDict(a=1),
        collections.Counter("a"),
        Point(1),
        Colour.RED,
        range(3),
        object(),
        len,
        int,
    ],
)
def test_what_no_literal_says_is_refused(value: Any) -> None:
    """A value whose repr is not a literal, or the literal of another value, is no message."""
    assert "literal" in refusal(LITERAL, value)


def test_a_repr_that_lies_is_refused() -> None:
    """What reads back as another value is never sent."""

    class Liar:
        def __repr__(self) -> str:
            return "[1, 2]"

    assert refusal(LITERAL, Liar()) == "cannot be a literal: Liar reads back otherwise"


@pytest.mark.parametrize("name", ["json", "literal"])
def test_what_holds_itself_is_refused(name: str) -> None:
    """A list or dict inside itself ends, in a refusal."""
    around: list[Any] = [1]
    around.append(around)
    table: dict[str, Any] = {}
    table["a"] = [table]
    for value in (around, table):
        assert refusal(CODECS[name], value).startswith(f"cannot be {_noun(name)}")


def _noun(name: str) -> str:
    return {"json": "JSON", "literal": "a literal"}[name]


@pytest.mark.parametrize("name", ["json", "literal"])
def test_what_is_nested_too_deeply_is_not_written(name: str) -> None:
    """A value deeper than can be written is refused, by that word."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert refusal(CODECS[name], value) == f"cannot be {_noun(name)}: nested too deeply"
    while value:  # freed level by level
        (value,) = value


def test_an_int_with_no_repr_is_refused() -> None:
    """Where Python has no decimal digits for an int, that is a refusal as any other."""
    assert refusal(LITERAL, 10**5000).startswith("cannot be a literal: ")
    assert refusal(LITERAL, [1 << 20_000]).startswith("cannot be a literal: ")


def test_a_refusal_to_write_says_so() -> None:
    """What a service cannot send is told from what a peer sent."""
    for value in (math.nan, Point(1), object(), frozenset(), ...):
        assert refusal(LITERAL, value).startswith("cannot be a literal: "), value


def test_what_a_service_says_may_be_longer_than_what_a_peer_may() -> None:
    """The limit is one of reading: a service's own value may be any size."""
    assert LITERAL.encode("x" * (2 * MAX_LITERAL_BYTES)) == b"'%b'" % (b"x" * 2 * MAX_LITERAL_BYTES)


def test_the_sign_of_a_real_part_of_zero_is_lost() -> None:
    """Known, and Python's own: complex(-0.0, 1) has no literal; an equal value is read."""
    assert LITERAL.decode(LITERAL.encode(complex(-0.0, 1))) == 1j


# -- what cannot be read --


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\xff", "is not UTF-8 text (byte 0)"),
        (b"ab\xc3", "is not UTF-8 text (byte 2)"),
        (b"\xed\xa0\x80", "is not UTF-8 text (byte 0)"),  # half a surrogate pair
        (b"\xc0\x80", "is not UTF-8 text (byte 0)"),  # longer than need be
    ],
)
def test_what_is_not_utf_8_is_refused_by_all_but_bytes(message: bytes, told: str) -> None:
    """It is told at which byte it breaks, and none of what the peer sent."""
    for codec in (TEXT, JSON, LITERAL):
        assert refusal(codec, message=message) == told


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"  ", "is not JSON: Expecting value: line 1 column 3 (char 2)"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes"),
        (b"1 2", "is not JSON: Extra data: line 1 column 3 (char 2)"),
        (b"'a'", "is not JSON: Expecting value"),
        (b"[1,]", "is not JSON: "),
        (b"01", "is not JSON: Extra data"),
        (b"+1", "is not JSON: Expecting value"),
        (b"NaN", "is not JSON: NaN is no JSON number"),
        (b"[Infinity]", "is not JSON: Infinity is no JSON number"),
        (b'{"a":-Infinity}', "is not JSON: -Infinity is no JSON number"),
        (b'"a\nb"', "is not JSON: Invalid control character at"),
        (b'"\\x41"', "is not JSON: Invalid \\escape"),
        (b'"\\u00g0"', "is not JSON: Invalid \\uXXXX escape"),
        (b"\xef\xbb\xbf1", "is not JSON: Unexpected UTF-8 BOM"),
        (b"1\0", "is not JSON: Extra data"),
        ('"a"'.encode("utf-16-le"), "is not JSON: Invalid control character at"),
        pytest.param(b"9" * 4301, "is not JSON: Exceeds the limit (4300 digits)", id="huge"),
        pytest.param(b"[" * 100_000, "is not JSON: nested too deeply", id="deep list"),
        pytest.param(b'{"a":' * 100_000, "is not JSON: nested too deeply", id="deep dict"),
    ],
)
def test_what_is_not_json_is_refused(message: bytes, told: str) -> None:
    """One JSON value and nothing else, by RFC 8259 and no more."""
    assert refusal(JSON, message=message).startswith(told)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b" ",
        b"\n",
        b"# nothing",
        b"a",
        b"a.b",
        b"len('a')",
        b"__import__('os').system('true')",
        b"().__class__",
        b"[1][0]",
        b"[1][0:1]",
        b"(a := 1)",
        b"[a for a in (1, 2)]",
        b"{a: 1 for a in ()}",
        b"lambda: 1",
        b"1 if 1 else 2",
        b"1 < 2",
        b"not 1",
        b"True and 1",
        b"1 + 1",
        b"2 ** 99",
        b"'a' * 999999999",
        b"'a' + 'b'",
        b"1j + 1",
        b"--1",
        b"~1",
        b"-True",
        b"-'a'",
        b"True + 1j",
        b"f'a'",
        b"f'{1}'",
        b"'a' b'b'",
        b"{*()}",
        b"[*()]",
        b"{**{}}",
        b"set([1])",
        b"set(*())",
        b"frozenset()",
        b"dict()",
        b"nan",
        b"inf",
        b"1; 2",
        b"1\n2",
        b"import os",
        b"await a",
        b"(yield)",
        b"`1`",
        b"0777",
        b"10L",
        b"1\\",
        b"\xef\xbb\xbf1",
        b"\0",
        b"1\0",
        b"'\0'",
        b"{[]}",
        b"{{}: 1}",
        b"{set()}",
        b"'",
        b"'''a",
        b"'\\x'",
        b"'\\N{NO SUCH NAME}'",
        b"'\\U00110000'",
        "b'\u00e4'".encode(),
        pytest.param(b"9" * 4301, id="4301 digits"),
        b"(" * 5,
        b")",
        b"(]",
    ],
)
def test_what_is_not_a_literal_is_refused(message: bytes) -> None:
    """Names, calls, attributes, operations and formats are refused, and nothing of it is run."""
    told = refusal(LITERAL, message=message)
    assert told.startswith("is not a Python literal (")
    assert "\n" not in told


def test_a_literal_has_a_limit() -> None:
    """16 KiB are read; one byte more is not, whatever it says."""
    assert MAX_LITERAL_BYTES == 16 * 1024
    text = b"'%b'" % (b"x" * (MAX_LITERAL_BYTES - 2))
    assert LITERAL.decode(text) == "x" * (MAX_LITERAL_BYTES - 2)
    told = "literal of 16385 bytes; the limit is 16384"
    assert refusal(LITERAL, message=text + b" ") == told
    assert refusal(LITERAL, message=b"\xff" * 16385) == told


# -- whatever a peer sends --


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | NEARLY, st.sampled_from(sorted(CODECS)))
def test_any_bytes_are_read_or_refused(message: bytes, name: str) -> None:
    """Reading raises CodecError and nothing else, and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(CodecError):
            CODECS[name].decode(message)


def test_a_sum_too_large_is_refused() -> None:
    """An int past every float, plus an imaginary number, is no value."""
    for sign in (b"+", b"-"):
        told = refusal(LITERAL, message=b"1" + b"0" * 400 + sign + b"1j")
        assert told.startswith("is not a Python literal (")


def echoed(name: str, message: bytes) -> None:
    """Read *message*; what is read can be written again, and shown."""
    codec = CODECS[name]
    try:
        value = codec.decode(message)
    except CodecError:
        return
    repr(value)
    codec.encode(value)


# What reads as a value that cannot be written. A service that echoes it would end with
# service_error and a traceback in the log, for a peer's fault.
ONE_WAY = [
    pytest.param("json", b"1e999", id="json-infinity"),
    pytest.param("json", b"[-1e999]", id="json-minus-infinity"),
    pytest.param("json", rb'"\ud800"', id="json-half-a-pair"),
    pytest.param("json", rb'{"\uDFFF": 1}', id="json-key-of-half-a-pair"),
    pytest.param("json", rb'["\ude00\ud83d"]', id="json-pair-in-the-wrong-order"),
    pytest.param("literal", b"1e999", id="literal-infinity"),
    pytest.param("literal", b"{1: (-1e999,)}", id="literal-minus-infinity"),
    pytest.param("literal", b"1e999j", id="literal-infinity-imaginary"),
    pytest.param("literal", b"...", id="literal-ellipsis"),
    pytest.param("literal", b"[{...}]", id="literal-ellipsis-inside"),
    pytest.param("literal", b"0x" + b"f" * 4000, id="literal-int-without-digits"),
    pytest.param("literal", b"'%b'" % (b"\1" * 5000), id="literal-longer-when-written"),
    pytest.param("literal", b"[" * 200 + b"1+2j" + b"]" * 200, id="literal-deeper-when-written"),
]


@pytest.mark.parametrize(("name", "message"), ONE_WAY)
def test_what_is_read_can_be_written(name: str, message: bytes) -> None:
    """What no service could send back is refused where it comes in: the fault is the peer's."""
    echoed(name, message)


@settings(max_examples=500, deadline=None)
@given(NEARLY, st.sampled_from(["text", "json"]))
def test_whatever_is_read_can_be_written(message: bytes, name: str) -> None:
    """So with any bytes; the known exceptions are the ones above."""
    if b"1e999" in message or b"\\ud800" in message or b"\\ud" in message:
        return
    echoed(name, message)


def test_what_is_read_is_no_deeper_than_a_walk_can_go() -> None:
    """A service may walk what it is handed, with functions that call themselves."""

    def depth(value: Any) -> int:
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    for levels in (500, 900, 980, 1490, 5000, 9990):
        try:
            value = JSON.decode(b"[" * levels + b"]" * levels)
        except CodecError:
            continue
        assert depth(value) == levels


HOSTILE = """
import itertools, sys, time, warnings
from twistedsock.errors import CodecError
from twistedsock.wire.codecs import CODECS, MAX_LITERAL_BYTES as N
warnings.simplefilter("error")
pairs = ["[]", "()", "{}", ("{1:", "}"), ("((", ",),)"), ("[1,", "]"), ("set(", ")"), ("{*", "}"),
    ("a[", "]"), ("a(", ")"), ("(lambda:", ")"), ("(yield ", ")"), ("[a for a in ", "]"),
    ("(a:=", ")"), ("(-", ")"), ("f'{", "}'"), ("{**", "}"), ("(a for a in ", ")")]
units = ["-", "+", "~", "- ", "not ", "1-", "1+", "1j+", "1**", "1<", "1,", "1:", "a.", "a=", "a:=",
    "1 and ", "1 if 1 else ", "lambda:", "lambda a=", "await ", "*", "**", "'a'", "b'a' ", "f''",
    "f'{1}'", "()", "[]", "[1][", "...,", ".", "0", "9", "1_", "0x", "1e", "#", ";", "@", "\\\\",
    "\\\\\\n", "\\n", " ", "\\t", "\\0", "\\\\N{SNOWMAN}", "\\\\d", "1if 1else ", "for ", "{1:2,"]
messages = []
for (opening, closing), depth in itertools.product(pairs, (90, 199, 200, 201, 1000, N)):
    for middle in ("", "1"):
        whole = opening * depth + middle + closing * depth
        half = N // (len(opening) + len(closing))
        messages += [whole if len(whole) <= N else opening * half + closing * half]
        messages += [(opening * depth + middle)[:N], (closing * depth)[:N]]
for unit, end in itertools.product(units, ("", "1", "a", "'", "j")):
    messages.append((unit * N)[:N - len(end)] + end)
    messages.append("'" + (unit * N)[:N - 2] + "'")
messages += [f"{{{','.join(str((2**61 - 1) * k) for k in range(700))}}}"]  # of one hash
messages += ["9" * 4300 + "," + "9" * 4300, "0x" + "f" * (N - 2), "0." + "1" * (N - 2)]
slowest = (0.0, "")
for name, message in itertools.product(("literal", "json", "text"), messages):
    data = message.encode()[:N]
    began = time.process_time()
    try:
        CODECS[name].decode(data)
    except CodecError:
        pass
    slowest = max(slowest, (time.process_time() - began, f"{name} {message[:40]!r}"))
print(len(messages), slowest)
sys.exit(slowest[0] >= 1.0)
"""


def test_nothing_that_a_peer_sends_crashes_or_stalls() -> None:
    """Each kind of nesting, at every size up to the limit, is over within a second of work.

    In a process of its own: where it goes wrong, it takes the interpreter with it.
    """
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.parametrize("action", ["always", "error", "default"])
def test_reading_warns_of_nothing(action: Any, recwarn: pytest.WarningsRecorder) -> None:
    """Odd escapes and numbers warn nobody, so that no peer fills the log."""
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        before = warnings.filters[:]
        assert LITERAL.decode(rb"'\d'") == "\\d"
        assert LITERAL.decode(rb"b'\d\777'")
        for message in (b"1if 1else 2", b"0x1for a in b", b"1 is 1", b"1()", b"[1]['a']"):
            refusal(LITERAL, message=message)
        assert warnings.filters == before
    assert not recwarn.list


THREADS = """
import sys, threading, warnings
from twistedsock.wire.codecs import CODECS
sys.setswitchinterval(1e-6)
before = warnings.filters[:]
def read():
    for _ in range(3000):
        CODECS["literal"].decode(b"[1, 2]")
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(warnings.filters != before)
"""


def test_reading_in_threads_leaves_the_warnings_alone() -> None:
    """The blocking client reads in threads: the process's warnings stay as they were."""
    done = subprocess.run([sys.executable, "-c", THREADS], timeout=60, check=False)
    assert done.returncode == 0
