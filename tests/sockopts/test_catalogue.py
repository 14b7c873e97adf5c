"""The table of socket options. Oracles: Python's constants, kernel headers, systemd's words."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from twistedsock.errors import OptionError
from twistedsock.sockopts import CATALOGUE, SPELLINGS, find_options
from twistedsock.sockopts import catalogue as module
from twistedsock.sockopts.catalogue import FORMS, LEVELS, PHASES, parse_table
from twistedsock.sockopts.kinds import SOCKETS

TABLE = Path(module.__file__).with_name("catalogue.tsv")
COLUMNS = [
    *("level", "name", "number", "value", "access", "fits", "phase", "inherited"),
    *("since", "privilege", "aliases", "read_as", "meaning", "differs"),
]
LINES = [line.split("\t") for line in TABLE.read_text().splitlines()]
ROWS = {cells[1]: dict(zip(COLUMNS, cells, strict=False)) for cells in LINES[1:]}
HEADERS = (
    *("asm-generic/socket.h", "linux/in.h", "linux/in6.h", "linux/tcp.h", "linux/udp.h"),
    *("linux/mptcp.h", "linux/icmp.h", "linux/icmpv6.h", "linux/if_packet.h", "linux/netlink.h"),
    *("linux/vm_sockets.h", "linux/if_xdp.h", "linux/tls.h", "linux/can/raw.h", "linux/if_alg.h"),
    *("linux/sctp.h", "linux/netfilter_ipv4.h", "linux/netfilter_ipv6/ip6_tables.h"),
)
# systemd.socket(5) and systemd.exec-like units: the words of [Socket] that are socket options.
SYSTEMDS = {
    "KeepAlive": {"SO_KEEPALIVE"},
    "KeepAliveTimeSec": {"TCP_KEEPIDLE"},
    "KeepAliveIntervalSec": {"TCP_KEEPINTVL"},
    "KeepAliveProbes": {"TCP_KEEPCNT"},
    "NoDelay": {"TCP_NODELAY"},
    "Priority": {"SO_PRIORITY"},
    "DeferAcceptSec": {"TCP_DEFER_ACCEPT"},
    "ReceiveBuffer": {"SO_RCVBUF"},
    "SendBuffer": {"SO_SNDBUF"},
    "IPTOS": {"IP_TOS"},
    "IPTTL": {"IP_TTL", "IPV6_UNICAST_HOPS"},
    "Mark": {"SO_MARK"},
    "ReusePort": {"SO_REUSEPORT"},
    "FreeBind": {"IP_FREEBIND", "IPV6_FREEBIND"},
    "Transparent": {"IP_TRANSPARENT", "IPV6_TRANSPARENT"},
    "Broadcast": {"SO_BROADCAST"},
    "PassCredentials": {"SO_PASSCRED"},
    "PassPIDFD": {"SO_PASSPIDFD"},
    "PassSecurity": {"SO_PASSSEC"},
    "PassPacketInfo": {"IP_PKTINFO", "IPV6_RECVPKTINFO", "NETLINK_PKTINFO"},
    "AcceptFileDescriptors": {"SO_PASSRIGHTS"},
    "TCPCongestion": {"TCP_CONGESTION"},
    "BindToDevice": {"SO_BINDTODEVICE"},
}


def test_the_table_has_its_columns() -> None:
    """Every line has the columns of the head, no cell is empty, and no name stands twice."""
    assert LINES[0] == COLUMNS
    assert [cells for cells in LINES if len(cells) != len(COLUMNS)] == []
    assert [cells[1] for cells in LINES if "" in map(str.strip, cells)] == []
    assert len(ROWS) == len(LINES) - 1
    assert list(CATALOGUE) == list(ROWS)
    assert len(CATALOGUE) >= 250


def test_no_two_options_are_one() -> None:
    """No level and number stand twice in the table."""
    counts = Counter((row["level"], row["number"]) for row in ROWS.values())
    assert [pair for pair, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", ROWS)
def test_every_cell_means_something(name: str) -> None:
    """Each cell of a line is one that the code reads, and the line agrees with itself."""
    row, option = ROWS[name], CATALOGUE[name]
    assert row["level"] in LEVELS
    assert row["number"].isdecimal()
    assert row["value"].split()[0] in FORMS
    assert row["access"] in ("rw", "r", "w", "cmsg")
    assert option.phase in PHASES
    assert option.fits
    assert option.fits <= SOCKETS.keys()
    assert option.inherited is None or option.inherited <= option.fits
    assert option.inherited is None or option.is_writable
    assert re.fullmatch(r"-|[0-9]+\.[0-9]+(\.[0-9]+)?", row["since"])
    for capability in option.capabilities:
        assert re.fullmatch(r"CAP_[A-Z_]+", capability)
    assert not option.condition or option.capabilities
    assert not option.capabilities or option.is_writable
    assert option.read_as == "" or CATALOGUE[option.read_as].is_readable
    name, at, level = name.partition("@")
    assert not at or (level == row["level"] and ROWS[name]["level"] != level)


@pytest.mark.parametrize("name", ROWS)
def test_every_meaning_is_a_sentence(name: str) -> None:
    """A meaning begins with a capital, ends without a stop, and is one line of some words."""
    meaning, differs = ROWS[name]["meaning"], ROWS[name]["differs"]
    assert re.match(r"[A-Z0-9]", meaning)
    assert not meaning.endswith((".", ";", ",", " "))
    assert 3 <= len(meaning.split()) <= 40
    assert "  " not in meaning + differs
    assert differs == "-" or not differs.endswith((".", ";", " "))
    for sysctl in re.findall(r"\{(.*?)\}", differs):
        assert re.fullmatch(r"(net|ipv[46])(\.[a-z0-9_]+)+", sysctl)


@pytest.mark.parametrize("name", [name for name, option in CATALOGUE.items() if option.is_writable])
def test_what_can_be_set_can_be_written(name: str) -> None:
    """No option that setsockopt takes has a form that can only be read."""
    assert not CATALOGUE[name].form.wanted.startswith("nothing")


@pytest.mark.parametrize("name", [name for name in ROWS if hasattr(socket, name)])
def test_the_numbers_are_pythons(name: str) -> None:
    """Level and number are those of Python's socket module, where it has them."""
    assert int(ROWS[name]["number"]) == getattr(socket, name) == CATALOGUE[name].number
    level = ROWS[name]["level"]
    assert LEVELS[level] == getattr(socket, level, LEVELS[level])


