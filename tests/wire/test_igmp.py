"""IGMP. The oracles are scapy, the kernel, and bytes by hand."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from codec_laws import long, obey_all, obeys, quick, tried
from hypothesis import given
from hypothesis import strategies as st
from networks import HERE, Network, network, open_on
from scapy.layers.igmp import (
    IGMP,
    IGMP_MQ,
    IGMP_MR,
    IGMPv2_LG,
    IGMPv2_MR,
    IGMPv3_MQ,
    IGMPv3_MR,
    IGMPv3_MR_Group,
    IGMPv3_MRA,
)
from scapy.utils import checksum

from twistedsock.errors import PacketError
from twistedsock.wire import igmp
from twistedsock.wire.ipv4 import parse as parse_ipv4
from twistedsock.wire.membership import CHANGES, TO_EXCLUDE, Record

__all__ = ["network"]
GROUP, SOURCES = "239.1.1.1", ("192.0.2.7", "192.0.2.8")
# what scapy builds, and what it is
PAIRS: list[tuple[bytes, igmp.Value]] = [
    (bytes(IGMP_MQ(mrcode=0)), igmp.Query(version=1)),
    (bytes(IGMP_MQ(mrcode=10, gaddr=GROUP)), igmp.Query(GROUP, 2, code=10)),
    (bytes(IGMPv3_MQ(mrcode=10)), igmp.Query(code=10)),
    (
        bytes(IGMPv3_MQ(mrcode=1000, gaddr=GROUP, s=1, qrv=2, qqic=125, srcaddrs=list(SOURCES))),
        igmp.Query(GROUP, 3, True, 2, 125, SOURCES, code=0xAF),
    ),
    (
        bytes(IGMPv3_MQ(mrcode=10, flags=8) / b"more"),
        igmp.Query(flags=8, additional_data=b"more", code=10),
    ),
    (bytes(IGMP_MR(mrcode=0, gaddr=GROUP)), igmp.Report1(GROUP)),
    (bytes(IGMPv2_MR(mrcode=0, gaddr=GROUP)), igmp.Report2(GROUP)),
    (bytes(IGMPv2_LG(mrcode=0, gaddr=GROUP)), igmp.Leave(GROUP)),
    (bytes(IGMPv3_MR()), igmp.Report3()),
    (
        bytes(
            IGMPv3_MR(
                records=[
                    IGMPv3_MR_Group(rtype=4, maddr=GROUP),
                    IGMPv3_MR_Group(rtype=1, maddr="232.1.1.1", srcaddrs=list(SOURCES)),
                    IGMPv3_MR_Group(rtype=77, maddr="0.0.0.0"),
                ]
            )
        ),
        igmp.Report3((Record(4, GROUP), Record(1, "232.1.1.1", SOURCES), Record(77, "0.0.0.0"))),
    ),
    (bytes(IGMPv3_MRA(advIntvl=20, qryIntvl=1, robust=2)), igmp.Other(0x30, b"\0\1\0\2", code=20)),
]  # fmt: skip
AUXILIARY = igmp.Report3((Record(6, GROUP, SOURCES, b"8 bytes."), Record(5, GROUP)), 0x8000, b"?")
VALID = [data for data, _ in PAIRS] + [AUXILIARY.to_bytes()]
KINDS = [0x11, 0x12, 0x16, 0x17, 0x22, 0x30]


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_scapy_builds_is_parsed(data: bytes, value: igmp.Value) -> None:
    """Each message of scapy is the value of its fields, with a right checksum."""
    found = igmp.parse(data)
    assert found == igmp.parse(bytearray(data)) == igmp.parse(memoryview(data)) == value
    assert type(found) is type(value)
    assert found.checksum == int.from_bytes(data[2:4], "big")
    assert (found.is_intact, value.is_intact) == (True, None)


@pytest.mark.parametrize(("data", "value"), PAIRS)
def test_what_is_written_is_what_scapy_builds(data: bytes, value: igmp.Value) -> None:
    """Each value is written byte for byte as scapy builds it, and scapy reads it as the same."""
    written = value.to_bytes()
    assert written == data
    dissected = IGMP(written)
    assert dissected.type == value.type
    assert dissected.chksum == checksum(written[:2] + b"\0\0" + written[4:])


ADDRESSES = st.integers(0, 2**32 - 1).map(
    lambda number: socket.inet_ntoa(struct.pack("!I", number))
)
RECORDS = st.lists(
    st.tuples(st.integers(0, 255), ADDRESSES, st.lists(ADDRESSES, max_size=3)), max_size=4
)


@given(RECORDS)
@quick
def test_any_report_is_scapys(drawn: list[tuple[int, str, list[str]]]) -> None:
    """Any records are byte for byte what scapy builds of them, both ways."""
    groups = [IGMPv3_MR_Group(rtype=kind, maddr=to, srcaddrs=many) for kind, to, many in drawn]
    built = bytes(IGMPv3_MR(records=groups))
    value = igmp.Report3(tuple(Record(kind, to, tuple(many)) for kind, to, many in drawn))
    assert value.to_bytes() == built
    assert igmp.parse(built) == value


def test_auxiliary_data_is_kept() -> None:
    """A record's auxiliary data, in words of 4 bytes, is skipped by its length and kept."""
    record = (
        struct.pack("!BBH4s", 6, 2, 1, bytes([239, 1, 1, 1])) + bytes([192, 0, 2, 7]) + b"8 bytes."
    )
    message = b"\x22\0\0\0\0\0\0\2" + record + struct.pack("!BBH4s", 4, 0, 0, bytes(4))
    found = igmp.parse(message)
    expected = (Record(6, GROUP, SOURCES[:1], b"8 bytes."), Record(4, "0.0.0.0"))
    assert found == igmp.Report3(expected)
    assert found.is_intact is False
    assert found.to_bytes()[8:] == message[8:]


