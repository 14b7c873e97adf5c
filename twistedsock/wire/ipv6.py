"""IPv6 packets (RFC 8200 section 3).

    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |Version|    DSCP   |ECN|              Flow Label               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |         Payload Length        |  Next Header  |   Hop Limit   |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                   Source Address, 16 bytes                    |
    |                 Destination Address, 16 bytes                 |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                   Extension Headers . . .                     |

Know bytes; never a socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from twistedsock.errors import PacketError
from twistedsock.wire.fields import address_bytes, ipv6_text, printable, require_bits
from twistedsock.wire.ipv6_extensions import (
    EXTENSION_NAMES,
    HOP_BY_HOP,
    Extension,
    Fragment,
    chain_bytes,
    jumbo_bytes,
    parse_chain,
)
from twistedsock.wire.numbers import protocol_name

NAME = "ipv6"
IPV6_HEADER_BYTES = 40
MAX_PAYLOAD_BYTES = 0xFFFF  # extension headers included; more only as a jumbogram
_HEADER = struct.Struct("!IHBB16s16s")
_WIDTHS = {"next_header": 8, "hop_limit": 8, "dscp": 6, "ecn": 2, "flow_label": 20}


@dataclass(frozen=True, slots=True)
class IPv6:
    """One packet, or the beginning of one.

    Attributes:
        source: Such as ``2001:db8::1``, as ``ipaddress`` prints it.
        destination: Likewise.
        next_header: The number of what is in the payload, such as 17 for UDP; behind a fragment
            that is not the first, of what the whole packet has; of an extension header only
            where that was cut off.
        payload: What follows the extension headers that are whole.
        hop_limit: Routers that it may still pass, 0 to 255.
        dscp: 0 to 63 (RFC 2474).
        ecn: 0 to 3 (RFC 3168).
        flow_label: 20 bits (RFC 6437).
        extensions: In their order.
        missing_bytes: What the header announces and that was not captured or quoted.
    """

    source: str
    destination: str
    next_header: int
    payload: bytes = b""
    hop_limit: int = 64
    dscp: int = 0
    ecn: int = 0
    flow_label: int = 0
    extensions: tuple[Extension, ...] = ()
    missing_bytes: int = 0

    @property
    def protocol(self) -> int:
        """What IPv4 calls it: the same as ``next_header``."""
        return self.next_header

    @property
    def fragment(self) -> Fragment | None:
        """The header that says which part of a packet this is; None of a whole one."""
        for extension in reversed(self.extensions):
            if isinstance(extension, Fragment):
                return extension
        return None

    @property
    def fragment_offset(self) -> int:
        """Where the payload belongs, in bytes: not 0 where it does not begin with a header."""
        return found.offset if (found := self.fragment) else 0

    @property
    def more_fragments(self) -> bool:
        """Whether it is a fragment and not the last."""
        return bool((found := self.fragment) and found.more_fragments)

    @property
    def identification(self) -> int:
        """Of the packet that fragments belong to; 0 of a whole one."""
        return found.identification if (found := self.fragment) else 0

    def to_bytes(self) -> bytes:
        """Return the packet, with its length; options of extension headers are padded.

        A jumbo payload option (RFC 2675) must tell the right length.

        Raises:
            PacketError: A field does not fit, or the payload would be read as an extension header.
        """
        require_bits(NAME, self, _WIDTHS)
        chain = chain_bytes(self.extensions, self.next_header)
        if self.missing_bytes < 0:
            raise PacketError(NAME, f"missing_bytes must be 0 or more, got {self.missing_bytes}")
        behind = len(self.payload) + self.missing_bytes
        if not self.fragment_offset and parse_chain(self.payload, self.next_header, behind)[0]:
            raise PacketError(NAME, f"{EXTENSION_NAMES[self.next_header]} belongs to extensions")
        length, jumbo = len(chain) + behind, jumbo_bytes(self.extensions)
        if jumbo not in (None, length):
            raise PacketError(NAME, f"the jumbo payload option tells {jumbo} bytes, not {length}")
        if jumbo is None and length > MAX_PAYLOAD_BYTES:
            raise PacketError(NAME, f"at most {MAX_PAYLOAD_BYTES} bytes of payload, got {length}")
        first = self.extensions[0].number if self.extensions else self.next_header
        header = _HEADER.pack(
            6 << 28 | self.dscp << 22 | self.ecn << 20 | self.flow_label,
            0 if jumbo else length,
            first,
            self.hop_limit,
            address_bytes(NAME, "source", self.source, 6),
            address_bytes(NAME, "destination", self.destination, 6),
        )
        return b"%b%b%b" % (header, chain, self.payload)

    def describe(self) -> str:
        """Return such as ``IP6 ::1 > ::1 UDP length 33``."""
        name, length = protocol_name(self.next_header), len(self.payload) + self.missing_bytes
        return printable(f"IP6 {self.source} > {self.destination} {name} length {length}")


def parse(data: bytes) -> IPv6:
    """Return the packet at the beginning of *data*.

    What follows it, such as padding of the link, is left out. A payload that was cut off is what
    is there, with the rest as ``missing_bytes``; an extension header that was cut off is payload.

    Raises:
        PacketError: There is no whole header, or the headers contradict each other.
    """
    if len(data) < IPV6_HEADER_BYTES:
        raise PacketError(NAME, f"a header has {IPV6_HEADER_BYTES} bytes, got {len(data)}")
    word, length, following, hop_limit, source, destination = _HEADER.unpack_from(data)
    if word >> 28 != 6:
        raise PacketError(NAME, f"version 6 was expected, got {word >> 28}")
    rest = bytes(data[IPV6_HEADER_BYTES:])
    is_jumbo = not length and following == HOP_BY_HOP
    if is_jumbo:
        length = _jumbo_length(rest)
    rest, start = rest[:length], 0
    extensions: tuple[Extension, ...] = ()
    if following in EXTENSION_NAMES:
        extensions, following, start = parse_chain(rest, following, length)
        if not is_jumbo and jumbo_bytes(extensions) is not None:
            raise PacketError(NAME, "a jumbo payload option beside a payload length")
    return IPv6(
        ipv6_text(source),
        ipv6_text(destination),
        following,
        rest[start:],
        hop_limit,
        word >> 22 & 0x3F,
        word >> 20 & 3,
        word & 0xFFFFF,
        extensions,
        length - len(rest),
    )


def _jumbo_length(rest: bytes) -> int:
    """Return the length that the hop-by-hop options at the front tell, as that in front is 0."""
    size = (rest[1] + 1) * 8 if len(rest) > 1 else 0
    extensions, _, _ = parse_chain(rest[:size], HOP_BY_HOP, size)
    length = jumbo_bytes(extensions)
    if length is None:
        raise PacketError(NAME, "a payload length of 0, but hop-by-hop options")
    return length
