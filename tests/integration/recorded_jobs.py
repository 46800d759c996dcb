"""Jobs that leave evidence: each appends one line to a ledger before it does anything else.

A line is under PIPE_BUF and written by one ``write`` with O_APPEND, so lines of
processes that write at the same time never mix. It holds what the invariants
need: which job, in which process, warmed by which run of ``setup_fnc`` and when.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from supervisor import JobContext, JobProcess, get_job_context
from supervisor.errors import JobCancelled

# Well over what a warm worker weighs, well under what a test machine has.
HOG_MB: Final = 160
HOG_LIMIT_MB: Final = 80.0


@dataclass(frozen=True)
class Entry:
    """One execution of one job, as the job saw it. Moments in monotonic seconds."""

    job: str
    pid: int
    began_at: float
    setup_pid: int
    setup_done_at: float
    setup_token: str  # one for each run of setup_fnc: a process id may be used again


def set_up(proc: JobProcess) -> None:
    """Warm up for some milliseconds, so that a worker can be met while it does."""
    time.sleep(0.02)
    proc.userdata["token"] = os.urandom(8).hex()
    proc.userdata["pid"] = os.getpid()
    proc.userdata["done_at"] = time.monotonic()


async def set_up_later(proc: JobProcess) -> None:
    """The same, async."""
    await asyncio.sleep(0.02)
    set_up(proc)


def note(ledger: str, job: str) -> None:
    """Write that *job* has begun here."""
    began_at = time.monotonic()
    warm = get_job_context().proc.userdata
    line = f"{job} {os.getpid()} {began_at} {warm['pid']} {warm['done_at']} {warm['token']}\n"
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_ledger(ledger: str) -> list[Entry]:
    """Return every execution that was noted."""
    entries = []
    with open(ledger, encoding="ascii") as file:
        for line in file:
            job, pid, began, setup_pid, setup_done, token = line.split()
            entries.append(
                Entry(job, int(pid), float(began), int(setup_pid), float(setup_done), token)
            )
    return entries


# ── what a job may do after it was noted ─────────────────────────────────────


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


def noted(ledger: str, job: str, deed: str) -> object:
    """Note that the job has begun, and do the deed."""
    note(ledger, job)
    return DEEDS[deed]()


async def noted_async(ledger: str, job: str, for_ever: bool) -> str:
    """The same for a coroutine: return, or wait for ever."""
    note(ledger, job)
    await asyncio.sleep(0)
    if for_ever:
        await asyncio.Event().wait()
    return "value"


def noted_for_a_while(ledger: str, job: str, seed: int) -> str:
    """Take up to twenty milliseconds, by computing or by waiting."""
    note(ledger, job)
    chance = random.Random(seed)
    until = time.monotonic() + chance.uniform(0.0, 0.02)
    if chance.random() < 0.5:
        while time.monotonic() < until:
            pass
    else:
        time.sleep(max(0.0, until - time.monotonic()))
    return "value"
