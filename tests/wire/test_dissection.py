"""Packets taken apart, and the line that people read. The oracles are scapy and tcpdump."""

from __future__ import annotations

import re
import shutil
import subprocess
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packet_laws import anything, is_plain, many, quick, thorough
from scapy.layers import inet, l2
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.inet6 import IPv6 as TheirIPv6
from scapy.layers.l2 import LLC, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from twistedsock.errors import PacketError
from twistedsock.wire.dissection import (
    ETHERNET,
    IPV4,
    IPV6,
    LINUX_SLL,
    LINUX_SLL2,
    MAX_LAYERS,
    MAX_LINE,
    NULL,
    RAW,
    describe,
    dissect,
)

LINK = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
FOUR = IP(src="10.0.0.1", dst="10.0.0.2", id=7)
SIX = TheirIPv6(src="2001:db8::1", dst="2001:db8::2")
SYN = inet.TCP(
    sport=40_112, dport=8888, seq=123, flags="S", window=65_495,
    options=[("MSS", 65_495), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)],
)  # fmt: skip
DATA = inet.TCP(sport=8888, dport=40_112, seq=5, ack=124, flags="PA", window=512) / Raw(b"hello")
QUESTION = inet.UDP(sport=53_123, dport=53) / Raw(bytes(33))
PING = ICMP(id=7, seq=1) / Raw(bytes(56))
ASKING = l2.ARP(op=1, hwsrc="02:00:00:00:00:02", psrc="10.0.0.1", pdst="10.0.0.2")
ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert()])

FRAMES = {
    "SYN": LINK / FOUR / SYN,
    "data": LINK / FOUR / DATA,
    "UDP": LINK / FOUR / QUESTION,
    "ping": LINK / FOUR / PING,
    "TCP over IPv6": LINK / SIX / SYN,
    "UDP over IPv6": LINK / SIX / QUESTION,
    "ping over IPv6": LINK / SIX / ICMPv6EchoRequest(id=7, seq=1, data=bytes(56)),
    "a chain": LINK / SIX / ALERT / QUESTION,
    "ARP": LINK / ASKING,
    "a tag": LINK / Dot1Q(vlan=7) / FOUR / QUESTION,
    "two tags": LINK / Dot1AD(vlan=9) / Dot1Q(vlan=7) / SIX / SYN,
    "a tunnel": LINK / FOUR / IP(src="192.0.2.1", dst="192.0.2.2") / QUESTION,
    "802.3": Dot3(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / LLC() / Raw(b"abc"),
}
WHOLE = {name: bytes(frame) for name, frame in FRAMES.items()}


def line_of(packet: Packet | bytes, link_type: int = ETHERNET, **more: Any) -> str:
    return describe(dissect(bytes(packet), link_type), **more)


def names_of(packet: Packet | bytes, link_type: int = ETHERNET) -> list[str]:
    return [type(layer).__name__ for layer in dissect(bytes(packet), link_type)]


# -- layers --


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SYN", ["Ethernet", "IPv4", "TCP", "bytes"]),
        ("UDP", ["Ethernet", "IPv4", "UDP", "bytes"]),
        ("ping", ["Ethernet", "IPv4", "Echo", "bytes"]),
        ("TCP over IPv6", ["Ethernet", "IPv6", "TCP", "bytes"]),
        ("ping over IPv6", ["Ethernet", "IPv6", "Echo", "bytes"]),
        ("a chain", ["Ethernet", "IPv6", "UDP", "bytes"]),
        ("ARP", ["Ethernet", "ARP", "bytes"]),
        ("two tags", ["Ethernet", "IPv6", "TCP", "bytes"]),
        ("a tunnel", ["Ethernet", "IPv4", "IPv4", "UDP", "bytes"]),
        ("802.3", ["Ethernet", "bytes"]),
    ],
)
def test_layers_are_found_from_the_outermost_on(name: str, expected: list[str]) -> None:
    """Each layer is a value of its codec, the last one is the bytes that nobody reads."""
    assert names_of(FRAMES[name]) == expected


@pytest.mark.parametrize("name", FRAMES)
def test_what_scapy_summed_is_intact(name: str) -> None:
    """The checksums of scapy are right in every layer, and the payload is scapy's."""
    layers = dissect(WHOLE[name])
    assert False not in [getattr(layer, "is_intact", None) for layer in layers]
    theirs = Ether(WHOLE[name])
    if Raw in theirs and "802.3" not in name:
        assert layers[-1] == theirs[Raw].load


