"""ProcessPool: functions, each in a warm process of its own, on asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, overload

from supervisor import clock, travel
from supervisor.applied import MB, blueprint_of, too_large
from supervisor.checks import (
    check_arguments,
    check_bool,
    check_choice,
    check_hook,
    check_id,
    check_int,
    check_number,
)
from supervisor.cpus import cpu_count
from supervisor.errors import PoolClosed
from supervisor.events import Callback, Emitter
from supervisor.handle import JobHandle
from supervisor.ids import job_ids
from supervisor.job import JobInfo
from supervisor.options import PoolOptions, check_changeable
from supervisor.outcome import Ask
from supervisor.record import JobRecord
from supervisor.results import DATA, PICKLE
from supervisor.stats import PoolStats
from supervisor.streaming import stream

if TYPE_CHECKING:
    from supervisor.poolrun import PoolRun
    from supervisor.workers import Workers

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

EVENTS = ("worker_warm", "job_started", "job_ended", "worker_exited", "draining")


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
        check_bool("handle_signals", handle_signals)
        check_hook("initializer", initializer)
        arguments = check_arguments("initargs", initargs)
        options.setdefault("max_jobs", cpu_count())
        self._options = PoolOptions().replace(**options)
        self._data_only = results == DATA
        self._handle_signals = handle_signals
        self._ids = job_ids()
        self._closed_unstarted = False
        self._initializer = None if initializer is None else (initializer, arguments)
        self._emitter = Emitter(EVENTS)
        self._run: PoolRun | None = None
        self._pid = os.getpid()  # a fork inherits the pool's descriptors, not the pool

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
            OSError: no process or no descriptor for the fork server. Make another pool when there is.
            PoolClosed: a signal, or somebody else, closed it meanwhile, or before.
            RuntimeError: the pool was started before.
        """
        if self._closed_unstarted:
            raise PoolClosed("the pool was closed before it started; make another one")
        if self._run is not None:
            raise RuntimeError("a ProcessPool is started once; make another one")
        # Not at the head: the fork server imports the user's script, never gets here, and
        # each worker would be born with it.
        from supervisor.poolrun import PoolRun

        self._run = PoolRun(
            asyncio.get_running_loop(),
            lambda: self._options,
            blueprint_of(self._options, self._initializer),
            self._emitter,
        )
        await self._run.start(handle_signals=self._handle_signals)

    async def aclose(self, *, cancel: bool = False) -> None:
        """Close the pool; return when nothing of it is left. May be called again.

        What stays until the program ends is multiprocess's resource tracker, a process that each
        program has that starts others; it does nothing.

        In a process that was forked from the pool's own this does nothing.

        Args:
            cancel: ask running jobs to stop and drop waiting ones; without it all
                accepted jobs are waited for.
        """
        if os.getpid() != self._pid:
            return
        if self._run is None:
            self._closed_unstarted = True
        else:
            await self._run.close(cancel=cancel)

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
            PoolClosed: the pool is not open, or another process's: this one was forked.
            SetupFailed: no worker can be warmed any more.
            TypeError: *function* cannot be called.
            PicklingError, TypeError, AttributeError: something of the call cannot
                travel; the text names it.
            PayloadTooLarge: the call is over ``max_payload_mb``.
        """
        return self.schedule(function, args, kwargs)

    @overload
    def schedule(
        self,
        function: Callable[..., Awaitable[T]],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        memory_limit_mb: float | None = None,
        job_id: str | None = None,
    ) -> JobHandle[T]: ...
    @overload
    def schedule(
        self,
        function: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        memory_limit_mb: float | None = None,
        job_id: str | None = None,
    ) -> JobHandle[T]: ...
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
            job_id: its name in logs, titles and statistics, which others may have as well;
                made up unless given.

        Raises:
            OptionError: a limit or the id is not what it should be.
            TypeError: *function* cannot be called. And whatever :meth:`submit` raises.
        """
        workers = self._open_workers()
        if not callable(function):
            raise TypeError(f"expected a function, and its arguments after it, got {function!r}")
        if timeout is None:
            timeout = self._options.job_timeout
        else:
            check_number("timeout", timeout, above=0.0)
        if memory_limit_mb is None:
            memory_limit_mb = self._options.job_memory_limit_mb
        else:
            check_number("memory_limit_mb", memory_limit_mb, above=0.0)
        if job_id is not None:
            job_id = check_id("job_id", job_id)
        kind, body = travel.pack_call(function, tuple(args), dict(kwargs or {}))
        most = int(self._options.max_payload_mb * MB)
        if len(body) > most:
            raise too_large(len(body), most)
        if job_id is None:
            job_id = next(self._ids)
        handle: JobHandle[Any] = JobHandle(
            JobInfo(job_id),
            cancel=self._cancel,
            cancel_with_caller=True,
        )
        record = JobRecord(
            job_id,
            handle,
            kind,
            body,
            clock.monotonic(),
            most,
            data_only=self._data_only,
            timeout=timeout,
            memory_limit_bytes=int(memory_limit_mb * MB),
        )
        handle.record = record
        workers.submit(record)
        return handle

    @overload
    def map(
        self,
        function: Callable[[A], Awaitable[T]],
        items: Iterable[A] | AsyncIterable[A],
        *,
        max_in_flight: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[JobHandle[T], None]: ...
    @overload
    def map(
        self,
        function: Callable[[A], T],
        items: Iterable[A] | AsyncIterable[A],
        *,
        max_in_flight: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[JobHandle[T], None]: ...
    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_in_flight: int | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[JobHandle[Any], None]:
        """Run ``function(item)`` for each item; give the handles in order, each ended.

        ::

            async for handle in pool.map(score, texts):
                print(await handle)

        The handle and not the value, so that one failed job does not end the
        stream. Items are read only as far ahead as *max_in_flight* allows; what is
        in flight when the stream is closed is cancelled. What reading an item or
        submitting it raises comes after the handles of the items before it.

        Args:
            function: what to call.
            items: its arguments; may be endless, and may be asynchronous.
            max_in_flight: jobs that were accepted and whose handles were not taken
                yet; twice ``max_jobs`` unless given, so that no worker waits for
                who consumes.
            timeout: for each job, as in :meth:`schedule`.
        """
        if max_in_flight is None:
            max_in_flight = 2 * (self._options.max_jobs or cpu_count())
        else:
            check_int("max_in_flight", max_in_flight, at_least=1)
        self._open_workers()
        return stream(
            lambda item: self.schedule(function, (item,), timeout=timeout), items, max_in_flight
        )

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        assert self._run is not None
        return self._run.workers.stop_job(handle.record, Ask(reason))

    @property
    def _workers(self) -> Workers | None:
        return None if self._run is None else self._run.workers

    def _open_workers(self) -> Workers:
        if self._run is None:
            raise PoolClosed("the pool is not open yet: use 'async with', or await start()")
        if self._run.drain.begun:
            raise PoolClosed("the pool is closed: it takes no more jobs")
        if os.getpid() != self._pid:
            raise PoolClosed(f"the pool belongs to process {self._pid}; make one in this process")
        return self._run.workers

    # ── the rest ─────────────────────────────────────────────────────────────

    def stats(self) -> PoolStats:
        """Return how many workers and jobs there are and were."""
        return PoolStats() if self._run is None else self._run.workers.stats()

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
        check_changeable(self._options, changes, running=self._run is not None)
        self._options = self._options.replace(**changes)
        if self._run is not None:
            self._run.workers.update(self._options)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: its workers and its loop are this process's."""
        raise TypeError("a ProcessPool cannot be copied or sent to another process")

    def __repr__(self) -> str:
        now = self.stats()
        return (
            f"<ProcessPool {now.idle} idle, {now.running} running of {now.alive}; "
            f"{now.waiting} waiting>"
        )
