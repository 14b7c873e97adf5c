"""Capture filters. The oracle is libpcap: what tcpdump compiles, run beside what we compile."""

from __future__ import annotations

import functools
import itertools
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw
from test_bpf import attach

from twistedsock.errors import FilterError
from twistedsock.wire import bpf, filter_grammar
from twistedsock.wire.bpf import Instruction, Program, run, to_bytes
from twistedsock.wire.filters import compile_filter

ETHERNET, RAW = 1, 101
NAMES = {ETHERNET: "EN10MB", RAW: "RAW"}
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:09", "ff:ff:ff:ff:ff:ff", "01:00:5e:01:01:01")
HOSTS = ("192.0.2.1", "192.0.2.9", "198.51.100.7", "10.1.2.3", "239.1.1.1")
HOSTS_6 = ("2001:db8::1", "2001:db8::9", "2001:db8:1::9", "fe80::1", "ff02::1")
PORTS = (53, 67, 80, 5000, 6001)

needs_tcpdump = pytest.mark.skipif(
    shutil.which("tcpdump") is None, reason="needs the Debian package tcpdump"
)


# -- packets --


def network_packets(seed: int) -> list[Packet]:
    """Return IPv4 and IPv6 packets of every kind that filters tell apart."""
    chance = random.Random(seed)
    found: list[Packet] = []
    for _ in range(25):
        source, destination = chance.sample(HOSTS, 2)
        source6, destination6 = chance.sample(HOSTS_6, 2)
        sport, dport = chance.sample(PORTS, 2)
        payload = Raw(bytes(chance.randrange(60)))
        for carried in (
            TCP(sport=sport, dport=dport) / payload,
            UDP(sport=sport, dport=dport) / payload,
            SCTP(sport=sport, dport=dport),
        ):
            options = chance.choice([[], [IPOption_NOP()] * 4, [IPOption_RR(length=15)]])
            found.append(IP(src=source, dst=destination, options=options) / carried)
            found.append(IPv6(src=source6, dst=destination6) / carried)
        found.append(IP(src=source, dst=destination) / ICMP() / payload)
        found.append(IPv6(src=source6, dst=destination6) / ICMPv6EchoRequest())
        for number in (2, 50, 51, 47):
            found.append(IP(src=source, dst=destination, proto=number) / payload)
            found.append(IPv6(src=source6, dst=destination6, nh=number) / payload)
    whole = IP(src=HOSTS[0], dst=HOSTS[1]) / UDP(sport=53, dport=5000) / Raw(bytes(100))
    found.extend(fragment(whole, 40))
    behind = UDP(sport=53, dport=67) / Raw(b"x")
    found.append(IPv6(src=HOSTS_6[0], dst=HOSTS_6[1]) / IPv6ExtHdrFragment(offset=0, m=1) / behind)
    found.append(IPv6(src=HOSTS_6[0], dst=HOSTS_6[1]) / IPv6ExtHdrHopByHop() / behind)
    return found


@functools.cache
def whole_packets(link_type: int) -> list[bytes]:
    """Return a few hundred packets."""
    if link_type == RAW:
        return [bytes(packet) for packet in network_packets(1)]
    chance = random.Random(2)
    found = []
    for packet in network_packets(1):
        source, destination = chance.sample(MACS, 2)
        found.append(bytes(Ether(src=source, dst=destination) / packet))
    for packet in network_packets(2)[::6]:
        tag = chance.choice([Dot1Q(vlan=5), Dot1Q(vlan=6), Dot1AD(vlan=5) / Dot1Q(vlan=7)])
        found.append(bytes(Ether(src=MACS[0], dst=MACS[1]) / tag / packet))
    for op in (1, 2):
        for source, destination in itertools.pairwise(HOSTS):
            made = ARP(op=op, psrc=source, pdst=destination)
            found.append(bytes(Ether(src=MACS[1], dst=MACS[2]) / made))
            found.append(bytes(Ether(src=MACS[1], dst=MACS[2], type=0x8035) / made))
    found.append(
        bytes.fromhex("0180c2000000 020000000001 0026 424203".replace(" ", "")) + bytes(40)
    )
    return found


