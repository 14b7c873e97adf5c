"""From what an operator writes to what each socket gets; every check that needs no socket."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from twistedsock.addresses import Address
from twistedsock.errors import OptionError
from twistedsock.sockopts.catalogue import (
    CATALOGUE,
    LEVELS,
    PHASES,
    SPELLINGS,
    Option,
    Phase,
    find_options,
    make_form,
)
from twistedsock.sockopts.kinds import GROUPS, STREAMS, describe, kinds_of_address
from twistedsock.sockopts.values import (
    HEX,
    MAX_INT,
    MAX_UINT,
    MIN_INT,
    Raw,
    octets,
    read_text,
    shown,
)

Refusal = Literal["strict", "warn", "ignore"]
"""What follows when the kernel refuses an option: the socket is given up, or used without it, with
a warning or without."""

Role = Literal["listen", "connect"]

REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
SYSTEMD_SECONDS = "Sec"  # the end of those of its names that take a number of seconds
RAW_KEYS = ("level", "number", "value", "phase")
# Reading these as octets would write past the buffer, under whatever name.
_NOT_FOR_PYTHON = {
    (option.level, option.number)
    for option in CATALOGUE.values()
    if "r" in option.access and not option.is_readable
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One option to set on a socket.

    Attributes:
        name: As it was written.
        option: What is set.
        requested: The value as it was written.
        value: The value for ``socket.setsockopt``.
        phases: When; twice where accepted sockets do not inherit it.
    """

    name: str
    option: Option
    requested: object = field(hash=False)  # it may be a list or a table
    value: Raw
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """The options of one socket, and what follows when the kernel refuses one."""

    settings: tuple[Setting, ...] = ()
    refusal: Refusal = "strict"

    def at(self, phase: Phase) -> tuple[Setting, ...]:
        """Return what is to be set at *phase*, in the order it was written."""
        return tuple(setting for setting in self.settings if phase in setting.phases)


NO_OPTIONS: Final = SocketPlan()


def check_options(
    options: Mapping[str, object],
    addresses: Iterable[Address] = (),
    role: Role = "listen",
) -> dict[str, str]:
    """Return what is wrong with *options*, by name: unknown, a bad value, or fitting nowhere.

    Args:
        options: Values by the option's name, as an operator writes them.
        addresses: The listeners or peers that they are meant for; with none, that is not checked.
        role: What the sockets are for.
    """
    return _read(options, [(kinds_of_address(address), role) for address in addresses])[1]


def check_for_kinds(
    options: Mapping[str, object], kinds: frozenset[str], role: Role
) -> dict[str, str]:
    """Return what is wrong with *options* for a socket of *kinds*, by name."""
    return _read(options, [(kinds, role)])[1]


def plan_options(
    options: Mapping[str, object],
    address: Address,
    own: Mapping[str, object] | None = None,
    *,
    refusal: Refusal = "strict",
    role: Role = "listen",
) -> SocketPlan:
    """Return those of *options* that fit *address*, with *own* over them.

    Raises:
        OptionError: One is unknown, or its value is wrong; see ``check_options`` for all faults.
    """
    return plan_for_kinds(options, kinds_of_address(address), own, refusal=refusal, role=role)


def plan_for_kinds(
    options: Mapping[str, object],
    kinds: frozenset[str],
    own: Mapping[str, object] | None = None,
    *,
    refusal: Refusal = "strict",
    role: Role = "listen",
) -> SocketPlan:
    """Return those of *options* that fit a socket of *kinds*, with *own* over them."""
    wishes: dict[str, list[_Wish]] = {}
    for table in (options, own or {}):
        read, faults = _read(table)
        for name, fault in faults.items():
            raise OptionError(f"{name}: {fault}", name)
        for option_name in {wish.option.name for wish in read}:
            wishes.pop(option_name, None)
        for wish in read:
            wishes.setdefault(wish.option.name, []).append(wish)
    settings = [
        Setting(wish.name, wish.option, wish.value, wish.raw, phases)
        for each in wishes.values()
        for wish in each
        if (phases := _phases(wish.option, kinds, role))
    ]
    return SocketPlan(tuple(settings), refusal)


