"""Names to addresses by the reactor's resolver, without blocking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from zope.interface import implementer

from twistedsock.addresses import Address, is_numeric
from twistedsock.client.failures import not_resolved, too_late

NumericName = tuple[str, int]  # host and port


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects the addresses of one name."""

    def __init__(self) -> None:
        self.done: Deferred[list[NumericName]] = Deferred()
        self._found: list[NumericName] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Take note of nothing: its caller has it."""

    def addressResolved(self, address: Any) -> None:
        """Note one of them."""
        self._found.append((address.host, address.port))

    def resolutionComplete(self) -> None:
        """Fire with all of them; nobody hears it once ``done`` was cancelled."""
        self.done.callback(self._found)


def raiser(error: Exception) -> Callable[..., Any]:
    """Return what raises *error*: for ``Deferred.addTimeout``."""

    def raise_it(*_: object) -> Any:
        raise error

    return raise_it


def resolve(reactor: Any, address: Address, timeout_s: float | None) -> Deferred[list[NumericName]]:
    """Fire with the numeric hosts and ports of *address*, of IPv4 and IPv6, one at least.

    Raises:
        CannotResolve: The name has no address.
        TimedOut: The resolver did not answer within *timeout_s*.
    """
    if is_numeric(address.host):
        return succeed([(address.host, address.port)])
    try:
        address.host.encode("idna")  # which the resolver would fail at without telling us
    except UnicodeError as error:
        return fail(not_resolved(address, error))
    receiver = _Receiver()
    done = receiver.done
    reactor.nameResolver.resolveHostName(
        receiver, address.host, address.port, (IPv4Address, IPv6Address)
    )
    if timeout_s is not None:
        late = raiser(too_late(address, "no address", timeout_s))
        done.addTimeout(max(timeout_s, 0), reactor, onTimeoutCancel=late)

    def some(names: list[NumericName]) -> list[NumericName]:
        if not names:
            raise not_resolved(address)
        return names

    return done.addCallback(some)
