"""How many idle workers does an arrival rate need? Pure.

A pool that keeps n workers idle is a store that orders one anew for each that is
taken, and an order takes the warm-up time W. If jobs arrive as a Poisson process
with rate λ, the number of workers on order is Poisson distributed with mean λ·W,
whatever the distribution of W (Palm's theorem, M/G/∞). An arriving job finds all n
on order, and so has to wait, with the probability

    P(N ≥ n),  N ~ Poisson(λ·W)

and the n that is needed is the smallest for which that is at most what is allowed.

Warm-ups share the CPUs. Each takes c seconds of CPU, so u = λ·c / CPUs of the
machine is spent on them, and a warm-up is stretched to W / (1 - u) (processor
sharing). At u ≥ 1 no number of idle workers is enough. What jobs themselves use is
not in u: a machine that is busy with jobs needs more.
"""

from __future__ import annotations

import math


class OverloadedError(ValueError):
    """Workers cannot be warmed as fast as jobs arrive."""


def stretched(warmup: float, cpu: float, rate: float, cpus: int) -> float:
    """Return how long a warm-up takes when they share the CPUs at that rate.

    Args:
        warmup: seconds that one takes alone.
        cpu: seconds of CPU in it.
        rate: jobs a second.
        cpus: of the machine.

    Raises:
        OverloadedError: the warm-ups alone need all CPUs.
    """
    busy = rate * cpu / cpus
    if busy >= 1:
        raise OverloadedError(f"{rate:g} warm-ups a second need {rate * cpu:.1f} of {cpus} CPUs")
    return warmup / (1 - busy)


def shortage(idle: int, mean: float) -> float:
    """Return the probability that a Poisson variable with *mean* is at least *idle*.

    Summed from the smallest term of the tail that counts, so that small
    probabilities are not lost in the rounding of 1 - sum.
    """
    if idle <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    term = math.exp(idle * math.log(mean) - mean - math.lgamma(idle + 1))
    total, count = 0.0, idle
    while term > total * 1e-16 or count <= mean:
        total += term
        count += 1
        term *= mean / count
        if term == 0.0:
            break
    return min(1.0, total)


def idle_needed(rate: float, warmup: float, allowed: float) -> int:
    """Return the smallest number of idle workers with which a job rarely waits.

    Args:
        rate: jobs a second, as they come: independent of each other.
        warmup: seconds from the order of a worker until it is warm.
        allowed: the share of jobs that may find none, above 0.
    """
    if not 0 < allowed < 1:
        raise ValueError(f"a share between 0 and 1, not {allowed}")
    idle = 0
    while shortage(idle, rate * warmup) > allowed:
        idle += 1
    return idle
