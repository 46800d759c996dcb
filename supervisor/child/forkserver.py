"""The fork server: one thread, everything preloaded, forks workers on request.

Why its own process: a fork copies the one thread that calls it and every lock of
the others, locked or not. The user's program has threads. This process has one,
checks that it does, and is therefore the only place of this library that forks.

What it shares with its workers costs nothing until somebody writes to it. The
garbage collector would write to every object it visits, so the heap is frozen
(``gc.freeze``) once, before the first fork.

It is the parent of the workers, so it knows what no one else can: which process
ids are still theirs. It reaps, and before it reaps it kills what is left of the
group, because as long as the dead leader is a zombie its number cannot be reused.
It is also their subreaper: whatever a worker's job has hidden from the group
falls to this process when the worker dies, and is killed here.

When the supervisor is gone (the channel ends) it kills every group and exits.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Final, NoReturn

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import IpcError
from ipc.frames import Need
from ipc.messages import (
    Decoder,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    ForkServerReady,
    Hello,
    KillWorker,
    Preloaded,
    PreloadError,
    ToForkServer,
)
from supervisor.child import finalizers, isolate, logs
from supervisor.child.answer import error_text
from supervisor.child.birth import Birth
from supervisor.child.boot import Boot
from supervisor.child.context import JobProcess
from supervisor.child.forks import fork_worker
from supervisor.child.logs import LogForwarder
from supervisor.child.pinned import Pins
from supervisor.child.practice import settle
from supervisor.child.strays import children_of_thread
from supervisor.child.threads import check_single_threaded

# How long the last sweep may take. A process in an uninterruptible wait (a dead
# network file system) cannot be reaped; nothing waits for it longer than this.
_SWEEP_SECONDS: Final = 5.0
_STRAY_SECONDS: Final = 0.005


def main(boot: Boot) -> None:
    """Run the fork server. The target of the process that multiprocess starts."""
    isolate.become_group_leader()
    isolate.ignore_supervisor_signals()
    isolate.forget_environment(boot.settings.without_environment)
    if boot.settings.titles:
        isolate.set_title("fork server")
    ends = boot.received_ends()
    if boot.tracker is not None:
        _share_resource_tracker(boot.tracker.fd)
    channel: BlockingChannel[ToForkServer] = BlockingChannel(
        socket.socket(fileno=ends.channel), Decoder(ToForkServer)
    )
    os.close(ends.mark)
    if ends.stdout >= 0:
        logs.redirect_output(ends.stdout, ends.stderr)
    forwarder = logs.install(boot.settings.log_level)
    log_socket = socket.socket(fileno=ends.logs)
    forwarder.connect(log_socket, dict)
    try:
        channel.send(Hello(os.getpid()))
        began = time.monotonic()
        try:
            birth = preload(boot, forwarder)
        except BaseException as exc:  # noqa: BLE001 - around the user's code: reported
            channel.send(PreloadError(error_text(exc)))
            _exit(1)
        logs.flush_output()  # or each fork would have a copy of what is not written yet
        channel.send(Preloaded(time.monotonic() - began))
        pins = settle(birth)
        forwarder.connect(log_socket, dict)
        server = ForkServer(birth, channel, pins)
        channel.send(ForkServerReady(os.getpid()))
    except IpcError:  # the supervisor is gone before there was anything to serve
        _exit(1)
    server.run()
    _exit(0)


def preload(boot: Boot, forwarder: LogForwarder) -> Birth:
    """Import and run ``preload_fnc``; return what workers are born with.

    Raises:
        ThreadsLeft: something of it left a thread running.
        BaseException: whatever the user's code raises.
    """
    _import_what_jobs_need()
    for name in boot.settings.preload_modules:
        importlib.import_module(name)
    hooks = boot.hooks.open()
    proc = JobProcess(user_arguments=hooks.user_arguments, http_proxy=boot.settings.http_proxy)
    if hooks.preload_fnc is not None:
        _run_preload(hooks.preload_fnc, proc)
    check_single_threaded()
    # Again: user code may have set up handlers of its own.
    forwarder.attach()
    isolate.ignore_supervisor_signals()
    isolate.restore_signals_in_forks()
    finalizers.take_off_handlers()
    isolate.take_multiprocessing_identity(boot.supervisor_pid, boot.authkey)
    return Birth(hooks, boot.settings, proc, forwarder)


def _import_what_jobs_need() -> None:
    # Imported here once instead of in each worker's first job.
    for name in ("asyncio", "cloudpickle", "multiprocessing.reduction", "multiprocess.reduction"):
        importlib.import_module(name)


def _run_preload(preload_fnc: Any, proc: JobProcess) -> None:
    result = preload_fnc(proc)
    if hasattr(result, "__await__"):
        import asyncio

        async def awaited() -> None:
            await result

        asyncio.run(awaited())


def _share_resource_tracker(fd: int) -> None:
    """Use the supervisor's tracker for the standard library's shared memory, not one each."""
    from multiprocessing import resource_tracker

    # What multiprocessing itself does in its children; typeshed leaves it out.
    resource_tracker._resource_tracker._fd = fd  # type: ignore[attr-defined]


def _exit(status: int) -> NoReturn:
    logs.flush_output()
    os._exit(status)


class ForkServer:
    """Forks, reaps and reports, in one loop that waits for two descriptors.

    Runs on: the main thread, the only one there is.
    """

    def __init__(
        self, birth: Birth, channel: BlockingChannel[ToForkServer], pins: Pins | None
    ) -> None:
        self._birth = birth
        self._channel = channel
        self._pins = pins  # pages that each fork copies, as long as these are here
        self._workers: dict[int, int] = {}  # pid to worker
        # What preload_fnc started is not a stray of a worker.
        self._own_children = set(_children())
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def run(self) -> None:
        """Serve until the supervisor is gone, then leave nothing behind."""
        signal.signal(signal.SIGCHLD, _wake_up)
        # User code may have blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        try:
            self._serve()
        except IpcError as exc:
            # Where output is captured, who reads it has died together with the
            # channel; that must not keep the sweep from being done.
            with contextlib.suppress(OSError):
                sys.stderr.write(f"greenroom: fork server: {exc}\n")
        finally:
            self._sweep()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            # Deaths first: a worker that is reported dead is not waited for.
            if self._wake_reader in ready:
                _empty(self._wake_reader)
                self._reap()
            if self._channel.fileno() in ready:
                self._channel.fill()
                while not isinstance(taken := self._channel.next_buffered(), Need):
                    self._handle(*taken)
                if taken is Need.NOTHING:
                    return

    def _handle(self, message: ToForkServer, descriptors: list[int]) -> None:
        if isinstance(message, Fork):
            self._fork(message, descriptors)
        elif isinstance(message, KillWorker):
            for pid, worker in self._workers.items():
                if worker == message.worker:
                    _kill_group(pid)

    # ── forking ──────────────────────────────────────────────────────────────

    def _fork(self, message: Fork, descriptors: list[int]) -> None:
        worker = message.worker
        try:
            pid = fork_worker()
        except OSError as exc:
            fds.close_all(descriptors)
            self._channel.send(ForkFailed(worker, exc.errno or 0))
            return
        if pid == 0:
            self._birth.become_worker(
                worker,
                descriptors,
                self._shed,
                awaited=message.awaited,
                familiar=message.familiar,
            )
        self._workers[pid] = worker
        fds.close_all(descriptors)
        # Nobody but us can reap it, so between the fork and this line its number
        # cannot have become another process's.
        try:
            pidfd = [os.pidfd_open(pid)]
        except OSError:
            pidfd = []  # out of descriptors, or an old kernel: the supervisor asks us to kill
        self._channel.send(Forked(worker, pid), pidfd)
        fds.close_all(pidfd)

    def _shed(self) -> None:
        """Close what is the fork server's. In its children."""
        self._channel.close()
        fds.close_all((self._wake_reader, self._wake_writer))
        if self._pins is not None:
            self._pins.close()
        self._birth.forwarder.disconnect()

    # ── reaping ──────────────────────────────────────────────────────────────

    def _reap(self) -> None:
        """Reap in a loop until there is nothing more: signals merge."""
        reaped = False
        while (pid := _dead_child()) is not None:
            worker = self._workers.pop(pid, None)
            if worker is not None:
                # Its zombie keeps the group's number ours until we reap it.
                _kill_rest_of_group(pid)
            _, status, usage = os.wait4(pid, 0)
            reaped = True
            if worker is not None:
                cpu = usage.ru_utime + usage.ru_stime
                self._channel.send(Exited(worker, status, cpu, usage.ru_maxrss * 1024))
        if reaped:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill what fell to us: descendants of dead workers that had left the group.

        A stray's own children fall to us when it dies; its death wakes us again.
        """
        for pid in _children():
            if pid not in self._workers and pid not in self._own_children:
                _kill(pid)

    def _sweep(self) -> None:
        """Kill everything and reap it."""
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        deadline = time.monotonic() + _SWEEP_SECONDS
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        cgroup = self._birth.settings.cgroup
        isolate.kill_cgroups(cgroup)
        while True:
            for pid in self._workers:
                _kill_group(pid)
            for pid in _children():
                _kill(pid)
            while (dead := _dead_child()) is not None:
                os.waitpid(dead, 0)
                self._workers.pop(dead, None)
            if time.monotonic() >= deadline:
                return
            if not _children():
                # Strays of workers that another fork server had made may still be
                # dying, and are nobody's here: nothing wakes us for them.
                if isolate.remove_cgroups(cgroup):
                    return
                time.sleep(_STRAY_SECONDS)
                continue
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            _empty(self._wake_reader)


def _wake_up(signum: int, frame: object) -> None:
    """Do nothing: the byte in the wake-up pipe does it."""


def _empty(fd: int) -> None:
    try:  # noqa: SIM105 - this and what follows is run for each worker
        os.read(fd, 4096)  # what is left after that wakes us again
    except BlockingIOError:
        pass


def _dead_child() -> int | None:
    """Return a child that has died and is not reaped yet, or None."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _kill_group(pid: int) -> None:
    _kill(pid)
    _kill_rest_of_group(pid)


def _kill_rest_of_group(pid: int) -> None:
    try:  # noqa: SIM105
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _kill(pid: int) -> None:
    # PermissionError: it became another user (a setuid program). It is out of reach.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    """Return the ids of this process's children, dead or alive."""
    try:
        return children_of_thread(os.getpid())
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        import psutil

        return [child.pid for child in psutil.Process().children()]
