"""``icmp-monitor``: logs the ICMP messages that arrive, and answers none.

For ``listen = ["raw:icmp", "raw:icmpv6"]``. Every message is one structured event, so it is limited
like everything that a peer can cause: to so many events a second, with the number left out.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar

from twistedsock.service import Session
from twistedsock.services.monitor import MAX_TEXT_BYTES, Monitor
from twistedsock.units import quote_bytes

# RFC 792, 950, 1256, 1393, 8335; https://www.iana.org/assignments/icmp-parameters
TYPES: dict[int, str] = {
    0: "echo reply",
    3: "destination unreachable",
    4: "source quench",
    5: "redirect",
    8: "echo request",
    9: "router advertisement",
    10: "router solicitation",
    11: "time exceeded",
    12: "parameter problem",
    13: "timestamp request",
    14: "timestamp reply",
    42: "extended echo request",
    43: "extended echo reply",
}
# RFC 4443, 2710, 4861, 3810; https://www.iana.org/assignments/icmpv6-parameters
TYPES_6: dict[int, str] = {
    1: "destination unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    130: "multicast listener query",
    131: "multicast listener report",
    132: "multicast listener done",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    137: "redirect",
    143: "multicast listener report v2",
    160: "extended echo request",
    161: "extended echo reply",
}
ECHOES = frozenset({"echo request", "echo reply"})
# Messages that quote the packet they are about, after eight bytes (RFC 792, RFC 4443).
QUOTING = frozenset(
    {
        "destination unreachable",
        "source quench",
        "redirect",
        "time exceeded",
        "parameter problem",
        "packet too big",
    }
)
FRAGMENTATION_NEEDED = (3, 4)  # type and code (RFC 1191 section 4)
HEADER_BYTES = 8  # type, code, checksum, and four bytes by type (RFC 792, RFC 4443 section 2.1)


class IcmpMonitor(Monitor):
    """Logs the ICMP and ICMPv6 messages that arrive, and answers none."""

    protocols: ClassVar[dict[str, int]] = {"icmp": 1, "icmpv6": 58}

    def describe(self, session: Session, message: bytes) -> dict[str, Any]:
        """Return type and code, identifier and sequence of an echo, and what is quoted."""
        if len(message) < HEADER_BYTES:
            return {"fault": f"cut off: {quote_bytes(message, MAX_TEXT_BYTES)}"}
        kind, code = message[0], message[1]
        is_v6 = ":" in session.five_tuple.peer_host
        name = (TYPES_6 if is_v6 else TYPES).get(kind, "unknown")
        told: dict[str, Any] = {"type": kind, "code": code, "name": name}
        if name in ECHOES:
            told["identifier"] = int.from_bytes(message[4:6], "big")
            told["sequence"] = int.from_bytes(message[6:8], "big")
        if is_v6 and name == "redirect":
            return told  # it quotes in an option (RFC 4861 section 4.5)
        if name == "packet too big":
            told["mtu"] = int.from_bytes(message[4:8], "big")
        elif not is_v6 and (kind, code) == FRAGMENTATION_NEEDED:
            told["mtu"] = int.from_bytes(message[6:8], "big")
        if name in QUOTING:
            told.update(_quoted_6(message[8:]) if is_v6 else _quoted(message[8:]))
        return told


def _quoted(packet: bytes) -> dict[str, Any]:
    """Return who sent what to whom, of an IPv4 header (RFC 791 section 3.1)."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return {}
    return {
        "quoted_protocol": packet[9],
        "quoted_source": socket.inet_ntoa(packet[12:16]),
        "quoted_destination": socket.inet_ntoa(packet[16:20]),
    }


def _quoted_6(packet: bytes) -> dict[str, Any]:
    """Return the same of an IPv6 header (RFC 8200 section 3); what extends it is not followed."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return {}
    return {
        "quoted_protocol": packet[6],
        "quoted_source": socket.inet_ntop(socket.AF_INET6, packet[8:24]),
        "quoted_destination": socket.inet_ntop(socket.AF_INET6, packet[24:40]),
    }