@pytest.mark.parametrize(
    ("link_type", "head"),
    [
        (RAW, b""),
        (IPV4, b""),
        (NULL, b"\2\0\0\0"),
        (NULL, b"\0\0\0\2"),
        (LINUX_SLL, bytes(CookedLinux(proto=0x800))),
        (LINUX_SLL2, bytes(CookedLinuxV2(proto=0x800))),
    ],
)
def test_ipv4_is_found_behind_every_link(link_type: int, head: bytes) -> None:
    """A packet of IPv4 is the same line behind each link type."""
    expected = "IP 10.0.0.1:53123 > 10.0.0.2:53 UDP length 33"
    assert line_of(head + bytes(FOUR / QUESTION), link_type) == expected


@pytest.mark.parametrize(
    ("link_type", "head"),
    [
        (RAW, b""),
        (IPV6, b""),
        *((NULL, bytes([family, 0, 0, 0])) for family in (24, 28, 30)),
        (LINUX_SLL, bytes(CookedLinux(proto=0x86DD))),
        (LINUX_SLL2, bytes(CookedLinuxV2(proto=0x86DD))),
    ],
)
def test_ipv6_is_found_behind_every_link(link_type: int, head: bytes) -> None:
    """A packet of IPv6 is the same line behind each link type."""
    expected = "IP6 [2001:db8::1]:53123 > [2001:db8::2]:53 UDP length 33"
    assert line_of(head + bytes(SIX / QUESTION), link_type) == expected


def test_other_links_are_bytes() -> None:
    """Behind a link type that is not known all is left as it is, and is told."""
    assert dissect(b"abc", 147) == (b"abc",)
    assert describe((b"abc",)) == "3 bytes of a link that is not read"


def test_later_fragments_are_not_read() -> None:
    """What a fragment carries that is not the first is no header, in either version."""
    later = IP(src="10.0.0.1", dst="10.0.0.2", id=7, frag=185, proto=17) / Raw(bytes(20))
    assert names_of(LINK / later) == ["Ethernet", "IPv4", "bytes"]
    assert line_of(LINK / later) == "IP 10.0.0.1 > 10.0.0.2 UDP fragment at 1480 of id 7 length 20"
    six = SIX / IPv6ExtHdrFragment(nh=6, offset=185, m=0, id=7) / Raw(bytes(20))
    assert names_of(LINK / six) == ["Ethernet", "IPv6", "bytes"]
    assert line_of(LINK / six) == (
        "IP6 2001:db8::1 > 2001:db8::2 TCP fragment at 1480 of id 7 length 20"
    )


@pytest.mark.parametrize("inner", [SYN, QUESTION, PING], ids=["TCP", "UDP", "ICMP"])
def test_the_checksum_of_a_part_is_not_judged(inner: Packet) -> None:
    """Neither in the first fragment nor in a packet that was cut off is a checksum called bad."""
    data = bytes(FOUR / inner)
    cut = dissect(data[:-4], RAW)
    assert cut[1].is_intact is None  # type: ignore[attr-defined]
    assert "[cut off: 4 bytes missing]" in describe(cut)
    first = IP(data[:-4])
    first.flags, first.len, first.chksum = "MF", None, None
    part = dissect(bytes(first), RAW)
    assert part[1].is_intact is None  # type: ignore[attr-defined]
    assert describe(part).endswith(" [first fragment of id 7]")
    assert "bad" not in describe(cut) + describe(part)


def test_packets_in_packets_end() -> None:
    """A packet in a packet in a packet is read to a limit, and the rest is bytes."""
    data = b"".join(
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=4, len=0xFFFF)) for _ in range(99)
    )
    layers = dissect(data, RAW)
    assert len(layers) == MAX_LAYERS + 1
    assert layers[-1] == data[MAX_LAYERS * 20 :]
    assert len(describe(layers)) <= MAX_LINE


def test_a_layer_that_cannot_be_read_is_its_error() -> None:
    """The last value says what is wrong with the layer, and holds on to nothing."""
    layers = dissect(bytes(FOUR / inet.UDP(len=7)), RAW)
    assert isinstance(layers[-1], PacketError)
    assert str(layers[-1]) == "udp: a length of 7, below the header's 8"
    assert layers[-1].__traceback__ is None
    assert "During handling" not in "".join(traceback.format_exception(layers[-1]))
    assert describe(layers) == (
        "IP 10.0.0.1 > 10.0.0.2 UDP [udp: a length of 7, below the header's 8]"
    )
    assert line_of(b"", RAW) == "[dissection: IP of version 4 or 6 was expected, got 0]"
    assert line_of(b"\x45", IPV4) == "[ipv4: a header has 20 bytes at least, got 1]"


