"""The monotonic clock, in one place.

CLOCK_MONOTONIC is the same for every process of the machine, so a moment that a
worker sends can be compared with one that was read here. Wall-clock time is
asked for only where a person reads it.
"""

from __future__ import annotations

import time

# Seconds on CLOCK_MONOTONIC. The builtin itself: it is read on a job's way to its worker.
monotonic = time.monotonic


def wall() -> float:
    """Return seconds since the epoch: for timestamps that people read, never for waiting."""
    return time.time()
