"""ProcessPool.map, cancellation by the awaiting task, data-only results, counts and events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from supervisor import JobHandle, JobStatus, PoolClosed, ProcessPool
from supervisor.errors import OptionError
from supervisor.events import WorkerExited, WorkerWarm
from tests.integration import jobs
from tests.integration.conftest import soon

pytestmark = pytest.mark.slow


class Source:
    """An endless iterable that counts what was taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.taken += 1
            yield self.taken

    async def __aiter__(self) -> AsyncIterator[int]:
        while True:
            self.taken += 1
            yield self.taken


class TestMap:
    async def test_handles_come_in_order_each_ended(self) -> None:
        async with ProcessPool(num_idle_processes=2) as pool:
            found = []
            async for handle in pool.map(jobs.double, range(7), max_in_flight=3):
                assert handle.done()
                found.append(await handle)
        assert found == [0, 2, 4, 6, 8, 10, 12]

    async def test_coroutine_functions(self) -> None:
        async with ProcessPool(num_idle_processes=1) as pool:
            handles = pool.map(jobs.double_later, range(3))
            assert [await handle async for handle in handles] == [0, 2, 4]

    async def test_a_failed_job_does_not_end_the_stream(self) -> None:
        async with ProcessPool(num_idle_processes=1, max_jobs_per_process=None) as pool:
            handles = [handle async for handle in pool.map(jobs.one_over, [1, 0, 2])]
        assert [handle.status for handle in handles] == [
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.SUCCEEDED,
        ]

    @pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
    async def test_a_slow_consumer_slows_down_the_source(self, asynchronous: bool) -> None:
        source = Source()
        async with ProcessPool(num_idle_processes=1, max_jobs_per_process=None) as pool:
            items = source.__aiter__() if asynchronous else source
            async with contextlib.aclosing(pool.map(jobs.double, items, max_in_flight=3)) as stream:
                taken = 0
                async for _ in stream:
                    taken += 1
                    assert source.taken <= taken + 3
                    if taken == 10:
                        break
            assert source.taken <= 13

    async def test_a_source_that_pauses_holds_nothing_back(self) -> None:
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            await go_on.wait()
            yield 2

        async with ProcessPool(num_idle_processes=1) as pool:
            stream = pool.map(jobs.double, source(), max_in_flight=5)
            assert await (await soon(anext(stream))) == 2
            go_on.set()
            assert await (await soon(anext(stream))) == 4
            with pytest.raises(StopAsyncIteration):
                await soon(anext(stream))

    async def test_what_is_in_flight_is_cancelled_when_it_is_closed(self) -> None:
        started: list[JobHandle[object]] = []
        async with ProcessPool(num_idle_processes=1, shutdown_process_timeout=5.0) as pool:
            pool.on("job_started", started.append)
            stream = pool.map(jobs.sleep_if, [False, True, True], max_in_flight=3)
            await soon(anext(stream))
            await stream.aclose()
            assert pool.stats().waiting == 0
        assert {handle.status for handle in started} <= {JobStatus.SUCCEEDED, JobStatus.CANCELLED}

    @pytest.mark.parametrize("bound", [1, 2, 9])
    @pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
    @pytest.mark.parametrize(
        "error",
        [KeyError("no more"), asyncio.CancelledError(), SystemExit(3), None],
        ids=["raises", "cancels", "exits", "bad item"],
    )
    async def test_an_error_comes_after_what_came_before_it(
        self, bound: int, asynchronous: bool, error: BaseException | None
    ) -> None:
        def source() -> Iterator[Any]:
            yield 1
            yield 2
            if error is not None:
                raise error
            yield threading.Lock()
            yield 4

        async def later() -> AsyncIterator[Any]:
            for each in source():
                yield each

        async with ProcessPool(num_idle_processes=1) as pool:
            items = later() if asynchronous else source()
            stream = pool.map(jobs.double, items, max_in_flight=bound)
            assert await (await soon(anext(stream))) == 2
            assert await (await soon(anext(stream))) == 4
            with pytest.raises(TypeError if error is None else type(error)):
                await anext(stream)
            assert pool.stats().total_jobs == 2

    async def test_the_timeout_is_for_each_job(self) -> None:
        async with ProcessPool(num_idle_processes=1) as pool:
            stream = pool.map(jobs.sleep_if, [True, False], timeout=0.2)
            statuses = [handle.status async for handle in stream]
        assert statuses == [JobStatus.TIMED_OUT, JobStatus.SUCCEEDED]

    async def test_a_bound_below_one_is_refused(self) -> None:
        async with ProcessPool(num_idle_processes=1) as pool:
            with pytest.raises(OptionError, match="max_in_flight=0"):
                pool.map(jobs.double, [1], max_in_flight=0)
        with pytest.raises(PoolClosed):
            pool.map(jobs.double, [1])


