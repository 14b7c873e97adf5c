"""A reactor whose sockets have options: every call that opens one, on every reactor."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import DEADLINE_S, pause, run, until, within
from servers import Server, echo
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IReactorMulticast,
    IReactorPluggableNameResolver,
    IReactorSocket,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IReactorUNIX,
)
from twisted.internet.protocol import (
    ClientFactory,
    ConnectedDatagramProtocol,
    DatagramProtocol,
    Factory,
    Protocol,
    connectionDone,
)
from twisted.internet.tcp import makeBinding
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.errors import OptionError
from twistedsock.transports.optioned import with_options

TCP, SOL, IP = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
NO_SUCH = {"level": 1, "number": 9999, "value": 1}  # every socket refuses it
ON_ACCEPTED = {**NO_SUCH, "phase": "connected"}  # and only those that are accepted


@implementer(IHalfCloseableProtocol)
class Keeper(Protocol):
    """Keeps what it is told, and answers the end of input."""

    def connectionMade(self) -> None:
        self.data, self.ended = b"", False
        self.lost: Failure | None = None
        self.factory.protocols.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended = True
        self.transport.write(b"bye")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Clients(ClientFactory):
    """Makes Keepers, and keeps what became of its connector."""

    noisy = False
    protocol = Keeper

    def __init__(self) -> None:
        self.protocols: list[Any] = []
        self.failed: list[Failure] = []

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed.append(reason)


def keepers() -> Any:
    factory: Any = Factory.forProtocol(Keeper)
    factory.noisy = False
    factory.protocols = []
    return factory


def optioned(options: dict[str, Any], refusal: Any = "strict") -> Any:
    from twisted.internet import reactor

    return with_options(reactor, options, refusal=refusal)


def descriptors() -> int:
    """Return how many sockets are open: the reactor opens other descriptors when it likes."""
    found = map(Path("/proc/self/fd").joinpath, os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(fd) and "socket:" in os.readlink(fd) for fd in found)


def connect_to(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family)
    client.settimeout(DEADLINE_S)
    client.connect(listener.getsockname())
    return client


async def stopped(port: Any, factory: Any = None, *clients: socket.socket) -> None:
    for client in clients:
        client.close()
    if factory is not None:
        await until(lambda: all(each.lost for each in factory.protocols))
    await within(port.stopListening())


# -- what it is --


def test_it_stays_the_reactor_that_it_was() -> None:
    """It provides every interface of the reactor, and hands every other call on."""
    from twisted.internet import reactor

    ours = optioned({"SO_KEEPALIVE": True})
    for interface in (IReactorTCP, IReactorUDP, IReactorSSL, IReactorUNIX, IReactorSocket,
                      IReactorTime, IReactorMulticast, IReactorPluggableNameResolver):  # fmt: skip
        assert interface.providedBy(ours) == interface.providedBy(reactor), interface
    assert ours.seconds == reactor.seconds  # type: ignore[attr-defined]
    assert ours.nameResolver is reactor.nameResolver  # type: ignore[attr-defined]
    assert ours.running == reactor.running  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        ours.nonsense  # noqa: B018


def test_wrong_options_are_told_at_once() -> None:
    """A misspelt option or a wrong value is an OptionError before any socket."""
    with pytest.raises(OptionError, match=r"did you mean SO_KEEPALIVE\?"):
        optioned({"SO_KEEPALVE": 1})
    with pytest.raises(OptionError, match="SO_KEEPALIVE: must be"):
        optioned({"SO_KEEPALIVE": "perhaps"})


@pytest_twisted.ensureDeferred
async def test_options_may_be_added_to_options() -> None:
    """with_options over with_options has both; the later value wins, whatever its spelling."""
    first = optioned({"KeepAlive": True, "SO_REUSEPORT": True, "MY_OPT": NO_SUCH}, "ignore")
    both = with_options(first, {"SO_KEEPALIVE": False, "TCP_KEEPIDLE": "9s"}, refusal="warn")
    port = both.listenTCP(0, keepers())
    assert port.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 0
    assert port.socket.getsockopt(SOL, socket.SO_REUSEPORT) == 1
    assert port.socket.getsockopt(TCP, socket.TCP_KEEPIDLE) == 9
    assert (first.sockets_opened, both.sockets_opened) == (1, 1)
    await stopped(port)
    port = with_options(first, {}).listenTCP(0, keepers())  # what it has stays as it was meant
    assert [outcome.code for outcome in port.report.refused] == ["ENOPROTOOPT"]
    await stopped(port)


# -- listening --


@pytest.mark.parametrize(("reuse_address", "reuse_port"), [(False, True), (True, False)])
@pytest_twisted.ensureDeferred
async def test_a_binding_is_taken_for_a_port(reuse_address: bool, reuse_port: bool) -> None:
    """What makeBinding gives means what it means to Twisted; our options are set over it."""
    binding = makeBinding("127.0.0.1", 0, reuseAddress=reuse_address, reusePort=reuse_port)
    ours = optioned({"SO_KEEPALIVE": True})
    port: Any = ours.listenTCP(binding, keepers(), interface="127.0.0.1")
    assert port.getHost().host == "127.0.0.1"
    assert port.socket.getsockopt(SOL, socket.SO_REUSEADDR) == reuse_address
    assert port.socket.getsockopt(SOL, socket.SO_REUSEPORT) == reuse_port
    assert port.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
    assert ours.sockets_opened == 1
    await stopped(port)
    with pytest.raises(ValueError, match="Inconsistent interface"):
        ours.listenTCP(binding, keepers(), interface="::1")


@pytest_twisted.ensureDeferred
async def test_udp_ports_have_options(logged: list[Any]) -> None:
    """listenUDP gives a port with options, that says and hears what a stock one does."""
    port = optioned({"SO_RCVBUF": 50_000}).listenUDP(0, DatagramProtocol(), "127.0.0.1")
    assert port.socket.getsockopt(SOL, socket.SO_RCVBUF) == 100_000
    number = port.getHost().port
    await stopped(port)
    texts = [" ".join(map(str, event.get("message", ()))) for event in logged]
    assert f"DatagramProtocol starting on {number}" in texts
    assert f"(UDP Port {number} Closed)" in texts


@pytest_twisted.ensureDeferred
async def test_multicast_ports_have_options() -> None:
    """listenMulticast gives a multicast port with options."""
    ours = optioned({"IP_MULTICAST_TTL": 3, "IP_MULTICAST_LOOP": False})
    port = ours.listenMulticast(0, DatagramProtocol(), listenMultiple=True)
    assert port.socket.getsockopt(IP, socket.IP_MULTICAST_TTL) == 3
    assert port.getTTL() == 3
    await stopped(port)


@pytest_twisted.ensureDeferred
async def test_unix_ports_have_options(tmp_path: Path, logged: list[Any]) -> None:
    """listenUNIX and listenUNIXDatagram give ports with options that leave their path in order."""
    ours, factory = optioned({"SO_PASSCRED": True}), keepers()
    path = str(tmp_path / "s")
    port = ours.listenUNIX(path, factory, mode=0o600, wantPID=True)
    assert port.socket.getsockopt(SOL, socket.SO_PASSCRED) == 1
    client = connect_to(port.socket)
    client.sendall(b"hello")
    await until(lambda: factory.protocols and factory.protocols[0].data == b"hello")
    assert factory.protocols[0].transport.getHost() == port.getHost()
    assert factory.protocols[0].transport.getPeer().name is None
    client.shutdown(socket.SHUT_WR)
    await until(lambda: factory.protocols[0].lost)
    assert client.recv(9) == b"bye"
    await stopped(port, factory, client)
    assert list(tmp_path.iterdir()) == []
    datagrams = ours.listenUNIXDatagram(path, DatagramProtocol())
    assert datagrams.socket.getsockopt(SOL, socket.SO_PASSCRED) == 1
    await stopped(datagrams)
    texts = [" ".join(map(str, event.get("message", ()))) for event in logged]
    assert f"Factory starting on {path!r}" in texts
    assert f"(UNIX Port {path} Closed)" in texts


@pytest.mark.parametrize(
    "listen",
    [
        lambda ours, _: ours.listenTCP(0, keepers()),
        lambda ours, _: ours.listenUDP(0, DatagramProtocol()),
        lambda ours, _: ours.listenMulticast(0, DatagramProtocol()),
        lambda ours, path: ours.listenUNIX(path, keepers(), wantPID=True),
        lambda ours, path: ours.listenUNIXDatagram(path, DatagramProtocol()),
    ],
)
@pytest.mark.parametrize("phase", ["socket", "prebind", "bound"])
def test_a_refused_option_closes_what_was_opened(
    listen: Callable[[Any, str], Any], phase: str, tmp_path: Path
) -> None:
    """Whatever listens and whenever it is refused, no descriptor and no lock stays."""
    before = descriptors()
    ours = optioned({"MY_OPT": {**NO_SUCH, "phase": phase}})
    with pytest.raises(CannotListenError, match="MY_OPT: Protocol not available"):
        listen(ours, str(tmp_path / "s"))
    assert descriptors() == before
    assert not (tmp_path / "s.lock").is_symlink()


def test_a_factory_that_cannot_start_leaves_no_socket() -> None:
    """An exception of startFactory reaches the caller, and the socket is closed."""
    factory, before = keepers(), descriptors()

    def start() -> None:
        raise ZeroDivisionError

    factory.startFactory = start
    with pytest.raises(ZeroDivisionError):
        optioned({"SO_KEEPALIVE": True}).listenTCP(0, factory)
    assert descriptors() == before


def test_what_would_drop_options_is_refused() -> None:
    """A call that cannot have options says so, rather than to go without."""
    with pytest.raises(OptionError, match="connectUNIXDatagram takes no socket options"):
        optioned({}).connectUNIXDatagram("/nonexistent", ConnectedDatagramProtocol())


# -- each connection --


@pytest_twisted.ensureDeferred
async def test_what_is_not_inherited_is_set_on_each_connection() -> None:
    """SO_PRIORITY, TCP_QUICKACK and IP_OPTIONS, which accept(2) loses, are on each connection."""
    padding = bytes([1, 1, 1, 1])  # four no-operations (RFC 791 section 3.1)
    factory = keepers()
    ours = optioned({"SO_PRIORITY": 4, "TCP_QUICKACK": False, "IP_OPTIONS": "hex:01010101"})
    port = ours.listenTCP(0, factory, interface="127.0.0.1")
    clients = [connect_to(port.socket) for _ in range(3)]
    await until(lambda: len(factory.protocols) == 3)
    for protocol in factory.protocols:
        sock = protocol.transport.socket
        assert sock.getsockopt(SOL, socket.SO_PRIORITY) == 4
        assert sock.getsockopt(TCP, socket.TCP_QUICKACK) == 0
        assert sock.getsockopt(IP, socket.IP_OPTIONS, 40) == padding
    await stopped(port, factory, *clients)


def listen(kind: str, ours: Any, factory: Any, folder: Path) -> Any:
    if kind == "tcp":
        return ours.listenTCP(0, factory, interface="127.0.0.1")
    if kind == "unix":
        return ours.listenUNIX(str(folder / "s"), factory)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        return ours.adoptStreamPort(listener.fileno(), socket.AF_INET, factory)


@pytest.mark.parametrize("kind", ["tcp", "unix", "adopted"])
@pytest.mark.parametrize("refusal", ["strict", "warn", "ignore"])
@pytest_twisted.ensureDeferred
async def test_an_option_that_only_connections_refuse(
    kind: str, refusal: str, logged: list[Any], tmp_path: Path
) -> None:
    """strict closes each and logs once a second, warn serves and logs, ignore serves."""
    factory, before = keepers(), descriptors()
    port = listen(kind, optioned({"MY_OPT": ON_ACCEPTED}, refusal), factory, tmp_path)
    clients = [connect_to(port.socket) for _ in range(20)]
    if refusal == "strict":
        await pause()
        for client in clients:
            await until(lambda: is_closed(client))  # noqa: B023
        assert factory.protocols == []
        assert descriptors() == before + 21
    else:
        await until(lambda: len(factory.protocols) == 20)
    lines = [event for event in logged if event.get("event") == "option_refused"]
    assert len(lines) == (0 if refusal == "ignore" else 1) or len(lines) == 2  # a second went by
    for event in lines:
        assert "MY_OPT: Protocol not available (ENOPROTOOPT)" in event["fault"]
        assert event["fault"].endswith("the connection is closed") == (refusal == "strict")
        assert str(event["port"]) in str(port.getHost())
    await stopped(port, factory, *clients)


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest_twisted.ensureDeferred
async def test_inherited_options_leave_the_accept_path_as_it_is() -> None:
    """With nothing to set on connections a port runs the very code of one without options."""
    port = optioned({"SO_KEEPALIVE": True, "TCP_USER_TIMEOUT": "9s"}).listenTCP(0, keepers())
    assert "_welcome" not in vars(port)
    await stopped(port)


@pytest_twisted.ensureDeferred
async def test_a_unix_newcomer_may_be_turned_away(logged_failures: Any, tmp_path: Path) -> None:
    """A factory that gives no protocol, or raises, loses that newcomer alone."""
    factory = keepers()
    port = optioned({"SO_SNDBUF": 40_000}).listenUNIX(str(tmp_path / "s"), factory)
    answers: list[Any] = [lambda _: None, lambda _: 1 / 0]
    build, factory.buildProtocol = factory.buildProtocol, lambda peer: answers.pop(0)(peer)
    clients = [connect_to(port.socket) for _ in range(2)]
    for client in clients:
        await until(lambda: is_closed(client))  # noqa: B023
    logged_failures.take(ZeroDivisionError)
    factory.buildProtocol = build
    clients.append(connect_to(port.socket))
    await until(lambda: factory.protocols)
    await stopped(port, factory, *clients)


# -- adopting --


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest_twisted.ensureDeferred
async def test_an_adopted_port_gets_what_can_still_be_set(family: Any, tmp_path: Path) -> None:
    """adoptStreamPort sets options on a socket that listens already, and on its connections."""
    factory = keepers()
    with socket.socket(family) as listener:
        names = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
        listener.bind(names.get(family, str(tmp_path / "s")))
        listener.listen()
        listener.setblocking(False)
        ours = optioned({"SO_SNDBUF": 40_000})
        port = ours.adoptStreamPort(listener.fileno(), family, factory)
        assert listener.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
        assert port.report["SO_SNDBUF"].effective is not None
        client = connect_to(listener)
        await until(lambda: factory.protocols)
        accepted = factory.protocols[0].transport.socket
        assert accepted.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
        await stopped(port, factory, client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"SO_REUSEPORT": True}, "SO_REUSEPORT: must be set before bind, and this socket is bound"),
        ({"SO_PASSCRED": True}, "SO_PASSCRED: fits only"),
        ({"MY_OPT": NO_SUCH}, "MY_OPT: Protocol not available"),
        ({"MY_OPT": {**NO_SUCH, "phase": "listening"}}, "MY_OPT: Protocol not available"),
    ],
)
def test_an_adopted_port_refuses_what_comes_too_late(options: dict[str, Any], message: str) -> None:
    """What cannot be set on it any more is an error, and the socket stays its owner's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = descriptors()
        with pytest.raises(OptionError, match=message):
            optioned(options).adoptStreamPort(listener.fileno(), socket.AF_INET, keepers())
        assert descriptors() == before
        connect_to(listener).close()  # it listens still


