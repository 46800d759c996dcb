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
import errno
import json
import logging
import math
import os
import re
import socket
import stat
import struct
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
import psutil
from aiohttp import web
from msgspec.structs import asdict, fields

from supervisor.dispatch.base import Answer, Host, Place
from supervisor.errors import NotAdmitted, SupervisorError
from supervisor.handle import JobHandle
from supervisor.job import JobInfo, Participant, Room

logger = logging.getLogger("greenroom.dispatch.local")

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 1024 * 1024
# A body of a megabyte crosses a unix socket in milliseconds; who needs longer is stuck.
BODY_TIMEOUT: Final = 10.0
# After an early answer, such as a 413, the rest of the body is read and dropped
# for so long: a client that is still writing would otherwise never read it.
LINGERING_TIME: Final = 1.0
MAX_ENDED_JOBS: Final = 10_000
# Tracebacks are up to 64 KiB and metadata up to the body's limit: the count alone bounds nothing.
MAX_HISTORY_BYTES: Final = 64 * 1024 * 1024
DEFAULT_ENDED: Final = 100
# Answers to those who wait are on their way when this begins to count. aiohttp
# may spend it twice, and a server's way out has half a second in all.
CLOSE_GRACE: Final = 0.1
# Seconds after which asking again may help: places come free at any moment, a
# failing setup or a drain takes longer.
RETRY_AFTER: Final = {"load": 1, "max_jobs": 1}
RETRY_AFTER_OTHERWISE: Final = 5


class LocalHost(Host, Protocol):
    """What this dispatcher needs of its server beyond :class:`Host`."""

    def job_infos(
        self,
        *,
        room: str | Room,
        metadata: str = "",
        publishers: Sequence[str | Participant] = (),
        agent_name: str | None = None,
        job_id: str | None = None,
    ) -> list[JobInfo]:
        """Return the jobs to offer: one for each publisher, or one.

        Raises:
            ValueError: bad input, in a sentence for the client.
        """
        ...


# ── what clients send and get ────────────────────────────────────────────────


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


class _Room(_Body, frozen=True):
    name: str
    sid: str = ""
    metadata: str = ""


class _Participant(_Body, frozen=True):
    identity: str
    name: str = ""
    sid: str = ""
    metadata: str = ""
    attributes: dict[str, str] = {}


class _Submit(_Body, frozen=True):
    room: str | _Room
    metadata: str = ""
    publishers: list[str | _Participant] = []
    agent_name: str | None = None
    job_id: str | None = None
    wait: bool | float = False


class _Drain(_Body, frozen=True):
    timeout: float | msgspec.UnsetType | None = msgspec.UNSET


def _decode(body: bytes, kind: type[T]) -> T:
    """Return *body* as *kind*, or raise a 400 that names the field and what it must be."""
    try:
        data = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _error(web.HTTPBadRequest, f"the body is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise _error(web.HTTPBadRequest, f"expected a JSON object, got {type(data).__name__}")
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(data) - set(known)):
        sentence = f"unknown field {', '.join(unknown)}; known are {', '.join(known)}"
        raise _error(web.HTTPBadRequest, sentence)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as exc:
        # msgspec says "Expected `str`, got `int` - at `$.room.name`".
        what, _, where = str(exc).partition(" - at `$.")
        sentence = f"{where.rstrip('`')}: {what}" if where else what
        raise _error(web.HTTPBadRequest, sentence.replace("`", "'")) from exc


def _seconds(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise _error(web.HTTPBadRequest, f"{name}: expected seconds, 0 or more, got {value}")
    return value


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name)
    try:
        return default if text is None else _seconds(name, float(text))
    except ValueError:
        raise _error(web.HTTPBadRequest, f"{name}: expected a number, got {text!r}") from None


def _encode(data: object) -> bytes:
    try:
        return msgspec.json.encode(data, enc_hook=str)
    except UnicodeEncodeError:  # a lone surrogate in somebody's text: JSON can escape it
        return json.dumps(data, default=str).encode()


def _answer(data: object, status: int = 200, **headers: str) -> web.Response:
    return web.Response(
        body=_encode(data), status=status, content_type="application/json", headers=headers
    )


def _error(kind: type[web.HTTPError], sentence: str) -> web.HTTPError:
    return kind(text=sentence)


