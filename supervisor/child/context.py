"""What a job sees of the world it runs in: its process and its context.

A worker runs one job at a time, so "the current job" is a fact of the process,
not of a thread or a task. It is kept in one module variable, and is found from
helper threads and from callbacks that no context variable would reach.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Callable
from typing import Any, Final

from supervisor.child.callbacks import Callback, call_detached, check_callback, running_loop
from supervisor.child.inroom import InRoom
from supervisor.errors import OptionError
from supervisor.job import JobExecutorType, Session


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


class JobContext(InRoom):
    """One job, as its entrypoint sees it.

    Runs on: the entrypoint's loop or thread; ``shutdown`` and the fields may be
    used from any thread of the job's process.
    """

    def __init__(
        self,
        proc: JobProcess,
        session: Session | None = None,
        *,
        on_shutdown: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(session)
        self._proc = proc
        self._on_shutdown = on_shutdown
        self._shutdown_callbacks: list[Callback] = []
        self._drain_callbacks: list[Callback] = []
        self._log_fields: dict[str, object] = {}
        self._drain_deadline: float | None = None
        self._draining = False
        # Reentrant: a signal handler of the user may call in while its thread holds it.
        self._lock = threading.RLock()

    # ── what the job is ──────────────────────────────────────────────────────

    @property
    def proc(self) -> JobProcess:
        """The process, with what ``setup_fnc`` prepared in ``proc.userdata``."""
        return self._proc

    @property
    def worker_id(self) -> str:
        """The id of the server that took the job."""
        return self._session.worker_id

    @property
    def log_context_fields(self) -> dict[str, object]:
        """Fields that go onto every record that this job logs. Change or replace it."""
        return self._log_fields

    @log_context_fields.setter
    def log_context_fields(self, fields: dict[str, object]) -> None:
        self._log_fields = dict(fields)

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

    def shutdown(self, reason: str = "") -> None:
        """End the job: it may finish by itself for the grace, then it is cancelled.

        The shutdown callbacks get *reason*. Only the first call counts.
        Runs on: any thread of the job's process.

        Raises:
            OptionError: *reason* is no text.
        """
        if not isinstance(reason, str):
            raise OptionError("reason", reason, "a string")
        with self._lock:
            if self._shutdown_reason is not None:
                return
            self._shutdown_reason = reason
        if self._link is not None:
            self._link.end()
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
        check_callback(callback)
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
        check_callback(callback)
        with self._lock:
            self._drain_callbacks.append(callback)
            late = self._draining
        if late:
            call_detached(callback, self._drain_deadline, running_loop())

    # ── for the worker ───────────────────────────────────────────────────────

    def _drain_began(self, deadline: float | None, loop: asyncio.AbstractEventLoop | None) -> None:
        """Tell the job. Runs on: the control thread."""
        with self._lock:
            self._drain_deadline = deadline
            self._draining = True
            callbacks = list(self._drain_callbacks)
        for callback in callbacks:
            call_detached(callback, deadline, loop)

    def _take_shutdown_callbacks(self) -> list[Callback]:
        callbacks, self._shutdown_callbacks = self._shutdown_callbacks, []
        return callbacks


class Now:
    """The job of this process; None if none runs. Set by the worker's main thread."""

    context: JobContext | None = None


NOW: Final = Now()


def current() -> JobContext | None:
    """Return the job of this process, or None."""
    return NOW.context


def get_job_context() -> JobContext:
    """Return the context of the job that this process runs.

    Runs on: any thread or task of the job's process.

    Raises:
        RuntimeError: no job runs here.
    """
    context = NOW.context
    if context is None:
        raise RuntimeError("no job runs in this process: get_job_context() works inside a job")
    return context
