"""Log lines: one an event, valid, and with nobody's bytes between."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from twistedsock.errors import CloseReason
from twistedsock.host.logs import FORMATS, LogFile, json_line, make_observer, text_line


def event(text: str = "hello {name}", /, **fields: Any) -> LogEvent:
    """Return an event such as a Logger makes."""
    return {
        "log_format": text,
        "log_time": 1.5,
        "log_level": LogLevel.info,
        "log_namespace": "twistedsock",
        **fields,
    }


def failed() -> Failure:
    """Return a failure with a traceback."""
    try:
        raise ValueError("no\x1bgood")
    except ValueError:
        return Failure()


def strict_json(line: str) -> Any:
    """Return what *line* holds, by RFC 8259: without NaN and Infinity."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    return json.loads(line, parse_constant=refuse)


class Lines:
    """A log file that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Keep *line*."""
        self.lines.append(line)


def observed(form: str, *events: LogEvent) -> list[str]:
    """Return the lines that an observer of *form* writes for *events*."""
    file: Any = Lines()
    observer = make_observer(form, file)
    for each in events:
        observer(each)
    return file.lines


# -- what a line holds --


def test_a_text_line_has_time_namespace_level_and_message() -> None:
    """A text line reads like Twisted's own."""
    line = text_line(event(name="you"))
    assert line.endswith(" [twistedsock#info] hello you\n")
    assert line.startswith("19")


def test_a_json_line_has_every_field() -> None:
    """A JSON line holds time, level, namespace, message and what the event carries."""
    line = json_line(
        event(
            name="you",
            event="closed",
            reason=CloseReason.IDLE_TIMEOUT,
            bytes_in=3,
            duration_s=0.5,
            ok=True,
            none=None,
            data=b"\x00\xff",
            other=[1],
        )
    )
    assert strict_json(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "info",
        "namespace": "twistedsock",
        "message": "hello you",
        "name": "you",
        "event": "closed",
        "reason": "idle_timeout",
        "bytes_in": 3,
        "duration_s": 0.5,
        "ok": True,
        "none": None,
        "data": "b'\\x00\\xff'",
        "other": "[1]",
    }


def test_a_field_does_not_take_the_place_of_our_own() -> None:
    """An event's own field cannot pose as its time, level or message."""
    record = strict_json(json_line(event("real", message="fake", level="fake", time="fake")))
    assert (record["message"], record["level"]) == ("real", "info")
    assert record["time"] == "1970-01-01T00:00:01.500+00:00"


def test_long_bytes_are_cut() -> None:
    """A field of bytes is told by its first 64 and its length."""
    record = strict_json(json_line(event("x", data=b"a" * 1000)))
    assert record["data"] == f"b'{'a' * 64}'... (1000 bytes)"


def test_an_event_of_twisted_s_logger_comes_through_whole() -> None:
    """What a real Logger emits is one line in each form."""
    events: list[LogEvent] = []
    Logger(namespace="ours", observer=events.append).warn("{n} dropped", n=3)
    [text] = observed("text", *events)
    [line] = observed("json", *events)
    assert text.endswith(" [ours#warn] 3 dropped\n")
    assert strict_json(line)["message"] == "3 dropped"


# -- what a peer may put into it --

NASTY = {
    "\n": ("\n\t", "\\n"),  # indented, so that it begins no line of its own
    "\r": ("\\x0d", "\\r"),
    "\x00": ("\\x00", "\\u0000"),
    "\x07": ("\\x07", "\\u0007"),
    "\x08": ("\\x08", "\\b"),
    "\x0b": ("\\x0b", "\\u000b"),
    "\x0c": ("\\x0c", "\\f"),
    "\x1b": ("\\x1b", "\\u001b"),
    "\x7f": ("\\x7f", None),
    "\x85": ("\\x85", "\\u0085"),
    "\x9b": ("\\x9b", "\\u009b"),
    "\u2028": ("\\u2028", "\\u2028"),
    "\u2029": ("\\u2029", "\\u2029"),
}


@pytest.mark.parametrize("character", NASTY, ids=lambda character: f"U+{ord(character):04X}")
def test_a_control_character_is_escaped(character: str) -> None:
    """No control character from a peer reaches a terminal or ends a line."""
    in_text, in_json = NASTY[character]
    sent = event("got {said}", said=f"a{character}b")
    assert text_line(sent).endswith(f" got a{in_text}b\n")
    line = json_line(sent)
    if in_json is not None:
        assert f"got a{in_json}b" in line
    assert strict_json(line)["said"] == f"a{character}b"


@given(said=st.text())
def test_no_text_begins_or_colours_a_line(said: str) -> None:
    """Whatever is said, every further line is indented and nothing steers a terminal."""
    head, *more = text_line(event("got {said}", said=said)).removesuffix("\n").split("\n")
    assert " [twistedsock#info] got " in head
    assert all(line.startswith("\t") for line in more)
    assert not any(
        ord(character) < 32 or 0x7F <= ord(character) < 0xA0 or character in "\u2028\u2029"
        for line in (head, *more)
        for character in line.replace("\t", "")
    )


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    fields=st.dictionaries(
        st.text().filter(lambda key: not key.startswith("log_")),
        st.text() | st.binary() | st.integers() | st.floats() | st.none(),
    )
)
def test_any_fields_are_one_line_of_json(fields: dict[str, Any]) -> None:
    """Whatever an event carries, its line is printable ASCII and valid JSON."""
    [line] = observed("json", event("x", **fields))
    assert strict_json(line)["message"] == "x"
    assert line[:-1].isascii()
    assert not any(ord(character) < 32 for character in line[:-1])


