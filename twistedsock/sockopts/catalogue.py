"""The catalogue of socket options, read from the table beside it.

``catalogue.tsv`` is the data: a line an option. Its columns, ``-`` where a cell is empty:

    level, name, number     as in the kernel's headers
    value                   how it is written: a form of ``values`` or ``structures``
    access                  rw, r, w, or cmsg: ancillary data of a message alone
    fits                    the kinds of sockets that it has an effect on, as ``kinds`` spells them
    phase                   when it is to be set
    inherited               whether an accepted socket has its listener's value: yes, no, or the
                            kinds of sockets where it has
    since, privilege        the first Linux that has it; the capabilities that setting it needs
    aliases                 other spellings, those of systemd.socket(5) among them
    read_as                 the option that tells what this one has done
    meaning, differs        a line for people; why the value read may not be the value set
"""

from __future__ import annotations

import difflib
import pkgutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, Literal, get_args

from twistedsock.errors import OptionError
from twistedsock.sockopts.kinds import STREAMS, expand
from twistedsock.sockopts.memberships import NETWORK
from twistedsock.sockopts.names import NAMED
from twistedsock.sockopts.structures import REPEATED, STRUCTURES
from twistedsock.sockopts.values import SCALARS, Form

Phase = Literal["socket", "prebind", "bound", "listening", "connected"]
"""When an option is set: right after socket(2); before bind(2), listen(2) or connect(2); once
bound; once listening; on each accepted or connected socket."""

PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
LEVELS: Final[dict[str, int]] = {
    "SOL_SOCKET": socket.SOL_SOCKET,
    "IPPROTO_IP": socket.IPPROTO_IP,
    "IPPROTO_IPV6": socket.IPPROTO_IPV6,
    "IPPROTO_TCP": socket.IPPROTO_TCP,
    "IPPROTO_UDP": socket.IPPROTO_UDP,
    "IPPROTO_UDPLITE": 136,
    "IPPROTO_SCTP": 132,
    "SOL_RAW": 255,
    "SOL_ICMPV6": 58,
    "SOL_PACKET": 263,
    "SOL_NETLINK": 270,
    "SOL_MPTCP": 284,
    "SOL_XDP": 283,
    "SOL_TLS": 282,
    "SOL_CAN_RAW": 101,
    "SOL_ALG": 279,
    "AF_VSOCK": 40,
}
# On some machines (MIPS, SPARC, PA-RISC, Alpha) the numbers of SOL_SOCKET are others.
_NUMBERS_ARE_LINUXS = sys.platform == "linux"
_NUMBERS_ARE_GENERIC = _NUMBERS_ARE_LINUXS and socket.SO_REUSEADDR == 2 and socket.SO_KEEPALIVE == 9


