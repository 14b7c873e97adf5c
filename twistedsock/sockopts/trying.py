"""What this kernel does with an option, found out on throw-away sockets of its own.

Nothing is bound, connected or sent: each socket is closed as soon as it has answered.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from twistedsock.sockopts.catalogue import Option
from twistedsock.sockopts.kernel import get_value, set_value
from twistedsock.sockopts.kinds import carriers, open_kind
from twistedsock.sockopts.values import MAX_INT, MAX_UINT, MIN_INT

# Raw sockets of these take options that others do not.
_PROTOCOLS = {"raw4": (socket.IPPROTO_ICMP, None), "raw6": (socket.IPPROTO_ICMPV6, None)}
_SIGNED = ("int", "enum")
_COUNTED = ("int", "uint", "size", "seconds", "milliseconds", "microseconds", "enum")


@dataclass(frozen=True, slots=True)
class Trial:
    """What this kernel has made of an option.

    Attributes:
        kind: The kind of socket that was tried; empty where none could be opened.
        default: The value that a new socket has, as one writes it; None where it is not told.
        accepts: Least and greatest value that are not refused, as one writes them.
        becomes: What the kernel makes of those two, where that is something else.
        code: Why there is no default, such as ``ENOTCONN``; else empty.
    """

    kind: str = ""
    default: object = None
    accepts: tuple[object, object] | None = None
    becomes: tuple[object, object] | None = None
    code: str = ""


def new_sockets(option: Option) -> Iterator[tuple[str, socket.socket]]:
    """Yield sockets that *option* fits, with their kinds; the caller closes each."""
    for kind in carriers(option.fits):
        for protocol in _PROTOCOLS.get(kind, (None,)):
            try:
                sock = open_kind(kind, protocol)
            except OSError:
                continue
            yield kind, sock


def try_option(option: Option) -> Trial:
    """Return the default and the range of *option* on this machine."""
    trial = Trial(code="no socket")
    if option.number is None:
        return Trial(code="not on this platform")
    for kind, sock in new_sockets(option):
        with sock:
            if not option.is_readable or option.form.kind == "fd":
                trial = Trial(kind, code="not readable")
            else:
                try:
                    trial = Trial(kind, option.form.decode(get_value(sock, option)))
                except OSError as error:
                    trial = Trial(kind, code=errno.errorcode.get(error.errno or 0, "error"))
                    continue
        break
    if trial.kind and option.is_writable and option.form.kind in _COUNTED:
        return _with_range(option, trial)
    return trial


def _with_range(option: Option, trial: Trial) -> Trial:
    def attempt(value: int) -> object | None:
        """Return what *value* becomes on a new socket; None where it is refused."""
        for kind, sock in new_sockets(option):
            with sock:
                if kind != trial.kind:
                    continue
                try:
                    set_value(sock, option, value)
                    return get_value(sock, option) if option.is_readable else value
                except OSError:
                    continue
        return None

    start = next((value for value in _starts(option) if attempt(value) is not None), None)
    if start is None:
        return trial
    is_unsigned = option.form.kind == "uint"
    lowest = MIN_INT if option.form.kind in _SIGNED else min(option.form.low or 0, 0)

    def accepts_it(value: int) -> bool:
        return attempt(value) is not None

    if is_unsigned and not (accepts_it(0) and accepts_it(-1)):  # not a range: powers of two, groups
        return trial
    greatest = -1 if is_unsigned else _edge(accepts_it, start, MAX_INT)
    least = 0 if is_unsigned else _edge(accepts_it, start, lowest)
    accepts, becomes = [], []
    for value in (least, greatest):
        accepts.append(option.form.decode(value))
        made = attempt(value)
        becomes.append(option.form.decode(made) if isinstance(made, int | bytes) else None)
    return Trial(
        trial.kind,
        trial.default,
        (accepts[0], accepts[1]),
        (becomes[0], becomes[1]) if becomes != accepts and option.is_readable else None,
        trial.code,
    )


def _starts(option: Option) -> Iterator[int]:
    """Yield values of which one is likely to be right."""
    low, high = option.form.low, option.form.high
    # setsockopt takes a C int: the greatest of those without a sign is handed over as -1.
    likely = (1, low, -1 if high == MAX_UINT else high, 0, 1000)
    yield from (value for value in likely if value is not None)


def _edge(accepts: Callable[[int], bool], inside: int, outside: int) -> int:
    """Return the last value that is accepted on the way from *inside* to *outside*."""
    if accepts(outside):
        return outside
    while abs(outside - inside) > 1:
        middle = (inside + outside) // 2
        if accepts(middle):
            inside = middle
        else:
            outside = middle
    return inside