# -- whatever bytes --


def ends_well(data: bytes, link_type: int) -> None:
    layers = dissect(data, link_type)
    assert 1 <= len(layers) <= MAX_LAYERS + 1
    assert isinstance(layers[-1], bytes | PacketError)
    assert not any(isinstance(layer, bytes | PacketError) for layer in layers[:-1])
    for known in (True, False):
        line = describe(layers, known)
        assert line
        assert is_plain(line)
        assert len(line) <= MAX_LINE


def with_protocol(name: str, place: int, end: int, number: int) -> bytes:
    """Return the headers of a frame of FRAMES up to *end*, with another protocol inside."""
    return WHOLE[name][:place] + bytes([number]) + WHOLE[name][place + 1 : end]


LINK_TYPES = (ETHERNET, NULL, RAW, LINUX_SLL, LINUX_SLL2, IPV4, IPV6, 147)
LINKS = st.sampled_from(LINK_TYPES)
PACKETS = anything(*WHOLE.values())
# most random bytes are no IP: these lead on
HEADS = [
    WHOLE["UDP"][:14],
    WHOLE["UDP over IPv6"][:14],
    WHOLE["ARP"][:14],
    WHOLE["a tag"][:18],
    *(with_protocol("ping", 23, 34, number) for number in (1, 2, 4, 6, 17)),
    *(with_protocol("ping over IPv6", 20, 54, n) for n in (0, 6, 17, 43, 44, 58, 60)),
]
# most random bytes are no IP: these lead on
LED = st.binary(min_size=1, max_size=61).map(lambda data: HEADS[data[0] % len(HEADS)] + data[1:])


@given(PACKETS, LINKS)
@quick
def test_any_bytes_are_layers_and_a_line(data: bytes, link_type: int) -> None:
    """Whatever comes in has layers, behind any link, and one line of printable ASCII."""
    ends_well(data, link_type)
    ends_well(data, ETHERNET)


@given(LED)
@quick
def test_any_bytes_behind_a_header_are_layers_and_a_line(data: bytes) -> None:
    """Whatever follows a right header has layers and a line."""
    ends_well(data, ETHERNET)


@pytest.mark.slow
@given(many(PACKETS))
@thorough
def test_very_many_bytes_are_layers_and_a_line(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        ends_well(data, LINK_TYPES[len(data) % len(LINK_TYPES)])


@pytest.mark.slow
@given(many(LED))
@thorough
def test_very_many_bytes_behind_a_header_are_layers_and_a_line(packets: list[bytes]) -> None:
    """The same, a hundred thousand times."""
    for data in packets:
        ends_well(data, ETHERNET)


# -- lines --


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "SYN",
            "IP 10.0.0.1:40112 > 10.0.0.2:8888 TCP S seq 123 win 65495 "
            "[mss 65495, sackOK, TS val 7 ecr 0, wscale 7] length 0",
        ),
        ("data", "IP 10.0.0.1:8888 > 10.0.0.2:40112 TCP P. seq 5 ack 124 win 512 length 5"),
        ("UDP over IPv6", "IP6 [2001:db8::1]:53123 > [2001:db8::2]:53 UDP length 33"),
        ("ping", "IP 10.0.0.1 > 10.0.0.2 ICMP echo request id 7 seq 1 length 64"),
        ("a chain", "IP6 [2001:db8::1]:53123 > [2001:db8::2]:53 UDP length 33 [hop-by-hop]"),
        ("ARP", "ARP who has 10.0.0.2 tell 10.0.0.1"),
        ("a tag", "vlan 7 IP 10.0.0.1:53123 > 10.0.0.2:53 UDP length 33"),
        (
            "two tags",
            "vlan 9 vlan 7 IP6 [2001:db8::1]:40112 > [2001:db8::2]:8888 TCP S seq 123 win 65495 "
            "[mss 65495, sackOK, TS val 7 ecr 0, wscale 7] length 0",
        ),
        (
            "a tunnel",
            "IP 10.0.0.1 > 10.0.0.2 IP 192.0.2.1:53123 > 192.0.2.2:53 UDP length 33",
        ),
        ("802.3", "Ethernet 02:00:00:00:00:02 > 02:00:00:00:00:01 802.3 length 6"),
    ],
)
def test_people_read_one_line(name: str, expected: str) -> None:
    """Each kind of packet is told in one line, and its payload is not."""
    assert line_of(FRAMES[name]) == expected


