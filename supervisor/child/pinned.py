"""Pages that each worker writes to, copied by the fork itself and not one by one.

A fork shares all pages, and the first write to each, on either side, costs a fault: the kernel
is entered, the page is found, copied, and put into place. A worker writes to hundreds,
always the same ones. Of a page that is *pinned* (somebody may write to it past the
page table, as a network card does) the kernel makes the copy while it forks (since Linux 5.9):
that takes less than half the time, and the process that has forked keeps its own as it is.

Pages are pinned by registering them as buffers of an io_uring, which is used for nothing
else. Many systems do not let programs have one (sysctl ``kernel.io_uring_disabled``, the
system call filter of a container, a low RLIMIT_MEMLOCK); then workers copy their pages one by one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from typing import Any, Final

from supervisor.child.pagemap import PAGE

# The same on all architectures that Linux has been brought to since 2011, and on x86-64.
_IO_URING_SETUP: Final = 425
_IO_URING_REGISTER: Final = 427

# linux/io_uring.h: struct io_uring_params is of so many bytes, all zero for the defaults.
_PARAMS_BYTES: Final = 120
_REGISTER_BUFFERS: Final = 0

# A kernel before 5.13 takes no more at once.
_MOST_BUFFERS: Final = 1024

# struct iovec: where it begins and its length in bytes.
_BUFFER: Final = struct.Struct("PN")


class Pins:
    """Pages that stay pinned until :meth:`close`, here. A child has only to close its copy.

    Args:
        pages: their addresses, in order.

    Raises:
        OSError: the kernel does not pin them, for one of the reasons above.
    """

    def __init__(self, pages: Iterable[int]) -> None:
        buffers = _in_rows(pages)[:_MOST_BUFFERS]
        self._ring = new_ring()
        array = b"".join(_BUFFER.pack(*each) for each in buffers)
        try:
            _call(_IO_URING_REGISTER, self._ring, _REGISTER_BUFFERS, array, len(buffers))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let the pages go, soon. May be called again."""
        if self._ring >= 0:
            os.close(self._ring)
            self._ring = -1


def new_ring() -> int:
    """Return the descriptor of an io_uring. Programs that this process starts do not inherit it.

    Raises:
        OSError: there is none to be had. Where a filter of system calls kills who asks, nothing
            is raised any more: ask in a process that can be missed first.
    """
    return _call(_IO_URING_SETUP, 1, ctypes.create_string_buffer(_PARAMS_BYTES))


def _in_rows(pages: Iterable[int]) -> list[tuple[int, int]]:
    """Return where each row of pages begins, and its length in bytes."""
    rows: list[tuple[int, int]] = []
    for page in pages:
        if rows and rows[-1][0] + rows[-1][1] == page:
            rows[-1] = (rows[-1][0], rows[-1][1] + PAGE)
        else:
            rows.append((page, PAGE))
    return rows


def _call(number: int, *arguments: Any) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "io_uring is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    returned: int = libc.syscall(ctypes.c_long(number), *arguments)
    if returned < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return returned
