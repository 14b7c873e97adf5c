"""Which listener gets which option, and setting them on its socket."""

from __future__ import annotations

import difflib
import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from twistedsock.addresses import Address
from twistedsock.errors import OptionError
from twistedsock.sockopts.catalogue import CATALOGUE, Option
from twistedsock.sockopts.values import encode_value


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """One option to set, with its value ready for ``socket.setsockopt``."""

    option: Option
    value: int | bytes


def check_options(options: Mapping[str, object], addresses: Iterable[Address]) -> dict[str, str]:
    """Return what is wrong with *options*, by name: unknown, a bad value, or fitting nowhere.

    Args:
        options: Values by the option's name, as an operator writes them.
        addresses: The listeners that they are meant for.
    """
    addresses = list(addresses)
    faults: dict[str, str] = {}
    for name, value in options.items():
        option = CATALOGUE.get(name)
        if option is None:
            near = difflib.get_close_matches(name.upper(), CATALOGUE, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            faults[name] = f"no socket option has this name{hint}"
            continue
        try:
            encode_value(option, value)
        except OptionError as error:
            faults[name] = str(error)
            continue
        if addresses and not any(_fits(option, address) for address in addresses):
            kinds = ", ".join(sorted(option.fits))
            version = f" over IPv{option.family}" if option.family else ""
            faults[name] = f"fits only {kinds}{version}, and no listener here is one"
    return faults


def plan_options(options: Mapping[str, object], address: Address) -> tuple[SocketPlan, ...]:
    """Return those of *options* that fit *address*; they have passed ``check_options``."""
    chosen = [(CATALOGUE[name], value) for name, value in options.items()]
    return tuple(
        SocketPlan(option, encode_value(option, value))
        for option, value in chosen
        if _fits(option, address)
    )


def _fits(option: Option, address: Address) -> bool:
    if address.scheme not in option.fits:
        return False
    if option.family is None or address.host == "*":  # dual-stack sockets take both
        return True
    return option.family == (6 if ":" in address.host else 4)


def apply(sock: socket.socket, plans: Iterable[SocketPlan]) -> None:
    """Set each option on *sock*.

    Raises:
        OptionError: The kernel refused one; those before it stay set, so close the socket.
    """
    for plan in plans:
        option = plan.option
        try:
            sock.setsockopt(option.level, option.number, plan.value)
        except OSError as error:
            number = error.errno or 0
            code = errno.errorcode.get(number, str(number))
            raise OptionError(f"{option.name}: {os.strerror(number)} ({code})") from error