@functools.cache
def cut_packets(link_type: int) -> list[bytes]:
    """Return beginnings of packets, of every length up to that of the headers."""
    chance = random.Random(3)
    chosen = chance.sample(whole_packets(link_type), 25)
    return [packet[:size] for packet in chosen for size in range(min(len(packet), 80))]


# -- the oracle --


@functools.cache
def theirs(expression: str, link_type: int, *, optimised: bool = True) -> Program | str:
    """Return what tcpdump compiles, or what it says is wrong."""
    more = [] if optimised else ["-O"]
    done = subprocess.run(
        ["tcpdump", *more, "-ddd", "-y", NAMES[link_type], expression],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "rejects all packets" in done.stderr:
        return (Instruction(bpf.RET | bpf.K, 0, 0, 0),)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    count, *lines = done.stdout.splitlines()
    assert int(count) == len(lines)
    return tuple(Instruction(*map(int, line.split())) for line in lines)


def known_port(name: str) -> int | None:
    return {"domain": 53, "http": 80}.get(name)


def agree(expression: str, link_type: int) -> None:
    """Fail where a verdict differs from libpcap's."""
    ours = compile_filter(expression, link_type, port_of=known_port)
    to_bytes(ours)
    plain = theirs(expression, link_type, optimised=False)
    optimised = theirs(expression, link_type)
    assert not isinstance(plain, str), (expression, plain)
    assert not isinstance(optimised, str), (expression, optimised)
    for packet in whole_packets(link_type):
        assert run(ours, packet) == run(plain, packet), (expression, packet.hex())
    for packet in cut_packets(link_type):
        # Where a packet ends too early, libpcap's own two programs may differ.
        verdicts = {run(plain, packet), run(optimised, packet)}
        assert run(ours, packet) in verdicts, (expression, packet.hex())


ANYWHERE = """
ip|ip6|tcp|udp|sctp|icmp|icmp6|igmp|esp|ah
proto 47|proto 0|ip proto 17|ip6 proto 17|ip proto \\tcp|ip6 proto 44
host 192.0.2.1|src host 192.0.2.1|dst host 192.0.2.9|src or dst host 10.1.2.3
src and dst host 192.0.2.1|src 192.0.2.1|dst 2001:db8::1|host 2001:db8::9|ip host 198.51.100.7
ip6 host fe80::1|src and dst host 2001:db8::1
net 192.0.2.0/24|net 10|net 10.1|src net 198.51.100|dst net 192.0.2.9|net 192.0.2.8/29
net 192.0.2.0 mask 255.255.255.0|net 2001:db8::/32|src net 2001:db8::/47|net fe80::1
net 0.0.0.0/0|net ::/0|net 2001:db8::/64|ip6 net 2001:db8:1::/48
port 53|src port 53|dst port 67|src or dst port 80|src and dst port 53|tcp port 80|udp port 53
sctp port 5000|udp src port 53|tcp dst port 6001|port 0x35
portrange 50-70|portrange 70-50|src portrange 5000-6001|udp dst portrange 1-100|portrange 53
tcp portrange 80-80
less 60|greater 60|less 0|greater 0|greater 100000
ip multicast|ip6 multicast
not ip|! tcp|not not udp|not port 53|!(tcp or udp)
tcp and port 80|tcp or udp and port 53|ip or ip6 and not tcp|not tcp and not udp
port 53 or 67|port 53 and not 67|tcp dst port 80 or 6001 or 5000|host 192.0.2.1 or 198.51.100.7
host (192.0.2.1 or 10.1.2.3)|host 192.0.2.1 and not 192.0.2.9|port (53 or 67 and 80)
host 192.0.2.1 or port 53 or 67|(tcp or udp) and (port 53 or port 80)
host 192.0.2.1 or (port 53) or 10.1.2.3|src 192.0.2.1 or 2001:db8::1
not host 192.0.2.1 and not 192.0.2.9 and not 10.1.2.3
src net 10 or dst net 10|ip proto 6 or 17|not (host not 192.0.2.1)
tcp and (host 192.0.2.1 or host 10.1.2.3) or udp and greater 80
tcp && port 80 || udp
"""
ETHERNET_ALONE = """
arp|rarp|arp host 192.0.2.1|rarp host 192.0.2.9|arp src host 192.0.2.1|arp net 10|arp or rarp
ether host 02:00:00:00:00:01|ether src 02:00:00:00:00:09|ether dst 2-0-0-0-0-1
ether src or dst host 02:00:00:00:00:01 or 02:00:00:00:00:09|ether src and dst 02:00:00:00:00:01
ether proto 0x0806|ether proto \\ip or \\arp|ether proto 0x88a8|ether proto 1536
broadcast|multicast|ether broadcast|ether multicast|not broadcast
vlan|vlan 5|vlan 5 and tcp|vlan 5 and port 53|vlan and host 192.0.2.1|not vlan|vlan 5 and vlan 7
vlan 5 or vlan 6|tcp or vlan and tcp|vlan and ip6 and not port 53|vlan and ether src 2:0:0:0:0:1
vlan 5 and vlan 7 and port 53|tcp and not (vlan 6)|vlan and ip multicast
"""


def listed(text: str) -> list[str]:
    return [each for line in text.split("\n") for each in line.split("|") if each]


CASES = [(each, link) for each in listed(ANYWHERE.replace("||", "\0")) for link in NAMES]
CASES += [(each, ETHERNET) for each in listed(ETHERNET_ALONE)]


@needs_tcpdump
@pytest.mark.parametrize(("expression", "link_type"), CASES)
def test_verdicts_are_those_of_libpcap(expression: str, link_type: int) -> None:
    """Each test accepts the same packets as libpcap's: whole, fragmented, tagged and cut."""
    agree(expression.replace("\0", "||"), link_type)


@needs_tcpdump
@pytest.mark.parametrize("link_type", NAMES)
@pytest.mark.parametrize(
    "expression",
    ["net 10 or 192.0.2.0/24 or 198.51.100", "net 2001:db8::/47 or 2001:db8:1::/48 or fe80::1"],
)
def test_several_networks_are_looked_for_at_once(expression: str, link_type: int) -> None:
    """Whole packets are judged as libpcap does; those cut within an address may be kept."""
    agree_whole(expression, link_type)


# -- whole expressions --


def _ids(words: Sequence[str], kind: str) -> st.SearchStrategy[str]:
    directions = st.sampled_from(["", "src ", "dst ", "src or dst ", "src and dst "])
    several = st.lists(
        st.tuples(st.sampled_from([" or ", " and ", " or not "]), st.sampled_from(words)),
        max_size=2,
    )
    return st.builds(
        lambda direction, first, more: f"{direction}{kind} {first}" + "".join(map("".join, more)),
        directions,
        st.sampled_from(words),
        several,
    )


ports = [str(port) for port in PORTS]
tests = st.one_of(
    st.sampled_from(
        ["ip", "ip6", "tcp", "udp", "icmp", "icmp6", "sctp", "igmp", "esp", "less 80", "greater 90"]
    ),
    st.sampled_from(["arp", "rarp", "multicast", "broadcast", "ip proto 17", "vlan", "vlan 5"]),
    _ids([*HOSTS, *HOSTS_6], "host"),
    _ids(["10", "192.0.2", "192.0.2.0/29", "2001:db8::/47"], "net"),
    _ids(ports, "port"),
    _ids(["1-100", "53-5000"], "portrange"),
    _ids(ports, "port").map(lambda text: f"udp {text}"),
    _ids([*HOSTS], "host").map(lambda text: f"arp {text}"),
    _ids([MACS[0], MACS[1]], "host").map(lambda text: f"ether {text}"),
)
expressions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or", "&&", "||"]), inner),
        inner.map("not {}".format),
        inner.map("({})".format),
    ),
    max_leaves=8,
)


