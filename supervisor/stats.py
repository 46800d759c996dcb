"""What a pool tells about itself: a frozen snapshot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PoolStats:
    """How many workers and jobs there are, and were.

    The first six are counts of now. ``total_…`` count since the start;
    ``peak_…`` are the largest counts since the start.
    """

    spawning: int = 0
    warming: int = 0
    idle: int = 0
    running: int = 0
    stopping: int = 0  # on their way out, killed ones included
    waiting: int = 0  # accepted jobs without a worker
    total_spawned: int = 0
    total_reaped: int = 0
    total_jobs: int = 0  # accepted
    total_succeeded: int = 0
    total_failed: int = 0
    total_cancelled: int = 0
    total_timed_out: int = 0
    total_killed: int = 0
    total_handed_again: int = 0  # hand-overs repeated because the worker died before it began
    total_warmup_failures: int = 0
    peak_running: int = 0
    peak_waiting: int = 0
    peak_alive: int = 0

    @property
    def alive(self) -> int:
        """Workers that have, or may still get, a process."""
        return self.spawning + self.warming + self.idle + self.running + self.stopping

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)
