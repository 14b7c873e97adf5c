"""docs/socket.md: every program on it prints what the page shows, and the table is complete."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import ROOT, run

from twistedsock import Socket

PAGE = (ROOT / "docs" / "socket.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
TUTORIAL = """bind listen accept connect connect_ex recv send sendall recvfrom sendto close
getpeername getsockname setsockopt getsockopt settimeout gettimeout fileno setblocking makefile"""


def test_every_block_is_a_program_with_its_output() -> None:
    """No block of the page is left out."""
    assert len(PROGRAMS) == PAGE.count("```python") == PAGE.count("```text") > 4


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_prints_what_is_shown(number: int) -> None:
    """It runs as it is, and complains of nothing."""
    program, shown = PROGRAMS[number]
    done = run(sys.executable, "-W", "error", "-X", "dev", "-c", program)
    assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)


def test_the_table_has_every_call_of_the_tutorial() -> None:
    """Each is in the first column, and is a method."""
    rows = re.findall(r"^\| (`.*?) \| ", PAGE, re.M)[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)\(", row)]
    assert sorted(named) == sorted(TUTORIAL.split())
    assert all(callable(getattr(Socket, name)) for name in named)


def test_every_method_is_named() -> None:
    """The page names whatever the class has."""
    public = {name for name in dir(Socket) if not name.startswith("_")} - {"sendmsg_afalg"}
    assert {name for name in public if not re.search(rf"`{name}\b", PAGE)} == set()
