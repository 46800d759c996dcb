"""Giving each job its one outcome, and telling those who want to know."""

from __future__ import annotations

from ipc.messages import Finished
from supervisor import clock, outcome
from supervisor.errors import SetupFailed
from supervisor.job import ExitReport, JobError, JobOutcome, JobStatus
from supervisor.record import JobRecord
from supervisor.results import Parcel
from supervisor.tally import Tally
from supervisor.worker import Worker


class Listener:
    """Who wants to know what happens. Every method does nothing here.

    Runs on: the pool's loop; what a method raises would end the pool, so it must not.
    """

    def worker_warm(self, worker: Worker, seconds: float) -> None:
        """A worker is warm; ``setup_fnc`` took so many seconds."""

    def job_started(self, job: JobRecord, pid: int | None) -> None:
        """A job has begun."""

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """A job has its outcome."""

    def worker_exited(self, worker: Worker, report: ExitReport | None) -> None:
        """A worker is reaped."""


class Settling:
    """Makes outcomes from facts.

    Args:
        tally: counts them.
        listener: is told of them, before the job's caller is.

    Runs on: the pool's loop, every method.
    """

    def __init__(self, tally: Tally, listener: Listener) -> None:
        self._tally = tally
        self._listener = listener
        # Read once: differences between an outcome's times are true durations.
        self._wall_offset = clock.wall() - clock.monotonic()

    def told(self, job: JobRecord, pid: int | None, message: Finished, parcel: Parcel) -> None:
        """The job said how it ended."""
        self._settle(job, outcome.told(self._facts(job, pid), message), parcel)

    def ended(self, job: JobRecord, pid: int | None, report: ExitReport) -> None:
        """Its process ended without a word."""
        facts = outcome.with_report(self._facts(job, pid), report)
        self._settle(job, outcome.ended(facts), Parcel(timeout=job.timeout))

    def cancelled(self, job: JobRecord) -> None:
        """It was asked to stop while it waited."""
        assert job.ask is not None
        result = outcome.never_ran(
            self._facts(job, None), JobStatus.CANCELLED, reason=job.ask.reason, error=None
        )
        self._settle(job, result, Parcel())

    def without_worker(self, job: JobRecord, error: SetupFailed) -> None:
        """There will be no worker for it."""
        told = JobError(type(error).__name__, error.what, error.traceback)
        # Each its own: an exception object that several callers raise collects
        # all their tracebacks.
        own = type(error)(error.what, error.traceback)
        result = outcome.never_ran(
            self._facts(job, None), JobStatus.FAILED, reason="setup", error=told
        )
        self._settle(job, result, Parcel(error=own))

    def _facts(self, job: JobRecord, pid: int | None) -> outcome.Facts:
        return job.facts(now=clock.monotonic(), wall_offset=self._wall_offset, pid=pid)

    def _settle(self, job: JobRecord, result: JobOutcome, parcel: Parcel) -> None:
        self._tally.ended(result.status)
        self._listener.job_ended(job, result)
        job.handle._settle(result, parcel)
