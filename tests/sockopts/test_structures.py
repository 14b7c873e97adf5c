"""Structures. The oracles are layouts written out by hand, and the kernel on loopback."""

from __future__ import annotations

import os
import re
import socket
import struct
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.catalogue import make_form
from twistedsock.sockopts.kernel import get_value, set_value
from twistedsock.sockopts.structures import (
    HIDDEN,
    HOLDING_KEYS,
    MAX_READ_BYTES,
    REPEATED,
    STRUCTURES,
    read_tcp_info,
    show_sockaddr,
)

quick = settings(max_examples=200, deadline=None)

CELLS = sorted({option.value for option in CATALOGUE.values()})
KEY = "correct horse battery staple"

# What `tcpdump -ddd` prints for a program that keeps datagrams whose first byte is an A:
# ldb [0]; jeq #0x41 jt 0 jf 1; ret #65535; ret #0
FIRST_IS_A = "4\n48 0 0 0\n21 0 1 65\n6 0 0 65535\n6 0 0 0\n"
INSTRUCTIONS = [[48, 0, 0, 0], [21, 0, 1, 65], [6, 0, 0, 65535], [6, 0, 0, 0]]
PACKED = b"".join(struct.pack("=HBBI", *line) for line in INSTRUCTIONS)


def ports(low: int, high: int) -> int:
    """Return the C int whose lower half is *low* and whose upper half is *high*."""
    number = low | high << 16
    return number if number < 2**31 else number - 2**32


def md5sig(address: bytes, key: bytes, flags: int = 0, prefix: int = 0) -> bytes:
    """Return a ``struct tcp_md5sig`` written out by hand (linux/tcp.h)."""
    return (
        address.ljust(128, b"\0") + bytes((flags, prefix)) + struct.pack("=Hi80s", len(key), 0, key)
    )


PEER4 = struct.pack("=HH4B", socket.AF_INET, 0, 10, 0, 0, 1)
PEER6 = struct.pack("=HHI", socket.AF_INET6, 0, 0) + bytes(15) + b"\1"

# A form, what is written, and what the kernel takes.
WRITTEN: list[tuple[str, object, int | bytes]] = [
    ("port-range", "40000-40999", ports(40000, 40999)),
    ("port-range", "1-65535", ports(1, 65535)),
    ("port-range", "7-7", ports(7, 7)),
    ("port-range", "0-0", 0),
    ("port-range", "0-9", ports(0, 9)),
    ("port-range", "9-0", ports(9, 0)),
    ("fprog", FIRST_IS_A, PACKED),
    ("fprog", INSTRUCTIONS, PACKED),
    ("fprog", tuple(map(tuple, INSTRUCTIONS)), PACKED),
    ("fprog", "48 0 0 0,21 0 1 65;6 0 0 65535\n\n6 0 0 0", PACKED),
    ("fprog", "4,48 0 0 0,21 0 1 65,6 0 0 65535,6 0 0 0", PACKED),
    ("fprog", [[65535, 255, 255, 2**32 - 1]], b"\xff" * 8),
    ("icmp-filter", [], bytes(4)),
    ("icmp-filter", "", bytes(4)),
    ("icmp-filter", [0, 8], struct.pack("=I", 0x101)),
    ("icmp-filter", "0, 8", struct.pack("=I", 0x101)),
    ("icmp-filter", (31, "31"), struct.pack("=I", 1 << 31)),
    ("icmp6-filter", [0, 32, 255], struct.pack("=8I", 1, 1, 0, 0, 0, 0, 0, 1 << 31)),
    ("icmp6-filter", "128 129", struct.pack("=8I", 0, 0, 0, 0, 3, 0, 0, 0)),
    ("md5sig", {"address": "10.0.0.1", "key": KEY}, md5sig(PEER4, KEY.encode())),
    ("md5sig", {"address": "::1", "key": KEY}, md5sig(PEER6, KEY.encode())),
    (
        "md5sig",
        {"address": "10.0.0.1", "key": "\u00e9" * 40, "prefix": 32},
        md5sig(PEER4, b"\xc3\xa9" * 40, 1, 32),
    ),
    ("md5sig", {"address": "::1", "key": "k", "prefix": 128}, md5sig(PEER6, b"k", 1, 128)),
    ("md5sig", {"address": "::1", "key": "k", "prefix": 0}, md5sig(PEER6, b"k", 1, 0)),
    ("bytes 0..40", b"", b""),
    ("bytes 0..40", "hex:" + "01" * 40, b"\1" * 40),
    ("bytes 20..20", bytes(20), bytes(20)),
    ("bytes", bytes(4096), bytes(4096)),
    ("key 16..32", "hex:" + "ab" * 16, b"\xab" * 16),
    ("key 16..32", b"k" * 32, b"k" * 32),
    ("struct sctp_rtoinfo", b"\1\2", b"\1\2"),
    ("struct tls_crypto_info", "hex:0102", b"\1\2"),
]


