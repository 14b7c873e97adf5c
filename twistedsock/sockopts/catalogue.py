"""The table of socket options.

Data, not code. Numbers are Linux's where Python's socket module lacks the constant. Every
option here is set on a listener before bind; on streams the accepted sockets inherit it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final, Literal

Value = Literal["bool", "int", "size", "seconds", "milliseconds", "text", "linger"]

SOL_SOCKET, IP, IPV6, TCP = (
    socket.SOL_SOCKET,
    socket.IPPROTO_IP,
    socket.IPPROTO_IPV6,
    socket.IPPROTO_TCP,
)
ANY, STREAM, DATAGRAM = frozenset({"tcp", "udp"}), frozenset({"tcp"}), frozenset({"udp"})


@dataclass(frozen=True, slots=True)
class Option:
    """One socket option.

    Attributes:
        name: The kernel's own name.
        level, number: The first two arguments of setsockopt(2).
        value: How its value is written: bool, int, size (bytes), seconds, milliseconds
            (both as durations), text, or linger (a duration, or false).
        fits: The address schemes that take it.
        family: 4 or 6 where only one IP version takes it; None for both.
    """

    name: str
    level: int
    number: int
    value: Value
    fits: frozenset[str] = ANY
    family: Literal[4, 6] | None = None


_TABLE = (
    Option("SO_BINDTODEVICE", SOL_SOCKET, 25, "text"),
    Option("SO_BUSY_POLL", SOL_SOCKET, 46, "int"),
    Option("SO_DONTROUTE", SOL_SOCKET, 5, "bool"),
    Option("SO_INCOMING_CPU", SOL_SOCKET, 49, "int"),
    Option("SO_KEEPALIVE", SOL_SOCKET, 9, "bool", STREAM),
    Option("SO_LINGER", SOL_SOCKET, 13, "linger", STREAM),
    Option("SO_MARK", SOL_SOCKET, 36, "int"),
    Option("SO_OOBINLINE", SOL_SOCKET, 10, "bool", STREAM),
    # Linux gives an accepted socket priority 0 whatever its listener has, so not for streams.
    Option("SO_PRIORITY", SOL_SOCKET, 12, "int", DATAGRAM),
    Option("SO_RCVBUF", SOL_SOCKET, 8, "size"),
    Option("SO_RCVBUFFORCE", SOL_SOCKET, 33, "size"),
    Option("SO_RCVLOWAT", SOL_SOCKET, 18, "int", STREAM),
    Option("SO_REUSEADDR", SOL_SOCKET, 2, "bool"),
    Option("SO_REUSEPORT", SOL_SOCKET, 15, "bool"),
    Option("SO_SNDBUF", SOL_SOCKET, 7, "size"),
    Option("SO_SNDBUFFORCE", SOL_SOCKET, 32, "size"),
    Option("IP_BIND_ADDRESS_NO_PORT", IP, 24, "bool", ANY, 4),
    Option("IP_FREEBIND", IP, 15, "bool", ANY, 4),
    Option("IP_MTU_DISCOVER", IP, 10, "int", DATAGRAM, 4),
    Option("IP_TOS", IP, 1, "int", ANY, 4),
    Option("IP_TRANSPARENT", IP, 19, "bool", ANY, 4),
    Option("IP_TTL", IP, 2, "int", ANY, 4),
    Option("IPV6_FREEBIND", IPV6, 78, "bool", ANY, 6),
    Option("IPV6_MTU_DISCOVER", IPV6, 23, "int", DATAGRAM, 6),
    Option("IPV6_TCLASS", IPV6, 67, "int", ANY, 6),
    Option("IPV6_TRANSPARENT", IPV6, 75, "bool", ANY, 6),
    Option("IPV6_UNICAST_HOPS", IPV6, 16, "int", ANY, 6),
    Option("TCP_CONGESTION", TCP, 13, "text", STREAM),
    Option("TCP_DEFER_ACCEPT", TCP, 9, "seconds", STREAM),
    Option("TCP_FASTOPEN", TCP, 23, "int", STREAM),
    Option("TCP_KEEPCNT", TCP, 6, "int", STREAM),
    Option("TCP_KEEPIDLE", TCP, 4, "seconds", STREAM),
    Option("TCP_KEEPINTVL", TCP, 5, "seconds", STREAM),
    Option("TCP_LINGER2", TCP, 8, "seconds", STREAM),
    Option("TCP_MAXSEG", TCP, 2, "int", STREAM),
    Option("TCP_NODELAY", TCP, 1, "bool", STREAM),
    Option("TCP_NOTSENT_LOWAT", TCP, 25, "size", STREAM),
    Option("TCP_SYNCNT", TCP, 7, "int", STREAM),
    Option("TCP_USER_TIMEOUT", TCP, 18, "milliseconds", STREAM),
    Option("TCP_WINDOW_CLAMP", TCP, 10, "size", STREAM),
)

CATALOGUE: Final[dict[str, Option]] = {option.name: option for option in _TABLE}
