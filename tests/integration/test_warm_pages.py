"""What a warm worker's job needs of its memory was copied before the job came.

Each page that is copied on the way from the message to the user's first line costs that job
some tens of microseconds.
"""

from __future__ import annotations

import resource
import statistics
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobContext, JobProcess, JobStatus, ProcessPool
from supervisor.lifecycle import State
from supervisor.testing.running import soon
from supervisor.workers import Workers
from tests.integration.serving import run_job, serving
from tests.integration.watch import until

_JOBS = 5

# The first jobs are those from which later workers learn what they will be asked for.
_LEARNING = 3


def page_faults(*anything: object) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


async def page_faults_async(*anything: object) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def count_once(proc: JobProcess) -> None:
    """Have the pages copied that are needed to count them."""
    page_faults()


def page_faults_of(pid: int) -> int:
    """Return the same from outside."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
    return int(after_name.split()[7])


def page_faults_of_idle(workers: Workers) -> dict[int | None, int]:
    """Return them for each worker that waits for a job."""
    idle = [each.pid for each in workers.all if each.state is State.IDLE]
    return {pid: page_faults_of(pid) for pid in idle if pid is not None}


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        pytest.param(page_faults, "", id="a plain function"),
        pytest.param(page_faults, "x" * 200, id="a plain function, with a long argument"),
        pytest.param(page_faults_async, "x" * 200, id="a coroutine, with a long argument"),
    ],
)
async def test_a_call_copies_no_page_between_the_message_and_the_users_first_line(
    function: Any, argument: str
) -> None:
    copied = []
    async with ProcessPool(num_idle_processes=2, setup_fnc=count_once) as pool:
        workers = pool._run.workers  # type: ignore[union-attr]
        for _ in range(_JOBS + _LEARNING):
            await until(lambda: pool.stats().idle == 2)
            before = page_faults_of_idle(workers)
            job = pool.submit(function, argument)
            counted = await soon(job)
            copied.append(counted - before[job.pid])
    assert statistics.median(copied[_LEARNING:]) <= 1


async def entrypoint(ctx: JobContext) -> None:
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    Path(ctx.job.room.name).write_text(str(counted))


async def test_an_entrypoint_is_entered_without_copying_a_page(tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    copied = []
    async with serving(entrypoint, setup_fnc=count_once, num_idle_processes=2) as server:
        workers = server._serving.workers  # type: ignore[union-attr]
        for _ in range(_JOBS):
            await until(lambda: server.stats().idle == 2)
            before = page_faults_of_idle(workers)
            job = await run_job(server, room=str(counted), metadata="x" * 200)
            assert job.status is JobStatus.SUCCEEDED, job
            copied.append(int(counted.read_text()) - before[job.pid])
    assert statistics.median(copied) <= 1
