"""Closing a session: the shutdown callbacks, ``on_session_end``, leaving the room.

Each has its time. Once the job is asked to stop, before or meanwhile, that is what the
grace has left, less a part: for those that are cancelled then, and for telling the
supervisor how the job ended before it kills.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from supervisor.child.boot import Settings
from supervisor.child.callbacks import Callback, call
from supervisor.child.context import JobContext
from supervisor.child.stop import StopRequest
from supervisor.options import Hook

logger = logging.getLogger("greenroom.job")

# For what was cancelled to end; and, beyond the time that closing may take, for a plain
# callback that never returns: nothing inside this process could stop it, so the process ends.
HUNG_GRACE: Final = 1.0

# For telling LiveKit's server that we leave; without an answer it finds out by itself.
LEAVE_TIMEOUT: Final = 3.0

# Of the grace that is left, what is for callbacks.
_SHARE: Final = 0.8


async def close_session(
    context: JobContext, on_session_end: Hook | None, stop: StopRequest, settings: Settings
) -> None:
    """Call what is to be called when the job is over, in order, each within its time.

    Runs on: the worker's loop.
    """
    reason = stop.reason or context.shutdown_reason or ""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def hurry(reason: str) -> None:
        loop.call_soon_threadsafe(asked.set)

    stop.register(hurry)  # at once, if it was asked before
    try:
        callbacks = context._take_shutdown_callbacks()
        if callbacks:
            calls = _Calls(callbacks, reason, "a shutdown callback")
            await calls.within(settings.shutdown_process_timeout, asked, stop)
        if on_session_end is not None:
            calls = _Calls([on_session_end], context, "on_session_end")
            await calls.within(settings.session_end_timeout, asked, stop)
    finally:
        stop.register(None)
    # Last: what was called before may still have something to say there.
    await context._leave_room(min(LEAVE_TIMEOUT, stop.remaining(LEAVE_TIMEOUT)))


class _Calls:
    """Calls of all of *callbacks* with *argument*, side by side."""

    def __init__(self, callbacks: list[Callback], argument: object, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._tasks = [asyncio.ensure_future(self._guarded(each, argument)) for each in callbacks]

    async def within(self, limit: float, asked: asyncio.Event, stop: StopRequest) -> None:
        """Wait for them; cancel what is not done by the limit, in seconds, or by the grace's."""
        all_done = asyncio.ensure_future(asyncio.wait(self._tasks))
        request = asyncio.ensure_future(asked.wait())
        try:
            either: set[asyncio.Future[Any]] = {all_done, request}
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if request.done() and not all_done.done():
                left = self._began + limit - time.monotonic()
                seconds = max(0.0, min(left, stop.remaining(left) * _SHARE))
                await asyncio.wait({all_done}, timeout=seconds)
        finally:
            request.cancel()
            all_done.cancel()
        await self._cancel_late(min(HUNG_GRACE, stop.remaining(HUNG_GRACE)))

    async def _cancel_late(self, patience: float) -> None:
        late = [task for task in self._tasks if not task.done()]
        seconds = time.monotonic() - self._began
        for task in late:
            logger.warning("%s was not done within %.3g s and is cancelled", self._what, seconds)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=patience)

    async def _guarded(self, callback: Callback, argument: object) -> None:
        try:
            await call(callback, argument)
        except asyncio.CancelledError:
            raise
        except BaseException:  # noqa: BLE001 - a user's callback must not end the others
            logger.exception("%s raised", self._what)
