"""What agents do in the tests of the LiveKit dispatcher; rooms say what."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from supervisor import JobContext, JobRequest


def told(ctx: JobContext) -> dict[str, object]:
    """Return what a job knows of itself."""
    publisher = ctx.publisher
    return {
        "id": ctx.job.id,
        "room": ctx.room.name,
        "sid": ctx.job.room.sid,
        "metadata": ctx.job.metadata,
        "dispatch_id": ctx.job.dispatch_id,
        "publisher": None if publisher is None else publisher.identity,
        "agent": [ctx.agent.name, ctx.agent.identity, ctx.agent.metadata, ctx.agent.attributes],
        "worker_id": ctx.worker_id,
        "resuming": ctx.job.resuming,
        "claims": ctx.token_claims(),
        "fake": ctx.is_fake_job(),
        "secrets": sorted(name for name in os.environ if name.startswith("LIVEKIT_API")),
    }


async def entrypoint(ctx: JobContext) -> None:
    """Do what the name of the room says; a file named in the metadata is where to write."""
    room = ctx.job.room.name
    if room == "raises":
        raise ValueError("no such customer")
    if room == "exits":
        os._exit(3)
    if room == "tells":
        Path(ctx.job.metadata).write_text(json.dumps(told(ctx)), encoding="utf-8")
    if room == "waits":  # until the file is there; or for ever
        while not (ctx.job.metadata and os.path.exists(ctx.job.metadata)):
            await asyncio.sleep(0.005)
    if room == "waits to raise":
        while not os.path.exists(ctx.job.metadata):
            await asyncio.sleep(0.005)
        raise ValueError("the end")


async def on_request(req: JobRequest) -> None:
    """Answer as the name of the room says."""
    match req.room.name:
        case "no":
            await req.reject()
        case "never":
            await req.reject(terminate=True)
        case "vip" | "tells":
            await req.accept(
                name="agent", identity="me", metadata="mine", attributes={"tier": "vip"}
            )
        case "silent":
            pass
        case "slow":
            await asyncio.sleep(60)
        case "raises when asked":
            raise RuntimeError("no database")
        case _:
            await req.accept()
