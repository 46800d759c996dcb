"""A LiveKit server as far as agents see it: a real WebSocket, real messages, real tokens.

It does nothing by itself but what a test switches on: register whoever holds a
good token, assign what is accepted. Everything that arrives is kept, in order,
with the number of the connection that it came on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web
from livekit import api
from livekit.api.access_token import Claims
from livekit.protocol import agent, models

from tests.integration.conftest import soon

KEY = "APIkey0123456789"
SECRET = "a-secret-that-must-appear-in-no-log-0123456789"


@dataclass(frozen=True)
class Received:
    """One message of a server: what it is, and the connection it came on, counted from 1."""

    kind: str
    message: agent.WorkerMessage
    connection: int


class Endpoint:
    """See the head of this file.

    Args:
        tls: makes it speak ``wss``.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.port = 0
        self.registers = True  # answer a registration
        self.assigns = True  # assign what is accepted, at once
        self.refuses: int | None = None  # HTTP status instead of an upgrade
        self.drops_at: Callable[[str], bool] = lambda kind: False  # after a message of that kind
        self.answers_pings = True
        self.received: list[Received] = []
        self.requests: list[web.BaseRequest] = []
        self.claims: list[Claims] = []
        self.connections = 0
        self.closed_by_client: list[int] = []
        self._taken: set[int] = set()
        self._socket: web.WebSocketResponse | None = None
        self._transport: asyncio.Transport | None = None
        self._offered: dict[str, agent.Job] = {}
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Condition()

    # ── life ─────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        app = web.Application()
        app.router.add_get("/agent", self._agent)
        app.router.add_get("/prefix/agent", self._agent)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Hang up and listen no more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.drop()
            await runner.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"ws{'s' if self.tls else ''}://localhost:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """Options that lead a server here."""
        return {"ws_url": self.url, "api_key": KEY, "api_secret": SECRET}

    # ── what it says ─────────────────────────────────────────────────────────

    async def send(self, **message: Any) -> None:
        """Send a message of that kind."""
        await self.send_raw(agent.ServerMessage(**message).SerializeToString())

    async def send_raw(self, data: bytes | str) -> None:
        """Send a binary or a text frame."""
        assert self._socket is not None, "nobody is connected"
        if isinstance(data, str):
            await self._socket.send_str(data)
        else:
            await self._socket.send_bytes(data)

    async def offer(self, job_id: str, room: str = "studio", **more: Any) -> agent.Job:
        """Offer a job; return it."""
        resuming = more.pop("resuming", False)
        job = agent.Job(id=job_id, room=models.Room(name=room, sid=f"RM_{room}"), **more)
        self._offered[job_id] = job
        await self.send(availability=agent.AvailabilityRequest(job=job, resuming=resuming))
        return job

    async def assign(self, job_id: str, *, url: str | None = None, token: str = "") -> None:
        """Assign a job."""
        job = self._offered.get(job_id, agent.Job(id=job_id))
        token = token or self.job_token(job)
        await self.send(assignment=agent.JobAssignment(job=job, url=url, token=token))

    def job_token(self, job: agent.Job) -> str:
        """Return a token for the job's room, as LiveKit makes it."""
        grants = api.VideoGrants(room_join=True, room=job.room.name or "anywhere")
        token = api.AccessToken(KEY, SECRET).with_identity(f"agent-{job.id}").with_kind("agent")
        return token.with_grants(grants).to_jwt()

    async def terminate(self, job_id: str) -> None:
        """Tell that a job is to end."""
        await self.send(termination=agent.JobTermination(job_id=job_id))

    def drop(self) -> None:
        """Cut the connection, without a word."""
        transport, self._transport, self._socket = self._transport, None, None
        if transport is not None:
            transport.abort()

    # ── what it heard ────────────────────────────────────────────────────────

    def heard(self, kind: str) -> list[Any]:
        """Return everything of that kind so far, in order."""
        return [getattr(each.message, kind) for each in self.received if each.kind == kind]

    def statuses(self, job_id: str) -> list[str]:
        """Return the statuses of a job so far, in order."""
        updates = [each for each in self.heard("update_job") if each.job_id == job_id]
        return [agent.JobStatus.Name(each.status) for each in updates]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Return once *condition* holds; looked at after each message and each connection."""

        async def holds() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        await soon(holds())

    async def take(self, kind: str, matches: Callable[[Any], bool] = lambda message: True) -> Any:
        """Return the first message of that kind that matches and was not taken before."""
        found: list[tuple[int, Any]] = []

        def look() -> bool:
            for number, each in enumerate(self.received):
                if each.kind == kind and number not in self._taken:
                    message = getattr(each.message, kind)
                    if matches(message):
                        found.append((number, message))
                        return True
            return False

        await self.until(look)
        number, message = found[0]
        self._taken.add(number)
        return message

    @property
    def registrations(self) -> int:
        """How often somebody has registered."""
        return len(self.heard("register"))

    async def until_registered(self, before: int) -> None:
        """Return once somebody has registered since there were *before* registrations."""
        await self.until(lambda: self.registrations > before)

    async def until_told_or_lost(self, job_id: str, before: int) -> None:
        """Return once the job has begun and ended, or somebody has registered since."""
        await self.until(lambda: len(self.statuses(job_id)) == 2 or self.registrations > before)

    async def until_status(self, job_id: str, status: str) -> None:
        """Return once that status of a job was reported."""
        await self.until(lambda: status in self.statuses(job_id))

    # ── the connection ───────────────────────────────────────────────────────

    async def _agent(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.refuses is not None:
            return web.Response(status=self.refuses)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            assert scheme == "Bearer"
            claims = api.TokenVerifier(KEY, SECRET).verify(token)
            assert claims.video is not None and claims.video.agent
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            return web.Response(status=401, text="invalid token")
        self.claims.append(claims)
        socket = web.WebSocketResponse(autoping=self.answers_pings)
        await socket.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._socket, self._transport = socket, transport
        self.connections += 1
        number = self.connections
        await self._notify()
        with contextlib.suppress(ConnectionError):
            async for frame in socket:
                if frame.type is WSMsgType.BINARY:
                    await self._heard(frame.data, number)
        if socket.close_code == 1000:
            self.closed_by_client.append(number)
        await self._notify()
        return socket

    async def _heard(self, data: bytes, connection: int) -> None:
        message = agent.WorkerMessage.FromString(data)
        kind = message.WhichOneof("message") or "nothing"
        self.received.append(Received(kind, message, connection))
        if self.drops_at(kind):
            self.drop()
        elif kind == "register" and self.registers:
            info = models.ServerInfo(version="1.13.5", region="test", protocol=16)
            response = agent.RegisterWorkerResponse(worker_id=f"AW_{connection}", server_info=info)
            await self.send(register=response)
        elif kind == "availability" and message.availability.available and self.assigns:
            await self.assign(message.availability.job_id)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    """Run an endpoint for the block."""
    endpoint = Endpoint(tls)
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop()
