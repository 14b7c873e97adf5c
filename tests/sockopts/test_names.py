"""Names of values. The oracles are the kernel's headers, the RFCs and Python's socket module."""

from __future__ import annotations

import itertools
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.catalogue import make_form
from twistedsock.sockopts.kernel import get_value, set_value
from twistedsock.sockopts.names import CHOICES, DSCP, FLAGS, NAMED, TOS_WORDS

quick = settings(max_examples=300, deadline=None)

HEADERS = Path("/usr/include/linux")

# The six bits of a class as its RFC writes them.
CODE_POINTS = {
    # RFC 2474 section 4.2.2, class selectors
    "CS0": "000000", "CS1": "001000", "CS2": "010000", "CS3": "011000",
    "CS4": "100000", "CS5": "101000", "CS6": "110000", "CS7": "111000",
    # RFC 2597 section 6, assured forwarding
    "AF11": "001010", "AF12": "001100", "AF13": "001110",
    "AF21": "010010", "AF22": "010100", "AF23": "010110",
    "AF31": "011010", "AF32": "011100", "AF33": "011110",
    "AF41": "100010", "AF42": "100100", "AF43": "100110",
    "EF": "101110",  # RFC 3246 section 2.7
    "VA": "101100",  # RFC 5865 section 2, VOICE-ADMIT
    "LE": "000001",  # RFC 8622 section 3
}  # fmt: skip

# Where a header of the kernel has the numbers of a set, how it spells a name of it.
SPELT = {
    "pmtudisc": ("in.h", "IP_PMTUDISC_{}"),
    "repair": ("tcp.h", {"off": "TCP_REPAIR_OFF", "on": "TCP_REPAIR_ON",
                         "off-no-window-probe": "TCP_REPAIR_OFF_NO_WP"}),
    "udp-encap": ("udp.h", {"espinudp": "UDP_ENCAP_ESPINUDP", "l2tpinudp": "UDP_ENCAP_L2TPINUDP"}),
    "buf-lock": ("socket.h", {"send": "SOCK_SNDBUF_LOCK", "receive": "SOCK_RCVBUF_LOCK"}),
    "addr-preferences": ("in6.h", "IPV6_PREFER_SRC_{}"),
    "timestamping": ("net_tstamp.h", "SOF_TIMESTAMPING_{}"),
}  # fmt: skip
# Those that a header counts up in an enum, or that are no header's.
COUNTED = {
    "packet-version": {"v1": 0, "v2": 1, "v3": 2},  # enum tpacket_versions
    "txrehash": {"default": -1, "disabled": 0, "enabled": 1},  # -1: the system's
    "repair-queue": {"none": 0, "receive": 1, "send": 2},  # TCP_NO_QUEUE, ...
    "save-syn": {"off": 0, "on": 1, "with-mac": 2},
}
PYTHONS = {"socket-type": "SOCK_{}", "socket-domain": "AF_{}", "socket-protocol": "IPPROTO_{}"}
WITHOUT_CONSTANT = {  # Python 3.11 has none, or not on every machine
    "packet": {"socket-type": 10},
    "xdp": {"socket-domain": 44},
    "udplite": {"socket-protocol": 136},
    "sctp": {"socket-protocol": 132},
    "mptcp": {"socket-protocol": 262},
}


def refusal(cell: str, value: object) -> str:
    """Return the words with which the form of *cell* refuses *value*."""
    with pytest.raises(ValueError, match=r"^must be ") as caught:
        make_form(cell).encode(value)
    return str(caught.value)


def test_every_set_of_names_has_an_oracle() -> None:
    """Each set of names has an option that uses it, and is compared with others' numbers below."""
    assert {*SPELT, *COUNTED, *PYTHONS} == {*CHOICES, *FLAGS}
    used = {option.value for option in CATALOGUE.values()}
    cells = {*(f"enum {name}" for name in CHOICES), *(f"flags {name}" for name in FLAGS), "dscp"}
    assert {cell for cell in used if cell.partition(" ")[0] in NAMED} == cells


