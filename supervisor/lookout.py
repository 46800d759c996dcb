"""Looking after jobs that were handed over a moment ago: have they begun?

Their marks are read, and again, each time after twice as long, until all have begun
(``beginning.py``): a job that holds the interpreter's lock from its first line on could
not say so. With each look the worker is rung for unless its job is over, so that it
listens to the supervisor from the beginning on (``child/control.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

# The longest time between two looks: as much later a job may hear of us that began late,
# for instance in a worker that was stopped. Seconds.
_LONGEST: Final = 0.05

# From a hand-over until it is looked at: the job has begun by then, unless the CPUs
# are busy, and has mostly told so itself. Seconds.
_SOON: Final = 0.002


class Beginner(Protocol):
    """What must be known of a worker."""

    def looked_at(self) -> bool:
        """Ring unless its job is over; return False if it has yet to begin."""
        ...


class Lookout:
    """Looks after jobs that were handed over. One timer, however many there are.

    Args:
        loop: the pool's loop.
        looked: called after each look.

    Runs on: the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, looked: Callable[[], None]) -> None:
        self._loop = loop
        self._looked = looked
        self._workers: list[Beginner] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waits = _SOON  # how long the timer runs in all

    def expect(self, worker: Beginner) -> None:
        """Look soon whether the job of *worker* has begun, which was handed over just now."""
        self._workers.append(worker)
        if self._timer is None or self._waits > _SOON:
            self._look_in(_SOON)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waits = seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        # Who is told of a beginning may hand over the next job in the same call.
        workers, self._workers = self._workers, []
        self._workers += [worker for worker in workers if not worker.looked_at()]
        if self._workers and self._timer is None:
            self._look_in(min(2 * self._waits, _LONGEST))
        self._looked()
