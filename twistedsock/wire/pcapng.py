"""Capture files of the kind pcapng: read in every variant, written with nanosecond stamps.

The format is draft-ietf-opsawg-pcapng: blocks, each of a multiple of four bytes.

    type 4 | total length 4 | body, padded to 32 bits | total length 4

A file has sections, each in the byte order that its header tells; a section has interfaces,
numbered from 0, and then packets, which name their interface. What is written here is
little-endian. Packets, interfaces and statistics are read, all else is skipped.

Know bytes; never a file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from twistedsock.errors import PacketError
from twistedsock.wire.captured import DEFAULT_SNAP_BYTES, LINKTYPE_ETHERNET, Captured

NAME = "pcapng"
MAX_BLOCK_BYTES = 16 * 1024 * 1024  # a broken length may not make us wait for, and hold, more
MAX_INTERFACES = 65_536  # of a section: what a file may make us remember

# Block types, section 11.1 of the draft; PACKET is obsolete and only read
INTERFACE, PACKET, SIMPLE_PACKET, STATISTICS = 1, 2, 3, 5
ENHANCED_PACKET, SECTION_HEADER = 6, 0x0A0D0D0A
MAGIC: Final = SECTION_HEADER.to_bytes(4, "big")  # alike from both ends
BYTE_ORDER_MAGIC = 0x1A2B3C4D
_ORDERS: Final = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}

# Options, sections 3.5 and 4
_END, _HARDWARE, _OS, _APPLICATION = 0, 2, 3, 4  # of sections
_IF_NAME, _IF_RESOLUTION, _IF_FILTER, _IF_OFFSET = 2, 9, 11, 14
_FLAGS = 2  # of packets
_STARTED, _ENDED, _RECEIVED, _DROPPED = 2, 3, 4, 5  # of statistics
INBOUND, OUTBOUND = 1, 2  # the two low bits of the flags
CHECKSUM_NOT_READY = 1 << 9

_LEAST_BYTES = {SECTION_HEADER: 28, INTERFACE: 20, PACKET: 32, SIMPLE_PACKET: 16}
_LEAST_BYTES |= {STATISTICS: 24, ENHANCED_PACKET: 32}
_LEAST_OTHER_BYTES = 12
_SECOND_NS = 1_000_000_000
_MICROSECONDS = 6  # the resolution where none is told: a power of ten


# -- writing --


def section_header(application: str = "", hardware: str = "", system: str = "") -> bytes:
    """Return the beginning of a file: what made it, on which machine and operating system.

    Raises:
        PacketError: A text is too long for an option.
    """
    told = [(_HARDWARE, hardware), (_OS, system), (_APPLICATION, application)]
    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)  # version 1.0, of unknown length
    return _block(SECTION_HEADER, body + _texts(told) + bytes(4))


def interface(
    name: str = "",
    link_type: int = LINKTYPE_ETHERNET,
    snap_bytes: int = DEFAULT_SNAP_BYTES,
    filter_text: str = "",
) -> bytes:
    """Return the block of an interface; the first of a section has number 0.

    Args:
        name: Such as ``eth0``.
        link_type: A LINKTYPE number.
        snap_bytes: At most so many of a packet are kept.
        filter_text: The capture filter, as it was written.

    Raises:
        PacketError: A number or a text does not fit.
    """
    body = _packed("<HHI", link_type, 0, snap_bytes) + _texts([(_IF_NAME, name)])
    body += _option(_IF_RESOLUTION, b"\x09")
    if filter_text:
        body += _option(_IF_FILTER, b"\0" + filter_text.encode("utf-8", "replace"))
    return _block(INTERFACE, body + bytes(4))


def packet(
    interface: int,
    received_at_ns: int,
    data: bytes,
    original_bytes: int | None = None,
    outgoing: bool | None = None,
    checksums_known: bool = True,
) -> bytes:
    """Return the block of a packet.

    Args:
        interface: Its number in the section.
        received_at_ns: Since 1970 UTC.
        data: What was captured of it.
        original_bytes: Its length before it was cut; None where it was not.
        outgoing: Whether this machine sent it; None leaves it out.
        checksums_known: False where it was caught before they were filled in.

    Raises:
        PacketError: A number does not fit.
    """
    whole = len(data) if original_bytes is None else original_bytes
    high, low = divmod(received_at_ns, 1 << 32)
    body = _packed("<5I", interface, high, low, len(data), whole) + data + bytes(-len(data) % 4)
    return _block(ENHANCED_PACKET, body + packet_options(outgoing, checksums_known))


def packet_options(outgoing: bool | None, checksums_known: bool) -> bytes:
    """Return the options of a packet's block, as ``packet`` describes them; none where none."""
    flags = {None: 0, False: INBOUND, True: OUTBOUND}[outgoing]
    flags |= 0 if checksums_known else CHECKSUM_NOT_READY
    return _option(_FLAGS, flags.to_bytes(4, "little")) + bytes(4) if flags else b""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What became of the packets of an interface; None where a file does not tell.

    Attributes:
        interface: Its number in the section.
        received: Packets that came, with those that were then dropped.
        dropped: Packets that were lost for want of room.
        ended_at_ns: When these were counted, since 1970 UTC.
    """

    interface: int
    received: int | None = None
    dropped: int | None = None
    ended_at_ns: int | None = None


def statistics(
    interface: int, started_at_ns: int, ended_at_ns: int, received: int, dropped: int
) -> bytes:
    """Return the block of an interface's counters, at the end of a capture.

    Raises:
        PacketError: A number does not fit.
    """
    stamps = [divmod(each, 1 << 32) for each in (started_at_ns, ended_at_ns)]
    body = _packed("<III", interface, *stamps[1])
    body += _option(_STARTED, _packed("<II", *stamps[0]))
    body += _option(_ENDED, _packed("<II", *stamps[1]))
    body += _option(_RECEIVED, _packed("<Q", received))
    body += _option(_DROPPED, _packed("<Q", dropped))
    return _block(STATISTICS, body + bytes(4))


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return b"%b%b%b%b" % (struct.pack("<I", kind), length, body, length)


def _option(code: int, value: bytes) -> bytes:
    return _packed("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _texts(options: list[tuple[int, str]]) -> bytes:
    return b"".join(
        _option(code, text.encode("utf-8", "replace")) for code, text in options if text
    )


def _packed(layout: str, *values: int) -> bytes:
    try:
        return struct.pack(layout, *values)
    except struct.error as cause:
        raise PacketError(NAME, str(cause)) from None


# -- reading --


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a section.

    Attributes:
        link_type: A LINKTYPE number.
        snap_bytes: At most so many of a packet were kept; 0 for any number.
        name: Empty where the file does not tell.
        units_per_second: Of the packets' stamps.
        offset_s: What is added to them.
    """

    link_type: int
    snap_bytes: int = 0
    name: str = ""
    units_per_second: int = 10**_MICROSECONDS
    offset_s: int = 0

    def nanoseconds(self, stamp: int) -> int:
        """Return *stamp*, of a packet, in nanoseconds since 1970 UTC."""
        return stamp * _SECOND_NS // self.units_per_second + self.offset_s * _SECOND_NS


