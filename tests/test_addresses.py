"""Addresses, and the five-tuple."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.addresses import (
    KINDS,
    MAX_UNIX_PATH_BYTES,
    Address,
    FiveTuple,
    format_host_port,
    is_loopback,
    is_numeric,
    parse_address,
    unmap,
)
from twistedsock.errors import AddressError

quick = settings(max_examples=200, deadline=None)

LABELS = st.from_regex(r"[a-zA-Z]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
HOSTS = (
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]")
    | st.lists(LABELS, min_size=1, max_size=3).map(".".join)
    | st.just("*")
)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=25)
TEXTS = (
    st.builds("{}:{}:{}".format, st.sampled_from(["tcp", "udp"]), HOSTS, st.integers(0, 65535))
    | st.builds("{}:{}".format, st.sampled_from(["tcp", "udp"]), st.integers(0, 65535))
    | st.builds(
        "{}:{}{}".format,
        st.sampled_from(["unix", "unixgram", "seqpacket"]),
        st.sampled_from("/@"),
        PATHS,
    )
    | st.sampled_from(["raw:icmp", "raw:icmpv6", "raw:igmp", "raw:0", "raw:255", "packet:lo"])
)
NEAR_MISSES = st.builds(
    "{}:{}".format,
    st.sampled_from(["tcp", "udp", "unix", "unixgram", "seqpacket", "raw", "packet", "TCP", ""]),
    st.text("0123456789abc:[]*%./@-_ \n\0\u00e9\u0663", max_size=20)
    | st.text(st.characters(), max_size=8),
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:127.0.0.1:8888", Address("tcp", "127.0.0.1", 8888)),
        ("tcp:[::1]:8888", Address("tcp", "::1", 8888)),
        ("tcp:[0:0:0:0:0:0:0:1]:8888", Address("tcp", "::1", 8888)),
        ("tcp:[FE80::1%eth0]:1", Address("tcp", "fe80::1%eth0", 1)),
        ("tcp:8888", Address("tcp", "127.0.0.1", 8888)),
        ("tcp:*:8888", Address("tcp", "*", 8888)),
        ("udp:0", Address("udp", "127.0.0.1", 0)),
        ("udp:65535", Address("udp", "127.0.0.1", 65535)),
        ("udp:00080", Address("udp", "127.0.0.1", 80)),
        ("udp:Host.Example:53", Address("udp", "host.example", 53)),
        ("tcp:my_host-1:53", Address("tcp", "my_host-1", 53)),
        ("unix:/run/x.sock", Address("unix", path="/run/x.sock")),
        ("unix:@abstract", Address("unix", path="@abstract")),
        ("unix:/run/a:b", Address("unix", path="/run/a:b")),
        ("unixgram:/p", Address("unixgram", path="/p")),
        ("seqpacket:/p", Address("seqpacket", path="/p")),
        ("raw:icmp", Address("raw", path="icmp")),
        ("raw:253", Address("raw", path="253")),
        ("packet:lo", Address("packet", path="lo")),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    """Every form of the grammar gives the address that it names."""
    assert parse_address(text) == address


@pytest.mark.parametrize("wrong", ["", "tcp", "8888", "sctp:1", "TCP:1", " tcp:1", "http://x"])
def test_an_unknown_scheme_is_refused(wrong: str) -> None:
    """A text without a scheme of ours is refused with the schemes that there are."""
    with pytest.raises(AddressError) as caught:
        parse_address(wrong)
    assert str(caught.value) == (
        'must be an address such as "tcp:127.0.0.1:8888", starting with one of '
        f"tcp, udp, unix, unixgram, seqpacket, raw, packet; got {wrong!r}"
    )


@pytest.mark.parametrize("wrong", [None, 8888, b"tcp:1", ("tcp", 1)])
def test_what_is_no_text_is_refused(wrong: object) -> None:
    """A value of another type is refused with an example."""
    with pytest.raises(AddressError) as caught:
        parse_address(wrong)
    assert str(caught.value) == (f'must be an address such as "tcp:127.0.0.1:8888", got {wrong!r}')


@pytest.mark.parametrize(
    ("port", "text"),
    [
        ("65536", "tcp:65536"),
        ("-1", "tcp:-1"),
        ("", "tcp:"),
        ("", "udp:127.0.0.1:"),
        ("127.0.0.1", "tcp:127.0.0.1"),
        ("*", "tcp:*"),
        ("000080", "tcp:000080"),
        ("http", "tcp:*:http"),
        (" 80", "tcp: 80"),
        ("80\n", "tcp:80\n"),
        ("\u0663", "tcp:\u0663"),
        ("", "tcp:[::1]:"),
    ],
)
def test_a_wrong_port_is_refused(port: str, text: str) -> None:
    """A port that is no number, or above 65535, is refused with its range."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == f"port must be 0 to 65535, got {port!r} in {text!r}"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "1.2.3.4 ",
        "a b",
        "-a",
        "a-",
        "a..b",
        "a.",
        ".a",
        "h\u00f6st",
        "a/b",
        "**",
        "10",
    ],
)
def test_a_wrong_host_is_refused(host: str) -> None:
    """What is neither an IP address nor a host name is named in the refusal."""
    text = f"tcp:{host}:80"
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == f"{host!r} is neither an IP address nor a host name, in {text!r}"


