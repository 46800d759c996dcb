"""How many single-use jobs a second go through four idle workers?

Empty jobs and an empty setup: what is measured is the birth, the hand-over and
the end of a process. The floor is ``fork`` + ``_exit`` + ``waitpid``, one after
the other, in a process with a comparable heap.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks.measure import fork_floor, machine
from supervisor import ProcessPool

IDLE = 4
JOBS = 500
ROUNDS = 5


def nothing() -> None:
    """The job."""


async def all_at_once(pool: ProcessPool) -> float:
    """Return seconds for JOBS jobs that were submitted together."""
    began = time.perf_counter()
    for handle in [pool.submit(nothing) for _ in range(JOBS)]:
        await handle
    return time.perf_counter() - began


async def one_by_one(pool: ProcessPool) -> list[float]:
    """Return seconds from submit to result of jobs that follow each other without a pause."""
    taken = []
    for _ in range(JOBS):
        began = time.perf_counter()
        await pool.submit(nothing)
        taken.append(time.perf_counter() - began)
    return taken


async def measure() -> None:
    """Measure and print, round by round."""
    ratios = []
    async with ProcessPool(num_idle_processes=IDLE, preload_modules=[__name__]) as pool:
        for _ in range(ROUNDS):
            floor = 1 / statistics.median(fork_floor(200))
            seconds = await all_at_once(pool)
            follow = statistics.median(await one_by_one(pool))
            ratios.append(JOBS / seconds / floor)
            print(
                f"{JOBS} at once: {seconds:5.2f} s, {JOBS / seconds:6.0f} a second   "
                f"floor {floor:6.0f} a second   ratio {ratios[-1]:4.2f}   "
                f"one by one: median {follow * 1e3:5.2f} ms"
            )
    print(f"median ratio {statistics.median(ratios):4.2f}")


def main() -> None:
    """Measure and print."""
    print(f"churn through {IDLE} idle workers, {machine()}")
    asyncio.run(measure())


if __name__ == "__main__":
    main()
