"""Running one job: enter the user's function, see how it ends, close the session.

There is one way for both kinds of job, a call of a pool and an entrypoint of a
server. They differ in what is entered and in what ``sys.exit`` means.

Asked to stop by the supervisor, an async function is cancelled and a plain one
gets JobCancelled in the main thread. Half of the grace is for it; then the
shutdown callbacks run whether it has ended or not, and ``on_session_end`` after
them. The supervisor enforces the whole.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from supervisor.child.awaiting import Abandoned, Awaiting, Caught, caught
from supervisor.child.boot import Settings
from supervisor.child.closing import Closing
from supervisor.child.context import JobContext
from supervisor.child.control import ControlThread
from supervisor.child.interrupt import Interrupter
from supervisor.child.stop import StopRequest
from supervisor.errors import JobCancelled, JobWasCancelled
from supervisor.options import Hook

logger = logging.getLogger("greenroom.job")

T = TypeVar("T")

# Python 3.10 has no groups of exceptions.
_GROUP: Final[Any] = getattr(builtins, "BaseExceptionGroup", ())


@dataclass
class Ending:
    """How a job ended, still as objects of this process."""

    status: str  # "succeeded", "failed", "cancelled"
    reason: str = ""
    value: Any = None
    error: BaseException | None = None
    entered_at: float = 0.0


class NoJob(BaseException):
    """Waiting for a job on the loop has ended otherwise. No job's code sees it.

    Args:
        why: what ended it, to be raised where the loop does not see it.
    """

    def __init__(self, why: BaseException) -> None:
        super().__init__(why)
        self.why = why


async def _awaited_there(enter: Callable[[], Awaitable[Any]]) -> Caught:
    return await caught(enter())


class JobRunner:
    """Runs one job after the other in this process.

    Runs on: the main thread.
    """

    def __init__(
        self,
        *,
        control: ControlThread,
        interrupter: Interrupter,
        stop: StopRequest,
        settings: Settings,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._control = control
        self._interrupter = interrupter
        self._stop = stop
        self._settings = settings
        # Set while an async function runs: what the drain callbacks run on.
        self.live_loop: asyncio.AbstractEventLoop | None = None
        self._on_shutdown: Callable[[], None] | None = None
        self._ending = Ending("succeeded")

    def prepare(self) -> None:
        """Do what the next job needs and what can be done before there is one."""
        self._ending = Ending("succeeded")
        if self._loop is not None and self._loop.is_closed():
            # By a function of the user's, as after a loop of its own.
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        self._on_shutdown = self._interrupt_after_grace
        # A request that comes before user code is entered is kept, and raised there.
        self._stop.register(self._interrupter.fire)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that coroutines run on. Made when it is first wanted: plain jobs need none."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def close(self) -> None:
        """Close the loop, where no process ends with it."""
        if self._loop is not None:
            self._loop.close()

    def shutdown_called(self, reason: str) -> None:
        """``ctx.shutdown`` was called. Runs on: any thread of the job."""
        hook = self._on_shutdown
        if hook is not None:
            hook()

    def run(
        self,
        context: JobContext,
        enter: Callable[[], Any],
        *,
        exit_is_an_ending: bool,
        on_session_end: Hook | None,
        on_loop: bool = False,
    ) -> Ending:
        """Enter the user's function and close the session.

        Args:
            context: the job's context.
            enter: calls the user's function; an awaitable it returns is awaited.
            on_loop: the loop turns already when *enter* is called, which runs no code of
                the user's itself and returns an awaitable. It may wait for the job, and
                raise NoJob; what is in it is raised here.
            exit_is_an_ending: ``sys.exit`` ends the job (an entrypoint); without
                it SystemExit is an exception like others (a call).
            on_session_end: the user's hook of that name.
        """
        ending = self._ending
        try:
            if on_loop:
                ending.value = self._await(_awaited_there(enter))
            else:
                try:
                    self._interrupter.arm()
                    value = enter()
                finally:
                    self._interrupter.disarm()
                # The commonest of all first: the general question costs ten calls.
                if value is None or not inspect.isawaitable(value):
                    ending.value = value
                else:
                    ending.value = self._await(caught(value), context)
        except NoJob as exc:
            raise exc.why from None
        except (JobCancelled, asyncio.CancelledError, Abandoned) as exc:
            self._cancelled(context, ending, exc)
        except SystemExit as exc:
            if exit_is_an_ending and exc.code in (None, 0):
                ending.value = None
            else:
                ending.status, ending.error = "failed", exc
        except BaseException as exc:  # noqa: BLE001 - around the user's code: it is the outcome
            self._failed(context, ending, exc)
        finally:
            self._stop.register(None)
            self._on_shutdown = None
        if ending.status == "succeeded":
            ending.reason = context.shutdown_reason or ""
        self._close(context, on_session_end)
        return ending

    def _cancelled(self, context: JobContext, ending: Ending, exc: BaseException) -> None:
        if self._stop.reason is None and context.shutdown_reason is None:
            # Nobody asked: the job raised it itself. asyncio's own class would look
            # to the caller as if the caller had been cancelled, and ours is no Exception.
            reason = exc.reason if isinstance(exc, JobCancelled) else "the job cancelled itself"
            ending.error = JobWasCancelled(reason).with_traceback(exc.__traceback__)
            ending.status = "failed"
            return
        ending.status = "cancelled"
        ending.reason = self._stop.reason or context.shutdown_reason or "shutdown"

    def _failed(self, context: JobContext, ending: Ending, exc: BaseException) -> None:
        left: BaseException | None = exc
        if isinstance(exc, _GROUP) and (self._stop.reason or context.shutdown_reason) is not None:
            # Of a group of tasks, some were in the way of the request to stop.
            _, left = exc.split((JobCancelled, asyncio.CancelledError))
        if left is None:
            self._cancelled(context, ending, exc)
        else:
            ending.status, ending.error = "failed", left

    # ── entering ─────────────────────────────────────────────────────────────

    def _await(self, job: Coroutine[Any, Any, Caught], entered: JobContext | None = None) -> Any:
        """Return what *job* returns, or raise what it raises.

        Args:
            job: runs on the loop.
            entered: the context of a job that was entered before.
        """
        awaiting = Awaiting(self.loop, job)

        def shutdown() -> None:
            grace = self._settings.shutdown_process_timeout
            awaiting.stop_later(grace)
            # For a loop that stands still: closing the session replaces this alarm.
            self._control.set_alarm(2 * grace, self._ignored_shutdown)

        self._on_shutdown = shutdown
        if entered is not None and entered.shutdown_reason is not None:
            shutdown()
        self._stop.register(lambda reason: awaiting.stop(self._stop.grace))
        self._interrupter.reset()  # a request that came just now is the loop's business
        return self._watched(self.loop, awaiting.run)

    def run_on_loop(self, awaitable: Awaitable[T]) -> T:
        """Run *awaitable* on the worker's loop, watched for lag."""
        loop = self.loop
        return self._watched(loop, lambda: loop.run_until_complete(awaitable))

    def _watched(self, loop: asyncio.AbstractEventLoop, run: Callable[[], T]) -> T:
        self.live_loop = loop
        self._control.watch_loop(loop)
        try:
            return run()
        finally:
            self._control.watch_loop(None)
            self.live_loop = None

    def _interrupt_after_grace(self) -> None:
        # The plain function itself called ctx.shutdown(): it may end by itself.
        grace = self._settings.shutdown_process_timeout

        def interrupt() -> None:
            self._interrupter.fire("shutdown")
            self._control.set_alarm(grace, self._ignored_shutdown)

        self._control.set_alarm(grace, interrupt)

    # ── closing ──────────────────────────────────────────────────────────────

    def _close(self, context: JobContext, on_session_end: Hook | None) -> None:
        in_room = context._link is not None
        if not context._shutdown_callbacks and on_session_end is None and not in_room:
            return
        closing = Closing(self._stop, self._settings, watch=self._end_if_stuck)
        self.run_on_loop(closing.close(context, on_session_end))

    def _ignored_shutdown(self) -> None:
        # Nobody else would end it: the supervisor was not told of the shutdown.
        seconds = 2 * self._settings.shutdown_process_timeout
        self._control.end_stuck(seconds, f"it did not end within {seconds:g} s of ctx.shutdown()")

    def _end_if_stuck(self, what: str, seconds: float) -> None:
        # One that blocks the loop: nothing inside this process can stop it.
        why = f"{what} did not end within {seconds:g} s"
        self._control.set_alarm(seconds, lambda: self._control.end_stuck(seconds, why))
