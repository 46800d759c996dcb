"""Seeing to it that the end of workers that were killed is reported.

Their parent reports it, within milliseconds. A fork server that was stopped (a
debugger, SIGSTOP) reports nothing, and must not leave us waiting for ever. One that
has hundreds of workers to make or to reap reports one after the other, and is given
the time that takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from supervisor.launch import has_ended

# The report of a worker's death follows a kill within milliseconds. After so many
# seconds the fork server is told to go on, in case it was stopped, and after so
# many times in which nothing was heard of it it is killed: sooner at the end, when it
# is not needed any more.
SECONDS: Final = 0.1
_TIMES: Final = 50
_TIMES_AT_THE_END: Final = 3

# Whatever else it reports, after so many seconds without the one that was due first it has
# forgotten that: thousands of births and deaths, one after the other, take less.
_LONGEST: Final = 30.0


class Parent(Protocol):
    """Who has the news."""

    @property
    def reports(self) -> int:
        """How many it has told; another number means that it is at work."""

    def catch_up(self) -> None:
        """Hear what it has said by now."""

    def nudge(self) -> None:
        """Have it go on if it was stopped."""

    def abandon(self) -> None:
        """Give it up: others will find out."""


class Awaited(Protocol):
    """The worker whose end is awaited."""

    pidfd: int | None


class News:
    """Asks for the end of workers that were killed: with one question for all of them.

    Args:
        loop: the pool's loop.
        parent: who reports ends.
        find: returns the worker of a number, None once its end is known.
        at_the_end: returns whether all that is left is to hear of ends.

    Runs on: the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parent: Parent,
        *,
        find: Callable[[int], Awaited | None],
        at_the_end: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._parent = parent
        self._find = find
        self._at_the_end = at_the_end
        self._since: dict[int, float] = {}  # by number; the one that has been awaited longest first
        self._due_first: int | None = None  # whose end its parent has known for longest, and
        self._due_since = 0.0
        self._asking = False
        self._reports = 0
        self._times = 0

    def expect(self, number: int) -> None:
        """From now on the end of worker *number* is awaited."""
        self._since.setdefault(number, self._loop.time())
        if not self._asking:
            self._asking = True
            self._reports, self._times = self._parent.reports, 0
            self._loop.call_later(SECONDS, self._ask)

    def _ask(self) -> None:
        seconds = self._owed_for()
        if seconds is None or self._has_reported():
            self._times = 0
        else:
            self._times += 1
        if seconds is not None:
            if seconds >= _LONGEST or self._times >= self._patience():
                self._give_up_unless_it_has_said()
            else:
                self._parent.nudge()
        self._asking = bool(self._since)
        if self._asking:
            self._loop.call_later(SECONDS, self._ask)

    def _patience(self) -> int:
        return _TIMES_AT_THE_END if self._at_the_end() else _TIMES

    def _give_up_unless_it_has_said(self) -> None:
        """Hear what it has said before it is judged: our own loop may have stood still."""
        self._parent.catch_up()
        self._times = 0
        seconds = self._owed_for()
        if seconds is not None and (seconds >= _LONGEST or not self._has_reported()):
            self._parent.abandon()

    def _has_reported(self) -> bool:
        before, self._reports = self._reports, self._parent.reports
        return self._reports != before

    def _owed_for(self) -> float | None:
        """Return for how many seconds its parent has known what was due first, None if nothing is."""
        now = self._loop.time()
        first = self._owed(now)
        if first != self._due_first:
            self._due_first, self._due_since = first, now
        return None if first is None else now - self._due_since

    def _owed(self, now: float) -> int | None:
        for number, since in list(self._since.items()):
            worker = self._find(number)
            if worker is None:
                del self._since[number]
            elif now - since < SECONDS:
                return None  # nor any that came after it
            # The kernel knows that it is dead, or it was never announced: then its
            # parent has news and does not tell them. It may have been stopped.
            elif worker.pidfd is None or has_ended(worker.pidfd):
                return number
        return None
