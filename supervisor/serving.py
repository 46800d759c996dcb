"""One run of a server: what is started, in which order, and taken down again.

The order of the start is the order of what can fail at once: the port, the
workers, the control socket. The order of the end is the reverse, except that the
dispatchers stay until the last outcome is there to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from supervisor import clock
from supervisor.admission import Limits
from supervisor.applied import child_settings, too_large
from supervisor.booking import Booking
from supervisor.child.boot import Hooks
from supervisor.dispatch.base import Dispatcher, Host
from supervisor.dispatch.choice import make_dispatchers
from supervisor.drain import Drain
from supervisor.errors import SupervisorError
from supervisor.events import Draining, Emitter
from supervisor.handle import JobHandle
from supervisor.intake import Agent
from supervisor.job import Session
from supervisor.launch import Blueprint
from supervisor.load import LoadMeter
from supervisor.observers import CountingAnnouncer, Observers
from supervisor.options import Hook, ServerOptions, settled
from supervisor.outcome import Ask, Kill
from supervisor.record import JobRecord
from supervisor.signals import route_signals
from supervisor.succession import REASON, Inheritance, Succession
from supervisor.takeover import Takeover
from supervisor.travel import SESSION
from supervisor.workers import Workers

logger = logging.getLogger("greenroom.server")

MB: Final = 2**20

# Keys and secrets stay in this process: children get an environment without them.
SECRETS: Final = ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_WORKER_TOKEN")


class Served(Host, Protocol):
    """The server, as its run needs it. Every call on the server's loop."""

    @property
    def options(self) -> ServerOptions:
        """The options as they are now, with every two-fold default settled."""
        ...

    @property
    def emitter(self) -> Emitter:
        """Who listens."""
        ...

    @property
    def on_request(self) -> Hook | None:
        """The user's function of that name."""
        ...

    @property
    def agent(self) -> Agent:
        """What the entrypoint was registered as."""
        ...