async def test_cancelling_the_awaiting_task_cancels_its_job() -> None:
    async with ProcessPool(num_idle_processes=1, shutdown_process_timeout=5.0) as pool:
        began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pool.on("job_started", lambda handle: began.set_result(None))
        handle = pool.submit(jobs.sleep_for_ever)

        async def caller() -> None:
            await handle

        task = asyncio.ensure_future(caller())
        await soon(began)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        outcome = await soon(handle.wait())
        assert outcome.status is JobStatus.CANCELLED
        assert outcome.reason == "the caller was cancelled"


class TestDataOnly:
    async def test_plain_data_comes_back(self) -> None:
        value = {"a": [1, 2.5, None, True], "b": b"bytes"}
        async with ProcessPool(num_idle_processes=1, results="data") as pool:
            assert await soon(pool.submit(jobs.identity, value)) == value

    async def test_anything_else_is_the_jobs_failure(self) -> None:
        async with ProcessPool(num_idle_processes=1, results="data") as pool:
            with pytest.raises(Exception, match="plain data only"):
                await soon(pool.submit(jobs.thread_that_unpickles))

    async def test_an_exception_comes_as_its_text(self) -> None:
        async with ProcessPool(num_idle_processes=1, results="data") as pool:
            with pytest.raises(Exception, match="ValueError: no such thing") as caught:
                await soon(pool.submit(jobs.raise_value_error, "no such thing"))
        assert type(caught.value).__name__ == "JobRaised"


async def test_counts_and_events_tell_the_same_story() -> None:
    warm: list[WorkerWarm] = []
    started: list[JobHandle[object]] = []
    ended: list[JobHandle[object]] = []
    exited: list[WorkerExited] = []
    draining: list[object] = []
    pool = ProcessPool(num_idle_processes=1, max_jobs=1)
    for name, seen in (
        ("worker_warm", warm),
        ("job_started", started),
        ("job_ended", ended),
        ("worker_exited", exited),
        ("draining", draining),
    ):
        pool.on(name, seen.append)
    async with pool:
        handles: list[JobHandle[Any]] = [
            pool.submit(jobs.double, 1),
            pool.submit(jobs.exit_hard, 1),
        ]
        assert pool.stats().waiting == 1
        for handle in handles:
            await soon(handle.wait())
    stats = pool.stats()
    assert (stats.total_jobs, stats.total_succeeded, stats.total_failed) == (2, 1, 1)
    assert stats.total_spawned == stats.total_reaped == len(exited)
    assert stats.alive == 0
    assert stats.peak_running == 1
    assert started == ended == handles
    assert {handle.pid for handle in handles} <= {each.pid for each in warm}
    assert {each.pid for each in warm} <= {each.pid for each in exited}
    assert len(draining) == 1


async def test_schedule_takes_limits_for_one_job() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        handle = pool.schedule(jobs.sleep_if, (True,), timeout=0.2, job_id="J-slow")
        outcome = await soon(handle.wait())
        assert (handle.id, outcome.status) == ("J-slow", JobStatus.TIMED_OUT)
        value = pool.schedule(jobs.double, kwargs={"number": 4}, memory_limit_mb=512)
        assert await soon(value) == 8