def read_value(name: str, text: str) -> object:
    """Return the value that *text*, of a command line or an endpoint string, says for *name*.

    A table or a list is written as TOML writes it. What is wrong is told by ``check_options``.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):  # the parser's own limits are among them
            return text
    found = SPELLINGS.get(name)
    if name.endswith(SYSTEMD_SECONDS) and re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    return text if found is None else read_text(found[0].form, text)


@dataclass(frozen=True, slots=True)
class _Wish:
    """One option of a table, read: an alias that means two gives two."""

    name: str
    option: Option
    value: object
    raw: Raw


def _read(
    options: Mapping[str, object], places: Iterable[tuple[frozenset[str], Role]] = ()
) -> tuple[list[_Wish], dict[str, str]]:
    """Return what *options* say, and what is wrong with the rest of them."""
    wishes: list[_Wish] = []
    faults: dict[str, str] = {}
    written: dict[str, str] = {}
    places = list(places)
    for name, value in options.items():
        try:
            read = _read_one(name, value)
            _check_fit([wish.option for wish in read], places)
            for wish in read:
                first = written.setdefault(wish.option.name, name)
                if first != name:
                    raise OptionError(f"{first} sets the same option")
            wishes += read
        except (OptionError, ValueError) as error:
            faults[name] = str(error)
    return wishes, faults


def _read_one(name: str, value: object) -> list[_Wish]:
    if isinstance(value, Mapping) and is_raw(value):
        return [_read_raw(name, value)]
    wishes = []
    for option in find_options(name):
        check_writable(option)
        several = isinstance(value, list | tuple) and option.is_repeated
        for each in list(value) if several else [value]:  # type: ignore[call-overload]
            # systemd.socket(5): a number alone is of seconds, where the name says so.
            is_systemds = name.endswith(SYSTEMD_SECONDS) and type(each) is int
            meant = f"{each}s" if is_systemds else each
            raw = option.form.encode(meant)
            wishes.append(_Wish(name, option, copy.deepcopy(each), raw))  # the caller's may change
    return wishes


def is_raw(value: object) -> bool:
    """Return whether *value* is the table of an option that has no name here."""
    return isinstance(value, Mapping) and bool({"level", "number"} & value.keys())


def check_writable(option: Option) -> None:
    """Raise OptionError unless *option* can be set here."""
    if option.access == "cmsg":
        raise OptionError("comes and goes with single messages; it is no setting of a socket")
    if not option.is_writable:
        raise OptionError("can only be read")
    if option.number is None:
        raise OptionError("is not known on this platform")


def _read_raw(name: str, table: Mapping[str, Any]) -> _Wish:
    """Read an option that has no name here: ``{level, number, value, phase}``."""
    if name in SPELLINGS:
        raise OptionError("has a name here: write its value, or give the raw option another name")
    unknown = [key for key in table if key not in RAW_KEYS]
    if unknown or not {"level", "number", "value"} <= table.keys():
        raise OptionError(
            "a raw option has level, number and value, and perhaps phase;"
            f" got {', '.join(map(str, table))}"
        )
    level, number, value = table["level"], table["number"], table["value"]
    if isinstance(level, str) and level in LEVELS:
        level_name, level = level, LEVELS[level]
    else:
        level_name = str(level)
    for key, each in (("level", level), ("number", number)):
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= MAX_INT:
            known = f", or one of {', '.join(LEVELS)}" if key == "level" else ""
            raise OptionError(f"{key} must be 0 to {MAX_INT}{known}; got {shown(each)}")
    phase = table.get("phase", "socket")
    if phase not in PHASES:
        raise OptionError(f"phase must be one of {', '.join(PHASES)}; got {shown(phase)}")
    form = make_form("bytes" if isinstance(value, bytes | str) else "int")
    option = Option(
        name=name,
        level_name=level_name,
        level=level,
        number=number,
        value=form.kind,
        form=form,
        access="w" if (level, number) in _NOT_FOR_PYTHON else "rw",
        fits=_kinds_at(level),
        phase=phase,
        meaning="An option without a name",
    )
    return _Wish(name, option, value, _raw_value(value))


def _kinds_at(level: int) -> frozenset[str]:
    """Return the kinds of sockets that have options at *level*: all where we know of none."""
    at_level = [option.fits for option in CATALOGUE.values() if option.level == level]
    return frozenset[str]().union(*at_level) or GROUPS["all"]


def _raw_value(value: object) -> Raw:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and MIN_INT <= value <= MAX_UINT:
        return value if value <= MAX_INT else value - 2**32
    if isinstance(value, str) and not value.startswith(HEX):
        return value.encode()
    if isinstance(value, bytes | str):
        return octets(value)
    raise OptionError(
        f'value must be a whole number of 32 bits, a text or "hex:..."; got {shown(value)}'
    )


def _check_fit(options: list[Option], places: list[tuple[frozenset[str], Role]]) -> None:
    """Raise OptionError where there are places, and none of *options* fits one of them."""
    if not places or any(_phases(option, *place) for option in options for place in places):
        return
    role = places[0][1]
    what = "listener" if role == "listen" else "peer"
    fits = frozenset().union(*(option.fits for option in options))
    if any(fits & kinds for kinds, _ in places):
        what = "listening socket" if role == "connect" else "connected socket"
        raise OptionError(f"fits only a {what}")
    raise OptionError(f"fits only {describe(fits)}, and no {what} here is one")


def _phases(option: Option, kinds: frozenset[str], role: Role) -> tuple[Phase, ...]:
    """Return when *option* is set on a socket of *kinds*; never where it does not fit.

    A socket of no kind that we know takes what any socket takes.
    """
    if not (option.fits & kinds if kinds else option.fits == GROUPS["all"]):
        return ()
    if role == "connect":
        return () if option.phase == "listening" else (option.phase,)
    accepts = not kinds or bool(kinds & STREAMS)  # of a kind without a name we know nothing
    if not accepts and option.phase in ("listening", "connected"):
        return ()
    # Set on the listener, too: so that what is wrong shows before anybody connects.
    lost = kinds & STREAMS & (option.fits - (option.inherited or frozenset()))
    if option.phase == "socket" and option.inherited is not None and lost:
        return ("socket", "connected")
    return (option.phase,)
