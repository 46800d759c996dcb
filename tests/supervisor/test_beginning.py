"""When a job began is read from memory that the job itself may write to."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from ipc.mark import Mark, make_mark
from supervisor.beginning import Beginning

HANDED_AT = 100.0
NOW = 101.0


class Pair:
    """Both sides of a mark of a worker that is idle."""

    def __init__(self) -> None:
        fd = make_mark()
        self.fd = os.dup(fd)
        self.mark = Mark(os.dup(fd))
        self.beginning = Beginning(fd)
        self.beginning.none_yet()

    def moment(self) -> float | None:
        return self.beginning.moment(HANDED_AT, NOW)

    def close(self) -> None:
        os.close(self.fd)
        self.beginning.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_a_job_that_has_not_begun_has_no_moment(pair: Pair) -> None:
    assert pair.moment() is None


def test_a_job_began_when_its_worker_says(pair: Pair) -> None:
    pair.mark.moment[0] = 100.5
    assert pair.moment() == 100.5


def test_the_moment_of_the_job_before_is_not_taken_for_this_one_s(pair: Pair) -> None:
    pair.mark.moment[0] = 99.0
    pair.beginning.none_yet()
    assert pair.moment() is None
    pair.mark.moment[0] = 100.5
    assert pair.moment() == 100.5


@given(st.one_of(st.floats(), st.binary(min_size=8, max_size=8)))
def test_whatever_a_job_writes_it_has_begun_between_the_hand_over_and_now(
    scribbled: float | bytes,
) -> None:
    pair = Pair()
    written = scribbled if isinstance(scribbled, bytes) else struct.pack("d", scribbled)
    os.pwrite(pair.fd, written, 0)
    moment = pair.moment()
    pair.close()
    if written == bytes(8):
        assert moment is None
    else:
        assert moment is not None
        assert HANDED_AT <= moment <= NOW
