"""What every test is held to: it leaves nothing behind.

pytest-twisted has neither a time-out nor a check for a dirty reactor, so both are here: every
wait goes through ``within``, and ``leaves_nothing_behind`` watches timers, readers, descriptors
and logged failures.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 20.0  # generous: a loaded machine is no failure


def within(work: Deferred[Any], seconds: float = DEADLINE_S) -> Deferred[Any]:
    """Return *work* with a deadline."""
    from twisted.internet import reactor

    return work.addTimeout(seconds, reactor)


async def until(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Wait until *condition* holds, letting the reactor run."""
    from twisted.internet import reactor

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds}s: {condition}"
        await deferLater(reactor, 0.005)


async def pause(seconds: float = 0.0) -> None:
    """Let the reactor run for a while."""
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the listing's own descriptor
    return {entry for entry in found if "socket:" in entry or "pipe:" in entry}


class Failures(list[LogEvent]):
    """The failures that were logged during a test; ``clear()`` the expected ones."""

    def __call__(self, event: LogEvent) -> None:
        """Observe *event*."""
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.append(event)

    def take(self, kind: type[BaseException]) -> None:
        """Remove one logged failure of *kind*, which must be there."""
        for event in self:
            failure = event.get("log_failure") or event.get("failure")  # new and legacy
            if failure is not None and failure.check(kind):
                self.remove(event)
                return
        raise AssertionError(f"no {kind.__name__} was logged, only {list(self)}")


@pytest.fixture
def logged_failures() -> Iterator[Failures]:
    """The failures logged so far in this test."""
    failures = Failures()
    globalLogPublisher.addObserver(failures)
    yield failures
    globalLogPublisher.removeObserver(failures)


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Every event logged in this test."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(
    request: pytest.FixtureRequest, logged_failures: Failures
) -> Iterator[None]:
    """Fail a test that leaves timers, readers, descriptors or unexpected failures behind."""
    import pytest_twisted
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    pytest_twisted.blockon(deferLater(reactor, 0))  # its own descriptors are there from now on
    before = (set(reactor.getReaders()), set(reactor.getWriters()), _descriptors())
    timers = set(reactor.getDelayedCalls())
    yield

    def settled() -> bool:
        return not (
            set(reactor.getReaders()) - before[0]
            or set(reactor.getWriters()) - before[1]
            or {call for call in reactor.getDelayedCalls() if call not in timers}
            or _descriptors() - before[2]
        )

    async def settle() -> None:
        for _ in range(40):
            if settled():
                return
            # Loopback closes take a few turns of the reactor.
            await deferLater(reactor, 0.01)

    pytest_twisted.blockon(Deferred.fromCoroutine(settle()))
    left = {
        "readers": set(reactor.getReaders()) - before[0],
        "writers": set(reactor.getWriters()) - before[1],
        "timers": [call for call in reactor.getDelayedCalls() if call not in timers],
        "descriptors": _descriptors() - before[2],
        "logged failures": list(logged_failures),
    }
    left = {what: which for what, which in left.items() if which}
    if left:
        pytest.fail(f"{request.node.name} left behind: {left}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start daemons that do not outlive the test."""
    from daemons import Daemon

    daemons: list[Daemon] = []

    def start(*flags: str, preexec: Callable[[], None] | None = None) -> Any:
        folder = tmp_path / str(len(daemons))
        folder.mkdir()
        daemons.append(Daemon(folder, *flags, preexec=preexec))
        return daemons[-1]

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.wait()


def free_port(kind: int = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    """Return a port that is free now. For processes of their own; in-process tests use 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def run(
    *command: str | Path, timeout: float = 60.0, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed."""
    more.setdefault("cwd", ROOT)
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
        **more,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--slow``."""
    parser.addoption("--slow", action="store_true", help="run the long tests too, bounded")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long tests unless they are asked for."""
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="long; run with --slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)
