"""What is known of a sender, and so whether it is served, and whether it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twistedsock.policy.limits import Limits
from twistedsock.protocols import origins
from twistedsock.protocols.datagram import ServiceDatagramProtocol
from twistedsock.protocols.origins import PacketOrigins, RawOrigins, UdpOrigins, UnixOrigins
from twistedsock.service import NO_METADATA, Metadata, Session, SocketService

PEER = "192.0.2.9"
OURS = {"192.0.2.1", "fe80::1%3", "127.0.0.1", "::1"}
ONE = Metadata(destination="192.0.2.1", broadcast=False)


@pytest.fixture(autouse=True)
def own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has OURS, whatever it has."""
    monkeypatch.setattr(origins, "is_own_address", OURS.__contains__)


# -- raw IP --


@pytest.mark.parametrize(
    ("host", "metadata", "muted"),
    [
        (PEER, ONE, None),
        (PEER, NO_METADATA, None),
        ("2001:db8::9", Metadata(destination="2001:db8::1"), None),
        ("fe80::9%3", Metadata(destination="fe80::1"), None),
        ("192.0.2.1", ONE, "own_service"),
        ("fe80::1%3", Metadata(destination="fe80::1"), "own_service"),
        ("127.0.0.1", Metadata(destination="127.0.0.1"), "own_service"),
        ("::1", Metadata(destination="::1"), "own_service"),
        (PEER, Metadata(destination="192.0.2.255", broadcast=True), "broadcast"),
        (PEER, Metadata(destination="224.0.0.1", broadcast=False), "multicast"),
        ("2001:db8::9", Metadata(destination="ff02::1"), "multicast"),
        ("0.0.0.0", ONE, "not_unicast"),
        ("224.0.0.9", ONE, "not_unicast"),
        ("::", Metadata(destination="2001:db8::1"), "not_unicast"),
    ],
)
def test_raw_peers_are_heard_and_only_some_answered(
    host: str, metadata: Metadata, muted: str | None
) -> None:
    """Every packet is served; what is ours, or was for many, is never answered."""
    origin = RawOrigins().judge(host, 0, metadata)
    assert origin.drop is None
    assert origin.muted == muted
    assert origin.host == host
    assert origin.overhead == (40 if ":" in host else 20)
    assert not origin.is_known


# -- packets --


def test_our_own_frames_are_never_answered() -> None:
    """A frame that this machine sent is muted; others are not, and have no IP address."""
    assert PacketOrigins().judge("02:0", 3, Metadata(outgoing=True)).muted == "own_service"
    origin = PacketOrigins().judge("02:0", 3, Metadata(outgoing=False))
    assert (origin.muted, origin.drop, origin.host) == (None, None, "")


# -- groups --


@pytest.mark.parametrize(
    ("groups", "destination", "drop"),
    [
        ([], "239.1.1.1", "multicast"),
        (["239.1.1.1"], "239.1.1.1", None),
        (["239.1.1.1"], "239.1.1.2", "multicast"),
        (["239.1.1.1", "ff15::1"], "ff15::1", None),
        (["ff15::1"], "ff15::2", "multicast"),
        (["239.1.1.1"], "192.0.2.1", None),
        (["239.1.1.1"], None, None),
    ],
)
def test_udp_serves_the_groups_that_were_joined(
    groups: list[str], destination: str | None, drop: str | None
) -> None:
    """What came to a group that another program has joined is dropped."""
    udp = UdpOrigins(5000, any_source_port=False, groups=groups)
    metadata = Metadata(destination=destination, broadcast=False)
    assert udp.judge(PEER, 40_000, metadata).drop == drop


def test_a_broadcast_is_dropped_even_where_groups_are_joined() -> None:
    """Groups lift nothing about broadcasts."""
    udp = UdpOrigins(5000, any_source_port=True, groups=["239.1.1.1"])
    told = Metadata(destination="192.0.2.255", broadcast=True)
    assert udp.judge(PEER, 40_000, told).drop == "broadcast"


def test_a_served_port_is_known_as_long_as_it_is_open() -> None:
    """Between open() and close(), our own address with that port is ourselves."""
    udp = UdpOrigins(40_001, any_source_port=True)
    assert udp.judge("127.0.0.1", 40_001, NO_METADATA).drop is None
    udp.open()
    assert udp.judge("127.0.0.1", 40_001, NO_METADATA).drop == "own_service"
    udp.close()
    assert udp.judge("127.0.0.1", 40_001, NO_METADATA).drop is None


HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6, network="fe80::/10").map(lambda host: f"{host}%3"),
)
TOLD = st.builds(
    Metadata,
    destination=st.none() | st.ip_addresses().map(str),
    broadcast=st.none() | st.booleans(),
    outgoing=st.none() | st.booleans(),
)


@given(HOSTS, st.integers(0, 65_535), TOLD)
@settings(max_examples=300, deadline=None)
def test_anybody_can_be_judged(host: str, port: int, metadata: Metadata) -> None:
    """Whatever the address and the metadata, there is a judgement."""
    for kind in (RawOrigins(), PacketOrigins(), UdpOrigins(5000, any_source_port=False)):
        origin = kind.judge(host, port, metadata)
        assert origin.source
        if metadata.broadcast and not isinstance(kind, PacketOrigins):
            assert origin.drop or origin.muted
    assert UnixOrigins("@x").judge("@y", 0, metadata).host == ""


# -- what follows from it --


