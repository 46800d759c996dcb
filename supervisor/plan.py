"""Compare what there is with what is wanted, and say what to do. Does nothing.

The pool calls :func:`plan` after every event, with no await between reading the
census and carrying out the answer. Deciding is instant and testable; acting is
slow and may fail; so they never share a function.
"""

from __future__ import annotations

import msgspec

from supervisor.census import Census


class PoolLimits(msgspec.Struct, frozen=True, gc=False):
    """What the user allows, as the plan needs it.

    Args:
        idle_target: idle workers to keep, 0 or more.
        max_processes: ceiling on live workers; None for none.
        max_warming: ceiling on workers that warm up at a time; None for none.
        keep_idle: idle workers above the target that are not let go, because
            they came back from a job and would soon be started anew: where
            workers are reused. None: the target is the ceiling.
    """

    idle_target: int
    max_processes: int | None = None
    max_warming: int | None = None
    keep_idle: int | None = None


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What to do: start so many, let so many idle ones go, kill so many that warm up."""

    spawn: int = 0
    retire_idle: int = 0
    retire_coming: int = 0


def plan(census: Census, *, waiting: int, limits: PoolLimits, draining: bool) -> Plan:
    """Return how many workers to start and how many to let go.

    Args:
        census: what there is.
        waiting: accepted jobs without a worker that may be handed over.
        limits: what the user allows.
        draining: the supervisor is going down: keep nothing that nobody waits
            for. Jobs that were accepted still get a worker.
    """
    wanted = waiting if draining else waiting + limits.idle_target
    coming = census.coming
    here = census.idle + coming
    if here >= wanted:
        kept = wanted
        if limits.keep_idle is not None and not draining:
            kept = max(wanted, waiting + limits.keep_idle)
        surplus = max(0, here - kept)
        # Idle ones go first: a worker that warms up is the fresher one, and what
        # it costs has mostly been paid. But none that a job could have at once.
        # Only a drain stops those that warm up too.
        idle = min(surplus, max(0, census.idle - waiting))
        return Plan(retire_idle=idle, retire_coming=surplus - idle if draining else 0)
    missing = wanted - here
    # A worker on its way out still holds its memory, so it still takes a place:
    # ``alive`` counts it. Replacing it early is how a pool doubles its footprint.
    if limits.max_processes is not None:
        missing = min(missing, limits.max_processes - census.alive)
    if limits.max_warming is not None:
        missing = min(missing, limits.max_warming - coming)
    return Plan(spawn=max(0, missing))
