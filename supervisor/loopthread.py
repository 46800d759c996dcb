"""The thread behind an executor: a loop of its own, and the workers on it.

The executor's methods run on the caller's threads and leave commands in an inbox;
the loop is woken once for as many as there are. Nothing on this thread waits for a
caller, and nothing here points to the executor: one that is dropped without
``shutdown`` is collected, and its last act is the command to finish.

Guarantee: every future that was posted ends. The thread's last act, whatever ended
it, is to fail those that are left.

Interpreter exit: jobs that were accepted are finished first, as the standard
library does it. The hook runs before Python joins its threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from supervisor.errors import SetupFailed
from supervisor.futures import CallbackThread, FutureHandle, JobFuture
from supervisor.job import JobOutcome
from supervisor.launch import Blueprint
from supervisor.options import PoolOptions
from supervisor.outcome import Ask, Kill
from supervisor.record import JobRecord
from supervisor.settling import Listener
from supervisor.worker import Worker
from supervisor.workers import Workers

logger = logging.getLogger("greenroom.executor")

# Commands taken from the inbox in one turn of the loop. Taking one is some
# microseconds; the workers' messages shall not wait longer than a few
# milliseconds for a caller who submits a hundred thousand jobs.
_COMMANDS_A_TURN: Final = 500


class LoopThread:
    """The loop, the thread that turns it, and the workers.

    Args:
        options: checked options.
        blueprint: what children are born with.
        name: the thread's name.
    """

    def __init__(self, options: PoolOptions, blueprint: Blueprint, name: str) -> None:
        self._options = options
        self._blueprint = blueprint
        # Written on any thread, read on the loop: a deque's append and popleft are
        # atomic, and a wake-up too many does no harm, so there is no lock.
        self._inbox: deque[JobRecord | Callable[[], None]] = deque()
        self._is_woken = False
        self._has_ended = False
        self._broken: SetupFailed | None = None
        # What follows belongs to the loop's thread.
        self._loop = asyncio.new_event_loop()
        self._finishing: asyncio.Future[None] = self._loop.create_future()
        self._workers: Workers | None = None
        self._open_jobs: dict[FutureHandle, JobRecord] = {}
        self._callbacks = CallbackThread(f"{name}-callbacks")
        # Not a daemon: a daemon thread would be stopped in the middle of what it
        # does when the interpreter goes down.
        self.thread = threading.Thread(target=self._run, name=name, daemon=False)

    # ── for the executor; any thread ─────────────────────────────────────────

    def start(self) -> None:
        """Start the thread. Once.

        Raises:
            RuntimeError: the interpreter starts no threads any more.
        """
        try:
            self.thread.start()
        except RuntimeError:
            self._loop.close()
            raise
        _running.add(self)

    @property
    def broken(self) -> SetupFailed | None:
        """Why no job can run any more; None while they can."""
        return self._broken or (self._workers.broken if self._workers is not None else None)

    @property
    def workers(self) -> list[Worker]:
        """A snapshot of the workers."""
        return [] if self._workers is None else self._workers.all

    @property
    def pool(self) -> Workers | None:
        """What keeps the workers; None until the loop runs. For looking at, not for calling."""
        return self._workers

    def submit(self, record: JobRecord) -> None:
        """Have a job run. Its handle is a FutureHandle."""
        self._post(record)

    def stop(self, handle: FutureHandle) -> None:
        """Have the job of a cancelled future stopped."""
        self._post(lambda: self._stop(handle))

    def kill_worker(self, worker: Worker, reason: str) -> None:
        """Have one worker killed; its job, if it has one, fails."""
        self._post(lambda: worker.kill(Kill(reason)))

    def finish(self, *, cancel_waiting: bool = False) -> None:
        """Have the accepted jobs done, then end. May be called again.

        Args:
            cancel_waiting: cancel those that have not begun.
        """
        self._post(lambda: self._finish(cancel_waiting))

    def terminate(self) -> None:
        """Cancel waiting jobs, ask running ones to stop within their grace, then end."""
        self._post(self._terminate)

    def kill(self) -> None:
        """Cancel waiting jobs, kill every worker, then end."""
        self._post(self._kill)

    def join(self) -> None:
        """Wait until the loop's thread and the callbacks' thread have ended.

        From a callback: waits for the loop's thread only.
        """
        self.thread.join()
        self._callbacks.join()

    def deliver(self, future: JobFuture[Any]) -> bool:
        """Have callbacks run off the loop's thread; False if the caller is not on it."""
        return threading.current_thread() is self.thread and self._callbacks.put(future)

    def _post(self, command: JobRecord | Callable[[], None]) -> None:
        self._inbox.append(command)
        # Read after the append, written before the last look into the inbox: one
        # of the two threads finds the command.
        if self._has_ended:
            self._refuse_rest()
        elif not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                # Closed since the line before the last; its thread refuses the rest.
                logger.debug("the executor ended while it was told something")

    def _refuse_rest(self) -> None:
        """Fail the jobs that nobody takes any more. Runs on: any thread, after the end."""
        while True:
            try:
                command = self._inbox.popleft()
            except IndexError:  # it is empty
                return
            if isinstance(command, JobRecord):
                _future_end(command).fail(_another(self._broken))

    # ── on the loop ──────────────────────────────────────────────────────────

    def _take(self) -> None:
        # First the flag, then the inbox: whoever posts after this line wakes us
        # again, whoever posted before it finds his command taken.
        self._is_woken = False
        if self._workers is None:
            return  # _main takes them
        for _ in range(_COMMANDS_A_TURN):
            if not self._inbox:
                return
            command = self._inbox.popleft()
            if isinstance(command, JobRecord):
                self._submit(command)
            else:
                command()
        self._is_woken = True
        self._loop.call_soon(self._take)

    def _submit(self, record: JobRecord) -> None:
        handle = _future_end(record)
        if handle.future is None or handle.future.cancelled():
            return
        if self._broken is not None:
            handle.fail(_another(self._broken))
            return
        assert self._workers is not None
        self._open_jobs[handle] = record
        try:
            self._workers.submit(record)
        except SetupFailed as exc:
            del self._open_jobs[handle]
            handle.fail(exc)

    def _stop(self, handle: FutureHandle) -> None:
        record = self._open_jobs.get(handle)
        if record is not None and self._workers is not None:
            self._workers.stop_job(record, Ask("cancelled"))

    def _finish(self, cancel_waiting: bool) -> None:
        if cancel_waiting:
            if self._workers is not None:
                self._workers.learn_who_has_begun()
            for handle in list(self._open_jobs):
                if handle.future is not None and handle.future.cancel_waiting():
                    # Here and now, not by the inbox: a kill may be next.
                    self._stop(handle)
        if not self._finishing.done():
            self._finishing.set_result(None)

    def _terminate(self) -> None:
        self._finish(cancel_waiting=True)
        assert self._workers is not None
        self._workers.begin_drain(self._options.shutdown_process_timeout)
        self._workers.stop_all(Ask("terminate_workers"), self._options.shutdown_process_timeout)

    def _kill(self) -> None:
        self._finish(cancel_waiting=True)
        assert self._workers is not None
        self._workers.begin_drain(0.0)
        self._workers.kill_all(Kill("kill_workers"))

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as exc:  # noqa: BLE001 - the last frame of a thread
            logger.exception("the executor's thread ended by an error; its jobs fail")
            error = exc
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._broken = self._broken or _as_setup_failed(
            error or RuntimeError("the executor has ended")
        )
        self._has_ended = True
        self._refuse_rest()
        self._fail_open_jobs(self._broken)
        self._open_jobs.clear()
        self._loop.close()
        self._callbacks.close()

    def _fail_open_jobs(self, error: SetupFailed) -> None:
        for handle in list(self._open_jobs):
            handle.fail(_another(error))

    async def _main(self) -> None:
        listener = _Listener(self._open_jobs)
        workers = Workers(self._loop, self._options, self._blueprint, listener, gives_up=True)
        self._workers = workers
        self._take()
        try:
            await workers.open()
        except Exception as exc:  # noqa: BLE001 - a hook that cannot travel may raise anything
            self._broken = _as_setup_failed(exc)
            self._fail_open_jobs(self._broken)
            await workers.close(kill=True)
            return
        await self._finishing
        workers.begin_drain(None)
        await workers.wait_no_jobs()
        await workers.close()


