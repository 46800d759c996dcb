"""Turning a fresh process into a worker: what it must not share, and what it must not do.

The order matters. The session comes first: from then on a kill of the group
hits this worker and nobody else. Limits come before any code of the user's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final

import setproctitle

from supervisor.child.forks import tell_of_forks
from supervisor.options import ResourceLimits

# linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

# Under memory pressure the kernel kills who scores highest. 500 of 1000: well
# above the supervisor, whatever their sizes are, and below 1000, which means
# "always me first" and would put jobs before every other program of the machine.
_OOM_SCORE: Final = "500"

_libc: Final = ctypes.CDLL(None, use_errno=True)
# Looked up once: ctypes makes an object at the first look, and each worker would make it.
_prctl: Final = _libc.prctl if sys.platform == "linux" else None

# Where multiprocessing and its fork keep who this process is.
_PROCESS_MODULES: Final = ("multiprocessing.process", "multiprocess.process")

# Signals that are the supervisor's business. A service manager sends SIGTERM to
# every process of the unit; a job must not die of it while the server drains.
_FOR_THE_SUPERVISOR: Final = (signal.SIGINT, signal.SIGTERM)


def _leave_it_to_the_supervisor(signum: int, frame: object) -> None:
    """Do nothing. A handler and not SIG_IGN, because SIG_IGN survives exec:

    a program that the job starts could then not be terminated politely.
    """


def become_session_leader() -> None:
    """Leave the terminal's session and group; take in orphans of what we start.

    As child subreaper this process inherits descendants that lost their parent,
    so that a daemon that a job forked twice can still be found under it.
    """
    # EPERM: a group leader already, which a fresh child of spawn is not.
    try:  # noqa: SIM105 - each function that a worker runs is a page that it copies
        os.setsid()
    except PermissionError:
        pass
    _become_subreaper()


def become_group_leader() -> None:
    """Leave the terminal's group, but stay in the supervisor's session; take in orphans.

    For the fork server. When the supervisor dies its group becomes an orphaned one,
    and if it is stopped in that moment the kernel sends SIGHUP and SIGCONT: it wakes
    up and can do what is left to do. A session of its own would be orphaned from the
    beginning, and nobody would wake it. Source: setpgid(2), exit(3p).
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, _leave_it_to_the_supervisor)
    _become_subreaper()


def _become_subreaper() -> None:
    if _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    if _prctl is not None and _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def ignore_supervisor_signals() -> None:
    """Let SIGINT and SIGTERM pass, here but not in what the job forks or starts.

    Runs on: the main thread.
    """
    for number in _FOR_THE_SUPERVISOR:
        signal.signal(number, _leave_it_to_the_supervisor)


def restore_signals_in_forks() -> None:
    """Have processes that user code forks from a worker treat signals the usual way.

    Called once, in the process whose children are workers' children: without
    it ``multiprocessing.Process.terminate`` would do nothing inside a job.
    """
    tell_of_forks(_signals)


class _Signals(threading.local):
    """The signals that are the supervisor's business, around a fork. Of the thread that forks."""

    mask: set[int | signal.Signals] | None = None

    def before_fork(self) -> None:
        """Hold them. One that hits the child before it has its own handlers is lost otherwise:

        ours takes it, and does nothing.
        """
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_SUPERVISOR)

    def after_fork_in_parent(self) -> None:
        """Let them through again."""
        if self.mask is not None:  # None: a handler of the user's raised before they were held
            mask, self.mask = self.mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_fork_in_child(self) -> None:
        """Give them the usual handlers, and let them through."""
        if signal.getsignal(signal.SIGTERM) is _leave_it_to_the_supervisor:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _leave_it_to_the_supervisor:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.after_fork_in_parent()


_signals: Final = _Signals()


def prefer_for_oom() -> None:
    """Offer this process to the kernel before the supervisor when memory runs out."""
    if sys.platform != "linux":
        return
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    except FileNotFoundError:  # /proc is not mounted
        return
    try:
        os.write(fd, _OOM_SCORE.encode())
    except PermissionError:
        # A container that started with a higher score may not be allowed to
        # lower it; then the score is high enough as it is.
        return
    finally:
        os.close(fd)


