"""How many failures are too many, how long to wait after one, how often to tell. Pure.

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

# What goes on failing is told at once, then after 1, 2, 4 … seconds, and every
# minute in the end: an hour of it is some sixty lines, however often it was tried.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# Without a failure for so long it has ended, and the next one is news again.
ENDED_AFTER: Final = 10.0


class RestartWindow:
    """Count failures in a sliding window, and say when to try again.

    Args:
        intensity: failures that are too many inside one window, 1 or more.
        period: length of the window in seconds, over 0.
        longest_delay: seconds that a wait may grow to.

    Raises:
        ValueError: one of them is out of range.
    """

    def __init__(
        self,
        intensity: int = INTENSITY,
        period: float = PERIOD,
        longest_delay: float = LONGEST_DELAY,
    ) -> None:
        if intensity < 1:
            raise ValueError(f"intensity={intensity}: expected 1 or more")
        if not period > 0:
            raise ValueError(f"period={period}: expected more than 0 seconds")
        self._intensity = intensity
        self._period = period
        self._longest_delay = longest_delay
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
            delay = FIRST_DELAY * 2 ** min(self._waits, 16)
            self._not_before = now + min(delay, self._longest_delay)
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


class Reminders:
    """Says which of many failures of one kind to tell: the first, and then ever more rarely.

    A success between two failures does not make the second one news: where there is
    not enough of something, some get it and others do not, for as long as that lasts.
    """

    def __init__(self) -> None:
        self._untold = 0
        self._pause = FIRST_PAUSE
        self._not_before = float("-inf")
        self._last = float("-inf")

    def failures_to_tell(self, now: float) -> int:
        """Note a failure at *now* (monotonic seconds); return how many to tell of, 0 for silence."""
        if now - self._last > ENDED_AFTER:
            self._untold, self._pause, self._not_before = 0, FIRST_PAUSE, float("-inf")
        self._last = now
        self._untold += 1
        if now < self._not_before:
            return 0
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        told, self._untold = self._untold, 0
        return told
