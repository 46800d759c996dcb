"""What a deed may say for a pool and for a server, and how it is told that one ended otherwise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.job import Exit, JobOutcome, JobStatus
from supervisor.testing import Deed, Lifecycles, check_lifecycles, lifecycle_machine
from supervisor.testing.deeds import NEVER_ENDS, Circumstances, Story, check_ending

FAILED = frozenset({JobStatus.FAILED})
IN_PEACE = Circumstances(harmed_workers=0, fork_server_died=False, is_server=False)


async def enter(ctx: object) -> None:
    """An entrypoint that nobody calls here."""


@pytest.fixture
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lifecycles, "open", lambda *_, **__: pytest.fail("it was started"))


# ── what is refused ──────────────────────────────────────────────────────────


@pytest.mark.usefixtures("_nothing_is_started")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("function", print),
        ("args", (1,)),
        ("check", callable),
        ("raises", ValueError),
        ("memory_limit_mb", 50.0),
    ],
)
def test_what_is_for_a_pool_is_refused_in_the_deed_of_a_server(field: str, value: object) -> None:
    odd: Any = {field: value}
    with pytest.raises(ValueError, match="only") as caught:
        check_lifecycles(Deed("fine", room="en"), Deed("odd", room="fr", **odd), entrypoint=enter)
    said = f"deed 'odd': {field} is for a pool only; a server's deed has room and metadata"
    assert str(caught.value) == said


@pytest.mark.usefixtures("_nothing_is_started")
@pytest.mark.parametrize("field", ["room", "metadata"])
def test_what_is_for_a_server_is_refused_in_the_deed_of_a_pool(field: str) -> None:
    odd: Any = {field: "en"}
    with pytest.raises(ValueError, match="only") as caught:
        check_lifecycles(Deed("fine", print), Deed("odd", **odd))
    assert str(caught.value) == (
        f"deed 'odd': {field} is for a server only, and no entrypoint was given; "
        "a pool's deed has function and args"
    )


def test_all_that_is_odd_in_a_deed_is_named() -> None:
    with pytest.raises(ValueError, match="'odd': function, args, check are for a pool only"):
        lifecycle_machine(Deed("odd", print, (1,), check=callable), entrypoint=enter)


@pytest.mark.usefixtures("_nothing_is_started")
def test_the_deed_of_a_pool_needs_a_function() -> None:
    with pytest.raises(ValueError, match="deed 'idles': function is missing, and no entrypoint"):
        check_lifecycles(Deed("fine", print), Deed("idles"))


@pytest.mark.usefixtures("_nothing_is_started")
@pytest.mark.parametrize("entrypoint", [None, enter], ids=["pool", "server"])
def test_what_is_no_deed_is_told_what_one_is(entrypoint: Any) -> None:
    plain: Any = print
    with pytest.raises(TypeError, match=r"print>: expected a Deed: Deed\('name', function\) for a"):
        check_lifecycles(plain, entrypoint=entrypoint)


@pytest.mark.parametrize(
    "ends",
    [
        JobStatus.SUCCEEDED,
        frozenset({"succeeded"}),
        "succeeded",
        "",
        None,
        {JobStatus.FAILED: True},
        frozenset({JobStatus.RUNNING}),
    ],
)
def test_ends_that_are_no_set_of_statuses_are_refused_where_the_deed_is_made(ends: Any) -> None:
    with pytest.raises(TypeError) as caught:
        Deed("odd", print, ends=ends)
    assert str(caught.value) == (
        f"deed 'odd': ends={ends!r}: expected a set of final JobStatus, such as "
        "frozenset({JobStatus.FAILED}), empty if it never ends by itself"
    )


def test_deeds_that_fit_are_taken() -> None:
    either: Any = {JobStatus.FAILED, JobStatus.KILLED}  # a plain set says the same
    pool = lifecycle_machine(
        Deed("works", print, ("text",), check=callable, memory_limit_mb=50.0),
        Deed("fails", print, ends=either, raises=ValueError, exit=Exit(status=1), reason="memory"),
        Deed("stays", print, ends=NEVER_ENDS, leaves_strays=True),
    )
    server = lifecycle_machine(
        Deed("enters", room="en", metadata="more"),
        Deed("fails", room="fr", ends=FAILED, exit=Exit(status=1), reason="memory"),
        entrypoint=enter,
    )
    assert [len(machine.deeds) for machine in (pool, server)] == [3, 2]


# ── what is told of one that ended against its word ──────────────────────────


def ended(deed: Deed, told: JobOutcome, *, asked: bool = False, value: object = None) -> Story:
    """Return the story of a job that ended so and, where it succeeded, returned *value*."""

    def result() -> object:
        if told.status is JobStatus.SUCCEEDED:
            return value
        raise KeyError("a word")

    handle: Any = SimpleNamespace(outcome=told, result=result)
    return Story("J-1", deed, handle, asked=asked)


def complaint(story: Story) -> str:
    """Return what is said of it, without the outcome as a whole."""
    with pytest.raises(AssertionError) as caught:
        check_ending(story, IN_PEACE)
    said = str(caught.value).partition("\n")[0]
    return said.replace(str(story.handle.outcome), "OUTCOME")


SOON = {"queued_at": 1.0, "started_at": 2.0, "ended_at": 3.0, "pid": 7}


def outcome(status: JobStatus, **more: object) -> JobOutcome:
    return JobOutcome(status, **cast("dict[str, Any]", {**SOON, **more}))


@pytest.mark.parametrize(
    ("ends", "asked", "expected"),
    [
        (frozenset({JobStatus.SUCCEEDED}), False, "expected succeeded"),
        (frozenset({JobStatus.CANCELLED, JobStatus.SUCCEEDED}), False, "succeeded or cancelled"),
        (frozenset({JobStatus.SUCCEEDED}), True, "expected succeeded, cancelled or killed"),
        (NEVER_ENDS, False, "expected that it never ends by itself"),
    ],
)
def test_how_it_might_have_ended_is_told_of_one_that_did_not(
    ends: frozenset[JobStatus], asked: bool, expected: str
) -> None:
    said = complaint(ended(Deed("lies", print, ends=ends), outcome(JobStatus.FAILED), asked=asked))
    assert said.startswith(f"J-1 (lies{'; asked' if asked else ''}) ended as OUTCOME: expected ")
    assert said.endswith(expected)


@pytest.mark.parametrize(
    ("deed", "told", "said"),
    [
        pytest.param(
            Deed("lies", print, ends=FAILED, exit=Exit(status=7)),
            outcome(JobStatus.FAILED, exit=Exit(status=1)),
            "J-1 (lies) ended as OUTCOME: expected exit status 7",
            id="another exit",
        ),
        pytest.param(
            Deed("lies", print, ends=FAILED, reason="memory"),
            outcome(JobStatus.FAILED, reason="timeout"),
            "J-1 (lies) ended as OUTCOME: expected the reason 'memory'",
            id="another reason",
        ),
        pytest.param(
            Deed("lies", print, ends=FAILED, raises=ValueError),
            outcome(JobStatus.FAILED),
            "J-1 (lies) raised KeyError('a word'): expected ValueError",
            id="another exception",
        ),
        pytest.param(
            Deed("lies", print, check=bool),
            outcome(JobStatus.SUCCEEDED),
            "J-1 (lies) returned None: its check says no",
            id="another value",
        ),
        pytest.param(
            Deed("lies", print),
            outcome(JobStatus.SUCCEEDED, queued_at=5.0),
            "J-1 (lies) ended as OUTCOME: expected that it is queued, starts and ends in this order",
            id="an end before the beginning",
        ),
        pytest.param(
            Deed("lies", print),
            outcome(JobStatus.SUCCEEDED, pid=None),
            "J-1 (lies) ended as OUTCOME: expected a pid, for it had started",
            id="no process",
        ),
    ],
)
def test_so_is_whatever_else_was_said_of_it(deed: Deed, told: JobOutcome, said: str) -> None:
    assert complaint(ended(deed, told)) == said
