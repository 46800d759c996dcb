"""What the machine itself needs: to wake a forked child, and to fork one and reap it.

And the least of Python around it that carries a call over.
"""

from __future__ import annotations

import gc
import os
import pickle
import socket
import time
from collections import deque

from benchmarks import heavy, jobs
from benchmarks.drivers.base import Driver, Workload

# The size of the message that wakes the child: about a small job's.
MESSAGE_BYTES = 256


def _tell_when(sock: socket.socket) -> None:
    sock.recv(MESSAGE_BYTES)
    sock.send(repr(time.monotonic()).encode())


def _packed() -> bytes:
    return pickle.dumps((jobs.stamp, (), {}), pickle.HIGHEST_PROTOCOL)


def _serve_calls(sock: socket.socket) -> None:
    for _ in range(2):
        function, args, kwargs = pickle.loads(sock.recv(MESSAGE_BYTES))
        sock.send(repr(function(*args, **kwargs)).encode())


class Floor(Driver):
    """Has imported what our fork server has, so that its heap is as large as that one's."""

    # How long a child waits in recv before it is woken.
    idle_seconds = 0.005

    async def open(self, workload: Workload) -> None:
        import supervisor.child.forkserver  # noqa: F401 - for its heap

        if workload.heavy_mb:
            heavy.build(workload.heavy_mb)
        gc.collect()

    async def handover(self, kind: str) -> float:
        """Return seconds from a send to the first line of a child that was blocked in ``recv``.

        A fresh fork each time: no pool can hand a job to a single-use process faster
        than the kernel wakes one.

        Args:
            kind: ``"plain"`` for that. ``"call"`` for the least that carries a call over:
                pickled, sent, opened and called, by a child that has done it before.
        """
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _serve_calls(theirs) if kind == "call" else _tell_when(theirs)
            os._exit(0)
        try:
            if kind == "call":
                ours.send(_packed())
                ours.recv(64)
            # As long as an idle worker has been idle: a CPU that has slept longer wakes later.
            time.sleep(self.idle_seconds)
            sent = time.monotonic()
            ours.send(_packed() if kind == "call" else b"x" * MESSAGE_BYTES)
            return float(ours.recv(64)) - sent
        finally:
            os.waitpid(pid, 0)
            ours.close()
            theirs.close()

    async def settle(self) -> None:
        """Nothing to wait for: the pause is the child's, which is forked after it."""

    async def round_trip(self) -> float:
        """Return seconds for ``fork``, ``_exit`` and ``waitpid``."""
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return time.monotonic() - began

    async def all_at_once(self, count: int) -> float:
        """Return seconds for *count* of them, one after the other."""
        began = time.monotonic()
        for _ in range(count):
            await self.round_trip()
        return time.monotonic() - began

    async def burst(self, count: int, hold: float) -> float:
        """Return seconds until the last of *count* forked children has begun."""
        reader, writer = os.pipe()
        began = time.monotonic()
        pids = []
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                os.write(writer, f"{time.monotonic()!r}\n".encode())
                os._exit(0)
            pids.append(pid)
        os.close(writer)
        for pid in pids:
            os.waitpid(pid, 0)
        with open(reader, encoding="ascii") as lines:
            return max(map(float, lines)) - began

    async def heavy_objects(self) -> int:
        return jobs.heavy_objects()

    async def wait_idle(self, seconds: float) -> None:
        """Have each child wait so long before it is woken, as the workers of a pool do."""
        self.idle_seconds = seconds


class LeastLife(Floor):
    """The least that serves a call in a process of its own: forked, woken, answered, reaped.

    As many as a pool has idle workers are alive at a time, so that both CPUs have something
    to do. No supervisor beside the process that forks, no loop, no log, no second thread.
    """

    async def open(self, workload: Workload) -> None:
        await super().open(workload)
        self._alive = workload.idle

    async def all_at_once(self, count: int) -> float:
        """Return seconds for *count* calls."""
        began = time.monotonic()
        lives: deque[tuple[int, socket.socket]] = deque()
        for _ in range(count):
            if len(lives) == self._alive:
                _end(*lives.popleft())
            lives.append(_begin())
        while lives:
            _end(*lives.popleft())
        return time.monotonic() - began


def _begin() -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        function, args, kwargs = pickle.loads(theirs.recv(MESSAGE_BYTES))
        theirs.send(pickle.dumps(function(*args, **kwargs), pickle.HIGHEST_PROTOCOL))
        os._exit(0)
    theirs.close()
    ours.send(pickle.dumps((jobs.nothing, (), {}), pickle.HIGHEST_PROTOCOL))
    return pid, ours


def _end(pid: int, ours: socket.socket) -> None:
    with ours:
        pickle.loads(ours.recv(MESSAGE_BYTES))
    os.waitpid(pid, 0)
