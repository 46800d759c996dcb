"""What the tests of ipc share: socket pairs, and the check that no descriptor stays behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from ipc import fds


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
    """Fail the test that leaves a descriptor open, and name what it is."""
    before = open_descriptors()
    yield
    left = {fd: what for fd, what in open_descriptors().items() if before.get(fd) != what}
    assert not left, f"left open: {left}"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, closed afterwards whoever owns them by then."""
    ours, theirs = fds.channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()
