"""What an ICMP error quotes: the packet that it is about, and perhaps extensions (RFC 4884).

    +---------------------------------------------------------------+
    |  the packet, cut and padded to the length that the head tells |
    +-------+-----------------------+-------------------------------+
    |Vers. 2|      (reserved)       |           Checksum            |
    +-------+-----------------------+---------------+---------------+
    |           Length              |   Class-Num   |   C-Type      |  any number of objects
    +-------------------------------+---------------+---------------+
    |                         object payload                        |

Knows bytes; never which message they stand in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from twistedsock.errors import PacketError
from twistedsock.wire import ipv4, ipv6
from twistedsock.wire.checksum import checksum, is_intact
from twistedsock.wire.numbers import TCP, UDP, protocol_name

NAME = "quotation"
EXTENSIONS_AT = 128  # where senders put extensions that tell no length (RFC 4884 section 5.5)
EXTENSION_VERSION = 2
MAX_WORDS = 255  # what the length byte can tell
# https://www.iana.org/assignments/icmp-parameters, "ICMP Extension Object Classes"
MPLS_LABEL_STACK, INTERFACE_INFORMATION = 1, 2
_PORTED = frozenset({TCP, UDP, 33, 132, 136})  # whose headers begin with two ports
_OBJECT = struct.Struct("!HBB")


@dataclass(frozen=True, slots=True)
class ExtensionObject:
    """One object of an extension structure: such as a router's MPLS labels (RFC 4950)."""

    class_number: int
    class_type: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class MplsLabel:
    """One entry of a label stack (RFC 3032 section 2.1)."""

    label: int
    traffic_class: int
    is_bottom: bool
    ttl_hops: int


class Quoting:
    """A message that quotes the packet that it is about."""

    __slots__ = ()
    quoted: bytes

    def quoted_packet(self) -> ipv4.IPv4 | ipv6.IPv6 | None:
        """Return the packet that it is about; None where its header is not whole."""
        return packet(self.quoted)


def split(body: bytes, told_bytes: int) -> tuple[bytes, bytes, int]:
    """Return the packet, the extensions, and how many bytes of the packet are missing.

    Args:
        body: What follows the eight bytes at the front of an error.
        told_bytes: The length that the error tells; 0 where it tells none, as most do.
    """
    if told_bytes:
        return body[:told_bytes], body[told_bytes:], max(told_bytes - len(body), 0)
    if _hides_extensions(body):
        return body[:EXTENSIONS_AT], body[EXTENSIONS_AT:], 0
    return body, b"", 0


def join(
    protocol: str, quoted: bytes, extensions: bytes, missing_bytes: int, word_bytes: int
) -> tuple[int, bytes]:
    """Return the length for the head, in words, and the body: what ``split`` reads.

    Raises:
        PacketError: The length must be told, and the packet is not padded to words.
    """
    if extensions and missing_bytes:
        raise PacketError(protocol, "extensions cannot follow a quotation that was cut off")
    if not (extensions or missing_bytes or _hides_extensions(quoted)):
        return 0, quoted
    words, more = divmod(len(quoted) + missing_bytes, word_bytes)
    if more or not 0 < words <= MAX_WORDS or missing_bytes < 0:
        text = (
            f"a quotation whose length is told is padded to {word_bytes}.."
            f"{MAX_WORDS * word_bytes} bytes in words of {word_bytes}, got"
            f" {len(quoted) + missing_bytes}"
        )
        raise PacketError(protocol, text)
    return words, quoted + extensions


def _hides_extensions(body: bytes) -> bool:
    """Return whether *body*, of no told length, has extensions all the same (section 5.5)."""
    if len(body) < EXTENSIONS_AT + 4 or body[EXTENSIONS_AT] >> 4 != EXTENSION_VERSION:
        return False
    return any(body[EXTENSIONS_AT + 2 : EXTENSIONS_AT + 4]) and is_intact(body[EXTENSIONS_AT:])


def objects(extensions: bytes) -> tuple[ExtensionObject, ...]:
    """Return the objects of an extension structure; none where it is not intact.

    The checksum may be zero for "none made" (RFC 4884 section 7). Objects from the first that
    lies about its length on are left out.
    """
    if len(extensions) < 4 or extensions[0] >> 4 != EXTENSION_VERSION:
        return ()
    if any(extensions[2:4]) and not is_intact(extensions):
        return ()
    found, position = [], 4
    while position + _OBJECT.size <= len(extensions):
        length, number, kind = _OBJECT.unpack_from(extensions, position)
        if not _OBJECT.size <= length <= len(extensions) - position:
            break
        data = extensions[position + _OBJECT.size : position + length]
        found.append(ExtensionObject(number, kind, data))
        position += length
    return tuple(found)


def objects_to_bytes(found: tuple[ExtensionObject, ...]) -> bytes:
    """Return the extension structure of *found*, with a right checksum.

    Raises:
        PacketError: A number does not fit.
    """
    parts = [bytes([EXTENSION_VERSION << 4, 0])]
    for each in found:
        try:
            head = _OBJECT.pack(_OBJECT.size + len(each.data), each.class_number, each.class_type)
        except struct.error as cause:
            raise PacketError(NAME, f"{cause}: {each.class_number}, {each.class_type}") from None
        parts.append(head + each.data)
    head, body = parts[0], b"".join(parts[1:])
    return head + checksum(head + b"\0\0" + body).to_bytes(2, "big") + body


def mpls_labels(found: tuple[ExtensionObject, ...]) -> tuple[MplsLabel, ...]:
    """Return the label stack that is among *found*, the top first; empty where none is."""
    labels = []
    for each in found:
        if each.class_number == MPLS_LABEL_STACK and each.class_type == 1:
            whole = each.data[: len(each.data) // 4 * 4]
            for (entry,) in struct.iter_unpack("!I", whole):
                labels.append(
                    MplsLabel(entry >> 12, entry >> 9 & 7, bool(entry & 0x100), entry & 0xFF)
                )
    return tuple(labels)


def packet(quoted: bytes) -> ipv4.IPv4 | ipv6.IPv6 | None:
    """Return the packet that is quoted; None where its header is not whole."""
    try:
        if quoted[:1] and quoted[0] >> 4 == 6:
            return ipv6.parse(quoted)
        return ipv4.parse(quoted)
    except PacketError:
        return None


def tell(quoted: bytes) -> str:
    """Return who sent what to whom, such as ``UDP 127.0.0.1:5000 > 127.0.0.1:9``."""
    found = packet(quoted)
    if found is None:
        return f"{len(quoted)} bytes quoted"
    name = protocol_name(found.protocol)
    has_ports = found.protocol in _PORTED and not found.fragment_offset
    if not has_ports or len(found.payload) < 4:
        return f"{name} {found.source} > {found.destination}"
    first, second = struct.unpack_from("!HH", found.payload)
    form = "[{}]:{}" if ":" in found.source else "{}:{}"
    source, destination = form.format(found.source, first), form.format(found.destination, second)
    return f"{name} {source} > {destination}"
