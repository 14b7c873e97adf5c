"""The monitors, in memory: what they say of any message, and how often they say it."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import echo_request, echo_request_6, igmp, ip4, ip6
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from twistedsock.addresses import FiveTuple
from twistedsock.host.logs import json_line, text_line
from twistedsock.service import Metadata
from twistedsock.services.icmp_monitor import IcmpMonitor
from twistedsock.services.igmp_monitor import MAX_RECORDS, IgmpMonitor
from twistedsock.services.monitor import Monitor, MonitorSettings

ME, PEER, PEER_6 = "192.0.2.1", "192.0.2.9", "2001:db8:1::9"
many = settings(max_examples=400, deadline=None)


class Peer:
    """A session in memory, which nothing may be sent to."""

    def __init__(self, host: str = PEER) -> None:
        self.five_tuple = FiveTuple("raw", ME, 1, host, 0)
        self.metadata = Metadata(destination=ME, interface=3, ttl_hops=9, received_at=1.5)

    def send(self, message: bytes) -> None:
        raise AssertionError("a monitor answers nothing")


def started(kind: type[Monitor], **more: Any) -> Any:
    """Return a monitor that has begun, and whose clock is at hand."""
    monitor = kind(MonitorSettings(**more), name="watch")
    monitor._reactor = Clock()
    monitor.start()
    return monitor


def icmp(message: bytes, host: str = PEER) -> dict[str, Any]:
    """Return what icmp-monitor says of *message*."""
    return started(IcmpMonitor).describe(Peer(host), message)  # type: ignore[no-any-return]


def told(message: bytes) -> dict[str, Any]:
    """Return what igmp-monitor says of *message*."""
    return started(IgmpMonitor).describe(Peer(), message)  # type: ignore[no-any-return]


# -- ICMP --


@pytest.mark.parametrize(
    ("message", "host", "kind", "name"),
    [
        (echo_request(7, 3), PEER, 8, "echo request"),
        (b"\0" + echo_request(7, 3)[1:], PEER, 0, "echo reply"),
        (echo_request_6(7, 3), PEER_6, 128, "echo request"),
        (b"\x81" + echo_request_6(7, 3)[1:], "fe80::9%3", 129, "echo reply"),
    ],
)
def test_echoes_are_told_with_their_numbers(
    message: bytes, host: str, kind: int, name: str
) -> None:
    """Type, code, name, identifier and sequence."""
    assert icmp(message, host) == {
        "type": kind, "code": 0, "name": name, "identifier": 7, "sequence": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("head", "more"),
    [
        ((3, 1, 0, 0), {"name": "destination unreachable"}),
        ((3, 4, 0, 1300), {"name": "destination unreachable", "mtu": 1300}),
        ((11, 0, 0, 0), {"name": "time exceeded"}),
        ((5, 1, 0, 0), {"name": "redirect"}),
    ],
)
def test_errors_tell_what_they_quote(head: tuple[int, int, int, int], more: dict[str, Any]) -> None:
    """An ICMP error is told with the packet that it is about, and the MTU where it has one."""
    kind, code, rest, mtu = head
    message = struct.pack("!BBHHH", kind, code, 0, rest, mtu) + ip4(
        ME, "198.51.100.5", 17, bytes(8)
    )
    assert icmp(message) == {
        "type": kind, "code": code, "quoted_protocol": 17, "quoted_source": ME,
        "quoted_destination": "198.51.100.5", **more,
    }  # fmt: skip
    assert icmp(message[:27]) == {"type": kind, "code": code, **more}


def test_errors_of_ipv6_tell_what_they_quote() -> None:
    """The same for ICMPv6, whose packet-too-big has an MTU of 32 bits."""
    quoted = ip6("2001:db8:1::1", "2001:db8:2::5", 6, bytes(8))
    assert icmp(struct.pack("!BBHI", 2, 0, 0, 1280) + quoted, PEER_6) == {
        "type": 2, "code": 0, "name": "packet too big", "mtu": 1280, "quoted_protocol": 6,
        "quoted_source": "2001:db8:1::1", "quoted_destination": "2001:db8:2::5",
    }  # fmt: skip
    assert "quoted_source" not in icmp(struct.pack("!BBHI", 137, 0, 0, 0) + quoted, PEER_6)


# -- IGMP --


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (igmp(0x11, 0, "0.0.0.0"), {"type": 17, "name": "membership query", "version": 1}),
        (igmp(0x11, 100, "239.1.1.1"), {"type": 17, "name": "membership query", "version": 2}),
        (
            igmp(0x11, 100, "0.0.0.0", bytes(4)),
            {"type": 17, "name": "membership query", "version": 3},
        ),
        (
            igmp(0x11, 100, "0.0.0.0", bytes(2)),
            {"type": 17, "name": "membership query", "version": None},
        ),
        (igmp(0x12, 0, "239.1.1.1"), {"type": 18, "name": "v1 membership report"}),
        (igmp(0x16, 0, "239.1.1.1"), {"type": 22, "name": "v2 membership report"}),
        (igmp(0x17, 0, "239.1.1.1"), {"type": 23, "name": "leave group"}),
        (igmp(0x99, 0, "239.1.1.1"), {"type": 153, "name": "unknown"}),
    ],
)
def test_igmp_of_every_version_is_told(message: bytes, expected: dict[str, Any]) -> None:
    """Queries with their version, by the length and the code (RFC 9776 section 7.1); reports."""
    assert told(message) == {**expected, "group": socket.inet_ntoa(message[4:8])}


def record(kind: int, group: str, *sources: str, words: int = 0) -> bytes:
    """Return a group record (RFC 9776 section 4.2)."""
    head = struct.pack("!BBH", kind, words, len(sources)) + socket.inet_aton(group)
    return head + b"".join(map(socket.inet_aton, sources)) + bytes(4 * words)


def report(*records: bytes, count: int | None = None) -> bytes:
    """Return a version 3 report."""
    number = len(records) if count is None else count
    return (
        igmp(0x22, 0, "0.0.0.0", b"".join(records))[:6]
        + struct.pack("!H", number)
        + b"".join(records)
    )


def test_the_records_of_a_v3_report_are_told() -> None:
    """Each group with its change, past sources and auxiliary data; an unknown change by number."""
    message = report(
        record(4, "239.1.1.1"),
        record(1, "232.1.1.1", "192.0.2.7", "192.0.2.8", words=2),
        record(77, "239.2.2.2"),
    )
    assert told(message) == {
        "type": 34,
        "name": "v3 membership report",
        "records": 3,
        "groups": ["239.1.1.1 to exclude", "232.1.1.1 is include", "239.2.2.2 77"],
    }


def test_a_report_tells_so_many_records_at_most() -> None:
    """A report of 1,000 groups makes no long line; one that lies about them tells what is there."""
    long = told(report(*[record(4, "239.1.1.1")] * 1000))
    assert (long["records"], len(long["groups"])) == (1000, MAX_RECORDS)
    assert told(report(record(4, "239.1.1.1"), count=65_535))["groups"] == ["239.1.1.1 to exclude"]


# -- anything --


def lines(events: list[Any]) -> list[str]:
    """Return *events* as both kinds of log have them."""
    return [line for event in events for line in (text_line(event), json_line(event))]


def logged_by(kind: type[Monitor], host: str, messages: list[bytes]) -> list[Any]:
    """Return the events of a monitor that receives *messages*."""
    monitor, events = started(kind), []
    observe = events.append
    globalLogPublisher.addObserver(observe)
    try:
        for message in messages:
            monitor.received(Peer(host), message)
    finally:
        globalLogPublisher.removeObserver(observe)
    return [event for event in events if event.get("event") == "packet"]


ANYTHING = st.binary(max_size=200) | st.builds(
    lambda head, rest: bytes([head]) + rest,
    st.sampled_from([0, 1, 2, 3, 5, 8, 11, 12, 0x11, 0x12, 0x16, 0x17, 0x22, 128, 137, 143]),
    st.binary(max_size=2000),
)


@given(ANYTHING, st.sampled_from([IcmpMonitor, IgmpMonitor]), st.sampled_from([PEER, PEER_6]))
@many
def test_anything_is_one_short_line(message: bytes, kind: type[Monitor], host: str) -> None:
    """Whatever comes, it is one event without an exception, bounded, and of printable ASCII."""
    [event] = logged_by(kind, host, [message])
    assert event["bytes"] == len(message)
    for line in lines([event]):
        assert line.isascii()
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        assert len(line) < 2500


@pytest.mark.parametrize("length", range(8))
@pytest.mark.parametrize("kind", [IcmpMonitor, IgmpMonitor])
def test_what_is_cut_off_is_quoted(kind: type[Monitor], length: int) -> None:
    """A message that is shorter than its header is a fault, told by its bytes."""
    [event] = logged_by(kind, PEER, [b"\n\x1b[31m\xff\0x"[:length]])
    assert event["fault"].startswith("cut off: ")
    assert "\n" not in formatEvent(event)
    assert "\x1b" not in formatEvent(event)


def test_an_event_has_its_fields() -> None:
    """An event says who, to whom, by which interface, when, how far and how long."""
    [event] = logged_by(IcmpMonitor, PEER, [echo_request()])
    expected = {
        "service": "watch", "peer": PEER, "destination": ME, "interface": 3, "ttl_hops": 9,
        "received_at": 1.5, "bytes": 12, "suppressed": 0, "type": 8, "identifier": 7,
    }  # fmt: skip
    assert {key: event[key] for key in expected} == expected
    assert formatEvent(event).startswith(f"watch: {PEER} -> {ME}: type=8 code=0 name=echo request")


def test_a_flood_is_so_many_events_a_second(logged: list[Any]) -> None:
    """Over events_per_second messages are counted alone; the next event, or the end, says how
    many."""
    monitor = started(IcmpMonitor, events_per_second=10)

    def flood(count: int) -> None:
        for _ in range(count):
            monitor.received(Peer(), echo_request())

    flood(1000)
    assert len(logged) == 10
    monitor.reactor.advance(1)
    flood(1000)
    assert len(logged) == 20
    assert [event["suppressed"] for event in logged] == [0] * 10 + [990] + [0] * 9
    monitor.stop()
    assert logged[-1]["suppressed"] == 990
    assert formatEvent(logged[-1]) == "watch: 990 packets were left out"


def test_monitors_serve_raw_listeners_alone() -> None:
    """Their messages are bytes, and they are never put behind another kind of socket."""
    for kind in (IcmpMonitor, IgmpMonitor):
        assert kind.served_kinds() == ("raw",)
        assert kind.served_codecs() == ("bytes",)
