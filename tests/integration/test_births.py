"""How workers come into being: on trial, in a hurry, and rehearsing late."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import cProfile
import importlib
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ipc.messages import Name
from supervisor import JobProcess, JobStatus, ProcessPool, get_job_context
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import Watch, until

ROOT = Path(__file__).parents[2]


def note(proc: JobProcess) -> None:
    """Leave a line for each worker that was set up."""
    with Path(proc.user_arguments).open("a") as file:
        file.write(f"{os.getpid()}\n")


def in_the_first_fork(path: str, act: Callable[[], object]) -> None:
    """Have the first process that is forked from here do that, and leave a file."""

    def hook() -> None:
        try:
            Path(path).touch(exist_ok=False)
        except FileExistsError:
            return
        act()

    os.register_at_fork(after_in_child=hook)


def hang_in_the_first_fork(proc: JobProcess) -> None:
    """Have the first process that is forked never come out of its fork."""
    in_the_first_fork(proc.user_arguments, lambda: time.sleep(3600))


def kill_the_first_fork(proc: JobProcess) -> None:
    """Have the first process that is forked die of it."""
    in_the_first_fork(proc.user_arguments, lambda: os._exit(3))


def append(path: str, text: str) -> None:
    """Leave a mark outside of the process: a line that one write makes."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


def pool(**options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 1)
    return ProcessPool(**options)


async def test_nothing_of_the_users_runs_in_the_worker_on_trial(tmp_path: Path) -> None:
    path = tmp_path / "set-up"
    async with pool(num_idle_processes=2, setup_fnc=note, user_arguments=str(path)) as p:
        assert len(path.read_text().split()) == 2
        assert p.stats().idle == 2


async def test_a_trial_that_hangs_is_given_up_and_the_pool_starts(tmp_path: Path) -> None:
    hung = tmp_path / "hung"
    p = pool(preload_fnc=hang_in_the_first_fork, user_arguments=str(hung))
    with Watch(p) as watch:
        async with p:
            assert hung.exists()
            assert await soon(p.submit(jobs.double, 21)) == 42
            assert watch.logged("a worker on trial did not end")


async def test_a_trial_that_dies_does_no_harm(tmp_path: Path) -> None:
    died = tmp_path / "died"
    async with pool(preload_fnc=kill_the_first_fork, user_arguments=str(died)) as p:
        assert died.exists()
        assert await soon(p.submit(jobs.double, 21)) == 42


REHEARSAL = """
import os, socket
from ipc.mark import make_mark, read_mark
from supervisor.child import logs
from supervisor.child.boot import Ends, Hooks, Settings
from supervisor.child.context import JobProcess
from supervisor.child.hello import say_hello
from supervisor.child.worker import Worker

ours, theirs = socket.socketpair()
log_reader, log_writer = socket.socketpair()
mark = make_mark()
ends = Ends(theirs.detach(), log_writer.detach(), os.dup(mark))
before = len(os.listdir("/proc/self/fd"))
forwarder = logs.install("INFO")
worker = Worker(Hooks(), Settings(), say_hello(ends), ends, JobProcess(), forwarder)
worker.rehearse()
assert read_mark(mark) == bytes(8), read_mark(mark)
worker.close()
# The worker's three ends are closed, and nothing else was left open.
assert len(os.listdir("/proc/self/fd")) == before - 3
ours.setblocking(False)
assert ours.recv(4096).count(b"Hello") == 1
assert ours.recv(4096) == b""
ours.close()
log_reader.close()
"""


