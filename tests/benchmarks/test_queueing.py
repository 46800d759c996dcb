"""The number of idle workers that a rate needs, against arithmetic and against a simulation."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given, settings, strategies as st

from benchmarks.queueing import OverloadedError, idle_needed, shortage, stretched

means = st.floats(0.0, 200.0)


def poisson_tail(idle: int, mean: float) -> float:
    """Return P(N ≥ idle), by its definition."""
    below = math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(idle))
    return 1 - below


@pytest.mark.parametrize(
    ("idle", "mean", "expected"),
    [
        pytest.param(0, 3.0, 1.0, id="without idle workers every job waits"),
        pytest.param(3, 0.0, 0.0, id="without arrivals none does"),
        pytest.param(1, 1.0, 1 - math.exp(-1), id="one worker, one order on average"),
        pytest.param(2, 1.0, 1 - 2 * math.exp(-1), id="two"),
    ],
)
def test_shortage_where_it_can_be_worked_out(idle: int, mean: float, expected: float) -> None:
    assert shortage(idle, mean) == pytest.approx(expected)


@given(st.integers(1, 60), st.floats(0.01, 50.0))
def test_shortage_is_the_tail_of_a_poisson_distribution(idle: int, mean: float) -> None:
    assert shortage(idle, mean) == pytest.approx(poisson_tail(idle, mean), abs=1e-9)


def test_a_small_shortage_is_not_lost_in_rounding() -> None:
    # 1 - sum would give 0 or noise; the first term of the tail is nearly all of it.
    first = math.exp(40 * math.log(0.5) - 0.5 - math.lgamma(41))
    assert shortage(40, 0.5) == pytest.approx(first, rel=0.02)


@given(means, st.integers(0, 300))
def test_one_more_worker_never_hurts(mean: float, idle: int) -> None:
    assert 0.0 <= shortage(idle + 1, mean) <= 1.0
    # Equal but for rounding where nearly every job waits.
    assert shortage(idle + 1, mean) <= shortage(idle, mean) + 1e-12


@given(st.floats(0.01, 100.0), st.floats(0.0001, 2.0), st.sampled_from([0.1, 0.01, 0.001]))
def test_the_answer_is_enough_and_one_less_is_not(
    rate: float, warmup: float, allowed: float
) -> None:
    idle = idle_needed(rate, warmup, allowed)
    assert shortage(idle, rate * warmup) <= allowed
    assert idle == 0 or shortage(idle - 1, rate * warmup) > allowed


@pytest.mark.parametrize("allowed", [0.0, 1.0, -1.0, 2.0])
def test_a_share_that_cannot_be_kept_or_means_nothing_is_refused(allowed: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        idle_needed(1.0, 1.0, allowed)


def test_warm_ups_that_share_the_cpus_take_longer() -> None:
    assert stretched(0.1, cpu=0.05, rate=0.0, cpus=2) == 0.1
    assert stretched(0.1, cpu=0.05, rate=20.0, cpus=2) == pytest.approx(0.2)


def test_more_warm_ups_than_the_cpus_can_do_are_refused() -> None:
    with pytest.raises(OverloadedError, match=r"50 warm-ups a second need 2\.5 of 2 CPUs"):
        stretched(0.1, cpu=0.05, rate=50.0, cpus=2)


def simulated_shortage(idle: int, rate: float, warmup: float, jobs: int, seed: int) -> float:
    """Return the share of jobs that find no warm worker; each takes one and orders one."""
    chance = random.Random(seed)
    orders: list[float] = []  # when each comes
    now, found_none = 0.0, 0
    for _ in range(jobs):
        now += chance.expovariate(rate)
        while orders and orders[0] <= now:
            heapq.heappop(orders)
        found_none += len(orders) >= idle
        # Half of the orders come in half the time, half in one and a half: only the mean counts.
        heapq.heappush(orders, now + warmup * chance.choice([0.5, 1.5]))
    return found_none / jobs


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.floats(0.5, 4.0), st.integers(0, 1000))
def test_the_formula_agrees_with_a_simulation(idle: int, mean: float, seed: int) -> None:
    simulated = simulated_shortage(idle, rate=mean / 0.1, warmup=0.1, jobs=20_000, seed=seed)
    assert simulated == pytest.approx(shortage(idle, mean), abs=0.03)
