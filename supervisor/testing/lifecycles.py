"""Random lives of your pool or server, with faults, and what must hold in all of them.

Hypothesis draws a history: submits of the deeds that you name, cancels, timeouts,
SIGKILL, SIGSEGV and SIGSTOP of workers in any state, deaths of the fork server,
changes of options, and a way to close. The processes and signals are real.

What must hold:

* every accepted job gets exactly one outcome, of a kind that its history explains;
* no job runs twice, and none in a process that ran another (unless workers are reused);
* ``setup_fnc`` has finished, in the same process, before the job begins;
* no job waits while a worker could take it, and left alone, there are as many idle
  workers as are wanted;
* the totals and the census add up, after each step;
* nothing raises on the loop, and at the end nothing is left.

The machine owns the loop and turns it only inside a step. What the processes do
meanwhile is chance, so a failure may not come again: its history is printed when it
happens, and nothing is shrunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supervisor.handle import JobHandle
from supervisor.job import JobStatus
from supervisor.lifecycle import State
from supervisor.testing import ledger
from supervisor.testing.deeds import Circumstances, Deed, Story, check_ending
from supervisor.testing.history import History, picked
from supervisor.testing.leaks import assert_nothing_left, surroundings
from supervisor.testing.running import soon
from supervisor.testing.steps import Steps
from supervisor.testing.subjects import PoolSubject, ServerSubject, Subject
from supervisor.worker import Worker

# Five warm-ups that fail in a row break a pool, by design. No history goes there.
MAX_HARMED_WARMUPS = 4

# How long a job may take of which it is said that it ends. Seconds.
_PATIENCE: Final = 60.0

# How long one is watched of which it is said that it never does. Seconds.
_STAYING: Final = 0.5

HARM = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


class Lifecycles(RuleBasedStateMachine, Steps):
    """A pool or a server, what is done to it, and what is expected of it.

    Subclasses are made by :func:`supervisor.testing.check.lifecycle_machine`.
    """

    deeds: ClassVar[tuple[Deed, ...]] = ()
    setup_fnc: ClassVar[Callable[..., Any] | None] = None
    entrypoint: ClassVar[Callable[..., Any] | None] = None
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.history = History(self._describe)
        self._stories: dict[str, Story] = {}
        self._job_ended_events: Counter[str] = Counter()
        self._harmed_warmups = 0
        self._harmed_workers = 0
        self._fork_server_died = False
        self.subject: Subject | None = None

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
        self._fork_server_may_die = fork_server_may_die
        self._target = idle
        self._max_jobs = self._peak_max_jobs = max_jobs
        fd, self._ledger = tempfile.mkstemp(prefix="greenroom-ledger-")
        os.close(fd)
        self.begin_loop()
        made = {**self.options, "num_idle_processes": idle, "max_jobs": max_jobs}
        cls = type(self)
        if cls.entrypoint is not None:
            self.subject = ServerSubject(cls.entrypoint, cls.setup_fnc, made, self._ledger)
        else:
            self.subject = PoolSubject(cls.setup_fnc, made, self._ledger)
        for event in ("worker_warm", "worker_exited", "job_started", "job_ended"):
            self.subject.on(event, self._listener(event))
        with self.step(f"open: idle {idle}, max_jobs {max_jobs}, closing: {closing}"):
            self.run(self.subject.start())

    def live_in_peace(self) -> None:
        """Do each deed once and harm nobody; :meth:`teardown` is still to come.

        What was said of a deed is looked at in this life, whatever the drawn ones hold.
        """
        self.open(idle=1, max_jobs=len(self.deeds), fork_server_may_die=False, closing="wait")
        for deed in self.deeds:
            with self.step(f"submit {deed.name}, and let it be"):
                story = self._submit(deed, None)
                if story is not None:
                    self.run(self._until_it_ends_or_stays(story))
        self.the_loop_has_seen_no_error()
        self.the_figures_add_up()
        self.no_job_has_ended_twice()

    async def _until_it_ends_or_stays(self, story: Story) -> None:
        while story.handle.status is JobStatus.PENDING:
            await self.some_events(1)
        try:
            await soon(story.handle.wait(), _PATIENCE if story.deed.ends else _STAYING)
        except asyncio.TimeoutError:
            assert not story.deed.ends, f"{story} has not ended in {_PATIENCE:g} s"

    def _listener(self, event: str) -> Callable[[Any], None]:
        def heard(value: Any) -> None:
            self.history.tell(f"    {event} {value!r}")
            if event == "job_ended":
                self._job_ended_events[value.id] += 1
            self.changed.set()

        return heard

    # ── submitting ───────────────────────────────────────────────────────────

    @rule(pick=st.integers(0, 999), timeout=st.one_of(st.none(), st.none(), st.floats(0.01, 0.3)))
    def submit(self, pick: int, timeout: float | None) -> None:
        deed = self._allowed(picked(list(self.deeds), pick))
        with self.step(f"submit {deed.name}, timeout {timeout}"):
            self._submit(deed, timeout)

    @rule(count=st.integers(2, 6))
    def submit_many(self, count: int) -> None:
        deed = self._allowed(self.deeds[0])
        with self.step(f"submit {deed.name} {count} times at once"):
            for _ in range(count):
                self._submit(deed, None)

    def _allowed(self, deed: Deed) -> Deed:
        if deed.leaves_strays and self._fork_server_may_die:
            return next(each for each in self.deeds if not each.leaves_strays)
        return deed

    def _submit(self, deed: Deed, timeout: float | None) -> Story | None:
        job = f"J-{len(self._stories) + 1}"
        if self.open_subject.is_server:
            timeout = None  # a server's jobs have the one of its options
        handle = self.run(self.open_subject.submit(deed, job, timeout))
        if handle is None:
            self.history.tell("    not admitted")
            return None
        has_timeout = timeout is not None or self.options.get("job_timeout") is not None
        story = Story(job, deed, handle, has_timeout=has_timeout)
        self._stories[job] = story
        handle.add_done_callback(lambda ended: story.endings.append(ended.status))
        self.history.tell(f"    {job} is {deed.name}")
        return story

    # ── interfering ──────────────────────────────────────────────────────────

    @rule(pick=st.integers(0, 99), by_caller=st.booleans())
    def cancel(self, pick: int, by_caller: bool) -> None:
        story = picked(self._open_stories(), pick)
        if story is None:
            return
        by_caller = by_caller and not self.open_subject.is_server
        with self.step(f"cancel {story.id} {'with its caller' if by_caller else 'by its handle'}"):
            story.asked = True
            if by_caller:
                self.run(_cancel_caller(story.handle))
            else:
                assert story.handle.cancel() is True

    @rule(
        number=st.sampled_from(HARM),
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
        worker = picked([each for each in self.workers.all if each.state in states], pick)
        if worker is None or worker.pidfd is None:
            return
        if worker.state is State.SPAWNING and number == signal.SIGSTOP:
            return  # noticed by SPAWN_TIMEOUT only, since a new interpreter may be slow to speak
        if worker.state in (State.SPAWNING, State.WARMING):
            if self._harmed_warmups == MAX_HARMED_WARMUPS:
                return
            self._harmed_warmups += 1
        with self.step(f"{number.name} to {worker}"):
            self._harm(worker, number)

    def _harm(self, worker: Worker, number: signal.Signals) -> None:
        self._harmed_workers += 1
        assert worker.pidfd is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            signal.pidfd_send_signal(worker.pidfd, number)
        story = None if worker.job is None else self._stories.get(worker.job.id)
        if worker.job is not None and story is not None:
            story.killed |= number == signal.SIGKILL
            story.crashed |= number == signal.SIGSEGV
            story.stopped |= number == signal.SIGSTOP
            story.harmed_in_it |= worker.job.begun

    @rule(number=st.sampled_from(HARM[1:]), pick=st.integers(0, 99))
    def harm_a_worker_that_runs_a_job(self, number: signal.Signals, pick: int) -> None:
        endless = [each for each in self.deeds if not each.ends] or list(self.deeds)
        deed = self._allowed(picked(endless, pick))
        with self.step(f"submit {deed.name}; {number.name} once a job has begun"):
            self._submit(deed, None)
            self.run(self.some_events(3))
            worker = next((each for each in self.workers.all if each.job and each.job.begun), None)
            if worker is not None and worker.pidfd is not None:
                self.history.tell(f"    {number.name} to {worker}")
                self._harm(worker, number)

    @rule()
    def kill_the_fork_server(self) -> None:
        pid = self.workers.forkserver_pid
        if not self._fork_server_may_die or pid is None:
            return
        with self.step(f"SIGKILL to the fork server, pid {pid}"):
            self._fork_server_died = True
            os.kill(pid, signal.SIGKILL)

    @rule(idle=st.integers(0, 4))
    def change_the_idle_target(self, idle: int) -> None:
        with self.step(f"num_idle_processes = {idle}"):
            self.open_subject.update_options(num_idle_processes=idle)
            self._target = idle

    @rule(max_jobs=st.integers(1, 5))
    def change_max_jobs(self, max_jobs: int) -> None:
        with self.step(f"max_jobs = {max_jobs}"):
            self.open_subject.update_options(max_jobs=max_jobs)
            self._max_jobs = max_jobs
            self._peak_max_jobs = max(self._peak_max_jobs, max_jobs)

    # ── letting it be ────────────────────────────────────────────────────────

    @rule(turns=st.integers(1, 5))
    def turn_the_loop(self, turns: int) -> None:
        with self.step(f"{turns} turns of the loop"):
            self.run(self.turns(turns))

    @rule(events=st.integers(1, 5))
    def wait_for_events(self, events: int) -> None:
        """Not a synchronisation: there may be none to come."""
        with self.step(f"wait for up to {events} events"):
            self.run(self.some_events(events))

    @rule()
    def leave_it_alone_until_the_idle_workers_are_back(self) -> None:
        with self.step(f"wait until {self._target} workers are idle"):
            self.run(self.until_idle(self._target))

    # ── what must hold after each step ───────────────────────────────────────

    @invariant()
    def the_loop_has_seen_no_error(self) -> None:
        with self.history.checking():
            assert not self.loop_errors, f"raised on the loop: {self.loop_errors}"

    @invariant()
    def the_figures_add_up(self) -> None:
        with self.history.checking():
            self.check_figures(len(self._stories), len(self._open_stories()), self._peak_max_jobs)

    @invariant()
    def no_job_waits_while_a_worker_could_take_it(self) -> None:
        with self.history.checking():
            now = self.open_subject.stats()
            if self.workers._comparing:
                return  # it will be seen to in the loop's next turn
            handed_over = len(self._open_stories()) - now.waiting
            assert not now.waiting or not now.idle or handed_over >= self._max_jobs

    @invariant()
    def no_job_has_ended_twice(self) -> None:
        with self.history.checking():
            for story in self._stories.values():
                assert len(story.endings) == int(story.handle.done())
                assert story.handle.done() == story.handle.status.is_final

    # ── the end ──────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        """Close it and look at everything. Called by hypothesis at the end of a history."""
        if self.subject is None:
            return
        try:
            if not self.history.failed:
                self._close_and_check()
        finally:
            self.clean_up(self._before)
            os.unlink(self._ledger)

    def _close_and_check(self) -> None:
        with self.step(f"close: {self._closing}"):
            self.run(soon(self._close(), _PATIENCE))
        self.the_loop_has_seen_no_error()
        self.the_figures_add_up()
        self.no_job_has_ended_twice()
        with self.history.checking():
            assert self.open_subject.stats().alive == 0
            circumstances = Circumstances(
                self._harmed_workers, self._fork_server_died, self.open_subject.is_server
            )
            claims = {}
            for story in self._stories.values():
                count = self._job_ended_events[story.id]
                assert count == 1, f"{story} was announced {count} times"
                check_ending(story, circumstances)
                claims[story.id] = _claim(story)
            reused = self.options.get("max_jobs_per_process", 1) != 1
            ledger.check(self._ledger, claims, single_use=not reused)
            # A job's result may sit in memory of its own until its caller drops it.
            self._stories.clear()
            self.end_loop()
            assert_nothing_left(self._before, set())

    async def _close(self) -> None:
        subject = self.open_subject
        if self._closing == "cancel":
            self._ask(self._open_stories())
            await subject.close(cancel=True)
        elif self._closing == "wait, then cancel":
            waiting = asyncio.ensure_future(subject.close(cancel=False))
            await self.some_events(2)
            self._ask(self._open_stories())
            await subject.close(cancel=True)
            await waiting
        else:
            endless = [s for s in self._open_stories() if not s.deed.ends and not s.harmed_in_it]
            self._ask(endless)
            for story in endless[::2]:
                story.handle.cancel()
            closing = asyncio.ensure_future(subject.close(cancel=False))
            await asyncio.sleep(0)
            for story in endless[1::2]:
                story.handle.cancel()
            await closing

    def _ask(self, stories: list[Story]) -> None:
        for story in stories:
            story.asked = True

    def _open_stories(self) -> list[Story]:
        return [story for story in self._stories.values() if not story.handle.done()]

    def _describe(self) -> list[str]:
        if self.subject is None:
            return []
        return [
            *(f"    {story} {story.handle!r}" for story in self._stories.values()),
            *(f"    {worker}" for worker in self.workers.all),
            f"    {self.subject.stats()}",
        ]


async def _cancel_caller(handle: JobHandle[Any]) -> None:
    async def caller() -> None:
        await handle

    task = asyncio.ensure_future(caller())
    await asyncio.sleep(0)  # it waits now
    task.cancel()
    # The job may have ended in that one turn, with whatever it raised.
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _claim(story: Story) -> ledger.Witness:
    told = story.handle.outcome
    assert told is not None
    began = told.started_at is not None
    must = told.status.value == "succeeded" or (story.is_undisturbed and began)
    return ledger.Witness(f"{story}, ended as {told},", began, must)
