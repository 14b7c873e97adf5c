"""Multicast listener discovery. The oracles are scapy, the kernel, and bytes by hand."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest
from codec_laws import long, obey_all, obeys, quick, tried
from hypothesis import given
from hypothesis import strategies as st
from networks import Network, index_on, network, open_on
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
)

from twistedsock.errors import PacketError
from twistedsock.wire import icmpv6, mld
from twistedsock.wire.ipv6 import parse as parse_ipv6
from twistedsock.wire.membership import TO_EXCLUDE, Record

__all__ = ["network"]
ADDRESSES = ("fe80::1", "ff02::16")
GROUP, SOURCES = "ff15::1", ("2001:db8::7", "2001:db8::8")


def built(message: Any) -> bytes:
    """Return what scapy builds between ADDRESSES."""
    return bytes(IPv6(src=ADDRESSES[0], dst=ADDRESSES[1]) / message)[40:]


# what scapy builds, and what it is
PAIRS: list[tuple[bytes, mld.Value]] = [
    (built(ICMPv6MLQuery(mrd=10000)), mld.Query("::", 10000, 1)),
    (built(ICMPv6MLQuery(mrd=65535, mladdr=GROUP)), mld.Query(GROUP, 65535, 1)),
    (built(ICMPv6MLQuery2(mrd=0x8ABC)), mld.Query("::", 0x8ABC)),
    (
        built(ICMPv6MLQuery2(mrd=1, mladdr=GROUP, S=1, QRV=2, QQIC=125, sources=list(SOURCES))),
        mld.Query(GROUP, 1, 2, True, 2, 125, SOURCES),
    ),
    (built(ICMPv6MLReport(mladdr=GROUP)), mld.Report1(GROUP)),
    (built(ICMPv6MLDone(mladdr=GROUP)), mld.Done(GROUP)),
    (built(ICMPv6MLReport2()), mld.Report2()),
    (
        built(
            ICMPv6MLReport2(
                records=[
                    ICMPv6MLDMultAddrRec(rtype=4, dst=GROUP),
                    ICMPv6MLDMultAddrRec(rtype=6, dst="ff35::1", sources=list(SOURCES)),
                ]
            )
        ),
        mld.Report2((Record(4, GROUP), Record(6, "ff35::1", SOURCES))),
    ),
]
AUXILIARY = mld.Report2((Record(6, GROUP, SOURCES, b"8 bytes."), Record(5, GROUP)), 0x8000, b"?")
VALID = [data for data, _ in PAIRS] + [AUXILIARY.to_bytes()]
KINDS = [130, 131, 132, 143]


def parse(data: bytes) -> mld.Value:
    """Return the message in *data*, which is between ADDRESSES."""
    return mld.parse(data, *ADDRESSES)


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_scapy_builds_is_parsed(data: bytes, value: mld.Value) -> None:
    """Each message of scapy is the value of its fields, also by way of ICMPv6's parse."""
    found = parse(data)
    assert found == parse(bytearray(data)) == parse(memoryview(data)) == value
    assert icmpv6.parse(data, *ADDRESSES) == found
    assert type(found) is type(value)
    assert found.checksum == int.from_bytes(data[2:4], "big")
    assert (found.is_intact, value.is_intact, mld.parse(data).is_intact) == (True, None, None)
    assert mld.parse(data, "fe80::2", ADDRESSES[1]).is_intact is False


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_is_written_is_what_scapy_builds(data: bytes, value: mld.Value) -> None:
    """Each value is byte for byte what scapy builds; without addresses the checksum is zero."""
    assert value.to_bytes(*ADDRESSES) == data
    assert value.to_bytes() == data[:2] + b"\0\0" + data[4:]


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.binary(min_size=16, max_size=16),
        st.lists(st.binary(min_size=16, max_size=16), max_size=3),
    ),
    max_size=3,
)


@given(RECORDS)
@quick
def test_any_report_is_scapys(drawn: list[tuple[int, bytes, list[bytes]]]) -> None:
    """Any records are byte for byte what scapy builds of them, both ways."""
    texts = [
        (kind, socket.inet_ntop(socket.AF_INET6, to), [socket.inet_ntop(10, each) for each in many])
        for kind, to, many in drawn
    ]
    records = [ICMPv6MLDMultAddrRec(rtype=kind, dst=to, sources=many) for kind, to, many in texts]
    data = built(ICMPv6MLReport2(records=records))
    value = mld.Report2(tuple(Record(kind, to, tuple(many)) for kind, to, many in texts))
    assert value.to_bytes(*ADDRESSES) == data
    # inet_ntop writes some addresses with dots, which ipaddress may not
    assert mld.parse(data).to_bytes(*ADDRESSES) == data


def test_auxiliary_data_counts_words() -> None:
    """A record's auxiliary data is in words of 4 bytes; scapy counts bytes, the RFC does not."""
    record = struct.pack("!BBH", 6, 2, 0) + socket.inet_pton(socket.AF_INET6, GROUP) + b"8 bytes."
    found = mld.parse(b"\x8f\0\0\0\0\0\0\1" + record + b"more")
    assert found == mld.Report2((Record(6, GROUP, (), b"8 bytes."),), additional_data=b"more")


def test_what_is_cut_off_tells_what_is_missing() -> None:
    """A report and a query that are cut off have what is whole, and the bytes that are not."""
    found = parse(AUXILIARY.to_bytes(*ADDRESSES)[:-23])
    record = Record(6, GROUP, SOURCES, b"8 by", missing_words=1)
    assert found == mld.Report2((record,), 0x8000, missing_records=1)
    assert isinstance(found, mld.Report2)
    assert (found.missing_bytes, found.is_intact) == (4 + 20, None)
    query = mld.parse(PAIRS[3][0][:-5])
    assert isinstance(query, mld.Query)
    assert (query.sources, query.missing_sources, query.missing_bytes) == (SOURCES[:1], 1, 16)


