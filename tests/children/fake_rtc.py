"""Stands in for LiveKit's real-time SDK: a room in memory, steered by the test.

Where the job runs in another process, the test steers with files: the room
disconnects when the file of its directory is there, and notes what was done to it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from supervisor import JobContext, JobProcess


class TrackKind:
    KIND_AUDIO = 1
    KIND_VIDEO = 2


class ParticipantKind:
    PARTICIPANT_KIND_STANDARD = 0
    PARTICIPANT_KIND_SIP = 3
    PARTICIPANT_KIND_AGENT = 4


class DisconnectReason:
    @staticmethod
    def Name(number: int) -> str:  # noqa: N802 - as protobuf has it
        return {5: "ROOM_DELETED"}[number]


@dataclass
class RoomOptions:
    auto_subscribe: bool = True
    encryption: object = None
    rtc_config: object = None
    single_peer_connection: bool | None = None


@dataclass
class Publication:
    kind: int
    subscribed: bool = False

    def set_subscribed(self, wanted: bool) -> None:
        self.subscribed = wanted


@dataclass
class Participant:
    identity: str
    kind: int = ParticipantKind.PARTICIPANT_KIND_STANDARD
    track_publications: dict[str, Publication] = field(default_factory=dict)


class LocalParticipant(Participant):
    """The agent itself: notes what it says."""

    async def publish_data(self, payload: str, *, topic: str = "") -> None:
        note(f"say {payload} ({topic})")


class Room:
    """What our code uses of the SDK's class."""

    present: tuple[Participant, ...] = ()  # who is there when we come
    refuses = False
    directory: Path | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._name = ""
        self._callbacks: dict[str, list[Callable[..., Any]]] = {}
        self._remote: dict[str, Participant] = {}
        self.local_participant = LocalParticipant("me")
        self.connected_with: tuple[str, str, RoomOptions] | None = None
        self.disconnects = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def remote_participants(self) -> dict[str, Participant]:
        return self._remote

    def on(self, event: str, callback: Callable[..., Any]) -> None:
        self._callbacks.setdefault(event, []).append(callback)

    def off(self, event: str, callback: Callable[..., Any]) -> None:
        self._callbacks[event].remove(callback)

    def emit(self, event: str, *values: Any) -> None:
        for callback in list(self._callbacks.get(event, ())):
            callback(*values)

    async def connect(self, url: str, token: str, options: RoomOptions) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise ConnectionError("engine: signal failure")
        self.connected_with = (url, token, options)
        self._name = "the real one"
        self._remote.update({each.identity: each for each in self.present})
        if self.directory is not None:
            self.note(f"connect {json.dumps([url, bool(token), options.auto_subscribe])}")
            self._watching = asyncio.ensure_future(self._watch())

    async def disconnect(self) -> None:
        self.disconnects += 1
        self.note("leave")
        self.emit("disconnected", 1)

    def join(self, participant: Participant) -> None:
        self._remote[participant.identity] = participant
        self.emit("participant_connected", participant)

    async def _watch(self) -> None:
        assert self.directory is not None
        while not (self.directory / "hang up").exists():
            await asyncio.sleep(0.005)
        self.emit("disconnected", 5)

    def note(self, text: str) -> None:
        note(text)


def note(text: str) -> None:
    """Tell the test, where it is in another process."""
    if Room.directory is not None:
        with (Room.directory / "notes").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def module() -> ModuleType:
    """Return this module under the SDK's name."""
    return sys.modules[__name__]


# ── in another process ───────────────────────────────────────────────────────


def install(proc: JobProcess) -> None:
    """Stand in for the SDK in this worker: a ``setup_fnc``."""
    Room.directory = Path(proc.user_arguments)
    sys.modules["livekit.rtc"] = module()


def uninstall(proc: JobProcess) -> None:
    """Have no SDK in this worker: a ``setup_fnc``."""
    sys.modules["livekit.rtc"] = None  # type: ignore[assignment]  # import says: not found


async def returns_at_once(ctx: JobContext) -> None:
    """Join, leave something to be done at the end, and return."""
    room = ctx.room
    room.note(f"before {room.name}")
    ctx.add_shutdown_callback(lambda reason: room.note(f"callback {reason}"))
    await ctx.connect(auto_subscribe="audio_only")
    room.note(f"in {room.name} as {ctx.agent.identity}")


async def shuts_down(ctx: JobContext) -> None:
    """Join, return, and end the session a moment later."""
    await returns_at_once(ctx)
    asyncio.get_running_loop().call_later(0.05, ctx.shutdown, "said goodbye")


async def stays(ctx: JobContext) -> None:
    """Join and never return."""
    await returns_at_once(ctx)
    await asyncio.Event().wait()


async def looks_only(ctx: JobContext) -> None:
    """Touch the room, and do not join it."""
    ctx.room.note(f"before {ctx.room.name}")