def test_a_traceback_is_indented() -> None:
    """A failure's traceback follows its line, each further line behind a tab."""
    head, *more = text_line(event("it failed", log_failure=failed())).splitlines()
    assert head.endswith(" it failed")
    assert more[0] == "\tTraceback (most recent call last):"
    assert more[-1] == "\tbuiltins.ValueError: no\\x1bgood"
    assert all(line.startswith("\t") for line in more)


def test_a_traceback_is_one_field_of_json() -> None:
    """In JSON a traceback stays on the event's own line."""
    record = strict_json(json_line(event("it failed", log_failure=failed())))
    assert record["message"] == "it failed"
    assert record["traceback"].startswith("Traceback (most recent call last):\n")
    assert record["traceback"].endswith("ValueError: no\x1bgood\n")


# -- events that are hard to tell --


class Unshowable:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "fields",
    [
        {"thing": Unshowable()},
        {"ratio": float("nan")},
        {"ratio": float("-inf")},
        {"log_time": None},
        {"log_level": None},
    ],
    ids=["unshowable", "nan", "infinity", "no-time", "no-level"],
)
def test_a_strange_field_costs_no_line_its_message(fields: dict[str, Any]) -> None:
    """An event that holds something strange is still one line of JSON with its message."""
    [line] = observed("json", event("all the same", **fields))
    assert strict_json(line)["message"] == "all the same"


@pytest.mark.parametrize("form", FORMATS)
def test_an_event_that_cannot_be_told_is_told_so(form: str) -> None:
    """An observer raises for no event, and what it writes instead is of its form."""
    strange: Any = {**event("x"), 3: 4, "log_namespace": Unshowable()}
    lines = observed(form, strange)
    assert len(lines) == 1
    if form == "json":
        assert strict_json(lines[0])["message"]
    assert lines[0].endswith("\n")


def test_an_event_without_a_message_is_no_blank_line() -> None:
    """An event for machines alone writes nothing in text, as with Twisted's own observers."""
    nothing = event()
    nothing["log_format"] = None
    assert observed("text", nothing) == []


# -- where it goes --


def test_a_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    """What was written is there for others to read, behind what was there before."""
    path = tmp_path / "log"
    path.write_text("before\n")
    file = LogFile(str(path))
    file.write("caf\xe9 \udc80\n")
    assert path.read_text() == "before\ncaf\xe9 \\udc80\n"
    file._file.close()


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """A wrong path is told when the log is opened, not when the first line is lost."""
    with pytest.raises(FileNotFoundError):
        LogFile(str(tmp_path / "none" / "log"))


def test_a_renamed_file_is_left_when_the_log_is_reopened(tmp_path: Path) -> None:
    """Until it is reopened the log follows its file; then it begins a new one of its name."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    file = LogFile(str(path))
    file.write("one\n")
    path.rename(old)
    file.write("two\n")
    file.reopen()
    file.write("three\n")
    assert (old.read_text(), path.read_text()) == ("one\ntwo\n", "three\n")
    file._file.close()


def test_a_log_that_cannot_be_reopened_goes_on(tmp_path: Path) -> None:
    """Where the new file cannot be opened, the old one is still written to."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = LogFile(str(folder / "log"))
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        file.reopen()
    file.write("still here\n")
    assert (tmp_path / "moved" / "log").read_text() == "still here\n"
    file._file.close()


def test_reopening_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    """The old file is closed when the new one is open."""
    file = LogFile(str(tmp_path / "log"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        file.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    file._file.close()


def test_standard_output_is_not_reopened(capsys: pytest.CaptureFixture[str]) -> None:
    """A log on standard output stays there when asked to reopen."""
    file = LogFile(None)
    file.reopen()
    file.write("here\n")
    assert capsys.readouterr().out == "here\n"
    assert not sys.stdout.closed


def test_a_full_disk_does_not_raise(tmp_path: Path) -> None:
    """A line that cannot be written is lost, and nothing else is."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    file = LogFile(str(path))
    for _ in range(1000):
        file.write("x" * 100 + "\n")


def test_a_log_leaves_a_full_disk(tmp_path: Path) -> None:
    """Reopening on a disk with room succeeds, though the old file can no longer be flushed."""
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    file = LogFile(str(path))
    file.write("lost\n")
    path.unlink()
    file.reopen()
    file.write("kept\n")
    assert path.read_text() == "kept\n"
    file._file.close()


def test_a_closed_standard_output_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that closed its output is not ended by its log."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    LogFile(None).write("lost\n")


def test_a_pipe_without_a_reader_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the log may go away."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    LogFile(None).write("lost\n")


def test_a_character_that_the_output_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is not lost for one character that standard output cannot encode."""
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, encoding="ascii"))
    LogFile(None).write("caf\xe9 \u20ac\n")
    assert sink.getvalue() == b"caf\\xe9 \\u20ac\n"


def test_a_process_without_standard_output_does_not_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python has no sys.stdout where the descriptor was closed before it started."""
    monkeypatch.setattr(sys, "stdout", None)
    LogFile(None).write("lost\n")
