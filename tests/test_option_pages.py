"""The operator's pages about socket options: what they say is done, and its effect is seen.

Each page is tried in networks of its own, two machines on one wire, so that nothing in its file and
its commands needs to be changed, but long times and what this kernel lacks. What the daemon's
sockets have is read from them by the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, ROOT, run
from daemons import GREETING, Daemon, Start, eventually, fill

from twistedsock.cli import main

FOLDER = ROOT / "docs" / "options"
PAGES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
INDEX = PAGES.pop("README")
PORT = 8888  # the pages'
PACKAGES = {  # Debian's, by command
    "ip": "iproute2", "nft": "nftables", "nstat": "iproute2", "ss": "iproute2", "sysctl": "procps",
    "tcpdump": "tcpdump", "timeout": "coreutils", "unshare": "util-linux",
}  # fmt: skip
HERE, THERE = ("192.0.2.1", "2001:db8:1::1"), ("192.0.2.9", "2001:db8:1::9")
# Linux's, where Python's modules lack the constant.
CLONE_NEWNET, PIDFD_GETFD, SIOCOUTQNSD, SO_MEMINFO, MEMINFO_DROPS = 0x40000000, 438, 0x894B, 55, 8
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, CAP_NET_ADMIN, CAP_NET_RAW = 1, 24, 12, 13
LIBC = ctypes.CDLL(None, use_errno=True)


def blocks(page: str, language: str) -> list[str]:
    """Return a page's blocks of *language*, those in lists as well."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", PAGES[page], re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def config(page: str) -> str:
    """Return the page's file."""
    [text] = blocks(page, "toml")
    return text


def without(text: str, pattern: str) -> str:
    """Return *text* less the one place where *pattern* is."""
    less, count = re.subn(pattern, "", text)
    assert count == 1, pattern
    return less


class Page:
    """A page whose commands are run one by one, in its order."""

    def __init__(self, name: str):
        self.name, self.config = name, config(name)
        self.commands = "".join(blocks(name, "sh")).splitlines()

    def run(self, start: str, network: Network | None, count: int = 1) -> str:
        """Run the next commands, which begin with *start*; return what they print.

        They run on the daemon's machine, or without *network* on this one.
        """
        printed = ""
        for _ in range(count):
            command = self.commands.pop(0)
            assert command.startswith(start)
            done = network.here.run(command) if network else run("sh", "-c", command)
            assert done.returncode == 0, (command, done.stderr)
            printed += done.stdout
        return printed


PROVEN: list[str] = []


def proves(name: str) -> pytest.MarkDecorator:
    """Hand the page *name* to a test, which must run all its commands."""
    PROVEN.append(name)
    return pytest.mark.parametrize("page", [name], indirect=True)


@pytest.fixture
def page(request: pytest.FixtureRequest, network: Network) -> Iterator[Page]:
    """A page, all of whose commands have been run afterwards."""
    page = Page(request.param)
    failed_before = request.session.testsfailed
    yield page
    if request.session.testsfailed == failed_before:
        assert not page.commands, "commands of the page that the test has not run"


class Namespace:
    """A network of its own, which goes when the test or its process ends."""

    def __init__(self) -> None:
        words = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
        # cat ends when this end of its input is closed, however this process ends.
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"up\n":
            self._end()
            pytest.skip("needs CAP_SYS_ADMIN, for networks of its own")
        self.descriptor = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _end(self) -> None:
        self.process.communicate(timeout=DEADLINE_S)

    def close(self) -> None:
        os.close(self.descriptor)
        self._end()

    def join(self) -> None:
        """Move the calling thread or new process into it."""
        if LIBC.setns(self.descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return run("sh", "-c", command, timeout=DEADLINE_S, preexec_fn=self.join)

    def setup(self, *commands: str) -> None:
        done = self.run(" && ".join(commands))
        assert done.returncode == 0, done.stderr

    def inside(self, work: Callable[[], Any]) -> Any:
        """Return what *work* returns, done in it by a thread that is gone afterwards."""
        results: list[Any] = []

        def moved() -> None:
            try:
                self.join()
                results.append(work())
            except BaseException as error:  # is raised again below
                results.append(error)

        thread = threading.Thread(target=moved)
        thread.start()
        thread.join()
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]


