"""Keeping a launcher: made at the start, made anew when it is lost.

Jobs that run do not notice that the fork server died; only no new worker can be
born until there is another. It is restarted with backoff, as often as it takes:
whether to give up is decided by whoever waits for workers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Protocol

from supervisor import clock
from supervisor.enclosure import Enclosure, Limits, find
from supervisor.errors import OptionError, PreloadFailed
from supervisor.familiar import Familiar
from supervisor.forkserver import ForkServer
from supervisor.job import Exit, ExitReport
from supervisor.launch import Blueprint, Launcher, LaunchEvents, SideOfChild, kill_by_pidfd
from supervisor.options import PoolOptions
from supervisor.restarts import RestartWindow
from supervisor.spawn import SpawnLauncher

logger = logging.getLogger("greenroom.supply")


class SupplyEvents(LaunchEvents, Protocol):
    """Who is told about workers and about the launcher itself."""

    def supply_ready(self) -> None:
        """Workers can be launched again."""
        ...

    def supply_failed(self, error: PreloadFailed) -> None:
        """Restarting has failed once more; it goes on."""
        ...


class Supply:
    """A launcher that comes back.

    Args:
        loop: the pool's loop.
        blueprint: what children are born with.
        options: returns the options as they are now.
        events: who is told.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        blueprint: Blueprint,
        options: Callable[[], PoolOptions],
        events: SupplyEvents,
    ) -> None:
        self._loop = loop
        self._blueprint = blueprint
        self._options = options
        self._events = events
        self._launcher: Launcher | None = None
        self.enclosure: Enclosure | None = None
        self.familiar = Familiar()
        self._window = RestartWindow()
        self._restarting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """True while workers can be launched."""
        return self._launcher is not None

    @property
    def pid(self) -> int | None:
        """The fork server's process id, None without one."""
        return self._launcher.pid if isinstance(self._launcher, ForkServer) else None

    async def start(self) -> None:
        """Make the first launcher.

        Raises:
            PreloadFailed: the user's imports or ``preload_fnc`` failed.
        """
        self._enclose()
        self._launcher = await self._make()

    def _enclose(self) -> None:
        """Give workers groups of their own where that is possible; say in the log which it is.

        Raises:
            OptionError: a directory was named, and cannot be used.
        """
        options = self._options()
        directory, why = find(options.cgroup)
        if directory is not None:
            limits = options.job_limits
            try:
                self.enclosure = Enclosure(
                    self._loop,
                    directory,
                    Limits(
                        int(options.job_memory_limit_mb * 2**20) or None,
                        None if limits is None else limits.processes,
                    ),
                )
            except OSError as exc:
                why = f"{directory}: {exc}"
        if self.enclosure is None and options.cgroup not in (None, "auto"):
            raise OptionError("cgroup", options.cgroup, f"a cgroup to make groups in: {why}")
        if self.enclosure is None:
            logger.info("cgroup: not used (%s); memory is measured, strays are looked for", why)
            return
        logger.info("cgroup: %s", self.enclosure)
        self._blueprint.settings = dataclasses.replace(
            self._blueprint.settings, cgroup=str(self.enclosure.path)
        )

    async def _make(self) -> Launcher:
        options = self._options()
        launcher: Launcher
        if options.multiprocessing_context == "spawn":
            launcher = SpawnLauncher(self._loop, self._blueprint, self)
        else:
            launcher = ForkServer(
                self._loop,
                self._blueprint,
                self,
                options.initialize_process_timeout,
                self.familiar,
            )
        seconds = await launcher.start()
        logger.debug("the launcher is ready after %.3f s", seconds)
        return launcher

    def launch(self, worker: int, ends: SideOfChild, *, awaited: bool) -> None:
        """Have a worker made. Raises OSError: it cannot be."""
        assert self._launcher is not None, "launch without a launcher"
        if self.enclosure is not None:
            try:
                self.enclosure.make(worker)
            except OSError:
                ends.close()
                raise
        self._launcher.launch(worker, ends, awaited=awaited)

    def kill(self, worker: int, pid: int, pidfd: int | None) -> None:
        """Send SIGKILL to a worker's group, with or without a launcher."""
        if self.enclosure is not None:
            self.enclosure.kill(worker)
        if self._launcher is not None:
            self._launcher.kill(worker, pid, pidfd)
        elif pidfd is not None:
            kill_by_pidfd(pidfd)

    def catch_up(self) -> None:
        """Hear what a fork server has said by now. Other launchers know at once."""
        if isinstance(self._launcher, ForkServer):
            self._launcher.catch_up()

    @property
    def unborn(self) -> int:
        """How many workers the fork server was asked for and has not made yet."""
        return self._launcher.unborn if isinstance(self._launcher, ForkServer) else 0

    @property
    def reports(self) -> int:
        """How many reports have come from the fork server that there is."""
        return self._launcher.reports if isinstance(self._launcher, ForkServer) else 0

    def nudge(self) -> None:
        """Make a fork server that was stopped go on."""
        if isinstance(self._launcher, ForkServer):
            self._launcher.nudge()

    def abandon(self) -> None:
        """Kill a fork server that does not tell what it knows."""
        if isinstance(self._launcher, ForkServer):
            self._launcher.abandon()

    async def close(self) -> None:
        """Leave no launcher behind."""
        self._closed = True
        if self._restarting is not None:
            self._restarting.cancel()
            await asyncio.wait({self._restarting})
        launcher, self._launcher = self._launcher, None
        if launcher is not None:
            await launcher.close()
        if self.enclosure is not None:
            await self.enclosure.close()

    # ── the launcher's reports ───────────────────────────────────────────────

    def launched(self, worker: int, pid: int, pidfd: int | None) -> None:
        """Hand on."""
        self._events.launched(worker, pid, pidfd)

    def launch_failed(self, worker: int, error: OSError) -> None:
        """Hand on."""
        self._events.launch_failed(worker, error)

    def exited(self, worker: int, report: ExitReport) -> None:
        """Hand on."""
        self._events.exited(worker, report)

    def launcher_lost(self, exit: Exit) -> None:
        """Make another one."""
        self._launcher = None
        if self._closed:
            return
        logger.error(
            "the fork server is gone (%s); jobs that run go on, a new one is started", exit
        )
        self._events.launcher_lost(exit)
        self._restarting = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        while self._launcher is None:
            self._window.record_failure(clock.monotonic())
            delay = self._window.delay(clock.monotonic())
            await asyncio.sleep(delay)  # the backoff's deadline; closing cancels it
            try:
                self._launcher = await self._make()
            except (PreloadFailed, OSError) as exc:
                logger.error(
                    "the fork server does not start; next try in %.1f s: %s",
                    self._window.delay(clock.monotonic()),
                    exc,
                )
                if isinstance(exc, PreloadFailed):
                    self._events.supply_failed(exc)
                continue
        self._window.record_success()
        self._events.supply_ready()
