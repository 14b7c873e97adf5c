"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import twistedsock


def test_every_public_name_is_there() -> None:
    """Each name that the package promises can be had from it."""
    for name in twistedsock.__all__:
        assert getattr(twistedsock, name) is not None
        assert name in dir(twistedsock)


def test_an_unknown_name_is_refused() -> None:
    """A name that is not there is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = twistedsock.nonsense


def test_the_door_is_light() -> None:
    """Importing the package imports neither Twisted nor pydantic."""
    code = "import sys, twistedsock; print({'twisted', 'pydantic'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "set()"