class Network:
    """The daemon's machine and a client's, on one wire; the daemon's is the client's router."""

    def __init__(self, open: ExitStack):
        self.open = open  # what is closed at the test's end
        self.here = open.enter_context(closing(Namespace()))
        self.there = open.enter_context(closing(Namespace()))

    def wire(self) -> None:
        peer = self.there.process.pid
        self.here.setup(
            f"ip link add wire type veth peer name wire netns {peer}",
            f"ip address add {HERE[0]}/24 dev wire",
            f"ip address add {HERE[1]}/64 dev wire nodad",
            "ip link set wire up",
        )
        self.there.setup(
            f"ip address add {THERE[0]}/24 dev wire",
            f"ip address add {THERE[1]}/64 dev wire nodad",
            "ip link set wire up",
            f"ip route add default via {HERE[0]}",
            f"ip -6 route add default via {HERE[1]}",
        )

    def connect(self, host: str = HERE[0], port: int = PORT) -> socket.socket:
        """Return a connection from the client's machine, open until the test's end."""
        made = self.there.inside(lambda: socket.create_connection((host, port), DEADLINE_S))
        return self.open.enter_context(made)

    def datagrams(self, host: str = HERE[0], port: int = PORT) -> socket.socket:
        """Return a UDP socket of the client's machine, connected to *host*."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.there.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
        sock: socket.socket = self.open.enter_context(made)
        sock.settimeout(DEADLINE_S)
        sock.connect((host, port))
        return sock

    @contextmanager
    def traffic(self, *socks: socket.socket) -> Iterator[None]:
        """Send something on each of *socks* again and again, and read what is answered."""
        over = threading.Event()

        def pump() -> None:
            while not over.wait(0.02):
                for sock in socks:
                    sock.send(b"again\n")
                    sock.recv(65536)

        thread = threading.Thread(target=pump)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def network() -> Iterator[Network]:
    """Two machines on a wire, or what is missing for them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for networks of its own")
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6")
    for command, package in PACKAGES.items():
        if shutil.which(command) is None:
            pytest.skip(f"needs the Debian package {package}")
    with ExitStack() as stack:
        network = Network(stack)
        try:
            os.close(second_descriptor(network.here.process.pid, 0))
        except PermissionError:
            pytest.skip("needs CAP_SYS_PTRACE, to look at the daemon's sockets")
        network.wire()
        yield network


@pytest.fixture
def serve(start: Start, network: Network, tmp_path: Path) -> Callable[..., Daemon]:
    """Start the daemon on its machine with a file's text; it logs in JSON."""

    def serve(text: str, preexec: Callable[[], None] | None = None) -> Daemon:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)

        def enter() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # however this process ends
            network.here.join()
            if preexec is not None:
                preexec()

        daemon: Daemon = start("--log-format=json", "--config", str(path), preexec=enter)
        return daemon

    return serve


Serve = Callable[..., Daemon]


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    """Return the events *name* that the daemon has logged."""
    lines = [line for line in daemon.text.splitlines(keepends=True) if line.endswith("}\n")]
    return [event for event in map(json.loads, lines) if event.get("event") == name]


