"""A child's descriptors: made together, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

import pytest

from supervisor.child.boot import Ends
from supervisor.launch import make_ends


@contextlib.contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Let so many more descriptors be opened."""
    fillers = [os.open("/dev/null", os.O_RDONLY)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # So that there is no gap below the limit.
    while fillers[-1] < max(int(name) for name in os.listdir("/proc/self/fd")) - 1:
        fillers.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


def open_descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


@pytest.mark.parametrize(("capture_output", "needed"), [(False, 6), (True, 10)])
def test_what_was_opened_before_the_limit_was_reached_is_closed(
    capture_output: bool, needed: int
) -> None:
    before = open_descriptors()
    for free in range(needed):
        with free_descriptors(free), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            make_ends(capture_output=capture_output)
        assert open_descriptors() == before


@pytest.mark.parametrize("capture_output", [False, True])
def test_the_childs_ends_are_in_travelling_order(capture_output: bool) -> None:
    near, far = make_ends(capture_output=capture_output)
    ends = Ends.received(far.descriptors)
    assert ends.all == far.descriptors
    pairs = [(near.channel.fileno(), ends.channel), (near.logs.fileno(), ends.logs)]
    if capture_output:
        pairs += [(near.stdout, ends.stdout), (near.stderr, ends.stderr)]
    for number, (ours, theirs) in enumerate(pairs):
        os.set_blocking(ours, False)
        os.write(theirs, b"%d" % number)
        assert os.read(ours, 8) == b"%d" % number
    os.pwrite(ends.mark, b"12345678", 0)
    assert os.pread(near.mark, 8, 0) == b"12345678"
    near.channel.close()
    near.logs.close()
    for fd in {near.mark, near.stdout, near.stderr} - {-1}:
        os.close(fd)
    far.close()
    far.close()  # which does nothing more
    assert far.descriptors == []
