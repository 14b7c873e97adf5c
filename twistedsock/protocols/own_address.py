"""Whether an address is this machine's: asked of the kernel, which alone knows."""

from __future__ import annotations

import errno
import socket
import time
from collections import OrderedDict

REMEMBER_S = 60.0  # addresses come and go
MAX_REMEMBERED = 1024  # forged sources may not make us hold more than this

_answers: OrderedDict[str, tuple[float, bool]] = OrderedDict()


def is_own_address(host: str) -> bool:
    """Return whether *host*, a numeric address, belongs to an interface of this machine.

    Only an address of our own can be bound. The answer is remembered for a minute.
    """
    now = time.monotonic()
    known = _answers.get(host)
    if known is not None and now - known[0] < REMEMBER_S:
        return known[1]
    answer = _can_bind(host)
    _answers[host] = (now, answer)
    _answers.move_to_end(host)
    if len(_answers) > MAX_REMEMBERED:
        _answers.popitem(last=False)
    return answer


def _can_bind(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        # Where nothing can be asked, as without descriptors, it counts as ours: the guard must
        # not open under load.
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT)
    return True
