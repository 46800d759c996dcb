"""What a job handed back, opened by the caller: its value, its exception, or what stands for it."""

from __future__ import annotations

import os
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given, strategies as st

from ipc import fds
from ipc.errors import PayloadTooLarge, ProtocolError
from supervisor.errors import (
    JobKilled,
    JobRaised,
    JobRejected,
    JobTimedOut,
    JobWasCancelled,
    ResultError,
    WorkerLost,
)
from supervisor.job import Exit, JobError, JobOutcome, JobStatus
from supervisor.results import (
    DATA,
    Parcel,
    RemoteTraceback,
    SealedMemory,
    error_of,
    open_parcel as opened,
)

SUCCEEDED = JobOutcome(JobStatus.SUCCEEDED)
RAISED = JobOutcome(JobStatus.FAILED, error=JobError("ValueError", "no", "Traceback …\n"))


def open_parcel(outcome: JobOutcome, parcel: Parcel | None) -> object:
    """Return the value or raise the error, as everybody does with what comes of opening."""
    value, error = opened(outcome, parcel)
    if error is not None:
        raise error
    return value


class Unpickled:
    """Calls something while it is unpickled, as a job's result can."""

    def __init__(self, what: object, *args: object) -> None:
        self.what = what
        self.args = args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.what, self.args


def exit_now() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise LookupError("no such thing here")


