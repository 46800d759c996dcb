"""A program that gets more jobs at once than it has descriptors for workers, and opens files meanwhile.

Prints a line of JSON: the outcomes of all jobs, how many descriptors were free, what was warned of.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from supervisor import ProcessPool
from tests.children import misbehaves

JOBS = 60
LIMIT = 160
# Longer than it takes until a warning that is repeated each second would be there again.
SECONDS = 2.5


def free() -> int:
    """Return how many descriptors this program could open now. It opens one to learn that."""
    return LIMIT - len(os.listdir("/proc/self/fd")) + 1


async def main(go: Path, options: dict[str, Any]) -> None:
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("greenroom").addHandler(handler)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
    loop = asyncio.get_running_loop()
    async with ProcessPool(num_idle_processes=1, max_jobs=JOBS, **options) as pool:
        handles = [pool.submit(misbehaves.wait_for_file, os.fspath(go)) for _ in range(JOBS)]
        least = free()
        while not warnings or pool.stats().spawning:
            least = min(least, free())
            await asyncio.sleep(0.001)
        end = loop.time() + SECONDS
        while loop.time() < end:
            least = min(least, free())
            await asyncio.sleep(0.001)
        waiting, in_the_end = pool.stats().waiting, free()
        go.touch()
        outcomes = [(await handle.wait()).status.value for handle in handles]
    told = {
        "jobs": JOBS,
        "limit": LIMIT,
        "outcomes": outcomes,
        "waiting": waiting,
        "least_free": least,
        "free_in_the_end": in_the_end,
        "warnings": warnings,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    signal.alarm(90)  # whatever becomes of the test
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