@needs_tcpdump
@settings(max_examples=60, deadline=None)
@given(expressions)
def test_expressions_are_judged_as_by_libpcap(expression: str) -> None:
    """Any expression accepts the same whole packets as libpcap's."""
    agree_whole(expression)


@needs_tcpdump
@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(expressions)
def test_many_expressions_are_judged_as_by_libpcap(expression: str) -> None:
    """The same for many more."""
    agree_whole(expression)


def agree_whole(expression: str, link_type: int = ETHERNET) -> None:
    """Fail where a verdict on a whole packet differs from libpcap's.

    Its optimiser is left out: that of 1.10.3 makes ``net 2001:db8::/47 and net 2001:db8::/47``
    refuse packets that it accepts without.
    """
    ours = compile_filter(expression, link_type)
    oracle = theirs(expression, link_type, optimised=False)
    assert not isinstance(oracle, str), (expression, oracle)
    for packet in whole_packets(link_type):
        assert run(ours, packet) == run(oracle, packet), (expression, packet.hex())


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_the_kernel_takes_every_program(expression: str) -> None:
    """What is compiled passes the kernel's checker, and there decides as here."""
    made = compile_filter(expression, snap_bytes=33)
    packets = whole_packets(ETHERNET)[::20]
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        attach(right, to_bytes(made))
        right.setblocking(False)
        for packet in packets:
            left.send(packet)
            kept = 0
            with suppress(BlockingIOError):
                kept = len(right.recv(70_000))
            assert kept == min(run(made, packet), len(packet))


