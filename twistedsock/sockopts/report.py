"""What became of options: requested, applied and effective, and why they differ."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from twistedsock.sockopts.catalogue import CATALOGUE, Phase
from twistedsock.sockopts.kernel import get_value, refusal_of, with_sysctls
from twistedsock.sockopts.plan import Setting, SocketPlan
from twistedsock.sockopts.structures import HIDDEN, read_tcp_info


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one option; values are as one would write them.

    Attributes:
        name: As it was written.
        option: Its own name.
        phase: When it was set.
        requested: What was written.
        applied: What was handed to the kernel; None where it refused it.
        effective: What the kernel tells since; None where that cannot be read.
        differs: Whether what is effective is not what was applied, or nothing was.
        reason: Why it differs, or cannot be read; else empty.
        code: The name of the kernel's error, such as ``EPERM``; else empty.
    """

    name: str
    option: str
    phase: Phase
    requested: object
    applied: object
    effective: object
    differs: bool
    reason: str = ""
    code: str = ""

    def __str__(self) -> str:
        effect = f"refused with {self.code}" if self.code else f"effective {_shown(self.effective)}"
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.name}: requested {_shown(self.requested)}, {effect}{reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the options of one socket, in the order they were written."""

    outcomes: tuple[Outcome, ...] = ()

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, name: str) -> Outcome:
        for outcome in self.outcomes:
            if name in (outcome.name, outcome.option):
                return outcome
        raise KeyError(name)

    @property
    def differing(self) -> tuple[Outcome, ...]:
        """Those that are not as they were requested."""
        return tuple(outcome for outcome in self.outcomes if outcome.differs)

    @property
    def refused(self) -> tuple[Outcome, ...]:
        """Those that the kernel refused."""
        return tuple(outcome for outcome in self.outcomes if outcome.code)

    def __str__(self) -> str:
        return "\n".join(map(str, self.outcomes))


NOTHING_SET: Final = Report()


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def read_back(sock: socket.socket, plan: SocketPlan, refused: Mapping[Setting, OSError]) -> Report:
    """Return what became of *plan* on *sock*."""
    return Report(tuple(_outcome(sock, setting, refused.get(setting)) for setting in plan.settings))


def _outcome(sock: socket.socket, setting: Setting, error: OSError | None) -> Outcome:
    option, form = setting.option, setting.option.form
    requested = HIDDEN if form.is_secret else setting.requested
    applied = form.decode(setting.value)
    phase = setting.phases[0]

    def outcome(
        applied: object, effective: object, differs: bool, reason: str, code: str = ""
    ) -> Outcome:
        return Outcome(
            setting.name, option.name, phase, requested, applied, effective, differs, reason, code
        )

    if error is not None:
        fault = refusal_of(option, setting.name, error)
        reason = str(fault).removeprefix(f"{setting.name}: ")
        code = errno.errorcode.get(error.errno or 0, "")
        return outcome(None, None, True, reason, code or str(error.errno))
    if phase == "connected" and listens(sock):
        return outcome(applied, None, False, "set on each connection")
    told = CATALOGUE.get(option.read_as, option)
    if not told.is_readable or told.number is None:
        return outcome(applied, None, False, "the kernel does not tell it")
    try:
        effective = told.form.decode(get_value(sock, told))
    except OSError as cause:
        code = errno.errorcode.get(cause.errno or 0, "")
        return outcome(applied, None, False, f"cannot be read on this socket ({code})")
    if effective == applied:
        return outcome(applied, effective, False, "")
    reason = with_sysctls(option.differs) or "the kernel made this of it"
    return outcome(applied, effective, True, reason)


def listens(sock: socket.socket) -> bool:
    """Return whether *sock* accepts connections."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except (OSError, AttributeError):
        return False


def backlog_outcome(sock: socket.socket, requested: int) -> Outcome | None:
    """Return what the kernel made of the backlog of listen(2); None where it does not tell.

    While a TCP socket listens its ``tcp_info`` has the queue's bound in ``sacked``, as ss(8) shows.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = read_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512))
    except OSError:
        return None
    effective = info.get("sacked", 0)
    if not effective:
        return None
    differs = effective != requested
    reason = with_sysctls("the kernel clamps it at {net.core.somaxconn}") if differs else ""
    return Outcome(
        "backlog", "backlog", "listening", requested, requested, effective, differs, reason
    )
