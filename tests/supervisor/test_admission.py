"""May this server take one more job?"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from supervisor.admission import Limits, Refusal, Standing, refuse, share_of_one_job

READY = Standing(Limits(load_threshold=0.7), ready=True, load=0.0)


def standing(**changes: Any) -> Standing:
    """Return a standing at rest, changed in some facts and limits."""
    limits = {name: changes.pop(name) for name in Limits.__struct_fields__ if name in changes}
    return replace(READY, limits=replace(READY.limits, **limits), **changes)


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        pytest.param(READY, None, id="a server at rest takes a job"),
        pytest.param(
            standing(ready=False),
            Refusal("not ready", "no worker is warm and setup keeps failing"),
            id="one without a warm worker does not",
        ),
        pytest.param(standing(load=0.69), None, id="below the threshold"),
        pytest.param(
            standing(load=0.7),
            Refusal("load", "0.70; load_threshold is 0.7"),
            id="at the threshold",
        ),
        pytest.param(
            standing(load=0.93),
            Refusal("load", "0.93; load_threshold is 0.7"),
            id="over the threshold",
        ),
        pytest.param(
            standing(load=None),
            Refusal("load", "load_fnc gives no load"),
            id="a load that nobody knows counts as full",
        ),
        pytest.param(
            standing(load=math.nan),
            Refusal("load", "nan; load_threshold is 0.7"),
            id="a load that is no number counts as full",
        ),
        pytest.param(standing(load=5.0, load_threshold=math.inf), None, id="without a threshold"),
        pytest.param(
            standing(load=None, load_threshold=math.inf),
            None,
            id="without a threshold nobody asks for the load",
        ),
        pytest.param(standing(active_jobs=4, max_jobs=5), None, id="one place left"),
        pytest.param(standing(active_jobs=5, max_jobs=5), Refusal("max_jobs", "5 of 5"), id="full"),
        pytest.param(
            standing(active_jobs=7, max_jobs=5, load_threshold=math.inf),
            Refusal("max_jobs", "7 of 5"),
            id="more than full, as after the limit was lowered",
        ),
        pytest.param(
            standing(load=0.5, active_jobs=6, unseen_jobs=2, cpus=4),
            Refusal("load", "0.50 and 0.25 for 2 just admitted; load_threshold is 0.7"),
            id="jobs that the load cannot contain yet count like the running ones",
        ),
        pytest.param(
            standing(load=0.5, active_jobs=5, unseen_jobs=1, cpus=4),
            None,
            id="one such job leaves room",
        ),
        pytest.param(
            standing(active_jobs=14, unseen_jobs=14),
            Refusal("load", "0.00 and 0.70 for 14 just admitted; load_threshold is 0.7"),
            id="a burst on a server at rest stops at a twentieth of a CPU each",
        ),
        pytest.param(standing(active_jobs=13, unseen_jobs=13), None, id="and not before that"),
    ],
)
def test_an_answer(standing: Standing, expected: Refusal | None) -> None:
    assert refuse(standing) == expected


def test_the_reason_that_lasts_longest_is_told_first() -> None:
    facts: dict[str, Any] = {"ready": False, "load": 9.0, "active_jobs": 1, "max_jobs": 1}
    reasons = []
    for change in ({"ready": True}, {"max_jobs": None}, {"load": 0.0}):
        refusal = refuse(standing(**facts))
        assert refusal is not None
        reasons.append(refusal.reason)
        facts |= change
    assert reasons == ["not ready", "max_jobs", "load"]
    assert refuse(standing(**facts)) is None


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        pytest.param(READY, 0.05, id="a twentieth of the CPU where nothing runs"),
        pytest.param(standing(cpus=4), 0.0125, id="a twentieth of one CPU of four"),
        pytest.param(standing(load=0.6, active_jobs=3), 0.2, id="the average of those that run"),
        pytest.param(
            standing(load=0.6, active_jobs=5, unseen_jobs=2),
            0.2,
            id="the average of those that the load contains",
        ),
        pytest.param(standing(load=0.001, active_jobs=9), 0.05, id="idle jobs are not believed"),
        pytest.param(standing(load=None, active_jobs=9), 0.05, id="an unknown load"),
    ],
)
def test_the_share_of_one_job(standing: Standing, expected: float) -> None:
    assert share_of_one_job(standing) == pytest.approx(expected)


# ── laws ─────────────────────────────────────────────────────────────────────

loads = st.none() | st.floats(0.0, 2.0)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    active = draw(st.integers(0, 20))
    return standing(
        ready=draw(st.booleans()),
        load=draw(loads),
        load_threshold=draw(st.floats(0.0, 2.0) | st.just(math.inf)),
        unseen_jobs=draw(st.integers(0, active)),
        active_jobs=active,
        max_jobs=draw(st.none() | st.integers(1, 20)),
        cpus=draw(st.integers(1, 64)),
    )


@given(standings(), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_more_load_never_opens_the_door(standing: Standing, load: float, more: float) -> None:
    if refuse(replace(standing, load=load)) is not None:
        assert refuse(replace(standing, load=load + more)) is not None


@given(standings(), st.integers(1, 20))
def test_more_promised_jobs_never_open_the_door(standing: Standing, more: int) -> None:
    # A job that is admitted now is one that the measured load cannot contain.
    busier = replace(
        standing,
        active_jobs=standing.active_jobs + more,
        unseen_jobs=standing.unseen_jobs + more,
    )
    if refuse(standing) is not None:
        assert refuse(busier) is not None


@given(standings(), st.integers(1, 20))
def test_where_the_load_contains_every_job_more_of_them_never_open_the_door(
    standing: Standing, more: int
) -> None:
    seen = replace(standing, unseen_jobs=0)
    if refuse(seen) is not None:
        assert refuse(replace(seen, active_jobs=seen.active_jobs + more)) is not None


@given(standings(), st.integers(1, 20))
def test_admitting_one_after_the_other_never_passes_max_jobs(
    standing: Standing, max_jobs: int
) -> None:
    limits = replace(standing.limits, max_jobs=max_jobs)
    standing = replace(standing, limits=limits)
    started = standing.active_jobs
    for _ in range(50):
        if refuse(standing) is not None:
            break
        standing = replace(
            standing,
            active_jobs=standing.active_jobs + 1,
            unseen_jobs=standing.unseen_jobs + 1,
        )
    assert standing.active_jobs <= max(started, max_jobs)


@given(standings())
def test_every_refusal_has_one_of_three_reasons(standing: Standing) -> None:
    refusal = refuse(standing)
    assert refusal is None or refusal.reason in ("not ready", "max_jobs", "load")
