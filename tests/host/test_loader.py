"""From files and assignments to one raw table that remembers where each key came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twistedsock.host import loader
from twistedsock.host.loader import RawConfig, format_path, read_files, set_key


def files(folder: Path, **texts: str | bytes) -> list[str]:
    """Write each text to a file of its name and return their paths, in order."""
    paths = []
    for name, text in texts.items():
        path = folder / f"{name}.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        paths.append(str(path))
    return paths


def told(raw: RawConfig) -> list[str]:
    """Return the problems of *raw* as the operator reads them."""
    return [str(problem) for problem in raw.problems]


def assign(*assignments: str) -> RawConfig:
    """Return what ``--set`` makes of *assignments*."""
    raw = RawConfig()
    for assignment in assignments:
        set_key(raw, assignment)
    return raw


# -- files --


def test_a_file_is_read_as_toml(tmp_path: Path) -> None:
    """The tables of a file are the raw tables."""
    [path] = files(tmp_path, one='[services.main]\nservice = "echo"\nlisten = ["tcp:9000"]\n')
    raw = read_files([path])
    assert raw.table == {"services": {"main": {"service": "echo", "listen": ["tcp:9000"]}}}
    assert told(raw) == []


def test_no_file_is_an_empty_table() -> None:
    """Without files there is nothing, and nothing wrong."""
    raw = read_files([])
    assert (raw.table, raw.origins, raw.problems) == ({}, {}, [])


def test_a_later_file_replaces_single_keys(tmp_path: Path) -> None:
    """A key of a later file replaces its like; its neighbours and other tables stay."""
    paths = files(
        tmp_path,
        base='[services.a]\nservice = "echo"\nframing = "line"\nlimits.idle_timeout = "1m"\n'
        '[services.b]\nservice = "discard"\n',
        top='[services.a]\nframing = "chunk"\nlimits.max_connections = 5\n',
    )
    assert read_files(paths).table == {
        "services": {
            "a": {
                "service": "echo",
                "framing": "chunk",
                "limits": {"idle_timeout": "1m", "max_connections": 5},
            },
            "b": {"service": "discard"},
        }
    }


def test_a_list_is_replaced_whole(tmp_path: Path) -> None:
    """Lists are values: those of two files are not joined."""
    base, top = files(tmp_path, base='listen = ["tcp:1", "tcp:2"]', top='listen = ["tcp:3"]')
    assert read_files([base, top]).table == {"listen": ["tcp:3"]}
    assert read_files([top, base]).table == {"listen": ["tcp:1", "tcp:2"]}


@pytest.mark.parametrize(
    ("base", "top", "merged"),
    [
        ("a = 1", "[a]\nb = 2", {"a": {"b": 2}}),
        ("[a]\nb = 2", "a = 1", {"a": 1}),
        ("[a]\nb = 2", "[a]", {"a": {"b": 2}}),
    ],
)
def test_a_table_and_a_value_replace_each_other(
    tmp_path: Path, base: str, top: str, merged: dict[str, Any]
) -> None:
    """Where one file has a table and the other a value, the later one counts."""
    assert read_files(files(tmp_path, base=base, top=top)).table == merged


def test_merging_does_not_change_what_was_merged() -> None:
    """The tables that are laid over each other stay as they were."""
    first, second = {"a": {"b": 1}}, {"a": {"c": 2}}
    raw = RawConfig()
    raw.merge(first, "first")
    raw.merge(second, "second")
    assert (first, second) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_every_key_remembers_its_file(tmp_path: Path) -> None:
    """A key's origin is the file that set it last; below a list it is the list's."""
    base, top = files(
        tmp_path,
        base='[services.a]\nservice = "echo"\nlisten = [{ address = "tcp:1" }]\n',
        top='[services.a]\nservice = "discard"\n',
    )
    raw = read_files([base, top])
    assert raw.origin(("services", "a", "service")) == top
    assert raw.origin(("services", "a", "listen", 0, "address")) == base


def test_a_missing_key_comes_from_the_nearest_table_above(tmp_path: Path) -> None:
    """A key that is not there is laid to the file of the table that lacks it."""
    base, top = files(tmp_path, base="[services.a]\n", top="[services.b]\n")
    raw = read_files([base, top])
    assert raw.origin(("services", "a", "listen")) == base
    assert raw.origin(("services", "b", "listen")) == top
    assert raw.origin(("elsewhere",)) == ""


# -- files that cannot be read --


def test_a_file_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    """A missing file is a problem with its path, not an exception."""
    path = str(tmp_path / "none.toml")
    assert told(read_files([path])) == [f"{path}: cannot be read: No such file or directory"]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A directory in a file's place is told as the system tells it."""
    assert told(read_files([str(tmp_path)])) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path: Path) -> None:
    """A file that is not UTF-8 is told with the first wrong byte."""
    [path] = files(tmp_path, latin=b'name = "caf\xe9"')
    assert told(read_files([path])) == [f"{path}: is not UTF-8 text (byte 11)"]


def test_a_slip_in_toml_is_told_with_its_line(tmp_path: Path) -> None:
    """Text that is no TOML is told with line and column."""
    [path] = files(tmp_path, slip="a = 1\nb = \n")
    assert told(read_files([path])) == [
        f"{path}: is not valid TOML: Invalid value (at line 2, column 5)"
    ]


