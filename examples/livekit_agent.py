"""An agent that greets whoever comes into a LiveKit room, and answers what they write.

Needs a LiveKit server; its development server will do, as it is::

    livekit-server --dev
    pip install 'greenroom[server,livekit]'
    python examples/livekit_agent.py dev

Then join any room, for example with LiveKit's command line::

    lk room join --url ws://localhost:7880 --api-key devkey --api-secret secret --identity ann lobby

LiveKit starts one job for each room. The job is a process of its own, which was
warm before it was needed; it ends when the room does.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from supervisor import AgentServer, JobContext, JobProcess, JobRequest, cli

# What `livekit-server --dev` listens on and accepts. Elsewhere the environment says.
os.environ.setdefault("LIVEKIT_URL", "ws://localhost:7880")
if os.environ["LIVEKIT_URL"] == "ws://localhost:7880":
    os.environ.setdefault("LIVEKIT_API_KEY", "devkey")
    os.environ.setdefault("LIVEKIT_API_SECRET", "secret")

# The SDK takes a while to import: once for all jobs, not in each.
server = AgentServer(num_idle_processes=2, preload_modules=["livekit.rtc"], drain_timeout=600)


def prewarm(proc: JobProcess) -> None:
    """Load what each job needs; a model, in a real agent."""
    proc.userdata["greeting"] = "welcome to"


server.setup_fnc = prewarm


async def on_request(req: JobRequest) -> None:
    """Take every job, under a name that people see."""
    await req.accept(name="greeter", attributes={"example": "yes"})


async def greet(ctx: JobContext, participant: Any) -> None:
    """Say hello to one participant. Runs for each who is there or comes."""
    text = f"{participant.identity}, {ctx.proc.userdata['greeting']} {ctx.room.name}"
    await ctx.room.local_participant.publish_data(text, topic="greeting")
    print("greeted", participant.identity)


@server.rtc_session(on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    """Set the conversation up and return: the job lasts until the room is left."""
    answers: set[asyncio.Task[None]] = set()

    def heard(packet: Any) -> None:
        sending = ctx.room.local_participant.publish_data(packet.data.upper(), topic="answer")
        answers.add(task := asyncio.ensure_future(sending))
        task.add_done_callback(answers.discard)

    async def say_goodbye(reason: str) -> None:
        print("leaving", ctx.room.name, "because of:", reason)

    ctx.room.on("data_received", heard)
    ctx.add_participant_entrypoint(greet)
    ctx.add_shutdown_callback(say_goodbye)
    await ctx.connect(auto_subscribe="subscribe_none")


if __name__ == "__main__":
    cli.run_app(server)
