"""How many failures are too many, and how long to wait after one. Pure.

The window is Erlang/OTP's: ``intensity`` failures within ``period`` seconds mean
that restarting does not help. Source: OTP ``supervisor``, "restart
intensity and period"; their defaults are 1 in 5 s, ours are 5 in 30 s because
one bad deploy kills every warm worker at the same moment.

A success empties the window: a setup that works now and then is a slow pool,
not a broken one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

INTENSITY: Final = 5
PERIOD: Final = 30.0

# The first retry comes at once for all practical purposes; the tenth and later
# ones every 10 s: an outage of a model store is noticed soon after it ends, and
# costs one process every 10 s until then.
FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 10.0


class RestartWindow:
    """Count failures in a sliding window, and say when to try again.

    Args:
        intensity: failures that are too many inside one window, 1 or more.
        period: length of the window in seconds, over 0.

    Raises:
        ValueError: one of them is out of range.
    """

    def __init__(self, intensity: int = INTENSITY, period: float = PERIOD) -> None:
        if intensity < 1:
            raise ValueError(f"intensity={intensity}: expected 1 or more")
        if not period > 0:
            raise ValueError(f"period={period}: expected more than 0 seconds")
        self._intensity = intensity
        self._period = period
        self._failures: deque[float] = deque(maxlen=intensity)
        self._in_a_row = 0
        self._waits = 0
        self._not_before = float("-inf")

    @property
    def in_a_row(self) -> int:
        """Failures since the last success."""
        return self._in_a_row

    @property
    def not_before(self) -> float:
        """The moment (monotonic seconds) before which not to try again."""
        return self._not_before

    def record_failure(self, now: float) -> bool:
        """Note a failure at *now* (monotonic seconds); say whether it is one too many."""
        self._failures.append(now)
        self._in_a_row += 1
        # Failures that arrive together (four workers, one bad setup) are one
        # reason to wait, not four: what comes before the deadline does not move it.
        if now >= self._not_before:
            self._not_before = now + min(FIRST_DELAY * 2 ** min(self._waits, 16), LONGEST_DELAY)
            self._waits += 1
        return len(self._failures) == self._intensity and now - self._failures[0] <= self._period

    def record_success(self) -> None:
        """Note that it works: the window is empty again and there is nothing to wait for."""
        self._failures.clear()
        self._in_a_row = 0
        self._waits = 0
        self._not_before = float("-inf")

    def delay(self, now: float) -> float:
        """Return the seconds until the next try is allowed, 0.0 if it is now."""
        return max(0.0, self._not_before - now)
