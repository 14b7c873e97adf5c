"""A packet as one line: for people, or for programs as JSON."""

from __future__ import annotations

import functools
import json
import time

from twistedsock.wire.captured import LINKTYPE_ETHERNET, Captured
from twistedsock.wire.dissection import describe, dissect

_SECOND_NS = 1_000_000_000
_DIRECTIONS = {None: "", True: "out ", False: "in  "}


def line_of(packet: Captured) -> str:
    """Return *packet* for people: its local time, direction and layers, in one line."""
    layers = dissect(packet.data, packet.link_type)
    text = describe(layers, _are_checksums_known(packet))
    return f"{_local_time(packet.received_at_ns)} {_DIRECTIONS[packet.outgoing]}{text}\n"


def json_of(packet: Captured) -> str:
    """Return *packet* as one line of JSON."""
    layers = dissect(packet.data, packet.link_type)
    told = {
        "time": _universal_time(packet.received_at_ns),
        "interface": packet.interface or None,
        "direction": {None: None, True: "out", False: "in"}[packet.outgoing],
        "length": packet.original_bytes,
        "captured": len(packet.data),
        "layers": [type(layer).__name__.lower() for layer in layers if layer],
        "summary": describe(layers, _are_checksums_known(packet)),
    }
    return json.dumps(told) + "\n"


def _are_checksums_known(packet: Captured) -> bool:
    """Return whether wrong checksums in *packet* would mean something.

    Most files do not tell. On Linux' loopback, whose frames have no addresses, they never do.
    """
    is_loopback = packet.link_type == LINKTYPE_ETHERNET and not any(packet.data[:12])
    return packet.checksums_known and not is_loopback


def _local_time(at_ns: int | None) -> str:
    if at_ns is None:
        return "--:--:--.------"
    seconds, fraction_ns = divmod(at_ns, _SECOND_NS)
    return f"{_clock(seconds)}.{fraction_ns // 1000:06}"


@functools.lru_cache(maxsize=8)
def _clock(seconds: int) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # a file may tell a year that no calendar has
        return f"{seconds}s"


def _universal_time(at_ns: int | None) -> str | None:
    """Return a stamp of RFC 3339 with nanoseconds."""
    if at_ns is None:
        return None
    seconds, fraction_ns = divmod(at_ns, _SECOND_NS)
    try:
        begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        begin = f"{seconds}s"
    return f"{begin}.{fraction_ns:09}Z"
