"""When each worker's turn to be pinged comes. Pure.

A ping interval is a round of so many places, and a worker keeps its place for life. Those
that were born one after the other share one, so that a small pool wakes up once in a round.
But not too many of them: each ping takes 40 µs of the loop, and a hand-over waits for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PLACES: Final = 16

# A hand-over waits for two milliseconds at most, up to 512 workers.
TOGETHER: Final = 32


def steps_to(number: int, after: int) -> int:
    """Return how many places after the place *after* comes that of worker *number*; 1 to 16."""
    return (number // TOGETHER - after - 1) % PLACES + 1


def steps_to_next(numbers: Iterable[int], after: int) -> int:
    """Return how many places after *after* somebody is; a whole round if nobody is anywhere."""
    return min((steps_to(number, after) for number in numbers), default=PLACES)
