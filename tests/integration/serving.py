"""A server in the test's own process, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from supervisor import AgentServer, JobOutcome, ServerType
from tests.integration.conftest import soon


@contextlib.asynccontextmanager
async def serving(
    entrypoint: Callable[..., Any],
    *,
    agent_name: str = "",
    type: ServerType = ServerType.ROOM,
    on_request: Callable[..., Any] | None = None,
    on_session_end: Callable[..., Any] | None = None,
    on: dict[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> AsyncIterator[AgentServer]:
    """Run a server with that entrypoint; jobs that still run at the end are stopped."""
    options = {"port": None, "num_idle_processes": 1, "load_threshold": math.inf, **options}
    server = AgentServer(**options)
    server.rtc_session(
        entrypoint,
        agent_name=agent_name,
        type=type,
        on_request=on_request,
        on_session_end=on_session_end,
    )
    started = asyncio.Event()
    server.on("started", lambda event: started.set())
    for name, callback in (on or {}).items():
        server.on(name, callback)
    running = asyncio.ensure_future(server.run())
    waiting = asyncio.ensure_future(started.wait())
    await soon(asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED))
    if not started.is_set():
        waiting.cancel()
        await running
    try:
        yield server
    finally:
        await soon(server.aclose())
        await soon(running)


async def run_job(server: AgentServer, room: str = "studio", **request: Any) -> JobOutcome:
    """Submit one job and return how it ended."""
    (handle,) = await server.submit_job(room=room, **request)
    return await soon(handle.wait())
