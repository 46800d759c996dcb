"""A fork server that owes news is asked for them, given time while it tells some, and given up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest

from supervisor.news import SECONDS, News


class Loop:
    """The part of a loop that News uses; its clock stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def turn(self) -> None:
        """Go on to the next timer and ring it."""
        self.timers.sort(key=lambda timer: timer[0])
        self.now, callback = self.timers.pop(0)
        callback()


@dataclass
class Parent:
    """Tells nothing unless the test says so."""

    reports: int = 0
    unheard: int = 0
    nudges: int = 0
    abandoned: int = 0

    def catch_up(self) -> None:
        self.reports, self.unheard = self.reports + self.unheard, 0

    def nudge(self) -> None:
        self.nudges += 1

    def abandon(self) -> None:
        self.abandoned += 1


@dataclass
class Worker:
    """Dead, or alive, as far as its pidfd tells; never announced without one."""

    pidfd: int | None = None


@dataclass
class Stage:
    """Many workers that were killed at once, and their parent."""

    at_the_end: bool = True
    loop: Loop = field(default_factory=Loop)
    parent: Parent = field(default_factory=Parent)
    workers: dict[int, Worker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.news = News(
            cast(asyncio.AbstractEventLoop, self.loop),
            self.parent,
            find=self.workers.get,
            at_the_end=lambda: self.at_the_end,
        )

    def kill(self, count: int, worker: Worker | None = None) -> None:
        for number in range(count):
            self.workers[number] = worker or Worker()
            self.news.expect(number)


@pytest.fixture
def alive() -> Iterator[Worker]:
    """A worker that the kernel cannot end: nothing of it can be read."""
    reader, writer = os.pipe()
    yield Worker(reader)
    os.close(reader)
    os.close(writer)


def test_one_question_is_asked_for_hundreds() -> None:
    stage = Stage()
    stage.kill(500)
    assert len(stage.loop.timers) == 1
    stage.loop.turn()
    assert stage.parent.nudges == 1
    assert len(stage.loop.timers) == 1


@pytest.mark.parametrize(("at_the_end", "times"), [(True, 3), (False, 50)])
def test_one_that_tells_nothing_is_woken_and_then_given_up(at_the_end: bool, times: int) -> None:
    stage = Stage(at_the_end)
    stage.kill(500)
    for _ in range(times - 1):
        stage.loop.turn()
    assert stage.parent == Parent(nudges=times - 1)
    stage.loop.turn()
    assert stage.parent == Parent(nudges=times - 1, abandoned=1)


def test_one_that_reports_one_after_the_other_is_given_the_time_it_takes() -> None:
    stage = Stage()
    stage.kill(200)
    while stage.workers:
        stage.loop.turn()
        del stage.workers[next(iter(stage.workers))]
        stage.parent.reports += 1
    stage.loop.turn()
    assert not stage.parent.abandoned
    assert stage.loop.now > 19.0
    assert not stage.loop.timers, "nothing is awaited any more"


def test_one_that_stops_in_the_middle_is_given_up() -> None:
    stage = Stage()
    stage.kill(200)
    for _ in range(20):
        stage.loop.turn()
        stage.parent.reports += 1
    for _ in range(4):
        stage.loop.turn()
    assert stage.parent.abandoned == 1


def test_one_that_tells_of_all_others_for_half_a_minute_has_forgotten_this_one() -> None:
    stage = Stage()
    stage.kill(1)
    while not stage.parent.abandoned:
        stage.loop.turn()
        stage.parent.reports += 1
    assert 30.0 <= stage.loop.now < 30.0 + 3 * SECONDS


def test_one_whose_worker_took_long_to_die_is_not_blamed_for_that(alive: Worker) -> None:
    stage = Stage()
    stage.kill(1, alive)
    for _ in range(400):
        stage.loop.turn()
        stage.parent.reports += 1
    alive.pidfd = None  # as one that is dead
    stage.loop.turn()
    assert stage.parent.nudges == 1
    assert not stage.parent.abandoned


def test_what_it_has_said_and_was_not_read_yet_counts() -> None:
    stage = Stage()
    stage.kill(1)
    for _ in range(10):
        stage.parent.unheard = 1
        stage.loop.turn()
    assert not stage.parent.abandoned


def test_a_worker_that_is_not_dead_yet_is_no_news(alive: Worker) -> None:
    stage = Stage()
    stage.kill(3, alive)
    for _ in range(100):
        stage.loop.turn()
    assert stage.parent == Parent()


def test_one_killed_later_is_asked_for_too() -> None:
    stage = Stage()
    stage.kill(1)
    del stage.workers[0]
    stage.loop.turn()
    stage.kill(1)
    for _ in range(3):
        stage.loop.turn()
    assert stage.parent.abandoned == 1
