"""The path to a host, over three routers in networks of their own."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from conftest import Failures, pause, until, within
from paths import ALL_GROUPS, NO_GROUPS, Route, far, filtering, route
from twisted.internet.defer import Deferred

from twistedsock.client.pinging import Told
from twistedsock.client.trace import Trace, TraceResult, trace
from twistedsock.errors import CannotResolve, OptionError

__all__ = ["route"]  # the fixture


@pytest.fixture(params=["raw4", "raw6", "ping4", "ping6"])
def version(request: pytest.FixtureRequest, route: Route) -> Iterator[int]:
    """Each version, by raw sockets and by ping sockets."""
    kind = request.param
    route.here.setup(ALL_GROUPS if kind.startswith("ping") else NO_GROUPS)
    yield int(kind[-1])
    route.here.setup(NO_GROUPS)


@pytest.fixture(autouse=True)
def unfiltered(route: Route) -> Iterator[None]:
    """Routers that pass everything again after each test."""
    yield
    for machine in (*route.routers, route.there):
        filtering(machine)


def started(route: Route, host: str, **more: Any) -> Deferred[TraceResult]:
    """Begin a trace on the first machine; its socket is that machine's for good."""
    from twisted.internet import reactor

    more.setdefault("timeout_s", 0.3)
    made: Deferred[TraceResult] = route.here.inside(lambda: trace(reactor, host, **more))
    return made


def sources(result: TraceResult) -> list[list[str]]:
    """Return who answered, hop by hop."""
    return [list(hop.sources) for hop in result.hops]


@pytest_twisted.ensureDeferred
async def test_the_hops_are_in_order(route: Route, version: int) -> None:
    """Three routers and the host itself, each with its address and as many answers as requests."""
    begin_s = time.monotonic()
    result = await within(started(route, far(3, version), count=2, timeout_s=15))
    assert time.monotonic() - begin_s < 10  # it ends with the last answer
    assert result.has_arrived
    assert sources(result) == [[far(link, version)] for link in range(4)]
    assert [hop.number for hop in result.hops] == [1, 2, 3, 4]
    for hop in result.hops:
        assert (hop.summary.sent, hop.summary.lost, hop.summary.duplicates) == (2, 0, 0)
        assert hop.sources == {far(hop.number - 1, version): 2}
        assert hop.errors == {}
        assert hop.summary.min_s is not None
        assert 0 < hop.summary.min_s < 0.2


@pytest_twisted.ensureDeferred
async def test_others_see_the_same_path(route: Route) -> None:
    """nmap's traceroute names the same routers."""
    if shutil.which("nmap") is None:
        pytest.skip("needs the Debian package nmap")
    result = await within(started(route, far(3, 4), count=1))
    done = route.here.run(f"nmap -n -sn -PE --traceroute {far(3, 4)}")
    found = re.findall(r"^\d+ +(?:[\d.]+ ms|--) +(\S+)$", done.stdout, re.M)
    assert found == [source for [source] in sources(result)], done.stdout


@pytest_twisted.ensureDeferred
async def test_a_silent_router_is_a_hop_without_an_answer(route: Route, version: int) -> None:
    """The path goes on behind it."""
    filtering(
        route.routers[1],
        "output icmp type time-exceeded drop",
        "output icmpv6 type time-exceeded drop",
    )
    result = await within(started(route, far(3, version), count=2))
    assert result.has_arrived
    assert sources(result) == [[far(0, version)], [], [far(2, version)], [far(3, version)]]
    silent = result.hops[1].summary
    assert (silent.sent, silent.received, silent.lost, silent.mean_s) == (2, 0, 2, None)


@pytest_twisted.ensureDeferred
async def test_the_path_ends_with_who_refuses_it(route: Route, version: int) -> None:
    """What is said is told; nothing is asked beyond."""
    said = "icmp admin-prohibited" if version == 4 else "icmpv6 admin-prohibited"
    family = "ip" if version == 4 else "ip6"
    filtering(route.routers[1], f"forward {family} daddr {far(3, version)} reject with {said}")
    result = await within(started(route, far(3, version), count=2))
    assert not result.has_arrived
    # The router looks at the time to live first: it is said of the third hop on.
    assert sources(result) == [[far(0, version)], [far(1, version)], [far(1, version)]]
    text = "communication administratively prohibited"
    assert [list(hop.errors) for hop in result.hops[:2]] == [[], []]
    [(told, count)] = result.hops[2].errors.items()
    assert (told.source, count) == (far(1, version), 2)
    assert told.text.removeprefix("communication with destination ") in (
        *(text, "administratively prohibited"),
    )


