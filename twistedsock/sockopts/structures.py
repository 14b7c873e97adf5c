"""Forms of values that are structures: how each is written, and its bytes.

The layouts are those of the kernel's headers. What has no spelling of its own is written as
octets: ``bytes`` in a program, ``"hex:0a0b"`` in a text.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from twistedsock.sockopts.memberships import STORAGE_BYTES, storage, text_of
from twistedsock.sockopts.values import (
    MAX_BYTES,
    MAX_UINT,
    Form,
    Raw,
    as_int,
    fitted,
    octets,
    show_octets,
    shown,
    text_bytes,
    wrong,
)

HIDDEN = "(hidden)"  # instead of a secret
HOLDING_KEYS = frozenset({"sctp_authkey", "tcp_ao_add", "tcp_ao_getsockopt", "tls_crypto_info"})
MAX_READ_BYTES = 1024  # socket.getsockopt takes no more
MAX_KEY_BYTES = 80  # linux/tcp.h: TCP_MD5SIG_MAXKEYLEN
FILTER_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k (linux/filter.h)
MAX_FILTER_INSTRUCTIONS = 4096  # linux/filter.h: BPF_MAXINSNS


def show_sockaddr(raw: Raw) -> str:
    """Return the address in a ``struct sockaddr``."""
    if not isinstance(raw, bytes) or len(raw) < 8:
        return show_octets(raw)
    (family,) = struct.unpack_from("=H", raw)
    (port,) = struct.unpack_from("!H", raw, 2)
    if family == socket.AF_INET:
        return f"{ipaddress.IPv4Address(raw[4:8])}:{port}"
    if family == socket.AF_INET6 and len(raw) >= 24:
        return f"[{ipaddress.IPv6Address(raw[8:24])}]:{port}"
    return show_octets(raw)


# -- ports, filters, keys --


def _port_range(_: str) -> Form:
    """A u32: the least port in the lower half, the greatest in the upper (ip(7))."""
    wanted = 'a range of ports such as "40000-40999", or "0-0" for the system\'s'

    def encode(value: object) -> int:
        match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text_of(value, wanted))
        if match is None:
            raise wrong(wanted, value)
        low, high = int(match[1]), int(match[2])
        if max(low, high) > 65535 or (high and low > high):
            raise wrong(wanted, value)
        return as_int(struct.pack("=I", low | high << 16))

    def decode(raw: Raw) -> object:
        number = as_int(raw) & MAX_UINT
        return f"{number & 0xFFFF}-{number >> 16}"

    return Form("port-range", wanted, encode, decode)


def _filter(_: str) -> Form:
    """Classic BPF: here its instructions alone; ``applying`` makes the ``struct sock_fprog``."""
    wanted = "a classic BPF program: what `tcpdump -ddd` prints, or a list of [code, jt, jf, k]"

    def encode(value: object) -> bytes:
        lines = _read_program(value) if isinstance(value, str) else value
        if not isinstance(lines, list | tuple) or not 0 < len(lines) <= MAX_FILTER_INSTRUCTIONS:
            raise wrong(wanted, value)
        try:
            return b"".join(map(_pack_instruction, lines))
        except struct.error:
            raise wrong(wanted, value) from None

    def decode(raw: Raw) -> object:
        assert isinstance(raw, bytes)
        whole = raw[: len(raw) // FILTER_INSTRUCTION.size * FILTER_INSTRUCTION.size]
        return [list(each) for each in FILTER_INSTRUCTION.iter_unpack(whole)]

    return Form("fprog", wanted, encode, decode, 0)


def _read_program(text: str) -> list[list[int]]:
    """Return the instructions of *text*; none where it is no program."""
    lines = [line.split() for line in re.split(r"[\n,;]", text) if line.strip()]
    if not all(re.fullmatch(r"[0-9]{1,10}", word) for line in lines for word in line):
        return []
    program = [[int(word) for word in line] for line in lines]
    if program and len(program[0]) == 1:  # the number of instructions
        [count], *program = program
        return program if count == len(program) else []  # a part was lost in copying
    return program


def _pack_instruction(line: object) -> bytes:
    if not isinstance(line, list | tuple) or any(isinstance(each, bool) for each in line):
        raise struct.error
    return FILTER_INSTRUCTION.pack(*line)


def _icmp_filter(kind: str, words: int) -> Callable[[str], Form]:
    """A bit for each type that is dropped: u32[words] (raw(7); RFC 3542 section 3.2)."""
    most = 32 * words - 1
    wanted = f"a list of the ICMP types to drop, each 0 to {most}"

    def encode(value: object) -> bytes:
        listed = re.findall(r"[^,\s]+", value) if isinstance(value, str) else value
        if not isinstance(listed, list | tuple):
            raise wrong(wanted, value)
        bits = [0] * words
        for each in listed:
            is_text = isinstance(each, str) and re.fullmatch(r"[0-9]{1,3}", each)
            number = int(each) if is_text else each
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
                raise wrong(wanted, value)
            bits[number // 32] |= 1 << number % 32
        return struct.pack(f"={words}I", *bits)

    def decode(raw: Raw) -> object:
        bits = struct.unpack(f"={words}I", fitted(raw, 4 * words))
        return [number for number in range(32 * words) if bits[number // 32] >> number % 32 & 1]

    return lambda _: Form(kind, wanted, encode, decode, 4 * words)


def _md5_key(_: str) -> Form:
    """``struct tcp_md5sig`` (linux/tcp.h): the peer's address, flags, prefix, and a key.

    sockaddr_storage, u8 flags, u8 prefixlen, u16 keylen, int ifindex, u8 key[80].
    """
    wanted = '{ address = "10.0.0.1", key = "..." }, with prefix = 24 for a whole network'

    def encode(value: object) -> bytes:
        if not isinstance(value, Mapping) or not {"address", "key"} <= set(value) <= {
            "address",
            "key",
            "prefix",
        }:
            raise ValueError(f"must be {wanted}")
        address, key, prefix = value["address"], value["key"], value.get("prefix")
        try:
            name = storage(text_of(address, ""), address, "")
        except ValueError:  # what stands here may be the key, by mistake
            raise ValueError("address must be the IP address of the peer") from None
        data = text_bytes(key)
        if not 0 < len(data) <= MAX_KEY_BYTES:
            raise ValueError(f"key must be a text of 1 to {MAX_KEY_BYTES} bytes")
        longest = 128 if ":" in address else 32
        if prefix is not None and (type(prefix) is not int or not 0 <= prefix <= longest):
            raise ValueError(f"prefix must be 0 to {longest}, got {shown(prefix)}")
        flags = 1 if prefix is not None else 0  # TCP_MD5SIG_FLAG_PREFIX
        return name + struct.pack("=BBHi80s", flags, prefix or 0, len(data), 0, data)

    return Form("md5sig", wanted, encode, lambda raw: HIDDEN, is_secret=True)


# -- octets, and what is only read --


def _bytes(parameter: str) -> Form:
    low, _, high = parameter.partition("..")
    least, most = int(low or 0), int(high or low or MAX_BYTES)
    wanted = f'{parameter or "some"} bytes, as in "hex:0a0b"'

    def encode(value: object) -> bytes:
        data = octets(value)
        if not least <= len(data) <= most:
            raise ValueError(f"must be {wanted}, got {len(data)}")
        return data

    return Form(
        "bytes", wanted, encode, show_octets, min(most, MAX_READ_BYTES), low=least, high=most
    )


def _hidden(form: Form) -> Form:
    """Return *form* for a secret, which neither ``decode`` nor a message shows."""

    def encode(value: object) -> Raw:
        try:
            return form.encode(value)
        except ValueError:
            raise ValueError(f"must be {form.wanted}") from None

    return replace(form, encode=encode, decode=lambda raw: HIDDEN, is_secret=True)


def _key(parameter: str) -> Form:
    return replace(_hidden(_bytes(parameter)), kind="key")


def _struct(parameter: str) -> Form:
    wanted = f'the bytes of a struct {parameter}, as in "hex:0a0b"'
    form = Form("struct", wanted, octets, show_octets, MAX_READ_BYTES)
    return _hidden(form) if parameter in HOLDING_KEYS else form


def _only_read(kind: str, size: int, decode: Callable[[Raw], object]) -> Callable[[str], Form]:
    def encode(value: object) -> Raw:
        raise ValueError("can only be read")

    return lambda _: Form(kind, "nothing: it is read only", encode, decode, size)


def _ucred(raw: Raw) -> object:
    """``struct ucred { pid_t pid; uid_t uid; gid_t gid; }`` (unix(7)); -1 where unknown."""
    pid, uid, gid = struct.unpack("=iii", fitted(raw, 12))
    return {"pid": pid, "uid": uid, "gid": gid}


def _numbers(code: str) -> Callable[[Raw], object]:
    width = struct.calcsize(code)

    def decode(raw: Raw) -> object:
        assert isinstance(raw, bytes)
        return [each for (each,) in struct.iter_unpack(code, raw[: len(raw) // width * width])]

    return decode


# struct tcp_info (linux/tcp.h): eight octets, then u32s; later kernels append to it.
_TCP_INFO_U32S = [
    "rto",
    "ato",
    "snd_mss",
    "rcv_mss",
    "unacked",
    "sacked",
    "lost",
    "retrans",
    "fackets",
    "last_data_sent",
    "last_ack_sent",
    "last_data_recv",
    "last_ack_recv",
    "pmtu",
    "rcv_ssthresh",
    "rtt",
    "rttvar",
    "snd_ssthresh",
    "snd_cwnd",
    "advmss",
    "reordering",
    "rcv_rtt",
    "rcv_space",
    "total_retrans",
]


def read_tcp_info(raw: Raw) -> dict[str, int]:
    """Return the fields of a ``struct tcp_info`` that Linux has had since 2.6.10."""
    assert isinstance(raw, bytes)
    fields: dict[str, Any] = dict(
        zip(("state", "ca_state", "retransmits", "probes", "backoff"), raw, strict=False)
    )
    words = raw[8:]
    count = min(len(_TCP_INFO_U32S), len(words) // 4)
    return fields | dict(zip(_TCP_INFO_U32S, struct.unpack_from(f"={count}I", words), strict=False))


STRUCTURES: Final[dict[str, Callable[[str], Form]]] = {
    "port-range": _port_range,
    "fprog": _filter,
    "icmp-filter": _icmp_filter("icmp-filter", 1),
    "icmp6-filter": _icmp_filter("icmp6-filter", 8),
    "md5sig": _md5_key,
    "bytes": _bytes,
    "key": _key,
    "struct": _struct,
    "ucred": _only_read("ucred", 12, _ucred),
    "sockaddr": _only_read("sockaddr", STORAGE_BYTES, show_sockaddr),
    "u32s": _only_read("u32s", 256, _numbers("=I")),
    "u64s": _only_read("u64s", 256, _numbers("=Q")),
    "tcp-info": _only_read("tcp-info", 512, read_tcp_info),
}
# Those that one socket may take several of, as a list.
REPEATED: Final = frozenset(
    {"mreqn", "mreq-source", "mreq6", "group-req", "group-source-req", "packet-mreq", "md5sig"}
)
