"""What does a control group for each worker cost?

Two pools, with and without, turn by turn in one run: jobs a second through
single-use workers, the time from birth to idle when births are rare, and the
hand-over. Takes a cgroup v2 that this user may write to.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

from benchmarks.results import machine_line
from supervisor import ProcessPool
from supervisor.cgroupfs import own_place

IDLE = 4
JOBS = 500
ROUNDS = 7
RARE = 30


def nothing() -> None:
    """The job."""


async def churn(pool: ProcessPool) -> float:
    """Return jobs a second."""
    began = time.perf_counter()
    for handle in [pool.submit(nothing) for _ in range(JOBS)]:
        await handle
    return JOBS / (time.perf_counter() - began)


async def rare_births(pool: ProcessPool) -> tuple[list[float], list[float]]:
    """Return hand-overs, and seconds from ``submit`` to the idle worker that takes the place."""
    handovers, births = [], []
    warm = asyncio.Event()
    pool.on("worker_warm", lambda _: warm.set())
    for _ in range(RARE):
        await asyncio.sleep(0.1)  # the kernel forgets that groups were joined just now
        warm.clear()
        began = time.perf_counter()
        handle = pool.submit(nothing)
        await handle
        await warm.wait()
        births.append(time.perf_counter() - began)
        assert handle.outcome is not None
        handovers.append(handle.outcome.handover_seconds or 0.0)
    return handovers, births


async def measure(directory: Path) -> None:
    """Measure and print."""
    pools = {
        name: ProcessPool(num_idle_processes=IDLE, preload_modules=[__name__], cgroup=where)
        for name, where in (("without", None), ("with", str(directory)))
    }
    rates: dict[str, list[float]] = {name: [] for name in pools}
    for pool in pools.values():
        await pool.start()
    try:
        for _ in range(ROUNDS):
            for name, pool in pools.items():
                rates[name].append(await churn(pool))
        pairs = zip(rates["with"], rates["without"], strict=True)
        ratio = statistics.median(ours / other for ours, other in pairs)
        for name, pool in pools.items():
            handovers, births = await rare_births(pool)
            print(
                f"{name:8} {statistics.median(rates[name]):5.0f} jobs a second   "
                f"rare births: to idle {statistics.median(births) * 1e3:5.1f} ms, "
                f"hand-over {statistics.median(handovers) * 1e6:4.0f} µs"
            )
        print(f"median ratio of jobs a second, with to without: {ratio:.3f}")
    finally:
        for pool in pools.values():
            await pool.aclose()


def main() -> None:
    """Measure and print, or say why not."""
    print(f"control groups, {machine_line()}")
    place = own_place()
    directory = None if place is None else place.directory / f"greenroom-bench-{os.getpid()}"
    try:
        if directory is None:
            raise FileNotFoundError("no cgroup v2 here")
        directory.mkdir()
    except OSError as exc:
        print(f"not possible: {exc}")
        return
    try:
        asyncio.run(measure(directory))
    finally:
        directory.rmdir()


if __name__ == "__main__":
    main()
