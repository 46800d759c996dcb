"""A mark: eight bytes that a child writes and nobody is woken by."""

from __future__ import annotations

import os
import resource

import pytest
from hypothesis import given, strategies as st

from ipc.mark import make_mark, moment_of, read_mark, set_mark


def test_a_new_mark_is_not_set() -> None:
    fd = make_mark()
    assert moment_of(read_mark(fd)) is None
    os.close(fd)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_the_last_moment_counts(moments: list[float]) -> None:
    fd = make_mark()
    for moment in moments:
        set_mark(fd, moment)
    assert moment_of(read_mark(fd)) == moments[-1]
    os.close(fd)


def test_what_a_child_wrote_is_read_when_it_is_dead() -> None:
    fd = make_mark()
    pid = os.fork()
    if pid == 0:
        set_mark(fd, 17.5)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert moment_of(read_mark(fd)) == 17.5
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_mark_that_was_cut_short_is_not_set(size: int) -> None:
    fd = make_mark()
    set_mark(fd, 17.5)
    os.ftruncate(fd, size)
    assert moment_of(read_mark(fd)) is None
    os.close(fd)


def test_no_descriptor_travels_to_a_program_that_is_started() -> None:
    fd = make_mark()
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_limit_on_file_sizes_is_told() -> None:
    fd = make_mark()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            set_mark(fd, 1.0)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(fd)
