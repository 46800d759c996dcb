"""ProcessPoolExecutor: ``concurrent.futures``, with warm workers of single use."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from supervisor import clock, travel
from supervisor.applied import MB, blueprint_of, too_large
from supervisor.checks import check_arguments, check_choice, check_int
from supervisor.cpus import cpu_count
from supervisor.errors import OptionError, PoolClosed
from supervisor.futures import FutureHandle, JobFuture, without_frames
from supervisor.ids import job_ids
from supervisor.mapping import ordered_map
from supervisor.options import DefaultCount, PoolOptions, default_idle
from supervisor.record import JobRecord
from supervisor.results import DATA, PICKLE
from supervisor.stats import PoolStats

if TYPE_CHECKING:
    from supervisor.loopthread import LoopThread
    from supervisor.processes import WorkerProcess

P = ParamSpec("P")
T = TypeVar("T")

# Options that the constructor has under the standard library's name.
_NAMED_OTHERWISE: Final = {
    "max_jobs": "max_workers",
    "max_jobs_per_process": "max_tasks_per_child",
    "multiprocessing_context": "mp_context",
}

_names = itertools.count(1)


class ProcessPoolExecutor(Executor):
    """A drop-in for ``concurrent.futures.ProcessPoolExecutor`` whose workers are warm.

    ::

        with ProcessPoolExecutor(max_workers=8, initializer=warm, initargs=(1,)) as executor:
            list(executor.map(score, texts))

    Each job gets a fresh process unless *max_tasks_per_child* says otherwise. A
    worker that dies fails its own job and no other. A job that runs can be
    cancelled, and is then really stopped.

    Args:
        max_workers: jobs at a time; the CPUs that this process may use unless given.
        mp_context: how workers are made: ``"forkserver"``, ``"spawn"``, or a
            context of ``multiprocessing`` with such a start method.
        initializer: called in each worker before it takes a job.
        initargs: its arguments. They may hold locks, queues and events of
            ``multiprocessing``.
        max_tasks_per_child: jobs before a worker is replaced; None for no limit.
        results: ``"pickle"``, or ``"data"``: children may return only plain data
            then, and cannot run code in this process.
        options: what ``ProcessPool`` takes: ``num_idle_processes``, ``setup_fnc``,
            ``preload_fnc``, ``job_timeout`` and so on.

    The constructor only stores. The first ``submit``, or entering the context,
    starts one thread, and on it the fork server and the workers.

    Runs on: any thread, every method.

    Raises:
        ValueError: *max_workers* is not positive, or *mp_context* forks this process.
        OptionError: an option has the wrong type or range; both a ValueError and a
            TypeError.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = 1,
        results: str = PICKLE,
        **options: Any,
    ) -> None:
        for name, ours in _NAMED_OTHERWISE.items():
            if name in options:
                raise OptionError(name, options[name], f"it under the name of {ours}")
        if max_workers is None:
            max_workers = cpu_count()
        elif not isinstance(max_workers, bool) and isinstance(max_workers, int) and max_workers < 1:
            raise ValueError(f"max_workers must be greater than 0, got {max_workers}")
        check_int("max_workers", max_workers, at_least=1)
        if max_tasks_per_child is not None:
            check_int("max_tasks_per_child", max_tasks_per_child, at_least=1)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, got {initializer!r}")
        check_choice("results", results, (PICKLE, DATA))
        if mp_context is not None:
            options["multiprocessing_context"] = start_method(mp_context)
        # Spares are for workers that are used up. Workers that come back would
        # make them stand idle for ever, so reusing ones start on demand.
        spares = min(default_idle(), max_workers) if max_tasks_per_child == 1 else 0
        options.setdefault("num_idle_processes", DefaultCount(spares))
        # Not at the head: the fork server imports the user's script, makes no executor, and
        # each worker would be born with it. Not later: it hooks into the interpreter's exit.
        import supervisor.loopthread  # noqa: F401

        arguments = check_arguments("initargs", initargs)
        self._options = PoolOptions().replace(
            max_jobs=max_workers, max_jobs_per_process=max_tasks_per_child, **options
        )
        self._initializer = None if initializer is None else (initializer, arguments)
        self._data_only = results == DATA
        self._max_payload_bytes = int(self._options.max_payload_mb * MB)
        self._ids = job_ids()
        self._pid = os.getpid()
        # Orders "post a job" and "post the end", and makes the thread once.
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._is_shut = False

    # ── jobs ─────────────────────────────────────────────────────────────────

    @overload
    def submit(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture[Any]:
        """Have ``fn(*args, **kwargs)`` run in a worker; a coroutine function is awaited there.

        Does not wait. What cannot be pickled is an error of the future, as with
        the standard library; the text names the object at fault.

        Raises:
            RuntimeError: after ``shutdown``, while the interpreter exits, or in a
                process that was forked from the executor's.
            BrokenProcessPool: no worker can be warmed; the text has the child's traceback.
        """
        job_id = next(self._ids)
        # Packed here, in the caller's thread, and before the lock is taken.
        (kind, body), error = self._packed(fn, args, kwargs)
        with self._lock:
            thread = self._started()
            broken = thread.broken
            if broken is not None:
                raise type(broken)(broken.what, broken.traceback)
            future: JobFuture[Any] = JobFuture(job_id, thread)
            if error is None:
                thread.submit(self._record(job_id, future, kind, body))
        if error is not None:
            future.fail(error)
        return future

    def _packed(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[str, bytes], Exception | None]:
        try:
            if not callable(fn):
                raise TypeError(f"expected a function, and its arguments after it, got {fn!r}")
            packed = travel.pack_call(fn, args, kwargs)
            if len(packed[1]) > self._max_payload_bytes:
                raise too_large(len(packed[1]), self._max_payload_bytes)
        except Exception as exc:  # noqa: BLE001 - pickling runs the user's code; the future has it
            return ("", b""), without_frames(exc)
        return packed, None

    def _record(self, job_id: str, future: JobFuture[Any], kind: str, body: bytes) -> JobRecord:
        return JobRecord(
            job_id,
            FutureHandle(job_id, future),
            kind,
            body,
            clock.monotonic(),
            self._max_payload_bytes,
            data_only=self._data_only,
            timeout=self._options.job_timeout,
            memory_limit_bytes=int(self._options.job_memory_limit_mb * MB),
        )

    @overload
    def map(
        self,
        fn: Callable[..., Awaitable[T]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over ``fn(*items)``, in the order of the items.

        The arguments, and what is raised: :func:`supervisor.mapping.ordered_map`.
        """
        return ordered_map(
            self.submit,
            fn,
            *iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
        )

    # ── life ─────────────────────────────────────────────────────────────────

    def __enter__(self) -> ProcessPoolExecutor:
        with self._lock:
            self._started()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            # The standard library's workers share the terminal's process group and
            # are interrupted with their parent. Ours have a session each.
            self.terminate_workers()
        self.shutdown(wait=True)

    def _started(self) -> LoopThread:
        """Return the thread, started; or raise what ``submit`` raises. Under the lock."""
        from supervisor.loopthread import LoopThread, is_exiting

        if self._is_shut:
            raise PoolClosed("cannot schedule new futures: the executor was shut down")
        if is_exiting():
            raise RuntimeError("cannot schedule new futures: the interpreter is exiting")
        if self._pid != os.getpid():
            raise RuntimeError(
                f"the executor belongs to process {self._pid}; make one in this process"
            )
        if self._thread is None:
            blueprint = blueprint_of(self._options, self._initializer)
            thread = LoopThread(self._options, blueprint, f"greenroom-executor-{next(_names)}")
            thread.start()
            self._thread = thread
            # Dropped without shutdown: the accepted jobs are finished, then all of
            # it goes. The interpreter's exit is seen to by the thread's own hook.
            weakref.finalize(self, thread.finish).atexit = False
        return self._thread

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs; finish those that were accepted. May be called again.

        Args:
            wait: return when nothing of the executor is left, fork server included.
            cancel_futures: cancel the jobs that have not begun.
        """
        thread = self._shut()
        if thread is not None:
            thread.finish(cancel_waiting=cancel_futures)
            if wait:
                thread.join()

    def terminate_workers(self) -> None:
        """Shut down, and ask every running job to stop; kill those that do not.

        Their futures get ``BrokenProcessPool``, those of waiting jobs are
        cancelled. Does not wait: ``shutdown(wait=True)`` does.
        """
        thread = self._shut()
        if thread is not None:
            thread.terminate()

    def kill_workers(self) -> None:
        """Shut down, and kill every worker with its group, now.

        The futures of running jobs get ``BrokenProcessPool``, those of waiting
        jobs are cancelled. Does not wait: ``shutdown(wait=True)`` does.
        """
        thread = self._shut()
        if thread is not None:
            thread.kill()

    def _shut(self) -> LoopThread | None:
        with self._lock:
            self._is_shut = True
            return self._thread if self._pid == os.getpid() else None

    # ── looking ──────────────────────────────────────────────────────────────

    def stats(self) -> PoolStats:
        """Return how many workers and jobs there are and were."""
        pool = None if self._thread is None else self._thread.pool
        return PoolStats() if pool is None else pool.stats()

    def __repr__(self) -> str:
        now = self.stats()
        counts = f"{now.idle} idle, {now.running} running of {now.alive}; {now.waiting} waiting"
        return f"<ProcessPoolExecutor {counts}>"

    # Names that programs written for the standard library's executor look at.
    @property
    def _max_workers(self) -> int:
        assert self._options.max_jobs is not None
        return self._options.max_jobs

    @property
    def _processes(self) -> Mapping[int, WorkerProcess]:
        from supervisor.processes import as_processes

        thread = self._thread
        return {} if thread is None else as_processes(thread.workers, thread.kill_worker)

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        return None if self._thread is None else self._thread.thread

    @property
    def _broken(self) -> str | bool:
        broken = None if self._thread is None else self._thread.broken
        return str(broken) if broken is not None and not self._is_shut else False


def start_method(mp_context: Any) -> str:
    """Return ``"forkserver"`` or ``"spawn"`` for a context or its name.

    Raises:
        ValueError: it forks this process, threads and locks included.
        TypeError: it is no context.
    """
    if isinstance(mp_context, str):
        method = mp_context
    elif hasattr(mp_context, "get_start_method"):
        method = mp_context.get_start_method()
    else:
        raise TypeError(
            f"mp_context must be 'forkserver', 'spawn' or a multiprocessing context, "
            f"got {mp_context!r}"
        )
    if method == "fork":
        raise ValueError(
            "mp_context 'fork' would copy the threads' locks of this process into each worker, "
            "locked as they are; use 'forkserver', and preload_fnc for what workers are to share"
        )
    if method not in ("forkserver", "spawn"):
        raise ValueError(f"mp_context must be 'forkserver' or 'spawn', got {method!r}")
    return str(method)
