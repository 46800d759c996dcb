"""What shall go wrong, and when: a pure function of the seed. Does nothing.

Each kind of fault is a Poisson process of its own, drawn from a generator of its
own, so that adding a kind or changing a rate leaves the others' moments alone.
What a job does is a function of the seed and the job's number alone.
"""

from __future__ import annotations

import heapq
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

# How many of each kind, a minute. Together the worker's signals are two a second;
# what costs the server a restart or all of its idle workers is rare enough that
# most of the time there is a server to be hurt.
RATES: Final[dict[str, float]] = {
    "SIGKILL of a worker": 40.0,
    "SIGSEGV of a worker": 40.0,
    "SIGSTOP of a worker, SIGCONT later": 30.0,
    "SIGSTOP of a worker for good": 2.0,
    "SIGKILL of all idle workers": 2.0,
    "SIGKILL of the fork server": 4.0,
    "SIGSTOP of the fork server": 2.0,
    "SIGKILL of the supervisor": 1.0,
    "drain under load": 0.3,
    "no descriptors": 2.0,
    "full disk for logs": 2.0,
    "clock jump": 6.0,
    "slow setup": 2.0,
    "failing setup": 1.0,
    "flapping load": 2.0,
    "signal storm": 4.0,
}

# The states that a worker is hit in; "killed" is hit as well: twice dead is dead.
STATES: Final = ("spawning", "warming", "idle", "running", "stopping")

# What a job does, and how often: shares of all jobs. The rest returns at once.
DEEDS: Final[dict[str, float]] = {
    "sleeps for a moment": 0.05,
    "raises": 0.02,
    "exits": 0.02,
    "segfaults": 0.01,
    "prints a lot": 0.01,
    "leaves grandchildren": 0.01,
    "leaves grandchildren and crashes": 0.005,
    "writes garbage into the channel": 0.01,
    "closes every descriptor": 0.01,
    "leaves the channel open in a grandchild": 0.01,
    "swallows its cancellation": 0.001,
    "hogs memory": 0.001,
    "is a fork bomb": 0.0005,
}

RETURNS: Final = "returns"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Args:
        at: seconds from the beginning of the run.
        number: which fault of the run this is.
        kind: a key of :data:`RATES`.
        seconds: how long it lasts; 0 for what is over at once.
        details: what is particular to the kind; plain data.
    """

    at: float
    number: int
    kind: str
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)


def schedule(seed: int, seconds: float) -> Iterator[Fault]:
    """Return the faults of a run of *seconds*, in the order of time."""
    streams = [_moments(seed, kind, seconds) for kind in RATES]
    for number, (at, kind, chance) in enumerate(heapq.merge(*streams, key=lambda each: each[0])):
        lasts, details = _details(kind, chance)
        yield Fault(at, number, kind, lasts, details)


def _moments(seed: int, kind: str, seconds: float) -> Iterator[tuple[float, str, random.Random]]:
    chance = random.Random(f"{seed}:{kind}")
    at = chance.expovariate(RATES[kind] / 60)
    if at >= seconds:  # a short run: at least one of each
        at = chance.uniform(0.1, 0.9) * seconds
    while at < seconds:
        yield at, kind, chance
        at += chance.expovariate(RATES[kind] / 60)


def _details(kind: str, chance: random.Random) -> tuple[float, dict[str, Any]]:
    """Return how long a fault of *kind* lasts, and what else there is to say about it."""
    if kind.endswith("of a worker"):
        return 0.0, {"signal": kind.split()[0], **_victim(chance)}
    if kind == "SIGSTOP of a worker, SIGCONT later":
        return 0.0, {"signal": "SIGSTOP", "for": chance.uniform(0.01, 3.0), **_victim(chance)}
    if kind == "SIGSTOP of a worker for good":
        return 0.0, {"signal": "SIGSTOP", **_victim(chance)}
    if kind == "no descriptors":
        return chance.uniform(0.2, 2.0), {"left": chance.randrange(4)}
    if kind == "full disk for logs":
        return chance.uniform(0.5, 3.0), {}
    if kind == "clock jump":
        return 0.0, {"by": chance.choice([-1, 1]) * chance.choice([1.0, 60.0, 3600.0, 1e6, 1e9])}
    if kind == "slow setup":
        return chance.uniform(1.0, 4.0), {"setup": chance.uniform(0.1, 4.0)}
    if kind in ("failing setup", "flapping load"):
        return chance.uniform(0.5, 3.0), {}
    if kind == "signal storm":
        return 0.0, {"rounds": chance.randrange(5, 50)}
    return 0.0, {}


def _victim(chance: random.Random) -> dict[str, Any]:
    """Return the state in which a worker is to be hit, and how long after it got there."""
    late = chance.choice([0.0, chance.uniform(0.0, 0.003), chance.uniform(0.0, 0.05)])
    return {"state": chance.choice(STATES), "late": late}


def deed_of(seed: int, number: int) -> str:
    """Return what job *number* does."""
    share = random.Random(f"{seed}:job:{number}").random()
    for deed, its_share in DEEDS.items():
        share -= its_share
        if share < 0:
            return deed
    return RETURNS


def number_of(details: dict[str, Any]) -> signal.Signals:
    """Return the signal that *details* names."""
    return signal.Signals[details["signal"]]
