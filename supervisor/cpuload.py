"""How busy the CPUs are that this process was granted, from counters of the kernel."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from supervisor.cgroupfs import Quota, cpu_seconds
from supervisor.clock import monotonic

logger = logging.getLogger("greenroom.load")

SAMPLE_INTERVAL: Final = 0.5

# Long enough to smooth the burst in which a job starts, short enough to see ten
# jobs arrive: five seconds, as documented.
WINDOW_SAMPLES: Final = 10


@dataclass(frozen=True)
class CpuReading:
    """Counters of the kernel, in CPU seconds, and the moment they were read.

    Args:
        at: seconds on the monotonic clock.
        busy: time the CPUs spent working, stolen time included.
        idle: time they had nothing to do, waiting for disks included.
        granted: time that counts against the CPU quota of our cgroup, or of the one
            above it that has the smallest; None without a quota, or if nobody says.
    """

    at: float
    busy: float
    idle: float
    granted: float | None = None


def read_cpu(quota: Quota | None = None) -> CpuReading:
    """Return the counters of the CPUs that this process may run on, and of its *quota*'s group."""
    busy = idle = 0.0
    usable = _affinity()
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        if usable is None or number in usable:
            waiting = times.idle + getattr(times, "iowait", 0.0)
            idle += waiting
            # guest time is contained in user time already. Source: proc_stat(5).
            guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
            busy += sum(times) - guest - waiting
    granted = None if quota is None else cpu_seconds(quota)
    return CpuReading(monotonic(), busy, idle, granted)


def _affinity() -> set[int] | None:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # macOS
        return None


class CpuLoad:
    """CPU use averaged over 5 s, as a share of the CPUs we are granted; 0.0 to 1.0.

    Of two shares the larger one: how busy the CPUs are that we may run on, and
    how much of its quota our cgroup has used. The first alone would call a
    container with 2 CPUs on a busy 64-CPU machine full, or never notice that the
    quota is used up; the second alone would not see the neighbours.

    Args:
        read: where the counters come from.
        report: told the load after each sample; until then it is 0.0.
        quota: CPUs that the cgroup grants, a fraction; None without a quota.
    """

    def __init__(
        self,
        read: Callable[[], CpuReading],
        report: Callable[[float], None],
        *,
        quota: float | None = None,
    ) -> None:
        self._read = read
        self._quota = quota
        self._before: CpuReading | None = None
        self._window: deque[CpuReading] = deque(maxlen=WINDOW_SAMPLES)  # differences
        self._report = report
        self._timer: asyncio.TimerHandle | None = None

    def _share(self) -> float:
        busy, idle = sum(d.busy for d in self._window), sum(d.idle for d in self._window)
        share = busy / (busy + idle) if busy + idle > 0 else 0.0
        if self._quota and self._window:
            used = sum(d.busy if d.granted is None else d.granted for d in self._window)
            share = max(share, used / sum(d.at for d in self._window) / self._quota)
        return min(1.0, max(0.0, share))

    def start(self) -> None:
        """Sample every 0.5 s from now on. Runs on: the loop."""
        self._tick()

    def close(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sample(self) -> None:
        """Take one reading, and throw it away if it is impossible.

        The kernel's counters may run backwards for a moment: iowait does, and so
        do all of them when a virtual machine moves. Source: proc_stat(5).
        """
        now, before = self._read(), self._before
        self._before = now
        if before is None:
            return
        granted = None
        if now.granted is not None and before.granted is not None:
            granted = now.granted - before.granted
        passed = CpuReading(
            now.at - before.at, now.busy - before.busy, now.idle - before.idle, granted
        )
        if _possible(passed):
            self._window.append(passed)
            self._report(self._share())

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_INTERVAL, self._tick)
        try:
            self.sample()
        except OSError as exc:  # no descriptor to read with: what is known stands until the next
            logger.debug("the CPU's counters cannot be read: %s", exc)


def _possible(passed: CpuReading) -> bool:
    figures = [passed.at, passed.busy, passed.idle, passed.granted or 0.0]
    if not all(math.isfinite(each) and each >= 0 for each in figures):
        return False
    return passed.at > 0 and passed.busy + passed.idle > 0
