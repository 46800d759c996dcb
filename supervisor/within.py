"""A time limit that never swallows a cancellation.

Up to Python 3.11 ``asyncio.wait_for`` returns normally when its caller is cancelled
in the same turn in which the awaited thing gets done. A task that loops over
``wait_for`` then goes on for ever, and whoever has cancelled it waits for ever.
Source: CPython issue 86296, "asyncio.wait_for does not always handle cancellation".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Return what *awaitable* returns, or raise what it raises.

    Cancelled: *awaitable* is cancelled too, and has ended. A result that it had in
    the same instant is lost; what such a result holds must be let go by others.

    Raises:
        asyncio.TimeoutError: it took more than *seconds*; it was cancelled and has ended.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=seconds)
        is_late = not task.done()
        if is_late:
            task.cancel()
            await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    if is_late and task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