def second_descriptor(process: int, descriptor: int) -> int:
    """Return a descriptor of ours for what a process has under its own: pidfd_getfd(2)."""
    pidfd = os.pidfd_open(process)
    try:
        found: int = LIBC.syscall(PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


@contextmanager
def sockets_of(daemon: Daemon) -> Iterator[list[socket.socket]]:
    """The daemon's own TCP and UDP sockets."""
    with ExitStack() as stack:
        found = []
        for entry in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
            if os.readlink(entry).startswith("socket:"):
                descriptor = second_descriptor(daemon.process.pid, int(entry.name))
                found.append(stack.enter_context(socket.socket(fileno=descriptor)))
        yield [each for each in found if each.family in (socket.AF_INET, socket.AF_INET6)]


def kill(daemon: Daemon) -> None:
    """End the daemon without waiting for its clients."""
    daemon.process.kill()
    daemon.wait()


def is_listener(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@contextmanager
def sockets_by_kind(
    daemon: Daemon,
) -> Iterator[tuple[socket.socket, socket.socket | None, list[socket.socket]]]:
    """The daemon's TCP listener, its UDP socket, and the connections that it has accepted."""
    with sockets_of(daemon) as socks:
        streams = [each for each in socks if each.type == socket.SOCK_STREAM]
        [listener] = [each for each in streams if is_listener(each)]
        udp = next((each for each in socks if each.type == socket.SOCK_DGRAM), None)
        yield listener, udp, [each for each in streams if not is_listener(each)]


# -- the pages --


def test_every_page_is_proven() -> None:
    """Each page has a test that takes its file and runs its commands, and the index names it."""
    assert sorted(PROVEN) == sorted(PAGES)
    for name, text in PAGES.items():
        assert f"]({name}.md)" in INDEX
        assert len(text.splitlines()) <= 100, name


def test_the_links_lead_somewhere() -> None:
    """Each file that a page links to is there."""
    for text in (INDEX, *PAGES.values()):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_file_that_is_right(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each page has exactly one file, in which `twistedsock check` finds nothing."""
    path = tmp_path / "page.toml"
    path.write_text(config(name))
    with suppress(SystemExit):
        main(["check", str(path)])
    assert capsys.readouterr().out.endswith("ok\n")


@pytest.mark.parametrize("name", PAGES)
def test_the_file_has_what_the_page_is_about(name: str) -> None:
    """The index names each option that a page's file sets."""
    [row] = [line for line in INDEX.splitlines() if f"]({name}.md)" in line]
    text = json.dumps(tomllib.loads(config(name)))
    for option in set(re.findall(r'"((?:SO|IP|IPV6|TCP)_\w+)": ', text)):
        assert f"`{option}`" in row


# -- keepalive --

SHORT = {"60s": "1s", "10s": "1s", "= 6 ": "= 2 ", "2m": "3s"}


def shortened(text: str) -> str:
    """Return the keepalive page's file with times that a test can wait for, in the same ratio."""
    for long, short in SHORT.items():
        assert text.count(f'"{long}"' if long.isalnum() else long) == 1
        text = text.replace(long, short)
    return text


def test_the_promised_time_is_the_file_s() -> None:
    """The page's sum is its file's, and TCP_USER_TIMEOUT is the same."""
    options = tomllib.loads(config("keepalive"))["services"]["hello"]["socket"]
    idle, interval = (int(options[f"TCP_KEEP{each}"][:-1]) for each in ("IDLE", "INTVL"))
    count = options["TCP_KEEPCNT"]
    total = idle + interval * count
    assert options["TCP_USER_TIMEOUT"] == f"{total // 60}m"
    told = " ".join(PAGES["keepalive"].split())
    assert f"{idle} + {interval} * {count} = {total} s" in told


@proves("keepalive")
def test_a_vanished_peer_is_noticed(page: Page, network: Network, serve: Serve) -> None:
    """A vanished peer is given up after the page's time, for each reason that the page tells."""
    short = shortened(page.config)
    no_timeout = without(short, r"TCP_USER_TIMEOUT.*\n")
    longer = short.replace('TIMEOUT = "3s"', 'TIMEOUT = "5s"')
    files = {"page": short, "alone": no_timeout, "longer": longer}
    text = ""
    for at, (name, file) in enumerate(files.items()):
        text += file.replace("services.hello", f"services.{name}").replace("8888", f"{PORT + at}")
    daemon = serve(text).ready()
    silent = {name: network.connect(port=PORT + at) for at, name in enumerate(files)}
    asking = {name: network.connect(port=PORT + at) for at, name in enumerate(["page", "alone"])}
    for sock in (*silent.values(), *asking.values()):
        assert sock.recv(100) == GREETING
    assert "timer:(keepalive," in page.run("ss", network)
    printed = page.run("timeout 90 tcpdump", network)
    assert len(re.findall(r"Flags \[\.\], .*length 0", printed)) == 2
    # From now on the client hears nothing, so it acknowledges nothing that is sent to it.
    network.there.setup(
        "nft add table inet cut",
        "nft add chain inet cut in '{ type filter hook input priority filter; policy drop; }'",
    )
    for sock in asking.values():
        sock.send(b"hello")
    time.sleep(0.1)
    page.run("nft add", network, 3)
    cut = time.time()

    def ended() -> dict[tuple[str, str], float]:
        found = {}
        for event in events(daemon, "session_ended"):
            assert event["reason"] == "transport_error"
            kind = "asking" if event["bytes_in"] else "silent"
            found[event["service"], kind] = datetime.fromisoformat(event["time"]).timestamp() - cut
        return found

    eventually(lambda: len(ended()) == 4)
    page.run("nft delete", network)
    after = ended()
    # The last that was heard of a silent peer was its answer to a probe, up to a second before.
    assert 1.8 <= after["page", "silent"] <= 4.5
    assert 2.5 <= after["page", "asking"] <= 4.5
    assert 1.8 <= after["alone", "silent"] <= 4.5
    # A longer TCP_USER_TIMEOUT takes the place of TCP_KEEPCNT; without one, keepalive is put off
    # while data is unacknowledged.
    assert after["longer", "silent"] >= 3.8
    assert ("alone", "asking") not in after


# -- latency --


def unsent(sock: socket.socket) -> int:
    """Return how many bytes the kernel holds that were never sent."""
    return int(struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)))[0])


