"""The datagram client on a reactor: each request is a Deferred of its answer.

A shell around ``exchanges``: it owns the socket and the one timer, and decides nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from twistedsock.addresses import Address, FiveTuple
from twistedsock.client.dialling import dial_first, five_tuple_of
from twistedsock.client.exchanges import Exchanges, Outcome
from twistedsock.client.failures import not_connected, not_sent
from twistedsock.client.options import check, finish
from twistedsock.client.outcomes import (
    DROPPED,
    closed,
    datagram_address,
    payload_of,
    value_of,
)
from twistedsock.client.resolving import NumericName, resolve
from twistedsock.client.transmission import ExchangeCounts, TransmissionParameters
from twistedsock.errors import ClientError, TwistedsockError
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.transports.datagram import DatagramPort
from twistedsock.wire.codecs import find_codec


def connect_datagram(
    reactor: Any,
    address: str | Address,
    *,
    codec: str = "bytes",
    timeout_s: float | None = None,
    parameters: TransmissionParameters | None = None,
    random: Random | None = None,
    options: Mapping[str, object] | None = None,
) -> Deferred[DatagramClient]:
    """Resolve *address* and fire with a client of the reliable service there.

    Nothing is sent before the first request, so that a server that is not there is found out
    by it. ``async with await connect_datagram(...)`` closes the client.

    Args:
        reactor: Runs it.
        address: Such as ``udp:localhost:8888`` or ``udp:[::1]:8888``. Of a name's addresses
            the first that there is a way to is used.
        codec: What requests and answers say: a key of ``wire.codecs.CODECS``.
        timeout_s: How long to wait, in seconds: for the name, and later for each answer. None
            waits as long as *parameters* have it.
        parameters: How often and how patiently to ask; RFC 7252's defaults.
        random: Draws ids and waits; the system's by default.
        options: Socket options by name, such as ``{"TCP_USER_TIMEOUT": "10s"}``, set before the
            socket is connected.

    Raises:
        AddressError: *address* is not of the grammar, or no host and port over UDP.
        CannotResolve, Unreachable, TimedOut: There is no such name, no way, no answer to it.
        ValueError: No codec has that name.
        OptionError: An option is wrong, or the kernel refused it.
    """
    found = datagram_address(address)
    checked = check(found, options)
    find_codec(codec)  # a wrong name fails here, not once resolved
    exchanges = Exchanges(parameters or TransmissionParameters(), random or SystemRandom())

    def opened(names: list[NumericName]) -> DatagramClient:
        sock = dial_first(found, names, checked)
        report = finish(sock, checked)
        return DatagramClient(
            reactor, found, sock, exchanges, codec=codec, timeout_s=timeout_s, options=report
        )

    return resolve(reactor, found, timeout_s).addCallback(opened)


class DatagramClient(DatagramProtocol):
    """Asks one server; made by ``connect_datagram``. Owns its socket until ``close``.

    Attributes:
        address: The server, as the caller wrote it.
        five_tuple: Protocol, local and peer address and port.
        timeout_s: How long a request may take that is given no time of its own.
        options: What became of the socket's options.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        address: Address,
        sock: socket.socket,
        exchanges: Exchanges,
        *,
        codec: str = "bytes",
        timeout_s: float | None = None,
        options: Report = NOTHING_SET,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.options = options
        self._reactor = reactor
        self._exchanges = exchanges
        self._codec = find_codec(codec)
        self._waiting: dict[int, Deferred[Any]] = {}
        self._timer: IDelayedCall | None = None
        self._is_turning = self._turns_again = False
        self._is_closed = False
        self.five_tuple: FiveTuple = five_tuple_of(address, sock)
        self._port = DatagramPort.adopt(sock, self, reactor)
        self._port.startListening()

    def request(self, message: Any, timeout_s: float | None = None) -> Deferred[Any]:
        """Send *message*; fire with its answer. Cancelling it forgets the request.

        It is sent again until it is answered. Many may be under way at once: those beyond the
        window queue, and their time runs.

        Args:
            message: Bytes; under a codec a value that it knows.
            timeout_s: How long it may take in all; None for the client's own.

        Raises:
            TimedOut: No answer in time.
            Refused: Nobody listens there, or the service could not answer.
            CannotSend: The kernel refused to send it.
            PeerClosed: The client is closed.
            CodecError, FrameError: *message* or its answer cannot be read or written.
        """
        if self._is_closed:
            return fail(closed(self.address))
        try:
            payload = payload_of(message, self._codec)
        except ValueError as error:  # CodecError and FrameError are
            return fail(error)
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        number = self._exchanges.request(payload, self._reactor.seconds(), limit_s)
        waiter: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._waiting[number] = waiter
        self._turn()
        return waiter

    @property
    def counts(self) -> ExchangeCounts:
        """What it has seen so far: requests, answers, losses, repeats, reordering."""
        return self._exchanges.counts

    @property
    def round_trip_s(self) -> float | None:
        """The smoothed round trip, in seconds, the server's work included; None until known."""
        return self._exchanges.round_trip_s

    def close(self) -> Deferred[None]:
        """Close the socket; who waits for an answer is told PeerClosed. Fires once it is done."""
        if self._is_closed:
            return succeed(None)
        self._is_closed = True
        stopped: Deferred[None] | None = self._port.stopListening()
        self._fail(list(self._waiting), closed(self.address))
        return succeed(None) if stopped is None else stopped

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take what the server sent."""
        if self._is_closed:
            return
        outcome = self._exchanges.received(datagram, self._reactor.seconds())
        if outcome is not None:
            self._end(outcome)
        self._turn()

    def connectionRefused(self) -> None:
        """The host has told that nobody is at that port: every request that was sent fails."""
        refused = not_connected(self.address, errno.ECONNREFUSED)
        self._fail(list(self._exchanges.outstanding), refused)

    def _end(self, outcome: Outcome) -> None:
        """Tell who waits for it, unless that was cancelled meanwhile."""
        waiter = self._waiting.pop(outcome.id, None)
        if waiter is None:
            return
        try:
            value = value_of(outcome, self.address, self._codec)
        except TwistedsockError as error:
            waiter.errback(error)
        else:
            waiter.callback(value)

    def _forget(self, number: int) -> None:
        if self._waiting.pop(number, None) is not None:
            self._exchanges.forget(number)
            self._turn()

    def _fail(self, numbers: list[int], error: ClientError) -> None:
        """End the requests *numbers* with *error*."""
        waiters = [self._waiting.pop(number, None) for number in numbers]
        for number in numbers:
            self._exchanges.forget(number)
        for waiter in waiters:
            if waiter is not None:
                waiter.errback(type(error)(error.address, error.text, error.code))
        self._turn()

    def _turn(self) -> None:
        """Do what is due, and be called again when more is.

        Whatever a caller does on being told (asks again, cancels, closes) comes back here: it
        is noted, and done by the turn under way, so that the stack does not grow.
        """
        self._turns_again = True
        if self._is_turning:
            return
        self._is_turning = True
        try:
            while self._turns_again:
                self._turns_again = False
                todo = self._exchanges.due(self._reactor.seconds())
                for outcome in todo.timed_out:
                    self._end(outcome)
                for number, datagram in todo.datagrams:
                    if number in self._waiting:  # still: an earlier one may have failed them all
                        self._transmit(number, datagram)
        finally:
            self._is_turning = False
        self._set_timer()

    def _transmit(self, number: int, datagram: bytes) -> None:
        try:
            self._port.write(datagram)
        except MessageLengthError:
            self._fail([number], not_sent(self.address, errno.EMSGSIZE))
        except OSError as error:
            if error.errno not in DROPPED:
                self._fail([number], not_sent(self.address, error.errno or 0))

    def _set_timer(self) -> None:
        when, timer = self._exchanges.next_due, self._timer
        if when is None:
            self._timer = None
            if timer is not None:
                timer.cancel()
            return
        delay_s = max(0.0, when - self._reactor.seconds())
        if timer is None:
            self._timer = self._reactor.callLater(delay_s, self._tick)
        elif when < timer.getTime():  # one that fires too early merely looks, and is set anew
            timer.reset(delay_s)

    def _tick(self) -> None:
        self._timer = None
        self._turn()

    async def __aenter__(self) -> DatagramClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<DatagramClient {self.five_tuple}>"
