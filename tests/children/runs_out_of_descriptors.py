"""A program that has opened all files that it may, and has jobs for more workers than there are.

Prints a line of JSON: the outcomes of all jobs, and what was warned of.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from supervisor import ProcessPool
from tests.children import misbehaves

JOBS = 30


class Warnings(logging.Handler):
    """Keeps what was warned of, and tells when the first descriptor was missing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.out_of_descriptors = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if "open files" in self.texts[-1]:
            self.out_of_descriptors.set()


async def main(go: Path) -> None:
    warnings = Warnings()
    logging.getLogger("greenroom").addHandler(warnings)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with ProcessPool(num_idle_processes=1, max_jobs=JOBS) as pool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
        held: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        handles = [pool.submit(misbehaves.wait_for_file, os.fspath(go)) for _ in range(JOBS)]
        await warnings.out_of_descriptors.wait()
        waiting = pool.stats().waiting
        for fd in held:
            os.close(fd)
        go.touch()
        outcomes = [(await handle.wait()).status.value for handle in handles]
    print(json.dumps({"outcomes": outcomes, "warnings": warnings.texts, "waiting": waiting}))


if __name__ == "__main__":
    signal.alarm(60)  # whatever becomes of the test
    asyncio.run(main(Path(sys.argv[1])))
