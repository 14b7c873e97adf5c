"""ICMPv6 and neighbour discovery. The oracles are scapy, the kernel, and bytes by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from codec_laws import long, obey_all, obeys, quick, tried
from conftest import free_port
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS, ICMPExtension_MPLS
from scapy.layers.inet import TCP, UDP, ICMPExtension_Header
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    icmp6types,
)

from twistedsock.errors import PacketError
from twistedsock.wire import icmpv6
from twistedsock.wire import neighbour_discovery as nd
from twistedsock.wire import neighbour_options as options
from twistedsock.wire.icmp_names import TYPES_6, icmpv6_name
from twistedsock.wire.ipv6 import IPv6 as Packet

ADDRESSES = ("2001:db8::1", "2001:db8::9")
MAC = "02:00:5e:10:00:01"
QUOTED = bytes(IPv6(src="::1", dst="::1") / UDP(sport=5000, dport=9) / b"hi there")  # 56 bytes
PADDED = QUOTED + bytes(128 - len(QUOTED))
EXTENSIONS = bytes(ICMPExtension_Header() / ICMPExtension_MPLS(stack=[MPLS(b"\0\1\x23\x40")]))


def built(message: Any) -> bytes:
    """Return what scapy builds between ADDRESSES."""
    return bytes(IPv6(src=ADDRESSES[0], dst=ADDRESSES[1]) / message)[40:]


# what scapy builds, and what it is
PAIRS: list[tuple[bytes, icmpv6.Value]] = [
    (built(ICMPv6EchoRequest(id=7, seq=1, data=b"ping")), icmpv6.Echo(7, 1, b"ping")),
    (built(ICMPv6EchoReply(id=65535, seq=0)), icmpv6.Echo(65535, 0, is_reply=True)),
    (built(ICMPv6DestUnreach(code=4) / QUOTED), icmpv6.Unreachable(QUOTED, code=4)),
    (built(ICMPv6PacketTooBig(mtu=1400) / QUOTED), icmpv6.PacketTooBig(QUOTED, 1400)),
    (built(ICMPv6TimeExceeded(code=1) / QUOTED), icmpv6.TimeExceeded(QUOTED, code=1)),
    (
        built(ICMPv6ParamProblem(code=1, ptr=0x10006) / QUOTED),
        icmpv6.ParameterProblem(QUOTED, 0x10006, code=1),
    ),
    (built(ICMPv6Unknown(type=200, code=3, msgbody=b"?")), icmpv6.Other(200, b"?", code=3)),
    (built(ICMPv6ND_RS()), nd.RouterSolicitation()),
    (
        built(ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC)),
        nd.RouterSolicitation((options.SourceLinkAddress(MAC),)),
    ),
    (
        built(
            ICMPv6ND_RA(
                chlim=9, M=1, O=0, H=1, prf=3, P=1, routerlifetime=60, reachabletime=5,
                retranstimer=6,
            )
            / ICMPv6NDOptPrefixInfo(
                prefix="2001:db8:1::", prefixlen=48, L=0, A=1, R=1, validlifetime=7,
                preferredlifetime=8,
            )
            / ICMPv6NDOptMTU(mtu=1500)
            / ICMPv6NDOptRDNSS(dns=["2001:db8::53", "::1"], lifetime=9)
            / ICMPv6NDOptUnknown(type=200, len=1, data=b"6bytes")
        ),
        nd.RouterAdvertisement(
            (
                options.PrefixInformation("2001:db8:1::", 48, False, True, True, 7, 8),
                options.LinkMtu(1500),
                options.RecursiveDnsServers(("2001:db8::53", "::1"), 9),
                options.Option(200, b"6bytes"),
            ),
            9, 60, 5, 6, True, False, True, 3, True,
        ),
    ),
    (
        built(ICMPv6ND_NS(tgt="fe80::9") / ICMPv6NDOptSrcLLAddr(lladdr=MAC)),
        nd.NeighbourSolicitation((options.SourceLinkAddress(MAC),), "fe80::9"),
    ),
    (
        built(ICMPv6ND_NA(tgt="fe80::9", R=1, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MAC)),
        nd.NeighbourAdvertisement(
            (options.TargetLinkAddress(MAC),), "fe80::9", is_router=True, is_override=True
        ),
    ),
    (
        built(ICMPv6ND_NA(tgt="fe80::9", R=0, S=1, O=0)),
        nd.NeighbourAdvertisement((), "fe80::9", is_solicited=True),
    ),
    (
        built(
            ICMPv6ND_Redirect(tgt="fe80::9", dst="2001:db8::5")
            / ICMPv6NDOptRedirectedHdr(pkt=QUOTED)
        ),
        nd.Redirect((options.RedirectedHeader(QUOTED),), "fe80::9", "2001:db8::5"),
    ),
]  # fmt: skip
VALID = [data for data, _ in PAIRS] + [
    icmpv6.TimeExceeded(PADDED, EXTENSIONS).to_bytes(),
    icmpv6.Unreachable(PADDED[:40], missing_bytes=88).to_bytes(),
]
KINDS = [1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 200]


def parse(data: bytes) -> icmpv6.Value:
    """Return the message in *data*, which is between ADDRESSES."""
    return icmpv6.parse(data, *ADDRESSES)


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_scapy_builds_is_parsed(data: bytes, value: icmpv6.Value) -> None:
    """Each message of scapy is the value of its fields, whose checksum counts the addresses."""
    found = parse(data)
    assert found == parse(bytearray(data)) == parse(memoryview(data)) == value
    assert type(found) is type(value)
    assert (found.type, found.code) == (data[0], data[1])
    assert found.checksum == int.from_bytes(data[2:4], "big")
    assert (found.is_intact, value.is_intact) == (True, None)
    assert icmpv6.parse(data).is_intact is None
    assert icmpv6.parse(data, ADDRESSES[0], "2001:db8::8").is_intact is False


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_is_written_is_what_scapy_builds(data: bytes, value: icmpv6.Value) -> None:
    """Each value is byte for byte what scapy builds; without addresses the checksum is zero."""
    assert value.to_bytes(*ADDRESSES) == data
    assert value.to_bytes() == value.to_bytes(ADDRESSES[0]) == data[:2] + b"\0\0" + data[4:]


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=200), st.booleans())
@quick
def test_echoes_are_scapys(identifier: int, sequence: int, payload: bytes, is_reply: bool) -> None:
    """Any echo is byte for byte what scapy builds of its fields."""
    kind = ICMPv6EchoReply if is_reply else ICMPv6EchoRequest
    data = built(kind(id=identifier, seq=sequence, data=payload))
    value = icmpv6.Echo(identifier, sequence, payload, is_reply)
    assert value.to_bytes(*ADDRESSES) == data
    assert parse(data) == value


def test_a_zone_does_not_count_in_the_checksum() -> None:
    """Addresses may have the zone that sockets tell."""
    data = icmpv6.Echo(1, 2).to_bytes("fe80::1%3", "ff02::1%eth0")
    assert data == icmpv6.Echo(1, 2).to_bytes("fe80::1", "ff02::1")
    assert icmpv6.parse(data, "fe80::1%9", "ff02::1").is_intact is True


# -- what errors quote --


def test_the_quoted_packet_is_parsed() -> None:
    """An error gives the packet that it is about, past its extension headers."""
    quoted = bytes(IPv6(src="::1", dst="::2") / IPv6ExtHdrDestOpt() / TCP(sport=1, dport=2))
    found = icmpv6.TimeExceeded(quoted)
    packet = found.quoted_packet()
    assert isinstance(packet, Packet)
    assert (packet.source, packet.destination, packet.protocol) == ("::1", "::2", 6)
    line = "ICMPv6 hop limit exceeded in transit (TCP [::1]:1 > [::2]:2)"
    assert found.describe() == line
    assert icmpv6.TimeExceeded(quoted[:39]).quoted_packet() is None


@pytest.mark.parametrize("kind", [icmpv6.Unreachable, icmpv6.TimeExceeded])
def test_extensions_are_written_with_the_length(kind: Callable[..., Any]) -> None:
    """The length byte counts words of 8 bytes (RFC 4884 section 4), and scapy finds them."""
    value = kind(PADDED, EXTENSIONS)
    written = value.to_bytes(*ADDRESSES)
    assert written[4] == 16
    assert parse(written) == value
    scapys = {1: ICMPv6DestUnreach, 3: ICMPv6TimeExceeded}[written[0]](written)
    assert scapys.ext.payload.stack[0].label == 18
    assert parse(written[:100]) == kind(PADDED[:92], missing_bytes=36)


# -- options --


def option(kind: int, words: int, data: bytes) -> bytes:
    """Return a router solicitation with one option."""
    return b"\x85" + bytes(7) + bytes([kind, words]) + data


@pytest.mark.parametrize(
    ("kind", "words", "data"),
    [
        (3, 1, bytes(6)),
        (5, 2, bytes(14)),
        (25, 1, bytes(6)),
        (25, 2, bytes(14)),
        (25, 4, bytes(30)),
        (14, 1, b"nonce!"),
    ],
)
def test_an_option_of_another_form_is_kept_as_it_is(kind: int, words: int, data: bytes) -> None:
    """An option whose length does not fit its kind, or of no known kind, is its bytes."""
    found = icmpv6.parse(option(kind, words, data))
    assert found == nd.RouterSolicitation((options.Option(kind, data),))
    assert icmpv6.parse(found.to_bytes()) == found


def test_link_addresses_may_be_longer() -> None:
    """Links with longer addresses than Ethernet's fill two words (RFC 4944 section 8)."""
    found = icmpv6.parse(option(1, 2, bytes(range(14))))
    text = "00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d"
    assert found == nd.RouterSolicitation((options.SourceLinkAddress(text),))


