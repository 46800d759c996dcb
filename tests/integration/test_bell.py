"""When a worker listens while its job runs: it is rung for, and does without if nobody can ring."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobStatus, ProcessPool
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import is_gone, until

ROOT = Path(__file__).parents[2]


def pool(**options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 1)
    return ProcessPool(**options)


@pytest.mark.parametrize("job", [jobs.sleep_for_ever, jobs.sleep_for_ever_async])
@pytest.mark.parametrize("served", [1, None])
async def test_a_job_that_is_cancelled_within_its_first_moments_stops_and_is_not_killed(
    job: Any, served: int | None
) -> None:
    chance = random.Random(11)
    async with pool(max_jobs_per_process=served, max_jobs=4, shutdown_process_timeout=60) as p:
        for _ in range(25):
            handles = [p.submit(job) for _ in range(3)]
            for handle in handles:
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.002, 0.003, 0.006)))
                assert handle.cancel()
            for handle in handles:
                outcome = await soon(handle.wait())
                assert outcome.status is JobStatus.CANCELLED, outcome


async def test_a_job_whose_supervisor_is_busy_at_first_is_still_told_to_stop() -> None:
    async with pool(shutdown_process_timeout=60) as p:
        handle = p.submit(jobs.sleep_for_ever)
        time.sleep(0.5)  # the host program does not let the loop turn
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED


async def test_a_job_that_begins_late_is_told_to_stop() -> None:
    async with pool(max_jobs=1, max_jobs_per_process=None, shutdown_process_timeout=60) as p:
        pid = await soon(p.submit(jobs.pid))
        os.kill(pid, signal.SIGSTOP)
        handle = p.submit(jobs.sleep_for_ever)
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGCONT)
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED


def close_the_log_socket() -> None:
    handler: Any = logging.getLogger().handlers[0]
    os.close(handler._forwarder._sock.fileno())


async def test_a_worker_whose_job_closed_the_log_socket_still_listens() -> None:
    async with pool(max_jobs=1, max_jobs_per_process=None, shutdown_process_timeout=60) as p:
        await soon(p.submit(close_the_log_socket))
        for _ in range(2):
            await soon(p.submit(time.sleep, 0.1))
        for job in (jobs.sleep_for_ever, jobs.sleep_for_ever_async):
            handle = p.submit(job)
            await asyncio.sleep(0.1)
            handle.cancel()
            assert (await soon(handle.wait())).status is JobStatus.CANCELLED


def fork_for_ever() -> None:
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


async def test_a_job_that_forks_all_the_time_is_told_to_stop() -> None:
    chance = random.Random(3)
    async with pool(max_jobs=1, shutdown_process_timeout=60) as p:
        for _ in range(20):
            handle = p.submit(fork_for_ever)
            await asyncio.sleep(chance.uniform(0.0, 0.02))
            handle.cancel()
            assert (await soon(handle.wait())).status is JobStatus.CANCELLED


DIES_AT_THE_HAND_OVER = """
import asyncio, os, signal, sys, time
from supervisor import ProcessPool

async def main():
    pool = ProcessPool(
        num_idle_processes=4, max_jobs=4, max_processes=4, max_jobs_per_process=None,
        multiprocessing_context=sys.argv[1],
    )
    async with pool:
        pids = set()
        while len(pids) < 4:
            pids |= set(await asyncio.gather(*[pool.submit(os.getpid) for _ in range(4)]))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        print(*pids, flush=True)
        for _ in range(4):
            pool.submit(time.sleep, 600)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_a_worker_whose_supervisor_dies_before_its_job_begins_does_not_outlive_it(
    context: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(DIES_AT_THE_HAND_OVER)
    for _ in range(2):
        # Into a file: a pipe would not end before the workers do, which are stopped.
        with (tmp_path / "told").open("w+") as told:
            subprocess.run(
                [sys.executable, program, context],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=told,
                stderr=told,
                timeout=60,
            )
            told.seek(0)
            pids = [int(pid) for pid in told.readline().split()]
        assert len(pids) == 4
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGCONT)
        await until(lambda pids=pids: all(map(is_gone, pids)))  # type: ignore[misc]
