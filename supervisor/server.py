"""AgentServer: a pool, admission, a dispatcher, and a drain that ends in time.

The class keeps what belongs together in the user's eyes: options, the one
entrypoint, the jobs. How each thing is done lies in the files below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, overload

import msgspec

from supervisor import clock
from supervisor.admission import Standing
from supervisor.booking import Booking
from supervisor.child import isolate
from supervisor.child.boot import Hooks
from supervisor.dispatch.base import Answer, Dispatcher, Place
from supervisor.drain import Drain
from supervisor.errors import JobRejected, NotAdmitted, OptionError, SupervisorError
from supervisor.events import Callback, Draining, Emitter
from supervisor.handle import JobHandle
from supervisor.job import JobInfo, JobOutcome, Participant, Room, ServerType, Session
from supervisor.launch import Blueprint
from supervisor.load import LoadMeter
from supervisor.observers import Observers
from supervisor.options import (
    Hook,
    PerMode,
    ServerOptions,
    check_hook,
    check_number,
    cpu_count,
)
from supervisor.outcome import Ask, Kill
from supervisor.pool import Announcer, check_changeable, check_size, child_settings
from supervisor.record import JobRecord
from supervisor.signals import route_signals
from supervisor.stats import PoolStats
from supervisor.worker import Worker
from supervisor.workers import Workers

logger = logging.getLogger("greenroom.server")

F = TypeVar("F", bound=Callable[..., Any])

EVENTS: Final = (
    "started",
    "registered",
    "worker_warm",
    "job_started",
    "job_ended",
    "worker_exited",
    "draining",
)

MB = 2**20

# Keys and secrets stay in this process: children get an environment without them.
SECRETS: Final = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")


class _Unset:
    """The type of "not given", where None means something else."""


UNSET: Final = _Unset()


class AgentServer:
    """Takes jobs from a dispatcher and runs each in a warm process of its own.

    ::

        server = AgentServer(num_idle_processes=3, drain_timeout=600)

        @server.rtc_session(agent_name="greeter")
        async def entrypoint(ctx: JobContext) -> None: ...

    All options are keyword-only; the table in the documentation lists them. The
    constructor stores and checks; :meth:`run` starts.

    Runs on: one asyncio loop, every method but the constructor and ``rtc_session``.

    Raises:
        OptionError: an option has the wrong type or range.
    """

    def __init__(self, **options: Any) -> None:
        replaced = ServerOptions().replace(**options)
        assert isinstance(replaced, ServerOptions)
        self._options: ServerOptions = replaced
        self._entrypoint: Hook | None = None
        self._on_request: Hook | None = None
        self._on_session_end: Hook | None = None
        self._agent_name = ""
        self._type = ServerType.ROOM
        self._id = f"S-{uuid.uuid4().hex[:12]}"
        self._emitter = Emitter(EVENTS)
        self._workers: Workers | None = None
        self._drain: Drain | None = None
        self._booking: Booking | None = None
        self._meter: LoadMeter | None = None
        self._dispatchers: list[Dispatcher] = []
        self._observers = Observers()
        self._started_at = 0.0
        self._serving = False
        self._gone: asyncio.Future[int] | None = None

    @classmethod
    def from_server_options(cls, options: ServerOptions) -> AgentServer:
        """Return a server with *options*."""
        if not isinstance(options, ServerOptions):
            raise OptionError("options", options, "a ServerOptions")
        server = cls()
        server._options = options
        return server

    # ── what the user registers ──────────────────────────────────────────────

    @property
    def setup_fnc(self) -> Hook | None:
        """The function that prewarms each worker. Set it before the server runs."""
        return self._options.setup_fnc

    @setup_fnc.setter
    def setup_fnc(self, function: Hook | None) -> None:
        check_hook("setup_fnc", function)
        self._set(setup_fnc=function)

    @property
    def load_fnc(self) -> Hook | None:
        """The function that measures the load. Set it before the server runs."""
        return self._options.load_fnc

    @load_fnc.setter
    def load_fnc(self, function: Hook | None) -> None:
        check_hook("load_fnc", function)
        self._set(load_fnc=function)

    def _set(self, **changes: Any) -> None:
        check_changeable(changes, running=self._workers is not None)
        replaced = self._options.replace(**changes)
        assert isinstance(replaced, ServerOptions)
        self._options = replaced

    @overload
    def rtc_session(self, func: F) -> F: ...
    @overload
    def rtc_session(
        self,
        func: None = None,
        *,
        agent_name: str = "",
        type: ServerType = ServerType.ROOM,
        on_request: Hook | None = None,
        on_session_end: Hook | None = None,
    ) -> Callable[[F], F]: ...
    def rtc_session(
        self,
        func: F | None = None,
        *,
        agent_name: str = "",
        type: ServerType = ServerType.ROOM,
        on_request: Hook | None = None,
        on_session_end: Hook | None = None,
    ) -> F | Callable[[F], F]:
        """Register the entrypoint; as a decorator or called with it.

        Args:
            func: the entrypoint, called with a JobContext; plain or async.
            agent_name: the name that jobs ask for; empty takes any.
            type: one job for each room, or for each publisher in a room.
            on_request: asked for each job, with a JobRequest; plain or async.
            on_session_end: called in the job's process after it, with its context.

        Raises:
            OptionError: something is not a function, or not a ServerType.
            RuntimeError: there is an entrypoint already.
        """
        check_hook("on_request", on_request)
        check_hook("on_session_end", on_session_end)
        if not isinstance(type, ServerType):
            raise OptionError("type", type, "ServerType.ROOM or ServerType.PUBLISHER")

        def register(function: F) -> F:
            if not callable(function):
                raise OptionError("the entrypoint", function, "a function that takes a JobContext")
            if self._entrypoint is not None:
                raise RuntimeError("this server has an entrypoint already; use one server for each")
            self._entrypoint = function
            self._agent_name, self._type = agent_name, type
            self._on_request, self._on_session_end = on_request, on_session_end
            return function

        return register if func is None else register(func)

    # ── life ─────────────────────────────────────────────────────────────────

    async def run(self, *, devmode: bool = False) -> int:
        """Serve until the server was drained; return the exit status.

        0: jobs ended by themselves. 124: ``drain_timeout`` had to be enforced.
        128 + signal: a second signal cut it short.

        SIGTERM and SIGINT are handled here when this runs in the main thread.

        Args:
            devmode: use the defaults for development: no load threshold, one idle
                worker, no waiting for jobs at the end.

        Raises:
            SetupFailed, PreloadFailed: no worker gets warm.
            SupervisorError: the port is in use, the socket is somebody else's.
            RuntimeError: no entrypoint, or the server ran before.
        """
        if self._entrypoint is None:
            raise RuntimeError("no entrypoint: decorate a function with @server.rtc_session()")
        if self._workers is not None:
            raise RuntimeError("an AgentServer runs once; make another one")
        loop = asyncio.get_running_loop()
        self._options = options = self._options.resolve(devmode=devmode)
        self._gone = loop.create_future()
        self._workers = workers = self._make_workers(loop, options)
        self._meter = LoadMeter(options.load_fnc, self)
        self._booking = self._make_booking(self._meter)
        self._drain = Drain(
            loop,
            self,
            timeout=lambda: self._resolved().drain_timeout,
            grace=lambda: self._resolved().shutdown_process_timeout,
        )
        isolate.set_title("supervisor")
        with contextlib.ExitStack() as stack:
            stack.callback(self._drain.close)
            stack.callback(self._meter.close)
            self._route_signals(loop, stack)
            # Also when it does not start: those who wait for its end must not hang.
            stack.callback(self._set_gone, 1)
            status = await self._serve(workers)
            self._set_gone(status)
        return status

    def _set_gone(self, status: int) -> None:
        assert self._gone is not None
        if not self._gone.done():
            self._gone.set_result(status)

    async def _serve(self, workers: Workers) -> int:
        assert self._drain is not None
        try:
            self._started_at = clock.monotonic()
            if await self._drain.start_unless_gone(self._start(workers)):
                logger.info("serving as %s: %d idle workers", self._id, workers.census.idle)
                self._emitter.emit("started", self)
            await self._drain.wait()
        except BaseException:
            # A start that failed, or a cancelled run: nothing may be left behind.
            await workers.close(kill=True)
            await self._close_edges()
            raise
        await workers.close()
        await self._close_edges()
        status = self._drain.exit_status
        logger.info(
            "gone after %.1f s, exit status %d", clock.monotonic() - self._started_at, status
        )
        return status

    async def _start(self, workers: Workers) -> None:
        options = self._resolved()
        assert self._meter is not None and not isinstance(options.port, PerMode)
        self._meter.start()
        # What can fail at once fails before anything is warmed for nothing.
        await self._observers.start(self, options.host, options.port)
        await workers.start()
        self._serving = True
        for dispatcher in self._make_dispatchers():
            self._dispatchers.append(dispatcher)
            await dispatcher.start(self)

    def _make_dispatchers(self) -> list[Dispatcher]:
        try:
            from supervisor.dispatch.local import LocalDispatcher
        except ImportError as exc:
            logger.warning(
                "no control socket: %s; install it with: pip install 'greenroom[server]'", exc
            )
            return []
        return [LocalDispatcher()]

    async def _close_edges(self) -> None:
        self._serving = False
        for dispatcher in self._dispatchers:
            await dispatcher.close()
        await self._observers.close()

    def _make_workers(self, loop: asyncio.AbstractEventLoop, options: ServerOptions) -> Workers:
        hooks = Hooks(
            preload_fnc=options.preload_fnc,
            setup_fnc=options.setup_fnc,
            entrypoint=self._entrypoint,
            on_session_end=self._on_session_end,
            user_arguments=options.user_arguments,
        )
        settings = child_settings(options, session_end_timeout=options.session_end_timeout)
        settings = dataclasses.replace(settings, without_environment=SECRETS)
        blueprint = Blueprint(hooks, settings, options.capture_output)
        return Workers(loop, options, blueprint, _ServerAnnouncer(self), gives_up=False)

    def _make_booking(self, meter: LoadMeter) -> Booking:
        return Booking(
            meter,
            standing=self._standing,
            on_request=lambda: self._on_request,
            start_job=self._start_job,
            server_id=lambda: self._id,
        )

    def _route_signals(self, loop: asyncio.AbstractEventLoop, stack: contextlib.ExitStack) -> None:
        drain = self._drain
        assert drain is not None
        routes: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: drain.signal(signal.SIGTERM),
            signal.SIGINT: lambda: drain.signal(signal.SIGINT),
        }
        try:
            stack.enter_context(route_signals(loop, routes))
        except (RuntimeError, ValueError):
            logger.info("not the main thread: signals are left to the program; call drain()")

    # ── going down (Drained) ─────────────────────────────────────────────────

    async def drain(self, timeout: float | None | _Unset = UNSET) -> int:
        """Take no more jobs, let running ones end, stop them at the deadline.

        Args:
            timeout: seconds; ``drain_timeout`` unless given, None for ever.

        Returns:
            The exit status that :meth:`run` returns as well, when all is over.
        """
        if self._drain is None or self._gone is None:
            raise RuntimeError("the server does not run")
        if not self._gone.done():
            self.begin_drain(timeout)
        return await asyncio.shield(self._gone)

    def begin_drain(self, timeout: float | None | _Unset = UNSET) -> None:
        """Begin what :meth:`drain` waits for. Nothing if it has begun."""
        if self._drain is None:
            raise RuntimeError("the server does not run")
        if timeout is not None and not isinstance(timeout, _Unset):
            check_number("timeout", timeout)
        self._drain.request(
            self._resolved().drain_timeout if isinstance(timeout, _Unset) else timeout
        )

    async def aclose(self) -> None:
        """Stop at once: running jobs are asked to stop and have the grace. Nothing if not running."""
        if self._drain is None or self._gone is None or self._gone.done():
            return
        if self._drain.begun:
            self._drain.cut_short()
        else:
            self.begin_drain(0.0)
        await asyncio.shield(self._gone)

    def begin(self, remaining: float | None) -> None:
        """Called by the drain: take no more jobs."""
        assert self._workers is not None
        self._workers.begin_drain(remaining)
        self._emitter.emit("draining", Draining(remaining))
        for dispatcher in self._dispatchers:
            dispatcher.drain_began()

    def stop(self, grace: float) -> None:
        """Called by the drain: ask every job to stop."""
        assert self._workers is not None and self._booking is not None
        self._booking.break_promises()
        self._workers.stop_all(Ask("drain"), grace)

    def kill(self) -> None:
        """Called by the drain: kill what is left."""
        assert self._workers is not None
        self._workers.kill_all(Kill("drain"))

    async def wait_no_jobs(self) -> None:
        """Return when no job is promised, waits or runs."""
        assert self._workers is not None and self._booking is not None
        # In this order: a draining server promises nothing new, and what it had
        # promised becomes a job.
        await self._booking.wait_no_promises()
        await self._workers.wait_no_jobs()

    # ── jobs ─────────────────────────────────────────────────────────────────

    async def submit_job(
        self,
        *,
        room: str | Room,
        metadata: str = "",
        publishers: Iterable[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
    ) -> list[JobHandle[Any]]:
        """Ask this server to take a job, past its dispatchers but not past admission.

        Args:
            room: the room's name, or the room.
            metadata: for the job.
            publishers: who publishes in the room; for ``ServerType.PUBLISHER`` one
                job each.
            agent_name: the server's own unless given.
            job_id: the job's id; made up unless given.

        Returns:
            The handles: one for each publisher, or one.

        Raises:
            OptionError: an argument is not what it should be.
            NotAdmitted: the server takes no more jobs now. None of them was taken.
            JobRejected: ``on_request`` said no to one of them. None was taken.
        """
        infos = self.job_infos(
            room=room,
            metadata=metadata,
            publishers=publishers,
            agent_name=agent_name,
            job_id=job_id,
        )
        places: list[Place] = []
        for info in infos:
            answer = await self.offer(info)
            if answer.place is None:
                for place in places:
                    place.give_back()
                raise _refused(answer)
            places.append(answer.place)
        return [place.start() for place in places]

    def job_infos(
        self,
        *,
        room: str | Room,
        metadata: str = "",
        publishers: Iterable[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
    ) -> list[JobInfo]:
        """Return the jobs that a request stands for, checked.

        Raises:
            OptionError: an argument is not what it should be.
        """
        room = _checked_room(room)
        people = [_checked_participant(each) for each in publishers]
        if not isinstance(metadata, str):
            raise OptionError("metadata", metadata, "text")
        if job_id is not None and (not isinstance(job_id, str) or not job_id):
            raise OptionError("job_id", job_id, "text, or None for an id that is made up")
        name = self._agent_name if agent_name is None else agent_name
        if name != self._agent_name and self._agent_name:
            raise OptionError(
                "agent_name", agent_name, f"{self._agent_name!r}, this server's agent"
            )
        if self._type is ServerType.PUBLISHER and not people:
            raise OptionError("publishers", [], "at least one: this server has a job for each")
        base = JobInfo(
            id=job_id or f"J-{uuid.uuid4().hex[:12]}",
            room=room,
            type=self._type,
            metadata=metadata,
            agent_name=name,
        )
        if self._type is ServerType.ROOM:
            return [base]
        many = len(people) > 1
        return [
            msgspec.structs.replace(
                base, id=f"{base.id}-{number}" if many else base.id, publisher=person
            )
            for number, person in enumerate(people, 1)
        ]

    async def offer(self, job: JobInfo) -> Answer:
        """Say whether the server takes *job*, and keep a place for it if so."""
        if self._booking is None or not self._serving:
            return Answer(reason="not ready", detail="the server does not run")
        return await self._booking.offer(job)

    def _start_job(self, info: JobInfo, session: Session) -> JobHandle[Any]:
        assert self._workers is not None
        options = self._resolved()
        body = msgspec.msgpack.encode(session)
        check_size(body, options)
        handle: JobHandle[Any] = JobHandle(info, cancel=self._cancel)
        record = JobRecord(
            handle,
            "session",
            body,
            clock.monotonic(),
            timeout=options.job_timeout,
            memory_limit_bytes=int(options.job_memory_limit_mb * MB),
        )
        handle.record = record
        self._workers.submit(record)
        return handle

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        assert self._workers is not None
        return self._workers.stop_job(handle.record, Ask(reason))

    # ── what is to be seen ───────────────────────────────────────────────────

    @property
    def id(self) -> str:
        """This server's id; jobs see it as ``worker_id``."""
        return self._id

    @property
    def active_jobs(self) -> list[JobInfo]:
        """Jobs that were accepted and have no outcome yet, promised places included."""
        return [] if self._booking is None else self._booking.jobs

    @property
    def draining(self) -> bool:
        """True once no new jobs are taken."""
        return self._drain is not None and self._drain.begun

    @property
    def load(self) -> float:
        """The last load that was measured, 0.0 to 1.0; 1.0 if it cannot be measured."""
        return 0.0 if self._meter is None else self._meter.last

    @property
    def agent_name(self) -> str:
        """The name that ``rtc_session`` was given."""
        return self._agent_name

    @property
    def http_port(self) -> int | None:
        """The TCP port of the health endpoints; None without them."""
        return self._observers.port

    @property
    def options(self) -> ServerOptions:
        """The options as they are now."""
        return self._options

    def stats(self) -> PoolStats:
        """Return how many workers and jobs there are and were."""
        return PoolStats() if self._workers is None else self._workers.stats()

    def status(self) -> dict[str, Any]:
        """Return what ``status`` shows, as plain data."""
        return {
            "id": self._id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "agent_name": self._agent_name,
            "type": self._type.value,
            "stage": "starting" if self._drain is None else self._drain.stage.value,
            "draining": self.draining,
            "load": round(self.load, 4),
            "uptime_seconds": round(clock.monotonic() - self._started_at, 3),
            "active_jobs": len(self.active_jobs),
            "http_port": self.http_port,
            "forkserver_pid": None if self._workers is None else self._workers.forkserver_pid,
            "workers": self.stats().as_dict(),
        }

    def not_ready(self) -> str | None:
        """Return why the server takes no jobs now, or None if it does."""
        if self.draining:
            return "draining"
        if not self._serving or self._booking is None:
            return "starting"
        for dispatcher in self._dispatchers:
            if not dispatcher.connected:
                return f"not connected: {type(dispatcher).__name__}"
        return self._booking.refusal_now()

    def on(self, event: str, callback: Callback) -> Callback:
        """Have *callback* called with each event of that name.

        ``started`` carries this server, ``job_started`` and ``job_ended`` the job's
        handle, ``worker_warm`` and ``worker_exited`` a record with the pid,
        ``draining`` the seconds that are left, ``registered`` the dispatcher.

        Blocks: the server, until it returns. What it raises is logged.
        """
        return self._emitter.on(event, callback)

    def update_options(self, **changes: Any) -> None:
        """Change options, before or while the server runs.

        Raises:
            OptionError: a value that is not allowed, or an option that cannot
                change while the server runs.
        """
        self._set(**changes)
        if self._workers is not None:
            self._workers.update(self._options)

    def _standing(self) -> Standing:
        assert self._workers is not None
        options = self._resolved()
        threshold = options.load_threshold
        assert not isinstance(threshold, PerMode)
        return Standing(
            draining=self.draining,
            ready=self._workers.last_failure is None or self._workers.census.idle > 0,
            load=None,
            load_threshold=threshold,
            max_jobs=options.max_jobs,
            cpus=cpu_count(),
        )

    def _resolved(self) -> Any:
        # After run() every PerMode is settled; Any because the types of the fields
        # still allow for it.
        return self._options

    def __repr__(self) -> str:
        now = self.stats()
        stage = "not started" if self._drain is None else self._drain.stage.value
        return f"<AgentServer {self._id} {stage}; {now.idle} idle, {now.running} running>"


