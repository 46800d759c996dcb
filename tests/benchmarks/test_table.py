"""The table of targets says what was measured, against what, and whether it is enough."""

from __future__ import annotations

import pytest

from benchmarks.table import Row, Target, lines, markdown


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        pytest.param(Target(1.5), 1.5, True, id="at most includes the bound"),
        pytest.param(Target(1.5), 1.51, False, id="over it"),
        pytest.param(Target(10, at_least=True), 10.0, True, id="at least includes the bound"),
        pytest.param(Target(10, at_least=True), 9.9, False, id="under it"),
    ],
)
def test_a_figure_is_judged_by_its_target(target: Target, figure: float, met: bool) -> None:
    assert Row.judged("m", target, figure, ours="o", against="a").met is met


def test_a_line_says_measure_ours_against_ratio_target_and_verdict() -> None:
    row = Row.judged("churn", Target(0.8, at_least=True), 0.5, ours="250/s", against="floor 500/s")
    assert row.cells() == ("churn", "250/s", "floor 500/s", "0.50 ×", "≥ 0.8 ×", "NO")


def test_without_anybody_to_compare_with_nothing_is_judged() -> None:
    row = Row.judged("churn", Target(1.5), None, ours="250/s", against="", missing="nobody")
    assert row.met is None
    assert row.cells() == ("churn", "250/s", "nobody", "-", "≤ 1.5 ×", "-")


def test_a_line_survives_the_way_through_json() -> None:
    row = Row.judged("churn", Target(0.8), 0.5, ours="1", against="2")
    assert Row(**row.as_dict()) == row


def test_columns_are_aligned() -> None:
    text = lines([["a", "bbbb"], ["ccc", "d"]], ["x", "y"])
    assert text == ["x    y", "───  ────", "a    bbbb", "ccc  d"]


def test_markdown_has_a_head_and_a_divider() -> None:
    assert markdown([["a", "b"]], ["x", "y"]) == ["| x | y |", "| --- | --- |", "| a | b |"]
