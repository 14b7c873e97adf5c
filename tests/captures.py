"""What the tests of captures share: a socket to send to, and what a process holds of sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from networks import Network, open_on


@pytest.fixture
def sink(network: Network) -> Iterator[socket.socket]:
    """A UDP socket on the loopback that is never read: what is sent there brings no errors."""
    with open_on(network.here, socket.AF_INET, socket.SOCK_DGRAM, name=("127.0.0.1", 0)) as sock:
        yield sock


def send_to(sink: socket.socket, *payloads: bytes) -> None:
    """Send each of *payloads* to the sink."""
    for payload in payloads:
        sink.sendto(payload, sink.getsockname())


def held() -> list[str]:
    """Return what this process has open or mapped of sockets."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    found += Path("/proc/self/maps").read_text().splitlines()
    return sorted(each for each in found if "socket:" in each)
