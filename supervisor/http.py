"""What the outside may read over TCP: health, readiness, status, metrics. Read-only.

``/healthz`` and ``/`` answer 200 as long as the event loop turns: a supervisor
that is starting, full or draining is alive and must not be restarted for it.
``/readyz`` says whether a job would be taken now, and if not, why.

Gauges are read from the server in the moment of the scrape, so they need no
upkeep and cannot disagree with ``stats()``. Only what has no place in a snapshot
is fed: two histograms and the outcomes.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor import visitors
from supervisor.errors import SupervisorError
from supervisor.job import JobInfo, JobStatus
from supervisor.stats import PoolStats

logger = logging.getLogger("greenroom.http")

# A warm hand-over takes well under a millisecond, one that waits for a worker
# takes a fork and a setup.
HANDOVER_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# From a bare fork to a model that is loaded from a cold disk.
WARMUP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A scrape in flight gets so long; a server's way out has half a second in all.
CLOSE_GRACE: Final = 0.1

_STATES: Final = ("spawning", "warming", "idle", "running", "stopping")


class Observed(Protocol):
    """The server, as these endpoints see it. Everything is instant."""

    @property
    def draining(self) -> bool: ...
    @property
    def load(self) -> float: ...
    @property
    def active_jobs(self) -> list[JobInfo]: ...

    def stats(self) -> PoolStats: ...
    def status(self) -> dict[str, Any]: ...
    def not_ready(self) -> str | None: ...


@dataclass(frozen=True)
class _Total:
    """A count since the start that :class:`PoolStats` keeps: field, metric, help."""

    field: str
    metric: str
    help: str


_TOTALS: Final = (
    _Total("total_spawned", "workers_spawned", "Workers started."),
    _Total("total_reaped", "workers_reaped", "Workers whose exit status was collected."),
    _Total("total_jobs", "jobs_accepted", "Jobs accepted."),
    _Total("total_handed_again", "handovers_repeated", "Hand-overs repeated: the worker died."),
    _Total("total_warmup_failures", "warmup_failures", "Warm-ups that failed."),
)


class _Snapshot(Collector):
    """Reads the server when somebody scrapes.

    Runs on: the server's loop, since the scrape does; so it needs no lock.
    """

    def __init__(self, host: Observed) -> None:
        self._host = host

    def describe(self) -> list[Metric]:
        # Without this, registering would collect, from a server that may not run yet.
        return []

    def collect(self) -> Iterator[Metric]:
        stats = self._host.stats()
        workers = GaugeMetricFamily(
            "greenroom_workers", "Workers there are, by state.", labels=["state"]
        )
        for state in _STATES:
            workers.add_metric([state], getattr(stats, state))
        yield workers
        for name, text, value in self._gauges(stats):
            yield GaugeMetricFamily(f"greenroom_{name}", text, value=value)
        for total in _TOTALS:
            value = getattr(stats, total.field)
            yield CounterMetricFamily(f"greenroom_{total.metric}", total.help, value=value)

    def _gauges(self, stats: PoolStats) -> Iterator[tuple[str, str, float]]:
        host = self._host
        yield "jobs_active", "Jobs that run or were promised a place.", len(host.active_jobs)
        yield "jobs_waiting", "Accepted jobs without a worker.", stats.waiting
        yield "jobs_running_peak", "Most jobs that ran at a time.", stats.peak_running
        yield "workers_alive_peak", "Most workers at a time.", stats.peak_alive
        yield "load", "What the load function says, 0 to 1.", host.load
        yield "ready", "1 if a job would be taken now.", host.not_ready() is None
        yield "draining", "1 if the server is going down.", host.draining


class HealthServer:
    """The endpoints, and the figures that are fed to them.

    Feeding works from the moment it is made, whether it listens or not.
    Runs on: the server's loop, every method.

    Args:
        host_obj: the server.
        address: where to listen, such as ``127.0.0.1``; ``""`` for all addresses.
        port: 0 for any free one.
    """

    def __init__(self, host_obj: Observed, address: str, port: int) -> None:
        self._host = host_obj
        self._address = address
        self._port = port
        self._runner: web.AppRunner | None = None
        # A registry of its own: the embedding program may use the global one.
        self._registry = registry = CollectorRegistry()
        registry.register(_Snapshot(host_obj))
        ProcessCollector(registry=registry)  # CPU, memory and descriptors of the supervisor
        self._handover = Histogram(
            "greenroom_handover_seconds",
            "From the hand-over in the supervisor to the first line of the job.",
            buckets=HANDOVER_BUCKETS,
            registry=registry,
        )
        self._warmup = Histogram(
            "greenroom_warmup_seconds",
            "From the start of a worker to the end of its setup.",
            buckets=WARMUP_BUCKETS,
            registry=registry,
        )
        self._outcomes = Counter(
            "greenroom_jobs", "Jobs that ended, by outcome.", ["status"], registry=registry
        )
        for status in JobStatus:
            if status.is_final:  # present from the start: a rate needs a zero to begin from
                self._outcomes.labels(status.value)

    @property
    def port(self) -> int:
        """The port: the real one while it listens, before that the one asked for."""
        if self._runner is not None and self._runner.addresses:
            return int(self._runner.addresses[0][1])
        return self._port

    def observe_handover(self, seconds: float) -> None:
        """Note how long a hand-over took."""
        self._handover.observe(seconds)

    def observe_warmup(self, seconds: float) -> None:
        """Note how long a worker took to get warm."""
        self._warmup.observe(seconds)

    def count_outcome(self, status: JobStatus) -> None:
        """Note how a job ended."""
        self._outcomes.labels(status.value).inc()

    async def start(self) -> None:
        """Listen.

        Raises:
            SupervisorError: the address or port cannot be used; says what to change.
        """
        assert self._runner is None, "it listens already"
        app = web.Application(middlewares=[self._guard])
        for path, handler in {
            "/": self._healthz,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/worker": self._worker,
            "/metrics": self._metrics,
        }.items():
            app.router.add_get(path, handler)
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=CLOSE_GRACE,
            # Counts from the connection on, so it is also the limit for a slow head.
            keepalive_timeout=visitors.HEAD_SECONDS,
            lingering_time=visitors.LINGERING_SECONDS,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address or None, self._port).start()
        except (OSError, OverflowError) as exc:
            await runner.cleanup()
            raise SupervisorError(_why_not(self._address, self._port, exc)) from exc
        self._runner = runner
        logger.info("health and metrics on http://%s:%d", self._address or "*", self.port)

    async def close(self) -> None:
        """Stop listening. Takes 0.2 s at most, whatever clients do."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    # ── requests ─────────────────────────────────────────────────────────────

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Answer those whom :mod:`supervisor.visitors` lets in."""
        refused = visitors.refusal(
            host=request.headers.get("Host"),
            origin=request.headers.get("Origin"),
            listens_on=self._address,
        )
        if refused is not None:
            return web.Response(status=refused[0], text=refused[1], headers=visitors.HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as exc:  # 404, 405
            exc.headers.update(visitors.HEADERS)
            raise
        response.headers.update(visitors.HEADERS)
        return response

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._host.not_ready()
        if reason is None:
            return web.Response(text="ready\n")
        return web.Response(text=f"{reason}\n", status=503)

    async def _worker(self, request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._host.status(), enc_hook=str)
        return web.Response(body=body, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _why_not(address: str, port: int, exc: Exception) -> str:
    number = exc.errno if isinstance(exc, OSError) else None
    where = f"port {port} on {address or 'all addresses'}"
    if number == errno.EADDRINUSE:
        return f"{where} is in use: choose another with port=… or --port (0: any, none: no HTTP)"
    if number in (errno.EACCES, errno.EPERM):
        return f"{where} needs privileges: choose one above 1023 with port=… or --port"
    return f"cannot listen on {where}: {exc}; choose with host=… or --host, port=… or --port"
