"""The signal that reaches a worker's main thread while that is busy.

It interrupts system calls, and Python runs its handler (``supervisor.child.interrupt``) between
two instructions of the main thread. The worker's own control thread sends it to stop a plain
job. The supervisor sends it, beside what it says over the channel, to a main thread that may
keep the control thread from the interpreter's lock: the handler lets that one in.

Why SIGURG: its default is to be ignored, so a stray one harms neither a process before the
handler stands nor a program that a job starts; nothing but out-of-band TCP data uses it. The
Go runtime chose it to preempt threads for the same reasons.
"""

from __future__ import annotations

import os
import signal
from typing import Final

NUDGE: Final = signal.SIGURG

_RUNNING: Final = b"R"


def nudge_if_busy(pid: int, pidfd: int) -> None:
    """Send the signal to process *pid* unless its main thread waits in a system call.

    One that waits has mostly let go of the interpreter's lock, and keeps nobody from it. If it
    has not, it is in somebody's C code, for which the call would end before its time.

    Raises:
        OSError: it has been reaped, or is no longer ours to signal; or there is no /proc.
    """
    if _state(pid) == _RUNNING:
        signal.pidfd_send_signal(pidfd, NUDGE)


def _state(pid: int) -> bytes:
    """Return the state of a process's main thread. Source: proc(5), /proc/pid/stat, field 3."""
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        said = os.read(fd, 4096)
    finally:
        os.close(fd)
    # Its name comes before, in parentheses, and may contain what it likes.
    return said.rpartition(b") ")[2][:1]
