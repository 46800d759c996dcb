"""How many idle workers the present demand needs. Pure.

A job that arrives while its predecessor's replacement is still warming up finds
a warm worker only if there was a spare. Arrivals during one warm-up are on
average the arrival rate times the warm-up time; twice its square root on top
covers what chance adds (for Poisson arrivals, all but one moment in forty).
"""

from __future__ import annotations

import math
from typing import Final

# The memory of the estimates. Long enough to see a rate through its noise, short
# enough to follow a rush within seconds.
MEMORY_SECONDS: Final = 10.0

# Weight of the newest warm-up in the running mean.
_NEWEST: Final = 0.2


class Demand:
    """Estimates arrival rate and warm-up time, and what follows from them.

    All moments are monotonic seconds, given by the caller.
    """

    def __init__(self) -> None:
        self._count = 0.0  # arrivals, each worth less the longer it is ago
        self._counted_at = 0.0
        self._warmup: float | None = None

    def arrived(self, now: float) -> None:
        """Note that a job arrived at *now*."""
        self._count = self._faded(now) + 1.0
        self._counted_at = now

    def warmed(self, seconds: float) -> None:
        """Note that a worker needed so long from being asked for to being idle."""
        before = seconds if self._warmup is None else self._warmup
        self._warmup = (1 - _NEWEST) * before + _NEWEST * seconds

    def rate(self, now: float) -> float:
        """Return the arrivals a second, as of *now*."""
        return self._faded(now) / MEMORY_SECONDS

    def target(self, now: float, *, least: int, most: int) -> int:
        """Return how many idle workers to keep, from *least* to *most*."""
        during = self.rate(now) * (self._warmup or 0.0)
        needed = math.ceil(during + 2 * math.sqrt(during))
        return max(least, min(needed, most))

    def _faded(self, now: float) -> float:
        return self._count * math.exp(-(now - self._counted_at) / MEMORY_SECONDS)
