"""``options=`` of the four clients: checked first, set before the connection, and read back."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import within
from servers import Server, echo, udp_socket
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from twistedsock.client.blocking import connect_blocking
from twistedsock.client.datagram import connect_datagram
from twistedsock.client.datagram_blocking import connect_datagram_blocking
from twistedsock.client.peer import connect
from twistedsock.errors import OptionError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options")
MOST_RCVBUF = Path("/proc/sys/net/core/rmem_max")
Options = Any


@pytest.fixture
def peer() -> Iterator[str]:
    """The address of a stream server."""
    with Server(echo) as server:
        yield server.address


@pytest.fixture
def udp_peer() -> Iterator[str]:
    """The address of a datagram socket."""
    with udp_socket() as sock:
        yield f"udp:127.0.0.1:{sock.getsockname()[1]}"


async def closed(client: Any) -> None:
    """Close *client*, whichever of the four it is."""
    done = client.close()
    if isinstance(done, Deferred):
        await within(done)


async def opened(make: Callable[..., Any], address: str, options: Options) -> Any:
    """Return what *make* opens."""
    done = make(reactor, address, options=options)
    return await within(done) if isinstance(done, Deferred) else await done


def blocking(_: Any, address: str, **more: Any) -> Any:
    """Open the blocking client."""
    return _fired(connect_blocking(address, **more))


def datagram_blocking(_: Any, address: str, **more: Any) -> Any:
    """Open the blocking datagram client."""
    return _fired(connect_datagram_blocking(address, **more))


def _fired(client: Any) -> Deferred[Any]:
    done: Deferred[Any] = Deferred()
    done.callback(client)
    return done


STREAMS = pytest.mark.parametrize("make", [connect, blocking], ids=["reactor", "blocking"])
DATAGRAMS = pytest.mark.parametrize(
    "make", [connect_datagram, datagram_blocking, connect, blocking],
    ids=["reactor", "blocking", "plain-reactor", "plain-blocking"],
)  # fmt: skip


@STREAMS
@pytest_twisted.ensureDeferred
async def test_a_stream_has_its_options_and_tells_what_became_of_them(
    make: Any, peer: str, watched: list[dict[str, int]]
) -> None:
    """Each option is set before the connection is made, and its outcome is the client's."""
    most = int(MOST_RCVBUF.read_text())
    options = {
        "TCP_USER_TIMEOUT": "10s",
        "KeepAliveTimeSec": 60,
        "SO_RCVBUF": most + 1,
        "late": {"level": 6, "number": 5, "value": 33, "phase": "connected"},
    }
    client = await opened(make, peer, options)
    told = {each.name: (each.requested, each.applied, each.effective) for each in client.options}
    assert told == {
        "TCP_USER_TIMEOUT": ("10s", "10s", "10s"),
        "KeepAliveTimeSec": (60, "1m", "1m"),
        "SO_RCVBUF": (most + 1, most + 1, 2 * most),
        "late": (33, 33, 33),
    }
    assert [each.name for each in client.options.differing] == ["SO_RCVBUF"]
    assert f"net.core.rmem_max = {most}" in client.options["SO_RCVBUF"].reason
    at_connect, *_ = [each for each in watched if each["TCP_USER_TIMEOUT"]]
    assert at_connect == {"TCP_USER_TIMEOUT": 10_000, "TCP_KEEPIDLE": 60, "SO_RCVBUF": 2 * most}
    await closed(client)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """What each stream socket of this process has at the moment it is connected."""
    found: list[dict[str, int]] = []
    wanted = {"TCP_USER_TIMEOUT": 6, "TCP_KEEPIDLE": 6, "SO_RCVBUF": 1}
    real = socket.socket.connect_ex

    def connect_ex(self: socket.socket, address: Any) -> int:
        if self.type == socket.SOCK_STREAM:
            found.append(
                {
                    name: self.getsockopt(level, getattr(socket, name))
                    for name, level in wanted.items()
                }
            )
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    return found


@DATAGRAMS
@pytest_twisted.ensureDeferred
async def test_a_datagram_socket_has_its_options(make: Any, udp_peer: str) -> None:
    """The datagram clients take options likewise."""
    client = await opened(make, udp_peer, {"IP_TOS": "EF", "SO_RCVBUF": "32KiB"})
    told = {each.name: each.effective for each in client.options}
    assert told == {"IP_TOS": "EF", "SO_RCVBUF": 65536}
    await closed(client)


