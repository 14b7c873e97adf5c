"""Options as IPv4 and TCP headers have them: a number, a length and data (RFC 791, RFC 9293).

    +--------+--------+-------- ... --+      +--------+          +--------+
    | number | length | data          |      |   1    | nothing  |   0    | the end
    +--------+--------+-------- ... --+      +--------+          +--------+

Knows bytes; never what an option means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from twistedsock.errors import PacketError

MAX_OPTION_BYTES = 40  # a header has 15 words at most, and 5 of them are fixed
END_OF_OPTIONS, NO_OPERATION = 0, 1


class AnOption(Protocol):
    """What is written: a number, and what follows the length."""

    @property
    def kind(self) -> int:
        """Its number."""

    @property
    def data(self) -> bytes:
        """What follows its length; nothing of ``NO_OPERATION``, which has none."""


OptionT = TypeVar("OptionT")


def parse_options(
    protocol: str, make: Callable[[int, bytes], OptionT], data: bytes, announced: int
) -> tuple[tuple[OptionT, ...], int]:
    """Return the options at the front of *data* that are whole, and how many bytes they take.

    Args:
        protocol: Whose they are, for errors.
        make: Makes an option of its number and data.
        data: What is there of the options.
        announced: How many bytes of options the header says there are.

    Raises:
        PacketError: An option's length goes beyond what is announced, or below its own 2 bytes.
    """
    found, position = [], 0
    while position < len(data) and (kind := data[position]) != END_OF_OPTIONS:
        if kind == NO_OPERATION:
            found.append(make(kind, b""))
            position += 1
            continue
        left = announced - position
        if left >= 2 and len(data) - position < 2:
            break  # cut off before its length
        length = data[position + 1] if left >= 2 else 0
        if not 2 <= length <= left:
            text = f"option {kind} has a length of {length}; {left} bytes are left"
            raise PacketError(protocol, text)
        if position + length > len(data):
            break
        found.append(make(kind, data[position + 2 : position + length]))
        position += length
    return tuple(found), position


def options_to_bytes(protocol: str, options: Sequence[AnOption], *, pad: bool = True) -> bytes:
    """Return the options, padded to a multiple of 4 bytes where asked for.

    Raises:
        PacketError: One cannot be an option, or they take more than ``MAX_OPTION_BYTES``.
    """
    parts = []
    for option in options:
        if option.kind == NO_OPERATION and not option.data:
            parts.append(b"\1")
        elif not 2 <= option.kind <= 255 or len(option.data) > MAX_OPTION_BYTES - 2:
            raise PacketError(protocol, f"this cannot be an option: {option}")
        else:
            parts.append(bytes([option.kind, len(option.data) + 2]) + option.data)
    data = b"".join(parts)
    if len(data) > MAX_OPTION_BYTES:
        text = f"at most {MAX_OPTION_BYTES} bytes of options, got {len(data)}"
        raise PacketError(protocol, text)
    return data + bytes(-len(data) % 4 if pad else 0)
