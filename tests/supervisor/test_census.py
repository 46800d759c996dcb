"""The counts, and the counter that keeps them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, strategies as st

from supervisor.census import Census, Counter
from supervisor.lifecycle import COMING, GOING, TABLE, State

LIVING = [state for state in State if state is not State.REAPED]

censuses = st.builds(Census, **dict.fromkeys(Census.__struct_fields__, st.integers(0, 9)))


def test_a_census_has_a_count_for_each_living_state() -> None:
    names = list(Census.__struct_fields__)
    assert names == [state.value for state in LIVING]


@given(censuses)
def test_the_total_is_the_sum_of_the_parts(census: Census) -> None:
    assert census.alive == sum(msgspec.structs.asdict(census).values())


@given(censuses)
def test_coming_and_going_are_the_states_that_the_lifecycle_calls_so(census: Census) -> None:
    counts = msgspec.structs.asdict(census)
    assert census.coming == sum(counts[state.value] for state in COMING)
    assert census.going == sum(counts[state.value] for state in GOING)


def test_a_census_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Census().idle = 1  # type: ignore[misc]  # what is tested


@given(st.data())
def test_the_counter_agrees_with_counting(data: st.DataObject) -> None:
    counter = Counter()
    workers: list[State] = []
    for _ in range(data.draw(st.integers(0, 40), label="steps")):
        if not workers or data.draw(st.booleans(), label="one more"):
            counter.enter(State.SPAWNING)
            workers.append(State.SPAWNING)
        else:
            place = data.draw(st.integers(0, len(workers) - 1), label="who")
            before = workers.pop(place)
            choices = sorted({after for after, _ in TABLE[before].values()}, key=str)
            after = data.draw(st.sampled_from(choices), label="what becomes of it")
            counter.move(before, after)
            if after is not State.REAPED:
                workers.append(after)
        expected = {state.value: workers.count(state) for state in LIVING}
        assert counter.census() == Census(**expected)


def test_a_worker_that_is_reaped_is_nobody_any_more() -> None:
    counter = Counter()
    counter.enter(State.RUNNING)
    counter.move(State.RUNNING, State.REAPED)
    assert counter.census() == Census()


def test_a_snapshot_stays_as_it_was_taken() -> None:
    counter = Counter()
    counter.enter(State.IDLE)
    before = counter.census()
    counter.enter(State.IDLE)
    assert before == Census(idle=1)


def test_leaving_a_state_that_nobody_is_in_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="more workers left IDLE than were in it"):
        Counter().move(State.IDLE, State.RUNNING)
