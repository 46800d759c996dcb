"""One worker as the supervisor sees it: its state, its channel, its one clock.

What should happen is decided in ``lifecycle.py``; this file carries it out, and
turns what the kernel and the child say into events. It trusts nothing that
comes over the channel: a message that has no place in the worker's state is the
child's fault, and the answer is a kill.

Guarantees:
* a job that was handed over gets exactly one of: ``finished``, ``lost``;
* descriptors are closed when, and only when, the worker is released.

Assumes: ``launched`` comes before ``exited``, and each at most once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from ipc import fds
from ipc.aio import AsyncChannel
from ipc.errors import IpcError, ProtocolError
from ipc.messages import (
    Decoder,
    DrainBegan,
    Finished,
    FromWorker,
    Hello,
    Pong,
    Ready,
    SetupError,
    Started,
    Stop,
)
from ipc.nudge import nudge_if_busy
from supervisor import clock, slices
from supervisor.beginning import Beginning
from supervisor.job import Exit, ExitReport
from supervisor.keeper import Keeper
from supervisor.launch import SideOfSupervisor
from supervisor.lifecycle import CLOCKS, FROM_CHILD, Act, Event, IllegalTransition, State, step
from supervisor.logs import LogReader, OutputReader
from supervisor.outcome import Ask, Kill
from supervisor.record import JobRecord
from supervisor.results import DATA, PICKLE, receive_parcel
from supervisor.vitals import Vitals

logger = logging.getLogger("greenroom.worker")

_decoder: Final[Decoder[FromWorker]] = Decoder(FromWorker)


# From the end of the channel to the exit status the kernel needs microseconds.
_MUTE_SECONDS: Final = 1.0

# What an honest child may say before its launcher has announced it: HELLO, then that it
# is ready or that setup failed, and where its loop stands still while it warms up.
_MAX_EARLY: Final = 16


class Worker:
    """One worker.

    Args:
        number: its name towards the launcher; never reused.
        loop: the pool's loop.
        keeper: who keeps it.
        side: the supervisor's ends; owned by the worker from here on.
        max_jobs: how many it serves before it leaves; None for any number.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        number: int,
        loop: asyncio.AbstractEventLoop,
        keeper: Keeper[Worker],
        side: SideOfSupervisor,
        *,
        max_jobs: int | None,
    ) -> None:
        self.number = number
        self.pid: int | None = None
        self.pidfd: int | None = None
        self.job: JobRecord | None = None
        self.jobs_served = 0
        self.born_at = clock.monotonic()
        self._loop = loop
        self._keeper = keeper
        self._max_jobs = max_jobs
        self._leaves_after = False  # the job that it has, or had last, is its last
        self._beginning = Beginning(side.mark)
        self._state = State.SPAWNING
        self._timer: asyncio.TimerHandle | None = None
        self._mute_timer: asyncio.TimerHandle | None = None
        self.vitals = Vitals(
            f"worker {number}",
            lambda: keeper.clock_seconds(self, "high_ping_threshold"),
            self.log_context,
        )
        self._kill_when_launched = False
        self._early: list[Callable[[], None]] = []  # what the child said before it was launched
        self._deaf = False  # it broke the protocol: nothing that it says counts any more
        self._report: ExitReport | None = None
        self._ask: Ask | None = None
        self._grace = 0.0
        self._what_failed = ("", "")
        self._last_job_id: str | None = None
        self._told_begun = False
        self._channel: AsyncChannel[FromWorker] = AsyncChannel(
            loop, side.channel, _decoder, on_message=self._received, on_end=self._channel_ended
        )
        self._logs = LogReader(
            loop, side.logs, context=self.log_context, on_error=self._broke_protocol
        )
        self._readers: list[LogReader | OutputReader] = [self._logs]
        for fd, stream in ((side.stdout, "stdout"), (side.stderr, "stderr")):
            if fd >= 0:
                self._readers.append(OutputReader(loop, fd, stream, context=self.log_context))
        self._start_clock()

    @property
    def state(self) -> State:
        """What the worker is."""
        return self._state

    @property
    def report(self) -> ExitReport | None:
        """How its process ended; None as long as nobody said."""
        return self._report

    def __repr__(self) -> str:
        job = f" {self.job.id}" if self.job is not None else ""
        return f"<Worker {self.number} pid {self.pid} {self._state.value}{job}>"

    # ── the one place where the state changes ────────────────────────────────

    def apply(self, event: Event) -> None:
        """Take the step that *event* causes and carry out its acts.

        Raises:
            IllegalTransition: the event is ours and cannot happen in this state.
        """
        before = self._state
        try:
            after, acts = step(before, event)
        except IllegalTransition as exc:
            if event not in FROM_CHILD:
                raise
            self._broke_protocol(ProtocolError(str(exc)))
            return
        # The state changes before the acts run: an act may call back into us, and
        # that event must meet the new state.
        self._state = after
        if after is State.IDLE:
            self._beginning.none_yet()
        if after is not before:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "worker %d (pid %s): %s ── %s ──► %s",
                    self.number,
                    self.pid,
                    before.value,
                    event.value,
                    after.value,
                )
            self._start_clock()
            self._keeper.moved(self, before, after)
        for act in acts:
            self._carry_out(act)

    def _carry_out(self, act: Act) -> None:
        if act is Act.ASK_TO_STOP:
            self._ask_to_stop()
        elif act is Act.KILL:
            self._kill()
        elif act is Act.OFFER:
            self._keeper.offer(self)
        elif act is Act.SEND_JOB:
            pass  # sent in hand_over, before everything else
        elif act is Act.COUNT_WARM:
            pass  # counted with its duration where READY was received
        elif act is Act.COUNT_FAILURE:
            self._keeper.failed(self, *self._failure())
        elif act is Act.COUNT_IDLE_DEATH:
            self._keeper.idle_death(self)
        elif act is Act.SETTLE_JOB:
            self._settle_job()
        elif act is Act.RELEASE:
            self._release()
        else:
            _never(act)

    # ── what others ask of it ────────────────────────────────────────────────

    def hand_over(self, job: JobRecord) -> None:
        """Give *job* to this idle worker."""
        assert self.job is None and self._state is State.IDLE, "a worker has one job at a time"
        self.job = job
        self._leaves_after = self.jobs_served + 1 == self._max_jobs
        # First of all: while we do the rest, the worker runs. Sending does not call
        # back; what it finds wrong, it says on the next turn.
        self._send_job(job)
        self._told_begun = False
        self.apply(Event.HAND_OVER)

    def stop_job(self, ask: Ask, grace: float) -> None:
        """Ask its job to stop; *grace* seconds later it is killed."""
        if self.job is not None and self.job.ask is None:
            self.job.ask = ask
        self._ask, self._grace = ask, grace
        self.apply(Event.STOP_JOB)

    def retire(self) -> None:
        """Let it go: it has no job and is not wanted any more."""
        self._ask = Ask("retired")
        self._grace = self._keeper.clock_seconds(self, CLOCKS[State.STOPPING]) or 0.0
        self.apply(Event.RETIRE)

    def kill(self, kill: Kill) -> None:
        """Kill it and its group, for a reason that its job's outcome will carry."""
        if self.job is not None and self.job.kill is None:
            self.job.kill = kill
        if self._state not in (State.KILLED, State.REAPED):
            self._what_failed = (f"killed while warming up: {kill.reason}", kill.detail)
        self.apply(Event.KILL)

    def has_begun(self) -> bool:
        """Return whether its job has begun, or is no more.

        Reads its mark: a job that holds the interpreter's lock cannot say so itself.
        """
        job = self.job
        if job is None or job.begun or self._state is not State.RUNNING:
            return True
        moment = self._marked(job)
        if moment is not None:
            self._begun(job, moment)
        return job.begun

    def looked_at(self) -> bool:
        """Have it listen, if its job is not over; return False if the job has yet to begin."""
        job = self.job
        if job is None:
            return True
        begun = self.has_begun()
        if not job.begun:  # asked to stop before it began: it will have to hear of that
            begun = begun and self._marked(job) is not None
        # In any case: it may be busy with a job that it said was over.
        self._logs.ring()
        return begun

    def be_prompt(self) -> None:
        """Run as soon as there is a job: it is idle, and will be for a while."""
        if self.pid is not None:
            slices.shorten(self.pid)

    def tell_drain(self, remaining: float | None) -> None:
        """Tell the job, or the one to come, that it will be asked to stop in *remaining* seconds.

        None: the server drains without a limit.
        """
        self._send(DrainBegan(remaining))

    def ping(self, now: float) -> None:
        """Ask whether it is there; with a nudge if it has not answered the last time."""
        owes = self.vitals.owed > 0
        self._send(self.vitals.next_ping(now))
        if owes:
            self._nudge()

    # ── what its launcher says ───────────────────────────────────────────────

    def launched(self, pid: int, pidfd: int | None) -> None:
        """It has a process. The pidfd is owned from here on."""
        self.pid, self.pidfd = pid, pidfd
        if self._kill_when_launched:
            self._keeper.send_kill(self)
        early, self._early = self._early, []
        for heard in early:
            heard()

    def launch_failed(self, error: OSError) -> None:
        """It never had a process and will not get one."""
        self._what_failed = (f"no process: {error}", "")
        self._report = ExitReport(Exit())
        self.apply(Event.LAUNCH_FAILED)

    def exited(self, report: ExitReport) -> None:
        """The kernel said how it ended. What it had said before still counts."""
        self._report = report
        # Events of these last words meet the state they were sent in.
        self._channel.drain_received()
        for reader in self._readers:
            reader.drain()
        self.apply(Event.EXITED)

    def out_of_sight(self) -> None:
        """Its parent is gone and it cannot be watched: it counts as ended from now on."""
        if self._state is State.SPAWNING:
            self.launch_failed(OSError(errno.ESRCH, "the fork server is gone"))
        else:
            self.exited(ExitReport(Exit()))

    # ── acts ─────────────────────────────────────────────────────────────────

    def _send_job(self, job: JobRecord) -> None:
        job.hand_overs += 1
        try:
            message, descriptors = job.message(last=self._leaves_after)
        except OSError as exc:
            logger.warning("job %s cannot be handed over: %s", job.id, exc)
            self._loop.call_soon(self.kill, Kill("descriptors", str(exc)))
            return
        job.handed_at = clock.monotonic()
        try:
            self._channel.send(message, descriptors)
        except (IpcError, OSError) as exc:
            # It is gone, or about to be: its exit brings the job back to the queue. Or it
            # does not read, and there is no descriptor left to keep the job's memory with.
            logger.debug("worker %d did not take job %s: %s", self.number, job.id, exc)
            self._loop.call_soon(self.kill, Kill("gone", str(exc)))
        finally:
            if descriptors:
                fds.close_all(descriptors)

    def _ask_to_stop(self) -> None:
        if self._ask is None:  # by its own clock: the job's timeout, or old age
            timed_out = self.job is not None
            self._ask = Ask("timeout", timed_out=True) if timed_out else Ask("max_idle_age")
            self._grace = self._keeper.clock_seconds(self, CLOCKS[State.STOPPING]) or 0.0
            if self.job is not None:
                self.job.ask = self._ask
        self._send(Stop(self._ask.reason, self._grace))
        if self.job is not None:
            self._nudge()

    def _nudge(self) -> None:
        """See to it that what it was sent is read, however busy its interpreter is."""
        if self.pid is None or self.pidfd is None:
            return
        try:
            nudge_if_busy(self.pid, self.pidfd)
        except OSError as exc:
            # Its end follows and tells the rest; or it has become somebody else.
            logger.debug("worker %d was not nudged: %s", self.number, exc)

    def _kill(self) -> None:
        if self.job is not None and self.job.kill is None:
            self.job.kill = Kill("grace", "it did not stop in time")
        self._keeper.expect_end(self)
        if self.pid is None:
            self._kill_when_launched = True
        else:
            self._keeper.send_kill(self)

    def _failure(self) -> tuple[str, str]:
        what, traceback = self._what_failed
        if not what and self._report is not None:
            what = f"the worker ended while it warmed up: {self._report.exit}"
        if not what:
            seconds = self._keeper.clock_seconds(self, CLOCKS[State.WARMING])
            what = (
                f"warming up (setup_fnc) took longer than initialize_process_timeout={seconds:g} s"
            )
        return what, traceback

    def _settle_job(self) -> None:
        job, self.job = self.job, None
        if job is not None:
            assert self._report is not None
            if not job.begun and (moment := self._marked(job)) is not None:
                self._begun(job, moment)  # and could not say so any more
            self._keeper.lost(self, job, self._report)

    def _release(self) -> None:
        if self._mute_timer is not None:
            self._mute_timer.cancel()
        self._channel.close()
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._beginning.close()
        self._early.clear()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self._keeper.released(self)

    # ── the clock ────────────────────────────────────────────────────────────

    def _start_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        seconds: float | None
        if self._state is State.RUNNING:
            seconds = None if self.job is None else self.job.timeout
        elif self._state is State.STOPPING and self._ask is not None:
            seconds = self._grace
        elif self._state in CLOCKS:
            seconds = self._keeper.clock_seconds(self, CLOCKS[self._state])
        else:
            return
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._clock_ran_out, seconds)

    def _clock_ran_out(self, seconds: float) -> None:
        # Our own loop may have stood still: what was said meanwhile counts. Of messages
        # with descriptors it reads one in each turn.
        timer = self._timer
        self._keeper.catch_up()
        self._channel.drain_received()
        if self._timer is not timer:
            return  # its state has changed
        if self._state is State.SPAWNING:
            self._what_failed = (f"its process was not there after {seconds:g} s", "")
        self.apply(Event.TIMEOUT)

    # ── what the child says ──────────────────────────────────────────────────

    def _received(self, message: FromWorker, descriptors: list[int]) -> None:
        if self._deaf:
            fds.close_strangers(descriptors)
            return
        if self.pid is None:
            # Two senders: the child may be heard before its launcher. It waits, so
            # that no job runs in a process that cannot be named, watched or killed.
            fds.close_strangers(descriptors)
            self._early.append(lambda: self._received(message, []))
            if len(self._early) > _MAX_EARLY:
                self._broke_protocol(ProtocolError("it says too much before it is announced"))
            return
        self.vitals.heard()
        try:
            if len(descriptors) > isinstance(message, Finished):
                raise ProtocolError(f"descriptors beside a {type(message).__name__}")
            if isinstance(message, Finished):
                self._finished(message, descriptors)
            elif isinstance(message, Started):
                self._started(message)
            elif isinstance(message, Pong):
                self.vitals.answered(message)
            elif isinstance(message, Hello):
                self.apply(Event.HELLO)
            elif isinstance(message, Ready):
                if self._state is State.WARMING:
                    self._keeper.warmed(self, message.seconds)
                self.apply(Event.READY)
            elif isinstance(message, SetupError):
                error = message.error
                self._what_failed = (
                    f"{message.what} raised {error.type}: {error.message}",
                    error.traceback,
                )
                self.apply(Event.SETUP_FAILED)
            else:
                self.vitals.lagging(message)
                if message.fatal and self.job is not None and self.job.kill is None:
                    self.job.kill = Kill("hung", message.fatal)
        except ProtocolError as exc:
            self._broke_protocol(exc)
        finally:
            fds.close_strangers(descriptors)

    def _started(self, message: Started) -> None:
        job = self.job
        if job is None or job.id != message.job:
            raise ProtocolError(f"it began job {message.job!r}, which it was not given")
        if self._told_begun:
            raise ProtocolError(f"it began job {message.job!r} twice")
        self._told_begun = True
        if not job.begun:  # its mark may have been read before
            self._begun(job, message.at)

    def _marked(self, job: JobRecord) -> float | None:
        """Return when *job* began as its mark has it, None if it does not say so."""
        if job.handed_at is None:
            return None
        return self._beginning.moment(job.handed_at, clock.monotonic())

    def _begun(self, job: JobRecord, moment: float) -> None:
        job.started_at = moment
        job.body = b""  # it is never handed over again
        self._keeper.started(self, job)

    def _finished(self, message: Finished, descriptors: list[int]) -> None:
        job = self.job
        if job is None or job.id != message.job:
            raise ProtocolError(f"it ended job {message.job!r}, which it was not given")
        if not job.begun:
            self._begun(job, message.began_at)
        parcel = receive_parcel(
            message.payload,
            descriptors,
            max_bytes=job.max_payload_bytes,
            encoding=DATA if job.data_only else PICKLE,
            timeout=job.timeout,
        )
        for reader in self._readers:
            # What it logged and printed before it ended is read while it is
            # still known whose it is.
            reader.drain()
        self.job = None
        self._last_job_id = job.id
        self.jobs_served += 1
        # The caller hears of the end first: leaving and recycling can wait.
        self._keeper.finished(self, job, message, parcel)
        self.apply(Event.LAST_JOB_DONE if self._leaves_after else Event.JOB_DONE)

    def _channel_ended(self, error: IpcError | None) -> None:
        if self.pid is None:
            self._early.append(lambda: self._channel_ended(error))
        elif isinstance(error, ProtocolError):
            self._broke_protocol(error)
        elif self._state is State.IDLE:
            self._kill_mute()  # at once: it must not get a job any more
        elif self._state not in (State.STOPPING, State.KILLED, State.REAPED):
            # Nearly always its process is ending, and the exit status that follows
            # tells how: a kill of ours now would hide that. Or it closed its
            # channel and lives: then it is of no use.
            self._mute_timer = self._loop.call_later(_MUTE_SECONDS, self._kill_mute)

    def _kill_mute(self) -> None:
        self.kill(Kill("channel", "it closed its channel"))

    def _broke_protocol(self, error: IpcError) -> None:
        self._deaf = True
        if self._state not in (State.KILLED, State.REAPED):
            logger.error(
                "worker %d (pid %s) broke the protocol and is killed: %s",
                self.number,
                self.pid,
                error,
            )
        self.kill(Kill("protocol", str(error)))

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except IpcError as exc:
            # The end of the channel or the exit status follows and tells the rest.
            logger.debug("worker %d was not told %s: %s", self.number, message, exc)

    def log_context(self) -> Mapping[str, object]:
        """Return the fields that go onto each of its log records."""
        fields: dict[str, object] = {"pid": self.pid}
        if self.job is not None:
            fields["job_id"] = self.job.id
            if self.job.handle.info.room.name:
                fields["room"] = self.job.handle.info.room.name
        elif self._last_job_id is not None:
            # Its last lines may be read after its last word.
            fields["job_id"] = self._last_job_id
        return fields


def _never(act: Act) -> NoReturn:
    raise AssertionError(f"an act that nobody carries out: {act}")
