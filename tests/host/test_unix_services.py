"""UNIX listeners of a real daemon: paths, other people's clients, crowds, and the end."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import DEADLINE_S
from daemons import GREETING, TWISTD, Start, eventually, read_all

SCHEMES = ("unix", "seqpacket", "unixgram")
TYPES = {
    "unix": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "unixgram": socket.SOCK_DGRAM,
}
PACKAGES = {"socat": "socat", "nc": "netcat-openbsd", "ncat": "ncat"}
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, that every user may search."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def listen(folder: Path, *schemes: str) -> list[str]:
    words = []
    for scheme in schemes or SCHEMES:
        words += ["--listen", f"{scheme}:{folder}/{scheme}"]
    return words


def connect(folder: Path, scheme: str, name: Path | None = None) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, TYPES[scheme])
    client.settimeout(DEADLINE_S)
    if name is not None:
        client.bind(str(name))
    try:
        client.connect(f"{folder}/{scheme}")
    except BaseException:
        client.close()
        raise
    return client


def echoes(folder: Path, scheme: str, data: bytes = b"hello") -> bool:
    name = folder / "client"
    with connect(folder, scheme, name) as client:
        client.send(data)
        answer = client.recv(1 << 18)
        while scheme == "unix" and len(answer) < len(data):
            answer += client.recv(1 << 18)
    name.unlink()
    return answer == data


def hide_everything() -> None:
    os.umask(0o777)


def configured(folder: Path, text: str) -> list[str]:
    path = folder / "config.toml"
    path.write_text(text.replace("{folder}", str(folder)))
    return ["--config", str(path)]


def test_every_kind_serves_and_leaves_nothing(start: Start, folder: Path) -> None:
    """Paths are 0600, each kind echoes, and after SIGTERM no path and no traceback is left."""
    daemon = start("--service", "echo", *listen(folder)).ready()
    for scheme in SCHEMES:
        found = (folder / scheme).lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        for data in (b"x", b"y" * 60_000):
            assert echoes(folder, scheme, data)
        assert f"accepting on {scheme}:{folder}/{scheme}" in daemon.text
    assert echoes(folder, "seqpacket", b"")
    assert daemon.stop() == 0
    assert list(folder.iterdir()) == []
    assert "Traceback" not in daemon.text


def test_the_mode_of_each_listener_is_its_own(start: Start, folder: Path) -> None:
    """mode = in a listener's table is the file's, whatever the umask that the daemon came with."""
    flags = configured(
        folder,
        """[services.e]
service = "echo"
listen = [
  { address = "unix:{folder}/a", mode = "0666" },
  { address = "unixgram:{folder}/b", mode = "0660" },
  "seqpacket:{folder}/c",
]
""",
    )
    daemon = start(*flags, preexec=hide_everything).ready()
    modes = {name: stat.S_IMODE((folder / name).lstat().st_mode) for name in "abc"}
    assert modes == {"a": 0o666, "b": 0o660, "c": 0o600}
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("address", "mode", "told"),
    [
        ("unix:{folder}/a", "rw", "services.e.listen[0].mode"),
        ("unix:{folder}/a", "07777", "services.e.listen[0].mode"),
        ("unix:@a", "0660", "mode: is of paths: an abstract name has no permissions"),
        ("tcp:127.0.0.1:0", "0660", "mode: is of UNIX paths only"),
    ],
)
def test_a_mode_that_means_nothing_is_told(
    start: Start, folder: Path, address: str, mode: str, told: str
) -> None:
    """A mode that is none, or of what has no file, stops the daemon with its key."""
    text = f"""[services.e]
