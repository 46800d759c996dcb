"""What a job may do to processes: its own, its children's, the supervisor's."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import multiprocess.process
import psutil
import pytest
import setproctitle

from ipc.frames import encode_frame
from ipc.messages import Pong, encode
from supervisor import JobContext, JobStatus, ProcessPool
from supervisor.testing import running_pool
from tests.children import breaks_the_protocol, misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.serving import serving
from tests.integration.watch import is_gone, read_pids, until

pytestmark = pytest.mark.slow


def supervisor_pid() -> int:
    parent = multiprocess.process.parent_process()
    assert parent is not None and parent.pid is not None
    return int(parent.pid)


def closes_every_descriptor() -> None:
    os.closerange(0, 4096)
    misbehaves.sleep_for_ever()


def leaves_its_channel_to_a_grandchild(path: str) -> None:
    """The grandchild leaves the session and the group, and talks on in the worker's name."""
    sockets = breaks_the_protocol.our_sockets()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            misbehaves.note_pid(path)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            while True:
                sockets[0].sendall(encode_frame(encode(Pong(10**6))))
        os._exit(0)
    os.wait()
    misbehaves.wait_for_file(path)


def calls_itself(title: str) -> str:
    setproctitle.setproctitle(title)
    return Path("/proc/self/cmdline").read_text()


def terminates_the_supervisor(ctx: JobContext) -> None:
    os.kill(supervisor_pid(), signal.SIGTERM)


def kills_the_fork_server() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    misbehaves.sleep_for_ever()


def stops_the_fork_server() -> str:
    os.kill(os.getppid(), signal.SIGSTOP)
    return "stopped"


async def works_again(pool: ProcessPool) -> None:
    assert await soon(pool.submit(jobs.double, 21)) == 42


async def test_a_job_that_closes_every_descriptor_ends_alone() -> None:
    async with running_pool(num_idle_processes=2) as pool:
        handle = pool.submit(closes_every_descriptor)
        outcome = await soon(handle.wait())
        assert outcome.status in (JobStatus.FAILED, JobStatus.KILLED)
        assert outcome.pid is not None
        assert is_gone(outcome.pid)
        await works_again(pool)


async def test_a_grandchild_that_keeps_the_channel_neither_speaks_nor_stays(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    async with running_pool(num_idle_processes=2) as pool:
        handle = pool.submit(leaves_its_channel_to_a_grandchild, os.fspath(path))
        await soon(handle.wait())
        await until(lambda: all(is_gone(pid) for pid in read_pids(path)) and read_pids(path))
        await works_again(pool)


async def test_a_title_is_its_own_only() -> None:
    async with running_pool() as pool:
        before = psutil.Process().cmdline()
        title = "greenroom: supervisor"
        assert title in await soon(pool.submit(calls_itself, title))
        assert psutil.Process().cmdline() == before
        await works_again(pool)


async def test_a_job_may_ask_the_server_to_drain_and_nothing_is_lost() -> None:
    # SIGTERM is a request that any process of the user may make.
    async with serving(terminates_the_supervisor) as server:
        (handle,) = await server.submit_job(room="studio")
        assert (await soon(handle.wait())).status is JobStatus.SUCCEEDED
        await until(lambda: server.draining)


async def test_a_job_that_kills_the_fork_server_harms_no_other_job(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running_pool(num_idle_processes=2, max_jobs=3) as pool:
        other = pool.submit(misbehaves.wait_for_file, os.fspath(go))
        killer = pool.submit(kills_the_fork_server)
        await asyncio.sleep(0)
        go.touch()
        assert await soon(other) == "done"
        killer.cancel()
        await soon(killer.wait())
        await works_again(pool)


async def test_a_job_that_stops_the_fork_server_stops_nothing_else() -> None:
    async with running_pool(num_idle_processes=1, ping_interval=0.5, ping_timeout=2.0) as pool:
        assert await soon(pool.submit(stops_the_fork_server)) == "stopped"
        for _ in range(3):
            await works_again(pool)
