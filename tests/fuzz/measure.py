"""What a run of many inputs is measured by: its time, its worst input, its growth."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import psutil

# One input takes microseconds. What takes this long does not end.
HANG_SECONDS: Final = 10.0

# Growth is counted from here on: before it caches fill and code is imported.
WARM_UP: Final = 0.1


class Hang(BaseException):
    """An input was not done within :data:`HANG_SECONDS`. No ``except Exception`` may hide it."""


@dataclass
class Figures:
    """What one run has shown. Seconds; bytes; growth is the peak above the warm state."""

    target: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    growth_bytes: int = 0
    descriptors: int = 0
    _warm_rss: int = field(default=0, repr=False)
    _warm_descriptors: int = field(default=0, repr=False)

    def __str__(self) -> str:
        return (
            f"{self.target:<16} {self.inputs:>9,} inputs  seed {self.seed}  {self.seconds:7.1f} s  "
            f"{self.accepted:,} accepted, {self.refused:,} refused  "
            f"slowest {self.slowest * 1000:.1f} ms  "
            f"peak growth {self.growth_bytes / 2**20:.1f} MiB, {self.descriptors:+d} descriptors"
        )

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure one input, and end it if it hangs."""
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.inputs += 1

    def sample(self, *, of: int) -> None:
        """Look at memory and descriptors; *of* is how many inputs there will be."""
        rss, count = _now()
        if self.inputs < WARM_UP * of or not self._warm_rss:
            self._warm_rss, self._warm_descriptors = rss, count
        self.growth_bytes = max(self.growth_bytes, rss - self._warm_rss)
        self.descriptors = count - self._warm_descriptors


@contextmanager
def watched(figures: Figures) -> Iterator[None]:
    """Time a whole run, with the alarm that :meth:`Figures.timed` sets. In the main thread."""
    before = signal.signal(signal.SIGALRM, _hang)
    began = time.perf_counter()
    try:
        yield
    finally:
        figures.seconds = time.perf_counter() - began
        signal.signal(signal.SIGALRM, before)


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"an input was not done within {HANG_SECONDS} s")


def _now() -> tuple[int, int]:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "greenroom-close":  # closes what an input has sent
            thread.join()
    return psutil.Process().memory_info().rss, len(os.listdir("/proc/self/fd"))
