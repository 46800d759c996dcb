"""Counting what happened to jobs and workers since the start."""

from __future__ import annotations

from supervisor.census import Census
from supervisor.job import JobStatus
from supervisor.stats import PoolStats


class Tally:
    """Totals and peaks. Invariant: ``open_jobs`` is accepted minus ended.

    Runs on: the pool's loop.
    """

    def __init__(self) -> None:
        self.open_jobs = 0  # without an outcome; to be read only
        self._accepted = 0
        self._ended = dict.fromkeys(JobStatus, 0)
        self._spawned = 0
        self._reaped = 0
        self._handed_again = 0
        self._warmup_failures = 0
        self._peak_running = 0
        self._peak_waiting = 0
        self._peak_alive = 0

    def accepted(self) -> None:
        """A job was taken."""
        self._accepted += 1
        self.open_jobs += 1

    def ended(self, status: JobStatus) -> None:
        """A job got its outcome."""
        self._ended[status] += 1
        self.open_jobs -= 1
        assert self.open_jobs >= 0, "more jobs ended than were accepted"

    def handed_again(self) -> None:
        """A job goes to another worker: the first died before it began."""
        self._handed_again += 1

    def spawned(self) -> None:
        """A worker was asked for."""
        self._spawned += 1

    def reaped(self) -> None:
        """A worker is gone."""
        self._reaped += 1

    def warmup_failed(self) -> None:
        """A worker did not get warm."""
        self._warmup_failures += 1

    def note(self, census: Census, waiting: int) -> None:
        """Remember the peaks."""
        self._peak_running = max(self._peak_running, census.running)
        self._peak_waiting = max(self._peak_waiting, waiting)
        self._peak_alive = max(self._peak_alive, census.alive)

    def snapshot(self, census: Census, waiting: int) -> PoolStats:
        """Return counts of now and totals."""
        return PoolStats(
            spawning=census.spawning,
            warming=census.warming,
            idle=census.idle,
            running=census.running,
            stopping=census.going,
            waiting=waiting,
            total_spawned=self._spawned,
            total_reaped=self._reaped,
            total_jobs=self._accepted,
            total_succeeded=self._ended[JobStatus.SUCCEEDED],
            total_failed=self._ended[JobStatus.FAILED],
            total_cancelled=self._ended[JobStatus.CANCELLED],
            total_timed_out=self._ended[JobStatus.TIMED_OUT],
            total_killed=self._ended[JobStatus.KILLED],
            total_handed_again=self._handed_again,
            total_warmup_failures=self._warmup_failures,
            peak_running=self._peak_running,
            peak_waiting=max(self._peak_waiting, waiting),
            peak_alive=self._peak_alive,
        )
