"""Interfaces, addresses and groups. The oracles are ipaddress, if_nametoindex and /proc/net."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.catalogue import make_form
from twistedsock.sockopts.kernel import get_value, set_value
from twistedsock.sockopts.memberships import NETWORK, interface_index, interface_name, storage

quick = settings(max_examples=300, deadline=None)

LO = socket.if_nametoindex("lo")
NATIVE_LO = struct.pack("=i", LO)
PROC = Path("/proc/net")


def packed(address: str) -> bytes:
    """Return the bytes of *address* as the standard library has them."""
    return ipaddress.ip_address(address).packed


def sockaddr(address: str) -> bytes:
    """Return a ``struct sockaddr_storage`` written out by hand."""
    if ":" in address:
        return struct.pack("=HHI16sI100x", socket.AF_INET6, 0, 0, packed(address), 0)
    return struct.pack("=HH4s120x", socket.AF_INET, 0, packed(address))


# struct group_req: on a 64-bit machine the address stands at its eighth byte.
GROUP_LO = NATIVE_LO.ljust(struct.calcsize("P"), b"\0")
GROUP_ANY = bytes(struct.calcsize("P"))

# A form, what is written, and the kernel's structure.
WRITTEN: list[tuple[str, object, int | bytes]] = [
    ("ifindex", "lo", LO),
    ("ifindex", LO, LO),
    ("ifindex", str(LO), LO),
    ("ifindex", 0, 0),
    ("ifindex", "", 0),
    ("ifindex", 2**31 - 1, 2**31 - 1),
    ("ifindex", "2147483647", 2**31 - 1),
    ("ifindex-be", "lo", struct.unpack("=i", struct.pack("!i", LO))[0]),
    ("ifindex-be", 0x01020304, struct.unpack("=i", b"\1\2\3\4")[0]),
    ("ifindex-be", 255, struct.unpack("=i", b"\0\0\0\xff")[0]),
    ("ifindex-be", 0, 0),
    ("mcast-if", "lo", bytes(8) + NATIVE_LO),
    ("mcast-if", "127.0.0.1", bytes(4) + packed("127.0.0.1") + bytes(4)),
    ("mcast-if", "7", bytes(8) + struct.pack("=i", 7)),
    ("mreqn", "239.1.1.1", packed("239.1.1.1") + bytes(8)),
    ("mreqn", "239.1.1.1%lo", packed("239.1.1.1") + bytes(4) + NATIVE_LO),
    ("mreqn", "239.1.1.1%7", packed("239.1.1.1") + bytes(4) + struct.pack("=i", 7)),
    ("mreqn", "239.1.1.1%10.0.0.9", packed("239.1.1.1") + packed("10.0.0.9") + bytes(4)),
    (
        "mreq-source",
        "10.0.0.1@232.1.1.1%10.0.0.9",
        packed("232.1.1.1") + packed("10.0.0.9") + packed("10.0.0.1"),
    ),
    ("mreq-source", "10.0.0.1@232.1.1.1", packed("232.1.1.1") + bytes(4) + packed("10.0.0.1")),
    ("mreq6", "ff02::1%lo", packed("ff02::1") + NATIVE_LO),
    ("mreq6", "ff02::1", packed("ff02::1") + bytes(4)),
    ("group-req", "239.1.1.1%lo", GROUP_LO + sockaddr("239.1.1.1")),
    ("group-req", "ff02::1%lo", GROUP_LO + sockaddr("ff02::1")),
    ("group-req", "239.1.1.1", GROUP_ANY + sockaddr("239.1.1.1")),
    (
        "group-source-req",
        "10.0.0.1@232.1.1.1%lo",
        GROUP_LO + sockaddr("232.1.1.1") + sockaddr("10.0.0.1"),
    ),
    (
        "group-source-req",
        "2001:db8::1@ff3e::1",
        GROUP_ANY + sockaddr("ff3e::1") + sockaddr("2001:db8::1"),
    ),
    # packet(7): PACKET_MR_MULTICAST 0, PROMISC 1, ALLMULTI 2, UNICAST 3
    ("packet-mreq", "promiscuous%lo", NATIVE_LO + struct.pack("=HH8x", 1, 0)),
    ("packet-mreq", "allmulti%lo", NATIVE_LO + struct.pack("=HH8x", 2, 0)),
    (
        "packet-mreq",
        "01:00:5e:00:00:Fb%lo",
        NATIVE_LO + struct.pack("=HH", 0, 6) + b"\1\0\x5e\0\0\xfb\0\0",
    ),
    (
        "packet-mreq",
        "02:00:00:00:00:01%3",
        struct.pack("=iHH", 3, 3, 6) + b"\2\0\0\0\0\1\0\0",
    ),
    ("pktinfo6", "2001:db8::1%lo", packed("2001:db8::1") + NATIVE_LO),
    ("pktinfo6", "::1", packed("::1") + bytes(4)),
]


@pytest.mark.parametrize(("cell", "value", "raw"), WRITTEN)
def test_a_name_becomes_the_kernels_structure(cell: str, value: object, raw: int | bytes) -> None:
    """Addresses, groups and interfaces become the bytes of the kernel's structure."""
    assert make_form(cell).encode(value) == raw


