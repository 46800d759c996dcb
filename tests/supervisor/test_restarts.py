"""How many failures are too many, and how long to wait after one."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from supervisor.restarts import (
    ENDED_AFTER,
    FIRST_DELAY,
    FIRST_PAUSE,
    LONGEST_DELAY,
    LONGEST_PAUSE,
    Reminders,
    RestartWindow,
)


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        pytest.param([0.0], [False], id="one failure is none"),
        pytest.param([0.0, 1.0, 2.0], [False, False, True], id="the third within the period"),
        pytest.param([0.0, 5.0, 10.0], [False, False, True], id="the period includes its end"),
        pytest.param([0.0, 5.0, 10.5], [False, False, False], id="the first one is forgotten"),
        pytest.param([0.0, 5.0, 10.5, 11.0], [False, False, False, True], id="the window slides"),
        pytest.param([3.0, 3.0, 3.0], [False, False, True], id="all in the same moment"),
        pytest.param(
            [0.0, 1.0, 2.0, 3.0, 50.0],
            [False, False, True, True, False],
            id="too many stays too many until time has passed",
        ),
    ],
)
def test_three_in_ten_seconds_are_too_many(moments: list[float], expected: list[bool]) -> None:
    window = RestartWindow(intensity=3, period=10.0)
    assert [window.record_failure(moment) for moment in moments] == expected


def test_by_default_five_in_thirty_seconds_are_too_many() -> None:
    window = RestartWindow()
    assert [window.record_failure(now) for now in (0.0, 7.0, 14.0, 21.0, 30.0)] == [
        *[False] * 4,
        True,
    ]


def test_the_first_failure_is_too_many_where_none_is_allowed() -> None:
    assert RestartWindow(intensity=1).record_failure(0.0)


def test_a_success_empties_the_window() -> None:
    window = RestartWindow(intensity=2)
    window.record_failure(0.0)
    window.record_success()
    assert window.in_a_row == 0
    assert window.delay(0.0) == 0.0
    assert not window.record_failure(0.1)
    assert window.in_a_row == 1
    assert window.delay(0.1) == pytest.approx(FIRST_DELAY)


def test_before_any_failure_there_is_nothing_to_wait_for() -> None:
    window = RestartWindow()
    assert window.delay(-1e9) == 0.0
    assert window.not_before == float("-inf")


def test_the_delay_doubles_up_to_the_longest() -> None:
    window, now, delays = RestartWindow(), 100.0, []
    for _ in range(12):
        window.record_failure(now)
        delays.append(window.delay(now))
        now = window.not_before
    expected = [min(FIRST_DELAY * 2**turn, LONGEST_DELAY) for turn in range(12)]
    assert delays == pytest.approx(expected)
    assert delays[-1] == pytest.approx(LONGEST_DELAY)


def test_the_longest_delay_can_be_shorter() -> None:
    window, now, delays = RestartWindow(longest_delay=1.0), 100.0, []
    for _ in range(8):
        window.record_failure(now)
        delays.append(window.delay(now))
        now = window.not_before
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])


def test_failures_that_arrive_together_are_one_reason_to_wait() -> None:
    window, now, delays = RestartWindow(), 100.0, []
    for _ in range(3):
        for _ in range(4):  # four workers, one bad setup
            window.record_failure(now)
        delays.append(window.delay(now))
        now = window.not_before
    assert delays == pytest.approx([FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
    assert window.in_a_row == 12


def test_the_delay_runs_out() -> None:
    window = RestartWindow()
    window.record_failure(100.0)
    assert window.delay(100.0 + FIRST_DELAY / 2) == pytest.approx(FIRST_DELAY / 2)
    assert window.delay(100.0 + FIRST_DELAY) == pytest.approx(0.0)
    assert window.delay(200.0) == 0.0


@pytest.mark.parametrize(
    ("intensity", "period", "text"),
    [
        pytest.param(0, 1.0, "intensity=0: expected 1 or more", id="no failure at all"),
        pytest.param(1, 0.0, "period=0.0: expected more than 0 seconds", id="no time"),
        pytest.param(1, float("nan"), "period=nan: expected more", id="no number"),
    ],
)
def test_a_window_without_sense_is_refused(intensity: int, period: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RestartWindow(intensity, period)


pauses = st.lists(st.floats(0.0, 40.0), max_size=40)


@given(pauses, st.integers(1, 6), st.floats(0.5, 30.0))
def test_too_many_means_that_many_within_the_period(
    steps: list[float], intensity: int, period: float
) -> None:
    window = RestartWindow(intensity, period)
    moments: list[float] = []
    for step in steps:
        moments.append((moments[-1] if moments else 0.0) + step)
        last = moments[-intensity:]
        expected = len(last) == intensity and last[-1] - last[0] <= period
        assert window.record_failure(moments[-1]) == expected


@given(pauses)
def test_a_wait_is_never_longer_than_the_longest_nor_taken_back(steps: list[float]) -> None:
    window, now = RestartWindow(), 0.0
    for step in steps:
        now += step
        before = window.not_before
        window.record_failure(now)
        assert window.not_before >= before
        assert 0.0 <= window.delay(now) <= LONGEST_DELAY + 1e-6  # rounding


@given(st.integers(1, 2000))
def test_failing_for_ever_waits_the_longest(failures: int) -> None:
    window, now = RestartWindow(), 0.0
    for _ in range(failures):
        window.record_failure(now)
        now = window.not_before
    assert window.in_a_row == failures
    assert window.delay(now - LONGEST_DELAY) <= LONGEST_DELAY * 1.001


# ── how often it is told ─────────────────────────────────────────────────────


def told_at(moments: list[float]) -> dict[float, int]:
    reminders = Reminders()
    told = {moment: reminders.failures_to_tell(moment) for moment in moments}
    return {moment: count for moment, count in told.items() if count}


def test_what_goes_on_failing_is_told_ever_more_rarely_and_with_its_number() -> None:
    eight_a_second = [step / 8 for step in range(15 * 8 + 1)]
    assert told_at(eight_a_second) == {0.0: 1, 1.0: 8, 3.0: 16, 7.0: 32, 15.0: 64}


def test_what_has_ended_and_begins_again_is_news() -> None:
    again = 0.5 + ENDED_AFTER + 0.1
    assert told_at([0.0, 0.5, again, again + 0.5]) == {0.0: 1, again: 1}


# Sums of these are exact: a step of just ENDED_AFTER stays one.
exact_seconds = st.integers(0, 15 * 1024).map(lambda number: number / 1024)


@given(st.lists(exact_seconds, min_size=1, max_size=200))
def test_no_failure_is_kept_back_for_long_and_none_is_counted_twice(steps: list[float]) -> None:
    reminders, now, last_told = Reminders(), 0.0, 0.0
    noted = told = 0
    for number, step in enumerate(steps):
        now += step
        noted = noted + 1 if step <= ENDED_AFTER or number == 0 else 1
        told = told if step <= ENDED_AFTER else 0
        count = reminders.failures_to_tell(now)
        assert count in (0, noted - told)
        if count:
            told += count
            assert number == 0 or step > ENDED_AFTER or now - last_told >= FIRST_PAUSE - 1e-6
            last_told = now
        else:
            assert now - last_told <= LONGEST_PAUSE
