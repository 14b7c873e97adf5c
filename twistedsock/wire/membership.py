"""What IGMPv3 and MLDv2 share: group records, lists of sources, floating codes.

A record (RFC 9776 section 4.2.4, RFC 9777 section 5.2.4), whose addresses have 4 or 16 bytes:

    +---------------+---------------+-------------------------------+
    |  Record Type  |  Aux Data Len |     Number of Sources (N)     |
    +---------------+---------------+-------------------------------+
    |                       Multicast Address                       |
    |                     Source Address [1..N]                     |
    |                        Auxiliary Data                         |
    +---------------------------------------------------------------+

Knows bytes; never a message's type.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from twistedsock.errors import PacketError
from twistedsock.wire.fields import ADDRESS_BYTES, address_bytes, ipv4_text, ipv6_text, require_bits

# RFC 9776 section 4.2.13, RFC 9777 section 5.2.12
IS_INCLUDE, IS_EXCLUDE, TO_INCLUDE, TO_EXCLUDE, ALLOW_SOURCES, BLOCK_SOURCES = 1, 2, 3, 4, 5, 6
CHANGES: dict[int, str] = {
    IS_INCLUDE: "is include",
    IS_EXCLUDE: "is exclude",
    TO_INCLUDE: "to include",
    TO_EXCLUDE: "to exclude",
    ALLOW_SOURCES: "allow new sources",
    BLOCK_SOURCES: "block old sources",
}
MAX_TOLD = 3  # records or sources in a line for people
_WORD_BYTES = 4  # what the length of auxiliary data counts
_RECORD = struct.Struct("!BBH")
_QUERY_END = struct.Struct("!BBH")  # flags, S and QRV; QQIC; number of sources
_QUERY_WIDTHS = {"flags": 4, "robustness": 3, "qqic": 8, "missing_sources": 16}


@dataclass(frozen=True, slots=True)
class Record:
    """What a host says of one group.

    Attributes:
        kind: The record type, such as ``TO_EXCLUDE``; what no RFC names is kept, too.
        group: The multicast address.
        sources: Those that it includes or excludes.
        auxiliary: No version of the protocols has any; whole words of 4 bytes.
        missing_sources: Announced, and cut off.
        missing_words: Of the auxiliary data, likewise.
    """

    kind: int
    group: str
    sources: tuple[str, ...] = ()
    auxiliary: bytes = b""
    missing_sources: int = 0
    missing_words: int = 0

    def describe(self) -> str:
        """Return such as ``239.1.1.1 to exclude {}``."""
        change = CHANGES.get(self.kind, f"type {self.kind}")
        return f"{self.group} {change} {{{listed(self.sources)}}}"


class Querying:
    """The fields of a query of every version; see the classes that have them."""

    __slots__ = ()
    protocol: ClassVar[str]
    group: str
    version: int
    suppress: bool
    robustness: int
    qqic: int
    sources: tuple[str, ...]
    flags: int
    additional_data: bytes
    missing_sources: int

    @property
    def interval_s(self) -> int:
        """The querier's interval that *qqic* stands for; 0 for none told."""
        return floating(self.qqic, 8)

    def _end_to_bytes(self, ip_version: int) -> bytes:
        """Return what follows the group in the version that has sources."""
        require_bits(self.protocol, self, _QUERY_WIDTHS)
        number = len(self.sources) + self.missing_sources
        if number > 0xFFFF:
            raise PacketError(self.protocol, f"at most 65535 sources, got {number}")
        if self.missing_sources and self.additional_data:
            text = "additional data cannot follow sources that are cut off"
            raise PacketError(self.protocol, text)
        first = self.flags << 4 | self.suppress << 3 | self.robustness
        sources = _write_sources(self.protocol, self.sources, ip_version)
        return _QUERY_END.pack(first, self.qqic, number) + sources + self.additional_data

    def _has_end(self) -> bool:
        """Return whether a field is set that older versions do not have."""
        numbers = self.suppress, self.robustness, self.qqic, self.flags, self.missing_sources
        return any(numbers) or bool(self.sources or self.additional_data)

    def _told(self, is_general: bool, response: str) -> str:
        """Return what is asked for, and how soon the answer may come, for people."""
        of = "general query" if is_general else f"query of {self.group}"
        sources = f" from {listed(self.sources)}" if self.sources else ""
        return f"v{self.version} {of}{sources}, to be answered within {response}"


