"""May this server take one more job? Pure.

The answer is given from figures that include every place that was promised
already: a job counts from the moment it was admitted, not from the moment it
runs. Two requests at once can therefore not both take the last place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

_NO_THRESHOLD: Final = math.inf


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What stays the same from one decision to the next.

    Args:
        load_threshold: at or above it no job is admitted; infinite turns it off.
        max_jobs: ceiling on ``active_jobs``; None for none.
        cpus: CPUs that the load is a share of.
    """

    load_threshold: float
    max_jobs: int | None = None
    cpus: int = 1


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What the decision is made from.

    Args:
        limits: how far the rest may go.
        ready: at least one worker could be warmed, or is.
        load: as the load function said, 0.0 to 1.0; None when it does not answer.
        unseen_jobs: jobs admitted since the load was measured, which the figure
            cannot contain yet. 0 for a load function of the user: it is asked
            anew for each request and sees every promised job in ``active_jobs``.
        active_jobs: jobs that run or were promised.
    """

    limits: Limits
    ready: bool
    load: float | None
    unseen_jobs: int = 0
    active_jobs: int = 0


@dataclass(frozen=True)
class Refusal:
    """Why not: ``reason`` is one of not ready, max_jobs, load."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


def refuse(standing: Standing) -> Refusal | None:
    """Return why one more job cannot be taken, or None if it can."""
    limits = standing.limits
    if not standing.ready:
        return Refusal("not ready", "no worker is warm and setup keeps failing")
    if limits.max_jobs is not None and standing.active_jobs >= limits.max_jobs:
        return Refusal("max_jobs", f"{standing.active_jobs} of {limits.max_jobs}")
    if limits.load_threshold == _NO_THRESHOLD:
        return None
    if standing.load is None:
        return Refusal("load", "load_fnc gives no load")
    expected = standing.load + standing.unseen_jobs * share_of_one_job(standing)
    if not expected < limits.load_threshold:  # NaN is no load that one could admit at
        just_admitted = ""
        if standing.unseen_jobs:
            share = expected - standing.load
            just_admitted = f" and {share:.2f} for {standing.unseen_jobs} just admitted"
        threshold = f"load_threshold is {limits.load_threshold:g}"
        return Refusal("load", f"{standing.load:.2f}{just_admitted}; {threshold}")
    return None


def share_of_one_job(standing: Standing) -> float:
    """Return the load that one more job is expected to bring.

    What the running ones bring on average; where there is nothing to go by, a
    twentieth of a CPU, which is what a voice agent takes.
    """
    seen = standing.active_jobs - standing.unseen_jobs
    least = 0.05 / standing.limits.cpus
    if seen > 0 and standing.load:
        return max(least, standing.load / seen)
    return least
