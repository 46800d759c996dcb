"""Whether a job has begun is looked at until it has, and never for one job only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, strategies as st

from supervisor.lookout import Lookout

SOON = 0.002


class Timer:
    """A timer of a loop whose clock stands still until the test moves it."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The part of a loop that a Lookout uses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    @property
    def due(self) -> list[Timer]:
        return sorted((each for each in self.timers if not each.cancelled), key=lambda t: t.when)

    def turn(self) -> None:
        """Go on to the next timer and ring it."""
        timer = self.due[0]
        self.timers.remove(timer)
        self.now = timer.when
        timer.callback()


@dataclass
class Worker:
    """Has begun once it was looked at so many times."""

    looks_needed: int = 1
    looks: int = 0
    then: Callable[[], None] = field(default=lambda: None)

    def looked_at(self) -> bool:
        self.looks += 1
        if self.looks == self.looks_needed:
            self.then()
        return self.looks >= self.looks_needed


def lookout(looked: Callable[[], None] = lambda: None) -> tuple[Lookout, Loop]:
    loop: Any = Loop()
    asyncio_loop: asyncio.AbstractEventLoop = loop
    return Lookout(asyncio_loop, looked), loop


def test_one_that_has_begun_is_looked_at_once() -> None:
    looks: list[str] = []
    look, loop = lookout(lambda: looks.append("looked"))
    worker = Worker()
    look.expect(worker)
    loop.turn()
    assert worker.looks == 1
    assert looks == ["looked"]
    assert loop.due == []


def test_one_that_has_not_is_looked_at_again_after_twice_as_long() -> None:
    look, loop = lookout()
    worker = Worker(looks_needed=4)
    look.expect(worker)
    moments = []
    while loop.due:
        loop.turn()
        moments.append(round(loop.now / SOON))
    assert moments == [1, 3, 7, 15]
    assert worker.looks == 4


def test_one_that_begins_very_late_is_found_soon_after() -> None:
    look, loop = lookout()
    worker = Worker(looks_needed=1000)
    look.expect(worker)
    while loop.due:
        before = loop.now
        loop.turn()
        assert loop.now - before <= 0.05 + 1e-9
    assert worker.looks == 1000


def test_many_hand_overs_in_a_row_have_one_timer() -> None:
    look, loop = lookout()
    workers = [Worker() for _ in range(64)]
    for worker in workers:
        look.expect(worker)
    assert len(loop.due) == 1
    loop.turn()
    assert all(worker.looks == 1 for worker in workers)


def test_a_new_one_does_not_wait_for_one_that_takes_long() -> None:
    look, loop = lookout()
    look.expect(Worker(looks_needed=10))
    for _ in range(5):
        loop.turn()
    new = Worker()
    look.expect(new)
    asked_at = loop.now
    loop.turn()
    assert new.looks == 1
    assert loop.now - asked_at <= SOON + 1e-9


def test_one_that_is_handed_over_during_a_look_is_looked_at_as_well() -> None:
    look, loop = lookout()
    next_one = Worker()
    look.expect(Worker(then=lambda: look.expect(next_one)))
    loop.turn()
    assert len(loop.due) == 1
    loop.turn()
    assert next_one.looks == 1
    assert loop.due == []


def test_a_lookout_that_is_closed_looks_no_more() -> None:
    look, loop = lookout()
    look.expect(Worker())
    look.close()
    assert loop.due == []


@given(st.lists(st.integers(1, 6), min_size=1, max_size=20), st.data())
def test_all_are_found_whenever_they_came(needed: list[int], data: st.DataObject) -> None:
    look, loop = lookout()
    workers = [Worker(looks_needed=each) for each in needed]
    waiting = list(workers)
    while waiting or loop.due:
        if waiting and (not loop.due or data.draw(st.booleans())):
            look.expect(waiting.pop())
        else:
            loop.turn()
        assert len(loop.due) <= 1
    assert [worker.looks for worker in workers] == needed
