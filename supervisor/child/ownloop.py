"""The event loop that a plain function runs itself, and how it is stopped.

asyncio keeps most of what a callback raises from the one who runs the loop, and does its
own bookkeeping in callbacks: an exception raised in the middle of one is lost, or leaves a
task that nobody ever wakes. So such a loop is asked, as asyncio does it for SIGINT: what it
runs until complete is cancelled; a loop that runs for ever is stopped.

Loops of other makers (uvloop) are not seen here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class LoopRun:
    """One run of a loop, under way."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any] | None  # None: for ever
    caller: FrameType | None  # who runs it


def loop_run(frame: FrameType | None) -> LoopRun | None:
    """Return the innermost run of a loop that *frame* is called by. Runs on: the frame's thread."""
    # Asked for each time: the code of functions is moved (layout.py).
    for_ever = asyncio.BaseEventLoop.run_forever.__code__
    until_complete = asyncio.BaseEventLoop.run_until_complete.__code__
    while frame is not None and frame.f_code is not for_ever:
        frame = frame.f_back
    if frame is None:
        return None
    loop = frame.f_locals["self"]
    caller = frame.f_back
    if caller is None or caller.f_code is not until_complete:
        return LoopRun(loop, None, caller)
    return LoopRun(loop, caller.f_locals["future"], caller.f_back)
