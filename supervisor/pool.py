"""ProcessPool: functions, each in a warm process of its own, on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from supervisor import clock, travel
from supervisor.child.boot import Hooks, Settings
from supervisor.drain import Drain
from supervisor.errors import OptionError, PoolClosed
from supervisor.events import Callback, Draining, Emitter, WorkerExited, WorkerWarm
from supervisor.handle import JobHandle
from supervisor.job import ExitReport, JobInfo, JobOutcome
from supervisor.launch import Blueprint
from supervisor.options import (
    CHANGEABLE,
    PoolOptions,
    check_choice,
    check_number,
    check_text,
    cpu_count,
)
from supervisor.outcome import Ask, Kill
from supervisor.record import JobRecord
from supervisor.results import DATA, PICKLE
from supervisor.settling import Listener
from supervisor.signals import route_signals
from supervisor.stats import PoolStats
from supervisor.worker import Worker
from supervisor.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

EVENTS = ("worker_warm", "job_started", "job_ended", "worker_exited", "draining")

MB = 2**20


class Announcer(Listener):
    """Turns what the workers do into events."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def worker_warm(self, worker: Worker, seconds: float) -> None:
        """A worker is warm."""
        self._emitter.emit("worker_warm", WorkerWarm(worker.pid, seconds))

    def job_started(self, job: JobRecord, pid: int | None) -> None:
        """A job has begun."""
        job.handle._running(pid)
        self._emitter.emit("job_started", job.handle)

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """A job has its outcome; it is in its handle when the callbacks run."""
        job.handle.add_done_callback(lambda handle: self._emitter.emit("job_ended", handle))

    def worker_exited(self, worker: Worker, report: ExitReport | None) -> None:
        """A worker is reaped."""
        exit = None if report is None else report.exit
        self._emitter.emit("worker_exited", WorkerExited(worker.pid, exit, worker.jobs_served))


def child_settings(options: PoolOptions, **more: Any) -> Settings:
    """Return what children need of *options*."""
    level = options.log_level
    return Settings(
        preload_modules=options.preload_modules,
        job_limits=options.job_limits,
        shutdown_process_timeout=options.shutdown_process_timeout,
        high_ping_threshold=options.high_ping_threshold,
        max_payload_bytes=int(options.max_payload_mb * MB),
        log_level=level if isinstance(level, str) else _host_level(),
        http_proxy=options.http_proxy,
        **more,
    )


def _host_level() -> str:
    """Return the level that the host program logs at: children need not send less."""
    level = logging.getLogger().getEffectiveLevel()
    known = [
        name for name in ("DEBUG", "INFO", "WARNING", "ERROR") if getattr(logging, name) >= level
    ]
    return known[0] if known else "CRITICAL"


