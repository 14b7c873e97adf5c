"""Setting options on what exists already. The oracle is the standard library's getsockopt."""

from __future__ import annotations

import errno
import os
import socket
from asyncio import trsock
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import until, within
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from twistedsock import sockopts
from twistedsock.addresses import parse_address
from twistedsock.errors import OptionError
from twistedsock.sockopts import apply, plan_options, read, set_phase, socket_of
from twistedsock.transports.binding import open_listener
from twistedsock.transports.stream import StreamPort

SOL, TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Quiet(Protocol):
    """Is there."""

    lost = False

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


def factory() -> Any:
    made = Factory.forProtocol(Quiet)
    made.noisy = False
    return made


def listening(kind: str, folder: Path) -> Any:
    """Return a port of Twisted's or ours that listens."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    if kind == "tcp":
        return reactor.listenTCP(0, factory(), interface="127.0.0.1")
    if kind == "udp":
        return reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    if kind == "unix":
        return reactor.listenUNIX(str(folder / "s"), factory())
    port = StreamPort.adopt(open_listener(parse_address("tcp:127.0.0.1:0")), factory(), reactor)
    port.startListening()
    return port


@pytest.mark.parametrize("kind", ["tcp", "udp", "unix", "ours"])
@pytest_twisted.ensureDeferred
async def test_a_listening_port_takes_options(kind: str, tmp_path: Path) -> None:
    """An option is set on a port of Twisted's or ours while it listens, and not after."""
    port = listening(kind, tmp_path)
    try:
        report = apply(port, {"SO_SNDBUF": 50000})
        assert port.socket.getsockopt(SOL, socket.SO_SNDBUF) == 100000
        assert report["SO_SNDBUF"].effective == 100000
        assert read(port, "SO_SNDBUF") == 100000
        with pytest.raises(OptionError, match=r"^SO_REUSEADDR: (must be set before|fits only)"):
            apply(port, {"SO_SNDBUF": 60000, "SO_REUSEADDR": True})
        assert port.socket.getsockopt(SOL, socket.SO_SNDBUF) == 100000
    finally:
        await within(port.stopListening())
    with pytest.raises(OptionError, match=r"^has no open socket: "):
        apply(port, {"SO_SNDBUF": 50000})


@pytest.mark.parametrize("is_tls", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_connected_transport_takes_options(is_tls: bool, tmp_path: Path) -> None:
    """An option is set on a connection, also beneath TLS, and not after it is lost."""
    from twisted.internet import reactor as _reactor
    from twisted.internet.ssl import CertificateOptions

    reactor: Any = _reactor
    port = listening("tcp", tmp_path)
    client = factory()
    protocols: list[Quiet] = []
    client.buildProtocol = lambda _: protocols.append(Quiet()) or protocols[-1]
    client.startedConnecting = lambda _: None
    client.clientConnectionLost = client.clientConnectionFailed = lambda *_: None
    wrapped = TLSMemoryBIOFactory(CertificateOptions(), True, client) if is_tls else client
    wrapped.noisy = False
    connector = reactor.connectTCP("127.0.0.1", port.getHost().port, wrapped)
    await until(lambda: protocols and protocols[0].transport)
    transport: Any = protocols[0].transport
    sock = socket_of(transport)
    assert apply(transport, {"TCP_NODELAY": True, "SO_LINGER": "3s"})["TCP_NODELAY"].effective
    assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1
    with pytest.raises(OptionError, match=r"^TCP_SYNCNT: must be set before bind or connect, and"):
        apply(transport, {"TCP_SYNCNT": 3})
    transport.abortConnection()
    await until(lambda: protocols[0].lost)
    connector.disconnect()
    with pytest.raises(OptionError, match=r"^has no open socket: "):
        apply(transport, {"TCP_NODELAY": False})
    await within(port.stopListening())


def test_asyncios_socket_takes_options() -> None:
    """What asyncio's transports call their socket will do."""
    with socket.socket() as sock:
        apply(trsock.TransportSocket(sock), {"TCP_NODELAY": True})
        assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("target", [None, 5, "socket", object(), [], socket.socket])
def test_what_has_no_socket_is_told(target: object) -> None:
    """Anything else is refused in words, and not by an AttributeError."""
    with pytest.raises(OptionError, match=r"^has no open socket: pass a socket, or a Twisted"):
        apply(target, {"TCP_NODELAY": True})


def test_a_closed_socket_is_told() -> None:
    """A socket that was closed is no socket, whatever follows a refusal."""
    sock = socket.socket()
    sock.close()
    for refusal in sockopts.REFUSALS:
        with pytest.raises(OptionError, match=r"^has no open socket: it is closed$"):
            apply(sock, {"TCP_NODELAY": True}, refusal=refusal)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"UDP_GRO": True}, "UDP_GRO: fits only udp; this socket is tcp over IPv4"),
        ({"IPV6_TCLASS": 8}, "IPV6_TCLASS: fits only tcp, udp, udplite, raw, ping, sctp over IPv6"),
        ({"SO_TYPE": 1}, "SO_TYPE: can only be read"),
        ({"NOPE": 1}, "NOPE: no socket option has this name"),
        ({5: 1}, "5: the name of a socket option is a text, not a int"),
        ({"NoDelay": True}, "NoDelay: TCP_NODELAY sets the same option"),
        (
            {"mine": {"level": 1, "number": 9, "value": 1, "phase": "listening"}},
            "mine: fits only a listening socket",
        ),
    ],
)
def test_nothing_is_set_where_one_is_wrong(options: dict[str, object], fault: str) -> None:
    """A fault that can be known beforehand leaves the socket as it was."""
    with socket.socket() as sock:
        with pytest.raises(OptionError) as caught:
            apply(sock, {"TCP_NODELAY": True, **options})
        assert str(caught.value).startswith(fault.partition(" over IPv6")[0][:40])
        assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 0


