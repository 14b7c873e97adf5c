"""UNIX paths: whose the file is, who may use it, and when it goes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from twistedsock.addresses import MAX_UNIX_PATH_BYTES, Address, parse_address
from twistedsock.errors import BindError
from twistedsock.transports import unix_paths
from twistedsock.transports.binding import open_listener
from twistedsock.transports.unix_paths import name_of, path_of

SCHEMES = ("unix", "seqpacket", "unixgram")
TYPES = {
    "unix": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "unixgram": socket.SOCK_DGRAM,
}


def at(path: Path, scheme: str = "unix") -> Address:
    return parse_address(f"{scheme}:{path}")


def leave_stale(path: Path, scheme: str) -> None:
    """Leave the file of a socket whose process is gone."""
    with socket.socket(socket.AF_UNIX, TYPES[scheme]) as sock:
        sock.bind(str(path))


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """What a test opens, closed at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [None, 0o666, 0o660, 0o000])
def test_the_mode_is_as_said_whatever_the_umask(
    tmp_path: Path, scheme: str, umask: int, mode: int | None
) -> None:
    """A path is 0600 or what was set, and the process's umask is as before."""
    path = tmp_path / "s"
    before = os.umask(umask)
    try:
        more = {} if mode is None else {"mode": mode}
        with open_listener(at(path, scheme), **more):
            assert stat.S_IMODE(path.lstat().st_mode) == (0o600 if mode is None else mode)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert not path.exists()


def test_the_umask_is_given_back_after_a_failure(tmp_path: Path) -> None:
    """A path that cannot be bound leaves the umask as it was, and no descriptor."""
    before = os.umask(0o027)
    descriptors = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(BindError, match="ENOENT"):
            open_listener(at(tmp_path / "no" / "s"))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("stale", SCHEMES)
def test_a_stale_socket_of_any_type_is_replaced(tmp_path: Path, scheme: str, stale: str) -> None:
    """What a dead process left makes room, whatever its type was."""
    path = tmp_path / "s"
    leave_stale(path, stale)
    old = path.lstat().st_ino
    keep = os.open(path, os.O_PATH)  # so that its number is not used again
    try:
        with open_listener(at(path, scheme)):
            assert path.lstat().st_ino != old
    finally:
        os.close(keep)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("other", SCHEMES)
def test_a_socket_that_is_served_is_left_alone(
    tmp_path: Path, opened: ExitStack, scheme: str, other: str
) -> None:
    """A second listener fails, and the first one's path stays its own until it closes."""
    path = tmp_path / "s"
    first = opened.enter_context(open_listener(at(path, scheme)))
    with pytest.raises(BindError, match="somebody serves it already"):
        open_listener(at(path, other))
    client = opened.enter_context(socket.socket(socket.AF_UNIX, TYPES[scheme]))
    client.connect(str(path))
    first.close()
    assert not path.exists()


def test_a_full_backlog_is_somebody_who_serves(tmp_path: Path, opened: ExitStack) -> None:
    """A listener that is too busy to accept is no stale one."""
    path = tmp_path / "s"
    opened.enter_context(open_listener(at(path), backlog=0))
    client = opened.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(path))
    with pytest.raises(BindError, match="somebody serves it already"):
        open_listener(at(path))


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link", "dangling"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    """Files, folders, pipes and links, also to sockets, are refused and stay."""
    path = tmp_path / "s"
    leave_stale(tmp_path / "stale", "unix")
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("stale" if kind == "link" else "nowhere"))
    before = path.lstat()
    with pytest.raises(BindError, match="there is a file, and it is no socket") as caught:
        open_listener(at(path))
    assert caught.value.errno == errno.EADDRINUSE
    assert path.lstat().st_ino == before.st_ino
    assert (tmp_path / "stale").is_socket()


@pytest.mark.parametrize(
    ("path", "word"),
    [("no/s", "ENOENT"), ("file/s", "ENOTDIR"), ("loop/s", "ELOOP")],
)
def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path, path: str, word: str) -> None:
    """A missing folder, a file in its place and a loop of links are errors with their names."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BindError, match=word) as caught:
        open_listener(at(tmp_path / path))
    assert str(tmp_path / path) in str(caught.value)


