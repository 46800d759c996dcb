"""A mark: a moment that a child writes down for the supervisor, without telling it.

The supervisor has to know whether a worker that died had begun its job. A message
would say so, but it would also wake the supervisor, in the instant in which the
job begins and often on the very CPU it begins on. The mark is eight bytes of
memory that both hold by a descriptor; they are read when the worker is dead.

Each worker has its own, so that what a job writes into it is about itself only.
Reading cannot block, whatever the child does to the descriptor.
"""

from __future__ import annotations

import os
import struct
import tempfile
from typing import Final

_MOMENT: Final = struct.Struct("=d")


def make_mark() -> int:
    """Return the descriptor of a mark that is not set, the caller's to close.

    Raises:
        OSError: EMFILE or ENFILE, when there are no descriptors left.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("greenroom-mark", os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp(prefix="greenroom-mark")
    os.unlink(path)
    return fd


def set_mark(fd: int, moment: float) -> None:
    """Write down *moment*, over the one before.

    Raises:
        OSError: EFBIG under a limit on file sizes, EBADF if the job closed it.
    """
    os.pwrite(fd, _MOMENT.pack(moment), 0)


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
