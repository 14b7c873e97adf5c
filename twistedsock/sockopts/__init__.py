"""Socket options by the kernel's own names: which there are, setting them, and what came of it.

Reading order: values, names, memberships, structures (how values are written); kinds (of sockets);
catalogue (the table); plan (which socket gets which, and when); kernel (the system calls); rights;
report (what the kernel made of them); applying; trying (throw-away sockets).
"""

from twistedsock.sockopts.applying import apply, read, set_phase, socket_of
from twistedsock.sockopts.catalogue import CATALOGUE, SPELLINGS, Option, Phase, find_options
from twistedsock.sockopts.kernel import refusal_of
from twistedsock.sockopts.plan import (
    NO_OPTIONS,
    REFUSALS,
    Refusal,
    Role,
    Setting,
    SocketPlan,
    check_for_kinds,
    check_options,
    plan_for_kinds,
    plan_options,
    read_value,
)
from twistedsock.sockopts.report import NOTHING_SET, Outcome, Report, backlog_outcome, read_back
from twistedsock.sockopts.rights import held, lacking

__all__ = [
    "CATALOGUE",
    "NOTHING_SET",
    "NO_OPTIONS",
    "REFUSALS",
    "SPELLINGS",
    "Option",
    "Outcome",
    "Phase",
    "Refusal",
    "Report",
    "Role",
    "Setting",
    "SocketPlan",
    "apply",
    "backlog_outcome",
    "check_for_kinds",
    "check_options",
    "find_options",
    "held",
    "lacking",
    "plan_for_kinds",
    "plan_options",
    "read",
    "read_back",
    "read_value",
    "refusal_of",
    "set_phase",
    "socket_of",
]
