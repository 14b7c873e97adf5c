"""Numbers that several headers share: what is inside a frame, and inside an IP packet.

https://www.iana.org/assignments/ieee-802-numbers and
https://www.iana.org/assignments/protocol-numbers
"""

from __future__ import annotations

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100  # IEEE 802.1Q, the customer's tag
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_SERVICE_VLAN = 0x88A8  # IEEE 802.1ad, the provider's tag

ICMP, IGMP, IPV4_INSIDE, TCP, UDP, IPV6_INSIDE, ICMPV6 = 1, 2, 4, 6, 17, 41, 58
NO_NEXT_HEADER = 59

_PROTOCOL_NAMES = {
    ICMP: "ICMP",
    IGMP: "IGMP",
    IPV4_INSIDE: "IP",
    TCP: "TCP",
    UDP: "UDP",
    33: "DCCP",
    IPV6_INSIDE: "IP6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    ICMPV6: "ICMPv6",
    NO_NEXT_HEADER: "nothing",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    132: "SCTP",
    136: "UDP-Lite",
}


def protocol_name(number: int) -> str:
    """Return what people call an IP protocol: its name, or ``protocol 253``."""
    return _PROTOCOL_NAMES.get(number) or f"protocol {number}"