def test_floating_codes_are_the_rfcs() -> None:
    """Each Maximum Response Code stands for what RFC 9777 section 5.1.3 says, and back."""
    for code in range(1 << 16):
        thousandths = code
        if code >> 15:
            thousandths = ((code & 0xFFF) | 0x1000) << ((code >> 12 & 7) + 3)
        assert mld.Query(max_response_code=code).max_response_s == thousandths / 1000
        assert mld.max_response_code(thousandths / 1000) == code
    assert mld.max_response_code(32.775) == 0x8000  # the next below
    assert mld.Query(version=1, max_response_code=0x8ABC).max_response_s == 35.516
    assert mld.max_response_code(65.535, 1) == 65535


@pytest.mark.parametrize(
    ("seconds", "version", "text"),
    [
        (8388, 2, "mld: thousandths of a second must be 0..8387584, got 8388000"),
        (66, 1, "mld: version 1 has 0s..65.535s; got 66s in version 1"),
    ],
)
def test_a_time_that_no_code_reaches_is_refused(seconds: float, version: int, text: str) -> None:
    """A time that cannot be told is refused with those that can."""
    with pytest.raises(PacketError) as caught:
        mld.max_response_code(seconds, version)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a message has 24 bytes at least, got 0"),
        (b"\x80" + bytes(30), "type must be one of 130, 131, 132, 143, got 128"),
        (b"\x82" + bytes(22), "multicast listener query has 24 bytes at least, got 23"),
        (b"\x82" + bytes(24), "a query has 24 bytes, or 28 at least, got 25"),
        (b"\x82" + bytes(26), "a query has 24 bytes, or 28 at least, got 27"),
        (b"\x84", "multicast listener done has 24 bytes at least, got 1"),
        (b"\x8f\0\0\0\0\0\0", "multicast listener report v2 has 8 bytes at least, got 7"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, text: str) -> None:
    """What is too short, or a query of no version (RFC 9777 section 8.1), says why."""
    with pytest.raises(PacketError) as caught:
        mld.parse(data)
    assert str(caught.value) == f"mld: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (mld.Query(max_response_code=65536), "max_response_code must be 0..65535, got 65536"),
        (mld.Query(version=3), "version must be 1 or 2, got 3"),
        (mld.Query(version=1, qqic=1), "a query of version 1 has a group and a code alone"),
        (mld.Query("239.1.1.1"), "group must be an IPv6 address, got '239.1.1.1'"),
        (mld.Done("x"), "group must be an IPv6 address, got 'x'"),
        (mld.Report2((Record(1, "239.1.1.1"),)), "group must be an IPv6 address, got '239.1.1.1'"),
    ],
)
def test_what_does_not_fit_is_refused(value: mld.Value, text: str) -> None:
    """A field that does not fit is named, with what would be right; describing it still works."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"mld: {text}"
    assert value.describe().startswith("MLDv")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (mld.Query("::", 10000, 1), "MLDv1 general query, to be answered within 10s"),
        (
            mld.Query(GROUP, 1000, sources=SOURCES),
            "MLDv2 query of ff15::1 from 2001:db8::7, 2001:db8::8, to be answered within 1s",
        ),
        (mld.Report1(GROUP), "MLDv1 report of ff15::1"),
        (mld.Done(GROUP), "MLDv1 done with ff15::1"),
        (
            mld.Report2((Record(4, GROUP),) * 70),
            "MLDv2 report 70 records: ff15::1 to exclude {}; ff15::1 to exclude {};"
            " ff15::1 to exclude {}; ...",
        ),
    ],
)
def test_a_message_is_one_line(value: mld.Value, line: str) -> None:
    """The line has what people look for, and is bounded however many records there are."""
    assert value.describe() == line


@pytest.mark.parametrize("data", VALID)
def test_every_truncation_is_a_value_or_an_error(data: bytes) -> None:
    """A message cut off at any length is a value that is written again, or a PacketError."""
    for length in range(len(data) + 1):
        obeys(data[:length], parse, *ADDRESSES)


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_a_value_or_an_error(drawn: bytes) -> None:
    """Random bytes, and valid messages with bytes changed, keep the laws of the codecs."""
    obeys(tried(drawn, KINDS, VALID), parse, *ADDRESSES)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@long
def test_very_many_bytes_are_a_value_or_an_error(seed: int) -> None:
    """The same of 100,000 messages."""
    obey_all(seed, parse, KINDS, VALID, *ADDRESSES)


def test_the_kernels_report_is_parsed(network: Network) -> None:
    """What the kernel sends when a group is joined is a version 2 report of that group."""
    with (
        open_on(network.there, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD)) as wire,
        open_on(network.here, socket.AF_INET6, socket.SOCK_DGRAM) as member,
    ):
        group = socket.inet_pton(socket.AF_INET6, "ff15::99")
        where = struct.pack("@I", index_on(network.here))
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + where)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            packet = parse_ipv6(wire.recv(65535))
            if packet.protocol != socket.IPPROTO_ICMPV6 or packet.payload[0] != mld.REPORT_2:
                continue
            found = icmpv6.parse(packet.payload, packet.source, packet.destination)
            assert isinstance(found, mld.Report2)
            if Record(TO_EXCLUDE, "ff15::99") in found.records:
                assert found.is_intact is True
                assert found.to_bytes(packet.source, packet.destination) == packet.payload
                return
    raise AssertionError("the report was not heard")
