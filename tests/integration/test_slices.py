"""Time slices: an idle worker goes first when it is woken, a job that lasts is like any other."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from supervisor import ProcessPool, slices
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import until

_GET = {"x86_64": 315, "aarch64": 275, "riscv64": 275, "loongarch64": 275}
_SHORT = 100_000


def said(pid: int) -> tuple[int, int, int]:
    """Return policy, nice value and time slice (nanoseconds, 0 if not told) of a process."""
    number = _GET.get(os.uname().machine)
    if sys.platform != "linux" or number is None:
        pytest.skip("there is no such call here")
    buffer = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(number, pid, buffer, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("=IIQiIQQQ", buffer.raw)
    return policy, nice, runtime


USUAL = said(os.getpid())[2] if sys.platform == "linux" else 0

needs_slices = pytest.mark.skipif(not USUAL, reason="the kernel has no slices to ask for")


@pytest.fixture
def other() -> Iterator[int]:
    """A process that waits."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@needs_slices
def test_a_slice_is_shortened(other: int) -> None:
    assert slices.shorten(other)
    assert said(other) == (os.SCHED_OTHER, 0, _SHORT)


@needs_slices
def test_who_is_nice_stays_so_and_keeps_its_policy() -> None:
    program = """
import os, sys
from supervisor import slices

os.nice(7)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
for step in (lambda: slices.shorten(os.getpid()), slices.restore):
    print(step(), flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for expected in (_SHORT, USUAL):
            assert process.stdout.readline() == "True\n"
            assert said(process.pid) == (os.SCHED_BATCH, 7, expected)
            process.stdin.write("\n")


@needs_slices
async def test_the_nice_value_that_a_job_sets_is_its_own() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        assert await soon(pool.submit(jobs.be_nice, 5, 0.02)) == (5, USUAL)


@needs_slices
def test_who_has_a_short_slice_may_still_choose_another_policy(other: int) -> None:
    slices.shorten(other)
    # Refused to who may not, if a flag had come with the slice.
    os.sched_setscheduler(other, os.SCHED_IDLE, os.sched_param(0))
    assert said(other)[0] == os.SCHED_IDLE


def test_a_process_that_is_gone_is_no_error() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert not slices.shorten(pid)


def test_where_the_call_is_not_known_nothing_happens(
    other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = said(other)
    monkeypatch.setattr(slices, "_NUMBER", None)
    assert not slices.shorten(other)
    assert said(other) == before


# ── workers ──────────────────────────────────────────────────────────────────


def idle_pid(pool: ProcessPool) -> int:
    (worker,) = pool._workers.all  # type: ignore[union-attr]
    assert worker.pid is not None
    return worker.pid


@needs_slices
@pytest.mark.slow
async def test_an_idle_worker_goes_first_and_a_job_that_lasts_does_not() -> None:
    async with ProcessPool(
        num_idle_processes=1, max_jobs=1, max_processes=1, max_jobs_per_process=None
    ) as pool:
        pid = idle_pid(pool)
        assert said(pid)[2] == _SHORT
        job = pool.submit(jobs.sleep_for_ever)
        await until(lambda: said(pid)[2] == USUAL)
        job.cancel()
        await soon(job.wait())
        # It was asked to stop, and leaves: there is another.
        await until(lambda: pool.stats().idle == 1)
        assert said(idle_pid(pool))[2] == _SHORT


@needs_slices
@pytest.mark.slow
async def test_a_worker_that_serves_several_jobs_goes_first_again() -> None:
    async with ProcessPool(
        num_idle_processes=1, max_jobs=1, max_processes=1, max_jobs_per_process=None
    ) as pool:
        pid = idle_pid(pool)
        lasting = pool.submit(time.sleep, 0.2)
        await until(lambda: said(pid)[2] == USUAL)
        await soon(lasting)
        await until(lambda: pool.stats().idle == 1)
        assert idle_pid(pool) == pid
        assert said(pid)[2] == _SHORT


@needs_slices
@pytest.mark.slow
async def test_a_worker_that_is_let_in_at_once_does_not_keep_the_pool_from_others() -> None:
    """On one CPU, with jobs that never let go of it: each of them begins, and so does the next."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        async with ProcessPool(num_idle_processes=4, max_jobs=4, shutdown_process_timeout=1) as p:
            handles = [p.submit(jobs.compute_for_ever) for _ in range(4)]
            await until(lambda: all(handle.pid is not None for handle in handles))
            for handle in handles:
                handle.cancel()
            await soon(asyncio.gather(*(handle.wait() for handle in handles)))
    finally:
        os.sched_setaffinity(0, before)
