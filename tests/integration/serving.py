"""A server in the test's own process, for as long as a block lasts."""

from __future__ import annotations

from typing import Any

from supervisor import AgentServer, JobOutcome
from supervisor.testing.running import running_server, soon

serving = running_server


async def run_job(server: AgentServer, room: str = "studio", **request: Any) -> JobOutcome:
    """Submit one job and return how it ended."""
    (handle,) = await server.submit_job(room=room, **request)
    return await soon(handle.wait())
