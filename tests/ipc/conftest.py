"""What the tests of ipc share: socket pairs, and the check that no descriptor stays behind."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from ipc import fds

# How long a descriptor may take to be closed. Seconds.
PATIENCE = 10.0


def open_descriptors() -> dict[int, str]:
    """Return this process's descriptors and what each one is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the directory that was just read
    return found


@pytest.fixture(autouse=True)
def no_descriptor_stays() -> Iterator[None]:
    """Fail the test that leaves a descriptor open, and name what it is.

    A channel with something unread is closed by a thread, so that nobody waits for it:
    hence not at once.
    """
    before = open_descriptors()

    def left() -> dict[int, str]:
        return {fd: what for fd, what in open_descriptors().items() if before.get(fd) != what}

    yield
    deadline = time.monotonic() + PATIENCE
    while left() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not left(), f"left open: {left()}"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, closed afterwards whoever owns them by then."""
    ours, theirs = fds.channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()
