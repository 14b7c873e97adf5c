"""The blocking datagram client: no reactor, no thread; each call waits until it is done.

A shell around ``exchanges``: it owns the socket, and decides nothing. One thread uses it.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from random import Random, SystemRandom
from typing import Any

from twistedsock.addresses import Address
from twistedsock.client.dialling import dial, five_tuple_of
from twistedsock.client.exchanges import Exchanges, Outcome
from twistedsock.client.failures import not_received, not_sent
from twistedsock.client.options import check, finish
from twistedsock.client.outcomes import (
    DROPPED,
    closed,
    datagram_address,
    payload_of,
    value_of,
)
from twistedsock.client.transmission import ExchangeCounts, TransmissionParameters
from twistedsock.errors import ClientError
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.wire.codecs import find_codec

MAX_DATAGRAM_BYTES = 65_535  # above any UDP payload, so that nothing is cut
DATAGRAMS_A_TURN = 64  # read before what is due is looked at again
WINDOWS_AHEAD = 4  # answers that wait for one before them do not hold up new requests


def connect_datagram_blocking(
    address: str | Address,
    *,
    codec: str = "bytes",
    timeout_s: float | None = None,
    parameters: TransmissionParameters | None = None,
    random: Random | None = None,
    options: Mapping[str, object] | None = None,
) -> BlockingDatagramClient:
    """Return a client of the reliable service at *address*; close it, or use it in a ``with``.

    Nothing is sent before the first request.

    Args:
        address: Such as ``udp:localhost:8888`` or ``udp:[::1]:8888``. Of a name's addresses
            the first that there is a way to is used.
        codec: What requests and answers say: a key of ``wire.codecs.CODECS``.
        timeout_s: How long to wait for each answer, in seconds. None waits as long as
            *parameters* have it.
        parameters: How often and how patiently to ask; RFC 7252's defaults.
        random: Draws ids and waits; the system's by default.
        options: Socket options by name, such as ``{"TCP_USER_TIMEOUT": "10s"}``, set before the
            socket is connected.

    Raises:
        AddressError: *address* is not of the grammar, or no host and port over UDP.
        CannotResolve, Unreachable: There is no such name, or no way to it.
        ValueError: No codec has that name.
        OptionError: An option is wrong, or the kernel refused it.
    """
    found = datagram_address(address)
    checked = check(found, options)
    find_codec(codec)  # a wrong name fails here, before there is a socket to close
    exchanges = Exchanges(parameters or TransmissionParameters(), random or SystemRandom())
    sock = dial(found, None, checked)
    report = finish(sock, checked)
    return BlockingDatagramClient(
        found, sock, exchanges, codec=codec, timeout_s=timeout_s, options=report
    )


class BlockingDatagramClient:
    """Asks one server; made by ``connect_datagram_blocking``. Owns its socket until ``close``.

    Attributes:
        address: The server, as the caller wrote it.
        five_tuple: Protocol, local and peer address and port.
        timeout_s: How long a request may take that is given no time of its own.
        options: What became of the socket's options.
    """

    def __init__(
        self,
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
        self._sock = sock
        self._exchanges = exchanges
        self._codec = find_codec(codec)
        self._ended: dict[int, Outcome | ClientError] = {}
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.five_tuple = five_tuple_of(address, sock)

    def request(self, message: Any, timeout_s: float | None = None) -> Any:
        """Send *message*, again until it is answered; return the answer.

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
        (answer,) = self.request_all((message,), timeout_s)
        return answer

    def request_all(self, messages: Iterable[Any], timeout_s: float | None = None) -> Iterator[Any]:
        """Yield the answer to each of *messages*, in their order.

        As many as the window allows are under way at once; *messages* is read up to
        WINDOWS_AHEAD windows ahead of what was yielded.
        Nothing is sent again while the caller works on an answer. At the first failure those
        behind it are forgotten.

        Args:
            messages: Bytes; under a codec values that it knows.
            timeout_s: How long each may take; None for the client's own.

        Raises:
            ClientError, CodecError, FrameError: As ``request`` does.
        """
        asked: deque[int] = deque()
        source = iter(messages)
        most = WINDOWS_AHEAD * self._exchanges.parameters.window
        is_read = False
        try:
            while True:
                while not is_read and len(asked) < most:
                    try:
                        message = next(source)
                    except StopIteration:
                        is_read = True
                    else:
                        asked.append(self._ask(message, timeout_s))
                if not asked:
                    return
                answer = self._answer(asked[0])
                asked.popleft()
                yield answer
        finally:
            for number in asked:
                self._forget(number)

    @property
    def counts(self) -> ExchangeCounts:
        """What it has seen so far: requests, answers, losses, repeats, reordering."""
        return self._exchanges.counts

    @property
    def round_trip_s(self) -> float | None:
        """The smoothed round trip, in seconds, the server's work included; None until known."""
        return self._exchanges.round_trip_s

    def close(self) -> None:
        """Close the socket; nothing can be asked any more."""
        self._sock.close()

    def _ask(self, message: Any, timeout_s: float | None) -> int:
        if self._sock.fileno() < 0:
            raise closed(self.address)
        payload = payload_of(message, self._codec)
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        return self._exchanges.request(payload, time.monotonic(), limit_s)

    def _answer(self, number: int) -> Any:
        """Wait until the request *number* has ended; return its answer."""
        while number not in self._ended:
            if self._sock.fileno() < 0:
                raise closed(self.address)
            self._send_due()
            if number not in self._ended:
                self._read()
        ended = self._ended.pop(number)
        if isinstance(ended, ClientError):
            raise ended
        return value_of(ended, self.address, self._codec)

    def _forget(self, number: int) -> None:
        self._ended.pop(number, None)
        self._exchanges.forget(number)

    def _send_due(self) -> None:
        todo = self._exchanges.due(time.monotonic())
        for outcome in todo.timed_out:
            self._ended[outcome.id] = outcome
        for number, datagram in todo.datagrams:
            if number in self._ended:
                continue  # the one before it has told that nobody listens
            try:
                self._sock.send(datagram)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:  # what came back to an earlier datagram
                    self._fail(self._exchanges.outstanding, error.errno)
                elif error.errno not in DROPPED:
                    self._exchanges.forget(number)
                    self._ended[number] = not_sent(self.address, error.errno or 0)

    def _read(self) -> None:
        """Read what comes before something is due."""
        when = self._exchanges.next_due or 0.0  # never None while a request has not ended
        wait_ms = max(0, math.ceil((when - time.monotonic()) * 1000))
        if not self._poll.poll(wait_ms):
            return
        for _ in range(DATAGRAMS_A_TURN):
            try:
                datagram = self._sock.recv(MAX_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(self._exchanges.outstanding, error.errno or 0)
                return
            outcome = self._exchanges.received(datagram, time.monotonic())
            if outcome is not None:
                self._ended[outcome.id] = outcome

    def _fail(self, numbers: Iterable[int], code: int) -> None:
        for number in numbers:
            self._exchanges.forget(number)
            self._ended[number] = not_received(self.address, code)

    def __enter__(self) -> BlockingDatagramClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BlockingDatagramClient {self.five_tuple}>"