def test_an_option_that_was_cut_off_tells_what_is_missing() -> None:
    """The last option has what is there; a lone byte behind the last is left out."""
    found = parse(option(3, 4, bytes(20)))
    assert found == nd.RouterSolicitation((options.Option(3, bytes(20), 10),))
    assert isinstance(found, nd.RouterSolicitation)
    assert (found.missing_bytes, found.is_intact) == (10, None)
    assert icmpv6.parse(option(14, 1, b"nonce!\3")) == icmpv6.parse(option(14, 1, b"nonce!"))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "icmpv6: a message has 4 bytes at least, got 0"),
        (b"\x80\0\0\0\0\0\0", "icmpv6: echo request has 8 bytes at least, got 7"),
        (b"\x02\0\0\0\0\0\0", "icmpv6: packet too big has 8 bytes at least, got 7"),
        (
            b"\x87" + bytes(22),
            "neighbour_discovery: neighbour solicitation has 24 bytes at least, got 23",
        ),
        (b"\x89" + bytes(38), "neighbour_discovery: redirect has 40 bytes at least, got 39"),
        (
            option(1, 0, bytes(6)),
            "neighbour_discovery: option 1 at byte 0 has a length of 0",
        ),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, text: str) -> None:
    """What is too short for its type, or has an option without a length, says why."""
    with pytest.raises(PacketError) as caught:
        icmpv6.parse(data)
    assert str(caught.value) == text