service = "echo"
listen = [{{ address = "{address}", mode = "{mode}" }}]
"""
    daemon = start(*configured(folder, text))
    assert daemon.wait() != 0
    assert told in daemon.text
    assert "Traceback" not in daemon.text


@pytest.mark.parametrize(
    ("command", "scheme"),
    [
        ("socat -t5 - UNIX-CONNECT:{folder}/unix", "unix"),
        ("socat -t5 - UNIX-CONNECT:{folder}/seqpacket,type=5", "seqpacket"),
        ("socat -t2 - UNIX-SENDTO:{folder}/unixgram,bind={folder}/c", "unixgram"),
        ("socat -t5 - ABSTRACT-CONNECT:{abstract}", "unix"),
        ("nc -N -U {folder}/unix", "unix"),
        ("ncat -U {folder}/unix", "unix"),
    ],
)
def test_other_peoples_clients_are_answered(
    start: Start, folder: Path, command: str, scheme: str
) -> None:
    """socat, nc and ncat, which half-close at once, read their whole answer."""
    abstract = f"twistedsock-{os.getpid()}-{os.urandom(4).hex()}"
    words = command.format(folder=folder, abstract=abstract).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs the Debian package {PACKAGES[words[0]]}")
    flags = [*listen(folder), "--listen", f"unix:@{abstract}"]
    daemon = start("--service", "echo-reply", *flags).ready()
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hi\n")
        client.stdin.flush()
        expected = (b"" if scheme == "unixgram" else GREETING) + b"OK...hi\n"
        if scheme != "unixgram":
            client.stdin.close()
            assert client.stdout.read() == expected
        else:
            assert os.read(client.stdout.fileno(), 1000) == expected
            client.kill()
    (folder / "c").unlink(missing_ok=True)
    assert daemon.stop() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_second_daemon_fails_and_the_first_goes_on(
    start: Start, folder: Path, scheme: str
) -> None:
    """Neither the second one's failure nor anything of it takes the first one's path."""
    first = start("--service", "echo", *listen(folder, scheme)).ready()
    second = start("--service", "echo", *listen(folder, scheme))
    assert second.wait() == 69
    assert "somebody serves it already" in second.text
    assert "Traceback" not in second.text
    assert echoes(folder, scheme)
    assert first.stop() == 0
    assert list(folder.iterdir()) == []


def test_after_kill_9_it_starts_again(start: Start, folder: Path) -> None:
    """The paths that a killed daemon left are replaced, and clients served."""
    first = start("--service", "echo", *listen(folder)).ready()
    first.process.kill()
    first.wait()
    assert all((folder / scheme).is_socket() for scheme in SCHEMES)
    second = start("--service", "echo", *listen(folder)).ready()
    assert all(echoes(folder, scheme) for scheme in SCHEMES)
    assert second.stop() == 0
    assert list(folder.iterdir()) == []


def test_a_successor_keeps_the_path_it_took(start: Start, folder: Path) -> None:
    """A path renamed away and bound anew by another daemon is not removed by the first's stop."""
    first = start("--service", "echo", *listen(folder, "unix")).ready()
    (folder / "unix").rename(folder / "old")
    second = start("--service", "echo", *listen(folder, "unix")).ready()
    assert first.stop() == 0
    assert (folder / "old").is_socket()
    assert echoes(folder, "unix")
    assert second.stop() == 0
    assert [path.name for path in folder.iterdir()] == ["old"]


