"""AgentServer: what the user registers, asks and sees.

The class keeps what belongs together in the user's eyes: options, the one
entrypoint, the jobs. What happens while it runs is ``serving.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from supervisor import intake
from supervisor.checks import check_function, check_hook, check_number, check_takes, check_text
from supervisor.dispatch.base import NOT_YET, Answer, Dispatcher
from supervisor.dispatch.together import start_all
from supervisor.errors import (
    JobRejected,
    NotAdmitted,
    NotRunnable,
    OptionError,
    SupervisorError,
)
from supervisor.events import Callback, Emitter
from supervisor.handle import JobHandle
from supervisor.ids import job_ids
from supervisor.intake import Agent
from supervisor.job import JobInfo, Participant, Room, ServerType
from supervisor.options import Hook, ServerOptions, check_changeable, settled
from supervisor.stats import PoolStats

if TYPE_CHECKING:
    from supervisor.serving import Serving
    from supervisor.succession import Succession

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
        self._agent = Agent()
        self._id = f"S-{uuid.uuid4().hex[:12]}"
        self._ids = job_ids()
        self._emitter = Emitter(EVENTS)
        self._serving: Serving | None = None

    @classmethod
    def from_server_options(cls, options: ServerOptions) -> AgentServer:
        """Return a server with *options*.

        Raises:
            OptionError: it is something else.
        """
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
        self._set(setup_fnc=function)

    @property
    def preload_fnc(self) -> Hook | None:
        """The function that runs once, in the process that workers are forked from."""
        return self._options.preload_fnc

    @preload_fnc.setter
    def preload_fnc(self, function: Hook | None) -> None:
        self._set(preload_fnc=function)

    @property
    def load_fnc(self) -> Hook | None:
        """The function that measures the load. Set it before the server runs."""
        return self._options.load_fnc

    @load_fnc.setter
    def load_fnc(self, function: Hook | None) -> None:
        self._set(load_fnc=function)

    def _set(self, **changes: Any) -> None:
        check_changeable(self._options, changes, running=self._serving is not None)
        replaced = self._options.replace(**changes)
        assert isinstance(replaced, ServerOptions)
        self._options = replaced

    @overload
    def rtc_session(
        self,
        func: F,
        *,
        agent_name: str = "",
        type: ServerType = ServerType.ROOM,
        on_request: Hook | None = None,
        on_session_end: Hook | None = None,
    ) -> F: ...
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
            on_request: asked for each job, with a JobRequest. An async one runs on the
                server's loop and must not block it; a plain one has a thread for each job.
            on_session_end: called in the job's process after it, with its context. Asked to
                stop meanwhile, an async one is cancelled before the grace is over.

        Raises:
            OptionError: something is not a function, or one with ``yield``; the name is no
                text; *type* is no ServerType.
            RuntimeError: there is an entrypoint already.
        """
        agent_name = check_text("agent_name", agent_name)
        check_hook("on_request", on_request, takes="a JobRequest")
        check_hook("on_session_end", on_session_end, takes="a JobContext", or_nothing=True)
        if not isinstance(type, ServerType):
            raise OptionError("type", type, "ServerType.ROOM or ServerType.PUBLISHER")

        def register(function: F) -> F:
            expected = "a function that takes a JobContext"
            check_function("the entrypoint", function, expected)
            check_takes("the entrypoint", function, expected)
            if self._entrypoint is not None:
                raise RuntimeError("this server has an entrypoint already; use one server for each")
            self._entrypoint = function
            self._agent = Agent(agent_name, type)
            self._on_request, self._on_session_end = on_request, on_session_end
            return function

        return register if func is None else register(func)

    # ── life ─────────────────────────────────────────────────────────────────

    async def run(self, *, devmode: bool = False, succession: Succession | None = None) -> int:
        """Serve until the server was drained; return the exit status.

        0: jobs ended by themselves. 124: ``drain_timeout`` had to be enforced.
        128 + signal: a second signal cut it short.

        Cancelled: running jobs are killed at once, without a grace; nothing is left. To end
        gently call :meth:`drain` or :meth:`aclose`.

        SIGTERM and SIGINT are handled here when this runs in the main thread.

        Args:
            devmode: use the defaults for development: no load threshold, one idle
                worker, no waiting for jobs at the end.
            succession: for the command line's reload: the server takes over from
                another one.

        Raises:
            SetupFailed, PreloadFailed: no worker gets warm.
            SupervisorError: the port is in use, the socket is somebody else's.
            NotRunnable: no entrypoint. It is a RuntimeError.
            RuntimeError: the server ran before.
        """
        if self._entrypoint is None:
            raise NotRunnable("no entrypoint: decorate a function with @server.rtc_session()")
        if self._serving is not None:
            raise RuntimeError("an AgentServer runs once; make another one")
        # Here, because the program's main file is imported in the children too, and
        # they define a server but never run it.
        from supervisor.child.boot import Hooks
        from supervisor.serving import Serving

        options = self._options = self._options.resolve(devmode=devmode)
        hooks = Hooks(
            preload_fnc=options.preload_fnc,
            setup_fnc=options.setup_fnc,
            entrypoint=self._entrypoint,
            on_session_end=self._on_session_end,
            user_arguments=options.user_arguments,
        )
        self._serving = Serving(asyncio.get_running_loop(), self, hooks, succession)
        return await self._serving.run()

    async def drain(self, timeout: float | None | _Unset = UNSET) -> int:
        """Take no more jobs, let running ones end, stop them at the deadline.

        Args:
            timeout: seconds; ``drain_timeout`` unless given, None for ever. A drain that has
                begun keeps its deadline, and is waited for.

        Returns:
            The exit status that :meth:`run` returns as well, when all is over; 1 if that
            was cancelled, or has raised.
        """
        serving = self._running()
        if not serving.is_over:
            self.begin_drain(timeout)
        return await serving.wait_over()

    def begin_drain(self, timeout: float | None | _Unset = UNSET) -> None:
        """Begin what :meth:`drain` waits for, with its *timeout*.

        A drain that has begun goes on as it is, with its own deadline, and the log says so;
        :meth:`aclose` cuts it short.
        """
        serving = self._running()
        if serving.drain.begun and not isinstance(timeout, _Unset):
            logger.warning("the drain has begun, and keeps its deadline: %s is not used", timeout)
        if isinstance(timeout, _Unset):
            serving.drain.request(settled(self._options).drain_timeout)
            return
        if timeout is not None:
            check_number("timeout", timeout)
        serving.drain.request(timeout)

    async def aclose(self) -> None:
        """Stop at once: running jobs are asked to stop and have the grace. Nothing if not running."""
        serving = self._serving
        if serving is None or serving.is_over:
            return
        if serving.drain.begun:
            serving.drain.cut_short()
        else:
            self.begin_drain(0.0)
        await serving.wait_over()

    def _running(self) -> Serving:
        if self._serving is None:
            raise RuntimeError("the server does not run")
        return self._serving

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
            The handles: one for each publisher, or one. What an entrypoint returns is
            dropped: awaited, its handle gives None.

        Raises:
            OptionError: an argument is not what it should be.
            NotAdmitted: the server takes no more jobs now. None of them was taken.
            JobRejected: ``on_request`` said no to one of them, or there is a job of that id.
                None was taken.
            PayloadTooLarge: one of them is over ``max_payload_mb``. None was taken.

        Cancelled: none of them was taken.
        """
        infos = intake.job_infos(  # and not self.job_infos: a function less on each job's way
            self._agent,
            self._ids,
            room=room,
            metadata=metadata,
            publishers=publishers,
            agent_name=agent_name,
            job_id=job_id,
        )
        if self._serving is None:
            raise _refused(NOT_YET)
        handles = await start_all(self._serving.booking, infos)
        if isinstance(handles, Answer):
            raise _refused(handles)
        return handles

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
        return intake.job_infos(
            self._agent,
            self._ids,
            room=room,
            metadata=metadata,
            publishers=publishers,
            agent_name=agent_name,
            job_id=job_id,
        )

    async def offer(self, job: JobInfo) -> Answer:
        """Say whether the server takes *job*, and keep a place for it if so."""
        if self._serving is None:
            return NOT_YET
        return await self._serving.booking.offer(job)

    def registered(self, dispatcher: Dispatcher, server_id: str) -> None:
        """*dispatcher* can bring jobs now, and knows this server as *server_id*."""
        self._id = server_id or self._id
        self._running().booking.server_id = self._id
        self._emitter.emit("registered", dispatcher)

    def give_up(self, error: SupervisorError) -> None:
        """No jobs will ever come again: drain, and end with *error*. For dispatchers."""
        self._running().give_up(error)

    # ── what is to be seen ───────────────────────────────────────────────────

    @property
    def id(self) -> str:
        """This server's id; jobs see it as ``worker_id``. LiveKit gives a new one when it registers."""
        return self._id

    @property
    def active_jobs(self) -> list[JobInfo]:
        """Jobs that were accepted and have no outcome yet, promised places included."""
        return [] if self._serving is None else self._serving.booking.jobs

    @property
    def draining(self) -> bool:
        """True once no new jobs are taken."""
        return self._serving is not None and self._serving.drain.begun

    @property
    def load(self) -> float:
        """The last load that was measured, 0.0 to 1.0; 1.0 if it cannot be measured."""
        return 0.0 if self._serving is None else self._serving.meter.last

    async def measure_load(self) -> float | None:
        """Return the load as it is now; None if it cannot be told. Never raises."""
        return 0.0 if self._serving is None else await self._serving.meter.measure()

    @property
    def agent(self) -> Agent:
        """What ``rtc_session`` was given: the name, and what a job is for."""
        return self._agent

    @property
    def agent_name(self) -> str:
        """The name that ``rtc_session`` was given."""
        return self._agent.name

    @property
    def http_port(self) -> int | None:
        """The TCP port of the health endpoints; None without them."""
        return None if self._serving is None else self._serving.observers.port

    @property
    def options(self) -> ServerOptions:
        """The options as they are now."""
        return self._options

    @property
    def on_request(self) -> Hook | None:
        """What ``rtc_session`` was given under that name."""
        return self._on_request

    @property
    def emitter(self) -> Emitter:
        """Who listens to this server's events; :meth:`on` adds to it."""
        return self._emitter

    def stats(self) -> PoolStats:
        """Return how many workers and jobs there are and were."""
        return PoolStats() if self._serving is None else self._serving.workers.stats()

    def status(self) -> dict[str, Any]:
        """Return what ``status`` shows, as plain data."""
        serving = self._serving
        return {
            "id": self._id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "agent_name": self._agent.name,
            "type": self._agent.type.value,
            "stage": "starting" if serving is None else serving.drain.stage.value,
            "draining": self.draining,
            "load": round(self.load, 4),
            "uptime_seconds": 0.0 if serving is None else round(serving.uptime, 3),
            "active_jobs": len(self.active_jobs),
            "http_port": self.http_port,
            "forkserver_pid": None if serving is None else serving.workers.forkserver_pid,
            "workers": self.stats().as_dict(),
        }

    def not_ready(self) -> str | None:
        """Return why the server takes no jobs now (``starting``, ``draining``, ``gone``, …), or None if it does."""
        return "starting" if self._serving is None else self._serving.not_ready()

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
        if self._serving is not None:
            self._serving.update(self._options)

    def __repr__(self) -> str:
        now = self.stats()
        stage = "not started" if self._serving is None else self._serving.drain.stage.value
        return f"<AgentServer {self._id} {stage}; {now.idle} idle, {now.running} running>"


def _refused(answer: Answer) -> SupervisorError:
    if answer.reason == "rejected":
        return JobRejected(answer.detail, terminate=answer.terminate)
    return NotAdmitted(answer.reason, answer.detail)
