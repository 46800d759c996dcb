"""File descriptors: passing them, and carrying large payloads in one.

A payload that does not fit into a frame travels in a memfd: anonymous memory
with a descriptor (memfd_create(2)). The sender seals it, so the receiver may
read it without fear that it shrinks or changes under its hands. The receiver
trusts none of that and asks the kernel for the seals first: a descriptor that a
child sends could as well be a pipe that never delivers.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import sys
import tempfile
import termios
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ipc.errors import ChannelBroken, PayloadTooLarge, ProtocolError
from ipc.frames import MAX_FRAME_DESCRIPTORS

# Linux numbers (linux/fcntl.h). Python's fcntl has the names on Linux only.
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write

_SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h, since Linux 6.16

# The kernel itself may hold a page for a moment (migration, huge pages, memory that is
# watched): it then waits, up to 75 ms, and refuses. Source: mm/memfd.c, memfd_wait_for_pins.
# Seen while fuzzing.
_SEAL_TRIES: Final = 5

# A payload above this leaves the frame: the socket buffer of a Unix socket holds
# about 200 KiB by default, and a send into it must not wait for the reader.
INLINE_BYTES: Final = 64 * 1024

# What comes beside the bytes: level, kind, content. See recvmsg(2).
Ancillary = tuple[int, int, bytes]

# What ``recvmsg`` is told.
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_FRAME_DESCRIPTORS * array.array("i").itemsize)
# As a number: the enum of flags makes a member of each result.
_CUT_SHORT: Final = int(socket.MSG_CTRUNC)
RECEIVE_FLAGS: Final[int] = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected stream sockets, closed on exec.

    Raises:
        OSError: EMFILE or ENFILE, when there are no descriptors left.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def close_all(descriptors: Iterable[int]) -> None:
    """Close each of *descriptors*; one that is closed already is passed over."""
    for fd in descriptors:
        try:  # noqa: SIM105 - each function that a worker runs is a page that it copies
            os.close(fd)
        except OSError:
            pass


def close_strangers(descriptors: Collection[int]) -> None:
    """Close descriptors that a peer sent, whatever they are. Never waits.

    Closing a socket that lingers, or a file of a file system that hangs, takes as long
    as its maker likes. What is not plain memory is closed by a thread that nobody
    waits for.
    """
    if not descriptors:
        return  # mostly
    others = [fd for fd in descriptors if not _is_memory(fd)]
    if others:
        threading.Thread(
            target=close_all, args=(others,), name="greenroom-close", daemon=True
        ).start()


def _is_memory(fd: int) -> bool:
    """Return whether *fd* is memory; it is closed then."""
    try:
        fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return False
    os.close(fd)
    return True


def close_socket(sock: socket.socket) -> None:
    """Close our end of a channel. Never waits.

    What was not read is dropped with it, descriptors as well: see :func:`close_strangers`.
    """
    if sock.fileno() >= 0 and _unread(sock):
        close_strangers([sock.detach()])
    else:
        sock.close()


def _unread(sock: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


def refuse_descriptors(sock: socket.socket) -> None:
    """Let the kernel refuse descriptors that the peer would send. Before Linux 6.16: nothing."""
    if sys.platform != "linux":
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:  # older than that
            raise


def duplicate(descriptors: Iterable[int]) -> tuple[int, ...]:
    """Return a copy of each of *descriptors*, the caller's to close.

    Raises:
        OSError: EMFILE or ENFILE. None of the copies is left open.
    """
    copies: list[int] = []
    try:
        for fd in descriptors:
            copies.append(os.dup(fd))  # noqa: PERF401 - what was copied before a failure counts
    except OSError:
        close_all(copies)
        raise
    return tuple(copies)


def send_with_descriptors(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> int:
    """Send the beginning of *data* together with *descriptors*; return how much went out.

    The descriptors travel with the first byte, so a short write has sent them all.
    """
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive_with_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """Read up to *size* bytes and the descriptors beside them.

    Returns:
        The bytes (empty at the end of the stream), the descriptors, which are
        the caller's to close, and whether the kernel had to drop some because
        this process may open no more.
    """
    data, ancillary, msg_flags, _ = sock.recvmsg(size, ANCILLARY_BYTES, RECEIVE_FLAGS)
    received = descriptors_in(ancillary) if ancillary else []
    return data, received, msg_flags & _CUT_SHORT != 0


def descriptors_in(ancillary: list[Ancillary]) -> list[int]:
    """Return the descriptors that ``recvmsg`` gave, the caller's to close."""
    received = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(content) - len(content) % received.itemsize
            received.frombytes(content[:whole])
    return list(received)


def write_memory(payload: bytes | memoryview, name: str = "greenroom") -> int:
    """Put *payload* into sealed memory and return its descriptor, the caller's to close.

    Without ``memfd_create`` (macOS) an unlinked temporary file is used; it cannot
    be sealed.
    """
    if not hasattr(os, "memfd_create"):
        fd, path = tempfile.mkstemp(prefix=name)
        os.unlink(path)
    else:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if hasattr(os, "memfd_create"):
            _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _seal(fd: int) -> None:
    """Seal *fd*. Raises OSError: EBUSY, if its pages stay in use."""
    for left in reversed(range(_SEAL_TRIES)):
        try:
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
            return
        except OSError as exc:
            if exc.errno != errno.EBUSY or not left:
                raise


def check_memory(fd: int, *, max_bytes: int, what: str = "a payload") -> int:
    """Return the size in bytes of the sealed memory behind *fd*.

    Raises:
        ProtocolError: it is not sealed memory.
        PayloadTooLarge: it holds more than *max_bytes*.
    """
    if sys.platform == "linux":
        try:
            seals = fcntl.fcntl(fd, _F_GET_SEALS)
        except OSError as exc:
            raise ProtocolError("the peer sent a descriptor that is no sealed memory") from exc
        if seals & _SEALS != _SEALS:
            raise ProtocolError("the peer sent memory that it can still change")
    size = os.fstat(fd).st_size
    if size > max_bytes:
        raise PayloadTooLarge(what, size, max_bytes)
    return size


def read_memory(fd: int, *, max_bytes: int, what: str = "a payload") -> bytearray:
    """Return what the sealed memory behind *fd* holds. Does not close it.

    Raises:
        ProtocolError: it is not sealed memory.
        PayloadTooLarge: it holds more than *max_bytes*.
        ChannelBroken: it ended early, which sealed memory does not.
    """
    size = check_memory(fd, max_bytes=max_bytes, what=what)
    # Read straight into the object that is handed on: the payload is in memory
    # twice (the memfd and this) and never three times.
    content = bytearray(size)
    view = memoryview(content)
    offset = 0
    while offset < size:
        count = os.preadv(fd, [view[offset:]], offset)
        if count == 0:
            raise ChannelBroken("the peer's memory ended early")
        offset += count
    return content
