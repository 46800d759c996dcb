"""deadpool-executor, one job a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deadpool import Deadpool

from benchmarks.drivers.base import Futures, Pending, Workload, forkserver


class DeadPool(Futures):
    """``max_tasks_per_child=1``, on the standard library's fork server."""

    async def open(self, workload: Workload) -> None:
        self._pool = Deadpool(
            max_workers=workload.idle,
            min_workers=workload.idle,
            max_tasks_per_child=1,
            mp_context=forkserver(workload),
            max_backlog=100_000,
        )
        self.warm(workload.idle)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        future: Pending = self._pool.submit(function, *args)
        return future

    async def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
