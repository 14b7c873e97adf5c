"""UNIX datagram listeners: whole datagrams, who sent each, and answers to those that have a name.

A peer without a name (unix(7): one that has not bound its socket) is served, and cannot be
answered. Protocols are handed peers as ``(name, 0)``: a path, ``@name``, or ``pid:N`` for those.

The queue of a peer that has connected has no length of its own: one that does not read may take
all of the listener's send buffer (af_unix.c), and then others wait for it too.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet import error

from twistedsock.addresses import Credentials
from twistedsock.service import Accompanied, Metadata
from twistedsock.transports.ancillary import SO_TIMESTAMPNS, TIMESPEC
from twistedsock.transports.datagram import DatagramPort, translated
from twistedsock.transports.descriptors import (
    MAX_DESCRIPTORS,
    MSG_CMSG_CLOEXEC,
    RIGHTS_BYTES,
    close_all,
    copies_of,
    descriptors_in,
    rights,
)
from twistedsock.transports.unix import UnixName
from twistedsock.transports.unix_paths import name_of, path_of
from twistedsock.transports.unsent import PASSING, Unsent

MAX_DATAGRAM_BYTES = 256 * 1024  # above what a default send buffer lets through
SCM_CREDENTIALS = 2  # linux/socket.h
_UCRED = struct.Struct("@iII")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(TIMESPEC.size)
NAMELESS = "pid:"
# How a name begins that means the same to us as to the peer. A relative path is of its own folder,
# and could read as an abstract name or as another peer's.
_ROOTED = ("/", 0)


class UnixDatagramPort(DatagramPort):
    """A listener on a socket that is bound already, with SO_PASSCRED and SO_TIMESTAMPNS."""

    addressFamily = socket.AF_UNIX

    @classmethod
    def adopt(cls, sock: socket.socket, protocol: Any, reactor: Any) -> UnixDatagramPort:
        """Return a port on *sock*, which is bound and non-blocking, and may be connected.

        The port owns the socket from here on; its path is its opener's to remove.
        """
        port = cls(None, protocol, "", MAX_DATAGRAM_BYTES, reactor)
        port._preexistingSocket = sock  # type: ignore[assignment]
        port._quiet = True
        port._tells_destination = True  # by recvmsg, which tells the sender here
        try:
            port._connectedAddr = sock.getpeername() or None
        except OSError:
            port._connectedAddr = None
        port._buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))
        port.unsent = Unsent(reactor, port._tell_dropped)
        return port

    _buffer: memoryview
    unsent: Unsent
    _room, _flags = _ANCILLARY_BYTES, 0

    def takeDescriptors(self) -> None:
        """Receive descriptors too: in the metadata, which closes what nobody takes of them."""
        self._room, self._flags = _ANCILLARY_BYTES + RIGHTS_BYTES, MSG_CMSG_CLOEXEC

    def _setAddressFamily(self) -> None:
        """Do nothing: the family is known."""

    def _opened(self, sock: Any) -> None:
        self._realPortNumber = 0
        self.answer = self.write

    def _tell_dropped(self) -> None:
        tell = getattr(self.protocol, "datagramDropped", None)
        if tell is not None:
            tell()

    def _receive_with_destination(self) -> tuple[bytes, tuple[str, int], Metadata]:
        size, ancillary, flags, name = self.socket.recvmsg_into(
            [self._buffer], self._room, self._flags
        )
        received_at, credentials = None, None
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == SCM_CREDENTIALS:
                credentials = Credentials(*_UCRED.unpack_from(data))
            elif kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = TIMESPEC.unpack_from(data)
                received_at = seconds + nanoseconds / 1e9
        path = path_of(name) if name else ""
        if not path or name[0] not in _ROOTED:
            path = f"{NAMELESS}{credentials.pid if credentials is not None else 0}"
        truncated = bool(flags & socket.MSG_TRUNC)
        if self._flags and (descriptors := descriptors_in(ancillary)):
            metadata: Metadata = Accompanied(
                tuple(descriptors),
                received_at=received_at,
                credentials=credentials,
                truncated=truncated,
            )
        else:
            metadata = Metadata(
                received_at=received_at, credentials=credentials, truncated=truncated
            )
        return bytes(self._buffer[:size]), (path, 0), metadata

    def write(self, datagram: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send *datagram* to *addr*, or to the connected peer; keep it while the peer is full.

        Raises:
            MessageLengthError: It is too long.
            OSError: The peer is gone, has no name, or more waits for it than is kept.
        """
        datagram = bytes(datagram)  # the caller's own buffer may change
        if addr is None or self._connectedAddr:
            self._send(None, partial(self.socket.send, datagram), len(datagram))
            return
        name = self._name_to(addr)
        self._send(addr[0], partial(self.socket.sendto, datagram, name), len(datagram))

    def writeWithDescriptors(
        self, descriptors: Sequence[int], datagram: bytes, addr: tuple[str, int]
    ) -> None:
        """Send *datagram* with copies of *descriptors* to *addr*; it is never kept.

        Raises:
            MessageLengthError: It is too long.
            ValueError: There are more descriptors than go with one datagram.
            OSError: The peer is gone, has no name or a full queue.
        """
        if len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"more than {MAX_DESCRIPTORS} descriptors with one message")
        close_all(copies_of(descriptors))  # what is not open is the caller's error, not the peer's
        name = self._name_to(addr)
        if self.unsent.holds(addr[0]):
            raise OSError(errno.ENOBUFS, "more waits for the peer already")
        try:
            self.socket.sendmsg([datagram], rights(descriptors), 0, name)
        except OSError as cause:
            raise translated(cause) from cause

    def _name_to(self, addr: tuple[str, int]) -> str | bytes:
        if addr[0].startswith(NAMELESS):
            raise OSError(errno.EDESTADDRREQ, "the peer has no name")
        return name_of(addr[0])

    def _send(self, peer: str | None, send: Any, size: int) -> None:
        if not self.unsent.holds(peer):
            try:
                send()
                return
            except OSError as cause:
                if cause.errno == errno.EMSGSIZE:
                    raise error.MessageLengthError("message too long") from cause
                if cause.errno not in PASSING:
                    raise
        if not self.unsent.keep(peer, size, send):
            raise OSError(errno.ENOBUFS, "too much waits for the peer")

    def getHost(self) -> UnixName:
        """Return the name that is listened on."""
        found = UnixName(self.socket.getsockname() or None)
        found.scheme = "unixgram"
        return found

    def connectionLost(self, reason: object = None) -> None:
        """Close the socket; what waits is given up."""
        self.unsent.clear()
        super().connectionLost(reason)
