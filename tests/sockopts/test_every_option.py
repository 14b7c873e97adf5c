"""The proof: every option of the catalogue is set by our code and read back without it.

A child process, in a network namespace of its own where it may have one, opens each kind of socket
that an option fits, sets the option through ``apply`` as an operator would write it, and reads the
kernel's answer with the standard library and layouts written here. What cannot be verified is
listed with the reason, and the reason is checked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import re
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from twistedsock import sockopts
from twistedsock.errors import OptionError
from twistedsock.sockopts import CATALOGUE, Option
from twistedsock.sockopts.kinds import SOCKETS

LO, GROUP4, SOURCE4, GROUP6, SOURCE6 = 1, "239.1.1.1", "232.1.1.1", "ff02::99:1", "ff35::99:1"
ANYCAST, OURS6 = "fd00::99", "fd00::1"
REFUSE, PASS = [[6, 0, 0, 0]], [[0x80, 0, 0, 0], [6, 0, 0, 0xFFFFFFFF]]  # ld len; ret #-1
POWER = 64  # entries of a ring


def u32(number: int) -> bytes:
    return struct.pack("=I", number & 0xFFFFFFFF)


def ip4(text: str) -> bytes:
    return socket.inet_aton(text)


def ip6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def stored(text: str) -> bytes:
    """Return *text* as a struct sockaddr_storage."""
    if "." in text:
        return struct.pack("=HH4s", socket.AF_INET, 0, ip4(text)).ljust(128, b"\0")
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, ip6(text), 0).ljust(128, b"\0")


def written_bytes(data: bytes) -> str:
    return "hex:" + data.hex()


# -- what is written, and what the kernel then has --

Sample = tuple[object, int | bytes]
HEADER = bytes.fromhex("0000050200000100")  # RFC 8200: next header, length; router alert, padding
PADDING = bytes.fromhex("0000010400000000")
ROUTING = bytes([0, 2, 4, 0, 0, 0, 0, 0]) + ip6("::1")  # RFC 6275: type 2
TLS_KEY = struct.pack("=HH", 0x0303, 51) + bytes(range(36))  # linux/tls.h: AES-GCM-128
SAMPLES: dict[str, Sample] = {
    "SO_SNDBUF": (50000, 100000),
    "SO_RCVBUF": ("50kB", 100000),
    "SO_SNDBUFFORCE": ("10MB", 20000000),
    "SO_RCVBUFFORCE": ("10MB", 20000000),
    "SO_PRIORITY": (5, 5),
    "SO_LINGER": ("7s", struct.pack("ii", 1, 7)),
    "SO_BSDCOMPAT": (True, 0),  # socket(7): ignored
    "SO_RCVTIMEO": ("1500ms", struct.pack("@ll", 1, 500000)),
    "SO_SNDTIMEO": ("1500ms", struct.pack("@ll", 1, 500000)),
    "SO_RCVTIMEO_NEW": ("1500ms", struct.pack("@qq", 1, 500000)),
    "SO_SNDTIMEO_NEW": ("1500ms", struct.pack("@qq", 1, 500000)),
    "SO_BINDTODEVICE": ("lo", b"lo\0"),
    "SO_ATTACH_FILTER": (PASS, b"".join(struct.pack("=HBBI", *line) for line in PASS)[:2]),
    "SO_MARK": (0xDEADBEEF, u32(0xDEADBEEF)),
    "SO_TIMESTAMPING": (["rx-software", "software"], 0x18),
    "SO_TIMESTAMPING_NEW": ("rx-software,software", 0x18),
    "SO_PEEK_OFF": (4, 4),
    "SO_BUSY_POLL": ("8ms", 8000),
    "SO_MAX_PACING_RATE": ("5GiB", struct.pack("=Q", 5 << 30)),
    "SO_INCOMING_CPU": (0, 0),
    "SO_ATTACH_REUSEPORT_CBPF": (REFUSE, b""),
    "SO_BUSY_POLL_BUDGET": (8, 8),
    "SO_TXTIME": (written_bytes(struct.pack("=iI", 1, 0)), struct.pack("=iI", 1, 0)),
    "SO_BINDTOIFINDEX": ("lo", LO),
    "SO_BUF_LOCK": ("send,receive", 3),
    "SO_RESERVE_MEM": ("64KiB", 65536),
    "SO_TXREHASH": ("disabled", 0),
    "SO_DEVMEM_DONTNEED": (written_bytes(bytes(8)), bytes(8)),
    "IP_TOS": ("AF11", 0x28),
    "IPV6_TCLASS": ("AF11", 0x28),
    "IP_OPTIONS": ("hex:94040000", bytes.fromhex("94040000")),
    "IP_MTU_DISCOVER": ("do", 2),
    "IPV6_MTU_DISCOVER": ("do", 2),
    "IP_MULTICAST_IF": ("127.0.0.1", ip4("127.0.0.1")),
    "IPV6_MULTICAST_IF": ("lo", LO),
    "IP_UNICAST_IF": ("lo", struct.pack("!I", LO)),
    "IPV6_UNICAST_IF": ("lo", struct.pack("!I", LO)),
    "IP_ADD_MEMBERSHIP": (f"{GROUP4}%lo", ip4(GROUP4) + bytes(4) + u32(LO)),
    "IP_LOCAL_PORT_RANGE": ("40000-40010", u32(40000 | 40010 << 16)),
    "IP_IPSEC_POLICY": (
        written_bytes(struct.pack("=HHHBBII", 2, 18, 1, 1, 0, 0, 0)),
        struct.pack("=HHHBBII", 2, 18, 1, 1, 0, 0, 0),
    ),
    "IPV6_ADDRFORM": (2, 2),
    "IPV6_CHECKSUM": (4, 4),
    "IPV6_MTU": (1400, 1400),
    "IPV6_ROUTER_ALERT": (5, 1),
    "IPV6_ADDR_PREFERENCES": (["public"], 0x0002 | 0x0400),
    "IPV6_2292PKTOPTIONS": (
        written_bytes(struct.pack("@Nii", struct.calcsize("@Nii") + 4, 41, 52) + u32(9) + bytes(4)),
        b"",
    ),
    "IPV6_PKTINFO": (f"{OURS6}%lo", ip6(OURS6) + u32(LO)),
    "IPV6_HOPOPTS": (written_bytes(HEADER), HEADER),
    "IPV6_DSTOPTS": (written_bytes(PADDING), PADDING),
    "IPV6_RTHDRDSTOPTS": (written_bytes(PADDING), PADDING),
    "IPV6_RTHDR": (written_bytes(ROUTING), ROUTING),
    "IPV6_JOIN_ANYCAST": (f"{ANYCAST}%lo", ip6(ANYCAST) + u32(LO)),
    "TCP_MAXSEG": (1000, 1000),
    "TCP_KEEPIDLE": ("1m", 60),
    "TCP_KEEPCNT": (7, 7),  # 9 is the default
    "TCP_DEFER_ACCEPT": ("7s", 7),
    "TCP_WINDOW_CLAMP": (30000, 30000),
    "TCP_CONGESTION": ("reno", b"reno\0"),
    "TCP_THIN_DUPACK": (True, 0),  # obsolete: ignored
    "TCP_LINGER2": ("13s", 13),
    "TCP_USER_TIMEOUT": ("5s", 5000),
    "TCP_REPAIR": ("on", 1),
    "TCP_REPAIR_QUEUE": ("send", 2),
    "TCP_QUEUE_SEQ": (0x89ABCDEF, u32(0x89ABCDEF)),
    "TCP_REPAIR_OPTIONS": (written_bytes(struct.pack("=II", 2, 1000)), 1000),
    "TCP_TIMESTAMP": (123456, 123456),
    "TCP_FASTOPEN": (16, 16),
    "TCP_FASTOPEN_KEY": (b"0123456789abcdef", b"0123456789abcdef"),
    "TCP_SAVE_SYN": ("on", 1),
    "TCP_ULP": ("tls", b"tls\0"),
    "TCP_TX_DELAY": ("8ms", 8000),
    "TCP_RTO_MAX_MS": ("5s", 5000),
    "TCP_RTO_MIN_US": ("8ms", 8000),
    "TCP_DELACK_MAX_US": ("8ms", 8000),
    "TCP_AO_ADD_KEY": (written_bytes(bytes(288)), bytes(288)),
    "TCP_AO_DEL_KEY": (written_bytes(bytes(160)), bytes(160)),
    "TCP_AO_INFO": (written_bytes(bytes(56)), bytes(56)),
    "TCP_AO_REPAIR": (written_bytes(bytes(20)), bytes(20)),
    "UDP_ENCAP": ("espinudp", 2),
    "UDP_SEGMENT": (1000, 1000),
    "ICMP_FILTER": ([1, 3], u32(1 << 1 | 1 << 3)),
    "ICMPV6_FILTER": ([1, 129], u32(2) + bytes(12) + u32(2) + bytes(12)),
    "PACKET_ADD_MEMBERSHIP": (
        "01:00:5e:01:01:01%lo",
        struct.pack("=iHH8s", LO, 0, 6, bytes.fromhex("01005e010101")),
    ),
    "PACKET_RX_RING": (written_bytes(struct.pack("=7I", 65536, 4, 2048, 128, 60, 0, 0)), b""),
    "PACKET_TX_RING": (written_bytes(struct.pack("=7I", 65536, 4, 2048, 128, 0, 0, 0)), b""),
    "PACKET_VERSION": ("v3", 2),
    "PACKET_RESERVE": (64, 64),
    "PACKET_COPY_THRESH": (1500, 1500),
    "PACKET_TIMESTAMP": ("software", 0x10),
    "PACKET_FANOUT": (0x4D, 0x4D),
    "PACKET_FANOUT_DATA": (REFUSE, b""),
    "PACKET_VNET_HDR_SZ": (12, 12),
    "NETLINK_ADD_MEMBERSHIP": (1, 1),
    "SO_VM_SOCKETS_BUFFER_SIZE": ("64KiB", struct.pack("=Q", 65536)),
    "SO_VM_SOCKETS_BUFFER_MIN_SIZE": (256, struct.pack("=Q", 256)),
    "SO_VM_SOCKETS_BUFFER_MAX_SIZE": ("1MiB", struct.pack("=Q", 1 << 20)),
    "SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD": ("1500ms", struct.pack("@ll", 1, 500000)),
    "SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW": ("1500ms", struct.pack("@qq", 1, 500000)),
    "SO_VM_SOCKETS_NONBLOCK_TXRX": (1, 1),
    **dict.fromkeys(("XDP_RX_RING", "XDP_TX_RING"), (POWER, POWER)),
    **dict.fromkeys(("XDP_UMEM_FILL_RING", "XDP_UMEM_COMPLETION_RING"), (POWER, POWER)),
    "TLS_TX": (written_bytes(TLS_KEY), TLS_KEY),
    "TLS_RX": (written_bytes(TLS_KEY), TLS_KEY),
    "ALG_SET_KEY": (bytes(16), bytes(16)),
    "ALG_SET_AEAD_AUTHSIZE": (bytes(16), bytes(16)),
    "ALG_SET_DRBG_ENTROPY": (bytes(16), bytes(16)),
    "ALG_SET_KEY_BY_KEY_SERIAL": (1, 1),
}
SAMPLES["IP_DROP_MEMBERSHIP"] = SAMPLES["IP_ADD_MEMBERSHIP"]
SAMPLES["IPV6_LEAVE_ANYCAST"] = SAMPLES["IPV6_JOIN_ANYCAST"]
SAMPLES["IPV6_IPSEC_POLICY"] = SAMPLES["IP_IPSEC_POLICY"]
SAMPLES["PACKET_DROP_MEMBERSHIP"] = SAMPLES["PACKET_ADD_MEMBERSHIP"]
SAMPLES["NETLINK_DROP_MEMBERSHIP"] = SAMPLES["NETLINK_ADD_MEMBERSHIP"]
GENERIC: dict[str, Sample] = {
    "int": (9, 9),
    "uint": (9, 9),
    "size": (20000, 20000),
    "seconds": ("13s", 13),
    "none": (True, 0),
}
FLOW_LABEL = 0x12000


def sample(option: Option, kind: str, made: Made) -> Sample:
    """Return what is written for *option* on a socket of *kind*, and the kernel's bytes of it."""
    name, is6 = option.name.partition("@")[0], kind.endswith("6")
    group, source = (GROUP6, "::1") if is6 else (GROUP4, "127.0.0.9")
    if "SOURCE_GROUP" in name:
        group = SOURCE6 if is6 else SOURCE4
    match option.form.kind:
        case "bool" if name not in SAMPLES:
            now = ask(made.sock, option, 0) if option.is_readable else 0
            return not now, int(not now)
        case "mreq6" if "ANYCAST" not in name:
            return f"{GROUP6}%lo", ip6(GROUP6) + u32(LO)
        case "mreq-source":
            group = SOURCE4 if "SOURCE_MEMBERSHIP" in name else GROUP4
            return (
                f"{source}@{group}%127.0.0.1",
                ip4(group) + ip4("127.0.0.1") + ip4(source),
            )
        case "group-req":
            return f"{group}%lo", struct.pack("@I4x", LO) + stored(group)
        case "group-source-req":
            raw = struct.pack("@I4x", LO) + stored(group) + stored(source)
            return f"{source}@{group}%lo", raw
        case "fd":
            return made.program(), made.program()
        case "md5sig":
            peer, net = ("::1", "fd00::") if is6 else ("127.0.0.1", "127.0.0.0")
            if name.endswith("_EXT"):
                raw = stored(net) + struct.pack("=BBHi80s", 1, 8, 6, 0, b"secret")
                return {"address": net, "prefix": 8, "key": "secret"}, raw
            raw = stored(peer) + struct.pack("=BBHi80s", 0, 0, 6, 0, b"secret")
            return {"address": peer, "key": "secret"}, raw
    if name == "IP_MSFILTER":
        raw = ip4(GROUP4) + ip4("127.0.0.1") + u32(0) + u32(1) + ip4(source)
        return written_bytes(raw), raw
    if name == "MCAST_MSFILTER":
        raw = struct.pack("@I4x", LO) + stored(group) + struct.pack("=II", 0, 1) + stored(source)
        return written_bytes(raw), raw
    if name.endswith("XFRM_POLICY"):  # linux/xfrm.h: xfrm_userpolicy_info that blocks what goes out
        raw = bytearray(168)
        struct.pack_into("=H", raw, 40, 10 if is6 else 2)
        raw[160:162] = 1, 1
        return written_bytes(bytes(raw)), bytes(raw)
    if name == "IPV6_FLOWLABEL_MGR":
        made.count += 1
        label = struct.pack("!I", FLOW_LABEL + made.number)
        raw = ip6("::1") + label + struct.pack("=BBHHHI", 0, 255, 1, 10, 10, 0)
        return written_bytes(raw), raw
    if name == "TCP_REPAIR_WINDOW":
        raw = made.sock.getsockopt(socket.IPPROTO_TCP, option.number or 0, 20)
        return written_bytes(raw), raw
    if name == "XDP_UMEM_REG":
        raw = made.memory()
        return written_bytes(raw), raw
    if name in SAMPLES:
        return SAMPLES[name]
    if option.form.kind == "struct" and option.is_readable:  # what it has is right
        raw = made.sock.getsockopt(option.level, option.number or 0, 1024)
        return written_bytes(raw), raw
    return GENERIC[option.form.kind]