def test_a_rehearsal_sets_no_mark_sends_nothing_and_leaves_nothing_open() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", REHEARSAL],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_a_job_that_meets_a_late_rehearsal_runs_once(tmp_path: Path) -> None:
    # A second job waits while the first has the only idle worker. So the next two workers
    # are born in a hurry, and the one that is left over rehearses 20 ms later.
    path = tmp_path / "ran"
    chance = random.Random(7)
    async with pool(max_jobs=4) as p:
        for turn in range(20):
            first, second = (p.submit(append, str(path), f"{turn} {n}") for n in "ab")
            await soon(asyncio.gather(first, second))
            await asyncio.sleep(chance.uniform(0.010, 0.030))
            third = p.submit(append, str(path), f"{turn} c")
            await soon(third)
            for handle in (first, second, third):
                assert handle.status is JobStatus.SUCCEEDED
                assert handle.outcome is not None
                assert handle.outcome.handover_seconds is not None
                assert handle.outcome.handover_seconds >= 0
    expected = sorted(f"{turn} {n}" for turn in range(20) for n in "abc")
    assert sorted(path.read_text().splitlines()) == expected


async def test_coroutines_and_functions_run_in_workers_that_have_not_rehearsed() -> None:
    async with pool(num_idle_processes=0, max_jobs=8) as p:
        plain = [p.submit(jobs.double, number) for number in range(8)]
        later = [p.submit(jobs.double_later, number) for number in range(8)]
        assert [await soon(each) for each in plain] == [2 * number for number in range(8)]
        assert [await soon(each) for each in later] == [2 * number for number in range(8)]


# ── the event loop ───────────────────────────────────────────────────────────


def keep_the_loop(proc: JobProcess) -> None:
    proc.userdata["loop"] = asyncio.get_event_loop_policy().get_event_loop()


async def on_the_loop_of_the_setup() -> bool:
    loop: object = get_job_context().proc.userdata["loop"]
    return asyncio.get_running_loop() is loop


async def test_what_setup_takes_for_the_loop_is_the_one_that_coroutines_run_on() -> None:
    async with pool(setup_fnc=keep_the_loop, max_jobs_per_process=None) as p:
        for _ in range(3):
            assert await soon(p.submit(on_the_loop_of_the_setup)) is True


def run_a_loop_of_its_own() -> int:
    return asyncio.run(jobs.double_later(21))


async def test_plain_functions_may_run_a_loop_of_their_own_before_and_after_coroutines() -> None:
    async with pool(num_idle_processes=0, max_jobs=1, max_jobs_per_process=None) as p:
        for function in (run_a_loop_of_its_own, jobs.pid, run_a_loop_of_its_own):
            await soon(p.submit(function))
            assert await soon(p.submit(jobs.double_later, 21)) == 42
        assert await soon(p.submit(run_a_loop_of_its_own)) == 42


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    await asyncio.Event().wait()


async def leave_a_task_that_exits() -> None:
    async def exits() -> None:
        raise SystemExit(3)

    asyncio.ensure_future(exits())  # noqa: RUF006
    await asyncio.sleep(0.3)


async def shut_down_and_stay() -> None:
    get_job_context().shutdown()
    for _ in range(3):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)


async def turn_for(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "turned"


@pytest.mark.parametrize("job", [stop_the_loop, leave_a_task_that_exits, shut_down_and_stay])
async def test_what_a_coroutine_leaves_on_the_loop_stops_no_job_after_it(job: Any) -> None:
    async with pool(max_jobs=1, max_jobs_per_process=None, shutdown_process_timeout=0.5) as p:
        first = p.submit(job)
        await soon(first.wait())
        for _ in range(3):
            later = p.submit(turn_for, 0.7)
            assert await soon(later) == "turned"
            assert later.pid == first.pid


async def test_a_job_that_stops_its_loop_fails_and_is_told_so() -> None:
    async with pool() as p:
        with pytest.raises(RuntimeError, match="stopped the event loop"):
            await soon(p.submit(stop_the_loop))


async def take_longer_than_half_the_grace(path: str) -> None:
    async def called_back() -> None:
        await asyncio.sleep(0.6)
        append(path, "called back")

    get_job_context().add_shutdown_callback(called_back)
    append(path, "begun")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1.3)