# Values that getsockopt(2) wants to be asked for by what stands in the buffer, or in its length.
_NOT_TOLD = {
    "fprog",
    "struct ip_msfilter",
    "struct group_filter",
    "struct in6_flowlabel_req",
    "struct tcp_zerocopy_receive",
    "struct tcp_ao_info_opt",
    "struct tcp_ao_getsockopt",
    "struct mptcp_subflow_data",
    "struct mptcp_full_info",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One socket option.

    Attributes:
        name: The kernel's own name; with ``@LEVEL`` where it stands at a second level.
        level_name, level, number: The first two arguments of setsockopt(2); the number is None
            where this platform's is not known.
        form: How its value is written.
        access: ``rw``, ``r``, ``w`` or ``cmsg``.
        fits: The kinds of sockets that it has an effect on.
        phase: When it is to be set.
        inherited: The kinds of sockets whose accepted ones have their listener's value; None
            where there is nothing to inherit.
        since: The first Linux that has it.
        capabilities: Any of these is needed to set it.
        condition: Where they are needed only sometimes: when.
        aliases: Other spellings.
        read_as: The option that tells what this one has done.
        meaning: What it does.
        differs: Why the value read may not be the value set.
    """

    name: str
    level_name: str
    level: int
    number: int | None
    value: str
    form: Form
    access: Literal["rw", "r", "w", "cmsg"] = "rw"
    fits: frozenset[str] = frozenset()
    phase: Phase = "socket"
    inherited: frozenset[str] | None = None
    since: str = ""
    capabilities: tuple[str, ...] = ()
    condition: str = ""
    aliases: tuple[str, ...] = ()
    read_as: str = ""
    meaning: str = ""
    differs: str = ""

    @property
    def is_writable(self) -> bool:
        """Whether setsockopt(2) takes it."""
        return "w" in self.access

    @property
    def is_readable(self) -> bool:
        """Whether getsockopt(2) tells it to Python.

        A filter it does not: there the length counts instructions, and the kernel would write
        past the buffer. Nor what is asked by the buffer's own content, which Python cannot fill.
        """
        return "r" in self.access and self.value not in _NOT_TOLD

    @property
    def is_repeated(self) -> bool:
        """Whether a socket may have several values of it, written as a list."""
        return self.form.kind in REPEATED


FORMS: Final[dict[str, Callable[[str], Form]]] = {**SCALARS, **NAMED, **NETWORK, **STRUCTURES}


@cache
def make_form(value: str) -> Form:
    """Return the form that a cell of the table names, such as ``seconds 1..32767``."""
    kind, _, parameter = value.partition(" ")
    return FORMS[kind](parameter)


def parse_table(text: str) -> dict[str, Option]:
    """Return the options of *text*, by name, in its order."""
    head, *lines = text.splitlines()
    columns = head.split("\t")
    options = {}
    for line in lines:
        row = {
            column: "" if cell == "-" else cell
            for column, cell in zip(columns, line.split("\t"), strict=True)
        }
        options[row["name"]] = _option(row)
    return options


def _option(row: Mapping[str, str]) -> Option:
    capabilities, _, condition = row["privilege"].partition(" if ")
    fits = expand(row["fits"])
    return Option(
        name=row["name"],
        level_name=row["level"],
        level=LEVELS[row["level"]],
        number=_number(row),
        value=row["value"],
        form=make_form(row["value"]),
        access=row["access"],  # type: ignore[arg-type]  # the table is tested
        fits=fits,
        phase=row["phase"],  # type: ignore[arg-type]
        inherited=_inherited(row["inherited"], fits),
        since=row["since"],
        capabilities=tuple(filter(None, capabilities.split("|"))),
        condition=condition,
        aliases=tuple(filter(None, row["aliases"].split(","))),
        read_as=row["read_as"],
        meaning=row["meaning"],
        differs=row["differs"],
    )


def _inherited(cell: str, fits: frozenset[str]) -> frozenset[str] | None:
    if not cell:
        return None
    if cell in ("yes", "no"):
        return fits & STREAMS if cell == "yes" else frozenset()
    return expand(cell)


def _number(row: Mapping[str, str]) -> int | None:
    """Return this platform's number: Python's where it has one, else the table's on Linux."""
    known = getattr(socket, row["name"], None)
    if isinstance(known, int):
        return known
    is_known = _NUMBERS_ARE_GENERIC if row["level"] == "SOL_SOCKET" else _NUMBERS_ARE_LINUXS
    return int(row["number"]) if is_known else None


def _read_table() -> dict[str, Option]:
    data = pkgutil.get_data(__package__, "catalogue.tsv")
    assert data is not None
    return parse_table(data.decode())


def _by_spelling(options: Mapping[str, Option]) -> dict[str, tuple[Option, ...]]:
    found: dict[str, tuple[Option, ...]] = {}
    for option in options.values():
        plain = option.name.partition("@")[0]
        for spelling in dict.fromkeys((option.name, plain, *option.aliases)):
            found[spelling] = (*found.get(spelling, ()), option)
    return found


CATALOGUE: Final[Mapping[str, Option]] = MappingProxyType(_read_table())
SPELLINGS: Final[Mapping[str, tuple[Option, ...]]] = MappingProxyType(_by_spelling(CATALOGUE))


def find_options(name: str) -> tuple[Option, ...]:
    """Return the options that *name* means: an alias may mean one for each IP version.

    Raises:
        OptionError: None has this name; the message says which one comes near.
    """
    if not isinstance(name, str):  # a table that a program made
        raise OptionError(f"the name of a socket option is a text, not a {type(name).__name__}")
    found = SPELLINGS.get(name)
    if found is None:
        near = difflib.get_close_matches(name.upper(), CATALOGUE, 1)
        near = near or difflib.get_close_matches(name, SPELLINGS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(f"no socket option has this name{hint}")
    return found
