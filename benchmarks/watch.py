"""Waiting for what a pool's workers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from supervisor import PoolStats, ProcessPool

# Seconds between two events. Only matters when no more come.
PATIENCE: Final = 30.0


class Watch:
    """Waits for the workers of *pool*, which runs.

    Runs on: the pool's loop. One caller at a time.
    """

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._changed = asyncio.Event()
        for event in ("worker_warm", "worker_exited"):
            pool.on(event, lambda _: self._changed.set())

    async def until(self, holds: Callable[[PoolStats], bool]) -> None:
        """Return once *holds* is true of the statistics.

        Raises:
            asyncio.TimeoutError: no worker came or went for ``PATIENCE`` seconds.
        """
        while not holds(self._pool.stats()):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE)

    async def until_idle(self, count: int) -> None:
        """Return once *count* workers are idle, and there are no others."""
        await self.until(lambda now: now.idle == now.alive == count)
