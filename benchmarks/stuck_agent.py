"""A server whose jobs are stuck: they ignore every request to end.

    python -m benchmarks.stuck_agent JOBS FD start [OPTION ...]
    python -m benchmarks.stuck_agent JOBS FD DRAIN_TIMEOUT GRACE

With the command line, as servers are run, or as a program of its own around
``AgentServer.run``. Writes a line to the descriptor FD once all jobs run.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from typing import Any

from supervisor import AgentServer, JobContext, cli


def entrypoint(ctx: JobContext) -> None:
    """Stay, whatever anybody asks."""
    while True:
        try:
            time.sleep(3600)
        except BaseException:  # noqa: BLE001, S112 - being stuck is the point
            continue


async def occupy(server: AgentServer, jobs: int, fd: int) -> None:
    """Submit the jobs and say so when the last has begun."""
    begun = asyncio.Semaphore(0)
    server.on("job_started", lambda handle: begun.release())
    for number in range(jobs):
        await server.submit_job(room=f"room-{number}")
    for _ in range(jobs):
        await begun.acquire()
    os.write(fd, b"stuck\n")


def stuck_server(jobs: int, fd: int, **options: Any) -> AgentServer:
    """Return a server that gets *jobs* jobs as soon as it serves."""
    server = AgentServer(num_idle_processes=4, load_threshold=math.inf, port=None, **options)
    server.rtc_session(entrypoint)
    occupying: list[asyncio.Task[None]] = []
    server.on(
        "started",
        lambda event: occupying.append(asyncio.ensure_future(occupy(server, jobs, fd))),
    )
    return server


async def run(jobs: int, fd: int, drain_timeout: float, grace: float) -> int:
    """Run the server until it has been drained; return the exit status."""
    return await stuck_server(
        jobs, fd, drain_timeout=drain_timeout, shutdown_process_timeout=grace
    ).run()


if __name__ == "__main__":
    count, told = int(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3] == "start":
        del sys.argv[1:3]
        cli.run_app(stuck_server(count, told))
    sys.exit(asyncio.run(run(count, told, float(sys.argv[3]), float(sys.argv[4]))))