@pytest.fixture(scope="module")
def kernels() -> dict[str, set[str]]:
    """What the installed headers define, resolved to numbers."""
    paths = [Path("/usr/include", header) for header in HEADERS]
    if not paths[1].exists():
        pytest.skip("needs the kernel's headers: apt-get install linux-libc-dev")
    text = "\n".join(path.read_text(errors="replace") for path in paths if path.exists())
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    found: dict[str, set[str]] = {}
    for name, value in re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+\(?(\w+)", text, re.M):
        found.setdefault(name, set()).add(value)
    for body in re.findall(r"enum[^{]*\{([^}]*)\}", text):
        last = -1
        for entry in filter(None, (each.strip() for each in body.split(","))):
            name, _, value = (part.strip() for part in entry.partition("="))
            if re.fullmatch(r"[0-9]+", value or str(last + 1)):
                last = int(value) if value else last + 1
                found.setdefault(name.split()[-1], set()).add(str(last))
    for _ in range(3):  # one name for another
        found = {name: set().union(*(found.get(v, {v}) for v in vs)) for name, vs in found.items()}
    return found


# The installed headers may be older than the table.
@pytest.mark.parametrize("name", ROWS)
def test_the_numbers_are_the_kernels(name: str, kernels: dict[str, set[str]]) -> None:
    """Every number is the one of the kernel's headers, where these have the name."""
    plain = name.partition("@")[0]
    if plain not in kernels:
        pytest.skip(f"the headers of linux-libc-dev that are here have no {plain}")
    assert ROWS[name]["number"] in kernels[plain]


@pytest.mark.parametrize("word", SYSTEMDS)
def test_systemds_words_are_aliases(word: str) -> None:
    """A spelling of systemd.socket(5) means what systemd sets for it."""
    assert {option.name for option in find_options(word)} == SYSTEMDS[word]


def test_aliases_hide_no_name() -> None:
    """No alias is the name of another option, and all spellings find their option."""
    for name, option in CATALOGUE.items():
        assert option in find_options(name)
        assert not set(option.aliases) & CATALOGUE.keys()
        assert all(option in SPELLINGS[alias] for alias in option.aliases)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SO_KEEPALIV", "; did you mean SO_KEEPALIVE?"),
        ("so_keepalive", "; did you mean SO_KEEPALIVE?"),
        ("TCP_NO_DELAY", "; did you mean TCP_NODELAY?"),
        ("ReceiveBufer", "; did you mean ReceiveBuffer?"),
        ("xyzzy", ""),
        ("", ""),
        ("x" * 100_000, ""),
    ],
)
def test_an_unknown_name_is_told_its_neighbour(name: str, hint: str) -> None:
    """A name that is not in the table is refused with the nearest one that is."""
    with pytest.raises(OptionError) as caught:
        find_options(name)
    assert str(caught.value) == f"no socket option has this name{hint}"


@pytest.mark.parametrize("name", [5, None, b"SO_RCVBUF", ("a",)])
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    """A key of a table that a program made is refused like one of a file."""
    with pytest.raises(OptionError, match=r"^the name of a socket option is a text, not a "):
        find_options(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("cells", [["SOL_SOCKET"], ["a"] * 15])
def test_a_short_or_long_line_is_refused(cells: list[str]) -> None:
    """A line that lost a tab is told at once, not read awry."""
    with pytest.raises(ValueError, match="zip"):
        parse_table("\n".join(("\t".join(COLUMNS), "\t".join(cells))))
