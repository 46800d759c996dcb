"""The room that a LiveKit job joins, through LiveKit's real-time SDK.

The SDK is big, and optional. It is imported in the job's own process, in the
moment when the job touches its room, and nowhere else.

The link to the room decides how long such a job lasts: an entrypoint usually sets
a conversation up and returns, and the job goes on until the room is left. It ends
when the room disconnects or ``ctx.shutdown`` is called, whichever is first.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from supervisor.job import Session

logger = logging.getLogger("greenroom.job")

Entrypoint = Callable[..., Any]  # async; gets the context and a participant

# Who is waited for unless told otherwise: people and phones, not other agents.
USUAL_KINDS: Final = ("STANDARD", "SIP", "CONNECTOR")

SUBSCRIPTIONS: Final = ("subscribe_all", "subscribe_none", "audio_only", "video_only")

LEFT: Final = "room disconnected"


def import_sdk() -> Any:
    """Return the module ``livekit.rtc``.

    Raises:
        RuntimeError: it is not installed; the text says what to do.
    """
    try:
        return importlib.import_module("livekit.rtc")
    except ImportError as exc:
        text = f"joining a room needs LiveKit's SDK ({exc}): pip install 'greenroom[livekit]'"
        raise RuntimeError(text) from exc


def subscription(asked: object) -> str:
    """Return *asked* as one of ``SUBSCRIPTIONS``; takes LiveKit's enum, a name, or a bool.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(asked, bool):
        return "subscribe_all" if asked else "subscribe_none"
    name = str(getattr(asked, "value", asked)).lower()
    if name not in SUBSCRIPTIONS:
        raise ValueError(f"auto_subscribe={asked!r}: expected one of {', '.join(SUBSCRIPTIONS)}")
    return name


