"""LiveKit Agents' own pool, with the preloading that its AgentServer gives it.

Its jobs return nothing: the entrypoint reports when it began, and "result" here
is that the report has arrived. The end of its process is not waited for.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
import uuid
from typing import Any

# Its turn detector's weights, 244 MB in the fork server, would make each fork dearer for nothing.
os.environ["LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE"] = "0"

from livekit.agents.ipc.proc_pool import ProcPool
from livekit.agents.job import JobAcceptArguments, JobExecutorType, RunningJobInfo
from livekit.protocol import agent, models

from benchmarks import jobs
from benchmarks.drivers.base import Driver, Workload
from benchmarks.drivers.reports import Reports


def set_up(proc: Any) -> None:
    """Prewarm nothing."""


class LiveKitPool(Driver):
    """The options are the defaults of its AgentServer."""

    async def open(self, workload: Workload) -> None:
        self._idle = workload.idle
        self._reports = Reports()
        os.environ["GREENROOM_BENCH_HEAVY_MB"] = str(workload.heavy_mb)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            [
                jobs.__name__,
                *(["benchmarks.heavy"] if workload.heavy_mb else []),
                "livekit.agents.ipc._preload",
                "livekit.agents.ipc._preload_freeze",  # the last, as it wants to be
            ]
        )
        self._pool = ProcPool(
            initialize_process_fnc=set_up,
            job_entrypoint_fnc=jobs.entrypoint,
            session_end_fnc=None,
            simulation_end_fnc=None,
            num_idle_processes=workload.idle,
            initialize_timeout=60.0,
            close_timeout=10.0,
            session_end_timeout=300.0,
            inference_executor=None,
            job_executor_type=JobExecutorType.PROCESS,
            mp_ctx=context,
            memory_warn_mb=1000,
            memory_limit_mb=0,
            http_proxy=None,
            loop=asyncio.get_running_loop(),
        )
        await self._pool.start()

    async def close(self) -> None:
        await self._pool.aclose()
        self._reports.close()

    async def settle(self) -> None:
        # Asking the pool itself is more exact than a pause; there is no public way.
        while self._pool._warmed_proc_queue.qsize() < self._idle:
            await asyncio.sleep(0.01)

    async def _launch(self, room: str) -> None:
        await self._pool.launch_job(
            RunningJobInfo(
                accept_arguments=JobAcceptArguments(name="", identity="agent", metadata=""),
                job=agent.Job(
                    id=f"job-{uuid.uuid4().hex}",
                    room=models.Room(sid="RM_bench", name=room),
                    type=agent.JobType.JT_ROOM,
                ),
                url="",
                token="",
                worker_id="bench",
                # A fake job makes a mock of a room first, which takes longer than the hand-over.
                fake_job=False,
            )
        )

    async def handover(self, kind: str) -> float:
        submitted = time.monotonic()
        await self._launch(self._reports.address)
        return (await self._reports.next()).began - submitted

    async def round_trip(self) -> float:
        submitted = time.monotonic()
        await self._launch(self._reports.address)
        await self._reports.next()
        return time.monotonic() - submitted

    async def all_at_once(self, count: int) -> float:
        submitted = time.monotonic()
        launches = [
            asyncio.ensure_future(self._launch(self._reports.address)) for _ in range(count)
        ]
        for _ in range(count):
            await self._reports.next()
        ended = time.monotonic()
        await asyncio.gather(*launches)
        return ended - submitted

    async def burst(self, count: int, hold: float) -> float:
        submitted = time.monotonic()
        room = f"{self._reports.address} {submitted + hold!r}" if hold else self._reports.address
        launches = [asyncio.ensure_future(self._launch(room)) for _ in range(count)]
        began = max([(await self._reports.next()).began for _ in range(count)])
        await asyncio.gather(*launches)
        return began - submitted

    async def heavy_objects(self) -> int:
        await self._launch(self._reports.address)
        return (await self._reports.next()).heavy_objects
