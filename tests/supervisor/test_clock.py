"""Two clocks that must not be mixed up."""

from __future__ import annotations

import time

from supervisor import clock


def test_the_monotonic_clock_is_the_one_that_all_processes_share() -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    now = clock.monotonic()
    assert before <= now <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_the_wall_clock_is_seconds_since_the_epoch() -> None:
    before = time.clock_gettime(time.CLOCK_REALTIME)
    assert abs(clock.wall() - before) < 60
