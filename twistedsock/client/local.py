"""Connecting without names: UNIX sockets, raw IP and packet sockets, and reading what they bring.

Nothing here waits but for a UNIX listener whose queue is full.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from twistedsock.addresses import Address, FiveTuple, is_numeric, raw_protocol, unmap
from twistedsock.client.failures import not_connected, not_resolved, too_late
from twistedsock.client.options import NONE, Options, open_socket
from twistedsock.errors import Unreachable
from twistedsock.transports.binding import bind_packet, raw_grant
from twistedsock.transports.unix_paths import name_of, path_of
from twistedsock.wire.ipv4 import header_bytes

RETRY_S = 0.01  # while a UNIX listener's queue is full: connect(2) tells EAGAIN, and no event
READ_BYTES = 64 * 1024  # above any IP payload
RECORD_BYTES = 256 * 1024  # above what a default send buffer lets through
_CREDENTIALS_BYTES = socket.CMSG_SPACE(12)
_UNIX = {
    "unix": socket.SOCK_STREAM,
    "unixgram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
}


def is_local(address: Address) -> bool:
    """Return whether *address* is none of TCP or UDP, and so is connected to here."""
    return address.scheme not in ("tcp", "udp")


def open_local(address: Address, options: Options = NONE) -> socket.socket:
    """Return a non-blocking socket connected to *address*.

    Raises:
        Refused, Unreachable, PeerClosed: What connect(2) told.
        BlockingIOError: A UNIX listener's queue is full; try again in a moment.
        CannotResolve: A raw peer's host has no address.
        OptionError: The kernel refused an option.
    """
    if address.scheme in _UNIX:
        return _open(address, socket.AF_UNIX, _UNIX[address.scheme], 0, options, _connect_unix)
    if address.scheme == "packet":
        family, kind = socket.AF_PACKET, socket.SOCK_RAW
        return _open(address, family, kind, 0, options, bind_packet)
    host = _host_of(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def connect(sock: socket.socket, _: Address) -> None:
        sock.connect((host, 0))

    return _open(address, family, socket.SOCK_RAW, raw_protocol(address), options, connect)


def dial_local(address: Address, timeout_s: float | None, options: Options) -> socket.socket:
    """Return what ``open_local`` does, waiting for a UNIX listener's queue for *timeout_s*."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            return open_local(address, options)
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                raise too_late(address, "no connection", timeout_s or 0) from None
            time.sleep(RETRY_S)


def _open(
    address: Address,
    family: int,
    kind: int,
    proto: int,
    options: Options,
    connect: Callable[[socket.socket, Address], object],
) -> socket.socket:
    try:
        sock = open_socket(family, kind, proto, options)
    except PermissionError as error:
        code = errno.errorcode[error.errno or errno.EPERM]
        raise Unreachable(address, f"needs CAP_NET_RAW: {raw_grant(address)}", code) from None
    except OSError as error:
        raise not_connected(address, error.errno or errno.ENETUNREACH) from None
    try:
        connect(sock, address)
    except BlockingIOError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise not_connected(address, error.errno or errno.ENETUNREACH) from None
    return sock


def _connect_unix(sock: socket.socket, address: Address) -> None:
    if address.scheme == "unixgram":
        sock.bind("")  # an abstract name of the kernel's choice, so that the peer can answer
    if address.scheme == "seqpacket":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        sock.connect(name_of(address.path))
    except FileNotFoundError:
        # Nobody serves that path, whatever else the system calls it.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there") from None


def _host_of(address: Address) -> str:
    if is_numeric(address.host):
        return address.host
    try:
        found = socket.getaddrinfo(address.host, None, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        raise not_resolved(address, error) from None
    wanted = socket.AF_INET6 if address.path == "icmpv6" else socket.AF_INET
    hosts = [str(entry[4][0]) for entry in found]
    return next(
        (host for host, entry in zip(hosts, found, strict=True) if entry[0] == wanted), hosts[0]
    )


def local_five_tuple(address: Address, sock: socket.socket) -> FiveTuple:
    """Return who talks to whom on *sock*, which ``open_local`` has opened."""
    own, host = "", address.host
    with suppress(OSError):
        name = sock.getsockname()
        own = path_of(name) if sock.family == socket.AF_UNIX else unmap(name[0])
    if address.scheme in _UNIX or address.scheme == "packet":
        host = address.path
    return FiveTuple(address.scheme, own, 0, host, 0)


def reader_of(address: Address, sock: socket.socket) -> Callable[[], bytes | None]:
    """Return what reads once from *sock*: a piece, record or datagram; None at the end.

    It raises OSError as recv(2) does.
    """
    if address.kind == "stream":
        return lambda: sock.recv(READ_BYTES) or None
    if address.kind == "seqpacket":
        return lambda: _read_record(sock)
    if address.kind == "raw" and sock.family == socket.AF_INET:
        return lambda: _read_packet(sock)
    size = RECORD_BYTES if address.scheme == "unixgram" else READ_BYTES
    return lambda: sock.recv(size)


def _read_record(sock: socket.socket) -> bytes | None:
    """Return a record; the end has no ancillary data, which an empty record has (unix(7))."""
    record, ancillary, _, _ = sock.recvmsg(RECORD_BYTES, _CREDENTIALS_BYTES)
    return record if record or ancillary else None


def _read_packet(sock: socket.socket) -> bytes:
    """Return a raw packet without the IPv4 header that comes before it (raw(7))."""
    packet = sock.recv(READ_BYTES)
    return packet[header_bytes(packet) :]
