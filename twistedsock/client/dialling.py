"""Connecting without a reactor: every address of a name, IPv6 and IPv4 in turn (RFC 8305)."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twistedsock.addresses import Address, FiveTuple, unmap
from twistedsock.client.failures import best_of, not_connected, not_resolved, too_late
from twistedsock.client.local import dial_local, is_local, local_five_tuple
from twistedsock.client.options import NONE, Options, is_group, open_socket
from twistedsock.errors import ClientError

LONGEST_WAIT_S = 86_400.0  # of one poll(2), which counts milliseconds in an int
ATTEMPT_DELAY_S = 0.25  # RFC 8305 section 5: before the next address is tried beside this one

_T = TypeVar("_T")
_Candidate = tuple[int, int, int, Any]  # family, type, protocol, name


def dial(address: Address, timeout_s: float | None, options: Options = NONE) -> socket.socket:
    """Return a non-blocking socket that is connected to *address*.

    Args:
        address: Of any scheme.
        timeout_s: For all attempts together; None for as long as the system tries. Resolving
            a name comes before it, and takes as long as the system's resolver does.
        options: What each socket has before it is connected; they are checked already.

    Raises:
        CannotResolve, Refused, Unreachable, TimedOut: What the best attempt met.
        PeerClosed: It was reset at once.
        OptionError: The kernel refused an option.
    """
    if is_local(address):
        return dial_local(address, timeout_s, options)
    candidates = resolve(address)
    if address.kind == "datagram":
        return _dial_datagram(address, candidates, options)
    race = _Race(address, candidates, options)
    try:
        return race.run(None if timeout_s is None else time.monotonic() + timeout_s)
    except TimeoutError:
        assert timeout_s is not None
        raise too_late(address, "no connection", timeout_s) from None
    finally:
        race.close()


def resolve(address: Address) -> list[_Candidate]:
    """Return what to try, in the order of RFC 8305 section 4: families take turns.

    Raises:
        CannotResolve: The name has no address.
    """
    kind = socket.SOCK_DGRAM if address.kind == "datagram" else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind)
    except (socket.gaierror, UnicodeError) as error:
        raise not_resolved(address, error) from None
    all_ = [(family, type_, proto, name) for family, type_, proto, _, name in found]
    return in_turns(all_, lambda candidate: candidate[0])


def in_turns(candidates: Sequence[_T], family_of: Callable[[_T], object]) -> list[_T]:
    """Return *candidates* in the order of RFC 8305 section 4: families take turns."""
    family = family_of(candidates[0])
    first = [each for each in candidates if family_of(each) == family]
    others = [each for each in candidates if family_of(each) != family]
    turns: list[_T] = []
    for position in range(max(len(first), len(others))):
        turns += first[position : position + 1] + others[position : position + 1]
    return turns


def dial_first(
    address: Address, names: Sequence[tuple[str, int]], options: Options = NONE
) -> socket.socket:
    """Return a datagram socket connected to the first of *names* that there is a way to.

    Raises:
        Unreachable: There is none to any of them.
    """
    met: ClientError = not_connected(address, errno.ENETUNREACH)
    for host, port in names:
        try:
            return dial(Address("udp", host, port), None, options)  # numeric: nothing to wait for
        except ClientError as error:
            met = type(error)(address, error.text, error.code)
    raise met


def five_tuple_of(address: Address, sock: socket.socket) -> FiveTuple:
    """Return who talks to whom on *sock*; close it where the peer is gone already.

    Raises:
        PeerClosed: The peer has reset the connection.
    """
    if is_local(address):
        return local_five_tuple(address, sock)
    try:
        local, peer = sock.getsockname(), sock.getpeername()
    except OSError as error:
        sock.close()
        raise not_connected(address, error.errno or 0) from None
    return FiveTuple(address.scheme, unmap(local[0]), local[1], unmap(peer[0]), peer[1])


def _dial_datagram(
    address: Address, candidates: list[_Candidate], options: Options
) -> socket.socket:
    """Return a socket connected to the first address that there is a way to."""
    number = errno.ENETUNREACH
    for family, kind, proto, name in candidates:
        try:
            sock = open_socket(family, kind, proto, options, to_group=is_group(str(name[0])))
        except OSError as error:
            number = error.errno or number
            continue
        try:
            sock.connect(name)
        except OSError as error:
            sock.close()
            number = error.errno or number
            continue
        return sock
    raise not_connected(address, number)


class _Race:
    """Attempts beside each other; the first that connects wins."""

    def __init__(self, address: Address, candidates: list[_Candidate], options: Options) -> None:
        self._address = address
        self._options = options
        self._waiting = candidates
        self._running: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._errors: list[ClientError] = []

    def run(self, deadline: float | None) -> socket.socket:
        """Return the winner.

        Raises:
            TimeoutError: The deadline has passed.
            ClientError: Every attempt failed.
        """
        while True:
            winner = self._start_next()
            if winner is None:
                next_at = time.monotonic() + ATTEMPT_DELAY_S if self._waiting else None
                winner = self._wait(next_at, deadline)
            if winner is not None:
                return winner
            if not self._waiting and not self._running:
                raise best_of(self._errors)

    def _start_next(self) -> socket.socket | None:
        """Start the next attempt; return its socket if it connected at once."""
        if not self._waiting:
            return None
        family, kind, proto, name = self._waiting.pop(0)
        try:
            sock = open_socket(family, kind, proto, self._options)
        except OSError as error:
            self._failed(error.errno or errno.ENETUNREACH)
            return None
        number = sock.connect_ex(name)
        if number == errno.EINPROGRESS:
            self._running[sock.fileno()] = sock
            self._poll.register(sock, select.POLLOUT)
            return None
        return self._arrived(sock, number)

    def _wait(self, next_at: float | None, deadline: float | None) -> socket.socket | None:
        """Wait until an attempt ends or the next one is due; return the winner."""
        while self._running:
            moments = [moment for moment in (next_at, deadline) if moment is not None]
            left = min(moments) - time.monotonic() if moments else None
            ready = self._poll.poll(
                None if left is None else min(max(0, left), LONGEST_WAIT_S) * 1000
            )
            failed = False
            for fd, _ in ready:
                sock = self._running.pop(fd)
                self._poll.unregister(fd)
                winner = self._arrived(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                if winner is not None:
                    return winner
                failed = True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError
            if self._waiting and (failed or (next_at is not None and now >= next_at)):
                return None
        return None

    def _arrived(self, sock: socket.socket, number: int) -> socket.socket | None:
        """Return *sock* where it connected; else note why not."""
        if number == 0:
            # A connect to a port that the kernel chose for this very socket connects it to
            # itself (simultaneous open, RFC 9293 section 3.5): nobody listens there.
            try:
                if sock.getsockname() != sock.getpeername():
                    return sock
                number = errno.ECONNREFUSED
            except OSError as error:  # reset since
                number = error.errno or errno.ENOTCONN
        sock.close()
        self._failed(number)
        return None

    def _failed(self, number: int) -> None:
        self._errors.append(not_connected(self._address, number))

    def close(self) -> None:
        """Close what did not win."""
        for sock in self._running.values():
            sock.close()
        self._running.clear()
