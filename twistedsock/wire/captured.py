"""A packet as a capture has it, whether it came from an interface or from a file.

Knows no format; those of files are in ``pcap`` and ``pcapng``.
"""

from __future__ import annotations

from dataclasses import dataclass

# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcaplinktype: the link types that are captured
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101  # an IPv4 or IPv6 packet, with nothing before it
LINKTYPE_IPV4, LINKTYPE_IPV6 = 228, 229  # likewise, of one version

DEFAULT_SNAP_BYTES = 262_144  # of a packet that are kept: as tcpdump, more than any packet has


@dataclass(frozen=True, slots=True)
class Captured:
    """One packet.

    Attributes:
        received_at_ns: When, in nanoseconds since 1970 UTC; None where a file does not tell.
        data: What was kept of it, from its link-layer header on.
        original_bytes: How long it was; more than ``data`` has where it was cut.
        link_type: What ``data`` begins with: a LINKTYPE number.
        interface: The name of the interface; empty where a file does not tell.
        outgoing: Whether this machine sent it; None where that is not known, or says nothing, as
            on the loopback.
        checksums_known: False where it was caught before its checksums were filled in, as what
            this machine itself sends is: wrong ones mean nothing then.
    """

    received_at_ns: int | None
    data: bytes
    original_bytes: int
    link_type: int = LINKTYPE_ETHERNET
    interface: str = ""
    outgoing: bool | None = None
    checksums_known: bool = True