def unsent_to_a_deaf_peer(daemon: Daemon, network: Network) -> int:
    """Return how many unsent bytes the kernel holds for a peer that sends and does not read."""
    client = network.connect()
    client.setblocking(False)
    fill(client)
    with sockets_by_kind(daemon) as (_, _, accepted):
        return max(map(unsent, accepted))


@proves("latency")
def test_little_waits_in_the_kernel(page: Page, network: Network, serve: Serve) -> None:
    """Accepted connections have the options, and for a deaf peer the kernel holds little."""
    lowat = 16 * 1024
    daemon = serve(page.config).ready()
    client = network.connect()
    with sockets_by_kind(daemon) as (listener, _, accepted):
        for sock in [listener, *accepted]:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == lowat
    with network.traffic(client):
        assert re.search(r" rtt:[\d.]+/.* minrtt:", page.run("ss", network))
        assert "TcpExtDelayedACKs" in page.run("nstat", network)
        assert page.run("timeout 10 tcpdump", network).count(f".{PORT}") == 6
    # The last write may bring one more buffer of the kernel's.
    little = unsent_to_a_deaf_peer(daemon, network)
    assert 0 < little <= lowat + 65536
    assert re.search(r" notsent:\d+", network.here.run(f"ss -tni 'sport = :{PORT}'").stdout)
    kill(daemon)
    plain = serve(without(page.config, r"TCP_NOTSENT_LOWAT.*\n")).ready()
    much = unsent_to_a_deaf_peer(plain, network)
    assert much > 4 * little


# -- throughput --


def dropped(sock: socket.socket) -> int:
    """Return how many datagrams the kernel dropped at *sock*."""
    figures = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
    return int(struct.unpack("9I", figures)[MEMINFO_DROPS])


def kept_of_a_burst(daemon: Daemon, network: Network) -> int:
    """Return how many datagrams the daemon's buffer holds, of many that come in its absence."""
    client, count = network.datagrams(), 16384
    client.send(b"x")
    assert client.recv(100) == b"x"
    daemon.process.send_signal(signal.SIGSTOP)
    for _ in range(count):
        client.send(bytes(1024))
    with sockets_by_kind(daemon) as (_, udp, _):
        assert udp is not None
        return count - dropped(udp)


def there_and_back(client: socket.socket, size: int) -> None:
    """Send *size* bytes to an echo, and read them."""
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    while size:
        size -= len(client.recv(65536))
    sender.join()


@proves("throughput")
def test_bursts_and_newcomers_find_room(page: Page, network: Network, serve: Serve) -> None:
    """Buffers, algorithm and backlog are the page's, as far as the kernel allows."""

    def inside(name: str) -> str:
        return network.here.run(f"cat /proc/sys/net/{name}").stdout

    if not Path("/proc/sys/net/core/rmem_max").exists():
        page.commands.clear()
        pytest.skip("needs the first network namespace, whose limit the kernel applies")
    found = re.search(r"rmem_max = (\d+)", page.run("sysctl", None))
    assert found
    size = 2 * min(4 * 2**20, int(found[1]))
    algorithm = "bbr" if "bbr" in inside("ipv4/tcp_available_congestion_control") else "reno"
    daemon = serve(page.config.replace('"bbr"', f'"{algorithm}"')).ready()
    there_and_back(network.connect(), 16 * 2**20)
    with sockets_by_kind(daemon) as (_, udp, [accepted]):
        assert udp is not None
        name = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert name.rstrip(b"\0").decode() == algorithm
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == size
        # Nothing is set for TCP: the kernel makes the buffer larger as it goes.
        at_first = int(inside("ipv4/tcp_rmem").split()[1])
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > at_first
    backlog = min(4096, int(inside("core/somaxconn")))
    assert re.search(rf"LISTEN +0 +{backlog} ", page.run("ss -ltn", network))
    assert algorithm in page.run("ss -tnmi", network)
    kept = kept_of_a_burst(daemon, network)
    assert re.search(rf"rb{size},.*,d[1-9]\d*\)", page.run("ss -uanm", network))
    errors = re.search(r"UdpRcvbufErrors +(\d+)", page.run("nstat", network))
    assert errors
    assert int(errors[1]) > 0
    kill(daemon)
    plain = serve(without(page.config, r", socket = \{ SO_RCVBUF = \S+ \}")).ready()
    assert kept > 1.5 * kept_of_a_burst(plain, network)


