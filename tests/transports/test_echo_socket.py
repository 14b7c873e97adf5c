"""The socket of ping: real ones of both kinds and both versions, in networks of their own.

What other programs would send is written with the standard library's raw sockets, and the requests
are read by those as well.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import DEADLINE_S
from networks import HERE, THERE, Network, checksum, network, open_on
from test_option_pages import Namespace

from twistedsock.errors import OptionError
from twistedsock.transports.ancillary import ICMP, ICMP6, NetworkError
from twistedsock.transports.echo_socket import REPLIES_A_TURN, EchoSocket

__all__ = ["network"]  # the fixture
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
# Routed to the other machine, which says that there is no such host.
NOWHERE = {"here": ("203.0.113.1", "2001:db8:66::1"), "there": ("198.18.0.1", "2001:db8:77::1")}
# Routed to the other machine, which would hand it on.
BEYOND = {
    "here": ("203.0.113.200", "2001:db8:66::200"),
    "there": ("198.18.0.200", "2001:db8:77::200"),
}
ALL_GROUPS = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range"
SO_RCVBUFFORCE = 33  # Linux's; Python lacks it
IS_SILENT = {
    4: "/proc/sys/net/ipv4/icmp_echo_ignore_all",
    6: "/proc/sys/net/ipv6/icmp/echo_ignore_all",
}


@dataclass
class Heard:
    """What a socket told."""

    left: dict[int, int] = field(default_factory=dict)
    answered: list[tuple[int, int, int, str]] = field(default_factory=list)
    failed: list[tuple[int, NetworkError, int]] = field(default_factory=list)

    @property
    def numbers(self) -> list[int]:
        """The requests that were answered."""
        return [number for number, *_ in self.answered]


class Bench:
    """Sockets of one kind and one version, which a test opens on one machine."""

    def __init__(self, network: Network, version: int, is_raw: bool) -> None:
        self.version, self.is_raw = version, is_raw
        # Ping sockets are allowed on one of the machines alone.
        self.machine: Namespace = network.here if is_raw else network.there
        self.other_machine: Namespace = network.there if is_raw else network.here
        position = 0 if version == 4 else 1
        self.peer = (THERE if is_raw else HERE)[position]
        self.nowhere = NOWHERE["here" if is_raw else "there"][position]
        self.beyond = BEYOND["here" if is_raw else "there"][position]
        self.opened: list[EchoSocket] = []

    def open(
        self, size_bytes: int = 56, options: Mapping[str, object] | None = None
    ) -> tuple[EchoSocket, Heard]:
        """Return a socket, and what it will have told."""
        heard = Heard()

        def make() -> EchoSocket:
            return EchoSocket(
                None,
                self.version,
                heard.left.__setitem__,
                lambda *told: heard.answered.append(told),
                lambda *told: heard.failed.append(told),
                size_bytes,
                options,
            )

        sock: EchoSocket = self.machine.inside(make)
        self.opened.append(sock)
        return sock, heard

    @property
    def loopback(self) -> str:
        """This machine's own address."""
        return LOOPBACK[self.version]

    def other(self) -> socket.socket:
        """Return somebody else's raw socket on that machine, which hears everything."""
        other = open_on(self.machine, FAMILY[self.version], socket.SOCK_RAW, PROTOCOL[self.version])
        other.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        return other

    def silence(self, is_silent: bool) -> None:
        """Have the machine answer no requests, or answer them again."""
        self.machine.setup(f"echo {int(is_silent)} > {IS_SILENT[self.version]}")