@pytest.mark.parametrize(("cell", "value", "raw"), WRITTEN)
def test_a_value_becomes_the_kernels_structure(cell: str, value: object, raw: int | bytes) -> None:
    """Ports, filters and keys become the bytes of the kernel's structure."""
    assert make_form(cell).encode(value) == raw


RANGE = 'a range of ports such as "40000-40999", or "0-0" for the system\'s'
PROGRAM = "a classic BPF program: what `tcpdump -ddd` prints, or a list of [code, jt, jf, k]"
MD5 = '{ address = "10.0.0.1", key = "..." }, with prefix = 24 for a whole network'
REFUSED: list[tuple[str, object, str]] = [
    *[
        ("port-range", wrong, f"must be {RANGE}, got {wrong!r}")
        for wrong in (
            *("", "-", "1", "2-1", "1-65536", "65536-0", "1-2-3", " 1-2", "-1-2", "1 - 2"),
            *("\u0661-\u0662", "100000-100001", 1, None, True, (1, 2)),
        )
    ],
    *[
        ("fprog", wrong, f"must be {PROGRAM}, got {wrong!r}")
        for wrong in (
            *("", "1", "6 0 0", "6 0 0 0 0", "65536 0 0 0", "6 256 0 0", "6 0 0 4294967296"),
            *("6 0 0 -1", "\u0666 0 0 0", "6_0 0 0 0", "6 0 0 0x0", "ret #0", "2,6 0 0 0"),
            *("1,6 0 0 0,6 0 0 0", "hex:0600000000000000", b"\6\0\0\0\0\0\0\0", 6, None, True),
            *([], [[]], [6, 0, 0, 0], ["6000"], ["6 0 0 0"], [b"\6\0\0\0"], [["6", 0, 0, 0]]),
            *([[6.5, 0, 0, 0]], [[6, 0, 0, float("inf")]], [[True, 0, 0, 0]], [[6, 0, 0, -1]]),
            *([[6, 0, 0, None]], {"6": 0}, [{6: 0, 0: 1}]),
        )
    ],
    *[
        (
            f"icmp{six}-filter",
            wrong,
            f"must be a list of the ICMP types to drop, each {to}, got {it}",
        )
        for six, to, most in (("", "0 to 31", 31), ("6", "0 to 255", 255))
        for wrong in (most + 1, -1, True, "x", "\u0661", "1.0", 1.0, None, [1], b"1", "-1", "1" * 9)
        for wrong, it in [([wrong], repr([wrong]))]
    ],
    *[
        ("icmp-filter", wrong, f"must be a list of the ICMP types to drop, each 0 to 31, got {it}")
        for wrong, it in ((8, "8"), (None, "None"), (b"\1", "b'\\x01'"), ("8;9", "'8;9'"))
    ],
    *[
        ("md5sig", wrong, f"must be {MD5}")
        for wrong in (
            *(None, KEY, [KEY], {}, {"key": KEY}, {"address": "10.0.0.1"}, True, 1, b"k"),
            *({"address": "10.0.0.1", "key": KEY, "kye": KEY}, {1: 2, "address": 3, "key": 4}),
        )
    ],
    *[
        ("md5sig", {"address": wrong, "key": KEY}, "address must be the IP address of the peer")
        for wrong in ("", "localhost", "10.0.0.0/8", "::1%lo", "010.0.0.1", 1, None, b"abcd", [])
    ],
    *[
        ("md5sig", {"address": "::1", "key": wrong}, "key must be a text of 1 to 80 bytes")
        for wrong in ("", "k" * 81, "\u00e9" * 41, "\ud800", 5, None, b"k", [KEY])
    ],
    *[
        (
            "md5sig",
            {"address": address, "key": KEY, "prefix": wrong},
            f"prefix must be 0 to {most}, got {wrong!r}",
        )
        for address, most in (("10.0.0.1", 32), ("::1", 128))
        for wrong in (most + 1, -1, True, "8", 8.0)
    ],
    ("bytes 20..20", bytes(19), 'must be 20..20 bytes, as in "hex:0a0b", got 19'),
    ("bytes 0..40", bytes(41), 'must be 0..40 bytes, as in "hex:0a0b", got 41'),
    ("bytes", bytes(4097), 'must be some bytes, as in "hex:0a0b", got 4097'),
    *[
        (cell, wrong, f'must be bytes, as in "hex:0a0b", got {wrong!r}')
        for cell in ("bytes 0..40", "struct sctp_rtoinfo")
        for wrong in ("0a0b", "hex:0", "hex:zz", 5, None, True, [1])
    ],
    *[
        ("key 16..32", wrong, 'must be 16..32 bytes, as in "hex:0a0b"')
        for wrong in (KEY, "hex:0", "hex:" + KEY, bytes(15), bytes(33), None, 5)
    ],
    (
        "struct tls_crypto_info",
        KEY,
        'must be the bytes of a struct tls_crypto_info, as in "hex:0a0b"',
    ),
    *[
        (cell, wrong, "can only be read")
        for cell in ("ucred", "sockaddr", "u32s", "u64s", "tcp-info")
        for wrong in ("127.0.0.1:80", b"", None, {})
    ],
]


