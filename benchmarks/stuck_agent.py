"""A server whose jobs are stuck: they ignore every request to end.

    python -m benchmarks.stuck_agent JOBS DRAIN_TIMEOUT GRACE

Says ``stuck`` on its output once all of them run.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time

from supervisor import AgentServer, JobContext


def entrypoint(ctx: JobContext) -> None:
    """Stay, whatever anybody asks."""
    while True:
        try:
            time.sleep(3600)
        except BaseException:  # noqa: BLE001, S112 - being stuck is the point
            continue


async def occupy(server: AgentServer, jobs: int) -> None:
    """Submit the jobs and say so when the last has begun."""
    begun = asyncio.Semaphore(0)
    server.on("job_started", lambda handle: begun.release())
    for number in range(jobs):
        await server.submit_job(room=f"room-{number}")
    for _ in range(jobs):
        await begun.acquire()
    print("stuck", flush=True)


async def serve(jobs: int, drain_timeout: float, grace: float) -> int:
    """Run the server until it has been drained; return the exit status."""
    server = AgentServer(
        num_idle_processes=4,
        drain_timeout=drain_timeout,
        shutdown_process_timeout=grace,
        load_threshold=math.inf,
        port=None,
    )
    server.rtc_session(entrypoint)
    occupying: list[asyncio.Task[None]] = []
    server.on(
        "started",
        lambda event: occupying.append(asyncio.ensure_future(occupy(server, jobs))),
    )
    return await server.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
