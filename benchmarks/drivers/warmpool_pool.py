"""warmpool: one worker and one spare, spawned; its calls block, so jobs follow each other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from warmpool import WarmPool

from benchmarks import heavy
from benchmarks.drivers.base import Futures, Pending, Workload

# Only matters when it hangs.
PATIENCE = 60.0


class _Done:
    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value


class WarmestPool(Futures):
    """``max_tasks=1``. It is not thread-safe: *idle* cannot be had, two is what there is."""

    async def open(self, workload: Workload) -> None:
        warming = functools.partial(heavy.build, workload.heavy_mb) if workload.heavy_mb else None
        self._pool = WarmPool(max_tasks=1, keep_spare=True, warming=warming)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending:
        # It takes keyword arguments only, and the one job that has any is not for it.
        assert not args
        return _Done(self._pool.run(function, timeout=PATIENCE))

    async def settle(self) -> None:
        """Wait until the worker that is next has said that it is ready."""
        time.sleep(0.3)

    async def close(self) -> None:
        self._pool.shutdown()
