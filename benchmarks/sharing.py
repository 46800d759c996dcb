"""What does one more idle worker cost, with 200 MB in ``preload_fnc``?

PSS counts a page that n processes share as 1/n for each, so the sum over all
processes is what they take from the machine together.
"""

from __future__ import annotations

import asyncio
import os

import psutil

from benchmarks.measure import machine
from supervisor import JobProcess, ProcessPool

PRELOADED_MB = 200
WORKERS = 8


def preload(proc: JobProcess) -> None:
    """Load a model of PRELOADED_MB: many small objects, the worst case for sharing."""
    proc.userdata["table"] = [os.urandom(1024) for _ in range(PRELOADED_MB * 1024)]


def pss_mb(pids: list[int]) -> float:
    """Return what these processes take together, in MB."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20


async def measure() -> tuple[float, float]:
    """Return PSS of the fork server's whole tree with one and with WORKERS + 1 idle workers."""
    warm: asyncio.Queue[int] = asyncio.Queue()
    async with ProcessPool(
        preload_fnc=preload, num_idle_processes=1, initialize_process_timeout=120
    ) as pool:
        pool.on("worker_warm", lambda event: warm.put_nowait(event.pid))
        tree = [p.pid for p in psutil.Process().children(recursive=True)]
        one = pss_mb(tree)
        pool.update_options(num_idle_processes=WORKERS + 1)
        tree += [await warm.get() for _ in range(WORKERS)]
        return one, pss_mb(tree)


def main() -> None:
    """Measure and print."""
    print(f"{PRELOADED_MB} MB preloaded, {machine()}")
    one, many = asyncio.run(measure())
    print(
        f"1 idle worker: {one:.0f} MB PSS in all; {WORKERS} more add {many - one:.1f} MB, "
        f"{(many - one) / WORKERS:.2f} MB each"
    )


if __name__ == "__main__":
    main()