# -- what libpcap has no word for, or no answer without an interface --


def matches(expression: str, packet: bytes, **told: int) -> bool:
    places = {"kind": bpf.PACKET_TYPE, "tag": bpf.VLAN_TAG, "present": bpf.VLAN_TAG_PRESENT}
    beside = {places[name]: number for name, number in told.items()}
    return run(compile_filter(expression, port_of=known_port), packet, ancillary=beside) > 0


UDP_FRAME = bytes(Ether() / IP(src=HOSTS[0], dst=HOSTS[1]) / UDP(sport=53, dport=5000))
TAGGED_FRAME = bytes(
    Ether() / Dot1Q(vlan=7) / IP(src=HOSTS[0], dst=HOSTS[1]) / UDP(sport=53, dport=5000)
)


def test_an_empty_expression_accepts_everything() -> None:
    """Nothing, or blanks: each packet is kept, up to the snap length."""
    for text in ("", "  \n\t"):
        assert run(compile_filter(text, snap_bytes=96), UDP_FRAME) == 96
        assert run(compile_filter(text), b"") == 262_144


def test_an_address_alone_is_a_host() -> None:
    """ADDRESS is short for host ADDRESS, and so are those after "and" and "or"."""
    assert compile_filter("192.0.2.1") == compile_filter("host 192.0.2.1")
    assert compile_filter("not 2001:db8::1 and tcp") == compile_filter(
        "not host 2001:db8::1 and tcp"
    )
    assert compile_filter("192.0.2.1 or 10.1.2.3") == compile_filter("host 192.0.2.1 or 10.1.2.3")


def test_names_of_services_are_asked_for() -> None:
    """A name stands for the port that the caller's resolver says."""
    for named, numbered in (("port domain", "port 53"), ("udp src port domain or http", None)):
        numbered = numbered or "udp src port 53 or 80"
        assert compile_filter(named, port_of=known_port) == compile_filter(numbered)


def test_protocols_need_no_backslash() -> None:
    """After "proto" a name is a protocol's, with a backslash or without."""
    assert compile_filter("ip proto tcp") == compile_filter(r"ip proto \tcp")
    assert compile_filter("proto icmp6") == compile_filter("proto 58")
    assert compile_filter("ether proto arp") == compile_filter("arp")


@pytest.mark.parametrize(
    ("kind", "inbound"), [(0, True), (1, True), (2, True), (3, True), (4, False)]
)
def test_directions_are_told_by_the_kernel(kind: int, inbound: bool) -> None:
    """What this machine sends is outbound; all else, also for others, is inbound."""
    assert matches("inbound", UDP_FRAME, kind=kind) is inbound
    assert matches("outbound", UDP_FRAME, kind=kind) is not inbound
    assert matches("outbound and udp", UDP_FRAME, kind=kind) is not inbound