@pytest_twisted.ensureDeferred
async def test_an_end_that_says_nothing(route: Route) -> None:
    """As many hops as are allowed, the last without an answer, and it has not arrived."""
    filtering(route.there, "input icmp type echo-request drop")
    result = await within(started(route, far(3, 4), count=1, max_hops=6))
    assert not result.has_arrived
    assert sources(result) == [[far(link, 4)] for link in range(3)] + [[], [], []]
    assert [hop.summary.lost for hop in result.hops] == [0, 0, 0, 1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_no_further_than_allowed(route: Route) -> None:
    """max_hops ends it before the host."""
    result = await within(started(route, far(3, 4), count=1, max_hops=2))
    assert (result.has_arrived, sources(result)) == (False, [[far(0, 4)], [far(1, 4)]])


@pytest_twisted.ensureDeferred
async def test_losses_are_those_of_the_hop(route: Route) -> None:
    """A router that answers every other request only has lost half of them."""
    filtering(route.routers[0], "output icmp type time-exceeded numgen inc mod 2 == 0 drop")
    result = await within(started(route, far(3, 4), count=6))
    assert [hop.summary.lost for hop in result.hops] == [3, 0, 0, 0]
    assert result.hops[0].sources == {far(0, 4): 3}


@pytest_twisted.ensureDeferred
async def test_the_host_next_door_and_this_one(route: Route, version: int) -> None:
    """One hop."""
    loopback = "127.0.0.1" if version == 4 else "::1"
    for host in (loopback, far(0, version)):
        result = await within(started(route, host, count=1))
        assert (result.has_arrived, sources(result)) == (True, [[host]])


@pytest_twisted.ensureDeferred
async def test_what_is_known_so_far_is_told(route: Route) -> None:
    """After each request, and what is still awaited is neither sent nor lost yet."""
    told: list[TraceResult] = []
    result = await within(started(route, far(3, 4), count=2, told=told.append, timeout_s=1))
    assert len(told) >= 7
    assert all(not hop.summary.lost for each in told for hop in each.hops)
    assert [len(each.hops) for each in told] == sorted(len(each.hops) for each in told)
    assert result.hops[-1].summary.sent == 2


@pytest_twisted.ensureDeferred
async def test_what_the_callers_function_raises_is_raised(route: Route) -> None:
    """Where the result would be, and it is over."""

    def tell(_: TraceResult) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await within(started(route, far(3, 4), told=tell))


@pytest_twisted.ensureDeferred
async def test_where_there_is_no_route_this_machine_says_so(route: Route) -> None:
    """The first hop has the error, and no source."""
    route.here.setup("ip route add unreachable 198.51.100.1")
    result = await within(started(route, "198.51.100.1", count=1, max_hops=2))
    assert not result.has_arrived
    assert list(result.hops[0].errors) == [Told("", "No route to host")]
    assert (sources(result), result.hops[0].summary.lost) == ([[], []], 1)


@pytest_twisted.ensureDeferred
async def test_to_cancel_is_to_stop(route: Route) -> None:
    """At each stage: the result is what is known, and nothing is left behind."""
    for wait_s in (0, 0.01, 0.5):
        work = started(route, "10.0.3.77", count=50, timeout_s=60)
        await pause(wait_s)
        work.cancel()
        result = await within(work)
        assert result.host == "10.0.3.77"
        assert all(hop.summary.sent == 0 for hop in result.hops[3:])  # they may be answered
        assert all(hop.summary.lost == 0 for hop in result.hops)


@pytest_twisted.ensureDeferred
async def test_stopped_while_it_is_looked_up(logged_failures: Failures) -> None:
    """A name whose look-up is cut short has no address."""
    from twisted.internet import reactor

    run = Trace(reactor, "localhost")
    work = run.start()
    run.stop()
    assert work.called
    with pytest.raises(CannotResolve, match="localhost: was not looked up to the end"):
        await within(work)
    await until(lambda: not logged_failures)


@pytest_twisted.ensureDeferred
async def test_what_has_no_address_is_raised() -> None:
    """With the host and why."""
    from twisted.internet import reactor

    for host, more, text in (
        ("1.2.3", {}, "1.2.3: is neither an IP address nor a host name"),
        ("127.0.0.1", {"version": 6}, "127.0.0.1: is no IPv6 address"),
        ("", {}, "is neither an IP address nor a host name"),
    ):
        with pytest.raises(CannotResolve, match=text):
            await within(trace(reactor, host, **more))


@pytest_twisted.ensureDeferred
async def test_a_refused_option_is_raised(route: Route) -> None:
    """And its socket closed."""
    with pytest.raises(OptionError, match="SO_BINDTODEVICE"):
        await within(started(route, far(3, 4), options={"SO_BINDTODEVICE": "none0"}))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"count": 0}, "count must be 1..100, got 0"),
        ({"count": 101}, "count must be 1..100, got 101"),
        ({"count": 1.5}, "count must be a whole number, got 1.5"),
        ({"max_hops": 0}, "max_hops must be 1..255, got 0"),
        ({"max_hops": 256}, "max_hops must be 1..255, got 256"),
        ({"timeout_s": -1}, "timeout_s must be 0..86400, got -1"),
        ({"timeout_s": float("nan")}, "timeout_s must be 0..86400, got nan"),
        ({"size_bytes": 65_508}, "size_bytes must be 0..65507, got 65508"),
        ({"version": 5}, "version must be 4 or 6, got 5"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], text: str) -> None:
    """At once, with what would be right."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        trace(None, "127.0.0.1", **arguments)


@pytest_twisted.ensureDeferred
async def test_a_path_for_machines(route: Route) -> None:
    """Host, address, whether it arrived, and a figure by its name for each hop."""
    result = await within(started(route, far(1, 4), count=1))
    told = result.as_json()
    assert list(told) == ["host", "address", "has_arrived", "hops"]
    assert (told["host"], told["address"], told["has_arrived"]) == (far(1, 4), far(1, 4), True)
    hops: Any = told["hops"]
    assert [(hop["hop"], hop["sources"], hop["sent"], hop["errors"]) for hop in hops] == [
        (1, {far(0, 4): 1}, 1, []),
        (2, {far(1, 4): 1}, 1, []),
    ]
