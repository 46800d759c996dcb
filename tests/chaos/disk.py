"""The place for the server's log: a small file system of its own, which can be full.

A tmpfs in a mount namespace of the server's, so that nothing of it outlives the
server or is seen by anybody else. That needs root; without, the log is a plain
file and the fault is not possible.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

SIZE: Final = 8 * 2**20

# linux/falloc.h
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02

_libc: Final = ctypes.CDLL(None, use_errno=True)

_MOUNT_AND_RUN: Final = (
    f'mount -t tmpfs -o size={SIZE} chaos "$0" && log="$0/log" && exec "$@" >>"$log" 2>&1'
)


def command(directory: Path, program: list[str], *, own_disk: bool) -> list[str]:
    """Return what starts *program* with its output in ``directory/log``."""
    directory.mkdir(exist_ok=True)
    if own_disk:
        return ["unshare", "--mount", "sh", "-c", _MOUNT_AND_RUN, str(directory), *program]
    return ["sh", "-c", 'log="$0/log" && exec "$@" >>"$log" 2>&1', str(directory), *program]


class Disk:
    """The disk of one life, seen from outside.

    Args:
        pid: the process that sees it.
        directory: where that process sees it.
    """

    def __init__(self, pid: int, directory: Path) -> None:
        # Held open: what was written last can be read when its writer is gone.
        self._directory = os.open(f"/proc/{pid}/root{directory}", os.O_RDONLY | os.O_DIRECTORY)
        self._log = os.open("log", os.O_RDWR, dir_fd=self._directory)
        self._offset = 0

    def read(self) -> bytes:
        """Return what was logged since the last time, and give its space back."""
        data = bytearray()
        while piece := os.pread(self._log, 1 << 20, self._offset + len(data)):
            data += piece
        self._offset += len(data)
        # What the server appends meanwhile stays where it is. EOPNOTSUPP: a plain
        # file on a file system without holes, which then just grows.
        _libc.fallocate(
            self._log, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(self._offset)
        )
        return bytes(data)

    def fill(self) -> None:
        """Leave no room."""
        fd = os.open("filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND, dir_fd=self._directory)
        try:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):  # ENOSPC is what it is for
                    while os.write(fd, bytes(size)):
                        pass
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Give the room back."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink("filler", dir_fd=self._directory)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._log)
        os.close(self._directory)
