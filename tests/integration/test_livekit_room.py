"""Jobs in their rooms: how long they last, in a worker, and what the real SDK makes of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from supervisor import JobContext, JobHandle
from tests.children import fake_rtc
from tests.integration.livekit_endpoint import Endpoint, listening
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


JOINED = ["before studio", "in the real one as me"]


class Told:
    """What the stand-in for the SDK has noted, and how the job ended."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.handles: list[JobHandle[Any]] = []

    @property
    def notes(self) -> list[str]:
        file = self.directory / "notes"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    @property
    def outcome(self) -> tuple[str, str]:
        (handle,) = self.handles
        assert handle.outcome is not None
        return handle.outcome.status.value, handle.outcome.reason

    async def until_joined(self) -> None:
        await until(lambda: JOINED[-1] in self.notes)


def options_for(endpoint: Endpoint, told: Told, **more: Any) -> dict[str, Any]:
    return {
        "setup_fnc": fake_rtc.install,
        "user_arguments": str(told.directory),
        "on": {"job_ended": told.handles.append},
        **endpoint.options,
        **more,
    }


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


async def test_a_job_lasts_until_its_room_disconnects_and_its_callbacks_run_first(
    endpoint: Endpoint, told: Told
) -> None:
    async with serving(fake_rtc.returns_at_once, **options_for(endpoint, told)) as server:
        await endpoint.offer("AJ_1")
        await told.until_joined()
        await endpoint.until_status("AJ_1", "JS_RUNNING")
        assert len(server.active_jobs) == 1  # although the entrypoint has returned
        (told.directory / "hang up").touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        await until(lambda: told.handles)
    connect = f'connect ["{endpoint.url}", true, false]'
    # The room is gone already: there is nothing to leave any more.
    assert told.notes == [JOINED[0], connect, JOINED[1], "callback room disconnected"]
    assert told.outcome == ("succeeded", "room disconnected")


async def test_a_job_that_ends_its_session_leaves_its_room_last(
    endpoint: Endpoint, told: Told
) -> None:
    async with serving(fake_rtc.shuts_down, **options_for(endpoint, told)):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        await until(lambda: told.handles)
    assert told.notes[-2:] == ["callback said goodbye", "leave"]
    assert told.outcome == ("succeeded", "said goodbye")


