"""How a process ended, asked through its pidfd, when its parent can tell no more.

Linux 6.15 and newer keep the exit status with the pidfd after the process was
reaped by whoever it fell to (linux/pidfd.h, PIDFD_GET_INFO with PIDFD_INFO_EXIT).
Older kernels refuse, and the answer is that nobody knows.
"""

from __future__ import annotations

import fcntl
import struct
from typing import Final

from supervisor.job import Exit

_SIZE: Final = 64  # struct pidfd_info, its first published size
_GET_INFO: Final = (3 << 30) | (_SIZE << 16) | (0xFF << 8) | 11  # _IOWR(0xFF, 11, struct)
_WANT_EXIT: Final = 1 << 3
_MASK: Final = struct.Struct("Q")
_EXIT_CODE: Final = struct.Struct("i")
_EXIT_CODE_AT: Final = 60


def exit_of(pidfd: int) -> Exit:
    """Return how the process behind *pidfd* ended; unknown where the kernel cannot say."""
    info = bytearray(_SIZE)
    _MASK.pack_into(info, 0, _WANT_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return Exit()
    (mask,) = _MASK.unpack_from(info, 0)
    if not mask & _WANT_EXIT:
        return Exit()
    (status,) = _EXIT_CODE.unpack_from(info, _EXIT_CODE_AT)
    return Exit.from_wait_status(status)