@dataclass
class Name:
    """Where a raw or packet listener says it listens."""

    host: str = "0.0.0.0"
    port: int = 253
    scheme: str = "raw"


class Wire:
    """A transport in memory."""

    maxPacketSize = 0

    def __init__(self, scheme: str) -> None:
        self.name = Name(scheme=scheme)
        self.sent: list[tuple[Any, ...]] = []

    def getHost(self) -> Name:
        return self.name

    def write(self, data: bytes, addr: Any) -> None:
        self.sent.append((data, addr))

    def writeFrom(self, data: bytes, addr: Any, source: str) -> None:
        self.sent.append((data, addr, source))


class Echo(SocketService):
    """Answers, on every kind."""

    kinds = ("raw", "packet")

    def start(self) -> None:
        self.heard: list[Any] = []
        self.sent: list[bool] = []

    def received(self, session: Session, message: bytes) -> None:
        self.heard.append(message)
        session.prove()
        self.sent.append(session.send(message))


class Rig:
    """A service behind a raw or packet listener in memory."""

    def __init__(self, kind: Any, service: SocketService | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.service: Any = service or Echo()
        self.service._reactor = self.clock
        self.protocol = ServiceDatagramProtocol(self.service, kind=kind, limits=Limits(**limits))
        self.counters = self.protocol.carrier.counters
        self.wire = Wire(kind)
        self.protocol.makeConnection(self.wire)

    def hear(self, data: bytes, addr: Any = (PEER, 0), metadata: Metadata = ONE) -> None:
        self.protocol.packetReceived(data, addr, metadata)

    def stop(self) -> None:
        self.protocol.doStop()
        self.clock.advance(0)


def test_a_raw_peer_is_answered_from_the_address_it_hit() -> None:
    """The destination of the packet is the source of the answer."""
    rig = Rig("raw")
    rig.hear(b"x")
    assert rig.wire.sent == [(b"x", (PEER, 0), "192.0.2.1")]
    [session] = rig.service.sessions
    assert session.transport == "raw"
    assert str(session.five_tuple) == "raw 192.0.2.1:253 <- 192.0.2.9:0"
    rig.stop()


def test_even_proven_ourselves_are_not_answered() -> None:
    """Nothing that a service does makes it answer what this machine sent: it would loop."""
    rig = Rig("raw")
    for _ in range(3):
        rig.hear(b"x", ("192.0.2.1", 0))
    assert len(rig.service.heard) == 3
    assert rig.service.sent == [False] * 3
    assert rig.wire.sent == []
    assert rig.counters["own_service"] == 3
    [session] = rig.service.sessions
    assert session.budget == 0
    rig.stop()


def test_a_group_and_an_address_of_ours_are_two_sessions() -> None:
    """A peer that is muted in a group is answered when it asks us alone, and the other way."""
    rig = Rig("raw")
    group = Metadata(destination="224.0.0.1", broadcast=False)
    for metadata in (group, ONE, group):
        rig.hear(b"x", metadata=metadata)
    assert rig.service.sent == [False, True, False]
    rig.stop()


def test_our_frame_with_a_peer_s_address_is_not_answered() -> None:
    """A bridge sends what others wrote: such a frame never uses the session of who wrote it."""
    rig = Rig("packet")
    rig.hear(b"theirs", ("02:09", 3), Metadata(outgoing=False))
    rig.hear(b"ours", ("02:09", 3, 4), Metadata(outgoing=True))
    rig.hear(b"theirs again", ("02:09", 3), Metadata(outgoing=False))
    assert rig.service.sent == [True, False, True]
    rig.stop()


def test_the_budget_of_raw_peers_counts_the_ip_header() -> None:
    """Three times what came, headers counted, to the byte: 20 bytes of IPv4, 40 of IPv6."""

    class Amplifier(SocketService):
        kinds = ("raw",)

        def received(self, session: Session, message: bytes) -> None:
            self.session = session

    for host, to, header in ((PEER, "192.0.2.1", 20), ("2001:db8::9", "2001:db8::1", 40)):
        rig = Rig("raw", Amplifier())
        rig.hear(b"x" * 10, (host, 0), Metadata(destination=to))
        session = rig.service.session
        assert session.budget == 3 * (10 + header) - header
        assert session.send(bytes(session.budget + 1)) is False
        assert session.send(bytes(session.budget)) is True
        assert session.send(b"") is False
        assert rig.counters["over_budget"] == 2
        rig.stop()


@pytest.mark.parametrize("kind", ["raw", "packet"])
def test_forged_sources_share_a_bounded_table(kind: Any) -> None:
    """Peers beyond the limit evict the oldest; the service is asked about each all the same."""
    rig = Rig(kind, max_connections=5)
    for number in range(100):
        rig.hear(b"x", (f"198.51.100.{number}", 0), Metadata(destination="192.0.2.1"))
        rig.clock.advance(0)
    assert len(rig.service.sessions) == 5
    assert len(rig.service.heard) == 100
    rig.stop()


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (111, "refused_by_peer"),
        (113, "unreachable"),
        (90, "send_too_long"),
        (100, "interface_down"),
    ],
)
def test_what_became_of_an_answer_is_counted(number: int, word: str, logged: list[Any]) -> None:
    """ICMP errors are counted by what they say, and logged at most once a second."""
    rig = Rig("raw")
    for _ in range(50):
        rig.protocol.datagramRefused(number, PEER)
    assert rig.counters[word] == 50
    assert [event["event"] for event in logged if "event" in event] == [word]
    rig.stop()
