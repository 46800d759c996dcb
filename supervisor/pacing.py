"""How fast to refill. Pure.

A job that has just begun should not share its CPU with the birth of its
successor. So while the CPUs are busy, spares are started after a short pause and
in growing batches: 1, 2, 4 … (Apache's prefork server refills like that; Android
delays the refill of its zygote pool after a launch). Workers that a waiting job
needs are never held back.
"""

from __future__ import annotations

from typing import Final

import msgspec

# Long enough for a short job to be over before its successor is born, short
# against anything that a person notices.
PAUSE: Final = 0.005

# The batch is back at one when nothing had to be refilled for so long.
QUIET: Final = 0.25


class Leave(msgspec.Struct, frozen=True, gc=False):
    """How many to start now, and when to ask again if that is not all of them."""

    count: int
    again_in: float | None = None


class Pacing:
    """Says how many spares may be started now.

    All moments are monotonic seconds, given by the caller.
    """

    def __init__(self) -> None:
        self._batch = 1
        self._next_at = float("-inf")
        self._last_at = float("-inf")

    def leave(self, wanted: int, *, urgent: int, busy: bool, now: float) -> Leave:
        """Return how many of *wanted* workers may be started at *now*.

        Args:
            wanted: what the plan asks for.
            urgent: how many of them a waiting job needs: granted at once.
            busy: at least as many jobs run as there are CPUs.
            now: this moment.
        """
        spares = wanted - urgent
        if spares <= 0:
            return Leave(wanted)
        if not busy:
            self._batch = 1
            self._next_at = float("-inf")
            return Leave(wanted)
        if now - self._last_at > QUIET:
            self._batch = 1
            self._next_at = now + PAUSE
        self._last_at = now
        if now < self._next_at:
            return Leave(urgent, self._next_at - now)
        granted = min(spares, self._batch)
        self._batch *= 2
        self._next_at = now + PAUSE
        return Leave(urgent + granted, PAUSE if granted < spares else None)
