"""What a job sees of the world it runs in: its process and its context.

A worker runs one job at a time, so "the current job" is a fact of the process,
not of a thread or a task. It is kept in one module variable, and is found from
helper threads and from callbacks that no context variable would reach.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from supervisor.job import (
    AcceptArguments,
    JobExecutorType,
    JobInfo,
    Participant,
    Room,
    Session,
)

logger = logging.getLogger("greenroom.job")

Callback = Callable[..., object]


class JobProcess:
    """The process that a job runs in, as ``setup_fnc`` and the job see it.

    Args:
        userdata: what ``preload_fnc`` and ``setup_fnc`` left for the jobs.
        user_arguments: the option of that name.
        http_proxy: the option of that name.
    """

    def __init__(
        self,
        *,
        userdata: dict[str, Any] | None = None,
        user_arguments: Any = None,
        http_proxy: str | None = None,
    ) -> None:
        self._userdata: dict[str, Any] = {} if userdata is None else userdata
        self._user_arguments = user_arguments
        self._http_proxy = http_proxy

    @property
    def pid(self) -> int:
        """This process's id."""
        return os.getpid()

    @property
    def userdata(self) -> dict[str, Any]:
        """Objects that were prepared: put them here in a hook, take them in the job."""
        return self._userdata

    @property
    def executor_type(self) -> JobExecutorType:
        """Where jobs run: a process."""
        return JobExecutorType.PROCESS

    @property
    def user_arguments(self) -> Any:
        """The option of that name, as it arrived here."""
        return self._user_arguments

    @property
    def http_proxy(self) -> str | None:
        """The proxy that outgoing connections should use, if any."""
        return self._http_proxy

    def __repr__(self) -> str:
        return f"<JobProcess {self.pid}, userdata {sorted(self._userdata)}>"


_NO_SESSION: Final = Session(JobInfo(""))