def apply_limits(limits: ResourceLimits | None) -> None:
    """Set the kernel's limits for this process and what it starts.

    A limit above the hard limit that is in force is cut to it: it could not be
    exceeded anyway.
    """
    if limits is None:
        return
    mb = 2**20
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, _times(limits.address_space_mb, mb)),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_FSIZE, _times(limits.file_size_mb, mb)),
        (resource.RLIMIT_CORE, None if limits.core_dumps is not False else 0),
    ):
        if value is not None:
            _limit(kind, value)
    if limits.core_dumps:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def _times(value: int | None, factor: int) -> int | None:
    return None if value is None else value * factor


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    # SIGXCPU comes at the soft limit and can be caught; SIGKILL at the hard one.
    hard = value + 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else value
    resource.setrlimit(kind, (value, hard))


def join_cgroup(directory: str | None, worker: int) -> None:
    """Move this process into its own control group: what it starts is born in there.

    Raises:
        OSError: there is no such group. A worker that the kernel does not limit
            as it should must not go on.
    """
    if directory is not None:
        _write_cgroup(f"{directory}/{worker}/cgroup.procs", b"0")


def kill_cgroups(directory: str | None) -> None:
    """Kill every process in every worker's group. For when the supervisor is gone."""
    if directory is not None:
        # FileNotFoundError: the supervisor had removed them before it went.
        with contextlib.suppress(FileNotFoundError):
            _write_cgroup(f"{directory}/cgroup.kill", b"1")


def remove_cgroups(directory: str | None) -> bool:
    """Remove the groups; return False if a process in one of them still dies."""
    if directory is None:
        return True
    try:
        for entry in os.scandir(directory):
            if entry.is_dir(follow_symlinks=False):
                os.rmdir(entry.path)
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY
        return False
    return True


def _write_cgroup(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def reseed() -> None:
    """Make this worker draw other random numbers than its siblings.

    ``random`` seeds itself anew at each fork; numpy's legacy generator does not.
    """
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def forget_environment(names: Iterable[str]) -> None:
    """Remove variables that are the supervisor's alone, such as API secrets.

    The memory is wiped as well: unsetting alone leaves the value where
    ``/proc/<pid>/environ`` shows it.
    """
    _libc.getenv.restype = ctypes.c_void_p
    for name in names:
        if _wiped(name):
            os.environ.pop(name, None)


def _wiped(name: str) -> bool:
    """Overwrite the value in the process's environment block; say whether there was one."""
    address = _libc.getenv(name.encode())
    if not address:
        return False
    ctypes.memset(address, 0, len(ctypes.string_at(address)))
    return True


def set_title(title: str) -> None:
    """Show *title* in ``ps``."""
    setproctitle.setproctitle(f"greenroom: {title}")


def take_multiprocessing_identity(supervisor_pid: int, authkey: bytes) -> None:
    """Look like a child of the supervisor to multiprocessing and to multiprocess.

    ``current_process()``, ``parent_process()`` and ``authkey`` are what a child made by
    the standard library would see, so that manager proxies work in jobs. Done once, in
    the process that workers are forked from; each only takes its number.
    """
    made_by: Any = sys.modules.get("multiprocess.process")
    parent = None if made_by is None else made_by.parent_process()
    # Readable once the supervisor is gone; inherited from the launch.
    sentinel = None if parent is None else parent.sentinel
    for package in _PROCESS_MODULES:
        process: Any = sys.modules.get(package)
        if process is None:
            continue
        # multiprocess brought the key of its own that the host has for it.
        key = authkey if package == "multiprocessing.process" else process.current_process().authkey
        current = process.BaseProcess()
        current._config["authkey"] = process.AuthenticationString(key)
        current._parent_pid = supervisor_pid
        process._current_process = current
        process._parent_process = process._ParentProcess("MainProcess", supervisor_pid, sentinel)


def take_multiprocessing_number(worker: int) -> None:
    """Be number *worker* to both. After :func:`take_multiprocessing_identity`."""
    for package in _PROCESS_MODULES:
        process: Any = sys.modules.get(package)
        if process is not None:
            current = process._current_process
            current._name = f"GreenroomWorker-{worker}"
            current._identity = (worker,)
            if process._children:
                process._children = set()
