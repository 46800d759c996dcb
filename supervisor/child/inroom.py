"""What a job knows of its room and does in it: the half of JobContext that LiveKit is behind.

Where LiveKit sent the job, the real-time SDK is behind every method, from the
first that needs it. Jobs that came another way have a record for a room.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from supervisor.child.callbacks import Callback, check_callback, running_loop
from supervisor.child.room import RoomLink
from supervisor.job import AcceptArguments, JobInfo, Participant, Session


class InRoom:
    """See the head of the file. Runs on: the entrypoint's loop, what is async."""

    def __init__(self, session: Session | None) -> None:
        # Set by the worker when a job begins; a call has an id only.
        self._told_session = session
        self._call_id = ""
        self._connected = False
        self._link: RoomLink | None = None  # made when the job first touches its real room
        self._shutdown_reason: str | None = None

    @property
    def _session(self) -> Session:
        """What the supervisor said. A call has none, and few ask: made when it is wanted."""
        if self._told_session is None:
            self._told_session = Session(JobInfo(self._call_id))
        return self._told_session

    # ── what there is ────────────────────────────────────────────────────────

    @property
    def job(self) -> JobInfo:
        """The job: id, room, type, metadata, agent_name, publisher, dispatch_id."""
        return self._session.job

    def is_fake_job(self) -> bool:
        """Return whether there is no real room behind the job."""
        return not self._session.url

    @property
    def room(self) -> Any:
        """The room: the real-time SDK's where LiveKit sent the job, else a plain record.

        In a plain entrypoint, which has no loop, always the record.
        """
        if self.is_fake_job() or running_loop() is None:
            return self.job.room
        return self._room_link().room

    @property
    def publisher(self) -> Any:
        """For ``ServerType.PUBLISHER``, the publisher that this job is for; else None.

        The SDK's ``RemoteParticipant`` once a real room is joined, before that a record.
        """
        record = self.job.publisher
        if self._link is None or record is None:
            return record
        return self._link.find(record.identity) or record

    @property
    def agent(self) -> Any:
        """The agent's own participant: what ``accept`` was given.

        The SDK's ``LocalParticipant`` once a real room is joined.
        """
        if self._link is not None and self._link.connected:
            return self._link.room.local_participant
        accepted = self.accept_arguments
        return Participant(
            identity=accepted.identity,
            name=accepted.name,
            metadata=accepted.metadata,
            attributes=accepted.attributes,
        )

    @property
    def accept_arguments(self) -> AcceptArguments:
        """What ``JobRequest.accept`` was given: name, identity, metadata, attributes."""
        return self.job.accept_arguments

    @property
    def local_participant_identity(self) -> str:
        """The agent's identity in the room."""
        return self.accept_arguments.identity

    def shutdown(self, reason: str = "") -> None:
        """End the job. The other half of the context says how."""
        raise NotImplementedError

    # ── what the job does there ──────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        """True once :meth:`connect` was called."""
        return self._connected

    async def connect(
        self,
        *,
        auto_subscribe: object = "subscribe_all",
        e2ee: object = None,
        rtc_config: object = None,
        **options: object,
    ) -> None:
        """Join the room. Without a real one: mark the session as begun.

        A job that has joined its room goes on when its entrypoint returns, and ends
        when the room disconnects or :meth:`shutdown` is called. Calling this again
        does nothing.

        Args:
            auto_subscribe: ``"subscribe_all"``, ``"subscribe_none"``, ``"audio_only"``,
                ``"video_only"``; a bool or LiveKit's ``AutoSubscribe`` will do.
            e2ee: the SDK's options for end-to-end encryption.
            rtc_config: the SDK's ``RtcConfiguration``.
            options: further fields of the SDK's ``RoomOptions``.

        Raises:
            RuntimeError: the SDK is not installed.
        """
        if not self.is_fake_job():
            encryption = options.pop("encryption", None)  # the SDK's other name for it
            await self._room_link().connect(
                auto_subscribe=auto_subscribe,
                e2ee=encryption if e2ee is None else e2ee,
                rtc_config=rtc_config,
                **options,
            )
        self._connected = True

    async def wait_for_participant(
        self, *, identity: str | None = None, kind: object = None
    ) -> Any:
        """Return the participant with *identity*, or the first one in the room.

        Without a real room: the publisher that the job is for.

        Args:
            identity: anybody's unless given.
            kind: the SDK's ``ParticipantKind``, one or several; people and phones unless given.

        Raises:
            RuntimeError: not connected yet; the room was left; or nobody can come, as
                there is no real room.
        """
        if not self._connected:
            raise RuntimeError("call ctx.connect() first")
        if self._link is not None:
            return await self._link.wait_for_participant(identity, kind)
        if self.publisher is not None and identity in (None, self.publisher.identity):
            return self.publisher
        raise RuntimeError(f"no participant {identity or ''} can join: there is no real room here")

    def add_participant_entrypoint(self, entrypoint_fnc: Callback, *, kind: object = None) -> None:
        """Have *entrypoint_fnc* called with this context and each participant of the room.

        It is async and runs as a task of its own, for those who are there and for
        those who come. Without a real room nobody does.

        Raises:
            ValueError: it was added before.
        """
        check_callback(entrypoint_fnc)
        if not self.is_fake_job():
            self._room_link().add_entrypoint(entrypoint_fnc, kind)

    @property
    def api(self) -> Any:
        """LiveKit's API: with this process's own key if it has one, else the job's token.

        The supervisor's key does not come here. The job's token allows what LiveKit
        put into it, which is little more than to join the room.

        Raises:
            RuntimeError: there is no LiveKit server behind this job.
        """
        if self.is_fake_job():
            raise RuntimeError("there is no LiveKit server behind this job")
        return self._room_link().api

    def delete_room(self, room_name: str = "") -> asyncio.Future[Any]:
        """Delete the room, with what :attr:`api` may do. Awaiting it is optional.

        Without a real room there is nothing to delete.
        """
        loop = asyncio.get_running_loop()
        if self.is_fake_job():
            done: asyncio.Future[Any] = loop.create_future()
            done.set_result(None)
            return done
        return loop.create_task(self._room_link().delete(room_name or self.job.room.name))

    # ── for the worker ───────────────────────────────────────────────────────

    def _room_link(self) -> RoomLink:
        if self._link is None:
            self._link = RoomLink(self._session, self, self.shutdown)
        return self._link

    async def _leave_room(self, seconds: float) -> None:
        """Leave the real room, if there is one, within *seconds*."""
        link, self._link = self._link, None
        if link is not None:
            await link.leave(seconds)


def through_the_room(entrypoint: Callable[..., Any], context: InRoom) -> Any:
    """Call the entrypoint; where it is async, what is returned lasts as long as its room."""
    value = entrypoint(context)
    return _to_the_end(value, context) if inspect.isawaitable(value) else value


async def _to_the_end(entrypoint: Awaitable[object], context: InRoom) -> None:
    await entrypoint
    if context._link is not None and context._shutdown_reason is None:
        await context._link.wait_over()
