"""What happens around a fork: to those that user code makes, and to ours that makes a worker.

Python calls hooks at every fork. Ours are for forks of user code; a fork that makes a
worker goes on without them, and costs one look at a flag: nothing else runs in the one
process of the machine that forks all the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Protocol


class Forked(Protocol):
    """What has to know of forks. What one of the methods raises ends where Python's hooks end."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


class _State(threading.local):
    """Of the thread that forks."""

    forking = False
    then: Callable[[FrameType], object] | None = None


_state = _State()
_making_worker = False
_all: list[weakref.ref[Forked]] = []


def tell_of_forks(who: Forked) -> None:
    """Call *who* around each fork that user code makes, as long as it is there.

    Before a fork the last who asked comes first, after it the first. Runs on: any thread.
    """
    if not _all:
        os.register_at_fork(
            before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
        )
    _all.append(weakref.ref(who))


def is_forking(frame: FrameType | None) -> bool:
    """Return whether this thread, in *frame*, is in a fork of the user's: what is raised there is lost."""
    if frame is not None and frame.f_code is _before.__code__:
        return True  # on its first line, before it could say so
    return _state.forking


def when_forked(then: Callable[[FrameType], object]) -> None:
    """When everybody was told, in the parent, call *then* with the frame that forks.

    Runs on: a thread in whose fork we are.
    """
    _state.then = then


def fork_worker() -> int:
    """Fork, as ``os.fork``; nobody is told. This process has one thread.

    Raises:
        OSError: as ``os.fork``.
    """
    global _making_worker  # noqa: PLW0603 - read by hooks, which are not handed anything
    _making_worker = True
    try:
        return os.fork()
    finally:
        _making_worker = False


def _before() -> None:
    if _making_worker:
        return
    _state.forking = True
    for who in reversed(_those_left()):
        who.before_fork()


def _after_in_parent() -> None:
    if _making_worker:
        return
    try:
        with contextlib.ExitStack() as stack:  # each of them, whatever the others raise
            for who in reversed(_those_left()):
                stack.callback(who.after_fork_in_parent)
    finally:
        _state.forking = False
        then, _state.then = _state.then, None
        if then is not None:
            then(sys._getframe(1))


def _after_in_child() -> None:
    if _making_worker:
        return
    try:
        with contextlib.ExitStack() as stack:
            for who in reversed(_those_left()):
                stack.callback(who.after_fork_in_child)
    finally:
        _state.forking = False
        _state.then = None


def _those_left() -> list[Forked]:
    return [who for each in _all if (who := each()) is not None]
