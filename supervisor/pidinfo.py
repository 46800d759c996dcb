"""What the kernel says through a pidfd: whose it is, and how its process ended.

How it ended is asked when its parent can tell no more.

Linux 6.15 and newer keep the exit status with the pidfd after the process was
reaped by whoever it fell to (linux/pidfd.h, PIDFD_GET_INFO with PIDFD_INFO_EXIT).
Older kernels refuse, and the answer is that nobody knows.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from supervisor.job import Exit

# What :func:`pid_of` returns for a process that was reaped already, and where the
# kernel cannot be asked.
UNKNOWN: Final = -1

_SIZE: Final = 64  # struct pidfd_info, its first published size
_GET_INFO: Final = (3 << 30) | (_SIZE << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct)
_WANT_EXIT: Final = 1 << 3
_MASK: Final = struct.Struct("Q")
_EXIT_CODE: Final = struct.Struct("i")
_EXIT_CODE_AT: Final = 60


def pid_of(fd: int) -> int | None:
    """Return the process id behind a pidfd, or :data:`UNKNOWN`; None if it is no pidfd.

    Source: proc(5), /proc/pid/fdinfo, "Pid".
    """
    try:
        # Without Python's layers of files: this is done for each worker that is born.
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc, or no descriptor left to read it with
        return UNKNOWN
    try:
        _, said, rest = os.read(info, 4096).partition(b"\nPid:")
    finally:
        os.close(info)
    return int(rest.split(None, 1)[0]) if said else None


def exit_of(pidfd: int) -> Exit:
    """Return how the process behind *pidfd* ended; unknown where the kernel cannot say."""
    info = bytearray(_SIZE)
    _MASK.pack_into(info, 0, _WANT_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:  # a kernel without it
        return Exit()
    (mask,) = _MASK.unpack_from(info, 0)
    if not mask & _WANT_EXIT:
        return Exit()
    (status,) = _EXIT_CODE.unpack_from(info, _EXIT_CODE_AT)
    return Exit.from_wait_status(status)