def test_a_path_that_is_no_socket_stays_and_is_told(start: Start, folder: Path) -> None:
    """A file in the path's place is an error with its name, exit code 69, and is kept."""
    (folder / "unix").write_text("precious")
    daemon = start("--service", "echo", *listen(folder, "unixgram", "unix"))
    assert daemon.wait() == 69
    assert f"unix:{folder}/unix: there is a file, and it is no socket" in daemon.text
    assert (folder / "unix").read_text() == "precious"
    assert not (folder / "unixgram").exists()  # what was opened before is closed again


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give rights up")
def test_rights_given_up_leave_the_path_and_no_traceback(folder: Path, tmp_path: Path) -> None:
    """Under --uid the path may be nobody's to remove: it stays, and the end is as clean."""
    python_is_private = not os.stat("/root").st_mode & 0o001
    output = tmp_path / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [
                str(TWISTD),
                *("-n", "--pidfile=", f"--uid={NOBODY}", f"--gid={NOBODY}"),
                *("sockservice", "--service", "echo", *listen(folder, "unix")),
            ],
            stdout=out,
            stderr=out,
            cwd=tmp_path,
        )
    try:
        eventually(lambda: "accepting on" in output.read_text() or process.poll() is not None)
        if process.poll() is not None and python_is_private:
            pytest.skip("Python lives under root's home, which is private")
        assert process.poll() is None, output.read_text()
        assert echoes(folder, "unix")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert (folder / "unix").is_socket()
    assert "Traceback" not in output.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_access_is_by_group_also_a_supplementary_one(
    start: Start, folder: Path, scheme: str
) -> None:
    """allow = ["gid:N"] serves a peer of that group and nobody else, with mode = "0666"."""
    flags = configured(
        folder,
        f"""[services.e]
service = "echo"
listen = [{{ address = "{scheme}:{{folder}}/{scheme}", mode = "0666" }}]
access = {{ allow = ["gid:4242"] }}
""",
    )
    daemon = start(*flags).ready()
    os.chmod(folder, 0o777)
    script = """import os, socket, sys
folder, scheme, kind, gid, groups = sys.argv[1:]
os.setgroups([int(each) for each in groups.split()])
os.setresgid(int(gid), int(gid), int(gid)); os.setresuid(65534, 65534, 65534)
with socket.socket(socket.AF_UNIX, int(kind)) as s:
    s.bind(f"{folder}/{gid}-{len(groups)}"); s.settimeout(0.5 if gid == "65534" else 10)
    s.connect(f"{folder}/{scheme}")
    try:
        s.send(b"hi"); print(s.recv(10))
    except OSError as error: print("refused")
"""

    def ask(gid: int, groups: str = "") -> str:
        words = [str(folder), scheme, str(int(TYPES[scheme])), str(gid), groups]
        done = subprocess.run(
            ["python3", "-c", script, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert ask(4242) == "b'hi'"
    assert ask(NOBODY) in ("refused", "b''")
    if scheme != "unixgram":  # with a datagram the kernel tells the first group alone
        assert ask(NOBODY, "4242 4243") == "b'hi'"
    assert "refused" in daemon.text
    assert daemon.stop() == 0


@pytest.mark.parametrize("scheme", ["unix", "seqpacket"])
def test_a_thousand_clients_at_once(start: Start, folder: Path, scheme: str) -> None:
    """A thousand connections are open at once, and each is answered with its own message."""
    daemon = start("--service", "echo", *listen(folder, scheme)).ready()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(folder, scheme)) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"%d" % number
    assert daemon.stop() == 0


def test_a_crowd_of_datagram_peers(start: Start, folder: Path) -> None:
    """Five hundred peers with names of their own each get their own answer."""
    daemon = start("--service", "echo", *listen(folder, "unixgram")).ready()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(connect(folder, "unixgram", folder / f"c{number}"))
            for number in range(500)
        ]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"%d" % number
    assert daemon.stop() == 0
    assert not (folder / "unixgram").exists()


def test_sigterm_drains(start: Start, folder: Path) -> None:
    """What was asked before SIGTERM is answered to the last byte, and nobody new is let in."""
    daemon = start("--service", "echo", *listen(folder)).ready()
    size = 1 << 22
    with connect(folder, "unix") as client, connect(folder, "seqpacket") as records:
        client.setblocking(False)
        sent = 0
        while sent < size:
            _, writable, _ = select.select([], [client], [], 0.3)
            if not writable:
                break
            sent += client.send(b"x" * 65536)
        client.settimeout(DEADLINE_S)
        records.send(b"last")
        assert records.recv(100) == b"last"
        daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: not (folder / "unix").exists())
        assert records.recv(100) == b""
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
        assert answer == b"x" * len(answer)
        assert len(answer) > 65536
    assert daemon.wait() == 0
    assert list(folder.iterdir()) == []


def test_a_link_makes_no_two_services_talk(start: Start, folder: Path) -> None:
    """A peer whose name is turned into another service starts no endless talk."""
    flags = configured(
        folder,
        """[services.a]
service = "echo"
listen = ["unixgram:{folder}/a"]
[services.b]
service = "echo"
listen = ["unixgram:{folder}/b"]
""",
    )
    daemon = start(*flags).ready()
    evil = folder / "evil"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind(str(evil))
        evil.rename(folder / "gone")
        evil.symlink_to(folder / "b")  # answers to us go to the other service
        client.sendto(b"loop", f"{folder}/a")
        eventually(lambda: "own_service" in daemon.text)
    assert daemon.text.count("own_service") == 1
    assert daemon.stop() == 0
