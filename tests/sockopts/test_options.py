"""Socket options on real sockets. The oracle is what the kernel reads back."""

from __future__ import annotations

import errno
import re
import socket
import struct
from pathlib import Path

import pytest

from twistedsock.addresses import parse_address
from twistedsock.errors import OptionError
from twistedsock.sockopts import CATALOGUE, SocketPlan, apply, check_options, plan_options

ON, LO = struct.pack("ii", 1, 5), b"lo\0"

# What an operator writes, and what the kernel then tells. Every value differs from its default.
SAMPLES: dict[str, tuple[object, int | bytes]] = {
    "SO_BINDTODEVICE": ("lo", LO),
    "SO_BUSY_POLL": (50, 50),
    "SO_DONTROUTE": (True, 1),
    "SO_INCOMING_CPU": (0, 0),
    "SO_KEEPALIVE": (True, 1),
    "SO_LINGER": ("5s", ON),
    "SO_MARK": (7, 7),
    "SO_OOBINLINE": (True, 1),
    "SO_PRIORITY": (5, 5),
    "SO_RCVBUF": ("40KiB", 2 * 40960),  # socket(7): the kernel doubles it
    "SO_RCVBUFFORCE": ("40KiB", 2 * 40960),
    "SO_RCVLOWAT": (3, 3),
    "SO_REUSEADDR": (True, 1),
    "SO_REUSEPORT": (True, 1),
    "SO_SNDBUF": ("40KiB", 2 * 40960),
    "SO_SNDBUFFORCE": ("40KiB", 2 * 40960),
    "IP_BIND_ADDRESS_NO_PORT": (True, 1),
    "IP_FREEBIND": (True, 1),
    "IP_MTU_DISCOVER": (2, 2),
    "IP_TOS": (0x20, 0x20),
    "IP_TRANSPARENT": (True, 1),
    "IP_TTL": (33, 33),
    "IPV6_FREEBIND": (True, 1),
    "IPV6_MTU_DISCOVER": (2, 2),
    "IPV6_TCLASS": (0x20, 0x20),
    "IPV6_TRANSPARENT": (True, 1),
    "IPV6_UNICAST_HOPS": (33, 33),
    "TCP_CONGESTION": ("reno", b"reno\0"),
    "TCP_DEFER_ACCEPT": ("7s", 7),
    "TCP_FASTOPEN": (5, 5),
    "TCP_KEEPCNT": (3, 3),
    "TCP_KEEPIDLE": ("1m", 60),
    "TCP_KEEPINTVL": ("7s", 7),
    "TCP_LINGER2": ("7s", 7),
    "TCP_MAXSEG": (1000, 1000),
    "TCP_NODELAY": (True, 1),
    "TCP_NOTSENT_LOWAT": ("16KiB", 16384),
    "TCP_SYNCNT": (3, 3),
    "TCP_USER_TIMEOUT": ("1500ms", 1500),
    "TCP_WINDOW_CLAMP": ("16KiB", 16384),
}
# Options that only set are read back through their plain brothers.
READ_AS = {"SO_RCVBUFFORCE": "SO_RCVBUF", "SO_SNDBUFFORCE": "SO_SNDBUF"}
# socket(7), ip(7), ipv6(7): these want CAP_NET_ADMIN or CAP_NET_RAW.
PRIVILEGED = {
    "SO_BUSY_POLL",
    "SO_MARK",
    "SO_RCVBUFFORCE",
    "SO_SNDBUFFORCE",
    "IP_TRANSPARENT",
    "IPV6_TRANSPARENT",
}
LEVELS = {
    "SO": socket.SOL_SOCKET,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
    "TCP": socket.IPPROTO_TCP,
}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
HEADERS = ["asm-generic/socket.h", "linux/in.h", "linux/in6.h", "linux/tcp.h"]
CASES = [
    (name, scheme, version)
    for name, option in CATALOGUE.items()
    for scheme in sorted(option.fits)
    for version in (4, 6)
    if option.family in (None, version)
]


