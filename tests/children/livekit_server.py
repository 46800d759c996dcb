"""A server on the command line whose jobs come from LiveKit.

Run: python -m tests.children.livekit_server start …
"""

from __future__ import annotations

import logging
import os
import subprocess

from supervisor import AgentServer, JobContext, cli

server = AgentServer(num_idle_processes=1, load_threshold=float("inf"), log_level="DEBUG")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    """Say what one might say of oneself."""
    logging.getLogger("agent").warning("%r %r", ctx, ctx._session)
    print(ctx.job, ctx.agent)
    print(sorted(os.environ.items()))
    subprocess.run(["env"], check=True)


if __name__ == "__main__":
    cli.run_app(server)
