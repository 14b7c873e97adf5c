"""The server as a process: signals, exit codes, a clock that does not jump, and the log.

Everything here concerns the whole process, so only twistd's plug-in uses it; programs that embed
a Server have their own ways.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from twistedsock.errors import BindError, PluginError
from twistedsock.host.logs import LogFile, make_observer
from twistedsock.host.plan import ServicePlan
from twistedsock.host.server import HostedService, Server

# sysexits.h
EX_USAGE, EX_UNAVAILABLE, EX_SOFTWARE, EX_NOPERM, EX_CONFIG = 64, 69, 70, 77, 78


class StartError(Exception, SystemExit):
    """The daemon could not start; the process ends with ``code``.

    Being an Exception, it makes twistd remove its pidfile and tell the parent of a daemon; being
    a SystemExit, it gives a foreground process its exit status without a traceback.
    """

    # twistd tells the waiting parent in 98 bytes, which a module path would fill.
    __module__ = "builtins"

    def __init__(self, message: str, code: int) -> None:
        Exception.__init__(self, message)
        self.code = code


def tell(message: str) -> None:
    """Print *message* for whoever started the process."""
    stream = sys.__stderr__
    if stream is not None:
        with suppress(OSError):  # a full disk must not change the exit code
            stream.write(f"twistd sockservice: {message}\n")
            stream.flush()


class Daemon(Server):
    """A Server that owns its process.

    Args:
        plans: What to serve.
        log_format: One of ``logs.FORMATS``.
        log_path: The log file; None for standard output.
        own_log: False leaves the log to twistd (``--logger``, ``--syslog``).
    """

    def __init__(
        self,
        plans: Iterable[ServicePlan],
        *,
        log_format: str = "text",
        log_path: str | None = None,
        own_log: bool = True,
        reactor: Any = None,
    ) -> None:
        super().__init__(plans, reactor)
        self._log_format = log_format
        self._log_path = log_path
        self._own_log = own_log
        self._log_file: LogFile | None = None
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, and give it our log before it makes one of its own."""
        if self._own_log and isinstance(parent, Componentized):
            try:
                self._log_file = LogFile(self._log_path)
            except OSError as error:
                message = f"log file {self._log_path}: {error.strerror}"
                tell(message)
                raise StartError(message, EX_UNAVAILABLE) from error
            observer = make_observer(self._log_format, self._log_file)
            directlyProvides(observer, ILogObserver)
            parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Open every socket.

        Raises:
            StartError: One could not be opened, or a service object not be made. It was told
                on standard error, and logged.
        """
        use_monotonic_clock(self.reactor)
        # Until the reactor runs and the signals are ours, a hang-up would kill.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            super().privilegedStartService()
        except PluginError as error:
            tell(str(error))
            self.log.failure("a service could not be made", event="start_failed")
            raise StartError(str(error), EX_SOFTWARE) from error
        except BindError as error:
            message = f"cannot listen on {error}"
            tell(message)
            self.log.critical("{message}", event="bind_failed", message=message)
            code = EX_NOPERM if error.is_permission else EX_UNAVAILABLE
            raise StartError(str(error), code) from error

    def startService(self) -> None:
        """Take over the signals once the reactor has set its own, then start."""
        self.reactor.callWhenRunning(self._take_signals)
        super().startService()

    def start_failed(self, failure: Failure, hosted: HostedService) -> None:
        """A service's ``start`` raised: tell, stop the others in order, exit with 70."""
        super().start_failed(failure, hosted)
        tell(f"services.{hosted.name}: start() failed: {failure.getErrorMessage()}")
        exit_with(EX_SOFTWARE)
        if not self._stopping:  # a second failure is no second signal
            self._stop()

    # -- signals --

    def _take_signals(self) -> None:
        for number, action in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._hang_up),
            (signal.SIGUSR1, self._reopen_log),
        ):
            signal.signal(number, self._in_reactor(action))

    def _in_reactor(self, action: Any) -> Any:
        return lambda number, frame: self.reactor.callFromThread(action)

    def _stop(self) -> None:
        """Stop in order; asked a second time, at once."""
        if self._stopping:
            self.log.warn("stopping at once", event="stopping_at_once")
            self.hurry()
            return
        self._stopping = True
        self.log.info("stopping", event="stopping")
        self.reactor.stop()

    def _hang_up(self) -> None:
        self.log.warn(
            "SIGHUP: nothing is reloaded; restart to apply a changed configuration",
            event="sighup",
        )

    def _reopen_log(self) -> None:
        if self._log_file is not None:
            try:
                self._log_file.reopen()
            except OSError as error:
                self.log.error(
                    "the log file cannot be reopened: {error}", error=str(error.strerror)
                )


def use_monotonic_clock(reactor: Any) -> None:
    """Make *reactor* measure time by a clock that nobody sets.

    ``reactor.seconds`` is wall-clock time, so setting the clock would freeze every timer or fire
    them all. It still starts at today's date, because some code reads it as one.
    """
    offset = time.time() - time.monotonic()
    reactor.seconds = lambda: offset + time.monotonic()


def exit_with(code: int) -> None:
    """Make the process end with *code* once everything else is done.

    twistd's own status is 0 after the reactor has run. Registered last, this runs before the
    handlers that were registered earlier, which it skips: nothing here depends on them.
    """

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(code)

    atexit.register(leave)