def read(sock: socket.socket, name: str) -> int | bytes:
    """Return what the kernel tells of option *name*."""
    sample = SAMPLES[name][1]
    option = CATALOGUE[READ_AS.get(name, name)]
    if not isinstance(sample, bytes):
        return sock.getsockopt(option.level, option.number)
    value = sock.getsockopt(option.level, option.number, 16)
    # The kernel pads a text with zeros; a struct comes in its own size.
    return value if option.value != "text" else value.rstrip(b"\0") + b"\0"


def set_on(sock: socket.socket, name: str, value: object, scheme: str, version: int) -> None:
    """Set option *name* as the host does, or skip where the right is lacking."""
    host = "[::1]" if version == 6 else "127.0.0.1"
    try:
        apply(sock, plan_options({name: value}, parse_address(f"{scheme}:{host}:0")))
    except OptionError as error:
        if name in PRIVILEGED and str(error).endswith("(EPERM)"):
            pytest.skip(f"{name} needs a right that this process lacks")
        raise


def test_every_option_is_tested() -> None:
    """An option that joins the catalogue gets a sample here."""
    assert set(SAMPLES) == set(CATALOGUE)
    assert [name for name, option in CATALOGUE.items() if option.name != name] == []


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_numbers_are_pythons(name: str) -> None:
    """Level and number are those of Python's socket module, where it has them."""
    option = CATALOGUE[name]
    assert option.level == LEVELS[name.partition("_")[0]]
    assert option.number == getattr(socket, name, option.number)
    assert option.family == {"IP": 4, "IPV6": 6}.get(name.partition("_")[0])


@pytest.mark.parametrize("name", [name for name in CATALOGUE if not hasattr(socket, name)])
def test_the_other_numbers_are_the_kernels(name: str) -> None:
    """Where Python lacks the constant the number is that of the kernel's headers."""
    paths = [Path("/usr/include", header) for header in HEADERS]
    text = "\n".join(path.read_text() for path in paths if path.exists())
    found = re.search(rf"^#define\s+{name}\s+(\d+)", text, re.MULTILINE)
    if found is None:
        pytest.skip("this machine has no kernel headers")
    assert CATALOGUE[name].number == int(found[1])


def test_no_two_options_are_one() -> None:
    """No level and number stand twice in the catalogue."""
    assert len({(option.level, option.number) for option in CATALOGUE.values()}) == len(CATALOGUE)


@pytest.mark.parametrize(("name", "scheme", "version"), CASES)
def test_the_kernel_reads_back_what_was_set(name: str, scheme: str, version: int) -> None:
    """Each option takes effect on every kind of socket that it fits."""
    written, told = SAMPLES[name]
    with socket.socket(FAMILIES[version], TYPES[scheme]) as sock:
        if name != "TCP_CONGESTION":  # reno may be this machine's default
            assert read(sock, name) != told
        set_on(sock, name, written, scheme, version)
        assert read(sock, name) == told


@pytest.mark.parametrize(
    "case", [case for case in CASES if CATALOGUE[case[0]].value == "bool"], ids=str
)
def test_what_was_switched_on_is_switched_off(case: tuple[str, str, int]) -> None:
    """False undoes true."""
    name, scheme, version = case
    with socket.socket(FAMILIES[version], TYPES[scheme]) as sock:
        set_on(sock, name, True, scheme, version)
        set_on(sock, name, False, scheme, version)
        assert read(sock, name) == 0