@pytest.mark.parametrize(("cell", "value", "told"), REFUSED)
def test_a_wrong_value_is_told_what_is_right(cell: str, value: object, told: str) -> None:
    """What is no such structure, or does not fit it, is refused with what is right."""
    with pytest.raises(ValueError, match=r".") as caught:
        make_form(cell).encode(value)
    assert str(caught.value) == told


NAME4 = struct.pack("=H", socket.AF_INET) + b"\x1f\x90\x7f\0\0\1" + bytes(8)
NAME6 = struct.pack("=H", socket.AF_INET6) + b"\x1f\x90" + bytes(4) + bytes(15) + b"\1" + bytes(4)

# A form, what the kernel tells, and how it is shown.
TOLD: list[tuple[str, int | bytes, object]] = [
    ("port-range", ports(40000, 40999), "40000-40999"),
    ("port-range", -1, "65535-65535"),
    ("fprog", PACKED, INSTRUCTIONS),
    ("fprog", PACKED[:-1], INSTRUCTIONS[:-1]),
    ("fprog", b"", []),
    ("icmp-filter", b"\xff" * 9, list(range(32))),
    ("icmp-filter", b"", []),
    ("icmp6-filter", b"", []),
    ("icmp6-filter", b"\xff" * 40, list(range(256))),
    ("md5sig", md5sig(PEER4, KEY.encode()), HIDDEN),
    ("bytes 0..40", b"\1\2", "hex:0102"),
    ("bytes 0..40", 1, "hex:" + struct.pack("i", 1).hex()),
    ("key 16..32", KEY.encode(), HIDDEN),
    ("struct sctp_rtoinfo", b"\xff", "hex:ff"),
    ("struct tls_crypto_info", KEY.encode(), HIDDEN),
    ("ucred", struct.pack("=iii", 7, 1000, -1), {"pid": 7, "uid": 1000, "gid": -1}),
    ("ucred", b"", {"pid": 0, "uid": 0, "gid": 0}),
    ("ucred", bytes(13), {"pid": 0, "uid": 0, "gid": 0}),
    ("sockaddr", NAME4, "127.0.0.1:8080"),
    ("sockaddr", NAME6, "[::1]:8080"),
    ("sockaddr", NAME6[:16], f"hex:{NAME6[:16].hex()}"),
    ("sockaddr", struct.pack("=H", socket.AF_UNIX), f"hex:{struct.pack('=H', 1).hex()}"),
    ("sockaddr", b"", "hex:"),
    ("u32s", struct.pack("=II", 1, 2**32 - 1) + b"xyz", [1, 2**32 - 1]),
    ("u64s", struct.pack("=Q", 2**64 - 1) + b"x", [2**64 - 1]),
    ("u64s", b"", []),
    ("tcp-info", b"", {}),
    ("tcp-info", b"\1\2", {"state": 1, "ca_state": 2}),
]


