"""Closing a session: the shutdown callbacks, ``on_session_end``, leaving the room.

Each has its time. Once the job is asked to stop, before or meanwhile, that is what the
grace has left, less a part: for those that are cancelled then, and for telling the
supervisor how the job ended before it kills.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from supervisor.child.boot import Settings
from supervisor.child.callbacks import Callback, call
from supervisor.child.context import JobContext
from supervisor.child.stop import StopRequest
from supervisor.options import Hook

logger = logging.getLogger("greenroom.job")

# For what was cancelled to end; and, beyond the time that a step may take, for a plain
# callback that never returns.
_HUNG_GRACE: Final = 1.0

# For telling LiveKit's server that we leave; without an answer it finds out by itself.
_LEAVE_TIMEOUT: Final = 3.0

# Of the grace that is left, what is for callbacks.
_SHARE: Final = 0.9


class Closing:
    """Closes one session.

    Args:
        stop: tells whether the job is asked to stop.
        settings: say how long each step may take.
        watch: called before each step with its name and the seconds after which it has
            hung: it blocks the loop.

    Runs on: the worker's loop, every method.
    """

    def __init__(
        self, stop: StopRequest, settings: Settings, *, watch: Callable[[str, float], None]
    ) -> None:
        self._stop = stop
        self._settings = settings
        self._watch = watch
        self._asked = asyncio.Event()

    async def close(self, context: JobContext, on_session_end: Hook | None) -> None:
        """Call what is to be called when the job is over, in order, each within its time."""
        reason = self._stop.reason or context.shutdown_reason or ""
        loop = asyncio.get_running_loop()

        def hurry(reason: str) -> None:
            loop.call_soon_threadsafe(self._asked.set)

        self._stop.register(hurry)  # which calls it, if the job was asked before
        try:
            callbacks = context._take_shutdown_callbacks()
            if callbacks:
                limit = self._settings.shutdown_process_timeout
                await self._call(callbacks, reason, "a shutdown callback", limit)
            if on_session_end is not None:
                limit = self._settings.session_end_timeout
                await self._call([on_session_end], context, "on_session_end", limit)
        finally:
            self._stop.register(None)
        # Last: what was called before may still have something to say there.
        self._watch("leaving the room", _LEAVE_TIMEOUT + _HUNG_GRACE)
        await context._leave_room(min(_LEAVE_TIMEOUT, self._stop.remaining(_LEAVE_TIMEOUT)))

    async def _call(
        self, callbacks: list[Callback], argument: object, what: str, limit: float
    ) -> None:
        """Call all of them side by side; cancel what is not done by the limit, or by the grace's."""
        self._watch(what, limit + _HUNG_GRACE)
        began = time.monotonic()
        tasks = [asyncio.ensure_future(_guarded(each, argument, what)) for each in callbacks]
        all_done = asyncio.ensure_future(asyncio.wait(tasks))
        request = asyncio.ensure_future(self._asked.wait())
        try:
            either: set[asyncio.Future[Any]] = {all_done, request}
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if request.done() and not all_done.done():
                left = began + limit - time.monotonic()
                seconds = max(0.0, min(left, self._stop.remaining(left) * _SHARE))
                await asyncio.wait({all_done}, timeout=seconds)
        finally:
            request.cancel()
            all_done.cancel()
        late = [task for task in tasks if not task.done()]
        seconds = time.monotonic() - began
        for task in late:
            logger.warning("%s was not done within %.3g s and is cancelled", what, seconds)
            task.cancel()
        if late:
            # Half: one that swallows it has not hung, and has not used up what is left of the
            # grace, in which the supervisor is told how the job ended.
            patience = min(_HUNG_GRACE, self._stop.remaining(_HUNG_GRACE)) / 2
            await asyncio.wait(late, timeout=patience)


async def _guarded(callback: Callback, argument: object, what: str) -> None:
    try:
        await call(callback, argument)
    except asyncio.CancelledError:
        raise
    except BaseException:  # noqa: BLE001 - a user's callback must not end the others
        logger.exception("%s raised", what)
