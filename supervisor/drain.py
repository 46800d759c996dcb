"""Going down: from "no new jobs" to "nothing left", in steps that cannot hang.

::

    SERVING ──signal, request──► DRAINING ──signal, deadline──► STOPPING
                                     │                              │
                                   empty                 signal, grace is over
                                     │                              │
                                     ▼                              ▼
                                   GONE ◄────────empty────────── KILLING

DRAINING: running jobs may end by themselves. STOPPING: they were asked to.
KILLING: their groups got SIGKILL. Each step has a clock but the last, which
waits for the kernel only.

The exit status tells how it went: 0, jobs ended by themselves; 124, the deadline
had to be enforced on a job (timeout(1) uses that number); 128 + signal, a second or third
signal cut it short.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Final, Protocol

logger = logging.getLogger("greenroom.drain")

EXIT_DEADLINE: Final = 124


class Stage(enum.Enum):
    """How far down we are."""

    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLING = "killing"
    GONE = "gone"


class Cause(enum.Enum):
    """What moves us down."""

    REQUEST = "request"
    SIGNAL = "signal"
    DEADLINE = "deadline"
    GRACE_OVER = "grace is over"
    EMPTY = "no job is left"


# Pairs that are missing change nothing: a clock that was overtaken, a signal when
# everything has been killed already.
STEPS: Final[Mapping[tuple[Stage, Cause], Stage]] = {
    (Stage.SERVING, Cause.REQUEST): Stage.DRAINING,
    (Stage.SERVING, Cause.SIGNAL): Stage.DRAINING,
    (Stage.DRAINING, Cause.SIGNAL): Stage.STOPPING,
    (Stage.DRAINING, Cause.DEADLINE): Stage.STOPPING,
    (Stage.DRAINING, Cause.EMPTY): Stage.GONE,
    (Stage.STOPPING, Cause.SIGNAL): Stage.KILLING,
    (Stage.STOPPING, Cause.GRACE_OVER): Stage.KILLING,
    (Stage.STOPPING, Cause.EMPTY): Stage.GONE,
    (Stage.KILLING, Cause.EMPTY): Stage.GONE,
}


def step(stage: Stage, cause: Cause) -> Stage:
    """Return the stage after *cause* in *stage*."""
    return STEPS.get((stage, cause), stage)


class Drained(Protocol):
    """What is drained. Every call on the loop."""

    def begin(self, remaining: float | None) -> None:
        """Take no more jobs; tell those that run that *remaining* seconds are left, None: for ever."""
        ...

    def stop(self, grace: float) -> bool:
        """Ask every job to stop within *grace* seconds; return whether there is one."""
        ...

    def kill(self) -> None:
        """Kill what is left, workers without a job included."""
        ...

    async def wait_no_jobs(self) -> None:
        """Return when no job is left."""
        ...


class Drain:
    """Takes *drained* down, step by step.

    Args:
        loop: the loop that everything runs on.
        drained: what is taken down.
        timeout: seconds until jobs are asked to stop, None for never; read when
            the drain begins.
        grace: seconds from asking to killing; read when jobs are asked.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        drained: Drained,
        *,
        timeout: Callable[[], float | None],
        grace: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._drained = drained
        self._timeout = timeout
        self._grace = grace
        self._stage = Stage.SERVING
        #: True once no new jobs are taken. To be read only; an attribute since each job asks.
        self.begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[None] = loop.create_future()
        self._exit_status = 0
        self._signals = 0

    @property
    def stage(self) -> Stage:
        """How far down we are."""
        return self._stage

    @property
    def exit_status(self) -> int:
        """The exit status as it stands; a signal may still change it."""
        return self._exit_status

    def request(self, timeout: float | None) -> None:
        """Begin, with *timeout* seconds until the deadline, None for none. Nothing if it has begun."""
        self._timeout = lambda: timeout
        self._take(Cause.REQUEST)

    def signal(self, number: int) -> None:
        """A signal came: begin; the second asks to stop now; the third kills now."""
        self._signals += 1
        if self._stage is Stage.GONE:
            # No job is left, but a worker's exit hooks may be what takes so long.
            if self._signals > 2:
                self._exit_status = 128 + number
                self._drained.kill()
            return
        if self._stage is not Stage.SERVING:
            self._exit_status = 128 + number
        self._take(Cause.SIGNAL)

    def cut_short(self) -> None:
        """Do not wait any longer for jobs to end by themselves: ask them to stop now."""
        if self._stage is Stage.DRAINING:
            self._take(Cause.DEADLINE)

    async def wait(self) -> int:
        """Return the exit status once no job is left."""
        await asyncio.shield(self._gone)
        return self._exit_status

    async def start_unless_gone(self, start: Coroutine[None, None, None]) -> bool:
        """Run *start*; say whether it came to its end.

        A drain that begins before there are jobs is over at once, and *start* is
        cancelled then. Returns when it has stopped, and raises what it raises.
        """
        starting = asyncio.ensure_future(start)
        gone = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({starting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                return True
            starting.cancel()
            await asyncio.wait({starting})
            return False
        finally:
            for task in (starting, gone):
                task.cancel()
            await asyncio.gather(starting, gone, return_exceptions=True)

    def close(self) -> None:
        """Stop the clocks. Nothing moves any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._empty is not None:
            self._empty.cancel()
        if not self._gone.done():
            self._gone.set_result(None)

    # ── steps ────────────────────────────────────────────────────────────────

    def _take(self, cause: Cause) -> None:
        before, self._stage = self._stage, step(self._stage, cause)
        if self._stage is before:
            return
        self.begun = True
        logger.info("%s: %s ──► %s", cause.value, before.value, self._stage.value)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stage is Stage.DRAINING:
            self._begin()
        elif self._stage is Stage.STOPPING:
            grace = self._grace()
            if self._drained.stop(grace) and cause is Cause.DEADLINE:
                self._exit_status = EXIT_DEADLINE
            self._after(grace, Cause.GRACE_OVER)
        elif self._stage is Stage.KILLING:
            self._drained.kill()
        elif not self._gone.done():
            self._gone.set_result(None)

    def _begin(self) -> None:
        timeout = self._timeout()
        self._drained.begin(timeout)
        self._empty = self._loop.create_task(self._watch())
        if timeout is not None:
            self._after(timeout, Cause.DEADLINE)

    async def _watch(self) -> None:
        await self._drained.wait_no_jobs()
        self._take(Cause.EMPTY)

    def _after(self, seconds: float, cause: Cause) -> None:
        self._timer = self._loop.call_later(seconds, self._take, cause)