async def test_livekit_ends_a_job_that_has_only_its_room_left(
    endpoint: Endpoint, told: Told
) -> None:
    async with serving(fake_rtc.returns_at_once, **options_for(endpoint, told)):
        await endpoint.offer("AJ_1")
        await told.until_joined()
        await endpoint.terminate("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        await until(lambda: told.handles)
    assert told.notes[-2:] == ["callback terminated", "leave"]
    assert told.outcome == ("cancelled", "terminated")


async def test_an_entrypoint_that_goes_on_without_its_room_is_cancelled_after_the_grace(
    endpoint: Endpoint, told: Told
) -> None:
    options = options_for(endpoint, told, shutdown_process_timeout=0.2)
    async with serving(fake_rtc.stays, **options):
        await endpoint.offer("AJ_1")
        await told.until_joined()
        (told.directory / "hang up").touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        await until(lambda: told.handles)
    assert told.notes[-1] == "callback room disconnected"
    assert told.outcome == ("cancelled", "room disconnected")


async def test_a_drain_lets_a_conversation_end(endpoint: Endpoint, told: Told) -> None:
    async with serving(fake_rtc.returns_at_once, **options_for(endpoint, told)) as server:
        await endpoint.offer("AJ_1")
        await told.until_joined()
        draining = asyncio.ensure_future(server.drain(timeout=None))
        await endpoint.take("update_worker", lambda each: each.status == 1)
        (told.directory / "hang up").touch()
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
        assert await draining == 0


async def test_a_drain_that_cuts_a_conversation_short_says_so_to_livekit(
    endpoint: Endpoint, told: Told
) -> None:
    async with serving(fake_rtc.returns_at_once, **options_for(endpoint, told)) as server:
        await endpoint.offer("AJ_1")
        await told.until_joined()
        assert await server.drain(timeout=0.0) == 124
        await endpoint.until_status("AJ_1", "JS_FAILED")
    assert told.notes[-2:] == ["callback drain", "leave"]
    assert endpoint.heard("update_job")[-1].error == "drain"


async def test_a_room_that_is_only_looked_at_keeps_no_job(endpoint: Endpoint, told: Told) -> None:
    async with serving(fake_rtc.looks_only, **options_for(endpoint, told)):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_SUCCESS")
    assert told.notes == ["before studio"]


async def joins(ctx: JobContext) -> None:
    await ctx.connect()


async def test_without_the_sdk_a_job_that_joins_fails_and_says_why(
    endpoint: Endpoint, told: Told
) -> None:
    options = options_for(endpoint, told, setup_fnc=fake_rtc.uninstall)
    async with serving(joins, **options):
        await endpoint.offer("AJ_1")
        await endpoint.until_status("AJ_1", "JS_FAILED")
    assert "pip install 'greenroom[livekit]'" in endpoint.heard("update_job")[-1].error


# ── the real SDK ─────────────────────────────────────────────────────────────


def test_our_calls_fit_the_real_sdk() -> None:
    rtc = pytest.importorskip("livekit.rtc")
    inspect.signature(rtc.Room).bind()
    inspect.signature(rtc.Room.connect).bind(None, "ws://lk", "token", options=object())
    inspect.signature(rtc.Room.disconnect).bind(None)
    inspect.signature(rtc.Room.on).bind(None, "disconnected", print)
    inspect.signature(rtc.Room.off).bind(None, "participant_connected", print)
    inspect.signature(rtc.RoomOptions).bind(
        auto_subscribe=True, encryption=None, rtc_config=None, single_peer_connection=True
    )
    inspect.signature(rtc.RemoteTrackPublication.set_subscribed).bind(None, True)
    for name in ("name", "remote_participants", "local_participant"):
        assert isinstance(inspect.getattr_static(rtc.Room, name), property)
    for name in ("KIND_AUDIO", "KIND_VIDEO"):
        assert hasattr(rtc.TrackKind, name)
    for name in ("STANDARD", "SIP", "CONNECTOR", "AGENT"):
        assert hasattr(rtc.ParticipantKind, f"PARTICIPANT_KIND_{name}")
    assert rtc.DisconnectReason.Name(5) == "ROOM_DELETED"


class Signals:
    """The place where the real SDK asks to join: notes how, and refuses."""

    def __init__(self) -> None:
        self.asked: list[web.BaseRequest] = []
        self.port = 0

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._ask)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _ask(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return web.Response(status=401, text="no permission to access the room")


@pytest.fixture
async def signals() -> AsyncIterator[Signals]:
    made = Signals()
    runner = await made.start()
    yield made
    await runner.cleanup()


@pytest.mark.parametrize("preloaded", [(), ("livekit.rtc",)], ids=["imported", "preloaded"])
async def test_the_real_sdk_asks_to_join_with_the_jobs_own_token(
    endpoint: Endpoint,
    signals: Signals,
    preloaded: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("livekit.rtc")
    endpoint.assigns = False
    async with serving(joins, preload_modules=preloaded, log_level="DEBUG", **endpoint.options):
        job = await endpoint.offer("AJ_1")
        await endpoint.take("availability")
        token = endpoint.job_token(job)
        await endpoint.assign("AJ_1", url=f"ws://localhost:{signals.port}", token=token)
        await endpoint.until_status("AJ_1", "JS_FAILED")
    told = [f"{each.headers.get('Authorization', '')} {each.rel_url}" for each in signals.asked]
    assert any(token in each for each in told)
    assert any("/rtc" in each for each in told)
    final = endpoint.heard("update_job")[-1]
    assert final.error.startswith("ConnectError")
    assert token not in final.error
    assert token not in "".join(capfd.readouterr())
