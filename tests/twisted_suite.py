"""Twisted's own tests of its TCP, TLS and UDP transports, run against ours.

``python tests/twisted_suite.py`` runs them on a stock epoll reactor and on one whose listen,
connect and adopt calls give our transports, and compares: nothing may fail or be skipped that
does not on stock. The exceptions are in ALLOWED. Not collected by pytest: it has no ``test_``.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from typing import Any

from twisted.internet import epollreactor

from twistedsock.transports.connection import StreamConnector, StreamServer
from twistedsock.transports.datagram import DatagramPort
from twistedsock.transports.hotloop import HotLoop, loop_of
from twistedsock.transports.stream import StreamPort

MODULES = [
    "twisted.internet.test.test_tcp",
    "twisted.internet.test.test_tls",
    "twisted.internet.test.test_udp",
    "twisted.internet.test.test_socket",
    "twisted.test.test_tcp",
    "twisted.test.test_tcp_internals",
    "twisted.test.test_udp",
    "twisted.test.test_ssl",
    "twisted.test.test_sslverify",
    "twisted.protocols.test.test_tls",
]
# They assert the log context of each event, which the hot loop does not set up.
ALLOWED = {"test_logPrefix"}
TIMEOUT_S = 180  # a module


class EPollReactor(epollreactor.EPollReactor):
    """An epoll reactor with our transports. Twisted's tests look for this very name."""

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listener = StreamPort(port, factory, backlog, interface, self)
        listener.startListening()
        return listener

    def connectTCP(
        self, host: Any, port: Any, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Any:
        connector = StreamConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def listenUDP(
        self, port: Any, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> Any:
        listener = DatagramPort(port, protocol, interface, maxPacketSize, self)
        listener.startListening()
        return listener

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            return super().adoptStreamPort(fileDescriptor, addressFamily, factory)
        listener = StreamPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listener.startListening()
        return listener

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: Any, factory: Any) -> Any:
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            return super().adoptStreamConnection(fileDescriptor, addressFamily, factory)
        return StreamServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)

    def adoptDatagramPort(
        self, fileDescriptor: int, addressFamily: Any, protocol: Any, maxPacketSize: int = 8192
    ) -> Any:
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            return super().adoptDatagramPort(fileDescriptor, addressFamily, protocol)
        listener = DatagramPort._fromListeningDescriptor(
            self, fileDescriptor, addressFamily, protocol, maxPacketSize
        )
        listener.startListening()
        return listener

    def getReaders(self) -> list[Any]:
        return self._with_watched(super().getReaders())

    def getWriters(self) -> list[Any]:
        return self._with_watched(super().getWriters(), 4)

    def _with_watched(self, found: list[Any], interest: int = 1) -> list[Any]:
        """Show what the hot loop watches in place of the loop itself."""
        loop: Any = loop_of(self)
        watched = [
            each
            for each in loop.handlers
            if each._interest & interest and each not in loop._finished
        ]
        return [each for each in found if not isinstance(each, HotLoop)] + watched


def run(which: str) -> None:
    """Run the modules in this process, on a ``stock`` or on ``our`` reactor."""
    from twisted.internet.test.reactormixins import ReactorBuilder

    name = (
        "twisted_suite.EPollReactor"
        if which == "our"
        else "twisted.internet.epollreactor.EPollReactor"
    )
    ReactorBuilder._reactors = [name]  # type: ignore[misc]
    ReactorBuilder.getTimeout = lambda self: 8  # type: ignore[method-assign]
    if which == "our":
        # Tests that use the global reactor get ours too.
        import twisted_suite
        from twisted.internet.main import installReactor

        installReactor(twisted_suite.EPollReactor())
    from twisted.scripts.trial import run as trial

    sys.argv = ["trial", "--reporter=verbose", *sys.argv[2:]]
    trial()


def outcomes(which: str, modules: list[str]) -> dict[str, str]:
    """Return what became of each test: OK, SKIPPED, FAIL, ERROR or TODO."""
    done = subprocess.run(
        [sys.executable, __file__, which, *modules],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    found: dict[str, str] = {}
    path: list[str] = []
    for line in done.stdout.splitlines():
        test = re.fullmatch(r"( +)(\S+)(?: \.\.\.)? .*?\[(\w+)\]\s*", line)
        group = re.fullmatch(r"( *)([\w.]+)\s*", line)
        if test:
            found[".".join([*path[: len(test[1]) // 2], test[2]])] = test[3]
        elif group and line.strip():
            path[len(group[1]) // 2 :] = [group[2]]
        if line.startswith("====="):
            break
    if not found:
        sys.exit(f"no test was run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found


def compare(module: str) -> tuple[int, int]:
    """Print what differs from stock; return how many tests ran and how many may not differ so."""
    stock, ours = outcomes("stock", [module]), outcomes("our", [module])
    skips = [sum(each == "SKIPPED" for each in found.values()) for found in (stock, ours)]
    print(f"{module}: {len(stock)} tests, {skips[0]} skipped on stock, {skips[1]} on ours")
    bad = 0
    for test, was in sorted(stock.items()):
        now = ours.get(test, "MISSING")
        if was != now and (was, now) not in {("FAIL", "OK"), ("ERROR", "OK")}:
            allowed = test.rpartition(".")[2] in ALLOWED
            bad += not allowed
            print(f"  {'allowed' if allowed else 'DIFFERS'}: {test}: {was} on stock, {now} here")
    return len(stock), bad


def main(modules: list[str]) -> int:
    """Compare each module; return the exit status."""
    results = [compare(module) for module in modules]
    count, bad = (sum(column) for column in zip(*results, strict=True))
    print(f"{count} tests: " + (f"{bad} differ" if bad else "none differs that is not allowed"))
    return bad > 0


if __name__ == "__main__":
    if sys.argv[1:2] in (["stock"], ["our"]):
        run(sys.argv[1])
    else:
        sys.exit(main(sys.argv[1:] or MODULES))
