"""What must hold for the table of a worker's life, as plain functions.

Each law takes a table and raises AssertionError when it is broken. They say the
same as the table in another way, by events and acts and not cell by cell, so
that no single wrong cell goes unnoticed: see ``test_lifecycle_mutants.py``,
which breaks each cell in each way and asks whether some law objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from supervisor.lifecycle import CLOCKS, COMING, FROM_CHILD, GOING, Act, Event, State, Step

Table = Mapping[State, Mapping[Event, Step]]
Law = Callable[[Table], None]

# What cannot happen, written out. Whoever adds a cell or removes one has to
# change this list too, and to know why.
IMPOSSIBLE: Final[Mapping[State, frozenset[Event]]] = {
    # It has not spoken, so it cannot have been ready, nor have had a job.
    State.SPAWNING: frozenset(
        {
            Event.READY,
            Event.SETUP_FAILED,
            Event.JOB_DONE,
            Event.LAST_JOB_DONE,
            Event.HAND_OVER,
            Event.STOP_JOB,
        }
    ),
    # It said hello, so there is a process, and once is enough.
    State.WARMING: frozenset(
        {
            Event.HELLO,
            Event.JOB_DONE,
            Event.LAST_JOB_DONE,
            Event.HAND_OVER,
            Event.STOP_JOB,
            Event.LAUNCH_FAILED,
        }
    ),
    # It was told nothing, so it has nothing to say.
    State.IDLE: FROM_CHILD | {Event.STOP_JOB, Event.LAUNCH_FAILED},
    # It has its job, gets no second one, and only its job's end is news. Who
    # wants a running worker gone stops its job.
    State.RUNNING: frozenset(
        {
            Event.HELLO,
            Event.READY,
            Event.SETUP_FAILED,
            Event.HAND_OVER,
            Event.RETIRE,
            Event.LAUNCH_FAILED,
        }
    ),
    State.STOPPING: frozenset(
        {Event.HELLO, Event.READY, Event.SETUP_FAILED, Event.HAND_OVER, Event.LAUNCH_FAILED}
    ),
    State.KILLED: frozenset({Event.HAND_OVER}),
    # Its channel is closed and its exit status was taken.
    State.REAPED: FROM_CHILD | {Event.HAND_OVER, Event.LAUNCH_FAILED, Event.EXITED},
}

# The states in which a worker may hold a job whose outcome depends on it.
HOLDING: Final = frozenset({State.RUNNING, State.STOPPING, State.KILLED})

# Where the child's own words, and the hand-over, lead from a state that waits for them.
LEADS_TO: Final[Mapping[Event, State]] = {
    Event.HELLO: State.WARMING,
    Event.READY: State.IDLE,
    Event.SETUP_FAILED: State.STOPPING,
    Event.JOB_DONE: State.IDLE,
    Event.LAST_JOB_DONE: State.STOPPING,
    Event.HAND_OVER: State.RUNNING,
    Event.KILL: State.KILLED,
    Event.LAUNCH_FAILED: State.REAPED,
    Event.EXITED: State.REAPED,
}

# Requests: whether they are asked politely depends on the state.
REQUESTS: Final = frozenset({Event.RETIRE, Event.STOP_JOB, Event.TIMEOUT})

# A worker that is warm listens, and holds what a polite end lets it put away.
WARM: Final = frozenset({State.IDLE, State.RUNNING})


def cells(table: Table) -> Iterator[tuple[State, Event, State, tuple[Act, ...]]]:
    """Yield every cell: before, event, after, acts."""
    for before, row in table.items():
        for event, (after, acts) in row.items():
            yield before, event, after, acts


def moves(table: Table) -> Iterator[tuple[State, Event, State, tuple[Act, ...]]]:
    """Yield the cells that change the state."""
    return (cell for cell in cells(table) if cell[0] is not cell[2])


# ── which cells there are ────────────────────────────────────────────────────


def every_pair_is_decided(table: Table) -> None:
    """A pair has a cell, or it is on the list of what cannot happen; never both."""
    assert set(table) == set(State)
    for state in State:
        assert set(table[state]) == set(Event) - IMPOSSIBLE[state], state


def late_events_come_to_leavers_only(table: Table) -> None:
    """A worker that is not leaving takes every event at its word.

    One that leaves may be told what was true before; only more force and the
    end itself still count.
    """
    for before, event, after, _ in cells(table):
        late = before is State.REAPED or (
            before in GOING
            and event not in (Event.EXITED, Event.LAUNCH_FAILED)
            and not (before is State.STOPPING and event in (Event.TIMEOUT, Event.KILL))
        )
        assert late == (before is after), (before, event)


def late_events_do_nothing(table: Table) -> None:
    """What is of no consequence has no acts."""
    for before, event, after, acts in cells(table):
        assert before is not after or not acts, (before, event)


# ── where they lead ──────────────────────────────────────────────────────────


def each_word_leads_to_one_state(table: Table) -> None:
    """What an event means does not depend on who hears it."""
    for before, event, after, _ in moves(table):
        assert event in REQUESTS or after is LEADS_TO[event], (before, event)


def the_warm_are_asked_and_others_are_killed(table: Table) -> None:
    """Nobody waits for a worker that warms up, and one that was asked had its time."""
    for before, event, after, _ in moves(table):
        if event in REQUESTS:
            polite = before in WARM
            assert after is (State.STOPPING if polite else State.KILLED), (before, event)


def only_the_kernel_says_that_it_is_over(table: Table) -> None:
    """REAPED is reached by an exit status, or where there never was a process. It is terminal."""
    for before, event, after, _ in moves(table):
        assert before is not State.REAPED
        assert (after is State.REAPED) == (event in (Event.EXITED, Event.LAUNCH_FAILED))
    for state in set(State) - {State.REAPED}:
        assert table[state][Event.EXITED][0] is State.REAPED, state


def everything_alive_can_be_killed(table: Table) -> None:
    """There is no state in which force has no effect."""
    for state in set(State) - {State.REAPED}:
        assert table[state][Event.KILL][0] is State.KILLED, state


def a_clock_that_runs_out_moves(table: Table) -> None:
    """A state has a clock exactly when TIMEOUT means something in it."""
    for state in State:
        moved = table[state][Event.TIMEOUT][0] is not state
        assert moved == (state in CLOCKS), state


def every_state_is_reached(table: Table) -> None:
    """Nothing in the table is dead."""
    assert {state for state, _ in walk(table, frozenset())} == set(State)


# ── acts ─────────────────────────────────────────────────────────────────────


def an_act(act: Act, iff: Callable[[State, Event, State], bool]) -> Law:
    """Return the law that *act* is done in a move exactly where *iff* says so."""

    def law(table: Table) -> None:
        for before, event, after, acts in moves(table):
            assert (act in acts) == iff(before, event, after), (act, before, event)

    law.__name__ = f"the_act_{act.name.lower()}"
    return law


kill_is_sent_on_entering_killed = an_act(Act.KILL, lambda _b, _e, after: after is State.KILLED)
a_job_is_sent_on_entering_running = an_act(
    Act.SEND_JOB, lambda _b, _e, after: after is State.RUNNING
)
it_is_offered_on_entering_idle = an_act(Act.OFFER, lambda _b, _e, after: after is State.IDLE)
it_is_forgotten_on_entering_reaped = an_act(
    Act.RELEASE, lambda _b, _e, after: after is State.REAPED
)
# One that leaves by itself has said so: it needs no request.
it_is_asked_to_stop_unless_it_leaves_by_itself = an_act(
    Act.ASK_TO_STOP,
    lambda _b, event, after: after is State.STOPPING and event not in FROM_CHILD,
)
# JOB_DONE settles by itself: the outcome is in the message.
a_job_is_settled_when_its_process_is_gone = an_act(
    Act.SETTLE_JOB, lambda before, _e, after: before in HOLDING and after is State.REAPED
)
a_warm_up_succeeds_once_it_is_over = an_act(
    Act.COUNT_WARM, lambda before, _e, after: before in COMING and after is State.IDLE
)
# Nobody's fault: we did not want it any more, or there was no process to fail.
a_warm_up_fails_in_every_other_way = an_act(
    Act.COUNT_FAILURE,
    lambda before, event, after: (
        before in COMING
        and after not in COMING | {State.IDLE}
        and event not in (Event.RETIRE, Event.LAUNCH_FAILED)
    ),
)
an_idle_worker_that_dies_is_counted = an_act(
    Act.COUNT_IDLE_DEATH, lambda before, _e, after: before is State.IDLE and after is State.REAPED
)


def acts_come_in_an_order_that_holds(table: Table) -> None:
    """Force first, forgetting last, each act once.

    What is counted is counted before the worker is offered: taking the offer
    may ask for the counts. Nothing can be done with a worker that was forgotten.
    """
    rank = {Act.KILL: 0, Act.ASK_TO_STOP: 0, Act.OFFER: 2, Act.RELEASE: 3}
    for before, event, _, acts in cells(table):
        ranks = [rank.get(act, 1) for act in acts]
        assert ranks == sorted(ranks), (before, event)
        assert len(acts) == len(set(acts)), (before, event)


# ── whole lives ──────────────────────────────────────────────────────────────


def walk(table: Table, counted: frozenset[Act]) -> set[tuple[State, tuple[Act, ...]]]:
    """Return every (state, acts of *counted* so far) that some life can come to.

    A worker that goes round from IDLE to RUNNING comes back to a pair that was
    seen, so the walk ends although lives need not. At most three acts are kept:
    more than that is wrong already.
    """
    seen: set[tuple[State, tuple[Act, ...]]] = set()
    ahead: list[tuple[State, tuple[Act, ...]]] = [(State.SPAWNING, ())]
    while ahead:
        place = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        state, done = place
        for after, acts in table[state].values():
            ahead.append((after, (done + tuple(act for act in acts if act in counted))[:3]))
    return seen


def a_warm_up_is_counted_at_most_once_in_a_life(table: Table) -> None:
    """As a success or as a failure, never as both."""
    for state, done in walk(table, frozenset({Act.COUNT_WARM, Act.COUNT_FAILURE})):
        assert len(done) <= 1, (state, done)


def a_life_ends_once(table: Table) -> None:
    """Forgotten once, when it is over, and the last job is settled at most once."""
    for state, done in walk(table, frozenset({Act.RELEASE, Act.SETTLE_JOB})):
        assert done.count(Act.RELEASE) == (state is State.REAPED), (state, done)
        assert done.count(Act.SETTLE_JOB) <= (state is State.REAPED), (state, done)


def a_worker_is_killed_and_asked_at_most_once(table: Table) -> None:
    """And asked before it is killed."""
    for state, done in walk(table, frozenset({Act.KILL, Act.ASK_TO_STOP})):
        assert done in ((), (Act.KILL,), (Act.ASK_TO_STOP,), (Act.ASK_TO_STOP, Act.KILL)), state


def a_job_is_handed_only_to_the_warm(table: Table) -> None:
    """A worker gets a job when it was offered, and only then."""
    for _, done in walk(table, frozenset({Act.OFFER, Act.SEND_JOB})):
        alternating = (Act.OFFER, Act.SEND_JOB, Act.OFFER)
        assert done == alternating[: len(done)], done


LAWS: Final[tuple[Law, ...]] = (
    every_pair_is_decided,
    late_events_come_to_leavers_only,
    late_events_do_nothing,
    each_word_leads_to_one_state,
    the_warm_are_asked_and_others_are_killed,
    only_the_kernel_says_that_it_is_over,
    everything_alive_can_be_killed,
    a_clock_that_runs_out_moves,
    every_state_is_reached,
    kill_is_sent_on_entering_killed,
    a_job_is_sent_on_entering_running,
    it_is_offered_on_entering_idle,
    it_is_forgotten_on_entering_reaped,
    it_is_asked_to_stop_unless_it_leaves_by_itself,
    a_job_is_settled_when_its_process_is_gone,
    a_warm_up_succeeds_once_it_is_over,
    a_warm_up_fails_in_every_other_way,
    an_idle_worker_that_dies_is_counted,
    acts_come_in_an_order_that_holds,
    a_warm_up_is_counted_at_most_once_in_a_life,
    a_life_ends_once,
    a_worker_is_killed_and_asked_at_most_once,
    a_job_is_handed_only_to_the_warm,
)


def first_objection(table: Table) -> str | None:
    """Return the name of the first law that *table* breaks, None if it keeps them all."""
    for law in LAWS:
        try:
            law(table)
        except (AssertionError, KeyError):  # a law may look for a cell that is gone
            return law.__name__
    return None