class Serving:
    """One run of *server*.

    Args:
        loop: the loop that everything runs on.
        server: whose run it is.
        hooks: the user's functions, as the children get them.
        succession: takes over from another server, and will be taken over from.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: Served,
        hooks: Hooks,
        succession: Succession | None = None,
    ) -> None:
        options = server.options
        self._loop = loop
        self._server = server
        self._options = options  # as they are now; what is asked for on each job's way
        self._gone: asyncio.Future[int] = loop.create_future()
        self._dispatchers: list[Dispatcher] = []
        self._failure: SupervisorError | None = None
        self.observers = Observers()
        self.started_at = clock.monotonic()
        settings = child_settings(options, session_end_timeout=options.session_end_timeout)
        settings = dataclasses.replace(settings, without_environment=SECRETS)
        self.workers = Workers(
            loop,
            options,
            Blueprint(hooks, settings, options.capture_output),
            CountingAnnouncer(server.emitter, self.observers),
            gives_up=False,
        )
        self.meter = LoadMeter(options.load_fnc, server)
        self.booking = Booking(
            server.id,
            self.meter,
            on_request=server.on_request,
            limits=self._limits(),
            ready=self.workers.has_prospects,
            check=self._check,
            start_job=self._start_job,
        )
        self.drain = Drain(
            loop,
            self,
            timeout=lambda: settled(self._options).drain_timeout,
            grace=lambda: settled(self._options).shutdown_process_timeout,
        )
        self._takeover = (
            None
            if succession is None
            else Takeover(
                loop, succession, self.booking, self.drain, self.observers, self._dispatchers
            )
        )

    def update(self, options: ServerOptions) -> None:
        """Use *options* from now on."""
        self._options = options
        self.booking.limits = self._limits()
        self.workers.update(options)

    async def run(self) -> int:
        """Serve until the drain is over; return the exit status.

        Raises:
            SetupFailed, PreloadFailed, SupervisorError: the start failed; nothing is left.
        """
        with contextlib.ExitStack() as stack:
            if self._takeover is not None:
                stack.callback(self._takeover.link.close)
                self._takeover.begin()
            stack.callback(self.drain.close)
            stack.callback(self.meter.close)
            self._route_signals(stack)
            # Also when it does not start: those who wait for its end must not hang.
            stack.callback(self._set_gone, 1)
            status = await self._serve()
            self._set_gone(status)
        return status

    @property
    def is_over(self) -> bool:
        """True once nothing is left."""
        return self._gone.done()

    async def wait_over(self) -> int:
        """Return the exit status once nothing is left."""
        return await asyncio.shield(self._gone)

    def _set_gone(self, status: int) -> None:
        if not self._gone.done():
            self._gone.set_result(status)

    async def _serve(self) -> int:
        try:
            if await self.drain.start_unless_gone(self._start()):
                logger.info(
                    "serving as %s: %d idle workers", self._server.id, self.workers.census.idle
                )
                self._server.emitter.emit("started", self._server)
            await self.drain.wait()
        except BaseException:
            # A start that failed, or a cancelled run: nothing may be left behind.
            self.booking.close()
            await self.workers.close(kill=True)
            await self._close_edges()
            raise
        self.booking.close()
        await self.workers.close()
        await self._close_edges()
        if self._takeover is not None:
            self._takeover.link.left()
        status = self.drain.exit_status
        logger.info("gone after %.1f s, exit status %d", self.uptime, status)
        if self._failure is not None:
            raise self._failure
        return status

    async def _start(self) -> None:
        options = settled(self._options)
        # What can fail at once fails before anything is warmed for nothing.
        made = self._make_dispatchers(options)
        self.meter.start()
        takeover = self._takeover
        heir = takeover is not None and not takeover.link.first
        if not heir:
            await self.observers.start(self._server, options.host, options.port)
        await self.workers.start()
        inheritance = Inheritance()
        if takeover is not None:
            if options.port is not None:
                self.observers.load()  # while the predecessor still serves
            inheritance = await takeover.link.turn()
        if heir:  # the predecessor had the port until now
            port = options.port if options.port != 0 else inheritance.port
            await self.observers.start(self._server, options.host, port)
        self.booking.open()
        if takeover is not None:
            takeover.resume(inheritance, made)
        for dispatcher in made:
            self._dispatchers.append(dispatcher)
            await dispatcher.start(self._server)
        if takeover is not None:
            takeover.link.serving()

    def _make_dispatchers(self, options: Any) -> list[Dispatcher]:
        if self._takeover is None:
            return make_dispatchers(options, self._server.agent)
        link = self._takeover.link
        return make_dispatchers(options, self._server.agent, path=link.path, listener=link.listener)

    async def _close_edges(self) -> None:
        # Side by side: each may take what little time there is after the deadline.
        await asyncio.gather(*(dispatcher.close() for dispatcher in self._dispatchers))
        await self.observers.close()

    def _route_signals(self, stack: contextlib.ExitStack) -> None:
        drain = self.drain
        routes: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: drain.signal(signal.SIGTERM)
        }
        if self._takeover is None:  # a reloader is hit by Ctrl-C as well, and tells us
            routes[signal.SIGINT] = lambda: drain.signal(signal.SIGINT)
        try:
            stack.enter_context(route_signals(self._loop, routes))
        except (RuntimeError, ValueError):
            logger.info("not the main thread: signals are left to the program; call drain()")

    def give_up(self, error: SupervisorError) -> None:
        """Drain, since no jobs will ever come again; the run ends with *error*."""
        logger.error("no jobs will come any more: %s", error)
        self._failure = error
        if not self.drain.begun:
            self._server.begin_drain()

    # ── going down (Drained) ─────────────────────────────────────────────────

    def begin(self, remaining: float | None) -> None:
        """Take no more jobs."""
        self.booking.drain_began()
        self.workers.begin_drain(remaining)
        self._server.emitter.emit("draining", Draining(remaining))
        for dispatcher in self._dispatchers:
            dispatcher.drain_began()

    def stop(self, grace: float) -> bool:
        """Ask every job to stop; return whether there is one. What was only promised is none."""
        has_jobs = self.workers.jobs > 0
        self.booking.break_promises()
        moved = self._takeover is not None and self._takeover.stepped_down
        self.workers.stop_all(Ask(REASON if moved else "drain"), grace)
        return has_jobs

    def kill(self) -> None:
        """Kill what is left."""
        self.workers.kill_all(Kill("drain"))

    async def wait_no_jobs(self) -> None:
        """Return when no job is promised, waits or runs."""
        # In this order: a draining server promises nothing new, and what it had
        # promised becomes a job.
        await self.booking.wait_no_promises()
        await self.workers.wait_no_jobs()

    # ── jobs ─────────────────────────────────────────────────────────────────

    def _check(self, session: Session) -> None:
        size = len(msgspec.msgpack.encode(session))
        most = int(self._options.max_payload_mb * MB)
        if size > most:
            raise too_large(size, most)

    def _start_job(self, session: Session) -> JobHandle[Any]:
        options = self._options
        body = msgspec.msgpack.encode(session)
        most = int(options.max_payload_mb * MB)
        if len(body) > most:
            raise too_large(len(body), most)
        handle: JobHandle[Any] = JobHandle(session.job, cancel=self._cancel)
        record = JobRecord(
            session.job.id,
            handle,
            SESSION,
            body,
            clock.monotonic(),
            most,
            timeout=options.job_timeout,
            memory_limit_bytes=int(options.job_memory_limit_mb * MB),
        )
        handle.record = record
        self.workers.submit(record)
        return handle

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        return self.workers.stop_job(handle.record, Ask(reason))

    # ── what is to be seen ───────────────────────────────────────────────────

    @property
    def uptime(self) -> float:
        """Seconds since the run began."""
        return clock.monotonic() - self.started_at

    def not_ready(self) -> str | None:
        """Return why no job is taken now, or None if one is."""
        if self.is_over:
            return "gone"
        if self.drain.begun:
            return "draining"
        if not self.booking.is_open:
            return "starting"
        for dispatcher in self._dispatchers:
            if not dispatcher.connected:
                return f"not connected: {type(dispatcher).__name__}"
        return self.booking.refusal_now()

    def _limits(self) -> Limits:
        options = settled(self._options)
        return Limits(options.load_threshold, options.max_jobs, self.meter.cpus)
