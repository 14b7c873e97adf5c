"""Access lists: the longest matching prefix decides; of a UNIX peer its user, then its groups.

Know IP networks, users and groups; never a socket.
"""

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
from collections.abc import Iterable

from twistedsock.addresses import Credentials

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


_ACCOUNT = re.compile(r"(uid|gid):(.+)")


def parse_account(text: str) -> tuple[str, int] | None:
    """Return ``("uid", 0)`` for ``uid:0`` or ``uid:root``, and so for ``gid:``; None for others.

    Raises:
        ValueError: No user or group has that name.
    """
    match = _ACCOUNT.fullmatch(text)
    if match is None:
        return None
    kind, name = match.groups()
    if re.fullmatch(r"[0-9]{1,10}", name):
        return kind, int(name)
    try:
        return kind, pwd.getpwnam(name).pw_uid if kind == "uid" else grp.getgrnam(name).gr_gid
    except KeyError:
        what = "user" if kind == "uid" else "group"
        raise ValueError(f"no {what} is called {name!r}, in {text!r}") from None


class AccessList:
    """Who may open a session.

    IP peers are judged by the networks, UNIX peers by the users and groups. Where nothing of
    its sort matches, a list with any *allow* of that sort refuses, and any other admits.

    Args:
        allow: Admitted: networks, and accounts such as ``uid:0`` or ``gid:adm``.
        deny: Refused.

    Raises:
        ValueError: A network or account stands in both lists, or is none.
    """

    __slots__ = ("_accounts", "_accounts_default", "_default", "_tables")

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._accounts: dict[tuple[str, int], bool] = {}
        self._accounts_default = True
        allowed, denied = self._split(allow, True), self._split(deny, False)
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

    def _split(self, texts: Iterable[str], verdict: bool) -> list[Network]:
        """Note the accounts of *texts* with their *verdict*; return the networks."""
        networks = []
        for text in texts:
            account = parse_account(text)
            if account is None:
                networks.append(parse_network(text))
                continue
            if self._accounts.setdefault(account, verdict) is not verdict:
                raise ValueError(f"{text} is both allowed and denied")
            if verdict:
                self._accounts_default = False
        return networks

    def allows_user(self, peer: Credentials) -> bool:
        """Return whether a UNIX *peer* may open a session: its user decides before its groups.

        Of its groups any that is denied decides.
        """
        accounts = self._accounts
        verdict = accounts.get(("uid", peer.uid))
        if verdict is not None:
            return verdict
        groups = {accounts.get(("gid", group)) for group in (peer.gid, *peer.groups)}
        if False in groups:
            return False
        return True in groups or self._accounts_default

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