def _refusal(answer: Answer) -> web.Response:
    if answer.reason == "rejected":
        body = {"error": f"rejected: {answer.detail or 'on_request said no'}"}
        return _answer({**body, "reason": "rejected", "terminate": answer.terminate}, 409)
    error = str(NotAdmitted(answer.reason, answer.detail))
    retry = RETRY_AFTER.get(answer.reason, RETRY_AFTER_OTHERWISE)
    body = {"error": error, "reason": answer.reason, "detail": answer.detail}
    return _answer(body, 503, **{"Retry-After": str(retry)})


def _job(handle: JobHandle[Any]) -> dict[str, Any]:
    info, outcome = handle.info, handle.outcome
    return {
        "id": info.id,
        "status": handle.status.value,
        "pid": handle.pid,
        "room": info.room.name,
        "agent_name": info.agent_name,
        **({"metadata": info.metadata} if info.metadata else {}),
        **({"publisher": info.publisher.identity} if info.publisher else {}),
        "outcome": None if outcome is None else outcome.as_dict(),
    }


class _History:
    """Ended jobs as JSON, the oldest forgotten first. Bounded by count and by bytes.

    Not handles: those would keep each job's result in memory.
    """

    def __init__(self, *, max_jobs: int, max_bytes: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._bytes = 0
        self._jobs: OrderedDict[str, bytes] = OrderedDict()

    def add(self, job_id: str, text: bytes) -> None:
        self._bytes += len(text) - len(self._jobs.pop(job_id, b""))
        self._jobs[job_id] = text
        while len(self._jobs) > self._max_jobs or self._bytes > self._max_bytes:
            self._bytes -= len(self._jobs.popitem(last=False)[1])

    def get(self, job_id: str) -> bytes | None:
        return self._jobs.get(job_id)

    def latest(self, count: int) -> Iterable[bytes]:
        return islice(reversed(self._jobs.values()), count)


# ── where the socket lies ────────────────────────────────────────────────────


def socket_directory() -> Path:
    """Return the directory in which this user's servers have their sockets."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # After sudo or su the variable may still name somebody else's directory.
    if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid():
        return Path(runtime) / "greenroom"
    return Path(f"/tmp/greenroom-{os.geteuid()}")


def check_directory(directory: Path) -> None:
    """Check that only this user can reach into *directory*.

    Raises:
        SupervisorError: it is a symlink, no directory, somebody else's or open to others.
        FileNotFoundError: there is none.
    """
    found = os.lstat(directory)  # not stat: whoever planted a symlink chose where it leads
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        raise SupervisorError(f"{directory} is not a directory of our own: remove it")
    if found.st_uid != os.geteuid():
        raise SupervisorError(f"{directory} belongs to uid {found.st_uid}, not to this user")
    if mode & 0o077:
        raise SupervisorError(f"{directory} has mode {mode:04o}, expected 0700: chmod 700 it")


def answers(path: Path) -> bool:
    """Return whether a server listens on the socket at *path*. Does not block."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full, so there is somebody
            return True
        except OSError:
            return False
    return True


def peer_uid(peer: socket.socket) -> int:
    """Return the user on the other end of a connected unix socket, as the kernel knows it."""
    if sys.platform == "linux":
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    # Source: macOS <sys/un.h>, <sys/ucred.h>: SOL_LOCAL 0, LOCAL_PEERCRED 1, struct xucred.
    return int(struct.unpack_from("2I", peer.getsockopt(0, 1, 76))[1])


def _default_path() -> Path:
    directory = socket_directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    check_directory(directory)
    for path in directory.glob("*.sock"):
        named = re.fullmatch(r"(\d+)(-\d+)?\.sock", path.name)
        # Both: a pid of another container's namespace only looks dead, and a
        # server that has bound but does not listen yet only looks silent.
        if named and not psutil.pid_exists(int(named[1])) and not answers(path):
            path.unlink(missing_ok=True)
            logger.debug("removed %s: its process is gone", path)
    path, number = directory / f"{os.getpid()}.sock", 1
    while answers(path):  # a second server in this process
        number += 1
        path = directory / f"{os.getpid()}-{number}.sock"
    return path


def _listen(path: Path) -> socket.socket:
    """Return a listening socket at *path*, which only this user may connect to."""
    if path.is_socket() and not answers(path):
        path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)  # whoever is quicker than this line meets the check of credentials
        listener.listen(128)
    except OSError as exc:
        listener.close()
        reason = exc.strerror or str(exc)  # "AF_UNIX path too long" has no errno
        if exc.errno == errno.EADDRINUSE:
            other = "another server listens there" if answers(path) else "it is not a socket"
            reason = f"{other}; choose another path"
        raise SupervisorError(f"cannot listen on the control socket {path}: {reason}") from exc
    listener.setblocking(False)
    return listener


