"""Watching workers that live: pings, and the memory of those that run a job.

Silence is answered with a kill. Before anybody is called silent it is made sure
that this process was awake itself: after a suspend, or a loop that was blocked,
every answer is late and nobody is to blame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from supervisor import clock
from supervisor.lifecycle import State
from supervisor.memory import MemoryMonitor, Target
from supervisor.options import PoolOptions
from supervisor.outcome import Kill
from supervisor.rounds import PLACES, steps_to, steps_to_next
from supervisor.worker import Worker

logger = logging.getLogger("greenroom.monitor")

# A warning about a job's memory is repeated when it has grown by so much.
_WARN_AGAIN: Final = 1.25

# Nobody is killed for one ping that is not answered: the second comes with a nudge.
_OWED: Final = 2

_PINGED: Final = frozenset({State.WARMING, State.IDLE, State.RUNNING})

MB: Final = 2**20


class Monitor:
    """Pings workers and samples the memory of jobs.

    Args:
        loop: the pool's loop.
        workers: returns the workers there are.
        options: returns the options as they are now.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: Callable[[], Iterable[Worker]],
        options: Callable[[], PoolOptions],
    ) -> None:
        self._loop = loop
        self._workers = workers
        self._options = options
        self._place = 0  # where the last turn was
        self._due = clock.monotonic()  # when the next one is
        self._timer: asyncio.TimerHandle | None = None
        self._memory = MemoryMonitor(loop, targets=self._targets, on_sample=self._sampled)
        self._warned: dict[int, float] = {}

    def start(self) -> None:
        """Begin."""
        self._due = clock.monotonic()
        self._schedule()

    def job_began(self) -> None:
        """A job runs from now on: its memory counts."""
        self._memory.wake()

    async def close(self) -> None:
        """Stop, and end the sampling thread."""
        if self._timer is not None:
            self._timer.cancel()
        await self._memory.close()

    # ── pings ────────────────────────────────────────────────────────────────

    def _schedule(self) -> None:
        pinged = (each.number for each in self._workers() if _is_pinged(each))
        steps = steps_to_next(pinged, self._place)
        seconds = self._options().ping_interval * steps / PLACES
        self._due = clock.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._turn, steps)

    def _turn(self, steps: int) -> None:
        now = clock.monotonic()
        options = self._options()
        overslept = now - self._due > options.ping_interval / 2
        before, self._place = self._place, (self._place + steps) % PLACES
        self._schedule()
        for worker in list(self._workers()):
            if overslept:
                worker.vitals.last_heard = max(
                    worker.vitals.last_heard, now - options.ping_interval
                )
            # Or those whose place was passed by: they came after it was scheduled.
            if steps_to(worker.number, before) <= steps and _is_pinged(worker):
                self._ping_or_kill(worker, now, options.ping_timeout)

    def _ping_or_kill(self, worker: Worker, now: float, timeout: float) -> None:
        silent = worker.vitals.silent_for(now)
        if silent < timeout or worker.vitals.owed < _OWED:
            worker.ping(now)
            return
        stack = (
            f"; its loop was last seen here:\n{worker.vitals.last_stack}"
            if worker.vitals.last_stack
            else ""
        )
        logger.error(
            "worker %d (pid %s) has been silent for %.1f s and is killed%s",
            worker.number,
            worker.pid,
            silent,
            stack,
            extra={"greenroom": dict(worker.log_context())},
        )
        worker.kill(Kill("silent", f"no answer for {silent:.1f} s{stack}"))

    # ── memory ───────────────────────────────────────────────────────────────

    def _targets(self) -> list[Target]:
        """Return what to sample. Runs on: the pool's loop or the sampling thread."""
        options = self._options()
        warn = int(options.job_memory_warn_mb * MB)
        targets = []
        for worker in list(self._workers()):
            job = worker.job
            if worker.state is not State.RUNNING or worker.pid is None or job is None:
                continue
            thresholds = [each for each in (warn, job.memory_limit_bytes) if each > 0]
            if thresholds:
                targets.append(Target(worker.number, worker.pid, min(thresholds)))
        return targets

    def _sampled(self, target: Target, measured: int) -> None:
        worker = next((w for w in self._workers() if w.number == target.key), None)
        if worker is None or worker.job is None or worker.pid != target.pid:
            return  # it ended while it was measured
        limit = worker.job.memory_limit_bytes
        if limit and measured > limit:
            detail = f"{measured / MB:.0f} MB measured, the limit is {limit / MB:g} MB"
            logger.error(
                "job %s is killed: %s",
                worker.job.id,
                detail,
                extra={"greenroom": dict(worker.log_context())},
            )
            worker.kill(Kill("memory", detail))
            return
        self._warn(worker, measured)

    def _warn(self, worker: Worker, measured: int) -> None:
        warn = self._options().job_memory_warn_mb * MB
        if not warn or measured < warn:
            return
        self._warned = {
            n: m for n, m in self._warned.items() if n in {w.number for w in self._workers()}
        }
        if measured < self._warned.get(worker.number, 0.0) * _WARN_AGAIN:
            return
        self._warned[worker.number] = measured
        assert worker.job is not None
        logger.warning(
            "job %s uses %.0f MB of memory, job_memory_warn_mb is %g",
            worker.job.id,
            measured / MB,
            self._options().job_memory_warn_mb,
            extra={"greenroom": dict(worker.log_context())},
        )


def _is_pinged(worker: Worker) -> bool:
    # One that leaves answers nobody: it runs exit handlers, as long as its grace lasts.
    return worker.state in _PINGED or (worker.state is State.STOPPING and worker.job is not None)