def test_what_is_cut_off_tells_what_is_missing() -> None:
    """A report and a query that are cut off have what is whole, and the bytes that are not."""
    found = igmp.parse(AUXILIARY.to_bytes()[:22])
    record = Record(6, GROUP, SOURCES[:1], missing_sources=1, missing_words=2)
    assert found == igmp.Report3((record,), 0x8000, missing_records=1)
    assert isinstance(found, igmp.Report3)
    assert (found.missing_bytes, found.is_intact) == (12 + 8, None)
    query = igmp.parse(PAIRS[3][0][:-5])
    assert isinstance(query, igmp.Query)
    assert (query.sources, query.missing_sources, query.missing_bytes) == ((), 2, 8)
    lying = igmp.parse(b"\x22\0\0\0\0\0\xff\xff")
    assert lying == igmp.Report3(missing_records=65535)


# -- codes --


@pytest.mark.parametrize("code", range(256))
def test_floating_codes_are_scapys(code: int) -> None:
    """Each Max Resp Code of version 3 stands for the tenths that scapy gives it, and back."""
    message = b"\x11%c" % code + bytes(10)
    value = igmp.parse(message)
    assert isinstance(value, igmp.Query)
    tenths = code if code < 128 else ((code & 15) | 16) << ((code >> 4 & 7) + 3)  # RFC 9776 4.1.1
    assert value.max_resp_s == tenths / 10
    assert IGMPv3_MQ(bytes(IGMPv3_MQ(mrcode=tenths))).build()[1] == code
    assert igmp.max_resp_code(value.max_resp_s) == code
    assert value.to_bytes()[1] == code
    assert igmp.Query(qqic=code).interval_s == tenths


@pytest.mark.parametrize(("seconds", "code"), [(0, 0), (12.7, 127), (12.9, 128), (3174.4, 255)])
def test_a_time_without_a_code_is_the_next_below(seconds: float, code: int) -> None:
    """What no code stands for is never told longer than it is."""
    assert igmp.max_resp_code(seconds) == code
    assert igmp.Query(code=code).max_resp_s <= seconds


def test_older_versions_tell_tenths() -> None:
    """Version 2 tells plain tenths; version 1 tells none, which stands for 10 s."""
    assert igmp.Query(version=1).max_resp_s == 10
    assert igmp.Query(version=2, code=255).max_resp_s == 25.5
    assert igmp.max_resp_code(25.5, 2) == 255


@pytest.mark.parametrize(
    ("seconds", "version", "text"),
    [
        (3174.5, 3, "igmp: tenths of a second must be 0..31744, got 31745"),
        (-1, 3, "igmp: tenths of a second must be 0..31744, got -10"),
        (25.6, 2, "igmp: version 2 has 0.1s..25.5s, version 1 none; got 25.6s in version 2"),
        (10, 1, "igmp: version 2 has 0.1s..25.5s, version 1 none; got 10s in version 1"),
    ],
)
def test_a_time_that_no_code_reaches_is_refused(seconds: float, version: int, text: str) -> None:
    """A time that cannot be told is refused with those that can."""
    with pytest.raises(PacketError) as caught:
        igmp.max_resp_code(seconds, version)
    assert str(caught.value) == text


