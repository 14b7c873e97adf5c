"""``host.probe``: what would become of a plan's options, as values in Python."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from twistedsock import sockopts
from twistedsock.errors import BindError
from twistedsock.host import probe as module
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.host.probe import Probe, probe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's options")


def probes(listen: list[object], options: dict[str, object], **more: object) -> list[Probe]:
    """Return what becomes of *options* for a service that listens so."""
    raw = RawConfig()
    table = {"service": "echo", "listen": listen, "socket": options, **more}
    raw.merge({"services": {"a": table}}, "a program")
    return list(probe(make_plans(raw)))


def test_each_outcome_is_a_value() -> None:
    """Requested, applied, effective, phase and reason of each option are kept as they are."""
    [one] = probes(["tcp:127.0.0.1:9"], {"SO_RCVBUF": "64KiB", "KeepAliveTimeSec": 60})
    assert (one.service, str(one.address), one.error) == ("a", "tcp:127.0.0.1:9", None)
    outcome = one.report["SO_RCVBUF"]
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert outcome.effective == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert (outcome.requested, outcome.applied, outcome.differs) == ("64KiB", 65536, True)
    assert outcome.reason
    alias = one.report["TCP_KEEPIDLE"]
    assert (alias.name, alias.option, alias.effective) == ("KeepAliveTimeSec", "TCP_KEEPIDLE", "1m")


def test_a_listener_s_own_table_counts() -> None:
    """A listener's own option takes the place of the service's, by whichever of its names."""
    own = {"address": "tcp:127.0.0.1:9", "socket": {"TCP_KEEPIDLE": "70s"}, "backlog": 7}
    plain, special = probes(["tcp:[::1]:9", own], {"KeepAliveTimeSec": "60s"})
    assert [each.name for each in plain.report] == ["KeepAliveTimeSec", "backlog"]
    assert [each.name for each in special.report] == ["TCP_KEEPIDLE", "backlog"]
    assert special.report["TCP_KEEPIDLE"].effective == "70s"
    assert special.report["backlog"].effective == 7


def test_every_refusal_is_in_the_report_and_the_first_is_the_error() -> None:
    """A strict service would not start, and still one sees all that is refused."""
    options = {"TCP_CONGESTION": "nope", "SO_BINDTODEVICE": "nope0", "SO_KEEPALIVE": True}
    [one] = probes(["tcp:127.0.0.1:9"], options)
    assert isinstance(one.error, BindError)
    assert (str(one.error.address), one.error.errno) == ("tcp:127.0.0.1:9", errno.ENOENT)
    assert [each.name for each in one.report.refused] == ["TCP_CONGESTION", "SO_BINDTODEVICE"]
    assert one.report["SO_BINDTODEVICE"].code == "ENODEV"
    assert one.report["SO_KEEPALIVE"].effective is True


@pytest.mark.parametrize("refusal", ["warn", "ignore"])
def test_where_the_daemon_goes_on_there_is_no_error(refusal: str) -> None:
    """A tolerant service has the refusal in its report alone."""
    [one] = probes(["udp:[::1]:9"], {"SO_BINDTODEVICE": "nope0"}, refused_options=refusal)
    assert one.error is None
    assert [each.code for each in one.report] == ["ENODEV"]


def test_a_lacking_right_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option whose right the process has not is an error of permission, whatever comes first."""
    monkeypatch.setattr(sockopts, "held", frozenset)
    options = {"TCP_CONGESTION": "nope", "SO_MARK": 3}
    [one] = probes(["tcp:127.0.0.1:9"], options)
    assert one.error is not None
    assert one.error.is_permission
    assert str(one.error).startswith("tcp:127.0.0.1:9: SO_MARK needs CAP_NET_ADMIN")
    [one] = probes(["tcp:127.0.0.1:9"], {"SO_MARK": 3}, refused_options="warn")
    assert one.error is None


@pytest.fixture
def binds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses that are bound meanwhile."""
    bound: list[Any] = []

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            bound.append(address)
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Watched)
    return bound


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("tcp:192.0.2.1:80", "127.0.0.1"),
        ("udp:[2001:db8::1]:53", "::1"),
        ("tcp:*:80", "::"),
        ("tcp:0.0.0.0:80", "127.0.0.1"),
        ("udp:[::]:80", "::1"),
    ],
)
def test_another_address_stands_in(binds: list[Any], address: str, host: str) -> None:
    """Only loopback, or every address, is bound, on a port that the kernel chooses."""
    [one] = probes([address], {"SO_RCVBUF": "64KiB"})
    assert one.error is None
    assert [each[:2] for each in binds] == [(host, 0)]


def test_probing_is_lazy() -> None:
    """Nothing is opened before the first outcome is asked for, nor after the last that is."""
    raw = RawConfig()
    table = {"service": "echo", "listen": ["tcp:1", "tcp:2"]}
    raw.merge({"services": {"a": table}}, "a program")
    outcomes = probe(make_plans(raw))
    assert str(next(outcomes).address) == "tcp:127.0.0.1:1"
    outcomes.close()  # type: ignore[attr-defined]


def test_a_machine_without_ipv6_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no such socket can be opened there is no report, only the configured address."""

    def without_ip6(address: Any, *_: object, **__: object) -> socket.socket:
        raise BindError(address, "Address family not supported", errno.EAFNOSUPPORT)

    monkeypatch.setattr(module, "open_listener", without_ip6)
    [one] = probes(["tcp:[2001:db8::1]:80"], {"SO_KEEPALIVE": True})
    assert len(one.report) == 0
    assert str(one.error) == "tcp:[2001:db8::1]:80: Address family not supported"


def test_three_hundred_options_are_no_matter(tmp_path: Path) -> None:
    """A service may have hundreds of options, each of which has its outcome."""
    options: dict[str, object] = {
        f"raw{number}": {"level": 6, "number": 4, "value": number + 1} for number in range(300)
    }
    [one] = probes(["tcp:127.0.0.1:9"], options)
    assert one.error is None
    assert len(one.report) == 301
    assert one.report["raw0"].effective == 300  # read once all are set: the last one counts
    assert one.report["raw299"].differs is False