@pytest_twisted.ensureDeferred
async def test_adopted_connections_and_datagram_ports_have_options() -> None:
    """adoptStreamConnection and adoptDatagramPort set options before they hand the socket on."""
    ours, factory = optioned({"SO_SNDBUF": 40_000}), keepers()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        port = ours.adoptDatagramPort(sock.fileno(), socket.AF_INET, DatagramProtocol())
        assert port.socket.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
        await stopped(port)
    ends = socket.socketpair()
    ends[0].setblocking(False)
    transport = ours.adoptStreamConnection(ends[0].fileno(), socket.AF_UNIX, factory)
    assert transport.socket.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
    ends[0].close()
    ends[1].close()
    await until(lambda: factory.protocols[0].lost)


# -- connecting --


@pytest_twisted.ensureDeferred
async def test_a_connection_does_what_a_stock_one_does() -> None:
    """Half-close, the answer after it, and the end are those of reactor.connectTCP."""
    from twisted.internet import reactor

    seen = []
    for each in (reactor, optioned({"TCP_USER_TIMEOUT": "9s", "SO_KEEPALIVE": True})):
        with Server(echo) as server:
            factory = Clients()
            connector = each.connectTCP("127.0.0.1", server.port, factory)  # type: ignore[attr-defined]
            await until(lambda: factory.protocols)  # noqa: B023
            protocol = factory.protocols[0]
            protocol.transport.write(b"x" * 1_000_000)
            protocol.transport.loseWriteConnection()
            await until(lambda: protocol.lost)  # noqa: B023
            peer = protocol.transport.getPeer().port == server.port
            seen.append((len(protocol.data), protocol.ended, protocol.lost.type, peer))
            assert connector.state == "disconnected"
            assert factory.numPorts == 0
    assert seen[0] == seen[1]


