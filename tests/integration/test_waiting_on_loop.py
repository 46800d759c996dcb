"""A worker whose entrypoint is a coroutine waits for its job inside the loop: nobody can tell."""

from __future__ import annotations

import asyncio
import atexit
import decimal
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobContext, JobProcess, JobStatus, get_job_context
from tests.integration.reports import Reports, reports_in
from tests.integration.serving import run_job, serving
from tests.integration.watch import is_gone, until


@pytest.fixture
def reports(leaves_nothing: None, tmp_path: Path) -> Iterator[Reports]:
    with reports_in(tmp_path) as opened:
        yield opened


async def test_its_job_sees_a_loop_that_runs_and_a_task_that_is_its_own(reports: Reports) -> None:
    say = reports.say

    def prewarm(proc: JobProcess) -> None:
        decimal.getcontext().prec = 7  # which a context variable holds

    async def entrypoint(ctx: JobContext) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        others = len(asyncio.all_tasks()) - 1
        await asyncio.sleep(0)
        say(
            "seen",
            facts=[
                loop.is_running(),
                ctx is get_job_context(),
                others,
                decimal.getcontext().prec,
                asyncio.current_task() is task,
            ],
        )

    for served in (1, 2):
        async with serving(entrypoint, setup_fnc=prewarm, max_jobs_per_process=served) as server:
            for _ in range(3):
                assert (await run_job(server)).status is JobStatus.SUCCEEDED
    assert [seen["facts"] for seen in reports.of("seen")] == [[True, True, 0, 7, True]] * 6


async def test_its_exit_hooks_may_run_loops_of_their_own(reports: Reports) -> None:
    say = reports.say

    async def clean_up() -> None:
        await asyncio.sleep(0)
        say("cleaned")

    def prewarm(proc: JobProcess) -> None:
        loop = asyncio.get_event_loop()
        atexit.register(lambda: loop.run_until_complete(clean_up()))
        atexit.register(lambda: asyncio.run(clean_up()))

    async def entrypoint(ctx: JobContext) -> None:
        pass

    async with serving(entrypoint, setup_fnc=prewarm):
        pass  # an idle worker is asked to leave
    assert len(reports.of("cleaned")) == 2


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGUSR1, id="exits"), pytest.param(signal.SIGUSR2, id="raises")]
)
async def test_one_that_ends_in_a_signal_handler_of_the_users_is_replaced(
    number: signal.Signals, reports: Reports
) -> None:
    say = reports.say

    def raises(*_: Any) -> None:
        raise ValueError("out of a handler")

    def prewarm(proc: JobProcess) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
        signal.signal(signal.SIGUSR2, raises)
        say("warm")

    async def entrypoint(ctx: JobContext) -> None:
        pass

    gone: list[Any] = []
    async with serving(entrypoint, setup_fnc=prewarm, on={"worker_exited": gone.append}) as server:
        await until(lambda: server.stats().idle == 1)
        (first,) = reports.of("warm")
        os.kill(first["pid"], number)
        await until(lambda: bool(gone) and is_gone(first["pid"]))
        await until(lambda: server.stats().idle == 1)
        assert (await run_job(server)).status is JobStatus.SUCCEEDED


async def test_what_setup_left_on_the_loop_turns_while_its_job_runs(reports: Reports) -> None:
    say = reports.say

    def prewarm(proc: JobProcess) -> None:
        async def later() -> None:
            proc.userdata["wanted"] = wanted = asyncio.Event()
            await wanted.wait()
            say("turned")

        proc.userdata["task"] = asyncio.get_event_loop().create_task(later())

    async def entrypoint(ctx: JobContext) -> None:
        await asyncio.sleep(0)
        ctx.proc.userdata["wanted"].set()
        await ctx.proc.userdata["task"]

    async with serving(entrypoint, setup_fnc=prewarm) as server:
        assert (await run_job(server)).status is JobStatus.SUCCEEDED
    assert len(reports.of("turned")) == 1


async def test_a_loop_that_debugs_does_not_tell_of_the_time_without_a_job(
    reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    say = reports.say

    def prewarm(proc: JobProcess) -> None:
        loop = asyncio.get_event_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.2
        say("warm")

    async def entrypoint(ctx: JobContext) -> None:
        logging.getLogger("asyncio").warning("said in the job")

    with caplog.at_level(logging.WARNING):
        async with serving(entrypoint, setup_fnc=prewarm) as server:
            await reports.seen("warm")
            await asyncio.sleep(0.5)  # the time that is not to be told of
            assert (await run_job(server)).status is JobStatus.SUCCEEDED
    assert "said in the job" in caplog.text
    assert "Executing" not in caplog.text


async def test_one_that_is_asked_to_stop_before_its_first_await_is_cancelled_there(
    reports: Reports,
) -> None:
    say = reports.say

    async def entrypoint(ctx: JobContext) -> None:
        say("begun")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            say("cancelled")
            raise

    async with serving(entrypoint, shutdown_process_timeout=60) as server:
        for number in range(1, 11):
            (handle,) = await server.submit_job(room="studio")
            handle.cancel()
            outcome = await handle.wait()
            assert outcome.status is JobStatus.CANCELLED
            assert len(reports.of("cancelled")) <= number
    # One that had begun was told so; one that had not never saw its first line.
    assert len(reports.of("cancelled")) == len(reports.of("begun"))


@pytest.mark.parametrize("served", [1, 2])
async def test_a_setup_or_a_job_that_closes_the_loop_does_not_take_it_from_the_next(
    served: int, reports: Reports
) -> None:
    def prewarm(proc: JobProcess) -> None:
        loop = asyncio.get_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def entrypoint(ctx: JobContext) -> None:
        await asyncio.sleep(0)

    async with serving(entrypoint, setup_fnc=prewarm, max_jobs_per_process=served) as server:
        for _ in range(3):
            assert (await run_job(server)).status is JobStatus.SUCCEEDED
