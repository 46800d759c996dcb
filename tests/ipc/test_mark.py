"""A mark: eight bytes that a child writes and nobody is woken by."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, strategies as st

from ipc.mark import Mark, make_mark, moment_of, read_mark


@pytest.fixture
def fd() -> Iterator[int]:
    fd = make_mark()
    yield fd
    os.close(fd)


def mapped(fd: int) -> Mark:
    return Mark(os.dup(fd))


def in_a_fork(body: Callable[[], object]) -> int:
    """Return how a fork ended that runs *body*."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_a_new_mark_is_not_set(fd: int) -> None:
    before = read_mark(fd)
    mapped(fd)
    assert read_mark(fd) == before


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_the_last_moment_counts(moments: list[float]) -> None:
    fd = make_mark()
    mark = mapped(fd)
    for moment in moments:
        mark.moment[0] = moment
    assert moment_of(read_mark(fd)) == moments[-1]
    os.close(fd)


def test_what_a_child_wrote_is_read_when_it_is_dead(fd: int) -> None:
    mark = mapped(fd)

    def body() -> None:
        mark.moment[0] = 17.5
        os.kill(os.getpid(), 9)

    assert in_a_fork(body) == 9
    assert moment_of(read_mark(fd)) == 17.5


def test_nothing_that_a_job_does_to_itself_keeps_it_from_being_set(fd: int) -> None:
    mark = mapped(fd)

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        os.closerange(0, 4096)
        mark.moment[0] = 17.5
        os._exit(0)

    assert in_a_fork(body) == 0
    assert moment_of(read_mark(fd)) == 17.5


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="nothing to seal here")
@pytest.mark.parametrize("size", [0, 7, 9, 4096])
def test_its_size_cannot_be_changed(fd: int, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(fd, size)


@pytest.mark.parametrize("size", [0, 1, 7, 9])
def test_bytes_of_another_length_are_no_moment(size: int) -> None:
    assert moment_of(b"\x01" * size) is None


def test_no_descriptor_travels_to_a_program_that_is_started(fd: int) -> None:
    assert not os.get_inheritable(fd)
