"""What a launcher of workers promises, and what both of them need.

Two launchers: the fork server (``forkserver.py``) and fresh interpreters
(``spawn.py``). Both start a process through multiprocess's spawn context, both
report with the same four calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.process
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ipc import fds
from ipc.mark import make_mark
from supervisor import interpreter, travel
from supervisor.child.boot import Boot, Hooks, Inherited, Sealed, Settings
from supervisor.job import Exit, ExitReport

logger = logging.getLogger("greenroom.launch")

# What multiprocessing has for a child whose exit status nobody knows.
_UNKNOWN_EXIT: Final = 255

# linux/pidfd.h, since Linux 6.9: the signal goes to the group that the process leads.
_PIDFD_SIGNAL_PROCESS_GROUP: Final = 1 << 2


class LaunchEvents(Protocol):
    """Who a launcher reports to. Runs on: the pool's loop, every method."""

    def launched(self, worker: int, pid: int, pidfd: int | None) -> None:
        """The worker has a process. The pidfd is the callee's to close."""
        ...

    def launch_failed(self, worker: int, error: OSError) -> None:
        """There is no process and there will be none."""
        ...

    def exited(self, worker: int, report: ExitReport) -> None:
        """The process has been reaped."""
        ...

    def launcher_lost(self, exit: Exit) -> None:
        """The launcher itself is gone; its workers have to be watched one by one."""
        ...


class Launcher(Protocol):
    """Starts workers' processes. Runs on: the pool's loop, every method."""

    async def start(self) -> float:
        """Get ready; return the seconds that preloading took.

        Raises:
            PreloadFailed: the user's imports or ``preload_fnc`` failed.
            OSError: no process or no descriptors.
        """
        ...

    def launch(self, worker: int, ends: SideOfChild, *, awaited: bool) -> None:
        """Have a process made; does not wait. *ends* are closed here when they were passed on.

        Args:
            worker: its number.
            ends: what it is born with.
            awaited: a job waits for it; what only spares need can be left out.

        Raises:
            OSError: no descriptors left. Nothing was started.
        """
        ...

    def kill(self, worker: int, pid: int, pidfd: int | None) -> None:
        """Send SIGKILL to the worker's whole group."""
        ...

    async def close(self) -> None:
        """Leave nothing behind. All workers have been reaped before, or are killed now."""
        ...


@dataclass
class SideOfChild:
    """The child's ends while the supervisor still holds them.

    Args:
        descriptors: in travelling order, which is that of :class:`~supervisor.child.boot.Ends`.
    """

    descriptors: list[int]

    def close(self) -> None:
        """Close all of them. May be called again."""
        while self.descriptors:
            os.close(self.descriptors.pop())


@dataclass
class SideOfSupervisor:
    """The supervisor's ends of one child."""

    channel: socket.socket
    logs: socket.socket
    mark: int
    stdout: int = -1
    stderr: int = -1

    def close(self) -> None:
        """Close all of them: there will be no such child."""
        self.channel.close()
        self.logs.close()
        fds.close_all(fd for fd in (self.mark, self.stdout, self.stderr) if fd >= 0)


def make_ends(*, capture_output: bool) -> tuple[SideOfSupervisor, SideOfChild]:
    """Return both sides of a new child's descriptors.

    Raises:
        OSError: EMFILE or ENFILE. What was opened until then is closed again.
    """
    sockets: list[socket.socket] = []
    others: list[int] = []
    try:
        sockets += fds.channel_pair()
        sockets += fds.channel_pair()
        others.append(make_mark())
        others.append(os.dup(others[0]))
        if capture_output:
            others += os.pipe()
            others += os.pipe()
    except BaseException:
        for sock in sockets:
            sock.close()
        fds.close_all(others)
        raise
    channel, child_channel, logs, child_logs = sockets
    near = SideOfSupervisor(channel, logs, *others[::2])
    far = SideOfChild([child_channel.detach(), child_logs.detach(), *others[1::2]])
    return near, far


@dataclass
class Blueprint:
    """What each child of one pool is born with."""

    hooks: Hooks
    settings: Settings
    capture_output: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def boot(self, ends: SideOfChild, worker: int = 0) -> Boot:
        """Return what travels to a new child."""
        return Boot(
            hooks=Sealed(self.hooks),
            settings=self.settings,
            ends=tuple(Inherited(fd) for fd in ends.descriptors),
            worker=worker,
            supervisor_pid=os.getpid(),
            authkey=bytes(multiprocessing.process.current_process().authkey),
            tracker=_running_tracker(),
        )


