"""Signals that the loop does not come to, because something blocks it.

What is asked for on the loop then (a drain, its deadline) does not happen, however often it is
asked for. A handler in Python still runs, between two instructions of what blocks or when its
system call is interrupted: it can say where that is, and end the process for who insists.
"""

from __future__ import annotations

import os
import select
import signal
import traceback
from types import FrameType
from typing import Final

from supervisor import clock

# A loop may be busy for a moment, and a person may press Ctrl-C three times in that. Seconds.
_PATIENCE: Final = 1.0

_STDERR: Final = 2


class Unheard:
    """Counts signals that have come and that the loop has not heard of.

    Runs on: the main thread, every method.
    """

    def __init__(self) -> None:
        self._since: float | None = None  # when the first of them came
        self._telling = False
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
        elif self._told:
            os._exit(128 + number)
        elif now - self._since >= _PATIENCE and not self._telling:
            # Others may come in the middle of this, which takes its time: they wait for it.
            self._telling = True
            try:
                _say(
                    f"{signal.Signals(number).name} again, and the event loop has been blocked "
                    f"for {now - self._since:.1f} s at least. The next one ends this process at "
                    "once, and its jobs with it. It is here:\n",
                    traceback.format_stack(frame),
                )
            finally:
                self._telling = False
            self._told = True

    def heard(self) -> None:
        """The loop has come to one of them: it is not blocked."""
        self._since = None
        self._told = False


def _say(text: str, stack: list[str]) -> None:
    """Write *text*, and as much of the end of *stack* as surely fits, to stderr. Never waits.

    Not to the log: this may be in the middle of one of its records.
    """
    head = f"greenroom: {text}".encode()
    tail = "".join(stack).encode(errors="replace")
    # A pipe that can be written to takes so much at once (pipe(7)).
    tail = tail[max(0, len(head) + len(tail) - select.PIPE_BUF) :]
    poll = select.poll()
    try:
        poll.register(_STDERR, select.POLLOUT)
        if poll.poll(0):
            os.write(_STDERR, head + tail)
    except OSError:
        pass  # nobody reads; the signal counts all the same
