"""One run of a ProcessPool, from its start until nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable

from supervisor.announcer import Announcer
from supervisor.drain import Drain, Stage
from supervisor.errors import PoolClosed
from supervisor.events import Draining, Emitter
from supervisor.launch import Blueprint
from supervisor.options import PoolOptions
from supervisor.outcome import Ask, Kill
from supervisor.signals import route_signals
from supervisor.workers import Workers


class PoolRun:
    """The workers, the drain that ends them, and the signals that start the drain.

    Args:
        loop: the loop that everything runs on.
        options: returns the options as they are now.
        blueprint: what children are born with.
        emitter: where events go.

    Runs on: the loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Callable[[], PoolOptions],
        blueprint: Blueprint,
        emitter: Emitter,
    ) -> None:
        self.workers = Workers(loop, options(), blueprint, Announcer(emitter), gives_up=True)
        self.drain = Drain(
            loop,
            _Drained(self.workers, emitter),
            timeout=lambda: None,
            grace=lambda: options().shutdown_process_timeout,
        )
        self._loop = loop
        self._options = options
        self._signals = contextlib.ExitStack()
        self._closing: asyncio.Task[None] | None = None

    async def start(self, *, handle_signals: bool) -> None:
        """Return when the idle workers are warm. Raises what ``ProcessPool.start`` raises."""
        if handle_signals:
            self._signals.enter_context(self._routes())
        try:
            if not await self.drain.start_unless_gone(self.workers.start()):
                raise PoolClosed("the pool was closed while it started")
        except BaseException:
            self._signals.close()
            self.drain.close()
            raise

    def _routes(self) -> contextlib.AbstractContextManager[None]:
        routes: dict[signal.Signals, Callable[[], None]] = {
            each: functools.partial(self.drain.signal, each)
            for each in (signal.SIGTERM, signal.SIGINT)
        }
        return route_signals(self._loop, routes)

    async def close(self, *, cancel: bool) -> None:
        """Return when nothing is left. May be called again.

        Args:
            cancel: ask running jobs to stop and drop waiting ones.
        """
        stops = cancel and self.drain.stage in (Stage.SERVING, Stage.DRAINING)
        self.drain.request(None)
        if stops:
            self.workers.stop_all(Ask("closed"), self._options().shutdown_process_timeout)
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self.drain.wait()
        await self.workers.close()
        self.drain.close()
        self._signals.close()


class _Drained:
    """The workers, as a drain sees them."""

    def __init__(self, workers: Workers, emitter: Emitter) -> None:
        self._workers = workers
        self._emitter = emitter

    def begin(self, remaining: float | None) -> None:
        self._workers.begin_drain(remaining)
        self._emitter.emit("draining", Draining(remaining))

    def stop(self, grace: float) -> bool:
        has_jobs = self._workers.jobs > 0
        self._workers.stop_all(Ask("drain"), grace)
        return has_jobs

    def kill(self) -> None:
        self._workers.kill_all(Kill("drain"))

    async def wait_no_jobs(self) -> None:
        await self._workers.wait_no_jobs()
