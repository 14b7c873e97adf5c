"""Trying options on throw-away sockets, and reading every one on every kind of socket."""

from __future__ import annotations

import os
import socket
import sys

import pytest
from conftest import run

from twistedsock.sockopts import CATALOGUE
from twistedsock.sockopts.trying import try_option


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("name", "default", "accepts"),
    [
        ("SO_KEEPALIVE", False, None),
        ("TCP_KEEPCNT", None, (1, 127)),
        ("TCP_KEEPIDLE", None, ("1s", "32767s")),
        ("IP_MINTTL", 0, (0, 255)),
        ("SO_TYPE", "stream", None),
    ],
)
def test_the_kernel_tells_its_range(name: str, default: object, accepts: object) -> None:
    """Default and range are found by asking, and are those of the manual."""
    trial = try_option(CATALOGUE[name])
    assert trial.kind == "tcp4"
    if default is not None:
        assert trial.default == default
    assert trial.accepts == accepts
    assert trial.code == ""


def test_what_is_clamped_is_told() -> None:
    """A value that the kernel takes and changes is shown as what becomes of it."""
    trial = try_option(CATALOGUE["SO_RCVBUF"])
    assert trial.accepts is not None
    assert trial.becomes is not None
    assert trial.accepts[1] == 2**31 - 1
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**31 - 1)
        assert trial.becomes[1] == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


@pytest.mark.parametrize("name", ["XDP_RX_RING", "NETLINK_ADD_MEMBERSHIP", "PACKET_FANOUT"])
def test_what_is_no_range_is_not_told_as_one(name: str) -> None:
    """A ring takes powers of two and a membership groups: their ends say nothing."""
    assert try_option(CATALOGUE[name]).accepts is None


def test_no_trial_leaves_a_descriptor() -> None:
    """Trying the whole catalogue opens and closes sockets, and raises nothing."""
    before = descriptors()
    for option in CATALOGUE.values():
        trial = try_option(option)
        assert trial.kind in ("", *option.fits)
        assert trial.kind or trial.code
    assert descriptors() == before


SWEEP = """
import faulthandler, socket
from twistedsock import sockopts
from twistedsock.errors import OptionError
from twistedsock.sockopts.kinds import SOCKETS, open_kind
faulthandler.enable()
asked = 0
for kind in SOCKETS:
    for protocol in (None, 1, 58, 255) if kind.startswith("raw") else (None,):
        try:
            sock = open_kind(kind, protocol)
        except OSError:
            continue
        with sock:
            for name in sockopts.SPELLINGS:
                try:
                    told = sockopts.read(sock, name)
                    asked += 1
                    if name == "SO_PEERPIDFD":
                        import os; os.close(told)
                except OptionError:
                    pass
print(asked)
"""


def test_no_reading_crashes_the_interpreter() -> None:
    """Every spelling is read on every kind of socket, and all that fails is told."""
    done = run(sys.executable, "-c", SWEEP)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 500
