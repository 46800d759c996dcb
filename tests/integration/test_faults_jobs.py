"""Jobs that end badly, fall silent, leave things behind, or take too much memory."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    JobCancelled,
    JobKilled,
    JobOutcome,
    JobProcess,
    JobStatus,
    ProcessPool,
    WorkerLost,
)
from supervisor.events import WorkerExited
from tests.children import fails_to_warm, misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import (
    Watch,
    all_gone,
    is_gone,
    is_stopped,
    make_server,
    read_pids,
    running,
    until,
)

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("context", ["forkserver", "spawn"])


def pool(context: str = "forkserver", **options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 1)
    return ProcessPool(multiprocessing_context=context, **options)


async def outcome_of(handle: Any) -> JobOutcome:
    outcome = await soon(handle.wait())
    assert isinstance(outcome, JobOutcome)
    return outcome


# ── a job that raises, or whose process ends ─────────────────────────────────


@both
@pytest.mark.parametrize(
    ("function", "argument", "status", "ending", "error"),
    [
        pytest.param(
            misbehaves.exits_hard,
            3,
            JobStatus.FAILED,
            "exit status 3",
            WorkerLost,
            id="os._exit is a failure",
        ),
        pytest.param(
            misbehaves.exits_hard,
            0,
            JobStatus.FAILED,
            "exit status 0",
            WorkerLost,
            id="os._exit(0) is a failure as well",
        ),
        pytest.param(
            misbehaves.dies_of,
            signal.SIGSEGV,
            JobStatus.FAILED,
            "killed by SIGSEGV",
            WorkerLost,
            id="a segmentation fault is a failure",
        ),
        pytest.param(
            misbehaves.dies_of,
            signal.SIGKILL,
            JobStatus.KILLED,
            "killed by SIGKILL",
            JobKilled,
            id="SIGKILL from outside is a kill",
        ),
        pytest.param(
            misbehaves.dies_of_later,
            signal.SIGABRT,
            JobStatus.FAILED,
            "killed by SIGABRT",
            WorkerLost,
            id="an abort in an async function is a failure",
        ),
    ],
)
async def test_a_call_whose_process_ends_fails_alone(
    context: str,
    function: Callable[..., Any],
    argument: int,
    status: JobStatus,
    ending: str,
    error: type[Exception],
    tmp_path: Path,
) -> None:
    async with pool(context, num_idle_processes=2, max_jobs=2) as p:
        bystander = p.submit(misbehaves.wait_for_file, os.fspath(tmp_path / "go"))
        handle = p.submit(function, argument)
        with pytest.raises(error, match=ending):
            await soon(handle)
        outcome = await outcome_of(handle)
        assert (outcome.status, outcome.reason, str(outcome.exit)) == (status, "", ending)
        assert outcome.error is not None
        assert ending in outcome.error.message
        assert not bystander.done()
        (tmp_path / "go").touch()
        assert await soon(bystander) == "done"


@both
async def test_sys_exit_in_a_call_is_the_exception_of_the_call(context: str) -> None:
    async with pool(context) as p:
        handle = p.submit(misbehaves.exits_softly, 3)
        assert (await outcome_of(handle)).status is JobStatus.FAILED
        with pytest.raises(SystemExit) as caught:
            await handle  # not in a task of its own: SystemExit would end the loop
        assert caught.value.code == 3


async def test_so_is_a_keyboard_interrupt_and_the_pool_goes_on() -> None:
    async with pool() as p:
        handle = p.submit(jobs.interrupt_oneself)
        assert (await outcome_of(handle)).status is JobStatus.FAILED
        with pytest.raises(KeyboardInterrupt, match="in the job"):
            await handle  # not in a task of its own, as above
        assert await soon(p.submit(jobs.double, 1)) == 2


@pytest.mark.parametrize("entrypoint", [misbehaves.entrypoint, misbehaves.async_entrypoint])
@pytest.mark.parametrize(
    ("room", "status", "said"),
    [
        pytest.param(
            "raises", JobStatus.FAILED, "RuntimeError: the entrypoint failed", id="raises"
        ),
        pytest.param("exits hard", JobStatus.FAILED, "exit status 3", id="exits hard"),
        pytest.param("exits softly", JobStatus.FAILED, "SystemExit: 3", id="exits softly"),
        pytest.param("exits softly with 0", JobStatus.SUCCEEDED, "", id="exits softly with 0"),
        pytest.param("SIGSEGV", JobStatus.FAILED, "killed by SIGSEGV", id="crashes"),
        pytest.param("SIGKILL", JobStatus.KILLED, "killed by SIGKILL", id="is killed"),
    ],
)
async def test_a_session_whose_entrypoint_fails_fails_alone(
    entrypoint: Callable[..., Any],
    room: str,
    status: JobStatus,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = make_server(entrypoint, num_idle_processes=2)
    async with running(server, tmp_path, monkeypatch) as watch:
        go = tmp_path / "go"
        (bystander,) = await server.submit_job(room="waits", metadata=os.fspath(go))
        (handle,) = await server.submit_job(room=room)
        outcome = await outcome_of(handle)
        assert outcome.status is status
        assert said in str(outcome.error or "")
        if room == "raises":
            assert outcome.error is not None
            assert "in raises" in outcome.error.traceback
        await watch.until_exited(outcome.pid)
        await watch.until_idle(2)
        assert not bystander.done()
        go.touch()
        assert (await outcome_of(bystander)).status is JobStatus.SUCCEEDED


@both
async def test_a_job_that_raises_ends_its_worker_and_nothing_else(context: str) -> None:
    p = pool(context)
    with Watch(p) as watch:
        async with p:
            handle = p.submit(misbehaves.raises, "no such luck")
            with pytest.raises(RuntimeError, match="no such luck"):
                await soon(handle)
            exited = await watch.until_exited(handle.pid)
            assert (str(exited.exit), exited.jobs_served) == ("exit status 0", 1)
            assert await soon(p.submit(jobs.double, 21)) == 42


# ── silence ──────────────────────────────────────────────────────────────────


@both
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(misbehaves.stops_itself, id="stopped by SIGSTOP"),
        pytest.param(misbehaves.holds_the_gil, id="stuck in C with the GIL"),
    ],
)
async def test_a_job_whose_worker_falls_silent_is_killed(
    context: str, function: Callable[..., Any]
) -> None:
    async with pool(context, ping_interval=0.1, ping_timeout=1.0) as p:
        handle = p.submit(function)
        with pytest.raises(JobKilled, match="silent"):
            await soon(handle)
        outcome = await outcome_of(handle)
        assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "silent")
        assert outcome.error is not None
        assert "no answer for" in outcome.error.message
        assert outcome.pid is not None
        assert is_gone(outcome.pid)


async def test_a_session_stuck_in_c_with_the_gil_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(misbehaves.async_entrypoint, ping_interval=0.1, ping_timeout=1.0)
    async with running(server, tmp_path, monkeypatch):
        (handle,) = await server.submit_job(room="holds the gil")
        outcome = await outcome_of(handle)
        assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "silent")


def says_goodbye(proc: JobProcess) -> None:
    atexit.register(time.sleep, 1.5)


@pytest.mark.parametrize("served", [1, None])
async def test_a_worker_that_takes_its_time_to_leave_is_not_silent(served: int | None) -> None:
    reports: list[WorkerExited] = []
    async with pool(
        "forkserver",
        setup_fnc=says_goodbye,
        max_jobs_per_process=served,
        ping_interval=0.1,
        ping_timeout=0.5,
        shutdown_process_timeout=60,
    ) as p:
        p.on("worker_exited", reports.append)
        assert await soon(p.submit(jobs.double, 21)) == 42
        await until(lambda: p.stats().idle > 0)
    assert reports
    assert [each.exit.status for each in reports if each.exit is not None] == [0] * len(reports)


async def test_the_last_stack_of_a_stuck_loop_is_in_the_log_and_in_the_error(
    tmp_path: Path,
) -> None:
    p = pool(ping_interval=0.1, ping_timeout=1.0, high_ping_threshold=0.1)
    with Watch(p) as watch:
        async with p:
            go = tmp_path / "go"
            handle = p.submit(misbehaves.blocks_its_loop_then_holds_the_gil, os.fspath(go))
            # 1. The loop stands still and the worker's other thread says where.
            assert "waits_where_the_loop_cannot_turn" in await watch.until_logged(
                f"the event loop of job {handle.id} has not turned"
            )
            # 2. Then nothing of the worker runs any more.
            go.touch()
            outcome = await outcome_of(handle)
            assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "silent")
            assert outcome.error is not None
            assert "waits_where_the_loop_cannot_turn" in outcome.error.message
            assert "waits_where_the_loop_cannot_turn" in watch.logged("has been silent")[0]


async def test_a_stopped_job_that_is_cancelled_is_gone_when_the_grace_is_over() -> None:
    async with pool(shutdown_process_timeout=0.2) as p:
        handle = p.submit(misbehaves.stops_itself)
        await until(lambda: handle.pid is not None and is_stopped(handle.pid))
        assert handle.cancel()
        with pytest.raises(JobKilled, match="grace"):
            await soon(handle)


# ── death in the instant of the hand-over ────────────────────────────────────


@both
async def test_a_job_whose_worker_dies_before_it_began_runs_elsewhere_exactly_once(
    context: str, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    p = pool(context)
    with Watch(p) as watch:
        async with p:
            (pid,) = watch.warm
            # 1. The idle worker stops: it will not read what is sent to it.
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: is_stopped(pid))
            # 2. It is handed a job.
            handle = p.submit(misbehaves.note_pid, os.fspath(ran))
            assert p.stats().running == 1
            # 3. It dies with the job in its socket.
            os.kill(pid, signal.SIGKILL)
            await soon(handle)
            assert await watch.until_logged(f"before it began job {handle.id}")
            assert read_pids(ran) == [handle.pid]
            assert handle.pid != pid
            assert p.stats().total_handed_again == 1


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        pytest.param(7, "exit status 7", id="that exits"),
        pytest.param(None, "killed by SIGKILL", id="that is killed"),
    ],
)
async def test_a_job_is_handed_to_three_workers_that_die_of_it_and_to_no_fourth(
    status: int | None, ending: str
) -> None:
    p = pool(setup_fnc=fails_to_warm.stops_reading_when_a_job_comes, user_arguments=status)
    with Watch(p) as watch:
        async with p:
            handle = p.submit(jobs.double, 21)
            with pytest.raises(WorkerLost, match=ending):
                await soon(handle)
            outcome = await outcome_of(handle)
            assert outcome.status is JobStatus.FAILED
            assert outcome.started_at is None
            assert outcome.error is not None
            assert ending in outcome.error.message
            await watch.until_exited(outcome.pid)
            died = [each for each in watch.exits if str(each.exit) == ending]
            assert len(died) == 3
            assert p.stats().total_handed_again == 2


# ── what a job leaves behind ─────────────────────────────────────────────────


@both
@pytest.mark.parametrize(
    "function",
    [
        misbehaves.leaves_a_child,
        misbehaves.leaves_a_child_in_its_own_session,
        misbehaves.leaves_a_daemon,
    ],
    ids=["in its group", "in a session of its own", "forked twice"],
)
async def test_a_descendant_does_not_outlive_its_job(
    context: str, function: Callable[..., Any], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    async with pool(context) as p:
        await soon(p.submit(function, os.fspath(left)))
        (pid,) = read_pids(left)
        await until(lambda: is_gone(pid))


async def test_descendants_do_not_outlive_a_job_that_crashes(tmp_path: Path) -> None:
    left = tmp_path / "left"
    async with pool() as p:
        with pytest.raises(WorkerLost, match="SIGSEGV"):
            await soon(p.submit(misbehaves.leaves_all_three_and_crashes, os.fspath(left)))
        pids = read_pids(left)
        assert len(pids) == 3
        await until(lambda: all_gone(pids))


async def test_descendants_do_not_outlive_a_job_that_is_cancelled(tmp_path: Path) -> None:
    left = tmp_path / "left"
    async with pool() as p:
        handle = p.submit(misbehaves.leaves_all_three_and_goes_on, os.fspath(left))
        await until(lambda: len(read_pids(left)) == 3)
        handle.cancel()
        with pytest.raises(JobCancelled):
            await soon(handle)
        await until(lambda: all_gone(read_pids(left)))


@both
async def test_a_thread_that_is_no_daemon_ends_with_its_job(context: str) -> None:
    p = pool(context)
    with Watch(p) as watch:
        async with p:
            pid = await soon(p.submit(misbehaves.leaves_a_thread))
            assert str((await watch.until_exited(pid)).exit) == "exit status 0"


# ── memory ───────────────────────────────────────────────────────────────────


@both
async def test_a_job_whose_process_tree_is_over_its_memory_limit_is_killed(context: str) -> None:
    p = pool(context)
    with Watch(p) as watch:
        async with p:
            handle = p.schedule(
                misbehaves.takes_memory_with_a_child, args=(240,), memory_limit_mb=200
            )
            with pytest.raises(JobKilled, match=r"memory: \d+ MB measured, the limit is 200 MB"):
                await soon(handle)
            outcome = await outcome_of(handle)
            assert (outcome.status, outcome.reason) == (JobStatus.KILLED, "memory")
            assert outcome.error is not None
            assert "MB measured, the limit is 200 MB" in outcome.error.message
            measured = float(outcome.error.message.split("memory: ")[1].split(" MB")[0])
            assert 200 < measured < 400
            assert watch.logged(f"job {handle.id} is killed: {measured:.0f} MB measured")


# ── floods ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("function", "heard_as"),
    [
        pytest.param(misbehaves.logs_for_ever, "flood", id="of log records"),
        pytest.param(misbehaves.prints_for_ever, "greenroom.stdout", id="of printed lines"),
    ],
)
async def test_a_flood_holds_up_neither_other_jobs_nor_its_own_pings(
    function: Callable[..., Any], heard_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = 0
    flowing = asyncio.Event()

    class Counter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal heard
            heard += 1
            if heard >= 1000:
                flowing.set()

    logger = logging.getLogger(heard_as)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [Counter()])
    monkeypatch.setattr(logger, "level", logging.INFO)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    async with pool(
        num_idle_processes=2,
        max_jobs=2,
        capture_output=True,
        ping_interval=0.1,
        ping_timeout=5.0,
        high_ping_threshold=math.inf,
    ) as p:
        flood = p.submit(function)
        await soon(flowing.wait())
        for number in range(10):
            before = heard
            assert await soon(p.submit(jobs.double, number)) == 2 * number
            await until(lambda so_far=before: heard > so_far)  # type: ignore[misc]
        assert flood.status is JobStatus.RUNNING
        flood.cancel()
        with pytest.raises(JobCancelled):
            await soon(flood)
