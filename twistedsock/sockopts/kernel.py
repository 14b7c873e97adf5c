"""The two system calls, and why the kernel refuses one.

Where Python's socket module and the kernel disagree about a value, it is told here.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twistedsock.errors import OptionError
from twistedsock.sockopts.catalogue import Option
from twistedsock.sockopts.kinds import AF_VSOCK
from twistedsock.sockopts.structures import FILTER_INSTRUCTION, MAX_READ_BYTES
from twistedsock.sockopts.values import Raw

SYSCTL = Path("/proc/sys")


def set_value(sock: socket.socket, option: Option, value: Raw) -> None:
    """Set *option*; raise OSError where the kernel refuses."""
    assert option.number is not None
    if option.form.kind == "fprog":
        assert isinstance(value, bytes)
        import ctypes  # costs more than the rest of this wing

        program = ctypes.create_string_buffer(value, len(value))
        # struct sock_fprog { unsigned short len; struct sock_filter *filter; } (linux/filter.h)
        count = len(value) // FILTER_INSTRUCTION.size
        value = struct.pack("@HP", count, ctypes.addressof(program))
        sock.setsockopt(option.level, option.number, value)  # the kernel copies the program
        return
    with _plain(sock) as plain:
        plain.setsockopt(option.level, option.number, value)


def get_value(sock: socket.socket, option: Option) -> Raw:
    """Return the value of *option*; raise OSError where the kernel refuses."""
    assert option.number is not None
    size = option.form.size
    if option.form.kind == "sockaddr":  # the kernel wants no more than it has
        size = _NAME_BYTES.get(sock.family, size)
    with _plain(sock) as plain:
        if not size:
            return plain.getsockopt(option.level, option.number)
        return plain.getsockopt(option.level, option.number, min(size, MAX_READ_BYTES))


# struct sockaddr_in, sockaddr_in6, sockaddr_vm; of a UNIX peer, which may have no name, the family.
_NAME_BYTES = {socket.AF_INET: 16, socket.AF_INET6: 28, socket.AF_UNIX: 2, AF_VSOCK: 16}


@contextmanager
def _plain(sock: socket.socket) -> Iterator[socket.socket]:
    """Yield *sock*, or a stand-in where Python takes options of its family for 64-bit numbers."""
    if sock.family != AF_VSOCK:
        yield sock
        return
    fd = os.dup(sock.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd) as plain:
        yield plain


def refusal_of(option: Option, name: str, error: OSError) -> OptionError:
    """Return the error that tells why the kernel refused *option*, and what would be right."""
    number = error.errno or 0
    code = errno.errorcode.get(number, str(number))
    return OptionError(
        f"{name}: {os.strerror(number)} ({code}){_hint(option, number)}", name, number
    )


def needed(capabilities: tuple[str, ...]) -> str:
    """Return *capabilities*, any of which will do, and what grants them."""
    grant = f"in the unit, AmbientCapabilities={capabilities[0]}"
    return f"{' or '.join(capabilities)} ({grant})"


_MORE_HINTS = {"TCP_CONGESTION": "; this machine has {net.ipv4.tcp_available_congestion_control}"}


def _hint(option: Option, number: int) -> str:
    if number in (errno.EPERM, errno.EACCES) and option.capabilities:
        when = f" {option.condition}" if option.condition else ""
        return f"; needs {needed(option.capabilities)}{f' if{when}' if when else ''}"
    if number in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
        came = f"; it came with Linux {option.since}" if option.since else ""
        return f"; this socket has no such option on Linux {os.uname().release}{came}"
    if option.name in _MORE_HINTS:
        return with_sysctls(_MORE_HINTS[option.name])
    if number == errno.EINVAL:
        return f"; must be {option.form.wanted}"
    return ""


def with_sysctls(text: str) -> str:
    """Return *text* with each ``{name.of.a.sysctl}`` followed by its value on this machine."""
    return re.sub(r"\{([a-z0-9._]+)\}", lambda match: _sysctl(match[1]), text)


def _sysctl(name: str) -> str:
    try:
        value = " ".join((SYSCTL / name.replace(".", "/")).read_text().split())
    except OSError:
        return name
    return f"{name} = {value}"
