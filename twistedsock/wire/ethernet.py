"""Ethernet frames: Ethernet II (RFC 894), IEEE 802.3, and the tags of VLANs (IEEE 802.1Q).

    +-------------+--------+- - - - - - - - - - -+-------------+- - - - -+
    | Destination | Source | 0x8100 | TCI, 2 byte | Type/Length | Payload |
    |   6 bytes   |   6    | or 0x88a8, any times |   2 bytes   |         |
    +-------------+--------+- - - - - - - - - - -+-------------+- - - - -+

    TCI: priority, 3 bits; drop eligible, 1 bit; VLAN, 12 bits

Preamble and frame check sequence are never captured. Know bytes; never an interface.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from twistedsock.errors import PacketError
from twistedsock.wire.fields import octets, printable, require_bits
from twistedsock.wire.numbers import ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN

NAME = "ethernet"
HEADER_BYTES = 14  # without tags
MAX_LENGTH = 1500  # IEEE 802.3 section 3.2.6: up to it the field is a length, above it a type
MAX_TAGS = 8  # a frame may not make us walk through a stack without end
BROADCAST = "ff:ff:ff:ff:ff:ff"
_HEADER = struct.Struct("!6s6sH")
_TAG = struct.Struct("!HH")
_TAG_TYPES = (ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN)


@dataclass(frozen=True, slots=True)
class VlanTag:
    """One tag.

    Attributes:
        vlan: 0 to 4095; 0 means that the tag carries a priority alone.
        priority: 0 to 7.
        drop_eligible: Whether it may be dropped first.
        tag_type: ``ETHERTYPE_VLAN`` or ``ETHERTYPE_SERVICE_VLAN``.
    """

    vlan: int
    priority: int = 0
    drop_eligible: bool = False
    tag_type: int = ETHERTYPE_VLAN


@dataclass(frozen=True, slots=True)
class Ethernet:
    """One frame, or the beginning of one.

    Attributes:
        destination: Such as ``02:00:00:00:00:01``, in small letters.
        source: Likewise.
        ethertype: Of the payload, such as 0x0800, 1501 to 65535; None for a frame of IEEE 802.3,
            which has its length there and a header of LLC at the front of the payload.
        payload: What follows; of Ethernet II with the padding, which it cannot tell apart.
        tags: The outermost first.
        missing_bytes: Payload that an IEEE 802.3 frame announces and that was not captured.
    """

    destination: str
    source: str
    ethertype: int | None
    payload: bytes = b""
    tags: tuple[VlanTag, ...] = ()
    missing_bytes: int = 0

    def to_bytes(self) -> bytes:
        """Return the frame, neither padded to 60 bytes nor with a frame check sequence.

        Raises:
            PacketError: A field does not fit.
        """
        if len(self.tags) > MAX_TAGS:
            raise PacketError(NAME, f"at most {MAX_TAGS} tags, got {len(self.tags)}")
        addresses = b"".join(_link_bytes(self, name) for name in ("destination", "source"))
        tags = b"".join(map(_tag_bytes, self.tags))
        return b"%b%b%b%b" % (addresses, tags, self._last_field(), self.payload)

    def describe(self) -> str:
        """Return such as ``Ethernet 02:..:01 > 02:..:02 type 0x88cc length 46``."""
        tags = "".join(f"vlan {tag.vlan} " for tag in self.tags)
        kind = "802.3" if self.ethertype is None else f"type 0x{self.ethertype:04x}"
        length = len(self.payload) + self.missing_bytes
        return printable(
            f"{tags}Ethernet {self.source} > {self.destination} {kind} length {length}"
        )

    def _last_field(self) -> bytes:
        number = self.ethertype
        if number is None:
            number = len(self.payload) + self.missing_bytes
            if not (number <= MAX_LENGTH and self.missing_bytes >= 0):
                raise PacketError(NAME, f"802.3 carries at most {MAX_LENGTH} bytes, got {number}")
        elif not MAX_LENGTH < number <= 0xFFFF or number in _TAG_TYPES:
            text = f"ethertype must be {MAX_LENGTH + 1}..65535 and no tag's, got {number}"
            raise PacketError(NAME, text)
        elif self.missing_bytes:
            raise PacketError(NAME, "only 802.3 announces a length, so nothing can be missing")
        return number.to_bytes(2, "big")


def parse(data: bytes) -> Ethernet:
    """Return the frame that *data* is.

    The payload of IEEE 802.3 ends where its length says, without the padding.

    Raises:
        PacketError: The header or a tag is not whole, or there are more than ``MAX_TAGS``.
    """
    if len(data) < HEADER_BYTES:
        raise PacketError(NAME, f"a header has {HEADER_BYTES} bytes, got {len(data)}")
    destination, source, kind = _HEADER.unpack_from(data)
    position = HEADER_BYTES
    tags: tuple[VlanTag, ...] = ()
    if kind in _TAG_TYPES:
        tags, kind, position = _parse_tags(data, kind)
    is_length = kind <= MAX_LENGTH
    end = position + kind if is_length else len(data)
    return Ethernet(
        destination.hex(":"),
        source.hex(":"),
        None if is_length else kind,
        bytes(data[position:end]),
        tags,
        max(end - len(data), 0),
    )


def _parse_tags(data: bytes, kind: int) -> tuple[tuple[VlanTag, ...], int, int]:
    tags: list[VlanTag] = []
    position = HEADER_BYTES
    while kind in _TAG_TYPES:
        if len(tags) == MAX_TAGS:
            raise PacketError(NAME, f"at most {MAX_TAGS} tags are read, there are more")
        if len(data) < position + _TAG.size:
            text = f"a tag has {_TAG.size} bytes, {len(data) - position} are left"
            raise PacketError(NAME, text)
        word, following = _TAG.unpack_from(data, position)
        tags.append(VlanTag(word & 0xFFF, word >> 13, bool(word & 0x1000), kind))
        kind, position = following, position + _TAG.size
    return tuple(tags), kind, position


def _tag_bytes(tag: VlanTag) -> bytes:
    require_bits(NAME, tag, {"vlan": 12, "priority": 3})
    if tag.tag_type not in _TAG_TYPES:
        raise PacketError(NAME, f"tag_type must be 0x8100 or 0x88a8, got 0x{tag.tag_type:x}")
    return _TAG.pack(tag.tag_type, tag.priority << 13 | tag.drop_eligible << 12 | tag.vlan)


def _link_bytes(frame: Ethernet, name: str) -> bytes:
    packed = octets(NAME, name, text := getattr(frame, name))
    if len(packed) != 6:
        raise PacketError(NAME, f"{name} must have 6 bytes, got {text!r}")
    return packed
