"""Between a conversation and our own transports: UNIX sockets, raw IP and packet sockets."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import Any

from twisted.internet.error import MessageLengthError
from twisted.internet.task import deferLater

from twistedsock.addresses import Address, is_numeric
from twistedsock.client.conversation import Conversation, has_end
from twistedsock.client.failures import not_resolved, not_sent, too_late
from twistedsock.client.links import DatagramLink, Link, StreamLink
from twistedsock.client.local import RETRY_S, local_five_tuple, open_local
from twistedsock.client.options import Options, finish
from twistedsock.client.resolving import resolve
from twistedsock.transports.packet import PacketPort
from twistedsock.transports.raw import RawPort
from twistedsock.transports.seqpacket import MAX_RECORD_BYTES, SeqpacketServer
from twistedsock.transports.unix import UnixName, UnixServer, credentials_of
from twistedsock.transports.unix_datagram import UnixDatagramPort
from twistedsock.transports.unix_paths import name_of

CONNECTIONS: dict[str, type[UnixServer]] = {"unix": UnixServer, "seqpacket": SeqpacketServer}
PORTS: dict[str, Any] = {"unixgram": UnixDatagramPort, "raw": RawPort, "packet": PacketPort}


class _Side:
    """What a connection asks of the listener that accepted it, where we have connected."""

    _realPortNumber = 0

    def __init__(self, address: Address, sock: socket.socket) -> None:
        size = MAX_RECORD_BYTES if address.kind == "seqpacket" else 0
        self.buffers = [memoryview(bytearray(size))]
        self.name = UnixName(name_of(address.path))
        self.name.scheme = address.scheme
        self.name.credentials = credentials_of(sock)


class RecordLink(StreamLink):
    """A SEQPACKET connection."""

    def send(self, data: bytes) -> None:
        """Send *data* as one record, or keep it."""
        try:
            super().send(data)
        except MessageLengthError:
            raise not_sent(self.talk.address, errno.EMSGSIZE) from None


async def open_link(
    reactor: Any, talk: Conversation, timeout_s: float | None, options: Options
) -> Link:
    """Return a link to the peer of *talk*, which is none over TCP or UDP.

    Raises:
        Refused, Unreachable, TimedOut, CannotResolve: There is no connection.
        OptionError: The kernel refused an option.
    """
    address = await _numeric(reactor, talk.address, timeout_s)
    started = reactor.seconds()
    while True:
        try:
            sock = open_local(address, options)
            break
        except BlockingIOError:  # a UNIX listener's queue is full, and no event tells when not
            if timeout_s is not None and reactor.seconds() - started >= timeout_s:
                raise too_late(talk.address, "no connection", timeout_s) from None
            await deferLater(reactor, RETRY_S)
    report = finish(sock, options)
    link: Link
    if has_end(address):
        link = StreamLink(talk) if address.kind == "stream" else RecordLink(talk)
        side = _Side(address, sock)
        kind = CONNECTIONS[address.scheme]
        transport = kind(sock, link, (address.path, None), side, 0, reactor)
        transport._local = transport._remote = side.name
        link.makeConnection(transport)
    else:
        link = DatagramLink(talk)
        PORTS[address.scheme].adopt(sock, link, reactor).startListening()
    link.five_tuple, link.options = local_five_tuple(address, sock), report
    return link


async def _numeric(reactor: Any, address: Address, timeout_s: float | None) -> Address:
    """Return *address* with its host, where it has one, as a number of the protocol's version."""
    if not address.host or is_numeric(address.host):
        return address
    wants_v6 = address.path == "icmpv6"
    for host, _ in await resolve(reactor, address, timeout_s):
        if (":" in host) == wants_v6:
            return replace(address, host=host)
    raise not_resolved(address)
