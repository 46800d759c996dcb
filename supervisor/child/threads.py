"""Is there one thread in this process? Only then may it fork.

A fork copies the thread that calls it, and the locks of all others in whatever
state they are.
"""

from __future__ import annotations

import os
import sys
import threading


class ThreadsLeft(Exception):
    """Imports or ``preload_fnc`` left threads running: forking would copy their locks."""


def check_single_threaded() -> None:
    """Raise unless this process has one thread, or others that end at a fork.

    Native threads without a Python name are given a chance: libraries that know
    about fork (OpenBLAS) take theirs down in an atfork handler. So one child is
    forked that does nothing, and what still runs after it stays.

    Raises:
        ThreadsLeft: it names them.
    """
    named = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if named:
        raise ThreadsLeft(_complaint([thread.name for thread in named]))
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) > 1:
        probe = os.fork()
        if probe == 0:
            os._exit(0)
        os.waitpid(probe, 0)
        left = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
        if left:
            raise ThreadsLeft(_complaint([_thread_name(task) for task in left]))


def _thread_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()} (native, id {task})"
    except OSError:
        return f"native, id {task}"


def _complaint(names: list[str]) -> str:
    return (
        f"preload_fnc or an import left {len(names)} thread(s) running: {', '.join(names)}. "
        "A process with threads must not fork: move that work to setup_fnc, "
        "or use multiprocessing_context='spawn'"
    )