def read_query_end(
    data: bytes, ip_version: int
) -> tuple[bool, int, int, tuple[str, ...], int, bytes, int]:
    """Return the fields of ``Querying`` from *suppress* on, of what follows the group."""
    size = ADDRESS_BYTES[ip_version]
    first, qqic, number = _QUERY_END.unpack_from(data)
    sources = _read_sources(data, _QUERY_END.size, number, size)
    missing = number - len(sources)
    additional = b"" if missing else data[_QUERY_END.size + number * size :]
    return bool(first & 8), first & 7, qqic, sources, first >> 4, additional, missing


def listed(texts: Sequence[str]) -> str:
    """Return the first of *texts* with commas, and how many more there are."""
    more = f", {len(texts) - MAX_TOLD} more" if len(texts) > MAX_TOLD else ""
    return ", ".join(texts[:MAX_TOLD]) + more


def _text(packed: bytes) -> str:
    """Return the text of an address of 4 or 16 bytes."""
    return ipv4_text(packed) if len(packed) == 4 else ipv6_text(packed)


def _read_sources(data: bytes, start: int, count: int, size: int) -> tuple[str, ...]:
    """Return *count* addresses of *size* bytes from *start* on, or as many as are whole."""
    end = min(start + count * size, len(data) - size + 1)
    return tuple(_text(data[at : at + size]) for at in range(start, end, size))


def _write_sources(protocol: str, sources: Sequence[str], version: int) -> bytes:
    """Return *sources*, addresses of that version of IP, one after the other.

    Raises:
        PacketError: One is none.
    """
    return b"".join(address_bytes(protocol, "sources", each, version) for each in sources)


class Reporting:
    """The fields of a report of many groups; see the classes that have them."""

    __slots__ = ()
    protocol: ClassVar[str]
    records: tuple[Record, ...]
    flags: int
    additional_data: bytes
    missing_records: int

    def _records_to_bytes(self, ip_version: int) -> bytes:
        """Return what follows the checksum."""
        require_bits(self.protocol, self, {"flags": 16, "missing_records": 16})
        number = len(self.records) + self.missing_records
        if number > 0xFFFF:
            raise PacketError(self.protocol, f"at most 65535 records, got {number}")
        last = self.records[-1:]
        if (self.missing_records or any(map(_is_cut, last))) and self.additional_data:
            text = "additional data cannot follow records that are cut off"
            raise PacketError(self.protocol, text)
        records = _write_records(self.protocol, self.records, ip_version)
        return struct.pack("!HH", self.flags, number) + records + self.additional_data

    def _missing_bytes(self, address_size: int) -> int:
        """Return what is missing of the last record, and the heads of those after it."""
        heads = self.missing_records * (_RECORD.size + address_size)
        cut = (
            each.missing_sources * address_size + each.missing_words * _WORD_BYTES
            for each in self.records[-1:]
        )
        return heads + sum(cut)

    def _told(self) -> str:
        """Return how many records there are, and the first of them, for people."""
        number = len(self.records) + self.missing_records
        shown = "; ".join(each.describe() for each in self.records[:MAX_TOLD])
        more = "; ..." if len(self.records) > MAX_TOLD else ""
        return f"{number} record{'s' * (number != 1)}{': ' * bool(shown)}{shown}{more}"


def _is_cut(record: Record) -> bool:
    return bool(record.missing_sources or record.missing_words)


def read_report(data: bytes, ip_version: int) -> tuple[tuple[Record, ...], int, bytes, int]:
    """Return the fields of ``Reporting``, of what follows the checksum."""
    flags, number = struct.unpack_from("!HH", data)
    records, end = _read_records(data[4:], number, ip_version)
    missing = number - len(records)
    is_cut = missing or any(map(_is_cut, records[-1:]))
    return records, flags, b"" if is_cut else data[4 + end :], missing


