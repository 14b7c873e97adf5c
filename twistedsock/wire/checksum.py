"""The Internet checksum (RFC 1071), and what IPv4 and IPv6 put before what it is made of.

Knows bytes; never a packet's fields.
"""

from __future__ import annotations

from twistedsock.errors import PacketError
from twistedsock.wire.fields import ip_bytes

NAME = "checksum"


def checksum(data: bytes) -> int:
    """Return the checksum of *data*, in which the checksum's own place holds zero (RFC 1071).

    An odd last byte is the high half of a word.
    """
    return ~ones_sum(data) & 0xFFFF


def is_intact(data: bytes) -> bool:
    """Return whether *data*, which has its checksum in its place, is as it was sent."""
    return ones_sum(data) == 0xFFFF


def ones_sum(data: bytes) -> int:
    """Return the one's complement sum of the 16-bit words of *data*: 0 only of zeros.

    2**16 is 1 modulo 65535, so that the sum of the words is the one big number's remainder; as
    fast as Python can (a loop over the words takes ten times as long).
    """
    number = int.from_bytes(data, "big")
    if len(data) % 2:
        number <<= 8
    return (number % 0xFFFF or 0xFFFF) if number else 0


def updated(old_checksum: int, old_word: int, new_word: int) -> int:
    """Return the checksum after one 16-bit word has changed (RFC 1624 section 3, equation 3)."""
    total = (~old_checksum & 0xFFFF) + (~old_word & 0xFFFF) + new_word
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return what the checksums of UDP, TCP and ICMPv6 count before the packet itself.

    IPv4 (RFC 768, RFC 9293 section 3.1): source, destination, zero, protocol, length in 16 bits.
    IPv6 (RFC 8200 section 8.1): source, destination, length in 32 bits, three zeros, protocol.

    Args:
        source: A numeric address; with a zone, such as ``fe80::1%eth0``, the zone is left out.
        destination: Of the same version.
        protocol: The number of the upper protocol, such as 17.
        length: Of the upper protocol's header and payload, in bytes.

    Raises:
        PacketError: The addresses are none, or of two versions, or the length does not fit.
    """
    try:
        first, second = ip_bytes(source), ip_bytes(destination)
        if len(first) != len(second):
            raise PacketError(NAME, f"two versions of IP: from {source} to {destination}")
        if len(first) == 4:
            return b"%b%b\0%c%b" % (first, second, protocol, length.to_bytes(2, "big"))
        return b"%b%b%b\0\0\0%c" % (first, second, length.to_bytes(4, "big"), protocol)
    except OverflowError:
        text = f"a pseudo-header has no place for protocol {protocol}, length {length}"
        raise PacketError(NAME, text) from None
    except PacketError:
        raise
    except ValueError:
        text = f"two numeric addresses were expected, got {source!r} and {destination!r}"
        raise PacketError(NAME, text) from None