def _running_tracker() -> Inherited | None:
    """Return the standard library's resource tracker, if the host program started it.

    With it the children report shared memory to the host's tracker; each would
    start its own otherwise, and unlink at its exit what the host still uses.
    """
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    fd = None if module is None else module._resource_tracker._fd
    return None if fd is None else Inherited(fd)


class FreshProcess:
    """A process started by multiprocess, waited for and reaped by us.

    multiprocess would poll for it whenever another process is started, and join
    it at exit. We reap it ourselves, with its resource usage, so it is taken off
    those lists at once.

    Args:
        target: what it runs, once it has imported the main script.
        boot: its argument.
        name: multiprocess's name for it.
        first: the lines of a program that it runs before it imports anything.
    """

    def __init__(
        self, target: Callable[[Boot], None], boot: Boot, name: str, *, first: str = ""
    ) -> None:
        self._target = target
        self._boot = boot
        self._name = name
        self._first = first
        self._process: Any = None
        self.pid = 0

    def start(self) -> None:
        """Start it. Blocks for some milliseconds: not for the loop's thread.

        Raises:
            OSError: the kernel refused.
            PicklingError, TypeError, AttributeError: a hook cannot travel.
        """
        import multiprocess
        import multiprocess.process

        travel.keep_main_importable()
        context = multiprocess.get_context("spawn")
        process = context.Process(target=self._target, args=(self._boot,), name=self._name)
        with interpreter.told(first=self._first):
            process.start()
        multiprocess.process._children.discard(process)
        self._process = process
        self.pid = process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone. Only before :meth:`reap`."""
        # PermissionError: it became another user, and is out of reach.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Send SIGKILL to the process and its group. Only before :meth:`reap`."""
        for send in (os.kill, os.killpg):
            # ProcessLookupError: it leads no group yet. PermissionError: it became another user.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(self.pid, signal.SIGKILL)

    def reap(self) -> ExitReport | None:
        """Return how it ended, or None if it has not yet. What is left of its group is killed.

        Where the program ignores SIGCHLD, or waits for any child, the process is
        gone already: nobody knows how it ended, and its number may be another's.
        """
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            # Its zombie keeps the group's number ours until the next line but one.
            self.kill_group()
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            logger.warning(
                "how process %d ended is not known: this program ignores SIGCHLD or reaps all",
                self.pid,
            )
            self._close(_UNKNOWN_EXIT)
            return ExitReport(Exit())
        self._close(os.waitstatus_to_exitcode(status))
        unit = 1 if sys.platform == "darwin" else 1024
        return ExitReport(
            Exit.from_wait_status(status),
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * unit,
        )

    def wait(self) -> ExitReport:
        """Return how it ended, once it has. Blocks: not for the loop's thread."""
        with contextlib.suppress(ChildProcessError):  # reap says what that means
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        report = self.reap()
        assert report is not None, "it was waited for"
        return report

    def _close(self, exit_code: int) -> None:
        self._process._popen.returncode = exit_code
        self._process.close()


def kill_by_pidfd(pidfd: int) -> None:
    """Send SIGKILL to a process and to the group that it leads; a reused pid is never hit."""
    # It has ended, or became another user and is out of reach.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL, None, _PIDFD_SIGNAL_PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        pass  # it leads no group any more, or not yet
    except OSError:
        pass  # before Linux 6.9: the parent kills the group when it reaps the leader


def has_ended(pidfd: int) -> bool:
    """Return whether the process behind *pidfd* is dead, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def watch_exit(
    loop: asyncio.AbstractEventLoop, pid: int, pidfd: int | None, on_exit: Callable[[], None]
) -> Callable[[], None]:
    """Call *on_exit* once the process has ended; return what stops the watching.

    By pidfd. Where the kernel has none (macOS) a thread waits, which works for
    children of this process only.
    """
    if pidfd is not None:
        watched = pidfd

        def readable() -> None:
            loop.remove_reader(watched)
            on_exit()

        def stop() -> None:
            loop.remove_reader(watched)

        loop.add_reader(watched, readable)
        return stop

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):  # reaped already: it has ended all the same
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(on_exit)

    threading.Thread(target=wait, name=f"greenroom-wait-{pid}", daemon=True).start()
    return lambda: None


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd of a child that is not reaped yet, None where there are none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # no descriptor left, or a sandbox that forbids the call
        return None


def duplicate_or_none(fd: int) -> int | None:
    """Return a copy of *fd*, None while there are no descriptors left."""
    try:
        return os.dup(fd)
    except OSError:
        return None
