"""Between a conversation and Twisted: the protocols that move a client's bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, MessageLengthError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.addresses import FiveTuple
from twistedsock.client.conversation import Conversation
from twistedsock.client.dialling import dial_first, five_tuple_of
from twistedsock.client.failures import not_connected, not_received, not_sent
from twistedsock.client.options import NONE, Options, finish
from twistedsock.client.resolving import NumericName
from twistedsock.protocols import twisted_names
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.transports.datagram import DatagramPort

CLOSE_TIMEOUT_S = 5.0  # for what is unsent when a connection is closed
# Then, for the peer's own end: whoever closes while it still sends resets the connection, and
# cuts what it has not read.
LINGER_S = 1.0
MAX_DATAGRAM_BYTES = 65_535


def _nothing() -> None:
    """Stand in until somebody listens."""


class Link:
    """What a peer needs of its transport."""

    five_tuple: FiveTuple
    options: Report = NOTHING_SET
    on_input: Callable[[], None] = staticmethod(_nothing)
    talk: Conversation

    def send(self, data: bytes) -> None:
        """Send *data*, or keep it until it can be sent."""
        raise NotImplementedError

    def drained(self) -> Deferred[None]:
        """Fire once little is kept."""
        return succeed(None)

    def adjust_reading(self) -> None:
        """Read, or stop reading, as the conversation wants."""

    def half_close(self) -> None:
        """End our side, after what is kept."""

    def close(self, reactor: Any) -> Deferred[None]:
        """Close, after what is kept; fire once it is done."""
        raise NotImplementedError


@implementer(IHalfCloseableProtocol, IPushProducer)
class StreamLink(Protocol, Link):
    """A connection."""

    transport: Any

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self._is_full = self._is_gone = False
        self._has_ended = self._is_flushed = self._peer_has_ended = False
        self._reads = True
        self._drain_waiters: list[Deferred[None]] = []
        self._close_waiters: list[Deferred[None]] = []
        self._close_timer: Any = None

    def connectionMade(self) -> None:
        """Learn who is talking to whom."""
        self.five_tuple = twisted_names.five_tuple_of(self.transport)
        self.options = getattr(self.transport, "report", NOTHING_SET)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Hand *data* on."""
        self.talk.feed(data)
        self.on_input()
        self.adjust_reading()

    def adjust_reading(self) -> None:
        """Read only while messages are taken; to the end, once nothing more is wanted."""
        reads = self.talk.wants_input or self.talk.is_over
        if reads != self._reads and not self._is_gone:
            self._reads = reads
            if reads:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def send(self, data: bytes) -> None:
        """Send *data*, or keep it."""
        self.transport.write(data)

    def drained(self) -> Deferred[None]:
        """Fire once everything is sent, if the transport holds more than its mark."""
        if not self._is_full or self._is_gone:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._drain_waiters.remove)
        self._drain_waiters.append(waiter)
        return waiter

    def pauseProducing(self) -> None:
        """The transport holds more than its mark."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self._is_full = False
        waiting, self._drain_waiters = self._drain_waiters, []
        for waiter in waiting:
            waiter.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    def half_close(self) -> None:
        """End our side, after what is kept."""
        if not (self._is_gone or self._has_ended):
            self._has_ended = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def close(self, reactor: Any) -> Deferred[None]:
        """Flush, end our side, read on to the peer's end, and close; leave a peer that is slow."""
        if self._is_gone:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._close_waiters.append(closed)
        if self._close_timer is None:
            left = LINGER_S if self._is_flushed else CLOSE_TIMEOUT_S
            self._close_timer = reactor.callLater(left, self.transport.abortConnection)
            self.half_close()
            self.adjust_reading()
            if self._peer_has_ended:
                self.transport.loseConnection()
        return closed

    def readConnectionLost(self) -> None:
        """The peer has finished sending."""
        self._peer_has_ended = True
        self.talk.end()
        self.on_input()
        if self._close_timer is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side is flushed and closed."""
        self._is_flushed = True
        self.resumeProducing()
        if self._close_timer is not None and self._close_timer.active():
            self._close_timer.reset(LINGER_S)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing comes or goes any more."""
        self._is_gone = True
        if self._close_timer is not None and self._close_timer.active():
            self._close_timer.cancel()
        self.talk.stop_sending("the connection is gone")
        if isinstance(reason.value, ConnectionDone):
            self.talk.end()
        else:
            number = getattr(reason.value, "osError", None)
            number = getattr(number, "errno", number) or errno.ECONNRESET
            self.talk.fail(not_received(self.talk.address, number))
        self.on_input()
        self.resumeProducing()
        waiting, self._close_waiters = self._close_waiters, []
        for waiter in waiting:
            waiter.callback(None)


class DatagramLink(DatagramProtocol, Link):
    """A connected datagram socket."""

    noisy = False
    transport: Any

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self.dropped = 0  # datagrams that found the inbox full

    @classmethod
    def open(
        cls,
        reactor: Any,
        talk: Conversation,
        names: Sequence[NumericName],
        options: Options = NONE,
    ) -> DatagramLink:
        """Return a link to the first of *names* that there is a way to.

        Raises:
            Unreachable: There is none to any of them.
            OptionError: The kernel refused an option.
        """
        link = cls(talk)
        sock = dial_first(talk.address, names, options)
        link.options = finish(sock, options)
        link.five_tuple = five_tuple_of(talk.address, sock)
        DatagramPort.adopt(sock, link, reactor).startListening()
        return link

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Hand it on; drop it where nobody takes any."""
        if not self.talk.wants_input:
            self.dropped += 1
            return
        self.talk.feed(datagram)
        self.on_input()

    def connectionRefused(self) -> None:
        """The host has told that nobody is at that port."""
        self.talk.met(not_connected(self.talk.address, errno.ECONNREFUSED))
        self.on_input()

    def send(self, data: bytes) -> None:
        """Send *data* as one datagram."""
        try:
            self.transport.write(data)
        except MessageLengthError:
            raise not_sent(self.talk.address, errno.EMSGSIZE) from None
        except OSError as error:
            raise not_sent(self.talk.address, error.errno or 0) from None

    def close(self, reactor: Any) -> Deferred[None]:
        """Close the socket."""
        if self.transport is None:
            return succeed(None)
        stopped: Deferred[None] | None = self.transport.stopListening()
        return stopped if stopped is not None else succeed(None)
