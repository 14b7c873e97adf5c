"""What the control protocols share: ICMP, ICMPv6, IGMP and MLD.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     Type      |     Code      |           Checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                        the rest, by type                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Knows bytes; never what a type means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NoReturn, TypeVar

from twistedsock.errors import PacketError
from twistedsock.wire.checksum import checksum, is_intact, pseudo_header
from twistedsock.wire.fields import address_bytes, require_bits
from twistedsock.wire.numbers import ICMPV6

HEADER_BYTES = 4  # type, code, checksum
MAX_MESSAGE_BYTES = 0xFFFF  # IPv4's limit with its header; the payload length of IPv6 has 16 bits


@dataclass(frozen=True, slots=True)
class Message:
    """What every message has.

    Attributes:
        code: Refines the type; 0 where the type knows none.
        checksum: As it was found; None for one that was made here. ``to_bytes`` makes its own.
        is_intact: Whether the checksum is right; None where that cannot be known: of one made here,
            with bytes missing, and of ICMPv6 without the addresses.
    """

    code: int = field(default=0, kw_only=True)
    checksum: int | None = field(default=None, compare=False, kw_only=True)
    is_intact: bool | None = field(default=None, compare=False, kw_only=True)

    protocol: ClassVar[str] = "control"
    """Whose it is: the name in its errors."""

    number: ClassVar[int] = -1
    """The type, of a class that has one alone."""

    widths: ClassVar[dict[str, int]] = {}
    """The bits that each number among its fields has."""

    @property
    def type(self) -> int:
        """The type."""
        return self.number

    def _rest(self) -> bytes:
        """Return what follows the checksum, of fields that were found to fit."""
        raise NotImplementedError

    def _refuse(self, text: str) -> NoReturn:
        raise PacketError(self.protocol, text)

    def _unsummed(self) -> tuple[bytes, bytes]:
        require_bits(self.protocol, self, {"type": 8, "code": 8, **self.widths})
        rest = self._rest()
        if HEADER_BYTES + len(rest) > MAX_MESSAGE_BYTES:
            text = f"at most {MAX_MESSAGE_BYTES} bytes in all, got {HEADER_BYTES + len(rest)}"
            self._refuse(text)
        return bytes((self.type, self.code)), rest


@dataclass(frozen=True, slots=True)
class PlainMessage(Message):
    """One whose checksum is of itself alone: ICMP and IGMP."""

    def to_bytes(self) -> bytes:
        """Return the message with a right checksum.

        Raises:
            PacketError: A field does not fit into its bits.
        """
        head, rest = self._unsummed()
        return b"%b%b%b" % (head, checksum(b"%b\0\0%b" % (head, rest)).to_bytes(2, "big"), rest)


@dataclass(frozen=True, slots=True)
class Ipv6Message(Message):
    """One whose checksum is of the addresses, too: ICMPv6 and MLD (RFC 4443 section 2.3)."""

    protocol: ClassVar[str] = "icmpv6"

    def to_bytes(self, source: str = "", destination: str = "") -> bytes:
        """Return the message, with a right checksum where its addresses are told.

        Without them the checksum is zero: the kernel fills it in where the message is sent on a
        raw ICMPv6 socket, and nothing else does.

        Raises:
            PacketError: A field does not fit into its bits, or an address is none of IPv6.
        """
        head, rest = self._unsummed()
        message = b"%b\0\0%b" % (head, rest)
        if not (source and destination):
            return message
        found = checksum(_pseudo_header(self.protocol, source, destination, len(message)) + message)
        return b"%b%b%b" % (head, found.to_bytes(2, "big"), rest)


MessageT = TypeVar("MessageT", bound=Message)


def rest_of(protocol: str, name: str, data: bytes, least: int) -> bytes:
    """Return what follows the checksum in *data*, which must be *least* bytes or more.

    Raises:
        PacketError: They are fewer, or there is no checksum; the text counts the whole message.
    """
    if len(data) < HEADER_BYTES + least:
        text = f"{name} has {HEADER_BYTES + least} bytes at least, got {len(data)}"
        raise PacketError(protocol, text)
    return data[HEADER_BYTES:]


def stamped(message: MessageT, data: bytes) -> MessageT:
    """Return *message*, fresh from the parser, with the code and checksum of *data*."""
    return _stamp(message, data, is_intact(data))


def stamped_6(message: MessageT, data: bytes, source: str, destination: str) -> MessageT:
    """Return the same where the checksum counts the addresses; not judged without them."""
    if not (source and destination):
        return _stamp(message, data, None)
    before = _pseudo_header(message.protocol, source, destination, len(data))
    return _stamp(message, data, is_intact(before + data))


def _stamp(message: MessageT, data: bytes, intact: bool | None) -> MessageT:
    if getattr(message, "missing_bytes", 0) != 0:
        intact = None  # the sum counts what is not there
    # It is nobody else's yet, so that it may be completed; dataclasses.replace takes 2 us more.
    object.__setattr__(message, "code", data[1])
    object.__setattr__(message, "checksum", data[2] << 8 | data[3])
    object.__setattr__(message, "is_intact", intact)
    return message


def _pseudo_header(protocol: str, source: str, destination: str, length: int) -> bytes:
    address_bytes(protocol, "source", source, 6)
    address_bytes(protocol, "destination", destination, 6)
    return pseudo_header(source, destination, ICMPV6, length)
