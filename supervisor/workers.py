"""The workers there are: carries out plans, hands jobs over, replaces the dead.

After every event the census is compared with what is wanted (``plan.py``) and
the difference is made up. Nothing polls. Comparing is put off to the end of the
loop's turn, so that a hundred events in one turn cost one comparison, and so that
a job is on its way to its worker before anybody thinks about the replacement.

A job's way:

1. ``submit``: an idle worker takes it at once, in the caller's own call, with one
   ``send``. Otherwise it waits, first come, first served.
2. The worker sets its mark. If it dies before that, the job goes to the front of
   the queue again, three times at most.
3. The worker says FINISHED, or the kernel says how it ended. Either gives the job
   its outcome.

Guarantees: every job that ``submit`` took gets exactly one outcome; no job that
has begun is handed over again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from collections.abc import Callable
from typing import Final

from ipc.messages import Finished
from supervisor import clock, stats
from supervisor.adoption import Adoption
from supervisor.census import Census, Counter
from supervisor.errors import PoolClosed, PreloadFailed, SetupFailed
from supervisor.failures import Failures
from supervisor.idle import Idle
from supervisor.job import Exit, ExitReport
from supervisor.launch import Blueprint, SideOfSupervisor
from supervisor.lifecycle import COMING, State
from supervisor.lookout import Lookout
from supervisor.monitor import Monitor
from supervisor.news import News
from supervisor.options import SPAWN_TIMEOUT, PoolOptions
from supervisor.outcome import Ask, Kill
from supervisor.plan import plan
from supervisor.record import MAX_HAND_OVERS, JobRecord
from supervisor.refill import Refill
from supervisor.reserve import price
from supervisor.results import Parcel
from supervisor.settling import Listener, Settling
from supervisor.supply import Supply
from supervisor.tally import Tally
from supervisor.targets import Targets
from supervisor.travel import NAMED
from supervisor.waiting import Waiting
from supervisor.worker import Worker

logger = logging.getLogger("greenroom.pool")

# While more idle workers are kept than were asked for: how long until it is
# looked at whether demand has fallen. Seconds.
_LOOK_AGAIN: Final = 1.0


class Workers:
    """All workers of one pool, and the jobs that wait for them.

    Args:
        loop: the loop that everything runs on.
        options: checked options; :meth:`update` replaces them.
        blueprint: what children are born with.
        listener: who is told what happens.
        gives_up: after too many failed warm-ups in a row, refuse jobs for good (a
            pool) instead of failing those that wait and trying on (a server).

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: PoolOptions,
        blueprint: Blueprint,
        listener: Listener,
        *,
        gives_up: bool,
    ) -> None:
        self._loop = loop
        self._blueprint = blueprint
        self._listener = listener
        self._gives_up = gives_up
        self._supply = Supply(loop, blueprint, lambda: self.options, self)
        self._monitor = Monitor(loop, lambda: self._all.values(), lambda: self.options)
        self._all: dict[int, Worker] = {}
        self._idle: Idle[Worker] = Idle()
        self._waiting = Waiting()
        self._counter = Counter()
        self._tally = Tally()
        self._targets = Targets(options)
        self._settling = Settling(self._tally, listener)
        self._numbers = itertools.count(1)
        self._failures = Failures(options.initialize_process_timeout)
        self._refill = Refill(
            loop,
            self._supply,
            self._failures,
            make_worker=self._make_worker,
            ask_again=self._compare_soon,
            capture_output=blueprint.capture_output,
            price=price(
                capture_output=blueprint.capture_output,
                spawning=options.multiprocessing_context == "spawn",
            ),
        )
        self._broken: SetupFailed | None = None
        self._draining = False
        self._drain_deadline: float | None = None
        self._closed = False
        self._comparing = False
        self._changed: list[asyncio.Future[None]] = []
        self._lookout = Lookout(loop, looked=self._compare_soon)
        self._adoption = Adoption(loop, self.exited)
        self._news = News(loop, self._supply, find=self._all.get, at_the_end=self._only_ends_left)

    # ── for the pool and the server ──────────────────────────────────────────

    async def start(self) -> None:
        """Start the launcher and return when the idle target is reached.

        Raises:
            PreloadFailed: imports or ``preload_fnc`` failed.
            SetupFailed: ``setup_fnc`` failed as often as is allowed.
        """
        try:
            await self.open()
            await self._until(lambda: self._failures.is_final or self._is_warm())
            if self._failures.is_final and self._failures.last is not None:
                raise self._failures.last
        except BaseException:
            await self.close(kill=True)
            raise

    async def open(self) -> None:
        """Start the launcher; workers get warm while the caller goes on.

        If it raises, the caller has to :meth:`close`.

        Raises:
            PreloadFailed: imports or ``preload_fnc`` failed.
        """
        await self._supply.start()
        self._monitor.start()
        self._compare_soon()

    def _is_warm(self) -> bool:
        if len(self._idle) >= self._targets.reachable_idle():
            return True
        # Or as many as can be had for now.
        return self._refill.holds_back and len(self._idle) > 0 and self.census.coming == 0

    def submit(self, job: JobRecord) -> None:
        """Take *job*: hand it over now if a worker is idle, else let it wait.

        Raises:
            PoolClosed: the pool was closed.
            SetupFailed: no worker can be warmed.
        """
        if self._closed:
            raise PoolClosed("the pool is closed: it takes no more jobs")
        if self._broken is not None:
            raise SetupFailed(self._broken.what, self._broken.traceback)
        limit = self._targets.options.max_jobs
        has_place = limit is None or self._tally.open_jobs < limit
        if has_place and self._idle.workers and not self._waiting.jobs:
            # Nothing before it that can be done after it, and as few functions as that takes:
            # once the CPU has slept, each of them costs some microseconds of a job's start.
            self._hand_over(self._idle.take(), job)
        else:
            self._waiting.append(job)
            self._compare_soon()
        self._tally.accepted()
        self._targets.demand.arrived(job.queued_at)

    def _hand_over(self, worker: Worker, job: JobRecord) -> None:
        job.worker = worker.number
        if self._supply.enclosure is not None:
            self._supply.enclosure.limit_memory(worker.number, job.memory_limit_bytes)
        if self._draining:
            # Told first, so that the job knows from its first line on.
            deadline = self._drain_deadline
            worker.tell_drain(None if deadline is None else max(0.0, deadline - clock.monotonic()))
        worker.hand_over(job)
        if job.kind == NAMED:
            self._supply.familiar.saw(job.body)

    def stop_job(self, job: JobRecord, ask: Ask) -> bool:
        """Ask *job* to stop; return whether there was something to stop."""
        if self._waiting.remove(job):
            job.ask = ask
            self._settling.cancelled(job)
            self._compare_soon()
            return True
        worker = None if job.worker is None else self._all.get(job.worker)
        if worker is None or worker.job is not job:
            return False
        if worker.state is State.RUNNING:
            worker.stop_job(ask, self.options.shutdown_process_timeout)
        return True

    def learn_who_has_begun(self) -> None:
        """Have each handle say RUNNING whose job has begun, without waiting to be told."""
        for worker in self.all:
            worker.has_begun()

    def begin_drain(self, remaining: float | None) -> None:
        """No new workers but for waiting jobs; tell the jobs that run.

        Args:
            remaining: seconds until they will be asked to stop; None for no limit.
        """
        self._draining = True
        self._drain_deadline = None if remaining is None else clock.monotonic() + remaining
        for worker in self._all.values():
            if worker.state is State.RUNNING:
                worker.tell_drain(remaining)
        self._compare_soon()

    def stop_all(self, ask: Ask, grace: float) -> None:
        """Ask every job to stop within *grace* seconds; jobs that wait end at once."""
        for job in self._waiting:
            self.stop_job(job, ask)
        for worker in list(self._all.values()):
            if worker.state is State.RUNNING:
                worker.stop_job(ask, grace)
        self._compare_soon()

    def kill_all(self, kill: Kill) -> None:
        """Kill every worker's group; jobs that wait end at once."""
        for job in self._waiting:
            self.stop_job(job, Ask(kill.reason))
        for worker in list(self._all.values()):
            if worker.job is not None and worker.job.ask is None:
                worker.job.ask = Ask(kill.reason)  # so that no other worker gets it
            worker.kill(kill)

    async def wait_no_jobs(self) -> None:
        """Return when no job waits and none runs."""
        await self._until(lambda: self.jobs == 0)

    async def wait_gone(self) -> None:
        """Return when every worker is reaped."""
        await self._until(lambda: not self._all)

    async def close(self, *, kill: bool = False) -> None:
        """Let every worker go and leave nothing behind. May be called again.

        Args:
            kill: kill at once; without it jobs must be over, and idle workers get
                the grace to run their exit hooks.
        """
        self._closed = True
        self._draining = True
        if kill:
            self.kill_all(Kill("closed"))
        self._compare()
        await self.wait_gone()
        self._refill.close()
        self._lookout.close()
        await self._monitor.close()
        await self._supply.close()

    def update(self, options: PoolOptions) -> None:
        """Use *options* from now on."""
        self._targets.options = options
        self._compare_soon()

    @property
    def options(self) -> PoolOptions:
        """The options as they are now."""
        return self._targets.options

    @property
    def jobs(self) -> int:
        """Jobs that wait or run."""
        return self._tally.open_jobs

    @property
    def census(self) -> Census:
        """How many workers there are of each kind."""
        return self._counter.census()

    @property
    def all(self) -> list[Worker]:
        """The workers there are."""
        return list(self._all.values())

    def has_prospects(self) -> bool:
        """Return whether a worker is warm, or may get warm: the last one did."""
        return self._failures.last is None or len(self._idle) > 0

    @property
    def broken(self) -> SetupFailed | None:
        """Why the pool takes no more jobs, None while it takes some."""
        return self._broken

    @property
    def forkserver_pid(self) -> int | None:
        """The fork server's process id, None without one."""
        return self._supply.pid

    def stats(self) -> stats.PoolStats:
        """Return counts of now and totals."""
        return self._tally.snapshot(self.census, len(self._waiting))

    # ── comparing and carrying out ───────────────────────────────────────────

    def _compare_soon(self) -> None:
        if not self._comparing:
            self._comparing = True
            self._loop.call_soon(self._compare)

    def _compare(self) -> None:
        self._comparing = False
        waiters, self._changed = self._changed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._hand_over_waiting()
        census = self.census
        self._tally.note(census, len(self._waiting))
        startable = self._startable()
        limits = self._targets.limits(self._idle_target())
        wanted = plan(census, waiting=startable, limits=limits, draining=self._draining)
        for _ in range(wanted.retire_idle):
            self._idle.take_stalest().retire()
        if wanted.retire_coming:
            coming = [worker for worker in self._all.values() if worker.state in COMING]
            for worker in coming[-wanted.retire_coming :]:
                worker.retire()
        if wanted.spawn and self._broken is None:
            urgent = max(0, min(wanted.spawn, startable - census.idle - census.coming))
            self._refill.start(wanted.spawn, urgent=urgent, census=census, awaited=startable > 0)

    def _hand_over_waiting(self) -> None:
        """Give waiting jobs to idle workers: a job's end may have made place under ``max_jobs``."""
        while self._idle and self._startable():
            self._hand_over(self._idle.take(), self._waiting.pop())

    def _make_worker(self, side: SideOfSupervisor) -> Worker:
        worker = Worker(
            next(self._numbers),
            self._loop,
            self,
            side,
            max_jobs=self.options.max_jobs_per_process,
        )
        self._all[worker.number] = worker
        self._counter.enter(State.SPAWNING)
        self._tally.spawned()
        return worker

    def _idle_target(self) -> int:
        if self._draining:
            return 0
        target = self._targets.idle()
        if target > self.options.idle_target:
            # Nothing tells that demand has fallen; it is looked at again.
            self._refill.again_in(_LOOK_AGAIN)
        return target

    def _startable(self) -> int:
        """Return how many of the waiting jobs may be handed over, as far as ``max_jobs`` goes."""
        if not self._waiting:
            return 0
        places = self._places()
        return len(self._waiting) if places is None else min(len(self._waiting), places)

    def _places(self) -> int | None:
        # A job that was asked to stop still runs until it has stopped.
        return self._targets.places(self._tally.open_jobs - len(self._waiting))

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Return when *condition* holds; looked at after every change."""
        while not condition():
            waiter = self._loop.create_future()
            self._changed.append(waiter)
            await waiter

    # ── what the launcher says ───────────────────────────────────────────────

    def launched(self, worker: int, pid: int, pidfd: int | None) -> None:
        """A worker has a process."""
        self._all[worker].launched(pid, pidfd)
        self._refill.born()

    def launch_failed(self, worker: int, error: OSError) -> None:
        """A worker could not be made."""
        self._all[worker].launch_failed(error)
        self._failures.no_process(error)
        self._compare_soon()

    def exited(self, worker: int, report: ExitReport) -> None:
        """A worker's process was reaped."""
        # One that was adopted when its fork server died may have been reported
        # already.
        if worker in self._all:
            self._blame_memory(self._all[worker], report)
            self._all[worker].exited(report)

    def _blame_memory(self, worker: Worker, report: ExitReport) -> None:
        """Say so if it was the kernel that killed the job, for its memory."""
        enclosure = self._supply.enclosure
        if enclosure is None or worker.job is None or worker.job.kill is not None:
            return
        if report.exit.signal == signal.SIGKILL and enclosure.ran_out_of_memory(worker.number):
            limit = worker.job.memory_limit_bytes / 2**20
            worker.job.kill = Kill("memory", f"the kernel's limit of {limit:g} MB was reached")

    def launcher_lost(self, exit: Exit) -> None:
        """Watch each worker ourselves: nobody else will tell."""
        for worker in list(self._all.values()):
            self._adoption.adopt(worker)
        self._compare_soon()

    def supply_ready(self) -> None:
        """There is a launcher again."""
        logger.info("the fork server is back")
        self._compare_soon()

    def supply_failed(self, error: PreloadFailed) -> None:
        """The fork server does not come back."""
        self._failed(error)

    # ── what a worker says (Keeper) ──────────────────────────────────────────

    def moved(self, worker: Worker, before: State, after: State) -> None:
        """Count the step."""
        self._counter.move(before, after)
        if after is State.RUNNING:
            # It was taken from the idle ones. Comparing here and now would take the CPU
            # that it is about to wake up on.
            self._lookout.expect(worker)
            return
        if before is State.IDLE:
            self._idle.discard(worker)
        if after is not State.WARMING:  # which makes no difference to a plan
            self._compare_soon()

    def clock_seconds(self, worker: Worker, name: str) -> float | None:
        """Return the seconds of an option of that name."""
        if name == "spawn_timeout":
            # A fork takes milliseconds: one that is not heard of is silent like any
            # other. A fresh interpreter with large imports may take its time.
            if self.options.multiprocessing_context == "spawn":
                return SPAWN_TIMEOUT
            return min(SPAWN_TIMEOUT, self.options.ping_timeout)
        value: float | None = getattr(self.options, name)
        return value

    def catch_up(self) -> None:
        """Hear what the launcher has said by now."""
        self._supply.catch_up()

    def send_kill(self, worker: Worker) -> None:
        """Kill its group."""
        assert worker.pid is not None
        self._supply.kill(worker.number, worker.pid, worker.pidfd)

    def _only_ends_left(self) -> bool:
        return self._draining and self.census.killed == self.census.alive

    def expect_end(self, worker: Worker) -> None:
        """See to it that the end of a worker that was killed is reported."""
        self._news.expect(worker.number)

    def offer(self, worker: Worker) -> None:
        """Give the idle worker the job that has waited longest, or keep it."""
        if self._startable():
            self._hand_over(worker, self._waiting.pop())
        else:
            self._idle.add(worker, reused=self.options.max_jobs_per_process != 1)
            worker.be_prompt()

    def warmed(self, worker: Worker, seconds: float) -> None:
        """Setup works."""
        age = clock.monotonic() - worker.born_at
        self._failures.warmed()
        self._targets.demand.warmed(age)
        # Its own word: believed only where it can be true. NaN never is.
        self._listener.worker_warm(worker, seconds if 0.0 <= seconds <= age else age)

    def failed(self, worker: Worker, what: str, traceback: str) -> None:
        """A warm-up failed: wait before the next one, and give up after too many."""
        if self._closed:
            return
        self._tally.warmup_failed()
        self._failed(SetupFailed(what, traceback))

    def _failed(self, error: SetupFailed) -> None:
        if self._failures.warmup_failed(error):
            self._give_up(error)
        self._compare_soon()

    def idle_death(self, worker: Worker) -> None:
        """Replace it. A setup that kills its worker a moment later must not spin."""
        if not self._closed and not self._draining:
            logger.warning(
                "idle worker %d (pid %s) ended and is replaced", worker.number, worker.pid
            )

    def started(self, worker: Worker, job: JobRecord) -> None:
        """The job has begun."""
        self._compare_soon()
        # Not before: who sees a pid may kill it, and means the job and not the hand-over.
        job.handle._running(worker.pid)
        self._monitor.job_began()
        self._listener.job_started(job, worker.pid)

    def finished(self, worker: Worker, job: JobRecord, message: Finished, parcel: Parcel) -> None:
        """Give the job the outcome that it told."""
        self._settling.told(job, worker.pid, message, parcel)
        self._compare_soon()

    def lost(self, worker: Worker, job: JobRecord, report: ExitReport) -> None:
        """Hand the job over again if it has not begun; else it has its outcome now."""
        if self._may_hand_over_again(job):
            logger.warning(
                "worker %s ended (%s) before it began job %s, which is handed over again",
                worker.pid,
                report.exit,
                job.id,
            )
            job.kill = job.handed_at = job.worker = None
            job.handle._waiting_again()
            self._tally.handed_again()
            self._waiting.prepend(job)
        else:
            self._settling.ended(job, worker.pid, report)
        self._compare_soon()

    def _may_hand_over_again(self, job: JobRecord) -> bool:
        if job.begun or job.ask is not None:
            return False
        return job.hand_overs < MAX_HAND_OVERS and self._broken is None and not self._closed

    def released(self, worker: Worker) -> None:
        """Forget it."""
        del self._all[worker.number]
        self._idle.discard(worker)
        if self._supply.enclosure is not None:
            self._supply.enclosure.remove(worker.number)
        self._tally.reaped()
        self._refill.gone()
        self._listener.worker_exited(worker, worker.report)
        self._compare_soon()

    # ── giving up ────────────────────────────────────────────────────────────

    def _give_up(self, error: SetupFailed) -> None:
        """Nothing gets warm: those who wait get the reason, instead of silence."""
        if self._gives_up:
            self._broken = error
        logger.error(
            "%d warm-ups in a row failed; %s",
            self._failures.in_a_row,
            "the pool takes no more jobs" if self._gives_up else "it is tried on",
        )
        waiting, self._waiting = self._waiting, Waiting()
        for job in waiting:
            self._settling.without_worker(job, error)