@pytest.mark.parametrize(
    ("expression", "frame", "tag", "wanted"),
    [
        ("vlan", UDP_FRAME, 5, True),
        ("vlan 5", UDP_FRAME, 0x2005, True),
        ("vlan 6", UDP_FRAME, 5, False),
        ("vlan 5 and udp port 53", UDP_FRAME, 5, True),
        ("vlan 5 and tcp", UDP_FRAME, 5, False),
        ("not vlan", UDP_FRAME, 5, False),
        ("udp port 53", UDP_FRAME, 5, True),
        ("vlan 5 and vlan 7 and port 53", TAGGED_FRAME, 5, True),
        ("vlan 5 and vlan 6", TAGGED_FRAME, 5, False),
        ("vlan 7", TAGGED_FRAME, 5, False),
    ],
)
def test_tags_that_the_kernel_took_out_are_found(
    expression: str, frame: bytes, tag: int, wanted: bool
) -> None:
    """Linux hands a frame over without its outermost tag, and tells that beside it."""
    assert matches(expression, frame, tag=tag, present=1) is wanted


def test_five_hundred_hosts_fit() -> None:
    """Jumps reach as far as they must, whichever host it is."""
    hosts = [f"10.{number // 250}.{number % 250}.1" for number in range(500)]
    for text in ("host " + " or ".join(hosts), "host " + " or host ".join(hosts)):
        made = compile_filter(text)
        to_bytes(made)
        for host in hosts[::7]:
            for source, destination in ((host, "192.0.2.1"), ("192.0.2.1", host)):
                assert run(made, bytes(Ether() / IP(src=source, dst=destination)))
                assert run(made, bytes(Ether() / ARP(psrc=source, pdst=destination)))
        assert not run(made, bytes(Ether() / IP(src="11.0.0.1", dst="192.0.2.1")))
    others = compile_filter("udp and not host " + " and not ".join(hosts) + " and port 53")
    assert run(others, UDP_FRAME)
    assert not run(others, bytes(Ether() / IP(src=hosts[77]) / UDP(dport=53)))


@needs_tcpdump
def test_long_mixed_filters_are_judged_as_by_libpcap() -> None:
    """Far jumps are right in both directions, over chains that cannot be merged."""
    chance = random.Random(4)
    parts = []
    for _ in range(70):
        port, host = chance.choice(PORTS), chance.choice(HOSTS)
        size = chance.randrange(40, 120)
        parts.append(
            chance.choice(
                [f"tcp src port {port}", f"host {host}", f"(udp and not port {port})",
                 f"greater {size}", f"not less {size}", f"dst net {host}"]
            )
        )  # fmt: skip
    for joints in (["and", "or"], ["or", "or", "and"]):
        text = parts[0] + "".join(f" {chance.choice(joints)} {part}" for part in parts[1:])
        made = compile_filter(text)
        assert len(made) > 500
        agree(text, ETHERNET)


# -- what is wrong --

