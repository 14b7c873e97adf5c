"""UNIX stream listeners: a Twisted port on the hot loop, that knows who its peers are.

The kernel tells each peer's process, user and group as they were when it connected (unix(7),
SO_PEERCRED). Descriptors come and go with the bytes (SCM_RIGHTS), by Twisted's own interfaces.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Any

from twisted.internet import main
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IFileDescriptorReceiver,
    IProtocolFactory,
    IUNIXTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.addresses import Credentials
from twistedsock.sockopts import NO_OPTIONS, SocketPlan
from twistedsock.transports.connection import StreamServer, TransportFailure
from twistedsock.transports.descriptors import (
    CREDENTIALS_BYTES,
    MAX_DESCRIPTORS,
    MSG_CMSG_CLOEXEC,
    RIGHTS_BYTES,
    close_all,
    copies_of,
    descriptors_in,
    hand_over,
    rights,
)
from twistedsock.transports.stream import StreamPort

_UCRED = struct.Struct("@iII")  # struct ucred { pid_t pid; uid_t uid; gid_t gid; } (unix(7))
SO_PEERGROUPS = 59  # Python has no constant
_GROUPS_BYTES = 1024  # what Python's getsockopt reads at most


class UnixName(UNIXAddress):
    """A UNIX socket's name, and the scheme of its kind; of a peer, who it was as it connected."""

    scheme = "unix"
    credentials: Credentials | None = None


def credentials_of(sock: socket.socket) -> Credentials | None:
    """Return who was at the other end when it connected; None where the system does not tell."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except (OSError, AttributeError):
        return None
    pid, uid, gid = _UCRED.unpack(data)
    return Credentials(pid, uid, gid, _groups_of(sock))


def _groups_of(sock: socket.socket) -> tuple[int, ...]:
    """Return the peer's supplementary groups (unix(7), SO_PEERGROUPS)."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # an older kernel, or more groups than fit: those that are known count
        return ()
    return struct.unpack(f"@{len(data) // 4}I", data)


@implementer(IUNIXTransport)
class UnixServer(StreamServer):  # type: ignore[override]  # loseConnection tells more
    """An accepted UNIX connection."""

    _remote: UnixName | None = None
    _outgoing: list[int] | None = None  # descriptors that wait for a byte to go with

    @property
    def credentials(self) -> Credentials | None:
        """Who the peer was when it connected."""
        return None if self._remote is None else self._remote.credentials

    def getHost(self) -> IAddress:
        """Return the path that was connected to."""
        return self._local or self.server.getHost()

    def getTcpNoDelay(self) -> bool:
        """Return False: there is no such thing here."""
        return False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: there is no such thing here."""

    def getTcpKeepAlive(self) -> bool:
        """Return False: there is no such thing here."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: there is no such thing here."""

    def sendFileDescriptor(self, descriptor: int) -> None:
        """Send a copy of *descriptor* with the next byte that is written."""
        self._queue([descriptor])

    def writeWithDescriptors(self, descriptors: Sequence[int], data: bytes) -> None:
        """Send copies of *descriptors* with *data*: no later than its first byte.

        Raises:
            ValueError: They are more than go with one message, or there is no byte to go with.
            OSError: One is not open; nothing was sent.
        """
        if not data:
            raise ValueError("a stream carries descriptors only with a byte at least")
        self._queue(descriptors)
        self.write(data)

    def _queue(self, descriptors: Sequence[int]) -> None:
        if len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"more than {MAX_DESCRIPTORS} descriptors with one message")
        if not self.connected or self._failed is not None or self._writeDisconnected:
            return  # as a write, it goes nowhere
        copies = copies_of(descriptors)
        self._outgoing = [*(self._outgoing or ()), *copies]
        self._direct = False

    def doWrite(self) -> Any:
        """Send what is kept; descriptors that wait go with the first of it."""
        if self._outgoing and self._tempDataBuffer:
            rest = self.dataBuffer[self.offset :]
            self.dataBuffer, self.offset = b"".join([rest, *self._tempDataBuffer]), 0
            self._tempDataBuffer, self._tempDataLen = [], 0
        return super().doWrite()

    def writeSomeData(self, data: bytes) -> Any:
        """Send *data* as far as the kernel takes it, with the descriptors that wait."""
        outgoing = self._outgoing
        if not outgoing or not data:
            return super().writeSomeData(data)
        batch = outgoing[:MAX_DESCRIPTORS]
        try:
            sent = self.socket.sendmsg([data], rights(batch))
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as cause:
            return 0 if cause.errno == errno.ENOBUFS else TransportFailure(cause)
        del outgoing[: len(batch)]
        close_all(batch)
        return sent

    def _decide(self) -> None:
        super()._decide()
        if self._outgoing:
            self._direct = False

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, and the descriptors that did not go out."""
        outgoing, self._outgoing = self._outgoing, None
        close_all(outgoing or ())
        super().connectionLost(reason)


class UnixReceiver(UnixServer):
    """An accepted UNIX connection whose protocol takes descriptors."""

    def doRead(self) -> Any:
        """Read once; hand descriptors to the protocol before the bytes that they came with."""
        try:
            data, ancillary, _, _ = self.socket.recvmsg(
                self._read_bytes, RIGHTS_BYTES + CREDENTIALS_BYTES, MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as cause:
            return TransportFailure(cause)
        hand_over(descriptors_in(ancillary), self.protocol)
        if not data:
            return self._failed or main.CONNECTION_DONE
        if self.connected and not self._aborting:
            self.protocol.dataReceived(data)
        return None


class UnixPort(StreamPort):
    """A UNIX listener, on a socket that is bound and listens already."""

    addressFamily = socket.AF_UNIX
    scheme = "unix"
    connection: Any = UnixServer
    receiver: Any = UnixReceiver  # the connection of a protocol that takes descriptors

    @classmethod
    def adopt(
        cls,
        sock: socket.socket,
        factory: IProtocolFactory,
        reactor: Any,
        options: SocketPlan = NO_OPTIONS,
        *,
        quiet: bool = True,
    ) -> UnixPort:
        """Return a port on *sock*; see ``StreamPort.adopt``. The path is its opener's to remove."""
        port = cls(None, factory, 0, "", reactor)
        port._preexistingSocket = sock
        port._closes_waiting, port._quiet = not quiet, quiet
        port.set_connection_options(options)
        return port

    def transport(  # type: ignore[override]  # Twisted's is a class
        self, sock: socket.socket, protocol: Any, *rest: Any
    ) -> UnixServer:
        """Return a newcomer's connection; descriptors that no protocol wants the kernel drops."""
        wants = IFileDescriptorReceiver.providedBy(protocol)
        made: UnixServer = (self.receiver if wants else self.connection)(sock, protocol, *rest)
        return made

    def _opened(self, sock: socket.socket) -> None:
        self._local = self.name_of(sock.getsockname())
        self._realPortNumber = 0

    def name_of(self, name: Any) -> UnixName:
        """Return *name*, as the socket has told it, as Twisted's address."""
        found = UnixName(name or None)
        found.scheme = self.scheme
        return found

    def _peer_of(self, sock: socket.socket, name: Any) -> tuple[IAddress, tuple[Any, ...]]:
        peer = self.name_of(name)
        peer.credentials = credentials_of(sock)
        return peer, (name, None)

    def getHost(self) -> IAddress:
        """Return the path that is listened on."""
        return self.name_of(self.socket.getsockname())
