"""Stopping a plain function from outside: JobCancelled, raised in the main thread.

A signal is the only thing that reaches a thread inside a system call such as
``sleep`` or ``recv``: the call returns EINTR, Python runs the handler, and the
handler raises. Code that holds the GIL in C, or that catches the exception, is
not reached; the kill at the end of the grace is for those.

Where Python itself would swallow it, it is raised further out, in the frame that goes on
when that is over, by a trace function that waits for this frame's next instruction (the
next line may be that of a ``finally``, which would be skipped):

* In finalizers (``__del__``), callbacks of weak references and the like. Nobody can tell
  beforehand; Python calls ``sys.unraisablehook`` when it has swallowed something.
* In hooks at fork.

In ``sys.unraisablehook`` itself it is not raised at all: the request is repeated. And between
two rounds of a loop it waits for the next instruction, in CPython 3.11 and 3.12: they look up
who handles it as if it had been raised before the loop, and a ``try`` that begins with the loop
would be passed by.

An event loop that the function runs itself is asked (ownloop.py). Only a callback that keeps
the loop from coming to that is interrupted.

The supervisor sends the same signal where the control thread may be kept from the interpreter's
lock. Then there is nothing to raise yet, and the main thread lets that one in first.
"""

from __future__ import annotations

import asyncio
import opcode
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeGuard

from ipc.nudge import NUDGE
from supervisor.child.forks import is_forking, when_forked
from supervisor.child.handlers import set_handler
from supervisor.child.ownloop import LoopRun, loop_run
from supervisor.errors import JobCancelled

# After these, 3.11 and 3.12 look for signals and then up the wrong handler.
_JUMPS_BACK: Final = (
    frozenset(code for name, code in opcode.opmap.items() if "JUMP_BACKWARD" in name)
    if sys.version_info[:2] in ((3, 11), (3, 12))
    else frozenset()
)

