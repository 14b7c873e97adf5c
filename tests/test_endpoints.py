"""``sock:`` endpoint strings and the endpoint classes, in any Twisted program."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import DEADLINE_S, ROOT, pause, run, until, within
from servers import Server, black_hole, echo
from twisted.application.internet import ClientService
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address
from twisted.internet.defer import succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.error import CannotListenError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twistedsock import endpoints
from twistedsock.endpoints import SocketClientEndpoint, SocketServerEndpoint, with_options
from twistedsock.errors import AddressError, OptionError

TCP, SOL, IP = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
NO_SUCH = "{level=1,number=9999,value=1}"  # an option that every socket refuses
NOT_OURS = "192.0.2.1"  # RFC 5737: no machine has it


class Keeper(Protocol):
    """Keeps what it is told."""

    def connectionMade(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.factory.protocols.append(self)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


def keepers() -> Any:
    factory: Any = Factory.forProtocol(Keeper)
    factory.noisy = False
    factory.protocols = []
    return factory


def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class Listening:
    """A server endpoint, or its string, as an async context."""

    def __init__(self, endpoint: Any) -> None:
        if isinstance(endpoint, str):
            endpoint = serverFromString(reactor(), endpoint)
        self.endpoint, self.factory = endpoint, keepers()
        self.clients: list[socket.socket] = []

    async def __aenter__(self) -> Any:
        self.port: Any = await within(self.endpoint.listen(self.factory))
        self.socket = self.port.socket
        return self

    async def accepted(self, host: str = "127.0.0.1") -> Any:
        """Return the transport of a new connection."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            client = socket.socket(socket.AF_UNIX)
            client.connect(name)
        else:
            client = socket.create_connection((host, name[1]), timeout=DEADLINE_S)
        self.clients.append(client)
        number = len(self.factory.protocols)
        await until(lambda: len(self.factory.protocols) > number)
        return self.factory.protocols[-1].transport

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        await until(lambda: all(each.lost for each in self.factory.protocols))
        await within(self.port.stopListening())


async def connected(endpoint: Any) -> Any:
    """Return the protocol of a connection by *endpoint*, or its string."""
    if isinstance(endpoint, str):
        endpoint = clientFromString(reactor(), endpoint)
    return await within(endpoint.connect(keepers()))


async def ended(protocol: Any) -> None:
    protocol.transport.loseConnection()
    await until(lambda: protocol.lost)


def descriptors() -> int:
    """Return how many sockets are open: the reactor opens other descriptors when it likes."""
    found = map(Path("/proc/self/fd").joinpath, os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(fd) and "socket:" in os.readlink(fd) for fd in found)


# -- server strings --


@pytest_twisted.ensureDeferred
async def test_a_server_string_listens_with_its_options() -> None:
    """Options stand among the string's own parameters; the port's report tells of them."""
    string = "sock:tcp:0:interface=127.0.0.1:SO_REUSEPORT=1:TCP_KEEPIDLE=60s:backlog=77"
    async with Listening(string) as listening:
        assert listening.port.getHost().host == "127.0.0.1"
        names = [outcome.name for outcome in listening.port.report]
        assert names == ["SO_REUSEPORT", "TCP_KEEPIDLE"]
        assert not listening.port.report.differing
        accepted = (await listening.accepted()).socket
        for sock in (listening.socket, accepted):
            assert sock.getsockopt(SOL, socket.SO_REUSEPORT) == 1
            assert sock.getsockopt(TCP, socket.TCP_KEEPIDLE) == 60
        info = listening.socket.getsockopt(TCP, socket.TCP_INFO, 64)
        assert int.from_bytes(info[28:32], sys.byteorder) == 77


@pytest.mark.parametrize("string", ["tcp:0:interface=127.0.0.1", "haproxy:tcp:0", "tcp6:0"])
@pytest_twisted.ensureDeferred
async def test_a_backlog_that_is_not_asked_for_is_1024(string: str) -> None:
    """Where Twisted would have 50, ours is 1024, also beneath a wrapper."""
    async with Listening(f"sock:{string}") as listening:
        info = listening.socket.getsockopt(TCP, socket.TCP_INFO, 64)
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert int.from_bytes(info[28:32], sys.byteorder) == min(1024, most)


