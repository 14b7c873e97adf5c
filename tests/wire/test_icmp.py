"""ICMP. The oracles are scapy, the kernel, and bytes by hand."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from codec_laws import long, obey_all, obeys, quick, tried
from conftest import free_port
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS, ICMPExtension_MPLS
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    ICMPExtension_Header,
    IPerror,
    UDPerror,
    icmpcodes,
    icmptypes,
)

from twistedsock.errors import PacketError
from twistedsock.wire import icmp, quotation
from twistedsock.wire.icmp_names import CODES, TYPES, icmp_name
from twistedsock.wire.ipv4 import IPv4
from twistedsock.wire.ipv4 import parse as parse_ipv4
from twistedsock.wire.quotation import ExtensionObject, MplsLabel

QUOTED = bytes(IP(src="127.0.0.1", dst="127.0.0.1") / UDP(sport=5000, dport=9) / b"hello!")
PADDED = QUOTED + bytes(128 - len(QUOTED))
LABELS = bytes.fromhex("0001224000045101")  # 18, class 1, TTL 64; 69, the bottom, TTL 1
EXTENSIONS = bytes(ICMPExtension_Header() / ICMPExtension_MPLS(stack=[MPLS(LABELS[:4])]))


def raw(packet: Any, body: bytes = b"") -> bytes:
    """Return what scapy builds, its checksum of all of it."""
    return bytes(packet / body)


# what scapy builds, and what it is
PAIRS: list[tuple[bytes, icmp.Value]] = [
    (raw(ICMP(type=8, id=7, seq=1), b"ping"), icmp.Echo(7, 1, b"ping")),
    (raw(ICMP(type=0, id=65535, seq=0)), icmp.Echo(65535, 0, is_reply=True)),
    (raw(ICMP(type=8, code=5, id=0, seq=9), b"x"), icmp.Echo(0, 9, b"x", code=5)),
    (raw(ICMP(type=3, code=3), QUOTED), icmp.Unreachable(QUOTED, code=3)),
    (
        raw(ICMP(type=3, code=4, nexthopmtu=1300), QUOTED),
        icmp.Unreachable(QUOTED, next_hop_mtu=1300, code=4),
    ),
    (
        raw(ICMP(type=3, code=1, length=5), QUOTED[:20]),
        icmp.Unreachable(QUOTED[:20], code=1),
    ),
    (raw(ICMP(type=11, code=1), QUOTED), icmp.TimeExceeded(QUOTED, code=1)),
    (
        raw(ICMP(type=12, code=0, ptr=20), QUOTED),
        icmp.ParameterProblem(QUOTED, pointer=20),
    ),
    (
        raw(ICMP(type=5, code=1, gw="192.0.2.254"), QUOTED),
        icmp.Redirect("192.0.2.254", QUOTED, code=1),
    ),
    (raw(ICMP(type=4), QUOTED), icmp.SourceQuench(QUOTED)),
    (
        raw(ICMP(type=13, id=3, seq=4, ts_ori=1, ts_rx=2, ts_tx=86_399_999)),
        icmp.Timestamp(3, 4, 1, 2, 86_399_999),
    ),
    (
        raw(ICMP(type=14, id=3, seq=4, ts_ori=1, ts_rx=2, ts_tx=0xFFFFFFFF)),
        icmp.Timestamp(3, 4, 1, 2, 0xFFFFFFFF, is_reply=True),
    ),
    (raw(ICMP(type=10)), icmp.RouterSolicitation()),
    (
        raw(ICMP(type=9), b"")[:4]
        + struct.pack("!BBH4si4si", 2, 2, 1800, bytes([192, 0, 2, 1]), 7, bytes(4), -(2**31)),
        icmp.RouterAdvertisement((("192.0.2.1", 7), ("0.0.0.0", -(2**31)))),
    ),
    (
        raw(ICMP(type=17, id=1, seq=2, addr_mask="255.255.255.0")),
        icmp.Other(17, bytes.fromhex("00010002ffffff00")),
    ),
    (raw(ICMP(type=200, code=9), b"??"), icmp.Other(200, b"\0\0\0\0??", code=9)),
]
VALID = [data for data, _ in PAIRS] + [
    icmp.TimeExceeded(PADDED, EXTENSIONS).to_bytes(),
    icmp.Unreachable(PADDED[:40], missing_bytes=88).to_bytes(),
]
KINDS = [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 42]


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_scapy_builds_is_parsed(data: bytes, value: icmp.Value) -> None:
    """Each message of scapy is the value of its fields, whose checksum is told."""
    found = icmp.parse(data)
    assert found == icmp.parse(bytearray(data)) == icmp.parse(memoryview(data)) == value
    assert type(found) is type(value)
    assert found.type == data[0]
    assert found.checksum == int.from_bytes(data[2:4], "big")
    assert (value.checksum, value.is_intact) == (None, None)


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_is_written_is_what_scapy_builds(data: bytes, value: icmp.Value) -> None:
    """Each value is written as scapy reads it, with the checksum that scapy makes of it."""
    written = value.to_bytes()
    dissected = ICMP(written)
    assert (dissected.type, dissected.code) == (value.type, value.code)
    claimed = dissected.chksum
    assert ICMP(raw(ICMP(written[:2] + b"\0\0" + written[4:]))).chksum in (0, claimed)
    assert scapy_sum(written) == claimed
    if data[0] != icmp.ROUTER_ADVERTISEMENT and not data[5]:  # which scapy does not build whole
        assert written == data
    assert icmp.parse(written).is_intact is True


def scapy_sum(message: bytes) -> int:
    """Return the checksum that scapy makes of *message*."""
    from scapy.utils import checksum

    return int(checksum(message[:2] + b"\0\0" + message[4:]))


@given(st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=200), st.booleans())
@quick
def test_echoes_are_scapys(identifier: int, sequence: int, payload: bytes, is_reply: bool) -> None:
    """Any echo is byte for byte what scapy builds of its fields."""
    built = raw(ICMP(type=0 if is_reply else 8, id=identifier, seq=sequence), payload)
    value = icmp.Echo(identifier, sequence, payload, is_reply)
    assert value.to_bytes() == built
    assert icmp.parse(built) == value


def test_a_changed_message_is_not_intact() -> None:
    """A message with one bit changed is parsed, and told to be broken."""
    data = bytearray(PAIRS[0][0])
    data[-1] ^= 1
    assert icmp.parse(data).is_intact is False


# -- what errors quote --


def test_the_quoted_packet_is_parsed() -> None:
    """An error gives the packet that it is about, cut off as it is."""
    found = icmp.parse(raw(ICMP(type=11), QUOTED[:28]))
    assert isinstance(found, icmp.TimeExceeded)
    packet = found.quoted_packet()
    assert isinstance(packet, IPv4)
    assert (packet.source, packet.destination, packet.protocol) == ("127.0.0.1", "127.0.0.1", 17)
    assert packet.missing_bytes == 6


@pytest.mark.parametrize("quoted", [b"", b"\x45", QUOTED[:19], b"\x60" + QUOTED[1:], bytes(40)])
def test_a_quotation_without_a_whole_header_is_no_packet(quoted: bytes) -> None:
    """What does not hold a header gives None, and is told by its length."""
    value = icmp.Unreachable(quoted, code=3)
    assert value.quoted_packet() is None
    assert value.describe() == f"ICMP port unreachable ({len(quoted)} bytes quoted)"


def test_the_extensions_of_scapy_are_found() -> None:
    """Scapy tells no length: extensions behind 128 bytes are known by their checksum."""
    built = bytes(
        ICMP(type=11, ext=ICMPExtension_Header() / ICMPExtension_MPLS(stack=[MPLS(LABELS[:4])]))
        / IPerror(src="127.0.0.1", dst="127.0.0.1")
        / UDPerror(sport=5000, dport=9)
    )
    found = icmp.parse(built)
    assert isinstance(found, icmp.TimeExceeded)
    assert (len(found.quoted), found.extensions) == (128, EXTENSIONS)
    [mpls] = quotation.objects(found.extensions)
    assert mpls == ExtensionObject(1, 1, LABELS[:4])
    assert quotation.mpls_labels((mpls,)) == (MplsLabel(18, 1, False, 64),)


@pytest.mark.parametrize("kind", [icmp.Unreachable, icmp.TimeExceeded, icmp.ParameterProblem])
def test_extensions_are_written_with_the_length(kind: Callable[..., Any]) -> None:
    """The length byte counts words of 4 bytes (RFC 4884 section 4), and scapy finds them."""
    value = kind(PADDED, EXTENSIONS)
    written = value.to_bytes()
    assert written[5] == 32
    assert written[136:] == EXTENSIONS
    assert icmp.parse(written) == value
    assert ICMP(written).ext.payload.stack[0].label == 18


def test_objects_are_written_and_read() -> None:
    """Objects have the bytes that scapy gives them, and are read back."""
    found = (ExtensionObject(1, 1, LABELS), ExtensionObject(2, 6, b"eth0"))
    written = quotation.objects_to_bytes(found)
    assert quotation.objects(written) == found
    [top] = ICMPExtension_Header(written).payload.stack  # scapy puts one label into the other
    told = [(each.label, each.s, each.ttl) for each in (top, top.payload)]
    assert told == [(18, 0, 64), (69, 1, 1)]
    assert quotation.objects_to_bytes(found[:0]) == b"\x20\0\xdf\xff"
    with pytest.raises(PacketError, match=r"^quotation: .*: 256, 0$"):
        quotation.objects_to_bytes((ExtensionObject(256, 0),))


@pytest.mark.parametrize(
    ("extensions", "count"),
    [
        (b"", 0),
        (EXTENSIONS[:3], 0),
        (b"\x10" + EXTENSIONS[1:], 0),
        (EXTENSIONS[:-1] + b"\xee", 0),
        (EXTENSIONS[:2] + b"\0\0" + EXTENSIONS[4:], 1),
        (b"\x20\0\0\0\0\3\1\1", 0),
        (b"\x20\0\0\0\0\x0c\1\1abcd", 0),
        (b"\x20\0\0\0\0\4\1\1\xff", 1),
    ],
)
def test_lying_extensions_have_no_objects(extensions: bytes, count: int) -> None:
    """A wrong version, checksum or length ends the objects, and a checksum of zero is none."""
    assert len(quotation.objects(extensions)) == count


def test_a_quotation_that_was_cut_off_tells_what_is_missing() -> None:
    """A told length above what is there is missing bytes, and the checksum is not judged."""
    whole = icmp.TimeExceeded(PADDED, EXTENSIONS).to_bytes()
    found = icmp.parse(whole[:100])
    assert found == icmp.TimeExceeded(PADDED[:92], missing_bytes=36)
    assert found.is_intact is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (icmp.Echo(65536, 0), "icmp: identifier must be 0..65535, got 65536"),
        (icmp.Echo(1, -1), "icmp: sequence must be 0..65535, got -1"),
        (icmp.Echo(1, 1, code=256), "icmp: code must be 0..255, got 256"),
        (icmp.Echo(1, 1, bytes(65528)), "icmp: at most 65535 bytes in all, got 65536"),
        (icmp.Other(256), "icmp: type must be 0..255, got 256"),
        (icmp.Other(13, bytes(16)), "icmp: type 13, timestamp request, has a class of its own"),
        (icmp.Redirect("::1"), "icmp: gateway must be an IPv4 address, got '::1'"),
        (icmp.ParameterProblem(pointer=256), "icmp: pointer must be 0..255, got 256"),
        (icmp.Unreachable(next_hop_mtu=1 << 16), "icmp: next_hop_mtu must be 0..65535, got 65536"),
        (icmp.Timestamp(1, 1, 1 << 32), "icmp: originate_ms must be 0..4294967295, got 4294967296"),
        (
            icmp.TimeExceeded(QUOTED[:27], EXTENSIONS),
            "icmp: a quotation whose length is told is padded to 4..1020 bytes in words of 4,"
            " got 27",
        ),
        (
            icmp.TimeExceeded(QUOTED, EXTENSIONS, 4),
            "icmp: extensions cannot follow a quotation that was cut off",
        ),
        (
            icmp.RouterAdvertisement((("192.0.2.1", 0),) * 256),
            "icmp: at most 255 addresses of 8 bytes, missing ones too, got 256",
        ),
        (
            icmp.RouterAdvertisement((("192.0.2.1", 1 << 31),)),
            "icmp: a preference must be -2**31..2**31-1, got 2147483648",
        ),
    ],
)
def test_what_does_not_fit_is_refused(value: icmp.Value, text: str) -> None:
    """A field that does not fit is named, with what would be right; describing it still works."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == text
    assert value.describe().startswith("ICMP ")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "icmp: a message has 4 bytes at least, got 0"),
        (b"\x08\0\0", "icmp: echo request has 8 bytes at least, got 3"),
        (b"\x0d\0\0\0" + bytes(15), "icmp: timestamp request has 20 bytes at least, got 19"),
        (b"\x03\0\0\0\0", "icmp: destination unreachable has 8 bytes at least, got 5"),
        (b"\x09\0\0\0\1\1\0\0", "icmp: a router's entry has 2 words at least, got 1"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, text: str) -> None:
    """What is too short for its type, or contradicts itself, is refused and says why."""
    with pytest.raises(PacketError) as caught:
        icmp.parse(data)
    assert str(caught.value) == text