WANTED = {
    "ifindex": 'an interface such as "eth0", or its number',
    "ifindex-be": 'an interface such as "eth0", or its number',
    "mcast-if": 'an interface such as "eth0", or one of its IPv4 addresses',
    "mreqn": 'a group such as "239.1.1.1%eth0"',
    "mreq-source": 'a group such as "10.0.0.1@232.1.1.1%10.0.0.9"',
    "mreq6": 'a group such as "ff02::1%eth0"',
    "group-req": 'a group such as "239.1.1.1%eth0"',
    "group-source-req": 'a group such as "10.0.0.1@232.1.1.1%eth0"',
    "packet-mreq": '"promiscuous%eth0", "allmulti%eth0" or a link-layer address, '
    '"01:00:5e:00:00:01%eth0"',
    "pktinfo6": 'an address of ours such as "2001:db8::1%eth0"',
}
WRONG = {
    "ifindex": (-1, 2**31, True, None, 1.0, b"lo", ["lo"]),
    "ifindex-be": (-1, 2**31, False, None, {}),
    "mcast-if": ("1.2.3.999", "010.0.0.1", "1.2.3.4444", 1, None, b"lo", True),
    "mreqn": (
        "", "%", "%lo", "lo", "239.1.1.1%", "ff02::1%lo", "239.1.1", "010.0.0.1%lo",
        "\u0662\u0663\u0669.1.1.1", "10.0.0.1@239.1.1.1%lo", "@239.1.1.1", " 239.1.1.1%lo", 1, None,
    ),
    "mreq-source": (
        "232.1.1.1", "232.1.1.1%10.0.0.9", "@232.1.1.1", "10.0.0.1@", "a@b", "::1@232.1.1.1",
        "10.0.0.1@10.0.0.2@232.1.1.1", "10.0.0.1@232.1.1.1%", None,
    ),
    "mreq6": ("239.1.1.1%lo", "ff02::1%", "ff02:::1", "ff02::1::", "%lo", "::1@ff02::1%lo", None),
    "group-req": ("", "239.1.1.1%", "%lo", "239.1.1", "1", "::1@ff02::1", True),
    "group-source-req": (
        "232.1.1.1%lo", "10.0.0.1@ff3e::1%lo", "2001:db8::1@232.1.1.1%lo", "fe80::1%lo@ff3e::1",
        "fe80::1%lo@ff3e::1%lo", "10.0.0.1@232.1.1.1%", "@", None,
    ),
    "packet-mreq": (
        "promiscuous", "promiscuous%", "%lo", "", "01:00:5e:00:00%lo", "01:00:5e:00:00:01:02%lo",
        "01-00-5e-00-00-01%lo", "01:00:5e:00:00:0g%lo", "01:00:5e:00:00:\u0660\u0661%lo", 1, None,
    ),
    "pktinfo6": ("127.0.0.1", "::1%", "%lo", "", "::1::", 1, None, b"::1"),
}  # fmt: skip


