"""Use from a program, without the daemon, under stock Twisted listeners and connectors."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest
import pytest_twisted
from conftest import until, within
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure

from twistedsock import EchoReply, EchoReplyClientFactory, ServiceDatagramProtocol, ServiceFactory
from twistedsock.policy.limits import Limits

GREETING = b"Welcome to the server. Type something and hit enter\n"


class Talk:
    """A client that sends its messages after the greeting and keeps what it hears."""

    def __init__(self, framing: str, *messages: bytes) -> None:
        self.heard: list[bytes] = []
        self.messages = list(messages)
        self.closed: Deferred[None] = Deferred()
        self.factory = EchoReplyClientFactory(
            self.on_reply, framing=framing, on_close=lambda client, why: self.closed.callback(None)
        )

    def on_reply(self, client: Any, message: bytes) -> None:
        self.heard.append(message)
        if self.messages:
            client.send(self.messages.pop(0))
        else:
            client.close()


@pytest.mark.parametrize("framing", ["line", "netstring", "uint16"])
@pytest_twisted.ensureDeferred
async def test_listen_tcp_and_connect_tcp(framing: str) -> None:
    """The factories serve and connect under the reactor's own calls, framing included."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    port = reactor.listenTCP(0, ServiceFactory(EchoReply(), framing=framing), interface="127.0.0.1")
    talk = Talk(framing, b"one", b"two")
    reactor.connectTCP("127.0.0.1", port.getHost().port, talk.factory)
    await within(talk.closed)
    greeting = GREETING.rstrip(b"\n") if framing == "line" else GREETING
    assert talk.heard == [greeting, b"OK...one", b"OK...two"]
    await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_endpoints() -> None:
    """The same factories work with endpoints."""
    from twisted.internet import reactor

    endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    port = await within(endpoint.listen(ServiceFactory(EchoReply(), framing="line")))
    talk = Talk("line", b"one")
    client = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    await within(client.connect(talk.factory))
    await within(talk.closed)
    assert talk.heard[1:] == [b"OK...one"]
    await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_listen_udp() -> None:
    """The datagram protocol serves whole datagrams under the stock UDP port."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    protocol = ServiceDatagramProtocol(EchoReply())
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port.getHost().port))
        client.setblocking(False)
        client.send(b"x" * 20_000)
        received: list[bytes] = []

        def heard() -> bool:
            try:
                received.append(client.recv(65_536))
            except BlockingIOError:
                return False
            return True

        await until(heard)
        assert received == [b"OK..." + b"x" * 20_000]
    await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_limits_hold_under_a_stock_port() -> None:
    """A full service under a stock port closes the newcomer and keeps who it serves."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    factory = ServiceFactory(EchoReply(), limits=Limits(max_connections=1))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    address = ("127.0.0.1", port.getHost().port)
    with socket.create_connection(address) as first, socket.create_connection(address) as second:
        await until(lambda: factory.carrier.counters["limit_connections"])
        second.settimeout(5)
        assert second.recv(10) == b""
        assert factory.carrier.connections == 1
        first.settimeout(5)
        assert first.recv(100) == GREETING
    await until(lambda: factory.carrier.connections == 0)
    await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_half_close_is_answered_under_a_stock_port() -> None:
    """`printf abc | nc` gets its answer from a stock port too."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    port = reactor.listenTCP(0, ServiceFactory(EchoReply()), interface="127.0.0.1")
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        parts: list[bytes] = []

        def ended() -> bool:
            try:
                parts.append(client.recv(65_536))
            except BlockingIOError:
                return False
            return parts[-1] == b""

        await until(ended)
        assert b"".join(parts) == GREETING + b"OK...abc"
    await within(port.stopListening())


@pytest_twisted.ensureDeferred
async def test_a_client_that_cannot_connect_is_told() -> None:
    """on_fail gets the reason that no connection came about."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    failed: list[Failure] = []
    factory = EchoReplyClientFactory(lambda client, message: None, on_fail=failed.append)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reactor.connectTCP("127.0.0.1", unused.getsockname()[1], factory)
        await until(lambda: failed)
    assert failed[0].check(ConnectionRefusedError)


PROGRAM = """
import sys
from twisted.internet import {module} as chosen
chosen.install()
from twisted.internet import reactor
from twistedsock import EchoReply, EchoReplyClientFactory, ServiceDatagramProtocol, ServiceFactory

heard = []

def on_reply(client, message):
    heard.append(message)
    if len(heard) == 1:
        client.send(b"hello")
    else:
        print(heard)
        reactor.stop()

port = reactor.listenTCP(0, ServiceFactory(EchoReply(), framing="line"), interface="127.0.0.1")
reactor.listenUDP(0, ServiceDatagramProtocol(EchoReply()), interface="127.0.0.1")
reactor.connectTCP("127.0.0.1", port.getHost().port, EchoReplyClientFactory(on_reply, "line"))
reactor.callLater(20, reactor.crash)
reactor.run()
"""


UVLOOP = """
import asyncio, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
"""

HOT = """
from twistedsock.addresses import parse_address
from twistedsock.protocols.stream import ServiceFactory as Factory
from twistedsock.transports.binding import open_listener
from twistedsock.transports.stream import StreamPort
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_hot_loop_runs_inside_asyncio_s(loop: str) -> None:
    """Our transports serve under the asyncio reactor, on its own event loop and on uvloop's."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    program = PROGRAM.format(module="asyncioreactor").replace(
        'reactor.listenTCP(0, ServiceFactory(EchoReply(), framing="line"), interface="127.0.0.1")',
        'StreamPort.adopt(open_listener(parse_address("tcp:127.0.0.1:0")),'
        ' Factory(EchoReply(), framing="line"), reactor); port.startListening()',
    )
    before, install, after = program.partition("chosen.install()\n")
    program = (UVLOOP if loop == "uvloop" else "") + before + install + HOT + after
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == (
        "[b'Welcome to the server. Type something and hit enter', b'OK...hello']\n"
    ), done.stderr


@pytest.mark.parametrize(
    "module", ["epollreactor", "pollreactor", "selectreactor", "asyncioreactor"]
)
def test_any_reactor(module: str) -> None:
    """A program on any reactor serves and connects with our classes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == (
        "[b'Welcome to the server. Type something and hit enter', b'OK...hello']\n"
    ), done.stderr
    assert done.stderr == ""
