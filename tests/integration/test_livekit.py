"""A server and LiveKit: the whole dialogue, as it goes when nothing goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from livekit.protocol import agent, models

from supervisor import AgentServer, AgentServerPermissions, JobHandle, ServerType
from tests.children.livekit_jobs import entrypoint, on_request
from tests.integration.conftest import soon
from tests.integration.livekit_endpoint import KEY, Endpoint, listening
from tests.integration.serving import serving
from tests.integration.watch import until

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _control_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_SOCKET", str(tmp_path / "s"))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with listening() as made:
        yield made


def on_the_wire(message: Any) -> dict[str, Any]:
    """Return the fields of a message that were sent, by name."""
    return {field.name: value for field, value in message.ListFields()}


async def test_the_whole_dialogue_field_by_field(endpoint: Endpoint, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with serving(
        entrypoint,
        agent_name="greeter",
        on_request=on_request,
        num_idle_processes=2,
        **endpoint.options,
    ) as server:
        # 1. Registered: with a token that is ours and allows this, and before "started".
        (claims,) = endpoint.claims
        assert claims.video is not None
        assert claims.video.agent
        assert server.id == "AW_1"
        register = await endpoint.take("register")
        assert register.type == agent.JobType.JT_ROOM
        assert register.agent_name == "greeter"
        assert register.version
        assert on_the_wire(register.allowed_permissions) == {
            "can_subscribe": True,
            "can_publish": True,
            "can_publish_data": True,
            "can_update_metadata": True,
            "agent": True,
        }
        status = await endpoint.take("update_worker")
        assert status.status == agent.WorkerStatus.WS_AVAILABLE
        assert status.job_count == 0
        # 2. A job that is accepted.
        await endpoint.offer("AJ_1", room="vip")
        answer = await endpoint.take("availability")
        attributes = dict(answer.participant_attributes)
        assert attributes == {"lk.agent.name": "greeter", "tier": "vip"}
        assert on_the_wire(answer) == {
            "job_id": "AJ_1",
            "available": True,
            "participant_name": "agent",
            "participant_identity": "me",
            "participant_metadata": "mine",
            "participant_attributes": answer.participant_attributes,
        }
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        assert endpoint.statuses("AJ_1") == ["JS_RUNNING", "JS_SUCCESS"]
        # 3. With the defaults: no name, and an identity made of the id.
        await endpoint.offer("AJ_2", room="any")
        answer = await endpoint.take("availability")
        assert (answer.participant_name, answer.participant_identity) == ("", "agent-AJ_2")
        assert dict(answer.participant_attributes) == {"lk.agent.name": "greeter"}
        # 4. Jobs that are rejected: for others to take, and for good.
        await endpoint.offer("AJ_3", room="no")
        assert on_the_wire(await endpoint.take("availability")) == {"job_id": "AJ_3"}
        await endpoint.offer("AJ_4", room="never")
        answer = await endpoint.take("availability")
        assert on_the_wire(answer) == {"job_id": "AJ_4", "terminate": True}
        # 5. A drain: full at once, nothing more is taken, the job's end is still told.
        await endpoint.offer("AJ_5", room="waits", metadata=str(flag))
        await endpoint.until_status("AJ_5", "JS_RUNNING")
        server.begin_drain()
        full = await endpoint.take("update_worker", lambda each: each.status != 0)
        assert full.status == agent.WorkerStatus.WS_FULL
        assert full.job_count == 1
        await endpoint.offer("AJ_6", room="any")
        answer = await endpoint.take("availability", lambda each: each.job_id == "AJ_6")
        assert on_the_wire(answer) == {"job_id": "AJ_6"}
        flag.touch()
        await endpoint.until_status("AJ_5", "JS_SUCCESS")
    await endpoint.until(lambda: endpoint.closed_by_client)
    assert endpoint.connections == 1
    last = endpoint.received[-1]
    assert last.kind in ("update_job", "update_worker")
    assert not endpoint.heard("ping")  # LiveKit's own SDK sends none either


async def test_a_job_knows_all_that_was_said_about_it(endpoint: Endpoint, tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with serving(entrypoint, on_request=on_request, **endpoint.options):
        job = await endpoint.offer(
            "AJ_1", room="tells", metadata=str(told), dispatch_id="AD_1", resuming=True
        )
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    claims = json.loads(told.read_text()).pop("claims")
    assert json.loads(told.read_text()) == {
        "id": "AJ_1",
        "room": "tells",
        "sid": "RM_tells",
        "metadata": str(told),
        "dispatch_id": "AD_1",
        "publisher": None,
        "agent": ["agent", "me", "mine", {"tier": "vip"}],
        "worker_id": "AW_1",
        "resuming": True,
        "claims": claims,
        "fake": False,
        "secrets": [],
    }
    assert claims["video"]["room"] == "tells"
    assert claims["iss"] == KEY
    assert job.id == "AJ_1"


@pytest.mark.parametrize(
    ("room", "error"),
    [("raises", "ValueError: no such customer"), ("exits", "exit status 3")],
)
async def test_a_job_that_fails_is_reported_with_its_error(
    endpoint: Endpoint, room: str, error: str
) -> None:
    async with serving(entrypoint, **endpoint.options):
        await endpoint.offer("AJ_1", room=room)
        await endpoint.until_status("AJ_1", "JS_FAILED")
    (final,) = [each for each in endpoint.heard("update_job") if each.status == 3]
    assert error in final.error


@pytest.mark.parametrize("room", ["silent", "raises when asked", "slow"])
async def test_an_offer_is_answered_in_time_whatever_on_request_does(
    endpoint: Endpoint, room: str
) -> None:
    async with serving(entrypoint, on_request=on_request, **endpoint.options):
        began = asyncio.get_running_loop().time()
        await endpoint.offer("AJ_1", room=room)
        answer = await endpoint.take("availability")
        # LiveKit's server gives up after 3 s.
        assert asyncio.get_running_loop().time() - began < 3.0
        assert on_the_wire(answer) == {"job_id": "AJ_1"}


async def test_publishers_have_a_job_each(endpoint: Endpoint, tmp_path: Path) -> None:
    async with serving(
        entrypoint, type=ServerType.PUBLISHER, num_idle_processes=2, **endpoint.options
    ):
        assert (await endpoint.take("register")).type == agent.JobType.JT_PUBLISHER
        for name in ("ann", "bob"):
            await endpoint.offer(
                f"AJ_{name}",
                room="tells",
                type=agent.JobType.JT_PUBLISHER,
                participant=models.ParticipantInfo(identity=name),
                metadata=str(tmp_path / name),
            )
        for name in ("ann", "bob"):
            await endpoint.until_status(f"AJ_{name}", "JS_SUCCESS")
            assert json.loads((tmp_path / name).read_text())["publisher"] == name


async def test_permissions_and_names_of_the_environment_are_registered(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_URL", endpoint.url.replace("ws:", "http:"))
    monkeypatch.setenv("LIVEKIT_API_KEY", endpoint.options["api_key"])
    monkeypatch.setenv("LIVEKIT_API_SECRET", endpoint.options["api_secret"])
    monkeypatch.setenv("LIVEKIT_AGENT_NAME_OVERRIDE", "other")
    monkeypatch.setenv("LIVEKIT_AGENT_DEPLOYMENT", "blue")
    monkeypatch.setenv("LIVEKIT_WORKER_TOKEN", "of-the-cloud")
    permissions = AgentServerPermissions(hidden=True, can_publish_data=False)
    async with serving(entrypoint, agent_name="greeter", permissions=permissions):
        register = await endpoint.take("register")
    assert register.agent_name == "other"
    assert register.deployment == "blue"
    assert on_the_wire(register.allowed_permissions) == {
        "can_subscribe": True,
        "can_update_metadata": True,
        "hidden": True,
        "agent": True,
    }
    assert endpoint.requests[0].rel_url.query == {"worker_token": "of-the-cloud"}


# ── termination ──────────────────────────────────────────────────────────────


async def test_livekit_ends_a_running_job(endpoint: Endpoint) -> None:
    handles: list[JobHandle[Any]] = []
    async with serving(entrypoint, on={"job_ended": handles.append}, **endpoint.options):
        await endpoint.offer("AJ_1", room="waits")
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        await endpoint.terminate("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        (handle,) = handles
        assert handle.outcome is not None
        assert handle.outcome.reason == "terminated"


async def test_a_job_that_the_servers_own_code_cut_short_has_failed_for_its_reason(
    endpoint: Endpoint,
) -> None:
    handles: list[JobHandle[Any]] = []
    async with serving(entrypoint, on={"job_started": handles.append}, **endpoint.options):
        await endpoint.offer("AJ_1", room="waits")
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        handles[0].cancel("the customer has no credit")
        await endpoint.until_status("AJ_1", "JS_FAILED")
        assert endpoint.heard("update_job")[-1].error == "the customer has no credit"


async def test_ending_a_job_that_has_just_ended_changes_nothing(endpoint: Endpoint) -> None:
    async with serving(entrypoint, **endpoint.options):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        await endpoint.terminate("AJ_1")
        await endpoint.terminate("AJ_unknown")
        await endpoint.offer("AJ_2")
        await endpoint.until_status("AJ_2", "JS_SUCCESS")
    assert endpoint.statuses("AJ_1") == ["JS_RUNNING", "JS_SUCCESS"]
    assert endpoint.statuses("AJ_unknown") == []


# ── load ─────────────────────────────────────────────────────────────────────


class Load:
    """A load that the test sets."""

    def __init__(self) -> None:
        self.value = 0.25

    def __call__(self) -> float:
        return self.value


async def test_the_load_is_told_at_once_when_it_changes_and_regularly_when_not(
    endpoint: Endpoint,
) -> None:
    load = Load()
    async with serving(entrypoint, load_fnc=load, load_threshold=0.7, **endpoint.options):
        first = await endpoint.take("update_worker")
        assert (first.status, first.load) == (agent.WorkerStatus.WS_AVAILABLE, 0.25)
        await endpoint.take("update_worker")  # the same again, after its interval
        load.value = 0.75
        full = await endpoint.take("update_worker", lambda each: each.load == 0.75)
        assert full.status == agent.WorkerStatus.WS_FULL
        load.value = 0.5
        free = await endpoint.take("update_worker", lambda each: each.load == 0.5)
        assert free.status == agent.WorkerStatus.WS_AVAILABLE


async def test_a_server_whose_load_cannot_be_told_is_full(endpoint: Endpoint) -> None:
    def broken() -> float:
        raise RuntimeError("no sensor")

    async with serving(entrypoint, load_fnc=broken, load_threshold=0.7, **endpoint.options):
        status = await endpoint.take("update_worker")
        assert (status.status, status.load) == (agent.WorkerStatus.WS_FULL, 1.0)


async def test_jobs_are_counted_in_the_status(endpoint: Endpoint, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options):
        for number in range(2):
            await endpoint.offer(f"AJ_{number}", room="waits", metadata=str(flag))
        await endpoint.take("update_worker", lambda each: each.job_count == 2)
        flag.touch()
        await endpoint.take("update_worker", lambda each: each.job_count == 0)


# ── beside the control socket ────────────────────────────────────────────────


async def test_jobs_come_from_livekit_and_from_here_side_by_side(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    async with serving(entrypoint, num_idle_processes=2, **endpoint.options) as server:
        await endpoint.offer("AJ_1", room="waits", metadata=str(flag))
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        (handle,) = await server.submit_job(room="waits", metadata=str(flag), job_id="J-local")
        await until(lambda: len(await_ids(server)) == 2)
        assert await_ids(server) == {"AJ_1", "J-local"}
        shown = await jobs_on_the_socket(tmp_path / "s")
        assert "AJ_1" in shown
        flag.touch()
        await soon(handle.wait())
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    assert endpoint.statuses("J-local") == []


def await_ids(server: AgentServer) -> set[str]:
    return {job.id for job in server.active_jobs}


async def jobs_on_the_socket(path: Path) -> str:
    """Return what the control socket says of its jobs."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /jobs HTTP/1.0\r\nHost: here\r\n\r\n")
    body = await soon(reader.read())
    writer.close()
    await writer.wait_closed()
    return body.decode()


async def test_readiness_follows_the_connection(endpoint: Endpoint) -> None:
    async with serving(entrypoint, **endpoint.options) as server:
        assert server.not_ready() is None
        endpoint.registers = False
        endpoint.drop()
        await endpoint.until(lambda: endpoint.connections == 2)
        assert server.not_ready() == "not connected: LiveKitDispatcher"
        endpoint.registers = True
        endpoint.drop()
        await until(lambda: server.not_ready() is None)
        assert server.id == f"AW_{endpoint.connections}"
