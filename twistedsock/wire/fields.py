"""What the fields of many headers share: ranges, addresses as text, lines for people.

Knows numbers and text; never a header's layout.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from twistedsock.errors import PacketError

ADDRESS_BYTES = {4: 4, 6: 16}  # by the version of IP
MAX_DESCRIPTION = 120  # characters; a line that people read
_OCTETS = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2})*", re.ASCII)


def require_bits(protocol: str, value: object, widths: Mapping[str, int]) -> None:
    """Do nothing where each named field of *value* fits into its number of bits.

    Raises:
        PacketError: One does not.
    """
    for name, bits in widths.items():
        number = getattr(value, name)
        if not isinstance(number, int) or not 0 <= number < 1 << bits:
            raise PacketError(protocol, f"{name} must be 0..{(1 << bits) - 1}, got {number!r}")


@lru_cache(1024)
def ip_bytes(text: str) -> bytes:
    """Return the 4 or 16 bytes of a numeric address; a zone, such as ``%eth0``, is left out.

    Raises:
        ValueError: It is none.
    """
    return ipaddress.ip_address(text.partition("%")[0]).packed


def address_bytes(protocol: str, name: str, text: str, version: int) -> bytes:
    """Return the bytes of the field *name*, an address of that version of IP.

    Raises:
        PacketError: *text* is none.
    """
    try:
        packed = ip_bytes(text) if isinstance(text, str) else b""
    except ValueError:
        packed = b""
    if len(packed) != ADDRESS_BYTES[version]:
        raise PacketError(protocol, f"{name} must be an IPv{version} address, got {text!r}")
    return packed


def ipv4_text(packed: bytes) -> str:
    """Return the text of 4 bytes, such as ``192.0.2.1``."""
    return ".".join(map(str, packed))


@lru_cache(1024)
def ipv6_text(packed: bytes) -> str:
    """Return the text of 16 bytes, such as ``2001:db8::1``."""
    return str(ipaddress.IPv6Address(packed))


def octets(protocol: str, name: str, text: str) -> bytes:
    """Return the bytes of the field *name*, written like ``aa:bb:cc``; none of an empty text.

    Raises:
        PacketError: *text* is not of that form.
    """
    if not isinstance(text, str) or (text and not _OCTETS.fullmatch(text)):
        raise PacketError(protocol, f"{name} must be bytes like aa:bb:cc, got {text!r}")
    return bytes.fromhex(text.replace(":", ""))


def printable(text: str, limit: int = MAX_DESCRIPTION) -> str:
    """Return *text* as at most *limit* characters of printable ASCII."""
    if not (text.isascii() and text.isprintable()):
        text = ascii(text)[1:-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."
