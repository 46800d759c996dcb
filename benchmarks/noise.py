"""Was the machine ours while we measured? Linux: read from /proc."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """Seconds since the boot, or since this process began: only differences mean anything."""

    at: float
    busy: float  # CPU time of everybody on the machine
    stolen: float  # CPU time that the host gave to other machines
    own: float  # CPU time of this process and of the processes that it, or they, have reaped

    @classmethod
    def now(cls) -> Moment:
        """Return how it is now."""
        first = Path("/proc/stat").read_text("ascii").splitlines()[0]
        ticks = [int(each) / os.sysconf("SC_CLK_TCK") for each in first.split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, stolen = ticks
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(each.ru_utime + each.ru_stime for each in used)
        return cls(time.monotonic(), user + nice + system + irq + softirq, stolen, own)


@dataclass(frozen=True)
class Noise:
    """Per cent of the machine's CPUs, over a benchmark's run."""

    others: float
    stolen: float

    @classmethod
    def between(cls, before: Moment, after: Moment, cpus: int) -> Noise:
        """Return what others took from *before* to *after*."""
        capacity = (after.at - before.at) * cpus
        others = (after.busy - before.busy) - (after.own - before.own)
        # A contestant's processes that nobody reaped count as others'; they are few.
        return cls(
            max(0.0, 100 * others / capacity), 100 * (after.stolen - before.stolen) / capacity
        )

    def __str__(self) -> str:
        return f"others used {self.others:.0f} % of the CPUs, the host took {self.stolen:.1f} %"
