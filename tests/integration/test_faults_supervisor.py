"""The fork server dies, the supervisor dies, the machine runs out of descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import (
    JobHandle,
    JobKilled,
    JobProcess,
    JobStatus,
    ProcessPool,
    SetupFailed,
    WorkerLost,
)
from tests.children import fails_to_warm, misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import (
    Watch,
    all_gone,
    forkserver_of,
    is_gone,
    read_pids,
    until,
    without_descriptors,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def pool(**options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 1)
    return ProcessPool(multiprocessing_context="forkserver", **options)


@contextlib.asynccontextmanager
async def script(
    *arguments: object, own_session: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a module of tests.children as a program, and end it with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *map(str, arguments),
        cwd=ROOT,
        start_new_session=own_session,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


# ── the fork server ──────────────────────────────────────────────────────────


async def test_jobs_outlive_their_fork_server_and_new_ones_run_when_it_is_back(
    tmp_path: Path,
) -> None:
    p = pool(num_idle_processes=2, max_jobs=4)
    with Watch(p) as watch:
        async with p:
            go = tmp_path / "go"
            running: list[JobHandle[Any]] = [
                p.submit(misbehaves.wait_for_file, os.fspath(go)) for _ in range(2)
            ]
            failing: JobHandle[Any] = p.submit(misbehaves.raises_once_there_is, os.fspath(go))
            await until(lambda: all(h.status is JobStatus.RUNNING for h in (*running, failing)))
            await watch.until_idle(2)
            first = forkserver_of(p)
            os.kill(first, signal.SIGKILL)
            await watch.until_logged("the fork server is gone (killed by SIGKILL)")
            # With the workers that are idle now, and those that the next one makes.
            after = [p.submit(jobs.double, number) for number in range(6)]
            assert [await soon(handle) for handle in after] == [0, 2, 4, 6, 8, 10]
            assert watch.logged("the fork server is back")
            assert forkserver_of(p) != first
            go.touch()
            assert [await soon(handle) for handle in running] == ["done", "done"]
            with pytest.raises(RuntimeError, match="no such luck"):
                await soon(failing)
            await watch.until_idle(2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda n: n.name)
async def test_a_job_that_dies_when_its_fork_server_has_died_still_gets_its_outcome(
    number: signal.Signals, tmp_path: Path
) -> None:
    p = pool()
    with Watch(p) as watch:
        async with p:
            handle = p.submit(misbehaves.wait_for_file, os.fspath(tmp_path / "never"))
            await until(lambda: handle.status is JobStatus.RUNNING)
            os.kill(forkserver_of(p), signal.SIGKILL)
            await watch.until_logged("the fork server is gone")
            assert handle.pid is not None
            os.kill(handle.pid, number)
            with pytest.raises((JobKilled, WorkerLost)):
                await soon(handle)
            assert is_gone(handle.pid)


async def test_jobs_of_a_dead_fork_server_are_watched_as_soon_as_there_are_descriptors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    p = pool(num_idle_processes=2, max_jobs=4)
    with Watch(p) as watch:
        async with p:
            go = tmp_path / "go"
            running: list[JobHandle[Any]] = [
                p.submit(misbehaves.wait_for_file, os.fspath(go)) for _ in range(2)
            ]
            await until(lambda: all(handle.status is JobStatus.RUNNING for handle in running))
            await watch.until_idle(2)
            with without_descriptors():
                os.kill(forkserver_of(p), signal.SIGKILL)
                await watch.until_logged("the fork server is gone (killed by SIGKILL)")
            go.touch()
            assert [await soon(handle) for handle in running] == ["done", "done"]
            assert await soon(p.submit(jobs.double, 4)) == 8
    assert "Exception in callback" not in caplog.text


async def test_a_job_whose_fork_server_died_can_be_cancelled_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    left = tmp_path / "left"
    p = pool(shutdown_process_timeout=5.0)
    with Watch(p) as watch:
        async with p:
            handle = p.submit(misbehaves.leaves_all_three_and_goes_on, os.fspath(left))
            await until(lambda: len(read_pids(left)) == 3)
            os.kill(forkserver_of(p), signal.SIGKILL)
            await watch.until_logged("the fork server is gone")
            handle.cancel()
            assert (await soon(handle.wait())).status is JobStatus.CANCELLED
            await until(lambda: all_gone(read_pids(left)))


async def test_a_fork_server_that_dies_while_it_makes_workers_loses_no_job() -> None:
    p = pool(max_jobs=4)
    async with p:
        os.kill(forkserver_of(p), signal.SIGKILL)
        # Handed to the idle worker, asked of the dead, and waiting for the next one.
        handles = [p.submit(jobs.double, number) for number in range(8)]
        assert [await soon(handle) for handle in handles] == [2 * number for number in range(8)]


async def test_a_fork_server_that_does_not_come_back_fails_those_who_wait(tmp_path: Path) -> None:
    outage = tmp_path / "outage"
    p = pool(
        preload_fnc=fails_to_warm.raises_while_the_file_exists, user_arguments=os.fspath(outage)
    )
    async with p:
        outage.touch()
        os.kill(forkserver_of(p), signal.SIGKILL)
        assert await soon(p.submit(jobs.double, 1)) == 2
        with pytest.raises(SetupFailed, match="no model in the store"):
            await soon(p.submit(jobs.double, 2))


# ── the supervisor ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_two_seconds_after_the_supervisor_was_killed_nothing_of_it_is_left(
    context: str,
) -> None:
    async with script("tests.children.supervisor_to_be_killed", context) as process:
        assert process.stdout is not None
        line = await soon(process.stdout.readline())
        assert line, (await process.communicate())[1].decode()
        told = json.loads(line)
        # Each worker, and what three of them started; a fork server where there is one.
        assert len(told["pids"]) >= told["workers"] + 3
        began = time.monotonic()
        process.kill()
        await until(lambda: all_gone(told["pids"]))
        assert time.monotonic() - began < 2.0


async def test_a_fork_server_that_is_stopped_when_the_supervisor_is_killed_is_woken_to_clean_up() -> (
    None
):
    # A session of its own, as under a service manager: the process that orphans fall
    # to here would be in it otherwise, and the kernel would see no orphans.
    program = script("tests.children.supervisor_to_be_killed", "forkserver", own_session=True)
    async with program as process:
        assert process.stdout is not None
        told = json.loads(await soon(process.stdout.readline()))
        [fork_server] = [pid for pid in told["pids"] if "fork server" in title_of(pid)]
        os.kill(fork_server, signal.SIGSTOP)
        process.kill()
        await until(lambda: all_gone(told["pids"]))


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


# ── nothing left to open ─────────────────────────────────────────────────────


async def test_without_descriptors_jobs_wait_and_the_remedy_is_named(tmp_path: Path) -> None:
    async with script("tests.children.runs_out_of_descriptors", tmp_path / "go") as process:
        out, error = await soon(process.communicate(), 60)
        assert out, error.decode()
        told = json.loads(out)
        assert told["outcomes"] == ["succeeded"] * 30
        assert told["waiting"] > 0
        assert any(
            "no worker can be started: Too many open files" in text
            and "raise the limit on open files (ulimit -n)" in text
            for text in told["warnings"]
        )


@pytest.mark.parametrize(
    "options",
    [{}, {"capture_output": True}, {"max_processes": 1000}, {"multiprocessing_context": "spawn"}],
    ids=str,
)
async def test_a_burst_of_jobs_leaves_the_program_descriptors_and_waits(
    options: dict[str, Any], tmp_path: Path
) -> None:
    module = "tests.children.has_more_jobs_than_descriptors"
    async with script(module, tmp_path / "go", json.dumps(options)) as process:
        out, error = await soon(process.communicate(), 90)
        assert out, error.decode()
        told = json.loads(out)
        assert told["outcomes"] == ["succeeded"] * told["jobs"]
        assert told["waiting"] > 0
        assert told["least_free"] >= told["limit"] // 5
        # And no more than that: what is left for workers is used.
        assert told["free_in_the_end"] < told["limit"] // 2
        [warning] = told["warnings"]
        assert f"of the {told['limit']} files that this program may have open" in warning
        assert "ulimit -n" in warning
        assert "max_processes or max_jobs" in warning


async def test_a_pool_with_more_idle_workers_than_there_are_descriptors_for_starts_with_fewer() -> (
    None
):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    p = pool(num_idle_processes=60)
    with Watch(p) as watch:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, hard))
        try:
            await soon(p.start())
            assert 5 < p.stats().idle < 60
            assert await soon(p.submit(jobs.double, 4)) == 8
            assert len(watch.logged("wait until some have ended")) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await watch.until_idle(60)
        await p.aclose()


# ── many at once ─────────────────────────────────────────────────────────────


def forks_slowly(proc: object) -> None:
    os.register_at_fork(before=lambda: time.sleep(0.03))


def forks_no_more_while_the_file_exists(proc: JobProcess) -> None:
    path = Path(proc.user_arguments)
    os.register_at_fork(before=lambda: time.sleep(60) if path.exists() else None)


async def test_a_fork_server_that_is_busy_with_a_burst_is_not_killed_when_the_pool_closes() -> None:
    p = pool(max_jobs=None, preload_fnc=forks_slowly)
    with Watch(p) as watch:
        await p.start()
        handles = [p.submit(jobs.double, number) for number in range(100)]
        await watch.until(lambda: p.stats().spawning > 20)
        for handle in handles:
            handle.cancel()
        await soon(p.aclose(cancel=True))
        assert not watch.logged("fork server")


async def test_workers_that_nobody_wants_any_more_are_not_born() -> None:
    p = pool(max_jobs=None, preload_fnc=forks_slowly)
    with Watch(p) as watch:
        await p.start()
        handles = [p.submit(jobs.double, number) for number in range(500)]
        await watch.until(lambda: p.stats().spawning > 20)
        for handle in handles:
            handle.cancel()
        await soon(p.aclose(cancel=True))
        assert p.stats().total_spawned < 100


async def test_a_fork_server_that_does_not_answer_is_said_to_be_killed_once(tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    p = pool(
        num_idle_processes=0,
        max_jobs=None,
        preload_fnc=forks_no_more_while_the_file_exists,
        user_arguments=os.fspath(stuck),
    )
    with Watch(p) as watch:
        await p.start()
        stuck.touch()
        handles = [p.submit(jobs.double, number) for number in range(30)]
        await watch.until(lambda: p.stats().spawning > 20)
        for handle in handles:
            handle.cancel()
        await soon(p.aclose(cancel=True))
        assert len(watch.logged("does not answer and is killed")) == 1


# ── a program that does not want to hear of its children ─────────────────────


@pytest.fixture
def ignored_sigchld() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("ignored_sigchld")
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_a_pool_works_and_closes_where_the_kernel_reaps_for_the_program(
    context: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with ProcessPool(multiprocessing_context=context, num_idle_processes=1) as p:
        first, second = await soon(p.submit(os.getpid)), await soon(p.submit(os.getpid))
        lost = p.submit(jobs.exit_hard, 7)
        outcome = await soon(lost.wait())
    assert first != second
    assert outcome.status is JobStatus.FAILED
    assert "this program ignores SIGCHLD" in caplog.text
    await until(lambda: is_gone(first) and is_gone(second))