class TwoArguments(Exception):
    """Cannot be unpickled, like many of users' exceptions: its args are not those of __init__."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

# ── values ───────────────────────────────────────────────────────────────────


@given(plain)
def test_a_value_comes_out_as_it_went_in(value: object) -> None:
    assert open_parcel(SUCCEEDED, Parcel(pickle.dumps(value))) == value
    assert open_parcel(SUCCEEDED, Parcel(bytearray(pickle.dumps(value)))) == value
    assert open_parcel(SUCCEEDED, Parcel(msgspec.msgpack.encode(value), DATA)) == value


@pytest.mark.parametrize(
    "parcel",
    [
        pytest.param(None, id="no parcel"),
        pytest.param(Parcel(None), id="an empty parcel"),
        pytest.param(Parcel(), id="a parcel of nothing"),
    ],
)
def test_a_job_that_handed_back_nothing_returned_none(parcel: Parcel | None) -> None:
    assert open_parcel(SUCCEEDED, parcel) is None


@pytest.mark.parametrize(
    ("content", "encoding", "text"),
    [
        pytest.param(b"garbage", "pickle", "UnpicklingError", id="bytes that are no pickle"),
        pytest.param(b"", "pickle", "EOFError", id="no bytes"),
        pytest.param(b"\xc1", DATA, "DecodeError", id="bytes that are no data"),
        pytest.param(
            pickle.dumps(Unpickled(fail)),
            "pickle",
            "LookupError: no such thing here",
            id="a pickle that raises",
        ),
        pytest.param(
            pickle.dumps(Unpickled(exit_now)), "pickle", "SystemExit: 3", id="a pickle that exits"
        ),
    ],
)
def test_what_cannot_be_opened_is_a_result_error_with_its_cause(
    content: bytes, encoding: str, text: str
) -> None:
    with pytest.raises(ResultError) as caught:
        open_parcel(SUCCEEDED, Parcel(content, encoding))
    assert str(caught.value).startswith("the job's result could not be unpickled: ")
    assert text in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_interrupt_of_the_user_while_unpickling_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt):
        open_parcel(SUCCEEDED, Parcel(pickle.dumps(Unpickled(interrupt))))


def test_data_is_never_unpickled() -> None:
    with pytest.raises(ResultError, match="DecodeError"):
        open_parcel(SUCCEEDED, Parcel(pickle.dumps(Unpickled(exit_now)), DATA))


# ── errors ───────────────────────────────────────────────────────────────────


def test_a_jobs_exception_comes_home_as_itself_with_the_remote_traceback() -> None:
    parcel = Parcel(pickle.dumps(ValueError("no")))
    with pytest.raises(ValueError, match="no") as caught:
        open_parcel(RAISED, parcel)
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert cause.text == "Traceback …\n"
    shown = "".join(traceback.format_exception(caught.value))
    assert '"""\nTraceback …\n"""' in shown


def test_without_a_remote_traceback_there_is_no_cause() -> None:
    outcome = JobOutcome(JobStatus.FAILED, error=JobError("ValueError", "no"))
    error = error_of(outcome, Parcel(pickle.dumps(ValueError("no"))))
    assert isinstance(error, ValueError)
    assert error.__cause__ is None


def test_an_exit_of_the_job_comes_home_as_an_exit() -> None:
    error = error_of(RAISED, Parcel(pickle.dumps(SystemExit(3))))
    assert isinstance(error, SystemExit)
    assert error.code == 3


def test_an_interrupt_that_the_job_raised_is_its_error_and_not_the_users() -> None:
    value, error = opened(RAISED, Parcel(pickle.dumps(KeyboardInterrupt("in the job"))))
    assert value is None
    assert isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # this one is the user's, as before
        opened(RAISED, Parcel(pickle.dumps(Unpickled(interrupt))))


@pytest.mark.parametrize(
    "parcel",
    [
        pytest.param(None, id="no parcel"),
        pytest.param(Parcel(None), id="an exception that could not be pickled"),
        pytest.param(Parcel(b"\x90", DATA), id="data-only results"),
    ],
)
def test_where_only_its_text_came_home_something_stands_for_it(parcel: Parcel | None) -> None:
    error = error_of(RAISED, parcel)
    assert isinstance(error, JobRaised)
    assert (error.type, error.message) == ("ValueError", "no")
    assert str(error) == "ValueError: no"
    assert isinstance(error.__cause__, RemoteTraceback)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(pickle.dumps(TwoArguments("this", "that")), "TypeError", id="odd constructor"),
        pytest.param(pickle.dumps(Unpickled(exit_now)), "SystemExit: 3", id="an exit"),
        pytest.param(
            pickle.dumps("a text"), "expected an exception from the job, got str", id="no exception"
        ),
    ],
)
def test_an_exception_that_cannot_be_opened_is_a_result_error(content: bytes, text: str) -> None:
    error = error_of(RAISED, Parcel(content))  # returned, not raised: an executor stores it
    assert isinstance(error, ResultError)
    assert text in str(error)
    with pytest.raises(ResultError):
        open_parcel(RAISED, Parcel(content))


KILLED = Exit(signal=9)


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        pytest.param(
            JobOutcome(JobStatus.CANCELLED, reason="shutdown"),
            JobWasCancelled,
            "shutdown",
            id="cancelled for a reason",
        ),
        pytest.param(
            JobOutcome(JobStatus.CANCELLED), JobWasCancelled, "cancelled", id="just cancelled"
        ),
        pytest.param(
            JobOutcome(JobStatus.CANCELLED, error=JobError("JobCancelled", "")),
            JobWasCancelled,
            "cancelled",
            id="cancelled, and it raised for that",
        ),
        pytest.param(
            JobOutcome(JobStatus.TIMED_OUT),
            JobTimedOut,
            "the job ran longer than its timeout of 2.5 s",
            id="timed out",
        ),
        pytest.param(
            JobOutcome(JobStatus.KILLED, exit=KILLED, pid=7, reason="memory"),
            JobKilled,
            "the job in worker 7 was killed: killed by SIGKILL (memory)",
            id="killed",
        ),
        pytest.param(
            JobOutcome(JobStatus.REJECTED),
            JobRejected,
            "rejected by on_request",
            id="just rejected",
        ),
        pytest.param(
            JobOutcome(JobStatus.REJECTED, reason="no such room"),
            JobRejected,
            "no such room",
            id="rejected for a reason",
        ),
        pytest.param(
            JobOutcome(JobStatus.FAILED, exit=Exit(status=1), pid=7),
            WorkerLost,
            "worker 7 ended while it ran the job: exit status 1",
            id="its worker ended",
        ),
        pytest.param(
            JobOutcome(JobStatus.FAILED, exit=KILLED, pid=7, reason="protocol"),
            WorkerLost,
            "worker 7 ended while it ran the job: killed by SIGKILL (protocol)",
            id="its worker broke the protocol",
        ),
    ],
)
def test_each_outcome_has_its_error(
    outcome: JobOutcome, kind: type[BaseException], text: str
) -> None:
    parcel = Parcel(None, timeout=2.5)
    assert type(error_of(outcome, parcel)) is kind
    assert str(error_of(outcome, parcel)) == text
    with pytest.raises(kind):
        open_parcel(outcome, parcel)


def test_every_final_status_but_success_has_an_error() -> None:
    for status in JobStatus:
        if status.is_final and status is not JobStatus.SUCCEEDED:
            for parcel in (None, Parcel()):
                assert isinstance(error_of(JobOutcome(status), parcel), Exception)


def test_an_error_of_this_process_is_raised_as_it_is() -> None:
    error = RuntimeError("ours")
    for status in (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.KILLED):
        with pytest.raises(RuntimeError) as caught:
            open_parcel(JobOutcome(status), Parcel(error=error))
        assert caught.value is error


def test_what_stands_for_a_jobs_exception_can_itself_be_pickled() -> None:
    twin = pickle.loads(pickle.dumps(JobRaised("ValueError", "no")))
    assert (twin.type, twin.message) == ("ValueError", "no")
    assert str(pickle.loads(pickle.dumps(RemoteTraceback("text")))) == '\n"""\ntext"""'


# ── large results ────────────────────────────────────────────────────────────


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_large_result_is_read_when_it_is_opened() -> None:
    content = pickle.dumps("x" * 100_000)
    fd = fds.write_memory(content)
    memory = SealedMemory(fd, max_bytes=200_000)
    assert memory.size == len(content)
    for _ in range(2):
        assert open_parcel(SUCCEEDED, Parcel(memory)) == "x" * 100_000
    assert is_open(fd)
    memory.close()
    memory.close()
    assert not is_open(fd)


def test_a_large_exception_comes_home_as_itself() -> None:
    memory = SealedMemory(fds.write_memory(pickle.dumps(ValueError("x" * 100_000))), 200_000)
    error = error_of(RAISED, Parcel(memory))
    assert isinstance(error, ValueError)


def test_a_large_result_that_nobody_wants_is_let_go() -> None:
    fd = fds.write_memory(b"x")
    memory = SealedMemory(fd, max_bytes=1)
    del memory
    assert not is_open(fd)


@pytest.mark.parametrize("sealed", [True, False], ids=["too large", "not sealed"])
def test_memory_that_is_refused_is_closed(sealed: bool) -> None:
    fd = fds.write_memory(b"xx") if sealed else os.memfd_create("unsealed")
    with pytest.raises(PayloadTooLarge if sealed else ProtocolError):
        SealedMemory(fd, max_bytes=1)
    assert not is_open(fd)


def test_memory_that_was_closed_is_a_result_error() -> None:
    memory = SealedMemory(fds.write_memory(b"x"), max_bytes=1)
    memory.close()
    with pytest.raises(ResultError):
        open_parcel(SUCCEEDED, Parcel(memory))
