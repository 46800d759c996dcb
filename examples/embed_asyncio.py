"""Warm worker processes inside an asyncio program.

    python examples/embed_asyncio.py

Each page is summarised in a process of its own, which was warm before the page
came. One of them takes too long, one brings its process down; the others never
notice, and the event loop of this program turns all the while.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

from supervisor import JobProcess, ProcessPool, SupervisorError, get_job_context

PAGES = {
    "short": "the cat sat on the mat",
    "slow": "z",
    "deadly": "segfault",
    "long": "to be or not to be that is the question " * 20_000,
}


def prewarm(proc: JobProcess) -> None:
    """Runs once in each worker, before it gets a job: load what takes long here."""
    proc.userdata["ignored"] = frozenset({"the", "to", "or", "on", "is"})


def summarise(text: str) -> list[tuple[str, int]]:
    """Runs in a worker: plain code that may block, crash or leak."""
    if text == "segfault":
        os.abort()
    if text == "z":
        time.sleep(60)
    ignored = get_job_context().proc.userdata["ignored"]
    return Counter(word for word in text.split() if word not in ignored).most_common(2)


async def heartbeat() -> None:
    """Stands for whatever else your program does."""
    while True:
        await asyncio.sleep(0.25)
        print("  the event loop turns")


async def main() -> None:
    """Summarise the pages, two at a time."""
    beating = asyncio.create_task(heartbeat())
    async with ProcessPool(setup_fnc=prewarm, num_idle_processes=2) as pool:
        names = iter(PAGES)
        async for handle in pool.map(summarise, PAGES.values(), max_in_flight=2, timeout=1.0):
            try:
                print(f"{next(names)}: {await handle}")
            except SupervisorError as exc:
                print(f"no summary: {exc}")

        # A task that is cancelled takes its job with it.
        task = asyncio.create_task(wait_for(pool))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        print(f"cancelled; jobs by now: {pool.stats().total_jobs}")
    beating.cancel()


async def wait_for(pool: ProcessPool) -> None:
    """Wait for a job that nobody will need."""
    await pool.submit(time.sleep, 60)


if __name__ == "__main__":
    asyncio.run(main())
