"""The future of the executor: cancelled while it runs, opened by whoever asks.

Two things differ from the standard library's future, and both are gains:

* ``cancel()`` works while the job runs. The future is cancelled at once; the
  worker is asked to stop, and killed when its grace is over.
* The value arrives as bytes and is unpickled by the first ``result()`` or
  ``exception()``, in that caller's thread. Unpickling runs code that the job
  chose; on the executor's own thread it could hold up every other job.

For the same reason callbacks run on a thread of their own, in the order in which
the futures ended: one that blocks delays other callbacks, and nothing else.

It stands on the standard library's future, on its private parts too
(``_condition``, ``_state``, ``_waiters``, ``_invoke_callbacks``): ``wait`` and
``as_completed`` read exactly these, so they are as fixed as its public ones.
"""

from __future__ import annotations

import logging
import queue
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, process
from typing import Any, Protocol, TypeVar

from supervisor.errors import WorkerLost
from supervisor.handle import JobHandle
from supervisor.job import JobInfo, JobOutcome, JobStatus
from supervisor.results import Parcel, RemoteTraceback, open_parcel

T = TypeVar("T")

logger = logging.getLogger("greenroom.executor")
# Where programs that know the standard library's executors look for what callbacks raise.
_standard_logger = logging.getLogger("concurrent.futures")

# States of concurrent.futures._base; their texts are shown by its __repr__.
_PENDING = "PENDING"
_RUNNING = "RUNNING"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_FINISHED = "FINISHED"


class Owner(Protocol):
    """Who runs the future's job."""

    def stop(self, handle: FutureHandle) -> None:
        """Have the job stopped. Runs on: any thread."""
        ...

    def deliver(self, future: JobFuture[Any]) -> bool:
        """Have the callbacks run elsewhere; False: run them here. Runs on: any thread."""
        ...


class _Unopened(Exception):
    """Stands for an exception that is still bytes."""


