"""A server that its tests, beside it, put through its paces."""

from __future__ import annotations

import asyncio

from supervisor import AgentServer, JobContext, JobProcess, JobRequest


def prewarm(proc: JobProcess) -> None:
    proc.userdata["greetings"] = {"en": "hello", "de": "hallo"}


async def entrypoint(ctx: JobContext) -> None:
    language, _, wait = ctx.room.name.partition(" ")
    print(ctx.proc.userdata["greetings"][language])
    if wait:
        await asyncio.Event().wait()  # until somebody hangs up


async def on_request(request: JobRequest) -> None:
    if request.room.name.startswith("vip"):
        await request.accept(name="greeter", attributes={"tier": "vip"})
    else:
        await request.reject()


def score(text: str) -> int:
    return len(text)


def make_server() -> AgentServer:
    server = AgentServer(setup_fnc=prewarm, num_idle_processes=2, port=None, load_threshold=10)
    server.rtc_session(entrypoint, agent_name="greeter", on_request=on_request)
    return server
