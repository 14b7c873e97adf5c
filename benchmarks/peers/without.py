"""twistedsock with one technique taken away: ``without.py TECHNIQUE PORT``.

Tells what that technique alone brings. Serves echo over TCP like the peer ``twistedsock``.
"""

import sys
from collections.abc import Callable

from twisted.scripts.twistd import run

from twistedsock.protocols import stream_session
from twistedsock.transports import connection, hotloop


def eager_write() -> None:
    """Queue every write, as stock Twisted does."""

    def never(self: connection.HotConnection) -> None:
        self._direct = False

    made = connection.StreamServer.__init__

    def make(self: connection.StreamServer, *args: object) -> None:
        made(self, *args)  # type: ignore[arg-type]
        self._direct = False

    connection.HotConnection._decide = never  # type: ignore[method-assign]
    connection.StreamServer.__init__ = make  # type: ignore[method-assign, assignment]


def hot_loop() -> None:
    """Let the reactor watch each connection itself."""
    hotloop.HotLoop = hotloop.StockLoop  # type: ignore[misc, assignment]


def one_call() -> None:
    """Send each answer by itself, rather than the answers to one read together."""
    stream_session.StreamSession._cork = lambda self: None  # type: ignore[method-assign]


TECHNIQUES: dict[str, Callable[[], None]] = {
    "eager-write": eager_write,
    "hot-loop": hot_loop,
    "one-call": one_call,
}

if __name__ == "__main__":
    technique, port = sys.argv[1:]
    TECHNIQUES[technique]()
    flags = ["-n", "--pidfile=", "sockservice", "--service", "echo"]
    sys.argv = ["twistd", *flags, "--listen", f"tcp:127.0.0.1:{port}"]
    for limit in ("max_connections", "max_connections_per_source"):
        sys.argv += ["--set", f"services.main.limits.{limit}=20000"]
    run()