# ── the dispatcher ───────────────────────────────────────────────────────────


class LocalDispatcher:
    """Takes job requests on a unix socket; the command line and curl are its clients.

    Runs on: the server's loop, every method.

    Args:
        path: the socket; its directory is made with mode 0700 if it is missing.
            Default: ``$GREENROOM_SOCKET``, else ``<pid>.sock`` in :func:`socket_directory`.
    """

    def __init__(self, path: str | None = None) -> None:
        self._wanted = path or os.environ.get("GREENROOM_SOCKET") or None
        self.path: Path | None = None  # where it listens; None as long as it does not
        self._inode: tuple[int, int] | None = None
        self._runner: web.AppRunner | None = None
        self._active: dict[str, JobHandle[Any]] = {}
        self._history = _History(max_jobs=MAX_ENDED_JOBS, max_bytes=MAX_HISTORY_BYTES)
        self._offered: set[str] = set()  # ids between a request and its answer
        self._accepting: set[asyncio.Future[Any]] = set()

    @property
    def connected(self) -> bool:
        """True from :meth:`start` to :meth:`close`."""
        return self._runner is not None

    async def start(self, host: Host) -> None:
        """Listen.

        Args:
            host: the server, which has the methods of :class:`LocalHost` too.

        Raises:
            SupervisorError: the socket or its directory cannot be used.
        """
        assert self._runner is None, "a dispatcher is started once"
        self._host = cast(LocalHost, host)
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        path = self._prepare_path()
        listener = _listen(path)
        found = os.stat(path)
        self.path, self._inode = path, (found.st_dev, found.st_ino)
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
            lingering_time=LINGERING_TIME,
            shutdown_timeout=CLOSE_GRACE,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        logger.info("control socket: %s", path)

    def drain_began(self) -> None:
        """Nothing to do: the server refuses offers by itself, and this keeps answering."""

    def track(self, handle: JobHandle[Any]) -> None:
        """Show *handle*, a job that came another way, in ``/jobs`` like our own."""
        self._active[handle.id] = handle
        handle.add_done_callback(self._ended)

    async def close(self) -> None:
        """Answer those who wait with what is known, stop listening, remove the socket.

        Takes 0.2 s at most, whatever clients do, once no request is being offered.
        """
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        if self._accepting:
            await asyncio.wait(self._accepting)
        self._closing.set_result(None)
        await runner.cleanup()
        assert self.path is not None, "it listened, so it has a path"
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            # Somebody may have removed ours and put another in its place.
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.path)
        self.path = None

    def _prepare_path(self) -> Path:
        try:
            if self._wanted is None:
                return _default_path()
            path = Path(self._wanted).absolute()
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return path
        except OSError as exc:
            raise SupervisorError(f"cannot make a place for the control socket: {exc}") from exc

    def _ended(self, handle: JobHandle[Any]) -> None:
        if self._active.get(handle.id) is handle:
            del self._active[handle.id]
        self._history.add(handle.id, _encode(_job(handle)))

    # ── requests ─────────────────────────────────────────────────────────────

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let this user and root in; turn every error into JSON."""
        try:
            self._check_peer(request)
            return await handler(request)
        except web.HTTPException as exc:
            headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
            response = _answer({"error": exc.text or exc.reason}, exc.status, **headers)
            if exc.status in (403, 408, 413):
                response.force_close()  # what else comes on this connection is not wanted
            return response
        except Exception:  # at the top of a request: the client gets a 500, the log the rest
            logger.exception("%s %s failed", request.method, request.path)
            return _answer({"error": "internal error, see the server's log"}, 500)

    def _check_peer(self, request: web.Request) -> None:
        transport = request.transport
        if transport is None:
            raise _error(web.HTTPForbidden, "the client is gone")
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            logger.warning("refused a client of uid %d on the control socket", uid)
            raise _error(web.HTTPForbidden, f"this server does not talk to uid {uid}")

    async def _read(self, request: web.Request, kind: type[T]) -> T:
        try:
            body = await asyncio.wait_for(request.read(), BODY_TIMEOUT)
        except asyncio.TimeoutError:
            sentence = f"the body did not arrive within {BODY_TIMEOUT:g} s"
            raise _error(web.HTTPRequestTimeout, sentence) from None
        except web.HTTPRequestEntityTooLarge:
            sentence = f"the body is over the limit of {MAX_BODY_BYTES} bytes"
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, 0, text=sentence) from None
        return _decode(body, kind)

    async def _submit(self, request: web.Request) -> web.Response:
        order = await self._read(request, _Submit)
        wait = None if order.wait is True else _seconds("wait", float(order.wait))
        infos = self._infos(order)
        accepting = asyncio.ensure_future(self._accept(infos))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        # Shielded: a place that the server keeps must be used or given back,
        # also when the client is gone before the answer.
        accepted = await asyncio.shield(accepting)
        if isinstance(accepted, web.Response):
            return accepted
        await self._wait(accepted, wait)
        return _answer({"jobs": [_job(handle) for handle in accepted]}, 202)

    def _infos(self, order: _Submit) -> list[JobInfo]:
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
            raise _error(web.HTTPBadRequest, str(exc)) from exc
        # Taken here and not in _accept, whose task begins later: there is no await
        # between the look and the taking, so two requests cannot share an id.
        in_use = {job.id for job in self._host.active_jobs}.union(self._active, self._offered)
        for info in infos:
            if info.id in in_use:
                raise _error(web.HTTPConflict, f"job id {info.id} is in use")
        self._offered.update(info.id for info in infos)
        return infos

    async def _accept(self, infos: list[JobInfo]) -> list[JobHandle[Any]] | web.Response:
        """Offer all, then start all; or give back what was kept and say why."""
        places: list[Place] = []
        handles: list[JobHandle[Any]] = []
        try:
            for info in infos:
                answer = await self._host.offer(info)
                if answer.place is None:
                    return _refusal(answer)
                places.append(answer.place)
            while places:
                handles.append(places.pop(0).start())
                self.track(handles[-1])
            return handles
        finally:
            for place in places:
                place.give_back()
            self._offered.difference_update(info.id for info in infos)

    async def _wait(self, handles: list[JobHandle[Any]], seconds: float | None) -> None:
        """Return when all have ended, *seconds* are over (None: never) or we close."""
        if seconds == 0:
            return
        ended = asyncio.gather(*(handle.wait() for handle in handles))
        either: set[asyncio.Future[Any]] = {ended, self._closing}
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()

    async def _list(self, request: web.Request) -> web.Response:
        ended = int(_number(request.query, "ended", DEFAULT_ENDED))
        jobs: list[object] = [_job(handle) for handle in self._active.values()]
        jobs.extend(msgspec.Raw(text) for text in self._history.latest(ended))
        return _answer({"jobs": jobs})

    async def _show(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        seconds = _number(request.query, "wait", 0.0)
        handle = self._active.get(job_id)
        if handle is not None:
            await self._wait([handle], seconds)
            return _answer(_job(handle))
        return _answer(msgspec.Raw(self._known(job_id)))

    async def _cancel(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        handle = self._active.get(job_id)
        if handle is None:
            self._known(job_id)
        if handle is None or not handle.cancel():
            raise _error(web.HTTPConflict, f"job {job_id} has ended")
        return _answer(_job(handle), 202)

    def _known(self, job_id: str) -> bytes:
        text = self._history.get(job_id)
        if text is None:
            raise _error(web.HTTPNotFound, f"no job {job_id} here")
        return text

    async def _status(self, request: web.Request) -> web.Response:
        reason = self._host.not_ready()
        return _answer({**self._host.status(), "ready": reason is None, "reason": reason})

    async def _drain(self, request: web.Request) -> web.Response:
        order = await self._read(request, _Drain)
        if isinstance(order.timeout, msgspec.UnsetType):
            self._host.begin_drain()
        elif order.timeout is None:
            self._host.begin_drain(None)
        else:
            self._host.begin_drain(_seconds("timeout", order.timeout))
        logger.info("asked to drain over the control socket")
        return _answer({"draining": True}, 202)
