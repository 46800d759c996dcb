"""Percentiles and ratios are what their names say."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, strategies as st

from benchmarks.figures import Spread, Summary, fastest, percentile, ratios

samples = st.lists(st.floats(0, 1e6), min_size=1)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.0, 1, id="nothing is below the smallest"),
        pytest.param(0.5, 50, id="half"),
        pytest.param(0.99, 99, id="one in a hundred is above"),
        pytest.param(1.0, 100, id="nothing is above the largest"),
    ],
)
def test_percentiles_of_one_to_a_hundred(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


@given(samples, st.floats(0, 1))
def test_a_percentile_was_measured_and_has_its_share_at_or_below(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_what_is_no_percentile_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


@given(samples)
def test_a_summary_is_in_order(values: list[float]) -> None:
    found = Summary.of(values)
    assert found.n == len(values)
    assert found.p50 <= found.p90 <= found.p99 <= found.worst == max(values)


@given(samples)
def test_a_spread_is_the_median_between_the_extremes(rounds: list[float]) -> None:
    found = Spread.of(rounds)
    assert (found.low, found.median, found.high) == (
        min(rounds),
        statistics.median(rounds),
        max(rounds),
    )


def test_a_spread_shows_its_extremes_in_the_unit_of_its_median() -> None:
    spread = Spread.of([0.0021, 0.0014, 0.0125])
    assert spread.text(1e3, digits=1, unit=" ms") == "2.1 ms (1.4–12.5)"
    assert spread.text(1e3) == "2 (1–12)"


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 4.0]) == [2.0, 3.0, 2.0]


def test_a_round_that_one_of_them_lacks_has_no_ratio() -> None:
    assert ratios([2.0, 9.0], [1.0]) == [2.0]
    assert ratios([2.0, 9.0], [0.0, 3.0]) == [3.0]


def test_the_fastest_is_of_those_that_may_count_and_took_part() -> None:
    medians = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert fastest(medians, among=["b", "c", "absent"]) == "c"
    assert fastest(medians, among=["absent"]) is None
