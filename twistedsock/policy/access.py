"""Access lists: the longest matching prefix decides.

Know IP networks; never a socket. Peers without an IP address (UNIX) are not judged here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """Return the network in *text*: an address, or a prefix such as ``10.0.0.0/8``.

    Raises:
        ValueError: It is neither, or has bits set behind the prefix.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        near = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f'must be an IP address or prefix such as "10.0.0.0/8" or "::1", got {text!r}'
        ) from None
    raise ValueError(f"has bits set behind its prefix; did you mean {str(near)!r}? got {text!r}")


class AccessList:
    """Who may open a session.

    Where nothing matches, a list with any *allow* refuses, and one with only *deny* admits.

    Args:
        allow: Networks admitted.
        deny: Networks refused.

    Raises:
        ValueError: A network stands in both lists, or is no network.
    """

    __slots__ = ("_default", "_tables")

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        allowed = [parse_network(text) for text in allow]
        denied = [parse_network(text) for text in deny]
        both = set(allowed) & set(denied)
        if both:
            raise ValueError(f"{min(map(str, both))} is both allowed and denied")
        self._default = not allowed
        # For each version: (bits to drop, {network's leading bits: verdict}), longest first.
        self._tables: dict[int, list[tuple[int, dict[int, bool]]]] = {4: [], 6: []}
        prefixes: dict[tuple[int, int], dict[int, bool]] = {}
        for networks, verdict in ((allowed, True), (denied, False)):
            for network in networks:
                shift = network.max_prefixlen - network.prefixlen
                table = prefixes.setdefault((network.version, shift), {})
                table[int(network.network_address) >> shift] = verdict
        for (version, shift), table in sorted(prefixes.items()):
            self._tables[version].append((shift, table))

    def allows(self, host: str) -> bool:
        """Return whether a peer with the numeric address *host* may open a session."""
        if not self._tables[4] and not self._tables[6]:
            return True
        address = ipaddress.ip_address(host.partition("%")[0])
        number = int(address)
        for shift, table in self._tables[address.version]:
            verdict = table.get(number >> shift)
            if verdict is not None:
                return verdict
        return self._default
