"""Stopping a plain function from outside: JobCancelled, raised in the main thread.

A signal is the only thing that reaches a thread inside a system call such as
``sleep`` or ``recv``: the call returns EINTR, Python runs the handler, and the
handler raises. Code that holds the GIL in C, or that catches the exception, is
not reached; the kill at the end of the grace is for those.

Finalizers (``__del__``), callbacks of weak references and hooks at fork swallow what is
raised in them, wherever it came from. Python calls ``sys.unraisablehook`` then, and if
it was ours that was swallowed the job is asked again a moment later.

Why SIGURG: its default is to be ignored, so a stray one harms neither this
process before the handler stands nor a program that the job starts; nothing but
out-of-band TCP data uses it. The Go runtime chose it to preempt threads for the
same reasons.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from supervisor.child.forks import is_forking
from supervisor.child.handlers import set_handler
from supervisor.errors import JobCancelled

SIGNAL: Final = signal.SIGURG


class Interrupter:
    """Raises JobCancelled in the main thread, but only while user code runs there.

    The flag is read and written in the main thread only (signal handlers run
    there as well), so it needs no lock. A request that comes before user code is
    entered is kept, and raised as soon as it is.
    """

    def __init__(self) -> None:
        self._armed = False
        self._reason: str | None = None
        self._raised: str | None = None  # what for, while user code runs
        self._main = threading.get_ident()
        self._on_swallowed: Callable[[], None] | None = None
        self._usual_hook: Callable[[Any], object] = sys.__unraisablehook__

    def install(self, on_swallowed: Callable[[], None]) -> None:
        """Take the signal, and the hook that is called where exceptions end.

        Runs on: the main thread.

        Args:
            on_swallowed: called when nobody could see the exception: :meth:`fire_again`
                is to be called soon.
        """
        self._main = threading.get_ident()
        self._on_swallowed = on_swallowed
        set_handler(SIGNAL, self._handle)
        self._usual_hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def fire(self, reason: str) -> None:
        """Ask for the exception. Runs on: any thread."""
        self._reason = reason
        signal.pthread_kill(self._main, SIGNAL)

    def fire_again(self) -> bool:
        """Send the signal once more if nobody has acted on it; return whether that was so.

        Runs on: the control thread. A signal that comes after Python has looked
        for signals and before the system call begins is noted, and the call
        blocks all the same: nothing would ever look again.
        """
        if self._reason is None:
            return False
        signal.pthread_kill(self._main, SIGNAL)
        return True

    def reset(self) -> None:
        """Forget a request that was not raised. Runs on: the main thread."""
        self._reason = None

    def arm(self) -> None:
        """From now on a request raises, once; here and now if there is one already.

        Call it inside the ``try`` that ends in :meth:`disarm`. Runs on: the main thread.
        """
        self._armed = True
        self._raise_if_asked()

    def disarm(self) -> None:
        """From now on a request is kept. Runs on: the main thread."""
        self._armed = False
        self._raised = None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # In a fork the exception would be lost in a hook. The request is repeated.
        if self._armed and not is_forking(frame):
            self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._reason is not None:
            self._raised, self._reason = self._reason, None
            # Once: clean-up code of the job must be able to run.
            self._armed = False
            raise JobCancelled(self._raised)

    def _unraisable(self, what: sys.UnraisableHookArgs) -> None:
        if self._raised is None or not isinstance(what.exc_value, JobCancelled):
            self._usual_hook(what)
            return
        self._reason, self._raised = self._raised, None
        if self._on_swallowed is not None:
            self._on_swallowed()
        self._armed = True  # at last: what is raised in here would be swallowed as well
