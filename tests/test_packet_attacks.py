"""What no codec may let through, whichever it is: values of the wrong type, and costly packets."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
import time
from typing import Any

import pytest
from networks import ip6

from twistedsock.errors import PacketError
from twistedsock.wire import cooked, dissection, icmp, icmpv6, igmp, ipv4, ipv6, udp

SHORT_S = 0.5  # ten times what the slowest packet of 64 KiB takes on a small machine
FOUR = ipv4.IPv4("192.0.2.1", "192.0.2.2", protocol=17)
SIX = ipv6.IPv6("2001:db8::1", "2001:db8::2", next_header=17)
ADDRESS = ipaddress.ip_address("192.0.2.1")
WRONG: list[tuple[Any, str, object, str]] = [
    (FOUR, "ttl_hops", 1.5, "ttl_hops must be 0..255, got 1.5"),
    (FOUR, "identification", "7", "identification must be 0..65535, got '7'"),
    (FOUR, "source", ADDRESS, "source must be an IPv4 address, got IPv4Address('192.0.2.1')"),
    (FOUR, "destination", None, "destination must be an IPv4 address, got None"),
    (SIX, "hop_limit", None, "hop_limit must be 0..255, got None"),
    (SIX, "source", b"::1", "source must be an IPv6 address, got b'::1'"),
    (udp.UDP(1, 2), "source_port", 80.0, "source_port must be 0..65535, got 80.0"),
    (icmp.Echo(1, 2), "identifier", b"\0\7", "identifier must be 0..65535, got b'\\x00\\x07'"),
    (icmpv6.PacketTooBig(1280), "mtu", 1280.0, "mtu must be 0..4294967295, got 1280.0"),
    (igmp.Report2("224.0.0.9"), "group", 9, "group must be an IPv4 address, got 9"),
    (cooked.Cooked(0x0800), "address", None, "address must be bytes like aa:bb:cc, got None"),
]


@pytest.mark.parametrize(("value", "field", "wrong", "said"), WRONG)
def test_a_value_of_the_wrong_type_is_told_by_its_field(
    value: Any, field: str, wrong: object, said: str
) -> None:
    """Numbers, addresses and bytes that are none are a PacketError, never one of struct's."""
    with pytest.raises(PacketError) as caught:
        dataclasses.replace(value, **{field: wrong}).to_bytes()
    assert caught.value.text == said


def _in_frame(packet: bytes) -> bytes:
    return bytes(12) + b"\x86\xdd" + packet


def _chain(options: bytes) -> bytes:
    """Return a chain of the most and longest extension headers, each full of *options*."""
    return b"".join(bytes([60 if left else 59, 255]) + options for left in reversed(range(31)))


COSTLY = {
    "padding of one byte": ip6("::1", "::2", 60, _chain(bytes(2046))),
    "options without data": ip6("::1", "::2", 60, _chain(b"\5\0" * 1023)),
    "a quoted chain": ip6("::1", "::2", 58, b"\1\1" + bytes(6) + _chain(bytes(2046))),
    "options of neighbours": ip6(
        "::1", "::2", 58, struct.pack("!BBHI16x", 135, 0, 0, 0) + b"\x0e\1abcdef" * 8000
    ),
}


@pytest.mark.parametrize("packet", COSTLY.values(), ids=COSTLY)
def test_no_packet_takes_long(packet: bytes) -> None:
    """64 KiB of the smallest parts are taken apart and described while nobody notices."""
    began_at = time.process_time()
    line = dissection.describe(dissection.dissect(_in_frame(packet)))
    assert time.process_time() - began_at < SHORT_S
    assert line.isascii()
    assert line.isprintable()