def test_long_router_entries_are_read() -> None:
    """Entries longer than two words have more behind them; those that are cut off are missing."""
    entry = bytes([192, 0, 2, 1]) + bytes(4) + b"more"
    found = icmp.parse(struct.pack("!BBHBBH", 9, 16, 0, 3, 3, 60) + entry + entry[:9])
    told = (("192.0.2.1", 0),) * 2
    assert found == icmp.RouterAdvertisement(told, 60, missing_bytes=8, code=16)


# -- for people --


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (icmp.Echo(7, 1, bytes(56)), "ICMP echo request id 7 seq 1 length 64"),
        (icmp.Echo(7, 1, is_reply=True), "ICMP echo reply id 7 seq 1 length 8"),
        (
            icmp.Unreachable(QUOTED, code=3),
            "ICMP port unreachable (UDP 127.0.0.1:5000 > 127.0.0.1:9)",
        ),
        (
            icmp.Unreachable(QUOTED[:20], next_hop_mtu=1300, code=4),
            "ICMP fragmentation needed, next-hop MTU 1300 (UDP 127.0.0.1 > 127.0.0.1)",
        ),
        (icmp.Unreachable(b"", code=99), "ICMP destination unreachable code 99 (0 bytes quoted)"),
        (
            icmp.TimeExceeded(bytes(IP(src="1.2.3.4", dst="5.6.7.8") / TCP(sport=1, dport=2))),
            "ICMP time to live exceeded in transit (TCP 1.2.3.4:1 > 5.6.7.8:2)",
        ),
        (
            icmp.TimeExceeded(bytes(IP(src="1.2.3.4", dst="5.6.7.8", frag=9, proto=6) / bytes(8))),
            "ICMP time to live exceeded in transit (TCP 1.2.3.4 > 5.6.7.8)",
        ),
        (
            icmp.TimeExceeded(bytes(IP(src="1.2.3.4", dst="5.6.7.8", proto=253) / bytes(8))),
            "ICMP time to live exceeded in transit (protocol 253 1.2.3.4 > 5.6.7.8)",
        ),
        (icmp.ParameterProblem(pointer=9), "ICMP parameter problem at byte 9 (0 bytes quoted)"),
        (
            icmp.Redirect("192.0.2.254", QUOTED, code=1),
            "ICMP redirect for the host to 192.0.2.254 (UDP 127.0.0.1:5000 > 127.0.0.1:9)",
        ),
        (icmp.SourceQuench(), "ICMP source quench (0 bytes quoted)"),
        (icmp.Timestamp(1, 2, 3, 4, 5), "ICMP timestamp request id 1 seq 2 ms 3 4 5"),
        (icmp.RouterSolicitation(), "ICMP router solicitation"),
        (
            icmp.RouterAdvertisement((("192.0.2.1", 0),) * 2, 60),
            "ICMP router advertisement of 2 addresses, 192.0.2.1 first for 60s",
        ),
        (icmp.Other(200, b"\n\x1b", code=1), "ICMP type 200 code 1 length 6"),
    ],
)
def test_a_message_is_one_line(value: icmp.Value, line: str) -> None:
    """The line has what people look for."""
    assert value.describe() == line


