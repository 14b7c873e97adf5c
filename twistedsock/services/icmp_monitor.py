"""``icmp-monitor``: logs the ICMP messages that arrive, and answers none.

For ``listen = ["raw:icmp", "raw:icmpv6"]``. Every message is one structured event, so it is limited
like everything that a peer can cause: to so many events a second, with the number left out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twistedsock.errors import PacketError
from twistedsock.service import Session
from twistedsock.services.monitor import MAX_TEXT_BYTES, Monitor
from twistedsock.units import quote_bytes
from twistedsock.wire import icmp, icmpv6
from twistedsock.wire.icmp_names import TYPES, TYPES_6
from twistedsock.wire.quotation import Quoting

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
        try:
            value = icmpv6.parse(message) if is_v6 else icmp.parse(message)
        except PacketError:
            return told  # it is too short for its type, or contradicts itself
        match value:
            case icmp.Echo() | icmpv6.Echo():
                told["identifier"] = value.identifier
                told["sequence"] = value.sequence
            case icmp.Unreachable(code=icmp.FRAGMENTATION_NEEDED):
                told["mtu"] = value.next_hop_mtu
            case icmpv6.PacketTooBig():
                told["mtu"] = value.mtu
        # A redirect of IPv6 quotes in an option (RFC 4861 section 4.5), and is told without.
        if isinstance(value, Quoting) and (packet := value.quoted_packet()):
            told["quoted_protocol"] = packet.protocol
            told["quoted_source"] = packet.source
            told["quoted_destination"] = packet.destination
        return told