@pytest.mark.parametrize("name", SPELT)
def test_numbers_are_those_of_the_kernels_headers(name: str) -> None:
    """A name means the number that the kernel's header gives it."""
    file, spelling = SPELT[name]
    if not (HEADERS / file).exists():
        pytest.skip(f"needs the kernel's headers, {HEADERS / file}")
    text = (HEADERS / file).read_text()
    known = 0
    for word, number in (CHOICES | FLAGS)[name].items():
        upper = word.upper().replace("-", "_")
        macro = spelling.format(upper) if isinstance(spelling, str) else spelling.get(word)
        if macro is None:
            assert number == 0, word
            continue
        found = re.search(rf"\b{macro}(?:\s*=\s*|\s+)(\(1\s*<<\s*\d+\)|-?\w+)", text)
        if found is None:
            continue  # older headers
        shift = re.fullmatch(r"\(1\s*<<\s*(\d+)\)", found[1])
        assert number == (1 << int(shift[1]) if shift else int(found[1], 0)), macro
        known += 1
    assert known >= 2


@pytest.mark.parametrize("name", COUNTED)
def test_numbers_are_those_of_the_kernels_enums(name: str) -> None:
    """A name means the number that the kernel's header counts up to."""
    assert CHOICES[name] == COUNTED[name]


@pytest.mark.parametrize("name", PYTHONS)
def test_numbers_are_those_of_python(name: str) -> None:
    """A type, domain or protocol of sockets has the number that the socket module gives it."""
    for word, number in CHOICES[name].items():
        known = getattr(socket, PYTHONS[name].format(word.upper()), None)
        assert number == (WITHOUT_CONSTANT[word][name] if known is None else known), word


def test_a_class_has_the_code_point_of_its_rfc() -> None:
    """Each class of service stands in the upper six bits of the octet, and no other is known."""
    assert {name: int(bits, 2) << 2 for name, bits in CODE_POINTS.items()} == DSCP
    form = make_form("dscp")
    for name, bits in CODE_POINTS.items():
        assert form.encode(name) == form.encode(name.lower()) == int(bits + "00", 2)
        assert form.decode(int(bits + "00", 2)) == name


@pytest.mark.parametrize(
    ("word", "bit"),
    [("low-delay", 0x10), ("throughput", 0x08), ("reliability", 0x04), ("low-cost", 0x02)],
)
def test_systemds_words_are_read(word: str, bit: int) -> None:
    """The words of systemd.socket(5) mean the bits of RFC 1349 section 4, and are read alone."""
    assert make_form("dscp").encode(word) == TOS_WORDS[word] == bit
    assert word not in make_form("dscp").choices


def test_a_class_with_bits_of_congestion_is_told_as_a_number() -> None:
    """An octet that is no class alone is told as its number, so that nothing is hidden."""
    form = make_form("dscp")
    assert form.decode(46 << 2 | 1) == 185
    assert (form.encode(185), form.encode(0), form.encode(255), form.encode(-1)) == (
        185,
        0,
        255,
        -1,
    )


@pytest.mark.parametrize(
    "wrong", ["EF ", "", "AF44", "CS8", "46", "\u0661", 256, -2, True, None, 1.0, ["EF"]]
)
def test_what_is_no_class_is_refused(wrong: object) -> None:
    """What is neither a class nor an octet is refused with all that are."""
    told = refusal("dscp", wrong)
    assert told.startswith("must be one of CS0, CS1, ")
    assert told.endswith(f", or a whole number from -1 to 255, got {wrong!r}")
    assert set(told.split(", or ")[0].removeprefix("must be one of ").split(", ")) == {*CODE_POINTS}


