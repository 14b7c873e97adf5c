"""What the types and codes of ICMP and ICMPv6 are called.

After https://www.iana.org/assignments/icmp-parameters and .../icmpv6-parameters, in fewer words.
"""

from __future__ import annotations

TYPES: dict[int, str] = {
    0: "echo reply",
    3: "destination unreachable",
    4: "source quench",
    5: "redirect",
    8: "echo request",
    9: "router advertisement",
    10: "router solicitation",
    11: "time exceeded",
    12: "parameter problem",
    13: "timestamp request",
    14: "timestamp reply",
    15: "information request",
    16: "information reply",
    17: "address mask request",
    18: "address mask reply",
    30: "traceroute",
    40: "photuris",
    42: "extended echo request",
    43: "extended echo reply",
}
CODES: dict[tuple[int, int], str] = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 5): "source route failed",
    (3, 6): "destination network unknown",
    (3, 7): "destination host unknown",
    (3, 8): "source host isolated",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 11): "network unreachable for the type of service",
    (3, 12): "host unreachable for the type of service",
    (3, 13): "communication administratively prohibited",
    (3, 14): "host precedence violation",
    (3, 15): "precedence cutoff in effect",
    (5, 0): "redirect for the network",
    (5, 1): "redirect for the host",
    (5, 2): "redirect for the type of service and network",
    (5, 3): "redirect for the type of service and host",
    (9, 16): "router advertisement, not for common traffic",
    (11, 0): "time to live exceeded in transit",
    (11, 1): "fragment reassembly time exceeded",
    (12, 0): "parameter problem",
    (12, 1): "required option missing",
    (12, 2): "bad length",
    (43, 1): "malformed query",
    (43, 2): "no such interface",
    (43, 3): "no such table entry",
    (43, 4): "multiple interfaces satisfy the query",
}
TYPES_6: dict[int, str] = {
    1: "destination unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    130: "multicast listener query",
    131: "multicast listener report",
    132: "multicast listener done",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    137: "redirect",
    138: "router renumbering",
    139: "node information query",
    140: "node information response",
    141: "inverse neighbour discovery solicitation",
    142: "inverse neighbour discovery advertisement",
    143: "multicast listener report v2",
    144: "home agent address discovery request",
    145: "home agent address discovery reply",
    146: "mobile prefix solicitation",
    147: "mobile prefix advertisement",
    148: "certification path solicitation",
    149: "certification path advertisement",
    151: "multicast router advertisement",
    152: "multicast router solicitation",
    153: "multicast router termination",
    155: "RPL control",
    157: "duplicate address request",
    158: "duplicate address confirmation",
    160: "extended echo request",
    161: "extended echo reply",
}
CODES_6: dict[tuple[int, int], str] = {
    (1, 0): "no route to destination",
    (1, 1): "administratively prohibited",
    (1, 2): "beyond the scope of the source address",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address failed a policy",
    (1, 6): "route to destination rejected",
    (1, 7): "error in source routing header",
    (1, 8): "headers too long",
    (3, 0): "hop limit exceeded in transit",
    (3, 1): "fragment reassembly time exceeded",
    (4, 0): "erroneous header field",
    (4, 1): "unrecognised next header type",
    (4, 2): "unrecognised IPv6 option",
    (4, 3): "first fragment has an incomplete header chain",
    (4, 4): "segment routing upper-layer header error",
    (4, 5): "unrecognised next header type at an intermediate node",
    (4, 6): "extension header too big",
    (4, 7): "extension header chain too long",
    (4, 8): "too many extension headers",
    (4, 9): "too many options in an extension header",
    (4, 10): "option too big",
    (161, 1): "malformed query",
    (161, 2): "no such interface",
    (161, 3): "no such table entry",
    (161, 4): "multiple interfaces satisfy the query",
}


def icmp_name(kind: int, code: int = 0) -> str:
    """Return what a type of ICMP with its code means; numbers where the registry has no words."""
    return CODES.get((kind, code)) or _numbered(TYPES, kind, code)


def icmpv6_name(kind: int, code: int = 0) -> str:
    """Return the same for ICMPv6."""
    return CODES_6.get((kind, code)) or _numbered(TYPES_6, kind, code)


def _numbered(types: dict[int, str], kind: int, code: int) -> str:
    name = types.get(kind, f"type {kind}")
    return f"{name} code {code}" if code else name
