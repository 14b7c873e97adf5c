"""``igmp-monitor``: logs the IGMP messages that arrive, and answers none.

For ``listen = ["raw:igmp"]``. Its messages go to groups, and a monitor hears those alone that its
listener has joined: ``groups = ["224.0.0.1", "224.0.0.2", "224.0.0.22"]`` for queries, leaves and
version 3 reports (RFC 9776). Reports of the versions before go to the group that they are about.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twistedsock.errors import PacketError
from twistedsock.service import Session
from twistedsock.services.monitor import MAX_TEXT_BYTES, Monitor
from twistedsock.units import quote_bytes
from twistedsock.wire import igmp
from twistedsock.wire.fields import ipv4_text
from twistedsock.wire.membership import CHANGES, Record

MAX_RECORDS = 16  # of one report that are told


class IgmpMonitor(Monitor):
    """Logs the IGMP messages that arrive, and answers none."""

    protocols: ClassVar[dict[str, int]] = {"igmp": 2}

    def describe(self, session: Session, message: bytes) -> dict[str, Any]:
        """Return the type, and the groups that it is about."""
        try:
            value = igmp.parse(message)
        except PacketError:
            return {"fault": f"cut off: {quote_bytes(message, MAX_TEXT_BYTES)}"}
        told: dict[str, Any] = {"type": value.type, "name": igmp.TYPES.get(value.type, "unknown")}
        match value:
            case igmp.Report3(records):
                told["records"] = len(records) + value.missing_records
                told["groups"] = [_told(record) for record in records[:MAX_RECORDS]]
            case igmp.Other():
                told["group"] = ipv4_text(value.rest[:4])
            case _:
                told["group"] = value.group
        if value.type == igmp.QUERY:
            # None of one that every version ignores (RFC 9776 section 7.1).
            told["version"] = value.version if isinstance(value, igmp.Query) else None
        return told


def _told(record: Record) -> str:
    return f"{record.group} {CHANGES.get(record.kind, record.kind)}"