# -- versions and faults --


@pytest.mark.parametrize(
    ("length", "code", "version"), [(8, 0, 1), (8, 1, 2), (12, 0, 3), (12, 1, 3), (200, 9, 3)]
)
def test_the_version_of_a_query_is_told_by_length_and_code(
    length: int, code: int, version: int
) -> None:
    """RFC 9776 section 7.1."""
    found = igmp.parse(b"\x11%c" % code + bytes(length - 2))
    assert isinstance(found, igmp.Query)
    assert found.version == version


@pytest.mark.parametrize("length", [9, 10, 11])
def test_a_query_that_every_version_ignores_is_other(length: int) -> None:
    """A query between the lengths of version 2 and 3 is of no version, and is written again."""
    found = igmp.parse(b"\x11" + bytes(length - 1))
    assert found == igmp.Other(0x11, bytes(length - 4))
    assert igmp.parse(found.to_bytes()) == found


def test_more_than_the_group_is_left_out_of_old_versions() -> None:
    """What follows the group of a leave counts in its checksum alone (RFC 2236 section 2.5)."""
    data = b"\x17\0\0\0\xef\1\1\1more"
    data = data[:2] + struct.pack("!H", checksum(data)) + data[4:]
    found = igmp.parse(data)
    assert found == igmp.Leave(GROUP)
    assert found.is_intact is True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (igmp.Query(version=1, code=1), "the code of a version 1 query must be 0, got 1"),
        (igmp.Query(version=2), "the code of a version 2 query must be 1..255, got 0"),
        (igmp.Query(version=4), "version must be 1, 2 or 3, got 4"),
        (
            igmp.Query(version=2, qqic=1, code=1),
            "a query of version 2 has a group and a code alone",
        ),
        (igmp.Query(code=256), "code must be 0..255, got 256"),
        (igmp.Query(robustness=8), "robustness must be 0..7, got 8"),
        (igmp.Query(flags=16), "flags must be 0..15, got 16"),
        (igmp.Query("ff02::1"), "group must be an IPv4 address, got 'ff02::1'"),
        (igmp.Query(sources=("x",)), "sources must be an IPv4 address, got 'x'"),
        (igmp.Query(sources=(GROUP,) * 65536), "at most 65535 sources, got 65536"),
        (igmp.Query(sources=(GROUP,) * 20000), "at most 65535 bytes in all, got 80012"),
        (
            igmp.Query(additional_data=b"x", missing_sources=1),
            "additional data cannot follow sources that are cut off",
        ),
        (igmp.Report2("nobody"), "group must be an IPv4 address, got 'nobody'"),
        (igmp.Report3((Record(256, GROUP),)), "kind must be 0..255, got 256"),
        (igmp.Report3(flags=-1), "flags must be 0..65535, got -1"),
        (
            igmp.Report3((Record(1, GROUP, missing_words=1), Record(1, GROUP))),
            "only the last record can be cut off",
        ),
        (
            igmp.Report3((Record(1, GROUP, (), b"1234", missing_sources=1),)),
            "auxiliary data cannot follow sources that are cut off",
        ),
        (
            igmp.Report3((Record(1, GROUP, (), b"123"),)),
            "a record has at most 65535 sources and 255 words of 4 bytes of auxiliary data,"
            " got 0 and 3 bytes",
        ),
        (
            igmp.Report3((Record(1, GROUP),), missing_records=65535),
            "at most 65535 records, got 65536",
        ),
        (
            igmp.Report3(additional_data=b"x", missing_records=1),
            "additional data cannot follow records that are cut off",
        ),
        (igmp.Other(0x22, bytes(4)), "type 34, v3 membership report, has a class of its own"),
        (igmp.Other(0x11, bytes(4)), "type 17, membership query, has a class of its own"),
        (igmp.Other(0x99, bytes(3)), "a message has 8 bytes at least, got 7"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(value: igmp.Value, text: str) -> None:
    """A field that does not fit is named, with what would be right; describing it still works."""
    with pytest.raises(PacketError) as caught:
        value.to_bytes()
    assert str(caught.value) == f"igmp: {text}"
    assert value.describe().startswith("IGMP")


@pytest.mark.parametrize("length", range(8))
def test_what_is_too_short_is_refused(length: int) -> None:
    """A message has 8 bytes, whatever its type."""
    with pytest.raises(PacketError) as caught:
        igmp.parse(bytes(length))
    assert str(caught.value) == f"igmp: a message has 8 bytes at least, got {length}"


# -- for people --


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (igmp.Query(version=1), "IGMPv1 general query, to be answered within 10s"),
        (igmp.Query(GROUP, 2, code=5), "IGMPv2 query of 239.1.1.1, to be answered within 0.5s"),
        (
            igmp.Query(GROUP, sources=SOURCES, code=100),
            "IGMPv3 query of 239.1.1.1 from 192.0.2.7, 192.0.2.8, to be answered within 10s",
        ),
        (igmp.Report1(GROUP), "IGMPv1 report of 239.1.1.1"),
        (igmp.Report2(GROUP), "IGMPv2 report of 239.1.1.1"),
        (igmp.Leave(GROUP), "IGMPv2 leave of 239.1.1.1"),
        (igmp.Report3(), "IGMPv3 report 0 records"),
        (
            igmp.Report3((Record(4, GROUP),)),
            "IGMPv3 report 1 record: 239.1.1.1 to exclude {}",
        ),
        (
            igmp.Report3((Record(1, GROUP, SOURCES), Record(9, GROUP)), missing_records=1),
            "IGMPv3 report 3 records: 239.1.1.1 is include {192.0.2.7, 192.0.2.8};"
            " 239.1.1.1 type 9 {}",
        ),
        (
            igmp.Report3((Record(4, GROUP),) * 1000),
            "IGMPv3 report 1000 records: 239.1.1.1 to exclude {}; 239.1.1.1 to exclude {};"
            " 239.1.1.1 to exclude {}; ...",
        ),
        (igmp.Other(0x99, b"\n\r\0\0", code=3), "IGMP type 153 code 3 length 8"),
    ],
)
def test_a_message_is_one_line(value: igmp.Value, line: str) -> None:
    """The line has what people look for, and is bounded however many records there are."""
    assert value.describe() == line


