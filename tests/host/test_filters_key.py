"""The key ``filter`` of a packet listener: what it lets in, and what is refused."""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from networks import (
    HERE,
    THERE,
    Network,
    Serve,
    events,
    install,
    network,
    open_on,
    serve,
    wait_for,
)

from twistedsock.addresses import parse_address
from twistedsock.cli import main
from twistedsock.errors import BindError, ConfigError, OptionError
from twistedsock.host.loader import RawConfig
from twistedsock.host.plan import make_plans
from twistedsock.sockopts import plan_options
from twistedsock.transports import filtering
from twistedsock.transports.binding import open_listener
from twistedsock.wire.filters import compile_filter

__all__ = ["network", "serve"]
UDP4 = (socket.AF_INET, socket.SOCK_DGRAM)
RAW_FRAMES = (socket.AF_PACKET, socket.SOCK_RAW)
OWN = """
from twistedsock import SocketService


class Tell(SocketService):
    kinds = ("packet",)

    def received(self, session, message):
        self.log.info("{ports}", event="frame", ports=message[34:38].hex())
"""


def plan(address: str, filter: object, **more: Any) -> Any:
    """Return the plan of one listener with *filter*."""
    listen = {"address": address, "filter": filter, "socket": more.pop("own", {})}
    table = {"service": "capture", "listen": [listen], "settings": {"file": "f"}, **more}
    if not address.startswith("packet:"):
        table = {"service": "echo", "listen": [listen], **more}
    [made] = make_plans(RawConfig({"services": {"main": table}}))
    return made.listeners[0]


def told(address: str, filter: object, **more: Any) -> str:
    """Return what is said of the only problem."""
    with pytest.raises(ConfigError) as caught:
        plan(address, filter, **more)
    [problem] = caught.value.problems
    return f"{problem.path}: {problem.message}"


# -- the file --


def test_a_filter_is_part_of_the_plan() -> None:
    """It travels as it was written; without it there is none."""
    assert plan("packet:eth0", "udp port 53").filter == "udp port 53"
    assert plan("packet:eth0", "").filter == ""
    assert plan("tcp:9000", "").filter == ""


def test_services_may_be_named() -> None:
    """The names of ports are those that this machine knows."""
    assert filtering.port_of("domain") == 53
    assert filtering.port_of("no-such-service") is None
    assert filtering.port_of("\ud800") is None
    assert plan("packet:eth0", "port domain").filter == "port domain"


@pytest.mark.parametrize("address", ["udp:9000", "tcp:9000", "raw:icmp", "unix:@x"])
def test_other_listeners_have_no_filter(address: str) -> None:
    """Only packet listeners have one."""
    with pytest.raises(ConfigError) as caught:
        plan(address, "udp port 53")
    shown = str(parse_address(address))
    wanted = f"is for packet listeners only, such as packet:eth0; got {shown}"
    assert [each.message for each in caught.value.problems if each.path.endswith("filter")] == [
        wanted
    ]


def test_a_faulty_filter_is_told_with_its_place() -> None:
    """The key path, the place in the text, and what would be right."""
    assert told("packet:eth0", "udp prt 53") == (
        "services.main.listen[0].filter: 'udp prt 53', character 5:"
        ' "and", "or" or the end was expected, got \'prt\''
    )
    assert told("packet:eth0", 5) == "services.main.listen[0].filter: must be a text, got 5"


@pytest.mark.parametrize("where", ["own", "socket"])
@pytest.mark.parametrize("name", ["SO_ATTACH_FILTER", "SO_DETACH_FILTER"])
def test_two_filters_are_one_too_many(where: str, name: str) -> None:
    """A program of one's own, on the listener or its service, and a filter exclude each other."""
    value = [[6, 0, 0, 1]] if name == "SO_ATTACH_FILTER" else True
    assert told("packet:eth0", "udp", **{where: {name: value}}) == (
        "services.main.listen[0].filter: decides what is received, and so does"
        f" {name}; leave one of them out"
    )