@pytest.mark.parametrize("cell", NETWORK)
def test_what_is_no_name_is_refused(cell: str) -> None:
    """What is no address, group or interface, or lacks a part, is refused with an example."""
    assert make_form(cell).wanted == WANTED[cell]
    for wrong in WRONG[cell]:
        with pytest.raises(ValueError, match=r"^must be ") as caught:
            make_form(cell).encode(wrong)
        assert str(caught.value) == f"must be {WANTED[cell]}, got {wrong!r}"


@pytest.mark.parametrize(
    ("cell", "before"),
    [
        ("ifindex", ""),
        ("ifindex-be", ""),
        ("mcast-if", ""),
        ("mreqn", "239.1.1.1%"),
        ("mreq6", "ff02::1%"),
        ("group-req", "ff02::1%"),
        ("group-source-req", "10.0.0.1@232.1.1.1%"),
        ("packet-mreq", "allmulti%"),
        ("pktinfo6", "::1%"),
    ],
)
def test_an_interface_that_is_not_here_is_told(cell: str, before: str) -> None:
    """A name that no interface here has, or could have, is told with what it stands in."""
    for name in (
        *("nosuch0", "vlan0.100", "a" * 15, "a" * 16, "-1", "2147483648", "9" * 30, "l\0", "lo%lo"),
        *("\u0661", "\ud800", " lo", "lo ", "1.5"),
    ):
        with pytest.raises(ValueError, match=r"^this machine") as caught:
            make_form(cell).encode(before + name)
        assert str(caught.value) == (
            f"this machine has no interface {name!r}, in {before + name!r}"
        )


@pytest.mark.parametrize("wrong", ["lo", "eth0.100", "10.0.0", "::1", "7"])
def test_the_interface_of_a_source_membership_is_an_address(wrong: str) -> None:
    """IP_ADD_SOURCE_MEMBERSHIP knows interfaces by their addresses alone, and says so."""
    value = f"10.0.0.1@232.1.1.1%{wrong}"
    with pytest.raises(ValueError, match=r"^must be an IPv4") as caught:
        make_form("mreq-source").encode(value)
    assert str(caught.value) == f'must be an IPv4 address such as "10.0.0.1", got {value!r}'


@pytest.mark.parametrize(
    ("cell", "raw", "value"),
    [
        ("ifindex", LO, "lo"),
        ("ifindex", 0, 0),
        ("ifindex", 2**31 - 1, 2**31 - 1),
        ("ifindex", -5, -5),
        ("ifindex-be", struct.unpack("=i", struct.pack("!i", LO))[0], "lo"),
        ("ifindex-be", 0, 0),
        ("mcast-if", b"\x7f\0\0\1", "127.0.0.1"),
        ("mcast-if", bytes(4), "0.0.0.0"),
        ("mcast-if", b"", "0.0.0.0"),
        ("mcast-if", bytes(8) + NATIVE_LO, "lo"),
        ("mcast-if", bytes(4) + b"\x7f\0\0\1" + bytes(4), "127.0.0.1"),
        ("mcast-if", b"\xff" * 12, -1),
        ("mreqn", b"\xef\1\1\1" + bytes(8), "hex:ef0101010000000000000000"),
        ("mreq-source", bytes(12), "hex:" + "00" * 12),
        ("mreq6", bytes(20), "hex:" + "00" * 20),
        ("group-req", bytes(136), "hex:" + "00" * 136),
        ("group-source-req", b"", "hex:"),
        ("packet-mreq", b"\1", "hex:01"),
        ("pktinfo6", packed("2001:db8::1") + NATIVE_LO, "2001:db8::1%lo"),
        ("pktinfo6", packed("::1"), "::1"),
        ("pktinfo6", packed("::1") + b"\xff" * 9, "::1%4294967295"),
    ],
)
def test_what_the_kernel_tells_is_shown(cell: str, raw: int | bytes, value: object) -> None:
    """Interfaces are told by name where this machine has one, memberships as their bytes."""
    assert make_form(cell).decode(raw) == value


