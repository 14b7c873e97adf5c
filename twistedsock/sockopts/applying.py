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
from twistedsock.sockopts.plan import Refusal, Setting, SocketPlan, check_options, plan_for_kinds
from twistedsock.sockopts.report import Report, read_back


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
    plan = plan_for_kinds(options, kinds, refusal=refusal, role="connect")
    fitting = {setting.name for setting in plan.settings}
    is_bound = _is_bound(sock)
    for name in options:
        if name in fitting or isinstance(options[name], Mapping):
            continue
        found = find_options(name)
        fits = frozenset().union(*(option.fits for option in found))
        if not fits & kinds:
            raise OptionError(
                f"{name}: fits only {describe(fits)}; this socket is {describe(kinds)}", name
            )
    for setting in plan.settings:
        if is_bound and setting.option.phase == "prebind":
            raise OptionError(
                f"{setting.name}: must be set before bind or connect, and this socket is bound",
                setting.name,
            )
    refused: dict[Setting, OSError] = {}
    for setting in plan.settings:
        _set_or_note(sock, setting, refusal, refused)
    return read_back(sock, plan, refused)


def read(target: Any, name: str) -> object:
    """Return what the kernel tells of option *name* on the socket of *target*, as one writes it.

    Raises:
        OptionError: The option is unknown, cannot be read or does not fit this socket, or the
            kernel refused.
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


def socket_of(target: Any) -> socket.socket:
    """Return the socket of a Twisted port or transport, or *target* where it is one.

    Raises:
        OptionError: It has none.
    """
    for _ in range(8):  # a transport over a transport, as TLS is
        handle = None
        get_handle = getattr(target, "getHandle", None)
        if callable(get_handle):
            with suppress(AttributeError):  # a port that listens no more
                handle = get_handle()
        for each in (target, handle, getattr(target, "socket", None)):
            if isinstance(each, socket.socket):
                return each
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
