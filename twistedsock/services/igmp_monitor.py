"""``igmp-monitor``: logs the IGMP messages that arrive, and answers none.

For ``listen = ["raw:igmp"]``. Its messages go to groups, and a monitor hears those alone that its
listener has joined: ``groups = ["224.0.0.1", "224.0.0.2", "224.0.0.22"]`` for queries, leaves and
version 3 reports (RFC 9776). Reports of the versions before go to the group that they are about.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar

from twistedsock.service import Session
from twistedsock.services.monitor import MAX_TEXT_BYTES, Monitor
from twistedsock.units import quote_bytes

QUERY, REPORT_1, REPORT_2, LEAVE, REPORT_3 = 0x11, 0x12, 0x16, 0x17, 0x22  # RFC 9776 section 4
NAMES = {
    QUERY: "membership query",
    REPORT_1: "v1 membership report",
    REPORT_2: "v2 membership report",
    LEAVE: "leave group",
    REPORT_3: "v3 membership report",
}
# RFC 9776 section 4.2.12
RECORDS = {
    1: "is include",
    2: "is exclude",
    3: "to include",
    4: "to exclude",
    5: "allow new sources",
    6: "block old sources",
}
HEADER_BYTES = 8  # type, max resp code, checksum, group
V3_QUERY_BYTES = 12
MAX_RECORDS = 16  # of one report that are told


class IgmpMonitor(Monitor):
    """Logs the IGMP messages that arrive, and answers none."""

    protocols: ClassVar[dict[str, int]] = {"igmp": 2}

    def describe(self, session: Session, message: bytes) -> dict[str, Any]:
        """Return the type, and the groups that it is about."""
        if len(message) < HEADER_BYTES:
            return {"fault": f"cut off: {quote_bytes(message, MAX_TEXT_BYTES)}"}
        kind = message[0]
        told: dict[str, Any] = {"type": kind, "name": NAMES.get(kind, "unknown")}
        if kind == REPORT_3:
            told["records"] = int.from_bytes(message[6:8], "big")
            told["groups"] = _records(message)
        else:
            told["group"] = socket.inet_ntoa(message[4:8])
        if kind == QUERY:
            told["version"] = _query_version(message)
        return told


def _query_version(message: bytes) -> int | None:
    """Return the version of a query; None of one that every version ignores (RFC 9776 7.1)."""
    if len(message) >= V3_QUERY_BYTES:
        return 3
    if len(message) > HEADER_BYTES:
        return None
    return 2 if message[1] else 1


def _records(message: bytes) -> list[str]:
    """Return the group records of a version 3 report (RFC 9776 section 4.2)."""
    found, position = [], HEADER_BYTES
    for _ in range(min(int.from_bytes(message[6:8], "big"), MAX_RECORDS)):
        head = message[position : position + 8]
        if len(head) < 8:
            break
        change, words, sources = head[0], head[1], int.from_bytes(head[2:4], "big")
        found.append(f"{socket.inet_ntoa(head[4:8])} {RECORDS.get(change, change)}")
        position += 8 + 4 * (sources + words)
    return found
