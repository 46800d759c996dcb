"""How the server's process ends once nothing of the server is left: without being taken apart.

An interpreter that ends looks for garbage in everything it holds, several times. For a
server with its libraries that is 50,000 objects, and took longer than all that had to
be done since the last job's death. The kernel takes the memory back all the same. So
what is there by then is put where the collector does not look.

All else is as always: threads are waited for, exit hooks run, modules are emptied, and
what that frees is finalized. Only what hangs in a cycle (a class is one) is not, which
Python does not promise either; see ``object.__del__``. But programs rely on it, knowing
it or not, when they leave a file open: its last lines are written when it is finalized.
So while anything is open for writing, the collector has its way.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import sys
from typing import Any


def leave_quickly() -> None:
    """Have this process end quickly, once it ends. For one that was there for the server only."""
    atexit.register(_keep_the_collector_away)


def _keep_the_collector_away() -> None:
    if not _may_hold_bytes():
        gc.freeze()


def _may_hold_bytes() -> bool:
    """Return whether a file, a pipe or a connection is open that somebody here writes to."""
    trackers = _resource_trackers()
    try:
        opened = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:  # /proc is not mounted: nobody can tell
        return True
    return any(fd > 2 and fd not in trackers and _writes_for_us(fd) for fd in opened)


def _writes_for_us(fd: int) -> bool:
    try:
        # What Python opens is not inheritable: anything else was there before us.
        if os.get_inheritable(fd):
            return False
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:  # it was the one that listed them
        return False


def _resource_trackers() -> set[int | None]:
    """Return the pipes to the resource trackers, which stay open to the end on purpose."""
    trackers: list[Any] = [
        sys.modules.get(f"{package}.resource_tracker")
        for package in ("multiprocessing", "multiprocess")
    ]
    return {each._resource_tracker._fd for each in trackers if each is not None}
