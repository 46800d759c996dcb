"""The Python examples of LiveKit's page on agent server options, with ours imported instead.

Each is what the page shows, with its indentation back, and with these slips mended:
``@sever`` is ``@server``, ``agent server`` is ``agent_server``, a function of
comments only has a ``pass``, and the names that stand for values of the constructor
are passed by keyword.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from livekit.protocol import agent, models

from tests.integration.conftest import soon
from tests.integration.livekit_endpoint import KEY, SECRET, Endpoint, listening

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

IMPORT = """\
from supervisor import (
    AgentServer, AgentServerPermissions, JobContext, JobProcess, JobRequest, ServerType, cli,
)
"""

RUN = """
if __name__ == "__main__":
    cli.run_app(server)
"""

ENTRYPOINT = """
@server.rtc_session()
async def my_agent(ctx: JobContext):
    print("in", ctx.job.room.name)
"""

CONSTRUCTOR = """
permissions = AgentServerPermissions()
drain_timeout = 5
load_threshold = 0.7
setup_fnc = None
load_fnc = None
server = AgentServer(
    # Whether the agent can subscribe to tracks, publish data, update metadata, etc.
    permissions=permissions,
    # Amount of time to wait for existing jobs to finish when SIGTERM or SIGINT is received
    drain_timeout=drain_timeout,
    # The maximum value of load_fnc, above which no new processes will spawn
    load_threshold=load_threshold,
    # A function to perform any necessary initialization before the job starts.
    setup_fnc=setup_fnc,
    # Function to determine the current load of the worker. Should return a value between 0 and 1.
    load_fnc=load_fnc,
)
"""

REQUEST = """
async def request_fnc(req: JobRequest):
    # accept the job request
    await req.accept(
        # the agent's name (Participant.name), defaults to ""
        name="agent",
        # the agent's identity (Participant.identity), defaults to "agent-<jobid>"
        identity="identity",
        # attributes to set on the agent participant upon join
        attributes={"myagent": "rocks"},
    )
    # or reject it
    # await req.reject()

server = AgentServer()

@server.rtc_session(on_request=request_fnc)
async def my_agent(ctx: JobContext):
    # set up entrypoint function
    # handle the session
    pass
"""

PREWARM = """
import silero

server = AgentServer()

def prewarm(proc: JobProcess):
    # load silero weights and store to process userdata
    proc.userdata["vad"] = silero.VAD.load()

server.setup_fnc = prewarm

@server.rtc_session()
async def my_agent(ctx: JobContext):
    # access the loaded silero instance
    vad: silero.VAD = ctx.proc.userdata["vad"]
    print("the model is", vad)
"""

SILERO = """
class VAD:
    @classmethod
    def load(cls):
        return "loaded"
"""

LOAD = """
server = AgentServer(
    load_threshold=0.9,
)

def compute_load(agent_server: AgentServer) -> float:
    return min(len(agent_server.active_jobs) / 10, 1.0)

server.load_fnc = compute_load
"""

BUSY_ENTRYPOINT = """
import asyncio

@server.rtc_session()
async def my_agent(ctx: JobContext):
    await asyncio.Event().wait()
"""

PERMISSIONS = """
server = AgentServer(
    permissions=AgentServerPermissions(
        can_publish=True,
        can_subscribe=True,
        can_publish_data=True,
        # when set to true, the agent won't be visible to others in the room.
        # when hidden, it will also not be able to publish tracks to the room as it won't be visible.
        hidden=False,
    ),
)
"""

TYPE = """
server = AgentServer()

@server.rtc_session(type=ServerType.{0})
async def my_agent(ctx: JobContext):
    print("publisher", ctx.publisher and ctx.publisher.identity)
