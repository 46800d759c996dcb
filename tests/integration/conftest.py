"""Every test here ends with nothing left behind: no process, zombie, descriptor or thread.

The test process is a child subreaper, so whatever a server or a pool leaves in
the world falls to it and is seen, however far it has run.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import multiprocess.resource_tracker
import psutil
import pytest

from supervisor import launch

T = TypeVar("T")

PR_SET_CHILD_SUBREAPER = 36

# Only matters when a test fails.
PATIENCE = 30.0


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # One helper process of multiprocess for the life of this process, as with the
    # standard library: there before the first snapshot.
    multiprocess.resource_tracker.ensure_running()


def children() -> set[psutil.Process]:
    """Return the living descendants of this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


def reap_orphans(started_here: set[int]) -> list[int]:
    """Reap zombies that fell to us; return those that our own code should have reaped."""
    own = []
    for process in psutil.Process().children():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.pid in started_here:
                    own.append(process.pid)
                os.waitpid(process.pid, os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return own


def descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once *condition* holds; for facts of the kernel that announce themselves to nobody."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.005)


async def soon(awaitable: Awaitable[T], seconds: float = PATIENCE) -> T:
    """Await with a limit that only matters when the test fails."""
    return await asyncio.wait_for(awaitable, seconds)


@pytest.fixture(autouse=True)
def leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a process, a zombie, a descriptor or a thread behind."""
    started_here: set[int] = set()
    start = launch.FreshProcess.start

    def noted_start(self: launch.FreshProcess) -> None:
        start(self)
        started_here.add(self.pid)

    monkeypatch.setattr(launch.FreshProcess, "start", noted_start)
    processes = children()
    open_before = descriptors()
    threads = set(threading.enumerate())
    yield
    # The kernel takes a moment to finish processes that were killed.
    wait_until(lambda: not children() - processes, 10)
    own_zombies = reap_orphans(started_here)
    assert not own_zombies, f"zombies that were never reaped: {own_zombies}"
    left = {fd: what for fd, what in descriptors().items() if fd not in open_before}
    assert not left, f"descriptors left open: {left}"
    alive = {thread for thread in set(threading.enumerate()) - threads if thread.is_alive()}
    for thread in alive:
        thread.join(5)
    assert not [t for t in alive if t.is_alive()], f"threads left running: {alive}"