@pytest_twisted.ensureDeferred
async def test_a_connector_can_connect_again() -> None:
    """connector.connect() opens a new socket, with the options anew."""
    with Server(echo) as server:
        factory = Clients()
        connector = optioned({"SO_KEEPALIVE": True}).connectTCP("localhost", server.port, factory)
        for number in (1, 2):
            await until(lambda: len(factory.protocols) == number)  # noqa: B023
            transport = factory.protocols[-1].transport
            assert transport.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
            assert transport.report["SO_KEEPALIVE"].effective is True
            transport.loseConnection()
            await until(lambda: connector.state == "disconnected")
            if number == 1:
                connector.connect()


@pytest.mark.parametrize("phase", ["socket", "connected"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_a_refused_option_is_a_connection_that_failed(
    phase: str, kind: str, tmp_path: Path
) -> None:
    """The factory is told by clientConnectionFailed and stopped, at whatever phase it is."""
    before = descriptors()
    ours, factory, name = optioned({"MY_OPT": {**NO_SUCH, "phase": phase}}), Clients(), "s"
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as listener:
        listener.bind(str(tmp_path / name) if kind == "unix" else ("127.0.0.1", 0))
        listener.listen()
        if kind == "unix":
            ours.connectUNIX(listener.getsockname(), factory)
        else:
            ours.connectTCP(*listener.getsockname(), factory)
        await until(lambda: factory.failed)
        assert factory.failed[0].check(OptionError)
        assert "MY_OPT: Protocol not available" in factory.failed[0].getErrorMessage()
        assert (factory.protocols, factory.numPorts) == ([], 0)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("host", "options"),
    [("localhost", {"IPV6_TCLASS": 8}), ("127.0.0.1", {"SO_PASSCRED": True})],
)
def test_what_fits_no_such_connection_is_told_at_once(host: str, options: Any) -> None:
    """An option of another kind of socket is an error of the call; nothing is opened."""
    before, factory = descriptors(), Clients()
    with pytest.raises(OptionError, match="fits only"):
        optioned(options).connectTCP(host, 1, factory)
    assert (descriptors(), factory.numPorts) == (before, 0)


@pytest_twisted.ensureDeferred
async def test_a_local_port_can_be_used_twice() -> None:
    """IP_BIND_ADDRESS_NO_PORT is set before the local address is bound."""
    bind_address_no_port = 24
    with Server(echo) as server:
        factory = Clients()
        optioned({"IP_BIND_ADDRESS_NO_PORT": True}).connectTCP(
            "127.0.0.1", server.port, factory, bindAddress=("127.0.0.2", 0)
        )
        await until(lambda: factory.protocols)
        transport = factory.protocols[0].transport
        assert transport.getHost().host == "127.0.0.2"
        assert transport.socket.getsockopt(IP, bind_address_no_port) == 1
        transport.loseConnection()
        await until(lambda: factory.protocols[0].lost)


# -- every reactor --

ON_REACTOR = """
import socket, sys
from twisted.application.reactors import installReactor
reactor = installReactor(sys.argv[1])
from twisted.internet import endpoints, defer, protocol
from twistedsock.endpoints import with_options
ours = with_options(reactor, {"SO_KEEPALIVE": True, "SO_PRIORITY": 3})
class Echo(protocol.Protocol):
    def dataReceived(self, data):
        sock = self.transport.socket
        priority = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY)
        self.transport.write(data + str(priority).encode())
class Ask(protocol.Protocol):
    def connectionMade(self):
        self.done = defer.Deferred()
        self.transport.write(b"priority ")
    def dataReceived(self, data):
        self.done.callback(data)
async def main():
    factory = protocol.Factory.forProtocol(Echo)
    port = await endpoints.TCP4ServerEndpoint(ours, 0, interface="127.0.0.1").listen(factory)
    number = port.getHost().port
    client = endpoints.HostnameEndpoint(ours, "localhost", number)
    ask = await client.connect(protocol.Factory.forProtocol(Ask))
    print((await ask.done).decode(), ask.transport.report["SO_KEEPALIVE"].effective)
    ask.transport.loseConnection()
    await port.stopListening()
def fail(failure):
    failure.printTraceback()
reactor.callWhenRunning(lambda: defer.ensureDeferred(main()).addErrback(fail)
    .addBoth(lambda _: reactor.stop()))
reactor.run()
print("ended")
"""


@pytest.mark.parametrize("name", ["epoll", "asyncio", "poll", "select"])
def test_it_works_on_every_reactor(name: str) -> None:
    """Listening and connecting with options is the same on each of Twisted's reactors."""
    done = run(sys.executable, "-c", ON_REACTOR, name)
    assert done.stdout == "priority 3 True\nended\n", done.stderr


def test_the_module_imports_no_reactor() -> None:
    """Importing it chooses no reactor and starts no thread."""
    threads = threading.active_count()
    done = run(
        sys.executable, "-c",
        "import sys, twistedsock.transports.optioned\n"
        "print('twisted.internet.reactor' in sys.modules)",
    )  # fmt: skip
    assert done.stdout == "False\n", done.stderr
    assert threading.active_count() == threads
