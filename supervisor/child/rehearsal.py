"""What a worker rehearses: jobs with nothing in them, of the kinds that it will get."""

from __future__ import annotations

import pickle
from types import FunctionType

import msgspec

from ipc.messages import RunJob
from supervisor import byname, travel
from supervisor.child.boot import Hooks
from supervisor.child.calls import is_coroutine_function
from supervisor.job import JobInfo, Session


def rehearsed(hooks: Hooks) -> Hooks:
    """Return what a worker with *hooks* has instead while it rehearses."""
    if hooks.entrypoint is None:
        return Hooks()
    is_async = is_coroutine_function(hooks.entrypoint)
    return Hooks(entrypoint=_nothing_async if is_async else _nothing)


def rehearsals(hooks: Hooks) -> list[RunJob]:
    """Return the jobs that a worker with *hooks* rehearses; it has :func:`rehearsed` by then."""
    if hooks.entrypoint is not None:
        session = msgspec.msgpack.encode(Session(JobInfo("rehearsal")))
        return [RunJob("rehearsal", travel.SESSION, False, session)]
    named = byname.pack(_nothing, (), {})
    assert named is not None, "a function of this module was not found in it"
    return [
        RunJob("rehearsal", travel.PICKLED, False, pickle.dumps((_nothing_async, (), {}))),
        RunJob("rehearsal", travel.NAMED, False, named),
    ]


def touch(function: object) -> None:
    """Have the pages copied that are written to when *function*, the user's, is called. Does not call it."""
    if isinstance(function, FunctionType):
        # Who looks at an object counts a reference to it, and that is a write.
        _ = function.__code__, function.__globals__


def _nothing(*context: object) -> None:
    """The rehearsed job, or entrypoint."""


async def _nothing_async(*context: object) -> None:
    """The same as a coroutine."""
