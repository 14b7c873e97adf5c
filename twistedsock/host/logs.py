"""Log observers: one line an event, for people or for machines, and nobody's bytes between.

Whatever a peer managed to get into an event, its control characters are escaped: a log line is
never begun, ended or coloured by a peer.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.reflect import safe_repr

from twistedsock.units import quote_bytes

FORMATS = ("text", "json")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {0x2028: "\\u2028", 0x2029: "\\u2029"}  # line ends to some readers
_LINE_ESCAPES = {code: text for code, text in _CONTROL.items() if code not in (9, 10)}


class LogFile:
    """A log file that can be reopened after something else has renamed it.

    Args:
        path: Appended to; None for standard output.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._file: IO[str] | None = self._open()

    def _open(self) -> IO[str] | None:
        if self._path is None:
            return sys.stdout  # None in a process that was started without one
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace")

    def write(self, line: str) -> None:
        """Write *line* through to the system."""
        file = self._file
        if file is None:
            return
        try:
            try:
                file.write(line)
            except UnicodeEncodeError:  # standard output has whatever encoding the locale says
                file.write(line.encode("ascii", "backslashreplace").decode())
            file.flush()
        except (OSError, ValueError):
            pass  # a full disk or a closed pipe must not end the service of anybody

    def reopen(self) -> None:
        """Open the path anew; where that fails, go on with the old file."""
        if self._path is not None:
            old, self._file = self._file, self._open()
            if old is not None:
                with suppress(OSError):  # what a full disk did not take is lost
                    old.close()


def text_line(event: LogEvent) -> str:
    """Return *event* as text; further lines of it, such as a traceback's, begin with a tab.

    An event that has no message is no text.
    """
    text = _message(event)
    if "log_failure" in event:
        text += "\n" + event["log_failure"].getTraceback()
    if not text:
        return ""
    if not text.isprintable():
        text = text.translate(_LINE_ESCAPES).rstrip("\n").replace("\n", "\n\t")
    level = event.get("log_level")
    system = f"{event.get('log_namespace', '-')}#{level.name if level is not None else '-'}"
    return f"{_second(int(event.get('log_time') or 0))} [{system}] {text}\n"


def _message(event: LogEvent) -> str:
    """Return the event's message, by Twisted's slow formatter only where it needs that."""
    form = event.get("log_format")
    if form.__class__ is str and "(" not in form:
        with suppress(Exception):  # then Twisted's formatter says what is wrong with it
            return str(form.format_map(event))
    return formatEvent(event)


@lru_cache(maxsize=4)
def _second(when: int) -> str:
    """Return a second of the Unix epoch as local time with its zone."""
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")


def json_line(event: LogEvent) -> str:
    """Return *event* as one JSON object on one line: time, level, namespace, message, fields."""
    level = event.get("log_level")
    when = datetime.fromtimestamp(event.get("log_time") or 0.0, UTC)
    record: dict[str, Any] = {
        "time": when.isoformat(timespec="milliseconds"),
        "level": level.name if level is not None else "info",
        "namespace": event.get("log_namespace", ""),
        "message": _message(event),
    }
    for key, value in event.items():
        if not key.startswith("log_") and key not in record:
            record[key] = _plain(value)
    failure = event.get("log_failure")
    if failure is not None:
        record["traceback"] = failure.getTraceback()
    # ASCII alone: every control character of every alphabet is escaped.
    return json.dumps(record, ensure_ascii=True) + "\n"


def _plain(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no word for it
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return quote_bytes(value)
    return safe_repr(value)


def make_observer(format_name: str, file: LogFile) -> Callable[[LogEvent], None]:
    """Return an observer that writes each event to *file* in one of FORMATS."""
    to_line = json_line if format_name == "json" else text_line

    def observe(event: LogEvent) -> None:
        try:
            line = to_line(event)
        except Exception as error:  # a foreign event may hold anything
            line = to_line(
                {
                    "log_format": "an event could not be formatted: {error}",
                    "log_namespace": "twistedsock",
                    "log_level": LogLevel.error,
                    "log_time": time.time(),
                    "error": type(error).__name__,
                }
            )
        if line:
            file.write(line)

    return observe