class JobContext:
    """One job, as its entrypoint sees it.

    Runs on: the entrypoint's loop or thread; ``shutdown`` and the fields may be
    used from any thread of the job's process.
    """

    def __init__(
        self,
        proc: JobProcess,
        session: Session = _NO_SESSION,
    ) -> None:
        self._session = session
        self._proc = proc
        self._on_shutdown: Callable[[str], None] | None = None
        self._shutdown_callbacks: list[Callback] = []
        self._drain_callbacks: list[Callback] = []
        self._log_fields: dict[str, object] = {}
        self._connected = False
        self._shutdown_reason: str | None = None
        self._drain_deadline: float | None = None
        self._draining = False
        # Reentrant: a signal handler of the user may call in while its thread holds it.
        self._lock = threading.RLock()

    # ── what the job is ──────────────────────────────────────────────────────

    @property
    def job(self) -> JobInfo:
        """The job: id, room, type, metadata, agent_name, publisher, dispatch_id."""
        return self._session.job

    @property
    def proc(self) -> JobProcess:
        """The process, with what ``setup_fnc`` prepared in ``proc.userdata``."""
        return self._proc

    @property
    def room(self) -> Room:
        """The room: a plain record of its name and metadata."""
        return self.job.room

    @property
    def publisher(self) -> Participant | None:
        """For ``ServerType.PUBLISHER``, the publisher that this job is for; else None."""
        return self.job.publisher

    @property
    def agent(self) -> Participant:
        """The agent's own participant, from what ``accept`` was given."""
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

    @property
    def worker_id(self) -> str:
        """The id of the server that took the job."""
        return self._session.worker_id

    @property
    def log_context_fields(self) -> dict[str, object]:
        """Fields that go onto every log record of this job. Change or replace it."""
        return self._log_fields

    @log_context_fields.setter
    def log_context_fields(self, fields: dict[str, object]) -> None:
        self._log_fields = dict(fields)

    def is_fake_job(self) -> bool:
        """Return whether there is no real room behind the job."""
        return self._session.fake or not self._session.url

    def token_claims(self) -> dict[str, Any]:
        """Return the claims of the job's own token, unverified; empty without one.

        The token came from the server that signed it, over our own channel.
        """
        if not self._session.token:
            return {}
        body = self._session.token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        assert isinstance(claims, dict)
        return claims

    # ── what the job does ────────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        """True once :meth:`connect` was called."""
        return self._connected

    async def connect(self, **options: Any) -> None:
        """Join the room. Without LiveKit: mark the session as begun.

        *options* are for the room that is joined; without one they are not used.
        Calling it again does nothing.
        """
        self._connected = True

    async def wait_for_participant(self, *, identity: str | None = None) -> Participant:
        """Return the participant with *identity*, or the first one in the room.

        Without a real room: the publisher that the job is for.

        Raises:
            RuntimeError: not connected yet, or nobody can come: there is no real room.
        """
        if not self._connected:
            raise RuntimeError("call ctx.connect() first")
        if self.publisher is not None and identity in (None, self.publisher.identity):
            return self.publisher
        raise RuntimeError(f"no participant {identity or ''} can join: there is no real room here")

    def shutdown(self, reason: str = "") -> None:
        """End the job: it may finish by itself for the grace, then it is cancelled.

        The shutdown callbacks get *reason*. Only the first call counts.
        Runs on: any thread of the job's process.
        """
        with self._lock:
            if self._shutdown_reason is not None:
                return
            self._shutdown_reason = reason
        if self._on_shutdown is not None:
            self._on_shutdown(reason)

    @property
    def shutdown_reason(self) -> str | None:
        """What :meth:`shutdown` was given; None as long as nobody called it."""
        return self._shutdown_reason

    def add_shutdown_callback(self, callback: Callback) -> None:
        """Have *callback* called when the job ends, however it ends.

        Plain or async; called with the reason where it takes an argument. All
        callbacks together have the grace (``shutdown_process_timeout``).
        """
        _check_callback(callback)
        self._shutdown_callbacks.append(callback)

    # ── drain ────────────────────────────────────────────────────────────────

    @property
    def draining(self) -> bool:
        """True once the server drains: finish soon."""
        return self._draining

    @property
    def drain_deadline(self) -> float | None:
        """When the job will be asked to stop (``time.monotonic()`` seconds).

        None: no drain, or a drain without a deadline.
        """
        return self._drain_deadline

    def add_drain_callback(self, callback: Callback) -> None:
        """Have *callback* called when the server begins to drain; at once if it did.

        Plain or async; called with the deadline where it takes an argument: a
        moment on ``time.monotonic()``, or None for no deadline. With an async
        entrypoint it runs on the entrypoint's loop, with a plain one in a
        thread of its own.
        """
        _check_callback(callback)
        with self._lock:
            self._drain_callbacks.append(callback)
            late = self._draining
        if late:
            _call_detached(callback, self._drain_deadline, _running_loop())

    # ── for the worker ───────────────────────────────────────────────────────

    def _begin(self, session: Session, on_shutdown: Callable[[str], None]) -> None:
        """Be the context of this job. Runs on: the main thread, before user code."""
        self._session = session
        self._on_shutdown = on_shutdown

    def _drain_began(self, deadline: float | None, loop: asyncio.AbstractEventLoop | None) -> None:
        """Tell the job. Runs on: the control thread."""
        with self._lock:
            self._drain_deadline = deadline
            self._draining = True
            callbacks = list(self._drain_callbacks)
        for callback in callbacks:
            _call_detached(callback, deadline, loop)

    def _take_shutdown_callbacks(self) -> list[Callback]:
        callbacks, self._shutdown_callbacks = self._shutdown_callbacks, []
        return callbacks


# The job of this process. See the head of the file.
_current: JobContext | None = None


def set_current(context: JobContext | None) -> None:
    """Make *context* the job of this process. For the worker's main thread."""
    global _current  # noqa: PLW0603 - see the head of the file
    _current = context


def current() -> JobContext | None:
    """Return the job of this process, or None."""
    return _current


def get_job_context() -> JobContext:
    """Return the context of the job that this process runs.

    Runs on: any thread or task of the job's process.

    Raises:
        RuntimeError: no job runs here.
    """
    if _current is None:
        raise RuntimeError("no job runs in this process: get_job_context() works inside a job")
    return _current


def takes_argument(callback: Callback) -> bool:
    """Return whether *callback* can be called with one positional argument."""
    try:
        inspect.signature(callback).bind(None)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return False
    return True


async def call(callback: Callback, argument: object) -> None:
    """Call *callback*, with *argument* where it takes one, and await what it returns."""
    result = callback(argument) if takes_argument(callback) else callback()
    if inspect.isawaitable(result):
        await result


def _check_callback(callback: object) -> None:
    if not callable(callback):
        raise TypeError(f"expected a function to call, got {callback!r}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call_detached(
    callback: Callback, argument: object, loop: asyncio.AbstractEventLoop | None
) -> None:
    """Call *callback* on *loop*, or in a thread of its own when there is none."""

    async def guarded() -> None:
        try:
            await call(callback, argument)
        except (Exception, SystemExit):  # noqa: BLE001 - a user's callback must not end the job
            logger.exception("a drain callback raised")

    if loop is not None:
        loop.call_soon_threadsafe(lambda: loop.create_task(guarded()))
        return
    threading.Thread(
        target=lambda: asyncio.run(guarded()), name="greenroom-drain-callback", daemon=True
    ).start()
