"""Ending what a job started and left behind, from inside its process.

The fork server and the supervisor kill the worker's group when it has ended. What
left the group (a session of its own, a daemon forked twice) is only found as long
as this process lives: it is a child subreaper, so all of that is among its
descendants. Once it has died the fork server still finds them; under ``spawn``,
or when the fork server is gone, nobody does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Final

# A killed process is gone within a millisecond or two, unless it is in an
# uninterruptible wait (a dead network file system): nothing waits for that.
_KILL_SECONDS: Final = 0.5

# linux/wait.h: also children whose end sends another signal than SIGCHLD, or none.
_WALL: Final = 0x40000000 if sys.platform == "linux" else 0


def kill_descendants() -> None:
    """Kill and reap every descendant of this process. For one that is about to end.

    When a child dies its own children fall to this process: hence again and again,
    until there are none.

    Runs on: any thread.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while (pids := _children()) and time.monotonic() < deadline:
        for pid in pids:
            # PermissionError: it became another user (a setuid program).
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # the user's code waits for it as well
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.0005)


def has_children() -> bool:
    """Return whether this process has children, dead or alive."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Return the ids of the children of all threads, dead or alive.

    None where the system does not tell: no /proc, no CONFIG_PROC_CHILDREN.
    """
    if not has_children():  # mostly; and one system call
        return []
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            pids.extend(_children_of(task))
    return pids


def _children_of(task: str) -> list[int]:
    try:
        return children_of_thread(task)
    except (FileNotFoundError, ProcessLookupError):  # a thread that has ended
        return []


def children_of_thread(task: int | str) -> list[int]:
    """Return the ids of the children that a thread of this process made, dead or alive.

    Raises:
        OSError: there is no such thread any more, or the kernel does not tell.
    """
    # Without Python's layers of files: the fork server asks at each death.
    fd = os.open(f"/proc/self/task/{task}/children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while data := os.read(fd, 65536):
            text += data
    finally:
        os.close(fd)
    return [int(pid) for pid in text.split()]
