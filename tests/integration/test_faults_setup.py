"""What goes wrong before a worker is warm: setup_fnc, preload_fnc, the fork itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor import JobStatus, PreloadFailed, ProcessPool, SetupFailed
from tests.children import fails_to_warm, misbehaves
from tests.integration import jobs
from tests.integration.conftest import soon
from tests.integration.watch import Watch, is_gone, is_stopped, make_server, running, until

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("context", ["forkserver", "spawn"])


def pool(context: str = "forkserver", **options: Any) -> ProcessPool:
    options.setdefault("num_idle_processes", 1)
    return ProcessPool(multiprocessing_context=context, **options)


# ── at start ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("context", "setup_fnc", "said"),
    [
        pytest.param(
            "forkserver", fails_to_warm.raises, "LookupError: no model in the store", id="raises"
        ),
        pytest.param(
            "forkserver", fails_to_warm.raises_later, "LookupError: no model", id="raises, async"
        ),
        pytest.param("forkserver", fails_to_warm.exits, "exit status 3", id="exits"),
        pytest.param(
            "forkserver", fails_to_warm.exits_softly, "SystemExit: no licence", id="exits softly"
        ),
        pytest.param("forkserver", fails_to_warm.crashes, "killed by SIGSEGV", id="crashes"),
        pytest.param("forkserver", fails_to_warm.is_killed, "killed by SIGKILL", id="is killed"),
        pytest.param(
            "spawn", fails_to_warm.raises, "LookupError: no model in the store", id="raises, spawn"
        ),
        pytest.param("spawn", fails_to_warm.exits, "exit status 3", id="exits, spawn"),
    ],
)
async def test_a_pool_whose_setup_fails_does_not_start(
    context: str, setup_fnc: Callable[..., Any], said: str
) -> None:
    with pytest.raises(SetupFailed, match=said):
        # Five at a time are the five failures that are one too many.
        await soon(pool(context, setup_fnc=setup_fnc, num_idle_processes=5).start())


async def test_the_error_of_a_failed_start_carries_the_traceback_of_the_child() -> None:
    with pytest.raises(SetupFailed) as caught:
        await soon(pool(setup_fnc=fails_to_warm.raises, num_idle_processes=5).start())
    assert 'raise LookupError("no model in the store")' in caught.value.traceback
    assert caught.value.traceback in str(caught.value)


async def test_a_setup_that_outlives_its_timeout_fails_the_start() -> None:
    starting = pool(
        setup_fnc=fails_to_warm.hangs, num_idle_processes=5, initialize_process_timeout=0.5
    ).start()
    with pytest.raises(SetupFailed, match=r"took longer than initialize_process_timeout=0\.5 s"):
        await soon(starting)


async def test_a_server_whose_setup_fails_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(
        misbehaves.entrypoint, setup_fnc=fails_to_warm.raises, num_idle_processes=5
    )
    with pytest.raises(SetupFailed, match="no model in the store") as caught:
        async with running(server, tmp_path, monkeypatch):
            pytest.fail("the server runs")
    assert "raise LookupError" in caught.value.traceback


@pytest.mark.parametrize(
    ("context", "setup_fnc"),
    [
        pytest.param("forkserver", fails_to_warm.exits_once, id="exits"),
        pytest.param("forkserver", fails_to_warm.exits_softly_once, id="exits softly"),
        pytest.param("forkserver", fails_to_warm.crashes_once, id="crashes"),
        pytest.param("forkserver", fails_to_warm.is_killed_once, id="is killed"),
        pytest.param("spawn", fails_to_warm.is_killed_once, id="is killed, spawn"),
    ],
)
async def test_a_worker_that_ends_while_it_warms_up_is_replaced(
    context: str, setup_fnc: Callable[..., Any], tmp_path: Path
) -> None:
    once = tmp_path / "once"
    once.touch()
    p = pool(context, setup_fnc=setup_fnc, user_arguments=os.fspath(once))
    with Watch(p) as watch:
        async with p:
            assert await soon(p.submit(jobs.double, 21)) == 42
            assert len(watch.exits) >= 1
            assert p.stats().total_warmup_failures == 1


@pytest.mark.parametrize(
    "setup_fnc",
    [
        pytest.param(fails_to_warm.stops_once, id="is stopped"),
        pytest.param(fails_to_warm.holds_the_gil_once, id="is stuck in C with the GIL"),
    ],
)
async def test_a_worker_that_falls_silent_while_it_warms_up_is_replaced(
    setup_fnc: Callable[..., Any], tmp_path: Path
) -> None:
    once = tmp_path / "once"
    once.touch()
    p = pool(
        setup_fnc=setup_fnc,
        user_arguments=os.fspath(once),
        initialize_process_timeout=60.0,
        ping_interval=0.1,
        ping_timeout=0.5,
    )
    with Watch(p) as watch:
        async with p:
            assert watch.logged("has been silent")
            assert watch.logged("killed while warming up: silent")


# ── later, and back again ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("setup_fnc", "said"),
    [
        pytest.param(fails_to_warm.raises_while_the_file_exists, "no model", id="raises"),
        pytest.param(fails_to_warm.exits_while_the_file_exists, "exit status 3", id="exits"),
        pytest.param(fails_to_warm.hangs_while_the_file_exists, "took longer", id="hangs"),
    ],
)
async def test_a_setup_that_fails_later_is_warned_of_and_recovers_by_itself(
    setup_fnc: Callable[..., Any], said: str, tmp_path: Path
) -> None:
    outage = tmp_path / "outage"
    p = pool(setup_fnc=setup_fnc, user_arguments=os.fspath(outage), initialize_process_timeout=1.0)
    with Watch(p) as watch:
        async with p:
            outage.touch()
            assert await soon(p.submit(jobs.double, 1)) == 2  # warm from before the outage
            waiting = p.submit(jobs.double, 2)
            assert said in await watch.until_logged("a worker did not get warm; next try in")
            assert not waiting.done()
            outage.unlink()
            assert await soon(waiting) == 4
            await watch.until_idle()
            assert watch.logged("setup works again")


async def test_a_pool_whose_setup_never_works_again_fails_those_who_wait(tmp_path: Path) -> None:
    outage = tmp_path / "outage"
    p = pool(setup_fnc=fails_to_warm.raises_while_the_file_exists, user_arguments=os.fspath(outage))
    async with p:
        outage.touch()
        first, *others = [p.submit(jobs.double, number) for number in range(4)]
        assert await soon(first) == 0
        for handle in others:
            with pytest.raises(SetupFailed, match="no model in the store"):
                await soon(handle)
            assert handle.outcome is not None
            assert handle.outcome.status is JobStatus.FAILED
            assert handle.outcome.error is not None
            assert "raise LookupError" in handle.outcome.error.traceback
        with pytest.raises(SetupFailed):
            p.submit(jobs.double, 1)


# ── preload_fnc ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("preload_fnc", "said"),
    [
        pytest.param(fails_to_warm.raises, "no model in the store", id="raises"),
        pytest.param(fails_to_warm.exits, "exit status 3", id="exits"),
        pytest.param(fails_to_warm.exits_softly, "no licence", id="exits softly"),
        pytest.param(fails_to_warm.crashes, "killed by SIGSEGV", id="crashes"),
        pytest.param(
            fails_to_warm.leaves_a_thread,
            r"1 thread\(s\) running: refresh-cache.*setup_fnc",
            id="leaves a thread",
        ),
        pytest.param(
            fails_to_warm.leaves_a_native_thread,
            r"1 thread\(s\) running: .*native.*setup_fnc",
            id="leaves a native thread",
        ),
    ],
)
async def test_a_preload_that_fails_or_leaves_threads_fails_the_start(
    preload_fnc: Callable[..., Any], said: str
) -> None:
    with pytest.raises(PreloadFailed, match=said):
        await soon(pool(preload_fnc=preload_fnc).start())


async def test_a_preload_that_outlives_its_timeout_fails_the_start() -> None:
    starting = pool(preload_fnc=fails_to_warm.hangs, initialize_process_timeout=0.5).start()
    with pytest.raises(PreloadFailed, match=r"longer than initialize_process_timeout=0\.5 s"):
        await soon(starting)


async def test_a_module_that_cannot_be_imported_fails_the_start() -> None:
    with pytest.raises(PreloadFailed, match="no_such_module_anywhere"):
        await soon(pool(preload_modules=["no_such_module_anywhere"]).start())


async def test_a_native_thread_that_ends_at_fork_does_no_harm() -> None:
    async with pool(preload_fnc=fails_to_warm.has_a_thread_that_ends_at_fork) as p:
        assert await soon(p.submit(jobs.double, 21)) == 42


async def test_in_a_fresh_interpreter_a_failing_preload_fails_the_start_as_well() -> None:
    starting = pool("spawn", preload_fnc=fails_to_warm.raises, num_idle_processes=5).start()
    with pytest.raises(SetupFailed, match="no model in the store") as caught:
        await soon(starting)
    assert "raise LookupError" in caught.value.traceback


# ── no process to be had ─────────────────────────────────────────────────────


async def test_a_fork_that_fails_for_a_moment_delays_the_start_and_names_the_remedy() -> None:
    p = pool(preload_fnc=fails_to_warm.fork_fails_twice)
    with Watch(p) as watch:
        async with p:
            assert await soon(p.submit(jobs.double, 21)) == 42
            warning = watch.logged("no worker can be started")[0]
            assert "Resource temporarily unavailable" in warning
            assert "raise the limit on processes (ulimit -u, pids.max)" in warning
            assert "next try in 0.05 s" in warning
            assert len(watch.logged("no worker can be started")) == 1, "the second is no news"


# ── idle workers ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("context", "number"),
    [
        pytest.param("forkserver", signal.SIGKILL, id="is killed"),
        pytest.param("forkserver", signal.SIGSEGV, id="crashes"),
        pytest.param("forkserver", signal.SIGUSR1, id="exits"),
        pytest.param("forkserver", signal.SIGUSR2, id="exits softly"),
        pytest.param("spawn", signal.SIGKILL, id="is killed, spawn"),
    ],
)
async def test_an_idle_worker_that_ends_is_replaced(context: str, number: signal.Signals) -> None:
    p = pool(context, setup_fnc=fails_to_warm.dies_on_a_signal)
    with Watch(p) as watch:
        async with p:
            (pid,) = watch.warm
            os.kill(pid, number)
            await watch.until_exited(pid)
            await watch.until_idle()
            assert watch.warm[-1] != pid
            assert is_gone(pid)
            assert await soon(p.submit(jobs.double, 21)) == 42


@both
async def test_an_idle_worker_that_falls_silent_is_replaced(context: str) -> None:
    p = pool(context, ping_interval=0.1, ping_timeout=1.0)
    with Watch(p) as watch:
        async with p:
            (pid,) = watch.warm
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: is_gone(pid) or is_stopped(pid))
            await watch.until_exited(pid)
            await watch.until_idle()
            assert watch.logged(f"(pid {pid}) has been silent")


# ── a start that is cut short ────────────────────────────────────────────────


async def test_a_start_that_is_cancelled_while_setup_hangs_leaves_nothing() -> None:
    p = pool(setup_fnc=fails_to_warm.hangs, num_idle_processes=3)
    starting = asyncio.ensure_future(p.start())
    with Watch(p):
        await until(lambda: p.stats().warming == 3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(starting)
