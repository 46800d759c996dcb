"""Everybody is pinged once in a round, and nobody waits for a crowd."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, strategies as st

from supervisor.rounds import PLACES, TOGETHER, steps_to, steps_to_next

numbers = st.integers(1, 10**6)
places = st.integers(0, PLACES - 1)


def turns(after: int, alive: set[int]) -> list[tuple[int, set[int]]]:
    """Return the turns of one round from the place *after*: how far each goes, and who is met."""
    seen = []
    gone = 0
    while gone < PLACES:
        steps = min(steps_to_next(alive, (after + gone) % PLACES), PLACES - gone)
        met = {each for each in alive if steps_to(each, (after + gone) % PLACES) <= steps}
        seen.append((steps, met))
        gone += steps
    return seen


@given(places, st.sets(numbers, max_size=60))
def test_everybody_is_met_once_in_a_round(after: int, alive: set[int]) -> None:
    met = Counter(each for _, group in turns(after, alive) for each in group)
    assert met == Counter(alive)


@given(places, st.sets(numbers, min_size=1, max_size=60))
def test_no_turn_is_for_nobody(after: int, alive: set[int]) -> None:
    assert all(met for _, met in turns(after, alive)[:-1])


@given(places, numbers, st.integers(1, PLACES * TOGETHER))
def test_of_workers_born_in_a_row_no_more_than_so_many_share_a_turn(
    after: int, first: int, count: int
) -> None:
    for _, met in turns(after, set(range(first, first + count))):
        assert len(met) <= TOGETHER


@given(places)
def test_a_pool_of_a_few_wakes_up_once_in_a_round(after: int) -> None:
    assert sum(1 for _, met in turns(after, {1, 2, 3, 4}) if met) == 1


@given(places, numbers, st.integers(1, PLACES))
def test_who_comes_after_a_turn_was_scheduled_is_met_within_a_round(
    after: int, number: int, scheduled: int
) -> None:
    # Its place is passed by in the turn that was scheduled, or comes after it.
    now = (after + scheduled) % PLACES
    if steps_to(number, after) > scheduled:
        assert scheduled + steps_to(number, now) <= PLACES
