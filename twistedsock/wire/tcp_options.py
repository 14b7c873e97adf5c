"""The options of TCP segments (RFC 9293 section 3.2).

Each is a number, a length and data; what those mean is read on demand, so that odd ones are kept
as they came. Know bytes; never a connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from twistedsock.errors import PacketError
from twistedsock.wire.header_options import NO_OPERATION

NAME = "tcp"  # whose options they are

# https://www.iana.org/assignments/tcp-parameters
MAXIMUM_SEGMENT_SIZE = 2
WINDOW_SCALE = 3  # RFC 7323
SACK_PERMITTED, SACK = 4, 5  # RFC 2018
TIMESTAMPS = 8  # RFC 7323
MD5_SIGNATURE = 19  # RFC 2385
FAST_OPEN_COOKIE = 34  # RFC 7413
MAX_DESCRIPTION = 90  # characters; longer lists end in dots


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its number, and what follows its length byte.

    ``NO_OPERATION`` has no length and no data; the end of options is none of the values.
    """

    kind: int
    data: bytes = b""

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """What the data says; None where the option has no numbers or a wrong length.

        Of the segment size and the window's shift one number, of timestamps the sender's and the
        echoed one, of SACK the left and right edge of each block in turn.
        """
        form = _FORMS.get(self.kind)
        if self.kind == SACK and self.data and len(self.data) % 8 == 0:
            form = f"!{len(self.data) // 4}I"
        if form is None or struct.calcsize(form) != len(self.data):
            return None
        return struct.unpack(form, self.data)

    def describe(self) -> str:
        """Return such as ``mss 1460``, or ``option 253 of 4 bytes``."""
        numbers = self.numbers
        if numbers is not None:
            return _WORDS[self.kind](numbers)
        if self.kind == FAST_OPEN_COOKIE:
            return f"tfo cookie {self.data.hex() or 'asked for'}"
        if self.kind == SACK_PERMITTED and not self.data:
            return "sackOK"
        if self.kind == MD5_SIGNATURE and len(self.data) == 16:
            return "md5"
        return f"option {self.kind} of {len(self.data)} bytes"


_FORMS = {MAXIMUM_SEGMENT_SIZE: "!H", WINDOW_SCALE: "!B", TIMESTAMPS: "!II"}
_WORDS: dict[int, Callable[[tuple[int, ...]], str]] = {
    MAXIMUM_SEGMENT_SIZE: "mss {0[0]}".format,
    WINDOW_SCALE: "wscale {0[0]}".format,
    TIMESTAMPS: "TS val {0[0]} ecr {0[1]}".format,
    SACK: lambda edges: (
        "sack " + " ".join(f"{a}:{b}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    ),
}


def maximum_segment_size(size_bytes: int) -> Option:
    """Return the option, for segments of a SYN, with 0 to 65535 bytes.

    Raises:
        PacketError: The size does not fit.
    """
    return _packed(MAXIMUM_SEGMENT_SIZE, "!H", size_bytes)


def window_scale(shift: int) -> Option:
    """Return the option; receivers take a shift above 14 for 14 (RFC 7323 section 2.3).

    Raises:
        PacketError: The shift does not fit.
    """
    return _packed(WINDOW_SCALE, "!B", shift)


def timestamps(value: int, echo: int) -> Option:
    """Return the option, with the sender's clock and the one that is echoed, 32 bits each.

    Raises:
        PacketError: One does not fit.
    """
    return _packed(TIMESTAMPS, "!II", value, echo)


def sack(*blocks: tuple[int, int]) -> Option:
    """Return the option with one to four blocks, each its left and its right edge.

    Raises:
        PacketError: An edge or the number of blocks does not fit.
    """
    if not 1 <= len(blocks) <= 4:
        raise PacketError(NAME, f"SACK has 1..4 blocks, got {len(blocks)}")
    return _packed(SACK, f"!{2 * len(blocks)}I", *(edge for block in blocks for edge in block))


def _packed(kind: int, form: str, *numbers: int) -> Option:
    try:
        return Option(kind, struct.pack(form, *numbers))
    except struct.error:
        raise PacketError(NAME, f"option {kind} has no place for {numbers}") from None


def describe_options(options: tuple[Option, ...]) -> str:
    """Return the options for people, without those that only pad; empty where there is none."""
    text = ", ".join([each.describe() for each in options if each.kind != NO_OPERATION])
    return text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - 3] + "..."