def test_a_choice_is_a_name_or_a_number() -> None:
    """A choice is a name in either case or any C int, and is told by name where it has one."""
    form = make_form("enum pmtudisc")
    assert form.encode("DO") == form.encode("do") == form.encode(2) == 2
    assert (form.decode(2), form.decode(77), form.decode(b"\x03\0\0\0")) == ("do", 77, "probe")
    assert form.encode(2**31 - 1) == 2**31 - 1
    wanted = "one of dont, want, do, probe, interface, omit, or a whole number"
    for wrong in ("done", "", "2", None, True, 2.0, [], b"do"):
        assert refusal("enum pmtudisc", wrong) == f"must be {wanted}, got {wrong!r}"
    for far in (2**31, -(2**31) - 1):
        assert refusal("enum pmtudisc", far) == f"must be within 32 bits, got {far}"


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_told_as_it_was_written(name: str) -> None:
    """Each name of a choice comes back as itself, and none shares its number."""
    form = make_form(f"enum {name}")
    assert form.choices == tuple(CHOICES[name])
    for word, number in CHOICES[name].items():
        assert form.encode(word) == form.encode(word.upper()) == number
        assert form.decode(number) == word


def test_flags_are_a_list_a_text_or_a_number() -> None:
    """Flags are names in a list, or in a text with commas, bars, pluses or spaces, or their sum."""
    form = make_form("flags timestamping")
    for value in (
        ["rx-software", "software"], ("SOFTWARE", "rx-software"), "rx-software,software", 24,
        "rx-software | software", "rx-software+software", "rx-software software",
        ["software", "rx-software", "software"],
    ):  # fmt: skip
        assert form.encode(value) == 8 | 16
    assert form.decode(24) == ["rx-software", "software"]
    assert (form.encode([]), form.encode(0), form.decode(0)) == (0, 0, [])
    assert form.decode(1 << 30 | 1) == 1 << 30 | 1  # a flag of a later kernel
    assert form.encode(2**31 - 1) == 2**31 - 1


@pytest.mark.parametrize(
    "wrong",
    ["", "all", "send,", ["send", 2], [["send"]], 2**31, -1, True, None, 1.5, b"send", {"send": 1}],
)
def test_what_is_no_flag_is_refused(wrong: object) -> None:
    """What holds a name that is none, or no name, is refused with all that are."""
    told = f"must be a list of send, receive, or a whole number from 0 to 2147483647, got {wrong!r}"
    assert refusal("flags buf-lock", wrong) == told


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_single_bits(name: str) -> None:
    """Each flag is one bit that no other of its set has."""
    numbers = list(FLAGS[name].values())
    assert all(number > 0 and number & (number - 1) == 0 for number in numbers)
    assert not any(a & b for a, b in itertools.combinations(numbers, 2))


@quick
@given(st.data(), st.sampled_from(sorted(FLAGS)))
def test_every_set_of_flags_is_told_as_it_was_written(data: st.DataObject, name: str) -> None:
    """Any flags together come back as the same, in the kernel's order."""
    form, names = make_form(f"flags {name}"), list(FLAGS[name])
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert form.decode(form.encode(chosen)) == sorted(chosen, key=names.index)


@quick
@given(
    st.sampled_from(["dscp", *(f"enum {name}" for name in CHOICES)])
    | st.sampled_from([f"flags {name}" for name in FLAGS]),
    st.integers(0, 255),
)
def test_every_number_is_told_as_what_it_means(cell: str, number: int) -> None:
    """A number comes back as a name or as itself, and both mean the same."""
    form = make_form(cell)
    assert form.encode(number) == number
    assert form.encode(form.decode(number)) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IP_TOS", "AF41"),
        ("IP_TOS", "LE"),
        ("IP_MTU_DISCOVER", "probe"),
        ("SO_TIMESTAMPING", ["rx-software", "software"]),
        ("SO_BUF_LOCK", ["send", "receive"]),
    ],
)
def test_the_kernel_takes_and_tells_a_name(name: str, value: object) -> None:
    """A name that the kernel was given is told by it as it was written."""
    option = CATALOGUE[name]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        set_value(sock, option, option.form.encode(value))
        assert option.form.decode(get_value(sock, option)) == value


def test_the_kernel_tells_what_a_socket_is() -> None:
    """Type, domain and protocol of a socket are told by name."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        told = [
            CATALOGUE[name].form.decode(get_value(sock, CATALOGUE[name]))
            for name in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL")
        ]
    assert told == ["dgram", "inet6", "udp"]