class JobFuture(Future[T]):
    """A job of a ``ProcessPoolExecutor``.

    Runs on: any thread, every method.
    """

    def __init__(self, job_id: str, owner: Owner | None = None) -> None:
        super().__init__()
        self._job_id = job_id
        # Both are let go when the future is done: with them it would keep the
        # executor's thread and the job's record alive.
        self._owner = owner
        self._handle: FutureHandle | None = None
        self._outcome: JobOutcome | None = None
        self._unopened: tuple[JobOutcome, Parcel | None] | None = None
        self._is_opening = False

    @property
    def job_id(self) -> str:
        """The job's id, as in logs and process titles."""
        return self._job_id

    @property
    def outcome(self) -> JobOutcome | None:
        """How the job ended; None as long as it has not, and if it was never sent."""
        return self._outcome

    def cancel(self) -> bool:
        """Cancel the job, also while it runs; return whether the future is cancelled.

        Does not wait: a running job is gone ``shutdown_process_timeout`` seconds
        later at the latest.
        """
        return self._cancel(also_running=True)

    def cancel_waiting(self) -> bool:
        """Cancel the job unless it has begun; return whether the future is cancelled."""
        return self._cancel(also_running=False)

    def _cancel(self, *, also_running: bool) -> bool:
        with self._condition:
            if self._state in _CANCELLED:
                return True
            if self._state == _FINISHED or (self._state == _RUNNING and not also_running):
                return False
            self._state = "CANCELLED_AND_NOTIFIED"
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
            owner, handle = self._owner, self._handle
            self._handle = None
        if owner is not None and handle is not None:
            owner.stop(handle)
        self._invoke_callbacks()
        return True

    def result(self, timeout: float | None = None) -> T:
        """Return what the job returned, or raise what it raised.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: it has not ended within *timeout*.
            CancelledError: the future was cancelled.
            ResultError: the result could not be unpickled here.
            BrokenProcessPool: the worker ended without a result, or no worker can
                be warmed; a subclass tells which.
        """
        super().exception(timeout)
        self._open()
        try:
            return super().result()
        finally:
            # The exception's traceback holds this frame.
            del self

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what :meth:`result` would raise, or None. Waits as long, *timeout* in seconds."""
        super().exception(timeout)
        self._open()
        return super().exception()

    def _get_snapshot(self) -> Any:
        # Python 3.14's asyncio reads a future by this, all fields in one go.
        self._open()
        return super()._get_snapshot()  # type: ignore[misc]  # not in every version

    def __repr__(self) -> str:
        return f"<JobFuture {self._job_id} {self._state.lower()}>"

    # ── for the executor ─────────────────────────────────────────────────────

    def attach(self, handle: FutureHandle) -> None:
        """Say which handle stands for the job. Before anybody else has the future."""
        self._handle = handle

    def begin(self) -> None:
        """The job has begun."""
        with self._condition:
            if self._state == _PENDING:
                self._state = _RUNNING

    def settle(self, outcome: JobOutcome, parcel: Parcel | None) -> None:
        """The job has its outcome; what it returned or raised is opened later."""
        self._outcome = outcome
        if outcome.status is JobStatus.CANCELLED:
            # Nobody cancelled the future, or this would change nothing: the
            # worker was stopped, which to the caller is a lost worker.
            self.fail(WorkerLost(outcome.pid, outcome.exit, outcome.reason))
            return
        with self._condition:
            if not self.done():
                self._unopened = (outcome, parcel)
                if outcome.status is JobStatus.SUCCEEDED:
                    self.set_result(None)  # type: ignore[arg-type]  # until it is opened
                else:
                    self.set_exception(_Unopened())
        self._let_go()

    def fail(self, error: BaseException) -> None:
        """End with *error*, unless it has ended already."""
        try:
            self.set_exception(error)
        except InvalidStateError:
            logger.debug("job %s had ended before: %r", self._job_id, error)
        self._let_go()

    def _let_go(self) -> None:
        self._owner = self._handle = None

    def _invoke_callbacks(self) -> None:
        owner = self._owner
        callbacks: list[object] = self._done_callbacks  # type: ignore[attr-defined]  # private too
        if callbacks and not (owner is not None and owner.deliver(self)):
            super()._invoke_callbacks()  # type: ignore[misc]  # private, see the module's text

    def run_callbacks(self) -> None:
        """Run each of the callbacks; whatever they raise is logged.

        Runs on: the callbacks' thread. It is everybody's, so not even a SystemExit, which
        ``future.result()`` may raise in a callback, may end it.
        """
        callbacks: list[Callable[[object], object]] = self._done_callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            try:
                callback(self)
            except BaseException:  # noqa: BLE001 - see above
                _standard_logger.exception("exception calling callback for %r", self)

    # ── opening ──────────────────────────────────────────────────────────────

    def _open(self) -> None:
        """Unpickle what arrived, once; a second caller waits for the first."""
        with self._condition:
            while self._is_opening:
                self._condition.wait()
            unopened, self._unopened = self._unopened, None
            if unopened is None:
                return
            self._is_opening = True
        value: Any = None
        error: BaseException | None = None
        try:
            value, error = _opened(*unopened)
            unopened = None
        finally:
            with self._condition:
                self._unopened = unopened  # interrupted: the next caller tries again
                if unopened is None:
                    self._result, self._exception = value, error
                self._is_opening = False
                self._condition.notify_all()
            # The exception's traceback holds this frame; the frame shall not
            # hold the exception.
            del value, error, unopened


def _opened(outcome: JobOutcome, parcel: Parcel | None) -> tuple[Any, BaseException | None]:
    value, error = open_parcel(outcome, parcel)
    if error is not None:
        error.__traceback__ = None
        if isinstance(error.__cause__, RemoteTraceback):
            error.__cause__ = _standard_cause(error.__cause__)
    return value, error


def without_frames(error: Exception) -> Exception:
    """Return *error* with its traceback as text.

    A future that keeps an exception with frames keeps the arguments alive that were
    in them, and itself.
    """
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    error.__traceback__ = error.__context__ = None
    error.__cause__ = _standard_cause(RemoteTraceback("".join(lines)))
    return error


def _standard_cause(cause: RemoteTraceback) -> Exception:
    # The class by which programs, and the standard library's own tests, recognise
    # an exception that was raised elsewhere.
    return process._RemoteTraceback(str(cause))  # type: ignore[arg-type]  # typeshed errs: it is text


class FutureHandle(JobHandle[Any]):
    """The executor's end of a job: passes on to the future what the pool says.

    Runs on: the executor's loop, but for the constructor.
    """

    def __init__(self, job_id: str, future: JobFuture[Any]) -> None:
        super().__init__(JobInfo(job_id), cancel=_not_this_way)
        self.future: JobFuture[Any] | None = future
        future.attach(self)

    def _running(self, pid: int | None) -> None:
        super()._running(pid)
        if self.future is not None:
            self.future.begin()

    def _settle(self, outcome: JobOutcome, parcel: Parcel | None) -> None:
        super()._settle(outcome, None)
        future, self.future = self.future, None
        if future is not None:
            future.settle(outcome, parcel)

    def fail(self, error: BaseException) -> None:
        """End the future with *error*; the job's own outcome changes nothing any more."""
        future, self.future = self.future, None
        if future is not None:
            future.fail(error)


def _not_this_way(handle: JobHandle[Any], reason: str) -> bool:
    raise AssertionError(f"job {handle.id} is cancelled by its future")


class CallbackThread:
    """Runs the callbacks of futures, one after the other, on a thread of its own.

    The thread starts with the first future that has callbacks. The user's code
    runs on it, so it holds no lock of ours and nothing waits for it but
    ``shutdown(wait=True)``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[JobFuture[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, future: JobFuture[Any]) -> bool:
        """Take *future*; False: there can be no thread any more. Runs on: the loop's thread."""
        if self._thread is None:
            thread = threading.Thread(target=_run_callbacks, args=(self._queue,), name=self._name)
            try:
                thread.start()
            except RuntimeError as exc:  # the interpreter is going down
                logger.debug("no thread for callbacks: %s", exc)
                return False
            self._thread = thread
        self._queue.put(future)
        return True

    def close(self) -> None:
        """Let the thread end after what it has. Runs on: the loop's thread, last."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread's end, unless this is the thread. Runs on: any thread."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _run_callbacks(source: queue.SimpleQueue[JobFuture[Any] | None]) -> None:
    # Not a method: the thread must not keep the executor's parts alive.
    while (future := source.get()) is not None:
        future.run_callbacks()
        del future