def test_every_form_is_tested() -> None:
    """A form that joins is written and refused in these tables, or this fails."""
    assert {cell for cell, _, _ in WRITTEN} == set(WANTED) == set(WRONG) == set(NETWORK)


@quick
@given(st.ip_addresses(v=4), st.ip_addresses(v=6))
def test_every_address_is_packed(four: ipaddress.IPv4Address, six: ipaddress.IPv6Address) -> None:
    """Any address stands in its structure in network order, and comes back as itself."""
    assert storage(str(four), four, "") == sockaddr(str(four))
    assert storage(str(six), six, "") == sockaddr(str(six))
    assert make_form("mreqn").encode(f"{four}") == four.packed + bytes(8)
    assert make_form("mreq6").encode(f"{six}%7") == six.packed + struct.pack("=I", 7)
    pktinfo = make_form("pktinfo6")
    assert pktinfo.decode(pktinfo.encode(str(six))) == str(six)


@quick
@given(st.integers(0, 2**31 - 1))
def test_every_number_of_an_interface_is_kept(index: int) -> None:
    """A number that no interface has comes back as itself, in either order of octets."""
    expected: object = interface_name(index) if index else 0
    for cell in ("ifindex", "ifindex-be"):
        form = make_form(cell)
        assert form.decode(form.encode(index)) == form.decode(form.encode(str(index))) == expected


def test_every_interface_here_is_known_by_name() -> None:
    """Each interface of this machine is found by its name and told by it."""
    for index, name in socket.if_nameindex():
        assert interface_index(name, name) == index
        assert interface_name(index) == name
        assert make_form("ifindex").decode(make_form("ifindex").encode(name)) == name


# -- the kernel as the judge --


def join(sock: socket.socket, name: str, value: str) -> None:
    """Set option *name* of *sock*."""
    set_value(sock, CATALOGUE[name], CATALOGUE[name].form.encode(value))


def in_memory(address: str) -> str:
    """Return *address* as /proc/net/igmp shows it: a number of this machine's order."""
    return f"{struct.unpack('=I', packed(address))[0]:08X}"