# How often a loop is asked before its callback is interrupted. It is ten times a second.
_PATIENCE: Final = 5


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
        self._target: FrameType | None = None  # where it is raised when that goes on
        # A loop of the job's that was asked, how often, and what it has to do.
        self._asked: LoopRun | None = None
        self._times_asked = 0
        self._to_do: asyncio.Handle | None = None
        self._on_swallowed: Callable[[], None] | None = None
        self._give_way: Callable[[], bool] | None = None
        self._giving_way = False
        self._nudged_early = False
        self._hook: Callable[[Any], object] | None = None
        self._usual_hook: Callable[[Any], object] = sys.__unraisablehook__

    def install(self, on_swallowed: Callable[[], None], give_way: Callable[[], bool]) -> None:
        """Take the signal, and the hook that is called where exceptions end.

        Runs on: the main thread.

        Args:
            on_swallowed: called when nobody saw the exception, and it is not certain that
                somebody will: :meth:`fire_again` is to be called soon.
            give_way: called when the signal came and nobody had asked for the exception: the
                one who would may be waiting for the interpreter's lock. Returns whether
                there is such a one; if not, it is called again before user code is entered.
        """
        self._main = threading.get_ident()
        self._on_swallowed, self._give_way = on_swallowed, give_way
        set_handler(NUDGE, self._handle)
        self._hear_of_swallowed()

    def uninstall(self) -> None:
        """Put back the hook that was there, where no process ends with it."""
        if sys.unraisablehook is self._hook:
            sys.unraisablehook = self._usual_hook

    def fire(self, reason: str) -> None:
        """Ask for the exception. Runs on: any thread."""
        self._reason = reason
        signal.pthread_kill(self._main, NUDGE)

    def fire_again(self) -> bool:
        """Send the signal once more if nobody has acted on it; return whether that was so.

        Runs on: the control thread. A signal that comes after Python has looked
        for signals and before the system call begins is noted, and the call
        blocks all the same: nothing would ever look again.
        """
        if self._reason is None:
            return False
        signal.pthread_kill(self._main, NUDGE)
        return True

    def reset(self) -> None:
        """Forget a request that was not raised. Runs on: the main thread."""
        self._reason = None

    def arm(self) -> None:
        """From now on a request raises, once; here and now if there is one already.

        Call it inside the ``try`` that ends in :meth:`disarm`. Runs on: the main thread.
        """
        self._armed = True
        if sys.unraisablehook is not self._hook:  # user code has set another
            self._hear_of_swallowed()
        if self._nudged_early:
            self._let_in()
        self._raise_if_asked()

    def disarm(self) -> None:
        """From now on a request is kept. Runs on: the main thread."""
        self._armed = False
        self._raised = None
        self._forget_loop()
        if self._target is not None:
            self._drop_target()

    # ── what runs in the middle of user code ─────────────────────────────────

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._giving_way:
            return  # it has been let in: whoever did that goes on from there
        if self._reason is None:
            self._let_in()
        if not self._armed or self._reason is None:
            return
        if is_forking(frame):
            when_forked(self._stop_in)
        elif not (
            self._is_in_hook(frame)  # where it would be lost; it is repeated
            or self._ask_loop(frame)
            or (_between_rounds(frame) and self._stop_in(frame))
        ):
            self._raise_if_asked()

    def _let_in(self) -> None:
        """Let in who may have to say why the signal came."""
        assert self._give_way is not None, "installed before the handler"
        self._giving_way = True
        try:
            self._nudged_early = not self._give_way()
        finally:
            self._giving_way = False

    def _raise_if_asked(self) -> None:
        if self._reason is not None:
            self._raised, self._reason = self._reason, None
            # Once: clean-up code of the job must be able to run.
            self._armed = False
            raise JobCancelled(self._raised)

    def _hear_of_swallowed(self) -> None:
        usual = sys.unraisablehook

        def hook(what: sys.UnraisableHookArgs) -> None:
            if self._raised is None or not isinstance(what.exc_value, JobCancelled):
                usual(what)
                return
            self._reason, self._raised = self._raised, None
            below = _below_hooks(sys._getframe(1), self._hook)
            certain = below is not None and self._stop_in(below)
            if not certain and self._on_swallowed is not None:
                self._on_swallowed()
            self._armed = True  # at last: what is raised in here would be swallowed as well

        self._hook, self._usual_hook = hook, usual
        sys.unraisablehook = hook

    def _is_in_hook(self, frame: FrameType | None) -> bool:
        code = getattr(self._hook, "__code__", None)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def _ask_loop(self, frame: FrameType | None) -> bool:
        """Ask the loop that *frame* is called by to end; return False if there is none to ask."""
        run = loop_run(frame)
        if run is None:
            return False
        if run != self._asked:
            self._asked, self._times_asked = run, 0
            self._to_do = run.loop.call_soon_threadsafe(self._end_loop, run)
        if self._times_asked == _PATIENCE:
            if self._to_do is not None and _runs_itself(run):
                self._to_do.cancel()  # what cleans up after the exception is not to be cancelled
            return False
        self._times_asked += 1
        return True

    def _end_loop(self, run: LoopRun) -> None:
        """Do what the loop was asked for. Runs on: that loop."""
        if run is not self._asked:
            return  # of a job that is over
        reason = self._reason or self._raised  # raised: in a callback, and asyncio has it now
        if reason is not None and run.future is None:
            self._reason, self._raised, self._armed = reason, None, True
            run.loop.stop()
            self._forget_loop()
            if run.caller is not None:
                self._stop_in(run.caller)
            return
        if reason is not None and run.future is not None and run.future.cancel():
            self._reason, self._raised, self._armed = None, reason, False
        self._forget_loop()

    def _forget_loop(self) -> None:
        self._asked = self._to_do = None  # with the frames that they hold

    def _stop_in(self, frame: FrameType) -> bool:
        """Stop what *frame* does as soon as it goes on; return whether that is certain."""
        if self._ask_loop(frame):
            return False
        if sys.gettrace() not in (None, self._traced):
            return False  # somebody else traces
        if self._target is not None:
            self._drop_target()
        self._target = frame
        frame.f_trace, frame.f_trace_opcodes = self._traced, True
        sys.settrace(self._traced)
        return True

    def _traced(self, frame: FrameType, event: str, argument: Any) -> None:
        # Called for each function that is entered, and for what happens in the target.
        if frame is not self._target:
            return
        self._drop_target()
        if event == "exception" and issubclass(argument[0], JobCancelled):
            return  # a second one would cut short what cleans up after the first
        self._raise_if_asked()

    def _drop_target(self) -> None:
        sys.settrace(None)
        if self._target is not None:
            self._target.f_trace, self._target.f_trace_opcodes = None, False
            self._target = None


def _runs_itself(run: LoopRun) -> bool:
    """Return whether what the loop runs until complete is on turn, and no other callback."""
    return run.future is not None and asyncio.current_task(run.loop) is run.future


def _between_rounds(frame: FrameType | None) -> TypeGuard[FrameType]:
    return frame is not None and frame.f_code.co_code[frame.f_lasti] in _JUMPS_BACK


def _below_hooks(frame: FrameType | None, ours: object) -> FrameType | None:
    """Return the frame in which something was swallowed, from *frame*, which called our hook.

    That is mostly the one. But the job may have set a hook that calls ours. None: who knows.
    """
    hook: Any = sys.unraisablehook
    if hook is ours:
        return frame
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else frame.f_back
