"""Whether the event loop of a job still turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Loop(Protocol):
    """The part of an event loop that the lag probe uses."""

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> object: ...


class LagProbe:
    """Finds out whether an event loop still turns: a callback that must come back.

    Begun with each ping. A loop that does not answer within the threshold is
    reported once, and again each time the delay has doubled.

    Args:
        threshold: seconds.
        report: called with the seconds that the loop has been standing still.
    """

    def __init__(self, threshold: float, report: Callable[[float], None]) -> None:
        self.loop: Loop | None = None
        self.due: float | None = None
        self._threshold = threshold
        self._report = report
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """Send a callback to the loop, unless one is on its way."""
        if self.loop is None or self._began is not None:
            return
        self._began = now
        self.due = now + self._threshold
        try:
            self.loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop was closed: there is nothing to watch any more
            self._answer()

    def check(self, now: float) -> None:
        """Report if the callback is overdue."""
        began, due = self._began, self.due
        if began is None:
            self.due = None
        elif due is not None and now >= due:
            self.due = began + 2 * (due - began)
            self._report(now - began)

    def _answer(self) -> None:
        # Runs on the job's loop. One assignment: nothing that a lock would protect.
        self._began = None
