"""Kinds of sockets: what an option fits, by the protocol and the IP version of the traffic.

A socket may be of two kinds: one of AF_INET6 that is not IPV6_V6ONLY carries IPv4, too, and takes
the options of both.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from functools import cache
from typing import Final

from twistedsock.addresses import WILDCARD, Address, is_numeric, raw_version

IPPROTO_UDPLITE, IPPROTO_MPTCP, IPPROTO_SCTP = 136, 262, 132
ANY_RAW_PROTOCOL = 253  # RFC 3692: for experiments
AF_XDP, AF_NETLINK, AF_PACKET, AF_VSOCK, AF_CAN, AF_ALG = 44, 16, 17, 40, 29, 38
_IP: Final[dict[str, tuple[int, int]]] = {
    "tcp": (socket.SOCK_STREAM, 0),
    "mptcp": (socket.SOCK_STREAM, IPPROTO_MPTCP),
    "udp": (socket.SOCK_DGRAM, 0),
    "udplite": (socket.SOCK_DGRAM, IPPROTO_UDPLITE),
    "raw": (socket.SOCK_RAW, ANY_RAW_PROTOCOL),
    "ping": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
    "sctp": (socket.SOCK_STREAM, IPPROTO_SCTP),
}
_UNIX: Final[dict[str, int]] = {
    "unix-stream": socket.SOCK_STREAM,
    "unix-dgram": socket.SOCK_DGRAM,
    "unix-seqpacket": socket.SOCK_SEQPACKET,
}

# kind: the three arguments of socket(2) that make one
SOCKETS: Final[dict[str, tuple[int, int, int]]] = {
    **{
        f"{name}{version}": (
            family,
            type_,
            socket.IPPROTO_ICMPV6 if (name, version) == ("ping", 6) else protocol,
        )
        for name, (type_, protocol) in _IP.items()
        for version, family in ((4, int(socket.AF_INET)), (6, int(socket.AF_INET6)))
    },
    **{name: (int(socket.AF_UNIX), int(type_), 0) for name, type_ in _UNIX.items()},
    "packet": (AF_PACKET, socket.SOCK_RAW, 0),
    "netlink": (AF_NETLINK, socket.SOCK_RAW, 0),
    "vsock": (AF_VSOCK, socket.SOCK_STREAM, 0),
    "xdp": (AF_XDP, socket.SOCK_RAW, 0),
    "can": (AF_CAN, socket.SOCK_RAW, 1),
    "alg": (AF_ALG, socket.SOCK_SEQPACKET, 0),
}
GROUPS: Final[dict[str, frozenset[str]]] = {
    "all": frozenset(SOCKETS),
    "inet4": frozenset(f"{name}4" for name in _IP),
    "inet6": frozenset(f"{name}6" for name in _IP),
    "inet": frozenset(f"{name}{version}" for name in _IP for version in "46"),
    "unix": frozenset(_UNIX),
    **{name: frozenset({f"{name}4", f"{name}6"}) for name in _IP},
}
# Those whose listeners accept connections.
STREAMS: Final = frozenset(
    {"tcp4", "tcp6", "mptcp4", "mptcp6", "sctp4", "sctp6", "unix-stream", "unix-seqpacket", "vsock"}
)
_SCHEMES = {
    "unix": "unix-stream",
    "unixgram": "unix-dgram",
    "seqpacket": "unix-seqpacket",
    "packet": "packet",
}


@cache
def expand(text: str) -> frozenset[str]:
    """Return the kinds that *text* means: kinds and groups, ``-`` before what is taken away."""
    kinds: set[str] = set()
    for word in text.split():
        name = word.removeprefix("-")
        meant = GROUPS.get(name, frozenset({name}))
        if not meant <= SOCKETS.keys():
            raise ValueError(f"no kind of socket is called {name!r}")
        kinds = kinds - meant if word.startswith("-") else kinds | meant
    return frozenset(kinds)


def kinds_of_address(address: Address) -> frozenset[str]:
    """Return the kinds that a socket of *address* may be of; a name may be of either IP version."""
    if address.scheme == "raw":
        version = raw_version(address)
        if version is None and is_numeric(address.host):
            version = 6 if ":" in address.host else 4
        return frozenset({f"raw{version}"} if version else {"raw4", "raw6"})
    if address.scheme in _SCHEMES:
        return frozenset({_SCHEMES[address.scheme]})
    if address.host == WILDCARD or not is_numeric(address.host):
        return GROUPS[address.scheme]
    return frozenset({f"{address.scheme}{6 if ':' in address.host else 4}"})


def kinds_of_socket(sock: socket.socket) -> frozenset[str]:
    """Return the kinds that *sock* is of; none where it is of no kind that we know."""
    family, type_, protocol = int(sock.family), int(sock.type), sock.proto
    if family in (socket.AF_INET, socket.AF_INET6):
        name = _ip_name(type_, protocol)
        if name is None:
            return frozenset()
        versions = [6] if family == socket.AF_INET6 else [4]
        if family == socket.AF_INET6 and name != "raw" and _carries_ip4(sock):
            versions.append(4)
        return frozenset(f"{name}{version}" for version in versions)
    for kind, (known_family, known_type, _) in SOCKETS.items():
        if family == known_family and (type_ == known_type or kind in _ONE_OF_FAMILY):
            return frozenset({kind})
    return frozenset()


_ONE_OF_FAMILY = {"packet", "netlink", "vsock", "xdp", "can", "alg"}


def _ip_name(type_: int, protocol: int) -> str | None:
    if type_ == socket.SOCK_STREAM:
        return {IPPROTO_MPTCP: "mptcp", IPPROTO_SCTP: "sctp"}.get(protocol, "tcp")
    if type_ == socket.SOCK_DGRAM:
        pings = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
        return "ping" if protocol in pings else "udplite" if protocol == IPPROTO_UDPLITE else "udp"
    return "raw" if type_ == socket.SOCK_RAW else None


def _carries_ip4(sock: socket.socket) -> bool:
    try:
        if sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return False
    except OSError:
        return False
    host: str = sock.getsockname()[0]
    return host == "::" or host.startswith("::ffff:")


def describe(kinds: Collection[str]) -> str:
    """Return *kinds* in words, such as ``tcp and udp over IPv6``."""
    if set(kinds) >= set(SOCKETS):
        return "any socket"
    words = [name for name in _IP if {f"{name}4", f"{name}6"} <= set(kinds)]
    for version in "46":
        only = [name for name in _IP if f"{name}{version}" in kinds and name not in words]
        if only:
            several = f"{', '.join(only[:-1])} and " if only[1:] else ""
            words.append(f"{several}{only[-1]} over IPv{version}")
    if set(_UNIX) <= set(kinds):
        words.append("unix")
    else:
        words += [name for name in _UNIX if name in kinds]
    words += [name for name in SOCKETS if name in kinds and name in _ONE_OF_FAMILY]
    return ", ".join(words) or "no socket"


def open_kind(kind: str, protocol: int | None = None) -> socket.socket:
    """Return a new socket of *kind*, which the caller closes.

    Args:
        kind: One of SOCKETS.
        protocol: Instead of the kind's own; for raw sockets.

    Raises:
        OSError: The system has no such sockets, or the process has no right to one.
    """
    family, type_, own = SOCKETS[kind]
    return socket.socket(family, type_, own if protocol is None else protocol)


def carriers(kinds: Iterable[str]) -> list[str]:
    """Return *kinds* in the order of the table, for whoever tries them in turn."""
    wanted = set(kinds)
    return [kind for kind in SOCKETS if kind in wanted]
