"""Workers in fresh interpreters: portable, slower, nothing shared.

The supervisor itself is their parent here. It is no subreaper, since it lives in
the user's program: a descendant that left its worker's group is killed by the
worker on a normal end, and outlives a worker that crashed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from supervisor.child import spawned
from supervisor.child.boot import Sealed
from supervisor.inthread import in_thread
from supervisor.launch import (
    Blueprint,
    FreshProcess,
    LaunchEvents,
    SideOfChild,
    duplicate_or_none,
    open_pidfd,
    watch_exit,
)

logger = logging.getLogger("greenroom.spawn")


class SpawnLauncher:
    """Starts one interpreter for each worker.

    Args:
        loop: the pool's loop.
        blueprint: what each worker is born with.
        events: who is told what happens.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, blueprint: Blueprint, events: LaunchEvents
    ) -> None:
        self._loop = loop
        self._blueprint = blueprint
        self._events = events
        self._processes: dict[int, FreshProcess] = {}
        self._watches: dict[int, Callable[[], None]] = {}
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> float:
        """Nothing is shared, so there is nothing to get ready.

        Raises:
            PicklingError, TypeError, AttributeError: a hook cannot travel.
        """
        # Every launch would fail of it again, so it is found out once, here.
        await in_thread(lambda: check_hooks_travel(self._blueprint), "greenroom-launch")
        return 0.0

    def launch(self, worker: int, ends: SideOfChild, *, awaited: bool) -> None:
        """Start *worker* in a thread: making an interpreter takes milliseconds.

        Beside those, what could be left out for a job that waits is nothing.
        """
        task = self._loop.create_task(self._launch(worker, ends))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _launch(self, worker: int, ends: SideOfChild) -> None:
        process = FreshProcess(
            spawned.main, self._blueprint.boot(ends, worker), f"greenroom-worker-{worker}"
        )
        try:
            await in_thread(process.start, "greenroom-launch")
        except OSError as exc:
            self._events.launch_failed(worker, exc)
            return
        except Exception as exc:  # noqa: BLE001 - whatever it was, the worker must be accounted for
            logger.exception("a worker could not be started")
            self._events.launch_failed(worker, OSError(0, f"{type(exc).__name__}: {exc}"))
            return
        finally:
            ends.close()
        pidfd = open_pidfd(process.pid)
        # Two descriptors for one process: the worker closes its own when it is
        # done with it, which may be before the kernel reports the end to us.
        watched = None if pidfd is None else duplicate_or_none(pidfd)
        self._processes[worker] = process
        stop = watch_exit(self._loop, process.pid, watched, lambda: self._exited(worker))
        self._watches[worker] = lambda: _stop_watch(stop, watched)
        self._events.launched(worker, process.pid, pidfd)

    def _exited(self, worker: int) -> None:
        self._watches.pop(worker)()
        report = self._processes.pop(worker).reap()
        assert report is not None, "the kernel said that the worker ended"
        self._events.exited(worker, report)

    def kill(self, worker: int, pid: int, pidfd: int | None) -> None:
        """Kill the worker's group. Its number is ours until we reap it."""
        process = self._processes.get(worker)
        if process is not None:
            process.kill_group()

    async def close(self) -> None:
        """Kill and reap what is still there."""
        if self._starting:
            await asyncio.wait(set(self._starting))
        for worker, process in list(self._processes.items()):
            process.kill_group()
            report = await in_thread(process.wait, "greenroom-reap")
            self._watches.pop(worker)()
            self._processes.pop(worker, None)
            logger.warning("worker %d was still there at the end: %s", worker, report)


def check_hooks_travel(blueprint: Blueprint) -> None:
    """Raise what making a process would raise because of the user's hooks.

    What can only be inherited is pickled only while a process is made, so this
    pretends to. Runs on: a thread of its own.
    """
    from multiprocess import context, popen_spawn_posix

    pretended: Any = popen_spawn_posix.Popen.__new__(popen_spawn_posix.Popen)
    pretended._fds = []
    context.set_spawning_popen(pretended)
    try:
        Sealed(blueprint.hooks).__reduce__()
    finally:
        context.set_spawning_popen(None)


def _stop_watch(stop: Callable[[], None], fd: int | None) -> None:
    stop()
    if fd is not None:
        os.close(fd)
