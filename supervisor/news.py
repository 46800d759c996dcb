"""Seeing to it that the end of a worker that was killed is reported.

Its parent reports it, within milliseconds. A fork server that was stopped (a
debugger, SIGSTOP) reports nothing, and must not leave us waiting for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from supervisor.launch import has_ended

# The report of a worker's death follows a kill within milliseconds. After so many
# seconds the fork server is told to go on, in case it was stopped, and after so
# many times it is killed: sooner at the end, when it is not needed any more.
SECONDS: Final = 0.1
_TIMES: Final = 50
_TIMES_AT_THE_END: Final = 3


class Parent(Protocol):
    """Who has the news."""

    def nudge(self) -> None:
        """Have it go on if it was stopped."""

    def abandon(self) -> None:
        """Give it up: others will find out."""


class Awaited(Protocol):
    """The worker whose end is awaited."""

    pidfd: int | None


class News:
    """Asks for the end of workers that were killed.

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

    def expect(self, number: int) -> None:
        """From now on the end of worker *number* is awaited."""
        self._loop.call_later(SECONDS, self._ask, number, 1)

    def _ask(self, number: int, times: int) -> None:
        worker = self._find(number)
        if worker is None:
            return
        # The kernel knows that it is dead, or it was never announced: then its
        # parent has news and does not tell them. It may have been stopped.
        if worker.pidfd is None or has_ended(worker.pidfd):
            patience = _TIMES_AT_THE_END if self._at_the_end() else _TIMES
            if times < patience:
                self._parent.nudge()
            else:
                self._parent.abandon()
        self._loop.call_later(SECONDS, self._ask, number, times + 1)
