"""What the kernel would make of a plan's socket options, tried on throw-away sockets.

Never the configured address: a stream or datagram socket is bound to a port of the kernel's choice,
on loopback, or on every address where the plan says so; and it is closed at once.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from twistedsock import sockopts
from twistedsock.addresses import LOOPBACK, WILDCARD, Address, is_numeric
from twistedsock.errors import BindError, OptionError
from twistedsock.host.plan import ListenerPlan, ServicePlan
from twistedsock.host.server import report_of
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.transports.binding import Refused, open_listener

PATIENCE_S = 5.0  # for a connection to ourselves
LOOPBACK_6 = "::1"


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of one listener's options.

    Attributes:
        service: The service's name.
        address: The configured address, which was not opened.
        report: What the kernel made of the options; as far as it went, where it refused one.
        error: Why the daemon would not start; None where it would.
    """

    service: str
    address: Address
    report: Report
    error: BindError | None = None


def probe(plans: Iterable[ServicePlan]) -> Iterator[Probe]:
    """Try the options of each listener of *plans*."""
    for plan in plans:
        for listener in plan.listeners:
            try:
                report, error = _try(listener), None
            except BindError as refusal:
                # Told for the address that is configured.
                reason = str(refusal).removeprefix(f"{refusal.address}: ")
                report, error = NOTHING_SET, BindError(listener.address, reason, refusal.errno)
            yield Probe(plan.name, listener.address, report, error)


def _try(listener: ListenerPlan) -> Report:
    stand_in = _stand_in(listener.address)
    if listener.options.refusal == "strict":
        for name, fault in sockopts.lacking(listener.options, sockopts.held()).items():
            raise BindError(stand_in, f"{name} {fault}", errno.EPERM)
    refused: Refused = {}
    with closing(open_listener(stand_in, listener.options, listener.backlog, refused)) as sock:
        if stand_in.kind == "stream" and listener.options.at("connected"):
            _try_connection(sock, listener, stand_in, refused)
        return report_of(sock, listener, refused)


def _stand_in(address: Address) -> Address:
    """Return an address of the same kind that is nobody's."""
    if address.host == WILDCARD:
        return replace(address, port=0)
    is_v6 = is_numeric(address.host) and ":" in address.host
    return replace(address, host=LOOPBACK_6 if is_v6 else LOOPBACK, port=0)


def _try_connection(
    sock: socket.socket, listener: ListenerPlan, stand_in: Address, refused: Refused
) -> None:
    """Accept a connection of our own, and set on it what connections get."""
    host, port = sock.getsockname()[:2]
    host = LOOPBACK_6 if host == "::" else LOOPBACK if host == "0.0.0.0" else host
    sock.settimeout(PATIENCE_S)
    try:
        with socket.create_connection((host, port), PATIENCE_S) as peer:
            peer.sendall(b"\0")  # some listeners accept only whoever has spoken
            with closing(sock.accept()[0]) as accepted:
                sockopts.set_phase(accepted, listener.options, "connected", refused)
    except OptionError as error:
        raise BindError(stand_in, str(error), error.errno) from error
    except OSError as error:
        raise BindError.from_os_error(stand_in, error) from error
