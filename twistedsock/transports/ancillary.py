"""What the kernel tells beside a datagram: control messages, and the queue of errors.

Knows options, and the bytes of control messages (ip(7), ipv6(7), RFC 3542); never a protocol.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twistedsock.addresses import unmap

SO_TIMESTAMPNS = 35  # Python has few of these constants, and some from 3.12 on
IP_TOS, IP_TTL, IP_PKTINFO, IP_RECVERR, IP_RECVTTL, IP_RECVTOS = 1, 2, 8, 11, 12, 13
IPV6_RECVERR, IPV6_RECVPKTINFO, IPV6_PKTINFO = 25, 49, 50
IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT, IPV6_RECVTCLASS, IPV6_TCLASS = 51, 52, 66, 67
TIMESPEC = struct.Struct("@ll")
_PKTINFO = struct.Struct("@i4s4s")  # ipi_ifindex, ipi_spec_dst, ipi_addr (ip(7))
_PKTINFO6 = struct.Struct("@16sI")  # ipi6_addr, ipi6_ifindex (RFC 3542 section 6.1)
_INT = struct.Struct("@i")
# An IPv4 datagram of a dual-stack socket comes with those of both versions.
_SIZES = (TIMESPEC.size, _PKTINFO.size, 4, 4, _PKTINFO6.size, 4, 4)
ANCILLARY_BYTES = sum(map(socket.CMSG_SPACE, _SIZES))

# struct sock_extended_err: errno, origin, type, code, pad, info, data (ip(7), linux/errqueue.h);
# behind it is the address of whoever sent the error.
EXTENDED_ERROR = struct.Struct("=IBBBBII")
ORIGIN_AT = 4
_ERRORS_A_TURN = 64
_ERROR_BYTES = 512
_WITH_ERRORS = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_PACKET", None))

_IP4 = ((socket.IPPROTO_IP, IP_PKTINFO),)
_IP4_HEADER = ((socket.IPPROTO_IP, IP_RECVTTL), (socket.IPPROTO_IP, IP_RECVTOS))
_IP6 = tuple(
    (socket.IPPROTO_IPV6, number)
    for number in (IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS)
)


def ask(sock: socket.socket) -> None:
    """Have *sock* tell all that it can of each datagram."""
    wanted = [(socket.SOL_SOCKET, SO_TIMESTAMPNS)]
    is_raw = sock.type == socket.SOCK_RAW
    if sock.family == socket.AF_INET6:
        wanted += _IP6
    if sock.family == socket.AF_INET or not is_raw:  # UDP over IPv6 may carry IPv4 as well
        wanted += _IP4
        if not is_raw:  # which gives the header itself
            wanted += _IP4_HEADER
    for level, number in wanted:
        sock.setsockopt(level, number, 1)


def told_by(ancillary: list[tuple[int, int, bytes]], flags: int) -> dict[str, Any]:
    """Return what control messages and the flags of ``recvmsg`` say, as Metadata's arguments."""
    told: dict[str, Any] = {"truncated": bool(flags & socket.MSG_TRUNC)}
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP:
            _tell_ip4(told, kind, data)
        elif level == socket.IPPROTO_IPV6:
            _tell_ip6(told, kind, data)
        elif level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack_from(data)
            told["received_at"] = seconds + nanoseconds / 1e9
    return told


def _tell_ip4(told: dict[str, Any], kind: int, data: bytes) -> None:
    if kind == IP_PKTINFO:
        told["interface"], specific, header = _PKTINFO.unpack_from(data)
        told["destination"] = socket.inet_ntoa(header)
        # The kernel's own choice of address to answer from differs from the one in the header
        # only where that is a group or a broadcast; none was chosen before the option was set.
        told["broadcast"] = specific not in (header, bytes(4)) and not 224 <= header[0] <= 239
    elif kind == IP_TTL:
        (told["ttl_hops"],) = _INT.unpack_from(data)
    elif kind == IP_TOS:
        told["dscp"] = data[0] >> 2


def _tell_ip6(told: dict[str, Any], kind: int, data: bytes) -> None:
    if kind == IPV6_PKTINFO:
        address, interface = _PKTINFO6.unpack_from(data)
        # Of an IPv4 datagram that came to a dual-stack socket, the IPv4 message says the same.
        told.setdefault("interface", interface)
        told.setdefault("destination", unmap(socket.inet_ntop(socket.AF_INET6, address)))
    elif kind == IPV6_HOPLIMIT:
        (told["ttl_hops"],) = _INT.unpack_from(data)
    elif kind == IPV6_TCLASS:
        told["dscp"] = _INT.unpack_from(data)[0] >> 2


@dataclass(frozen=True, slots=True)
class NetworkError:
    """What the error queue says: ``struct sock_extended_err`` (ip(7), linux/errqueue.h).

    Attributes:
        number: The errno that stands for it.
        origin: ICMP or ICMP6, or another where this machine noticed it itself.
        icmp_type: Of the ICMP message, where one came; likewise its code.
        info: The next hop's MTU where a packet was too big, in bytes.
        source: Who sent the error; empty where this machine noticed it itself.
    """

    number: int
    origin: int
    icmp_type: int
    icmp_code: int
    info: int
    source: str


ICMP, ICMP6, TIMESTAMPING = 2, 3, 4  # SO_EE_ORIGIN_* (linux/errqueue.h)


def network_error(data: bytes) -> NetworkError:
    """Return what *data*, a ``struct sock_extended_err`` with what follows it, says."""
    number, origin, icmp_type, icmp_code, _, info, _ = EXTENDED_ERROR.unpack_from(data)
    source = _offender(data[EXTENDED_ERROR.size :]) if origin in (ICMP, ICMP6) else ""
    return NetworkError(number, origin, icmp_type, icmp_code, info, source)


def _offender(name: bytes) -> str:
    """Return the host of a socket address, ``struct sockaddr_in`` or ``sockaddr_in6``."""
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET and len(name) >= 8:
        return socket.inet_ntoa(name[4:8])
    if family == socket.AF_INET6 and len(name) >= 24:
        return unmap(socket.inet_ntop(socket.AF_INET6, name[8:24]))
    return ""


def queued_errors(sock: socket.socket) -> Iterator[tuple[int, str]]:
    """Take the errors out of the queue that IP_RECVERR fills: the errno, and who was sent to.

    As long as one is in it the socket is reported as having an error. Bounded, like all reading.
    """
    if sock.family not in _WITH_ERRORS or not hasattr(socket, "MSG_ERRQUEUE"):
        return
    for _ in range(_ERRORS_A_TURN):
        try:
            _, ancillary, _, name = sock.recvmsg(0, _ERROR_BYTES, socket.MSG_ERRQUEUE)
        except OSError:  # it is empty
            return
        for level, kind, data in ancillary:
            if (level, kind) in _ERROR_KINDS and len(data) >= EXTENDED_ERROR.size:
                yield EXTENDED_ERROR.unpack_from(data)[0], unmap(name[0]) if name else ""


_ERROR_KINDS = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
