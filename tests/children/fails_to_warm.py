"""Hooks that do what setup_fnc and preload_fnc must not do.

``proc.user_arguments`` is a path where a hook needs one: as long as the file
exists the hook misbehaves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
import time
from typing import Any

from ipc.messages import RunJob
from supervisor import JobProcess


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


def raises(proc: JobProcess) -> None:
    raise LookupError("no model in the store")


def exits(proc: JobProcess) -> None:
    os._exit(3)


def exits_softly(proc: JobProcess) -> None:
    sys.exit("no licence")


def hangs(proc: JobProcess) -> None:
    sleep_for_ever()


async def raises_later(proc: JobProcess) -> None:
    raise LookupError("no model in the store")


def crashes(proc: JobProcess) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def is_killed(proc: JobProcess) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raises_while_the_file_exists(proc: JobProcess) -> None:
    if os.path.exists(proc.user_arguments):
        raises(proc)


def hangs_while_the_file_exists(proc: JobProcess) -> None:
    if os.path.exists(proc.user_arguments):
        sleep_for_ever()


def exits_while_the_file_exists(proc: JobProcess) -> None:
    if os.path.exists(proc.user_arguments):
        os._exit(3)


def exits_once(proc: JobProcess) -> None:
    if _first(proc):
        os._exit(3)


def exits_softly_once(proc: JobProcess) -> None:
    if _first(proc):
        sys.exit(3)


def crashes_once(proc: JobProcess) -> None:
    if _first(proc):
        crashes(proc)


def is_killed_once(proc: JobProcess) -> None:
    if _first(proc):
        is_killed(proc)


def stops_once(proc: JobProcess) -> None:
    if _first(proc):
        os.kill(os.getpid(), signal.SIGSTOP)


def holds_the_gil_once(proc: JobProcess) -> None:
    if _first(proc):
        ctypes.PyDLL(None).pause()


def _first(proc: JobProcess) -> bool:
    """Return True in the one worker that takes the file away."""
    try:
        os.unlink(proc.user_arguments)
    except FileNotFoundError:
        return False
    return True


def dies_on_a_signal(proc: JobProcess) -> None:
    """End in each of three ways when told to, also while idle."""
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3))


def stops_reading_when_a_job_comes(proc: JobProcess) -> None:
    """Die in the instant of the hand-over: the job has arrived and nothing was said yet."""
    from supervisor.child.worker import Worker

    status = proc.user_arguments
    begin = Worker._begin

    def die(worker: Worker, job: RunJob) -> None:
        if job.job == "rehearsal":
            begin(worker, job)
            return
        if status is None:
            is_killed(proc)
        os._exit(status)

    Worker._begin = die  # type: ignore[method-assign, assignment]


# ── in the fork server ───────────────────────────────────────────────────────


def leaves_a_thread(proc: JobProcess) -> None:
    threading.Thread(target=sleep_for_ever, name="refresh-cache", daemon=True).start()


def leaves_a_native_thread(proc: JobProcess) -> None:
    libc = ctypes.CDLL(None)
    _start_native_thread(libc, libc.sleep, ctypes.c_void_p(1000))


# Where a native thread of ours looks: it must not be freed before the thread ends.
_semaphore: Any = (ctypes.c_char * 64)()


def has_a_thread_that_ends_at_fork(proc: JobProcess) -> None:
    """Do as OpenBLAS does: a pool of native threads that an atfork handler takes down."""
    libc = ctypes.CDLL(None)
    libc.sem_init(_semaphore, 0, 0)
    thread = _start_native_thread(libc, libc.sem_wait, ctypes.byref(_semaphore))
    ended = False

    def end() -> None:
        nonlocal ended
        if not ended:
            ended = True
            libc.sem_post(_semaphore)
            libc.pthread_join(thread, None)

    os.register_at_fork(before=end)


def _start_native_thread(libc: Any, routine: Any, argument: Any) -> ctypes.c_ulong:
    thread = ctypes.c_ulong()
    code = ctypes.cast(routine, ctypes.c_void_p)
    assert libc.pthread_create(ctypes.byref(thread), None, code, argument) == 0
    return thread


def fork_fails_twice(proc: JobProcess) -> None:
    """Stand in for a machine that is out of processes for a moment."""
    fork = os.fork
    failures = 3  # the first is that of the worker on trial

    def fails_at_first() -> int:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = fails_at_first