@pytest.mark.parametrize(("cell", "raw", "value"), TOLD)
def test_what_the_kernel_tells_is_shown(cell: str, raw: int | bytes, value: object) -> None:
    """What the kernel tells is shown as one writes it, also when there is less or more of it."""
    assert make_form(cell).decode(raw) == value


def test_every_form_is_tested() -> None:
    """A form that joins is refused and told in these tables, or this fails; most are written."""
    for examples in (REFUSED, TOLD):
        assert {cell.partition(" ")[0] for cell, _, _ in examples} == set(STRUCTURES)
    only_read = {"ucred", "sockaddr", "u32s", "u64s", "tcp-info"}
    assert {cell.partition(" ")[0] for cell, _, _ in WRITTEN} == set(STRUCTURES) - only_read


BOUNDED = [cell for cell in CELLS if re.fullmatch(r"(bytes|key) \d+\.\.\d+", cell)]


@pytest.mark.parametrize("cell", BOUNDED)
def test_the_number_of_bytes_is_kept_to_the_edge(cell: str) -> None:
    """As many octets as the table says pass, one less or more does not; no more are ever read."""
    low, high = map(int, cell.partition(" ")[2].split(".."))
    form = make_form(cell)
    assert (form.low, form.high, form.size) == (low, high, min(high, MAX_READ_BYTES))
    for count in (low, high):
        assert form.encode(bytes(count)) == bytes(count)
    for count in (low - 1, high + 1):
        if count >= 0:
            with pytest.raises(ValueError, match=rf"must be {low}\.\.{high} bytes"):
                form.encode(bytes(count))


@quick
@given(st.integers(0, 65535), st.integers(0, 65535))
def test_every_range_of_ports_is_told_as_it_was_written(low: int, high: int) -> None:
    """A range comes back as itself; one that ends before it begins is refused."""
    form, text = make_form("port-range"), f"{low}-{high}"
    if high and low > high:
        with pytest.raises(ValueError, match=r"^must be a range"):
            form.encode(text)
    else:
        assert form.decode(form.encode(text)) == text


@quick
@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 255),
            st.integers(0, 255),
            st.integers(0, 2**32 - 1),
        ).map(list),
        min_size=1,
        max_size=20,
    )
)
def test_every_program_is_told_as_it_was_written(program: list[list[int]]) -> None:
    """A program comes back as itself, whether it was a list or the text of tcpdump."""
    form = make_form("fprog")
    text = "\n".join([str(len(program)), *(" ".join(map(str, line)) for line in program)])
    assert form.decode(form.encode(program)) == program
    assert form.encode(text) == form.encode(program)


def test_a_program_has_a_greatest_length() -> None:
    """A program has at most the 4096 instructions that the kernel takes."""
    form = make_form("fprog")
    raw = form.encode([[6, 0, 0, 0]] * 4096)
    assert isinstance(raw, bytes)
    assert len(raw) == 8 * 4096
    with pytest.raises(ValueError, match=r"^must be a classic BPF program") as caught:
        form.encode([[6, 0, 0, 0]] * 4097)
    assert len(str(caught.value)) < 400


