"""Where datagrams come from: what each kind of listener knows of a sender it has not met.

The policies judge addresses; here they are asked the right ones. A sender over UDP or raw IP wrote
its own address and proves nothing; a UNIX peer is told by the kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from twistedsock.addresses import USER, is_loopback, unmap
from twistedsock.policy.guard import (
    DatagramGuard,
    Drop,
    NameGuard,
    ServedPorts,
    headers_bytes,
    is_unicast,
)
from twistedsock.policy.limits import source_key
from twistedsock.protocols.own_address import is_own_address
from twistedsock.service import Metadata

SERVED_PORTS = ServedPorts()  # of this process, whichever reactor call opened them
IP_HEADER_BYTES = {4: 20, 6: 40}  # RFC 791, RFC 8200


class Origin(NamedTuple):
    """A sender.

    Attributes:
        drop: Why its datagram is not served; None to serve it.
        muted: Why it is served, and never answered; None to answer it.
        host: Its numeric address, for the access list; empty where it has none.
        source: What it is counted under.
        is_exempt: Whether the limit per source binds it only where that was written down.
        overhead: Bytes that headers add to each datagram.
        is_known: Whether its address cannot be forged.
    """

    drop: Drop | None
    muted: Drop | None
    host: str
    source: str
    is_exempt: bool
    overhead: int
    is_known: bool = False


class Origins(Protocol):
    """What a listener's kind knows of senders."""

    def open(self) -> None:
        """The listener is open."""

    def close(self) -> None:
        """The listener is closed."""

    def judge(self, host: str, port: int, metadata: Metadata) -> Origin:
        """Return what is known of who sent a datagram."""


class UdpOrigins:
    """Senders over UDP.

    Args:
        port: The local port.
        any_source_port: Lifts the guard's rules on source ports.
        groups: The multicast groups that the listener has joined.
    """

    def __init__(
        self, port: int, *, any_source_port: bool, groups: Collection[str] = frozenset()
    ) -> None:
        self._port, self._groups = port, groups
        self._guard = DatagramGuard(
            port,
            any_source_port=any_source_port,
            served=SERVED_PORTS,
            is_own_address=is_own_address,
        )

    def open(self) -> None:
        """Note that the port is served."""
        SERVED_PORTS.add(self._port)

    def close(self) -> None:
        """Note that it is served no more."""
        SERVED_PORTS.remove(self._port)

    def judge(self, host: str, port: int, metadata: Metadata) -> Origin:
        """Return what is known of who sent a datagram."""
        host = unmap(host)
        drop = self._guard.judge(host, port)
        if drop is None:
            drop = _not_for_one(metadata, self._groups)
        return Origin(drop, None, host, source_key(host), is_loopback(host), headers_bytes(host))


class UnixOrigins:
    """Senders over a UNIX socket; *name* is the listener's own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._guard = NameGuard(SERVED_PORTS)

    def open(self) -> None:
        """Note that the name is served."""
        SERVED_PORTS.add(self._name)

    def close(self) -> None:
        """Note that it is served no more."""
        SERVED_PORTS.remove(self._name)

    def judge(self, host: str, port: int, metadata: Metadata) -> Origin:
        """Return what is known of who sent a datagram."""
        credentials = metadata.credentials
        source = f"{USER}{credentials.uid if credentials is not None else ''}"
        drop = self._guard.judge(host, port)
        return Origin(drop, None, "", source, True, 0, is_known=credentials is not None)


class RawOrigins:
    """Senders over raw IP. There are no ports to tell a client from another service.

    So what this machine itself sends is never answered: the answer would come in by the same
    listener, and be answered.
    """

    def open(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def judge(self, host: str, port: int, metadata: Metadata) -> Origin:
        """Return what is known of who sent a packet."""
        host = unmap(host)
        muted = _not_for_one(metadata, frozenset())
        if muted is None and not is_unicast(host):
            muted = Drop.NOT_UNICAST
        if muted is None and is_own_address(host):
            muted = Drop.OWN_SERVICE
        overhead = IP_HEADER_BYTES[6 if ":" in host else 4]
        return Origin(None, muted, host, source_key(host), is_loopback(host), overhead)


class PacketOrigins:
    """Senders on the link: whoever is there. This machine's own frames are never answered."""

    def open(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def judge(self, host: str, port: int, metadata: Metadata) -> Origin:
        """Return what is known of who sent a frame."""
        muted = Drop.OWN_SERVICE if metadata.outgoing else None
        return Origin(None, muted, "", f"link {host}", True, 0)


def _not_for_one(metadata: Metadata, groups: Collection[str]) -> Drop | None:
    """Return why a datagram was for more than one host; None where it was not."""
    if metadata.broadcast:
        return Drop.BROADCAST
    destination = metadata.destination
    if destination is None or destination in groups or is_unicast(destination):
        return None
    return Drop.MULTICAST
