"""Connecting without a reactor: RFC 8305, with names that the test makes up."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import free_port
from servers import Server, black_hole, reset, silent

from twistedsock.addresses import Address
from twistedsock.client import dialling
from twistedsock.client.dialling import ATTEMPT_DELAY_S, dial, resolve
from twistedsock.errors import (
    CannotResolve,
    ClientError,
    PeerClosed,
    Refused,
    TimedOut,
    Unreachable,
)

# A socket that nobody closed would be collected, and closed with a ResourceWarning.
pytestmark = pytest.mark.filterwarnings("error")

V4, V6 = socket.AF_INET, socket.AF_INET6
ADDRESS = Address("tcp", "peer.example", 8888)

Names = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Call with hosts and ports to make them the addresses of every name."""

    def names(*found: tuple[str, int]) -> None:
        def getaddrinfo(host: str, port: int, type: int = 0, **_: Any) -> list[Any]:
            return [
                (V6, type, 0, "", (name, number, 0, 0))
                if ":" in name
                else (V4, type, 0, "", (name, number))
                for name, number in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return names


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that says nothing."""
    with Server(silent) as server:
        yield server


def dialled(timeout_s: float | None = None, address: Address = ADDRESS) -> tuple[Any, float]:
    """Return the peer's port, or the error, and how long it took."""
    started = time.monotonic()
    result: Any
    try:
        with dial(address, timeout_s) as sock:
            assert not sock.getblocking()
            result = sock.getpeername()[1]
    except ClientError as error:
        result = error
    return result, time.monotonic() - started


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ("6644", "6464"),
        ("4466", "4646"),
        ("666644", "646466"),
        ("46", "46"),
        ("444", "444"),
        ("4666", "4666"),
    ],
)
def test_families_take_turns(names: Names, found: str, order: str) -> None:
    """The resolver's first family leads; each keeps the order that the resolver gave."""
    hosts = {"4": "192.0.2.1", "6": "2001:db8::1"}
    names(*[(hosts[family], number) for number, family in enumerate(found, 1)])
    tried = resolve(ADDRESS)
    assert "".join("6" if family == V6 else "4" for family, *_ in tried) == order
    for wanted in (V4, V6):
        ports = [name[1] for family, *_, name in tried if family == wanted]
        assert ports == sorted(ports)


def test_the_first_that_answers_is_taken_at_once(names: Names, server: Server) -> None:
    """Nobody else is tried where the first address answers."""
    with black_hole("::1") as hole:
        names(("127.0.0.1", server.port), ("::1", hole))
        result, took = dialled()
    assert result == server.port
    assert took < ATTEMPT_DELAY_S


def test_a_silent_address_delays_the_next_by_a_quarter_second(names: Names, server: Server) -> None:
    """RFC 8305 section 5: 250 ms later the next is tried beside it, and wins."""
    with black_hole("::1") as hole:
        names(("::1", hole), ("127.0.0.1", server.port))
        result, took = dialled()
    assert result == server.port
    assert ATTEMPT_DELAY_S <= took < ATTEMPT_DELAY_S + 0.2


def test_a_refusal_delays_nothing(names: Names, server: Server) -> None:
    """After an address that refuses the next is tried at once."""
    names(("::1", free_port(host="::1")), ("127.0.0.1", server.port))
    result, took = dialled()
    assert result == server.port
    assert took < ATTEMPT_DELAY_S


