"""A client's socket options: checked before there is a socket, set before it is connected."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from twistedsock import sockopts
from twistedsock.addresses import Address
from twistedsock.errors import OptionError
from twistedsock.sockopts import Report, SocketPlan
from twistedsock.sockopts.kinds import kinds_of_socket

Options = Mapping[str, object]
NONE: Options = {}
EXAMPLE = '{"TCP_USER_TIMEOUT": "10s"}'


def check(address: Address, options: Options | None) -> Options:
    """Return *options*, which are right for a socket that connects to *address*.

    Raises:
        OptionError: One is unknown, has a wrong value or fits no such socket; or they are no
            mapping.
    """
    options = NONE if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise OptionError(f"options must be values by name, such as {EXAMPLE}; got {options!r}")
    for name, fault in sockopts.check_options(options, [address], "connect").items():
        raise OptionError(f"{name}: {fault}", name)
    return options


class GroupSocket(socket.socket):
    """A datagram socket that sends to one group, and hears whoever answers.

    Were it connected, the kernel would drop the answers: they come from the members' own addresses.
    """

    _group: Any = None

    def connect(self, address: Any) -> None:
        """Note where to send."""
        self._group = address

    def getpeername(self) -> Any:
        """Return the group and its port."""
        return self._group

    def send(self, data: Any, flags: int = 0) -> int:
        """Send *data* to the group."""
        return self.sendto(data, flags, self._group)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send *data* to the group as one datagram."""
        self.sendto(data, flags, self._group)


def is_group(host: str) -> bool:
    """Return whether *host*, a numeric address, is a multicast group."""
    return ipaddress.ip_address(host.partition("%")[0]).is_multicast


def open_socket(
    family: int, kind: int, proto: int, options: Options, *, to_group: bool = False
) -> socket.socket:
    """Return a non-blocking socket with those of *options* that come before it is connected.

    Raises:
        OSError: There is no such socket.
        OptionError: The kernel refused an option; no socket is left open.
    """
    sock = (GroupSocket if to_group else socket.socket)(family, kind, proto)
    try:
        sock.setblocking(False)
        if options:
            plan = plan_for(sock, options)
            sockopts.set_phase(sock, plan, "socket", {})
            sockopts.set_phase(sock, plan, "prebind", {})
            sockopts.set_phase(sock, plan, "bound", {})
    except BaseException:
        sock.close()
        raise
    return sock


def finish(sock: socket.socket, options: Options) -> Report:
    """Set what comes once *sock* is connected; return what became of all *options*.

    Raises:
        OptionError: The kernel refused one; the socket is closed.
    """
    if not options:
        return Report()
    plan = plan_for(sock, options)
    try:
        sockopts.set_phase(sock, plan, "connected", {})
    except OptionError:
        sock.close()
        raise
    return sockopts.read_back(sock, plan, {})


def plan_for(sock: socket.socket, options: Options) -> SocketPlan:
    """Return those of *options* that fit *sock*: a name's sockets may be of either IP version."""
    return sockopts.plan_for_kinds(options, kinds_of_socket(sock), role="connect")
