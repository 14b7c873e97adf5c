"""``capture``: writes the frames that arrive to a pcapng file, and answers none.

For ``listen = [{ address = "packet:eth0", filter = "udp port 53" }]``. Of the two copies that the
loopback interface has of a frame, sent and received, the received one is written. What cannot be
written, as the disk is full, is counted and left out; the daemon goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Annotated, Any, ClassVar, NamedTuple

import pydantic

from twistedsock.addresses import Kind
from twistedsock.service import ServiceSettings, Session, SocketService
from twistedsock.services.rotation import RotatedFile
from twistedsock.units import MAX_SIZE_BYTES, format_size, parse_size
from twistedsock.wire import pcapng
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES
from twistedsock.wire.link_types import ARPHRD_LOOPBACK, LINK_TYPES

FLUSH_S = 0.5  # so long after it arrived a frame is in the file
FLUSH_BYTES = 256 * 1024  # or earlier, so that little is held
MAX_BLOCK_HEAD_BYTES = 64  # of a frame in the file, beside its data
SIOCGIFHWADDR = 0x8927  # linux/sockios.h
_IFREQ = struct.Struct("=16sH22x")  # ifr_name, ifr_hwaddr.sa_family (netdevice(7))

_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_SIZE_BYTES},
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(|[kMG]?B|[KMG]iB)\s*$"},
    ]
}
Size = Annotated[
    int,
    pydantic.BeforeValidator(parse_size),
    pydantic.PlainSerializer(format_size),
    pydantic.WithJsonSchema(_SIZE_SCHEMA),
]


class CaptureSettings(ServiceSettings):
    """The keys of a capture."""

    file: str = pydantic.Field(min_length=1)
    """Where to write. What stands there at start is set aside, as when it is full."""

    snap_bytes: Size = pydantic.Field(default=DEFAULT_SNAP_BYTES, ge=1, le=DEFAULT_SNAP_BYTES)
    """Of each frame at most so much is kept."""

    max_file: Size = pydantic.Field(default=100 * 1024 * 1024, ge=4096)
    """When the file would be longer than this it is set aside as FILE.1, and that as FILE.2."""

    keep: int = pydantic.Field(default=5, ge=1, le=1000)
    """How many files that were set aside are kept."""


class _Link(NamedTuple):
    """An interface: its link type, None where none is known, and whether it is the loopback."""

    link_type: int | None
    is_loopback: bool


class Capture(SocketService):
    """Writes the frames that arrive to a pcapng file, and answers none."""

    kinds: ClassVar[tuple[Kind, ...]] = ("packet",)
    codecs: ClassVar[tuple[str, ...]] = ("bytes",)
    Settings = CaptureSettings

    def start(self) -> None:
        """Open the file; raise OSError where that cannot be."""
        self._links: dict[str, _Link] = {}
        self._timer: Any = None
        self._frames: list[bytes] = []  # blocks that are to be written
        self._frames_bytes = 0
        self.written = self.lost = 0  # frames
        self._told_lost = 0
        self._failing = False
        self._file = RotatedFile(self.settings.file, self.settings.keep)
        self._file.open()
        self._begin()

    def stop(self) -> None:
        """Write what is left, and close the file."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._file.close()
        self._tell_lost()
        self.log.info(
            "{service}: {written} frames are in {path}, {lost} were lost",
            event="capture_ended",
            service=self.name,
            written=self.written,
            lost=self.lost,
            path=self.settings.file,
        )

    def received(self, session: Session, message: bytes) -> None:
        """Keep a frame for the file."""
        metadata = session.metadata
        name = session.five_tuple.local_host
        link = self._links.get(name) or self._look_at(name)
        if link.is_loopback and metadata.outgoing:
            return
        if link.link_type is None:
            self.lost += 1
            return
        at = metadata.received_at
        at_ns = round((self.reactor.seconds() if at is None else at) * 1e9)
        data = message[: self.settings.snap_bytes]
        self._make_room(len(data) + MAX_BLOCK_HEAD_BYTES)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._numbers)
            self._heads.append(pcapng.interface(name, link.link_type, self.settings.snap_bytes))
        block = pcapng.packet(number, at_ns, data, len(message), metadata.outgoing)
        self._frames.append(block)
        self._frames_bytes += len(block)
        if self._frames_bytes >= FLUSH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self.reactor.callLater(FLUSH_S, self._flush_in_time)

    # -- the file --

    def _begin(self) -> None:
        """Note what comes first in a file, and that it tells no interfaces yet."""
        self._heads = [pcapng.section_header("twistedsock", system=os.uname().sysname)]
        self._numbers: dict[str, int] = {}

    def _make_room(self, size: int) -> None:
        """Set the file aside where *size* more bytes would be too many."""
        heads = sum(map(len, self._heads))
        full = self._file.size + heads + self._frames_bytes + size > self.settings.max_file
        if full and self._numbers:  # a frame that no file has room for gets one of its own
            self._flush()
            self._file.close()
            self._begin()

    def _flush_in_time(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        """Write what was kept; what cannot be written is lost, but for the heads."""
        frames, self._frames, self._frames_bytes = self._frames, [], 0
        if not frames:
            return
        try:
            self._file.write(b"".join([*self._heads, *frames]))
        except OSError as error:
            self.lost += len(frames)
            self._tell_failure(error)
            if not self._file.is_open:
                self._begin()
            return
        self._heads.clear()
        self.written += len(frames)
        self._tell_lost()
        self._failing = False

    # -- what went wrong --

    def _tell_failure(self, error: OSError) -> None:
        if self._failing:
            return
        self._failing = True
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        self.log.error(
            "{service}: cannot write {path}: {reason} ({code}); {lost} frames are lost, and more"
            " will be until it can",
            event="capture_failed",
            service=self.name,
            path=self.settings.file,
            reason=os.strerror(error.errno or 0),
            code=code,
            lost=self.lost,
        )

    def _tell_lost(self) -> None:
        """Tell how many frames were lost since that was told last."""
        lost, self._told_lost = self.lost - self._told_lost, self.lost
        if lost:
            self.log.warn(
                "{service}: {lost} frames could not be written to {path}",
                event="capture_lost",
                service=self.name,
                lost=lost,
                path=self.settings.file,
            )

    def _look_at(self, name: str) -> _Link:
        """Return what the interface *name* is; one that went away is asked for again."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                told = fcntl.ioctl(sock, SIOCGIFHWADDR, _IFREQ.pack(name.encode(), 0))
            except OSError:
                return _Link(None, False)
        kind = _IFREQ.unpack(told)[1]
        link = self._links[name] = _Link(LINK_TYPES.get(kind), kind == ARPHRD_LOOPBACK)
        if link.link_type is None:
            self.log.error(
                "{service}: the link layer of {interface} (ARPHRD {kind}) is neither Ethernet nor"
                " bare IP; its frames are left out",
                event="capture_unknown_link",
                service=self.name,
                interface=name,
                kind=kind,
            )
        return link
