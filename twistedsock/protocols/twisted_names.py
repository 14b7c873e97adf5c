"""Twisted's words for addresses and endings, in ours."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure

from twistedsock.addresses import USER, FiveTuple, unmap
from twistedsock.errors import CloseReason


def five_tuple_of(transport: Any) -> FiveTuple:
    """Return the five-tuple of a connected *transport*."""
    local, peer = transport.getHost(), transport.getPeer()
    return FiveTuple(scheme_of(local), *host_and_port(local), *host_and_port(peer))


def scheme_of(address: Any) -> str:
    """Return ``tcp``, ``udp`` or ``unix`` for a Twisted address."""
    return getattr(address, "scheme", None) or getattr(address, "type", "unix").lower()


def source_of(address: Any) -> str:
    """Return what a peer is counted under: its numeric address, or a UNIX peer's user."""
    credentials = getattr(address, "credentials", None)
    if credentials is not None:
        return f"{USER}{credentials.uid}"
    return unmap(getattr(address, "host", "") or "")


def host_and_port(address: Any) -> tuple[str, int]:
    """Return host and port of a Twisted address; for a UNIX one its path and 0."""
    if hasattr(address, "host"):
        return unmap(address.host), address.port
    name = getattr(address, "name", None) or b""
    text = os.fsdecode(name)
    if text.startswith("\0"):
        return f"@{text[1:]}", 0
    credentials = getattr(address, "credentials", None)
    if not text and credentials is not None:  # most clients have no name: this tells them apart
        return f"pid:{credentials.pid}", 0
    return text, 0


def close_reason(failure: Failure) -> CloseReason:
    """Return the word for what a transport gave as its reason."""
    if isinstance(failure.value, ConnectionDone):
        return CloseReason.PEER_CLOSED
    if isinstance(failure.value, ConnectionAborted):
        return CloseReason.CLOSED
    return getattr(failure.value, "close_reason", CloseReason.PEER_RESET)
