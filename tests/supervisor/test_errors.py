"""The errors: what each one is, carries and says."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from supervisor import errors
from supervisor.errors import (
    JobCancelled,
    JobKilled,
    JobRaised,
    JobRejected,
    JobTimedOut,
    JobWasCancelled,
    NotAdmitted,
    OptionError,
    PoolClosed,
    PreloadFailed,
    ResultError,
    SetupFailed,
    SupervisorError,
    TooManyRestarts,
    WorkerLost,
)
from supervisor.job import Exit

SAYS = [
    pytest.param(PoolClosed("the pool is shut"), "the pool is shut", id="a closed pool"),
    pytest.param(ResultError("no pickle"), "no pickle", id="a result that cannot be opened"),
    pytest.param(NotAdmitted("draining"), "not admitted: draining", id="not admitted"),
    pytest.param(
        NotAdmitted("load", "0.93 of 0.7"),
        "not admitted: load (0.93 of 0.7)",
        id="not admitted, with figures",
    ),
    pytest.param(JobRejected(), "rejected by on_request", id="rejected"),
    pytest.param(JobRejected("no such room"), "no such room", id="rejected for a reason"),
    pytest.param(SetupFailed("setup_fnc raised"), "setup_fnc raised", id="a failed setup"),
    pytest.param(
        SetupFailed("setup_fnc raised", "Traceback …"),
        "setup_fnc raised\n\nTraceback …",
        id="a failed setup with its traceback",
    ),
    pytest.param(
        PreloadFailed("a thread is left", "Traceback …"),
        "a thread is left\n\nTraceback …",
        id="a failed preload",
    ),
    pytest.param(TooManyRestarts("setup keeps failing"), "setup keeps failing", id="too many"),
    pytest.param(
        WorkerLost(7, Exit(status=3)),
        "worker 7 ended while it ran the job: exit status 3",
        id="a worker that ended",
    ),
    pytest.param(
        WorkerLost(7, Exit(signal=11), "its own fault"),
        "worker 7 ended while it ran the job: killed by SIGSEGV (its own fault)",
        id="a worker that ended by a signal, with what is known",
    ),
    pytest.param(
        WorkerLost(7, None), "worker 7 ended while it ran the job", id="nothing but its end"
    ),
    pytest.param(
        JobKilled(7, Exit(signal=9), "memory"),
        "the job in worker 7 was killed: killed by SIGKILL (memory)",
        id="a job that was killed",
    ),
    pytest.param(
        JobKilled(7, Exit(signal=9), "memory", "worker 7: killed by SIGKILL (memory: 309 MB)"),
        "the job was killed: worker 7: killed by SIGKILL (memory: 309 MB)",
        id="a job that was killed, with the figures",
    ),
    pytest.param(
        WorkerLost(7, Exit(status=3), "", "worker 7: exit status 3"),
        "the job was lost: worker 7: exit status 3",
        id="a worker that ended, with all that is known",
    ),
    pytest.param(
        JobTimedOut(2.5), "the job ran longer than its timeout of 2.5 s", id="a job out of time"
    ),
    pytest.param(JobTimedOut(60.0), "the job ran longer than its timeout of 60 s", id="a minute"),
    pytest.param(JobWasCancelled(), "cancelled", id="a cancelled job"),
    pytest.param(JobWasCancelled("drain deadline"), "drain deadline", id="cancelled for a reason"),
    pytest.param(
        JobRaised("ValueError", "no"), "ValueError: no", id="an error that could not travel"
    ),
    pytest.param(
        OptionError("port", "x", "a whole number"),
        "port='x': expected a whole number",
        id="a bad option",
    ),
]


@pytest.mark.parametrize(("error", "text"), SAYS)
def test_an_error_says_what_happened(error: SupervisorError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(("error", "text"), SAYS)
def test_an_error_survives_a_pickle_and_a_copy(error: SupervisorError, text: str) -> None:
    # An error may travel: a job may itself use a pool, and raise what that raised.
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == text
        assert twin.__dict__ == error.__dict__


@pytest.mark.parametrize(
    ("error", "also"),
    [
        pytest.param(PoolClosed, RuntimeError, id="a closed pool"),
        pytest.param(SetupFailed, BrokenExecutor, id="a failed setup"),
        pytest.param(PreloadFailed, BrokenExecutor, id="a failed preload"),
        pytest.param(TooManyRestarts, BrokenExecutor, id="too many restarts"),
        pytest.param(WorkerLost, BrokenProcessPool, id="a lost worker"),
        pytest.param(JobKilled, BrokenProcessPool, id="a killed job"),
        pytest.param(JobTimedOut, TimeoutError, id="a job out of time"),
        pytest.param(OptionError, ValueError, id="a bad option"),
        pytest.param(OptionError, TypeError, id="an option of a bad type"),
    ],
)
def test_an_error_is_also_what_a_caller_of_the_standard_library_expects(
    error: type[Exception], also: type[Exception]
) -> None:
    assert issubclass(error, also)


def test_every_error_here_is_an_error_of_the_library() -> None:
    here = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and each.__module__ == errors.__name__
    ]
    assert len(here) >= 12
    # What strikes a job from outside is no error of what it strikes.
    assert [each for each in here if not issubclass(each, SupervisorError)] == [JobCancelled]


def test_a_request_to_stop_passes_through_code_that_catches_every_exception() -> None:
    assert not issubclass(JobCancelled, Exception)
    assert issubclass(JobWasCancelled, JobCancelled)


@pytest.mark.parametrize(("error", "text"), SAYS)
def test_the_tree_at_the_head_of_the_module_names_it(error: SupervisorError, text: str) -> None:
    assert errors.__doc__ is not None
    assert f"── {type(error).__name__} " in errors.__doc__
    assert text


def test_errors_carry_their_fields() -> None:
    lost = WorkerLost(7, Exit(status=3), "why")
    assert (lost.pid, lost.exit, lost.reason) == (7, Exit(status=3), "why")
    rejected = JobRejected("no", terminate=True)
    assert (rejected.reason, rejected.terminate) == ("no", True)
    option = OptionError("port", "x", "a number")
    assert (option.name, option.value, option.expected) == ("port", "x", "a number")
    setup = SetupFailed("what", "trace")
    assert (setup.what, setup.traceback) == ("what", "trace")
    assert JobTimedOut(2.5).seconds == 2.5
    admitted = NotAdmitted("load", "0.9")
    assert (admitted.reason, admitted.detail) == ("load", "0.9")
