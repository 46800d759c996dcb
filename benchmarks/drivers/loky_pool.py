"""loky. It has no single-use workers: its figures are those of processes that are used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loky import ProcessPoolExecutor

from benchmarks import heavy
from benchmarks.drivers.base import Futures, Pending, Workload


class LokyPool(Futures):
    """Its own way to start processes, which preloads nothing: each builds the table itself."""

    async def open(self, workload: Workload) -> None:
        build = {"initializer": heavy.build, "initargs": (workload.heavy_mb,)}
        self._executor = ProcessPoolExecutor(
            workload.ceiling or workload.idle, timeout=None, **(build if workload.heavy_mb else {})
        )
        self.warm(workload.idle)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        future: Pending = self._executor.submit(function, *args)
        return future

    async def close(self) -> None:
        self._executor.shutdown(kill_workers=True)
