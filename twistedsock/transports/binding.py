"""Opening sockets for listeners: one socket, options by phase, bound; or nothing at all.

The caller owns what it gets and closes it. Knows addresses and options; never a reactor.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twistedsock import sockopts
from twistedsock.addresses import WILDCARD, Address, is_numeric, unmap
from twistedsock.errors import BindError, OptionError

Refused = dict[sockopts.Setting, OSError]  # what the kernel refused, and how
DEFAULT_BACKLOG = 1024  # connections that may wait; the kernel clamps it at net.core.somaxconn


def resolve(address: Address) -> list[Address]:
    """Return *address* with its host as numbers: several where a name has several addresses.

    Raises:
        BindError: The name does not resolve.
    """
    if address.host == WILDCARD or is_numeric(address.host):
        return [address]
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=_TYPES[address.scheme], flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        reason = f"cannot resolve {address.host!r}: {error.strerror}"
        raise BindError(address, reason) from error
    except UnicodeError as error:  # a label that DNS cannot hold
        reason = f"cannot resolve {address.host!r}: {error}"
        raise BindError(address, reason) from error
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [replace(address, host=host) for host in hosts]


def open_listener(
    address: Address,
    options: sockopts.SocketPlan = sockopts.NO_OPTIONS,
    backlog: int = DEFAULT_BACKLOG,
    refused: Refused | None = None,
) -> socket.socket:
    """Return a non-blocking socket bound to *address*, and listening if it is a stream's.

    A wildcard ``*`` is one dual-stack socket; where the machine has no IPv6, an IPv4 one.

    Args:
        address: A tcp or udp address with a numeric host or ``*``.
        options: Each is set in its own phase; those of accepted connections by whoever accepts.
        backlog: Connections that may wait to be accepted.
        refused: Takes what the kernel refused, where the plan is not strict.

    Raises:
        BindError: The socket could not be opened, bound or listened on, or an option was
            refused. Nothing is left open.
    """
    refused = {} if refused is None else refused
    if address.host == WILDCARD:
        try:
            return _open(address, socket.AF_INET6, "::", options, backlog, refused)
        except BindError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            refused.clear()
            return _open(address, socket.AF_INET, "0.0.0.0", options, backlog, refused)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return _open(address, family, address.host, options, backlog, refused)


_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def _open(
    address: Address,
    family: socket.AddressFamily,
    host: str,
    options: sockopts.SocketPlan,
    backlog: int,
    refused: Refused,
) -> socket.socket:
    try:
        sock = socket.socket(family, _TYPES[address.scheme])
    except OSError as error:
        raise BindError.from_os_error(address, error) from error
    try:
        sock.setblocking(False)
        if address.kind == "stream":
            # A restarted daemon takes its port again at once; small answers leave at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            v6only = 0 if address.host == WILDCARD else 1
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sockopts.set_phase(sock, options, "socket", refused)
        sockopts.set_phase(sock, options, "prebind", refused)
        # getaddrinfo turns a scope such as fe80::1%eth0 into its number, and a port that is none
        # into another one.
        name: Any = socket.getaddrinfo(host, 0, family, sock.type)[0][4]
        sock.bind((name[0], address.port, *name[2:]))
        sockopts.set_phase(sock, options, "bound", refused)
        if address.kind == "stream":
            sock.listen(backlog)
            sockopts.set_phase(sock, options, "listening", refused)
    except OptionError as error:
        sock.close()
        raise BindError(address, str(error), error.errno) from error
    except OSError as error:
        sock.close()
        raise BindError.from_os_error(address, error) from error
    except BaseException:
        with suppress(OSError):
            sock.close()
        raise
    return sock


def bound_address(address: Address, sock: socket.socket) -> Address:
    """Return *address* with the port that *sock* really has."""
    name = sock.getsockname()
    host = WILDCARD if address.host == WILDCARD else unmap(name[0])
    return replace(address, host=host, port=name[1])