@quick
@given(st.sets(st.integers(0, 255)))
def test_every_filter_is_told_as_it_was_written(types: set[int]) -> None:
    """The types that are dropped come back as the same, and each is its own bit."""
    form = make_form("icmp6-filter")
    raw = form.encode(sorted(types, reverse=True))
    assert form.decode(raw) == sorted(types)
    assert isinstance(raw, bytes)
    words = struct.unpack("=8I", raw)
    assert sum(word.bit_count() for word in words) == len(types)
    assert form.encode(",".join(map(str, types))) == raw


# -- secrets --

SECRETS = [
    "md5sig",
    "key 0..65535",
    "key 16..32",
    *(f"struct {name}" for name in sorted(HOLDING_KEYS)),
]


def test_every_structure_with_a_key_is_a_secret() -> None:
    """The options that hold a key are those whose values are hidden."""
    secret = {option.value for option in CATALOGUE.values() if option.form.is_secret}
    assert secret == set(SECRETS)


@pytest.mark.parametrize("cell", SECRETS)
def test_a_secret_is_never_shown(cell: str) -> None:
    """No message and nothing that is told back has a part of a key, wherever it was written."""
    form = make_form(cell)
    for value in (
        *(KEY, f"hex:{KEY}", [KEY], KEY + "\ud800", {"key": KEY}, {"address": "x", "key": KEY}),
        *({"address": "::1", "key": KEY * 9}, {"address": "::1", "key": KEY, "prefix": 999}),
        *({"address": "::1", "key": KEY + "\ud800"}, {"address": "::1", "key": [KEY]}, {KEY: KEY}),
        {"address": KEY, "key": "10.0.0.1"},
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            form.encode(value)
        printed = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.args)
        assert not any(word in printed for word in KEY.split())
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert form.decode(KEY.encode()) == form.decode(b"") == HIDDEN
    assert KEY not in repr(form)


# -- the kernel as the judge --


def put(sock: socket.socket, name: str, value: object) -> None:
    """Set option *name* of *sock*."""
    set_value(sock, CATALOGUE[name], CATALOGUE[name].form.encode(value))


def told(sock: socket.socket, name: str) -> object:
    """Return option *name* of *sock* as it is shown."""
    return CATALOGUE[name].form.decode(get_value(sock, CATALOGUE[name]))


@pytest.mark.parametrize("program", [FIRST_IS_A, INSTRUCTIONS])
def test_the_kernel_runs_a_filter(program: object) -> None:
    """A filter keeps the datagrams that it accepts and drops the others."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        put(receiver, "SO_ATTACH_FILTER", program)
        receiver.settimeout(10)
        for datagram in (b"B first", b"A second", b"B third"):
            sender.send(datagram)
        assert receiver.recv(16) == b"A second"
        put(receiver, "SO_DETACH_FILTER", True)
        sender.send(b"B fourth")
        assert receiver.recv(16) == b"B fourth"


def test_the_kernel_chooses_a_port_of_the_range() -> None:
    """A socket that is bound to no port in particular gets one of its range."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            put(sock, "IP_LOCAL_PORT_RANGE", "45010-45059")
        except OSError:
            pytest.skip("needs Linux 6.3")
        assert told(sock, "IP_LOCAL_PORT_RANGE") == "45010-45059"
        sock.bind(("127.0.0.1", 0))
        assert 45010 <= sock.getsockname()[1] <= 45059


def raw_socket(family: socket.AddressFamily, protocol: int) -> socket.socket:
    """Return a raw socket, or skip the test."""
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")


def icmp(kind: int, tag: bytes) -> bytes:
    """Return an ICMP message with its checksum (RFC 792, RFC 1071)."""
    data = struct.pack("!BBH", kind, 0, 0) + tag
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", kind, 0, ~total & 0xFFFF) + tag


def test_the_kernel_drops_the_types_of_icmp() -> None:
    """A raw socket receives the types that its filter does not name."""
    tag = os.urandom(8)
    with raw_socket(socket.AF_INET, socket.IPPROTO_ICMP) as sock:
        put(sock, "ICMP_FILTER", [9])
        assert told(sock, "ICMP_FILTER") == [9]
        sock.settimeout(10)
        for kind in (9, 10):  # router advertisement and solicitation: nobody answers them here
            sock.sendto(icmp(kind, tag), ("127.0.0.1", 0))
        while tag not in (packet := sock.recv(128)):
            pass
        assert packet[20] == 10  # behind the IP header; the one before it was dropped