class ProcessPool:
    """Runs functions, each in its own fresh, warm process.

    ::

        async with ProcessPool(setup_fnc=prewarm, num_idle_processes=4) as pool:
            value = await pool.submit(score, "text", k=3)

    Args:
        results: ``"pickle"``, or ``"data"``: then children may return only plain
            data (MessagePack), and cannot run code in this process.
        handle_signals: on SIGTERM or SIGINT, let running jobs end; on the second
            ask them to stop; on the third kill them. The pool is closed then, and
            the handlers that were there are put back when it is left.
        initializer, initargs: called in each worker after ``setup_fnc``'s place in
            line, the way ``concurrent.futures`` names it.
        options: see the table in the documentation; all keyword-only. ``max_jobs``
            is the number of CPUs unless given, and jobs above it wait.

    The constructor only stores. Entering the context starts the pool and returns
    when its workers are warm; leaving it waits for the accepted jobs, or cancels
    them if it is left by an exception.

    Runs on: one asyncio loop, every method.

    Raises:
        OptionError: an option has the wrong type or range.
    """

    def __init__(
        self,
        *,
        results: str = PICKLE,
        handle_signals: bool = False,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        check_choice("results", results, (PICKLE, DATA))
        if initializer is not None and not callable(initializer):
            raise OptionError("initializer", initializer, "a function, or None")
        options.setdefault("max_jobs", cpu_count())
        self._options = PoolOptions().replace(**options)
        self._data_only = results == DATA
        self._handle_signals = handle_signals
        self._initializer = None if initializer is None else (initializer, tuple(initargs))
        self._emitter = Emitter(EVENTS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: Workers | None = None
        self._drain: Drain | None = None
        self._signals: contextlib.ExitStack = contextlib.ExitStack()
        self._closing: asyncio.Task[None] | None = None

    # ── life ─────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> ProcessPool:
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.aclose(cancel=kind is not None)

    async def start(self) -> None:
        """Start the pool and return when its idle workers are warm.

        Raises:
            SetupFailed: ``setup_fnc`` failed as often as is allowed.
            PreloadFailed: imports or ``preload_fnc`` failed.
            PicklingError, TypeError, AttributeError: a hook cannot travel.
            PoolClosed: a signal, or somebody else, closed it meanwhile.
            RuntimeError: the pool was started before.
        """
        if self._workers is not None:
            raise RuntimeError("a ProcessPool is started once; make another one")
        self._loop = asyncio.get_running_loop()
        hooks = Hooks(
            preload_fnc=self._options.preload_fnc,
            setup_fnc=self._options.setup_fnc,
            initializer=self._initializer,
            user_arguments=self._options.user_arguments,
        )
        blueprint = Blueprint(hooks, child_settings(self._options), self._options.capture_output)
        self._workers = Workers(
            self._loop, self._options, blueprint, Announcer(self._emitter), gives_up=True
        )
        self._drain = Drain(
            self._loop,
            _Drained(self._workers, self._emitter),
            timeout=lambda: None,
            grace=lambda: self._options.shutdown_process_timeout,
        )
        if self._handle_signals:
            self._signals.enter_context(self._routes(self._loop, self._drain))
        try:
            if not await self._drain.start_unless_gone(self._workers.start()):
                raise PoolClosed("the pool was closed while it started")
        except BaseException:
            self._signals.close()
            self._drain.close()
            raise

    def _routes(
        self, loop: asyncio.AbstractEventLoop, drain: Drain
    ) -> contextlib.AbstractContextManager[None]:
        return route_signals(
            loop,
            {
                number: lambda number=number: drain.signal(number)  # type: ignore[misc]
                for number in (signal.SIGTERM, signal.SIGINT)
            },
        )

    async def aclose(self, *, cancel: bool = False) -> None:
        """Close the pool; return when nothing of it is left. May be called again.

        Args:
            cancel: ask running jobs to stop and drop waiting ones; without it all
                accepted jobs are waited for.
        """
        if self._workers is None or self._drain is None:
            return
        if cancel and self._drain.stage.value in ("serving", "draining"):
            self._drain.request(None)
            self._workers.stop_all(Ask("closed"), self._options.shutdown_process_timeout)
        else:
            self._drain.request(None)
        if self._closing is None:
            assert self._loop is not None
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        assert self._workers is not None and self._drain is not None
        await self._drain.wait()
        await self._workers.close()
        self._drain.close()
        self._signals.close()

    # ── jobs ─────────────────────────────────────────────────────────────────

    @overload
    def submit(
        self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[T]: ...
    @overload
    def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[T]: ...
    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Run ``function(*args, **kwargs)`` in a worker; a coroutine function is awaited there.

        Returns at once. With an idle worker the job is on its way already.

        Raises:
            PoolClosed: the pool is not open.
            SetupFailed: no worker can be warmed any more.
            TypeError: *function* cannot be called.
            PicklingError, TypeError, AttributeError: something of the call cannot
                travel; the text names it.
            PayloadTooLarge: the call is over ``max_payload_mb``.
        """
        return self.schedule(function, args, kwargs)

    def schedule(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        memory_limit_mb: float | None = None,
        job_id: str | None = None,
    ) -> JobHandle[Any]:
        """Like :meth:`submit`, with limits for this one job.

        Args:
            function: what to call.
            args: its positional arguments.
            kwargs: its keyword arguments.
            timeout: wall time in seconds from the hand-over; ``job_timeout`` unless given.
            memory_limit_mb: PSS of the job's process tree at which it is killed;
                ``job_memory_limit_mb`` unless given.
            job_id: its name in logs, titles and statistics; made up unless given.
        """
        workers = self._open_workers()
        if not callable(function):
            raise TypeError(f"expected a function to call, got {function!r}")
        if timeout is None:
            timeout = self._options.job_timeout
        else:
            check_number("timeout", timeout, above=0.0)
        if memory_limit_mb is None:
            memory_limit_mb = self._options.job_memory_limit_mb
        else:
            check_number("memory_limit_mb", memory_limit_mb, above=0.0)
        if job_id is not None:
            check_text("job_id", job_id)
        body = travel.pack_call(function, tuple(args), dict(kwargs or {}))
        check_size(body, self._options)
        handle: JobHandle[Any] = JobHandle(
            JobInfo(job_id if job_id is not None else f"J-{uuid.uuid4().hex[:12]}"),
            cancel=self._cancel,
            cancel_with_caller=True,
        )
        record = JobRecord(
            handle,
            "call",
            body,
            clock.monotonic(),
            data_only=self._data_only,
            timeout=timeout,
            memory_limit_bytes=int(memory_limit_mb * MB),
        )
        handle.record = record
        workers.submit(record)
        return handle

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        assert self._workers is not None
        return self._workers.stop_job(handle.record, Ask(reason))

    def _open_workers(self) -> Workers:
        if self._workers is None:
            raise PoolClosed("the pool is not open yet: use 'async with', or await start()")
        if self._drain is not None and self._drain.begun:
            raise PoolClosed("the pool is closed: it takes no more jobs")
        return self._workers

    # ── the rest ─────────────────────────────────────────────────────────────

    def stats(self) -> PoolStats:
        """Return how many workers and jobs there are and were."""
        return PoolStats() if self._workers is None else self._workers.stats()

    def on(self, event: str, callback: Callback) -> Callback:
        """Have *callback* called with each event of that name.

        ``worker_warm`` and ``worker_exited`` carry a record with the pid,
        ``job_started`` and ``job_ended`` the job's handle, ``draining`` the
        seconds that are left.

        Blocks: the pool, until it returns. What it raises is logged.
        """
        return self._emitter.on(event, callback)

    def update_options(self, **changes: Any) -> None:
        """Change options of a pool, before or while it runs.

        Raises:
            OptionError: a value that is not allowed, or an option that cannot
                change while the pool runs.
        """
        check_changeable(changes, running=self._workers is not None)
        self._options = self._options.replace(**changes)
        if self._workers is not None:
            self._workers.update(self._options)

    def __repr__(self) -> str:
        now = self.stats()
        return (
            f"<ProcessPool {now.idle} idle, {now.running} running of {now.alive}; "
            f"{now.waiting} waiting>"
        )


def check_changeable(changes: Mapping[str, object], *, running: bool) -> None:
    """Raise OptionError for the first option that is fixed once processes exist."""
    for name, value in changes.items():
        if running and name not in CHANGEABLE:
            raise OptionError(
                name,
                value,
                "an option that can change while running: " + ", ".join(sorted(CHANGEABLE)),
            )


def check_size(body: bytes, options: PoolOptions) -> None:
    """Raise PayloadTooLarge if *body* is over ``max_payload_mb``."""
    limit = int(options.max_payload_mb * MB)
    if len(body) > limit:
        from ipc.errors import PayloadTooLarge

        raise PayloadTooLarge(
            "the job's function and arguments",
            len(body),
            limit,
            "raise max_payload_mb, or hand over a file name instead",
        )


class _Drained:
    """The workers, as a drain sees them."""

    def __init__(self, workers: Workers, emitter: Emitter) -> None:
        self._workers = workers
        self._emitter = emitter

    def begin(self, remaining: float | None) -> None:
        self._workers.begin_drain(remaining)
        self._emitter.emit("draining", Draining(remaining))

    def stop(self, grace: float) -> None:
        self._workers.stop_all(Ask("drain"), grace)

    def kill(self) -> None:
        self._workers.kill_all(Kill("drain"))

    async def wait_no_jobs(self) -> None:
        await self._workers.wait_no_jobs()
