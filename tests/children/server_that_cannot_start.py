"""A server on the command line, for start-ups that fail.

Run: python -m tests.children.server_that_cannot_start start …
"""

from __future__ import annotations

import os

from supervisor import AgentServer, JobContext, cli
from tests.children import fails_to_warm

server = AgentServer(
    num_idle_processes=1, setup_fnc=None, max_retry=int(os.environ.get("MAX_RETRY", "16"))
)

if os.environ.get("SETUP_FAILS"):
    server.setup_fnc = fails_to_warm.raises


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Do nothing."""


if __name__ == "__main__":
    cli.run_app(server)
