"""What is special about one listener: which of its keys fit its address, and what they ask for."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import replace

from twistedsock import sockopts
from twistedsock.addresses import is_numeric
from twistedsock.host.settings import ListenConfig
from twistedsock.sockopts.memberships import group_of, membership_options
from twistedsock.transports.unix_paths import DEFAULT_MODE

# What also decides which packets a socket receives.
FILTERING_OPTIONS = frozenset(
    {
        "SO_ATTACH_FILTER",
        "SO_ATTACH_BPF",
        "SO_DETACH_FILTER",
        "SO_DETACH_BPF",
    }
)


def faults_of_keys(listen: ListenConfig, options: Collection[str]) -> dict[str, str]:
    """Return what is wrong with keys of *listen*, by key.

    Args:
        listen: One listener.
        options: The names of its socket options, and of its service's.
    """
    faults = {
        "mode": _mode_fault(listen),
        "groups": _groups_fault(listen),
        "filter": _filter_fault(listen, options),
    }
    return {key: fault for key, fault in faults.items() if fault}


def _mode_fault(listen: ListenConfig) -> str | None:
    if listen.mode == DEFAULT_MODE:
        return None
    if listen.address.scheme not in ("unix", "unixgram", "seqpacket"):
        return "is of UNIX paths only"
    if listen.address.path.startswith("@"):
        return "is of paths: an abstract name has no permissions"
    return None


def _groups_fault(listen: ListenConfig) -> str | None:
    """Return why the listener cannot hear its groups."""
    if not listen.groups:
        return None
    address = listen.address
    if address.scheme not in ("udp", "raw"):
        return "are for udp and raw listeners only"
    groups = list(map(group_of, listen.groups))
    for group in groups:
        if is_numeric(group) and not ipaddress.ip_address(group).is_multicast:
            return f"{group} is no multicast group (224.0.0.0/4, ff00::/8)"
    # What is bound to another address is delivered nothing that is sent to a group.
    host = group_of(address.host) if is_numeric(address.host) else address.host
    if host and not address.is_wildcard and host not in groups:
        wild = f"udp:*:{address.port}" if address.scheme == "udp" else f"raw:{address.path}"
        return f"a listener on {address.host} hears no group; listen on {wild}, or on the group"
    faults = sockopts.check_options(membership_options(listen.groups), [address])
    return next(iter(faults.values()), None)


def _filter_fault(listen: ListenConfig, options: Collection[str]) -> str | None:
    if not listen.filter:
        return None
    if listen.address.scheme != "packet":
        return f"is for packet listeners only, such as packet:eth0; got {listen.address}"
    meant = {option.name for name in options for option in sockopts.SPELLINGS.get(name, ())}
    both = sorted(meant & FILTERING_OPTIONS)
    if both:
        return f"decides what is received, and so does {both[0]}; leave one of them out"
    return None


def of_right_version(planned: sockopts.SocketPlan) -> sockopts.SocketPlan:
    """Return *planned* without what would join a group of one IP version in the other.

    Both have an option of that name, and a dual-stack listener takes both.
    """
    settings = [
        each
        for each in planned.settings
        if each.name != "MCAST_JOIN_SOURCE_GROUP"
        or (each.option.level_name == "IPPROTO_IPV6") == (":" in group_of(str(each.requested)))
    ]
    return replace(planned, settings=tuple(settings))