# -- dscp --

EF = 46 << 2


def mark_of_answer(network: Network, host: str) -> int:
    """Return the TOS or traffic class of the datagram that answers from *host*."""
    client = network.datagrams(host)
    if ":" in host:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    else:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    client.send(b"x")
    _, [(_, _, value)], _, _ = client.recvmsg(100, 100)
    return value[0]


@proves("dscp")
def test_answers_are_marked(page: Page, network: Network, serve: Serve) -> None:
    """What the daemon sends has EF, by TCP and UDP, over IPv4 and IPv6; each needs its option."""
    daemon = serve(page.config).ready()
    clients = [network.connect(host) for host in HERE]
    datagrams = [network.datagrams(host) for host in HERE]
    for host in HERE:
        assert mark_of_answer(network, host) == EF
    with sockets_by_kind(daemon) as (_, udp, accepted):
        assert udp is not None
        assert len(accepted) == 2
        by_peer = {each.getpeername()[0].removeprefix("::ffff:"): each for each in accepted}
        v4, v6 = (by_peer[host] for host in THERE)
        assert v4.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == EF
        assert v6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == EF
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 6
        assert v4.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 6
    with network.traffic(*clients, *datagrams):
        assert page.run("timeout 10 tcpdump", network).count("tos 0xb8") == 4
        assert page.run("timeout 10 tcpdump", network).count("class 0xb8") == 4
    assert page.run("ss -tan", network).count("tos:0xb8") >= 2
    assert "tos:0xb8 tclass:0xb8 class_id:0x6" in page.run("ss -uan", network)
    kill(daemon)
    serve(without(page.config, r"IPV6_TCLASS.*\n")).ready()
    assert [mark_of_answer(network, host) for host in HERE] == [EF, 0]


def test_the_table_of_classes_is_right() -> None:
    """Each class has the DSCP that its name tells, and four times that as its value."""
    rows = re.findall(r"^\| ([A-Z][A-Z\d ]+) \| ([\d ]+) \| ([\d ]+) \|", PAGES["dscp"], re.M)
    found = {}
    for row in rows:
        for name, code, value in zip(*(cell.split() for cell in row), strict=True):
            found[name] = int(code)
            assert int(value) == 4 * int(code)
    wanted = {"EF": 46, "LE": 1} | {f"CS{n}": 8 * n for n in range(8)}
    wanted |= {f"AF{n}{m}": 8 * n + 2 * m for n in range(1, 5) for m in range(1, 4)}
    assert found == wanted
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for code in found.values():
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 4 * code)
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 4 * code


# -- reuseport --


def can_join(network: Network, user: int) -> bool:
    """Tell whether *user* can listen on the port as well, with the option."""
    program = (
        "import os, socket; os.setuid(%d); sock = socket.socket(socket.AF_INET6);"
        " sock.setsockopt(1, 15, 1); sock.bind(('::', %d)); sock.listen()"
    )
    command = f'python3 -c "{program % (user, PORT)}"'
    done = network.here.run(command)
    assert done.returncode == 0 or "Address already in use" in done.stderr, done.stderr
    return done.returncode == 0


def reset(socks: list[socket.socket]) -> int:
    """Return how many of *socks* get a reset; all others are greeted."""
    count = 0
    for sock in socks:
        try:
            assert sock.recv(100).startswith(GREETING)
        except ConnectionResetError:
            count += 1
    return count


