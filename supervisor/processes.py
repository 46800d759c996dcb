"""A worker of the executor, seen the way ``multiprocessing.Process`` is seen.

The standard library's executor has a private ``_processes``, a dict of its
children by pid, and programs use it: to look who is alive, or to end them. Ours
answers the same questions from the supervisor's own knowledge.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable

import psutil

from supervisor.lifecycle import GOING
from supervisor.worker import Worker


def as_processes(
    workers: Iterable[Worker], kill: Callable[[Worker, str], None]
) -> dict[int, WorkerProcess]:
    """Return the workers by pid.

    Those that leave after their last job are not among them: their places have
    been taken.
    """
    return {
        worker.pid: WorkerProcess(worker, worker.pid, kill)
        for worker in workers
        if worker.pid is not None and (worker.job is not None or worker.state not in GOING)
    }


class WorkerProcess:
    """One worker's process, to look at, to wait for and to kill.

    Args:
        worker: the supervisor's record of it.
        pid: its process id.
        kill: has it killed, with the reason given; from any thread.

    Runs on: any thread, every method.
    """

    def __init__(self, worker: Worker, pid: int, kill: Callable[[Worker, str], None]) -> None:
        self._worker = worker
        self._pid = pid
        self._kill = kill

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    @property
    def exitcode(self) -> int | None:
        """Its exit status, minus the signal's number if one ended it; None while it lives."""
        report = self._worker.report
        if report is None:
            return None
        return -report.exit.signal if report.exit.signal is not None else report.exit.status

    def is_alive(self) -> bool:
        """Return whether it has not been reaped."""
        return self._worker.report is None

    def terminate(self) -> None:
        """Have it killed: its job fails, and a new worker takes its place. Does not wait.

        SIGTERM would do nothing: workers leave it to the supervisor.
        """
        self._kill(self._worker, "terminate")

    def kill(self) -> None:
        """The same."""
        self._kill(self._worker, "kill")

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, *timeout* seconds at most."""
        if not self.is_alive():
            return
        if not hasattr(os, "pidfd_open"):  # macOS
            self._join_polling(timeout)
            return
        try:
            pidfd = os.pidfd_open(self._pid)
        except ProcessLookupError:  # it has ended
            return
        try:
            # Reaped while we opened it: the number may be somebody else's by now.
            if self.is_alive():
                select.select([pidfd], [], [], timeout)
        finally:
            os.close(pidfd)

    def _join_polling(self, timeout: float | None) -> None:
        try:
            psutil.Process(self._pid).wait(timeout)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return

    def __repr__(self) -> str:
        state = "alive" if self.is_alive() else f"ended with {self.exitcode}"
        return f"<WorkerProcess {self._pid} {state}>"
