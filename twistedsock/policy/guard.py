"""The datagram guard: no two services are made to talk to each other, and none amplifies.

A datagram's source address is whatever its sender wrote there. So what looks like another
service is not answered, and a peer that has proved nothing gets little more than it sent.
Knows addresses, ports and byte counts; never a socket or a clock.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable, Container
from functools import lru_cache

AMPLIFICATION = 3  # RFC 9000 section 8: bytes sent for each byte received, until proven
PRIVILEGED_PORTS = 1024  # below: daemons, not clients
IPV4_HEADERS_BYTES = 28  # IPv4 (20) and UDP (8)
IPV6_HEADERS_BYTES = 48  # IPv6 (40) and UDP (8)


class Drop(enum.StrEnum):
    """Why a datagram was dropped: the word in counters and logs."""

    OWN_SERVICE = "own_service"
    SAME_PORT = "same_port"
    PRIVILEGED_PORT = "privileged_port"
    NOT_UNICAST = "not_unicast"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"


class ServedPorts:
    """The UDP ports, and the UNIX names, of this process: who sends from one is ourselves."""

    __slots__ = ("_ports",)

    def __init__(self) -> None:
        self._ports: Counter[int | str] = Counter()

    def add(self, port: int | str) -> None:
        """Note that a listener has *port*."""
        self._ports[port] += 1

    def remove(self, port: int | str) -> None:
        """Forget one listener on *port*."""
        self._ports[port] -= 1
        if self._ports[port] <= 0:
            del self._ports[port]

    def __contains__(self, port: object) -> bool:
        return port in self._ports


class DatagramGuard:
    """Judges each datagram by where it came from and where it was sent to.

    Args:
        port: The local port of the listener.
        any_source_port: True lifts the rules on ports, for protocols where both ends use the
            same port or a privileged one (SIP, NTP).
        served: The UDP ports of this process.
        is_own_address: Tells whether a numeric address belongs to this machine.
    """

    __slots__ = ("_any_source_port", "_is_own_address", "_port", "_served")

    def __init__(
        self,
        port: int,
        *,
        any_source_port: bool,
        served: ServedPorts,
        is_own_address: Callable[[str], bool],
    ) -> None:
        self._port = port
        self._any_source_port = any_source_port
        self._served = served
        self._is_own_address = is_own_address

    def judge(self, host: str, port: int) -> Drop | None:
        """Return why a datagram from *host* and *port* is not answered, or None to serve it."""
        if port in self._served and self._is_own_address(host):
            return Drop.OWN_SERVICE
        if not self._any_source_port:
            if port == self._port:
                return Drop.SAME_PORT
            if port < PRIVILEGED_PORTS:
                return Drop.PRIVILEGED_PORT
        if port == 0 or not is_unicast(host):
            return Drop.NOT_UNICAST
        return None


class NameGuard:
    """Judges each datagram over a UNIX socket: the kernel tells who sent it, so little is needed.

    Args:
        served: The names that this process serves.
    """

    __slots__ = ("_served",)

    def __init__(self, served: Container[str]) -> None:
        self._served = served

    def judge(self, name: str, _: int) -> Drop | None:
        """Return why a datagram from *name* is not answered, or None to serve it."""
        return Drop.OWN_SERVICE if name in self._served else None


@lru_cache(maxsize=4096)
def is_unicast(host: str) -> bool:
    """Return whether something may be sent to *host*: no group, no broadcast, not "any".

    A subnet's own broadcast address cannot be told from the number alone; there the kernel
    refuses, because SO_BROADCAST is never set.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return not (address.is_multicast or address.is_unspecified or host == "255.255.255.255")


def headers_bytes(host: str) -> int:
    """Return what the IP and UDP headers add to a datagram to or from *host*, in bytes."""
    return IPV6_HEADERS_BYTES if ":" in host else IPV4_HEADERS_BYTES