class RoomLink:
    """A job's link to its room.

    Runs on: the entrypoint's loop, every method but :meth:`end`.

    Args:
        session: the job's: where to connect, and with which token.
        context: the job's context; participant entrypoints get it.
        on_left: called when the room was left, by whomever.
    """

    def __init__(self, session: Session, context: object, on_left: Callable[[str], None]) -> None:
        self._session = session
        self._context = context
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()
        self._sdk = import_sdk()
        self.room = self._make_room()
        self.connected = False
        self._over = asyncio.Event()
        self._entrypoints: list[tuple[Entrypoint, tuple[int, ...] | None]] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._api: Any = None

    def _make_room(self) -> Any:
        record = self._session.job.room

        class JobRoom(self._sdk.Room):  # type: ignore[misc, name-defined]  # known at run time
            """The SDK's room, which knows its name before it is joined."""

            @property
            def name(self) -> str:
                return str(self.__dict__.get("name") or getattr(super(), "name", "") or record.name)

            @name.setter
            def name(self, name: str) -> None:
                self.__dict__["name"] = name

        return JobRoom()  # on the loop that runs

    # ── joining and leaving ──────────────────────────────────────────────────

    async def connect(
        self, *, auto_subscribe: object, e2ee: object, rtc_config: object, **more: object
    ) -> None:
        """Join the room. *more* are fields of the SDK's ``RoomOptions``.

        Raises:
            RuntimeError: it was joined and left before.
            Exception: the SDK's, when the room cannot be joined.
        """
        if self.connected:
            return
        if self._over.is_set():
            raise RuntimeError("the room was left; a job joins it once")
        wanted = subscription(auto_subscribe)
        given = {name: value for name, value in more.items() if value is not None}
        if e2ee is not None:
            # The SDK's newer name comes with a warning for the older one.
            name = "encryption" if hasattr(self._sdk.RoomOptions, "encryption") else "e2ee"
            given[name] = e2ee
        if rtc_config is not None:
            given["rtc_config"] = rtc_config
        options = self._sdk.RoomOptions(auto_subscribe=wanted == "subscribe_all", **given)
        self.room.on("disconnected", self._disconnected)
        await self.room.connect(self._session.url, self._session.token, options=options)
        # No await from here on, so nobody comes or publishes unseen.
        self.connected = not self._over.is_set()
        self.room.on("participant_connected", self._participant_came)
        if wanted in ("audio_only", "video_only"):
            self._subscribe_to(wanted)
        for participant in list(self.room.remote_participants.values()):
            self._participant_came(participant)

    def _subscribe_to(self, wanted: str) -> None:
        kinds = self._sdk.TrackKind
        kind = kinds.KIND_AUDIO if wanted == "audio_only" else kinds.KIND_VIDEO

        def subscribe(publication: Any, participant: Any = None) -> None:
            if publication.kind == kind:
                publication.set_subscribed(True)

        self.room.on("track_published", subscribe)
        for participant in self.room.remote_participants.values():
            for publication in participant.track_publications.values():
                subscribe(publication)

    def _disconnected(self, reason: object = None) -> None:
        self.connected = False
        if not self._over.is_set():
            logger.info("the room has disconnected: %s", self._named(reason))
            self._over.set()
            self._on_left(LEFT)

    def _named(self, reason: object) -> str:
        # The number of an SDK that is newer or older than we know: then the number it is.
        with contextlib.suppress(AttributeError, ValueError, TypeError):
            return str(self._sdk.DisconnectReason.Name(reason)).lower().replace("_", " ")
        return str(reason)

    async def wait_over(self) -> None:
        """Return when the room was left or the job is to end; at once if it was not joined."""
        if self.connected:
            await self._over.wait()

    def end(self) -> None:
        """The job is to end. Runs on: any thread of the job's process."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._over.set)

    async def leave(self, seconds: float) -> None:
        """Leave the room and let go of everything, within *seconds*."""
        self._over.set()
        for task in self._tasks:
            task.cancel()
        leaving = [asyncio.ensure_future(self._leave())]
        _, late = await asyncio.wait({*leaving, *self._tasks}, timeout=seconds)
        for task in late:
            logger.warning("leaving the room took over %.3g s", seconds)
            task.cancel()

    async def _leave(self) -> None:
        try:
            if self._api is not None:
                await self._api.aclose()
            if self.connected:
                await self.room.disconnect()
        except Exception:
            logger.exception("the room could not be left")

    # ── who is there ─────────────────────────────────────────────────────────

    def find(self, identity: str) -> Any:
        """Return the participant with that identity, None if there is none."""
        return self.room.remote_participants.get(identity) if self.connected else None

    async def wait_for_participant(self, identity: str | None, kind: object) -> Any:
        """Return the participant of that identity and kind, or the first who comes.

        Raises:
            RuntimeError: not connected, or the room was left meanwhile.
        """
        if not self.connected:
            raise RuntimeError("call ctx.connect() first")
        kinds = self._kinds(kind)

        def matches(participant: Any) -> bool:
            right_one = identity is None or participant.identity == identity
            return right_one and self._is_of(participant, kinds)

        for participant in self.room.remote_participants.values():
            if matches(participant):
                return participant
        came: asyncio.Future[Any] = self._loop.create_future()

        def look(participant: Any) -> None:
            if matches(participant) and not came.done():
                came.set_result(participant)

        self.room.on("participant_connected", look)
        over = asyncio.ensure_future(self._over.wait())
        try:
            ways: set[asyncio.Future[Any]] = {came, over}
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            self.room.off("participant_connected", look)
        if not came.done():
            raise RuntimeError(f"the room was left before {identity or 'anybody'} came")
        return came.result()

    def _kinds(self, asked: object) -> tuple[int, ...] | None:
        """Return the SDK's numbers of kinds; None: the SDK knows no kinds."""
        if isinstance(asked, Iterable):
            return tuple(asked)
        if asked is not None:
            return (asked,)  # type: ignore[return-value]  # one of the SDK's numbers
        known = getattr(self._sdk, "ParticipantKind", None)
        if known is None:
            return None
        names = [f"PARTICIPANT_KIND_{name}" for name in USUAL_KINDS]
        return tuple(getattr(known, name) for name in names if hasattr(known, name))

    @staticmethod
    def _is_of(participant: Any, kinds: tuple[int, ...] | None) -> bool:
        return kinds is None or participant.kind in kinds

    def add_entrypoint(self, function: Entrypoint, kind: object) -> None:
        """Have *function* called with the context and each participant, present and coming.

        Raises:
            ValueError: it was added before.
        """
        if any(each is function for each, _ in self._entrypoints):
            raise ValueError(f"{function!r} is an entrypoint for participants already")
        kinds = self._kinds(kind)
        self._entrypoints.append((function, kinds))
        if self.connected:
            for participant in list(self.room.remote_participants.values()):
                self._enter(function, kinds, participant)

    def _participant_came(self, participant: Any) -> None:
        for function, kinds in self._entrypoints:
            self._enter(function, kinds, participant)

    def _enter(self, function: Entrypoint, kinds: tuple[int, ...] | None, participant: Any) -> None:
        if not self._is_of(participant, kinds):
            return
        task: asyncio.Task[object] = self._loop.create_task(function(self._context, participant))
        self._tasks.add(task)
        task.add_done_callback(self._entrypoint_ended)

    def _entrypoint_ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a participant entrypoint raised", exc_info=error)

    # ── the server's API ─────────────────────────────────────────────────────

    @property
    def api(self) -> Any:
        """LiveKit's API, with the job's own credentials; see docs/livekit.md."""
        if self._api is None:
            self._api = make_api(self._session)
        return self._api

    async def delete(self, name: str) -> None:
        """Delete the room of that name."""
        from livekit import api

        await self.api.room.delete_room(api.DeleteRoomRequest(room=name))


def make_api(session: Session) -> Any:
    """Return a client of LiveKit's API: with this process's own key, else the job's token.

    The supervisor's key and secret are not here. Where ``LIVEKIT_API_KEY`` and
    ``LIVEKIT_API_SECRET`` are set, the user has set them in this process.
    """
    from livekit import api

    key, secret = os.environ.get("LIVEKIT_API_KEY"), os.environ.get("LIVEKIT_API_SECRET")
    if key and secret:
        return api.LiveKitAPI(session.url, key, secret)
    return api.LiveKitAPI(session.url, token=session.token)