def test_check_tells_a_faulty_filter(tmp_path: Path) -> None:
    """``twistedsock check`` finds it without a socket."""
    path = tmp_path / "f.toml"
    path.write_text(
        '[services.main]\nservice = "capture"\nsettings = { file = "f" }\n'
        'listen = [{ address = "packet:eth0", filter = "host localhost" }]\n'
    )
    done = CliRunner().invoke(main, ["check", str(path)], prog_name="twistedsock")
    assert done.exit_code == 78
    assert "services.main.listen[0].filter: 'host localhost', character 6:" in done.output


# -- the socket --


def test_only_what_is_asked_for_comes_in(
    network: Network, serve: Serve, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of frames to three ports the service gets those to one."""
    folder = install(tmp_path_factory.mktemp("site") / "own", OWN, tell="Tell")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    listen = '{ address = "packet:wire", filter = "udp dst port 5001 or 5003 and not port 5003" }'
    daemon = serve(f'[services.main]\nservice = "tell"\nlisten = [{listen}]\n').ready()
    with open_on(network.there, *UDP4) as peer:
        for port in (5000, 5001, 5003, 5001):
            peer.sendto(b"x", (HERE[0], port))
        source = peer.getsockname()[1]
    wait_for(daemon, "frame", 2)
    assert daemon.stop() == 0
    frames = {each["ports"] for each in events(daemon, "frame")}
    assert frames == {struct.pack("!HH", source, 5001).hex()}
    assert len(events(daemon, "frame")) == 2


def test_nothing_comes_in_before_the_filter(network: Network) -> None:
    """From the first frame on, while others arrive all the time."""
    with open_on(network.there, *UDP4) as peer:
        for _ in range(20):
            for _ in range(20):
                peer.sendto(b"x", (HERE[0], 5000))
            address = parse_address("packet:wire")
            sock = network.here.inside(lambda address=address: open_listener(address, filter="arp"))
            for _ in range(20):
                peer.sendto(b"x", (HERE[0], 5000))
            with closing(sock):
                kinds = set()
                while True:
                    try:
                        kinds.add(sock.recv(2000)[12:14])
                    except BlockingIOError:
                        break
                assert kinds <= {b"\x08\x06"}


def test_directions_and_lengths_are_the_kernels(network: Network) -> None:
    """What this machine sends is told apart, and frames come whole."""
    addresses = parse_address("packet:wire")
    sock = network.here.inside(lambda: open_listener(addresses, filter="outbound and udp"))
    with closing(sock), open_on(network.there, *UDP4) as peer, open_on(network.here, *UDP4) as own:
        peer.sendto(b"in", (HERE[0], 5000))
        own.sendto(b"out" * 400, (THERE[0], 5000))
        sock.settimeout(5)
        frame, name = sock.recvfrom(2000)
        assert (frame[42:], name[2]) == (b"out" * 400, 4)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(2000)


def test_tags_are_found_that_the_kernel_has_taken_out(network: Network) -> None:
    """A tagged frame comes in without its tag, and the filter knows of it; of two, one is left."""
    payload = bytes.fromhex("88b5") + b"x" * 46
    addresses = b"\xff" * 6 + bytes.fromhex("020000000009")
    one, two = bytes.fromhex("81000005"), bytes.fromhex("88a8000581000007")
    address = parse_address("packet:wire")
    cases = [
        ("vlan 5 and ether proto 0x88b5", one, addresses + payload),
        ("vlan 5 and vlan 7 and ether proto 0x88b5", two, addresses + two[4:] + payload),
    ]
    for filter, tags, expected in cases:
        sock = network.here.inside(lambda filter=filter: open_listener(address, filter=filter))
        name = ("wire", 0)
        with closing(sock), open_on(network.there, *RAW_FRAMES, 0, name) as peer:
            for sent in (b"", bytes.fromhex("81000006"), tags):
                peer.send(addresses + sent + payload)
            sock.settimeout(5)
            assert sock.recv(2000) == expected
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(2000)


def test_an_interface_without_ethernet_is_filtered_by_its_ip_header(network: Network) -> None:
    """The packets of a TUN interface begin with IP, and the filter knows."""
    made = network.here.run("ip tuntap add dev bare mode tun")
    if made.returncode:
        pytest.skip("needs TUN interfaces")
    try:
        network.here.setup("ip address add 10.9.9.1/24 dev bare", "ip link set bare up")
        address = parse_address("packet:bare")
        sock = network.here.inside(lambda: open_listener(address, filter="udp port 5001"))
        with closing(sock):
            assert sock.getsockname()[3] == 0xFFFE
        with pytest.raises(BindError) as caught:
            network.here.inside(
                lambda: open_listener(address, filter="arp or ether host 2:0:0:0:0:1")
            )
        assert str(caught.value).endswith(
            "these packets have no Ethernet header; ask for what is in their IP header"
        )
    finally:
        network.here.run("ip link del bare")


def test_an_interface_that_is_not_there_is_told(network: Network) -> None:
    """As without a filter: the address, and the kernel's reason."""
    address = parse_address("packet:nope")
    with pytest.raises(BindError) as caught:
        network.here.inside(lambda: open_listener(address, filter="udp"))
    assert str(caught.value) == "packet:nope: No such device (ENODEV)"


def test_a_filter_may_be_locked(network: Network) -> None:
    """SO_LOCK_FILTER is set after it, and keeps it there."""
    address = parse_address("packet:wire")
    locked = plan_options({"SO_LOCK_FILTER": True}, address)
    sock = network.here.inside(lambda: open_listener(address, locked, filter="udp"))
    with closing(sock), pytest.raises(OptionError, match=r"Operation not permitted \(EPERM\)"):
        filtering.attach(sock, compile_filter("tcp"))


def test_a_filter_that_the_kernel_refuses_is_told(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener is not opened without it, and nothing is left open."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(filtering, "set_value", refuse)
    address = parse_address("packet:wire")
    with pytest.raises(BindError) as caught:
        network.here.inside(lambda: open_listener(address, filter="udp"))
    assert str(caught.value) == "packet:wire: filter: Cannot allocate memory (ENOMEM)"
    assert caught.value.errno == errno.ENOMEM


def test_a_program_outlives_its_buffer() -> None:
    """The kernel has copied it: memory that is used anew changes nothing."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        filtering.attach(right, compile_filter("greater 4", snap_bytes=6))
        filler = [bytearray(64) for _ in range(10_000)]
        right.setblocking(False)
        for message in (b"one", b"four", b"a longer one"):
            left.send(message)
        assert [right.recv(100), right.recv(100)] == [b"four", b"a long"]
        assert len(filler) == 10_000


def test_attaching_is_refused_as_an_option_is() -> None:
    """The error names the filter and the kernel's number."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
        with pytest.raises(OptionError) as caught:
            filtering.attach(right, compile_filter("tcp"))
        assert (caught.value.option, caught.value.errno) == ("filter", errno.EPERM)


def test_one_interface_alone_is_heard(network: Network) -> None:
    """A filtered listener hears its interface alone, not the loopback beside it."""
    address = parse_address("packet:lo")
    sock = network.here.inside(lambda: open_listener(address, filter="udp port 5009"))
    with closing(sock), open_on(network.there, *UDP4) as peer, open_on(network.here, *UDP4) as own:
        peer.sendto(b"by the wire", (HERE[0], 5009))
        own.sendto(b"by the loopback", ("127.0.0.1", 5009))
        sock.settimeout(5)
        frame, name = sock.recvfrom(2000)
        assert (frame[42:], name[0]) == (b"by the loopback", "lo")
