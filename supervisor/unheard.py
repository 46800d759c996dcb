"""Signals that the loop does not come to, because something blocks it.

What is asked for on the loop then (a drain, its deadline) does not happen, however often it is
asked for. A handler in Python still runs, between two instructions of what blocks or when its
system call is interrupted: it can say where that is, and end the process for who insists.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Final

from supervisor import clock

# A loop may be busy for a moment, and a person may press Ctrl-C three times in that. Seconds.
_PATIENCE: Final = 1.0


class Unheard:
    """Counts signals that have come and that the loop has not heard of.

    Runs on: the main thread, every method.
    """

    def __init__(self) -> None:
        self._since: float | None = None  # when the first of them came
        self._told = False

    def came(self, number: int, frame: FrameType | None) -> None:
        """A signal came. The handler of signals, in the middle of whatever is under way.

        One that comes when others have not been heard for a second says what blocks the loop;
        the next one ends this process. The fork server then kills all workers, as after
        any other death of ours.
        """
        now = clock.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since >= _PATIENCE:
            name, seconds = signal.Signals(number).name, now - self._since
            if self._told:
                os._exit(128 + number)
            self._told = True
            _say(
                f"{name} again, and the event loop has been blocked for {seconds:.1f} s at least. "
                "The next one ends this process at once, and its jobs with it. It is here:\n"
                + "".join(traceback.format_stack(frame))
            )

    def heard(self) -> None:
        """The loop has come to one of them: it is not blocked."""
        self._since = None
        self._told = False


def _say(text: str) -> None:
    # Not the log: this may be in the middle of one of its records.
    data = f"greenroom: {text}".encode(errors="replace")
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, data)
    except OSError:
        pass  # nobody reads; the signal counts all the same