class Made(ExitStack):
    """A socket that an option can be set on now, and all that it needs beside it."""

    count = 0

    def __init__(self, option: Option, kind: str) -> None:
        super().__init__()
        type(self).count += 1
        self.number = type(self).count
        self.option, self.kind, self.name = option, kind, option.name.partition("@")[0]
        family, type_, protocol = SOCKETS[kind]
        if self.name in ("ICMP_FILTER", "IP_ROUTER_ALERT"):
            protocol = socket.IPPROTO_ICMP
        elif self.name == "ICMPV6_FILTER":
            protocol = socket.IPPROTO_ICMPV6
        elif self.name == "IPV6_ROUTER_ALERT":
            protocol = socket.IPPROTO_RAW
        self.arguments = family, type_, protocol
        self.host = "127.0.0.1" if kind.endswith("4") else "::1"
        self.kept: list[object] = []
        try:
            self.sock = self.open()
            if option.phase == "bound":
                self.bind()
            if option.phase == "connected":
                self.sock = self.connected()
            self.prepare()
        except BaseException:
            self.close()
            raise

    def open(self) -> socket.socket:
        sock = self.enter_context(socket.socket(*self.arguments))
        sock.settimeout(3)
        return sock

    def bind(self) -> None:
        if "REUSEPORT" in self.name:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.kind == "packet":
            self.sock.bind(("lo", 3))
        elif self.sock.family in (socket.AF_INET, socket.AF_INET6):
            self.sock.bind((self.host, 0))

    def connected(self) -> socket.socket:
        family, type_, _ = self.arguments
        if family == socket.AF_UNIX:
            pair = socket.socketpair(family, type_)
            for sock in pair:
                self.enter_context(sock)
            self.peer = pair[1]
            return pair[0]
        if self.name == "IPV6_ADDRFORM":
            with socket.socket(socket.AF_INET, type_) as target:
                target.bind(("127.0.0.1", 0))
                if type_ == socket.SOCK_STREAM:
                    target.listen()
                self.sock.connect(("::ffff:127.0.0.1", target.getsockname()[1]))
                if type_ == socket.SOCK_STREAM:
                    self.enter_context(target.accept()[0])
            return self.sock
        if type_ != socket.SOCK_STREAM:
            self.sock.connect((self.host, 9))
            return self.sock
        listener = self.open()
        if self.name == "TCP_SAVED_SYN":
            listener.setsockopt(socket.IPPROTO_TCP, 27, 1)
        if family == socket.AF_VSOCK:
            listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            listener.listen()
            self.sock.settimeout(0.2)
            self.sock.connect((1, listener.getsockname()[1]))  # VMADDR_CID_LOCAL
            return self.enter_context(listener.accept()[0])
        listener.bind((self.host, 0))
        listener.listen()
        self.sock.connect(listener.getsockname())
        return self.enter_context(listener.accept()[0])

    def prepare(self) -> None:
        """Bring about what the option needs, with the standard library alone."""
        name, sock, is6 = self.name, self.sock, self.kind.endswith("6")
        level = socket.IPPROTO_IPV6 if is6 else socket.IPPROTO_IP
        if name.startswith(("TCP_REPAIR_", "TCP_QUEUE", "TCP_TIMESTAMP")):
            sock.setsockopt(socket.IPPROTO_TCP, 19, 1)
        if name == "TCP_QUEUE_SEQ":
            sock.setsockopt(socket.IPPROTO_TCP, 20, 1)
        if self.option.level_name == "SOL_TLS":
            sock.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
        if name.endswith("_RING") and self.kind == "packet":
            sock.setsockopt(263, 10, 2)
        if name in ("XDP_UMEM_FILL_RING", "XDP_UMEM_COMPLETION_RING"):
            sock.setsockopt(283, 4, self.memory())
        if name == "PACKET_FANOUT_DATA":
            sock.setsockopt(263, 18, struct.pack("=I", 0x77 | 6 << 16))
        if name == "PACKET_ROLLOVER_STATS":
            sock.setsockopt(263, 18, struct.pack("=I", 0x78 | 3 << 16))
        if name == "NETLINK_DROP_MEMBERSHIP":
            sock.setsockopt(270, 1, 1)
        if name == "PACKET_DROP_MEMBERSHIP":
            sock.setsockopt(263, 1, SAMPLES[name][1])
        if name == "SO_DETACH_FILTER":
            self.attach(26, PASS)
        if name == "SO_DETACH_REUSEPORT_BPF":
            self.attach(51, REFUSE)
        if name == "IPV6_LEAVE_ANYCAST":
            sock.setsockopt(level, 27, SAMPLES[name][1])
        if name == "IPV6_DROP_MEMBERSHIP":
            sock.setsockopt(level, 20, ip6(GROUP6) + u32(LO))
        if name in ("IP_DROP_MEMBERSHIP", "IP_BLOCK_SOURCE", "IP_UNBLOCK_SOURCE", "IP_MSFILTER"):
            sock.setsockopt(level, 35, ip4(GROUP4) + ip4("127.0.0.1") + u32(LO))
        pair4 = ip4("127.0.0.1") + ip4("127.0.0.9")
        if name == "IP_UNBLOCK_SOURCE":
            sock.setsockopt(level, 38, ip4(GROUP4) + pair4)
        if name == "IP_DROP_SOURCE_MEMBERSHIP":
            sock.setsockopt(level, 39, ip4(SOURCE4) + pair4)
        joined = struct.pack("@I4x", LO) + stored(GROUP6 if is6 else GROUP4)
        source = stored("::1" if is6 else "127.0.0.9")
        if name.startswith("MCAST_") and "JOIN" not in name and "SOURCE_GROUP" not in name:
            sock.setsockopt(level, 42, joined)
        if name == "MCAST_UNBLOCK_SOURCE":
            sock.setsockopt(level, 43, joined + source)
        if name == "MCAST_LEAVE_SOURCE_GROUP":
            special = struct.pack("@I4x", LO) + stored(SOURCE6 if is6 else SOURCE4)
            sock.setsockopt(level, 46, special + source)

    def attach(self, number: int, lines: list[list[int]]) -> None:
        program = b"".join(struct.pack("=HBBI", *line) for line in lines)
        buffer = ctypes.create_string_buffer(program, len(program))
        value = struct.pack("@HP", len(lines), ctypes.addressof(buffer))
        self.sock.setsockopt(socket.SOL_SOCKET, number, value)

    def memory(self) -> bytes:
        """Return a struct xdp_umem_reg of 64 KiB."""
        area = mmap.mmap(-1, 65536)
        self.kept.append(area)
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        return struct.pack("=QQIII4x", address, 65536, 2048, 0, 0)

    def program(self) -> int:
        """Return the descriptor of an extended BPF program that returns a number."""
        if not hasattr(self, "program_fd"):
            instructions = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack(
                "=BBhi", 0x95, 0, 0, 0
            )
            code, licence = (ctypes.create_string_buffer(each) for each in (instructions, b"GPL"))
            attributes = struct.pack(
                "=IIQQIIQII",
                *(1, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0),
            ).ljust(128, b"\0")
            number = {"x86_64": 321, "aarch64": 280, "riscv64": 280}[platform.machine()]
            call = ctypes.CDLL(None, use_errno=True).syscall
            fd = call(number, 5, ctypes.create_string_buffer(attributes, 128), 128)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "bpf")
            self.program_fd = fd
            self.callback(os.close, fd)
        return self.program_fd


