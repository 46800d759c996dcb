"""Random histories of a real pool, and what must hold in all of them.

Hypothesis draws a history: submits of well and badly behaved jobs, cancels,
timeouts, SIGKILL and SIGSTOP of workers in any state, deaths of the fork server,
changes of options, and a way to close. The processes and signals are real.

What must hold:

* every accepted job gets exactly one outcome, of a kind that its history explains;
* no job runs twice, and none in a process that ran another;
* ``setup_fnc`` has finished, in the same process, before the job begins;
* no job waits while a worker could take it, and left alone, the pool has as many
  idle workers as are wanted;
* the totals and the census add up, after each step;
* nothing raises on the loop, and at the end nothing is left.

The machine owns the loop and turns it only inside a step. A thread that turned it
all the time would make the moments between two steps a matter of chance, and its
end one more thing that can leak. What the processes do meanwhile is still chance,
so a failure may not come again: its history is printed when it happens, and
nothing is shrunk.

Every run in CI takes the same histories. To search for new ones::

    GREENROOM_EXAMPLES=500 pytest tests/integration/test_random_lifecycles.py \\
        --timeout 0 -o faulthandler_timeout=0

with ``--hypothesis-seed=N`` to choose where to begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from supervisor import (
    JobCancelled,
    JobHandle,
    JobKilled,
    JobOutcome,
    JobStatus,
    JobTimedOut,
    ProcessPool,
    WorkerLost,
)
from supervisor.job import Exit
from supervisor.lifecycle import State
from supervisor.outcome import Kill
from supervisor.worker import Worker
from supervisor.workers import Workers
from tests.integration import recorded_jobs as jobs
from tests.integration.conftest import children, descriptors, reap_orphans, soon, wait_until

# Silence is noticed after this; long enough that a busy machine is not silence.
PING_TIMEOUT: Final = 1.5
GRACE: Final = 0.5

# Five warm-ups that fail in a row break a pool, by design. No history goes there.
MAX_HARMED_WARMUPS: Final = 4

# How each deed ends if nobody interferes.
NATURAL_ENDS: Final[dict[str, set[JobStatus]]] = {
    "return_a_value": {JobStatus.SUCCEEDED},
    "return_much": {JobStatus.SUCCEEDED},
    "raise_an_exception": {JobStatus.FAILED},
    "exit_softly": {JobStatus.FAILED},
    "exit_hard": {JobStatus.FAILED},
    "exit_hard_with_success": {JobStatus.FAILED},
    "segfault": {JobStatus.FAILED},
    "abort": {JobStatus.FAILED},
    "kill_itself": {JobStatus.KILLED},
    # Which comes first is chance: the end of the channel, or of the process.
    "close_all_descriptors": {JobStatus.FAILED, JobStatus.KILLED},
    "sleep_for_ever": set(),
    "refuse_to_stop": set(),
    "use_too_much_memory": {JobStatus.KILLED},
    "leave_a_grandchild": {JobStatus.SUCCEEDED},
    "leave_a_stray": {JobStatus.SUCCEEDED},
    "await_once": {JobStatus.SUCCEEDED},
    "await_for_ever": set(),
}

# What the process says of itself at the end, where the deed decides it.
NATURAL_EXITS: Final = {
    "exit_hard": Exit(status=7),
    "exit_hard_with_success": Exit(status=0),
    "segfault": Exit(signal=signal.SIGSEGV),
    "abort": Exit(signal=signal.SIGABRT),
    "kill_itself": Exit(signal=signal.SIGKILL),
}

RAISED: Final[dict[JobStatus, type[BaseException]]] = {
    JobStatus.CANCELLED: JobCancelled,
    JobStatus.TIMED_OUT: JobTimedOut,
    JobStatus.KILLED: JobKilled,
}

RAISED_BY_DEED: Final[dict[str, type[BaseException]]] = {
    "raise_an_exception": ValueError,
    "exit_softly": SystemExit,
}


@dataclass
class Story:
    """One job: what it was to do, and what was done to it."""

    id: str
    deed: str
    handle: JobHandle[Any]
    asked: bool = False  # somebody asked it to stop
    has_timeout: bool = False
    killed: bool = False  # its worker got our SIGKILL
    stopped: bool = False  # its worker got our SIGSTOP
    harmed_in_it: bool = False  # and it had begun: it cannot go on
    endings: list[JobStatus] = field(default_factory=list)

    @property
    def is_undisturbed(self) -> bool:
        return not (self.asked or self.has_timeout or self.killed or self.stopped)

    def possible_ends(self) -> set[JobStatus]:
        ends = set(NATURAL_ENDS[self.deed])
        if self.asked:
            ends |= {JobStatus.CANCELLED, JobStatus.KILLED}
        if self.has_timeout:
            ends.add(JobStatus.TIMED_OUT)
        if self.killed or self.stopped:
            ends.add(JobStatus.KILLED)
        return ends


@dataclass(frozen=True)
class Surroundings:
    """What there was before the pool."""

    processes: set[psutil.Process]
    descriptors: dict[int, str]
    threads: set[threading.Thread]


def surroundings() -> Surroundings:
    return Surroundings(children(), descriptors(), set(threading.enumerate()))


class Lifecycles(RuleBasedStateMachine):
    """A pool, what is done to it, and what is expected of it."""

    def __init__(self) -> None:
        super().__init__()
        self._began_at = time.monotonic()
        self._history: list[str] = []
        self._failed = False
        self._stories: dict[str, Story] = {}
        self._job_ended_events: Counter[str] = Counter()
        self._harmed_warmups = 0
        self._harmed_workers = 0
        self._fork_server_died = False
        self._pool: ProcessPool | None = None

    # ── the beginning ────────────────────────────────────────────────────────

    @initialize(
        idle=st.integers(0, 3),
        max_jobs=st.integers(1, 4),
        fork_server_may_die=st.booleans(),
        closing=st.sampled_from(["wait", "cancel", "wait, then cancel", "wait"]),
    )
    def open(self, idle: int, max_jobs: int, fork_server_may_die: bool, closing: str) -> None:
        self._before = surroundings()
        self._closing = closing
        # A stray of a job is found by the fork server that it falls to. Where that
        # has died as well there is nobody to find it: a limit of what is promised.
        self._fork_server_may_die = fork_server_may_die
        fd, self._ledger = tempfile.mkstemp(prefix="greenroom-ledger-")
        os.close(fd)
        self._loop = asyncio.new_event_loop()
        self._loop_errors: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda loop, context: self._loop_errors.append(context))
        self._changed = asyncio.Event()
        self._target = idle
        self._max_jobs = self._peak_max_jobs = max_jobs
        self._pool = ProcessPool(
            setup_fnc=jobs.set_up,
            num_idle_processes=idle,
            max_jobs=max_jobs,
            ping_interval=0.2,
            ping_timeout=PING_TIMEOUT,
            shutdown_process_timeout=GRACE,
        )
        for event in ("worker_warm", "worker_exited", "job_started", "job_ended"):
            self._pool.on(event, self._listener(event))
        with self._step(f"open: idle {idle}, max_jobs {max_jobs}, closing: {closing}"):
            self._run(self._pool.start())

    def _listener(self, event: str) -> Callable[[Any], None]:
        def heard(value: Any) -> None:
            self._tell(f"    {event} {value!r}")
            if event == "job_ended":
                self._job_ended_events[value.id] += 1
            self._changed.set()

        return heard

    # ── submitting ───────────────────────────────────────────────────────────

    @rule(
        deed=st.sampled_from(sorted(jobs.DEEDS)),
        timeout=st.one_of(st.none(), st.none(), st.floats(0.01, 0.3)),
    )
    def submit(self, deed: str, timeout: float | None) -> None:
        if deed == "leave_a_stray" and self._fork_server_may_die:
            deed = "leave_a_grandchild"
        with self._step(f"submit {deed}, timeout {timeout}"):
            self._submit(deed, timeout)

    @rule(for_ever=st.booleans(), timeout=st.one_of(st.none(), st.floats(0.01, 0.3)))
    def submit_a_coroutine_function(self, for_ever: bool, timeout: float | None) -> None:
        deed = "await_for_ever" if for_ever else "await_once"
        with self._step(f"submit {deed}, timeout {timeout}"):
            self._submit(deed, timeout)

    @rule(count=st.integers(2, 6))
    def submit_many(self, count: int) -> None:
        with self._step(f"submit {count} plain jobs at once"):
            for _ in range(count):
                self._submit("return_a_value", None)

    def _submit(self, deed: str, timeout: float | None) -> None:
        job = f"J-{len(self._stories) + 1}"
        limit = jobs.HOG_LIMIT_MB if deed == "use_too_much_memory" else None
        function: Callable[..., Any]
        arguments: tuple[Any, ...]
        if deed.startswith("await"):
            function, arguments = jobs.noted_async, (self._ledger, job, deed == "await_for_ever")
        else:
            function, arguments = jobs.noted, (self._ledger, job, deed)
        handle = self._open_pool.schedule(
            function, arguments, timeout=timeout, memory_limit_mb=limit, job_id=job
        )
        story = Story(job, deed, handle, has_timeout=timeout is not None)
        self._stories[job] = story
        handle.add_done_callback(lambda ended: story.endings.append(ended.status))
        self._tell(f"    {job} is {deed}")

    # ── interfering ──────────────────────────────────────────────────────────

    @rule(pick=st.integers(0, 99), by_caller=st.booleans())
    def cancel(self, pick: int, by_caller: bool) -> None:
        story = _picked(self._open_stories(), pick)
        if story is None:
            return
        how = "by cancelling its caller" if by_caller else "by its handle"
        with self._step(f"cancel {story.id} {how}"):
            story.asked = True
            if by_caller:
                self._run(self._cancel_caller(story.handle))
            else:
                assert story.handle.cancel() is True

    async def _cancel_caller(self, handle: JobHandle[Any]) -> None:
        async def caller() -> None:
            await handle

        task = asyncio.ensure_future(caller())
        await asyncio.sleep(0)  # it waits now
        task.cancel()
        # The job may have ended in that one turn.
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task

    @rule(
        number=st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]),
        states=st.sampled_from(
            [
                (State.IDLE,),
                (State.RUNNING,),
                (State.RUNNING, State.STOPPING),
                (State.SPAWNING, State.WARMING),
            ]
        ),
        pick=st.integers(0, 99),
    )
    def harm_a_worker(self, number: signal.Signals, states: tuple[State, ...], pick: int) -> None:
        worker = _picked([each for each in self._workers.all if each.state in states], pick)
        if worker is None or worker.pidfd is None:
            return
        if worker.state is State.SPAWNING and number == signal.SIGSTOP:
            return  # noticed by SPAWN_TIMEOUT only, since a new interpreter may be slow to speak
        if worker.state in (State.SPAWNING, State.WARMING):
            if self._harmed_warmups == MAX_HARMED_WARMUPS:
                return
            self._harmed_warmups += 1
        with self._step(f"{number.name} to {worker}"):
            self._harm(worker, number)

    def _harm(self, worker: Worker, number: signal.Signals) -> None:
        self._harmed_workers += 1
        assert worker.pidfd is not None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker.pidfd, number)
        if worker.job is not None:
            story = self._stories[worker.job.id]
            story.killed |= number == signal.SIGKILL
            story.stopped |= number == signal.SIGSTOP
            story.harmed_in_it |= worker.job.begun

    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGSTOP]), asynchronous=st.booleans())
    def harm_a_worker_that_runs_a_job(self, number: signal.Signals, asynchronous: bool) -> None:
        with self._step(f"submit a job that never ends; {number.name} once one has begun"):
            self._submit("await_for_ever" if asynchronous else "sleep_for_ever", None)
            self._run(self._some_events(3))
            workers = self._workers.all
            worker = next((each for each in workers if each.job and each.job.begun), None)
            if worker is not None:
                self._tell(f"    {number.name} to {worker}")
                self._harm(worker, number)

    @rule()
    def kill_the_fork_server(self) -> None:
        pid = self._workers.forkserver_pid
        if not self._fork_server_may_die or pid is None:
            return
        with self._step(f"SIGKILL to the fork server, pid {pid}"):
            self._fork_server_died = True
            os.kill(pid, signal.SIGKILL)

    @rule(idle=st.integers(0, 4))
    def change_the_idle_target(self, idle: int) -> None:
        with self._step(f"num_idle_processes = {idle}"):
            self._open_pool.update_options(num_idle_processes=idle)
            self._target = idle

    @rule(max_jobs=st.integers(1, 5))
    def change_max_jobs(self, max_jobs: int) -> None:
        with self._step(f"max_jobs = {max_jobs}"):
            self._open_pool.update_options(max_jobs=max_jobs)
            self._max_jobs = max_jobs
            self._peak_max_jobs = max(self._peak_max_jobs, max_jobs)

    # ── letting it be ────────────────────────────────────────────────────────

    @rule(turns=st.integers(1, 5))
    def turn_the_loop(self, turns: int) -> None:
        with self._step(f"{turns} turns of the loop"):
            self._run(self._turns(turns))

    async def _turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    @rule(events=st.integers(1, 5))
    def wait_for_events(self, events: int) -> None:
        """Not a synchronisation: there may be none to come."""
        with self._step(f"wait for up to {events} events"):
            self._run(self._some_events(events))

    async def _some_events(self, count: int) -> None:
        for _ in range(count):
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.05)

    @rule()
    def leave_it_alone_until_the_idle_workers_are_back(self) -> None:
        with self._step(f"wait until {self._target} workers are idle"):
            self._run(self._idle_workers_are_back())

    async def _idle_workers_are_back(self) -> None:
        def are_back() -> bool:
            now = self._open_pool.stats()
            return now.idle == self._target and now.spawning + now.warming == 0

        while not are_back():
            self._changed.clear()
            try:
                await soon(self._changed.wait(), 20)
            except asyncio.TimeoutError:
                raise AssertionError(
                    f"wanted {self._target} idle workers, found {self._open_pool.stats()}"
                ) from None

    # ── what must hold after each step ───────────────────────────────────────

    @invariant()
    def the_loop_has_seen_no_error(self) -> None:
        with self._checking():
            assert not self._loop_errors, f"raised on the loop: {self._loop_errors}"

    @invariant()
    def the_figures_add_up(self) -> None:
        with self._checking():
            now = self._open_pool.stats()
            workers = self._workers.all
            ended = [story for story in self._stories.values() if story.handle.done()]
            still_open = len(self._stories) - len(ended)
            assert now.total_jobs == len(self._stories)
            assert len(ended) == (
                now.total_succeeded
                + now.total_failed
                + now.total_cancelled
                + now.total_timed_out
                + now.total_killed
            )
            in_workers = sum(each.job is not None for each in workers)
            assert still_open == now.waiting + in_workers
            assert in_workers <= self._peak_max_jobs
            assert now.alive == len(workers) == now.total_spawned - now.total_reaped
            assert now.peak_waiting >= now.waiting
            counted = Counter(each.state for each in workers)
            assert now.idle == counted[State.IDLE]
            assert now.running == counted[State.RUNNING]
            assert now.stopping == counted[State.STOPPING] + counted[State.KILLED]

    @invariant()
    def no_job_waits_while_a_worker_could_take_it(self) -> None:
        with self._checking():
            now = self._open_pool.stats()
            if self._workers._comparing:
                return  # it will be seen to in the loop's next turn
            handed_over = len(self._open_stories()) - now.waiting
            assert not now.waiting or not now.idle or handed_over >= self._max_jobs

    @invariant()
    def no_job_has_ended_twice(self) -> None:
        with self._checking():
            for story in self._stories.values():
                assert len(story.endings) == int(story.handle.done())
                assert story.handle.done() == story.handle.status.is_final

    # ── the end ──────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        if self._pool is None:
            return
        try:
            if not self._failed:
                self._close_and_check()
        finally:
            self._clean_up()

    def _close_and_check(self) -> None:
        with self._step(f"close: {self._closing}"):
            self._run(soon(self._close(), 30))
        self.the_loop_has_seen_no_error()
        self.the_figures_add_up()
        self.no_job_has_ended_twice()
        with self._checking():
            assert self._open_pool.stats().alive == 0
            for story in self._stories.values():
                self._check_ending(story)
            self._check_executions()
        with self._checking():
            self._check_nothing_is_left()

    async def _close(self) -> None:
        pool = self._open_pool
        if self._closing == "cancel":
            self._ask_all(self._open_stories())
            await pool.aclose(cancel=True)
        elif self._closing == "wait, then cancel":
            waiting = asyncio.ensure_future(pool.aclose())
            await self._some_events(2)
            self._ask_all(self._open_stories())
            await pool.aclose(cancel=True)
            await waiting
        else:
            endless = [
                each
                for each in self._open_stories()
                if not NATURAL_ENDS[each.deed] and not each.harmed_in_it
            ]
            self._ask_all(endless)
            for story in endless[::2]:
                story.handle.cancel()
            closing = asyncio.ensure_future(pool.aclose())
            await asyncio.sleep(0)
            for story in endless[1::2]:
                story.handle.cancel()
            await closing

    def _ask_all(self, stories: list[Story]) -> None:
        for story in stories:
            story.asked = True

    def _check_ending(self, story: Story) -> None:
        told = story.handle.outcome
        assert told is not None, f"{story} has no outcome"
        assert self._job_ended_events[story.id] == 1, f"{story} was announced more than once"
        ends = story.possible_ends()
        if told.started_at is None and self._harmed_workers >= 3:
            # It was handed to three workers, and each had been killed before.
            ends |= {JobStatus.KILLED, JobStatus.FAILED}
        if self._fork_server_died and told.exit == Exit():
            # Nobody could tell how it ended: the kernel is too old for that.
            ends.add(JobStatus.FAILED)
        assert told.status in ends, f"{story} ended as {told}"
        if story.is_undisturbed:
            self._check_undisturbed(story, told)
        self._check_times(story, told)
        self._check_error(story, told)

    def _check_undisturbed(self, story: Story, told: JobOutcome) -> None:
        if told.started_at is None:
            return
        wanted = NATURAL_EXITS.get(story.deed)
        if wanted is not None and not (self._fork_server_died and told.exit == Exit()):
            assert told.exit == wanted, f"{story} ended as {told}"
        if story.deed == "use_too_much_memory":
            assert told.reason == "memory", f"{story} ended as {told}"

    def _check_times(self, story: Story, told: JobOutcome) -> None:
        assert told.queued_at <= told.ended_at, f"{story} ended as {told}"
        if told.started_at is not None:
            assert told.queued_at <= told.started_at <= told.ended_at, f"{story} ended as {told}"
            assert told.pid is not None, f"{story} ended as {told}"

    def _check_error(self, story: Story, told: JobOutcome) -> None:
        error: BaseException | None = None
        try:
            value = story.handle.result()
            assert value == "value" or value == bytes(300_000), f"{story} returned {value!r}"
        except AssertionError:
            raise
        except BaseException as exc:  # noqa: BLE001 - SystemExit is one of the deeds
            error = exc
        if told.status is JobStatus.SUCCEEDED:
            assert error is None, f"{story} ended as {told} and raised {error!r}"
        elif told.status is JobStatus.FAILED and told.exit is None:
            assert isinstance(error, RAISED_BY_DEED[story.deed]), f"{story} raised {error!r}"
        else:
            wanted = RAISED.get(told.status, WorkerLost)
            assert isinstance(error, wanted), f"{story} ended as {told} and raised {error!r}"

    def _check_executions(self) -> None:
        entries = jobs.read_ledger(self._ledger)
        runs = Counter(entry.job for entry in entries)
        twice = {job: count for job, count in runs.items() if count > 1}
        assert not twice, f"these jobs ran more than once: {twice}"
        for story in self._stories.values():
            told = story.handle.outcome
            assert told is not None
            if told.status is JobStatus.SUCCEEDED or (
                story.is_undisturbed and told.started_at is not None
            ):
                assert runs[story.id] == 1, f"{story} never ran, but ended as {told}"
            if runs[story.id]:
                assert told.started_at is not None, f"{story} ran, but ended as {told}"
        tokens = Counter(entry.setup_token for entry in entries)
        shared = [entry for entry in entries if tokens[entry.setup_token] > 1]
        assert not shared, f"these jobs shared a process: {shared}"
        for entry in entries:
            assert entry.setup_pid == entry.pid, f"not warmed in its own process: {entry}"
            assert entry.setup_done_at <= entry.began_at, f"began before it was warm: {entry}"

    def _check_nothing_is_left(self) -> None:
        assert not asyncio.all_tasks(self._loop), f"tasks left: {asyncio.all_tasks(self._loop)}"
        # The kernel takes a moment to finish processes that were killed.
        wait_until(lambda: not children() - self._before.processes, 10)
        # Workers whose fork server died fall to this process, a subreaper.
        reap_orphans(set())
        # A job's result may sit in memory of its own until its caller drops it.
        self._stories.clear()
        self._close_loop()
        left = {
            fd: what for fd, what in descriptors().items() if fd not in self._before.descriptors
        }
        assert not left, f"descriptors left: {left}"
        threads = [each for each in threading.enumerate() if each not in self._before.threads]
        assert not threads, f"threads left: {threads}"

    def _clean_up(self) -> None:
        """Leave nothing to the next history, however this one ended."""
        if not self._loop.is_closed():
            with contextlib.suppress(Exception):
                self._run(soon(self._give_up(), 15))
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._close_loop()
        for process in children() - self._before.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not children() - self._before.processes, 10)
        reap_orphans(set())
        os.unlink(self._ledger)

    async def _give_up(self) -> None:
        closing = asyncio.ensure_future(self._open_pool.aclose(cancel=True))
        self._workers.kill_all(Kill("test failed"))
        await closing

    def _close_loop(self) -> None:
        if not self._loop.is_closed():
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    # ── helpers ──────────────────────────────────────────────────────────────

    @property
    def _open_pool(self) -> ProcessPool:
        assert self._pool is not None
        return self._pool

    @property
    def _workers(self) -> Workers:
        workers = self._open_pool._workers
        assert workers is not None
        return workers

    def _open_stories(self) -> list[Story]:
        return [story for story in self._stories.values() if not story.handle.done()]

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        self._loop.run_until_complete(work)

    def _tell(self, line: str) -> None:
        self._history.append(f"{time.monotonic() - self._began_at:8.3f} {line}")

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        """Write *what* into the history, do it, and give the loop a turn."""
        self._tell(what)
        with self._checking():
            yield
            if not self._loop.is_closed():
                self._run(self._turns(1))

    @contextlib.contextmanager
    def _checking(self) -> Iterator[None]:
        """Print the history when the block raises."""
        try:
            yield
        except BaseException as exc:
            if not self._failed:
                self._failed = True
                self._print_history(exc)
            raise

    def _print_history(self, exc: BaseException) -> None:
        lines = ["", f"This history ended in {type(exc).__name__}: {exc}", *self._history]
        lines += [f"    {story}" for story in self._stories.values()]
        lines += [f"    {worker}" for worker in self._workers.all]
        lines.append(f"    {self._open_pool.stats()}")
        print("\n".join(lines), file=sys.stderr)


def _picked(candidates: list[Any], pick: int) -> Any:
    """Return one of the candidates, None if there are none.

    A number is drawn and not a candidate: who there is depends on the processes,
    and what hypothesis draws must not.
    """
    return random.Random(pick).choice(candidates) if candidates else None


def history_settings() -> settings:
    """Return the settings: the same histories each time, or as many new ones as are asked for."""
    asked_for = os.environ.get("GREENROOM_EXAMPLES")
    return settings(
        max_examples=int(asked_for) if asked_for else 40,
        stateful_step_count=25,
        derandomize=asked_for is None,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
def test_every_history_keeps_the_promises() -> None:
    run_state_machine_as_test(Lifecycles, settings=history_settings())
