"""Your own hooks, measured: cold start, warm start, memory, and how many idle workers you need.

    python -m benchmarks warm_start --setup pkg.mod:prewarm --preload pkg.mod:load --rate 5

* cold start: from the call to the job's first line when there is nothing but the
  supervisor: a fresh interpreter starts, imports, runs both hooks, runs the job.
* from the fork server: the same when no worker is idle; preloading is done.
* warm start: the same with idle workers.
* memory: PSS of the whole tree per additional idle worker.
* the number of idle workers: see ``queueing.py`` for the formula.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks import arguments, jobs, queueing
from benchmarks.figures import Summary
from benchmarks.processes import cpu_seconds, pss_bytes, tree
from benchmarks.table import lines
from supervisor import ProcessPool, SupervisorError

IDLE = 4
SAMPLES = 20
QUICK_SAMPLES = 3
PAUSE = 0.1
PATIENCE = 600.0  # for hooks, however long they take
RATES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)  # jobs a second, beside the one that was asked for


@dataclass(frozen=True)
class Measured:
    """What was found. Seconds and MB (2**20 bytes)."""

    cold: float
    forked: Summary
    warm: Summary
    warmup: float  # from the order of a worker until it is warm
    warmup_cpu: float
    mb_per_worker: float
    mb_with_one: float


def parse(words: list[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks warm_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--setup", type=arguments.hook, metavar="MODULE:FUNCTION", help="as setup_fnc"
    )
    parser.add_argument(
        "--preload", type=arguments.hook, metavar="MODULE:FUNCTION", help="as preload_fnc"
    )
    parser.add_argument(
        "--preload-modules",
        type=arguments.modules,
        default=[],
        metavar="A,B",
        help="imported in the fork server",
    )
    parser.add_argument(
        "--rate", type=arguments.rate, default=1.0, help="jobs a second; 1 unless given"
    )
    parser.add_argument(
        "--allowed",
        type=arguments.share,
        default=0.01,
        help="share of jobs that may wait; 0.01 unless given",
    )
    parser.add_argument(
        "--samples",
        type=arguments.count,
        help=f"hand-overs; {SAMPLES} unless given, {QUICK_SAMPLES} with --quick",
    )
    parser.add_argument("--quick", action="store_true", help="few samples: shows that it runs")
    given = parser.parse_args(words)
    given.samples = given.samples or (QUICK_SAMPLES if given.quick else SAMPLES)
    return given


def options(given: argparse.Namespace) -> dict[str, Any]:
    """Return the pool's options."""
    return {
        "setup_fnc": given.setup,
        "preload_fnc": given.preload,
        "preload_modules": [jobs.__name__, *given.preload_modules],
        "initialize_process_timeout": PATIENCE,
    }


async def one_start(pool: ProcessPool) -> float:
    """Return seconds from the call to the job's first line."""
    submitted = time.monotonic()
    return await pool.submit(jobs.stamp) - submitted


async def cold_start(pool_options: dict[str, Any]) -> float:
    """Return the seconds of a start from nothing."""
    spawned = {**pool_options, "multiprocessing_context": "spawn", "preload_modules": []}
    async with ProcessPool(**spawned, num_idle_processes=0) as pool:
        return await one_start(pool)


async def forked_starts(pool_options: dict[str, Any], samples: int) -> tuple[Summary, float]:
    """Return the starts with no worker idle, and the CPU seconds that each took in all processes."""
    gone: asyncio.Queue[object] = asyncio.Queue()
    async with ProcessPool(**pool_options, num_idle_processes=0) as pool:
        pool.on("worker_exited", gone.put_nowait)
        await one_start(pool)
        await gone.get()
        before, taken = cpu_with_children(), []
        for _ in range(samples):
            taken.append(await one_start(pool))
            await gone.get()
        return Summary.of(taken), (cpu_with_children() - before) / samples


def cpu_with_children() -> float:
    """Return the CPU seconds of this process and its children, with all that those have reaped."""
    children = psutil.Process().children()
    reaped = 0.0
    for child in children:
        times = child.cpu_times()
        reaped += times.children_user + times.children_system
    return cpu_seconds([os.getpid(), *(child.pid for child in children)]) + reaped