@pytest.mark.parametrize("host", ["", "1", "127.0.0.1", ":::", "1::2::3", "g::", "::1%", "[::1]"])
def test_a_wrong_ipv6_address_is_refused(host: str) -> None:
    """Brackets hold an IPv6 address and nothing else."""
    text = f"tcp:[{host}]:80"
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == f"{host!r} is not an IPv6 address, in {text!r}"


@pytest.mark.parametrize("text", ["tcp:::1:80", "tcp:fe80::1:80", "udp:[::1:80", "udp:::1]:80"])
def test_an_ipv6_address_without_brackets_is_refused(text: str) -> None:
    """An IPv6 address without its brackets is refused with how it is written."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == (f"an IPv6 address goes in brackets, such as [::1]; got {text!r}")


def test_an_ipv6_address_without_a_port_is_told_so() -> None:
    """A bracketed address whose port is missing is not told to use brackets."""
    with pytest.raises(AddressError, match=r"^port must be 0 to 65535, got '' in 'tcp:\[::1\]'$"):
        parse_address("tcp:[::1]")


@pytest.mark.parametrize("scheme", ["unix", "unixgram", "seqpacket"])
@pytest.mark.parametrize("path", ["", "/", "@", "x.sock", "./x", "/a\0b", "@\0"])
def test_a_wrong_unix_path_is_refused(scheme: str, path: str) -> None:
    """A relative path, an empty name or a zero byte is refused with an example."""
    text = f"{scheme}:{path}"
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == (
        f'must be an absolute path or an @abstract name, such as "{scheme}:/run/x.sock",'
        f" got {text!r}"
    )


@pytest.mark.parametrize("letter", ["a", "\u00e9"])
def test_a_unix_path_is_as_long_as_the_kernel_takes(letter: str) -> None:
    """107 bytes, not characters, are the longest path, which the kernel binds; 108 are not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        room = MAX_UNIX_PATH_BYTES - len(directory) - 1
        letters = letter * (room // len(letter.encode()))
        path = f"{directory}/" + letters + "x" * (room - len(letters.encode()))
        assert len(os.fsencode(path)) == 107
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(parse_address(f"unix:{path}").path)
            assert Path(path).is_socket()
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="too long"):
            sock.bind(path + "x")
    with pytest.raises(AddressError, match=r"^path is longer than 107 bytes: 'unix:/"):
        parse_address(f"unix:{path}x")


def test_a_unix_path_need_not_be_utf8() -> None:
    """A path of bytes that are no UTF-8, as sys.argv holds them, counts as those bytes."""
    name = os.fsdecode(b"/" + b"\xff" * 106)
    assert parse_address("unix:" + name).path == name
    with pytest.raises(AddressError, match=r"^path is longer than 107 bytes: "):
        parse_address(f"unix:{name}\udcff")


@pytest.mark.parametrize("protocol", ["", "256", "-1", "tcp", "ICMP", "0001", "1 ", "\u0663"])
def test_a_wrong_raw_protocol_is_refused(protocol: str) -> None:
    """A protocol that is neither known nor a number of a byte is refused with what is."""
    text = f"raw:{protocol}"
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == (
        f"IP protocol must be 0 to 255 or one of icmp, igmp, icmpv6, got {text!r}"
    )


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "a" * 16, "\u00e9" * 8, "lo\n"])
def test_a_wrong_interface_is_refused(name: str) -> None:
    """An interface's name is 1 to 15 bytes without space, slash or colon."""
    text = f"packet:{name}"
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value) == f'must name an interface such as "packet:lo", got {text!r}'


