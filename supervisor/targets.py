"""From options and demand to what the plan has to reach."""

from __future__ import annotations

from supervisor import clock
from supervisor.cpus import cpu_count
from supervisor.demand import Demand
from supervisor.options import PoolOptions
from supervisor.plan import PoolLimits

# Warm-ups at a time where each one starts an interpreter: more than the CPUs
# only makes all of them late. Forking has its own pace.
_MAX_SPAWNING = 4


class Targets:
    """How many workers there should be, and may be.

    Args:
        options: checked options; assign new ones to use them from then on.

    Runs on: the pool's loop.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self.demand = Demand()

    def idle(self) -> int:
        """Return how many idle workers to keep now: what was asked for, or what demand needs."""
        least = self.options.idle_target
        most = self.options.max_idle_processes
        if most is None or most <= least:
            return least
        return self.demand.target(clock.monotonic(), least=least, most=most)

    def reachable_idle(self) -> int:
        """Return how many idle workers there can be at the start."""
        least, limit = self.options.idle_target, self.options.max_processes
        return least if limit is None else min(least, limit)

    def limits(self, idle: int) -> PoolLimits:
        """Return what the plan has to keep to, with *idle* as its target."""
        options = self.options
        spawning = options.multiprocessing_context == "spawn"
        return PoolLimits(
            idle_target=idle,
            max_processes=options.max_processes,
            max_warming=min(cpu_count(), _MAX_SPAWNING) if spawning else None,
            keep_idle=self._keep_idle(),
        )

    def places(self, handed_over: int) -> int | None:
        """Return how many more jobs may be handed over; None for any number."""
        limit = self.options.max_jobs
        return None if limit is None else max(0, limit - handed_over)

    def _keep_idle(self) -> int | None:
        if self.options.max_jobs_per_process == 1:
            return None
        if self.options.max_idle_processes is not None:
            return self.options.max_idle_processes
        # As many as could be needed at a time; where that has no bound, twice the
        # target: enough that the ordinary coming and going starts nobody.
        return max(self.options.max_jobs or 0, 2 * self.options.idle_target)