def test_linger_is_switched_off() -> None:
    """A linger of false is off for the kernel, and one of 0 seconds is on."""
    with socket.socket() as sock:
        set_on(sock, "SO_LINGER", "0s", "tcp", 4)
        assert read(sock, "SO_LINGER") == struct.pack("ii", 1, 0)
        set_on(sock, "SO_LINGER", False, "tcp", 4)
        assert struct.unpack("ii", bytes(read(sock, "SO_LINGER")))[0] == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", TYPES)
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_dual_stack_socket_takes_both_versions(name: str, scheme: str) -> None:
    """Every option that fits the scheme is taken by the one socket of a wildcard listener."""
    if scheme not in CATALOGUE[name].fits:
        assert plan_options({name: SAMPLES[name][0]}, parse_address(f"{scheme}:*:0")) == ()
        return
    with socket.socket(socket.AF_INET6, TYPES[scheme]) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        plans = plan_options({name: SAMPLES[name][0]}, parse_address(f"{scheme}:*:0"))
        assert len(plans) == 1
        try:
            apply(sock, plans)
        except OptionError as error:
            if name not in PRIVILEGED or not str(error).endswith("(EPERM)"):
                raise
            pytest.skip(f"{name} needs a right that this process lacks")
        assert read(sock, name) == SAMPLES[name][1]


# tcp(7), socket(7): what these mean ends with the handshake, so they are the listener's alone.
LISTENERS_OWN = {"SO_INCOMING_CPU", "TCP_DEFER_ACCEPT", "TCP_FASTOPEN"}
TIMESTAMP_BYTES = 12  # RFC 7323: the option of each segment, which the connection's MSS lacks


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, version) for name, scheme, version in CASES if scheme == "tcp"],
)
def test_an_accepted_socket_inherits_the_option(name: str, version: int) -> None:
    """What is set on a stream listener holds for every connection that it accepts."""
    if name in LISTENERS_OWN:
        pytest.skip(f"{name} is the listener's own")
    host = "::1" if version == 6 else "127.0.0.1"
    with socket.socket(FAMILIES[version]) as listener, socket.socket(FAMILIES[version]) as client:
        set_on(listener, name, SAMPLES[name][0], "tcp", version)
        listener.bind((host, 0))
        listener.listen()
        for sock in (listener, client):
            sock.settimeout(20)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            told = read(accepted, name)
    if name == "TCP_MAXSEG":
        assert told in (1000, 1000 - TIMESTAMP_BYTES)
    else:
        assert told == SAMPLES[name][1]


@pytest.mark.parametrize(
    ("name", "host"), [("IP_FREEBIND", "192.0.2.1"), ("IPV6_FREEBIND", "2001:db8::1")]
)
def test_a_free_bind_takes_an_address_that_is_not_here(name: str, host: str) -> None:
    """With the option, and only with it, a socket is bound to an address of no interface."""
    version = 6 if ":" in host else 4
    with socket.socket(FAMILIES[version]) as sock:
        with pytest.raises(OSError, match="assign") as caught:
            sock.bind((host, 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        set_on(sock, name, True, "tcp", version)
        sock.bind((host, 0))
        assert sock.getsockname()[0] == host


# Which listener gets which option


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("tcp:127.0.0.1:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IP_TTL"]),
        ("tcp:[::1]:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IPV6_TCLASS"]),
        ("tcp:*:1", ["SO_KEEPALIVE", "SO_RCVBUF", "IP_TTL", "IPV6_TCLASS"]),
        ("udp:127.0.0.1:1", ["SO_RCVBUF", "IP_TTL", "IP_MTU_DISCOVER"]),
        ("udp:[::1]:1", ["SO_RCVBUF", "IPV6_TCLASS"]),
        ("udp:*:1", ["SO_RCVBUF", "IP_TTL", "IPV6_TCLASS", "IP_MTU_DISCOVER"]),
        ("unix:/p", []),
        ("raw:icmp", []),
    ],
)
def test_a_listener_gets_what_fits_it(address: str, names: list[str]) -> None:
    """Of the options written for a service each listener gets those of its kind, in their order."""
    options = {
        "SO_KEEPALIVE": True,
        "SO_RCVBUF": 4096,
        "IP_TTL": 9,
        "IPV6_TCLASS": 8,
        "IP_MTU_DISCOVER": 2,
    }
    plans = plan_options(options, parse_address(address))
    assert [plan.option.name for plan in plans] == names
    assert [plan.value for plan in plans] == [int(options[name]) for name in names]


