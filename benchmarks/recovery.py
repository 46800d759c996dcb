"""How long until all is well again, after the worst that can happen to the children at once?

Two clocks. From SIGKILL of every idle worker to the full number of idle ones; and
from SIGKILL of the fork server, with no worker left, to the first line of the job
that is submitted next: a new fork server has to start, preload and fork for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil

from benchmarks.figures import Summary
from benchmarks.results import machine_line
from benchmarks.watch import Watch
from supervisor import ProcessPool

IDLE = 4
ROUNDS = 30


def now() -> float:
    """The job: tell the moment in which it began."""
    return time.monotonic()


class Recovery:
    """Breaks a pool and waits until it is well again."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._watch = Watch(pool)

    def _children(self, title: str) -> list[int]:
        children = psutil.Process().children(recursive=True)
        return [child.pid for child in children if title in " ".join(child.cmdline())]

    async def idle_workers(self) -> float:
        """Kill all idle workers; return seconds until as many are idle again."""
        await self._watch.until_idle(IDLE)
        pids = self._children("greenroom: idle")
        assert len(pids) == IDLE, pids
        began = await self._kill(pids)
        await self._watch.until_idle(IDLE)
        return time.monotonic() - began

    async def _kill(self, pids: list[int]) -> float:
        """Kill them, all idle workers among them; return when, once the workers are gone.

        A job that is submitted earlier may be handed to three dying workers, one after
        the other, and has then had its share of tries.
        """
        exited = self._pool.stats().total_reaped + IDLE
        began = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await self._watch.until(lambda now: now.total_reaped >= exited)
        return began

    async def fork_server(self) -> float:
        """Kill the fork server and all workers; return seconds until the next job has begun."""
        await self._watch.until_idle(IDLE)
        pids = self._children("greenroom: fork server") + self._children("greenroom: idle")
        assert len(pids) == IDLE + 1, pids
        began = await self._kill(pids)
        return await self._pool.submit(now) - began


def a_pool() -> ProcessPool:
    """Return a pool that is yet to be started."""
    return ProcessPool(num_idle_processes=IDLE, preload_modules=[__name__])


async def fork_server_once() -> float:
    """Measure with a pool of its own: one whose fork server dies again and again waits longer."""
    async with a_pool() as pool:
        return await Recovery(pool).fork_server()


async def measure() -> None:
    """Measure and print."""
    async with a_pool() as pool:
        recovery = Recovery(pool)
        idle = Summary.of([await recovery.idle_workers() for _ in range(ROUNDS)])
    born = Summary.of([await fork_server_once() for _ in range(ROUNDS)])
    for what, taken in (
        (f"{IDLE} idle workers killed, until {IDLE} are idle", idle),
        ("fork server and workers killed, until a job begins", born),
    ):
        print(
            f"{what}: median {taken.p50 * 1e3:.0f} ms, p90 {taken.p90 * 1e3:.0f} ms, "
            f"worst {taken.worst * 1e3:.0f} ms, n {taken.n}"
        )


def main() -> None:
    """Measure and print."""
    print(f"recovery, {machine_line()}")
    asyncio.run(measure())


if __name__ == "__main__":
    main()
