"""Does anything grow? 100,000 jobs, each in a process of its own, and a look after every thousand.

``python -m benchmarks.soak [--jobs N] [--every N] [--out DIRECTORY]``

What is measured is this process: the supervisor, and the little that submits to
it. Each look waits until all jobs are over and the idle workers are back, so that
any two looks see the same number of workers, and a difference is a leak.

Writes ``soak.json``, and ``soak.png`` where matplotlib is installed. The exit
status is 1 if something grew: memory by 5 MB or more after the first 5,000 jobs,
or descriptors or threads at all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.results import machine_line
from benchmarks.watch import Watch
from supervisor import ProcessPool, memory

IDLE = 4
IN_FLIGHT = 8

MB = 2**20

# Caches and free lists are full by then.
SETTLED_JOBS = 5000
GROWTH_LIMIT_MB = 5.0


@dataclass(frozen=True)
class Look:
    """This process after so many jobs, and those jobs since the last look.

    Times are seconds; ``latency`` is from ``submit`` to the result.
    """

    jobs: int
    seconds: float
    uss_mb: float
    fork_server_uss_mb: float
    descriptors: int
    threads: int
    objects: int
    per_second: float
    latency_p50: float
    latency_p99: float
    latency_worst: float
    handover_p50: float


@dataclass
class Soak:
    """What a soak has shown."""

    machine: str
    began: str
    looks: list[Look] = field(default_factory=list)

    @property
    def settled(self) -> Look:
        """The look that growth counts from."""
        late = [look for look in self.looks if look.jobs >= SETTLED_JOBS]
        return late[0] if late else self.looks[0]

    @property
    def growth_mb(self) -> float:
        """Megabytes between the settled look and the largest after it."""
        since = [look.uss_mb for look in self.looks if look.jobs >= self.settled.jobs]
        return max(since) - self.settled.uss_mb

    def grown(self, name: str) -> int:
        """Return by how much a count has grown between the first looks that count and the last.

        The smallest of some looks: who samples memory has a descriptor open for a moment.
        """
        counts = [getattr(look, name) for look in self.looks if look.jobs >= self.settled.jobs]
        some = max(1, len(counts) // 3)
        least, least_at_first = min(counts[-some:]), min(counts[:some])
        return int(least - least_at_first)

    @property
    def is_good(self) -> bool:
        """Whether nothing grew."""
        flat = self.grown("descriptors") <= 0 and self.grown("threads") <= 0
        return flat and self.growth_mb < GROWTH_LIMIT_MB

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "machine": self.machine,
            "began": self.began,
            "jobs": self.looks[-1].jobs,
            "growth_mb": round(self.growth_mb, 3),
            "growth_counts_from_job": self.settled.jobs,
            "descriptors_grown": self.grown("descriptors"),
            "threads_grown": self.grown("threads"),
            "looks": [asdict(look) for look in self.looks],
        }


def nothing() -> None:
    """The job."""


class Runner:
    """Runs jobs through *pool* and looks at this process now and then."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._watch = Watch(pool)
        self._fork_server = psutil.Process(_fork_server_pid())

    async def run(self, soak: Soak, jobs: int, every: int) -> None:
        """Run *jobs* jobs; add a look for every *every* of them."""
        began = time.perf_counter()
        for done in range(every, jobs + 1, every):
            started = time.perf_counter()
            taken = await self._jobs(every)
            seconds = time.perf_counter() - started
            await self._watch.until_idle(IDLE)
            look = self._look(done, time.perf_counter() - began, every / seconds, taken)
            soak.looks.append(look)
            print(
                f"{done:7,} jobs  {look.per_second:4.0f} a second  USS {look.uss_mb:6.2f} MB  "
                f"{look.descriptors} descriptors  {look.threads} threads  "
                f"p50 {look.latency_p50 * 1e3:5.2f} ms  p99 {look.latency_p99 * 1e3:6.2f} ms",
                flush=True,
            )

    async def _jobs(self, count: int) -> list[tuple[float, float]]:
        """Run *count* jobs; return the latency and the hand-over of each."""
        numbers = iter(range(count))
        taken: list[tuple[float, float]] = []

        async def one_after_the_other() -> None:
            for _ in numbers:
                began = time.perf_counter()
                handle = self._pool.submit(nothing)
                await handle
                seconds = time.perf_counter() - began
                assert handle.outcome is not None
                taken.append((seconds, handle.outcome.handover_seconds or 0.0))

        await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
        return taken

    def _look(
        self, done: int, seconds: float, per_second: float, taken: list[tuple[float, float]]
    ) -> Look:
        gc.collect()
        latencies = sorted(latency for latency, _ in taken)
        handovers = sorted(handover for _, handover in taken)
        process = psutil.Process()
        return Look(
            jobs=done,
            seconds=seconds,
            uss_mb=process.memory_full_info().uss / MB,
            fork_server_uss_mb=self._fork_server.memory_full_info().uss / MB,
            descriptors=process.num_fds(),
            threads=process.num_threads() - _samplers(),
            objects=len(gc.get_objects()),
            per_second=per_second,
            latency_p50=latencies[len(latencies) // 2],
            latency_p99=latencies[int(len(latencies) * 0.99)],
            latency_worst=latencies[-1],
            handover_p50=handovers[len(handovers) // 2],
        )


def _samplers() -> int:
    """Return whether the thread runs that samples memory: it comes and goes with the jobs."""
    return sum(thread.name == memory.THREAD for thread in threading.enumerate())


def _fork_server_pid() -> int:
    children = psutil.Process().children()
    pids: list[int] = [each.pid for each in children if "fork server" in " ".join(each.cmdline())]
    return pids[0]


async def soak(jobs: int, every: int) -> Soak:
    """Run a soak and return what it showed."""
    shown = Soak(machine_line(), time.strftime("%Y-%m-%d %H:%M"))
    async with ProcessPool(
        num_idle_processes=IDLE, max_jobs=IN_FLIGHT, preload_modules=[__name__]
    ) as pool:
        await Runner(pool).run(shown, jobs, every)
    return shown


def plot(shown: Soak, path: Path) -> None:
    """Draw memory, descriptors, threads and latency over the jobs.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    jobs = [look.jobs for look in shown.looks]
    figure, axes = pyplot.subplots(4, 1, sharex=True, figsize=(9, 10), layout="constrained")
    axes[0].plot(jobs, [look.uss_mb for look in shown.looks], label="supervisor")
    axes[0].plot(jobs, [look.fork_server_uss_mb for look in shown.looks], label="fork server")
    axes[0].set_ylabel("USS, MB")
    axes[1].plot(jobs, [look.descriptors for look in shown.looks], label="descriptors")
    axes[1].plot(jobs, [look.threads for look in shown.looks], label="threads")
    axes[1].set_ylabel("supervisor's, count")
    for name, share in (("latency_p50", "median"), ("latency_p99", "99 %")):
        axes[2].plot(jobs, [getattr(look, name) * 1e3 for look in shown.looks], label=share)
    axes[2].set_ylabel("submit to result, ms")
    axes[3].plot(jobs, [look.per_second for look in shown.looks], label="jobs a second")
    axes[3].set_ylabel("jobs a second")
    axes[3].set_xlabel("jobs, each in a process of its own")
    for each in axes:
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
        each.legend(loc="lower right")
    figure.suptitle(f"{jobs[-1]:,} jobs, {IN_FLIGHT} at a time\n{shown.machine}")
    figure.savefig(path, dpi=110)


def main(arguments: list[str]) -> int:
    """Run, write and say whether anything grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1000, help="jobs between two looks")
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    given = parser.parse_args(arguments)
    print(f"soak: {given.jobs:,} jobs, {IN_FLIGHT} at a time, {machine_line()}, pid {os.getpid()}")
    shown = asyncio.run(soak(given.jobs, min(given.every, given.jobs)))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "soak.json").write_text(json.dumps(shown.as_dict(), indent=1) + "\n")
    try:
        plot(shown, given.out / "soak.png")
    except ImportError as exc:
        print(f"no plot: {exc}")
    print(
        f"after job {shown.settled.jobs:,}: memory grew by {shown.growth_mb:.2f} MB at the most, "
        f"descriptors by {shown.grown('descriptors')}, threads by {shown.grown('threads')}; "
        f"figures in {given.out}"
    )
    return 0 if shown.is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