def test_the_kernel_keeps_the_filter_of_icmpv6() -> None:
    """The types to drop are told by the kernel as they were set."""
    with raw_socket(socket.AF_INET6, socket.IPPROTO_ICMPV6) as sock:
        put(sock, "ICMPV6_FILTER", [1, 128, 255])
        assert told(sock, "ICMPV6_FILTER") == [1, 128, 255]


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("TCP_MD5SIG", {"address": "127.0.0.1"}),
        ("TCP_MD5SIG_EXT", {"address": "127.0.0.0", "prefix": 8}),
    ],
)
def test_the_kernel_connects_those_with_the_same_key(name: str, network: dict[str, object]) -> None:
    """Who signs with the listener's key is connected; who signs with another is not."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as friend,
        socket.socket() as stranger,
    ):
        try:
            put(listener, name, {**network, "key": KEY})
        except OSError as error:
            pytest.skip(f"needs a kernel with TCP_MD5SIG: {error}")
        put(friend, "TCP_MD5SIG", {"address": "127.0.0.1", "key": KEY})
        friend.settimeout(10)
        friend.connect(listener.getsockname())
        put(stranger, "TCP_MD5SIG", {"address": "127.0.0.1", "key": KEY[:-1]})
        stranger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stranger.connect(listener.getsockname())


def test_the_kernel_tells_who_the_peer_is() -> None:
    """Credentials and name of a peer are those that the standard library has."""
    one, other = socket.socketpair()
    with one, other:
        assert told(one, "SO_PEERCRED") == {
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "gid": os.getegid(),
        }
        assert told(one, "SO_PEERGROUPS") == os.getgroups()


@pytest.mark.parametrize(
    ("family", "host", "shown"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1"), (socket.AF_INET6, "::1", "[::1]")],
)
def test_the_kernel_tells_the_name_of_the_peer(
    family: socket.AddressFamily, host: str, shown: str
) -> None:
    """The address and port of a peer are those that it has bound."""
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"needs {host} on lo")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        assert told(client, "SO_PEERNAME") == f"{shown}:{listener.getsockname()[1]}"


def test_the_kernel_tells_of_tcp() -> None:
    """The fields of tcp_info stand where the kernel puts them."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=37) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        info = told(client, "TCP_INFO")
        assert isinstance(info, dict)
        raw = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert (info["state"], info["snd_mss"]) == (1, struct.unpack_from("=I", raw, 16)[0])
        assert info["total_retrans"] == struct.unpack_from("=I", raw, 100)[0]
        assert info["snd_mss"] == client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        listening = told(listener, "TCP_INFO")
        assert isinstance(listening, dict)
        assert (listening["state"], listening["sacked"]) == (10, 37)


@quick
@given(st.binary(max_size=300))
def test_any_tcp_info_is_read(raw: bytes) -> None:
    """A shorter tcp_info, of an older kernel, has the fields that are whole; a longer no others."""
    fields = read_tcp_info(raw)
    assert len(fields) == min(len(raw), 5) + max(0, min((len(raw) - 8) // 4, 24))


@quick
@given(st.binary(max_size=40))
def test_any_address_is_shown(raw: bytes) -> None:
    """What is no address of IPv4 or IPv6 is shown as its bytes."""
    family = struct.unpack("=H", raw[:2])[0] if len(raw) >= 8 else 0
    is_known = family == socket.AF_INET or (family == socket.AF_INET6 and len(raw) >= 24)
    assert show_sockaddr(raw).startswith("hex:") is not is_known


def test_what_a_socket_may_have_several_of_is_writable() -> None:
    """The forms that are written as a list are those of memberships and keys of peers."""
    repeated = {option.name for option in CATALOGUE.values() if option.is_repeated}
    assert {option.form.kind for option in CATALOGUE.values() if option.is_repeated} == REPEATED
    assert all(CATALOGUE[name].access == "w" for name in repeated)
