"""Jobs with nothing in them, of the kinds that a worker will get."""

from __future__ import annotations

import pickle
from typing import Final

import msgspec

from ipc.messages import RunJob
from supervisor.child.boot import Hooks
from supervisor.job import JobInfo, Session


def rehearsals(hooks: Hooks) -> list[RunJob]:
    """Return what a worker with *hooks* rehearses; it must have :data:`REHEARSED` instead by then."""
    if hooks.entrypoint is not None:
        session = msgspec.msgpack.encode(Session(JobInfo("rehearsal")))
        return [RunJob("rehearsal", "session", False, session)]
    return [
        RunJob("rehearsal", "call", False, pickle.dumps((_nothing_async, (), {}))),
        RunJob("rehearsal", "call", False, pickle.dumps((_nothing, (), {}))),
    ]


def _nothing() -> None:
    """The rehearsed job."""


async def _nothing_async(*context: object) -> None:
    """The rehearsed coroutine, and the entrypoint of who has one."""


REHEARSED: Final = Hooks(entrypoint=_nothing_async)
