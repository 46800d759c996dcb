"""What a LiveKit job does in its room, against a stand-in for the real-time SDK."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from livekit import api

from supervisor.child import room as rooms
from supervisor.child.context import JobContext, JobProcess
from supervisor.child.inroom import through_the_room
from supervisor.job import AcceptArguments, JobInfo, Participant, Room, ServerType, Session
from tests.children import fake_rtc

SOON = 10.0
AGENT = fake_rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", fake_rtc.module())
    monkeypatch.setattr(fake_rtc.Room, "present", ())


def make(*, url: str = "ws://lk", publisher: str = "") -> JobContext:
    info = JobInfo(
        "AJ_1",
        Room("studio"),
        ServerType.PUBLISHER if publisher else ServerType.ROOM,
        publisher=Participant(publisher) if publisher else None,
        accept_arguments=AcceptArguments(identity="agent-AJ_1"),
    )
    return JobContext(JobProcess(), Session(info, "AW_1", url=url, token="a.b.c" if url else ""))


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, SOON)


async def test_the_room_is_the_sdks_and_knows_its_name_before_it_is_joined() -> None:
    ctx = make()
    assert isinstance(ctx.room, fake_rtc.Room)
    assert ctx.room is ctx.room
    assert ctx.room.name == "studio"
    assert ctx.agent.identity == "agent-AJ_1"
    await ctx.connect()
    assert ctx.room.name == "the real one"
    assert ctx.agent is ctx.room.local_participant
    assert ctx.connected


async def test_a_job_that_came_another_way_has_a_record_and_needs_no_sdk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    ctx = make(url="")
    assert ctx.room == Room("studio")
    await ctx.connect(auto_subscribe="audio_only", e2ee=object())
    assert await ctx.delete_room() is None
    ctx.add_participant_entrypoint(print)
    with pytest.raises(RuntimeError, match="no LiveKit server"):
        _ = ctx.api


def test_a_plain_entrypoint_has_a_record_of_the_room() -> None:
    assert make().room == Room("studio")


async def test_without_the_sdk_joining_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    with pytest.raises(RuntimeError, match=r"pip install 'greenroom\[livekit\]'"):
        await make().connect()


async def test_joining_takes_the_assigned_token_and_the_options() -> None:
    ctx = make()
    keys, config = object(), object()
    await ctx.connect(e2ee=keys, rtc_config=config, single_peer_connection=True)
    url, token, options = ctx.room.connected_with
    assert (url, token) == ("ws://lk", "a.b.c")
    assert options == fake_rtc.RoomOptions(True, keys, config, True)
    await ctx.connect(auto_subscribe="subscribe_none")  # joined already: nothing happens
    assert ctx.room.connected_with[2] is options


@pytest.mark.parametrize(
    ("asked", "all_of_them", "audio", "video"),
    [
        ("subscribe_all", True, False, False),
        (True, True, False, False),
        ("SUBSCRIBE_NONE", False, False, False),
        (False, False, False, False),
        ("audio_only", False, True, False),
        ("video_only", False, False, True),
    ],
)
async def test_what_is_subscribed_to(
    asked: object, all_of_them: bool, audio: bool, video: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tracks() -> dict[str, fake_rtc.Publication]:
        return {"mic": fake_rtc.Publication(1), "camera": fake_rtc.Publication(2)}

    ann = fake_rtc.Participant("ann", track_publications=tracks())
    monkeypatch.setattr(fake_rtc.Room, "present", (ann,))
    ctx = make()
    await ctx.connect(auto_subscribe=asked)
    assert ctx.room.connected_with[2].auto_subscribe is all_of_them
    later = tracks()
    for publication in later.values():
        ctx.room.emit("track_published", publication, ann)
    for found in (ann.track_publications, later):
        assert (found["mic"].subscribed, found["camera"].subscribed) == (audio, video)


async def test_an_unknown_subscription_is_refused() -> None:
    with pytest.raises(ValueError, match="auto_subscribe='some'"):
        await make().connect(auto_subscribe="some")


async def test_a_room_that_cannot_be_joined_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ctx = make()
    with monkeypatch.context() as patch:
        patch.setattr(fake_rtc.Room, "refuses", True)
        with pytest.raises(ConnectionError, match="signal failure"):
            await ctx.connect()
    assert not ctx.connected
    await ctx.connect()
    assert ctx.connected


# ── how long the job lasts ───────────────────────────────────────────────────


async def joins(ctx: JobContext) -> None:
    await ctx.connect()


async def test_the_job_outlasts_its_entrypoint_until_the_room_disconnects() -> None:
    ctx = make()
    job = asyncio.ensure_future(through_the_room(joins, ctx))
    while not ctx.connected:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not job.done()
    ctx.room.emit("disconnected", 5)
    await soon(job)
    assert ctx.shutdown_reason == "room disconnected"


async def test_the_job_outlasts_its_entrypoint_until_shutdown_from_any_thread() -> None:
    ctx = make()
    job = asyncio.ensure_future(through_the_room(joins, ctx))
    while not ctx.connected:
        await asyncio.sleep(0)
    await asyncio.to_thread(ctx.shutdown, "enough")
    await soon(job)
    assert ctx.shutdown_reason == "enough"


async def test_a_job_that_never_joins_ends_with_its_entrypoint() -> None:
    async def looks(ctx: JobContext) -> None:
        assert ctx.room.name == "studio"

    await soon(through_the_room(looks, make()))


async def test_a_shutdown_inside_the_entrypoint_is_enough() -> None:
    async def ends(ctx: JobContext) -> None:
        await ctx.connect()
        ctx.shutdown("done")

    await soon(through_the_room(ends, make()))


async def test_leaving_disconnects_once_and_is_no_shutdown() -> None:
    ctx = make()
    await ctx.connect()
    room = ctx.room
    await ctx._leave_room(SOON)
    assert room.disconnects == 1
    assert ctx.shutdown_reason is None


async def test_a_room_that_does_not_let_go_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs(self: fake_rtc.Room) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fake_rtc.Room, "disconnect", hangs)
    ctx = make()
    await ctx.connect()
    await soon(ctx._leave_room(0.01))


# ── who is there ─────────────────────────────────────────────────────────────


async def test_the_publisher_is_the_sdks_participant_once_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ann = fake_rtc.Participant("ann")
    monkeypatch.setattr(fake_rtc.Room, "present", (ann,))
    ctx = make(publisher="ann")
    assert ctx.publisher == Participant("ann")
    await ctx.connect()
    assert ctx.publisher is ann
    assert make().publisher is None


async def test_waiting_finds_who_is_there_and_who_comes_but_no_other_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    robot = fake_rtc.Participant("robot", AGENT)
    monkeypatch.setattr(fake_rtc.Room, "present", (robot,))
    ctx = make()
    with pytest.raises(RuntimeError, match="connect"):
        await ctx.wait_for_participant()
    await ctx.connect()
    assert await ctx.wait_for_participant(kind=AGENT) is robot
    assert await ctx.wait_for_participant(kind=[AGENT]) is robot
    anybody = asyncio.ensure_future(ctx.wait_for_participant())
    bob_only = asyncio.ensure_future(ctx.wait_for_participant(identity="bob"))
    await asyncio.sleep(0)
    ann, bob = fake_rtc.Participant("ann"), fake_rtc.Participant("bob")
    ctx.room.join(fake_rtc.Participant("another robot", AGENT))
    ctx.room.join(ann)
    assert await soon(anybody) is ann
    assert not bob_only.done()
    ctx.room.join(bob)
    assert await soon(bob_only) is bob
    assert await ctx.wait_for_participant(identity="bob") is bob


async def test_nobody_is_waited_for_in_a_room_that_was_left() -> None:
    ctx = make()
    await ctx.connect()
    waiting = asyncio.ensure_future(ctx.wait_for_participant())
    await asyncio.sleep(0)
    ctx.room.emit("disconnected", 5)
    with pytest.raises(RuntimeError, match="before anybody came"):
        await soon(waiting)


async def test_participant_entrypoints_run_for_each_who_is_there_or_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    met: list[str] = []
    everybody = asyncio.Event()

    async def meet(ctx: JobContext, participant: fake_rtc.Participant) -> None:
        assert ctx.job.id == "AJ_1"
        met.append(participant.identity)
        if len(met) == 3:
            everybody.set()
        if participant.identity == "bob":
            raise LookupError("who is bob?")
        await asyncio.Event().wait()

    monkeypatch.setattr(fake_rtc.Room, "present", (fake_rtc.Participant("ann"),))
    ctx = make()
    ctx.add_participant_entrypoint(meet)
    with pytest.raises(ValueError, match="already"):
        ctx.add_participant_entrypoint(meet)
    await ctx.connect()
    ctx.room.join(fake_rtc.Participant("bob"))
    ctx.room.join(fake_rtc.Participant("robot", AGENT))
    ctx.room.join(fake_rtc.Participant("cid"))
    await soon(everybody.wait())
    assert met == ["ann", "bob", "cid"]
    await soon(ctx._leave_room(SOON))  # ends those that still run
    assert "a participant entrypoint raised" in caplog.text


# ── LiveKit's API ────────────────────────────────────────────────────────────


async def test_the_api_has_the_jobs_token_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    ctx = make()
    assert ctx.api is ctx.api
    assert isinstance(ctx.api, api.LiveKitAPI)
    assert ctx.api.room._auth_header(api.VideoGrants(room_create=True)) == {
        "authorization": "Bearer a.b.c"
    }
    await ctx._leave_room(SOON)


async def test_the_api_has_the_key_that_the_job_itself_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", "own")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "own-secret-of-enough-length-for-hs256")
    ctx = make()
    header = ctx.api.room._auth_header(api.VideoGrants(room_create=True))["authorization"]
    claims = api.TokenVerifier("own", "own-secret-of-enough-length-for-hs256").verify(
        header.removeprefix("Bearer ")
    )
    assert claims.video is not None
    assert claims.video.room_create
    await ctx._leave_room(SOON)


async def test_deleting_the_room_asks_livekit_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []

    class Rooms:
        async def delete_room(self, request: api.DeleteRoomRequest) -> None:
            deleted.append(request.room)

    class Api:
        room = Rooms()

        async def aclose(self) -> None:
            deleted.append("closed")

    monkeypatch.setattr(rooms, "make_api", lambda session: Api())
    ctx = make()
    await ctx.delete_room()
    await ctx.delete_room("another")
    await ctx._leave_room(SOON)
    assert deleted == ["studio", "another", "closed"]


def test_no_repr_shows_the_token() -> None:
    session = Session(JobInfo("AJ_1"), url="ws://lk", token="a-token")
    assert "a-token" not in repr(session)
