"""The hand inside the server's process: faults that need to know what a worker is just now.

It listens to every step of every worker, so that a signal hits a worker in the
state that was drawn and not in one that it has left meanwhile. It changes nothing
that the supervisor decides on, and sends signals as any process of the user could.

Clock jumps are simulated here: ``time.time``, ``time.time_ns`` and what is built
on them, in this process alone. The kernel's clock is the whole machine's, and a
time namespace can shift the monotonic clocks but not the wall clock.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import psutil

from supervisor.lifecycle import State
from supervisor.worker import Worker
from supervisor.workers import Workers
from tests.chaos.journal import Journal

logger = logging.getLogger("chaos")

# What a process of ours may get at any time without being harmed.
STORM: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG)
# SIGTERM and SIGINT are orders to the supervisor itself.
STORM_FOR_SUPERVISOR: Final = (signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGCONT)


class Saboteur:
    """Carries out the faults that it is told on a line of JSON each.

    Runs on: the server's loop.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._pools: list[Workers] = []
        self._wanted: dict[str, list[dict[str, Any]]] = {}
        self._real_time, self._real_time_ns = time.time, time.time_ns

    # ── watching ─────────────────────────────────────────────────────────────

    def watch(self, workers: Workers) -> None:
        """Follow every step of *workers* from now on; forget pools that have no worker left."""
        self._pools = [each for each in self._pools if each.all] + [workers]
        moved, launched = workers.moved, workers.launched

        def noted_moved(worker: Worker, before: State, after: State) -> None:
            moved(worker, before, after)
            self._seen(worker, worker.state.value)

        def noted_launched(worker: int, pid: int, pidfd: int | None) -> None:
            launched(worker, pid, pidfd)
            for each in workers.all:
                if each.number == worker and each.state is State.SPAWNING:
                    self._seen(each, State.SPAWNING.value)

        workers.moved = noted_moved  # type: ignore[method-assign]
        workers.launched = noted_launched  # type: ignore[method-assign]

    def _seen(self, worker: Worker, state: str) -> None:
        if worker.pid is None or not (waiting := self._wanted.get(state)):
            return
        fault = waiting.pop(0)
        if fault["late"]:
            self._loop.call_later(fault["late"], self._hit, worker, fault)
        else:
            self._hit(worker, fault)

    def _hit(self, worker: Worker, fault: dict[str, Any]) -> None:
        # By pidfd: the process may be gone, and its number another's.
        if worker.pidfd is None:
            return
        number = signal.Signals[fault["signal"]]
        try:
            pidfd = os.dup(worker.pidfd)
        except OSError:  # another fault took all descriptors; what is raised here hits the server
            self._wanted.setdefault(fault["state"], []).append(fault)
            return
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            os.close(pidfd)
            return
        self._done(fault)
        if "for" in fault:
            self._loop.call_later(fault["for"], _go_on, pidfd)
        else:
            os.close(pidfd)

    def _done(self, fault: dict[str, Any]) -> None:
        self._journal.now("x", fault["number"])

    def tell_all(self) -> None:
        """Log every worker and every task: the harness has found us stuck."""
        for workers in self._pools:
            logger.error("fork server %s, %s", workers.forkserver_pid, workers.stats())
            for worker in workers.all:
                logger.error("%r, job %r", worker, worker.job)
        for task in asyncio.all_tasks():
            text = io.StringIO()
            task.print_stack(file=text)
            logger.error("%s", text.getvalue())

    # ── orders ───────────────────────────────────────────────────────────────

    def listen(self, fd: int) -> None:
        """Take orders from *fd* until it ends."""
        buffer = bytearray()

        def readable() -> None:
            data = os.read(fd, 65536)
            if not data:
                self._loop.remove_reader(fd)
            buffer.extend(data)
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                self.obey(json.loads(line))

        os.set_blocking(fd, False)
        self._loop.add_reader(fd, readable)

    def obey(self, fault: dict[str, Any]) -> None:
        """Carry *fault* out, or keep it until there is a worker for it."""
        if "state" in fault:
            self._wanted.setdefault(fault["state"], []).append(fault)
            return
        orders: dict[str, Callable[[dict[str, Any]], None]] = {
            "SIGKILL of all idle workers": self._kill_idle,
            "SIGKILL of the fork server": self._signal_fork_servers,
            "SIGSTOP of the fork server": self._signal_fork_servers,
            "clock jump": self._jump,
            "signal storm": self._storm,
        }
        try:
            orders[fault["kind"]](fault)
        except OSError:  # another fault took all descriptors, and this one looks at processes
            self._loop.call_later(0.1, self.obey, fault)
            return
        self._done(fault)

    def _kill_idle(self, fault: dict[str, Any]) -> None:
        for workers in self._pools:
            for worker in workers.all:
                if worker.state is State.IDLE and worker.pidfd is not None:
                    _send(worker.pidfd, signal.SIGKILL)

    def _signal_fork_servers(self, fault: dict[str, Any]) -> None:
        number = signal.Signals[fault["kind"].split()[0]]
        for pid in self._fork_servers():
            os.kill(pid, number)

    def _fork_servers(self) -> list[int]:
        # Our children and not yet reaped by us: their numbers cannot be another's.
        ours = {child.pid for child in psutil.Process().children()}
        pids = [workers.forkserver_pid for workers in self._pools]
        return [pid for pid in pids if pid is not None and pid in ours]

    def _jump(self, fault: dict[str, Any]) -> None:
        seconds: float = fault["by"]
        time.time = lambda: self._real_time() + seconds
        time.time_ns = lambda: self._real_time_ns() + int(seconds * 1e9)

    def _storm(self, fault: dict[str, Any]) -> None:
        for _ in range(fault["rounds"]):
            for number in STORM_FOR_SUPERVISOR:
                os.kill(os.getpid(), number)
            for pid in self._fork_servers():
                for number in STORM:
                    os.kill(pid, number)
            for workers in self._pools:
                for worker in workers.all:
                    # One that has not said hello may not have its handlers yet.
                    if worker.pidfd is not None and worker.state is not State.SPAWNING:
                        for number in STORM:
                            _send(worker.pidfd, number)


def _send(pidfd: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return  # it was faster


def _go_on(pidfd: int) -> None:
    _send(pidfd, signal.SIGCONT)
    os.close(pidfd)
