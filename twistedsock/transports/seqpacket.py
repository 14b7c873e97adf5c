"""UNIX SEQPACKET listeners: connections whose records stay apart, empty ones too.

A record is sent whole or not at all, so what waits is a list of records and never one buffer. The
end of the connection reads like an empty record; SO_PASSCRED tells them apart, for its ancillary
data comes only with a record (unix(7)). The kernel tells that there was some (MSG_CTRUNC) without
being given room for it, which costs less than to read it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet import main
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import MessageLengthError
from twisted.python.failure import Failure

from twistedsock.errors import CloseReason
from twistedsock.transports.connection import TransportFailure
from twistedsock.transports.descriptors import (
    CREDENTIALS_BYTES,
    MAX_DESCRIPTORS,
    MSG_CMSG_CLOEXEC,
    RIGHTS_BYTES,
    close_all,
    descriptors_in,
    hand_over,
    rights,
)
from twistedsock.transports.unix import UnixPort, UnixServer

# Above what a default send buffer lets through. A longer record ends its connection.
MAX_RECORD_BYTES = 256 * 1024
RECORD_OVERHEAD_BYTES = 32  # af_unix.c: a record may be as long as SO_SNDBUF less this
CTRUNC, TRUNC = int(socket.MSG_CTRUNC), int(socket.MSG_TRUNC)  # plain numbers are quicker


class _Accompanied(bytes):
    """A record that waits to be sent with descriptors, which are ours to close."""

    descriptors: Sequence[int] = ()


class SeqpacketServer(UnixServer):
    """An accepted SEQPACKET connection: a record for each ``dataReceived`` and each ``write``."""

    server: Any
    protocol: Any

    _max_record = 0  # bytes; asked for when one does not go out at once

    def write(self, data: bytes) -> None:
        """Send *data* as one record, at once or behind those that wait.

        Raises:
            MessageLengthError: It is longer than the send buffer takes; nothing was sent.
        """
        if self._direct:
            try:
                self.socket.send(data)
                return
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as cause:
                if cause.errno == errno.EMSGSIZE:
                    raise MessageLengthError("record too long") from None
                if cause.errno != errno.ENOBUFS:
                    self._send_failed(cause)
                    return
        if self._failed is None and self.connected and not self._writeDisconnected:
            self._keep(bytes(data))

    def writeWithDescriptors(self, descriptors: Sequence[int], data: bytes) -> None:
        """Send *data* as one record with copies of *descriptors*.

        Raises:
            MessageLengthError: It is longer than the send buffer takes; nothing was sent.
            ValueError: There are more descriptors than go with one record.
            OSError: One is not open; nothing was sent.
        """
        self._check_length(data)
        self._queue(descriptors)
        self.write(data)

    def _check_length(self, record: bytes) -> None:
        if not self._max_record:
            room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            self._max_record = room - RECORD_OVERHEAD_BYTES
        if len(record) > self._max_record:
            raise MessageLengthError("record too long")

    def _keep(self, record: bytes) -> None:
        self._check_length(record)
        outgoing = self._outgoing
        if outgoing:
            record = accompanied = _Accompanied(record)
            accompanied.descriptors = outgoing[:MAX_DESCRIPTORS]
            self._outgoing = outgoing[MAX_DESCRIPTORS:] or None
        self._tempDataBuffer.append(record)
        self._tempDataLen += len(record) or 1  # Twisted takes nothing for the end of the list
        self.startWriting()
        self._maybePauseProducer()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send each piece as a record of its own."""
        for record in iovec:
            self.write(record)

    def doWrite(self) -> Any:
        """Send what waits, record by record; tell what a send has met."""
        if self._failed is not None:
            return self._failed
        records = self._tempDataBuffer
        sent = 0
        failure: TransportFailure | None = None
        for record in records:
            try:
                if isinstance(record, _Accompanied):
                    self.socket.sendmsg([record], rights(record.descriptors))
                    close_all(record.descriptors)
                else:
                    self.socket.send(record)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as cause:
                if cause.errno != errno.ENOBUFS:
                    failure = TransportFailure(cause)
                break
            sent += 1
            self._tempDataLen -= len(record) or 1
        del records[:sent]
        if failure is not None:
            return failure
        if records:
            return None
        return FileDescriptor.doWrite(self)  # knows what comes after the last record

    def writeSomeData(self, data: bytes) -> Any:
        """Send nothing: records do not pass through Twisted's buffer."""
        return 0

    def doRead(self) -> Any:
        """Read a record and hand it to the protocol."""
        buffers = self.server.buffers
        try:
            size, _, flags, _ = self.socket.recvmsg_into(buffers)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as cause:
            return self._receive_failed(cause)
        if flags != CTRUNC and (why := self._odd(size, flags)) is not None:
            return why
        self.protocol.dataReceived(buffers[0][:size].tobytes())
        return None

    def _odd(self, size: int, flags: int) -> Any:
        """Return what ends the connection where a read brought no whole record, else None."""
        if flags & TRUNC:  # no part of a record may pass for the whole
            failure = TransportFailure(OSError(errno.EMSGSIZE, "record too long"))
            failure.close_reason = CloseReason.PROTOCOL_ERROR
            return failure
        if not size and not flags & CTRUNC:
            return self._failed or main.CONNECTION_DONE
        return None

    def _receive_failed(self, cause: OSError) -> Any:
        """Remember *cause*: a peer that goes with answers unread resets the connection.

        The kernel tells that before the records that it sent earlier, and once; after them comes
        the end.
        """
        if self._failed is not None or cause.errno != errno.ECONNRESET:
            return self._failed or TransportFailure(cause)
        self._failed = TransportFailure(cause)
        self._direct = False
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, and the descriptors of records that did not go out."""
        for record in self._tempDataBuffer:
            if isinstance(record, _Accompanied):
                close_all(record.descriptors)
        super().connectionLost(reason)


class SeqpacketReceiver(SeqpacketServer):
    """An accepted SEQPACKET connection whose protocol takes descriptors."""

    def doRead(self) -> Any:
        """Read a record; hand its descriptors to the protocol before it."""
        buffers = self.server.buffers
        try:
            size, ancillary, flags, _ = self.socket.recvmsg_into(
                buffers, RIGHTS_BYTES + CREDENTIALS_BYTES, MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as cause:
            return self._receive_failed(cause)
        flags &= ~MSG_CMSG_CLOEXEC
        why = self._odd(size, flags | CTRUNC if ancillary else flags)
        if why is not None:
            close_all(descriptors_in(ancillary))
            return why
        hand_over(descriptors_in(ancillary), self.protocol)
        if self.connected and not self._aborting:
            self.protocol.dataReceived(buffers[0][:size].tobytes())
        return None


class SeqpacketPort(UnixPort):
    """A SEQPACKET listener, on a socket that is bound and listens already, with SO_PASSCRED."""

    socketType = socket.SOCK_SEQPACKET
    scheme = "seqpacket"
    connection: Any = SeqpacketServer
    receiver: Any = SeqpacketReceiver

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # For recvmsg_into; of all connections, in turn.
        self.buffers = [memoryview(bytearray(MAX_RECORD_BYTES))]