async def test_a_coroutine_that_ends_late_does_not_cut_its_callbacks_short(tmp_path: Path) -> None:
    path = tmp_path / "said"
    async with pool(shutdown_process_timeout=2) as p:
        handle = p.submit(take_longer_than_half_the_grace, str(path))
        await until(path.exists)
        handle.cancel()
        outcome = await soon(handle.wait())
        assert (outcome.status, outcome.error) == (JobStatus.CANCELLED, None)
    assert path.read_text().splitlines() == ["begun", "called back"]


# ── the end of a worker ──────────────────────────────────────────────────────


def finalize_in(package: str, path: str) -> None:
    """Leave a finalizer of *package* and an exit handler that was registered before it."""
    util = importlib.import_module(f"{package}.util")
    util.Finalize(None, append, (path, "finalizer"), exitpriority=1)
    atexit.register(append, path, "exit handler")


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
async def test_finalizers_of_multiprocessing_run_once_and_after_exit_handlers(
    package: str, context: str, tmp_path: Path
) -> None:
    path = tmp_path / "order"
    async with pool(multiprocessing_context=context) as p:
        await soon(p.submit(finalize_in, package, str(path)))
    assert path.read_text().split("\n") == ["exit handler", "finalizer", ""]


def exit_in_a_finalizer(package: str) -> None:
    util = importlib.import_module(f"{package}.util")
    util.Finalize(None, sys.exit, args=(1,), exitpriority=1)
    sys.stdout.write("without an end")


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
async def test_a_finalizer_that_exits_is_reported_and_keeps_nothing_back(package: str) -> None:
    p = pool(capture_output=True)
    with Watch(p) as watch:
        async with p:
            await soon(p.submit(exit_in_a_finalizer, package))
            await watch.until(lambda: watch.logged("without an end"))
            await watch.until(lambda: watch.logged("SystemExit: 1"))


def leave_a_daemon(package: str) -> int:
    process = (
        importlib.import_module(package)
        .get_context("fork")
        .Process(target=jobs.sleep_for_ever, daemon=True)
    )
    process.start()
    pid: int = process.pid
    return pid


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
async def test_daemonic_children_of_a_job_end_with_its_worker(package: str) -> None:
    async with pool() as p:
        pid = await soon(p.submit(leave_a_daemon, package))
    assert not psutil.pid_exists(pid)


# ── what preload_fnc may leave behind ────────────────────────────────────────


def promise_a_file_until_the_exit(proc: JobProcess) -> None:
    directory = tempfile.TemporaryDirectory()
    proc.userdata["directory"] = directory
    Path(directory.name, "model").write_text("here")


def read_the_file() -> str:
    directory = get_job_context().proc.userdata["directory"]
    return Path(directory.name, "model").read_text()


async def test_what_preload_wants_done_at_the_exit_is_not_done_on_trial() -> None:
    async with pool(preload_fnc=promise_a_file_until_the_exit) as p:
        assert await soon(p.submit(read_the_file)) == "here"


def print_without_an_end(proc: JobProcess) -> None:
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=8192)
    sys.stdout.write("from preload, ")


async def test_what_preload_has_not_flushed_is_written_once() -> None:
    p = pool(preload_fnc=print_without_an_end, capture_output=True)
    with Watch(p) as watch:
        async with p:
            assert await soon(p.submit(jobs.double, 21)) == 42
    assert sum(message.count("from preload, ") for message in watch.messages) == 1


def leave_a_profiler_on(proc: JobProcess) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    proc.userdata["profiler"] = profiler


def mind_the_end_of_children(proc: JobProcess) -> None:
    def fail(signum: int, frame: object) -> None:
        raise LookupError("a child that is not mine")

    signal.signal(signal.SIGCHLD, fail)


def block_the_end_of_children(proc: JobProcess) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def forbid_code_to_move(proc: JobProcess) -> None:
    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "code.__new__":
            raise PermissionError(event)

    sys.addaudithook(refuse)