class Reader:
    """Cuts the bytes of one file into packets.

    A fault is raised when all that was whole before it has been returned: by the same call where
    that returns nothing else, by the next one otherwise. So any chopping gives the same.

    Attributes:
        interfaces: Those of the section so far.
        statistics: The last of each interface of the section, by its number.
    """

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self.statistics: dict[int, Statistics] = {}
        self._buffer = bytearray()
        self._position = 0  # in the file, of the buffer's beginning
        self._order = ""
        self._fault: PacketError | None = None

    def feed(self, data: bytes) -> list[Captured]:
        """Return the packets completed by *data*, in order.

        Raises:
            PacketError: The file is broken from here on. Feed nothing more.
        """
        if self._fault is not None:
            raise self._fault
        buffer = self._buffer
        buffer += data
        found: list[Captured] = []
        at = 0
        try:
            while 0 < (size := self._block_bytes(at)) <= len(buffer) - at:
                self._read(bytes(buffer[at : at + size]), found)
                at += size
        except PacketError as fault:
            where = f"block at byte {self._position + at}"
            self._fault = PacketError(NAME, f"{where}: {fault.text}")
            if not found:
                raise self._fault from None
        finally:
            del buffer[:at]
            self._position += at
        return found

    def end(self) -> None:
        """Return where the file ends after a whole block, as it should.

        Raises:
            PacketError: It is broken, or ends within something.
        """
        if self._fault is not None:
            raise self._fault
        if self._buffer or not self._order:
            text = f"cut short, {len(self._buffer)} bytes of it are there"
            raise PacketError(NAME, f"block at byte {self._position}: {text}")

    def _block_bytes(self, at: int) -> int:
        """Return the length of the block at *at* of the buffer; 0 where that is not there yet."""
        beginning = bytes(self._buffer[at : at + 12])
        is_section = beginning[:4] == MAGIC
        if len(beginning) >= 4 and not (is_section or self._order):
            text = f"a section header ({MAGIC.hex()}) was expected first, got {beginning[:4].hex()}"
            raise PacketError(NAME, text)
        if len(beginning) < 12:
            return 0
        order = _ORDERS.get(beginning[8:], "") if is_section else self._order
        if not order:
            text = f"the byte order magic 1a2b3c4d was expected, got {beginning[8:].hex()}"
            raise PacketError(NAME, text)
        kind, length = struct.unpack_from(f"{order}II", beginning)
        least = _LEAST_BYTES.get(kind, _LEAST_OTHER_BYTES)
        if length % 4 or not least <= length <= MAX_BLOCK_BYTES:
            text = f"a length of {least} to {MAX_BLOCK_BYTES}, a multiple of 4, was expected"
            raise PacketError(NAME, f"{text}, got {length}")
        return int(length)

    def _read(self, block: bytes, found: list[Captured]) -> None:
        is_section = block[:4] == MAGIC
        order = _ORDERS[block[8:12]] if is_section else self._order
        kind, length = struct.unpack_from(f"{order}II", block)
        (repeated,) = struct.unpack_from(f"{order}I", block, length - 4)
        if repeated != length:
            text = f"the length {length} was expected once more at its end, got {repeated}"
            raise PacketError(NAME, text)
        if is_section:
            self._begin_section(block, order)
        elif kind == INTERFACE:
            self._read_interface(block)
        elif kind == ENHANCED_PACKET:
            number, high, low, taken, whole = struct.unpack_from(f"{order}5I", block, 8)
            found.append(self._packet(block, number, high << 32 | low, taken, whole))
        elif kind == PACKET:
            number, high, low, taken, whole = struct.unpack_from(f"{order}H2x4I", block, 8)
            found.append(self._packet(block, number, high << 32 | low, taken, whole))
        elif kind == SIMPLE_PACKET:
            self._read_simple_packet(block, found)
        elif kind == STATISTICS:
            self._read_statistics(block)

    def _begin_section(self, block: bytes, order: str) -> None:
        major, minor = struct.unpack_from(f"{order}HH", block, 12)
        if major != 1:
            raise PacketError(NAME, f"version 1 was expected, got {major}.{minor}")
        self._order = order
        self.interfaces, self.statistics = [], {}

    def _read_interface(self, block: bytes) -> None:
        if len(self.interfaces) == MAX_INTERFACES:
            raise PacketError(NAME, f"a section has at most {MAX_INTERFACES} interfaces")
        link_type, snap_bytes = struct.unpack_from(f"{self._order}H2xI", block, 8)
        options = self._options(block, 16)
        power = (options.get(_IF_RESOLUTION) or bytes([_MICROSECONDS]))[0]
        units = 1 << (power & 0x7F) if power & 0x80 else 10**power
        offset = options.get(_IF_OFFSET, b"")
        (offset_s,) = struct.unpack(f"{self._order}q", offset) if len(offset) == 8 else (0,)
        name = options.get(_IF_NAME, b"").decode("utf-8", "replace").rstrip("\0")
        self.interfaces.append(Interface(link_type, snap_bytes, name, units, offset_s))

    def _packet(self, block: bytes, number: int, stamp: int, taken: int, whole: int) -> Captured:
        seen = self._interface(number)
        self._check_taken(taken, len(block) - 32)
        bits = 0
        flags = self._options(block, 28 + taken + -taken % 4).get(_FLAGS, b"")
        if len(flags) == 4:
            (bits,) = struct.unpack(f"{self._order}I", flags)
        outgoing = {INBOUND: False, OUTBOUND: True}.get(bits & 3)
        is_known = not bits & CHECKSUM_NOT_READY
        at_ns = seen.nanoseconds(stamp)
        data = block[28 : 28 + taken]
        return Captured(at_ns, data, whole, seen.link_type, seen.name, outgoing, is_known)

    def _read_simple_packet(self, block: bytes, found: list[Captured]) -> None:
        (whole,) = struct.unpack_from(f"{self._order}I", block, 8)
        seen = self._interface(0)
        taken = min(whole, seen.snap_bytes or whole)
        self._check_taken(taken, len(block) - 16)
        found.append(Captured(None, block[12 : 12 + taken], whole, seen.link_type, seen.name))

    def _read_statistics(self, block: bytes) -> None:
        number, high, low = struct.unpack_from(f"{self._order}III", block, 8)
        options = self._options(block, 20)
        values = [options.get(code, b"") for code in (_RECEIVED, _DROPPED)]
        counts = [
            struct.unpack(f"{self._order}Q", value)[0] if len(value) == 8 else None
            for value in values
        ]
        at_ns = self._interface(number).nanoseconds(high << 32 | low)
        self.statistics[number] = Statistics(number, counts[0], counts[1], at_ns)

    def _interface(self, number: int) -> Interface:
        if number >= len(self.interfaces):
            text = f"the section has {len(self.interfaces)} interfaces so far, got number {number}"
            raise PacketError(NAME, text)
        return self.interfaces[number]

    @staticmethod
    def _check_taken(taken: int, room: int) -> None:
        if taken > room:
            text = f"a captured length of {taken}, of {room} bytes that the block has"
            raise PacketError(NAME, text)

    def _options(self, block: bytes, at: int) -> dict[int, bytes]:
        """Return the first value of each option from *at* on."""
        found: dict[int, bytes] = {}
        end = len(block) - 4
        while at + 4 <= end:
            code, size = struct.unpack_from(f"{self._order}HH", block, at)
            if code == _END:
                break
            at += 4
            if size > end - at:
                text = f"option {code} has a length of {size}, of {end - at} bytes that are left"
                raise PacketError(NAME, text)
            found.setdefault(code, block[at : at + size])
            at += size + -size % 4
        return found