@pytest.fixture(scope="module")
def rigged(network: Network) -> Network:
    """The network, with what each test of this file needs."""
    if shutil.which("nft") is None:
        pytest.skip("needs the Debian package nftables")
    network.there.setup(ALL_GROUPS)
    for machine, router, here, there in (
        (network.here, THERE, "here", "there"),
        (network.there, HERE, "there", "here"),
    ):
        mine = (*NOWHERE[here], *BEYOND[here])
        machine.setup(
            *(f"ip route add {to} via {by}" for to, by in zip(mine, router * 2, strict=True)),
            "ip link add beyond type veth peer name away",
            "ip link set away up",
            "ip link set beyond up",
            *(f"ip route add {to} dev beyond" for to in NOWHERE[there] + BEYOND[there]),
            "nft add table inet there",
            "nft 'add chain inet there passing { type filter hook forward priority 0; }'",
            f"nft add rule inet there passing ip daddr {NOWHERE[there][0]}"
            " reject with icmp host-unreachable",
            f"nft add rule inet there passing ip6 daddr {NOWHERE[there][1]}"
            " reject with icmpv6 addr-unreachable",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit",
            "echo 100000 > /proc/sys/net/ipv4/icmp_msgs_per_sec",
            "echo 100000 > /proc/sys/net/ipv4/icmp_msgs_burst",
            "echo 0 > /proc/sys/net/ipv6/icmp/ratelimit",
        )
    return network


