"""What a contestant can be asked for, and the shape that most pools of Python share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks import jobs


@dataclass(frozen=True)
class Workload:
    """What kind of pool is wanted."""

    idle: int = 4  # workers that wait for a job
    ceiling: int | None = None  # jobs at a time; None: what the pool does with that idle number
    heavy_mb: int = 0  # preloaded, by the cheapest way that the pool has


class Driver:
    """Drives one pool. Every method runs in the contestant's own process.

    A driver that cannot do something leaves the method as it is.
    """

    async def open(self, workload: Workload) -> None:
        """Start the pool; return when as many workers are idle as were asked for."""
        raise NotImplementedError

    async def close(self) -> None:
        """End it."""

    async def settle(self) -> None:
        """Return when the pool is full again. For pools that a pause may not be enough for."""

    async def handover(self, kind: str) -> float:
        """Return seconds from just before the call to the first line of the job."""
        raise NotImplementedError

    async def round_trip(self) -> float:
        """Return seconds from just before the call of an empty job until its result is there."""
        raise NotImplementedError

    async def all_at_once(self, count: int) -> float:
        """Return seconds from the first call until *count* empty jobs have ended."""
        raise NotImplementedError

    async def burst(self, count: int, hold: float) -> float:
        """Return seconds from the first of *count* calls until the last job has begun.

        Args:
            count: jobs, all submitted at once.
            hold: seconds from the first call until which each job stays; 0: it ends at once.
        """
        raise NotImplementedError

    async def heavy_objects(self) -> int:
        """Return how many preloaded objects a job finds."""
        raise NotImplementedError


class Pending(Protocol):
    """What a submitted job looks like: a future, or something like it."""

    def result(self) -> Any:
        """Wait for the job and return its result."""
        ...


class Futures(Driver):
    """A pool that is asked by a call and answers with something to wait for."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        """Hand *function* to the pool."""
        raise NotImplementedError

    async def handover(self, kind: str) -> float:
        submitted = time.monotonic()
        began: float = self.submit(jobs.stamp).result()
        return began - submitted

    async def round_trip(self) -> float:
        submitted = time.monotonic()
        self.submit(jobs.nothing).result()
        return time.monotonic() - submitted

    async def all_at_once(self, count: int) -> float:
        submitted = time.monotonic()
        for pending in [self.submit(jobs.nothing) for _ in range(count)]:
            pending.result()
        return time.monotonic() - submitted

    async def burst(self, count: int, hold: float) -> float:
        submitted = time.monotonic()
        job, args = (jobs.hold, (submitted + hold,)) if hold else (jobs.stamp, ())
        pending = [self.submit(job, *args) for _ in range(count)]
        began: float = max(each.result() for each in pending)
        return began - submitted

    async def heavy_objects(self) -> int:
        count: int = self.submit(jobs.heavy_objects).result()
        return count

    def warm(self, workers: int) -> None:
        """Make a pool that starts its workers on demand start so many, and wait until it has.

        Single-use workers are gone after that; those pools replace each of them.
        """
        until = time.monotonic() + 0.3
        for pending in [self.submit(jobs.hold, until) for _ in range(workers)]:
            pending.result()
        time.sleep(0.3)


def forkserver(workload: Workload) -> Any:
    """Return the standard library's forkserver context, which has imported what the jobs need."""
    import multiprocessing

    os.environ["GREENROOM_BENCH_HEAVY_MB"] = str(workload.heavy_mb)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["benchmarks.jobs", *(["benchmarks.heavy"] if workload.heavy_mb else [])]
    )
    return context


def require(version: tuple[int, int], what: str) -> None:
    """Raise ImportError, as for a package that is missing, on a Python that is too old."""
    if sys.version_info < version:
        raise ImportError(f"{what} needs Python {version[0]}.{version[1]}")
