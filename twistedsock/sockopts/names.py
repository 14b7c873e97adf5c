"""Forms of values that have names: what the kernel's headers call the numbers that options take.

A set of names is either a choice (one of them) or flags (any of them together).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from twistedsock.sockopts.values import MAX_INT, MIN_INT, Form, Raw, as_int, wrong

# RFC 2474, 2597, 3246, 5865, 8622: a class stands in the six upper bits of the octet.
DSCP: Final[dict[str, int]] = {
    **{f"CS{number}": number << 5 for number in range(8)},
    **{
        f"AF{group}{drop}": (group << 5) | (drop << 3)
        for group in range(1, 5)
        for drop in (1, 2, 3)
    },
    "LE": 1 << 2,
    "EF": 46 << 2,
    "VA": 44 << 2,
}
# systemd.socket(5) spells the octets of RFC 1349 so.
TOS_WORDS: Final[dict[str, int]] = {
    "low-delay": 0x10,
    "throughput": 0x08,
    "reliability": 0x04,
    "low-cost": 0x02,
}

CHOICES: Final[dict[str, dict[str, int]]] = {
    "pmtudisc": {  # linux/in.h, IP_PMTUDISC_*
        "dont": 0,
        "want": 1,
        "do": 2,
        "probe": 3,
        "interface": 4,
        "omit": 5,
    },
    "packet-version": {"v1": 0, "v2": 1, "v3": 2},  # linux/if_packet.h, TPACKET_*
    "txrehash": {"default": -1, "disabled": 0, "enabled": 1},  # linux/socket.h, SOCK_TXREHASH_*
    "repair": {"off": 0, "on": 1, "off-no-window-probe": -1},  # linux/tcp.h, TCP_REPAIR_*
    "repair-queue": {"none": 0, "receive": 1, "send": 2},  # linux/tcp.h, TCP_*_QUEUE
    "save-syn": {"off": 0, "on": 1, "with-mac": 2},  # tcp(7), TCP_SAVE_SYN
    "udp-encap": {"none": 0, "espinudp": 2, "l2tpinudp": 3},  # linux/udp.h, UDP_ENCAP_*
    "socket-type": {  # socket(2)
        "stream": 1,
        "dgram": 2,
        "raw": 3,
        "rdm": 4,
        "seqpacket": 5,
        "packet": 10,
    },
    "socket-domain": {  # socket(2)
        "unix": 1,
        "inet": 2,
        "inet6": 10,
        "netlink": 16,
        "packet": 17,
        "can": 29,
        "alg": 38,
        "vsock": 40,
        "xdp": 44,
    },
    "socket-protocol": {
        "ip": 0,
        "icmp": 1,
        "igmp": 2,
        "tcp": 6,
        "udp": 17,
        "icmpv6": 58,
        "sctp": 132,
        "udplite": 136,
        "raw": 255,
        "mptcp": 262,
    },
}

FLAGS: Final[dict[str, dict[str, int]]] = {
    "buf-lock": {"send": 1, "receive": 2},  # linux/socket.h, SOCK_*_LOCK
    "addr-preferences": {  # linux/in6.h, IPV6_PREFER_SRC_*
        "tmp": 0x0001,
        "public": 0x0002,
        "coa": 0x0004,
        "pubtmp-default": 0x0100,
        "home": 0x0400,
        "cga": 0x0008,
        "noncga": 0x0800,
    },
    "timestamping": {  # linux/net_tstamp.h, SOF_TIMESTAMPING_*
        name: 1 << position
        for position, name in enumerate(
            (
                "tx-hardware",
                "tx-software",
                "rx-hardware",
                "rx-software",
                "software",
                "sys-hardware",
                "raw-hardware",
                "opt-id",
                "tx-sched",
                "tx-ack",
                "opt-cmsg",
                "opt-tsonly",
                "opt-stats",
                "opt-pktinfo",
                "opt-tx-swhw",
                "bind-phc",
                "opt-id-tcp",
                "opt-rx-filter",
                "tx-completion",
            )
        )
    },
}


def _choice(parameter: str) -> Form:
    return _named("enum", CHOICES[parameter], MIN_INT, MAX_INT)


def _dscp(_: str) -> Form:
    return _named("dscp", DSCP, -1, 255, TOS_WORDS)


def _named(
    kind: str, names: dict[str, int], low: int, high: int, more: dict[str, int] | None = None
) -> Form:
    """Return the form of one of *names*, or a number; *more* are read, and never told."""
    numbers = {name.lower(): number for name, number in {**(more or {}), **names}.items()}
    known = {number: name for name, number in names.items()}
    wanted = f"one of {', '.join(names)}, or a whole number"
    if (low, high) != (MIN_INT, MAX_INT):
        wanted += f" from {low} to {high}"

    def encode(value: object) -> int:
        if isinstance(value, str) and value.lower() in numbers:
            return numbers[value.lower()]
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(wanted, value)
        if not low <= value <= high:
            raise wrong("within 32 bits" if high == MAX_INT else wanted, value)
        return value

    def decode(raw: Raw) -> object:
        return known.get(as_int(raw), as_int(raw))

    return Form(
        kind, wanted, encode, decode, low=low, high=high, choices=tuple(names), takes_numbers=True
    )


def _flags(parameter: str) -> Form:
    names = FLAGS[parameter]
    wanted = f"a list of {', '.join(names)}, or a whole number from 0 to {MAX_INT}"

    def encode(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT:
            return value
        written = re.split(r"[,|+\s]+", value) if isinstance(value, str) else value
        if not isinstance(written, list | tuple) or not all(
            isinstance(name, str) and name.lower() in names for name in written
        ):
            raise wrong(wanted, value)
        total = 0
        for name in written:
            total |= names[name.lower()]
        return total

    def decode(raw: Raw) -> object:
        number, found = as_int(raw), []
        for name, flag in names.items():
            if number & flag:
                found.append(name)
                number &= ~flag
        return found if not number else as_int(raw)

    return Form("flags", wanted, encode, decode, choices=tuple(names), takes_numbers=True)


NAMED: Final[dict[str, Callable[[str], Form]]] = {
    "enum": _choice,
    "flags": _flags,
    "dscp": _dscp,
}