def test_a_slow_first_address_may_still_win(
    names: Names, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt goes on while others are tried, and its answer counts."""
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)
    with ExitStack() as stack:
        slow = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        number = slow.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)):  # fills the queue
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(slow.getsockname())
            # The kernel sends its SYN again after a second; by then there is room.
            stack.callback(slow.close)
            hole = stack.enter_context(black_hole("::1"))
            names(("127.0.0.1", number), ("::1", hole))

            def make_room() -> None:
                for _ in range(2):
                    slow.accept()[0].close()

            timer = threading.Timer(0.3, make_room)
            timer.start()
            result, took = dialled(10)
            timer.join()
    assert result == number
    assert took < 5


def test_the_time_out_covers_all_attempts(names: Names) -> None:
    """However many addresses are silent, the time is one."""
    with black_hole() as one, black_hole("::1") as other:
        names(("::1", other), ("127.0.0.1", one), ("127.0.0.1", one))
        error, took = dialled(0.4)
    assert type(error) is TimedOut
    assert (error.code, error.text) == ("ETIMEDOUT", "no connection within 0.4 s")
    assert 0.4 <= took < 0.7


def test_no_time_is_too_long(server: Server) -> None:
    """A time-out of months is one: poll(2) counts milliseconds in an int."""
    result, _ = dialled(90 * 86400.0, Address("tcp", "127.0.0.1", server.port))
    assert result == server.port


def test_a_refusal_says_more_than_a_silence(names: Names) -> None:
    """Where every address failed, the one is told that says most."""
    names(("224.0.0.1", 9), ("127.0.0.1", free_port()))
    error, _ = dialled(1)
    assert (type(error), error.code) == (Refused, "ECONNREFUSED")


def test_no_way_is_unreachable() -> None:
    """TCP to a group is refused by the kernel itself (ip(7)): nothing is sent."""
    error, _ = dialled(1, Address("tcp", "224.0.0.1", 9))
    assert (type(error), error.code) == (Unreachable, "ENETUNREACH")
    error, _ = dialled(1, Address("udp", "255.255.255.255", 9))
    assert (type(error), error.code) == (Unreachable, "EACCES")


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EPERM])
def test_what_connect_says_is_told(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Any other answer of connect(2) is Unreachable with its own code, and closes the socket."""
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)
    error, _ = dialled(1, Address("tcp", "127.0.0.1", 9))
    assert (type(error), error.code) == (Unreachable, errno.errorcode[number])


def test_a_family_that_the_system_lacks_is_passed_over(
    names: Names, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without IPv6 in the kernel the IPv4 address is tried at once."""
    made = socket.socket

    def make(family: int, *more: Any, **named: Any) -> socket.socket:
        if family == V6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *more, **named)

    names(("::1", 1), ("127.0.0.1", server.port))
    monkeypatch.setattr(dialling.socket, "socket", make)
    result, took = dialled()
    assert result == server.port
    assert took < ATTEMPT_DELAY_S


def test_a_connection_to_itself_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that the kernel gave the very port that it dials has nobody at its other end."""
    port, made = free_port(), socket.socket

    def make(*more: Any) -> socket.socket:
        sock = made(*more)
        sock.bind(("127.0.0.1", port))
        return sock

    monkeypatch.setattr(dialling.socket, "socket", make)
    error, _ = dialled(2, Address("tcp", "127.0.0.1", port))
    assert (type(error), error.code) == (Refused, "ECONNREFUSED")


def test_a_reset_at_once_is_one_failure_and_never_a_bare_error() -> None:
    """Whether a peer resets before, while or after it is looked at, PeerClosed tells of it."""
    with Server(reset) as server:
        codes = set()
        for _ in range(50):
            try:
                dial(Address("tcp", "127.0.0.1", server.port), 5).close()
            except PeerClosed as error:
                codes.add(error.code)
        assert codes <= {"ECONNRESET"}


@pytest.mark.parametrize("found_by", ["getpeername", "connect_ex"])
def test_a_reset_is_told_where_it_is_found(
    server: Server, monkeypatch: pytest.MonkeyPatch, found_by: str
) -> None:
    """A connection that was there for a moment is not unreachable."""

    def gone(*_: object) -> Any:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    instead = gone if found_by == "getpeername" else lambda *_: errno.ECONNRESET
    monkeypatch.setattr(socket.socket, found_by, instead)
    with pytest.raises(PeerClosed) as caught:
        dial(Address("tcp", "127.0.0.1", server.port), 2)
    assert caught.value.code == "ECONNRESET"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "EAI_NONAME"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "EAI_AGAIN"),
    ],
)
def test_a_name_that_is_not_found(
    monkeypatch: pytest.MonkeyPatch, error: OSError, code: str
) -> None:
    """The resolver's own code and text are told."""

    def getaddrinfo(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    told, _ = dialled()
    assert (type(told), told.code, told.text) == (CannotResolve, code, error.strerror)


def test_a_name_that_cannot_be_one() -> None:
    """A label of more than 63 letters is not found, rather than a UnicodeError."""
    told, _ = dialled(None, Address("tcp", "a" * 64 + ".example", 80))
    assert (type(told), told.code) == (CannotResolve, "EAI_NONAME")


def test_a_datagram_socket_takes_the_first_address_that_there_is_a_way_to(names: Names) -> None:
    """UDP asks nobody: only an address without a route is passed over."""
    names(("255.255.255.255", 9), ("127.0.0.1", 9))
    result, _ = dialled(None, Address("udp", "peer.example", 9))
    assert result == 9