@pytest.mark.parametrize(
    ("interface", "hosts"),
    [
        ("", ["127.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        (r"\:\:1", ["::1"]),
        (r"\:\:", ["127.0.0.1", "::1"]),
        (r"\:\:0", ["127.0.0.1", "::1"]),
        (r"\:\:ffff\:127.0.0.1", ["127.0.0.1"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_interface_means_what_it_means_without_sock(
    interface: str, hosts: list[str]
) -> None:
    """Escaped IPv6 interfaces, names and wildcards reach the very hosts that stock ones do."""
    for prefix in ("", "sock:"):
        async with Listening(f"{prefix}tcp:0:interface={interface}") as listening:
            number = listening.port.getHost().port
            reached = []
            for host in ("127.0.0.1", "::1"):
                try:
                    socket.create_connection((host, number), timeout=DEADLINE_S).close()
                except OSError:
                    continue
                reached.append(host)
            await until(lambda: len(listening.factory.protocols) == len(hosts))
            assert reached == hosts, prefix


@pytest_twisted.ensureDeferred
async def test_ipv6_only_can_be_asked_for() -> None:
    """IPV6_V6ONLY on the wildcard leaves IPv4 alone, against the default."""
    async with Listening(r"sock:tcp:0:interface=\:\::IPV6_V6ONLY=1") as listening:
        with pytest.raises(ConnectionError):
            await listening.accepted("127.0.0.1")
        await listening.accepted("::1")


@pytest_twisted.ensureDeferred
async def test_a_unix_string_listens_with_options(tmp_path: Path) -> None:
    """A UNIX path takes options, keeps its mode and its lock, and is gone at the end."""
    path = tmp_path / "a=b.sock"
    name = str(path).replace("=", r"\=")
    async with Listening(rf"sock:unix:{name}:mode=600:SO_PASSCRED=1:SO_SNDBUF=50000") as listening:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.with_name(path.name + ".lock").is_symlink()
        assert listening.socket.getsockopt(SOL, socket.SO_PASSCRED) == 1
        accepted = await listening.accepted()
        # Not inherited over AF_UNIX, so set on each.
        assert accepted.socket.getsockopt(SOL, socket.SO_SNDBUF) == 100_000
    assert list(tmp_path.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_strings_may_be_nested() -> None:
    """sock: in sock:, directly or beneath a wrapper, has the options of both."""
    for string in ("sock:sock:tcp:0:SO_KEEPALIVE=1:SO_REUSEPORT=1",
                   "sock:haproxy:sock:tcp:0:SO_KEEPALIVE=1:SO_REUSEPORT=1"):  # fmt: skip
        async with Listening(string) as listening:
            for option in (socket.SO_KEEPALIVE, socket.SO_REUSEPORT):
                assert listening.socket.getsockopt(SOL, option) == 1


@pytest_twisted.ensureDeferred
async def test_aliases_tables_and_raw_options_are_read() -> None:
    """systemd's spellings, tables as TOML writes them and options without a name all work."""
    table = '{level="SOL_SOCKET",number=12,value=3}'  # SO_PRIORITY
    string = f"sock:tcp:0:KeepAlive=yes:NoDelay=no:MY_PRIORITY={table}"
    async with Listening(string) as listening:
        assert listening.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
        assert listening.socket.getsockopt(TCP, socket.TCP_NODELAY) == 0
        assert listening.socket.getsockopt(SOL, socket.SO_PRIORITY) == 3


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("sock", "sock: an endpoint string follows, such as sock:tcp:8080"),
        ("sock:", "sock: an endpoint string follows, such as sock:tcp:8080"),
        ("sock::", "sock: an endpoint string follows, such as sock:tcp:8080"),
        (b"sock:tcp:0", "sock: an endpoint string follows, such as sock:tcp:8080"),
        ("sock:nonsense:1", "Unknown endpoint type: 'nonsense'"),
        ("sock:tcp:", "invalid literal for int"),
        ("sock:tcp:0:SO_KEEPALVE=1", "SO_KEEPALVE: no socket option has this name; "
         "did you mean SO_KEEPALIVE?"),
        ("sock:tcp:0:so_keepalive=1", "so_keepalive: no socket option has this name; "
         "did you mean SO_KEEPALIVE?"),
        ("sock:tcp:0:SO_KEEPALIVE=perhaps", "SO_KEEPALIVE: must be true or false, got 'perhaps'"),
        ("sock:tcp:0:SO_KEEPALIVE=", "SO_KEEPALIVE: must be true or false, got ''"),
        ("sock:tcp:0:TCP_INFO=1", "TCP_INFO: can only be read"),
        ("sock:tcp:0:KeepAlive=1:SO_KEEPALIVE=1",
         "SO_KEEPALIVE: KeepAlive sets the same option"),
        ("sock:tcp:0:refused_options=perhaps",
         "refused_options must be one of strict, warn, ignore; got 'perhaps'"),
        ("sock:tcp:0:SO_KEEPALIVE=" + "x" * 10_000, "SO_KEEPALIVE: must be true or false"),
        ("sock:tcp:0:SO_RCVBUF=" + "{" * 10_000, "SO_RCVBUF: must be a size"),
        ("sock:tcp:0:X_" + "A" * 10_000 + "=1", "no socket option has this name"),
    ],
    ids=lambda each: str(each)[:30],
)  # fmt: skip
def test_a_wrong_server_string_is_a_value_error(string: Any, message: str) -> None:
    """What is wrong with a string is told when it is parsed, as Twisted's own parsers do."""
    before = descriptors()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is asserted
        serverFromString(reactor(), string)
    assert message in str(caught.value)
    assert descriptors() == before


@pytest.mark.parametrize(
    "string",
    ["tcp", "tcp:", "tcp:abc", "tcp:0:nonsense=1", "tcp:0:KEEPALIVE=1", r"tcp:0:a\=b=1",
     "nonsense:1", "tcp:70000", "tcp:-1", "tcp:0:interface=nowhere.invalid",
     f"tcp:0:interface={NOT_OURS}",
     "unix:/nonexistent/x.sock:lockfile=0", "tcp:0:backlog=many", "ssl:0:privateKey=/nonexistent"],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_other_faults_are_told_as_without_sock(string: str) -> None:
    """A wrong port, parameter, interface or path fails with the error of the stock endpoint."""
    told = []
    for prefix in ("", "sock:"):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
            await within(serverFromString(reactor(), prefix + string).listen(keepers()))
        told.append((caught.type, str(caught.value)))
        del caught
        gc.collect()  # stock leaves its socket to the collector
    if told[0][0] is CannotListenError:
        assert told[1][0] is CannotListenError
        assert told[1][1].partition("[")[0] == told[0][1].partition("[")[0]
    else:
        assert told[1] == told[0]


@pytest.mark.parametrize(
    ("string", "error", "message"),
    [
        ("tcp:0:TCP_CONGESTION=nonsense", CannotListenError,
         r"TCP_CONGESTION: No such file or directory \(ENOENT\)"),
        (f"tcp:0:MY_OPT={NO_SUCH}", CannotListenError, r"MY_OPT: Protocol not available"),
        ("tcp:0:IPV6_V6ONLY=1", OptionError, "IPV6_V6ONLY: fits only .* over IPv6"),
        ("tcp:0:SO_PASSCRED=1", OptionError, "SO_PASSCRED: fits only"),
        ("unix:{path}:TCP_NODELAY=1", OptionError, "TCP_NODELAY: fits only tcp"),
        (f"unix:{{path}}:MY_OPT={NO_SUCH}", CannotListenError, "MY_OPT: Protocol not available"),
        ('unix:{path}:MY_OPT={{level=1,number=9999,value=1,phase="listening"}}',
         CannotListenError, "MY_OPT: Protocol not available"),
        ('tcp:0:MY_OPT={{level=1,number=9999,value=1,phase="listening"}}',
         CannotListenError, "MY_OPT: Protocol not available"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_a_refused_option_fails_listen_and_leaves_nothing(
    string: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """An option that the kernel refuses, or that fits no such socket, leaves nothing open."""
    string = string.replace("{path}", str(tmp_path / "s")).replace("{{", "{").replace("}}", "}")
    before, factory = descriptors(), keepers()
    with pytest.raises(error, match=message):
        await within(serverFromString(reactor(), f"sock:{string}").listen(factory))
    assert (descriptors(), factory.numPorts) == (before, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refusal", ["warn", "ignore"])
@pytest_twisted.ensureDeferred
async def test_a_refused_option_may_be_gone_without(refusal: str, tmp_path: Path) -> None:
    """With refused_options=warn or ignore a socket serves without it; the report tells."""
    for inner in ("tcp:0", f"unix:{tmp_path / 's'}"):
        string = f"sock:{inner}:MY_OPT={NO_SUCH}:SO_SNDBUF=50000:refused_options={refusal}"
        async with Listening(string) as listening:
            assert [each.code for each in listening.port.report] == ["ENOPROTOOPT", ""]
            assert listening.port.report["SO_SNDBUF"].effective is not None
            assert (await listening.accepted()).connected


@implementer(IStreamServerEndpoint)
class Socketless:
    """Listens on nothing."""

    def __init__(self) -> None:
        self.stopped = False

    def listen(self, protocolFactory: Any) -> Any:
        return succeed(self)

    def stopListening(self) -> None:
        self.stopped = True


@pytest_twisted.ensureDeferred
async def test_an_endpoint_that_opens_no_socket_is_an_error() -> None:
    """Options are never dropped in silence: the port is stopped and listen() fails."""
    inner = Socketless()
    endpoint = endpoints._ServerEndpoint(inner, with_options(reactor(), {"SO_KEEPALIVE": True}))
    with pytest.raises(OptionError, match="a Socketless opens no socket here"):
        await within(endpoint.listen(keepers()))
    assert inner.stopped


@implementer(IStreamClientEndpoint)
class Reused:
    """Connects by what is connected already."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def connect(self, protocolFactory: Any) -> Any:
        return succeed(self.protocol)


@pytest_twisted.ensureDeferred
async def test_a_client_endpoint_that_opens_no_socket_is_an_error() -> None:
    """Options are never dropped in silence: the connection is closed and connect() fails."""
    protocol = Protocol()
    protocol.makeConnection(StringTransport())
    reused = Reused(protocol)
    endpoint = endpoints._ClientEndpoint(reused, with_options(reactor(), {"SO_KEEPALIVE": True}))
    with pytest.raises(OptionError, match="a Reused opens no socket here"):
        await within(endpoint.connect(keepers()))
    assert protocol.transport.disconnecting  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_of_a_key_written_twice_the_last_counts() -> None:
    """As with Twisted's own parameters, a later value replaces an earlier one."""
    async with Listening("sock:tcp:0:SO_KEEPALIVE=1:SO_KEEPALIVE=0") as listening:
        assert listening.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 0
        assert len(listening.port.report) == 1


def test_stdio_takes_no_options() -> None:
    """sock:stdio: fails with a clear error."""
    done = run(sys.executable, "-c", STDIO)
    assert "a StandardIOEndpoint opens no socket here, so it takes no options" in done.stderr


STDIO = """
import sys
from twisted.internet import reactor, endpoints, protocol
factory = protocol.Factory.forProtocol(protocol.Protocol)
done = endpoints.serverFromString(reactor, "sock:stdio:SO_KEEPALIVE=1").listen(factory)
done.addErrback(lambda failure: sys.stderr.write(failure.getErrorMessage()))
done.addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
reactor.run()
"""

# -- client strings --


@pytest_twisted.ensureDeferred
async def test_a_client_string_connects_with_its_options() -> None:
    """A client's options are on its socket; what became of them is its transport's report."""
    with Server(echo) as server:
        string = f"sock:tcp:127.0.0.1:{server.port}:TCP_USER_TIMEOUT=10s:SO_KEEPALIVE=1"
        protocol = await connected(string)
        sock = protocol.transport.socket
        assert sock.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 10_000
        assert sock.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
        assert protocol.transport.report["TCP_USER_TIMEOUT"].effective is not None
        protocol.transport.write(b"hello")
        await until(lambda: protocol.data == b"hello")
        protocol.transport.loseWriteConnection()
        await until(lambda: protocol.lost)


@pytest_twisted.ensureDeferred
async def test_the_local_port_is_of_the_range_asked_for() -> None:
    """IP_LOCAL_PORT_RANGE chooses the port that connect binds, so it was set before."""
    with socket.socket() as sock:
        try:
            sock.setsockopt(IP, 51, 0)
        except OSError:
            pytest.skip("needs Linux 6.3, for IP_LOCAL_PORT_RANGE")
    with Server(echo) as server:
        string = f"sock:tcp:127.0.0.1:{server.port}:IP_LOCAL_PORT_RANGE=50100-50199"
        protocol = await connected(string)
        assert 50_100 <= protocol.transport.getHost().port <= 50_199
        await ended(protocol)


@pytest_twisted.ensureDeferred
async def test_an_address_of_nobody_can_be_bound() -> None:
    """IP_FREEBIND lets a listener bind a foreign address, so it was set before bind."""
    with pytest.raises(CannotListenError):
        await within(serverFromString(reactor(), f"sock:tcp:0:interface={NOT_OURS}").listen(None))
    async with Listening(f"sock:tcp:0:interface={NOT_OURS}:IP_FREEBIND=1") as listening:
        assert listening.port.getHost().host == NOT_OURS


@pytest_twisted.ensureDeferred
async def test_a_unix_client_string(tmp_path: Path) -> None:
    """A UNIX client string, and a server string, meet; both have their options."""
    path = tmp_path / "s"
    async with Listening(f"sock:unix:{path}:SO_PASSCRED=1") as listening:
        protocol = await connected(f"sock:unix:{path}:SO_SNDBUF=40000")
        assert protocol.transport.socket.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
        protocol.transport.write(b"x")
        await until(lambda: listening.factory.protocols[:1])
        await ended(protocol)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest_twisted.ensureDeferred
async def test_tls_strings_meet(host: str, certificate: Path) -> None:
    """ssl: server and tls: client strings carry options beneath TLS, and the report with them."""
    server = f"sock:ssl:0:interface=127.0.0.1:privateKey={certificate}:TCP_USER_TIMEOUT=3s"
    async with Listening(server) as listening:
        number = listening.port.getHost().port
        roots = certificate.parent
        for kind in (f"tls:localhost:{number}:trustRoots={roots}",
                     f"ssl:{host}:{number}:caCertsDir={roots}:hostname=localhost"):  # fmt: skip
            protocol = await connected(f"sock:{kind}:TCP_USER_TIMEOUT=4s")
            protocol.transport.write(b"secret")
            await until(
                lambda: [each.data for each in listening.factory.protocols][-1:] == [b"secret"]
            )
            assert protocol.transport.getHandle is not None
            assert protocol.transport.report["TCP_USER_TIMEOUT"].differs is False
            await ended(protocol)


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("sock:", "sock: an endpoint string follows"),
        ("sock::", "sock: an endpoint string follows"),
        ("sock:stdio:", "Unknown endpoint type: 'stdio'"),
        ("sock:tcp:h:1:TCP_USER_TIMOUT=1", "did you mean TCP_USER_TIMEOUT?"),
        ("sock:tcp:h:1:TCP_USER_TIMEOUT=soon", "TCP_USER_TIMEOUT: must be"),
        ("sock:tcp:127.0.0.1:1:IPV6_TCLASS=8", "IPV6_TCLASS: fits only"),
        (r"sock:tcp:\:\:1:1:IP_TTL=8", "IP_TTL: fits only"),
        ("sock:tcp:host=localhost:port=1:IPV6_TCLASS=8", "IPV6_TCLASS: fits only"),
    ],
)
def test_a_wrong_client_string_is_a_value_error(string: str, message: str) -> None:
    """What is wrong with a client string is told when it is parsed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is asserted
        clientFromString(reactor(), string)
    assert message in str(caught.value)


@pytest.mark.parametrize("where", ["tcp:127.0.0.1:1", "tcp:localhost:1", "unix:/nonexistent/s"])
@pytest_twisted.ensureDeferred
async def test_a_refused_option_fails_connect_and_leaves_nothing(where: str) -> None:
    """A client's refused option fails connect(); with ignore, the connection's own fate shows."""
    before, factory = descriptors(), keepers()
    endpoint = clientFromString(reactor(), f"sock:{where}:MY_OPT={NO_SUCH}")
    with pytest.raises(OptionError, match="MY_OPT: Protocol not available"):
        await within(endpoint.connect(factory))
    await until(lambda: (descriptors(), factory.numPorts) == (before, 0))
    told = []
    for string in (where, f"sock:{where}:MY_OPT={NO_SUCH}:refused_options=ignore"):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
            await within(clientFromString(reactor(), string).connect(factory))
        told.append((caught.type, str(caught.value)))
    assert told[0] == told[1]
    await until(lambda: factory.numPorts == 0)


@pytest_twisted.ensureDeferred
async def test_a_connect_in_flight_can_be_cancelled() -> None:
    """Cancelling leaves neither a socket nor a timer behind."""
    before = descriptors()
    with black_hole() as port:
        holding = descriptors()
        string = f"sock:tcp:127.0.0.1:{port}:TCP_SYNCNT=3"
        connecting = clientFromString(reactor(), string).connect(keepers())
        await pause(0.05)
        assert descriptors() > holding
        connecting.cancel()
        with pytest.raises(ConnectingCancelledError):
            await within(connecting)
        await until(lambda: descriptors() == holding)
    assert descriptors() == before


@pytest_twisted.ensureDeferred
async def test_a_client_service_reconnects_with_options() -> None:
    """ClientService opens each of its connections with the options."""
    with Server(lambda sock: sock.recv(1) and None) as server:
        factory = keepers()
        string = f"sock:tcp:127.0.0.1:{server.port}:TCP_USER_TIMEOUT=10s"
        service = ClientService(
            clientFromString(reactor(), string), factory, retryPolicy=lambda _: 0.01
        )
        service.startService()
        for number in (1, 2, 3):
            await until(lambda: len(factory.protocols) == number)  # noqa: B023
            transport = factory.protocols[-1].transport
            assert transport.socket.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 10_000
            transport.write(b"x")
        await within(service.stopService())


# -- classes --


def test_the_classes_are_what_twisted_calls_endpoints() -> None:
    """They provide Twisted's interfaces, and so do the strings' endpoints."""
    verifyObject(IStreamServerEndpoint, SocketServerEndpoint(reactor(), "tcp:0"))
    verifyObject(IStreamClientEndpoint, SocketClientEndpoint(reactor(), "tcp:1"))
    verifyObject(IStreamServerEndpoint, serverFromString(reactor(), "sock:tcp:0"))
    verifyObject(IStreamClientEndpoint, clientFromString(reactor(), "sock:tcp:h:1"))


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("tcp:0", "tcp:{}"),
        ("tcp:[::1]:0", "tcp:[::1]:{}"),
        ("tcp:*:0", "tcp:localhost:{}"),
        ("tcp:localhost:0", "tcp:localhost:{}"),
        ("unix:{path}", "unix:{path}"),
        ("unix:@twistedsock-{pid}", "unix:@twistedsock-{pid}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_classes_over_each_kind_of_address(address: str, peer: str, tmp_path: Path) -> None:
    """A typed server and a typed client meet on any stream address, each with its options."""
    names = {"{path}": str(tmp_path / "s"), "{pid}": str(os.getpid())}
    for name, text in names.items():
        address, peer = address.replace(name, text), peer.replace(name, text)
    options = {"SO_SNDBUF": "40000"}
    async with Listening(SocketServerEndpoint(reactor(), address, options)) as listening:
        host: Any = listening.port.getHost()
        client = SocketClientEndpoint(
            reactor(), peer.format(getattr(host, "port", "")), {"SO_SNDBUF": 30_000}
        )
        protocol = await connected(client)
        await until(lambda: listening.factory.protocols)
        accepted = listening.factory.protocols[0].transport.socket
        assert accepted.getsockopt(SOL, socket.SO_SNDBUF) == 80_000
        assert protocol.transport.socket.getsockopt(SOL, socket.SO_SNDBUF) == 60_000
        assert protocol.transport.report["SO_SNDBUF"].effective is not None
        await ended(protocol)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [SocketServerEndpoint, SocketClientEndpoint])
def test_wrong_addresses_and_options_are_told_at_once(kind: Any) -> None:
    """A class refuses what can never work when it is made, without a socket."""
    for address in ("udp:1", "raw:icmp", "seqpacket:/x"):
        with pytest.raises(AddressError, match="an endpoint is of tcp or unix"):
            kind(reactor(), address)
    for address in ("", "tcp:", "tcp:70000", "8080", b"tcp:1", None):
        with pytest.raises(AddressError):
            kind(reactor(), address)
    for options, message in (
        ({"SO_KEEPALVE": 1}, "did you mean SO_KEEPALIVE?"),
        ({"SO_KEEPALIVE": "perhaps"}, "SO_KEEPALIVE: must be true or false"),
        ({"IPV6_TCLASS": 8}, "IPV6_TCLASS: fits only"),
    ):
        with pytest.raises(OptionError, match=message):
            kind(reactor(), "tcp:127.0.0.1:1", options)


@pytest_twisted.ensureDeferred
async def test_options_changed_after_the_call_change_nothing() -> None:
    """A mapping that its owner changes later was read when the endpoint was made."""
    options: dict[str, object] = {"SO_KEEPALIVE": True}
    endpoint = SocketServerEndpoint(reactor(), "tcp:0", options)
    options["SO_KEEPALIVE"] = False
    options["nonsense"] = 1
    async with Listening(endpoint) as listening:
        assert listening.socket.getsockopt(SOL, socket.SO_KEEPALIVE) == 1


@pytest_twisted.ensureDeferred
async def test_a_name_of_both_ip_versions_takes_the_options_of_both() -> None:
    """HostnameEndpoint tries IPv4 and IPv6 addresses; each gets those options that fit it."""
    options = {"IP_TTL": 61, "IPV6_TCLASS": 8, "TCP_USER_TIMEOUT": "2s"}
    for host, name in (("127.0.0.1", "IP_TTL"), ("::1", "IPV6_TCLASS")):
        with Server(echo, host) as server:
            optioned = with_options(two_addresses(), options)
            endpoint = HostnameEndpoint(optioned, "both.example", server.port)
            protocol = await connected(endpoint)
            assert protocol.transport.getPeer().host == host
            names = {outcome.name for outcome in protocol.transport.report}
            assert {name, "TCP_USER_TIMEOUT"} <= names
            assert ("IPV6_TCLASS" in names) == (":" in host)
            await ended(protocol)


def two_addresses() -> Any:
    """Return the reactor, with a resolver that knows one name of two addresses."""
    from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
    from zope.interface import directlyProvides, providedBy

    @implementer(IHostnameResolver)
    class Resolver:
        def resolveHostName(
            self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
        ) -> Any:
            receiver.resolutionBegan(HostnameAddress(hostName.encode(), portNumber))
            receiver.addressResolved(IPv6Address("TCP", "::1", portNumber))
            receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
            receiver.resolutionComplete()

    class Reactor:
        nameResolver = Resolver()

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor(), name)

    double = Reactor()
    directlyProvides(double, providedBy(reactor()), IReactorPluggableNameResolver)
    return double


# -- plug-ins --


def test_the_plug_in_stays_light() -> None:
    """A program that only parses a stock endpoint string imports none of our machinery."""
    code = (
        "import sys; from twisted.plugin import getPlugins\n"
        "from twisted.internet.interfaces import IStreamServerEndpointStringParser as I\n"
        "print(sorted(p.prefix for p in getPlugins(I)))\n"
        "print(sorted(m for m in sys.modules if m.startswith('twistedsock')))\n"
        "print('twisted.internet.reactor' in sys.modules, 'pydantic' in sys.modules)\n"
    )
    done = run(sys.executable, "-c", code)
    prefixes, modules, others = done.stdout.splitlines()
    assert "'sock'" in prefixes
    assert modules == "['twistedsock', 'twistedsock.endpoints']"
    assert others == "False False"


def test_a_stale_plug_in_cache_is_made_anew(tmp_path: Path) -> None:
    """The parsers are found although the cache is of an older plug-in, or broken."""
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    shutil.copy(ROOT / "twisted" / "plugins" / "twistedsock_plugins.py", plugins)
    (tmp_path / "twistedsock").symlink_to(ROOT / "twistedsock")
    (plugins / "dropin.cache").write_bytes(b"nonsense")
    os.utime(plugins / "dropin.cache", (1, 1))
    code = (
        f"import sys; others = [each for each in sys.path if each != {str(ROOT)!r}]\n"
        f"sys.path[:] = [{str(tmp_path)!r}, *others]\n"
        "from twisted.internet.endpoints import serverFromString, clientFromString\n"
        "from twisted.internet.testing import MemoryReactor\n"
        "for parse in serverFromString, clientFromString:\n"
        "    print(type(parse(MemoryReactor(), 'sock:tcp:h:1' if parse is clientFromString"
        " else 'sock:tcp:0')).__name__)\n"
        "import twisted.plugins.twistedsock_plugins as ours; print(ours.__file__)\n"
    )
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "_ServerEndpoint",
        "_ClientEndpoint",
        str(plugins / "twistedsock_plugins.py"),
    ], done.stderr


def test_tls_is_not_needed_for_what_is_not_tls() -> None:
    """Without pyOpenSSL a sock:tcp: string listens all the same."""
    code = (
        "import sys; sys.modules['OpenSSL'] = None\n"
        "from twisted.internet import reactor, endpoints, protocol\n"
        "factory = protocol.Factory.forProtocol(protocol.Protocol)\n"
        "endpoint = endpoints.serverFromString(reactor, 'sock:tcp:0:SO_KEEPALIVE=1')\n"
        "endpoint.listen(factory).addCallback(lambda port: print(port.report))\n"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout == "SO_KEEPALIVE: requested true, effective true\n", done.stderr


def test_no_name_of_an_option_is_a_parameter_of_twisteds() -> None:
    """What a stock endpoint string knows by name stays its own."""
    from twistedsock.sockopts import SPELLINGS

    known = {"interface", "backlog", "mode", "lockfile", "privateKey", "certKey", "sslmethod",
             "extraCertChain", "dhParameters", "host", "port", "timeout", "bindAddress", "path",
             "address", "checkPID", "caCertsDir", "hostname", "certificate", "endpoint",
             "trustRoots", "domain", "index", "name"}  # fmt: skip
    assert not known & SPELLINGS.keys()
    assert not {name.upper() for name in known} & SPELLINGS.keys()


def test_parsing_opens_nothing() -> None:
    """A string is parsed without a socket; a reactor in memory is enough."""
    before = descriptors()
    serverFromString(MemoryReactor(), "sock:tcp:0:SO_KEEPALIVE=1")
    clientFromString(MemoryReactor(), "sock:tcp:h:1:SO_KEEPALIVE=1")
    assert descriptors() == before


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate with its key, in a folder of its own."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the package openssl")
    pytest.importorskip("OpenSSL", reason="needs pyOpenSSL")
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True, timeout=DEADLINE_S,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    path.with_suffix(".crt").unlink()
    return path
