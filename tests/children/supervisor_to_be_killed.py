"""A program with a pool: eight idle workers, and eight that do not make it easy to end them.

Prints a line of JSON once all of it stands: every process id there is. Then it
serves until somebody kills it.

Run: python -m tests.children.supervisor_to_be_killed forkserver|spawn [CGROUP]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from supervisor import JobHandle, JobStatus, ProcessPool
from tests.children import misbehaves

EASY: list[Callable[[str], object]] = [misbehaves.wait_for_file] * 3
LEFT_BEHIND: list[Callable[[str], object]] = [
    misbehaves.leaves_a_child_and_goes_on,
    misbehaves.leaves_a_child_in_its_own_session_and_goes_on,
    misbehaves.leaves_a_daemon_and_goes_on,
]


async def main(context: str, cgroup: str | None = None) -> None:
    directory = Path(tempfile.mkdtemp())
    stubborn = context == "forkserver"
    pool = ProcessPool(
        multiprocessing_context=context,
        cgroup=cgroup,
        capture_output=True,  # nobody reads what the children say about the death
        num_idle_processes=8 if stubborn else 2,
        max_jobs=16,
        max_idle_processes=16,
    )
    async with pool:
        functions = [*EASY, *LEFT_BEHIND]
        paths = [directory / str(number) for number in range(len(functions))]
        handles: list[JobHandle[Any]] = [
            pool.submit(function, os.fspath(path))
            for function, path in zip(functions, paths, strict=True)
        ]
        if stubborn:
            handles.append(pool.submit(misbehaves.holds_the_gil))
            handles.append(pool.submit(misbehaves.stops_itself))
        idle = 8 if stubborn else 2
        while not (
            all(handle.status is JobStatus.RUNNING for handle in handles)
            and pool.stats().idle == idle
            and all(path.exists() for path in paths[len(EASY) :])
            and (not stubborn or is_stopped(handles[-1].pid))
        ):
            await asyncio.sleep(0.01)
        pids = [child.pid for child in psutil.Process().children(recursive=True)]
        print(json.dumps({"pids": pids, "workers": len(handles) + idle}), flush=True)
        await asyncio.Event().wait()


def is_stopped(pid: int | None) -> bool:
    return pid is not None and bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


if __name__ == "__main__":
    signal.alarm(60)  # whatever becomes of the test
    asyncio.run(main(*sys.argv[1:]))
