"""Capture filters on packet sockets: the kernel hands over what they accept, and drops the rest."""

from __future__ import annotations

import socket

from twistedsock import sockopts
from twistedsock.errors import OptionError
from twistedsock.sockopts.kernel import set_value
from twistedsock.wire.bpf import Program, to_bytes
from twistedsock.wire.filters import compile_filter
from twistedsock.wire.link_types import LINK_TYPES


def port_of(name: str) -> int | None:
    """Return the port of the service *name* on this machine; None where it has none."""
    try:
        return socket.getservbyname(name)
    except (OSError, UnicodeError):
        return None


def attach(sock: socket.socket, program: Program) -> None:
    """Let *sock* receive only what *program* accepts. What has arrived already stays.

    Raises:
        OptionError: The kernel refused it.
    """
    [option] = sockopts.SPELLINGS["SO_ATTACH_FILTER"]
    try:
        set_value(sock, option, to_bytes(program))
    except OSError as error:
        raise sockopts.refusal_of(option, "filter", error) from error


def attach_filter(sock: socket.socket, interface: str, expression: str) -> None:
    """Let *sock*, which receives nothing yet, receive of *interface* only what is described.

    It is then bound to the interface, and still receives nothing: that takes a bind with a
    protocol.

    Raises:
        FilterError: *expression* is no filter, or none for packets of that interface.
        OptionError: The kernel refused it, or no filters are known for that interface.
        OSError: The interface cannot be bound to.
    """
    sock.bind((interface, 0))
    hardware = sock.getsockname()[3]
    if hardware not in LINK_TYPES:
        text = f"filter: the link layer of {interface} (ARPHRD {hardware}) is not known"
        raise OptionError(f"{text}; it must be Ethernet or bare IP", "filter")
    attach(sock, compile_filter(expression, LINK_TYPES[hardware], port_of=port_of))
