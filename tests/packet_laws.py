"""What every packet codec is held to, whatever bytes come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from twistedsock.errors import PacketError

MAX_DESCRIPTION = 120
quick = settings(max_examples=300, deadline=None)
# a hundred thousand packets: 20 an example, since an example costs more than what it tests
BATCH = 20
thorough = settings(max_examples=100_000 // BATCH, deadline=None)


def is_plain(text: str) -> bool:
    """Return whether *text* is one line of printable ASCII."""
    return text.isascii() and text.isprintable()


def keeps_the_laws(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Return what *parse* makes of *data*: a value that survives a round trip, or a PacketError.

    Whatever else it raises fails the test. A value may be one that cannot be written, but no
    other exception may say so.
    """
    try:
        value = parse(data)
    except PacketError as error:
        return error
    assert dataclasses.is_dataclass(value)
    assert parse(memoryview(bytearray(data))) == value
    text = value.describe()
    assert is_plain(text), text
    assert len(text) <= MAX_DESCRIPTION, text
    assert parse(value.to_bytes()) == value
    return value


def anything(*whole: bytes, front: bytes = b"", max_size: int = 96) -> st.SearchStrategy[bytes]:
    """Return random bytes, and packets that are nearly one of *whole*.

    All is made of one draw of bytes, which takes a tenth of the time of several.

    Args:
        whole: Valid packets.
        front: What a part of the random bytes begins with, such as a version.
        max_size: Of the random bytes.
    """

    def made_of(data: bytes) -> bytes:
        if len(data) < 3 or data[0] % 3 == 0:
            return data
        kind, which, rest = data[0], data[1], data[2:]
        if kind % 3 == 1:
            return front + rest
        packet = bytearray(whole[which % len(whole)])
        end = rest[0] % (len(packet) + 1) if kind & 0x80 else len(packet)
        for place, value in zip(rest[1:9:2], rest[2:9:2], strict=False):
            packet[place % min(len(packet), 64)] = value  # the headers are where it matters
        return bytes(packet[:end]) + rest[9 : 9 + (kind >> 4 & 3)]

    return st.binary(max_size=max_size).map(made_of)


def many(packets: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Return batches of *packets*, for ``thorough``."""
    return st.lists(packets, min_size=BATCH, max_size=BATCH)
