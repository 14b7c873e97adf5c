"""Pings of real hosts: in networks of their own, and on this machine's loopback."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest
import pytest_twisted
from conftest import Failures, pause, until, within
from networks import checksum, open_on
from paths import ALL_GROUPS, NO_GROUPS, Route, far, filtering, route
from twisted.internet.defer import Deferred

from twistedsock.client.ping import RESOLVING, Ping, ping
from twistedsock.client.pinging import Failure, PingResult, Reply, Told
from twistedsock.errors import OptionError

__all__ = ["route"]  # the fixture
IS_SILENT = "/proc/sys/net/ipv4/icmp_echo_ignore_all"


@pytest.fixture(params=["raw", "ping"])
def kind(request: pytest.FixtureRequest, route: Route) -> Iterator[str]:
    """Raw sockets, and ping sockets."""
    route.here.setup(ALL_GROUPS if request.param == "ping" else NO_GROUPS)
    yield request.param
    route.here.setup(NO_GROUPS)


@pytest.fixture
def unfiltered(route: Route) -> Iterator[None]:
    """Routers that pass everything again after the test."""
    yield
    for machine in (*route.routers, route.there):
        filtering(machine)


def started(route: Route, hosts: Any, **more: Any) -> Deferred[list[PingResult]]:
    """Begin on the first machine; the sockets are that machine's for good."""
    from twisted.internet import reactor

    more = {"count": 3, "interval_s": 0.05, "timeout_s": 0.5} | more
    made: Deferred[list[PingResult]] = route.here.inside(lambda: ping(reactor, hosts, **more))
    return made


async def errors_of(route: Route, host: str, **more: Any) -> dict[Told, int]:
    """Return what is said of *host*, from which nothing comes back."""
    [result] = await within(started(route, host, **more))
    assert (result.summary.received, result.fault) == (0, "")
    assert result.summary.lost == result.summary.sent
    return result.errors


# -- answers --


@pytest_twisted.ensureDeferred
async def test_every_host_has_its_figures_in_order(route: Route, kind: str) -> None:
    """Near and far, of both versions, the same one twice: each is told with its TTL."""
    hosts = ["127.0.0.1", far(3, 6), far(3, 4), "::1", far(0, 4), far(3, 4)]
    results = await within(started(route, hosts))
    assert [result.host for result in results] == [result.address for result in results] == hosts
    assert [result.ttl_hops for result in results] == [64, 61, 61, 64, 64, 61]
    for result in results:
        summary = result.summary
        assert (summary.sent, summary.received, summary.lost) == (3, 3, 0)
        assert (summary.duplicates, summary.reordered, result.errors) == (0, 0, {})
        assert summary.min_s is not None
        assert 0 < summary.min_s < 0.1


@pytest_twisted.ensureDeferred
async def test_each_answer_is_told_as_it_comes(route: Route) -> None:
    """In order, by its sequence from 1."""
    told: list[Reply | Failure] = []
    await within(started(route, far(1, 4), told=told.append))
    replies = [event for event in told if isinstance(event, Reply)]
    assert [(each.host, each.source, each.sequence, each.ttl_hops) for each in replies] == [
        (far(1, 4), far(1, 4), sequence, 63) for sequence in (1, 2, 3)
    ]
    assert not any(each.is_duplicate for each in replies)


@pytest_twisted.ensureDeferred
async def test_requests_are_paced(route: Route) -> None:
    """Five of them, a twentieth of a second apart, take a fifth of a second."""
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    begin_s = reactor.seconds()
    await within(started(route, far(0, 4), count=5))
    assert 0.2 <= reactor.seconds() - begin_s < 2


@pytest_twisted.ensureDeferred
async def test_two_thousand_hosts_and_none_is_lost() -> None:
    """One socket, five requests to each."""
    from twisted.internet import reactor

    hosts = [f"127.0.{each // 250 + 1}.{each % 250 + 1}" for each in range(2000)]
    results = await within(ping(reactor, hosts, count=5, interval_s=0.5, timeout_s=5))
    assert [result.host for result in results] == hosts
    assert {(each.summary.sent, each.summary.received) for each in results} == {(5, 5)}


