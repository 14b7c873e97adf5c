"""Ping any number of hosts at once: one socket for each IP version."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.python.failure import Failure as TwistedFailure

from twistedsock.addresses import is_numeric, parse_address
from twistedsock.client.pinging import (
    Failure,
    Pinging,
    PingResult,
    Reply,
    Target,
    Told,
    result_of,
)
from twistedsock.client.resolving import resolve
from twistedsock.errors import AddressError, ClientError
from twistedsock.transports.ancillary import ICMP, ICMP6, NetworkError
from twistedsock.transports.echo_socket import MAX_SIZE_BYTES, EchoSocket
from twistedsock.wire.icmp_names import icmp_name, icmpv6_name

DEFAULT_SIZE_BYTES = 56  # as ping(8) has it
LEAST_INTERVAL_S, MAX_WAIT_S = 0.001, 86_400
MAX_COUNT = 1 << 31
TICK_S = 0.01  # requests that are due within that leave together
BATCH = 64  # requests that leave before answers are looked for
TURN_S = 0.05  # for which the reactor's other work may wait
FULL_S = 5.0  # that the kernel may have no room: longer than a neighbour is looked for
RESOLVING = 64  # names that are looked up at once

Found = tuple[Any, str]  # a socket address, or None and why there is none


def ping(
    reactor: Any,
    hosts: str | Iterable[str],
    *,
    count: int = 4,
    interval_s: float = 1.0,
    timeout_s: float = 1.0,
    size_bytes: int = DEFAULT_SIZE_BYTES,
    version: int | None = None,
    options: Mapping[str, object] | None = None,
    told: Callable[[Reply | Failure], object] | None = None,
) -> Deferred[list[PingResult]]:
    """Ping *hosts*; fire with what became of each, in their order.

    A host that cannot be resolved, or that nothing comes back from, is told by its result. To
    cancel the Deferred stops, and closes everything.

    Args:
        reactor: Runs it.
        hosts: A name or numeric address, or any number of them.
        count: Requests to each, 1 or more.
        interval_s: From one request to a host to the next, in seconds; 0.001 or more. Those to
            several hosts are spread evenly over it.
        timeout_s: How long to wait for answers once the last request has left, in seconds.
        size_bytes: Of a request behind its ICMP header, 0 to 65,507.
        version: 4 or 6: of names that have addresses of both; None: the first that there is.
        options: Socket options by name, such as ``{"IP_TTL": 5, "SO_BINDTODEVICE": "eth0"}``.
        told: Is called with each ``Reply`` and ``Failure`` as it comes.

    Raises:
        BindError: There is no right to a ping socket nor to a raw one; ``is_permission`` is true.
        OptionError: An option is wrong, or the kernel refused it.
        ValueError: A number is out of its range.
    """
    run = Ping(
        reactor,
        hosts,
        count=count,
        interval_s=interval_s,
        timeout_s=timeout_s,
        size_bytes=size_bytes,
        version=version,
        options=options,
        told=told,
    )
    return run.start()


class Ping:
    """One run; ``results`` tells how it stands at any time. See ``ping`` for the arguments.

    Args:
        count: As of ``ping``; None: until ``stop`` is called.
    """

    def __init__(
        self,
        reactor: Any,
        hosts: str | Iterable[str],
        *,
        count: int | None = None,
        interval_s: float = 1.0,
        timeout_s: float = 1.0,
        size_bytes: int = DEFAULT_SIZE_BYTES,
        version: int | None = None,
        options: Mapping[str, object] | None = None,
        told: Callable[[Reply | Failure], object] | None = None,
    ) -> None:
        check_number("count", 1 if count is None else count, 1, MAX_COUNT)
        check_range("interval_s", interval_s, LEAST_INTERVAL_S, MAX_WAIT_S)
        check_common(timeout_s, size_bytes, version)
        self._reactor = reactor
        self._hosts = [hosts] if isinstance(hosts, str) else list(hosts)
        self._count, self._interval_s, self._timeout_s = count, interval_s, timeout_s
        self._size_bytes, self._version = size_bytes, version
        self._options = options
        self._told = None if told is None else self._telling(told)
        self._sockets: dict[int, EchoSocket] = {}
        self._timer: Any = None
        self._stopped = self._is_complete = False
        self._refused = -1, 0.0  # the request that the kernel had no room for, and since when
        self._ended_s: float | None = None  # when the last request left
        self._pinging: Pinging | None = None
        self._resolving: Deferred[list[Target]] | None = None
        self._done: Deferred[None] = Deferred(lambda _: self.stop())
        self.targets: list[Target] = []

    def start(self) -> Deferred[list[PingResult]]:
        """Begin; fire with the results at the end. See ``ping`` for what it raises."""
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> list[PingResult]:
        self._resolving = targets_of(self._reactor, self._hosts, self._version)
        self.targets = await self._resolving
        named = [target for target in self.targets if target.name]
        try:
            if named and not self._stopped:
                now_s = time.monotonic()
                self._pinging = Pinging(named, self._count, self._interval_s, now_s, self._told)
                for version in sorted({target.version for target in named}):
                    self._sockets[version] = self._open(version, self._pinging)
                for sock in self._sockets.values():
                    sock.startReading()
                self._turn(self._pinging)
                await self._done
        finally:
            self._stopped = True
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            for sock in self._sockets.values():
                sock.connectionLost()
        return self.results()

    def _open(self, version: int, pinging: Pinging) -> EchoSocket:
        def failed(number: int, error: NetworkError, _: int) -> None:
            pinging.failed(number, told_by(error))

        return EchoSocket(
            self._reactor,
            version,
            pinging.left,
            pinging.answered,
            failed,
            self._size_bytes,
            self._options,
        )

    def stop(self) -> None:
        """Send no more, and wait for nothing more: the results are those so far."""
        self._stopped = True
        if self._resolving is not None:
            self._resolving.cancel()
        if not self._done.called:
            self._done.callback(None)

    def _telling(self, told: Callable[[Reply | Failure], object]) -> Callable[..., object]:
        """Return what calls *told*, and ends the run with what it raises."""

        def tell(event: Reply | Failure) -> None:
            if self._stopped:
                return
            try:
                told(event)
            except Exception:  # the caller's own: it is raised where the result would be
                self._stopped = True
                if not self._done.called:
                    self._done.errback(TwistedFailure())

        return tell

    def results(self) -> list[PingResult]:
        """Return what became of each host so far, in their order.

        Requests that may still be answered in time are left out.
        """
        if self._pinging is None or self._is_complete:
            return [result_of(target) for target in self.targets]
        pending = self._pinging.pending(time.time_ns() - round(self._timeout_s * 1e9))
        return [result_of(target, pending[target]) for target in self.targets]

    def _turn(self, pinging: Pinging) -> None:
        """Send what is due, read what has come, and come again when there is more to do."""
        self._timer = None
        now_s = started_s = time.monotonic()
        has_room = True
        while has_room and not self._stopped and (requests := pinging.due(now_s, BATCH)):
            has_room = self._send(pinging, requests)
            for sock in self._sockets.values():
                sock.read()
            now_s = time.monotonic()
            if now_s - started_s > TURN_S:
                break
        if self._stopped:
            return
        due_s = pinging.next_due_s
        if due_s is None:
            self._finish(pinging, now_s)
        else:
            wait_s = max(due_s - now_s, TICK_S if due_s > now_s or not has_room else 0)
            self._timer = self._reactor.callLater(wait_s, self._turn, pinging)

    def _send(self, pinging: Pinging, requests: Sequence[tuple[int, Target]]) -> bool:
        """Send *requests*; return False where the kernel takes no more for now."""
        sends = {version: sock.send for version, sock in self._sockets.items()}
        for number, target in requests:
            try:
                sent_ns = sends[target.version](number, target.name)
            except OSError as error:
                if self._stopped:  # by whom the one before was told to
                    return False
                if isinstance(error, BlockingIOError) and self._waits_for_room(number):
                    return False
                pinging.sent(number, target, time.time_ns())
                pinging.failed(number, self._refusal(error, target.version))
            else:
                pinging.sent(number, target, sent_ns)
        return True

    def _refusal(self, error: OSError, version: int) -> Told:
        """Return what *error* says, with the MTU where a request was too long for it."""
        mtu = 0
        if error.errno == errno.EMSGSIZE:
            sock = self._sockets[version]
            sock.read_queue()
            mtu = sock.refused_mtu
        return Told("", os.strerror(error.errno or 0), mtu)

    def _waits_for_room(self, number: int) -> bool:
        """Return whether *number* was not refused for very long yet."""
        now_s = time.monotonic()
        if self._refused[0] != number:
            self._refused = number, now_s
        return now_s - self._refused[1] < FULL_S

    def _finish(self, pinging: Pinging, now_s: float) -> None:
        """End once nothing is awaited, or was for long enough."""
        if self._ended_s is None:
            self._ended_s = now_s
        left_s = self._ended_s + self._timeout_s - now_s
        if not pinging.awaited or left_s <= 0:
            self._is_complete = True
            self.stop()
        else:
            self._timer = self._reactor.callLater(min(left_s, TICK_S), self._turn, pinging)


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise ValueError where *value* is not from *least* to *most*."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least}..{most}, got {value!r}")


def check_number(name: str, value: int, least: int, most: int) -> None:
    """Raise ValueError where *value* is no whole number, or not from *least* to *most*."""
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    check_range(name, value, least, most)


def check_common(timeout_s: float, size_bytes: int, version: int | None) -> None:
    """Raise ValueError where one of what ``ping`` and ``trace`` share is wrong."""
    check_range("timeout_s", timeout_s, 0, MAX_WAIT_S)
    check_number("size_bytes", size_bytes, 0, MAX_SIZE_BYTES)
    if version not in (None, 4, 6):
        raise ValueError(f"version must be 4 or 6, got {version!r}")


def told_by(error: NetworkError) -> Told:
    """Return what *error* says, in the words of the protocol that it came by."""
    if error.origin not in (ICMP, ICMP6):
        text = os.strerror(error.number)
    else:
        name_of = icmpv6_name if error.origin == ICMP6 else icmp_name
        text = name_of(error.icmp_type, error.icmp_code)
    return Told(error.source, text, error.info if error.number == errno.EMSGSIZE else 0)


def targets_of(reactor: Any, hosts: Sequence[str], version: int | None) -> Deferred[list[Target]]:
    """Fire with *hosts* and their addresses, or why they have none; at once when cancelled."""
    slots = DeferredSemaphore(RESOLVING)
    found = {host: _numeric(host, version) for host in hosts if _is_ipv4(host) or is_numeric(host)}
    names = list({host: None for host in hosts if host not in found})
    finding = [slots.run(_find, reactor, name, version).addErrback(_given_up) for name in names]

    def resolved(results: list[Found]) -> list[Target]:
        found.update(zip(reversed(names), results, strict=True))
        return [Target(host, *found[host]) for host in hosts]

    # The last first, so that to cancel it begins with those that wait for their turn.
    return gatherResults(finding[::-1]).addCallback(resolved)


def _given_up(failure: TwistedFailure) -> Found:
    failure.trap(CancelledError)
    return None, "was not looked up to the end"


def _is_ipv4(host: str) -> bool:
    """Return what ``is_numeric`` does of IPv4, at a tenth of its price."""
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def _numeric(host: str, version: int | None) -> Found:
    found = 6 if ":" in host else 4
    if version not in (None, found):
        return None, f"is no IPv{version} address"
    if found == 4:
        return (host, 0), ""
    try:
        # A zone such as that of fe80::1%eth0 becomes its number.
        return socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)[0][4], ""
    except OSError as error:
        return None, f"{error.strerror}"


def _find(reactor: Any, name: str, version: int | None) -> Deferred[Found]:
    return Deferred.fromCoroutine(_look_up(reactor, name, version))


async def _look_up(reactor: Any, name: str, version: int | None) -> Found:
    try:
        names = await resolve(reactor, parse_address(f"udp:{name}:0"), None)
    except AddressError:
        return None, "is neither an IP address nor a host name"
    except ClientError as error:
        return None, f"{error.text} ({error.code})" if error.code else error.text
    for host, _ in names:
        if version in (None, 6 if ":" in host else 4):
            return _numeric(host, None)
    return None, f"has no IPv{version} address"
