"""Opening sockets for listeners: one socket, options by phase, bound; or nothing at all.

The caller owns what it gets and closes it. Knows addresses and options; never a reactor.
"""

from __future__ import annotations

import errno
import socket
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from twistedsock import sockopts
from twistedsock.addresses import (
    WILDCARD,
    Address,
    is_numeric,
    raw_protocol,
    raw_version,
    unmap,
)
from twistedsock.errors import BindError, FilterError, OptionError
from twistedsock.transports.ancillary import SO_TIMESTAMPNS
from twistedsock.transports.filtering import attach_filter
from twistedsock.transports.unix_paths import (
    ABSTRACT,
    DEFAULT_MODE,
    PathSocket,
    alone_at,
    bind_path,
)

Refused = dict[sockopts.Setting, OSError]  # what the kernel refused, and how
ETH_P_ALL = 3  # linux/if_ether.h; Python has it from 3.12 on
DEFAULT_BACKLOG = 1024  # connections that may wait; the kernel clamps it at net.core.somaxconn


def resolve(address: Address) -> list[Address]:
    """Return *address* with its host as numbers: several where a name has several addresses.

    A raw protocol that both IP versions have, without a host, is one address of each.

    Raises:
        BindError: The name does not resolve.
    """
    if address.scheme == "raw" and not address.host:
        hosts = {4: ["0.0.0.0"], 6: ["::"]}.get(raw_version(address) or 0, ["0.0.0.0", "::"])
        return [replace(address, host=host) for host in hosts]
    if not address.host or address.host == WILDCARD or is_numeric(address.host):
        return [address]
    try:
        found = socket.getaddrinfo(
            address.host,
            address.port,
            family=_family(address),
            type=socket.SOCK_STREAM if address.scheme == "tcp" else socket.SOCK_DGRAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        reason = f"cannot resolve {address.host!r}: {error.strerror}"
        raise BindError(address, reason) from error
    except UnicodeError as error:  # a label that DNS cannot hold
        reason = f"cannot resolve {address.host!r}: {error}"
        raise BindError(address, reason) from error
    resolved = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [replace(address, host=host) for host in resolved]


def open_listener(
    address: Address,
    options: sockopts.SocketPlan = sockopts.NO_OPTIONS,
    backlog: int = DEFAULT_BACKLOG,
    refused: Refused | None = None,
    *,
    mode: int = DEFAULT_MODE,
    filter: str = "",
) -> socket.socket:
    """Return a non-blocking socket bound to *address*, and listening if it is a stream's.

    A wildcard ``*`` is one dual-stack socket; where the machine has no IPv6, an IPv4 one.

    Args:
        address: As ``resolve`` gives it: where it has a host, a numeric one or ``*``.
        options: Each is set in its own phase; those of accepted connections by whoever accepts.
        backlog: Connections that may wait to be accepted.
        refused: Takes what the kernel refused, where the plan is not strict.
        mode: Of a UNIX path. The file goes when the socket is closed.
        filter: What a packet listener receives, in the language of ``wire.filters``; nothing else
            comes in, from the first frame on.

    Raises:
        BindError: The socket could not be opened, bound or listened on, or an option or the
            filter was refused. Nothing is left open.
    """
    opening = _Opening(address, options, backlog, {} if refused is None else refused, mode, filter)
    if address.host != WILDCARD:
        has_file = address.scheme in UNIX and not address.path.startswith(ABSTRACT)
        with alone_at(address.path) if has_file else nullcontext():
            return opening.open(address.host)
    try:
        return opening.open("::")
    except BindError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        opening.refused.clear()
        return opening.open("0.0.0.0")


def _family(address: Address) -> int:
    """Return the address family that *address* may be of; 0 for both."""
    version = raw_version(address) if address.scheme == "raw" else None
    return 0 if version is None else _FAMILIES[version]


_TYPES = {
    "tcp": socket.SOCK_STREAM,
    "udp": socket.SOCK_DGRAM,
    "unix": socket.SOCK_STREAM,
    "unixgram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "raw": socket.SOCK_RAW,
    "packet": socket.SOCK_RAW,
}
_PINGABLE = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ACCEPTING = ("stream", "seqpacket")  # the kinds whose sockets listen
UNIX = ("unix", "unixgram", "seqpacket")


@dataclass(frozen=True, slots=True)
class _Opening:
    """One listener on its way: whatever fails, its socket is closed."""

    address: Address
    options: sockopts.SocketPlan
    backlog: int
    refused: Refused
    mode: int
    filter: str

    def open(self, host: str) -> socket.socket:
        """Return the socket, bound to *host* where the address has one."""
        address = self.address
        try:
            sock = self._socket(host)
        except OSError as error:
            raise _not_opened(address, error) from error
        try:
            sock.setblocking(False)
            self._prepare(sock)
            sockopts.set_phase(sock, self.options, "socket", self.refused)
            sockopts.set_phase(sock, self.options, "prebind", self.refused)
            self._bind(sock, host)
            sockopts.set_phase(sock, self.options, "bound", self.refused)
            if address.kind in ACCEPTING:
                sock.listen(self.backlog)
                sockopts.set_phase(sock, self.options, "listening", self.refused)
        except OptionError as error:
            sock.close()
            raise BindError(address, str(error), error.errno) from error
        except FilterError as error:
            sock.close()
            raise BindError(address, f"filter: {error}") from error
        except OSError as error:
            sock.close()
            raise BindError.from_os_error(address, error) from error
        except BaseException:
            with suppress(OSError):
                sock.close()
            raise
        return sock

    def _socket(self, host: str) -> socket.socket:
        scheme = self.address.scheme
        kind = _TYPES[scheme]
        if scheme in UNIX:
            return PathSocket(socket.AF_UNIX, kind)
        if scheme == "packet":
            return socket.socket(socket.AF_PACKET, kind, 0)  # no protocol: nothing yet comes in
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.socket(family, kind, raw_protocol(self.address) if scheme == "raw" else 0)

    def _prepare(self, sock: socket.socket) -> None:
        """Set what our own listeners have, before the options that may say otherwise."""
        scheme = self.address.scheme
        if scheme == "tcp":
            # A restarted daemon takes its port again at once; small answers leave at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme in ("tcp", "udp") and sock.family == socket.AF_INET6:
            v6only = 0 if self.address.host == WILDCARD else 1
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if scheme in ("unixgram", "seqpacket"):
            # Who sent it; and what tells an empty record from the end (unix(7)).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if scheme == "unixgram":
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def _bind(self, sock: socket.socket, host: str) -> None:
        address = self.address
        if isinstance(sock, PathSocket):
            sock.bound = bind_path(sock, address, self.mode)
            return
        if address.scheme == "packet":
            if self.filter:
                attach_filter(sock, address.path, self.filter)
            bind_packet(sock, address)
            return
        if address.scheme == "raw" and host in ("0.0.0.0", "::"):
            return  # as good as bound: it receives everything
        # getaddrinfo turns a scope such as fe80::1%eth0 into its number, and a port that is none
        # into another one.
        name: Any = socket.getaddrinfo(host, 0, sock.family, socket.SOCK_DGRAM)[0][4]
        sock.bind((name[0], address.port, *name[2:]))


def bind_packet(sock: socket.socket, address: Address) -> None:
    """Let *sock* receive the frames of the interface of *address*."""
    sock.bind((address.path, ETH_P_ALL))


def _not_opened(address: Address, error: OSError) -> BindError:
    if error.errno in (errno.EPERM, errno.EACCES) and address.kind in ("raw", "packet"):
        code = errno.errorcode[error.errno]
        reason = f"needs CAP_NET_RAW ({code}): {raw_grant(address)}"
        return BindError(address, reason, error.errno)
    return BindError.from_os_error(address, error)


def raw_grant(address: Address) -> str:
    """Return what would allow a raw or packet socket for *address*."""
    grant = "in the unit, AmbientCapabilities=CAP_NET_RAW"
    if address.scheme == "raw" and raw_protocol(address) in _PINGABLE:
        grant += "; ping sockets alone need a group in net.ipv4.ping_group_range"
    return grant


def bound_address(address: Address, sock: socket.socket) -> Address:
    """Return *address* with the port that *sock* really has."""
    if address.scheme not in ("tcp", "udp"):
        return address
    name = sock.getsockname()
    host = WILDCARD if address.host == WILDCARD else unmap(name[0])
    return replace(address, host=host, port=name[1])