@pytest_twisted.ensureDeferred
async def test_fping_sees_the_same(route: Route) -> None:
    """The same hosts answer, and the round trips are about those that fping measures."""
    if shutil.which("fping") is None:
        pytest.skip("needs the Debian package fping")
    hosts = [far(3, 4), far(3, 6), "10.0.3.77"]
    results = await within(started(route, hosts, count=20, interval_s=0.02))
    done = route.here.run(f"fping -C 20 -p 20 -q -t 500 {' '.join(hosts)}")
    lines = dict(line.split(" : ", 1) for line in done.stderr.splitlines() if " : " in line)
    times = {host.strip(): times for host, times in lines.items()}
    for result in results:
        found = [float(word) / 1e3 for word in re.findall(r"\d+\.\d+", times.get(result.host, ""))]
        assert len(found) == result.summary.received
        if found:
            median = sorted(found)[len(found) // 2]
            ours = result.summary.percentiles_s
            assert ours is not None
            # Kernel to kernel is no longer than from a program to itself; and not unlike.
            assert median / 20 < ours[50] < median * 3


# -- losses and duplicates --


@pytest_twisted.ensureDeferred
async def test_losses_are_counted(route: Route, unfiltered: None) -> None:
    """Each third request is dropped on the way: so many are lost, of that host alone."""
    filtering(route.routers[1], "forward icmp type echo-request numgen inc mod 3 == 0 drop")
    far_away, near = await within(started(route, [far(3, 4), far(0, 4)], count=30, interval_s=0.02))
    assert (far_away.summary.lost, near.summary.lost) == (10, 0)
    assert far_away.summary.loss == pytest.approx(1 / 3)


@pytest_twisted.ensureDeferred
async def test_random_losses_are_within_bounds(route: Route, unfiltered: None) -> None:
    """A quarter is dropped by chance: of 400 requests 100, give or take five deviations."""
    filtering(route.routers[1], "forward icmp type echo-request numgen random mod 4 == 0 drop")
    [result] = await within(started(route, far(3, 4), count=400, interval_s=0.002))
    assert 100 - 5 * 8.7 < result.summary.lost < 100 + 5 * 8.7


@contextmanager
def answering(route: Route, answer: Callable[[int], list[float]]) -> Iterator[None]:
    """Have the last machine answer by hand: so often and so late, in seconds, by the sequence."""
    route.there.setup(f"echo 1 > {IS_SILENT}")
    sock = open_on(route.there, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.settimeout(0.05)
    over, timers = threading.Event(), list[threading.Timer]()

    def serve() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                data, name = sock.recvfrom(2000)
                if data[20] != 8:
                    continue
                message = b"\0\0\0\0" + data[24:]
                message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
                for late_s in answer(struct.unpack_from("!H", data, 26)[0]):
                    timers.append(threading.Timer(late_s, sock.sendto, (message, name)))
                    timers[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for timer in timers:
            timer.join()
        sock.close()
        route.there.setup(f"echo 0 > {IS_SILENT}")


@pytest_twisted.ensureDeferred
async def test_duplicates_and_overtaken_answers_are_counted(route: Route, kind: str) -> None:
    """The second request is answered three times, the third one last of all."""
    with answering(route, lambda sequence: {1: [0, 0, 0], 2: [0.35]}.get(sequence, [0])):
        told: list[Reply | Failure] = []
        [result] = await within(started(route, far(3, 4), count=5, timeout_s=1, told=told.append))
    summary = result.summary
    assert (summary.sent, summary.received, summary.lost) == (5, 5, 0)
    assert (summary.duplicates, summary.reordered) == (2, 1)
    assert [(each.sequence, each.is_duplicate) for each in told if isinstance(each, Reply)] == [
        *((1, False), (2, False), (2, True), (2, True), (4, False), (5, False), (3, False)),
    ]
    assert summary.max_s is not None
    assert 0.35 < summary.max_s < 1


@pytest_twisted.ensureDeferred
async def test_what_comes_after_the_time_out_is_lost(route: Route) -> None:
    """The run ends after it, however late the last answer."""
    with answering(route, lambda sequence: [0 if sequence < 2 else 0.6]):
        [result] = await within(started(route, far(3, 4), count=3, timeout_s=0.1))
    assert (result.summary.received, result.summary.lost) == (2, 1)


# -- what the network says instead --


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("icmp net-unreachable", "network unreachable"),
        ("icmp host-unreachable", "host unreachable"),
        ("icmp prot-unreachable", "protocol unreachable"),
        ("icmp port-unreachable", "port unreachable"),
        ("icmp host-prohibited", "host administratively prohibited"),
        ("icmp admin-prohibited", "communication administratively prohibited"),
        ("icmpv6 no-route", "no route to destination"),
        ("icmpv6 admin-prohibited", "administratively prohibited"),
        ("icmpv6 addr-unreachable", "address unreachable"),
        ("icmpv6 port-unreachable", "port unreachable"),
    ],
)
async def test_refusals_are_told_with_their_source(
    route: Route, kind: str, unfiltered: None, said: str, text: str
) -> None:
    """In the words of the RFC, each of the three requests."""
    version = 6 if "v6" in said else 4
    family = "ip6" if version == 6 else "ip"
    rule = f"forward {family} daddr {far(3, version)} reject with {said}"
    filtering(route.routers[1], rule)
    [(told, count)] = (await errors_of(route, far(3, version))).items()
    assert (told.source, told.mtu, count) == (far(1, version), 0, 3)
    assert text in told.text


@pytest_twisted.ensureDeferred
async def test_the_time_to_live_ends_where_it_ends(route: Route, kind: str) -> None:
    """By an option; the router that saw it says so."""
    told = await errors_of(route, far(3, 4), options={"IP_TTL": 2})
    assert told == {Told(far(1, 4), "time to live exceeded in transit"): 3}
    [each] = await errors_of(route, far(3, 6), options={"IPV6_UNICAST_HOPS": 1})
    assert each.source == far(0, 6)
    assert "hop limit exceeded" in each.text


@pytest_twisted.ensureDeferred
async def test_too_big_a_request_is_told_with_the_size(route: Route, kind: str) -> None:
    """The next hop's MTU, by the router in front of it."""
    route.routers[1].setup("ip link set out mtu 1300")
    try:
        told = await errors_of(
            route, far(3, 4), size_bytes=1400, count=1, options={"IP_MTU_DISCOVER": "probe"}
        )
        assert told == {Told(far(1, 4), "fragmentation needed", 1300): 1}
        told = await errors_of(
            route, far(3, 6), size_bytes=1400, count=1, options={"IPV6_MTU_DISCOVER": "probe"}
        )
        assert told == {Told(far(1, 6), "packet too big", 1300): 1}
        told = await errors_of(route, far(3, 4), size_bytes=2000, options={"IP_MTU_DISCOVER": "do"})
        assert told == {Told("", "Message too long", 1300): 3}
    finally:
        route.routers[1].setup("ip link set out mtu 1500")


@pytest_twisted.ensureDeferred
async def test_no_route_is_this_machines_word(route: Route, kind: str) -> None:
    """The request cannot leave: it is lost, and the other hosts' are not."""
    route.here.setup("ip route replace unreachable 198.51.100.2")
    results = await within(started(route, ["198.51.100.2", far(3, 4)]))
    assert results[0].errors == {Told("", "No route to host"): 3}
    assert [result.summary.lost for result in results] == [3, 0]


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_dead_neighbours_lose_nothing_of_the_living(route: Route, kind: str) -> None:
    """Many requests that wait for who is not there fill the buffer, and are waited for."""
    hosts = [*(f"10.0.0.{each}" for each in range(10, 70)), far(0, 4), far(3, 4)]
    options = {"SO_SNDBUF": 30_000}
    results = await within(
        started(route, hosts, count=1, interval_s=0.1, timeout_s=4, options=options)
    )
    assert [result.summary.received for result in results] == [0] * 60 + [1, 1]
    texts = {told.text for result in results for told in result.errors}
    assert texts <= {"host unreachable", "No route to host"}


# -- names --


@pytest_twisted.ensureDeferred
async def test_names_that_have_no_address_say_why() -> None:
    """Each in its place; the others are pinged."""
    from twisted.internet import reactor

    hosts = ["", "1.2.3", "a" * 300, "a..b", "no host", "a\0b", "ünïcödé.invalid", "127.0.0.1"]
    results = await within(ping(reactor, hosts, count=1))
    assert [result.host for result in results] == hosts
    for result in results[:-1]:
        assert (result.address, result.summary.sent) == ("", 0)
        assert re.search("is neither an IP address nor a host name|no address", result.fault)
    assert (results[-1].fault, results[-1].summary.received) == ("", 1)


@pytest_twisted.ensureDeferred
async def test_a_name_is_looked_up_once_and_of_the_version_asked_for() -> None:
    """localhost has an address of each version, or says that it has not."""
    from twisted.internet import reactor

    first, second = await within(ping(reactor, ["localhost"] * 2, count=1))
    assert first.address == second.address in ("127.0.0.1", "::1")
    [four] = await within(ping(reactor, "localhost", count=1, version=4))
    assert (four.address, four.summary.received) == ("127.0.0.1", 1)
    [wrong] = await within(ping(reactor, "127.0.0.1", version=6))
    assert wrong.fault == "is no IPv6 address"
    [wrong] = await within(ping(reactor, "::1", version=4))
    assert wrong.fault == "is no IPv4 address"


@pytest_twisted.ensureDeferred
async def test_link_local_addresses_need_their_zone(route: Route) -> None:
    """With it they answer; with one that is not there, they have none."""
    route.routers[0].setup("ip address replace fe80::77/64 dev in nodad")
    route.here.setup("ip address replace fe80::78/64 dev out nodad")
    good, bad = await within(started(route, ["fe80::77%out", "fe80::77%none0"], count=1))
    assert good.summary.received == 1
    assert (bad.summary.sent, bool(bad.fault)) == (0, True)


@pytest_twisted.ensureDeferred
async def test_no_hosts_are_no_results() -> None:
    """An empty list is no error."""
    from twisted.internet import reactor

    assert await within(ping(reactor, [])) == []


# -- the end --


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("wait_s", [0, 0.02, 0.2])
async def test_to_cancel_is_to_stop(route: Route, wait_s: float) -> None:
    """At each stage: the results are those so far, and nothing is left behind."""
    work = started(route, [far(3, 4), "10.0.3.77"], count=1000)
    await pause(wait_s)
    work.cancel()
    answers, silent = await within(work)
    assert answers.summary.lost == silent.summary.lost == 0
    assert silent.summary.sent == 0  # they may still be answered


@pytest_twisted.ensureDeferred
async def test_stopped_while_names_are_looked_up() -> None:
    """At once, with a result for each, and no look-up is begun for those that had to wait."""
    from twisted.internet import reactor

    class Slow:
        """A reactor whose look-ups never end."""

        begun: ClassVar[list[str]] = []

        @property
        def nameResolver(self) -> Any:
            return self

        def resolveHostName(self, receiver: Any, name: str, *_: Any) -> None:
            self.begun.append(name)

        def __getattr__(self, name: str) -> Any:
            return getattr(reactor, name)

    hosts = [f"host{each}.invalid" for each in range(200)]
    run = Ping(Slow(), [*hosts, "127.0.0.1"])
    work = run.start()
    assert Slow.begun == hosts[:RESOLVING]
    run.stop()
    run.stop()
    assert work.called
    *results, last = await within(work, 5)
    assert [result.host for result in results] == hosts
    assert {result.fault for result in results} == {"was not looked up to the end"}
    assert (last.fault, last.summary.sent) == ("", 0)
    assert len(Slow.begun) == RESOLVING


@pytest_twisted.ensureDeferred
async def test_stopped_by_whom_it_tells(route: Route) -> None:
    """A caller may stop it in the middle: nothing more is told, sent or lost."""
    from twisted.internet import reactor

    told: list[Reply | Failure] = []
    run: Ping

    def tell(event: Reply | Failure) -> None:
        told.append(event)
        run.stop()

    run = Ping(reactor, [f"127.0.0.{each}" for each in range(1, 200)], interval_s=0.01, told=tell)
    results = await within(run.start())
    assert len(told) == 1
    assert sum(result.summary.received for result in results) >= 1
    assert all(not result.errors and not result.summary.lost for result in results)


@pytest_twisted.ensureDeferred
async def test_stopped_by_whom_it_tells_of_a_failure(route: Route) -> None:
    """What was due with it is not sent by sockets that are closed."""
    from twisted.internet import reactor

    route.here.setup("ip route replace unreachable 198.51.100.2")
    runs: list[Ping] = []

    def begin() -> Deferred[list[PingResult]]:
        hosts = ["198.51.100.2", "127.0.0.1", "127.0.0.2"]
        runs.append(Ping(reactor, hosts, interval_s=0.001, told=lambda _: runs[0].stop()))
        return runs[0].start()

    first, *others = await within(route.here.inside(begin))
    assert first.errors == {Told("", "No route to host"): 1}
    assert [result.errors for result in others] == [{}, {}]


@pytest_twisted.ensureDeferred
async def test_what_the_callers_function_raises_is_raised(logged_failures: Failures) -> None:
    """Where the result would be; the run is over and nothing is logged."""
    from twisted.internet import reactor

    def tell(_: Reply | Failure) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await within(ping(reactor, ["127.0.0.1", "::1"], count=3, interval_s=0.01, told=tell))
    assert not logged_failures


@pytest_twisted.ensureDeferred
async def test_without_a_count_it_goes_on_until_it_is_stopped() -> None:
    """``results`` tells how it stands meanwhile."""
    from twisted.internet import reactor

    run = Ping(reactor, "127.0.0.1", interval_s=0.01)
    work = run.start()
    await until(lambda: run.results() and run.results()[0].summary.received > 20)
    run.stop()
    [result] = await within(work)
    assert result.summary.lost == 0
    assert result.summary.received > 20


@pytest_twisted.ensureDeferred
async def test_a_refused_option_is_raised() -> None:
    """And both sockets are closed."""
    from twisted.internet import reactor

    with pytest.raises(OptionError, match="IP_TTL"):
        await within(ping(reactor, ["127.0.0.1", "::1"], options={"IP_TTL": 999}))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"count": 0}, "count must be 1..2147483648, got 0"),
        ({"count": 2.5}, "count must be a whole number, got 2.5"),
        ({"interval_s": 0}, "interval_s must be 0.001..86400, got 0"),
        ({"interval_s": float("nan")}, "interval_s must be 0.001..86400, got nan"),
        ({"timeout_s": -0.1}, "timeout_s must be 0..86400, got -0.1"),
        ({"timeout_s": float("inf")}, "timeout_s must be 0..86400, got inf"),
        ({"size_bytes": -1}, "size_bytes must be 0..65507, got -1"),
        ({"size_bytes": 65_508}, "size_bytes must be 0..65507, got 65508"),
        ({"size_bytes": 56.0}, "size_bytes must be a whole number, got 56.0"),
        ({"version": 5}, "version must be 4 or 6, got 5"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], text: str) -> None:
    """At once, with what would be right."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ping(None, "127.0.0.1", **arguments)
