"""The server: plans to one Twisted MultiService that binds, serves, drains and stops.

Binding is separate from serving: ``privilegedStartService`` opens every socket or none, and
``startService`` starts the services and only then accepts.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock import sockopts
from twistedsock.addresses import Address
from twistedsock.errors import BindError, PluginError
from twistedsock.host.plan import ListenerPlan, ServicePlan
from twistedsock.host.ports import ACCEPTING, Ports
from twistedsock.protocols.awaiting import as_deferred
from twistedsock.protocols.carrier import Carrier
from twistedsock.sockopts import Report
from twistedsock.transports.binding import Refused, bound_address, open_listener, resolve

LAST_CALL_S = 1.0  # at stop, for sessions that were cut off to be told
SPARE_DESCRIPTORS = 24  # of the process's limit, kept for logs, name look-ups and plug-ins


@dataclass(slots=True)
class _Listener:
    """A bound socket on its way to being served, and the port that serves it once it is."""

    address: Address
    socket: socket.socket
    plan: ListenerPlan
    report: Report
    port: Any = None


class HostedService(Service):
    """One configured service: its object, its carrier and its listeners."""

    def __init__(self, plan: ServicePlan, reactor: Any) -> None:
        self.setName(plan.name)
        self.plan = plan
        self.reactor = reactor
        self.log = Logger(namespace="twistedsock")
        try:
            self.service = plan.service_class(plan.settings, name=plan.name, reactor=reactor)
        except Exception as error:  # a plug-in is called
            told = f"{type(error).__name__}: {error}"
            raise PluginError(f"services.{plan.name}: cannot be made: {told}") from error
        self.carrier = Carrier(
            self.service,
            limits=plan.limits,
            access=plan.access,
            codec=plan.codec,
            reactor=reactor,
        )
        self._listeners: list[_Listener] = []
        self._hurried: Deferred[None] | None = None

    @property
    def addresses(self) -> list[Address]:
        """The addresses that are bound, with their real ports."""
        return [listener.address for listener in self._listeners]

    def open(self) -> None:
        """Bind every listener.

        Raises:
            BindError: One could not be opened; the caller calls ``discard``.
        """
        for listener in self.plan.listeners:
            for address in resolve(listener.address):
                plan = listener.at(address)
                refused: Refused = {}
                sock = open_listener(
                    address,
                    plan.options,
                    plan.backlog,
                    refused,
                    mode=plan.mode,
                    filter=plan.filter,
                )
                report = report_of(sock, plan, refused)
                bound = bound_address(address, sock)
                self._listeners.append(_Listener(bound, sock, plan, report))

    def check_rights(self, held: frozenset[str] | None) -> None:
        """Raise BindError where an option needs a capability that is not among *held*."""
        for listener in self.plan.listeners:
            if listener.options.refusal == "strict":
                for name, fault in sockopts.lacking(listener.options, held).items():
                    raise BindError(listener.address, f"{name} {fault}", errno.EPERM)

    def discard(self) -> None:
        """Close what ``open`` opened and nothing serves yet."""
        for listener in self._listeners:
            if listener.port is None:
                listener.socket.close()
        self._listeners = [each for each in self._listeners if each.port is not None]

    def clamp(self, descriptors: int) -> None:
        """Lower ``max_connections`` to what the descriptor limit can hold.

        Datagram peers need no descriptors, so a service without streams keeps its own.
        """
        if not any(address.scheme in ACCEPTING for address in self.addresses):
            return
        limits = self.carrier.limits
        room = max(1, descriptors)
        if limits.max_connections > room:
            self.log.warn(
                "{service}: max_connections lowered from {wanted} to {room}: the process may"
                " have no more descriptors (ulimit -n, LimitNOFILE=)",
                event="clamped",
                service=self.name,
                wanted=limits.max_connections,
                room=room,
            )
            self.carrier.limits = replace(limits, max_connections=room)

    def begin(self) -> Deferred[None]:
        """Start the service, then accept; fire once it accepts."""
        return self.carrier.start().addCallback(lambda _: self._accept())

    def _accept(self) -> None:
        ports = Ports(self.plan, self.carrier, self.reactor)
        for listener in self._listeners:
            listener.port = ports.adopt(listener.address, listener.socket, listener.plan)
            listener.port.startListening()
            self.log.info(
                "{service}: accepting on {address}",
                event="listening",
                service=self.name,
                address=str(listener.address),
            )
            self._tell_options(listener)

    def _tell_options(self, listener: _Listener) -> None:
        """Log the options that are not as they were requested."""
        for outcome in listener.report.differing:
            if outcome.code and listener.plan.options.refusal == "ignore":
                continue
            log = self.log.warn if outcome.code else self.log.info
            log(
                "{service}: {outcome} on {address}",
                event="option_refused" if outcome.code else "option_differs",
                service=self.name,
                address=str(listener.address),
                option=outcome.name,
                requested=outcome.requested,
                effective=outcome.effective,
                outcome=str(outcome),
            )

    # -- stopping --

    def stopService(self) -> Deferred[None]:
        """Stop in order: accepting, the service's goodbye, the sessions, the service."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Cut the draining short."""
        self.carrier.accepting = False
        if self._hurried is None:
            self._hurried = succeed(None)
        elif not self._hurried.called:
            self._hurried.callback(None)

    async def _stop(self) -> None:
        carrier, limits = self.carrier, self.carrier.limits
        carrier.accepting = False
        carrier.gates.clear()
        self.discard()
        await self._close_ports(ACCEPTING)
        if self._hurried is None:
            self._hurried = Deferred()
        deadline = self.reactor.callLater(limits.drain_timeout, self.hurry)
        if carrier.is_ready and self.service.overrides("drain"):
            goodbye = as_deferred(self.service.drain, limits.drain_timeout)
            await self._unless_hurried(goodbye.addErrback(carrier.log_failure))
        carrier.shut_down()
        await self._unless_hurried(carrier.when_empty())
        left = carrier.cut_off()
        if left:
            self.log.warn(
                "{service}: {count} sessions did not end in time and were cut off",
                event="drain_timeout",
                service=self.name,
                count=left,
            )
        if deadline.active():
            deadline.cancel()
        await self._close_ports({each.address.scheme for each in self._listeners})
        # What was aborted is told by the reactor's next turns; a hook that never returns is not
        # waited for.
        last_call = carrier.when_empty()
        timer = self.reactor.callLater(LAST_CALL_S, last_call.cancel)
        await last_call.addErrback(_swallow_cancel)
        if timer.active():
            timer.cancel()
        await self._stop_service()

    async def _stop_service(self) -> None:
        """Let the service clean up; a ``stop`` that never returns is not waited for."""
        limit_s = LAST_CALL_S
        if self._hurried is None or self._hurried.called:
            self._hurried = Deferred()
        else:
            limit_s = max(limit_s, self.carrier.limits.drain_timeout)
        deadline = self.reactor.callLater(limit_s, self.hurry)
        await self._unless_hurried(self.carrier.stop().addErrback(self._not_stopped))
        if deadline.active():
            deadline.cancel()

    def _not_stopped(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.carrier.log_failure(failure)
            return
        self.log.warn(
            "{service}: stop() did not end in time and was cut off",
            event="stop_timeout",
            service=self.name,
        )

    async def _unless_hurried(self, work: Deferred[Any]) -> None:
        """Wait for *work*, or until ``hurry`` is called; what is left of *work* is cancelled."""
        hurried = self._hurried
        assert hurried is not None
        either = DeferredList([work, hurried], fireOnOneCallback=True, consumeErrors=True)
        await either
        if not work.called:
            try:
                work.cancel()
            except BaseException:  # a plug-in's canceller is called
                self.carrier.log_failure(Failure())

    async def _close_ports(self, schemes: Container[str]) -> None:
        for listener in self._listeners:
            if listener.port is not None and listener.address.scheme in schemes:
                port, listener.port = listener.port, None
                await to_wait(port.stopListening())
                listener.socket.close()
        self._listeners = [each for each in self._listeners if each.address.scheme not in schemes]


def _swallow_cancel(failure: Failure) -> None:
    failure.trap(CancelledError)


def to_wait(result: Deferred[None] | None) -> Deferred[None]:
    """Return *result*, or a fired Deferred where a port had nothing to wait for."""
    return result if result is not None else succeed(None)


class Server(MultiService):
    """All configured services as one Twisted service.

    Args:
        plans: What to serve.
        reactor: Runs it; the global one by default.
    """

    def __init__(self, plans: Iterable[ServicePlan], reactor: Any = None) -> None:
        super().__init__()
        self.plans = tuple(plans)
        self.log = Logger(namespace="twistedsock")
        self._reactor = reactor
        self.hosted: list[HostedService] = []

    @property
    def reactor(self) -> Any:
        """The reactor that runs it. Not touched before start: twistd chooses it late."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    @property
    def addresses(self) -> list[Address]:
        """The addresses that are bound, with their real ports."""
        return [address for hosted in self.hosted for address in hosted.addresses]

    def privilegedStartService(self) -> None:
        """Open every socket, while the process still has its rights.

        Raises:
            BindError: One could not be opened; none is left open.
            PluginError: A service object could not be made.
        """
        raise_descriptor_limit()
        for plan in self.plans:
            hosted = HostedService(plan, self.reactor)
            self.hosted.append(hosted)
            hosted.setServiceParent(self)
        held = sockopts.held()
        try:
            for hosted in self.hosted:
                hosted.check_rights(held)
            for hosted in self.hosted:
                hosted.open()
        except BaseException:
            for hosted in self.hosted:
                hosted.discard()
            raise
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        for hosted in self.hosted:
            hosted.clamp(soft - SPARE_DESCRIPTORS - len(self.addresses))

    def startService(self) -> None:
        """Start the services and accept, as soon as the reactor runs."""
        super().startService()
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self.running:
            return
        started = [hosted.begin().addErrback(self.start_failed, hosted) for hosted in self.hosted]
        DeferredList(started).addCallback(lambda _: self.started())

    def started(self) -> None:
        """Every service accepts, or has failed to start."""
        if self.addresses and all(address.is_loopback for address in self.addresses):
            self.log.info(
                "only this machine can connect; for others use --host '*',"
                ' or listen = ["tcp:*:PORT"]',
                event="loopback_only",
            )

    def start_failed(self, failure: Failure, hosted: HostedService) -> None:
        """A service's ``start`` raised."""
        self.log.failure(
            "{service}: start() failed", failure, event="start_failed", service=hosted.name
        )

    def stopService(self) -> Deferred[Any]:
        """Stop every service in order; fire once the last session has ended."""
        return to_wait(super().stopService())

    def hurry(self) -> None:
        """Cut the draining short: every session is aborted now."""
        for hosted in self.hosted:
            hosted.hurry()


def report_of(sock: socket.socket, plan: ListenerPlan, refused: Refused) -> Report:
    """Return what became of the options and the backlog of *plan* on its listening *sock*."""
    report = sockopts.read_back(sock, plan.options, refused)
    backlog = sockopts.backlog_outcome(sock, plan.backlog)
    return report if backlog is None else Report((*report, backlog))


def raise_descriptor_limit() -> None:
    """Raise the soft limit on open descriptors to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
