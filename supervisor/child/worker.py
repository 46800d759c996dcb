"""The worker's main: warm up, wait for a job, run it, leave.

What is done before a worker reports ready is everything that would otherwise
happen on the first job: its event loop exists, its control thread runs, and the
hand-over was rehearsed once with a job that does nothing, so that the pages it
touches are copied and the modules it needs are imported.

The order of messages is the protocol's heart:

* The mark is set before anything of the job is opened. A worker that dies without
  it has not begun, and its job may be given to another. STARTED tells it to the
  supervisor a moment later, off the way to the user's code.
* FINISHED is sent when the job is over, its callbacks included. A worker on its
  last job leaves by itself after it.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import resource
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NoReturn

import msgspec

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import ChannelBroken, IpcError
from ipc.frames import Need
from ipc.mark import Mark
from ipc.messages import (
    DrainBegan,
    Name,
    Ping,
    Pong,
    Ready,
    RunJob,
    SetupError,
    Started,
    Stop,
    ToWorker,
    framed,
)
from supervisor import byname, slices, travel
from supervisor.child import context as contexts, finalizers, isolate, layout, logs
from supervisor.child.answer import answer, error_text
from supervisor.child.boot import Ends, Hooks, Settings
from supervisor.child.calls import is_coroutine_function, run_initializer
from supervisor.child.context import JobContext, JobProcess
from supervisor.child.control import ControlThread, die_with_group
from supervisor.child.hello import DECODER
from supervisor.child.inroom import through_the_room
from supervisor.child.interrupt import Interrupter
from supervisor.child.rehearsal import rehearsals, rehearsed, touch
from supervisor.child.run import Ending, JobRunner, NoJob
from supervisor.child.stop import StopRequest
from supervisor.child.strays import kill_descendants
from supervisor.job import Session

# Made once, in the process that workers are forked from.
_session_decoder: Final = msgspec.msgpack.Decoder(Session)

_Usage = tuple[float, int]

# A worker for which a job waited, and that has heard of none for so long, is a spare and
# has time to rehearse. Seconds.
_NO_JOB_AFTER_ALL: Final = 0.02

Warming = Literal["preload_fnc", "initializer", "setup_fnc"]


class _Dismissed(BaseException):
    """The worker was asked to leave while it waited for a job."""


class Worker:
    """One worker, from the inside.

    Args:
        hooks: the user's functions.
        settings: the options.
        channel: to the supervisor, from :func:`supervisor.child.hello.say_hello`.
        ends: the descriptors for its logs and its output.
        proc: with what ``preload_fnc`` left in it.
        forwarder: takes what the process logs.
        preload_here: run ``preload_fnc`` before ``setup_fnc`` (a fresh interpreter).

    Runs on: the main thread.
    """

    def __init__(
        self,
        hooks: Hooks,
        settings: Settings,
        channel: BlockingChannel[ToWorker],
        ends: Ends,
        proc: JobProcess,
        forwarder: logs.LogForwarder,
        *,
        preload_here: bool = False,
    ) -> None:
        self._hooks = hooks
        self._settings = settings
        self._proc = proc
        self._preload_here = preload_here
        self._pid = os.getpid()
        self._channel = channel
        self.is_ready = False
        self._warming: Warming = "setup_fnc"  # what is under way before that
        self._used: _Usage = (0.0, 0)
        if ends.stdout >= 0:
            logs.redirect_output(ends.stdout, ends.stderr)
        self._forwarder = forwarder
        log_socket = socket.socket(fileno=ends.logs)
        forwarder.connect(log_socket, self._log_fields)
        self._interrupter = Interrupter()
        self._stop = StopRequest()
        self._context: JobContext | None = None
        self._control = ControlThread(
            self._channel,
            log_socket,
            on_stop=self._stop.ask,
            on_drain=self._drain_began,
            repeat_stop=self._interrupter.fire_again,
            lag_threshold=settings.high_ping_threshold,
        )
        self._interrupter.install(self._control.repeat_soon, self._control.give_way)
        self._runner = JobRunner(
            control=self._control,
            interrupter=self._interrupter,
            stop=self._stop,
            settings=settings,
        )
        self._next_context = JobContext(proc, on_shutdown=self._runner.shutdown_called)
        self._mark = Mark(ends.mark)
        self._began_at = self._entered_at = 0.0
        self._familiar: tuple[Name, ...] = ()
        self._rehearsing = False
        self._shows_idle = False  # in its title
        # The job that runs; None once it is over. Under the lock, so that nobody
        # tells of a job's beginning after its end.
        self._job_id: str | None = None
        self._telling = threading.Lock()
        self._idle_on_loop = False
        self._drain: DrainBegan | None = None
        # "A job begins" and "a drain begins" meet here, in two threads.
        self._drain_lock = threading.Lock()

    def run(self, *, awaited: bool = False, familiar: tuple[Name, ...] = ()) -> NoReturn:
        """Live.

        Args:
            awaited: a job waits already, and would wait for the rehearsal as well.
            familiar: functions that it is likely to be asked for.
        """
        self._familiar = familiar
        self._control.start()
        began = time.monotonic()
        if not awaited or self._hooks.for_each_worker:
            self._show_idle()  # otherwise it would be something else at once
        if self._hooks.any or self._settings.reused:
            # What is no coroutine may ask for the loop that coroutines run on.
            asyncio.set_event_loop(self._runner.loop)
        if self._hooks.for_each_worker or self._preload_here:
            self._warm_up()
        rehearses_later = awaited and not self._idle_on_loop
        if rehearses_later:
            self._runner.prepare()
        else:
            self.rehearse()
        if self._stop.reason is not None:
            self._leave(0)
        self.is_ready = True
        self._used = _usage()
        self._channel.send(Ready(time.monotonic() - began))
        if rehearses_later and not self._hears_within(_NO_JOB_AFTER_ALL):
            self.rehearse()
        self._serve()

    # ── warming up ───────────────────────────────────────────────────────────

    def _warm_up(self) -> None:
        self._control.give_now()
        try:
            self._run_hooks()
        except BaseException as exc:  # noqa: BLE001 - around the user's code: reported
            self._channel.send(SetupError(error_text(exc), self._warming))
            self._leave(1)
        self._control.take_back()

    def _run_hooks(self) -> None:
        if self._preload_here and self._hooks.preload_fnc is not None:
            self._warming = "preload_fnc"
            self._run_hook(self._hooks.preload_fnc)
        if self._hooks.initializer is not None:
            self._warming = "initializer"
            run_initializer(*self._hooks.initializer)
        if self._hooks.setup_fnc is not None:
            self._warming = "setup_fnc"
            self._run_hook(self._hooks.setup_fnc)

    def _run_hook(self, hook: Any) -> None:
        result = hook(self._proc)
        if asyncio.iscoroutine(result):
            # What it left on the loop (connections, tasks) must go on turning
            # while the worker is idle, so idling happens on the loop from now on.
            self._idle_on_loop = True
            self._runner.run_on_loop(result)

    def rehearse(self) -> None:
        """Go through a hand-over with nothing in it, to the last import and page.

        The very code that jobs go through, on a channel of its own.
        """
        self._runner.prepare()
        ours, theirs = socket.socketpair()
        real, self._channel = self._channel, BlockingChannel(ours, DECODER)
        hooks, self._hooks = self._hooks, rehearsed(self._hooks)
        self._control.use(self._channel)
        self._rehearsing = True
        try:
            for rehearsal in rehearsals(hooks):
                theirs.sendall(framed(rehearsal))
                self._serve_one()
            touch(hooks.entrypoint)
            for name in self._familiar:
                touch(byname.find(name.module, name.function))
            layout.touch_sizes()
        finally:
            self._channel.close()
            theirs.close()
            self._channel, self._hooks = real, hooks
            self._control.use(real)
            self._rehearsing = False

    def close(self) -> None:
        """Close everything that was made here, where no process ends with it."""
        self._interrupter.uninstall()
        self._control.close()
        self._runner.close()
        self._mark.close()
        self._forwarder.disconnect()
        self._channel.close()

    # ── idle ─────────────────────────────────────────────────────────────────

    def _serve(self) -> NoReturn:
        try:
            while True:
                self._serve_one()
        except _Dismissed:
            self._leave(0)

    def _serve_one(self) -> None:
        if self._meets_on_loop():
            self._meet_on_loop()
            return
        job, descriptors = self._next_job()
        self._begin(job)
        self._end(job, self._enter(job, descriptors))

    def _next_job(self) -> tuple[RunJob, list[int]]:
        while True:
            message, descriptors = self._next_message()
            if isinstance(message, RunJob):
                return message, descriptors
            fds.close_all(descriptors)
            if isinstance(message, Ping):
                self._send(Pong(message.number))
            elif isinstance(message, Stop):
                raise _Dismissed
            else:
                self._drain = message

    def _next_message(self) -> tuple[ToWorker, list[int]]:
        try:
            taken = self._receive_on_loop() if self._idle_on_loop else self._channel.receive()
        except IpcError:
            die_with_group()
        if taken is None:
            die_with_group()
        return taken

    def _receive_on_loop(self) -> tuple[ToWorker, list[int]] | None:
        while isinstance(taken := self._channel.next_buffered(), Need):
            if taken is Need.NOTHING:
                return None
            self._runner.loop.run_until_complete(self._readable())
            self._channel.fill()
        return taken

    def _hears_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    async def _readable(self) -> None:
        loop = self._runner.loop
        ready = loop.create_future()

        def readable() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._channel.fileno(), readable)
        try:
            await ready
        finally:
            loop.remove_reader(self._channel.fileno())

    # ── a job ────────────────────────────────────────────────────────────────

    def _begin(self, job: RunJob) -> None:
        """Put it on record that *job* begins: it is never handed over again."""
        self._job_id = job.job
        self._entered_at = 0.0
        self._began_at = time.monotonic()
        self._control.give(self._tell_begun)
        # A rehearsal writes what is there: a job may be on its way already.
        self._mark.moment[0] = 0.0 if self._rehearsing else self._began_at

    def _end(self, job: RunJob, ending: Ending) -> None:
        """Tell how *job* ended, and be idle again or leave."""
        # What was used while idle is next to nothing: nobody looked when it began.
        before = self._used
        if os.getpid() != self._pid:
            self._end_of_a_fork(ending)
        with self._telling:
            self._job_id = None
        after = self._used = _usage()
        finished, descriptors = answer(
            job,
            ending,
            began_at=self._began_at,
            cpu_seconds=after[0] - before[0],
            max_rss_bytes=after[1],
        )
        # Dropped before the caller hears of the end: what the job held is closed.
        del ending
        self._context = None
        contexts.NOW.context = None
        if job.last:
            self._send(finished, descriptors)
            self._leave(0)
        self._next_context = JobContext(self._proc, on_shutdown=self._runner.shutdown_called)
        self._control.take_back()
        self._interrupter.reset()
        self._show_idle()
        self._send(finished, descriptors)
        if self._stop.reason is not None:
            self._leave(0)
        self._runner.prepare()

    def _end_of_a_fork(self, ending: Ending) -> NoReturn:
        """End a process that the job forked and that came back from the user's function.

        The job is its parent's: this one must not speak for it.
        """
        status = 0 if ending.error is None else 1
        if isinstance(ending.error, SystemExit) and isinstance(
            ending.error.code, (int, type(None))
        ):
            status = ending.error.code or 0
        elif isinstance(ending.error, SystemExit):
            sys.stderr.write(f"{ending.error.code}\n")  # as the interpreter does
        elif ending.error is not None:
            traceback.print_exception(ending.error)
        logs.flush_output()
        os._exit(status & 0xFF)

    def _tell_begun(self) -> None:
        """Tell the supervisor, and everybody who looks at ``ps``, if the job is not over.

        From here on it is a job that lasts, and is not let in before others any more.

        Runs on: the control thread.
        """
        with self._telling:
            job = self._job_id
            if job is None:
                return  # it is over
            self._channel.send(Started(job, self._began_at))
            slices.restore()
            if self._settings.titles:
                self._shows_idle = False
                isolate.set_title(f"job {job}")

    def _show_idle(self) -> None:
        if self._settings.titles and not self._shows_idle:
            self._shows_idle = True
            isolate.set_title("idle")

    def _enter(self, job: RunJob, descriptors: list[int]) -> Ending:
        body = self._read_memory(job, descriptors) if descriptors else job.body
        if job.kind == travel.SESSION:
            return self._run_session(_session_decoder.decode(body))
        open_call = travel.OPENERS[job.kind]
        context = self._next_context
        context._call_id = job.job
        self._make_current(context)

        def enter() -> Any:
            # The supervisor's bytes: what its caller handed in.
            function, args, kwargs = open_call(body)
            self._entered_at = time.monotonic()
            return function(*args, **kwargs)

        ending = self._runner.run(context, enter, exit_is_an_ending=False, on_session_end=None)
        ending.entered_at = self._entered_at
        return ending

    def _read_memory(self, job: RunJob, descriptors: list[int]) -> bytearray:
        try:
            return fds.read_memory(descriptors[0], max_bytes=job.max_payload_bytes, what="the job")
        finally:
            fds.close_all(descriptors)

    def _meets_on_loop(self) -> bool:
        """Return whether a job is waited for inside the loop that it will run on.

        Where a coroutine is all that will be wanted of it, and where nothing else has been
        left on the loop, which stands still until a job comes.
        """
        entrypoint = self._hooks.entrypoint
        if entrypoint is None or self._idle_on_loop or not is_coroutine_function(entrypoint):
            return False
        loop = self._runner.loop
        # A loop that debugs would report how long it stood still.
        return not loop.get_debug() and not asyncio.all_tasks(loop)

    def _meet_on_loop(self) -> None:
        """Wait for a job in the first step of the task that will await the entrypoint.

        Between the message and the entrypoint's first line there is nothing of asyncio's then:
        the task was made and the loop was started while there was time.
        """
        met: RunJob | None = None

        def enter() -> Any:
            nonlocal met
            try:
                job, descriptors = self._next_job()
            except BaseException as exc:
                raise NoJob(exc) from exc  # a signal handler of the user's may raise anything
            met = job
            self._begin(job)
            body = self._read_memory(job, descriptors) if descriptors else job.body
            return self._entrypoint(_session_decoder.decode(body))

        ending = self._run_entrypoint(enter, on_loop=True)
        if met is None:
            assert ending.error is not None, "it was entered without a job"
            raise ending.error
        self._end(met, ending)

    def _run_session(self, session: Session) -> Ending:
        return self._run_entrypoint(lambda: self._entrypoint(session), on_loop=False)

    def _run_entrypoint(self, enter: Callable[[], Any], *, on_loop: bool) -> Ending:
        ending = self._runner.run(
            self._next_context,
            enter,
            exit_is_an_ending=True,
            on_session_end=self._hooks.on_session_end,
            on_loop=on_loop,
        )
        ending.entered_at = self._entered_at
        return ending

    def _entrypoint(self, session: Session) -> Any:
        context = self._next_context
        context._told_session = session
        self._make_current(context)
        entrypoint = self._hooks.entrypoint
        assert entrypoint is not None, "a session was sent to a pool of calls"
        self._entered_at = time.monotonic()
        if not session.url:  # asked here: three functions less before the user's first line
            return entrypoint(context)
        return through_the_room(entrypoint, context)

    def _make_current(self, context: JobContext) -> None:
        contexts.NOW.context = context
        with self._drain_lock:
            self._context = context
            drain = self._drain
        if drain is not None:
            self._drain_began(drain)

    def _drain_began(self, message: DrainBegan) -> None:
        deadline = None if message.remaining is None else time.monotonic() + message.remaining
        with self._drain_lock:
            context = self._context
            if context is None:
                self._drain = message
        if context is not None:
            context._drain_began(deadline, self._runner.live_loop)

    def _log_fields(self) -> Mapping[str, object]:
        context = self._context
        return {} if context is None else context.log_context_fields

    def _send(self, message: Any, descriptors: list[int] | None = None) -> None:
        try:
            self._channel.send(message, descriptors or ())
        except ChannelBroken:
            die_with_group()
        finally:
            fds.close_all(descriptors or ())

    # ── leaving ──────────────────────────────────────────────────────────────

    def _leave(self, status: int) -> NoReturn:
        """Run exit hooks, flush, exit. The supervisor's grace bounds all of it."""
        try:
            atexit._run_exitfuncs()
            finalizers.finalize()
            logs.flush_output()
            self._forwarder.flush()
            kill_descendants()
        finally:
            os._exit(status)


def _usage() -> _Usage:
    """Return CPU seconds of this process and its reaped children, and its peak RSS in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, own.ru_maxrss * unit
