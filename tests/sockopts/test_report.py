"""Read-back: requested, applied and effective, and why they differ. The oracle is the kernel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from twistedsock.sockopts import apply, backlog_outcome
from twistedsock.sockopts.kernel import with_sysctls


def sysctl(name: str) -> int:
    return int(Path("/proc/sys", *name.split(".")).read_text())


def test_a_buffer_is_doubled() -> None:
    """SO_RCVBUF reads as twice what was set, with the reason."""
    with socket.socket() as sock:
        outcome = apply(sock, {"SO_RCVBUF": "50kB"})["SO_RCVBUF"]
        told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert (outcome.requested, outcome.applied, outcome.effective) == ("50kB", 50000, told)
    assert told == 100000
    assert outcome.differs
    assert outcome.reason.startswith("the kernel doubles it")
    assert str(outcome).startswith("SO_RCVBUF: requested 50kB, effective 100000: the kernel")


def test_a_buffer_is_clamped_at_the_sysctl() -> None:
    """Beyond net.core.rmem_max the effective size is twice that, and the reason has its value."""
    limit = sysctl("net.core.rmem_max")
    with socket.socket() as sock:
        outcome = apply(sock, {"SO_RCVBUF": 2**30})["SO_RCVBUF"]
    assert outcome.effective == 2 * min(limit, 2**30)
    assert f"net.core.rmem_max = {limit}" in outcome.reason


@pytest.mark.parametrize("backlog", [5, 2**30])
def test_the_backlog_is_told(backlog: int) -> None:
    """The queue of a listener is what listen asked for, or the limit of the machine."""
    limit = sysctl("net.core.somaxconn")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(backlog)
        outcome = backlog_outcome(sock, backlog)
    assert outcome is not None
    assert outcome.effective == min(backlog, limit)
    assert outcome.differs is (backlog > limit)
    assert bool(outcome.reason) is outcome.differs
    assert not outcome.differs or f"net.core.somaxconn = {limit}" in outcome.reason


def test_only_tcp_tells_its_backlog() -> None:
    """Where the kernel does not tell the queue there is no outcome."""
    with socket.socket(socket.AF_UNIX) as sock:
        assert backlog_outcome(sock, 5) is None
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        assert backlog_outcome(sock, 5) is None


def test_the_segment_size_of_a_connection_is_less() -> None:
    """TCP_MAXSEG of a listener reads as set; its connections' is less by the options."""
    with socket.socket() as sock, socket.socket() as client:
        outcome = apply(sock, {"TCP_MAXSEG": 1000})["TCP_MAXSEG"]
        assert (outcome.effective, outcome.differs, outcome.reason) == (1000, False, "")
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        client.settimeout(5)
        client.connect(sock.getsockname())
        with sock.accept()[0] as accepted:
            told = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert 900 < told <= 1000


def test_a_secret_is_not_shown() -> None:
    """Neither the key nor what the kernel tells of it is in the report."""
    with socket.socket() as sock:
        report = apply(sock, {"TCP_FASTOPEN_KEY": b"0123456789abcdef"})
    assert "0123" not in repr(report)
    assert "3031" not in repr(report)
    assert report["TCP_FASTOPEN_KEY"].requested == "(hidden)"
    assert not report["TCP_FASTOPEN_KEY"].differs


def test_a_report_is_in_the_order_written() -> None:
    """Outcomes come in the order of the file, and are found by either spelling."""
    with socket.socket() as sock:
        report = apply(sock, {"KeepAlive": True, "SO_RCVBUF": 4096, "NoDelay": True})
    assert [outcome.name for outcome in report] == ["KeepAlive", "SO_RCVBUF", "NoDelay"]
    assert report["SO_KEEPALIVE"] is report["KeepAlive"]
    assert [outcome.name for outcome in report.differing] == ["SO_RCVBUF"]
    assert len(report) == 3
    with pytest.raises(KeyError):
        report["SO_SNDBUF"]


def test_a_sysctl_is_shown_with_its_value() -> None:
    """A sysctl in a reason has the value of this machine; one that is not here has its name."""
    value = sysctl("net.core.somaxconn")
    assert with_sysctls("at {net.core.somaxconn}") == f"at net.core.somaxconn = {value}"
    assert with_sysctls("at {net.core.none}") == "at net.core.none"
