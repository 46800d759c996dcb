"""A plain job that is asked to stop does, wherever it is at that moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobCancelled, JobProcess, JobStatus, JobWasCancelled, ProcessPool
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import until

ROOT = Path(__file__).parents[2]


def pool(**options: Any) -> ProcessPool:
    usual: dict[str, Any] = {
        "num_idle_processes": 1,
        "max_jobs": 1,
        "shutdown_process_timeout": 60,
        # Or jobs would be stopped while they import it.
        "preload_modules": [__name__],
    }
    return ProcessPool(**{**usual, **options})


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# ── where Python swallows what is raised ─────────────────────────────────────


class Dear:
    """Something whose finalizer takes long."""

    def __del__(self) -> None:
        for _ in range(300):
            pass


def finalizers() -> None:
    while True:
        Dear()


class Dearest:
    def __del__(self) -> None:
        spin(0.03)


def long_finalizers() -> None:
    while True:
        Dearest()
        spin(0.001)


class Container:
    def __del__(self) -> None:
        for _ in range(3):
            Dearest()


def finalizers_within_finalizers() -> None:
    while True:
        Container()


def finalizers_before_errors() -> None:
    while True:
        with contextlib.suppress(StopIteration):
            _ = Dearest() is None or next(iter(()))


def weak_callbacks() -> None:
    while True:
        dear = Dear()
        reference = weakref.ref(dear, lambda _: spin(0.01))
        del dear, reference


def generators_left_in_the_middle() -> None:
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            spin(0.01)

    while True:
        for _ in numbers():
            break


def slow_forks() -> None:
    os.register_at_fork(before=lambda: spin(0.01), after_in_parent=lambda: spin(0.01))
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


def warnings_about_the_wakeup_pipe() -> None:
    """The report of each signal that could not be written into the full pipe ends in the hook."""
    _, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    signal.set_wakeup_fd(full)
    while True:
        os.stat("/")


# ── where libraries do ───────────────────────────────────────────────────────


def every_exception_caught() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(1000)


async def _spin_for_ever() -> None:
    while True:
        spin(0.005)
        await asyncio.sleep(0)


def task_of_a_loop() -> None:
    async def main() -> None:
        task = asyncio.create_task(_spin_for_ever())
        await asyncio.sleep(1000)
        await task

    asyncio.run(main())


def callbacks_of_a_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            spin(0.005)
            loop.call_soon(again)

        again()
        await asyncio.sleep(1000)

    asyncio.run(main())


def loop_for_ever() -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.call_soon(lambda: loop.create_task(_spin_for_ever()))
        loop.run_forever()
    finally:
        loop.close()


def loop_after_loop() -> None:
    while True:
        asyncio.run(asyncio.sleep(0))


def callback_that_does_not_end() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(spin, 1000)
        await asyncio.sleep(1000)

    asyncio.run(main())


def finalizers_in_a_loop() -> None:
    async def main() -> None:
        while True:
            Dearest()
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize(
    "job",
    [
        finalizers,
        long_finalizers,
        finalizers_within_finalizers,
        finalizers_before_errors,
        weak_callbacks,
        generators_left_in_the_middle,
        slow_forks,
        warnings_about_the_wakeup_pipe,
        every_exception_caught,
        task_of_a_loop,
        callbacks_of_a_loop,
        loop_for_ever,
        loop_after_loop,
        callback_that_does_not_end,
        finalizers_in_a_loop,
    ],
)
@pytest.mark.parametrize("served", [1, None])
async def test_it_stops_and_is_not_killed_in(job: Callable[[], None], served: int | None) -> None:
    async with pool(max_jobs_per_process=served) as p:
        for number in range(4):
            handle = p.submit(job)
            await asyncio.sleep(0.03 + 0.007 * number)
            assert handle.cancel()
            outcome = await soon(handle.wait())
            assert outcome.status is JobStatus.CANCELLED, outcome
            with pytest.raises(JobWasCancelled):
                await handle
        assert await soon(p.submit(jobs.double, 21)) == 42


def _write(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(text)


def cleans_up_in_a_loop(path: str, blocks: bool) -> None:
    async def main() -> None:
        try:
            _write(path, "began ")
            if blocks:
                time.sleep(1000)
            await asyncio.sleep(1000)
        except BaseException as exc:
            await asyncio.sleep(0.3)
            _write(path, type(exc).__name__)
            raise

    try:
        asyncio.run(main())
    finally:
        _write(path, " and after it")


@pytest.mark.parametrize(("blocks", "told"), [(False, "CancelledError"), (True, "JobCancelled")])
async def test_a_loop_that_a_plain_job_runs_may_clean_up(
    blocks: bool, told: str, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    async with pool() as p:
        handle = p.submit(cleans_up_in_a_loop, str(seen), blocks)
        await until(lambda: seen.exists() and seen.read_text() == "began ")
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED
    assert seen.read_text() == f"began {told} and after it"


def begins_with_a_loop(path: str) -> None:
    try:
        while True:
            pass
    except JobCancelled:
        _write(path, "stopped ")
        raise
    finally:
        _write(path, "cleaned up")


def begins_with_a_loop_of_calls(path: str) -> None:
    try:
        while True:
            os.stat("/")
    except JobCancelled:
        _write(path, "stopped ")
        raise
    finally:
        _write(path, "cleaned up")


@pytest.mark.parametrize("job", [begins_with_a_loop, begins_with_a_loop_of_calls])
async def test_a_try_that_begins_with_a_loop_is_left_through_its_handlers(
    job: Callable[[str], None], tmp_path: Path
) -> None:
    all_seen = [tmp_path / str(number) for number in range(30)]
    async with pool(max_jobs_per_process=None) as p:
        for seen in all_seen:
            handle = p.submit(job, str(seen))
            await asyncio.sleep(0.01)
            handle.cancel()
            assert (await soon(handle.wait())).status is JobStatus.CANCELLED
            # Or it was cancelled before its first line.
            assert not seen.exists() or seen.read_text() == "stopped cleaned up"
    assert any(seen.exists() for seen in all_seen)


def loop_for_ever_and_more(path: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.call_soon(_write, path, "began ")
        loop.run_forever()
        _write(path, "went on ")
    except JobCancelled:
        _write(path, "stopped ")
        raise
    finally:
        _write(path, "cleaned up")
        loop.close()


def loop_for_ever_as_the_last_thing(path: str) -> None:
    loop = asyncio.new_event_loop()
    loop.call_soon(_write, path, "began ")
    try:
        loop.run_forever()
    except JobCancelled:
        _write(path, "stopped ")
        raise
    finally:
        _write(path, "cleaned up")
        loop.close()


def loop_for_ever_further_down(path: str) -> None:
    loop = asyncio.new_event_loop()
    loop.call_soon(_write, path, "began ")
    try:
        try:
            loop.run_forever()
        finally:
            _write(path, "stopped ")
    finally:
        _write(path, "cleaned up")
        loop.close()


@pytest.mark.parametrize(
    "job",
    [loop_for_ever_and_more, loop_for_ever_as_the_last_thing, loop_for_ever_further_down],
)
async def test_what_runs_a_loop_for_ever_is_told_that_the_job_was_stopped(
    job: Callable[[str], None], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    async with pool() as p:
        handle = p.submit(job, str(seen))
        await until(lambda: seen.exists() and seen.read_text() == "began ")
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED
    assert seen.read_text() == "began stopped cleaned up"


# ── hooks of the user's beside ours ──────────────────────────────────────────


class Faulty:
    def __del__(self) -> None:
        raise LookupError("in a finalizer")


def quiet_hook(proc: JobProcess) -> None:
    sys.unraisablehook = lambda what: None


def hook_that_calls_the_one_before() -> None:
    usual = sys.unraisablehook

    def hook(what: Any) -> None:
        usual(what)

    sys.unraisablehook = hook
    long_finalizers()


@pytest.mark.parametrize(
    ("job", "options"),
    [
        pytest.param(long_finalizers, {"setup_fnc": quiet_hook}, id="one of setup_fnc"),
        pytest.param(long_finalizers, {"preload_fnc": quiet_hook}, id="one of preload_fnc"),
        pytest.param(hook_that_calls_the_one_before, {}, id="one of the job that calls ours"),
    ],
)
async def test_it_stops_with_another_unraisable_hook(job: Any, options: Any) -> None:
    async with pool(**options) as p:
        handle = p.submit(job)
        await asyncio.sleep(0.05)
        handle.cancel()
        assert (await soon(handle.wait())).status is JobStatus.CANCELLED


def finalize_wrongly() -> list[str]:
    seen: list[str] = []
    usual = sys.unraisablehook
    sys.unraisablehook = lambda what: seen.append(repr(what.exc_value))
    Faulty()
    sys.unraisablehook = usual
    Faulty()
    return seen


async def test_what_a_finalizer_raises_itself_is_told_as_ever(capfd: Any) -> None:
    async with pool() as p:
        assert await soon(p.submit(finalize_wrongly)) == ["LookupError('in a finalizer')"]
    assert capfd.readouterr().err.count("LookupError: in a finalizer") == 1


# ── what the caller gets ─────────────────────────────────────────────────────


def cancelled_in_a_group() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
            group.create_task(_spin_for_ever())

    asyncio.run(main())


def fails_in_a_group() -> None:
    try:
        time.sleep(1000)
    except JobCancelled as stop:
        raise BaseExceptionGroup("both", [stop, LookupError("no")])  # type: ignore[name-defined, unused-ignore]  # noqa: B904, F821


needs_groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups of exceptions")


@needs_groups
async def test_a_group_of_tasks_that_was_stopped_is_a_cancelled_job() -> None:
    async with pool() as p:
        handle = p.submit(cancelled_in_a_group)
        await asyncio.sleep(0.05)
        handle.cancel()
        with pytest.raises(JobWasCancelled):
            await soon(handle)


@needs_groups
async def test_of_a_group_that_failed_on_the_way_out_the_failure_is_told() -> None:
    async with pool() as p:
        handle = p.submit(fails_in_a_group)
        await asyncio.sleep(0.05)
        handle.cancel()
        with pytest.raises(Exception, match="both") as raised:
            await soon(handle)
        assert [repr(each) for each in raised.value.exceptions] == ["LookupError('no')"]  # type: ignore[attr-defined]


def cancel_myself() -> None:
    raise JobCancelled("my own idea")


async def test_a_job_that_cancels_itself_raises_an_exception_where_it_is_awaited() -> None:
    async with pool() as p:
        handle = p.submit(cancel_myself)
        with pytest.raises(JobWasCancelled, match="my own idea"):
            await soon(handle)
        assert (await handle.wait()).status is JobStatus.FAILED


# ── forks of the job that come back ──────────────────────────────────────────


def fork_and_exit(code: Any) -> int:
    pid = os.fork()
    if pid == 0:
        sys.exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (4, 4), ("no", 1), (257, 1)])
async def test_a_fork_that_exits_has_the_status_that_it_would_have_anywhere(
    code: Any, status: int, capfd: Any
) -> None:
    async with pool() as p:
        assert await soon(p.submit(fork_and_exit, code)) == status
    assert capfd.readouterr().err == ("no\n" if code == "no" else "")


# ── odd programs ─────────────────────────────────────────────────────────────

STRICT = """
import asyncio
from supervisor import ProcessPool

async def main():
    async with ProcessPool(num_idle_processes=1) as pool:
        print(await pool.submit(divmod, 7, 2))

if __name__ == "__main__":
    asyncio.run(main())
"""

LATE = """
import atexit
from supervisor import ProcessPoolExecutor

def late():
    try:
        ProcessPoolExecutor(1).submit(print)
    except RuntimeError as exc:
        print(exc)

atexit.register(late)
"""


@pytest.mark.parametrize(
    ("flags", "source", "printed"),
    [
        pytest.param(["-bb"], STRICT, "(3, 1)\n", id="bytes are never compared with text"),
        pytest.param(
            [],
            LATE,
            "cannot schedule new futures: the interpreter is exiting\n",
            id="the first executor is made at the exit",
        ),
    ],
)
def test_it_runs_where(flags: list[str], source: str, printed: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(source)
    ran = subprocess.run(
        [sys.executable, *flags, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (printed, "", 0)
