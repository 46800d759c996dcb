"""The caller's end of a job."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from collections.abc import Callable

import pytest

from supervisor.errors import JobCancelled, JobKilled, ResultError
from supervisor.handle import JobHandle
from supervisor.job import Exit, JobError, JobInfo, JobOutcome, JobStatus
from supervisor.results import Parcel, RemoteTraceback

SUCCEEDED = JobOutcome(JobStatus.SUCCEEDED)
RAISED = JobOutcome(JobStatus.FAILED, error=JobError("ValueError", "no", "Traceback …"))

Handle = JobHandle[object]


class FakePool:
    """Keeps the pool's promise: a job that waits is cancelled at once."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []

    def handle(self, *, cancel_with_caller: bool = False) -> Handle:
        return JobHandle(JobInfo("J-1"), cancel=self.cancel, cancel_with_caller=cancel_with_caller)

    def cancel(self, handle: Handle, reason: str) -> bool:
        self.cancelled.append((handle.id, reason))
        if handle.status is JobStatus.PENDING:
            handle._settle(JobOutcome(JobStatus.CANCELLED, reason=reason), None)
        return True


@pytest.fixture
def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def handle(pool: FakePool) -> Handle:
    return pool.handle()


async def waits(handle: Handle) -> asyncio.Task[object]:
    """Return a task that awaits *handle* and has got as far as it can."""

    async def caller() -> object:
        return await handle

    task = asyncio.get_running_loop().create_task(caller())
    await asyncio.sleep(0)
    assert not task.done()
    return task


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_there_is_one_handle_of_a_job(handle: Handle, copied: Callable[[Handle], object]) -> None:
    with pytest.raises(TypeError, match=r"a JobHandle cannot be copied or sent.*send its id"):
        copied(handle)


class Stop(BaseException):
    """No ``Exception``."""


@pytest.mark.parametrize("error", [Stop(), SystemExit(1), asyncio.CancelledError()], ids=repr)
async def test_whatever_a_callback_raises_those_who_wait_go_on(
    handle: Handle, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(done: Handle) -> None:
        raise error

    called: list[Handle] = []
    handle.add_done_callback(fails)
    handle.add_done_callback(called.append)
    waiting = await waits(handle)
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(42)))
    assert await waiting == 42
    assert called == [handle]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_an_interrupt_in_a_callback_ends_the_loop_and_nobody_waits_for_ever(
    handle: Handle,
) -> None:
    def interrupted(done: Handle) -> None:
        raise KeyboardInterrupt

    handle.add_done_callback(interrupted)
    waiting = await waits(handle)
    with pytest.raises(KeyboardInterrupt):
        handle._settle(SUCCEEDED, Parcel(pickle.dumps(42)))
    assert await waiting == 42


# ── where it stands ──────────────────────────────────────────────────────────


def test_a_handle_shows_where_its_job_stands(handle: Handle) -> None:
    assert repr(handle) == "<JobHandle J-1 pending>"
    assert (handle.id, handle.info, handle.pid, handle.outcome) == (
        "J-1",
        JobInfo("J-1"),
        None,
        None,
    )
    handle._running(4711)
    assert (handle.status, handle.pid) == (JobStatus.RUNNING, 4711)
    assert repr(handle) == "<JobHandle J-1 running pid 4711>"
    assert not handle.done()
    handle._settle(SUCCEEDED, None)
    assert handle.done()
    assert (handle.status, handle.outcome) == (JobStatus.SUCCEEDED, SUCCEEDED)
    assert repr(handle) == "<JobHandle J-1 succeeded pid 4711>"


def test_a_job_that_is_handed_over_again_waits_again(handle: Handle) -> None:
    handle._running(4711)
    handle._waiting_again()
    assert (handle.status, handle.pid) == (JobStatus.PENDING, None)


def test_a_second_outcome_is_our_bug(handle: Handle) -> None:
    handle._settle(SUCCEEDED, None)
    with pytest.raises(AssertionError, match="job J-1 got a second outcome"):
        handle._settle(SUCCEEDED, None)


# ── waiting ──────────────────────────────────────────────────────────────────


async def test_awaiting_a_handle_returns_what_the_job_returned(handle: Handle) -> None:
    caller = await waits(handle)
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(42)))
    assert await caller == 42


async def test_awaiting_a_handle_that_is_done_does_not_wait(handle: Handle) -> None:
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(42)))
    assert [await handle, await handle, handle.result()] == [42, 42, 42]


async def test_every_caller_gets_the_result(handle: Handle) -> None:
    callers = [await waits(handle) for _ in range(3)]
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(42)))
    assert await asyncio.gather(*callers) == [42, 42, 42]


async def test_awaiting_a_handle_raises_what_the_job_raised(handle: Handle) -> None:
    caller = await waits(handle)
    handle._settle(RAISED, Parcel(pickle.dumps(ValueError("no"))))
    with pytest.raises(ValueError, match="no") as caught:
        await caller
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    with pytest.raises(ValueError, match="no"):
        handle.result()


async def test_awaiting_a_job_that_was_killed_says_so(handle: Handle) -> None:
    handle._settle(JobOutcome(JobStatus.KILLED, exit=Exit(signal=9), pid=7), None)
    with pytest.raises(JobKilled, match="killed by SIGKILL"):
        await handle


async def test_awaiting_a_cancelled_job_raises_our_error_and_not_asyncios(handle: Handle) -> None:
    caller = await waits(handle)
    handle.cancel("enough")
    with pytest.raises(JobCancelled, match="enough"):
        await caller
    assert not caller.cancelled()


def exit_now() -> None:
    raise SystemExit(3)


