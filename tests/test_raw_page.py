"""docs/raw.md: every file, program and command on it is run, and says what the page says."""

from __future__ import annotations

import re
import shutil
import socket
import struct
import sys
from typing import Any

import pytest
from conftest import ROOT
from daemons import TWISTD, eventually
from networks import HERE, Network, Serve, events, install, network, open_on, serve

from twistedsock.addresses import parse_address

__all__ = ["network", "serve"]
PAGE = (ROOT / "docs" / "raw.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the page's blocks of *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


MONITORS, OWN, GROUPS = blocks("toml")
SHOUT, ASK, WHERE = blocks("python")
PING, MADDRESS, BARE = blocks("sh")
EVENT, ANSWERS, REFUSED = blocks("text")


@pytest.fixture(autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's services are installed."""
    folder = tmp_path_factory.mktemp("site") / "own"
    path = install(folder, SHOUT + WHERE, shout="Shout", where="Where")
    monkeypatch.setenv("PYTHONPATH", str(path))


def test_the_addresses_are_of_the_grammar() -> None:
    """Each address of the table is read, and is of the kind that the table says."""
    rows = re.findall(r"^\| (`\w+:.*?) \| .* \| `(\w+)` \|$", PAGE, re.M)
    assert len(rows) == 6
    for addresses, kind in rows:
        for text in re.findall(r"`(\w+:[^`]*)`", addresses):
            assert parse_address(text).kind == kind


@pytest.mark.skipif(shutil.which("ping") is None, reason="needs the Debian package iputils-ping")
def test_the_monitors_tell_what_arrives(network: Network, serve: Serve) -> None:
    """The page's ping is the page's event, and a join of the other machine is heard."""
    daemon = serve(MONITORS).ready()
    assert network.there.run(PING).returncode == 0

    def requests() -> list[Any]:
        return [each for each in events(daemon, "packet") if each["name"] == "echo request"]

    eventually(requests)
    [event] = requests()
    assert re.sub(r"identifier=\d+", "identifier=7", event["message"]) == EVENT.strip()
    [told] = re.findall(r"the event has (.*?);", PAGE, re.S)
    for field in re.findall(r"`(\w+)`", told):
        assert event[field] is not None

    with open_on(network.there, socket.AF_INET, socket.SOCK_DGRAM) as member:
        group = struct.pack("=4s4s", socket.inet_aton("239.7.7.7"), socket.inet_aton("192.0.2.9"))
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        eventually(lambda: "239.7.7.7 to exclude" in daemon.text)
    assert daemon.stop() == 0


def test_the_own_protocol_is_answered(network: Network, serve: Serve) -> None:
    """The page's program gets what the page shows from the page's service."""
    daemon = serve(OWN).ready()
    (daemon.output.parent / "ask.py").write_text(ASK)
    done = network.there.run(f"timeout 10 {sys.executable} {daemon.output.parent / 'ask.py'}")
    assert (done.stdout, done.stderr) == (ANSWERS, "")
    assert daemon.stop() == 0


def test_a_udp_service_is_told_where_and_how_far(network: Network, serve: Serve) -> None:
    """The page's UDP service tells the address that was hit, and the TTL that was left."""
    daemon = serve('[services.w]\nservice = "where"\nlisten = ["udp:192.0.2.1:5000"]\n').ready()
    with open_on(network.there, socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"?", (HERE[0], 5000))
        assert peer.recv(100) == b"192.0.2.1 64"
    assert daemon.stop() == 0


def test_the_groups_are_joined(network: Network, serve: Serve) -> None:
    """The page's command shows the groups of the page's file."""
    daemon = serve(GROUPS).ready()
    shown = network.here.run(MADDRESS).stdout
    for group in ("239.1.1.1", "232.1.1.1", "ff15::1"):
        assert f" {group}\n" in shown
    assert daemon.stop() == 0


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the Debian package util-linux")
def test_without_rights_it_says_so(network: Network) -> None:
    """The page's command ends with 77, and prints the page's line."""
    done = network.here.run(BARE.replace("twistd ", f"{TWISTD} ", 1))
    assert done.returncode == 77
    assert REFUSED in done.stderr


def test_the_words_are_those_that_are_counted() -> None:
    """Each word that the page says is counted is one of the source's."""
    source = (ROOT / "twistedsock" / "protocols" / "datagram.py").read_text()
    for word in ("refused_by_peer", "unreachable", "interface_down", "send_failed"):
        assert f"`{word}`" in PAGE
        assert f'"{word}"' in source
