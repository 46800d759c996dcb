"""What the present demand needs: at least what was asked for, at most what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from supervisor.demand import MEMORY_SECONDS, Demand


def busy(arrivals_a_second: int, warmup: float, seconds: int = 60) -> tuple[Demand, float]:
    """Return a demand after a minute of even arrivals, and the moment."""
    demand = Demand()
    demand.warmed(warmup)
    for n in range(arrivals_a_second * seconds):
        demand.arrived(n / arrivals_a_second)
    return demand, float(seconds)


@pytest.mark.parametrize(
    ("rate", "warmup", "expected"),
    [
        pytest.param(0, 1.0, 2, id="nothing arrives: what was asked for"),
        pytest.param(1, 0.01, 2, id="warm-ups are instant: what was asked for"),
        pytest.param(4, 1.0, 8, id="four arrive during a warm-up, and as many by chance"),
        pytest.param(100, 1.0, 50, id="the ceiling holds"),
    ],
)
def test_the_target_follows_arrivals_during_a_warm_up(
    rate: int, warmup: float, expected: int
) -> None:
    demand, now = busy(rate, warmup)
    assert demand.target(now, least=2, most=50) == expected


def test_the_target_falls_back_when_nobody_comes_any_more() -> None:
    demand, now = busy(10, 2.0)
    assert demand.target(now, least=1, most=100) > 20
    assert demand.target(now + 10 * MEMORY_SECONDS, least=1, most=100) == 1


def test_the_rate_is_what_arrives() -> None:
    demand, now = busy(5, 1.0)
    assert demand.rate(now) == pytest.approx(5, rel=0.1)


def test_the_warm_up_time_follows_the_newest() -> None:
    demand, now = busy(10, 0.1)
    before = demand.target(now, least=0, most=1000)
    for _ in range(30):
        demand.warmed(3.0)
    assert demand.target(now, least=0, most=1000) > 5 * before


@given(
    arrivals=st.lists(st.floats(0, 100), max_size=50),
    warmups=st.lists(st.floats(0, 60), max_size=10),
    least=st.integers(0, 10),
    above=st.integers(0, 50),
)
def test_the_target_is_always_within_bounds(
    arrivals: list[float], warmups: list[float], least: int, above: int
) -> None:
    demand = Demand()
    for seconds in warmups:
        demand.warmed(seconds)
    for moment in sorted(arrivals):
        demand.arrived(moment)
    assert least <= demand.target(100.0, least=least, most=least + above) <= least + above