@pytest.mark.parametrize(
    "preload_fnc",
    [
        leave_a_profiler_on,
        mind_the_end_of_children,
        block_the_end_of_children,
        forbid_code_to_move,
    ],
)
async def test_workers_are_born_and_reaped_whatever_preload_set_up(preload_fnc: Any) -> None:
    p = pool(preload_fnc=preload_fnc)
    with Watch(p) as watch:
        async with p:
            assert await soon(p.submit(jobs.double, 21)) == 42
            await watch.until(lambda: watch.exits)


def log_at_each_fork(proc: JobProcess) -> None:
    os.register_at_fork(before=lambda: logging.getLogger("hook").warning("a fork is coming"))


async def test_what_hooks_at_fork_log_arrives() -> None:
    p = pool(preload_fnc=log_at_each_fork)
    logger = logging.getLogger("hook")
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        async with p:
            for _ in range(3):
                await soon(p.submit(jobs.double, 21))
            await until(lambda: len(heard) >= 4)
    finally:
        logger.removeHandler(handler)


def die() -> None:
    os._exit(3)


async def test_a_job_that_ends_its_process_at_once_is_said_to_have_started() -> None:
    said: list[str] = []
    async with pool() as p:
        p.on("job_started", lambda _: said.append("job_started"))
        p.on("job_ended", lambda _: said.append("job_ended"))
        for _ in range(20):
            outcome = await soon(p.submit(die).wait())
            assert outcome.status is JobStatus.FAILED
    assert said == ["job_started", "job_ended"] * 20


# ── what workers are born with ───────────────────────────────────────────────

KNOWS_LITTLE = """
import asyncio, inspect, sys
from supervisor import AgentServer, ProcessPool, ProcessPoolExecutor

MACHINERY = {"supervisor.workers", "supervisor.worker", "supervisor.loopthread", "supervisor.serving"}

def known():
    hooks, hook = 0, sys.unraisablehook
    while hook is not sys.__unraisablehook__:
        hooks, hook = hooks + 1, inspect.getclosurevars(hook).nonlocals["usual"]
    return sorted(MACHINERY & set(sys.modules)), hasattr(sys, "greenroom_row"), hooks

async def main():
    async with ProcessPool(num_idle_processes=1) as pool:
        print(await pool.submit(known))
    with ProcessPoolExecutor(1) as executor:
        print(executor.submit(known).result())

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_worker_knows_nothing_of_the_supervisors_side(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(KNOWS_LITTLE)
    ran = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout, ran.returncode) == ("([], False, 1)\n([], False, 1)\n", 0), ran.stderr


def title() -> str:
    return Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()


def title_after(seconds: float) -> str:
    time.sleep(seconds)
    return title()


async def test_a_worker_that_a_job_waited_for_has_a_title_once_it_is_worth_it() -> None:
    async with ProcessPool(num_idle_processes=0, max_jobs=1, max_jobs_per_process=2) as p:
        long = p.submit(title_after, 0.5)
        assert await soon(long) == f"greenroom: job {long.id}"
        assert await soon(p.submit(title)) == "greenroom: idle"


# ── what they are likely to be asked for ─────────────────────────────────────


async def test_workers_that_are_told_of_a_function_do_not_call_it(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    async with pool(num_idle_processes=2) as p:
        for _ in range(4):
            await soon(p.submit(jobs.note, str(path)))
            await until(lambda: p.stats().idle == 2)
        assert p._workers._supply.familiar.names == (Name(jobs.__name__, "note"),)  # type: ignore[union-attr]
    assert path.read_text() == "called\n" * 4


async def test_workers_that_are_told_of_what_is_not_there_are_born_all_the_same() -> None:
    async with pool(num_idle_processes=1) as p:
        familiar = p._workers._supply.familiar  # type: ignore[union-attr]
        familiar.names = (
            Name("no.such.module", "f"),
            Name(jobs.__name__, "g"),
            Name("sys", "exit"),
        )
        for _ in range(3):
            assert await soon(p.submit(jobs.double, 21)) == 42
            await until(lambda: p.stats().idle == 1)
