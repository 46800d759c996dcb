"""What a test leaves behind: processes, zombies, descriptors, threads.

The test process becomes a child subreaper, so whatever a server or a pool leaves in
the world falls to it and is seen, however far it has run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import multiprocess.resource_tracker
import psutil

from supervisor import launch
from supervisor.clock import monotonic

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

# Only matters when a test fails.
PATIENCE: Final = 30.0

# The kernel takes a moment to finish processes that were killed. Seconds; both are
# told in docs/testing.md.
_DYING: Final = 10.0
_THREAD_ENDING: Final = 5.0


@dataclass(frozen=True)
class Surroundings:
    """What there is beside the program itself."""

    processes: set[psutil.Process]
    descriptors: dict[int, str]
    threads: set[threading.Thread]


def surroundings() -> Surroundings:
    """Return what there is now. From the first call on, orphans fall to this process."""
    take_in_orphans()
    return Surroundings(children(), descriptors(), set(threading.enumerate()))


def take_in_orphans() -> None:
    """Have descendants that lost their parent fall to this process. Linux only; lasts for good."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # One helper process of multiprocess for the life of this process, as with the
    # standard library: there before the first look.
    multiprocess.resource_tracker.ensure_running()


def children() -> set[psutil.Process]:
    """Return the living descendants of this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:  # it ended while we looked
            continue
    return found


def reap_orphans(started_here: set[int]) -> list[int]:
    """Reap zombies that fell to us; return those that the library should have reaped."""
    own = []
    for process in psutil.Process().children():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.pid in started_here:
                    own.append(process.pid)
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):  # reaped meanwhile
            continue
    return own


def descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they are."""
    directory = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    found = {}
    for name in os.listdir(directory):
        try:
            found[int(name)] = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        except OSError:  # macOS: descriptors, but no links
            found[int(name)] = "?"
    return found


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once *condition* holds; for facts of the kernel that announce themselves to nobody."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.005)


@contextlib.contextmanager
def leaves_nothing() -> Iterator[None]:
    """Run the block; then look for what it left.

    It is patient with what is on its way out: processes have 10 seconds to be gone,
    each thread has 5. Waiting ends as soon as they are, so only a test that fails
    takes so long. Zombies and descriptors are looked for once, after that: who has
    returned has reaped and closed.

    Raises:
        AssertionError: a process, a zombie, a descriptor or a thread; the text
            names them. Not raised over an error of the block itself.
    """
    started_here: set[int] = set()
    start = launch.FreshProcess.start

    def noted_start(self: launch.FreshProcess) -> None:
        start(self)
        started_here.add(self.pid)

    launch.FreshProcess.start = noted_start  # type: ignore[method-assign]  # put back below
    before = surroundings()
    try:
        yield
    finally:
        launch.FreshProcess.start = start  # type: ignore[method-assign]  # as it was
    assert_nothing_left(before, started_here)


def assert_nothing_left(before: Surroundings, started_here: set[int]) -> None:
    """Compare with *before*; processes that are ending get a moment.

    Args:
        before: what there was.
        started_here: processes that the library started from this one and has to reap.
    """
    try:
        wait_until(lambda: not children() - before.processes, _DYING)
    except AssertionError:
        raise AssertionError(f"processes left: {children() - before.processes}") from None
    own_zombies = reap_orphans(started_here)
    assert not own_zombies, f"zombies that were never reaped: {own_zombies}"
    alive = {thread for thread in set(threading.enumerate()) - before.threads if thread.is_alive()}
    for thread in alive:
        thread.join(_THREAD_ENDING)
    assert not [t for t in alive if t.is_alive()], f"threads left running: {alive}"
    # After the threads: some of them may be closing descriptors.
    left = {fd: what for fd, what in descriptors().items() if fd not in before.descriptors}
    assert not left, f"descriptors left open: {left}"