"""


@dataclass
class Agent:
    """An example that runs: its endpoint, and what it said once it has ended."""

    endpoint: Endpoint
    messages: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def agent_of(example: str, tmp_path: Path) -> AsyncIterator[Agent]:
    """Run *example* against an endpoint of its own."""
    (tmp_path / "silero.py").write_text(SILERO, encoding="utf-8")
    program = IMPORT + example + RUN
    async with listening() as endpoint, agent_process(program, tmp_path, endpoint) as running:
        yield running


@contextlib.asynccontextmanager
async def agent_process(program: str, tmp_path: Path, endpoint: Endpoint) -> AsyncIterator[Agent]:
    """Run *program* as the page says: ``agent.py start --log-level=DEBUG``."""
    (tmp_path / "agent.py").write_text(program, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "agent.py",
        "start",
        "--log-level=DEBUG",
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "GREENROOM_SOCKET": str(tmp_path / "s"),
            "GREENROOM_PORT": "0",
            "LIVEKIT_URL": endpoint.url,
            "LIVEKIT_API_KEY": KEY,
            "LIVEKIT_API_SECRET": SECRET,
            # The machine that runs the tests may be as busy as it likes.
            **({} if "compute_load" in program else {"GREENROOM_LOAD_THRESHOLD": "inf"}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Agent(endpoint)
    try:
        await endpoint.until(lambda: endpoint.heard("update_worker"))
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        out, err = await soon(process.communicate())
    running.messages = [json.loads(line)["message"] for line in out.decode().splitlines()]
    assert "Traceback" not in (out + err).decode()


async def runs_a_job(agent: Agent) -> None:
    await agent.endpoint.offer("AJ_1")
    await agent.endpoint.until_status("AJ_1", "JS_SUCCESS")


async def test_options_of_the_constructor(tmp_path: Path) -> None:
    async with agent_of(CONSTRUCTOR + ENTRYPOINT, tmp_path) as running:
        await runs_a_job(running)
    assert "in studio" in running.messages


async def test_the_entrypoint(tmp_path: Path) -> None:
    async with agent_of("\nserver = AgentServer()\n" + ENTRYPOINT, tmp_path) as running:
        await runs_a_job(running)
    assert "in studio" in running.messages


async def test_the_request_handler(tmp_path: Path) -> None:
    async with agent_of(REQUEST, tmp_path) as running:
        await runs_a_job(running)
        answer = await running.endpoint.take("availability")
        assert (answer.participant_name, answer.participant_identity) == ("agent", "identity")
        assert answer.participant_attributes["myagent"] == "rocks"


async def test_rejecting_in_the_request_handler_leaves_the_job_to_others(tmp_path: Path) -> None:
    body = re.sub(r"    # accept.*?    # await", "    await", REQUEST, flags=re.DOTALL)
    assert "await req.reject()" in body
    assert "accept" not in body
    async with agent_of(body, tmp_path) as running:
        await running.endpoint.offer("AJ_1")
        answer = await running.endpoint.take("availability")
        assert (answer.available, answer.terminate) == (False, False)


async def test_the_prewarm_function(tmp_path: Path) -> None:
    async with agent_of(PREWARM, tmp_path) as running:
        await runs_a_job(running)
    assert "the model is loaded" in running.messages


async def test_the_load_function_limits_the_server_to_nine_jobs(tmp_path: Path) -> None:
    async with agent_of(LOAD + BUSY_ENTRYPOINT, tmp_path) as running:
        endpoint = running.endpoint
        for number in range(12):
            await endpoint.offer(f"AJ_{number}")
        await endpoint.until(lambda: len(endpoint.heard("availability")) == 12)
        taken = [each.job_id for each in endpoint.heard("availability") if each.available]
        assert len(taken) == 9
        await endpoint.take("update_worker", lambda each: each.status == 1 and each.job_count == 9)
        for job_id in taken:
            await endpoint.until_status(job_id, "JS_RUNNING")
            await endpoint.terminate(job_id)
            await endpoint.until_status(job_id, "JS_SUCCESS")


async def test_permissions(tmp_path: Path) -> None:
    async with agent_of(PERMISSIONS + ENTRYPOINT, tmp_path) as running:
        said = (await running.endpoint.take("register")).allowed_permissions
        assert (said.can_publish, said.can_subscribe, said.can_publish_data) == (True, True, True)
        assert not said.hidden
        await runs_a_job(running)


async def test_the_type_of_the_server(tmp_path: Path) -> None:
    async with agent_of(TYPE.format("ROOM"), tmp_path) as running:
        assert (await running.endpoint.take("register")).type == agent.JobType.JT_ROOM
        await runs_a_job(running)


async def test_a_server_for_publishers_has_the_publisher_in_its_context(tmp_path: Path) -> None:
    async with agent_of(TYPE.format("PUBLISHER"), tmp_path) as running:
        assert (await running.endpoint.take("register")).type == agent.JobType.JT_PUBLISHER
        await running.endpoint.offer(
            "AJ_1",
            type=agent.JobType.JT_PUBLISHER,
            participant=models.ParticipantInfo(identity="ann"),
        )
        await running.endpoint.until_status("AJ_1", "JS_SUCCESS")
    assert "publisher ann" in running.messages


@pytest.mark.parametrize("level", ["DEBUG", "info", "WARNING", "error", "Critical"])
def test_every_log_level_of_the_page_is_taken(level: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(
        IMPORT + "\nserver = AgentServer(port=None)\n" + ENTRYPOINT + RUN, encoding="utf-8"
    )
    ended = subprocess.run(
        [sys.executable, "agent.py", "start", f"--log-level={level}", "--url", "ws://nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GREENROOM_SOCKET": str(tmp_path / "s")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1  # for want of a key; a level that is not taken would give 2
    assert "api_key" in ended.stderr