@pytest.mark.parametrize("data", [b"", b"\x80" + bytes(30)])
def test_discovery_refuses_other_types(data: bytes) -> None:
    """The parse of neighbour discovery alone names its types."""
    with pytest.raises(PacketError, match=r"^neighbour_discovery: type must be one of 133, "):
        nd.parse(data)


@pytest.mark.parametrize("addresses", [("127.0.0.1", "127.0.0.1"), ("::1", "x"), ("y", "::1")])
def test_the_addresses_must_be_of_ipv6(addresses: tuple[str, str]) -> None:
    """Addresses that ICMPv6 cannot have are refused, both ways."""
    message = "^icmpv6: (source|destination) must be an IPv6 address, got "
    with pytest.raises(PacketError, match=message):
        icmpv6.parse(PAIRS[0][0], *addresses)
    with pytest.raises(PacketError, match=message):
        icmpv6.Echo(1, 2).to_bytes(*addresses)


WORDS = "an option has a type of 0..255 and 8..2040 bytes, in words of 8; got type"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (icmpv6.Echo(65536, 0), "icmpv6: identifier must be 0..65535, got 65536"),
        (icmpv6.PacketTooBig(mtu=1 << 32), "icmpv6: mtu must be 0..4294967295, got 4294967296"),
        (icmpv6.ParameterProblem(pointer=-1), "icmpv6: pointer must be 0..4294967295, got -1"),
        (icmpv6.Other(128), "icmpv6: type 128, echo request, has a class of its own"),
        (icmpv6.Other(130), "icmpv6: type 130, multicast listener query, has a class of its own"),
        (icmpv6.Other(135), "icmpv6: type 135, neighbour solicitation, has a class of its own"),
        (
            icmpv6.TimeExceeded(QUOTED[:28], EXTENSIONS),
            "icmpv6: a quotation whose length is told is padded to 8..2040 bytes in words of 8,"
            " got 28",
        ),
        (
            nd.NeighbourSolicitation(target="127.0.0.1"),
            "neighbour_discovery: target must be an IPv6 address, got '127.0.0.1'",
        ),
        (
            nd.RouterAdvertisement(preference=4),
            "neighbour_discovery: preference must be 0..3, got 4",
        ),
        (
            nd.RouterSolicitation((options.Option(200, b"123"),)),
            f"neighbour_discovery: {WORDS} 200 and 5 bytes",
        ),
        (
            nd.RouterSolicitation((options.RedirectedHeader(QUOTED[:41]),)),
            f"neighbour_discovery: {WORDS} 4 and 49 bytes",
        ),
        (
            nd.RouterSolicitation((options.Option(256, b"6bytes"),)),
            f"neighbour_discovery: {WORDS} 256 and 8 bytes",
        ),
        (
            nd.RouterSolicitation((options.Option(200, b"", 6), options.LinkMtu(1))),
            "neighbour_discovery: only the last option can be cut off",
        ),
        (
            nd.RouterSolicitation((options.Option(1, b"6bytes"),)),
            "neighbour_discovery: option 1 of 6 bytes of data has a class of its own",
        ),
        (
            nd.RouterSolicitation((options.SourceLinkAddress("02-00"),)),
            "neighbour_discovery: address must be bytes like aa:bb:cc, got '02-00'",
        ),
        (
            nd.RouterSolicitation((options.LinkMtu(-1),)),
            "neighbour_discovery: mtu must be 0..4294967295, got -1",
        ),
        (
            nd.RouterSolicitation((options.RecursiveDnsServers(()),)),
            "neighbour_discovery: an option of DNS servers has one at least",
        ),
        (
            nd.RouterSolicitation((options.PrefixInformation("::", 256),)),
            "neighbour_discovery: prefix_length must be 0..255, got 256",
        ),
    ],
)
def test_what_does_not_fit_is_refused(value: icmpv6.Value, text: str) -> None:
    """A field that does not fit is named, with what would be right; describing it still works."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == text
    assert value.describe().startswith("ICMPv6 ")


# -- for people --


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (icmpv6.Echo(7, 1, bytes(56)), "ICMPv6 echo request id 7 seq 1 length 64"),
        (
            icmpv6.Unreachable(QUOTED, code=4),
            "ICMPv6 port unreachable (UDP [::1]:5000 > [::1]:9)",
        ),
        (
            icmpv6.PacketTooBig(QUOTED, 1400),
            "ICMPv6 packet too big, MTU 1400 (UDP [::1]:5000 > [::1]:9)",
        ),
        (
            icmpv6.ParameterProblem(b"", 40, code=2),
            "ICMPv6 unrecognised IPv6 option at byte 40 (0 bytes quoted)",
        ),
        (icmpv6.Other(155, b"\n", code=1), "ICMPv6 RPL control code 1 length 5"),
        (
            PAIRS[9][1],
            "ICMPv6 router advertisement for 60s, prefix 2001:db8:1::/48, MTU 1500,"
            " DNS 2001:db8::53",
        ),
        (PAIRS[10][1], f"ICMPv6 neighbour solicitation fe80::9, from {MAC}"),
        (PAIRS[11][1], f"ICMPv6 neighbour advertisement fe80::9, at {MAC}"),
        (
            PAIRS[13][1],
            "ICMPv6 redirect 2001:db8::5 to fe80::9 (UDP [::1]:5000 > [::1]:9)",
        ),
        (nd.Redirect((), "fe80::9", "::5"), "ICMPv6 redirect ::5 to fe80::9"),
    ],
)
def test_a_message_is_one_line(value: icmpv6.Value, line: str) -> None:
    """The line has what people look for."""
    assert value.describe() == line


def test_the_table_has_every_name_that_scapy_has() -> None:
    """Each type that scapy names has a name here, too, but for those without a meaning."""
    experiments = {100, 101, 127, 150, 200, 201, 255}  # and what is reserved for expansion
    assert set(icmp6types) - experiments <= set(TYPES_6)
    assert icmpv6_name(1, 4) == "port unreachable"
    assert icmpv6_name(250, 7) == "type 250 code 7"


# -- any bytes --


@pytest.mark.parametrize("data", VALID)
def test_every_truncation_is_a_value_or_an_error(data: bytes) -> None:
    """A message cut off at any length is a value that is written again, or a PacketError."""
    for length in range(len(data) + 1):
        obeys(data[:length], parse, *ADDRESSES)


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_a_value_or_an_error(drawn: bytes) -> None:
    """Random bytes, and valid messages with bytes changed, keep the laws of the codecs."""
    obeys(tried(drawn, KINDS, VALID), parse, *ADDRESSES)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@long
def test_very_many_bytes_are_a_value_or_an_error(seed: int) -> None:
    """The same of 100,000 messages."""
    obey_all(seed, parse, KINDS, VALID, *ADDRESSES)


# -- the kernel's --


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A raw ICMPv6 socket on loopback."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    except OSError:
        pytest.skip("needs IPv6")
    with sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6 on loopback")
        yield sock


def heard(sock: socket.socket, wanted: Callable[[icmpv6.Value], bool]) -> icmpv6.Value:
    """Return the first message at *sock* that is *wanted*, from ::1 to itself."""
    end = time.monotonic() + 5
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        found = icmpv6.parse(sock.recv(65535), "::1", "::1")
        if wanted(found):
            return found
    raise AssertionError("not within 5 s")


def test_the_kernel_answers_a_ping(listening: socket.socket) -> None:
    """The kernel fills in the checksum of what is written without one, and answers."""
    request = icmpv6.Echo(0x7E57, 3, b"a ping of one's own")
    listening.sendto(request.to_bytes(), ("::1", 0))
    wanted = icmpv6.Echo(0x7E57, 3, b"a ping of one's own", is_reply=True)
    assert heard(listening, lambda found: found == request).is_intact is True
    assert heard(listening, lambda found: found == wanted).is_intact is True


def test_the_kernels_unreachable_is_parsed(listening: socket.socket) -> None:
    """A datagram to a closed port is quoted in the kernel's port unreachable."""
    closed = free_port(socket.SOCK_DGRAM, "::1")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind(("::1", 0))
        port = peer.getsockname()[1]
        for _ in range(5):  # the kernel's limit of ICMP errors may eat some
            peer.sendto(b"nobody?", ("::1", closed))
            time.sleep(0.01)
        line = f"ICMPv6 port unreachable (UDP [::1]:{port} > [::1]:{closed})"
        found = heard(listening, lambda found: found.describe() == line)
    assert isinstance(found, icmpv6.Unreachable)
    assert (found.code, found.is_intact) == (icmpv6.PORT_UNREACHABLE, True)
    packet = found.quoted_packet()
    assert packet is not None
    assert packet.payload.endswith(b"nobody?")
