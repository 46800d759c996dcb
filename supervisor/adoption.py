"""Watching workers whose fork server has died: their parent can report no more.

They fell to init, or to whoever reaps orphans here. A pidfd says when each has
ended, and on newer kernels how. Where this process is itself who they fall to
(process 1 of a container, a subreaper), nobody else would ever reap them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from supervisor.job import Exit, ExitReport
from supervisor.launch import duplicate_or_none, kill_by_pidfd, watch_exit
from supervisor.lifecycle import State
from supervisor.pidinfo import exit_of
from supervisor.worker import Worker

# While there are no descriptors for watching: how long until it is tried again, in seconds.
_AGAIN: Final = 0.1


class Adoption:
    """Reports the exits of workers that nobody else watches.

    Args:
        loop: the pool's loop.
        on_exit: called with the worker's number and what is known about its end.

    Runs on: the pool's loop, every method.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[int, ExitReport], None]
    ) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._watches: dict[int, Callable[[], None]] = {}

    def adopt(self, worker: Worker) -> None:
        """Watch *worker* from now on. Once is enough."""
        if worker.number in self._watches:
            return
        if worker.pid is None or worker.pidfd is None:
            # It may or may not have been forked, and without a pidfd there is no
            # safe way to watch or to signal it. Releasing it closes its channel,
            # and a worker whose channel ends leaves with its whole group.
            worker.out_of_sight()
            return
        # Ours to close: the worker closes its own when it is released.
        watched = duplicate_or_none(worker.pidfd)
        if watched is None:
            self._loop.call_later(_AGAIN, self._adopt_again, worker)
            return
        number, pid = worker.number, worker.pid

        def gone() -> None:
            self._watches.pop(number)()
            # The leader is dead; what is left of its group goes too.
            kill_by_pidfd(watched)
            report = _end_of(pid, watched)
            os.close(watched)
            self._on_exit(number, report)

        self._watches[number] = watch_exit(self._loop, worker.pid, watched, gone)

    def _adopt_again(self, worker: Worker) -> None:
        if worker.state is not State.REAPED:
            self.adopt(worker)


def _end_of(pid: int, pidfd: int) -> ExitReport:
    """Return what is known about the end of a process that has ended; reap it if it is ours."""
    try:
        is_ours = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        is_ours = False
    if not is_ours:
        return ExitReport(exit_of(pidfd))
    # Its zombie keeps the number: this cannot be another process.
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    return ExitReport(Exit.from_wait_status(status), cpu, usage.ru_maxrss * 1024)
