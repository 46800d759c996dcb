"""pebble, one job a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pebble import ProcessPool

from benchmarks.drivers.base import Futures, Pending, Workload, forkserver


class PebblePool(Futures):
    """``max_tasks=1``, on the standard library's fork server."""

    async def open(self, workload: Workload) -> None:
        self._pool = ProcessPool(workload.idle, max_tasks=1, context=forkserver(workload))
        self.warm(workload.idle)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        future: Pending = self._pool.schedule(function, args)
        return future

    async def close(self) -> None:
        self._pool.stop()
        self._pool.join()
