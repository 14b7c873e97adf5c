"""Socket options by the kernel's own names: which there are, and setting them.

Reading order: catalogue (the table), values (text to bytes), plan (which listener gets which).
"""

from twistedsock.sockopts.catalogue import CATALOGUE, Option
from twistedsock.sockopts.plan import SocketPlan, apply, check_options, plan_options

__all__ = ["CATALOGUE", "Option", "SocketPlan", "apply", "check_options", "plan_options"]
