"""docs/troubleshooting.md: every command, file and program on it is run, and says what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import DEADLINE_S, ROOT
from daemons import eventually
from networks import HERE, THERE, Network, Serve, network, serve
from test_option_pages import Namespace

__all__ = ["network", "serve"]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TOOL = str(Path(sys.executable).with_name("twistedsock"))
FAR = "203.0.113.7"
ECHO = '[services.echo]\nservice = "echo"\nlisten = ["udp:192.0.2.1:5000"]\n'

CHANCES = r"\d\d:\d\d:\d\d\.\d+|\d+\.\d{3,}|\b(id|seq) \d+"


def blocks(language: str) -> list[str]:
    """Return the page's blocks of *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


PING, TRACE, CAPTURE, PROBE = (
    re.split(r"^\$ ", block, flags=re.M)[1:] for block in blocks("console")
)
[RECORDER] = blocks("toml")
PROGRAM, VALUES = blocks("python")
PRINTED, SHOWN = blocks("text")


@pytest.fixture(scope="module")
def path(network: Network) -> Iterator[Network]:
    """The page's machines: here, a router at the other end of the wire, and one behind it."""
    with closing(Namespace()) as far:
        network.there.setup(
            f"ip link add far type veth peer name far netns {far.process.pid}",
            "ip address add 203.0.113.1/24 dev far",
            "ip link set far up",
            "ip route del default",
            # Or it says so once a second (icmp(7)).
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0",
        )
        far.setup(
            f"ip address add {FAR}/24 dev far",
            "ip link set far up",
            "ip route add default via 203.0.113.1",
        )
        network.here.setup(
            f"ip route add 203.0.113.0/24 via {THERE[0]}",
            f"ip route add 198.51.100.0/24 via {THERE[0]}",
        )
        # Links that have just come up drop what is sent at first.
        reach = f"{TOOL} ping --count 1 --timeout 200ms {THERE[0]} {FAR}"
        eventually(lambda: network.here.run(reach).returncode == 0)
        yield network


def masked(text: str) -> list[list[str]]:
    """Return the words of each line of *text*, with times and other chances left out."""
    lines = text.replace("192.0.2.1:5000", "192.0.2.9:5000").strip().splitlines()
    return [re.sub(CHANCES, "#", line).split() for line in lines]


def command_of(entry: str) -> tuple[str, str]:
    """Return the command of one entry of a console block, and what it prints."""
    command, _, printed = entry.partition("\n")
    return command.replace("twistedsock", TOOL, 1), printed


@contextmanager
def background(
    network: Network, command: str, folder: Path = ROOT
) -> Iterator[subprocess.Popen[str]]:
    """Run *command* on the first machine while the block runs."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        preexec_fn=network.here.join,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ping_tells_who_answers_and_who_refuses(path: Network) -> None:
    """The page's ping prints the page's table, but for the times, and ends with 69."""
    command, printed = command_of(PING[0])
    done = path.here.run(command)
    assert masked(done.stdout) == masked(printed)
    assert done.returncode == 69


def test_the_path_has_its_routers(path: Network) -> None:
    """The page's trace prints the page's hops."""
    command, printed = command_of(TRACE[0])
    done = path.here.run(command)
    assert masked(done.stdout) == masked(printed)
    assert done.returncode == 0


def test_the_capture_shows_what_is_on_the_wire(path: Network) -> None:
    """The page's capture prints the page's lines while the other machine is pinged."""
    command, printed = command_of(CAPTURE[0])
    ask = f"{TOOL} ping --interval 50ms --count 200 192.0.2.9"
    with background(path, ask), background(path, command) as capture:
        output, _ = capture.communicate(timeout=DEADLINE_S)
    assert masked(output) == masked(printed)
    assert capture.returncode == 0


def test_the_capture_is_recorded_and_read_back(path: Network, tmp_path: Path) -> None:
    """The page's two commands record a hundred datagrams, and find no TCP among them."""
    (record, _), (read, _) = map(command_of, CAPTURE[1:])
    inside = f"cd {tmp_path} && "
    with background(path, record, tmp_path) as capture:
        eventually(lambda: (tmp_path / "ping.pcapng").exists())
        while capture.poll() is None:
            path.here.run(
                f"{TOOL} probe udp:{THERE[0]}:5000 --count 20 --rate 500/s --timeout 10ms"
            )
        output, _ = capture.communicate(timeout=DEADLINE_S)
    assert "100 packets captured" in output
    assert path.here.run(inside + read).stdout == ""
    shown = path.here.run(inside + read.removesuffix("tcp") + "udp").stdout
    assert len(shown.splitlines()) == 100


def test_the_recorder_records(path: Network, serve: Serve, tmp_path: Path) -> None:
    """The page's daemon records the datagrams that its filter takes, and no others."""
    file = tmp_path / "flight.pcapng"
    daemon = serve(RECORDER.replace("/var/log/sockservice.pcapng", str(file))).ready()
    path.here.run(f"{TOOL} ping -c 2 -i 10ms {THERE[0]}")
    path.here.run(f"{TOOL} probe udp:{THERE[0]}:5000 --count 3 --rate 100/s --timeout 10ms")
    assert daemon.stop() == 0
    lines = path.here.run(f"{TOOL} capture -r {file}").stdout.splitlines()
    assert len(lines) == 3
    assert all(f"{THERE[0]}:5000 UDP" in line for line in lines)


def test_the_probe_counts(path: Network, serve: Serve) -> None:
    """The page's probe prints the page's first lines against a service that echoes."""
    daemon = serve(ECHO).ready()
    command, printed = command_of(PROBE[0])
    done = path.here.run(command.replace(THERE[0], HERE[0]))
    assert masked(done.stdout)[:4] == masked(printed)
    assert done.returncode == 0
    assert daemon.stop() == 0


def test_the_program_prints_what_the_page_says(path: Network, serve: Serve, tmp_path: Path) -> None:
    """The page's program is run, and prints the page's text."""
    daemon = serve(ECHO).ready()
    program = tmp_path / "look.py"
    program.write_text(PROGRAM.replace("192.0.2.9:5000", "192.0.2.1:5000"))
    done = path.here.run(f"timeout 10 {sys.executable} {program}")
    assert (done.stdout, done.stderr) == (PRINTED, "")
    assert daemon.stop() == 0


def test_the_values_are_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The page's packets are printed as the page says."""
    exec(compile(VALUES, "docs/troubleshooting.md", "exec"), {})
    assert capsys.readouterr().out == SHOWN
