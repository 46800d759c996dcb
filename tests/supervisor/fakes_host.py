"""Servers without processes. The first keeps the promises of ``dispatch.base.Host``.

A job counts as active from its acceptance, a place is used exactly once, an
offer is always answered. Tests end jobs by hand, with :meth:`FakeHost.end`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from supervisor.dispatch.base import Answer, Dispatcher
from supervisor.errors import OptionError, SupervisorError
from supervisor.handle import JobHandle
from supervisor.job import (
    AcceptArguments,
    JobError,
    JobInfo,
    JobOutcome,
    JobStatus,
    Participant,
    Room,
    ServerType,
)
from supervisor.options import ServerOptions
from supervisor.stats import PoolStats


class FakePlace:
    """A place that notices when it is used twice."""

    def __init__(self, host: FakeHost, job: JobInfo) -> None:
        self._host = host
        self._job = job
        self._used = False

    @property
    def job(self) -> JobInfo:
        return self._job

    def check(self) -> None:
        assert not self._used

    def start(self, *, url: str = "", token: str = "") -> JobHandle[Any]:
        self._use()
        if self._host.failure is not None:
            del self._host.promised[self._job.id]
            raise self._host.failure
        return self._host.run_job(self._job)

    def give_back(self) -> None:
        self._use()
        self._host.given_back.append(self._job.id)
        del self._host.promised[self._job.id]

    def _use(self) -> None:
        assert not self._used, f"the place of {self._job.id} was used twice"
        self._used = True


class FakeHost:
    """See the head of this file.

    Args:
        type: what jobs are for.
        max_jobs: how many are admitted at a time.
    """

    def __init__(self, *, type: ServerType = ServerType.ROOM, max_jobs: int = 1_000_000) -> None:
        self.id = "AW-fake"
        self.type = type
        self.max_jobs = max_jobs
        self.load = 0.25
        self.draining = False
        self.drains: list[object] = []
        self.reason: str | None = None
        self.promised: dict[str, JobInfo] = {}
        self.handles: dict[str, JobHandle[Any]] = {}
        self.given_back: list[str] = []
        self.given_up: list[SupervisorError] = []
        self.listeners: dict[str, list[Callable[[Any], object]]] = {}
        self.failure: Exception | None = None  # what keeps jobs from being started
        self.offers = 0
        self.answering = asyncio.Event()  # cleared: offers wait, as a slow on_request makes them
        self.answering.set()
        self.offered = asyncio.Event()
        self.figures = PoolStats(idle=2, running=1, total_jobs=7)

    # ── dispatch.base.Host ───────────────────────────────────────────────────

    @property
    def active_jobs(self) -> list[JobInfo]:
        return [*self.promised.values(), *(handle.info for handle in self.handles.values())]

    async def offer(self, job: JobInfo) -> Answer:
        self.offers += 1
        self.offered.set()
        await self.answering.wait()
        if self.draining:
            return Answer(reason="draining")
        if job.room.name.startswith("no-"):
            return Answer(
                reason="rejected", detail="not ours", terminate=job.room.name == "no-ever"
            )
        if len(self.active_jobs) >= self.max_jobs:
            return Answer(reason="max_jobs", detail=f"{len(self.active_jobs)} of {self.max_jobs}")
        accepted = AcceptArguments(identity=f"agent-{job.id}")
        self.promised[job.id] = job
        return Answer(place=FakePlace(self, _with(job, accepted)))

    def stats(self) -> PoolStats:
        return self.figures

    def status(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "draining": self.draining,
            "load": self.load,
            "pid": os.getpid(),
            "workers": {"idle": self.figures.idle, "running": self.figures.running},
        }

    def begin_drain(self, timeout: object = ...) -> None:
        self.draining = True
        self.drains.append(timeout)

    def not_ready(self) -> str | None:
        return "draining" if self.draining else self.reason

    async def measure_load(self) -> float | None:
        return self.load

    def on(self, event: str, callback: Callable[[Any], object]) -> object:
        self.listeners.setdefault(event, []).append(callback)
        return callback

    def registered(self, dispatcher: Dispatcher, server_id: str) -> None:
        self.id = server_id

    def give_up(self, error: SupervisorError) -> None:
        self.given_up.append(error)

    # ── what the local dispatcher needs beside ───────────────────────────────

    def job_infos(
        self,
        *,
        room: str | Room,
        metadata: str = "",
        publishers: Sequence[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
    ) -> list[JobInfo]:
        where = Room(room) if isinstance(room, str) else room
        if not where.name:
            raise OptionError("room", where.name, "a name")
        count = len(self.handles) + self.offers + 1
        info = JobInfo(job_id or f"J-{count}", where, self.type, metadata, agent_name or "")
        if self.type is ServerType.ROOM:
            return [info]
        people = [Participant(p) if isinstance(p, str) else p for p in publishers]
        return [
            JobInfo(f"{info.id}-{n}", where, self.type, metadata, info.agent_name, publisher=who)
            for n, who in enumerate(people)
        ]

    # ── for tests ────────────────────────────────────────────────────────────

    def run_job(self, job: JobInfo) -> JobHandle[Any]:
        """Start a job: it runs at once, in a process that does not exist."""
        self.promised.pop(job.id, None)
        handle: JobHandle[Any] = JobHandle(job, cancel=self._cancel)
        self.handles[job.id] = handle
        handle._running(4711)
        return handle

    def end(
        self, job_id: str, status: JobStatus = JobStatus.SUCCEEDED, error: JobError | None = None
    ) -> None:
        """Give a job its outcome."""
        outcome = JobOutcome(status, error=error, queued_at=1.0, ended_at=2.5, pid=4711)
        self.handles.pop(job_id)._settle(outcome, None)

    def _cancel(self, handle: JobHandle[Any], reason: str) -> bool:
        asyncio.get_running_loop().call_soon(self._cancelled, handle, reason)
        return True

    def _cancelled(self, handle: JobHandle[Any], reason: str) -> None:
        self.handles.pop(handle.id, None)
        if not handle.done():
            outcome = JobOutcome(JobStatus.CANCELLED, reason=reason, pid=4711, asked_to_stop=True)
            handle._settle(replace(outcome, ended_at=3.0), None)


def _with(job: JobInfo, arguments: AcceptArguments) -> JobInfo:
    return JobInfo(
        job.id, job.room, job.type, job.metadata, job.agent_name, job.publisher, "", arguments
    )


class FakeServer(FakeHost):
    """What the command line runs: a host with options and a real control socket.

    A job in a room called ``quick`` succeeds at once, in ``broken`` it fails.

    Args:
        outcome: what ``run`` returns, or raises.
        options: as for ``AgentServer``.
    """

    def __init__(self, outcome: int | Exception = 0, **options: Any) -> None:
        super().__init__()
        self._outcome = outcome
        self._options = ServerOptions(**options)
        self._gone = asyncio.Event()
        self.callbacks: dict[str, list[Callable[[Any], object]]] = {}

    @property
    def options(self) -> ServerOptions:
        return self._options

    def update_options(self, **changes: Any) -> None:
        replaced = self._options.replace(**changes)
        assert isinstance(replaced, ServerOptions)
        self._options = replaced

    def on(self, event: str, callback: Callable[[Any], object]) -> object:
        self.callbacks.setdefault(event, []).append(callback)
        return callback

    async def run(self, *, devmode: bool = False, succession: Any = None) -> int:
        from supervisor.dispatch.local import LocalDispatcher

        if isinstance(self._outcome, Exception):
            raise self._outcome
        options = self._options.resolve(devmode=devmode)
        names = ("num_idle_processes", "drain_timeout", "load_threshold", "port", "host")
        dispatcher = LocalDispatcher()
        await dispatcher.start(self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._gone.set)
        shown = {name: getattr(options, name) for name in names}
        logging.getLogger("greenroom.server").info("serving", extra={"options": shown})
        logging.getLogger("greenroom.server").debug("in detail")
        await self._gone.wait()
        await dispatcher.close()
        return self._outcome

    def begin_drain(self, timeout: object = ...) -> None:
        super().begin_drain(timeout)
        logging.getLogger("greenroom.server").info("draining: %s", timeout)
        self._gone.set()

    def run_job(self, job: JobInfo) -> JobHandle[Any]:
        handle = super().run_job(job)
        if job.room.name == "quick":
            self.end(job.id)
        if job.room.name == "broken":
            self.end(job.id, JobStatus.FAILED, JobError("ValueError", "no", "Traceback …"))
        return handle
