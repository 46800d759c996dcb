"""A job that never sleeps, and gives the interpreter away for a moment only, is reached all the same.

Python's threads ask for the interpreter's lock when it has not changed hands for 5 ms. From code
that lets go of it more often, but at once takes it again, a thread may get nothing for seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from supervisor import JobStatus, ProcessPool
from tests.integration import jobs
from tests.integration.conftest import soon


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def reads_files(step: float, seconds: float = 1000) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        spin(step)
        os.stat("/")
    return "done"


class Spinning:
    def __init__(self, step: float) -> None:
        self.step = step

    def __del__(self) -> None:
        spin(self.step)
        os.stat("/")


def finalizers(step: float) -> None:
    while True:
        Spinning(step)


async def turns(step: float, seconds: float = 1000) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        spin(step)
        await asyncio.sleep(0)
    return "done"


def turns_of_its_own_loop(step: float, seconds: float = 1000) -> str:
    return asyncio.run(turns(step, seconds))


def blocks_its_own_loop(step: float) -> None:
    async def main() -> None:
        reads_files(step)

    asyncio.run(main())


def pool(**options: Any) -> ProcessPool:
    usual: dict[str, Any] = {
        "num_idle_processes": 1,
        "max_jobs": 1,
        "shutdown_process_timeout": 60,
        "preload_modules": [__name__],
    }
    return ProcessPool(**{**usual, **options})


STEPS = [0.0001, 0.001, 0.005]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("job", [reads_files, finalizers, turns, turns_of_its_own_loop])
async def test_it_is_stopped(job: Callable[..., Any], step: float) -> None:
    async with pool(max_jobs_per_process=None) as p:
        for pause in (0.0, 0.02, 0.1):
            handle = p.submit(job, step)
            await asyncio.sleep(pause)
            handle.cancel()
            outcome = await soon(handle.wait())
            assert outcome.status is JobStatus.CANCELLED, outcome
        # As before: threads of the next job are not to be switched all the time.
        assert await soon(p.submit(sys.getswitchinterval)) == sys.getswitchinterval()


@pytest.mark.parametrize("step", STEPS)
async def test_a_loop_that_it_blocks_is_stopped_within_the_grace(step: float) -> None:
    async with pool(shutdown_process_timeout=6) as p:
        handle = p.submit(blocks_its_own_loop, step)
        await asyncio.sleep(0.1)
        handle.cancel()
        outcome = await soon(handle.wait())
        assert outcome.status is JobStatus.CANCELLED, outcome


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("job", [reads_files, turns, turns_of_its_own_loop])
async def test_it_answers_pings(job: Callable[..., Any], step: float) -> None:
    async with pool(ping_interval=0.1, ping_timeout=0.5) as p:
        assert await soon(p.submit(job, step, 4.0)) == "done"


@pytest.mark.parametrize("job", [reads_files, turns])
async def test_its_timeout_is_kept(job: Callable[..., Any]) -> None:
    async with pool() as p:
        outcome = await soon(p.schedule(job, (0.003,), timeout=0.3).wait())
        assert outcome.status is JobStatus.TIMED_OUT, outcome
        assert await soon(p.submit(jobs.double, 21)) == 42