@pytest.mark.parametrize("options", [None, {}])
@STREAMS
@pytest_twisted.ensureDeferred
async def test_without_options_nothing_is_told(make: Any, peer: str, options: Options) -> None:
    """No options are none."""
    client = await opened(make, peer, options)
    assert len(client.options) == 0
    await closed(client)


# -- what is wrong is told before there is a socket --

WRONG: list[tuple[Options, str]] = [
    ({"TCP_KEEPIDEL": "1s"}, "TCP_KEEPIDEL: no socket option has this name; did you mean"),
    ({"TCP_KEEPIDLE": 60}, 'TCP_KEEPIDLE: must be a duration such as "500ms"'),
    ({"TCP_KEEPIDLE": float("inf")}, "TCP_KEEPIDLE: must be a duration"),
    ({"SO_RCVBUF": float("nan")}, "SO_RCVBUF: must be a size"),
    ({"TCP_CONGESTION": "x\0"}, "TCP_CONGESTION: must be a text of 1 to 15 bytes"),
    ({"TCP_CONGESTION": "x" * 100_000}, "TCP_CONGESTION: must be a text of 1 to 15 bytes"),
    ({"SO_KEEPALIVE": 1}, "SO_KEEPALIVE: must be true or false, got 1"),
    ({"TCP_INFO": 1}, "TCP_INFO: can only be read"),
    ({"IPV6_TCLASS": 0}, "IPV6_TCLASS: fits only"),
    ({"Mark": 1, "SO_MARK": 1}, "SO_MARK: Mark sets the same option"),
    ({"x": {"level": 1, "number": 9, "value": 1, "phase": "listening"}}, "x: fits only a"),
    ({"x": {"level": 6, "number": 4, "value": 1, "phase": "late"}}, "x: phase must be one of"),
    ({"x": {"level": 6, "number": 4}}, "x: a raw option has level, number and value"),
    ({"": 1}, ": no socket option has this name"),
    ({1: 2}, "options must be values by name"),
    ({None: 2}, "options must be values by name"),
    ([("SO_MARK", 1)], "options must be values by name"),
    ("SO_MARK", "options must be values by name"),
    ((), "options must be values by name"),
]


@pytest.mark.parametrize(("options", "told"), WRONG)
@pytest.mark.parametrize("address", ["tcp:127.0.0.1:9", "udp:127.0.0.1:9"])
def test_a_wrong_option_is_told_at_once(address: str, options: Options, told: str) -> None:
    """Each client raises at the call itself, by the option's name; no socket is opened."""
    makes: list[Callable[[], Any]] = [
        lambda: connect(reactor, address, options=options),
        lambda: connect_blocking(address, options=options),
    ]
    if address.startswith("udp"):
        makes += [
            lambda: connect_datagram(reactor, address, options=options),
            lambda: connect_datagram_blocking(address, options=options),
        ]
        if "TCP" in told:
            told = told.partition(":")[0]  # there, it does not fit in the first place
    for make in makes:
        with pytest.raises(OptionError) as caught:
            make()
        assert told in str(caught.value)


# -- what the kernel refuses --


@pytest.mark.parametrize(
    "options",
    [
        {"SO_BINDTODEVICE": "nope0"},
        {"late": {"level": 1, "number": 9999, "value": 1, "phase": "connected"}},
        {"early": {"level": 1, "number": 9999, "value": 1, "phase": "bound"}},
    ],
    ids=["prebind", "connected", "bound"],
)
@pytest.mark.parametrize("make", [connect, blocking, connect_datagram, datagram_blocking])
@pytest_twisted.ensureDeferred
async def test_a_refusal_is_raised_and_nothing_stays_open(
    make: Any, options: Options, peer: str, udp_peer: str
) -> None:
    """In every phase a refusal ends the attempt with the option's name and the kernel's word."""
    is_datagram = make in (connect_datagram, datagram_blocking)
    with pytest.raises(OptionError) as caught:
        await opened(make, udp_peer if is_datagram else peer, options)
    [name] = options
    assert str(caught.value).startswith(f"{name}: ")
    assert "(E" in str(caught.value)


@STREAMS
@pytest_twisted.ensureDeferred
async def test_a_name_takes_the_options_of_either_version(make: Any) -> None:
    """localhost may be IPv6 or IPv4: the socket that connects has those of its own version."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp:localhost:{listener.getsockname()[1]}"
        client = await opened(make, address, {"IPV6_TCLASS": "CS1", "IP_TOS": "CS1"})
        assert {each.name: each.effective for each in client.options} == {"IP_TOS": "CS1"}
        await closed(client)
