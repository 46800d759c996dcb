"""The embedded dispatcher: job requests over HTTP on a unix socket of this user.

===========================  ====================================================
``POST /jobs``               ask for jobs; 202, or why not: 400, 409, 413, 503
``GET /jobs?ended=N``        all active jobs and the last N (100) ended ones
``GET /jobs/{id}?wait=S``    one job, after at most S seconds of waiting for its end
``DELETE /jobs/{id}``        ask it to stop; 202, or 404, or 409 if it has ended
``GET /status``              the server's status, ``ready`` and the reason
``POST /drain``              begin the drain that SIGTERM begins; 202
===========================  ====================================================

Who may talk to it: the user who runs the server, and root. The directory of the
socket keeps others out, and each connection's credentials are checked as well,
since a path that the user chose may lie in an open directory.

One request for several publishers is all or nothing: a refusal of one gives the
places of the others back. Once a request has been read, it is carried out even
if its client goes away; only waiting ends with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec.structs import asdict

from ipc.errors import PayloadTooLarge
from supervisor.dispatch.base import Answer, Host
from supervisor.dispatch.sockets import ControlSocket, peer_uid
from supervisor.dispatch.together import start_all
from supervisor.dispatch.wire import (
    DrainBody,
    History,
    SubmitBody,
    checked_seconds,
    decode,
    encode,
    failure,
    job_as_data,
    query_number,
    refusal,
    respond,
)
from supervisor.errors import SupervisorError
from supervisor.handle import JobHandle
from supervisor.job import JobInfo, Participant, Room
from supervisor.within import within

logger = logging.getLogger("greenroom.dispatch.local")

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 1024 * 1024
# A body of a megabyte crosses a unix socket in milliseconds; who needs longer is stuck.
BODY_TIMEOUT: Final = 10.0
# The same for a head. Also how long a connection may be idle: one that waits for the
# server's end opens another.
HEAD_TIMEOUT: Final = 60.0
# After an early answer, such as a 413, the rest of the body is read and dropped
# for so long: a client that is still writing would otherwise never read it.
LINGERING_TIME: Final = 1.0
MAX_ENDED_JOBS: Final = 10_000
# Tracebacks are up to 64 KiB and metadata up to the body's limit: the count alone bounds nothing.
MAX_HISTORY_BYTES: Final = 64 * 1024 * 1024
DEFAULT_ENDED: Final = 100
# For those who are being let in at the moment of a pause to be seen.
PAUSE_LINGER: Final = 0.2
# A client sends its first request right after it has connected, unless the machine is
# very busy. Who is let in and stays mute for so long has nothing to lose.
MUTE_TIMEOUT: Final = 3.0
# Answers to those who wait are on their way when this begins to count. aiohttp
# may spend it twice, and a server's way out has half a second in all.
CLOSE_GRACE: Final = 0.1


class LocalDispatcher:
    """Takes job requests on a unix socket; the command line and curl are its clients.

    Runs on: the server's loop, every method.

    Args:
        path: the socket; its directory is made with mode 0700 if it is missing.
            Default: ``$GREENROOM_SOCKET``, else ``<pid>.sock`` in :func:`socket_directory`.
        listener: a socket that listens at *path* already and stays somebody else's,
            as does the file; without it both are made and removed here.
    """

    def __init__(self, path: str | None = None, *, listener: socket.socket | None = None) -> None:
        wanted = path or os.environ.get("GREENROOM_SOCKET") or None
        self._socket = ControlSocket(wanted, listener)
        self._site: web.SockSite | None = None
        self._runner: web.AppRunner | None = None
        self._active: dict[str, JobHandle[Any]] = {}
        self._history = History(max_jobs=MAX_ENDED_JOBS, max_bytes=MAX_HISTORY_BYTES)
        self._offered: set[str] = set()  # ids between a request and its answer
        self._accepting: set[asyncio.Future[Any]] = set()
        # Connections that have asked for something, and that somebody has just done so.
        self._heard: set[object] = set()
        self._somebody_spoke = asyncio.Event()

    @property
    def path(self) -> Path | None:
        """Where it listens; None as long as it does not."""
        return self._socket.path

    @property
    def connected(self) -> bool:
        """True from :meth:`start` to :meth:`close`."""
        return self._runner is not None

    async def start(self, host: Host) -> None:
        """Listen.

        Args:
            host: the server.

        Raises:
            SupervisorError: the socket or its directory cannot be used.
        """
        assert self._runner is None, "a dispatcher is started once"
        self._host = host
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        listener = self._socket.open()
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/jobs", self._submit)
        app.router.add_get("/jobs", self._list)
        app.router.add_get("/jobs/{id}", self._show)
        app.router.add_delete("/jobs/{id}", self._cancel)
        app.router.add_get("/status", self._status)
        app.router.add_post("/drain", self._drain)
        # Cancellation ends the waiting of clients that went away.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=HEAD_TIMEOUT,
            lingering_time=LINGERING_TIME,
            shutdown_timeout=CLOSE_GRACE,
        )
        await self._runner.setup()
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
        logger.info("control socket: %s", self.path)

    def drain_began(self) -> None:
        """Nothing to do: the server refuses offers by itself, and this keeps answering."""

    def track(self, handle: JobHandle[Any]) -> None:
        """Show *handle*, a job that came another way, in ``/jobs`` like our own."""
        self._active[handle.id] = handle
        handle.add_done_callback(self._ended)

    # ── one server takes over from another (Heir) ────────────────────────────

    def inherit(self, ended: list[tuple[str, str]]) -> None:
        """Know the predecessor's ended jobs: ids and JSON. Before :meth:`start`."""
        for job_id, text in ended:
            self._history.add(job_id, text.encode())

    def estate(self) -> list[tuple[str, str]]:
        """Return the ended jobs, the oldest first."""
        return self._history.all()

    async def pause(self) -> None:
        """Take no more requests, and return when those that were taken are answered.

        Clients that wait for a job's end are told that it goes on: they ask again,
        and the successor answers.
        """
        assert self._site is not None, "it listens"
        await self._site.stop()
        await asyncio.sleep(PAUSE_LINGER)
        # Who was let in and has not said what for: its request may be on its way.
        with contextlib.suppress(asyncio.TimeoutError):
            await within(MUTE_TIMEOUT, self._all_heard())
        while self._accepting:
            await asyncio.wait(self._accepting)
        self._end_waiting()

    async def _all_heard(self) -> None:
        while not self._heard.issuperset(self._connections()):
            self._somebody_spoke.clear()
            await self._somebody_spoke.wait()

    def _connections(self) -> list[web.RequestHandler]:
        server = None if self._runner is None else self._runner.server
        return [] if server is None else server.connections

    async def close(self) -> None:
        """Answer those who wait with what is known, stop listening, remove the socket.

        Takes 0.2 s at most, whatever clients do, once no request is being offered.
        """
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        if self._accepting:
            await asyncio.wait(self._accepting)
        self._end_waiting()
        await runner.cleanup()
        self._socket.remove()

    def _end_waiting(self) -> None:
        if not self._closing.done():
            self._closing.set_result(None)

    def _ended(self, handle: JobHandle[Any]) -> None:
        if self._active.get(handle.id) is handle:
            del self._active[handle.id]
        self._history.add(handle.id, encode(job_as_data(handle)))

    # ── requests ─────────────────────────────────────────────────────────────

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let this user and root in; turn every error into JSON."""
        if request.method != "POST":  # whose body may be on its way
            self._hear(request)
        try:
            self._check_peer(request)
            return await handler(request)
        except web.HTTPException as exc:
            headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
            response = respond({"error": exc.text or exc.reason}, exc.status, **headers)
            if exc.status in (403, 408, 413):
                response.force_close()  # what else comes on this connection is not wanted
            return response
        except Exception:  # at the top of a request: the client gets a 500, the log the rest
            logger.exception("%s %s failed", request.method, request.path)
            return respond({"error": "internal error, see the server's log"}, 500)
        finally:
            self._hear(request)

    def _hear(self, request: web.Request) -> None:
        self._heard.intersection_update(self._connections())
        self._heard.add(request.protocol)
        self._somebody_spoke.set()

    def _check_peer(self, request: web.Request) -> None:
        transport = request.transport
        if transport is None:
            raise failure(web.HTTPForbidden, "the client is gone")
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            logger.warning("refused a client of uid %d on the control socket", uid)
            raise failure(web.HTTPForbidden, f"this server does not talk to uid {uid}")

    async def _read(self, request: web.Request, kind: type[T]) -> T:
        try:
            body = await asyncio.wait_for(request.read(), BODY_TIMEOUT)
        except asyncio.TimeoutError:
            sentence = f"the body did not arrive within {BODY_TIMEOUT:g} s"
            raise failure(web.HTTPRequestTimeout, sentence) from None
        except web.HTTPRequestEntityTooLarge:
            sentence = f"the body is over the limit of {MAX_BODY_BYTES} bytes"
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, 0, text=sentence) from None
        return decode(body, kind)

    async def _submit(self, request: web.Request) -> web.Response:
        order = await self._read(request, SubmitBody)
        wait = None if order.wait is True else checked_seconds("wait", float(order.wait))
        infos = self._infos(order)
        accepting = asyncio.ensure_future(self._accept(infos))
        self._accepting.add(accepting)
        self._hear(request)
        accepting.add_done_callback(self._accepting.discard)
        # Shielded: a place that the server keeps must be used or given back,
        # also when the client is gone before the answer.
        accepted = await asyncio.shield(accepting)
        if isinstance(accepted, web.Response):
            return accepted
        await self._wait(accepted, wait)
        return respond({"jobs": [job_as_data(handle) for handle in accepted]}, 202)

    def _infos(self, order: SubmitBody) -> list[JobInfo]:
        room = order.room if isinstance(order.room, str) else Room(**asdict(order.room))
        publishers = [
            each if isinstance(each, str) else Participant(**asdict(each))
            for each in order.publishers
        ]
        try:
            infos = self._host.job_infos(
                room=room,
                metadata=order.metadata,
                publishers=publishers,
                agent_name=order.agent_name,
                job_id=order.job_id,
            )
        except ValueError as exc:
            raise failure(web.HTTPBadRequest, str(exc)) from exc
        # Taken here and not in _accept, whose task begins later: there is no await
        # between the look and the taking, so two requests cannot share an id.
        in_use = {job.id for job in self._host.active_jobs}.union(self._active, self._offered)
        for info in infos:
            if info.id in in_use:
                raise failure(web.HTTPConflict, f"job id {info.id} is in use")
        self._offered.update(info.id for info in infos)
        return infos

    async def _accept(self, infos: list[JobInfo]) -> list[JobHandle[Any]] | web.Response:
        """Start all and show them; or start none and say why."""
        try:
            handles = await start_all(self._host, infos)
        except PayloadTooLarge as exc:
            sentence = str(exc)
            raise web.HTTPRequestEntityTooLarge(exc.limit, exc.size, text=sentence) from exc
        except SupervisorError as exc:
            raise failure(web.HTTPServiceUnavailable, str(exc)) from exc
        finally:
            self._offered.difference_update(info.id for info in infos)
        if isinstance(handles, Answer):
            return refusal(handles)
        for handle in handles:
            self.track(handle)
        return handles

    async def _wait(self, handles: list[JobHandle[Any]], seconds: float | None) -> None:
        """Return when all have ended, *seconds* are over (None: never) or we close."""
        if seconds == 0:
            return
        ended = asyncio.ensure_future(_all_ended(handles))
        either: set[asyncio.Future[Any]] = {ended, self._closing}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def _list(self, request: web.Request) -> web.Response:
        ended = int(query_number(request.query, "ended", DEFAULT_ENDED))
        jobs: list[object] = [job_as_data(handle) for handle in self._active.values()]
        jobs.extend(msgspec.Raw(text) for text in self._history.latest(ended))
        return respond({"jobs": jobs})

    async def _show(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        seconds = query_number(request.query, "wait", 0.0)
        handle = self._active.get(job_id)
        if handle is not None:
            await self._wait([handle], seconds)
            return respond(job_as_data(handle))
        return respond(msgspec.Raw(self._known(job_id)))

    async def _cancel(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        handle = self._active.get(job_id)
        if handle is None:
            self._known(job_id)
        if handle is None or not handle.cancel():
            raise failure(web.HTTPConflict, f"job {job_id} has ended")
        return respond(job_as_data(handle), 202)

    def _known(self, job_id: str) -> bytes:
        text = self._history.get(job_id)
        if text is None:
            raise failure(web.HTTPNotFound, f"no job {job_id} here")
        return text

    async def _status(self, request: web.Request) -> web.Response:
        reason = self._host.not_ready()
        return respond({**self._host.status(), "ready": reason is None, "reason": reason})

    async def _drain(self, request: web.Request) -> web.Response:
        order = await self._read(request, DrainBody)
        if isinstance(order.timeout, msgspec.UnsetType):
            self._host.begin_drain()
        elif order.timeout is None:
            self._host.begin_drain(None)
        else:
            self._host.begin_drain(checked_seconds("timeout", order.timeout))
        logger.info("asked to drain over the control socket")
        return respond({"draining": True}, 202)


async def _all_ended(handles: list[JobHandle[Any]]) -> None:
    for handle in handles:
        await handle.wait()
