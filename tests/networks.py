"""Two machines on one wire, in networks of their own, and packets that are written by hand.

For the tests of raw and packet sockets and of multicast groups. The packets are the RFCs' pictures
in struct, so that what is tested is never its own oracle.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S
from daemons import Daemon, eventually
from test_option_pages import HERE, LIBC, PR_SET_PDEATHSIG, THERE, Network, events

__all__ = ["HERE", "THERE", "Network", "events", "network", "serve"]
LINK_LOCAL = ("fe80::1", "fe80::9")  # of the wire, like HERE and THERE


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Two machines on a wire called ``wire`` at both ends, or what is missing for them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for networks of its own")
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    for command, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(command) is None:
            pytest.skip(f"needs the Debian package {package}")
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 253).close()
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with ExitStack() as stack:
        network = Network(stack)
        network.wire()
        for machine, address in zip((network.here, network.there), LINK_LOCAL, strict=True):
            machine.setup(
                f"ip address add {address}/64 dev wire nodad",
                "ip link set lo multicast on",
                "ip route add 224.0.0.0/4 dev wire",
            )
        yield network


Serve = Callable[..., Daemon]


@pytest.fixture
def serve(start: Callable[..., Daemon], network: Network, tmp_path: Path) -> Serve:
    """Start the daemon on its machine with a file's text; it logs in JSON."""

    def serve(text: str, preexec: Callable[[], None] | None = None) -> Daemon:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)

        def enter() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # however this process ends
            network.here.join()
            if preexec is not None:
                preexec()

        return start("--log-format=json", "--config", str(path), preexec=enter)

    return serve


def wait_for(daemon: Daemon, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Return the events *name* of the daemon, of which there will be *count* at least."""
    eventually(lambda: len(events(daemon, name)) >= count)
    return events(daemon, name)


# -- sockets --


def open_on(
    machine: Any, family: int, kind: int, protocol: int = 0, name: Any = None
) -> socket.socket:
    """Return a socket of *machine*, bound to *name*, with a time-out."""

    def make() -> socket.socket:
        sock = socket.socket(family, kind, protocol)
        if name is not None:
            sock.bind(name)
        return sock

    sock: socket.socket = machine.inside(make)
    sock.settimeout(DEADLINE_S)
    return sock


def index_on(machine: Any, interface: str = "wire") -> int:
    """Return the index that *interface* has on *machine*."""
    found: int = machine.inside(lambda: socket.if_nametoindex(interface))
    return found


def heard(sock: socket.socket, seconds: float = 0.3) -> list[bytes]:
    """Return what comes to *sock* in a time."""
    found, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        with suppress(TimeoutError, BlockingIOError):
            found.append(sock.recv(65_535))
    sock.settimeout(DEADLINE_S)
    return found


# -- packets --


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data* (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(
    source: str, destination: str, protocol: int, payload: bytes, ttl: int = 64, tos: int = 0
) -> bytes:
    """Return an IPv4 packet (RFC 791 section 3.1)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, tos, length, 7, 0, ttl, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(source: str, destination: str, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    """Return an IPv6 packet (RFC 8200 section 3)."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
    names = [socket.inet_pton(socket.AF_INET6, each) for each in (source, destination)]
    return head + b"".join(names) + payload


def echo_request(identifier: int = 7, sequence: int = 1, payload: bytes = b"ping") -> bytes:
    """Return an ICMP echo request (RFC 792)."""
    message = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence) + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def echo_request_6(identifier: int = 7, sequence: int = 1, payload: bytes = b"ping") -> bytes:
    """Return an ICMPv6 echo request, whose checksum the kernel fills in (RFC 4443)."""
    return struct.pack("!BBHHH", 128, 0, 0, identifier, sequence) + payload


def igmp(kind: int, code: int, group: str, rest: bytes = b"") -> bytes:
    """Return an IGMP message of any version (RFC 9776 section 4)."""
    message = struct.pack("!BBH", kind, code, 0) + socket.inet_aton(group) + rest
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


# -- plug-ins --


def install(folder: Path, source: str, **services: str) -> Path:
    """Install a distribution with a module of *source*; return what PYTHONPATH must have.

    Args:
        folder: Is made.
        source: Python.
        services: The class of each service, by the service's name.
    """
    info = folder / "own-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "own_services.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    lines = [f"{name} = own_services:{where}\n" for name, where in services.items()]
    (info / "entry_points.txt").write_text("[twistedsock.services]\n" + "".join(lines))
    return folder
