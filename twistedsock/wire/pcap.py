"""Capture files of the classic kind, pcap: read in every variant, written with nanoseconds.

The format is draft-ietf-opsawg-pcap. A header, then records, all in the writer's byte order:

    magic 4 | major 2 | minor 2 | reserved 8 | snap length 4 | link type 4
    seconds 4 | micro- or nanoseconds 4 | captured length 4 | original length 4 | data

Know bytes; never a file.
"""

from __future__ import annotations

import struct
from typing import Final

from twistedsock.errors import PacketError
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, LINKTYPE_ETHERNET, Captured

NAME = "pcap"
HEADER_BYTES = 24
RECORD_HEADER_BYTES = 16
MAX_RECORD_BYTES = 16 * 1024 * 1024  # a broken length may not make us wait for, and hold, more

# The file's first bytes: its byte order, and the nanoseconds of one unit of its fractions.
VARIANTS: Final[dict[bytes, tuple[str, int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_MAGIC_NS = 0xA1B23C4D
_VERSION = (2, 4)
_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_SECOND_NS = 1_000_000_000
_LINK_TYPE_BITS = 0xFFFF  # the rest tells of frame check sequences


def header(link_type: int = LINKTYPE_ETHERNET, snap_bytes: int = DEFAULT_SNAP_BYTES) -> bytes:
    """Return the beginning of a file of nanosecond stamps.

    Raises:
        PacketError: A number does not fit.
    """
    return _packed(_HEADER, _MAGIC_NS, *_VERSION, 0, 0, snap_bytes, link_type)


def record(received_at_ns: int, data: bytes, original_bytes: int | None = None) -> bytes:
    """Return one packet's record.

    Args:
        received_at_ns: Since 1970 UTC.
        data: What was captured of it.
        original_bytes: Its length before it was cut; None where it was not.

    Raises:
        PacketError: A number does not fit: the format ends in 2106.
    """
    seconds, fraction_ns = divmod(received_at_ns, _SECOND_NS)
    whole = len(data) if original_bytes is None else original_bytes
    return _packed(_RECORD, seconds, fraction_ns, len(data), whole) + data


def _packed(layout: struct.Struct, *values: int) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as cause:
        raise PacketError(NAME, str(cause)) from None


class Reader:
    """Cuts the bytes of one file into packets.

    A fault is raised when all that was whole before it has been returned: by the same call where
    that returns nothing else, by the next one otherwise. So any chopping gives the same.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0  # in the file, of the buffer's beginning
        self._order, self._unit_ns, self._link_type = "", 0, 0
        self._record = _RECORD
        self._fault: PacketError | None = None

    def feed(self, data: bytes) -> list[Captured]:
        """Return the packets completed by *data*, in order.

        Raises:
            PacketError: The file is broken from here on. Feed nothing more.
        """
        if self._fault is not None:
            raise self._fault
        self._buffer += data
        found: list[Captured] = []
        try:
            if self._order or self._read_header():
                self._read_records(found)
        except PacketError as fault:
            self._fault = fault
            if not found:
                raise
        return found

    def end(self) -> None:
        """Return where the file ends after a whole record, as it should.

        Raises:
            PacketError: It is broken, or ends within something.
        """
        if self._fault is not None:
            raise self._fault
        if not self._order:
            left = f"{len(self._buffer)} of {HEADER_BYTES} bytes"
            raise PacketError(NAME, f"header at byte 0: cut short, {left} are there")
        if self._buffer:
            text = f"cut short, {len(self._buffer)} bytes of it are there"
            raise PacketError(NAME, f"record at byte {self._position}: {text}")

    def _read_header(self) -> bool:
        """Return whether the header is there, read."""
        magic = bytes(self._buffer[:4])
        if len(magic) == 4 and magic not in VARIANTS:
            text = f"a1b2c3d4 or a1b23c4d was expected, in either byte order, got {magic.hex()}"
            raise PacketError(NAME, f"header at byte 0: {text}")
        if len(self._buffer) < HEADER_BYTES:
            return False
        order, self._unit_ns = VARIANTS[magic]
        major, minor, link_type = struct.unpack_from(f"{order}4xHH12xI", self._buffer)
        if (major, minor) != _VERSION:
            text = f"version 2.4 was expected, got {major}.{minor}"
            raise PacketError(NAME, f"header at byte 0: {text}")
        self._order, self._record = order, struct.Struct(f"{order}IIII")
        self._link_type = link_type & _LINK_TYPE_BITS
        del self._buffer[:HEADER_BYTES]
        self._position = HEADER_BYTES
        return True

    def _read_records(self, found: list[Captured]) -> None:
        buffer, at = self._buffer, 0
        try:
            while len(buffer) - at >= RECORD_HEADER_BYTES:
                seconds, fraction, taken, whole = self._record.unpack_from(buffer, at)
                if taken > MAX_RECORD_BYTES:
                    where = f"record at byte {self._position + at}"
                    text = f"at most {MAX_RECORD_BYTES} bytes, got {taken}"
                    raise PacketError(NAME, f"{where}: {text}")
                start = at + RECORD_HEADER_BYTES
                if len(buffer) - start < taken:
                    return
                stamp_ns = seconds * _SECOND_NS + fraction * self._unit_ns
                data = bytes(buffer[start : start + taken])
                found.append(Captured(stamp_ns, data, whole, self._link_type))
                at = start + taken
        finally:
            del buffer[:at]
            self._position += at
