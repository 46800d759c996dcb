"""Turns what the workers do into the events that callers listen to."""

from __future__ import annotations

from supervisor.events import Emitter, WorkerExited, WorkerWarm
from supervisor.job import ExitReport, JobOutcome
from supervisor.record import JobRecord
from supervisor.settling import Listener
from supervisor.worker import Worker


class Announcer(Listener):
    """Turns what the workers do into events."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def worker_warm(self, worker: Worker, seconds: float) -> None:
        """A worker is warm."""
        self._emitter.emit("worker_warm", WorkerWarm(worker.pid, seconds))

    def job_started(self, job: JobRecord, pid: int | None) -> None:
        """A job has begun."""
        self._emitter.emit("job_started", job.handle)

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """A job has its outcome; it is in its handle when the callbacks run."""
        job.handle.add_done_callback(lambda handle: self._emitter.emit("job_ended", handle))

    def worker_exited(self, worker: Worker, report: ExitReport | None) -> None:
        """A worker is reaped."""
        exit = None if report is None else report.exit
        self._emitter.emit("worker_exited", WorkerExited(worker.pid, exit, worker.jobs_served))