def test_the_tables_have_every_name_that_scapy_has() -> None:
    """Each type and code that scapy names has a name here, too."""
    unassigned = {31, 32, 33, 34, 35, 36, 37, 38, 39}  # deprecated by RFC 6918, never in use
    assert set(icmptypes) - unassigned <= set(TYPES)
    for kind, codes in icmpcodes.items():
        for code in codes:
            assert (kind, code) in CODES or kind == 40  # photuris, experimental
    assert icmp_name(3, 4) == "fragmentation needed"
    assert icmp_name(8) == "echo request"
    assert icmp_name(250, 7) == "type 250 code 7"


# -- any bytes --


@pytest.mark.parametrize("data", VALID)
def test_every_truncation_is_a_value_or_an_error(data: bytes) -> None:
    """A message cut off at any length is a value that is written again, or a PacketError."""
    for length in range(len(data) + 1):
        obeys(data[:length], icmp.parse)


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_a_value_or_an_error(drawn: bytes) -> None:
    """Random bytes, and valid messages with bytes changed, keep the laws of the codecs."""
    obeys(tried(drawn, KINDS, VALID), icmp.parse)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@long
def test_very_many_bytes_are_a_value_or_an_error(seed: int) -> None:
    """The same of 100,000 messages."""
    obey_all(seed, icmp.parse, KINDS, VALID)