# -- whether the kernel has it --


def ask(sock: socket.socket, option: Option, size: int) -> Any:
    """Return what the kernel tells; Python reads an AF_VSOCK socket otherwise."""
    assert option.number is not None
    if sock.family != socket.AF_VSOCK:
        return sock.getsockopt(option.level, option.number, size)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, os.dup(sock.fileno())) as plain:
        return plain.getsockopt(option.level, option.number, size)


def refuses(call: Callable[[], object], *numbers: int) -> str:
    """Return what is wrong unless *call* fails with one of *numbers*."""
    try:
        call()
    except OSError as error:
        if error.errno in numbers:
            return ""
        return f"{errno.errorcode[error.errno or 0]} instead"
    return "not refused"


# The last source of a group takes the group with it; then the group is what is missing.
GONE = errno.EADDRNOTAVAIL, errno.ENOENT, errno.EINVAL


def again(*numbers: int) -> Callable[[Made, bytes], str]:
    """What was done cannot be done a second time."""

    def check(made: Made, raw: bytes) -> str:
        option = made.option
        return refuses(
            lambda: made.sock.setsockopt(option.level, option.number or 0, raw), *numbers
        )

    return check


def taken_back(level: int, number: int, change: Callable[[bytes], bytes] = bytes) -> Any:
    """What was done can be undone, which it could not were it not done."""

    def check(made: Made, raw: bytes) -> str:
        made.sock.setsockopt(level, number, change(raw))
        undo = lambda: made.sock.setsockopt(level, number, change(raw))  # noqa: E731  # twice
        return refuses(undo, *GONE)

    return check


