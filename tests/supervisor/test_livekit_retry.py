"""How long the LiveKit dispatcher waits between attempts, and when it stops."""

from __future__ import annotations

import pytest

from supervisor.dispatch.livekit.retry import FIRST_WAIT, LONGEST_WAIT, Retries


def waits(limit: int, draw: float) -> list[float]:
    """Return the waits until the limit is reached, each drawn the same."""
    retries = Retries(limit, lambda: draw)
    found = []
    while not retries.exhausted:
        found.append(retries.wait)
        retries.failed()
    return found


def test_the_waits_double_up_to_a_ceiling() -> None:
    assert waits(9, 0.5) == [0.05, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_each_wait_is_drawn_from_half_to_one_and_a_half_of_its_middle() -> None:
    low, high = waits(16, 0.0), waits(16, 1.0)
    assert low[0] == 0.0
    assert high[0] == FIRST_WAIT
    assert all(
        above == pytest.approx(3 * below) for below, above in zip(low[1:], high[1:], strict=True)
    )
    assert max(high) == 1.5 * LONGEST_WAIT


def test_two_draws_of_one_wait_differ() -> None:
    retries = Retries(16)
    retries.failed()
    assert len({retries.wait for _ in range(20)}) > 1


@pytest.mark.parametrize("limit", [0, 1], ids=["none at all", "one"])
def test_one_attempt_is_made_at_least(limit: int) -> None:
    retries = Retries(limit)
    assert not retries.exhausted
    retries.failed()
    assert retries.exhausted


def test_only_a_registration_starts_the_count_anew() -> None:
    retries = Retries(3)
    for _ in range(100):
        retries.failed()
        retries.failed()
        assert not retries.exhausted
        retries.succeeded()
    assert retries.failures == 0


def test_a_limit_of_thousands_does_not_overflow() -> None:
    retries = Retries(1_000_000, lambda: 0.5)
    for _ in range(5000):
        retries.failed()
    assert retries.wait == LONGEST_WAIT
