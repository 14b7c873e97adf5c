"""One socket for echo requests to any number of hosts of one IP version (RFC 792, RFC 4443).

A ping socket where the kernel allows one, else a raw one with a filter for our identifier. The
kernel says when each request left and when each answer came (SO_TIMESTAMPING), and its error
queue tells what the network answered instead (IP_RECVERR). Knows ICMP; never who is pinged, or
why.

A request is, behind the eight bytes of its ICMP header:

    +----------+-----------------------+----------------+
    | lap (16) | key of this run (48)  | 0, 1, 2 ...    |
    +----------+-----------------------+----------------+

Lap and sequence number are the two halves of its number, so that 65,536 requests and a late answer
confuse nothing; the key keeps other people's answers out.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twistedsock import sockopts
from twistedsock.errors import BindError
from twistedsock.transports.ancillary import (
    EXTENDED_ERROR,
    IP_RECVERR,
    IP_TTL,
    IPV6_HOPLIMIT,
    IPV6_RECVERR,
    ORIGIN_AT,
    TIMESPEC,
    TIMESTAMPING,
    NetworkError,
    network_error,
)
from twistedsock.transports.hotloop import Listener
from twistedsock.wire import bpf
from twistedsock.wire.bpf import Instruction
from twistedsock.wire.checksum import ones_sum

MAX_SIZE_BYTES = 65_507  # of what follows the ICMP header: that of a UDP datagram, likewise
LEAST_KEYED_BYTES = 8  # a payload below that has no room for lap and key
REPLIES_A_TURN = 256  # so that a flood of answers does not starve the reactor
MAX_UNSTAMPED = 1024  # requests that may still be told when they left; some drivers never do

ICMP_HEADER_BYTES = 8
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
SO_TIMESTAMPING = 37
_STAMPS = ["tx-software", "rx-software", "software", "opt-id", "opt-tsonly"]
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_KEYED_HEADER = struct.Struct("!BBHHHH")  # with the lap
_KEYED_BYTES = _KEYED_HEADER.size
_KEY_END = _KEYED_BYTES + 6
_PACK_KEYED, _UNPACK_KEYED = _KEYED_HEADER.pack, _KEYED_HEADER.unpack_from
_STAMP = TIMESPEC.unpack_from
SOL_SOCKET, MSG_ERRQUEUE = socket.SOL_SOCKET, 0x2000  # the latter is Linux's alone
_INT = struct.Struct("@i")
_TTL = _INT.unpack_from
_COUNT, _COUNT_AT = struct.Struct("=I").unpack_from, EXTENDED_ERROR.size - 4  # its last field
_ANCILLARY_BYTES = 256  # the stamps, the TTL, and what further options have told
_QUEUED_BYTES, _QUEUED_ANCILLARY_BYTES = 128, 256  # the front of the quotation; what is beside it
# A burst of answers waits here, and requests to neighbours that are looked for; clamped by
# net.core.rmem_max and wmem_max.
_BUFFER_BYTES = 4 << 20
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOLS = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_PING_GROUPS = "/proc/sys/net/ipv4/ping_group_range"

# Number and when it left, in nanoseconds since 1970.
Left = Callable[[int, int], None]
# Number, when it came in nanoseconds since 1970, its TTL, and whom it came from.
Answered = Callable[[int, int, int, str], None]
# Number, what it says, and when it came.
Failed = Callable[[int, NetworkError, int], None]


class EchoSocket(Listener):
    """Sends echo requests, and tells of their answers; owns its socket.

    Args:
        reactor: Watches it, once ``startReading`` was called.
        version: 4 or 6.
        left: Is called for each request that the kernel says the time of; not all drivers do.
        answered: Is called for each answer.
        failed: Is called for each error that the network sent instead.
        size_bytes: Of a request, behind its ICMP header.
        options: Further socket options by name.

    Attributes:
        refused_mtu: The MTU that the last request was too long for, where ``send`` said EMSGSIZE.

    Raises:
        BindError: There is no such socket, or no right to one.
        OptionError: An option is wrong or refused.
    """

    def __init__(
        self,
        reactor: Any,
        version: int,
        left: Left,
        answered: Answered,
        failed: Failed,
        size_bytes: int,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.reactor = reactor
        self.version = version
        self._left, self._answered, self._failed = left, answered, failed
        self._kind, self._reply_kind = ECHO_REQUEST[version], ECHO_REPLY[version]
        self._number = 0  # the latest that was sent
        self._unstamped: dict[int, int] = {}  # numbers, by the kernel's count of what was sent
        self._sent = self.refused_mtu = 0
        self.socket, self.is_raw = _open(version)
        self.fileno = self.socket.fileno
        try:
            self.socket.setblocking(False)
            self._prepare(options or {})
        except BaseException:
            self.socket.close()
            raise
        self._has_header = self.is_raw and version == 4
        # The rest of every request; the kernel sums up ICMPv6 and what ping sockets send.
        self._is_keyed = size_bytes >= LEAST_KEYED_BYTES
        filling = bytes(each & 0xFF for each in range(max(size_bytes - LEAST_KEYED_BYTES, 0)))
        self._tail = (
            secrets.token_bytes(_KEY_END - _KEYED_BYTES) + filling
            if self._is_keyed
            else bytes(size_bytes)
        )
        constant = _HEADER.pack(self._kind, 0, 0, self.identifier, 0) + self._tail
        self._sum = ones_sum(constant) if self._has_header else 0
        self._buffer = bytearray(MAX_SIZE_BYTES + ICMP_HEADER_BYTES + 60)  # an IP header's most
        self._buffers = [self._buffer]
        self._size_bytes = ICMP_HEADER_BYTES + size_bytes
        self._find = self._find_keyed if self._is_keyed else self._find_short
        self._send_to, self._receive = self.socket.sendto, self.socket.recvmsg_into

    def _prepare(self, options: Mapping[str, object]) -> None:
        is_v6 = self.version == 6
        wanted: dict[str, object] = {"SO_RCVBUF": _BUFFER_BYTES, "SO_SNDBUF": _BUFFER_BYTES}
        if self.is_raw:
            self.identifier = secrets.randbelow(0xFFFF) + 1
            wanted |= _only_answers(self.version, self.identifier)
        else:
            self.socket.bind(("::" if is_v6 else "0.0.0.0", 0))
            self.identifier = self.socket.getsockname()[1]
        wanted["IPV6_RECVERR" if is_v6 else "IP_RECVERR"] = True
        if is_v6:
            wanted["IPV6_RECVHOPLIMIT"] = True
        elif not self.is_raw:
            wanted["IP_RECVTTL"] = True
        sockopts.apply(self.socket, wanted)
        self._stamp_anew()
        sockopts.apply(self.socket, options)

    def _stamp_anew(self) -> None:
        """Have the kernel count what is sent from 0 again."""
        sockopts.apply(self.socket, {"SO_TIMESTAMPING": []})
        sockopts.apply(self.socket, {"SO_TIMESTAMPING": _STAMPS})
        self._unstamped.clear()
        self._sent = 0

    def send(self, number: int, name: Any, ttl_hops: int | None = None) -> int:
        """Send the request *number*; return when, in nanoseconds since 1970.

        Args:
            number: Of the run, from 0; above those before it.
            name: Of whom to send it to: a socket address with port 0.
            ttl_hops: How many routers it may pass; None: the socket's own.

        Raises:
            OSError: The kernel refused it, such as BlockingIOError while its buffer is full.
        """
        self._number = number
        sequence = number & 0xFFFF
        if self._is_keyed:
            lap = number >> 16 & 0xFFFF
            checksum = self._sum and 0xFFFF - ((self._sum + sequence + lap) % 0xFFFF or 0xFFFF)
            head = _PACK_KEYED(self._kind, 0, checksum, self.identifier, sequence, lap)
        else:
            checksum = self._sum and 0xFFFF - ((self._sum + sequence) % 0xFFFF or 0xFFFF)
            head = _HEADER.pack(self._kind, 0, checksum, self.identifier, sequence)
        message = head + self._tail
        sent_ns = time.time_ns()
        try:
            if ttl_hops is None:
                self._send_to(message, name)
            else:
                self._send_to_hop(message, name, ttl_hops)
        except BlockingIOError:
            raise
        except OSError:
            sent_ns = self._send_again(message, name, ttl_hops)
        unstamped, count = self._unstamped, self._sent
        unstamped[count] = number
        self._sent = count + 1 & 0xFFFFFFFF
        if len(unstamped) > MAX_UNSTAMPED:
            del unstamped[next(iter(unstamped))]
        return sent_ns

    def _send_again(self, message: bytes, name: Any, ttl_hops: int | None) -> int:
        """Send once more: what failed may have been told of an earlier request (raw(7))."""
        self.read_queue()
        self._stamp_anew()  # the kernel may have counted what failed, or not
        sent_ns = time.time_ns()
        try:
            if ttl_hops is None:
                self._send_to(message, name)
            else:
                self._send_to_hop(message, name, ttl_hops)
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # what raw sockets say while their buffer is full
                raise BlockingIOError(error.errno, error.strerror) from error
            raise
        return sent_ns

    def _send_to_hop(self, message: bytes, name: Any, ttl_hops: int) -> None:
        level, kind = _TTLS[self.version]
        self.socket.sendmsg([message], [(level, kind, _INT.pack(ttl_hops))], 0, name)

    def read(self) -> None:
        """Tell of the answers and errors that are there, within bounds."""
        if self._unstamped:
            self.read_queue(len(self._unstamped))
        buffer, buffers, receive = self._buffer, self._buffers, self._receive
        has_header, find, answered = self._has_header, self._find, self._answered
        ttl_level, ttl_kind = _TTLS[self.version]
        header = 0
        for _ in range(REPLIES_A_TURN):
            try:
                size, ancillary, _, name = receive(buffers, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:  # what the error queue tells in full
                self.read_queue()
                continue
            received_ns, ttl_hops = 0, buffer[8]
            for level, kind, data in ancillary:
                if kind == SO_TIMESTAMPING and level == SOL_SOCKET:
                    seconds, nanoseconds = _STAMP(data)
                    received_ns = seconds * 1_000_000_000 + nanoseconds
                elif kind == ttl_kind and level == ttl_level:
                    (ttl_hops,) = _TTL(data)
            if has_header:
                header = (buffer[0] & 0x0F) * 4
            number = find(header, size)
            if number >= 0:
                answered(number, received_ns or time.time_ns(), ttl_hops, name[0])

    def _find_keyed(self, start: int, end: int) -> int:
        """Return the number of the request that is answered in the buffer; -1: none of ours."""
        if end - start != self._size_bytes:
            return -1
        kind, _, _, identifier, sequence, lap = _UNPACK_KEYED(self._buffer, start)
        if self._buffer[start + _KEYED_BYTES : end] != self._tail:
            return -1
        if kind != self._reply_kind or identifier != self.identifier:
            return -1
        number: int = lap << 16 | sequence  # of a run of 2**32 and more, the latest
        return self._number - ((self._number - number) & 0xFFFFFFFF)

    def _find_short(self, start: int, end: int) -> int:
        """Return what ``_find_keyed`` does, where lap and key have no room."""
        if end - start != self._size_bytes:
            return -1
        kind, _, _, identifier, sequence = _HEADER.unpack_from(self._buffer, start)
        if kind != self._reply_kind or identifier != self.identifier:
            return -1
        return self._latest(sequence)

    def _latest(self, sequence: int) -> int:
        """Return the number of the latest request that has *sequence*."""
        return self._number - ((self._number - sequence) & 0xFFFF)

    def read_queue(self, limit: int = REPLIES_A_TURN) -> None:
        """Take the times at which requests left, and the network's errors, out of their queue."""
        receive, left = self.socket.recvmsg, self._left
        error_level, error_kind = _ERRORS[self.version]
        for _ in range(limit):
            try:
                quoted, ancillary, _, _ = receive(
                    _QUEUED_BYTES, _QUEUED_ANCILLARY_BYTES, MSG_ERRQUEUE
                )
            except OSError:  # it is empty
                return
            told, stamp_ns = b"", 0
            for level, kind, data in ancillary:
                if kind == SO_TIMESTAMPING and level == SOL_SOCKET:
                    seconds, nanoseconds = _STAMP(data)
                    stamp_ns = seconds * 1_000_000_000 + nanoseconds
                elif kind == error_kind and level == error_level:
                    told = data
            if told and told[ORIGIN_AT] == TIMESTAMPING:
                number = self._unstamped.pop(_COUNT(told, _COUNT_AT)[0], -1)
                if number >= 0:
                    left(number, stamp_ns)
            elif told:
                self._tell_failure(quoted, network_error(told), stamp_ns)

    def _tell_failure(self, quoted: bytes, error: NetworkError, stamp_ns: int) -> None:
        """Tell of *error* if it is about a request of ours, which *quoted* begins with."""
        if len(quoted) < ICMP_HEADER_BYTES:
            self.refused_mtu = error.info  # this machine's own, of what was too long for it
            return
        kind, _, _, identifier, sequence = _HEADER.unpack_from(quoted)
        # Raw sockets are told of the errors of all that ping from here.
        if kind != self._kind or identifier != self.identifier:
            return
        if self._is_keyed and not self._tail.startswith(quoted[_KEYED_BYTES:_KEY_END]):
            return
        number = self._latest(sequence)
        if number >= 0:
            self._failed(number, error, stamp_ns or time.time_ns())

    def doRead(self) -> None:
        """Read, as the loop asks."""
        self.read()

    def hungUp(self) -> None:
        """Read the queue of errors: that is all that was reported."""
        self.read_queue()

    def logPrefix(self) -> str:
        """Name the log context."""
        return "ping"

    def connectionLost(self, reason: object = None) -> None:
        """Close it."""
        self.stopReading()
        self.socket.close()