def keyless(raw: bytes) -> bytes:
    """Return a struct tcp_md5sig whose key has no length: it is taken away."""
    return raw[:130] + bytes(2) + raw[132:]


def tells(level: int, number: int, wanted: int) -> Callable[[Made, bytes], str]:
    def check(made: Made, raw: bytes) -> str:
        got = made.sock.getsockopt(level, number)
        return "" if got == wanted else f"{got}, not {wanted}"

    return check


def in_file(path: str, text: str, is_there: bool = True) -> Callable[[Made, bytes], str]:
    def check(made: Made, raw: bytes) -> str:
        return "" if (text in Path(path).read_text().lower()) is is_there else f"{text} in {path}"

    return check


def mapped(offset: int) -> Callable[[Made, bytes], str]:
    """A ring is there when it can be mapped."""

    def check(made: Made, raw: bytes) -> str:
        size = 65536 * 4 if made.kind == "packet" else 512
        mmap.mmap(made.sock.fileno(), size, offset=offset).close()
        return ""

    return check


def is_extended(made: Made, raw: bytes) -> str:
    """An extended program is attached: the classic one cannot be told."""
    return refuses(lambda: made.sock.getsockopt(socket.SOL_SOCKET, 26, 1024), errno.EACCES)


def balances(made: Made, raw: bytes) -> str:
    made.sock.setsockopt(socket.SOL_SOCKET, 68, 0)
    return refuses(lambda: made.sock.setsockopt(socket.SOL_SOCKET, 68, 0), errno.ENOENT)


def counts_left(made: Made, raw: bytes) -> str:
    with ExitStack() as stack:
        ours, peer = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(peer)
        sockopts.apply(ours, {"SO_INQ": True})
        peer.send(b"hello")
        _, told, _, _ = ours.recvmsg(2, 64)
        wanted = [(socket.SOL_SOCKET, 84, struct.pack("=i", 3))]
        return "" if told == wanted else f"{told}"


