"""How fast spares are started: at once when nothing runs, else paced."""

from __future__ import annotations

from hypothesis import given, strategies as st

from supervisor.pacing import PAUSE, QUIET, Leave, Pacing


def test_all_are_started_at_once_while_nothing_runs() -> None:
    assert Pacing().leave(8, urgent=0, busy=False, now=1.0) == Leave(8)


def test_what_a_job_waits_for_is_never_held_back() -> None:
    assert Pacing().leave(5, urgent=5, busy=True, now=1.0) == Leave(5)


def test_spares_wait_for_a_moment_when_a_job_has_just_begun() -> None:
    leave = Pacing().leave(4, urgent=0, busy=True, now=1.0)
    assert leave.count == 0
    assert leave.again_in is not None
    assert 0 < leave.again_in < 2 * PAUSE


def test_spares_come_one_two_four_at_a_time() -> None:
    pacing, now, left, batches = Pacing(), 1.0, 7, []
    leave = pacing.leave(left, urgent=0, busy=True, now=now)
    while leave.again_in is not None:
        now += 1.01 * leave.again_in
        leave = pacing.leave(left, urgent=0, busy=True, now=now)
        batches.append(leave.count)
        left -= leave.count
    assert batches == [1, 2, 4]


def test_after_a_quiet_time_it_begins_with_a_pause_and_with_one_again() -> None:
    pacing = Pacing()
    pacing.leave(4, urgent=0, busy=True, now=1.0)
    assert pacing.leave(4, urgent=0, busy=True, now=1.0 + 2 * PAUSE).count == 1
    later = 1.0 + 2 * QUIET
    assert pacing.leave(4, urgent=0, busy=True, now=later).count == 0
    assert pacing.leave(4, urgent=0, busy=True, now=later + 2 * PAUSE).count == 1


@given(
    asked=st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 20), st.booleans(), st.floats(0, 0.01)),
        max_size=40,
    )
)
def test_it_grants_what_is_urgent_and_never_more_than_was_wanted(
    asked: list[tuple[int, int, bool, float]],
) -> None:
    pacing, now = Pacing(), 0.0
    for wanted, urgent, busy, passed in asked:
        now += passed
        urgent = min(urgent, wanted)
        leave = pacing.leave(wanted, urgent=urgent, busy=busy, now=now)
        assert urgent <= leave.count <= wanted
        assert leave.count == wanted or leave.again_in is not None
