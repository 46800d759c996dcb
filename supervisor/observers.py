"""The health endpoints, where they are wanted and can be had.

They need the extra ``server``. A server that was told to open a port and cannot
says so and does not start; one that has the port by default goes on without.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from supervisor.announcer import Announcer
from supervisor.events import Emitter
from supervisor.job import JobOutcome
from supervisor.joblog import log_end
from supervisor.record import JobRecord
from supervisor.worker import Worker

if TYPE_CHECKING:
    from supervisor.http import HealthServer, Observed

logger = logging.getLogger("greenroom.server")


class Observers:
    """Starts and feeds the health endpoints; does nothing where there are none.

    Runs on: the server's loop, every method.
    """

    def __init__(self) -> None:
        self._http: HealthServer | None = None

    @property
    def port(self) -> int | None:
        """The real port, None without endpoints."""
        return None if self._http is None else self._http.port

    async def start(self, host_obj: Observed, address: str, port: int | None) -> None:
        """Open the endpoints.

        Raises:
            SupervisorError: the port is in use or not allowed.
        """
        made = self.load() if port is not None else None
        if made is None or port is None:
            return
        http = made(host_obj, address, port)
        await http.start()
        self._http = http

    def load(self) -> type[HealthServer] | None:
        """Import what the endpoints need, which takes a moment; None where it is not there."""
        try:
            from supervisor.http import HealthServer
        except ImportError as exc:
            logger.warning(
                "no health endpoints: %s; install them with: pip install 'greenroom[server]', "
                "or turn them off with port=None",
                exc,
            )
            return None
        return HealthServer

    def warmed(self, seconds: float) -> None:
        """A worker is warm."""
        if self._http is not None:
            self._http.observe_warmup(seconds)

    def ended(self, result: JobOutcome) -> None:
        """A job has its outcome."""
        if self._http is not None:
            self._http.count_outcome(result.status)
            if result.handover_seconds is not None:
                self._http.observe_handover(result.handover_seconds)

    async def close(self) -> None:
        """Close the endpoints."""
        http, self._http = self._http, None
        if http is not None:
            await http.close()


class CountingAnnouncer(Announcer):
    """Announces, counts for the metrics, and logs how each job ended."""

    def __init__(self, emitter: Emitter, observers: Observers) -> None:
        super().__init__(emitter)
        self._observers = observers

    def worker_warm(self, worker: Worker, seconds: float) -> None:
        """A worker is warm."""
        self._observers.warmed(seconds)
        super().worker_warm(worker, seconds)

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """A job has its outcome."""
        self._observers.ended(result)
        log_end(job.handle.info, result)
        super().job_ended(job, result)
