"""The processes of a run, as the kernel shows them: who lives, and who must not.

The harness is a child subreaper. Whatever a server leaves behind, however often it
forked and whatever session it made, falls to the harness in the end; so what is
not below the harness is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Final

import psutil

from tests.chaos.journal import birth_of

PR_SET_CHILD_SUBREAPER: Final = 36

# What must be gone is looked for this often; the kernel tells nobody about
# processes that are not its children.
LOOK_SECONDS: Final = 0.02


def become_subreaper() -> None:
    """Have orphans of what we start fall to us."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER)")


def below_us() -> list[psutil.Process]:
    """Return the living descendants of this process."""
    return [each for each in psutil.Process().children(recursive=True) if birth_of(each.pid)]


def reap_orphans(but: int | None) -> None:
    """Reap the dead that fell to us, *but* the one that somebody else waits for."""
    for child in psutil.Process().children():
        if child.pid != but and birth_of(child.pid) is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)


async def seconds_until_nothing_is_left(limit: float) -> tuple[float, list[str]]:
    """Wait until nothing is below us; kill what is left after *limit* seconds.

    Returns:
        How long it took, and a sentence for each process that had to be killed.
    """
    began = time.monotonic()
    while left := below_us():
        if time.monotonic() - began > limit:
            sentences = [_sentence(each) for each in left]
            kill_all_below_us()
            return time.monotonic() - began, sentences
        reap_orphans(None)
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.monotonic() - began
    reap_orphans(None)
    return seconds, []


def kill_all_below_us() -> None:
    """Kill every descendant, and their heirs."""
    while left := below_us():
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        reap_orphans(None)
        time.sleep(LOOK_SECONDS)
    reap_orphans(None)


def _sentence(process: psutil.Process) -> str:
    try:
        command = (" ".join(process.cmdline()) or process.name()).strip()
        age = time.time() - process.create_time()
        waits = Path(f"/proc/{process.pid}/wchan").read_text(encoding="ascii")
        return (
            f"pid {process.pid} of {process.ppid()} ({process.status()} in {waits}, "
            f"{process.num_threads()} threads, {age:.1f} s old): {command}"
        )
    except (psutil.NoSuchProcess, OSError):
        return f"pid {process.pid}"


class Grandchildren:
    """What jobs left behind, by their own account, and whether it is gone in time."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._alive: dict[tuple[int, int], str] = {}

    def note(self, lines: list[list[str]]) -> None:
        """Take in who was left behind."""
        for kind, job, *rest in lines:
            if kind == "g" and "None" not in rest:
                self._alive[int(rest[0]), int(rest[1])] = job

    @property
    def jobs(self) -> set[str]:
        """Those that left something which was not gone when we last looked."""
        return set(self._alive.values())

    def overdue(self, over: dict[str, float]) -> list[tuple[str, str]]:
        """Return the job of, and a sentence for, each that outlived its job by more than the grace; kill it.

        Args:
            over: since when each job's are due to be gone; jobs that are not here are not over.
        """
        sentences = []
        now = time.monotonic()
        for (pid, birth), job in list(self._alive.items()):
            if birth_of(pid) != birth:
                del self._alive[pid, birth]
            elif job in over and now - over[job] > self._grace:
                after = now - over[job]
                sentences.append((job, f"pid {pid} of job {job}, {after:.1f} s after its end"))
                os.kill(pid, signal.SIGKILL)
                del self._alive[pid, birth]
        return sentences
