"""The caller's end of a job: wait for it, cancel it, read how it ended.

A handle belongs to the loop of its pool. Its result stays as bytes until
somebody awaits it: unpickling runs the job's code, so it happens in the caller,
never in the supervisor's own callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, Generic, NoReturn, TypeVar

from ipc.messages import MAX_REASON, cut
from supervisor.errors import OptionError
from supervisor.job import JobInfo, JobOutcome, JobStatus
from supervisor.results import Parcel, open_parcel

T = TypeVar("T")

logger = logging.getLogger("greenroom.job")


class JobHandle(Generic[T]):
    """One accepted job.

    ``await handle`` returns what the job returned, or raises: what it raised,
    with the remote traceback as cause; :class:`~supervisor.errors.WorkerLost`,
    :class:`~supervisor.errors.JobKilled`, :class:`~supervisor.errors.JobTimedOut`
    or :class:`~supervisor.errors.JobWasCancelled`.

    Runs on: the pool's loop, every method.
    """

    # What a job begins with is the class's: setting it is not on each job's way.

    # The pool's own record of the job; nothing for the caller.
    record: Any = None
    _status = JobStatus.PENDING
    _pid: int | None = None
    _outcome: JobOutcome | None = None
    _parcel: Parcel | None = None
    # Opened once, by the first who asks; the bytes are let go then.
    _opened: tuple[Any, BaseException | None] | None = None

    def __init__(
        self,
        info: JobInfo,
        *,
        cancel: Callable[[JobHandle[Any], str], bool],
        cancel_with_caller: bool = False,
    ) -> None:
        self._info = info
        self._cancel = cancel
        self._cancel_with_caller = cancel_with_caller
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[JobHandle[T]], object]] = []

    @property
    def id(self) -> str:
        """The job's id."""
        return self._info.id

    @property
    def info(self) -> JobInfo:
        """The job as its dispatcher described it."""
        return self._info

    @property
    def status(self) -> JobStatus:
        """Where the job stands now."""
        return self._status

    @property
    def pid(self) -> int | None:
        """The process that runs it or ran it; None as long as it waits."""
        return self._pid

    @property
    def outcome(self) -> JobOutcome | None:
        """How it ended; None as long as it has not."""
        return self._outcome

    def done(self) -> bool:
        """Return whether it has its outcome."""
        return self._outcome is not None

    def cancel(self, reason: str = "cancelled") -> bool:
        """Ask the job to stop; return whether there was still something to stop.

        A waiting job ends at once. A running one is asked, has
        ``shutdown_process_timeout`` seconds, and is then killed. Does not wait.

        Args:
            reason: for the job and its outcome; of more than 1024 characters the middle is left out.

        Raises:
            OptionError: *reason* is no text.
        """
        if not isinstance(reason, str):
            raise OptionError("reason", reason, "a string")
        return not self.done() and self._cancel(self, cut(str.__str__(reason), MAX_REASON))

    def result(self) -> T:
        """Return what ``await`` would return, or raise what it would raise.

        Raises:
            asyncio.InvalidStateError: the job has no outcome yet.
        """
        if self._outcome is None:
            raise asyncio.InvalidStateError(f"job {self.id} has not ended")
        if self._opened is None:
            self._opened = open_parcel(self._outcome, self._parcel)
            self._parcel = None
        value: T
        value, error = self._opened
        if error is not None:
            raise error
        return value

    async def wait(self) -> JobOutcome:
        """Wait until the job has its outcome and return it. Never raises for the job.

        Cancelled: only the waiting ends, the job goes on.
        """
        if self._outcome is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        assert self._outcome is not None, "a waiter was woken before the outcome was there"
        return self._outcome

    def __await__(self) -> Generator[Any, None, T]:
        try:
            yield from self.wait().__await__()
        except asyncio.CancelledError:
            if self._cancel_with_caller:
                self.cancel("the caller was cancelled")
            raise
        return self.result()

    def add_done_callback(self, callback: Callable[[JobHandle[T]], object]) -> None:
        """Call *callback* with this handle once it has its outcome; at once if it has.

        Blocks: the pool, until it returns. What it raises is logged, but for a
        KeyboardInterrupt, which ends the program's loop as everywhere.
        """
        if self.done():
            self._call(callback)
        else:
            self._callbacks.append(callback)

    def __repr__(self) -> str:
        pid = f" pid {self._pid}" if self._pid is not None else ""
        return f"<JobHandle {self.id} {self._status.value}{pid}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: there is one handle of a job, where it was given out."""
        raise TypeError("a JobHandle cannot be copied or sent to another process; send its id")

    # ── for the pool ─────────────────────────────────────────────────────────

    def _running(self, pid: int | None) -> None:
        self._status = JobStatus.RUNNING
        self._pid = pid

    def _waiting_again(self) -> None:
        self._status = JobStatus.PENDING
        self._pid = None

    def _settle(self, outcome: JobOutcome, parcel: Parcel | None) -> None:
        assert self._outcome is None, f"job {self.id} got a second outcome"
        self._outcome = outcome
        self._parcel = parcel
        # The record points here; without this the pair, and a large result with
        # it, would wait for the garbage collector.
        self.record = None
        self._status = outcome.status
        # Callbacks before waiters: whoever counts jobs has counted this one
        # before anybody who waited for it goes on.
        callbacks, self._callbacks = self._callbacks, []
        try:
            for callback in callbacks:
                self._call(callback)
        finally:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _call(self, callback: Callable[[JobHandle[T]], object]) -> None:
        try:
            callback(self)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a job's exception, SystemExit too, comes out of result()
            logger.exception("a done callback of job %s raised", self.id)
