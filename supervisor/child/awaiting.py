"""The worker's loop, turning for one job.

Asked to stop, the job's task is cancelled, and abandoned where it swallows that. If the job
itself calls ``ctx.shutdown`` it has the grace to end, and is cancelled then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Union

# What ends a loop when a task raises it, instead of only the task.
_Fatal = Union[SystemExit, KeyboardInterrupt]

# What a job's task returns: a value, or one of those, for whoever ran the loop to raise.
Caught = tuple[Any, Union[_Fatal, None]]


class Abandoned(Exception):
    """The entrypoint ignored its cancellation; the session is closed over it."""


async def caught(awaitable: Awaitable[Any]) -> Caught:
    """Await; return a SystemExit or a KeyboardInterrupt instead of raising it.

    Raised in a task it would end the loop under everything else that runs there,
    and once more when the loop is used again to close the session.
    """
    try:
        return await awaitable, None
    except (SystemExit, KeyboardInterrupt) as exc:
        return None, exc


class Awaiting:
    """One run of *loop*, until *job* has ended.

    Runs on: the main thread, except where it says otherwise.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, job: Coroutine[Any, Any, Caught]) -> None:
        self._loop = loop
        # First of all, so that its first step is the first that the loop takes.
        self._task = loop.create_task(job)
        self._task.add_done_callback(self._end)
        # Whether the loop is somebody else's by now: the task, or a timer, may outlast this.
        self._over = False
        self._abandoned = False

    def stop(self, grace: float) -> None:
        """Cancel the job; give up on it when half of *grace* is over. Runs on: any thread."""
        self._loop.call_soon_threadsafe(self._cancel, grace)

    def stop_later(self, grace: float) -> None:
        """Do that after *grace* seconds. Runs on: any thread."""
        self._loop.call_soon_threadsafe(
            lambda: self._loop.call_later(grace, self._cancel, grace),
        )

    def run(self) -> Any:
        """Turn the loop; return what the job returns, or raise what it raises.

        Raises:
            Abandoned: it was cancelled and went on.
            RuntimeError: it stopped the loop.
        """
        # Not run_until_complete, which makes a future of its own to wait for: eight
        # functions more on the way to the user's first line.
        try:
            self._loop.run_forever()
        finally:
            self._over = True
        if self._task.done():
            value, exiting = self._task.result()
            if exiting is not None:
                raise exiting
            return value
        if self._abandoned:
            raise Abandoned
        self._task.cancel()
        raise RuntimeError("the job stopped the event loop that it runs on")

    def _end(self, task: object = None) -> None:
        if not self._over:
            self._loop.stop()

    def _abandon(self) -> None:
        self._abandoned = True
        self._end()

    def _cancel(self, grace: float) -> None:
        self._task.cancel()
        self._loop.call_later(grace / 2, self._abandon)