@proves("reuseport")
def test_two_daemons_share_a_port(page: Page, network: Network, serve: Serve) -> None:
    """Both members get connections, nobody else gets in, and a dying member's queue is reset."""
    daemons = [serve(page.config), serve(page.config)]
    for daemon in daemons:
        daemon.ready()
    for _ in range(40):
        assert network.connect().recv(100) == GREETING
    pids = [f"pid={daemon.process.pid}," for daemon in daemons]
    for printed in (page.run("ss -ltnp", network), page.run("ss -uanp", network)):
        assert [printed.count(pid) for pid in pids] == [1, 1]
    printed = page.run("ss -tnp", network)
    shares = [printed.count(pid) for pid in pids]
    assert sum(shares) == 40
    assert min(shares) > 0
    assert can_join(network, 0)
    assert not can_join(network, 65534)
    refused = serve(without(page.config, "SO_REUSEPORT = true"))
    assert refused.wait() == 69
    assert "EADDRINUSE" in refused.text

    # Unless the kernel is told to hand it over.
    for handed_over in (False, True):
        if handed_over:
            page.run("sysctl", network)
        hanging = serve(page.config).ready()
        hanging.process.send_signal(signal.SIGSTOP)
        clients = [network.connect() for _ in range(40)]
        for sock in clients:
            sock.send(b"x")
        hanging.process.kill()
        hanging.wait()
        assert (reset(clients) == 0) == handed_over


# -- transparent --

FOREIGN = ("203.0.113.7", "2001:db8:113::7")


def only(*capabilities: int) -> Callable[[], None]:
    """Return what leaves a process no rights but *capabilities*."""

    def drop() -> None:
        for each in set(range(64)) - set(capabilities):
            LIBC.prctl(PR_CAPBSET_DROP, each, 0, 0, 0)

    return drop


@proves("transparent")
def test_foreign_addresses_are_answered(page: Page, network: Network, serve: Serve) -> None:
    """Who asks another machine's address is answered from it, by a daemon with one right."""
    daemon = serve(page.config, only(CAP_NET_RAW)).ready()
    page.run("ip", network, 4)
    page.run("nft add", network, 5)
    for host in FOREIGN:
        client = network.connect(host)
        assert client.getpeername()[0] == host
        assert client.recv(100) == GREETING
        client.send(b"hi")
        assert client.recv(100) == b"OK...hi"
        datagrams = network.datagrams(host)  # connected: takes answers from there alone
        datagrams.send(b"hi")
        assert datagrams.recv(100) == b"OK...hi"
    client = network.connect(FOREIGN[0], 7)
    assert client.recv(100) == GREETING
    client.close()
    [event] = eventually(lambda: events(daemon, "session_ended"))
    assert event["local"] == f"{FOREIGN[0]}:7"
    assert f"[::ffff:{FOREIGN[0]}]:{PORT}" in page.run("ss", network)
    assert "fwmark 0x1 lookup 100" in page.run("ip rule", network)
    assert "local default dev lo" in page.run("ip route", network)
    assert page.run("nft list", network).count("tproxy") == 3

    # The standby's address was not there when it began to listen.
    network.here.setup("ip address add 192.0.2.10/24 dev wire")
    assert network.connect("192.0.2.10", 9999).recv(100) == GREETING


@pytest.mark.parametrize(
    ("rights", "status"), [((), 77), ((CAP_NET_ADMIN,), 0)], ids=["none", "CAP_NET_ADMIN"]
)
def test_the_right_is_needed(
    rights: tuple[int, ...], status: int, network: Network, serve: Serve
) -> None:
    """Without a right the daemon ends with 77 and names the option; CAP_NET_ADMIN does as well."""
    daemon = serve(config("transparent"), only(*rights))
    if status:
        assert daemon.wait() == status
        assert "IP_TRANSPARENT: Operation not permitted (EPERM)" in daemon.text
    else:
        daemon.ready()
        assert daemon.stop() == status


def test_the_unit_offers_the_right() -> None:
    """The page's lines for the unit are those that the unit has in its comments."""
    [lines] = blocks("transparent", "ini")
    unit = (ROOT / "config" / "sockservice.service").read_text()
    for line in lines.splitlines()[1:]:
        assert f"\n#{line}\n" in unit
