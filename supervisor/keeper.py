"""What a worker reports, and to whom."""

from __future__ import annotations

from typing import Protocol, TypeVar

from ipc.messages import Finished
from supervisor.job import ExitReport
from supervisor.lifecycle import State
from supervisor.record import JobRecord
from supervisor.results import Parcel

# The worker's own class, which stands above this file.
W = TypeVar("W", contravariant=True)


class Keeper(Protocol[W]):
    """Who keeps the workers. Every call is made on the pool's loop and must not raise."""

    def moved(self, worker: W, before: State, after: State) -> None:
        """The worker's state changed from *before* to *after*."""
        ...

    def clock_seconds(self, worker: W, name: str) -> float | None:
        """Return how many seconds the clock of that name runs for this worker; None: for ever."""
        ...

    def catch_up(self) -> None:
        """Hear what was said about workers by now."""
        ...

    def send_kill(self, worker: W) -> None:
        """Send SIGKILL to the worker's group."""
        ...

    def expect_end(self, worker: W) -> None:
        """The worker was killed, or will be as soon as it has a process."""
        ...

    def offer(self, worker: W) -> None:
        """The worker is idle: give it a job, or keep it."""
        ...

    def warmed(self, worker: W, seconds: float) -> None:
        """``setup_fnc`` took so many seconds."""
        ...

    def failed(self, worker: W, what: str, traceback: str) -> None:
        """The worker did not get warm."""
        ...

    def idle_death(self, worker: W) -> None:
        """The worker ended while it was idle."""
        ...

    def started(self, worker: W, job: JobRecord) -> None:
        """The job has begun."""
        ...

    def finished(self, worker: W, job: JobRecord, message: Finished, parcel: Parcel) -> None:
        """The job is over and said how it ended."""
        ...

    def lost(self, worker: W, job: JobRecord, report: ExitReport) -> None:
        """The worker ended, and its job had not said how it ended."""
        ...

    def released(self, worker: W) -> None:
        """The worker is reaped and its descriptors are closed."""
        ...
