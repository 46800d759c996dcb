"""How many CPUs this process may use: not the machine's, but what it was granted of them."""

from __future__ import annotations

import math
import os

from supervisor.cgroupfs import cpu_quota


def cpu_count() -> int:
    """Return the CPUs that this process may use: affinity and cgroup quota, at least 1."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        usable = os.cpu_count() or 1
    quota = cgroup_cpu_quota()
    if quota is not None:
        usable = min(usable, max(1, math.ceil(quota)))
    return max(1, usable)


def cgroup_cpu_quota() -> float | None:
    """Return the CPUs that our cgroup and those above it grant, a fraction; None without a quota."""
    quota = cpu_quota()
    return None if quota is None else quota.cpus