WRONG: list[tuple[str, int, str]] = [
    ("prot 53", 0, "a test was expected, got 'prot'; did you mean 'proto'?"),
    ("53", 0, "a test was expected, got '53'"),
    ("tcp and", 7, "a test was expected, and the text ends"),
    ("and tcp", 0, "a test was expected, got 'and'"),
    ("tcp or or udp", 7, "a test was expected, got 'or'"),
    ("()", 1, "a test was expected, got ')'"),
    ("(tcp", 4, '")" was expected, for the "(" of character 1, and the text ends'),
    ("tcp)", 3, 'this ")" closes nothing, got \')\''),
    ("tcp udp", 4, '"and", "or" or the end was expected, got \'udp\''),
    ("ip 10.0.0.1", 3, '"and", "or" or the end was expected, got \'10.0.0.1\''),
    ("port", 4, "a port was expected, and the text ends"),
    ("host", 4, "an address was expected, and the text ends"),
    ("port and 5", 5, "a port was expected, got 'and'"),
    ("port 65536", 5, "a port of 0 to 65535 was expected, got '65536'"),
    ("port nope", 5, "a port of 0 to 65535, or a service's name, was expected, got 'nope'"),
    ("portrange 5-x", 10, "ports such as 6000-6008 were expected, got '5-x'"),
    (
        "port 53 or hots 1.2.3.4",
        11,
        "a port of 0 to 65535, or a service's name, was expected, got 'hots'; did you mean 'host'?",
    ),
    (
        "host localhost",
        5,
        "an address such as 192.0.2.1 or 2001:db8::1 was expected;"
        " names of hosts are not looked up here, got 'localhost'",
    ),
    (
        "dst 53",
        4,
        "an address such as 192.0.2.1 or 2001:db8::1 was expected;"
        ' a port goes with "port", got \'53\'',
    ),
    ("host 1.2.3.0/24", 5, 'an address with a prefix length goes with "net", got \'1.2.3.0/24\''),
    ("host fe80::1%eth0", 5, "packets have no scope: leave out the part from % on, got"
     " 'fe80::1%eth0'"),
    ("host 2:0:0:0:0:1", 5, 'an Ethernet address goes with "ether host", got \'2:0:0:0:0:1\''),
    ("ether host 1.2.3.4", 11, "an Ethernet address such as 02:00:00:00:00:01 was expected, got"
     " '1.2.3.4'"),
    (
        "net 10.1.2.3/8",
        4,
        "bits are set behind the prefix; that network is 10.0.0.0, got '10.1.2.3/8'",
    ),
    ("net 10/33", 4, "a prefix length of 0 to 32 was expected, got '10/33'"),
    ("net 10 mask x", 4, "a mask such as 255.255.255.0 was expected, got '10'"),
    ("net ::/8 mask 255.0.0.0", 4, '"mask" goes with an IPv4 network that has no prefix length, got'
     " '::/8'"),
    ("net lan", 4, "a network such as 192.0.2.0/24, 10.1 or 2001:db8::/32 was expected;"
     " names of networks are not looked up here, got 'lan'"),
    ("ip host ::1", 8, "'ip' has no addresses of IPv6, got '::1'"),
    ("tcp host 1.2.3.4", 4, "only ether, ip, ip6, arp, rarp may stand before 'host', got 'tcp'"),
    ("ip port 5", 3, "only tcp, udp, sctp may stand before 'port', got 'ip'"),
    ("tcp proto 6", 4, "only ether, ip, ip6 may stand before 'proto', got 'tcp'"),
    ("src tcp", 4, "an address, or \"port\", was expected after 'src', got 'tcp'"),
    ("ether", 5, "one of host, net, port, portrange, proto, broadcast, multicast was expected after"
     " 'ether', and the text ends"),
    ("ip proto 256", 9, "a protocol's number of 0 to 255 was expected, got '256'"),
    ("ip proto foo", 9, "a protocol's number, or one of icmp, igmp, tcp, udp, gre, esp, ah, icmp6,"
     " ipv6-icmp, ospf, pim, vrrp, sctp, was expected, got 'foo'"),
    ("ether proto 38", 12, "below 0x600 stands a length, no protocol, got '38'"),
    ("ip broadcast", 3, "the broadcast address of a network is not known here;"
     " write host 192.0.2.255"),
    ("vlan 4096", 5, "a VLAN of 0 to 4095 was expected, got '4096'"),
    ("less x", 5, "a length after 'less' of 0 to 4294967295 was expected, got 'x'"),
    ("tcp[13] & 2 != 0", 0, "comparisons of a packet's bytes, such as tcp[13] = 2, are not known"
     " here"),
    ("len <= 5", 4, "comparisons of a packet's bytes, such as tcp[13] = 2, are not known here"),
    ("(" * 51 + "tcp" + ")" * 51, 50, "parentheses may be 50 deep"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "position", "said"), WRONG)
