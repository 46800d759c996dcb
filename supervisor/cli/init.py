"""Being process 1 of a container: what the kernel expects of it, kept out of the server.

Process 1 inherits every process whose parent has died, and has to reap it, or
zombies pile up. The server must not do that: ``waitpid`` for any child would take
away exit statuses that others wait for, the pool's and the user's. So process 1
stays behind as a small init, and the server goes on in a child.

The child is a fork where that is safe, which is while there is one thread; the
user's imports are then shared. Where an import has started threads, the command
is run again from the start.

Signals that process 1 gets are passed on to the server, and its exit status is
the server's. The server has a process group of its own, in the foreground, so
that a Ctrl-C hits it once and not twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from supervisor.child import isolate

# What a service manager or a terminal may send to process 1 and mean for the server.
PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def stay_behind_as_init(command: Sequence[str]) -> None:
    """If this is process 1, let a child go on from here, and be its init. Else return at once.

    Runs on: the main thread, before anything of ours was started.

    Args:
        command: runs this program again, where it cannot be forked.
    """
    if os.getpid() == 1:
        # Blocked until they are listened to, so that none is lost in between.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, signal.SIGCHLD))
        server = _fork() if _is_single_threaded() else _run_again(command, before)
        if server == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        _own_group(server)
        isolate.set_title("init")
        reader = _listen()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _be_init(server, reader)


def _fork() -> int:
    pid = os.fork()  # noqa: TID251 - one thread, checked above: none is lost with a lock in hand
    if pid == 0:
        os.setpgid(0, 0)
    return pid


def _run_again(command: Sequence[str], mask: Iterable[int]) -> int:
    return os.posix_spawn(command[0], list(command), os.environ, setpgroup=0, setsigmask=mask)


def _is_single_threaded() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _own_group(server: int) -> None:
    # The child does it as well: whoever is first, the group is there afterwards.
    # EACCES: it was, and the child runs its program already. ESRCH: it has ended.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(server, server)
    if sys.stdin is not None and sys.stdin.isatty():
        # Only a process of the foreground may do this without being stopped.
        # ENOTTY: the terminal is not our session's. Then Ctrl-C is none of ours either.
        with contextlib.suppress(OSError):
            os.tcsetpgrp(sys.stdin.fileno(), server)


def _listen() -> int:
    """Return a descriptor from which the numbers of signals can be read.

    Not sigwait: a thread that somebody's import has started could be the one that
    gets the signal, and process 1 forgets what it has no handler for.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*PASSED_ON, signal.SIGCHLD):
        signal.signal(number, _do_nothing)
    return reader


def _do_nothing(signum: int, frame: object) -> None:
    """The number in the wake-up pipe does it."""


def _be_init(server: int, reader: int) -> NoReturn:
    """Reap whatever dies, pass signals on, and end when the server has."""
    while True:
        # Whatever came: the wake-up for a death may have been merged with another.
        status = _reap(server)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        for number in os.read(reader, 512):
            if number != signal.SIGCHLD:
                with contextlib.suppress(ProcessLookupError):  # reaped above, or in the next turn
                    os.kill(server, number)


def _reap(server: int) -> int | None:
    """Reap in a loop until there is nothing more; return the server's status if it was among it."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == server:
            found = status
