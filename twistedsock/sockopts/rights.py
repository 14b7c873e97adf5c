"""What this process may set: the capabilities of capabilities(7) that it holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from twistedsock.sockopts.kernel import needed
from twistedsock.sockopts.plan import SocketPlan

# linux/capability.h
CAPABILITIES: Final[dict[str, int]] = {
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_BROADCAST": 11,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_ADMIN": 21,
    "CAP_BPF": 39,
}
STATUS = Path("/proc/self/status")


def held(status: Path = STATUS) -> frozenset[str] | None:
    """Return the effective capabilities of this process; None where that cannot be known."""
    if sys.platform != "linux":
        return None
    try:
        lines = status.read_text().splitlines()
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)


def lacking(plan: SocketPlan, having: frozenset[str] | None) -> dict[str, str]:
    """Return the options of *plan* that the kernel will refuse, each with the right it needs.

    Only those that always need one: where it depends on the value or the system, the kernel is
    asked. One that is held may still not do, as inside a user namespace.
    """
    if having is None:
        return {}
    return {
        setting.name: f"needs {needed(setting.option.capabilities)}"
        for setting in plan.settings
        if setting.option.capabilities
        and not setting.option.condition
        and not having & set(setting.option.capabilities)
    }
