"""Setting options: on a socket that is being opened, phase by phase, and on one that exists.

Works on any Twisted port or transport, which it never imports: all they have in common is a socket.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twistedsock.errors import OptionError
from twistedsock.sockopts.catalogue import Phase, find_options
from twistedsock.sockopts.kernel import get_value, refusal_of, set_value
from twistedsock.sockopts.kinds import describe, kinds_of_socket
from twistedsock.sockopts.plan import (
    Refusal,
    Role,
    Setting,
    SocketPlan,
    check_options,
    is_raw,
    plan_for_kinds,
)
from twistedsock.sockopts.report import Report, listens, read_back


def set_phase(
    sock: socket.socket, plan: SocketPlan, phase: Phase, refused: dict[Setting, OSError]
) -> None:
    """Set what *plan* has for *phase*; note what the kernel refuses, unless that is an error.

    Raises:
        OptionError: The kernel refused one, and the plan is strict; the caller closes the socket.
    """
    for setting in plan.at(phase):
        if setting not in refused:
            _set_or_note(sock, setting, plan.refusal, refused)


def _set_or_note(
    sock: socket.socket, setting: Setting, refusal: Refusal, refused: dict[Setting, OSError]
) -> None:
    try:
        set_value(sock, setting.option, setting.value)
    except OSError as error:
        if refusal != "strict":
            refused[setting] = error
            return
        fault = refusal_of(setting.option, setting.name, error)
        raise fault from error


# -- a socket that exists --


def apply(target: Any, options: Mapping[str, object], *, refusal: Refusal = "strict") -> Report:
    """Set *options* on the socket of *target*, which exists already; return what became of them.

    They are set in the order they are written.

    Args:
        target: A socket, or any Twisted port or transport that has one (also beneath TLS).
        options: Values by the option's name, as in a configuration file: ``True``, ``"60s"``,
            ``"64KiB"``.
        refusal: What follows when the kernel refuses one: ``strict`` raises, ``warn`` and
            ``ignore`` go on; the report has it.

    Raises:
        OptionError: An option is unknown, can only be read, does not fit this socket, comes too
            late for it or has a wrong value: then none is set. Or the kernel refused one: then
            those before it stay set, and ``report`` on the error tells of them.
    """
    sock = socket_of(target)
    kinds = kinds_of_socket(sock)
    for name, fault in check_options(options).items():
        raise OptionError(f"{name}: {fault}", name)
    role: Role = "listen" if listens(sock) else "connect"
    plan = plan_for_kinds(options, kinds, refusal=refusal, role=role)
    _check_fit(options, plan, kinds)
    _check_time(sock, plan)
    refused: dict[Setting, OSError] = {}
    for position, setting in enumerate(plan.settings):
        try:
            _set_or_note(sock, setting, refusal, refused)
        except OptionError as fault:
            done = read_back(sock, SocketPlan(plan.settings[:position]), {})
            fault.report = done
            raise
    return read_back(sock, plan, refused)


def _check_fit(options: Mapping[str, object], plan: SocketPlan, kinds: frozenset[str]) -> None:
    """Raise OptionError where one of *options* is not in *plan*, which is for *kinds*."""
    fitting = {setting.name for setting in plan.settings}
    for name, value in options.items():
        if name in fitting or value in ([], ()):
            continue
        if is_raw(value):
            raise OptionError(f"{name}: fits only a listening socket", name)
        fits = frozenset().union(*(option.fits for option in find_options(name)))
        if fits & kinds:  # none of the catalogue is for listening sockets alone
            raise OptionError(f"{name}: fits only a connected socket", name)
        raise OptionError(
            f"{name}: fits only {describe(fits)}; this socket is {describe(kinds)}", name
        )


def _check_time(sock: socket.socket, plan: SocketPlan) -> None:
    """Raise OptionError where one of *plan* comes too late or too early for *sock*."""
    is_bound, is_listening = _is_bound(sock), listens(sock)
    for setting in plan.settings:
        fault = ""
        if is_bound and setting.option.phase == "prebind":
            fault = "must be set before bind or connect, and this socket is bound"
        if is_listening and setting.option.phase == "connected":
            fault = "must be set on each connection, and this socket listens"
        if fault:
            raise OptionError(f"{setting.name}: {fault}", setting.name)


def read(target: Any, name: str) -> object:
    """Return what the kernel tells of option *name* on the socket of *target*, as one writes it.

    Raises:
        OptionError: The option is unknown or cannot be read, or the kernel refused, as where it
            does not fit this socket.
    """
    sock = socket_of(target)
    found = find_options(name)
    kinds = kinds_of_socket(sock)
    option = next((each for each in found if each.fits & kinds), found[0])
    if not option.is_readable or option.number is None:
        raise OptionError(f"{name}: cannot be read", name)
    try:
        return option.form.decode(get_value(sock, option))
    except OSError as error:
        raise refusal_of(option, name, error) from error


# Not only of socket.socket: asyncio's transports give one that cannot be closed.
_SOCKETS_NAMES = ("family", "type", "proto", "fileno", "getsockname", "getsockopt", "setsockopt")


def socket_of(target: Any) -> socket.socket:
    """Return the socket of a Twisted port or transport, or *target* where it is one.

    Raises:
        OptionError: It has none.
    """
    for _ in range(8):  # a transport over a transport, as TLS is
        if isinstance(target, type):  # a port's ``transport`` is the class of its connections
            break
        handle = None
        get_handle = getattr(target, "getHandle", None)
        if callable(get_handle):
            with suppress(AttributeError):  # a port that listens no more
                handle = get_handle()
        found: tuple[Any, ...] = (target, handle, getattr(target, "socket", None))
        for sock in found:
            if all(hasattr(sock, name) for name in _SOCKETS_NAMES):
                if sock.fileno() < 0:
                    raise OptionError("has no open socket: it is closed")
                return sock  # type: ignore[no-any-return]
        target = getattr(target, "transport", None)
        if target is None:
            break
    raise OptionError("has no open socket: pass a socket, or a Twisted port or transport with one")


def _is_bound(sock: socket.socket) -> bool:
    try:
        name = sock.getsockname()
    except OSError:
        return False
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return bool(name[1]) and sock.type != socket.SOCK_RAW
    return bool(name) if isinstance(name, str | bytes) else False
