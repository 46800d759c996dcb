"""What the plan says: a table that is the specification, and laws over everything else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from supervisor.census import Census
from supervisor.plan import Plan, PoolLimits, plan

TWO = PoolLimits(idle_target=2)
NONE = PoolLimits(idle_target=0)


@pytest.mark.parametrize(
    ("census", "waiting", "limits", "expected"),
    [
        pytest.param(Census(), 0, TWO, Plan(spawn=2), id="an empty pool fills to its target"),
        pytest.param(Census(), 0, NONE, Plan(), id="without a target an empty pool stays empty"),
        pytest.param(Census(idle=2), 0, TWO, Plan(), id="what is idle is enough"),
        pytest.param(Census(warming=2), 0, TWO, Plan(), id="what warms up counts as there"),
        pytest.param(Census(spawning=2), 0, TWO, Plan(), id="what was asked for counts as there"),
        pytest.param(
            Census(running=5, stopping=3, killed=2),
            0,
            TWO,
            Plan(spawn=2),
            id="who runs a job or leaves is no spare",
        ),
        pytest.param(Census(idle=2), 3, TWO, Plan(spawn=3), id="jobs come on top of the target"),
        pytest.param(
            Census(), 3, NONE, Plan(spawn=3), id="jobs get workers without any target too"
        ),
        pytest.param(
            Census(idle=5), 0, TWO, Plan(retire_idle=3), id="more idle ones than wanted go"
        ),
        pytest.param(
            Census(idle=1, warming=4),
            0,
            TWO,
            Plan(retire_idle=1),
            id="what warms up stays and comes to be the surplus later",
        ),
        pytest.param(
            Census(idle=1, warming=4),
            3,
            NONE,
            Plan(),
            id="an idle one that a job could have at once does not go",
        ),
        pytest.param(
            Census(running=2, stopping=2),
            9,
            PoolLimits(idle_target=2, max_processes=4),
            Plan(),
            id="who leaves still takes a place",
        ),
        pytest.param(
            Census(running=2, stopping=1),
            9,
            PoolLimits(idle_target=2, max_processes=4),
            Plan(spawn=1),
            id="max_processes bounds it",
        ),
        pytest.param(
            Census(running=9),
            9,
            PoolLimits(idle_target=2, max_processes=4),
            Plan(),
            id="a ceiling that was lowered starts nothing and stops nobody's job",
        ),
        pytest.param(
            Census(warming=3),
            9,
            PoolLimits(idle_target=0, max_warming=4),
            Plan(spawn=1),
            id="max_warming bounds it",
        ),
        pytest.param(
            Census(idle=5),
            0,
            PoolLimits(idle_target=1, keep_idle=4),
            Plan(retire_idle=1),
            id="who came back from a job stays up to keep_idle",
        ),
        pytest.param(
            Census(idle=5),
            2,
            PoolLimits(idle_target=1, keep_idle=4),
            Plan(),
            id="keep_idle comes on top of what jobs need",
        ),
        pytest.param(
            Census(idle=1),
            0,
            PoolLimits(idle_target=1, keep_idle=4),
            Plan(),
            id="nobody is started for keep_idle",
        ),
        pytest.param(
            Census(idle=5),
            0,
            PoolLimits(idle_target=3, keep_idle=1),
            Plan(retire_idle=2),
            id="keep_idle below the target means nothing",
        ),
        pytest.param(
            Census(),
            0,
            PoolLimits(idle_target=2, max_processes=10, max_warming=10),
            Plan(spawn=2),
            id="ceilings that are far away start nobody",
        ),
    ],
)
def test_the_plan(census: Census, waiting: int, limits: PoolLimits, expected: Plan) -> None:
    assert plan(census, waiting=waiting, limits=limits, draining=False) == expected


@pytest.mark.parametrize(
    ("census", "waiting", "expected"),
    [
        pytest.param(Census(), 0, Plan(), id="nothing is started for the target"),
        pytest.param(Census(), 3, Plan(spawn=3), id="jobs that were accepted get workers"),
        pytest.param(Census(idle=2), 0, Plan(retire_idle=2), id="idle ones go"),
        pytest.param(
            Census(spawning=1, warming=2), 0, Plan(retire_coming=3), id="what warms up goes"
        ),
        pytest.param(
            Census(idle=2, warming=2),
            1,
            Plan(retire_idle=1, retire_coming=2),
            id="what a job needs stays, the warm one first",
        ),
        pytest.param(
            Census(warming=2), 1, Plan(retire_coming=1), id="a job's worker goes on warming up"
        ),
        pytest.param(Census(running=5), 0, Plan(), id="jobs that run are left alone"),
    ],
)
def test_the_plan_of_a_drain(census: Census, waiting: int, expected: Plan) -> None:
    assert plan(census, waiting=waiting, limits=TWO, draining=True) == expected


@pytest.mark.parametrize(
    ("census", "waiting", "limits", "expected"),
    [
        pytest.param(
            Census(idle=3),
            0,
            PoolLimits(idle_target=2, keep_idle=3),
            Plan(retire_idle=3),
            id="keep_idle keeps nobody",
        ),
        pytest.param(
            Census(running=2),
            3,
            PoolLimits(idle_target=0, max_processes=4),
            Plan(spawn=2),
            id="the ceiling holds",
        ),
    ],
)
def test_the_plan_of_a_drain_with_limits(
    census: Census, waiting: int, limits: PoolLimits, expected: Plan
) -> None:
    assert plan(census, waiting=waiting, limits=limits, draining=True) == expected


# ── laws ─────────────────────────────────────────────────────────────────────

counts = st.integers(0, 12)
ceilings = st.none() | st.integers(1, 12)
censuses = st.builds(Census, **dict.fromkeys(Census.__struct_fields__, counts))
limits_of_any_kind = st.builds(
    PoolLimits,
    idle_target=counts,
    max_processes=ceilings,
    max_warming=ceilings,
    keep_idle=st.none() | counts,
)


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_it_never_exceeds_a_ceiling(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    spawn = plan(census, waiting=waiting, limits=limits, draining=draining).spawn
    if spawn and limits.max_processes is not None:
        assert census.alive + spawn <= limits.max_processes
    if spawn and limits.max_warming is not None:
        assert census.coming + spawn <= limits.max_warming


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_it_never_starts_and_retires_at_once(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    decided = plan(census, waiting=waiting, limits=limits, draining=draining)
    assert not (decided.spawn and (decided.retire_idle or decided.retire_coming))


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_it_only_lets_go_what_there_is(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    decided = plan(census, waiting=waiting, limits=limits, draining=draining)
    assert decided.spawn >= 0
    assert 0 <= decided.retire_idle <= census.idle
    assert 0 <= decided.retire_coming <= census.coming


@given(censuses, counts, limits_of_any_kind, st.booleans())
@example(Census(idle=1, warming=5), 3, NONE, False)
def test_it_never_retires_what_a_waiting_job_could_have(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    decided = plan(census, waiting=waiting, limits=limits, draining=draining)
    jobs = waiting
    if jobs >= census.idle:
        assert decided.retire_idle == 0
    else:
        assert census.idle - decided.retire_idle >= jobs
    if jobs > census.idle:
        kept = census.idle + census.coming - decided.retire_coming
        assert decided.retire_coming == 0 or kept >= jobs


@given(censuses, counts, limits_of_any_kind)
def test_a_drain_keeps_exactly_what_jobs_wait_for(
    census: Census, waiting: int, limits: PoolLimits
) -> None:
    decided = plan(census, waiting=waiting, limits=limits, draining=True)
    here = census.idle + census.coming
    kept = here - decided.retire_idle - decided.retire_coming
    assert kept == min(here, waiting)


@given(censuses, counts, limits_of_any_kind, counts, st.booleans())
def test_keeping_some_starts_nobody_and_is_of_no_account_in_a_drain(
    census: Census, waiting: int, limits: PoolLimits, keep: int, draining: bool
) -> None:
    without = plan(
        census,
        waiting=waiting,
        limits=msgspec.structs.replace(limits, keep_idle=None),
        draining=draining,
    )
    keeping = plan(
        census,
        waiting=waiting,
        limits=msgspec.structs.replace(limits, keep_idle=keep),
        draining=draining,
    )
    assert keeping.spawn == without.spawn
    if draining:
        assert keeping == without
    else:
        assert keeping.retire_idle <= without.retire_idle


@given(censuses, counts, limits_of_any_kind)
def test_only_a_drain_stops_what_warms_up(census: Census, waiting: int, limits: PoolLimits) -> None:
    assert plan(census, waiting=waiting, limits=limits, draining=False).retire_coming == 0


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_one_more_job_never_means_fewer_workers(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    def gained(jobs: int) -> int:
        decided = plan(census, waiting=jobs, limits=limits, draining=draining)
        return decided.spawn - decided.retire_idle - decided.retire_coming

    assert gained(waiting + 1) >= gained(waiting)


def carried_out(census: Census, decided: Plan) -> Census:
    """Return what there is when everything that was decided, and every warm-up, is done."""
    return msgspec.structs.replace(
        census,
        spawning=0,
        warming=0,
        stopping=0,
        killed=0,
        idle=census.idle + census.coming + decided.spawn - decided.retire_idle
        - decided.retire_coming,
    )  # fmt: skip


def settled(census: Census, waiting: int, limits: PoolLimits, draining: bool) -> Census:
    """Return what there is once the plan has nothing more to say."""
    for _ in range(60):
        decided = plan(census, waiting=waiting, limits=limits, draining=draining)
        after = carried_out(census, decided)
        if after == census:
            assert decided == Plan()
            return census
        census = after
    raise AssertionError("it never comes to rest")


@given(censuses, counts, counts, st.booleans())
def test_where_nothing_limits_it_comes_to_rest_with_what_is_wanted(
    census: Census, waiting: int, idle_target: int, draining: bool
) -> None:
    rest = settled(census, waiting, PoolLimits(idle_target=idle_target), draining)
    assert rest.idle == waiting + (0 if draining else idle_target)
    assert rest.running == census.running


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_whatever_limits_it_comes_to_rest(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    rest = settled(census, waiting, limits, draining)
    wanted = waiting + (0 if draining else limits.idle_target)
    kept = waiting + (0 if draining else limits.keep_idle or 0)
    assert rest.idle <= max(wanted, kept)
    if rest.idle < wanted:
        assert limits.max_processes is not None
        assert rest.alive >= limits.max_processes


@given(censuses, counts, limits_of_any_kind, st.booleans())
def test_a_plan_that_was_carried_out_at_once_is_not_repeated(
    census: Census, waiting: int, limits: PoolLimits, draining: bool
) -> None:
    # The pool compares again at the next event, which may come before anything
    # has changed but what the plan itself did.
    decided = plan(census, waiting=waiting, limits=limits, draining=draining)
    leaving = decided.retire_idle + decided.retire_coming
    from_spawning = min(census.spawning, decided.retire_coming)
    after = msgspec.structs.replace(
        census,
        spawning=census.spawning + decided.spawn - from_spawning,
        warming=census.warming - (decided.retire_coming - from_spawning),
        idle=census.idle - decided.retire_idle,
        stopping=census.stopping + leaving,
    )
    assert plan(after, waiting=waiting, limits=limits, draining=draining) == Plan()
