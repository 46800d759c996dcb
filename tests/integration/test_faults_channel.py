"""What a job writes into its worker's channel cannot harm the supervisor or other jobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobKilled, JobStatus, ProcessPool, WorkerLost
from tests.children import breaks_the_protocol, misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import Watch, is_gone, until

pytestmark = pytest.mark.slow

BAD = [
    pytest.param(breaks_the_protocol.writes_noise, id="noise"),
    pytest.param(breaks_the_protocol.writes_zeros, id="zeros"),
    pytest.param(breaks_the_protocol.writes_a_frame_of_noise, id="a frame of noise"),
    pytest.param(breaks_the_protocol.announces_two_gigabytes, id="an oversized frame"),
    pytest.param(breaks_the_protocol.writes_half_a_frame_and_exits, id="half a frame and exit"),
    pytest.param(
        breaks_the_protocol.writes_half_a_frame_and_shuts_down, id="half a frame and no more"
    ),
    pytest.param(breaks_the_protocol.writes_half_a_frame_and_returns, id="half a frame, then more"),
    pytest.param(breaks_the_protocol.writes_noise_into_the_log, id="noise into the log"),
    pytest.param(breaks_the_protocol.says_hello_again, id="HELLO while it runs"),
    pytest.param(breaks_the_protocol.says_ready_again, id="READY while it runs"),
    pytest.param(breaks_the_protocol.says_that_setup_failed, id="SETUP_ERROR while it runs"),
    pytest.param(breaks_the_protocol.says_started_again, id="STARTED twice"),
    pytest.param(breaks_the_protocol.says_started_for_another, id="STARTED for another job"),
    pytest.param(breaks_the_protocol.says_finished_for_another, id="FINISHED for another job"),
    pytest.param(breaks_the_protocol.answers_a_ping_to_come, id="PONG to a ping to come"),
    pytest.param(
        breaks_the_protocol.announces_descriptors_that_do_not_come, id="missing descriptors"
    ),
    pytest.param(breaks_the_protocol.sends_a_pipe_for_a_result, id="a pipe for a result"),
    pytest.param(
        breaks_the_protocol.sends_descriptors_without_end, id="descriptors nobody asked for"
    ),
]


def pool(context: str = "forkserver", **options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 2)
    options.setdefault("max_jobs", 2)
    return ProcessPool(multiprocessing_context=context, **options)


@pytest.mark.parametrize("function", BAD)
async def test_a_job_that_breaks_the_protocol_fails_alone(
    function: Callable[..., Any], tmp_path: Path
) -> None:
    p = pool()
    with Watch(p) as watch:
        async with p:
            go = tmp_path / "go"
            bystander = p.submit(misbehaves.wait_for_file, os.fspath(go))
            handle = p.submit(function)
            with pytest.raises(WorkerLost):
                await soon(handle)
            outcome = await handle.wait()
            assert (outcome.status, outcome.reason) == (JobStatus.FAILED, "protocol")
            assert outcome.error is not None
            assert "protocol: " in outcome.error.message
            assert outcome.pid is not None
            assert is_gone(outcome.pid)
            assert watch.logged(f"(pid {outcome.pid}) broke the protocol and is killed")
            assert await soon(p.submit(jobs.double, 21)) == 42
            assert not bystander.done()
            go.touch()
            assert await soon(bystander) == "done"


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(breaks_the_protocol.writes_noise, id="noise"),
        pytest.param(breaks_the_protocol.says_finished_for_another, id="FINISHED for another job"),
    ],
)
async def test_a_fresh_interpreter_is_trusted_no_more(function: Callable[..., Any]) -> None:
    async with pool("spawn", num_idle_processes=1) as p:
        handle = p.submit(function)
        outcome = await soon(handle.wait())
        assert (outcome.status, outcome.reason) == (JobStatus.FAILED, "protocol")
        assert await soon(p.submit(jobs.double, 21)) == 42


async def test_a_job_cannot_end_another_job_by_its_name(tmp_path: Path) -> None:
    async with pool() as p:
        go = tmp_path / "go"
        victim = p.submit(misbehaves.wait_for_file, os.fspath(go))
        await until(lambda: victim.status is JobStatus.RUNNING)
        forger = p.submit(breaks_the_protocol.says_finished_for_another, victim.id)
        outcome = await soon(forger.wait())
        assert (outcome.status, outcome.reason) == (JobStatus.FAILED, "protocol")
        assert victim.status is JobStatus.RUNNING
        go.touch()
        assert await soon(victim) == "done"


async def test_a_job_that_says_finished_twice_has_one_outcome_and_loses_its_worker() -> None:
    p = pool()
    with Watch(p) as watch:
        async with p:
            handle = p.submit(breaks_the_protocol.says_finished_and_returns)
            await soon(handle)
            assert handle.status is JobStatus.SUCCEEDED
            await watch.until_exited(handle.pid)
            assert p.stats().total_succeeded == 1
            assert await soon(p.submit(jobs.double, 21)) == 42


async def test_a_job_that_says_finished_too_early_cannot_swallow_the_next_one() -> None:
    # 1. The worker may run two jobs; the first says that it is over, and goes on.
    # 2. The second is handed to the same worker, which cannot take it.
    # 3. It has not begun there, so it runs in another worker.
    async with pool(num_idle_processes=1, max_jobs=1, max_jobs_per_process=2) as p:
        liar = p.submit(breaks_the_protocol.says_finished_and_goes_on)
        after = p.submit(jobs.pid)
        await soon(liar)
        assert await soon(after) != liar.pid
        assert liar.pid is not None
        assert is_gone(liar.pid)
        assert p.stats().total_handed_again == 1


async def test_a_worker_that_closes_its_channel_and_lives_is_killed() -> None:
    async with pool() as p:
        handle = p.submit(breaks_the_protocol.closes_its_channel)
        with pytest.raises((JobKilled, WorkerLost)):
            await soon(handle)
        assert handle.pid is not None
        assert is_gone(handle.pid)
        assert await soon(p.submit(jobs.double, 21)) == 42


async def test_a_flood_of_messages_holds_up_no_other_job() -> None:
    async with pool(log_level="ERROR") as p:
        logging.getLogger("greenroom.worker").setLevel(logging.ERROR)
        try:
            flood = p.submit(breaks_the_protocol.floods_with_messages)
            await until(lambda: flood.status is JobStatus.RUNNING)
            for number in range(10):
                assert await soon(p.submit(jobs.double, number)) == 2 * number
            assert flood.status is JobStatus.RUNNING
            flood.cancel()
            outcome = await soon(flood.wait())
            assert outcome.status in (JobStatus.CANCELLED, JobStatus.KILLED)
        finally:
            logging.getLogger("greenroom.worker").setLevel(logging.NOTSET)
