"""A worker that is given a job runs at once, also on the CPU that gave it.

The kernel often wakes a worker on the CPU that sent the job. On a virtual machine it does so
nearly always: another CPU that sleeps has been given back to the host, and counts as taken.
There the worker waits until the sender sleeps or has used up its time slice: some 3 ms in a
program that goes on computing after ``submit``.

Who asks for a shorter slice than the one that runs is let in as soon as it is woken (Linux
6.12, EEVDF; sched_setattr(2), sched_runtime). So idle workers have the shortest there is. It
changes who goes first, not how much anybody gets, and needs no privilege. A job that lasts
takes the usual slice again, so that others are let in before it; what it started before that
keeps the short one.

The price is the sender's: it goes on when the job waits for something, or at the kernel's
next tick, 1 to 4 ms later.

On an older kernel, or one whose number for the call is not known here, nothing changes.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

# struct sched_attr, SCHED_ATTR_SIZE_VER0; linux/sched/types.h.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
# Not with SCHED_FLAG_RESET_ON_FORK: who has that flag may not choose another policy any more.
_KEEP_POLICY: Final = 0x08

# The kernel's least, in nanoseconds; 0 means the usual one. kernel/sched/syscalls.c
_SHORTEST: Final = 100_000
_USUAL: Final = 0

# The C library has no function for it before glibc 2.41.
_NUMBERS: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "loongarch64": 274}
_NUMBER: Final = _NUMBERS.get(os.uname().machine) if sys.platform == "linux" else None

# Keeps the interpreter's lock: see :func:`restore`.
_syscall: Final = ctypes.PyDLL(None).syscall


def shorten(pid: int) -> bool:
    """Have the main thread of process *pid* go first when it is woken; return whether it will.

    For a process whose main thread waits: a nice value that it sets just now may be lost.
    """
    return _ask(pid, _SHORTEST)


def restore() -> bool:
    """Give this process's main thread the usual time slice again; return whether it has it.

    Runs on: any thread. Here and not in the supervisor, because the nice value is read and
    written again with the slice. Both calls keep the interpreter's lock, so that another thread of
    Python's can set one in between only if it gets the lock in that very microsecond.
    """
    return _ask(os.getpid(), _USUAL)


def _ask(pid: int, nanoseconds: int) -> bool:
    if _NUMBER is None:
        return False
    try:
        nice = os.getpriority(os.PRIO_PROCESS, pid)  # said along with it, and to be left as it is
    except OSError:
        return False  # it has ended
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, _KEEP_POLICY, nice, 0, nanoseconds, 0, 0)
    return bool(_syscall(_NUMBER, pid, attributes, 0) == 0)