def _read_records(data: bytes, count: int, version: int) -> tuple[tuple[Record, ...], int]:
    """Return the records at the front of *data*, *count* or as many as begin there; and their end.

    The last may be cut off; then it tells what is missing.
    """
    size = ADDRESS_BYTES[version]
    found: list[Record] = []
    position = 0
    while len(found) < count and position + _RECORD.size + size <= len(data):
        kind, words, number = _RECORD.unpack_from(data, position)
        group = _text(data[position + _RECORD.size : position + _RECORD.size + size])
        position += _RECORD.size + size
        sources = _read_sources(data, position, number, size)
        position += number * size
        auxiliary = data[position : position + words * _WORD_BYTES]
        whole = len(auxiliary) // _WORD_BYTES
        position += words * _WORD_BYTES
        missing = number - len(sources), words - whole
        found.append(Record(kind, group, sources, auxiliary[: whole * _WORD_BYTES], *missing))
    return tuple(found), position


def _write_records(protocol: str, records: Sequence[Record], version: int) -> bytes:
    """Return *records* one after the other.

    Raises:
        PacketError: A field does not fit, or something is missing from one before the last.
    """
    parts = []
    for index, record in enumerate(records):
        numbers = {"kind": 8, "missing_sources": 16, "missing_words": 8}
        require_bits(protocol, record, numbers)
        if _is_cut(record) and index < len(records) - 1:
            raise PacketError(protocol, "only the last record can be cut off")
        if record.missing_sources and record.auxiliary:
            raise PacketError(protocol, "auxiliary data cannot follow sources that are cut off")
        words, more = divmod(len(record.auxiliary), _WORD_BYTES)
        words += record.missing_words
        number = len(record.sources) + record.missing_sources
        if more or words > 0xFF or number > 0xFFFF:
            text = (
                "a record has at most 65535 sources and 255 words of 4 bytes of auxiliary data,"
                f" got {number} and {len(record.auxiliary)} bytes"
            )
            raise PacketError(protocol, text)
        parts.append(_RECORD.pack(record.kind, words, number))
        parts.append(address_bytes(protocol, "group", record.group, version))
        parts.append(_write_sources(protocol, record.sources, version) + record.auxiliary)
    return b"".join(parts)


def floating(code: int, bits: int) -> int:
    """Return the number that a code of 8 or 16 bits stands for.

    Below half its range a code is the number. Above it is 1, three bits of exponent, and a
    mantissa (RFC 9776 section 4.1.1, RFC 9777 section 5.1.3).
    """
    if code < 1 << (bits - 1):
        return code
    mantissa_bits = bits - 4
    mantissa = code & (1 << mantissa_bits) - 1
    return (mantissa | 1 << mantissa_bits) << ((code >> mantissa_bits & 7) + 3)


def floating_code(protocol: str, name: str, number: int, bits: int) -> int:
    """Return the code of 8 or 16 bits for *number*, or for the next below that has one.

    Raises:
        PacketError: *number*, which is *name*, is negative or above the largest code's.
    """
    largest = floating((1 << bits) - 1, bits)
    if not 0 <= number <= largest:
        raise PacketError(protocol, f"{name} must be 0..{largest}, got {number}")
    if number < 1 << (bits - 1):
        return number
    mantissa_bits = bits - 4
    exponent = number.bit_length() - 1 - mantissa_bits - 3
    mantissa = number >> (exponent + 3) & (1 << mantissa_bits) - 1
    return 1 << (bits - 1) | exponent << mantissa_bits | mantissa


def qqic_of(protocol: str, interval_s: int) -> int:
    """Return the Querier's Query Interval Code of whole seconds, or of the next below.

    Raises:
        PacketError: It is negative or above 31744 s.
    """
    return floating_code(protocol, "interval_s", interval_s, 8)
