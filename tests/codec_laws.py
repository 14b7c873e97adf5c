"""The laws of every packet codec, and bytes that try them: random, cut off, lying, mutated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hypothesis import HealthCheck, note, settings

from twistedsock.errors import PacketError

MAX_LINE = 120
quick = settings(max_examples=400, deadline=None)
# 1,000 seeds of 100 messages each: drawing 100,000 one by one takes a minute, and these 5 s
long = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


def obeys(data: bytes, parse: Callable[[bytes], Any], *addresses: str) -> Any:
    """Return what *data* is, or None where it is nothing; fail where a law is broken.

    Args:
        data: Any bytes.
        parse: The codec's; any exception of it but PacketError is a failure.
        addresses: What ``to_bytes`` is told for the checksum.
    """
    try:
        value = parse(data)
    except PacketError:
        return None
    written = value.to_bytes(*addresses)
    again = parse(written)
    assert again == value
    assert again.is_intact is (None if getattr(again, "missing_bytes", 0) else True)
    told = value.describe()
    assert told.isascii()
    assert told.isprintable()
    assert 0 < len(told) <= MAX_LINE
    return value


def obey_all(
    seed: int,
    parse: Callable[[bytes], Any],
    kinds: Sequence[int],
    valid: Sequence[bytes],
    *addresses: str,
) -> None:
    """Fail where one of the 100 messages of *seed* breaks a law; a failure notes the message."""
    random = Random(seed)
    for _ in range(100):
        data = tried(random.randbytes(random.randrange(100)), kinds, valid)
        try:
            obeys(data, parse, *addresses)
        except BaseException:
            note(f"the message was {data.hex()}")
            raise


def tried(drawn: bytes, kinds: Sequence[int], valid: Sequence[bytes]) -> bytes:
    """Return a message made of *drawn*, which one draw gives: a strategy of many is too slow.

    It is *drawn* as it is; or that behind one of the *kinds*; or one of the *valid* messages, with
    up to four bytes changed and perhaps cut off.
    """
    if len(drawn) < 4 or drawn[0] % 3 == 0:
        return drawn[1:]
    if drawn[0] % 3 == 1:
        return bytes([kinds[drawn[1] % len(kinds)]]) + drawn[2:]
    message = bytearray(valid[drawn[1] % len(valid)])
    # The heads of messages, where their lengths are, are met more often than their tails.
    for place, change in zip(drawn[3:11:2], drawn[4:11:2], strict=False):
        message[place % min(len(message), 64 if place & 1 else 16)] ^= change
    return bytes(message[: drawn[2] * len(message) // 128 if drawn[2] < 128 else None])