def test_a_faulty_filter_is_told(expression: str, position: int, said: str) -> None:
    """What is wrong, where, and what would be right."""
    with pytest.raises(FilterError) as caught:
        compile_filter(expression)
    assert (caught.value.position, caught.value.expression) == (position, expression)
    assert str(caught.value) == f"{expression!r}, character {position + 1}: {said}"


@pytest.mark.parametrize(
    "expression", ["ether host 2:0:0:0:0:1", "tcp or vlan", "broadcast", "multicast"]
)
def test_what_needs_ethernet_is_refused_without_it(expression: str) -> None:
    """Packets that begin with IP have no link-layer addresses and no tags."""
    with pytest.raises(FilterError, match="have no Ethernet header"):
        compile_filter(expression, RAW)


def test_a_filter_may_not_become_too_long() -> None:
    """More than the kernel takes, or than anybody writes, is refused before it is."""
    hosts = " or ".join(f"2001:db8::{number:x}" for number in range(1, 600))
    with pytest.raises(FilterError, match="becomes more than 4096 instructions, which the kernel"):
        compile_filter(f"host {hosts}")
    with pytest.raises(FilterError, match="at most 65536 characters, got 70005"):
        compile_filter("tcp or " * 10_000 + "arp  ")


def test_what_is_told_of_a_long_filter_is_what_is_around_the_fault() -> None:
    """Nobody reads 60,000 characters to find the one that is wrong."""
    text = "tcp or " * 100 + "what" + " or udp" * 100
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    assert (caught.value.expression, caught.value.position) == (text, 700)
    part = text[600:800]
    assert str(caught.value).startswith(f"...{part!r}..., character 701: a test was expected")
    with pytest.raises(FilterError) as caught:
        compile_filter("port " + "9" * 60_000)
    assert str(caught.value).endswith(f"was expected, got '{'9' * 200}'...")
    assert len(str(caught.value)) < 600


def test_a_value_counts_once_however_often_it_is_told() -> None:
    """Ids that stand side by side are one test, without those that are there twice."""
    chain = filter_grammar.parse_filter("port 1" + "||2||1" * 10_000, lambda _: None)
    assert chain is not None
    [operand] = chain.operands
    assert isinstance(operand.part, filter_grammar.Test)
    assert operand.part.values == ((1, 1), (2, 2))


@pytest.mark.parametrize(("link_type", "snap"), [(113, 10), (1, 0), (1, 1 << 32)])
def test_other_link_types_and_lengths_are_refused(link_type: int, snap: int) -> None:
    """A caller's mistake is no fault of the filter."""
    with pytest.raises(ValueError, match="must be"):
        compile_filter("tcp", link_type, snap)


WORDS = [*sorted(filter_grammar.KEYWORDS), "(", ")", "53", "1-9", "10.0.0.1", "10/8", "::1", "\\ip",
         "2:0:0:0:0:1", "é", "\0", "0x", "255.0.0.0", "-", "/"]  # fmt: skip


def no_other_error(texts: int, make: Callable[[random.Random], str]) -> int:
    """Compile random texts; return how many were filters."""
    chance, right = random.Random(5), 0
    for _ in range(texts):
        text = make(chance)
        with suppress(FilterError):
            to_bytes(compile_filter(text, chance.choice([ETHERNET, RAW])))
            right += 1
    return right


def _of_words(chance: random.Random) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(chance.randrange(8)))


def _of_characters(chance: random.Random) -> str:
    letters = "host pr()!&|/.:-0129afx\\ \t²é\n[]=<>\ud800"
    return "".join(chance.choice(letters) for _ in range(chance.randrange(20)))


def test_no_text_causes_another_error() -> None:
    """Random words and characters are filters, or a FilterError."""
    assert no_other_error(3000, _of_words)
    assert no_other_error(2000, _of_characters)


@pytest.mark.slow
def test_none_of_many_texts_causes_another_error() -> None:
    """The same for a hundred thousand."""
    assert no_other_error(70_000, _of_words)
    assert no_other_error(30_000, _of_characters)
