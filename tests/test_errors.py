"""The exception tree."""

from __future__ import annotations

import errno
import inspect
import os
import re
import socket
from dataclasses import FrozenInstanceError

import pytest

from twistedsock import errors
from twistedsock.errors import (
    AddressError,
    BindError,
    CloseReason,
    ConfigError,
    FrameError,
    PeerProtocolError,
    Problem,
    SessionClosed,
    TwistedsockError,
    UnitError,
)


def test_the_tree_is_as_drawn() -> None:
    """Every exception of the module is in its drawing, below TwistedsockError, and no other is."""
    drawn = set(re.findall(r"── (\w+)", errors.__doc__ or ""))
    found = {
        name: cls
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, BaseException)
    }
    assert set(found) == drawn | {"TwistedsockError"}
    assert all(issubclass(cls, TwistedsockError) for cls in found.values())


@pytest.mark.parametrize("kind", [AddressError, UnitError, FrameError])
def test_errors_in_a_value_are_value_errors(kind: type[Exception]) -> None:
    """What a bad value raises is a ValueError too, as the standard library would have it."""
    assert issubclass(kind, ValueError)


def test_the_reasons_are_the_closed_set() -> None:
    """A session ends for one of these reasons, the same word in logs, hooks and metrics."""
    assert " ".join(CloseReason) == (
        "peer_closed peer_reset closed idle_timeout first_byte_timeout session_timeout"
        " write_timeout limit refused protocol_error service_error evicted shutdown"
        " shutdown_aborted transport_error"
    )


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("x.toml", "services.a", "must be"), "x.toml: services.a: must be"),
        (Problem("", "services.a", "must be"), "services.a: must be"),
        (Problem("x.toml", "", "must be"), "x.toml: must be"),
        (Problem("", "", "must be"), "must be"),
    ],
)
def test_a_problem_tells_where_it_stands(problem: Problem, text: str) -> None:
    """A problem is one line: source, key path and message, without the parts that are empty."""
    assert str(problem) == text


def test_a_problem_is_a_value() -> None:
    """A problem compares by value and cannot be changed."""
    problem = Problem("a", "b", "c")
    assert problem == Problem("a", "b", "c")
    with pytest.raises(FrozenInstanceError):
        problem.message = "d"  # type: ignore[misc]


def test_a_config_error_holds_every_problem() -> None:
    """A ConfigError carries all problems and prints each on its line."""
    problems = [Problem("f", "a", "one"), Problem("f", "b", "two")]
    error = ConfigError(problems)
    assert error.problems == tuple(problems)
    assert str(error) == "f: a: one\nf: b: two"


def test_a_bind_error_names_its_address() -> None:
    """A BindError begins with the address as the operator wrote it."""
    error = BindError("tcp:80", "no such luck")
    assert (str(error), error.address, error.errno) == ("tcp:80: no such luck", "tcp:80", None)
    assert not error.is_permission


@pytest.mark.parametrize(
    ("number", "text", "is_permission"),
    [
        (errno.EADDRINUSE, "(EADDRINUSE); another listener has it", False),
        (
            errno.EADDRNOTAVAIL,
            "(EADDRNOTAVAIL); no interface of this machine has that address",
            False,
        ),
        (
            errno.EACCES,
            "(EACCES); ports below 1024 need CAP_NET_BIND_SERVICE or root",
            True,
        ),
        (errno.EPERM, "(EPERM)", True),
        (errno.EMFILE, "(EMFILE)", False),
    ],
)
def test_a_system_error_is_told_with_its_cure(number: int, text: str, is_permission: bool) -> None:
    """A refused bind tells the system's words, its code, and what to do where that is known."""
    error = BindError.from_os_error("tcp:80", OSError(number, "spelt otherwise"))
    assert str(error) == f"tcp:80: {os.strerror(number)} {text}"
    assert error.errno == number
    assert error.is_permission is is_permission


def test_an_unknown_system_error_is_told_by_its_number() -> None:
    """An error number without a name is told as the number."""
    error = BindError.from_os_error("tcp:80", OSError(9999, "x"))
    assert str(error) == f"tcp:80: {os.strerror(9999)} (9999)"


def test_a_system_error_without_a_number_is_told_in_its_words() -> None:
    """An OSError without a number is told in its own words."""
    error = BindError.from_os_error("unix:/p", OSError("AF_UNIX path too long"))
    assert str(error) == "unix:/p: AF_UNIX path too long"
    assert error.errno is None


def test_a_resolver_error_is_told_in_its_words() -> None:
    """A resolver's number is none of the system's, so its words are told and no number."""
    refusal = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    error = BindError.from_os_error("tcp:[fe80::1%none]:1", refusal)
    assert str(error) == "tcp:[fe80::1%none]:1: Name or service not known"
    assert error.errno is None


def test_a_peer_protocol_error_carries_what_was_whole() -> None:
    """The messages before the fault travel with it, in a list of their own."""
    messages = [b"a", b"b"]
    error = PeerProtocolError("broken", messages)
    messages.clear()
    assert (str(error), error.completed) == ("broken", [b"a", b"b"])
    assert PeerProtocolError("broken").completed == []


def test_a_closed_session_tells_why() -> None:
    """SessionClosed carries the reason, and its word in the text."""
    error = SessionClosed(CloseReason.IDLE_TIMEOUT)
    assert error.reason is CloseReason.IDLE_TIMEOUT
    assert str(error) == "the session ended: idle_timeout"