def test_a_path_behind_a_linked_folder_is_bound_and_removed(tmp_path: Path) -> None:
    """A folder may be a link, as /var/run is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with open_listener(at(tmp_path / "link" / "s")):
        assert (tmp_path / "real" / "s").is_socket()
    assert not (tmp_path / "real" / "s").exists()


def test_a_path_that_somebody_replaced_is_not_removed(tmp_path: Path, opened: ExitStack) -> None:
    """At the end only our own file goes: neither another's socket nor another's file."""
    for other in ("socket", "file"):
        path = tmp_path / f"{other}.s"
        ours = open_listener(at(path))
        path.unlink()
        if other == "socket":
            opened.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        else:
            path.write_text("precious")
        ours.close()
        assert path.exists()


def test_a_path_that_was_renamed_or_removed_is_no_error(tmp_path: Path) -> None:
    """A file that has gone elsewhere stays there, and closing goes on."""
    path = tmp_path / "s"
    ours = open_listener(at(path))
    path.rename(tmp_path / "elsewhere")
    ours.close()
    assert (tmp_path / "elsewhere").is_socket()
    ours = open_listener(at(path))
    path.unlink()
    ours.close()
    ours.close()


def test_the_file_goes_before_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody finds our path stale while we stop: it is removed while it still answers."""
    path = tmp_path / "s"
    ours = open_listener(at(path))
    seen: list[int] = []
    remove = unix_paths.BoundPath.remove

    def watched(bound: unix_paths.BoundPath) -> bool:
        seen.append(ours.fileno())
        return remove(bound)

    monkeypatch.setattr(unix_paths.BoundPath, "remove", watched)
    fd = ours.fileno()
    ours.close()
    assert seen == [fd]


def test_a_folder_locked_by_somebody_delays_and_does_not_prevent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's lock on a folder, such as /tmp, does not keep a daemon from starting."""
    monkeypatch.setattr(unix_paths, "LOCK_WAIT_S", 0.05)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        open_listener(at(tmp_path / "s")).close()
    finally:
        os.close(fd)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_of_many_that_start_at_once_on_a_stale_path_one_wins(tmp_path: Path, scheme: str) -> None:
    """Racing for one stale path, exactly one listener gets it, and it answers."""
    path = tmp_path / "s"
    leave_stale(path, scheme)
    won: list[socket.socket] = []
    lost: list[BindError] = []
    together = threading.Barrier(8)

    def race() -> None:
        together.wait()
        try:
            won.append(open_listener(at(path, scheme)))
        except BindError as error:
            lost.append(error)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ExitStack() as stack:
        for sock in won:
            stack.enter_context(sock)
        assert (len(won), len(lost)) == (1, 7), lost
        client = stack.enter_context(socket.socket(socket.AF_UNIX, TYPES[scheme]))
        client.connect(str(path))


@pytest.mark.parametrize("name", ["x", "a b", "a\0b", "\udcff\udc80", "é", "@", "/", "x" * 106])
def test_abstract_names_may_hold_any_bytes(name: str) -> None:
    """An abstract name is bound as it is written, byte for byte, and leaves nothing behind."""
    unique = f"{os.getpid()}-{name}"[:106] if len(name) < 100 else name
    address = Address("unix", path=f"@{unique}")
    with open_listener(address) as sock:
        assert sock.getsockname() == b"\0" + os.fsencode(unique)
        assert path_of(sock.getsockname()) == address.path
        assert name_of(address.path) == sock.getsockname()
        with pytest.raises(BindError, match="EADDRINUSE"):
            open_listener(address)
    open_listener(address).close()


def test_a_path_may_be_as_long_as_the_kernel_takes(tmp_path: Path) -> None:
    """A path of 107 bytes is bound, and removed; one byte more is an error of the address."""
    room = MAX_UNIX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    if room < 1:
        pytest.skip("the folder of temporary files has too long a name")
    path = tmp_path / ("s" * room)
    with open_listener(at(path)):
        assert path.is_socket()
    assert not path.exists()
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        at(tmp_path / ("s" * (room + 1)))


def test_a_path_may_hold_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    """A file name is bytes to the system, and so it is here."""
    path = tmp_path / os.fsdecode(b"\xff\xfe")
    with open_listener(at(path)):
        assert b"\xff\xfe" in os.listdir(os.fsencode(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give rights up")
@pytest.mark.parametrize(("mode", "word"), [(0o555, "EACCES"), (0o333, "")])
def test_the_rights_to_a_folder_are_those_of_bind(mode: int, word: str) -> None:
    """Binding needs to write and search a folder, and nothing more: not to read it."""
    work = Path(tempfile.mkdtemp(dir="/tmp"))  # others may not even search tmp_path
    work.chmod(mode)
    try:
        pid = os.fork()
        if not pid:
            told = "failed"
            try:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                open_listener(at(work / "s")).close()
                told = ""
            except BindError as error:
                told = str(error)
            finally:
                os._exit(0 if (word in told if word else not told) else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        work.rmdir()
