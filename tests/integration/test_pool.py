"""A pool runs functions in warm processes of their own."""

from __future__ import annotations

import os
from typing import Any

import pytest

from supervisor import JobStatus, PoolClosed, ProcessPool
from tests.integration import jobs
from tests.integration.conftest import soon

pytestmark = pytest.mark.parametrize("context", ["forkserver", "spawn"])


def pool(context: str, **options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 2)
    return ProcessPool(multiprocessing_context=context, **options)


async def test_a_job_returns_its_value(context: str) -> None:
    async with pool(context) as p:
        handle = p.submit(jobs.double, 21)
        assert await soon(handle) == 42
        assert handle.status is JobStatus.SUCCEEDED
        assert handle.outcome is not None
        assert handle.outcome.handover_seconds is not None
        assert handle.outcome.pid not in (None, os.getpid())


async def test_an_async_function_is_awaited_in_the_worker(context: str) -> None:
    async with pool(context) as p:
        assert await soon(p.submit(jobs.double_later, 4)) == 8


async def test_a_lambda_and_a_closure_travel_by_value(context: str) -> None:
    offset = 10
    async with pool(context) as p:
        assert await soon(p.submit(lambda number: number + offset, 5)) == 15


async def test_an_exception_comes_home_as_itself_with_the_remote_traceback(context: str) -> None:
    async with pool(context) as p:
        handle = p.submit(jobs.raise_value_error, "no such thing")
        with pytest.raises(ValueError, match="no such thing") as caught:
            await soon(handle)
        assert "raise_value_error" in str(caught.value.__cause__)
        assert handle.outcome is not None
        assert handle.outcome.status is JobStatus.FAILED
        assert handle.outcome.error is not None
        assert handle.outcome.error.type == "ValueError"


async def test_no_two_jobs_share_a_process(context: str) -> None:
    async with pool(context, max_jobs=2) as p:
        handles = [p.submit(jobs.pid) for _ in range(8)]
        pids = [await soon(handle) for handle in handles]
        assert len(set(pids)) == 8


async def test_a_reusing_pool_runs_its_share_in_each_process(context: str) -> None:
    async with pool(context, num_idle_processes=1, max_jobs=1, max_jobs_per_process=3) as p:
        pids = [await soon(p.submit(jobs.pid)) for _ in range(6)]
        assert [pids.count(each) for each in dict.fromkeys(pids)] == [3, 3]


async def test_setup_has_finished_before_the_job_begins(context: str) -> None:
    async with pool(context, setup_fnc=jobs.setup_marker) as p:
        assert await soon(p.submit(jobs.read_marker)) == "warm"


@pytest.mark.parametrize("size", [0, 1000, 100_000, 5_000_000], ids="{} bytes".format)
async def test_values_of_any_size_travel_both_ways(context: str, size: int) -> None:
    content = os.urandom(size)
    async with pool(context, num_idle_processes=1) as p:
        assert await soon(p.submit(jobs.identity, content)) == content


async def test_a_closed_pool_takes_no_jobs(context: str) -> None:
    p = pool(context, num_idle_processes=1)
    with pytest.raises(PoolClosed, match="not open yet"):
        p.submit(jobs.pid)
    async with p:
        pass
    with pytest.raises(PoolClosed, match="takes no more jobs"):
        p.submit(jobs.pid)
