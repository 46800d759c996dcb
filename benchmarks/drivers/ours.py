"""ProcessPool, and an entrypoint through AgentServer."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import heavy, jobs
from benchmarks.drivers.base import Driver, Workload
from benchmarks.drivers.reports import Reports
from supervisor import AgentServer, ProcessPool

# Longer than anything here measures.
STAY = 3600.0


def options(workload: Workload) -> dict[str, Any]:
    """Return what a pool or a server is made with."""
    made: dict[str, Any] = {
        "num_idle_processes": workload.idle,
        "preload_modules": [jobs.__name__],
        "initialize_process_timeout": 120,
    }
    if workload.ceiling is not None:
        made["max_jobs"] = workload.ceiling
    if workload.heavy_mb:
        made |= {"preload_fnc": heavy.preload, "user_arguments": workload.heavy_mb}
    return made


class Pool(Driver):
    """A ProcessPool, called the way its users call it."""

    async def open(self, workload: Workload) -> None:
        self._idle = workload.idle
        self._pool = ProcessPool(**options(workload))
        await self._pool.start()

    async def close(self) -> None:
        await self._pool.aclose(cancel=True)

    async def handover(self, kind: str) -> float:
        job: Callable[[], Any] = jobs.stamp_async if kind == "async" else jobs.stamp
        submitted = time.monotonic()
        began: float = await self._pool.submit(job)
        return began - submitted

    async def round_trip(self) -> float:
        submitted = time.monotonic()
        await self._pool.submit(jobs.nothing)
        return time.monotonic() - submitted

    async def all_at_once(self, count: int) -> float:
        submitted = time.monotonic()
        for handle in [self._pool.submit(jobs.nothing) for _ in range(count)]:
            await handle
        return time.monotonic() - submitted

    async def burst(self, count: int, hold: float) -> float:
        submitted = time.monotonic()
        job, args = (jobs.hold, (submitted + hold,)) if hold else (jobs.stamp, ())
        handles = [self._pool.submit(job, *args) for _ in range(count)]
        return max([await handle for handle in handles]) - submitted

    async def heavy_objects(self) -> int:
        return await self._pool.submit(jobs.heavy_objects)

    async def occupy(self, count: int) -> None:
        """Have *count* jobs run that stay, and return when the pool is full beside them."""
        stay = time.monotonic() + STAY
        self._staying = [self._pool.submit(jobs.hold, stay) for _ in range(count)]
        begun = 0
        while begun < count or self._pool.stats().idle < self._idle:
            await asyncio.sleep(0.02)
            begun = sum(handle.pid is not None for handle in self._staying)


class Server(Driver):
    """An AgentServer with an async entrypoint, asked by ``submit_job``."""

    async def open(self, workload: Workload) -> None:
        self._reports = Reports()
        self._directory = tempfile.TemporaryDirectory(prefix="greenroom-bench-")
        os.environ["GREENROOM_SOCKET"] = os.path.join(self._directory.name, "control.sock")
        self._server = AgentServer(**options(workload), port=None, load_threshold=math.inf)
        self._server.rtc_session(jobs.entrypoint)
        started = asyncio.Event()
        self._server.on("started", lambda event: started.set())
        self._running = asyncio.ensure_future(self._server.run())
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            await self._running

    async def close(self) -> None:
        await self._server.aclose()
        await self._running
        self._reports.close()
        self._directory.cleanup()

    async def handover(self, kind: str) -> float:
        submitted = time.monotonic()
        await self._server.submit_job(room=self._reports.address)
        return (await self._reports.next()).began - submitted

    async def round_trip(self) -> float:
        """Until the job's report is there, as for LiveKit's pool, which has no results."""
        submitted = time.monotonic()
        await self._server.submit_job(room=self._reports.address)
        await self._reports.next()
        return time.monotonic() - submitted

    async def all_at_once(self, count: int) -> float:
        submitted = time.monotonic()
        handles = [
            (await self._server.submit_job(room=self._reports.address))[0] for _ in range(count)
        ]
        for handle in handles:
            await handle.wait()
            await self._reports.next()
        return time.monotonic() - submitted

    async def burst(self, count: int, hold: float) -> float:
        submitted = time.monotonic()
        room = f"{self._reports.address} {submitted + hold!r}" if hold else self._reports.address
        for _ in range(count):
            await self._server.submit_job(room=room)
        return max([(await self._reports.next()).began for _ in range(count)]) - submitted

    async def heavy_objects(self) -> int:
        await self._server.submit_job(room=self._reports.address)
        return (await self._reports.next()).heavy_objects