@given(st.binary(max_size=200), st.binary(max_size=60))
@quick
def test_any_extensions_keep_the_laws(quoted: bytes, extensions: bytes) -> None:
    """Whatever stands behind the quotation is kept, and its objects are read without an error."""
    quoted += bytes(-len(quoted) % 4)
    if quoted or not extensions:
        value = icmp.TimeExceeded(quoted, extensions)
        assert icmp.parse(value.to_bytes()) == value
    found = quotation.objects(extensions)
    quotation.mpls_labels(found)
    assert quotation.objects(quotation.objects_to_bytes(found)) == found


# -- the kernel's --


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A raw ICMP socket on loopback."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def heard(sock: socket.socket, wanted: Callable[[icmp.Value], bool]) -> icmp.Value:
    """Return the first message at *sock* that is *wanted*."""
    end = time.monotonic() + 5
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        found = icmp.parse(parse_ipv4(sock.recv(65535)).payload)
        if wanted(found):
            return found
    raise AssertionError("not within 5 s")


def test_the_kernel_answers_a_ping(listening: socket.socket) -> None:
    """The kernel takes an echo request as right, and its reply is parsed."""
    request = icmp.Echo(0x7E57, 3, b"a ping of one's own")
    listening.sendto(request.to_bytes(), ("127.0.0.1", 0))
    wanted = icmp.Echo(0x7E57, 3, b"a ping of one's own", is_reply=True)
    assert heard(listening, lambda found: found == wanted).is_intact is True


def test_the_kernels_unreachable_is_parsed(listening: socket.socket) -> None:
    """A datagram to a closed port is quoted in the kernel's port unreachable."""
    closed = free_port(socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        port = peer.getsockname()[1]
        for _ in range(5):  # the kernel's limit of ICMP errors may eat some
            peer.sendto(b"nobody?", ("127.0.0.1", closed))
            time.sleep(0.01)
        line = f"ICMP port unreachable (UDP 127.0.0.1:{port} > 127.0.0.1:{closed})"
        found = heard(listening, lambda found: found.describe() == line)
    assert isinstance(found, icmp.Unreachable)
    assert found.is_intact is True
    assert found.code == icmp.PORT_UNREACHABLE
    packet = found.quoted_packet()
    assert packet is not None
    assert packet.payload.endswith(b"nobody?")