def test_a_protocol_without_a_codec_is_named() -> None:
    """What no codec reads is told by its name or number, with its length."""
    assert line_of(FOUR.copy() / Raw(b"abc"), RAW) == "IP 10.0.0.1 > 10.0.0.2 protocol 0 length 3"
    packet = IP(src="10.0.0.1", dst="10.0.0.2", proto=132) / Raw(b"abc")
    assert line_of(packet, RAW) == "IP 10.0.0.1 > 10.0.0.2 SCTP length 3"


def test_a_bad_checksum_is_told_where_it_can_be_known() -> None:
    """A wrong checksum is called bad, but not of what this machine has not summed yet."""
    data = bytes(FOUR / QUESTION)
    wrong = data[:-1] + b"\1"
    assert line_of(wrong, RAW).endswith("UDP length 33 [bad checksum]")
    assert line_of(wrong, RAW, checksums_known=False).endswith("UDP length 33")
    header = data[:8] + b"\1" + data[9:]
    for known in (True, False):
        text = line_of(header, RAW, checksums_known=known)
        assert text.endswith("UDP length 33 [bad checksum of the IP header]")


def test_what_was_cut_off_is_told_once() -> None:
    """The missing bytes are counted once, and the lengths are those that were announced."""
    data = bytes(LINK / FOUR / QUESTION)
    assert line_of(data[:-20]) == (
        "IP 10.0.0.1:53123 > 10.0.0.2:53 UDP length 33 [cut off: 20 bytes missing]"
    )
    assert line_of(bytes(LINK / FOUR / DATA)[:-3]) == (
        "IP 10.0.0.1:8888 > 10.0.0.2:40112 TCP P. seq 5 ack 124 win 512 length 5 "
        "[cut off: 3 bytes missing]"
    )
    assert line_of(bytes(LINK / SIX / QUESTION)[:-30]).endswith("[cut off: 30 bytes missing]")
    assert line_of(WHOLE["802.3"][:-2]).endswith("802.3 length 6 [cut off: 2 bytes missing]")


# -- tcpdump --


def tcpdump(path: Path) -> list[str]:
    command = ["tcpdump", "-nr", str(path), "-t", "-S", "-v"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return [" ".join(each.split()) for each in re.split(r"\n(?=\S)", told.strip())]


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs the Debian package tcpdump")
def test_tcpdump_tells_the_same(tmp_path: Path) -> None:
    """Addresses, ports, flags, numbers and options are those that tcpdump reads."""
    ported = ["SYN", "data", "UDP", "TCP over IPv6", "UDP over IPv6"]
    named = [*ported, "ping", "ping over IPv6", "ARP"]
    wrpcap(str(tmp_path / "packets.pcap"), [FRAMES[name] for name in named])
    told = dict(zip(named, tcpdump(tmp_path / "packets.pcap"), strict=True))
    for name in ported:
        ours, theirs = line_of(FRAMES[name]), told[name]
        places = re.findall(r"\[?([0-9a-f.:]+?)\]?:(\d+)(?= )", ours)
        assert len(places) == 2
        pair = " > ".join(f"{host}.{port}" for host, port in places)
        assert f" {pair}: " in theirs, theirs
        if "TCP" in ours:
            flags, sequence, window = re.findall(r"TCP (\S+) seq (\d+).* win (\d+)", ours)[0]
            assert f"Flags [{flags}]" in theirs
            assert re.search(rf"seq {sequence}\b", theirs)
            assert f"win {window}," in theirs
            for option in re.findall(r"\[(mss.*?)\]", ours):
                assert option.replace(", ", ",") in theirs.replace("nop,", "")
            assert ours.rsplit(" ", 2)[1:] == theirs.rsplit(" ", 2)[1:]  # the length
    assert "10.0.0.1 > 10.0.0.2: ICMP echo request, id 7, seq 1, length 64" in told["ping"]
    assert line_of(FRAMES["ping"]).endswith("ICMP echo request id 7 seq 1 length 64")
    assert "2001:db8::1 > 2001:db8::2: [icmp6 sum ok]" in told["ping over IPv6"]
    assert "who-has 10.0.0.2 tell 10.0.0.1" in told["ARP"]
