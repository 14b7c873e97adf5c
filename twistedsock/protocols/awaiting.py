"""What a plug-in's hook returned, as a Deferred."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed


def as_deferred(hook: Callable[..., Any], *args: object) -> Deferred[Any]:
    """Call *hook* and return a Deferred of what it returned, raised or awaits."""
    try:
        result = hook(*args)
    except BaseException:  # a plug-in is called: whatever it raises is its session's affair
        return fail()
    return to_deferred(result)


def to_deferred(result: Any) -> Deferred[Any]:
    """Return *result* as a Deferred: a value, a Deferred, a coroutine or any awaitable."""
    if isinstance(result, Deferred):
        return result
    if inspect.iscoroutine(result):
        return Deferred.fromCoroutine(result)
    if inspect.isawaitable(result):
        return Deferred.fromCoroutine(_wait(result))
    return succeed(result)


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
