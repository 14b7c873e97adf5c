"""Which link type an interface has, by the kind of hardware that Linux says it is."""

from __future__ import annotations

from typing import Final

from twistedsock.wire.captured import LINKTYPE_ETHERNET, LINKTYPE_RAW

# linux/if_arp.h
ARPHRD_ETHER, ARPHRD_PPP, ARPHRD_LOOPBACK, ARPHRD_NONE = 1, 512, 772, 0xFFFE
LINK_TYPES: Final = {
    ARPHRD_ETHER: LINKTYPE_ETHERNET,
    ARPHRD_LOOPBACK: LINKTYPE_ETHERNET,
    ARPHRD_PPP: LINKTYPE_RAW,  # the kernel keeps PPP's header for itself
    ARPHRD_NONE: LINKTYPE_RAW,  # as TUN and WireGuard have it
}
