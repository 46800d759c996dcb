"""A mark: a moment that a child writes down for the supervisor, without telling it.

The supervisor has to know whether a worker that died had begun its job. A message
would say so, but it would also wake the supervisor, in the instant in which the
job begins and often on the very CPU it begins on. The mark is eight bytes of
memory that both have; they are read when the worker is dead.

The child has it mapped: writing is one store, and no limit, no closed descriptor
and no lack of memory can keep it from being made. The supervisor never maps what
a child can change; it reads through the descriptor, which cannot fault or block.
Each worker has its own, so that what a job writes into it is about itself only.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
from typing import Final

# Native, and not a byte order of its own: that way it is copied in one piece, and who
# reads meanwhile sees the old moment or the new one.
_MOMENT: Final = struct.Struct("d")

# linux/fcntl.h
_F_ADD_SEALS: Final = 1033
_FIXED_SIZE: Final = 0x1 | 0x2 | 0x4  # seal, shrink, grow


def make_mark() -> int:
    """Return the descriptor of a mark that is not set, the caller's to close.

    Raises:
        OSError: EMFILE or ENFILE, when there are no descriptors left.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("greenroom-mark", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _MOMENT.size)
        # A job that cut it short would fault at the next job's beginning.
        fcntl.fcntl(fd, _F_ADD_SEALS, _FIXED_SIZE)
        return fd
    fd, path = tempfile.mkstemp(prefix="greenroom-mark")
    os.unlink(path)
    os.ftruncate(fd, _MOMENT.size)
    return fd


class Mark:
    """The child's side of a mark. Takes the descriptor over.

    Raises:
        OSError: it cannot be mapped.
    """

    def __init__(self, fd: int) -> None:
        try:
            self._memory = mmap.mmap(fd, _MOMENT.size)
        finally:
            os.close(fd)
        #: Its one element is the moment: assigning to ``moment[0]`` writes it down, over the
        #: one before, and never fails. No method, since it is on a job's way to its first line.
        self.moment = memoryview(self._memory).cast("d")

    def close(self) -> None:
        """Let go of it."""
        self.moment.release()
        self._memory.close()


def read_mark(fd: int) -> bytes:
    """Return what is written there, for comparing with what was there before.

    A job may have written nonsense over it, so what counts is whether it changed.
    """
    return os.pread(fd, _MOMENT.size, 0)


def moment_of(written: bytes) -> float | None:
    """Return the moment that a mark holds, unchecked; None if it holds none."""
    if len(written) != _MOMENT.size:
        return None
    (moment,) = _MOMENT.unpack(written)
    return float(moment)
