"""From TOML files and flags to one raw table, with the origin of every key.

Reads the named files and nothing else. What the table means is checked in ``plan``.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twistedsock.errors import Problem

MAX_FILE_BYTES = 4 * 1024 * 1024  # a configuration is read whole; this one is no configuration
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(slots=True)
class RawConfig:
    """Tables as they were written, merged; later sources replace earlier ones key by key.

    Attributes:
        table: The merged tables.
        origins: The file or flag of every key, by key path.
        sources: The files and flags that were merged, those without a key too.
        problems: Files and flags that could not be read.
    """

    table: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def merge(self, table: Mapping[str, Any], source: str) -> None:
        """Lay *table* over what is here."""
        self.sources.append(source)
        self._merge(self.table, table, source, ())

    def _merge(
        self, base: dict[str, Any], top: Mapping[str, Any], source: str, path: tuple[str | int, ...]
    ) -> None:
        for key, value in top.items():
            here = (*path, key)
            self.origins[here] = source
            if isinstance(value, Mapping):
                below = base.get(key)
                if not isinstance(below, dict):
                    below = base[key] = {}
                self._merge(below, value, source, here)
            else:
                base[key] = value
                self._forget_below(here)

    def _forget_below(self, path: tuple[str | int, ...]) -> None:
        """Drop the origins of what a value at *path* has replaced."""
        depth = len(path)
        for below in [each for each in self.origins if len(each) > depth and each[:depth] == path]:
            del self.origins[below]

    def origin(self, path: Sequence[str | int]) -> str:
        """Return the file or flag that *path*, or the nearest key above it, came from."""
        for length in range(len(path), 0, -1):
            source = self.origins.get(tuple(path[:length]))
            if source is not None:
                return source
        return ""


def read_files(paths: Iterable[str]) -> RawConfig:
    """Return the merged tables of the TOML files at *paths*."""
    raw = RawConfig()
    for path in paths:
        try:
            text = _read(Path(path))
            raw.merge(tomllib.loads(text), path)
        except OSError as error:
            raw.problems.append(Problem(path, "", f"cannot be read: {error.strerror or error}"))
        except UnicodeDecodeError as error:
            message = f"is not UTF-8 text (byte {error.start})"
            raw.problems.append(Problem(path, "", message))
        except (tomllib.TOMLDecodeError, ValueError) as error:
            raw.problems.append(Problem(path, "", f"is not valid TOML: {error}"))
        except RecursionError:
            raw.problems.append(Problem(path, "", "is nested too deeply"))
    return raw


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"longer than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8")


def set_key(raw: RawConfig, assignment: str) -> None:
    """Apply ``--set KEY=VALUE``: a dotted key, and a TOML value or else a text.

    ``services.main.limits.idle_timeout=1m`` and ``services.main.listen=["tcp:9000"]`` both do
    what they say.
    """
    source = f"--set {assignment}"
    key, equals, value = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        example = "services.main.limits.idle_timeout=1m"
        raw.problems.append(Problem(source, "", f"must be KEY=VALUE, such as {example}"))
        return
    if "\n" in assignment:
        raw.problems.append(Problem(source, "", "must be one line"))
        return
    # JSON leaves DEL as it is, which TOML refuses.
    quoted = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    for text in (value, quoted):
        try:
            table = tomllib.loads(f"{key} = {text}")
        except (ValueError, RecursionError):  # the parser's own limits are among them
            continue
        raw.merge(table, source)
        return
    raw.problems.append(Problem(source, "", f"{key!r} is not a dotted key"))


def format_path(path: Sequence[str | int]) -> str:
    """Return a key path as TOML writes it, with list positions in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if _BARE_KEY.fullmatch(part) else json.dumps(part)
            text += f".{quoted}" if text else quoted
    return text
