"""Where a server's control socket lies, and who may reach it.

Also for the clients: this file needs none of the extras.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import stat
import struct
import sys
from pathlib import Path

import psutil

from supervisor.errors import SupervisorError

logger = logging.getLogger("greenroom.dispatch.local")


def socket_directory() -> Path:
    """Return the directory in which this user's servers have their sockets."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # After sudo or su the variable may still name somebody else's directory.
    if runtime and os.path.isdir(runtime) and os.stat(runtime).st_uid == os.geteuid():
        return Path(runtime) / "greenroom"
    return Path(f"/tmp/greenroom-{os.geteuid()}")


def check_directory(directory: Path) -> None:
    """Check that only this user can reach into *directory*.

    Raises:
        SupervisorError: it is a symlink, no directory, somebody else's or open to others.
        FileNotFoundError: there is none.
    """
    found = os.lstat(directory)  # not stat: whoever planted a symlink chose where it leads
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        raise SupervisorError(f"{directory} is not a directory of our own: remove it")
    if found.st_uid != os.geteuid():
        raise SupervisorError(f"{directory} belongs to uid {found.st_uid}, not to this user")
    if mode & 0o077:
        raise SupervisorError(f"{directory} has mode {mode:04o}, expected 0700: chmod 700 it")


def answers(path: Path) -> bool:
    """Return whether a server listens on the socket at *path*. Does not block."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full, so there is somebody
            return True
        except OSError:
            return False
    return True


def peer_uid(peer: socket.socket) -> int:
    """Return the user on the other end of a connected unix socket, as the kernel knows it."""
    if sys.platform == "linux":
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    # Source: macOS <sys/un.h>, <sys/ucred.h>: SOL_LOCAL 0, LOCAL_PEERCRED 1, struct xucred.
    return int(struct.unpack_from("2I", peer.getsockopt(0, 1, 76))[1])


def _default_path() -> Path:
    directory = socket_directory()
    with contextlib.suppress(FileExistsError):  # by whom, is looked at next
        os.mkdir(directory, 0o700)
    check_directory(directory)
    for path in directory.glob("*.sock"):
        named = re.fullmatch(r"(\d+)(-\d+)?\.sock", path.name)
        # Both: a pid of another container's namespace only looks dead, and a
        # server that has bound but does not listen yet only looks silent.
        if named and not psutil.pid_exists(int(named[1])) and not answers(path):
            path.unlink(missing_ok=True)
            logger.debug("removed %s: its process is gone", path)
    path, number = directory / f"{os.getpid()}.sock", 1
    while answers(path):  # a second server in this process
        number += 1
        path = directory / f"{os.getpid()}-{number}.sock"
    return path


def prepare_path(wanted: str | None) -> Path:
    """Return where to listen: *wanted*, with its directory made, or a path of this process's own.

    Raises:
        SupervisorError: the directory cannot be made or used.
    """
    try:
        if wanted is None:
            return _default_path()
        path = Path(wanted).absolute()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return path
    except OSError as exc:
        raise SupervisorError(f"cannot make a place for the control socket: {exc}") from exc


def listen(path: Path) -> socket.socket:
    """Return a listening socket at *path*, which only this user may connect to.

    Raises:
        SupervisorError: another server listens there, or it cannot be made.
    """
    if path.is_socket() and not answers(path):
        path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)  # whoever is quicker than this line meets the check of credentials
        listener.listen(128)
    except OSError as exc:
        listener.close()
        reason = exc.strerror or str(exc)  # "AF_UNIX path too long" has no errno
        if exc.errno == errno.EADDRINUSE:
            other = "another server listens there" if answers(path) else "it is not a socket"
            reason = f"{other}; choose another path"
        raise SupervisorError(f"cannot listen on the control socket {path}: {reason}") from exc
    listener.setblocking(False)
    return listener


class ControlSocket:
    """One server's socket: made, listening, and removed again.

    Args:
        wanted: its path; the directory is made with mode 0700 if it is missing.
            Default: ``<pid>.sock`` in :func:`socket_directory`.
        given: a socket that listens at that path already and stays somebody else's,
            as does the file.
    """

    def __init__(self, wanted: str | None, given: socket.socket | None) -> None:
        self._wanted = wanted
        self._given = given
        self._inode: tuple[int, int] | None = None
        self.path: Path | None = None  # where it listens; None as long as it does not

    def open(self) -> socket.socket:
        """Return the listening socket, for the caller to close.

        Raises:
            SupervisorError: the socket or its directory cannot be used.
        """
        if self._given is not None:
            assert self._wanted is not None, "a listener comes with its path"
            self.path = Path(self._wanted)
            # A copy: the caller closes what it listens on, and this one is not ours.
            listener = self._given.dup()
            listener.setblocking(False)
            return listener
        path = prepare_path(self._wanted)
        listener = listen(path)
        found = os.stat(path)
        self.path, self._inode = path, (found.st_dev, found.st_ino)
        return listener

    def remove(self) -> None:
        """Remove the file if it was made here. After the socket is closed."""
        assert self.path is not None, "it listened, so it has a path"
        try:
            found = os.lstat(self.path)
            # Somebody may have removed ours and put another in its place.
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # somebody removed it: that is all we want
        self.path = None
