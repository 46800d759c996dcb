"""What a worker rehearses: jobs with nothing in them, of the kinds that it will get."""

from __future__ import annotations

import pickle
from types import FunctionType
from typing import Final

import msgspec

from ipc.messages import RunJob
from supervisor import byname, travel
from supervisor.child.boot import Hooks
from supervisor.child.calls import is_coroutine_function
from supervisor.job import JobInfo, Participant, Room, Session, accept_by_default

# Longer than what the interpreter has its own allocator for: so malloc is rehearsed as well.
_LONG: Final = "x" * 2000

# With something in each place: what has its default is not made anew where it is opened.
_SESSION: Final = Session(
    JobInfo(
        "rehearsal",
        Room("rehearsal"),
        metadata=_LONG,
        publisher=Participant("rehearsal"),
        accept_arguments=accept_by_default("rehearsal"),
    ),
    worker_id="rehearsal",
)


def rehearsed(hooks: Hooks) -> Hooks:
    """Return what a worker with *hooks* has instead while it rehearses."""
    if hooks.entrypoint is None:
        return Hooks()
    is_async = is_coroutine_function(hooks.entrypoint)
    return Hooks(entrypoint=_nothing_async if is_async else _nothing)


def rehearsals(hooks: Hooks) -> list[RunJob]:
    """Return the jobs that a worker with *hooks* rehearses; it has :func:`rehearsed` by then."""
    if hooks.entrypoint is not None:
        session = msgspec.msgpack.encode(_SESSION)
        return [RunJob("rehearsal", travel.SESSION, False, session)]
    named = byname.pack(_nothing, (_LONG,), {})
    assert named is not None, "a function of this module was not found in it"
    return [
        RunJob("rehearsal", travel.PICKLED, False, pickle.dumps((_nothing_async, (_LONG,), {}))),
        RunJob("rehearsal", travel.NAMED, False, named),
    ]


def touch(function: object) -> None:
    """Have the pages copied that are written to when *function*, the user's, is called. Does not call it."""
    if isinstance(function, FunctionType):
        # Who looks at an object counts a reference to it, and that is a write.
        _ = function.__code__, function.__globals__, function.__closure__
        _ = function.__defaults__, function.__kwdefaults__
        _ = function.__name__, function.__qualname__  # a coroutine takes them with it


def _nothing(*context: object) -> None:
    """The rehearsed job, or entrypoint."""


async def _nothing_async(*context: object) -> None:
    """The same as a coroutine."""
