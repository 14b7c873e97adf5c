"""IPv4 headers (RFC 791 section 3.1). Know bytes; never a socket."""

from __future__ import annotations

IPV4_HEADER_BYTES = 20  # without options


def header_bytes(packet: bytes) -> int:
    """Return the length of the IPv4 header at the front of *packet*; 0 where there is none."""
    length = (packet[0] & 0x0F) * 4 if packet else 0
    # The kernel has checked it, so anything else is none of its packets.
    return length if IPV4_HEADER_BYTES <= length <= len(packet) else 0
