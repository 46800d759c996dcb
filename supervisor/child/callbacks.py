"""Calling what a job registered: plain or async, with an argument or without."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("greenroom.job")

Callback = Callable[..., object]


def takes_argument(callback: Callback) -> bool:
    """Return whether *callback* can be called with one positional argument."""
    try:
        inspect.signature(callback).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return False
    return True


async def call(callback: Callback, argument: object) -> None:
    """Call *callback*, with *argument* where it takes one, and await what it returns."""
    result = callback(argument) if takes_argument(callback) else callback()
    if inspect.isawaitable(result):
        await result


def check_callback(callback: object) -> None:
    """Raise TypeError unless *callback* can be called."""
    if not callable(callback):
        raise TypeError(f"expected a function to call, got {callback!r}")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_detached(
    callback: Callback, argument: object, loop: asyncio.AbstractEventLoop | None
) -> None:
    """Call *callback* on *loop*, or in a thread of its own when there is none."""

    async def guarded() -> None:
        try:
            await call(callback, argument)
        except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - a user's callback must not end the job
            logger.exception("a drain callback raised")

    if loop is not None:
        loop.call_soon_threadsafe(lambda: loop.create_task(guarded()))
        return
    threading.Thread(
        target=lambda: asyncio.run(guarded()), name="greenroom-drain-callback", daemon=True
    ).start()
