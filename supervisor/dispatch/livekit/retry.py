"""How long to wait before the next attempt, and when to stop trying. Pure.

After a connection that worked the first attempt comes nearly at once: the calls
in progress need their statuses reported. The wait then doubles from half a
second to ten. Every wait is drawn from a range, so that the many servers that one
restart of LiveKit has cut off do not come back in the same instant.

What counts as having worked is a registration, not an open socket: a server that
accepts and then hangs up would otherwise be called on without a pause.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

FIRST_WAIT: Final = 0.1  # at most, after a connection that worked
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 10.0


class Retries:
    """Counts failed attempts in a row.

    Args:
        limit: attempts that may fail in a row; at least one is made.
        draw: returns a number from 0.0 to 1.0; for tests.
    """

    def __init__(self, limit: int, draw: Callable[[], float] = random.random) -> None:
        self._limit = max(1, limit)
        self._draw = draw
        self.failures = 0

    @property
    def exhausted(self) -> bool:
        """True once as many attempts in a row have failed as are allowed."""
        return self.failures >= self._limit

    def succeeded(self) -> None:
        """A registration has succeeded."""
        self.failures = 0

    def failed(self) -> None:
        """An attempt ended without a registration."""
        self.failures += 1

    @property
    def wait(self) -> float:
        """Seconds until the next attempt, drawn anew each time it is read."""
        if self.failures == 0:
            return FIRST_WAIT * self._draw()
        # The exponent is bounded: a limit of many thousands must not overflow a float.
        middle = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(self.failures - 1, 10))
        return middle * (0.5 + self._draw())