class _ServerAnnouncer(Announcer):
    """Announces, and counts for the metrics."""

    def __init__(self, server: AgentServer) -> None:
        super().__init__(server._emitter)
        self._observers = server._observers

    def worker_warm(self, worker: Worker, seconds: float) -> None:
        """A worker is warm."""
        self._observers.warmed(seconds)
        super().worker_warm(worker, seconds)

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """A job has its outcome."""
        self._observers.ended(result)
        logger.info(
            "job %s ended: %s%s",
            job.id,
            result.status.value,
            f" ({result.error or result.reason})" if result.error or result.reason else "",
            extra={"greenroom": {"job_id": job.id, "room": job.handle.info.room.name}},
        )
        super().job_ended(job, result)


def _refused(answer: Answer) -> SupervisorError:
    if answer.reason == "rejected":
        return JobRejected(answer.detail, terminate=answer.terminate)
    return NotAdmitted(answer.reason, answer.detail)


def _checked_room(room: object) -> Room:
    if isinstance(room, Room):
        return room
    if not isinstance(room, str) or not room:
        raise OptionError("room", room, "a room's name, or a Room")
    return Room(room)


def _checked_participant(person: object) -> Participant:
    if isinstance(person, Participant):
        return person
    if not isinstance(person, str) or not person:
        raise OptionError("publishers", person, "an identity, or a Participant")
    return Participant(person)
