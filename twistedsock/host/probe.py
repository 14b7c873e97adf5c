"""What the kernel would make of a plan's socket options, tried on throw-away sockets.

Never the configured address: a stream or datagram socket is bound to a port of the kernel's choice,
on loopback, or on every address where the plan says so; a UNIX one to an abstract name that nobody
can guess; and it is closed at once.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from twistedsock import sockopts
from twistedsock.addresses import LOOPBACK, WILDCARD, Address
from twistedsock.errors import BindError
from twistedsock.host.plan import ListenerPlan, ServicePlan
from twistedsock.host.ports import ACCEPTING
from twistedsock.host.server import report_of
from twistedsock.sockopts import NOTHING_SET, Report
from twistedsock.transports.binding import Refused, open_listener, resolve

PATIENCE_S = 1.0  # for a connection to ourselves
LOOPBACK_6 = "::1"


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of one listener's options.

    Attributes:
        service: The service's name.
        address: What the daemon would open, and was not: the configured address, or one of those
            that its name stands for.
        report: What the kernel made of the options, the refused ones among them; empty where no
            such socket can be opened.
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
                addresses = resolve(listener.address)
            except BindError as error:
                yield Probe(plan.name, listener.address, NOTHING_SET, error)
                continue
            for address in addresses:
                yield Probe(plan.name, address, *_try(listener.at(address)))


def _try(listener: ListenerPlan) -> tuple[Report, BindError | None]:
    stand_in = _stand_in(listener.address)
    refused: Refused = {}
    # Where the first refusal ends the start, the others are worth knowing, too.
    patient = replace(listener, options=replace(listener.options, refusal="warn"))
    try:
        sock = open_listener(
            stand_in, patient.options, patient.backlog, refused, filter=patient.filter
        )
        with closing(sock):
            if stand_in.scheme in ACCEPTING and patient.options.at("connected"):
                _try_connection(sock, patient, refused)
            report = report_of(sock, patient, refused)
    except BindError as error:
        # Told for the address that is configured.
        reason = str(error).removeprefix(f"{error.address}: ")
        return NOTHING_SET, BindError(listener.address, reason, error.errno)
    return report, _why_not(listener, refused)


def _why_not(listener: ListenerPlan, refused: Refused) -> BindError | None:
    """Return why the daemon would not open *listener*; None where it would."""
    if listener.options.refusal != "strict":
        return None
    for name, right in sockopts.lacking(listener.options, sockopts.held()).items():
        return BindError(listener.address, f"{name} {right}", errno.EPERM)
    for setting, error in refused.items():
        fault = sockopts.refusal_of(setting.option, setting.name, error)
        return BindError(listener.address, str(fault), fault.errno)
    return None


def _stand_in(address: Address) -> Address:
    """Return an address of the same kind that is nobody's."""
    if address.scheme in ("unix", "unixgram", "seqpacket"):
        return replace(address, path=f"@twistedsock-probe-{os.getpid()}-{secrets.token_hex(8)}")
    if address.scheme == "packet":
        return replace(address, path="lo")
    if address.host == WILDCARD:
        return replace(address, port=0)
    return replace(address, host=LOOPBACK_6 if ":" in address.host else LOOPBACK, port=0)


def _try_connection(sock: socket.socket, listener: ListenerPlan, refused: Refused) -> None:
    """Accept a connection of our own, and set on it what connections get.

    A listener may not hear us, by options such as SO_BINDTODEVICE, IP_MINTTL or a filter; then
    nothing is known of its connections, and nothing is wrong.
    """
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        host = {"::": LOOPBACK_6, "0.0.0.0": LOOPBACK}.get(name[0], name[0])
        name = (host, *name[1:])
    sock.settimeout(PATIENCE_S)
    with suppress(OSError), socket.socket(sock.family, sock.type) as peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(name)
        peer.sendall(b"\0")  # some listeners accept only whoever has spoken
        with closing(sock.accept()[0]) as accepted:
            sockopts.set_phase(accepted, listener.options, "connected", refused)