def _open(version: int) -> tuple[socket.socket, bool]:
    """Return a socket for echo requests, and whether it is a raw one.

    Raises:
        BindError: There is none, or no right to one.
    """
    family, protocol = _FAMILIES[version], _PROTOCOLS[version]
    with suppress(OSError):  # not here, or not for our group: a raw one may do
        return socket.socket(family, socket.SOCK_DGRAM, protocol), False
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol), True
    except OSError as error:
        what = "icmp" if version == 4 else "icmpv6"
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise BindError.from_os_error(what, error) from error
        code = errno.errorcode[error.errno]
        raise BindError(what, f"needs CAP_NET_RAW ({code}): {_grant()}", error.errno) from error


def _grant() -> str:
    """Return what would allow either kind of socket."""
    groups = "a group within net.ipv4.ping_group_range"
    with suppress(OSError, ValueError):
        with open(_PING_GROUPS) as file:
            first, last = map(int, file.read().split())
        held = "nobody's" if first > last else f"{first} to {last}"
        groups += f" (now {held}; yours is {os.getegid()})"
    return f"run it as root or with that capability, or have {groups}"


def _only_answers(version: int, identifier: int) -> dict[str, object]:
    """Return the options by which a raw socket is given the answers to *identifier* alone."""
    kept = ECHO_REPLY[version]
    decide = [
        Instruction(bpf.JMP | bpf.JEQ | bpf.K, 0, 1, identifier),
        Instruction(bpf.RET | bpf.K, 0, 0, 0xFFFFFFFF),
        Instruction(bpf.RET | bpf.K, 0, 0, 0),
    ]
    if version == 6:  # a raw socket's packets begin with the ICMPv6 header
        load = [Instruction(bpf.LD | bpf.H | bpf.ABS, 0, 0, 4)]
        return {
            "ICMPV6_FILTER": [each for each in range(256) if each != kept],
            "SO_ATTACH_FILTER": load + decide,
        }
    load = [
        Instruction(bpf.LDX | bpf.B | bpf.MSH, 0, 0, 0),  # X: the length of the IPv4 header
        Instruction(bpf.LD | bpf.H | bpf.IND, 0, 0, 4),
    ]
    return {
        "ICMP_FILTER": [each for each in range(32) if each != kept],
        "SO_ATTACH_FILTER": load + decide,
    }


_ERRORS = {4: (socket.IPPROTO_IP, IP_RECVERR), 6: (socket.IPPROTO_IPV6, IPV6_RECVERR)}
_TTLS = {4: (socket.IPPROTO_IP, IP_TTL), 6: (socket.IPPROTO_IPV6, IPV6_HOPLIMIT)}
