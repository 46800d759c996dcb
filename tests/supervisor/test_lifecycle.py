"""The table of a worker's life keeps its laws; one example of each life beside them."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from supervisor import lifecycle, options
from supervisor.errors import SupervisorError
from supervisor.lifecycle import (
    CLOCKS,
    COMING,
    FROM_CHILD,
    GOING,
    TABLE,
    Act,
    Event,
    IllegalTransition,
    State,
    describe,
    step,
)
from tests.supervisor.lifecycle_laws import IMPOSSIBLE, LAWS, Law


@pytest.mark.parametrize("law", [pytest.param(law, id=law.__name__) for law in LAWS])
def test_the_table_keeps_the_law(law: Law) -> None:
    law(TABLE)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        pytest.param(state, event, id=f"{event.value} in {state.value}")
        for state in State
        for event in Event
    ],
)
def test_a_pair_makes_its_step_or_is_illegal(state: State, event: Event) -> None:
    if event in IMPOSSIBLE[state]:
        with pytest.raises(IllegalTransition) as caught:
            step(state, event)
        assert (caught.value.state, caught.value.event) == (state, event)
        assert caught.value.__cause__ is None
    else:
        assert step(state, event) == TABLE[state][event]


def test_an_illegal_transition_says_what_reached_whom() -> None:
    error = IllegalTransition(State.SPAWNING, Event.HAND_OVER)
    assert str(error) == "HAND_OVER reached a worker in SPAWNING"


def test_an_illegal_transition_is_no_error_of_the_library() -> None:
    assert not issubclass(IllegalTransition, SupervisorError)


E, S = Event, State


@pytest.mark.parametrize(
    ("events", "states"),
    [
        pytest.param(
            [E.HELLO, E.READY, E.HAND_OVER, E.LAST_JOB_DONE, E.EXITED],
            [S.WARMING, S.IDLE, S.RUNNING, S.STOPPING, S.REAPED],
            id="one job and gone",
        ),
        pytest.param(
            [E.HELLO, E.READY, E.HAND_OVER, E.JOB_DONE, E.HAND_OVER, E.LAST_JOB_DONE, E.EXITED],
            [S.WARMING, S.IDLE, S.RUNNING, S.IDLE, S.RUNNING, S.STOPPING, S.REAPED],
            id="two jobs and gone",
        ),
        pytest.param(
            [E.HELLO, E.SETUP_FAILED, E.EXITED],
            [S.WARMING, S.STOPPING, S.REAPED],
            id="a setup that fails",
        ),
        pytest.param(
            [E.HELLO, E.TIMEOUT, E.READY, E.EXITED],
            [S.WARMING, S.KILLED, S.KILLED, S.REAPED],
            id="ready in the instant of the kill",
        ),
        pytest.param(
            [E.HELLO, E.READY, E.HAND_OVER, E.STOP_JOB, E.JOB_DONE, E.TIMEOUT, E.EXITED],
            [S.WARMING, S.IDLE, S.RUNNING, S.STOPPING, S.STOPPING, S.KILLED, S.REAPED],
            id="a job that ends when asked, in a process that does not",
        ),
        pytest.param(
            [E.RETIRE, E.LAUNCH_FAILED, E.TIMEOUT],
            [S.KILLED, S.REAPED, S.REAPED],
            id="retired before it turned out that there is no process",
        ),
    ],
)
def test_a_life(events: list[Event], states: list[State]) -> None:
    state, seen = State.SPAWNING, []
    for event in events:
        state, _ = step(state, event)
        seen.append(state)
    assert seen == states


def test_every_state_is_coming_going_or_something_of_its_own() -> None:
    assert not COMING & GOING
    assert set(State) - COMING - GOING == {State.IDLE, State.RUNNING, State.REAPED}


def test_a_child_causes_only_what_it_can_say() -> None:
    assert frozenset(Event) - FROM_CHILD == {
        Event.HAND_OVER,
        Event.STOP_JOB,
        Event.RETIRE,
        Event.TIMEOUT,
        Event.KILL,
        Event.LAUNCH_FAILED,
        Event.EXITED,
    }


def test_each_clock_is_an_option_or_a_constant() -> None:
    known = {field.name for field in dataclasses.fields(options.PoolOptions)}
    for name in CLOCKS.values():
        assert name in known or hasattr(options, name.upper()), name


def test_every_act_is_used() -> None:
    used = {act for row in TABLE.values() for _, acts in row.values() for act in acts}
    assert used == set(Act)


def test_the_table_as_text_has_a_line_for_each_cell() -> None:
    lines = describe().splitlines()
    assert len(lines) == sum(len(row) for row in TABLE.values())
    assert lines[0] == "spawning  ── hello         ──► warming"
    assert (
        "warming   ── ready         ──► idle [count a successful warm-up, offer it to the next job]"
        in lines
    )


def test_the_module_prints_its_table() -> None:
    root = pathlib.Path(lifecycle.__file__).parents[1]
    printed = subprocess.run(
        [sys.executable, "-m", "supervisor.lifecycle"],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONUTF8": "1"},
        check=True,
        timeout=30,
    )
    assert printed.stdout == describe() + "\n"