def test_a_table_that_does_not_fit_is_not_passed_over() -> None:
    """An option whose value is a table is refused like any other where it does not fit."""
    key = {"address": "127.0.0.1", "key": "secret"}
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sock,
        pytest.raises(OptionError, match=r"^TCP_MD5SIG: fits only tcp; this socket is udp over"),
    ):
        apply(sock, {"TCP_MD5SIG": key})


def test_what_is_for_connections_is_refused_by_a_listener() -> None:
    """An option of connected sockets is not set on one that listens, where it would do nothing."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(OptionError, match=r"^TCP_ULP: must be set on each connection, and"):
            apply(sock, {"TCP_ULP": "tls"})
        raw = {"level": SOL, "number": socket.SO_KEEPALIVE, "value": 1, "phase": "listening"}
        apply(sock, {"mine": raw})
        assert sock.getsockopt(SOL, socket.SO_KEEPALIVE) == 1


def test_strict_keeps_what_was_set_and_says_so() -> None:
    """What comes before a refusal stays set and is told; what comes after is not tried."""
    options = {"TCP_NODELAY": True, "TCP_CONGESTION": "nonesuch", "SO_KEEPALIVE": True}
    with socket.socket() as sock:
        with pytest.raises(OptionError, match=r"^TCP_CONGESTION: No such file") as caught:
            apply(sock, options)
        assert caught.value.errno == errno.ENOENT
        assert [each.name for each in caught.value.report] == ["TCP_NODELAY"]  # type: ignore[attr-defined]
        assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(SOL, socket.SO_KEEPALIVE) == 0


@pytest.mark.parametrize("refusal", ["warn", "ignore"])
def test_the_others_go_on_and_report(refusal: Any) -> None:
    """What the kernel refuses is in the report with its code, and the rest is set."""
    options = {"TCP_CONGESTION": "nonesuch", "SO_KEEPALIVE": True}
    with socket.socket() as sock:
        report = apply(sock, options, refusal=refusal)
        assert sock.getsockopt(SOL, socket.SO_KEEPALIVE) == 1
    refused = report["TCP_CONGESTION"]
    assert (refused.applied, refused.effective, refused.code) == (None, None, "ENOENT")
    assert refused.differs
    assert not report["SO_KEEPALIVE"].differs


@pytest.mark.parametrize(
    "options",
    [{"SO_TIMESTAMPING": ["software"]}, {"SO_ATTACH_FILTER": [[6, 0, 0, 1]]}],
)
def test_lists_and_tables_are_set_by_phase(options: dict[str, object]) -> None:
    """A value that is a list does no harm where a refusal is looked up."""
    plan = plan_options(options, parse_address("udp:127.0.0.1:1"), refusal="warn")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        set_phase(sock, plan, "socket", {})
        assert len(sockopts.read_back(sock, plan, {})) == 1


def test_an_alias_sets_both_versions_of_a_dual_socket() -> None:
    """IPTTL on a socket of both IP versions is set for each, and on one for its own."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        report = apply(sock, {"IPTTL": 33})
        assert {each.option for each in report} == {"IP_TTL", "IPV6_UNICAST_HOPS"}
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 33
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 33


@pytest.mark.parametrize("fault", ["SO_ATTACH_FILTER", "SO_DETACH_FILTER"])
def test_what_cannot_be_read_is_told(fault: str) -> None:
    """Reading a filter would write past Python's buffer, so it is refused."""
    with socket.socket() as sock, pytest.raises(OptionError, match=rf"^{fault}: cannot be read$"):
        read(sock, fault)


def test_no_descriptor_is_left() -> None:
    """Setting and reading leaves no descriptor behind, also on AF_VSOCK and after a refusal."""
    before = descriptors()
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_VSOCK):
        try:
            sock = socket.socket(family)
        except OSError:
            continue
        with sock:
            apply(sock, {"SO_RCVTIMEO": "1s"})
            read(sock, "SO_TYPE")
            with pytest.raises(OptionError):
                read(sock, "SO_PEERNAME")
    assert descriptors() == before