def test_many_sources_are_counted() -> None:
    """A record of many sources names the first three."""
    told = Record(1, GROUP, ("1.2.3.4",) * 9).describe()
    assert told == "239.1.1.1 is include {1.2.3.4, 1.2.3.4, 1.2.3.4, 6 more}"


# -- any bytes --


@pytest.mark.parametrize("data", VALID)
def test_every_truncation_is_a_value_or_an_error(data: bytes) -> None:
    """A message cut off at any length is a value that is written again, or a PacketError."""
    for length in range(len(data) + 1):
        obeys(data[:length], igmp.parse)


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_a_value_or_an_error(drawn: bytes) -> None:
    """Random bytes, and valid messages with bytes changed, keep the laws of the codecs."""
    obeys(tried(drawn, KINDS, VALID), igmp.parse)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@long
def test_very_many_bytes_are_a_value_or_an_error(seed: int) -> None:
    """The same of 100,000 messages."""
    obey_all(seed, igmp.parse, KINDS, VALID)


# -- the kernel's --


def test_the_kernels_report_is_parsed(network: Network) -> None:
    """What the kernel sends when a group is joined is a version 3 report of that group."""
    with (
        open_on(network.there, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as wire,
        open_on(network.here, socket.AF_INET, socket.SOCK_DGRAM) as member,
    ):
        wanted = Record(TO_EXCLUDE, "239.9.9.9")
        names = socket.inet_aton("239.9.9.9") + socket.inet_aton(HERE[0])
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, names)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            packet = parse_ipv4(wire.recv(65535))
            if packet.protocol != socket.IPPROTO_IGMP:
                continue
            found = igmp.parse(packet.payload)
            if isinstance(found, igmp.Report3) and wanted in found.records:
                assert found.is_intact is True
                assert found.to_bytes() == packet.payload
                return
    raise AssertionError("the report was not heard")


def test_every_change_has_a_name() -> None:
    """The six record types of RFC 9776 section 4.2.13 have their words."""
    assert CHANGES[TO_EXCLUDE] == "to exclude"
    assert sorted(CHANGES) == [1, 2, 3, 4, 5, 6]
