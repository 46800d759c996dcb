"""The standard library's pools, one job a process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import AsyncResult, Pool
from typing import Any

from benchmarks import heavy
from benchmarks.drivers.base import Futures, Pending, Workload, forkserver, require


class _Waiting:
    """An AsyncResult with the method's name that everybody else uses."""

    def __init__(self, result: AsyncResult[Any]) -> None:
        self.result = result.get


class _MultiprocessingPool(Futures):
    _pool: Pool

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        return _Waiting(self._pool.apply_async(function, args))

    async def close(self) -> None:
        self._pool.terminate()
        self._pool.join()


class ForkPool(_MultiprocessingPool):
    """Forks from this process: the heap is inherited."""

    async def open(self, workload: Workload) -> None:
        if workload.heavy_mb:
            heavy.build(workload.heavy_mb)
        context = multiprocessing.get_context("fork")
        self._pool = context.Pool(workload.idle, maxtasksperchild=1)


class ForkserverPool(_MultiprocessingPool):
    """Forks from the standard library's fork server, which has imported the table."""

    async def open(self, workload: Workload) -> None:
        self._pool = forkserver(workload).Pool(workload.idle, maxtasksperchild=1)
        self.warm(workload.idle)


class FuturesPool(Futures):
    """ProcessPoolExecutor; it refuses ``fork`` for single-use workers."""

    async def open(self, workload: Workload) -> None:
        require((3, 11), "max_tasks_per_child")
        single_use: dict[str, Any] = {"max_tasks_per_child": 1}
        self._executor = ProcessPoolExecutor(
            workload.ceiling or workload.idle, mp_context=forkserver(workload), **single_use
        )
        self.warm(workload.idle)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        future: Pending = self._executor.submit(function, *args)
        return future

    async def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
