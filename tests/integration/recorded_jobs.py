"""Jobs to be met with in tests: what they do, and the same with a line in a ledger first.

The ledger is the library's own, ``supervisor.testing.ledger``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

from supervisor import JobContext, JobProcess
from supervisor.errors import JobCancelled
from supervisor.testing.ledger import run_and_note, warm_and_note

# Well over what a warm worker weighs, well under what a test machine has.
HOG_MB: Final = 160
HOG_LIMIT_MB: Final = 80.0


def set_up(proc: JobProcess) -> None:
    """Warm up for some milliseconds, so that a worker can be met while it does."""
    time.sleep(0.02)


async def set_up_later(proc: JobProcess) -> None:
    """The same, async."""
    await asyncio.sleep(0.02)


def set_up_and_note(proc: JobProcess) -> None:
    """The first, for the jobs at the end of this file."""
    warm_and_note(set_up, proc)


# ── what a job may do ────────────────────────────────────────────────────────


def return_a_value() -> str:
    return "value"


def raise_an_exception() -> NoReturn:
    raise ValueError("as asked")


def exit_softly() -> NoReturn:
    sys.exit(3)


def exit_hard() -> NoReturn:
    os._exit(7)


def exit_hard_with_success() -> NoReturn:
    os._exit(0)


def die_by(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError(f"signal {number} did not end the process")


def segfault() -> NoReturn:
    die_by(signal.SIGSEGV)


def abort() -> NoReturn:
    die_by(signal.SIGABRT)


def kill_itself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL did not end the process")


def close_all_descriptors() -> None:
    """Close everything, the worker's channel included: it can say nothing any more."""
    os.closerange(0, 1024)


def sleep_for_ever() -> NoReturn:
    while True:
        signal.pause()


def refuse_to_stop() -> NoReturn:
    while True:
        try:
            signal.pause()
        except JobCancelled:
            continue


def use_too_much_memory() -> NoReturn:
    hoard = [b"\1" * 2**20 for _ in range(HOG_MB)]
    assert hoard
    sleep_for_ever()


def leave_a_grandchild() -> str:
    os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)
    return "value"


def leave_a_stray() -> str:
    """Leave one that has left the process group, whose parent is gone."""
    starter = os.posix_spawnp("sh", ["sh", "-c", "setsid sleep 1000 &"], os.environ)
    os.waitpid(starter, 0)
    return "value"


def return_much() -> bytes:
    """Return more than fits into a frame."""
    return bytes(300_000)


async def await_once() -> str:
    await asyncio.sleep(0)
    return "value"


async def await_for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def do_as_the_room_says(ctx: JobContext) -> object:
    """A server's entrypoint: the room's name is the deed."""
    return ALL_DEEDS[ctx.room.name]()


DEEDS: Final[dict[str, Callable[[], object]]] = {
    deed.__name__: deed
    for deed in (
        return_a_value,
        return_much,
        raise_an_exception,
        exit_softly,
        exit_hard,
        exit_hard_with_success,
        segfault,
        abort,
        kill_itself,
        close_all_descriptors,
        sleep_for_ever,
        refuse_to_stop,
        use_too_much_memory,
        leave_a_grandchild,
        leave_a_stray,
    )
}

ASYNC_DEEDS: Final[dict[str, Callable[[], object]]] = {
    "await_once": await_once,
    "await_for_ever": await_for_ever,
}
ALL_DEEDS: Final = {**DEEDS, **ASYNC_DEEDS}


# ── the same, noted ──────────────────────────────────────────────────────────


def noted(ledger: str, job: str, deed: str) -> object:
    """Note that the job has begun, and do the deed."""
    return run_and_note(ledger, job, DEEDS[deed], ())


async def noted_async(ledger: str, job: str, for_ever: bool) -> str:
    """The same for a coroutine: return, or wait for ever."""
    answer: str = await run_and_note(ledger, job, await_for_ever if for_ever else await_once, ())
    return answer


def noted_for_a_while(ledger: str, job: str, seed: int) -> str:
    """Take up to twenty milliseconds, by computing or by waiting."""
    answer: str = run_and_note(ledger, job, take_a_while, (seed,))
    return answer


def take_a_while(seed: int) -> str:
    chance = random.Random(seed)
    until = time.monotonic() + chance.uniform(0.0, 0.02)
    if chance.random() < 0.5:
        while time.monotonic() < until:
            pass
    else:
        time.sleep(max(0.0, until - time.monotonic()))
    return "value"
