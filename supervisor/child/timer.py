"""A descriptor that becomes readable a moment from now, without a thread being woken to see to it.

Setting it is one short system call. Waking a thread that might not be needed
costs a switch, and on a virtual machine often an interrupt of another CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

# The interpreter has these calls since Python 3.13 only. PyDLL: such a call takes less
# time than giving up the interpreter's lock for it.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
# Looked up once: ctypes makes an object at the first look, and each worker would make it.
_create: Final = _libc.timerfd_create if sys.platform == "linux" else None
_settime: Final = _libc.timerfd_settime if sys.platform == "linux" else None

# linux/time.h and linux/timerfd.h
_CLOCK_MONOTONIC: Final = 1
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_NONBLOCK: Final = os.O_NONBLOCK


# struct itimerspec: the interval, which stays zero, and the time until it rings, each in
# seconds and nanoseconds. Made here: every worker would make the type anew.
_Spec: Final = ctypes.c_long * 4


class OneShot:
    """Rings once, always after the same time.

    Args:
        delay: seconds from :meth:`set` until :meth:`fileno` is readable; under 1.

    Without timerfd (macOS) it rings at once: a pipe that is written to.

    Raises:
        OSError: no descriptor is left.
    """

    def __init__(self, delay: float) -> None:
        self._writer = -1
        self._fd = -1
        if _create is not None:
            self._fd = _create(_CLOCK_MONOTONIC, _TFD_CLOEXEC | _TFD_NONBLOCK)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create")
        else:
            self._fd, self._writer = os.pipe()
            os.set_blocking(self._fd, False)
            os.set_blocking(self._writer, False)
        self._spec = _Spec(0, 0, 0, int(delay * 1e9))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
        if self._writer >= 0:
            os.close(self._writer)

    def set(self) -> None:
        """Have it ring; a time that runs already begins anew. Runs on: any thread.

        Raises:
            OSError: EBADF, the job closed a descriptor that is not its own.
        """
        if _settime is None:
            os.write(self._writer, b"r")
        elif _settime(self._fd, 0, self._spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def heard(self) -> None:
        """Make the descriptor wait again. Never blocks."""
        try:
            os.read(self._fd, 64)
        except BlockingIOError:
            pass  # set anew in the meantime: it has yet to ring
