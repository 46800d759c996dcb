"""A request to stop the job, from the thread that hears it to the thread that can act on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ipc.messages import Stop


class StopRequest:
    """A request to stop, kept until somebody can act on it.

    Written by the control thread, read by the main thread; the lock makes
    "register a canceller" and "ask" meet, whichever comes first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._canceller: Callable[[str], None] | None = None
        self.reason: str | None = None
        self._grace = 0.0
        self._deadline = 0.0

    def ask(self, stop: Stop) -> None:
        """Note the request and cancel what runs. Runs on: the control thread."""
        with self._lock:
            if self.reason is None:
                self.reason = stop.reason
            self._grace = stop.grace
            self._deadline = time.monotonic() + stop.grace
            canceller = self._canceller
            if canceller is not None:
                canceller(self.reason)

    def register(self, canceller: Callable[[str], None] | None) -> None:
        """Have *canceller* called with the reason; at once if the request is there."""
        with self._lock:
            self._canceller = canceller
            if canceller is not None and self.reason is not None:
                canceller(self.reason)

    @property
    def grace(self) -> float:
        """The seconds that the supervisor gave, counted from the request."""
        return self._grace

    def remaining(self, otherwise: float) -> float:
        """Return the seconds left of the grace, or *otherwise* if nobody asked."""
        if self.reason is None:
            return otherwise
        return max(0.0, self._deadline - time.monotonic())