class _Listener(Listener):
    """Forgets jobs that have ended."""

    def __init__(self, open_jobs: dict[FutureHandle, JobRecord]) -> None:
        self._open_jobs = open_jobs

    def job_ended(self, job: JobRecord, result: JobOutcome) -> None:
        """The handle itself is told by the pool."""
        self._open_jobs.pop(_future_end(job), None)


def _future_end(record: JobRecord) -> FutureHandle:
    assert isinstance(record.handle, FutureHandle)
    return record.handle


def _as_setup_failed(error: BaseException) -> SetupFailed:
    if isinstance(error, SetupFailed):
        return error
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return SetupFailed(f"no worker can be started: {type(error).__name__}: {error}", text)


def _another(error: SetupFailed | None) -> SetupFailed:
    """Return a copy: one object raised to several callers collects all their tracebacks."""
    assert error is not None
    return type(error)(error.what, error.traceback)


# ── interpreter exit ─────────────────────────────────────────────────────────

_running: Final[weakref.WeakSet[LoopThread]] = weakref.WeakSet()
_exiting = threading.Event()


def is_exiting() -> bool:
    """Return whether the interpreter is going down: nothing new is accepted then."""
    return _exiting.is_set()


def _finish_all() -> None:
    """Let every executor finish its accepted jobs. Python calls it once, at its exit."""
    _exiting.set()
    threads = list(_running)
    for each in threads:
        each.finish()
    try:
        for each in threads:
            each.join()
    except KeyboardInterrupt:
        # The jobs have sessions of their own, so Ctrl-C in a terminal hits only
        # us: whoever presses it now wants them to end.
        for each in threads:
            each.kill()
        for each in threads:
            each.join()
        raise


# A process that the host program forks has none of the threads.
os.register_at_fork(after_in_child=_running.clear)

# Not atexit: Python joins its threads before that, and ours would never end. The
# standard library's executors use the same hook for the same reason.
try:
    threading._register_atexit(_finish_all)  # type: ignore[attr-defined]  # private
except RuntimeError:  # the interpreter is exiting already
    _exiting.set()
