"""Finding out when jobs begin that cannot say so.

A job that holds the interpreter's lock from its first line on keeps its own process from
telling; its mark is set all the same (``beginning.py``). So a moment after a hand-over
marks are read, and again, each time after twice as long, until all have begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

# From a hand-over until it is looked at: the job has begun by then, unless the CPUs
# are busy, and has mostly told so itself. Seconds.
_SOON: Final = 0.002


class Beginner(Protocol):
    """What must be known of a worker."""

    def has_begun(self) -> bool:
        """Return whether its job has begun, or is no more."""
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
        self._workers += [worker for worker in workers if not worker.has_begun()]
        if self._workers and self._timer is None:
            self._look_in(2 * self._waits)
        self._looked()