class ExitsWhileUnpickled:
    """What a hostile or careless job may return."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return exit_now, ()


async def test_a_result_that_exits_while_it_is_opened_hits_only_its_caller(handle: Handle) -> None:
    caller = await waits(handle)
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(ExitsWhileUnpickled())))
    with pytest.raises(ResultError) as caught:
        await caller
    assert isinstance(caught.value.__cause__, SystemExit)


def interrupt() -> None:
    raise KeyboardInterrupt


class InterruptedWhileUnpickled:
    """Stands for a user who presses Ctrl-C while a result is opened."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return interrupt, ()


def test_an_interrupt_while_a_result_is_opened_is_not_taken_for_the_result(handle: Handle) -> None:
    handle._settle(SUCCEEDED, Parcel(pickle.dumps(InterruptedWhileUnpickled())))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            handle.result()


def test_an_interrupt_that_the_job_raised_is_kept_like_any_error_of_it(handle: Handle) -> None:
    handle._settle(RAISED, Parcel(pickle.dumps(KeyboardInterrupt("in the job"))))
    caught = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="in the job") as each:
            handle.result()
        caught.append(each.value)
    assert caught[0] is caught[1]


def test_a_result_is_opened_once_and_its_bytes_are_let_go(handle: Handle) -> None:
    handle._settle(SUCCEEDED, Parcel(pickle.dumps([1])))
    assert handle.result() is handle.result()


def test_a_result_is_not_there_before_the_outcome(handle: Handle) -> None:
    with pytest.raises(asyncio.InvalidStateError, match="job J-1 has not ended"):
        handle.result()


async def test_waiting_returns_the_outcome_and_never_raises_for_the_job(handle: Handle) -> None:
    waiting = asyncio.ensure_future(handle.wait())
    await asyncio.sleep(0)
    handle._settle(RAISED, None)
    assert await waiting is RAISED
    assert await handle.wait() is RAISED


async def test_a_waiter_that_gives_up_leaves_the_others(handle: Handle) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(handle.wait(), 0)
    caller = await waits(handle)
    given_up = await waits(handle)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    handle._settle(SUCCEEDED, None)
    assert await caller is None


async def test_a_waiter_that_is_cancelled_in_the_instant_of_the_outcome(handle: Handle) -> None:
    # 1. its future is cancelled, 2. the outcome comes, 3. only then does it run.
    caller = await waits(handle)
    caller.cancel()
    handle._settle(SUCCEEDED, None)
    with pytest.raises(asyncio.CancelledError):
        await caller


# ── cancelling ───────────────────────────────────────────────────────────────


def test_cancelling_asks_the_pool_and_says_whether_there_was_something_to_stop(
    pool: FakePool, handle: Handle
) -> None:
    handle._running(4711)
    assert handle.cancel()
    assert pool.cancelled == [("J-1", "cancelled")]
    handle._settle(SUCCEEDED, None)
    assert not handle.cancel("too late")
    assert len(pool.cancelled) == 1


@pytest.mark.parametrize(
    ("together", "expected"),
    [
        pytest.param(True, [("J-1", "the caller was cancelled")], id="stops the job if so asked"),
        pytest.param(False, [], id="leaves the job alone otherwise"),
    ],
)
async def test_cancelling_a_task_that_awaits(
    pool: FakePool, together: bool, expected: list[tuple[str, str]]
) -> None:
    handle = pool.handle(cancel_with_caller=together)
    handle._running(4711)
    caller = await waits(handle)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert pool.cancelled == expected
    assert not handle.done()


async def test_cancelling_a_task_that_only_waits_for_the_outcome_leaves_the_job_alone(
    pool: FakePool,
) -> None:
    handle = pool.handle(cancel_with_caller=True)
    waiting = asyncio.ensure_future(handle.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.cancelled == []


# ── callbacks ────────────────────────────────────────────────────────────────


def test_callbacks_are_called_once_in_order_with_the_outcome_there(handle: Handle) -> None:
    called: list[tuple[str, JobOutcome | None]] = []
    handle.add_done_callback(lambda done: called.append(("first", done.outcome)))
    handle.add_done_callback(lambda done: called.append(("second", done.outcome)))
    assert called == []
    handle._settle(SUCCEEDED, None)
    assert called == [("first", SUCCEEDED), ("second", SUCCEEDED)]


def test_a_callback_that_comes_late_is_called_at_once(handle: Handle) -> None:
    handle._settle(SUCCEEDED, None)
    called: list[Handle] = []
    handle.add_done_callback(called.append)
    assert called == [handle]


def test_a_callback_may_add_another(handle: Handle) -> None:
    called: list[str] = []
    handle.add_done_callback(lambda done: done.add_done_callback(lambda _: called.append("inner")))
    handle._settle(SUCCEEDED, None)
    assert called == ["inner"]


def test_a_callback_that_raises_is_logged_and_stops_nobody(
    handle: Handle, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_: Handle) -> None:
        raise RuntimeError("of the user")

    called: list[Handle] = []
    handle.add_done_callback(breaks)
    handle.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, logger="greenroom.job"):
        handle._settle(SUCCEEDED, None)
        handle.add_done_callback(breaks)
    assert called == [handle]
    assert [record.getMessage() for record in caplog.records] == [
        "a done callback of job J-1 raised"
    ] * 2
    assert "RuntimeError: of the user" in caplog.text


async def test_callbacks_run_before_those_who_wait_go_on(handle: Handle) -> None:
    order: list[str] = []

    async def waiter() -> None:
        await handle.wait()
        order.append("waiter")

    waiting = asyncio.ensure_future(waiter())
    await asyncio.sleep(0)
    handle.add_done_callback(lambda _: order.append("callback"))
    handle._settle(SUCCEEDED, None)
    await waiting
    assert order == ["callback", "waiter"]