@pytest.mark.parametrize(
    ("joining", "leaving", "value"),
    [
        ("IP_ADD_MEMBERSHIP", "IP_DROP_MEMBERSHIP", "239.7.1.1%lo"),
        ("IP_ADD_MEMBERSHIP", "IP_DROP_MEMBERSHIP", "239.7.1.2%127.0.0.1"),
        ("MCAST_JOIN_GROUP", "MCAST_LEAVE_GROUP", "239.7.1.3%lo"),
    ],
)
def test_the_kernel_joins_and_leaves_a_group(joining: str, leaving: str, value: str) -> None:
    """A group is joined on the interface that was named, and left again."""
    line = in_memory(value.partition("%")[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        join(sock, joining, value)
        table = (PROC / "igmp").read_text()
        assert line in table[table.index("\tlo") :].split("\n" + str(LO + 1))[0]
        join(sock, leaving, value)
        assert line not in (PROC / "igmp").read_text()


@pytest.mark.parametrize(
    ("joining", "leaving"),
    [
        ("IPV6_ADD_MEMBERSHIP", "IPV6_DROP_MEMBERSHIP"),
        ("MCAST_JOIN_GROUP@IPPROTO_IPV6", "MCAST_LEAVE_GROUP@IPPROTO_IPV6"),
    ],
)
def test_the_kernel_joins_and_leaves_a_group_of_ipv6(joining: str, leaving: str) -> None:
    """An IPv6 group is joined on the interface that was named, and left again."""
    group = "ff02::7:1"
    line = f"lo              {packed(group).hex()}"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        join(sock, joining, f"{group}%lo")
        assert line in (PROC / "igmp6").read_text()
        join(sock, leaving, f"{group}%lo")
        assert line not in (PROC / "igmp6").read_text()


@pytest.mark.parametrize(
    ("name", "value", "file", "line"),
    [
        (
            "IP_ADD_SOURCE_MEMBERSHIP",
            "10.9.8.7@232.7.1.1%127.0.0.1",
            "mcfilter",
            "lo 0xe8070101 0x0a090807",
        ),
        (
            "MCAST_JOIN_SOURCE_GROUP",
            "10.9.8.7@232.7.1.2%lo",
            "mcfilter",
            "lo 0xe8070102 0x0a090807",
        ),
        (
            "MCAST_JOIN_SOURCE_GROUP@IPPROTO_IPV6",
            "2001:db8::9@ff3e::7:1%lo",
            "mcfilter6",
            f"lo {packed('ff3e::7:1').hex()} {packed('2001:db8::9').hex()}",
        ),
    ],
)
def test_the_kernel_joins_for_one_source(name: str, value: str, file: str, line: str) -> None:
    """A group is joined for the source that was named, which is not taken for the group."""
    family = socket.AF_INET6 if "IPV6" in name else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        join(sock, name, value)
        assert line in (PROC / file).read_text()


def test_what_is_sent_to_a_group_is_received() -> None:
    """A member on lo receives what is sent to the group by lo."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        member.settimeout(10)
        member.bind(("239.7.1.4", 0))
        join(member, "IP_ADD_MEMBERSHIP", "239.7.1.4%lo")
        join(sender, "IP_MULTICAST_IF", "lo")
        sender.sendto(b"hello", member.getsockname())
        assert member.recv(16) == b"hello"


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        (socket.AF_INET, "IP_UNICAST_IF", "lo"),
        (socket.AF_INET6, "IPV6_UNICAST_IF", "lo"),
        (socket.AF_INET6, "IPV6_MULTICAST_IF", "lo"),
        (socket.AF_INET, "SO_BINDTOIFINDEX", "lo"),
        (socket.AF_INET, "IP_MULTICAST_IF", "127.0.0.1"),
    ],
)
def test_the_kernel_takes_and_tells_an_interface(
    family: socket.AddressFamily, name: str, value: str
) -> None:
    """An interface that the kernel was given is told by it as it was written."""
    option = CATALOGUE[name]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        join(sock, name, value)
        assert option.form.decode(get_value(sock, option)) == value


def test_the_kernel_sends_from_the_address_that_was_named() -> None:
    """IPV6_PKTINFO makes a datagram leave from the address and interface that were named."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        receiver.settimeout(10)
        try:
            receiver.bind(("::1", 0))
        except OSError:
            pytest.skip("needs IPv6 on lo")
        join(sender, "IPV6_PKTINFO", "::1%lo")
        sender.sendto(b"hello", receiver.getsockname())
        assert receiver.recvfrom(16)[1][0] == "::1"


def test_the_kernel_hears_a_link_layer_group() -> None:
    """A link-layer group is added to the interface that was named, in the order on the wire."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with sock:
        join(sock, "PACKET_ADD_MEMBERSHIP", "01:00:5e:07:01:05%lo")
        words = [line.split() for line in (PROC / "dev_mcast").read_text().splitlines()]
        assert ["lo", "01005e070105"] in [[word[1], word[4]] for word in words]
        join(sock, "PACKET_DROP_MEMBERSHIP", "01:00:5e:07:01:05%lo")
        assert "01005e070105" not in (PROC / "dev_mcast").read_text()