async def warm_starts(pool_options: dict[str, Any], samples: int) -> tuple[Summary, float]:
    """Return the starts with idle workers, and the median seconds until a worker is replaced."""
    async with ProcessPool(**pool_options, num_idle_processes=IDLE) as pool:
        warm: asyncio.Queue[float] = asyncio.Queue()
        pool.on("worker_warm", lambda event: warm.put_nowait(time.monotonic()))
        taken, replaced = [], []
        for _ in range(samples):
            await asyncio.sleep(PAUSE)
            submitted = time.monotonic()
            taken.append(await pool.submit(jobs.stamp) - submitted)
            replaced.append(await warm.get() - submitted)
    return Summary.of(taken), Summary.of(replaced).p50


async def memory(pool_options: dict[str, Any], more: int = IDLE) -> tuple[float, float]:
    """Return the MB of the tree with one idle worker, and what each of *more* adds."""
    warm: asyncio.Queue[int] = asyncio.Queue()
    async with ProcessPool(**pool_options, num_idle_processes=1) as pool:
        pool.on("worker_warm", lambda event: warm.put_nowait(event.pid))
        one = pss_bytes(tree(os.getpid()))
        pool.update_options(num_idle_processes=1 + more)
        for _ in range(more):
            await warm.get()
        return one / 2**20, (pss_bytes(tree(os.getpid())) - one) / more / 2**20


async def measure(given: argparse.Namespace) -> Measured:
    """Measure, one thing after the other."""
    pool_options = options(given)
    cold = await cold_start(pool_options)
    forked, warmup_cpu = await forked_starts(pool_options, given.samples)
    warm, warmup = await warm_starts(pool_options, given.samples)
    one, each = await memory(pool_options)
    return Measured(cold, forked, warm, warmup, warmup_cpu, each, one)


def needed(rate: float, found: Measured, allowed: float, cpus: int) -> tuple[str, str]:
    """Return the number of idle workers for a rate, and their memory, as text."""
    try:
        warmup = queueing.stretched(found.warmup, found.warmup_cpu, rate, cpus)
    except queueing.OverloadedError as exc:
        return "none is enough", str(exc)
    idle = queueing.idle_needed(rate, warmup, allowed)
    return str(idle), f"{idle * found.mb_per_worker:.0f} MB"


def report(found: Measured, given: argparse.Namespace, cpus: int) -> list[str]:
    """Return what is printed."""
    figures = [
        ["cold start (fresh interpreter, both hooks)", f"{found.cold * 1e3:.1f} ms"],
        ["start from the fork server, none idle, p50", f"{found.forked.p50 * 1e3:.2f} ms"],
        ["warm start, p50", f"{found.warm.p50 * 1e6:.0f} µs"],
        ["warm start, p99", f"{found.warm.p99 * 1e6:.0f} µs"],
        ["until a worker is replaced, p50", f"{found.warmup * 1e3:.2f} ms"],
        ["CPU for that, all processes", f"{found.warmup_cpu * 1e3:.2f} ms"],
        ["memory, everything with one idle worker", f"{found.mb_with_one:.1f} MB"],
        ["memory per additional idle worker", f"{found.mb_per_worker:.2f} MB"],
    ]
    rates = sorted({given.rate, *RATES})
    idle = [[f"{rate:g}", *needed(rate, found, given.allowed, cpus)] for rate in rates]
    chosen = needed(given.rate, found, given.allowed, cpus)[0]
    return [
        *lines(figures, ("", "")),
        "",
        f"idle workers with which at most {given.allowed:.1%} of jobs wait, {cpus} CPUs:",
        *lines(idle, ("jobs/s", "num_idle_processes", "memory")),
        "",
        f"at {given.rate:g} jobs a second: num_idle_processes={chosen}",
    ]


def main(words: list[str]) -> int:
    """Measure the hooks that the command line names; return the exit status."""
    given = parse(words)
    try:
        found = asyncio.run(measure(given))
    except SupervisorError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(*report(found, given, len(os.sched_getaffinity(0))), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
