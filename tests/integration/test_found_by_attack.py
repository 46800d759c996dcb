"""What somebody who tried to break it broke. Each stays mended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, NoReturn

import psutil
import pytest

from supervisor import (
    JobContext,
    JobStatus,
    OptionError,
    PayloadTooLarge,
    PoolClosed,
    ProcessPool,
    ResourceLimits,
    SetupFailed,
    get_job_context,
)
from supervisor.errors import JobRaised
from supervisor.testing.running import running_server
from tests.integration.conftest import soon
from tests.integration.watch import until

ROOT = Path(__file__).parents[2]


class NotRebuilt(Exception):
    """Pickles, and cannot be rebuilt: its arguments are not what ``args`` holds."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def terminate_a_fork() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(7)
    os.kill(pid, signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


def raise_not_rebuilt() -> NoReturn:
    raise NotRebuilt(7, "quota exceeded")


def return_in_a_fork_too(path: str) -> str:
    pid = os.fork()
    if pid == 0:
        return "child"
    os.waitpid(pid, 0)
    Path(path).write_text("waited", encoding="utf-8")
    return "parent"


def exhaust_descriptors() -> bytes:
    try:
        while True:
            os.open("/dev/null", os.O_RDONLY)
    except OSError:
        return bytes(200_000)


def length(data: bytes) -> int:
    return len(data)


async def wait_and_clean_up(path: str) -> None:
    try:
        Path(path).touch()
        await asyncio.Event().wait()
    finally:
        Path(path).write_text("cleaned up", encoding="utf-8")


def shut_down_for(reason: object) -> None:
    get_job_context().shutdown(reason)  # type: ignore[arg-type]


def fork_server() -> psutil.Process:
    """Return this test's fork server: the leader of a session that is our child."""
    (found,) = [
        child
        for child in psutil.Process().children()
        if child.cmdline()[:1] == ["greenroom: fork server"]
    ]
    return found


async def test_a_signal_right_after_a_fork_in_a_job_is_not_lost() -> None:
    async with ProcessPool(num_idle_processes=2) as pool:
        for _ in range(20):
            assert await soon(pool.submit(terminate_a_fork)) == signal.SIGTERM


@pytest.mark.parametrize("cancel", [False, True], ids=["waiting", "cancelling"])
async def test_a_pool_closes_although_its_fork_server_was_stopped(cancel: bool) -> None:
    pool = ProcessPool(num_idle_processes=2, shutdown_process_timeout=1)
    await pool.start()
    if cancel:
        pool.submit(time.sleep, 1000)
    os.kill(fork_server().pid, signal.SIGSTOP)
    await soon(pool.aclose(cancel=cancel))


async def test_a_fork_server_that_was_stopped_is_woken_or_replaced() -> None:
    async with ProcessPool(
        num_idle_processes=1, max_jobs=1, ping_timeout=2, ping_interval=0.5
    ) as pool:
        stopped = fork_server().pid
        os.kill(stopped, signal.SIGSTOP)
        assert await soon(pool.submit(os.getpid))
        assert await soon(pool.submit(os.getpid))


async def test_the_jobs_own_error_is_told_when_it_cannot_be_rebuilt() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        with pytest.raises(JobRaised, match="NotRebuilt: quota exceeded") as caught:
            await soon(pool.submit(raise_not_rebuilt))
        assert "raise_not_rebuilt" in str(caught.value.__cause__)


async def test_a_process_that_the_job_forked_does_not_speak_for_it(tmp_path: Path) -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        path = tmp_path / "told"
        assert await soon(pool.submit(return_in_a_fork_too, str(path))) == "parent"
        assert path.read_text(encoding="utf-8") == "waited"


async def test_closing_after_a_cancelled_start_is_an_ordinary_return() -> None:
    pool = ProcessPool(num_idle_processes=1)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await soon(pool.aclose())


async def test_a_job_without_descriptors_left_fails_with_the_reason() -> None:
    async with ProcessPool(num_idle_processes=1, job_limits=ResourceLimits(open_files=40)) as pool:
        handle = pool.submit(exhaust_descriptors)
        with pytest.raises(OSError, match="Too many open files"):
            await soon(handle)
        assert handle.status is JobStatus.FAILED


async def test_limits_that_leave_no_room_to_start_are_told() -> None:
    pool = ProcessPool(num_idle_processes=1, job_limits=ResourceLimits(address_space_mb=10))
    with pytest.raises(SetupFailed, match=r"thread|memory|Memory"):
        await soon(pool.start())


def write_to_every_descriptor(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("ran\n")
    for fd in range(3, 40):
        try:
            os.write(fd, b"hello\n")
        except OSError:
            continue
    time.sleep(30)


@pytest.mark.parametrize("share", [1, None])
async def test_a_job_that_writes_over_its_mark_and_its_channel_ran_once(
    share: int | None, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    async with ProcessPool(num_idle_processes=1, max_jobs_per_process=share) as pool:
        for times in (1, 2):
            outcome = await soon(pool.submit(write_to_every_descriptor, os.fspath(ran)).wait())
            assert outcome.status is JobStatus.FAILED
            assert ran.read_text(encoding="utf-8") == "ran\n" * times
        assert pool.stats().total_handed_again == 0


STDIN_PROGRAM = """
import asyncio
from supervisor import ProcessPool

def double(number):
    return 2 * number

async def main():
    async with ProcessPool(num_idle_processes=1, multiprocessing_context={context!r}) as pool:
        print(await pool.submit(double, 21), __file__)

asyncio.run(main())
"""


async def test_workers_that_are_born_while_our_loop_stands_still_are_no_failures() -> None:
    async with ProcessPool(
        num_idle_processes=10, max_jobs=4, ping_interval=0.05, ping_timeout=0.3
    ) as pool:
        for _ in range(5):
            for handle in [pool.submit(len, "abc") for _ in range(8)]:
                assert await soon(handle) == 3
            time.sleep(0.6)  # noqa: ASYNC251 - that is the point
        assert pool.stats().total_warmup_failures == 0


def run_from_stdin(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_a_program_that_is_read_from_standard_input_can_have_a_pool(context: str) -> None:
    ran = run_from_stdin(STDIN_PROGRAM.format(context=context))
    assert (ran.stdout, ran.returncode) == ("42 <stdin>\n", 0), ran.stderr


STDIN_PROGRAM_THAT_LOOKS = """
import asyncio, threading
from supervisor import ProcessPool

ended = threading.Event()
missed = []

def look():
    while not ended.is_set():
        if "__file__" not in globals():
            missed.append("__file__")

async def main():
    async with ProcessPool(num_idle_processes=1, multiprocessing_context="spawn") as pool:
        for number in range(3):
            await pool.submit(int, number)

watcher = threading.Thread(target=look)
watcher.start()
asyncio.run(main())
ended.set()
watcher.join()
print(missed)
"""


def test_a_program_that_is_read_from_standard_input_keeps_its_names_while_children_are_made() -> (
    None
):
    ran = run_from_stdin(STDIN_PROGRAM_THAT_LOOKS)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr


async def test_a_fork_of_the_program_has_no_part_in_its_pool() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(os.getpid)
            except PoolClosed as exc:
                os.write(writer, str(exc).encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        with open(reader, encoding="ascii") as told:
            complaint = f"the pool belongs to process {os.getpid()}; make one in this process"
            assert told.read() == complaint
        assert await soon(pool.submit(os.getpid)) != os.getpid()


def break_down() -> NoReturn:
    raise KeyError("k")


async def test_what_failed_while_a_worker_warmed_up_is_called_by_its_name() -> None:
    with pytest.raises(SetupFailed, match=r"^initializer raised KeyError: 'k'"):
        async with ProcessPool(num_idle_processes=1, initializer=break_down):
            pass


@pytest.mark.parametrize("capture_output", [False, True])
async def test_the_fewest_descriptors_that_may_be_asked_for_are_enough(
    capture_output: bool,
) -> None:
    limits = ResourceLimits(open_files=20)
    async with ProcessPool(
        num_idle_processes=1, job_limits=limits, capture_output=capture_output
    ) as pool:
        assert await soon(pool.submit(os.getpid)) != os.getpid()


MB = 2**20


@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_the_limit_of_payloads_that_is_changed_holds_for_the_jobs_after_it(
    context: Literal["forkserver", "spawn"],
) -> None:
    async with ProcessPool(
        num_idle_processes=1, max_payload_mb=1, multiprocessing_context=context
    ) as pool:
        with pytest.raises(PayloadTooLarge):
            pool.submit(length, bytes(2 * MB))
        pool.update_options(max_payload_mb=4)
        assert await soon(pool.submit(length, bytes(2 * MB))) == 2 * MB
        assert await soon(pool.submit(bytes, 2 * MB)) == bytes(2 * MB)
        with pytest.raises(PayloadTooLarge, match="the result"):
            await soon(pool.submit(bytes, 5 * MB))
        pool.update_options(max_payload_mb=1)
        with pytest.raises(PayloadTooLarge, match="the result"):
            await soon(pool.submit(bytes, 2 * MB))
        assert await soon(pool.submit(length, b"small")) == 5


async def test_a_job_that_runs_keeps_the_limit_of_payloads_that_it_was_accepted_with() -> None:
    async with ProcessPool(num_idle_processes=1, max_payload_mb=4) as pool:
        running = pool.submit(bytes, 2 * MB)
        pool.update_options(max_payload_mb=1)
        assert await soon(running) == bytes(2 * MB)


async def test_a_servers_limit_of_payloads_that_is_raised_holds_for_its_jobs() -> None:
    async with running_server(told_metadata, max_payload_mb=1) as server:
        with pytest.raises(PayloadTooLarge):
            await server.submit_job(room="r", metadata="x" * 2 * MB)
        server.update_options(max_payload_mb=4)
        (handle,) = await server.submit_job(room="r", metadata="x" * 2 * MB)
        outcome = await soon(handle.wait())
        assert (outcome.status, outcome.reason) == (JobStatus.SUCCEEDED, str(2 * MB))


async def told_metadata(ctx: JobContext) -> None:
    ctx.shutdown(str(len(ctx.job.metadata)))


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param("\ud800", "\\ud800", id="half a character"),
        pytest.param("x" * 2 * MB, "characters left out", id="two megabytes"),
        pytest.param("enough", "enough", id="ordinary"),
    ],
)
async def test_a_job_is_asked_to_stop_for_any_reason_that_is_text(
    reason: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "cleaned up"
    async with ProcessPool(num_idle_processes=1) as pool:
        handle = pool.submit(wait_and_clean_up, str(path))
        await until(path.exists)
        for wrong in (3, None, b"x", ["a"]):
            with pytest.raises(OptionError, match="reason="):
                handle.cancel(wrong)  # type: ignore[arg-type]
        assert handle.cancel(reason)
        outcome = await soon(handle.wait())
    assert outcome.status is JobStatus.CANCELLED
    assert told in outcome.reason
    assert path.read_text() == "cleaned up", "it was asked, and not killed"


@pytest.mark.parametrize("reason", [3, None, b"x", ["a"], 2**70])
async def test_a_job_that_shuts_down_for_no_text_is_told_so_in_its_own_line(reason: object) -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        with pytest.raises(OptionError, match=r"reason=.*expected a string"):
            await soon(pool.submit(shut_down_for, reason))


async def test_an_id_that_no_message_would_carry_is_refused() -> None:
    async with ProcessPool(num_idle_processes=1) as pool:
        with pytest.raises(OptionError, match="at most 1024 characters") as caught:
            pool.schedule(length, (b"",), job_id="j" * 2 * MB)
        assert len(str(caught.value)) < 200
        assert await soon(pool.schedule(length, (b"",), job_id="j" * 1024)) == 0


async def test_a_pool_that_was_closed_before_it_started_does_not_start() -> None:
    pool = ProcessPool(num_idle_processes=1)
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(PoolClosed, match="before it started"):
        await pool.start()