@quick
@given(TEXTS)
def test_an_address_round_trips(text: str) -> None:
    """What is written for an address reads as the same address."""
    address = parse_address(text)
    assert parse_address(str(address)) == address
    assert address.kind in KINDS


@quick
@given(TEXTS | NEAR_MISSES | st.text(max_size=20))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    """No text raises anything but AddressError, which is also a ValueError for pydantic."""
    try:
        address = parse_address(text)
    except AddressError as error:
        assert isinstance(error, ValueError)  # noqa: PT017  the type is the promise
        assert repr(text) in str(error)  # noqa: PT017  likewise
    else:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tcp:1", "stream"),
        ("udp:1", "datagram"),
        ("unix:/p", "stream"),
        ("unixgram:/p", "datagram"),
        ("seqpacket:/p", "seqpacket"),
        ("raw:icmp", "raw"),
        ("packet:lo", "packet"),
    ],
)
def test_the_scheme_tells_the_kind(text: str, kind: str) -> None:
    """Each scheme carries one kind of message."""
    assert parse_address(text).kind == kind


@pytest.mark.parametrize(
    ("text", "is_wildcard", "loopback"),
    [
        ("tcp:*:1", True, False),
        ("tcp:0.0.0.0:1", True, False),
        ("tcp:[::]:1", True, False),
        ("tcp:[0::0]:1", True, False),
        ("tcp:1", False, True),
        ("tcp:127.255.0.1:1", False, True),
        ("tcp:[::1]:1", False, True),
        ("tcp:localhost:1", False, True),
        ("tcp:LocalHost:1", False, True),
        ("tcp:192.0.2.1:1", False, False),
        ("tcp:[2001:db8::1]:1", False, False),
        ("tcp:localhost.example:1", False, False),
        ("unix:/p", False, True),
        ("unixgram:@p", False, True),
        ("seqpacket:/p", False, True),
        ("raw:icmp", False, False),
        ("packet:lo", False, False),
    ],
)
def test_an_address_knows_who_can_reach_it(text: str, is_wildcard: bool, loopback: bool) -> None:
    """An address tells whether it means every interface, or only this machine."""
    address = parse_address(text)
    assert (address.is_wildcard, address.is_loopback) == (is_wildcard, loopback)


def test_hosts_and_ports_are_written_with_brackets_for_ipv6() -> None:
    """Only an IPv6 host stands in brackets."""
    assert format_host_port("192.0.2.1", 1) == "192.0.2.1:1"
    assert format_host_port("2001:db8::1", 1) == "[2001:db8::1]:1"
    assert str(FiveTuple("tcp", "::1", 80, "::2", 1024)) == "tcp [::1]:80 <- [::2]:1024"
    assert str(FiveTuple("udp", "127.0.0.1", 7, "127.0.0.2", 9)) == (
        "udp 127.0.0.1:7 <- 127.0.0.2:9"
    )


@quick
@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_unmapped(address: object) -> None:
    """What the kernel writes for an IPv4 peer of a dual-stack socket becomes plain IPv4."""
    packed = bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, str(address))
    assert unmap(socket.inet_ntop(socket.AF_INET6, packed)) == str(address)


@quick
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda host: not host.ipv4_mapped))
def test_any_other_address_is_left_as_it_is(address: object) -> None:
    """Unmapping touches nothing but mapped addresses."""
    assert unmap(str(address)) == str(address)


@pytest.mark.parametrize(
    ("host", "numeric", "loopback"),
    [
        ("127.0.0.1", True, True),
        ("::1", True, True),
        ("::1%lo", True, True),
        ("128.0.0.1", True, False),
        ("fe80::1%eth0", True, False),
        ("localhost", False, True),
        ("example", False, False),
        ("", False, False),
    ],
)
def test_a_host_is_told_from_a_name(host: str, numeric: bool, loopback: bool) -> None:
    """A numeric host is an IP address; loopback is its range, or the one name."""
    assert (is_numeric(host), is_loopback(host)) == (numeric, loopback)
