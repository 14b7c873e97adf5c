"""Capture files of either kind: which it is, its first bytes tell.

Know bytes; never a file.
"""

from __future__ import annotations

from twistedsock.errors import PacketError
from twistedsock.wire import pcap, pcapng
from twistedsock.wire.captured import Captured

NAME = "capture file"


class Reader:
    """Cuts the bytes of a pcap or pcapng file into packets; faults are told as those do."""

    def __init__(self) -> None:
        self._beginning = b""
        self._reader: pcap.Reader | pcapng.Reader | None = None

    def feed(self, data: bytes) -> list[Captured]:
        """Return the packets completed by *data*, in order.

        Raises:
            PacketError: It is no capture file, or broken from here on. Feed nothing more.
        """
        if self._reader is None:
            self._beginning += data
            magic = self._beginning[:4]
            if len(magic) < 4:
                return []
            if magic == pcapng.MAGIC:
                self._reader = pcapng.Reader()
            elif magic in pcap.VARIANTS:
                self._reader = pcap.Reader()
            else:
                text = f"neither pcap nor pcapng begins with the bytes {magic.hex()}"
                raise PacketError(NAME, text)
            data, self._beginning = self._beginning, b""
        return self._reader.feed(data)

    def end(self) -> None:
        """Return where the file ends in order.

        Raises:
            PacketError: It is broken, or ends within something.
        """
        if self._reader is None:
            text = f"{len(self._beginning)} bytes are too few to begin a pcap or pcapng file"
            raise PacketError(NAME, text)
        self._reader.end()