def is_kept(made: Made, raw: bytes) -> str:
    """It is among the old ancillary data, which only TCP tells."""
    if made.kind != "tcp6":
        return ""
    made.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    told = made.sock.getsockopt(socket.IPPROTO_IPV6, 6, 1024)
    return "" if raw in told else told.hex()


def blocks(made: Made, raw: bytes) -> str:
    if not made.kind.startswith("udp"):
        return ""
    return refuses(lambda: made.sock.sendto(b"", (made.host, 9)), errno.EPERM)


def membership(is_there: bool) -> Callable[[Made, bytes], str]:
    def check(made: Made, raw: bytes) -> str:
        groups = made.sock.getsockopt(270, 9, 64)
        return "" if bool(groups and groups[0] & 1) is is_there else groups.hex()

    return check


def filters(made: Made, raw: bytes) -> str:
    """The source that was dropped can be taken again."""
    if made.name == "IP_MSFILTER":
        value = ip4(GROUP4) + ip4("127.0.0.1") + ip4("127.0.0.9")
        made.sock.setsockopt(socket.IPPROTO_IP, 37, value)
    else:
        made.sock.setsockopt(made.option.level, 44, raw[:136] + raw[144:272])
    return ""


def mss(made: Made, raw: bytes) -> str:
    return tells(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)(made, raw)


def clock(made: Made, raw: bytes) -> str:
    got = made.sock.getsockopt(socket.IPPROTO_TCP, 24)
    return "" if 123456 <= got < 123456 + 60000 else str(got)


def labelled(made: Made, raw: bytes) -> str:
    """The lease is there: it cannot be had a second time."""
    exclusive = raw[:22] + struct.pack("=H", 3) + raw[24:]  # IPV6_FL_F_CREATE | EXCL
    return refuses(
        lambda: made.sock.setsockopt(socket.IPPROTO_IPV6, 32, exclusive), errno.EEXIST, errno.EPERM
    )


def bounds_datagrams(made: Made, raw: bytes) -> str:
    """With IPV6_DONTFRAG what is longer cannot be sent."""
    if made.kind != "udp6":
        return ""
    made.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
    made.sock.sendto(bytes(1300), ("::1", 9))
    return refuses(lambda: made.sock.sendto(bytes(1500), ("::1", 9)), errno.EMSGSIZE)


EFFECTS: dict[str, Callable[[Made, bytes], str]] = {
    "SO_SNDBUFFORCE": tells(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000000),
    "SO_RCVBUFFORCE": tells(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000000),
    "SO_DETACH_FILTER": again(errno.ENOENT),
    "SO_ATTACH_BPF": is_extended,
    "SO_ATTACH_REUSEPORT_CBPF": balances,
    "SO_ATTACH_REUSEPORT_EBPF": balances,
    "SO_DETACH_REUSEPORT_BPF": again(errno.ENOENT),
    "SO_INQ": counts_left,
    "IP_ADD_MEMBERSHIP": taken_back(0, 36),
    "IP_DROP_MEMBERSHIP": again(errno.EADDRNOTAVAIL),
    "IP_BLOCK_SOURCE": taken_back(0, 37),
    "IP_UNBLOCK_SOURCE": again(errno.EADDRNOTAVAIL),
    "IP_ADD_SOURCE_MEMBERSHIP": taken_back(0, 40),
    "IP_DROP_SOURCE_MEMBERSHIP": again(*GONE),
    "IP_MSFILTER": filters,
    "MCAST_MSFILTER": filters,
    "IP_XFRM_POLICY": blocks,
    "IPV6_XFRM_POLICY": blocks,
    "IPV6_ADDRFORM": tells(socket.SOL_SOCKET, 39, socket.AF_INET),
    "IPV6_PKTINFO": is_kept,
    "IPV6_MTU": bounds_datagrams,
    "IPV6_FLOWLABEL_MGR": labelled,
    "IPV6_ADD_MEMBERSHIP": taken_back(41, 21),
    "IPV6_DROP_MEMBERSHIP": again(errno.EADDRNOTAVAIL),
    "IPV6_JOIN_ANYCAST": taken_back(41, 28),
    "IPV6_LEAVE_ANYCAST": again(errno.ENOENT, errno.EADDRNOTAVAIL),
    "TCP_MD5SIG": taken_back(6, 14, keyless),
    "TCP_MD5SIG_EXT": taken_back(6, 32, keyless),
    "TCP_REPAIR_OPTIONS": mss,
    "TCP_TIMESTAMP": clock,
    "PACKET_ADD_MEMBERSHIP": in_file("/proc/net/dev_mcast", "01005e010101"),
    "PACKET_DROP_MEMBERSHIP": in_file("/proc/net/dev_mcast", "01005e010101", False),
    "PACKET_RX_RING": mapped(0),
    "PACKET_TX_RING": mapped(0),
    "NETLINK_ADD_MEMBERSHIP": membership(True),
    "NETLINK_DROP_MEMBERSHIP": membership(False),
    "XDP_RX_RING": mapped(0),
    "XDP_TX_RING": mapped(0x80000000),
    "XDP_UMEM_REG": again(errno.EBUSY),
    "XDP_UMEM_FILL_RING": mapped(0x100000000),
    "XDP_UMEM_COMPLETION_RING": mapped(0x180000000),
}
for _level, _at in ((0, ""), (41, "@IPPROTO_IPV6")):
    EFFECTS[f"MCAST_JOIN_GROUP{_at}"] = taken_back(_level, 45)
    EFFECTS[f"MCAST_BLOCK_SOURCE{_at}"] = taken_back(_level, 44)
    EFFECTS[f"MCAST_UNBLOCK_SOURCE{_at}"] = again(errno.EADDRNOTAVAIL)
    EFFECTS[f"MCAST_LEAVE_GROUP{_at}"] = again(errno.EADDRNOTAVAIL)
    EFFECTS[f"MCAST_JOIN_SOURCE_GROUP{_at}"] = taken_back(_level, 47)
    EFFECTS[f"MCAST_LEAVE_SOURCE_GROUP{_at}"] = again(*GONE)
EFFECTS["MCAST_MSFILTER@IPPROTO_IPV6"] = filters
# These change more than their socket, and are left alone where no namespace may be had.
SIDE_EFFECTS = {
    *("IP_ROUTER_ALERT", "IPV6_ROUTER_ALERT", "UDP_ENCAP", "PACKET_ADD_MEMBERSHIP"),
    *("PACKET_DROP_MEMBERSHIP", "IPV6_JOIN_ANYCAST", "IPV6_LEAVE_ANYCAST", "IPV6_FLOWLABEL_MGR"),
    *("TCP_REPAIR", "IPV6_PKTINFO", "IP_XFRM_POLICY", "IPV6_XFRM_POLICY", "PACKET_FANOUT"),
}