@pytest.fixture(params=["raw4", "raw6", "ping4", "ping6"])
def bench(rigged: Network, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Sockets of each kind and version; they are closed afterwards."""
    kind = request.param
    bench = Bench(rigged, int(kind[-1]), kind.startswith("raw"))
    yield bench
    for sock in bench.opened:
        sock.connectionLost()


@pytest.fixture
def silent(bench: Bench) -> Iterator[Bench]:
    """A machine that answers no requests: the test does."""
    bench.silence(True)
    yield bench
    bench.silence(False)


def hear(sock: EchoSocket, condition: Callable[[], object]) -> None:
    """Read until *condition* holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        select.select([sock], [], [], 0.05)
        sock.read()
        sock.read_queue()


def hear_all(sock: EchoSocket, heard: Heard, *numbers: int) -> None:
    """Read until each of *numbers* was answered, and is known to have left."""
    hear(sock, lambda: {*numbers} <= heard.left.keys() & {*heard.numbers})


def hear_failure(sock: EchoSocket, heard: Heard, number: int) -> None:
    """Read until the request *number* has failed."""
    hear(sock, lambda: number in [failed for failed, *_ in heard.failed])


def hear_no_more(sock: EchoSocket, seconds: float = 0.1) -> None:
    """Read for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        select.select([sock], [], [], 0.02)
        sock.read()
        sock.read_queue()


def await_error(sock: EchoSocket) -> None:
    """Wait until the kernel reports an error of *sock*, and take nothing."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    assert poll.poll(DEADLINE_S * 1000), "no error"


def messages(other: socket.socket, version: int, kind: int, count: int) -> list[bytes]:
    """Return the next ICMP messages of *kind* that *other* hears."""
    found = []
    while len(found) < count:
        data = other.recv(70_000)
        data = data[(data[0] & 15) * 4 :] if version == 4 else data
        if data[0] == kind:
            found.append(data)
    return found


def as_reply(request: bytes, version: int, **changes: Any) -> bytes:
    """Return what answers *request* (RFC 792, RFC 4443), with *changes*."""
    _, code, _, identifier, sequence = struct.unpack_from("!BBHHH", request)
    kind = changes.get("kind", REPLY[version])
    identifier = changes.get("identifier", identifier)
    body = changes.get("payload", request[8:])
    message = struct.pack("!BBHHH", kind, code, 0, identifier, sequence) + body
    if version == 4:  # the kernel does it for ICMPv6
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return message


# -- requests and answers --


@pytest.mark.parametrize("size_bytes", [0, 7, 8, 9, 56, 1472, 65_507])
def test_requests_of_every_size_are_answered(bench: Bench, size_bytes: int) -> None:
    """Each is told of once, with its number, its TTL and whom it came from."""
    sock, heard = bench.open(size_bytes)
    assert sock.is_raw == bench.is_raw
    with bench.other() as other:
        for number in range(3):
            sock.send(number, (bench.loopback, 0))
            hear_all(sock, heard, number)
        requests = messages(other, bench.version, REQUEST[bench.version], 3)
    assert [(number, ttl, source) for number, _, ttl, source in heard.answered] == [
        (number, 64, bench.loopback) for number in range(3)
    ]
    assert {len(each) for each in requests} == {8 + size_bytes}
    if bench.version == 4:
        assert {checksum(each) for each in requests} == {0}
    assert heard.failed == []


def test_every_checksum_is_right(rigged: Network) -> None:
    """Whatever the identifier, the number and the key: the sum is built up, not calculated anew."""
    bench = Bench(rigged, 4, True)
    for size_bytes in (0, 3, 8, 57):
        sock, heard = bench.open(size_bytes)
        numbers = [0, 1, 255, 65_534, 65_535, 65_536, 1 << 20, (1 << 32) - 1]
        with bench.other() as other:
            for number in numbers:
                sock.send(number, (bench.loopback, 0))
            requests = messages(other, 4, 8, len(numbers))
        assert {checksum(each) for each in requests} == {0}
        hear(sock, lambda: len(heard.answered) == 8)  # noqa: B023 - it is called in this turn
        sock.connectionLost()


def test_times_are_the_kernels(bench: Bench) -> None:
    """Each request's time of leaving is told, between the clock's before and after; in order."""
    sock, heard = bench.open()
    for number in range(50):
        before_ns = time.time_ns()
        sent_ns = sock.send(number, (bench.loopback, 0))
        after_ns = time.time_ns()
        hear_all(sock, heard, number)
        received_ns = heard.answered[-1][1]
        assert before_ns <= sent_ns <= heard.left[number] <= after_ns
        assert heard.left[number] <= received_ns <= time.time_ns()
    # Read a while later, the times are those of then.
    sock.send(50, (bench.loopback, 0))
    after_ns = time.time_ns()
    time.sleep(0.1)
    hear(sock, lambda: heard.numbers[-1] == 50)
    assert max(heard.left[50], heard.answered[-1][1]) < after_ns + 90_000_000


def test_many_hosts_one_socket(bench: Bench) -> None:
    """Of several targets each answer is its own."""
    sock, heard = bench.open()
    for number in range(20):
        sock.send(number, ((bench.loopback, bench.peer)[number % 2], 0))
    hear(sock, lambda: len(heard.answered) == 20)
    sources = {number: source for number, _, _, source in heard.answered}
    assert sources == {number: (bench.loopback, bench.peer)[number % 2] for number in range(20)}


@pytest.mark.parametrize("size_bytes", [8, 56])
def test_numbers_are_told_whole(bench: Bench, size_bytes: int) -> None:
    """Beyond the 65,536 of the sequence number, and the 2**32 of the lap."""
    sock, heard = bench.open(size_bytes)
    numbers = [0, 65_535, 65_536, 65_537, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 65_536]
    for number in numbers:
        sock.send(number, (bench.loopback, 0))
    hear(sock, lambda: len(heard.answered) == len(numbers))
    assert heard.numbers == [
        number if number > numbers[-1] - (1 << 32) else number + (1 << 32) for number in numbers
    ]


@pytest.mark.parametrize("size_bytes", [0, 7])
def test_without_room_for_the_lap_it_is_the_latest(bench: Bench, size_bytes: int) -> None:
    """Up to 65,536 requests back an answer is known by its sequence number alone."""
    sock, heard = bench.open(size_bytes)
    for number in (65_530, 65_540, 131_000):
        sock.send(number, (bench.loopback, 0))
    hear(sock, lambda: len(heard.answered) == 3)
    assert heard.numbers == [65_530, 65_540, 131_000]


def test_one_turn_is_bounded(bench: Bench) -> None:
    """A flood of answers leaves the reactor its turn, and none of them is lost."""
    sock, heard = bench.open(0)
    for number in range(REPLIES_A_TURN + 20):
        sock.send(number, (bench.loopback, 0))
    sock.read()
    assert len(heard.answered) == REPLIES_A_TURN
    hear(sock, lambda: len(heard.answered) == REPLIES_A_TURN + 20)
    assert heard.numbers == list(range(REPLIES_A_TURN + 20))


def test_a_full_buffer_is_told_and_loses_nothing(bench: Bench) -> None:
    """BlockingIOError comes through: the request has not left, and its number may be used."""
    sock, heard = bench.open(1000, {"SO_SNDBUF": 4608})
    absent = bench.peer.replace("::", "::77:") if bench.version == 6 else "192.0.2.77"
    sent = 0
    try:  # the requests wait in the kernel for a neighbour that says nothing yet
        while sent < 100:
            sock.send(sent, (absent, 0))
            sent += 1
    except BlockingIOError:
        assert 0 < sent < 20
    assert sent < 100, "no end of room"
    bench.other_machine.setup(f"ip address add {absent} dev wire {'nodad' * (bench.version == 6)}")
    try:
        hear(sock, lambda: len(heard.numbers) == sent)
        sock.send(sent, (absent, 0))
        hear(sock, lambda: len(heard.numbers) > sent)
    finally:
        bench.other_machine.setup(f"ip address del {absent} dev wire")
    assert heard.numbers == list(range(sent + 1))


def test_options_that_have_more_told_confuse_nothing(rigged: Network) -> None:
    """Messages about the TOS, the interface and the time are passed over; the TTL is the TTL."""
    more = {
        4: {"IP_RECVTOS": True, "IP_PKTINFO": True, "SO_TIMESTAMPNS": True},
        6: {"IPV6_RECVTCLASS": True, "IPV6_RECVPKTINFO": True, "SO_TIMESTAMPNS": True},
    }
    for version in (4, 6):
        for is_raw in (True, False):
            bench = Bench(rigged, version, is_raw)
            sock, heard = bench.open(options=more[version])
            sock.send(0, (bench.loopback, 0))
            hear_all(sock, heard, 0)
            assert [(each[0], *each[2:]) for each in heard.answered] == [(0, 64, bench.loopback)]
            sock.connectionLost()


# -- what is not ours --


def test_answers_are_ours_only_with_key_and_payload(silent: Bench) -> None:
    """Another key, a changed byte, another length or type: ignored; the right one counts."""
    sock, heard = silent.open(56)
    with silent.other() as other:
        sock.send(0, (silent.loopback, 0))
        [request] = messages(other, silent.version, REQUEST[silent.version], 1)
        body = request[8:]
        wrong = [
            {"payload": body[:2] + bytes(6) + body[8:]},  # another run's key
            {"payload": body[:-1] + bytes([body[-1] ^ 1])},
            {"payload": body[:20] + b"\xff" + body[21:]},
            {"payload": body[:-1]},
            {"payload": body + b"\0"},
            {"payload": b""},
            {"identifier": struct.unpack_from("!H", request, 4)[0] ^ 1},
        ]
        for changes in wrong:
            other.sendto(as_reply(request, silent.version, **changes), (silent.loopback, 0))
        hear_no_more(sock)
        assert heard.answered == []
        other.sendto(as_reply(request, silent.version), (silent.loopback, 0))
        hear(sock, lambda: heard.answered)
        hear_no_more(sock)
    assert heard.numbers == [0]


def test_duplicates_are_told_as_often_as_they_come(silent: Bench) -> None:
    """To count them is the caller's."""
    sock, heard = silent.open(56)
    with silent.other() as other:
        sock.send(7, (silent.loopback, 0))
        [request] = messages(other, silent.version, REQUEST[silent.version], 1)
        for _ in range(3):
            other.sendto(as_reply(request, silent.version), (silent.loopback, 0))
        hear(sock, lambda: len(heard.answered) == 3)
    assert heard.numbers == [7, 7, 7]


@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_drops_what_is_not_ours(rigged: Network, version: int) -> None:
    """Other people's replies and our own requests do not even reach the socket."""
    bench = Bench(rigged, version, True)
    bench.silence(True)
    try:
        sock, _ = bench.open(0)
        with bench.other() as other:
            sock.send(0, (bench.loopback, 0))
            [request] = messages(other, version, REQUEST[version], 1)
            others = as_reply(request, version, identifier=sock.identifier ^ 0x100)
            other.sendto(others, (bench.loopback, 0))
            other.sendto(as_reply(request, version, kind=REQUEST[version]), (bench.loopback, 0))
            messages(other, version, REPLY[version], 1)  # they have come
            sock.read_queue()
            assert select.select([sock], [], [], 0.1)[0] == []
            with pytest.raises(BlockingIOError):
                sock.socket.recv(100)
            other.sendto(as_reply(request, version), (bench.loopback, 0))  # and this one does
            assert select.select([sock], [], [], DEADLINE_S)[0] == [sock]
            assert sock.socket.recv(100)[-4:] == request[-4:]
        sock.connectionLost()
    finally:
        bench.silence(False)


# -- what the network says instead --


def expected_error(bench: Bench) -> tuple[int, int, int, int, str]:
    """Return what the other machine says of the host that is not there."""
    if bench.version == 4:
        return errno.EHOSTUNREACH, ICMP, 3, 1, bench.peer
    return errno.EHOSTUNREACH, ICMP6, 1, 3, bench.peer


def test_errors_are_told_with_who_sent_them(bench: Bench) -> None:
    """Of each request by its number."""
    sock, heard = bench.open()
    before_ns = time.time_ns()
    for number in (65_537, 65_538):
        sock.send(number, (bench.nowhere, 0))
        hear_failure(sock, heard, number)
    assert [number for number, *_ in heard.failed] == [65_537, 65_538]
    for _, error, at_ns in heard.failed:
        said = (error.number, error.origin, error.icmp_type, error.icmp_code, error.source)
        assert said == expected_error(bench)
        assert before_ns <= at_ns <= time.time_ns()
    assert heard.answered == []


def test_the_time_to_live_is_that_of_one_request(bench: Bench) -> None:
    """The router where it ended says so; the next request has the socket's own again."""
    sock, heard = bench.open()
    sock.send(0, (bench.beyond, 0), 1)
    hear(sock, lambda: heard.failed)
    _, error, _ = heard.failed[0]
    told = (error.icmp_type, error.icmp_code, error.source)
    assert told == ((11, 0) if bench.version == 4 else (3, 0)) + (bench.peer,)
    sock.send(1, (bench.nowhere, 0))
    hear(sock, lambda: len(heard.failed) == 2)
    assert heard.failed[1][1].icmp_type == (3 if bench.version == 4 else 1)


@pytest.mark.parametrize("version", [4, 6])
def test_errors_of_others_are_not_ours(rigged: Network, version: int) -> None:
    """A raw socket is told of all: those of another identifier, or another key, are passed over."""
    bench = Bench(rigged, version, True)
    sock, heard = bench.open()
    kind = REQUEST[version]
    with bench.other() as other:
        for identifier, key in ((sock.identifier ^ 1, bytes(56)), (sock.identifier, bytes(56))):
            for sequence in (0, 1, 0xFFFF):
                message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + key
                message = as_reply(message, version, kind=kind)
                other.sendto(message, (bench.nowhere, 0))
        sock.send(1, (bench.nowhere, 0))
        hear(sock, lambda: heard.failed)
        hear_no_more(sock)
    assert [number for number, *_ in heard.failed] == [1]
    sock.connectionLost()


def test_errors_of_requests_that_never_were_are_nobodys(rigged: Network) -> None:
    """Without room for a key there is no other way to tell: no number is below 0."""
    for version in (4, 6):
        bench = Bench(rigged, version, True)
        sock, heard = bench.open(0)
        with bench.other() as other:
            message = struct.pack("!BBHHH", REQUEST[version], 0, 0, sock.identifier, 0xFFFF)
            message = as_reply(message, version, kind=REQUEST[version])
            other.sendto(message, (bench.nowhere, 0))
            await_error(sock)
            hear_no_more(sock)
        assert heard.failed == []
        sock.connectionLost()


@pytest.mark.parametrize("count", [1, 3, REPLIES_A_TURN + 50])
def test_an_earlier_error_loses_no_request(bench: Bench, count: int) -> None:
    """The kernel refuses a send with an error of before: it is sent all the same, stamps right."""
    sock, heard = bench.open(8)
    for number in range(count):
        sock.send(number, (bench.nowhere, 0))
    await_error(sock)
    time.sleep(0.05)
    for number in range(count, count + 20):
        before_ns = time.time_ns()
        sock.send(number, (bench.peer, 0))
        after_ns = time.time_ns()
        hear_all(sock, heard, number)
        assert before_ns <= heard.left[number] <= after_ns
    assert heard.numbers == list(range(count, count + 20))
    assert {number for number, *_ in heard.failed} <= set(range(count))


def test_an_error_in_between_shifts_no_stamps(bench: Bench) -> None:
    """What could not be sent at all is raised, and the times of what follows are their own."""
    never = "IPV6_DONTFRAG" if bench.version == 6 else "IP_MTU_DISCOVER"
    sock, heard = bench.open(2000, {never: "do" if bench.version == 4 else True})
    for number in range(0, 30, 2):
        with pytest.raises(OSError, match="Message too long"):
            sock.send(number, (bench.peer, 0))
        before_ns = time.time_ns()
        sock.send(number + 1, (bench.loopback, 0))
        after_ns = time.time_ns()
        hear_all(sock, heard, number + 1)
        assert before_ns <= heard.left[number + 1] <= after_ns
    assert sorted(heard.left) == heard.numbers == list(range(1, 30, 2))


def test_the_report_of_an_error_has_the_queue_read(bench: Bench) -> None:
    """A reactor that sees an error and no input asks for it by hungUp."""
    sock, heard = bench.open()
    sock.send(0, (bench.nowhere, 0))
    await_error(sock)
    end = time.monotonic() + DEADLINE_S
    while not heard.failed and time.monotonic() < end:
        sock.hungUp()
    assert [number for number, *_ in heard.failed] == [0]


# -- what is refused --


def sockets() -> list[str]:
    """Return this process's sockets."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # the listing's own
    return sorted(each for each in found if "socket:" in each)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"IP_TTL": 999}, "IP_TTL"),
        ({"NO_SUCH": 1}, "NO_SUCH"),
        ({"SO_BINDTODEVICE": "none0"}, "SO_BINDTODEVICE"),
        ({"TCP_NODELAY": True}, "TCP_NODELAY"),
    ],
)
def test_a_refused_option_leaves_no_socket(
    rigged: Network, options: dict[str, object], text: str
) -> None:
    """The error names the option, and the descriptor is closed while the error is still held."""
    for is_raw in (True, False):
        before = sockets()
        with pytest.raises(OptionError, match=text) as caught:
            Bench(rigged, 4, is_raw).open(options=options)
        assert sockets() == before
        del caught


def test_closing_it_twice_is_closing_it(bench: Bench) -> None:
    """The descriptor is gone, and reading finds nothing."""
    sock, heard = bench.open()
    sock.connectionLost()
    sock.connectionLost()
    assert sock.fileno() == -1
    sock.read()
    sock.read_queue()
    assert heard == Heard()
