"""Every public call of a pool, at random, from many tasks at once, for some seconds.

What must hold: a call returns what it promises or raises what it documents, each
accepted job has its one outcome, none runs twice, nothing raises on the loop.

The seed is printed; ``GREENROOM_SEED`` repeats the calls (not their timing) and
``GREENROOM_SECONDS`` makes it go on for longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor import (
    JobCancelled,
    JobHandle,
    JobKilled,
    JobStatus,
    JobTimedOut,
    PoolClosed,
    ProcessPool,
    WorkerLost,
)
from supervisor.errors import OptionError
from supervisor.testing.ledger import read as read_ledger
from tests.integration import recorded_jobs as jobs
from tests.integration.conftest import soon

CALLERS: Final = 12
SECONDS: Final = 5.0

# What awaiting a job may raise: the deeds' own errors, and those of the library.
EXPECTED: Final = (
    ValueError,
    SystemExit,
    WorkerLost,
    JobKilled,
    JobCancelled,
    JobTimedOut,
)

# Deeds that take no time of their own, or end when they are asked to.
DEEDS: Final = sorted(set(jobs.DEEDS) - {"use_too_much_memory", "refuse_to_stop"})


class Actions:
    """What any caller may do to a pool. Each method is one action."""

    def __init__(self, pool: ProcessPool, ledger: str, chance: random.Random) -> None:
        self._pool = pool
        self._ledger = ledger
        self._chance = chance
        self.handles: list[JobHandle[Any]] = []
        self.endings: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._all: list[Callable[[], Awaitable[None]]] = [
            self.submit,
            self.submit,
            self.schedule,
            self.schedule,
            self.submit_what_cannot_be_taken,
            self.cancel,
            self.cancel_a_caller,
            self.await_a_job,
            self.wait_for_a_job,
            self.ask_for_a_result,
            self.look,
            self.change_options,
            self.change_options_wrongly,
            self.listen,
        ]

    async def act(self) -> None:
        """Do one thing."""
        action = self._chance.choice(self._all)
        self.calls[action.__name__] += 1
        await action()

    def _some_handle(self) -> JobHandle[Any] | None:
        # Recent ones: most of the old ones have ended.
        recent = self.handles[-20:]
        return self._chance.choice(recent) if recent else None

    def _next_id(self) -> str:
        return f"J-{len(self.handles)}"

    def _accepted(self, handle: JobHandle[Any]) -> None:
        self.handles.append(handle)
        handle.add_done_callback(lambda done: self.endings.update([done.id]))

    # ── submitting ───────────────────────────────────────────────────────────

    async def submit(self) -> None:
        # Its id is made up by the pool: it goes into the ledger under another name.
        name = self._next_id()
        self._accepted(self._pool.submit(jobs.noted_for_a_while, self._ledger, name, 1))

    async def schedule(self) -> None:
        chance = self._chance
        name = self._next_id()
        timeout = chance.choice([None, 0.5, 0.05])
        handle: JobHandle[Any]
        if chance.random() < 0.3:
            arguments = (self._ledger, name, chance.random() < 0.3)
            handle = self._pool.schedule(jobs.noted_async, arguments, timeout=timeout, job_id=name)
        else:
            deed = chance.choice(DEEDS)
            if deed == "sleep_for_ever":
                timeout = 0.1
            handle = self._pool.schedule(
                jobs.noted,
                (self._ledger, name),
                {"deed": deed},
                timeout=timeout,
                memory_limit_mb=chance.choice([None, 1000.0]),
                job_id=name,
            )
        self._accepted(handle)

    async def submit_what_cannot_be_taken(self) -> None:
        before = self._pool.stats().total_jobs
        with pytest.raises((TypeError, PoolClosed)):
            self._pool.schedule(jobs.return_a_value, (threading.Lock(),))
        with pytest.raises((TypeError, PoolClosed)):
            self._pool.submit("no function")  # type: ignore[call-overload]
        with pytest.raises((OptionError, PoolClosed)):
            self._pool.schedule(jobs.return_a_value, timeout=-1.0)
        assert self._pool.stats().total_jobs == before

    # ── a job ────────────────────────────────────────────────────────────────

    async def cancel(self) -> None:
        handle = self._some_handle()
        if handle is None:
            return
        was_done = handle.done()
        assert handle.cancel(self._chance.choice(["cancelled", "for a reason"])) is not was_done

    async def cancel_a_caller(self) -> None:
        handle = self._some_handle()
        if handle is None:
            return
        task = asyncio.ensure_future(self._outcome_or_error(handle))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or task.exception() is None

    async def await_a_job(self) -> None:
        handle = self._some_handle()
        if handle is not None:
            try:
                await asyncio.wait_for(self._outcome_or_error(handle), 0.5)
            except asyncio.TimeoutError:
                pass  # a patient caller would wait; this one has cancelled the job

    async def _outcome_or_error(self, handle: JobHandle[Any]) -> None:
        try:
            value = await handle
        except EXPECTED:
            assert handle.status is not JobStatus.SUCCEEDED
        else:
            assert value == "value" or value == bytes(300_000)
            assert handle.status is JobStatus.SUCCEEDED

    async def wait_for_a_job(self) -> None:
        handle = self._some_handle()
        if handle is not None:
            try:
                outcome = await asyncio.wait_for(handle.wait(), 0.2)
            except asyncio.TimeoutError:
                return
            assert outcome is handle.outcome and handle.done()

    async def ask_for_a_result(self) -> None:
        handle = self._some_handle()
        if handle is None:
            return
        try:
            handle.result()
        except asyncio.InvalidStateError:
            assert not handle.done()
        except EXPECTED:
            assert handle.done()

    # ── the pool ─────────────────────────────────────────────────────────────

    async def look(self) -> None:
        now = self._pool.stats()
        assert repr(self._pool).startswith("<ProcessPool ")
        assert now.as_dict()["total_jobs"] == now.total_jobs == len(self.handles)
        ended = sum(handle.done() for handle in self.handles)
        assert ended == (
            now.total_succeeded
            + now.total_failed
            + now.total_cancelled
            + now.total_timed_out
            + now.total_killed
        )
        assert now.alive == now.total_spawned - now.total_reaped
        for handle in self.handles[-5:]:
            assert repr(handle).startswith(f"<JobHandle {handle.id} {handle.status.value}")
            assert (handle.outcome is not None) == handle.done() == handle.status.is_final
            assert handle.info.id == handle.id

    async def change_options(self) -> None:
        chance = self._chance
        change: dict[str, object] = chance.choice(
            [
                {"num_idle_processes": chance.randrange(5)},
                {"max_jobs": chance.choice([None, 1, 2, 8])},
                {"max_processes": chance.choice([None, 6, 12])},
                {"max_idle_age": chance.choice([None, 0.5])},
                {"job_timeout": chance.choice([None, 2.0])},
                {"shutdown_process_timeout": chance.choice([0.2, 1.0])},
                {"job_memory_warn_mb": chance.choice([0.0, 500.0])},
            ]
        )
        self._pool.update_options(**change)

    async def change_options_wrongly(self) -> None:
        wrong: dict[str, object] = self._chance.choice(
            [
                {"num_idle_processes": -1},
                {"no_such_option": 1},
                {"setup_fnc": jobs.set_up},
                {"max_jobs": 0},
            ]
        )
        with pytest.raises(OptionError):
            self._pool.update_options(**wrong)

    async def listen(self) -> None:
        if len(self.heard) > 50:
            return
        event = self._chance.choice(["worker_warm", "job_started", "job_ended", "worker_exited"])
        self._pool.on(event, lambda _: self.heard.update([event]))
        with pytest.raises(ValueError, match="no_such_event"):
            self._pool.on("no_such_event", print)


def seed() -> int:
    """Return the seed of this run, and print it."""
    chosen = int(os.environ.get("GREENROOM_SEED", random.SystemRandom().randrange(2**32)))
    print(f"GREENROOM_SEED={chosen}")
    return chosen


async def act_until(deadline: float, actions: Actions) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        try:
            await actions.act()
        except PoolClosed:
            return
        await asyncio.sleep(0)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("cancel", [False, True], ids=["waits at the end", "cancels at the end"])
async def test_random_calls_from_many_tasks_break_nothing(tmp_path: Path, cancel: bool) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    seconds = float(os.environ.get("GREENROOM_SECONDS", SECONDS))
    async with ProcessPool(
        setup_fnc=jobs.set_up_and_note,
        num_idle_processes=2,
        max_jobs=8,
        shutdown_process_timeout=1.0,
    ) as pool:
        actions = Actions(pool, str(ledger), random.Random(seed()))
        deadline = loop.time() + seconds
        callers = [asyncio.ensure_future(act_until(deadline, actions)) for _ in range(CALLERS)]
        await soon(asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED), seconds + 30)
        # The others may still be at it: the pool is closed under their hands.
        pool.update_options(max_jobs=8, max_processes=None)
        for handle in actions.handles:
            handle.cancel()
        closing = asyncio.ensure_future(pool.aclose(cancel=cancel))
        await soon(asyncio.gather(*callers), 60)
        await soon(closing, 60)
    print(f"{len(actions.handles)} jobs; {dict(actions.calls)}")
    assert not errors
    assert all(handle.done() for handle in actions.handles)
    assert actions.endings == Counter(handle.id for handle in actions.handles)
    assert set(actions.endings.values()) <= {1}
    runs = Counter(entry.job for entry in read_ledger(str(ledger)))
    assert set(runs.values()) <= {1}, f"ran twice: {[j for j, n in runs.items() if n > 1]}"
    assert pool.stats().alive == 0
    actions.handles.clear()
