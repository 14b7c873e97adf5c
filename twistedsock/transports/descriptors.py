"""Passing descriptors over UNIX sockets (unix(7), SCM_RIGHTS). Knows ancillary data, never a port.

Whoever is handed a descriptor closes it. The kernel drops those that no room was given for.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

MAX_DESCRIPTORS = 253  # in one message: the kernel's SCM_MAX_FD
RIGHTS_BYTES = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
CREDENTIALS_BYTES = socket.CMSG_SPACE(12)
# Programs that this process starts shall not inherit what a peer sent. Python lacks the constant.
MSG_CMSG_CLOEXEC = 0x40000000


def descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message; whoever takes them closes them."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def rights(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that sends copies of *descriptors*."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]


def copies_of(descriptors: Iterable[int]) -> list[int]:
    """Return a duplicate of each of *descriptors*, which the caller closes.

    Raises:
        OSError: One is not open, or none is left; nothing is left of the others.
    """
    copies: list[int] = []
    try:
        for fd in descriptors:
            copies.append(os.dup(fd))
    except BaseException:
        close_all(copies)
        raise
    return copies


def close_all(descriptors: Iterable[int]) -> None:
    """Close *descriptors* that nobody wants."""
    for fd in descriptors:
        os.close(fd)


def hand_over(descriptors: list[int], protocol: Any) -> None:
    """Give *descriptors* to *protocol*, an IFileDescriptorReceiver: each is its own to close.

    What is left where it raises is closed.
    """
    rest = iter(descriptors)
    try:
        for fd in rest:
            protocol.fileDescriptorReceived(fd)
    finally:
        close_all(rest)