def test_a_number_too_long_to_read_is_told(tmp_path: Path) -> None:
    """A number that Python refuses to convert is a fault of the file, not of ours."""
    [path] = files(tmp_path, number=f"a = {'9' * 5000}")
    [problem] = told(read_files([path]))
    assert problem.startswith(f"{path}: is not valid TOML: Exceeds the limit (4300 digits)")


def test_lists_nested_without_end_are_told(tmp_path: Path) -> None:
    """A file that is nested too deeply for the parser is a problem, not a crash."""
    [path] = files(tmp_path, deep="a = " + "[" * 20_000)
    assert told(read_files([path])) == [f"{path}: is nested too deeply"]


def test_a_file_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than the limit is read, and one byte more is refused."""
    monkeypatch.setattr(loader, "MAX_FILE_BYTES", 10)
    fits, over = files(tmp_path, fits="a = 123456", over="a = 1234567")
    raw = read_files([fits, over, "/dev/zero"])
    assert raw.table == {"a": 123456}
    assert told(raw) == [
        f"{over}: is not valid TOML: longer than 10 bytes",
        "/dev/zero: is not valid TOML: longer than 10 bytes",
    ]


def test_every_bad_file_is_told_and_the_good_ones_count(tmp_path: Path) -> None:
    """One bad file does not hide the next, nor what the good ones say."""
    slip, good = files(tmp_path, slip="a =", good="b = 2")
    raw = read_files(["/none.toml", slip, good])
    assert told(raw) == [
        "/none.toml: cannot be read: No such file or directory",
        f"{slip}: is not valid TOML: Invalid value (at end of document)",
    ]
    assert raw.table == {"b": 2}


# -- --set --


@pytest.mark.parametrize(
    ("assignment", "table"),
    [
        ("a.b.c=1m", {"a": {"b": {"c": "1m"}}}),
        ("a=3", {"a": 3}),
        ("a = 3", {"a": 3}),
        ("a=true", {"a": True}),
        ('a="3"', {"a": "3"}),
        ('a=["tcp:9000", "udp:9000"]', {"a": ["tcp:9000", "udp:9000"]}),
        ('a={ address = "tcp:9000" }', {"a": {"address": "tcp:9000"}}),
        ("a=10.0.0.0/8", {"a": "10.0.0.0/8"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x # no comment", {"a": "x # no comment"}),
        ('a=say "hi" \\ there', {"a": 'say "hi" \\ there'}),
        ("a=\x1b\t\r\x7f", {"a": "\x1b\t\r\x7f"}),
        ("a=caf\xe9", {"a": "caf\xe9"}),
        ('services."a b".framing=line', {"services": {"a b": {"framing": "line"}}}),
    ],
)
def test_set_takes_a_toml_value_or_else_a_text(assignment: str, table: dict[str, Any]) -> None:
    """What is no TOML value is taken as the text that it is."""
    raw = assign(assignment)
    assert raw.table == table
    assert told(raw) == []


def test_a_later_set_counts() -> None:
    """Of two assignments of one key the later one counts, and is its origin."""
    raw = assign("a.b=1", "a.c=2", "a.b=3")
    assert raw.table == {"a": {"b": 3, "c": 2}}
    assert raw.origin(("a", "b")) == "--set a.b=3"
    assert raw.origin(("a", "c")) == "--set a.c=2"


def test_set_counts_over_files(tmp_path: Path) -> None:
    """An assignment replaces what a file says of one key."""
    [path] = files(tmp_path, one="a.b = 1\na.c = 2")
    raw = read_files([path])
    set_key(raw, "a.b=9")
    assert raw.table == {"a": {"b": 9, "c": 2}}
    assert raw.origin(("a", "c")) == path


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "must be KEY=VALUE, such as services.main.limits.idle_timeout=1m"),
        ("", "must be KEY=VALUE, such as services.main.limits.idle_timeout=1m"),
        (" =3", "must be KEY=VALUE, such as services.main.limits.idle_timeout=1m"),
        ("a b=3", "'a b' is not a dotted key"),
        ("a..b=3", "'a..b' is not a dotted key"),
        (".a=3", "'.a' is not a dotted key"),
        ("[a]b=3", "'[a]b' is not a dotted key"),
        ("a=1\nb=2", "must be one line"),
        ("a\nb=2", "must be one line"),
    ],
)
def test_a_wrong_set_is_told_and_changes_nothing(assignment: str, message: str) -> None:
    """What is no assignment is a problem that quotes it and says what would be one."""
    raw = assign(assignment)
    assert told(raw) == [f"--set {assignment}: {message}"]
    assert raw.table == {}


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 20_000])
def test_a_value_that_breaks_the_parser_does_not_break_us(value: str) -> None:
    """A value that no TOML parser can hold is taken as a text, like any that is no TOML."""
    raw = assign(f"a={value}")
    assert raw.table == {"a": value}
    assert told(raw) == []


# -- key paths --


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("services",), "services"),
        (("services", "main", "listen", 0, "address"), "services.main.listen[0].address"),
        (("services", "a b", "limits"), 'services."a b".limits'),
        (("services", "", "limits"), 'services."".limits'),
        (("services", 'a"b\n'), 'services."a\\"b\\n"'),
        (("services", "a.b"), 'services."a.b"'),
    ],
)
def test_a_key_path_reads_as_in_the_file(path: tuple[str | int, ...], text: str) -> None:
    """Keys are joined as TOML joins them; what needs quotes gets them, on one line."""
    assert format_path(path) == text