def same(option: Option, sock: socket.socket, told: int | bytes) -> str:
    """Return what the kernel tells unless it is *told*."""
    wanted = struct.pack("=i", told) if isinstance(told, int) else told
    # SO_GET_FILTER counts instructions; TCP_REPAIR_WINDOW wants its own size and no other.
    got = ask(sock, option, 1024 if len(wanted) != 20 else 20)
    if option.form.kind == "fprog":
        return "" if len(got) == len(PASS) and got == wanted else got.hex()
    return "" if got.rstrip(b"\0") == wanted.rstrip(b"\0") and got != b"" else got.hex()


# -- what is only read: the same in our words and in the standard library's --

WORDS = {
    "socket-type": {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"},
    "socket-domain": {1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet", 44: "xdp"},
    "socket-protocol": {0: "ip", 1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 262: "mptcp"},
}
WORDS["socket-domain"][40] = "vsock"
WORDS["socket-protocol"] |= {136: "udplite", 132: "sctp", 255: "raw"}
CHANGING = {"TCP_INFO", "SO_MEMINFO", "TCP_CC_INFO", "MPTCP_INFO", "SO_INCOMING_NAPI_ID"}


def shown(option: Option, raw: bytes) -> object:
    """Return *raw* as an operator would write it."""
    parameter = option.value.partition(" ")[2]
    number = int.from_bytes(raw, sys.byteorder, signed=option.form.kind != "uint")
    match option.form.kind:
        case "bool":
            return bool(number)
        case "int" | "uint":
            return number
        case "uint64":
            return struct.unpack("=Q", raw)[0]
        case "enum":
            return WORDS[parameter].get(number, number)
        case "ucred":
            return dict(zip(("pid", "uid", "gid"), struct.unpack("=iii", raw), strict=True))
        case "u32s":
            return list(struct.unpack(f"={len(raw) // 4}I", raw))
        case "u64s":
            return list(struct.unpack(f"={len(raw) // 8}Q", raw))
        case "tcp-info":
            return raw[0]
        case "sockaddr" if raw[:2] == struct.pack("=H", socket.AF_INET):
            return f"{socket.inet_ntoa(raw[4:8])}:{int.from_bytes(raw[2:4], 'big')}"
        case "sockaddr" if raw[:2] == struct.pack("=H", socket.AF_INET6):
            host = socket.inet_ntop(socket.AF_INET6, raw[8:24])
            return f"[{host}]:{int.from_bytes(raw[2:4], 'big')}"
    return written_bytes(raw)


def read_only(made: Made) -> str:
    """Return what is wrong with what ``read`` tells of an option."""
    option, sock = made.option, made.sock
    told = sockopts.read(sock, option.name)
    if option.name == "TCP_SAVED_SYN":  # reading takes it away
        return "" if str(told).startswith(("hex:45", "hex:6")) else str(told)
    size = {"SO_PEERNAME": {2: 16, 10: 28}.get(sock.family, 2)}.get(option.name, 1024)
    if option.form.kind == "fd":
        other = sock.getsockopt(option.level, option.number or 0)
        are_same = os.readlink(f"/proc/self/fd/{told}") == os.readlink(f"/proc/self/fd/{other}")
        os.close(other)
        os.close(int(str(told)))
        return "" if are_same else "another descriptor"
    if option.name == "PACKET_HDRLEN":  # the version is passed in the buffer
        return "" if told == sock.getsockopt(option.level, option.number or 0) else str(told)
    raw = ask(sock, option, 8 if option.form.kind == "uint64" else size)
    wanted = shown(option, raw)
    if option.form.kind == "tcp-info":
        told = told["state"] if isinstance(told, dict) else told
    if option.name in CHANGING and told != wanted:
        return "" if len(str(told)) > 2 else "nothing"
    return "" if told == wanted else f"{told}, not {wanted}"


def trial(option: Option, kind: str) -> tuple[str, int, str]:
    """Set *option* on a socket of *kind*; return a word, an error number and a text."""
    try:
        made = Made(option, kind)
    except OSError as error:
        try:
            socket.socket(*SOCKETS[kind]).close()
        except OSError as cause:
            return "closed", cause.errno or 0, str(cause)
        return "refused", error.errno or 0, f"before it is set: {error}"
    with made:
        try:
            if not option.is_writable:
                fault = read_only(made)
                return ("told" if not fault else "wrong"), 0, fault
            try:
                written, told = sample(option, kind, made)
            except OSError as error:
                return "refused", error.errno or 0, f"before it is set: {error}"
            sockopts.apply(made.sock, {option.name: written})
            check = EFFECTS.get(option.name)
            if check is not None:
                fault = check(made, told if isinstance(told, bytes) else u32(told))
            elif "r" in option.access and option.name not in UNTOLD:
                fault = same(option, made.sock, told)
            else:
                # IPV6_2292PKTOPTIONS is read, and tells something else.
                fault = refuses(lambda: ask(made.sock, option, 64), *NO_SUCH_OPTION)
                return ("wrong" if fault and "r" not in option.access else "taken"), 0, fault
            return ("told" if not fault else "wrong"), 0, fault
        except OptionError as error:
            return ("refused" if error.errno else "wrong"), error.errno or 0, str(error)
        except OSError as error:
            return "wrong", 0, f"afterwards: {error!r}"
        except KeyError as error:
            return "refused", errno.ENOSYS, f"no sample: {error}"


# -- what cannot be verified, and why --

# The kernel takes these and nothing shows it.
UNTOLD = {
    "SO_CNX_ADVICE": "makes the kernel forget a route, which no call tells",
    "SO_BUSY_POLL_BUDGET": "write only",
    "SO_DEVMEM_DONTNEED": "gives back memory, which no call tells",
    "PACKET_FANOUT_DATA": "write only",
    "IPV6_2292PKTOPTIONS": "reading tells of the last packet, not of what was set",
}
# name: why, and the errors that show it
MISSING: dict[str, tuple[str, set[int]]] = {
    "SO_PEERSEC": ("module: no security module labels peers", {errno.ENOPROTOOPT}),
    "SO_RESERVE_MEM": ("hardware: needs a memory control group", {errno.EOPNOTSUPP}),
    "SO_DEVMEM_DONTNEED": (
        "hardware: needs device memory",
        {errno.ENOPROTOOPT, errno.EBADF, errno.EINVAL, errno.EFAULT, errno.EOPNOTSUPP},
    ),
    "IP_IPSEC_POLICY": ("module: af_key", {errno.EOPNOTSUPP, errno.EINVAL}),
    "IPV6_IPSEC_POLICY": ("module: af_key", {errno.EOPNOTSUPP, errno.EINVAL}),
    "SO_ORIGINAL_DST": ("module: connection tracking", {errno.ENOENT, errno.ENOPROTOOPT}),
    "IP6T_SO_ORIGINAL_DST": ("module: connection tracking", {errno.ENOENT, errno.ENOPROTOOPT}),
    "TCP_ULP": ("module: tls", {errno.ENOENT}),
    **dict.fromkeys(
        ("TLS_TX", "TLS_RX", "TLS_TX_ZEROCOPY_RO", "TLS_RX_EXPECT_NO_PAD"),
        ("module: tls", {errno.ENOENT}),
    ),
    **dict.fromkeys(
        (*(f"TCP_AO_{word}" for word in ("ADD_KEY", "DEL_KEY", "INFO", "GET_KEYS", "REPAIR")),),
        ("module: TCP_AO", {errno.ENOPROTOOPT}),
    ),
    **dict.fromkeys(
        ("SO_VM_SOCKETS_PEER_HOST_VM_ID", "SO_VM_SOCKETS_TRUSTED", "SO_VM_SOCKETS_NONBLOCK_TXRX"),
        ("VMware's own kernel has it", {errno.ENOPROTOOPT}),
    ),
}
# getsockopt takes a header that Python's cannot pass in.
NOT_CHECKED = {
    "TCP_AO_GET_KEYS",
    "TCP_ZEROCOPY_RECEIVE",
    "MPTCP_TCPINFO",
    "MPTCP_SUBFLOW_ADDRS",
    "MPTCP_FULL_INFO",
}
# The kernel takes these beyond the table's range, which is that of what it makes sense to ask.
LENIENT = {
    "IPV6_CHECKSUM": {"under"},
    "IPV6_CHECKSUM@SOL_RAW": {"under"},
    "TCP_LINGER2": {"under"},
    "TCP_DEFER_ACCEPT": {"under"},
}
# The least is more than one clock tick: 1 ms here, 4 ms or 10 ms on other kernels.
BY_TICKS = {"TCP_RTO_MIN_US", "TCP_DELACK_MAX_US"}
NO_SUCH_SOCKET = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT}
NO_RIGHT = {errno.EPERM, errno.EACCES}
NO_SUCH_OPTION = {errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL}
# Kinds that no kernel had where this was written: their options were never tried.
UNSEEN = {"sctp4", "sctp6", "can", "alg"}


def release() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def is_newer(option: Option) -> bool:
    since = tuple(map(int, option.since.split(".")[:2])) if option.since else (0,)
    return since > release()


def namespace() -> bool:
    """Move this process into a network namespace of its own with the loopback up, if it may."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) and libc.unshare(0x10000000 | 0x40000000):
        return False
    with suppress(OSError), socket.socket() as sock:
        up = struct.pack("16sH14x", b"lo", 0x1 | 0x8 | 0x40 | 0x1000)
        fcntl.ioctl(sock, 0x8914, up.ljust(40, b"\0"))  # SIOCSIFFLAGS
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8916, struct.pack("=16sIi", ip6(OURS6), 64, LO))  # SIOCSIFADDR
    for name, value in {
        "ipv4/ping_group_range": "0 2147483647",
        "ipv4/tcp_fastopen": "3",
        "ipv6/conf/all/forwarding": "1",
    }.items():
        with suppress(OSError):
            Path("/proc/sys/net", name).write_text(value)
    return True


# -- what an accepted socket has of its listener's --

STREAM_KINDS = ("tcp4", "tcp6", "unix-stream", "unix-seqpacket")
# Not looked at, and why.
NO_HEIR = {
    "IPV6_RTHDR": "the handshake goes by way of the route",
    "IPV6_RTHDRDSTOPTS": "the handshake is lost",
    "IPV6_FLOWLABEL_MGR": "the lease is the address's",
    "IPV6_2292PKTOPTIONS": "reading tells of the last packet",
    "TCP_REPAIR": "a listener in repair mode does not answer",
    "TCP_REPAIR_QUEUE": "only in repair mode",
    "TCP_QUEUE_SEQ": "only in repair mode",
    "IPV6_MTU": "reading tells the path's",
    "IPV6_V6ONLY": "has to be off for a socket of both kinds",
    "SO_INCOMING_CPU": "the kernel replaces it by what the last packet had",
    "TCP_MAXSEG": "reads as the size in use",
    "TCP_WINDOW_CLAMP": "the handshake raises it",
}
# The kernel ignores these, or a listener has them already: nothing could be handed down.
NO_ESTATE = {"SO_BSDCOMPAT", "TCP_QUICKACK", "TCP_THIN_DUPACK"}


def accepted(option: Option, kind: str, is_set: bool) -> tuple[bytes, bytes]:
    """Return what a listener and the socket that it accepts tell of *option*."""
    with Made(replace(option, phase="socket"), kind) as made:
        listener = made.sock
        if is_set:
            sockopts.apply(listener, {option.name: sample(option, kind, made)[0]})
        family, type_, _ = made.arguments
        listener.bind("" if family == socket.AF_UNIX else (made.host, 0))
        listener.listen()
        with socket.socket(family, type_) as client:
            client.settimeout(3)
            client.connect(listener.getsockname())
            if option.name == "TCP_DEFER_ACCEPT":
                client.send(b"x")
            with listener.accept()[0] as heir:
                return ask(listener, option, 1024), ask(heir, option, 1024)


def heirs() -> dict[str, Any]:
    """Return what became of each inheritable option on an accepted socket, by kind."""
    found: dict[str, Any] = {}
    for name, option in CATALOGUE.items():
        kinds = [kind for kind in STREAM_KINDS if kind in option.fits]
        readable = option.access == "rw" and option.inherited is not None
        if not readable or option.phase == "connected" or name in NO_HEIR:
            continue
        for kind in kinds:
            try:
                control = accepted(option, kind, False)[1]
                ours, heirs = accepted(option, kind, True)
            except (OSError, OptionError) as error:
                found.setdefault(name, {})[kind] = "refused", error.errno or 0, str(error)
                continue
            # IP_TOS and its like: what differs from the control has been handed down.
            word = "same" if ours == control else "yes" if heirs == ours else "no"
            text = f"listener {ours.hex()}, accepted {heirs.hex()}, else {control.hex()}"
            found.setdefault(name, {})[kind] = word, 0, text
    return found


# -- ranges --

NUMBERS = ("int", "size", "seconds", "milliseconds", "microseconds")
RANGED = [
    name
    for name, option in CATALOGUE.items()
    if ".." in option.value and option.form.kind in NUMBERS and option.is_writable
]


def answers(option: Option) -> dict[str, int]:
    """Return the kernel's error for the least and the greatest value, and for those beyond."""
    low, high = map(int, option.value.split()[1].split(".."))
    found = {}
    for word, value in {"low": low, "high": high, "under": low - 1, "over": high + 1}.items():
        if not -(2**31) <= value < 2**31:
            continue
        for kind in (kind for kind in SOCKETS if kind in option.fits):
            try:
                made = Made(replace(option, phase="socket"), kind)
            except OSError:
                continue
            with made:
                try:
                    made.sock.setsockopt(option.level, option.number or 0, value)
                    found[word] = 0
                except OSError as error:
                    found[word] = error.errno or 0
            break
    return found


def drop() -> None:
    """Give every capability up, for good."""
    header, data = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if ctypes.CDLL(None, use_errno=True).capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    """Try every option and print what came of it."""
    own = namespace()

    def try_all() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, option in CATALOGUE.items():
            if option.access == "cmsg" or name in NOT_CHECKED or (name in SIDE_EFFECTS and not own):
                continue
            kinds = [kind for kind in SOCKETS if kind in option.fits]
            found[name] = {kind: trial(option, kind) for kind in kinds}
        return found

    results = {
        "namespace": own,
        "trials": try_all(),
        "heirs": heirs(),
        "ranges": {name: answers(CATALOGUE[name]) for name in RANGED},
    }
    drop()
    print(json.dumps({**results, "unprivileged": try_all()}))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What came of every option on every kind of socket."""
    from conftest import run

    done = run(sys.executable, "-X", "faulthandler", __file__, timeout=120)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    return results


def excuse(option: Option, kind: str, word: str, number: int) -> str:
    """Return why *option* may fail on *kind*; nothing where it may not."""
    if word == "closed" and number in NO_SUCH_SOCKET:
        return f"module: no {kind} sockets"
    held = sockopts.held() or frozenset()
    if number in NO_RIGHT and (word == "closed" or not held & {"CAP_NET_ADMIN"}):
        return "privilege"
    if word == "refused" and number in NO_RIGHT and option.form.kind == "fd":
        return "" if "CAP_BPF" in held else "privilege"
    if word == "refused" and is_newer(option) and number in NO_SUCH_OPTION:
        return f"came with Linux {option.since}"
    if (option.phase, kind, word) == ("connected", "vsock", "refused"):
        return "module: vsock_loopback"
    reason, numbers = MISSING.get(option.name, ("", set()))
    return reason if word == "refused" and number in numbers else ""


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_option_is_verified_or_listed(name: str, found: dict[str, Any]) -> None:
    """Each option is set and told back by the kernel, or cannot be, for a reason that holds."""
    option = CATALOGUE[name]
    if option.access == "cmsg":
        fault = sockopts.check_options({name: True})[name]
        assert fault == "comes and goes with single messages; it is no setting of a socket"
        return
    if name in NOT_CHECKED:
        assert option.access == "r"
        return
    if name in SIDE_EFFECTS and not found["namespace"]:
        pytest.skip("needs CAP_SYS_ADMIN, for a network namespace")
    tried = found["trials"][name]
    if set(tried) <= UNSEEN and any(word != "closed" for word, _, _ in tried.values()):
        pytest.skip("this kernel has sockets that were never seen where this was written")
    faults, excuses, good = {}, set(), set()
    for kind, (word, number, text) in tried.items():
        if word == "told" or (word == "taken" and name in UNTOLD):
            good.add(kind)
        elif reason := excuse(option, kind, word, number):
            excuses.add(reason)
        else:
            faults[kind] = f"{word} {text}"
    assert not faults
    assert good or excuses
    assert not (good and name in MISSING and ":" not in MISSING[name][0]), "listed, and works"
    if excuses == {"privilege"} and not good:
        pytest.skip(f"needs {' or '.join(option.capabilities) or 'a right'}")


def test_an_accepted_socket_has_what_the_table_says(found: dict[str, Any]) -> None:
    """What is inherited according to the table is, and what is not is not."""
    faults = {}
    for name, kinds in found["heirs"].items():
        option = CATALOGUE[name]
        for kind, (word, number, text) in kinds.items():
            wanted = "yes" if kind in (option.inherited or ()) else "no"
            excused = excuse(option, kind, word, number) if word == "refused" else ""
            if word != wanted and not excused and name not in NO_ESTATE:
                faults[name, kind] = f"{word} instead of {wanted}: {text}"
    assert not faults
    assert len(found["heirs"]) > 60


@pytest.mark.parametrize("name", RANGED)
def test_a_range_is_the_kernels(name: str, found: dict[str, Any]) -> None:
    """Both ends of a range in the table are taken, and what lies beyond is refused."""
    told = found["ranges"][name]
    option = CATALOGUE[name]
    missing = {*NO_RIGHT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTCONN}
    if not told or set(told.values()) & missing:
        pytest.skip(f"no socket here takes it: {told}")
    assert told["high"] == 0
    assert told["low"] in ((0, errno.EINVAL) if name in BY_TICKS else (0,))
    beyond = {word for word in ("under", "over") if told.get(word) == 0}
    assert beyond == LENIENT.get(name, set())
    low, high = option.form.low, option.form.high
    assert f"{low}..{high}" == option.value.split()[1]


def test_a_privilege_is_needed_where_the_table_says_so(found: dict[str, Any]) -> None:
    """Without capabilities what needs one is refused with its name, and nothing else is."""
    faults, needing = {}, set()
    for name, kinds in found["unprivileged"].items():
        option = CATALOGUE[name]
        for kind, (word, number, text) in kinds.items():
            before = found["trials"][name][kind][0]
            if word == "closed" or before not in ("told", "taken") or option.form.kind == "fd":
                continue
            is_early = text.startswith("before it is set")
            if option.capabilities and not option.condition:
                needing.add(name)
                right = f"AmbientCapabilities={option.capabilities[0]})"
                if number not in NO_RIGHT or not (is_early or text.endswith(right)):
                    faults[name, kind] = f"{word}, where a right is needed: {text}"
            elif number in NO_RIGHT and not option.condition and not is_early:
                faults[name, kind] = f"{word}, where no right is needed: {text}"
    assert not faults
    if not needing:
        pytest.skip("needs CAP_NET_ADMIN, to see it refused without")


def test_what_is_listed_is_in_the_catalogue() -> None:
    """No list of this proof names an option that the catalogue does not have."""
    names = {name.partition("@")[0] for name in CATALOGUE}
    for listed in (SAMPLES, EFFECTS, SIDE_EFFECTS, UNTOLD, MISSING, NOT_CHECKED):
        assert {name.partition("@")[0] for name in listed} <= names


if __name__ == "__main__":
    main()
