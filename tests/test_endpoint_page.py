"""docs/endpoints.md: every program on it is run, and says what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from daemons import Start

PAGE = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHOWN = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
# Runs the reactor of those that have one for a moment.
FOR_A_MOMENT = "\nreactor.callLater(0.5, reactor.stop)\nreactor.run()\n"


def run(source: str, port: int) -> str:
    """Return what a program of the page prints, against a daemon on *port*."""
    source = source.replace("8888", str(port))
    if "reactor" in source:
        source += FOR_A_MOMENT
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_every_program_runs(number: int, start: Start) -> None:
    """Each program on the page runs as it is, and complains of nothing."""
    daemon = start("--port", "0").ready()
    printed = run(PROGRAMS[number], daemon.port("tcp"))
    for name, told in (("TCP_USER_TIMEOUT", "10s"), ('"defer"', "7")):
        if name in PROGRAMS[number]:
            assert printed.split() == [told]
    assert daemon.stop() == 0


def test_the_first_prints_what_is_shown(start: Start) -> None:
    """What the page shows of the first program is what it prints, on a machine of that rmem_max."""
    limit = Path("/proc/sys/net/core/rmem_max").read_text().strip()
    [shown] = SHOWN
    assert run(PROGRAMS[0], 0) == re.sub(r"(rmem_max = )[0-9]+", rf"\g<1>{limit}", shown)


def test_the_readme_leads_here() -> None:
    """The README has a link to the page."""
    assert "(docs/endpoints.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