def test_good_options_have_no_fault() -> None:
    """Every option passes the check where a listener takes it."""
    options = {name: written for name, (written, _) in SAMPLES.items()}
    addresses = [parse_address("tcp:*:1"), parse_address("udp:*:1")]
    assert check_options(options, addresses) == {}
    assert check_options(options, []) == {}
    assert check_options({}, addresses) == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SO_KEEPALIV", "; did you mean SO_KEEPALIVE?"),
        ("so_keepalive", "; did you mean SO_KEEPALIVE?"),
        ("TCP_NO_DELAY", "; did you mean TCP_NODELAY?"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_an_unknown_option_is_told_its_neighbour(name: str, hint: str) -> None:
    """A name that is not in the catalogue is a fault, with the nearest one that is."""
    assert check_options({name: True}, []) == {name: f"no socket option has this name{hint}"}


@pytest.mark.parametrize(
    ("name", "value", "address", "fault"),
    [
        ("SO_KEEPALIVE", 1, "tcp:1", "must be true or false, got 1"),
        ("SO_KEEPALIVE", True, "udp:1", "fits only tcp, and no listener here is one"),
        ("SO_RCVBUF", 1, "unix:/p", "fits only tcp, udp, and no listener here is one"),
        (
            "IPV6_TCLASS",
            1,
            "tcp:1",
            "fits only tcp, udp over IPv6, and no listener here is one",
        ),
        (
            "IP_MTU_DISCOVER",
            1,
            "udp:[::1]:1",
            "fits only udp over IPv4, and no listener here is one",
        ),
    ],
)
def test_an_option_that_cannot_be_is_a_fault(
    name: str, value: object, address: str, fault: str
) -> None:
    """A value of the wrong type, or an option that fits no listener, is told with what is right."""
    assert check_options({name: value}, [parse_address(address)]) == {name: fault}


def test_every_fault_is_found() -> None:
    """One fault hides no other, and an option needs only one listener that it fits."""
    options = {"NOPE": 1, "SO_KEEPALIVE": 1, "TCP_NODELAY": True, "IP_TTL": "x"}
    faults = check_options(options, [parse_address("udp:1"), parse_address("tcp:1")])
    assert faults == {
        "NOPE": "no socket option has this name",
        "SO_KEEPALIVE": "must be true or false, got 1",
        "IP_TTL": "must be a whole number, got 'x'",
    }


# What the kernel refuses


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TCP_CONGESTION", "no_such_thing", "No such file or directory (ENOENT)"),
        ("TCP_KEEPIDLE", "0s", "Invalid argument (EINVAL)"),
        ("IP_TTL", 256, "Invalid argument (EINVAL)"),
        ("SO_BINDTODEVICE", "nosuchdevice", "No such device (ENODEV)"),
    ],
)
def test_a_refusal_names_the_option(name: str, value: object, told: str) -> None:
    """An option that the kernel refuses is told with the kernel's words and code."""
    with socket.socket() as sock, pytest.raises(OptionError) as caught:
        apply(sock, plan_options({name: value}, parse_address("tcp:0")))
    assert str(caught.value) == f"{name}: {told}"
    assert isinstance(caught.value.__cause__, OSError)


def test_an_option_of_another_socket_is_refused_by_the_kernel() -> None:
    """A plan made for a stream does not pass unnoticed on a datagram socket."""
    plan = SocketPlan(CATALOGUE["TCP_NODELAY"], 1)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OptionError) as caught:
        apply(sock, [plan])
    assert str(caught.value) == "TCP_NODELAY: Protocol not available (ENOPROTOOPT)"


def test_options_are_set_up_to_the_first_refusal() -> None:
    """Options are set in their order; those before a refusal stay, those after are not tried."""
    options = {"SO_KEEPALIVE": True, "IP_TTL": 256, "SO_OOBINLINE": True}
    with socket.socket() as sock:
        with pytest.raises(OptionError, match=r"^IP_TTL: "):
            apply(sock, plan_options(options, parse_address("tcp:0")))
        assert (read(sock, "SO_KEEPALIVE"), read(sock, "SO_OOBINLINE")) == (1, 0)
